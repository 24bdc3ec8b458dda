/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Random operations on a director that is killed again and again at any
   moment: the next one has to answer every user the same backend. The journal
   here is what journal.c does, without files. The seeds are fixed. */

#include "test-director.h"

#define NAMES 3000
#define TAGS 2
#define IPS 6
#define OPS 4000
#define SEEDS 3
#define CONFIG "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.5@t"

ARRAY_DEFINE_TYPE(director_record, struct director_record);

static struct {
	uint64_t seed;
	/* The journal, and the one that replaces it */
	ARRAY_TYPE(director_record) *file, *next;
	uint32_t dump_pos;

	struct login_process *process;
	struct session_plugin *plugin;
	ARRAY(struct session_lease *) sessions;
	const char *config;
} m;

/* How often what was tried */
static struct {
	unsigned int checks, kills, stops, off_hash, in_walk, in_dump;
} stats;

static const char *const tag_names[TAGS] = { "", "t" };
static char user_names[NAMES][8];

static uint32_t below(uint32_t max)
{
	return test_rand_below(&m.seed, max);
}

static void
record_copy(ARRAY_TYPE(director_record) *dest,
	    const struct director_record *record)
{
	struct director_record *copy = array_append_space(dest);

	*copy = *record;
	/* all the texts that there are */
	copy->tag = *record->tag == '\0' ? tag_names[0] : tag_names[1];
	copy->hostname = NULL;
}

static void journal_record(const struct director_record *record)
{
	if (m.file != NULL)
		record_copy(m.file, record);
	if (m.next != NULL)
		record_copy(m.next, record);
}

static void ignore_record(const struct director_record *record ATTR_UNUSED)
{
}

static void next_record(void *context ATTR_UNUSED,
			const struct director_record *record)
{
	record_copy(m.next, record);
}

static ARRAY_TYPE(director_record) *journal_new(void)
{
	ARRAY_TYPE(director_record) *file =
		i_new(ARRAY_TYPE(director_record), 1);

	i_array_init(file, 1024);
	return file;
}

static void journal_free(ARRAY_TYPE(director_record) **_file)
{
	ARRAY_TYPE(director_record) *file = *_file;

	*_file = NULL;
	if (file == NULL)
		return;
	array_free(file);
	i_free(file);
}

/* A slice. Returns TRUE if there is more. */
static bool journal_replace(unsigned int max_steps)
{
	if (m.next == NULL) {
		m.next = journal_new();
		m.dump_pos = 0;
	}
	if (director_dump(director, &m.dump_pos, max_steps, &now, next_record,
			  &m))
		return TRUE;
	journal_free(&m.file);
	m.file = m.next;
	m.next = NULL;
	return FALSE;
}

/* -- Starting and ending -- */

static bool snapshot_user(user_idx_t idx, void *context)
{
	struct director *old = context;
	struct user_table *users = director_users(old);
	struct backend *backend =
		backend_by_slot(director_backends(old),
				user_table_slot(users, idx));
	struct backend *new_backend =
		backend_lookup(director_backends(director), &backend->ip);

	assert_non_null(new_backend);
	assert_string_equal(new_backend->tag, backend->tag);
	director_restore_user(director, user_table_hash(users, idx),
			      new_backend, user_table_timestamp(users, idx),
			      &now);
	return TRUE;
}

/* A new process, from what the old one left. snapshot: it ended in good order,
   and this is it. */
static struct director *
start_director(struct director *snapshot, const char *config)
{
	const struct director_record *record;
	struct director_record copy;
	uint32_t pos = 0;

	test_director_init();
	array_foreach(m.file, record) {
		copy = *record;
		/* when the file was last kept up */
		if (copy.type == DIRECTOR_RECORD_USER)
			copy.timestamp = now.wall;
		director_restore(director, &copy, &now);
	}
	if (snapshot != NULL) {
		while (user_table_walk(director_users(snapshot), &pos, now.wall,
				       100, snapshot_user, snapshot)) ;
	}
	test_configure_restored(config, snapshot != NULL);
	return director;
}

static void forget_sessions(struct director *old)
{
	while (array_count(&m.sessions) > 0) {
		struct session_lease *lease =
			array_idx_elem(&m.sessions, 0);

		session_lease_end(director_leases(old), &lease);
		array_pop_front(&m.sessions);
	}
	session_plugin_lost(director_leases(old), &m.plugin, now.msecs);
	login_process_unref(director_leases(old), &m.process);
}

static void adopt_director(void)
{
	test_on_record = journal_record;
	m.process = login_process_ref(director_leases(director), 1);
	m.plugin = session_plugin_init(director_leases(director), m.process);
	journal_free(&m.next);
	while (journal_replace(below(2) == 0 ? UINT_MAX : 100)) ;
}

/* -- What has to be the same -- */

static struct backend *
user_backend(struct director *d, const char *tag, uint32_t hash, time_t when,
	     bool *journaled_r)
{
	struct user_table *users = director_users(d);
	user_idx_t idx;

	*journaled_r = FALSE;
	tag = backends_tag(director_backends(d), tag);
	idx = tag == NULL ? USER_IDX_NONE :
		user_table_lookup(users, tag, hash, when);
	if (idx == USER_IDX_NONE)
		return NULL;
	*journaled_r = (user_table_flags(users, idx) &
			USER_FLAG_JOURNALED) != 0;
	return backend_by_slot(director_backends(d),
			       user_table_slot(users, idx));
}

static void
check_user(struct director *old, unsigned int name, const char *tag,
	   bool recorded)
{
	struct director_lookup lookup = {
		.username = user_names[name],
		.tag = tag,
	};
	uint32_t hash = test_hash(user_names[name]);
	struct backend *alive, *there, *hashed_to;
	bool journaled, answered;

	alive = user_backend(old, tag, hash, now.wall, &journaled);
	/* whose time is up, but who isn't removed yet */
	there = user_backend(old, tag, hash, 0, &journaled);
	hashed_to = backend_by_hash(director_backends(old), tag, hash);

	answered = director_lookup(director, &lookup, &now) > 0;
	if (!answered)
		director_lookup_abort(director, &lookup);
	if (alive != NULL && alive != hashed_to) {
		if (!journaled && !recorded) {
			/* the change isn't complete, and he was not answered
			   since */
			return;
		}
		stats.off_hash++;
	}
	if (alive != NULL) {
		if (!answered || !net_ip_compare(&lookup.backend->ip,
						 &alive->ip)) {
			fail_msg("%s was on %s, is on %s", user_names[name],
				 net_ip2addr(&alive->ip), !answered ? "none" :
				 net_ip2addr(&lookup.backend->ip));
		}
	} else if (hashed_to == NULL) {
		assert_true(!answered || (there != NULL &&
			net_ip_compare(&lookup.backend->ip, &there->ip)));
	} else if (there == NULL) {
		if (!answered || !net_ip_compare(&lookup.backend->ip,
						 &hashed_to->ip)) {
			fail_msg("%s belongs to %s, is on %s",
				 user_names[name],
				 net_ip2addr(&hashed_to->ip),
				 !answered ? "none" :
				 net_ip2addr(&lookup.backend->ip));
		}
	}
}

static void check_backends(struct director *old)
{
	struct backend *const *before, *const *after;
	unsigned int i, before_count, after_count;

	before = backends_sorted(director_backends(old), &before_count);
	after = backends_sorted(director_backends(director), &after_count);
	assert_int_equal(before_count, after_count);
	for (i = 0; i < before_count; i++) {
		assert_true(net_ip_compare(&before[i]->ip, &after[i]->ip));
		assert_string_equal(before[i]->tag, after[i]->tag);
		assert_int_equal(before[i]->vhosts, after[i]->vhosts);
		assert_int_equal(before[i]->down, after[i]->down);
		assert_int_equal(before[i]->last_updown_change,
				 after[i]->last_updown_change);
	}
}

/* If it were killed now */
static void check_now(void)
{
	struct director *old = director, *new_director;
	bool recorded = director_change_is_recorded(old,
						director_last_change(old));

	stats.checks++;
	if (!recorded)
		stats.in_walk++;
	if (m.next != NULL)
		stats.in_dump++;
	test_on_record = ignore_record;
	new_director = start_director(NULL, m.config);
	check_backends(old);
	for (unsigned int i = 0; i < NAMES; i++) T_BEGIN {
		for (unsigned int t = 0; t < TAGS; t++)
			check_user(old, i, tag_names[t], recorded);
	} T_END;
	test_on_record = journal_record;
	director = old;
	director_deinit(&new_director);
}

static void kill_director(void)
{
	struct director *old = director;

	check_now();
	stats.kills++;
	forget_sessions(old);
	test_on_record = ignore_record;
	director_deinit(&old);
	(void)start_director(NULL, m.config);
	adopt_director();
}

/* A clean end hands all users over, so that not even another setting changes
   where they are, unless their backend is gone. */
static void stop_director(void)
{
	struct director *old = director;
	const char *config = below(2) == 0 ? CONFIG :
		CONFIG" 10.0.0.6@t 10.0.0.4";

	stats.stops++;
	test_on_record = ignore_record;
	(void)start_director(old, config);
	for (unsigned int i = 0; i < NAMES; i++) T_BEGIN {
		for (unsigned int t = 0; t < TAGS; t++) {
			uint32_t hash = test_hash(user_names[i]);
			struct backend *before, *after;
			bool journaled;

			before = user_backend(old, tag_names[t], hash,
					      now.wall, &journaled);
			after = user_backend(director, tag_names[t], hash,
					     now.wall, &journaled);
			if (before == NULL || backend_lookup(
					director_backends(director),
					&before->ip) == NULL)
				continue;
			assert_non_null(after);
			assert_true(net_ip_compare(&before->ip, &after->ip));
		}
	} T_END;
	m.config = config;
	forget_sessions(old);
	director_deinit(&old);
	adopt_director();
}

/* -- The operations -- */

static const char *random_ip(void)
{
	return t_strdup_printf("10.0.0.%u", 1 + below(IPS));
}

static void op_logins(void)
{
	unsigned int count = 1 + below(100);
	struct director_lookup lookup;
	struct session_lease *lease;
	const char *error;

	for (; count > 0; count--) {
		i_zero(&lookup);
		lookup.username = user_names[below(NAMES)];
		lookup.tag = tag_names[below(TAGS)];
		if (below(20) == 0)
			lookup.process = m.process;
		if (director_lookup(director, &lookup, &now) == 0) {
			director_lookup_abort(director, &lookup);
			continue;
		}
		if (lookup.process == NULL)
			continue;
		lease = director_session_start(director, m.plugin,
					       &lookup.token, lookup.hash,
					       &lookup.backend->ip, now.wall,
					       &now, &error);
		assert_non_null(lease);
		array_push_back(&m.sessions, &lease);
	}
}

static void op_session_end(void)
{
	struct session_lease *lease;

	if (array_count(&m.sessions) > 0) {
		lease = array_idx_elem(&m.sessions, 0);
		array_pop_front(&m.sessions);
		director_session_end(director, &lease, &now);
	}
}

static void op_host(void)
{
	const char *ip = random_ip();

	switch (below(6)) {
	case 0:
		(void)test_host_set(ip, below(4) == 0 ? "t" : NULL,
				    below(3) * 100);
		break;
	case 1:
		(void)test_host_remove(ip);
		break;
	case 2:
		(void)test_host_flush(below(5) == 0 ? NULL : ip);
		break;
	default:
		(void)test_host_down(ip, below(2));
		break;
	}
}

static void random_op(void)
{
	unsigned int i = below(100);

	if (i < 40)
		op_logins();
	else if (i < 45)
		op_session_end();
	else if (i < 58)
		op_host();
	else if (i < 63)
		test_set_time(now.msecs + below(15000));
	else if (i < 90) {
		/* one slice */
		(void)director_run(director, &now);
	} else if (i < 98)
		(void)journal_replace(1 + below(2000));
	else if (m.next != NULL && below(4) == 0) {
		/* it couldn't be written */
		journal_free(&m.next);
	}
}

static void run_model(uint64_t seed)
{
	i_zero(&m);
	m.seed = seed;
	i_array_init(&m.sessions, 128);
	for (unsigned int i = 0; i < NAMES; i++) {
		i_snprintf(user_names[i], sizeof(user_names[i]), "u%u", i);
	}
	m.config = CONFIG;
	test_on_record = ignore_record;
	test_configure(m.config);
	adopt_director();

	for (unsigned int i = 0; i < OPS; i++) T_BEGIN {
		random_op();
		if (below(40) == 0)
			check_now();
		else if (below(150) == 0)
			kill_director();
		else if (below(400) == 0)
			stop_director();
		str_truncate(test_logs, 0);
	} T_END;

	forget_sessions(director);
	journal_free(&m.file);
	journal_free(&m.next);
	array_free(&m.sessions);
	test_on_record = ignore_record;
}

static void test_model(void **state ATTR_UNUSED)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		if (seed > 1) {
			director_deinit(&director);
			test_director_init();
		}
		run_model(seed);
	}
	/* it was a test */
	assert_true(stats.kills > SEEDS * 10 && stats.stops > SEEDS * 3);
	assert_true(stats.in_walk > SEEDS * 5 && stats.in_dump > SEEDS * 5);
	assert_true(stats.off_hash > SEEDS * 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		director_test(test_model),
	};

	return run_test_cases(tests);
}
