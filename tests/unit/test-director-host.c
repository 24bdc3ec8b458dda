/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Changes of backends, and what is recorded of them and of their users */

#include "test-director.h"

#include <time.h>

static void assert_host_record(unsigned int idx, const char *ip,
			       const char *tag, unsigned int vhosts, bool down,
			       time_t timestamp)
{
	const struct director_record *record;

	assert_true(idx < array_count(&test_records));
	record = test_record_at(idx);
	assert_int_equal(record->type, DIRECTOR_RECORD_HOST);
	assert_true(net_ip_compare(&record->ip, ip_of(ip)));
	assert_string_equal(record->tag, tag);
	assert_int_equal(record->vhosts, vhosts);
	assert_int_equal(record->down, down);
	assert_int_equal(record->timestamp, timestamp);
}

static void test_add_and_vhosts(void **state ATTR_UNUSED)
{
	test_configure("");
	assert_int_equal(director_host_set(director, ip_of("10.0.0.1"), NULL,
					   5, FALSE, "doveadm: ", &now),
			 DIRECTOR_HOST_NOTFOUND);
	test_assert_not_logged();
	assert_int_equal(array_count(&test_records), 0);

	assert_int_equal(director_host_set(director, ip_of("10.0.0.1"), NULL,
					   UINT_MAX, TRUE, "doveadm: ", &now),
			 DIRECTOR_HOST_OK);
	test_assert_logged("I doveadm: Host 10.0.0.1 added (vhost_count=100)");
	assert_host_record(0, "10.0.0.1", "", 100, FALSE, 0);
	assert_int_equal(test_host_set("fd00::1", "t", 7), DIRECTOR_HOST_OK);
	test_assert_logged("I Host fd00::1 added (vhost_count=7 tag=t)");
	assert_host_record(1, "fd00::1", "t", 7, FALSE, 0);

	/* any tag, or the right one */
	assert_int_equal(test_host_set("fd00::1", NULL, 8), DIRECTOR_HOST_OK);
	test_assert_logged("I Host fd00::1 vhost count changed from 7 to 8");
	assert_host_record(2, "fd00::1", "t", 8, FALSE, 0);
	assert_int_equal(test_host_set("fd00::1", "t", 8), DIRECTOR_HOST_OK);
	test_assert_logged("I Host fd00::1 vhost count changed from 8 to 8");
	assert_int_equal(test_host_set("fd00::1", "t", UINT_MAX),
			 DIRECTOR_HOST_OK);
	test_assert_logged("I Host fd00::1 vhost count changed from 8 to 8");
	array_clear(&test_records);
	assert_int_equal(test_host_set("fd00::1", "", 9),
			 DIRECTOR_HOST_TAG_CHANGED);
	assert_int_equal(test_host_set("10.0.0.1", "t", 9),
			 DIRECTOR_HOST_TAG_CHANGED);
	test_assert_not_logged();
	assert_int_equal(array_count(&test_records), 0);
	assert_int_equal(backend_lookup(director_backends(director),
					ip_of("fd00::1"))->vhosts, 8);
}

static void test_down(void **state ATTR_UNUSED)
{
	time_t first = now.wall;

	test_configure("10.0.0.1");
	assert_int_equal(test_host_down("10.0.0.2", TRUE),
			 DIRECTOR_HOST_NOTFOUND);
	assert_int_equal(director_host_set_down(director, ip_of("10.0.0.1"),
						TRUE, "doveadm: ", &now),
			 DIRECTOR_HOST_OK);
	test_assert_logged("I doveadm: Host 10.0.0.1 changed down "
			   "(vhost_count=100 last_updown_change=0)");
	assert_host_record(0, "10.0.0.1", "", 100, TRUE, first);
	test_pass(10000);
	/* it is already */
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	test_assert_not_logged();
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_host_down("10.0.0.1", FALSE), DIRECTOR_HOST_OK);
	test_assert_logged("I Host 10.0.0.1 changed up (vhost_count=100 "
			   "last_updown_change=1700000000)");
	assert_host_record(1, "10.0.0.1", "", 100, FALSE, now.wall);
}

static void test_remove(void **state ATTR_UNUSED)
{
	struct backend *backend;

	test_configure("10.0.0.1 10.0.0.2");
	for (unsigned int i = 0; i < 20; i++)
		(void)where(t_strdup_printf("u%u", i));
	backend = backend_lookup(director_backends(director),
				 ip_of("10.0.0.1"));
	unsigned int users =
		backend_users(director_backends(director), backend);
	assert_true(users >= 1 && users <= 19);

	assert_int_equal(test_host_remove("10.0.0.3"), DIRECTOR_HOST_NOTFOUND);
	/* the address given may be the backend's own */
	assert_int_equal(director_host_remove(director, &backend->ip, FALSE,
					      "by ", &now), DIRECTOR_HOST_OK);
	test_assert_logged(t_strdup_printf("I by Host 10.0.0.1 removed "
					   "(%u users)", users));
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_record_at(0)->type, DIRECTOR_RECORD_HOST_REMOVE);
	assert_true(net_ip_compare(&test_record_at(0)->ip, ip_of("10.0.0.1")));
	/* forgotten at once, although nothing was walked yet */
	assert_int_equal(user_table_count(director_users(director)),
			 20 - users);
	for (unsigned int i = 0; i < 20; i++) {
		assert_string_equal(where(t_strdup_printf("u%u", i)),
				    "10.0.0.2");
	}
	test_run();
	assert_int_equal(backends_dead_users(director_backends(director)), 0);
	assert_int_equal(user_table_count(director_users(director)), 20);
	assert_int_equal(test_host_remove("10.0.0.1"), DIRECTOR_HOST_NOTFOUND);
}

static void test_flush(void **state ATTR_UNUSED)
{
	test_configure("10.0.0.1 10.0.0.2");
	for (unsigned int i = 0; i < 20; i++)
		(void)where(t_strdup_printf("u%u", i));
	assert_int_equal(test_host_flush("10.0.0.3"), DIRECTOR_HOST_NOTFOUND);
	assert_int_equal(array_count(&test_records), 0);
	assert_int_equal(test_host_flush("10.0.0.1"), DIRECTOR_HOST_OK);
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_record_at(0)->type, DIRECTOR_RECORD_HOST_FLUSH);
	assert_true(net_ip_compare(&test_record_at(0)->ip, ip_of("10.0.0.1")));
	for (unsigned int i = 0; i < 20; i++) {
		const char *name = t_strdup_printf("u%u", i);

		assert_int_equal(test_user_exists(name),
				 strcmp(hashed(name), "10.0.0.2") == 0);
	}
	unsigned int left = user_table_count(director_users(director));
	test_assert_not_logged();
	assert_true(director_next_deadline(director, &now) == now.msecs);

	assert_int_equal(test_host_flush(NULL), DIRECTOR_HOST_OK);
	assert_int_equal(user_table_count(director_users(director)), 0);
	test_assert_logged(t_strdup_printf("W Flushed all backend hosts with "
		"%u users. This is an unsafe operation and may cause the same "
		"users to end up in multiple backends.", left));
	assert_int_equal(array_count(&test_records), 3);
	assert_int_equal(test_record_at(1)->type, DIRECTOR_RECORD_HOST_FLUSH);
	assert_int_equal(test_record_at(2)->type, DIRECTOR_RECORD_HOST_FLUSH);
	/* an empty one is no error */
	assert_int_equal(test_host_flush("10.0.0.1"), DIRECTOR_HOST_OK);
	(void)where("jane");
	test_pass((TEST_EXPIRE + 1) * 1000);
}

/* What an operator does to users who are logged in is said. */
static void test_live_sessions(void **state ATTR_UNUSED)
{
	struct login_process *process =
		login_process_ref(director_leases(director), 1);
	struct session_plugin *plugin =
		session_plugin_init(director_leases(director), process);
	struct test_lookup *lookup;
	struct session_lease *lease;
	const char *error, *ip = "10.0.0.1";

	test_configure(ip);
	lookup = test_lookup_for(process, "jane", "");
	lease = director_session_start(director, plugin,
				       &lookup->lookup.token,
				       lookup->lookup.hash, ip_of(ip), 1, &now,
				       &error);
	assert_non_null(lease);
	assert_int_equal(director_host_flush(director, ip_of(ip), "by ", &now),
			 DIRECTOR_HOST_OK);
	test_assert_logged("W by Host 10.0.0.1 flushed with 1 live sessions: "
		"until they end, their users may be on two backends");
	assert_int_equal(director_host_remove(director, ip_of(ip), FALSE,
					      "by ", &now), DIRECTOR_HOST_OK);
	test_assert_logged("W by Host 10.0.0.1 removed with 1 live sessions "
		"that are ended: until they end, their users may be on two "
		"backends");
	director_session_end(director, &lease, &now);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	login_process_unref(director_leases(director), &process);
}

/* Slots of backends whose users are still to be swept up can run out. */
static void test_busy(void **state ATTR_UNUSED)
{
	unsigned int i;

	test_configure("10.0.0.1 10.0.0.9");
	for (i = 0; i < BACKEND_SLOT_MAX + 10; i++) {
		enum director_host_result ret;

		T_BEGIN {
			ret = test_host_flush(where(t_strdup_printf("%u", i)));
		} T_END;
		if (ret != DIRECTOR_HOST_OK)
			break;
	}
	assert_int_equal(i, BACKEND_SLOT_MAX - 2);
	assert_int_equal(test_host_flush(where("jane")), DIRECTOR_HOST_BUSY);
	/* nothing was done */
	assert_true(test_user_exists("jane"));
	assert_int_equal(test_host_flush(NULL), DIRECTOR_HOST_BUSY);
	assert_true(test_user_exists("jane"));
	assert_int_equal(test_host_set("10.0.0.2", NULL, 1),
			 DIRECTOR_HOST_BUSY);
	assert_null(backend_lookup(director_backends(director),
				   ip_of("10.0.0.2")));
	assert_true(director_next_deadline(director, &now) == now.msecs);
	test_run();
	assert_int_equal(test_host_flush(where("jane")), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_set("10.0.0.2", NULL, 1), DIRECTOR_HOST_OK);
}

/* -- Who is recorded -- */

static uint32_t *recorded;
static unsigned int recorded_count, forgotten_count;

/* A user is recorded at most once: where he is. */
static void count_record(const struct director_record *record)
{
	if (record->type == DIRECTOR_RECORD_USER_FORGET)
		forgotten_count++;
	if (record->type != DIRECTOR_RECORD_USER)
		return;
	for (unsigned int i = 0; i < recorded_count; i++)
		assert_true(recorded[i] != record->hash);
	recorded[recorded_count++] = record->hash;
}

static bool is_recorded(uint32_t hash)
{
	for (unsigned int i = 0; i < recorded_count; i++) {
		if (recorded[i] == hash)
			return TRUE;
	}
	return FALSE;
}

#define WALK_USERS 5000

/* Everyone who isn't where hashing puts him is recorded, and nobody else. */
static void assert_recorded(void)
{
	for (unsigned int i = 0; i < WALK_USERS; i++) T_BEGIN {
		const char *name = t_strdup_printf("u%u", i);
		user_idx_t idx = test_user(name, "");

		if (idx != USER_IDX_NONE) {
			struct backend *backend =
				backend_by_slot(director_backends(director),
				user_table_slot(director_users(director), idx));

			assert_int_equal(is_recorded(test_hash(name)),
				strcmp(net_ip2addr(&backend->ip),
				       hashed(name)) != 0);
		}
	} T_END;
}

static void test_walk(void **state ATTR_UNUSED)
{
	unsigned int change, slices = 0, last = 0;

	recorded = t_new(uint32_t, WALK_USERS + 10);
	recorded_count = forgotten_count = 0;
	test_on_record = count_record;
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3");
	test_run();
	for (unsigned int i = 0; i < WALK_USERS; i++) T_BEGIN {
		(void)where(t_strdup_printf("u%u", i));
	} T_END;
	assert_int_equal(recorded_count, 0);
	test_changes_recorded = 0;

	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	change = director_last_change(director);
	assert_true(director_next_deadline(director, &now) == now.msecs);
	/* who is answered meanwhile is recorded before */
	for (unsigned int i = 0; i < WALK_USERS; i += 100) T_BEGIN {
		const char *name = t_strdup_printf("u%u", i);
		const char *ip = where(name);

		assert_int_equal(is_recorded(test_hash(name)),
				 strcmp(ip, "10.0.0.1") == 0);
	} T_END;
	while (!director_change_is_recorded(director, change)) {
		assert_int_equal(test_changes_recorded, 0);
		last = recorded_count;
		(void)director_run(director, &now);
		slices++;
		assert_true(recorded_count - last <= 1000);
	}
	assert_int_equal(test_changes_recorded, 1);
	assert_true(slices >= 2);
	assert_true(recorded_count >= WALK_USERS / 4 &&
		    recorded_count <= WALK_USERS / 2);
	assert_recorded();
	assert_int_equal(director_run(director, &now), FALSE);
	assert_int_equal(test_changes_recorded, 1);

	/* up again: hashing knows them all, they aren't recorded again */
	last = recorded_count;
	assert_int_equal(test_host_down("10.0.0.1", FALSE), DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(recorded_count, last);
	/* nor now */
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(recorded_count, last);

	/* who is forgotten with his backend needs no record */
	assert_int_equal(test_host_down("10.0.0.2", TRUE), DIRECTOR_HOST_OK);
	test_run();
	assert_true(recorded_count >= last + WALK_USERS / 4 &&
		    recorded_count <= WALK_USERS);
	assert_int_equal(test_host_flush("10.0.0.2"), DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(backends_dead_users(director_backends(director)), 0);
	assert_int_equal(forgotten_count, 0);
	/* those who expire are forgotten one by one */
	test_pass((TEST_EXPIRE + 2) * 1000);
	assert_int_equal(forgotten_count, last);
}

/* A change during the walk has a walk of its own after it; the first change is
   recorded when its walk is done, however many come. */
static void test_change_during_walk(void **state ATTR_UNUSED)
{
	unsigned int first, second;

	recorded = t_new(uint32_t, WALK_USERS * 2);
	recorded_count = 0;
	test_on_record = count_record;
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4");
	for (unsigned int i = 0; i < WALK_USERS; i++) T_BEGIN {
		(void)where(t_strdup_printf("u%u", i));
	} T_END;
	test_run();
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	first = director_last_change(director);
	assert_true(director_run(director, &now));
	assert_int_equal(test_host_set("10.0.0.2", NULL, 50), DIRECTOR_HOST_OK);
	second = director_last_change(director);
	assert_int_not_equal(first, second);
	assert_false(director_change_is_recorded(director, first));
	while (!director_change_is_recorded(director, first)) {
		assert_false(director_change_is_recorded(director, second));
		(void)director_run(director, &now);
	}
	while (!director_change_is_recorded(director, second))
		(void)director_run(director, &now);
	assert_recorded();

	/* changes without end: each is recorded in time */
	first = director_last_change(director);
	for (unsigned int i = 0; i < 1000; i++) {
		assert_int_equal(test_host_set("10.0.0.2", NULL, 50 + i % 2),
				 DIRECTOR_HOST_OK);
		(void)director_run(director, &now);
	}
	assert_true(director_change_is_recorded(director, first + 500));
	while (!director_change_is_recorded(director,
					    director_last_change(director)))
		(void)director_run(director, &now);
}

/* -- No call does much -- */

#define MANY_USERS 1000000

static uint64_t cpu_usecs(void)
{
	struct timespec ts;

	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

static unsigned int slice_records, slice_max_records;

static void count_slice(const struct director_record *record ATTR_UNUSED)
{
	slice_records++;
}

/* Runs until nothing is left. What one call does has to be a small part of it:
   the rest isn't done in one call. */
static void run_slices(const char *what, unsigned int min_slices)
{
	uint64_t start, used, longest = 0, sum = 0;
	unsigned int slices = 0;
	bool more;

	do {
		slice_records = 0;
		start = cpu_usecs();
		more = director_run(director, &now);
		used = cpu_usecs() - start;
		longest = I_MAX(longest, used);
		sum += used;
		slices++;
		slice_max_records = I_MAX(slice_max_records, slice_records);
	} while (more);
	assert_true(slice_max_records <= 1000);
	if (slices < min_slices)
		fail_msg("%s: only %u slices", what, slices);
	if (longest > sum / 8) {
		fail_msg("%s: longest slice %u of %u usecs", what,
			 (unsigned int)longest, (unsigned int)sum);
	}
}

static void run_call(const char *what, uint64_t start)
{
	uint64_t used = cpu_usecs() - start;

	/* thousands of times of what it should be */
	if (used > 300000)
		fail_msg("%s took %u usecs", what, (unsigned int)used);
}

static void test_million(void **state ATTR_UNUSED)
{
	struct director_lookup lookup = { .tag = "" };
	char name[32];
	uint64_t start;

	director_deinit(&director);
	test_set.user_expire_secs = 900;
	test_director_init();
	test_on_record = count_slice;
	slice_max_records = 0;
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3");
	test_run();
	lookup.username = name;
	for (unsigned int i = 0; i < MANY_USERS; i++) {
		i_snprintf(name, sizeof(name), "user%u", i);
		assert_int_equal(director_lookup(director, &lookup, &now), 1);
	}
	start = cpu_usecs();
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	run_call("down", start);
	run_slices("walk", 100);
	assert_true(slice_max_records > 100);

	start = cpu_usecs();
	assert_int_equal(test_host_flush("10.0.0.2"), DIRECTOR_HOST_OK);
	run_call("flush", start);
	run_slices("sweep after flush", 100);

	start = cpu_usecs();
	assert_int_equal(test_host_remove("10.0.0.1"), DIRECTOR_HOST_OK);
	run_call("remove", start);
	run_slices("sweep after remove", 100);

	/* all of the rest expire in one second */
	test_set_time(now.msecs + 900 * 1000);
	run_slices("expire", 100);
	assert_int_equal(user_table_count(director_users(director)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		director_test(test_add_and_vhosts),
		director_test(test_down),
		director_test(test_remove),
		director_test(test_flush),
		director_test(test_live_sessions),
		director_test(test_busy),
		director_test(test_walk),
		director_test(test_change_during_walk),
		director_test(test_million),
	};

	return run_test_cases(tests);
}
