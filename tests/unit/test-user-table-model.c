/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Random operations on the user table and on a model of it that is too simple
   to be wrong. The seeds are fixed. */

#include "test-unit.h"
#include "director/core/user-table.h"

#define START 1700000000
#define YEAR (365 * 24 * 3600)
#define TAGS 3
#define BACKENDS 8
#define HASHES 120
#define USERS (TAGS * HASHES)
#define KEEP (USER_FLAG_LEASED | USER_FLAG_WEAK | USER_FLAG_MOVING)

struct user {
	bool exists;
	/* seen by the walk that goes on, and there since it began */
	unsigned int walk_seen;
	bool walk_expected;

	uint32_t hash;
	const char *tag;
	uint16_t slot;
	bool dead;
	time_t timestamp;
	enum user_flags flags;
	user_idx_t idx;
};

struct model {
	uint64_t seed;
	unsigned int expire;
	time_t now;

	struct backends *backends;
	struct backend *list[BACKENDS];
	struct user_table *table;
	struct user users[USERS];

	/* what may be removed now */
	bool expiring, sweeping;
	struct user *removing;
	unsigned int removed;

	bool walking;
	uint32_t walk_pos;
};

static struct model m;

static uint32_t below(uint32_t max)
{
	return test_rand_below(&m.seed, max);
}

static struct user *user_by_idx(user_idx_t idx)
{
	for (unsigned int i = 0; i < USERS; i++) {
		if (m.users[i].exists && m.users[i].idx == idx)
			return &m.users[i];
	}
	fail_msg("no user has index %u", idx);
	return NULL;
}

static bool user_expired(const struct user *user)
{
	return user->timestamp + (time_t)m.expire <= m.now;
}

static bool user_alive(const struct user *user)
{
	return user->exists && !user->dead &&
		((user->flags & KEEP) != 0 || !user_expired(user));
}

/* Kept only because of an agreement that doesn't end */
static bool user_stuck(const struct user *user)
{
	return (user->flags & KEEP) == USER_FLAG_WEAK &&
		user->timestamp + (time_t)m.expire + USER_WEAK_MAX_SECS <=
		m.now;
}

static bool user_half_dead(const struct user *user)
{
	return (user->flags & USER_FLAG_LEASED) != 0 &&
		user->timestamp + (time_t)(m.expire / 2) < m.now;
}

static void removed(user_idx_t idx, void *context ATTR_UNUSED)
{
	struct user *user = user_by_idx(idx);

	assert_int_equal(user_table_hash(m.table, idx), user->hash);
	assert_true(user == m.removing ||
		    (m.sweeping && user->dead) ||
		    (m.expiring && (!user_alive(user) || user_stuck(user))));
	user->exists = FALSE;
	user->walk_expected = FALSE;
	m.removed++;
}

static const char *tag_name(unsigned int num)
{
	static const char *const names[TAGS] = { "", "t1", "t2" };

	return names[num];
}

static void add_backend(unsigned int num)
{
	struct ip_addr ip;

	i_zero(&ip);
	ip.family = AF_INET;
	ip.u.ip4.s_addr = htonl((10U << 24) + num);
	m.list[num] = backend_add(m.backends, &ip, NULL, tag_name(num % TAGS),
				  100);
	assert_non_null(m.list[num]);
}

static void model_init(uint64_t seed, unsigned int expire)
{
	i_zero(&m);
	m.seed = seed;
	m.expire = expire;
	m.now = START;
	m.backends = backends_init();
	for (unsigned int i = 0; i < BACKENDS; i++)
		add_backend(i);
	m.table = user_table_init(m.backends, expire, m.now, removed, NULL);
	for (unsigned int i = 0; i < USERS; i++) {
		/* some hashes in a row, some like from a digest */
		uint32_t hash = i / TAGS;

		m.users[i].hash = hash % 2 == 0 ? hash : hash * 0x9e3779b1U;
		m.users[i].tag =
			backends_tag(m.backends, tag_name(i % TAGS));
	}
}

static void model_deinit(void)
{
	user_table_deinit(&m.table);
	backends_deinit(&m.backends);
}

static struct user *random_user(void)
{
	return &m.users[below(USERS)];
}

/* A live backend with the user's tag */
static struct backend *random_backend(const struct user *user)
{
	unsigned int i;

	do {
		i = below(BACKENDS);
	} while (m.list[i]->tag != user->tag);
	return m.list[i];
}

static time_t random_timestamp(void)
{
	switch (below(10)) {
	case 0:
		return m.now - below(2 * m.expire + 1);
	case 1:
		return m.now + below(2 * m.expire + 1);
	case 2:
		return m.now - YEAR + below(2 * YEAR);
	case 3:
		return m.now - m.expire + 1;
	default:
		return m.now;
	}
}

static void op_add(void)
{
	struct user *user = random_user();
	struct backend *backend = random_backend(user);
	time_t timestamp = random_timestamp();
	user_idx_t idx;

	if (user_alive(user))
		return;
	/* an old entry has to make room */
	m.removing = user;
	idx = user_table_add(m.table, user->hash, backend->slot, timestamp,
			     m.now);
	m.removing = NULL;
	assert_false(user->exists);
	assert_int_not_equal(idx, USER_IDX_NONE);
	user->exists = TRUE;
	user->walk_seen = 0;
	user->idx = idx;
	user->slot = backend->slot;
	user->dead = FALSE;
	user->timestamp = timestamp;
	user->flags = 0;
}

static void op_change(void)
{
	struct user *user = random_user();
	enum user_flags add, remove;

	if (!user_alive(user))
		return;
	switch (below(5)) {
	case 0:
		m.removing = user;
		user_table_remove(m.table, user->idx);
		m.removing = NULL;
		assert_false(user->exists);
		break;
	case 1:
		add = below(16);
		remove = below(16);
		user->flags = (user->flags & ENUM_NEGATE(remove)) | add;
		user_table_set_flags(m.table, user->idx, add, remove);
		break;
	case 2:
		user->slot = random_backend(user)->slot;
		user_table_set_slot(m.table, user->idx, user->slot);
		break;
	case 3:
		user->timestamp = random_timestamp();
		user_table_set_timestamp(m.table, user->idx, user->timestamp);
		break;
	case 4:
		/* the end of a session */
		user->flags = 0;
		user_table_set_flags(m.table, user->idx, 0, UINT8_MAX);
		break;
	}
	if (!user_alive(user))
		user->walk_expected = FALSE;
}

static void op_backend(void)
{
	unsigned int num = below(BACKENDS);
	uint16_t slot = m.list[num]->slot;

	for (unsigned int i = 0; i < USERS; i++) {
		if (m.users[i].slot == slot) {
			m.users[i].dead = TRUE;
			m.users[i].walk_expected = FALSE;
		}
	}
	if (below(2) == 0) {
		assert_true(backend_flush(m.backends, m.list[num]));
	} else {
		backend_remove(m.backends, &m.list[num]);
		add_backend(num);
	}
}

static void op_time(void)
{
	switch (below(40)) {
	case 0:
		m.now += YEAR - 5 + below(10);
		break;
	case 1:
		m.now -= YEAR - 5 + below(10);
		break;
	case 2:
		m.now += m.expire;
		break;
	case 3:
		m.now -= below(m.expire + 1);
		break;
	case 4:
		m.now += below(m.expire + 1);
		break;
	default:
		m.now += below(4);
		break;
	}
	for (unsigned int i = 0; i < USERS; i++) {
		if (!user_alive(&m.users[i]))
			m.users[i].walk_expected = FALSE;
	}
}

/* Leased users are refreshed by expiry. */
static void check_refreshed(bool finished)
{
	for (unsigned int i = 0; i < USERS; i++) {
		struct user *user = &m.users[i];

		if (!user->exists || user->dead || !user_half_dead(user))
			continue;
		if (user_table_timestamp(m.table, user->idx) == m.now)
			user->timestamp = m.now;
		else
			assert_false(finished);
	}
}

static void check_expired(void)
{
	time_t next = user_table_next_expire(m.table);
	bool exists = FALSE;

	check_refreshed(TRUE);
	for (unsigned int i = 0; i < USERS; i++) {
		const struct user *user = &m.users[i];

		if (!user->exists)
			continue;
		exists = TRUE;
		if (user->dead)
			continue;
		assert_true(user_alive(user));
		/* Who was kept after his time is looked at again a second
		   later, even if the clock is set back. */
		if (!user_expired(user) &&
		    (user->flags & (USER_FLAG_WEAK | USER_FLAG_MOVING)) == 0)
			assert_true(next <= user->timestamp + m.expire);
		if ((user->flags & USER_FLAG_LEASED) != 0)
			assert_true(next <= user->timestamp + m.expire / 2 + 1);
	}
	if (exists)
		assert_true(next > m.now);
	else
		assert_int_equal(next, 0);
}

static void op_expire(void)
{
	unsigned int max_steps = below(30), turns = 0;
	unsigned int max_turns = below(2) == 0 ? 1 : UINT_MAX;
	bool more = TRUE;

	m.expiring = TRUE;
	while (more && turns++ < max_turns) {
		m.removed = 0;
		more = user_table_expire(m.table, m.now,
					 max_turns == 1 ? max_steps : 500);
		assert_true(m.removed <= 500);
		if (!more)
			check_expired();
		else
			check_refreshed(FALSE);
		assert_true(turns < 100);
	}
	m.expiring = FALSE;
}

static void op_sweep(void)
{
	unsigned int max_steps = below(100);
	bool more;

	m.sweeping = TRUE;
	m.removed = 0;
	more = user_table_sweep(m.table, max_steps);
	assert_true(m.removed <= max_steps);
	m.sweeping = FALSE;
	assert_int_equal(more, backends_have_dead_slots(m.backends));
	if (more)
		return;
	for (unsigned int i = 0; i < USERS; i++)
		assert_false(m.users[i].exists && m.users[i].dead);
}

static bool walk_saw(user_idx_t idx, void *context)
{
	struct user *user = user_by_idx(idx);
	unsigned int *left = context;

	assert_true(user_alive(user));
	assert_int_equal(user->walk_seen++, 0);
	return --*left > 0;
}

static void op_walk(void)
{
	unsigned int left = 1 + below(20);

	if (!m.walking) {
		m.walking = TRUE;
		m.walk_pos = 0;
		for (unsigned int i = 0; i < USERS; i++) {
			m.users[i].walk_seen = 0;
			m.users[i].walk_expected = user_alive(&m.users[i]);
		}
	}
	if (user_table_walk(m.table, &m.walk_pos, m.now, below(200), walk_saw,
			    &left))
		return;
	for (unsigned int i = 0; i < USERS; i++) {
		if (m.users[i].walk_expected)
			assert_int_equal(m.users[i].walk_seen, 1);
	}
	m.walking = FALSE;
}

static void hash_saw(user_idx_t idx, void *context)
{
	unsigned int *count = context;

	assert_true(user_alive(user_by_idx(idx)));
	*count += 1;
}

static void check_all(void)
{
	unsigned int users[BACKENDS], live = 0, seen = 0, expected = 0;
	const struct user *some = random_user();

	memset(users, 0, sizeof(users));
	for (unsigned int i = 0; i < USERS; i++) {
		const struct user *user = &m.users[i];
		user_idx_t idx = user_table_lookup(m.table, user->tag,
						   user->hash, m.now);

		assert_int_equal(idx, user_alive(user) ? user->idx :
				 USER_IDX_NONE);
		if (user->hash == some->hash && user_alive(user))
			expected++;
		if (!user->exists)
			continue;
		assert_int_equal(user_table_timestamp(m.table, user->idx),
				 user->timestamp);
		assert_int_equal(user_table_flags(m.table, user->idx),
				 user->flags);
		assert_int_equal(user_table_slot(m.table, user->idx),
				 user->slot);
		if (user->dead)
			continue;
		live++;
		for (unsigned int j = 0; j < BACKENDS; j++) {
			if (m.list[j]->slot == user->slot)
				users[j]++;
		}
	}
	assert_int_equal(user_table_count(m.table), live);
	for (unsigned int j = 0; j < BACKENDS; j++)
		assert_int_equal(backend_users(m.backends, m.list[j]), users[j]);
	user_table_foreach_hash(m.table, some->hash, m.now, hash_saw, &seen);
	assert_int_equal(seen, expected);
}

static void run_model(uint64_t seed, unsigned int expire)
{
	model_init(seed, expire);
	for (unsigned int i = 0; i < 20000; i++) {
		unsigned int op = below(100);

		if (op < 40)
			op_add();
		else if (op < 65)
			op_change();
		else if (op < 66)
			op_backend();
		else if (op < 72)
			op_time();
		else if (op < 82)
			op_expire();
		else if (op < 86)
			op_sweep();
		else
			op_walk();
		if (i % 8 == 0)
			check_all();
	}
	model_deinit();
}

static void test_short(void **state ATTR_UNUSED)
{
	run_model(1, 1);
	run_model(2, 10);
	run_model(3, 15);
}

static void test_default(void **state ATTR_UNUSED)
{
	run_model(4, 900);
	run_model(5, 900);
	run_model(6, 3600);
}

/* longer than the timing wheel */
static void test_long(void **state ATTR_UNUSED)
{
	run_model(7, 20000);
	run_model(8, 30 * 24 * 3600);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_short),
		test_case(test_default),
		test_case(test_long),
	};

	return run_test_cases(tests);
}
