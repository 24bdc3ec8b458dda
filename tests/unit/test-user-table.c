/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "director/core/user-table-private.h"

#define EXPIRE 900
#define START 1700000000

static struct backends *backends;
static struct user_table *table;
static unsigned int removed_count;

static void count_removed(user_idx_t idx, void *context)
{
	assert_ptr_equal(context, &removed_count);
	/* the entry is still whole */
	assert_non_null(backend_slot_tag(backends,
					 user_table_slot(table, idx)));
	removed_count++;
}

static void table_init(unsigned int expire_secs)
{
	table = user_table_init(backends, expire_secs, START, count_removed,
				&removed_count);
	removed_count = 0;
}

static int setup(void **state)
{
	backends = backends_init();
	table = NULL;
	return test_frame_setup(state);
}

static int teardown(void **state)
{
	if (table != NULL)
		user_table_deinit(&table);
	backends_deinit(&backends);
	return test_frame_teardown(state);
}

static struct backend *add_backend(unsigned int num, const char *tag)
{
	struct ip_addr ip;

	i_zero(&ip);
	ip.family = AF_INET;
	ip.u.ip4.s_addr = htonl((10U << 24) + num);
	return backend_add(backends, &ip, NULL, tag, 100);
}

static user_idx_t
add_user(struct backend *backend, uint32_t hash, time_t timestamp)
{
	user_idx_t idx = user_table_add(table, hash, backend->slot, timestamp,
					timestamp);

	assert_int_not_equal(idx, USER_IDX_NONE);
	return idx;
}

static void expire_all(time_t now)
{
	while (user_table_expire(table, now, 1000)) ;
}

static void test_basics(void **state ATTR_UNUSED)
{
	struct backend *one = add_backend(1, ""), *two = add_backend(2, "");
	struct backend *tagged = add_backend(3, "t1");
	user_idx_t idx, idx2;

	table_init(EXPIRE);
	assert_int_equal(user_table_count(table), 0);
	assert_int_equal(user_table_lookup(table, one->tag, 5, START),
			 USER_IDX_NONE);
	idx = add_user(one, 5, START);
	idx2 = add_user(tagged, 5, START + 1);
	assert_int_not_equal(idx, idx2);
	assert_int_equal(user_table_count(table), 2);
	assert_int_equal(user_table_lookup(table, one->tag, 5, START), idx);
	assert_int_equal(user_table_lookup(table, tagged->tag, 5, START), idx2);
	assert_int_equal(user_table_lookup(table, one->tag, 6, START),
			 USER_IDX_NONE);
	assert_int_equal(user_table_lookup(table, NULL, 5, START),
			 USER_IDX_NONE);

	assert_int_equal(user_table_hash(table, idx), 5);
	assert_int_equal(user_table_slot(table, idx), one->slot);
	assert_int_equal(user_table_timestamp(table, idx2), START + 1);
	assert_int_equal(user_table_flags(table, idx), 0);

	user_table_set_flags(table, idx, USER_FLAG_WEAK | USER_FLAG_JOURNALED,
			     0);
	user_table_set_flags(table, idx, USER_FLAG_MOVING, USER_FLAG_WEAK);
	assert_int_equal(user_table_flags(table, idx),
			 USER_FLAG_MOVING | USER_FLAG_JOURNALED);
	assert_int_equal(user_table_flags(table, idx2), 0);

	user_table_set_slot(table, idx, two->slot);
	assert_int_equal(user_table_slot(table, idx), two->slot);
	assert_int_equal(backend_users(backends, one), 0);
	assert_int_equal(backend_users(backends, two), 1);
	assert_int_equal(removed_count, 0);

	user_table_remove(table, idx);
	assert_int_equal(removed_count, 1);
	assert_int_equal(user_table_count(table), 1);
	assert_int_equal(backend_users(backends, two), 0);
	assert_int_equal(user_table_lookup(table, two->tag, 5, START),
			 USER_IDX_NONE);
	assert_int_equal(user_table_lookup(table, tagged->tag, 5, START), idx2);
	user_table_deinit(&table);
	assert_int_equal(removed_count, 1);
	assert_int_equal(backend_users(backends, tagged), 0);
}

static void test_expiry_is_exact(void **state ATTR_UNUSED)
{
	struct backend *backend = add_backend(1, "");
	user_idx_t idx;

	table_init(EXPIRE);
	assert_int_equal(user_table_next_expire(table), 0);
	idx = add_user(backend, 5, START);
	assert_false(user_table_is_expired(table, idx, START + EXPIRE - 1));
	assert_true(user_table_is_expired(table, idx, START + EXPIRE));
	assert_int_equal(user_table_lookup(table, "", 5, START), 0);
	assert_int_equal(user_table_lookup(table, backend->tag, 5,
					   START + EXPIRE - 1), idx);
	assert_int_equal(user_table_lookup(table, backend->tag, 5,
					   START + EXPIRE), USER_IDX_NONE);

	expire_all(START + EXPIRE - 1);
	assert_int_equal(removed_count, 0);
	assert_int_equal(user_table_next_expire(table), START + EXPIRE);
	expire_all(START + EXPIRE);
	assert_int_equal(removed_count, 1);
	assert_int_equal(user_table_count(table), 0);
	assert_int_equal(user_table_next_expire(table), 0);

	/* added when it has expired already */
	idx = add_user(backend, 5, START);
	assert_true(user_table_next_expire(table) <= START + EXPIRE);
	expire_all(START + EXPIRE);
	assert_int_equal(removed_count, 2);
	/* added again over an old entry of its own */
	idx = add_user(backend, 5, START + EXPIRE);
	assert_int_equal(user_table_add(table, 5, backend->slot,
					START + 2 * EXPIRE,
					START + 2 * EXPIRE), idx);
	assert_int_equal(removed_count, 3);
	assert_int_equal(user_table_count(table), 1);
	assert_int_equal(user_table_timestamp(table, idx), START + 2 * EXPIRE);
}

static void test_windows(void **state ATTR_UNUSED)
{
	/* life, near-expiry window */
	static const unsigned int tests[][2] = {
		{ 10, 3 }, { 29, 3 }, { 30, 3 }, { 40, 4 }, { 100, 10 },
		{ 299, 29 }, { 300, 30 }, { 900, 30 }, { 4294967295U, 30 },
	};
	struct backend *backend = add_backend(1, "");

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		time_t expire = tests[i][0], near = expire - tests[i][1];
		user_idx_t idx;

		table_init(tests[i][0]);
		idx = add_user(backend, 5, START);
		assert_false(user_table_is_near_expiry(table, idx, START));
		assert_false(user_table_is_near_expiry(table, idx,
						       START + near));
		assert_true(user_table_is_near_expiry(table, idx,
						      START + near + 1));
		assert_true(user_table_is_recent(table, idx, START));
		assert_true(user_table_is_recent(table, idx,
						 START + expire / 2));
		assert_false(user_table_is_recent(table, idx,
						  START + expire / 2 + 1));
		user_table_deinit(&table);
	}
}

/* An agreement that never ends doesn't keep him for ever. */
static void test_weak_stuck(void **state ATTR_UNUSED)
{
	struct backend *backend = add_backend(1, "");
	time_t end = START + EXPIRE;
	user_idx_t idx;

	table_init(EXPIRE);
	idx = add_user(backend, 5, START);
	user_table_set_flags(table, idx, USER_FLAG_WEAK, 0);
	expire_all(end + USER_WEAK_MAX_SECS - 1);
	assert_int_equal(removed_count, 0);
	expire_all(end + USER_WEAK_MAX_SECS);
	assert_int_equal(removed_count, 1);
	user_table_deinit(&table);

	table_init(EXPIRE);
	idx = add_user(backend, 5, START);
	user_table_set_flags(table, idx, USER_FLAG_WEAK | USER_FLAG_MOVING, 0);
	expire_all(end + 1000);
	assert_int_equal(removed_count, 0);
	user_table_deinit(&table);
}

static void test_flags_keep(void **state ATTR_UNUSED)
{
	static const enum user_flags flags[] = {
		USER_FLAG_WEAK, USER_FLAG_MOVING
	};
	struct backend *backend = add_backend(1, "");

	for (unsigned int i = 0; i < N_ELEMENTS(flags); i++) {
		time_t end = START + EXPIRE;
		user_idx_t idx;

		table_init(EXPIRE);
		idx = add_user(backend, 5, START);
		user_table_set_flags(table, idx, flags[i], 0);
		expire_all(end);
		expire_all(end + 29);
		assert_int_equal(user_table_next_expire(table), end + 30);
		assert_int_equal(user_table_lookup(table, backend->tag, 5,
						   end + 29), idx);
		user_table_set_flags(table, idx, 0, flags[i]);
		assert_int_equal(user_table_lookup(table, backend->tag, 5,
						   end + 29), USER_IDX_NONE);
		assert_int_equal(removed_count, 0);
		assert_true(user_table_next_expire(table) <= end + 29);
		expire_all(end + 29);
		assert_int_equal(removed_count, 1);
		user_table_deinit(&table);
	}
}

static void test_leased(void **state ATTR_UNUSED)
{
	struct backend *backend = add_backend(1, "");
	time_t now = START;
	user_idx_t idx;

	table_init(EXPIRE);
	idx = add_user(backend, 5, START);
	user_table_set_flags(table, idx, USER_FLAG_LEASED, 0);
	for (unsigned int i = 0; i < 5000; i++) {
		now++;
		expire_all(now);
		assert_true(user_table_is_recent(table, idx, now));
		assert_true(user_table_next_expire(table) > now);
	}
	/* a clock that stood still or leapt doesn't end it */
	now += 10 * EXPIRE;
	assert_int_equal(user_table_lookup(table, backend->tag, 5, now), idx);
	expire_all(now);
	assert_int_equal(user_table_timestamp(table, idx), now);

	/* marked when it is old already: refreshed at once */
	now += EXPIRE - 1;
	user_table_set_flags(table, idx, 0, USER_FLAG_LEASED);
	expire_all(now);
	assert_int_equal(user_table_timestamp(table, idx), now - EXPIRE + 1);
	user_table_set_flags(table, idx, USER_FLAG_LEASED, 0);
	assert_true(user_table_next_expire(table) <= now);
	expire_all(now);
	assert_int_equal(user_table_timestamp(table, idx), now);

	user_table_set_flags(table, idx, 0, USER_FLAG_LEASED);
	expire_all(now + EXPIRE - 1);
	assert_int_equal(removed_count, 0);
	expire_all(now + EXPIRE);
	assert_int_equal(removed_count, 1);
}

static void test_refresh(void **state ATTR_UNUSED)
{
	struct backend *backend = add_backend(1, "");
	user_idx_t idx;

	table_init(EXPIRE);
	idx = add_user(backend, 5, START);
	user_table_set_timestamp(table, idx, START + 600);
	expire_all(START + EXPIRE);
	expire_all(START + EXPIRE + 599);
	assert_int_equal(removed_count, 0);
	user_table_set_timestamp(table, idx, START + 599);
	assert_true(user_table_next_expire(table) <= START + EXPIRE + 599);
	expire_all(START + EXPIRE + 599);
	assert_int_equal(removed_count, 1);
}

/* The clock leaps a year either way: nobody is lost or forgotten, and what has
   to be done is done in small steps. */
static void test_clock_leaps(void **state ATTR_UNUSED)
{
	const time_t year = 365 * 24 * 3600;
	const unsigned int count = 20000, slice = 100;
	struct backend *backend = add_backend(1, "");
	unsigned int turns = 0;
	time_t now = START;

	table_init(EXPIRE);
	for (unsigned int i = 0; i < count; i++)
		add_user(backend, i, START + i % EXPIRE);
	now += year;
	while (user_table_expire(table, now, slice)) {
		unsigned int before = removed_count;

		assert_true(++turns < 1000);
		assert_true(user_table_next_expire(table) <= now);
		assert_true(removed_count - before <= slice);
	}
	assert_int_equal(removed_count, count);
	/* each user once, each list of the wheel once */
	assert_true(turns >= count / slice - 1);
	assert_true(turns <= (count + 2 * EXPIRE) / slice);

	for (unsigned int i = 0; i < count; i++)
		add_user(backend, i, now);
	expire_all(now + 10);
	now -= year;
	assert_false(user_table_expire(table, now, 1));
	/* those who are refreshed and those who are new live as long as ever */
	for (unsigned int i = 0; i < count / 2; i++) {
		user_idx_t idx = user_table_lookup(table, backend->tag, i, now);

		assert_int_not_equal(idx, USER_IDX_NONE);
		user_table_set_timestamp(table, idx, now + 100);
		add_user(backend, count + i, now + 101);
	}
	removed_count = 0;
	assert_true(user_table_next_expire(table) <= now + 100 + EXPIRE);
	expire_all(now + 99 + EXPIRE);
	assert_int_equal(removed_count, 0);
	expire_all(now + 100 + EXPIRE);
	assert_int_equal(removed_count, count / 2);
	expire_all(now + 101 + EXPIRE);
	assert_int_equal(removed_count, count);
	/* the others keep their year */
	expire_all(now + year + EXPIRE - 1);
	assert_int_equal(removed_count, count);
	expire_all(now + year + EXPIRE);
	assert_int_equal(removed_count, count + count / 2);
	assert_int_equal(user_table_count(table), 0);
}

static void test_clock_ends(void **state ATTR_UNUSED)
{
	struct backend *backend = add_backend(1, "");
	unsigned int turns = 0;
	user_idx_t idx;

	table_init(UINT_MAX);
	idx = add_user(backend, 1, INT64_MAX);
	assert_int_equal(user_table_timestamp(table, idx), UINT32_MAX);
	idx = add_user(backend, 2, INT64_MIN);
	assert_int_equal(user_table_timestamp(table, idx), 0);
	user_table_set_flags(table, idx, USER_FLAG_LEASED, 0);
	idx = add_user(backend, 3, 0);
	user_table_set_flags(table, idx, USER_FLAG_WEAK, 0);
	while (user_table_expire(table, INT64_MAX, 1000))
		assert_true(++turns < 100);
	assert_false(user_table_expire(table, INT64_MIN, 1000));
	assert_false(user_table_expire(table, INT64_MIN, 1000));
	while (user_table_expire(table, INT64_MAX, 1000))
		assert_true(++turns < 200);
	assert_int_equal(user_table_count(table), 3);
}

static void test_dead_slots(void **state ATTR_UNUSED)
{
	const unsigned int count = 1000, slice = 64;
	struct backend *one = add_backend(1, ""), *two = add_backend(2, "");
	const char *tag = one->tag;
	unsigned int turns = 0;
	uint16_t dead_slot = one->slot;
	user_idx_t idx;

	table_init(EXPIRE);
	for (unsigned int i = 0; i < count; i++) {
		add_user(one, i, START);
		add_user(two, count + i, START);
	}
	idx = user_table_lookup(table, tag, 5, START);
	user_table_set_flags(table, idx, USER_FLAG_LEASED, 0);
	assert_false(user_table_sweep(table, slice));
	assert_true(backend_flush(backends, one));
	assert_int_equal(user_table_count(table), count);
	assert_int_equal(user_table_lookup(table, tag, 5, START),
			 USER_IDX_NONE);
	/* a new life beside the dead entry of the old one */
	idx = user_table_add(table, 5, one->slot, START, START);
	assert_int_equal(removed_count, 1);
	assert_int_equal(user_table_count(table), count + 1);

	backend_remove(backends, &two);
	assert_int_equal(user_table_count(table), 1);
	while (user_table_sweep(table, slice)) {
		unsigned int before = removed_count;

		assert_true(++turns < 1000);
		assert_true(user_table_sweep(table, 0) ==
			    backends_have_dead_slots(backends));
		assert_true(removed_count - before <= slice);
	}
	assert_int_equal(removed_count, 2 * count);
	assert_int_equal(user_table_count(table), 1);
	assert_int_equal(user_table_lookup(table, tag, 5, START), idx);
	assert_false(backends_have_dead_slots(backends));
	assert_null(backend_slot_tag(backends, dead_slot));

	/* expiry doesn't let the flags of dead users hinder it */
	user_table_set_flags(table, idx, USER_FLAG_LEASED | USER_FLAG_MOVING,
			     0);
	backend_remove(backends, &one);
	expire_all(START + EXPIRE);
	assert_int_equal(removed_count, 2 * count + 1);
}

static void count_call(user_idx_t idx ATTR_UNUSED, void *context)
{
	unsigned int *calls = context;

	*calls += 1;
}

static void test_foreach_hash(void **state ATTR_UNUSED)
{
	struct backend *list[4];
	unsigned int calls = 0;

	for (unsigned int i = 0; i < N_ELEMENTS(list); i++)
		list[i] = add_backend(i, t_strdup_printf("t%u", i));
	table_init(EXPIRE);
	for (unsigned int i = 0; i < N_ELEMENTS(list); i++)
		add_user(list[i], 7, START + (i == 0 ? 0 : 100));
	add_user(list[0], 8, START);
	user_table_foreach_hash(table, 7, START, count_call, &calls);
	assert_int_equal(calls, 4);
	backend_remove(backends, &list[1]);
	calls = 0;
	user_table_foreach_hash(table, 7, START, count_call, &calls);
	assert_int_equal(calls, 3);
	calls = 0;
	user_table_foreach_hash(table, 7, START + EXPIRE, count_call, &calls);
	assert_int_equal(calls, 2);
	calls = 0;
	user_table_foreach_hash(table, 9, START, count_call, &calls);
	assert_int_equal(calls, 0);
}

/* Every user is in one chain, and nothing else is. Lookups alone would not
   notice, as they skip what isn't theirs. */
static void check_chains(void)
{
	const struct user_store *store = &table->store;
	uint32_t users = 0;

	for (uint32_t i = 0; i < store->buckets_count; i++) {
		uint32_t idx = *user_store_bucket(store, i);

		for (; idx != 0; idx = user_entry(store, idx)->chain_next) {
			assert_int_not_equal(user_entry(store, idx)->slot,
					     BACKEND_SLOT_NONE);
			assert_true(++users <= store->used);
		}
	}
	assert_int_equal(users, store->used);
}

/* More than a few slabs and segments; hashes that differ in few bits */
static void test_many(void **state ATTR_UNUSED)
{
	static const unsigned int shifts[] = { 0, 12 };
	const unsigned int count = 300000;
	struct backend *backend = add_backend(1, "");
	uint32_t end;

	for (unsigned int s = 0; s < N_ELEMENTS(shifts); s++) {
		unsigned int shift = shifts[s];

		table_init(EXPIRE);
		for (uint32_t i = 0; i < count; i++)
			add_user(backend, i << shift | i >> 20, START);
		assert_int_equal(user_table_count(table), count);
		end = user_table_walk_end(table);
		assert_true(end >= count && end < count + 5000);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t hash = i << shift | i >> 20;
			user_idx_t idx = user_table_lookup(table, backend->tag,
							   hash, START);

			assert_int_not_equal(idx, USER_IDX_NONE);
			assert_int_equal(user_table_hash(table, idx), hash);
			if (i % 3 == 0)
				user_table_remove(table, idx);
		}
		check_chains();
		/* places are used again */
		for (uint32_t i = 0; i < count; i += 3)
			add_user(backend, i << shift | i >> 20, START);
		assert_int_equal(user_table_count(table), count);
		assert_int_equal(user_table_walk_end(table), end);
		user_table_deinit(&table);
	}
}

struct bucket_walk {
	uint8_t *seen;
	unsigned int count;
};

static void bucket_saw(user_idx_t idx, void *context)
{
	struct bucket_walk *walk = context;

	walk->seen[user_table_hash(table, idx)]++;
	walk->count++;
}

/* The table grows fivefold meanwhile, and others are removed. */
static void test_walk_buckets(void **state ATTR_UNUSED)
{
	const unsigned int count = 20000;
	struct backend *backend = add_backend(1, "");
	struct bucket_walk walk = { .seen = t_malloc0(count * 5 + 1) };
	uint32_t pos = 0, added = count, slices = 0, last;
	bool more = TRUE;

	table_init(EXPIRE);
	for (uint32_t i = 1; i <= count; i++)
		add_user(backend, i, START);
	for (; more; slices++) {
		/* removed ones before and behind where the walk is */
		if (slices % 2 == 0 && slices < count) {
			user_table_remove(table, user_table_lookup(
				table, backend->tag, slices + 1, START));
		}
		for (unsigned int i = 0; i < 50 && added < count * 5; i++)
			add_user(backend, ++added, START);
		last = walk.count;
		more = user_table_walk_buckets(table, &pos, START, 2500,
					       bucket_saw, &walk);
		assert_true(walk.count - last < 110);
	}
	assert_true(slices > count / 100);
	for (uint32_t i = 1; i <= count; i++) {
		bool removed = i % 2 == 1 && i <= slices;

		if (!removed && walk.seen[i] == 0)
			fail_msg("user %u wasn't seen", i);
	}
	/* who was added later may be seen or not, and hardly anybody twice */
	assert_true(walk.count < count * 6);
	/* expired ones aren't shown */
	pos = 0;
	walk.count = 0;
	assert_false(user_table_walk_buckets(table, &pos, START + EXPIRE,
					     UINT_MAX, bucket_saw, &walk));
	assert_int_equal(walk.count, 0);
	assert_false(user_table_walk_buckets(table, &pos, START, UINT_MAX,
					     bucket_saw, &walk));
	assert_int_equal(walk.count, 0);
}

static bool walk_stop(user_idx_t idx ATTR_UNUSED, void *context)
{
	unsigned int *left = context;

	return --*left > 0;
}

static void test_walk_stop(void **state ATTR_UNUSED)
{
	struct backend *backend = add_backend(1, "");
	uint32_t pos = 0, pos2;
	unsigned int left = 0;

	table_init(EXPIRE);
	assert_false(user_table_walk(table, &pos, START, 1000000, walk_stop,
				     &left));
	for (unsigned int i = 0; i < 10; i++)
		add_user(backend, i, START);
	pos = 0;
	left = 3;
	assert_true(user_table_walk(table, &pos, START, 1000000, walk_stop,
				    &left));
	assert_int_equal(left, 0);
	left = 7;
	pos2 = pos;
	assert_true(user_table_walk(table, &pos2, START, 0, walk_stop, &left));
	assert_int_equal(pos2, pos);
	/* the other 7, the last one ends it in two ways */
	assert_false(user_table_walk(table, &pos, START, 1000000, walk_stop,
				     &left));
	assert_int_equal(left, 0);
	assert_int_equal(pos, user_table_walk_end(table));
	/* expired ones aren't shown */
	pos = 0;
	left = 1;
	assert_false(user_table_walk(table, &pos, START + EXPIRE, 1000000,
				     walk_stop, &left));
	assert_int_equal(left, 1);
}

#define table_test(func) \
	cmocka_unit_test_setup_teardown(func, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		table_test(test_basics),
		table_test(test_expiry_is_exact),
		table_test(test_windows),
		table_test(test_flags_keep),
		table_test(test_weak_stuck),
		table_test(test_leased),
		table_test(test_refresh),
		table_test(test_clock_leaps),
		table_test(test_clock_ends),
		table_test(test_dead_slots),
		table_test(test_foreach_hash),
		table_test(test_many),
		table_test(test_walk_buckets),
		table_test(test_walk_stop),
	};

	return run_test_cases(tests);
}
