/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Login processes that the director process before us knew, and those that are
   stopped when their connection is lost. */

#include "test-restore.h"

#define PID 4711
#define KICK_DELAY 2000

static struct session_plugin *plugin_of(pid_t pid)
{
	struct session_leases *leases = director_leases(director);
	struct login_process *process = login_process_ref(leases, pid);
	struct session_plugin *plugin = session_plugin_init(leases, process);

	login_process_unref(leases, &process);
	return plugin;
}

static void announced(pid_t pid)
{
	struct session_plugin *plugin = plugin_of(pid);

	director_sessions_announced(director, plugin, &now);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
}

/* jane was on the first backend. She is moved. */
static struct test_lookup *moving(void)
{
	director_deinit(&director);
	test_set.user_kick_delay_msecs = KICK_DELAY;
	test_director_init();
	restore_host("10.0.0.1", "");
	restore_host("10.0.0.2", "");
	restore_user_at("jane", "10.0.0.1", now.wall - 20);
	RESTORE(PROCESS, .pid = PID);
	RESTORE(PROCESS, .pid = PID);
	RESTORE(PROCESS, .pid = PID + 1);
	test_configure("10.0.0.1 10.0.0.2");
	assert_int_equal(director_user_move(director, test_hash("jane"),
					    ip_of("10.0.0.2"), "", &now),
			 DIRECTOR_HOST_OK);
	return test_lookup("jane");
}

static void assert_let_in(const struct test_lookup *lookup, uint64_t after)
{
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, "10.0.0.2");
	/* (a move looks four times a second) */
	assert_true(lookup->done_msecs >= TEST_MSECS + after);
	assert_true(lookup->done_msecs <= TEST_MSECS + after + 500);
}

static void test_gone_meanwhile(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup = moving();

	test_pass(10000);
	assert_let_in(lookup, DIRECTOR_START_GRACE_MSECS);
	assert_null(strstr(str_c(test_logs), "Login processes"));
}

static void test_stopped(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *waits;

	test_living = PID;
	lookup = moving();
	test_pass(20000);
	assert_int_equal(lookup->state, 0);
	assert_non_null(strstr(str_c(test_logs), "W Login processes don't tell "
		"of the sessions that they may have from before (pid 4711): "));
	waits = director_user_move_waits(director, test_hash("jane"),
					 ip_of("10.0.0.2"), &now);
	assert_non_null(strstr(waits, "(pid 4711)"));
	/* another one */
	announced(PID + 1);
	test_pass(5000);
	assert_int_equal(lookup->state, 0);
	str_truncate(test_logs, 0);
	announced(PID);
	assert_non_null(strstr(str_c(test_logs),
			       "I All login processes have told"));
	/* what it had may have ended just before */
	test_pass(5000 - 1);
	assert_let_in(lookup, 25000 + KICK_DELAY);
}

static void test_stopped_until_its_end(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	test_living = PID;
	lookup = moving();
	test_pass(10000);
	test_living = 0;
	test_pass(10000);
	assert_let_in(lookup, 10000 + 500 + KICK_DELAY);
}

static void test_stopped_for_long(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	test_living = PID;
	lookup = moving();
	test_pass(40000);
	assert_int_equal(lookup->state, -1);
	assert_int_equal(lookup->done_msecs,
			 TEST_MSECS + DIRECTOR_LOOKUP_TIMEOUT_MSECS);
	assert_int_equal(director_users_moving(director), 1);
	announced(PID);
	test_pass(KICK_DELAY + 500);
	assert_int_equal(director_users_moving(director), 0);
}

static unsigned int dumped(pid_t pid)
{
	const struct director_record *record;
	unsigned int count = 0;
	uint32_t pos = 0;

	array_clear(&test_records);
	while (director_dump(director, &pos, 100, &now, test_record, &now)) ;
	array_foreach(&test_records, record) {
		if (record->type == DIRECTOR_RECORD_PROCESS &&
		    record->pid == pid)
			count++;
	}
	return count;
}

static unsigned int asked, asked_most;
static uint64_t asked_msecs;

static bool
test_all_live(void *context ATTR_UNUSED, pid_t pid,
	      uint64_t msecs ATTR_UNUSED)
{
	asked = asked_msecs == now.msecs ? asked + 1 : 1;
	asked_msecs = now.msecs;
	asked_most = I_MAX(asked_most, asked);
	return pid != PID;
}

/* Thousands of them don't hold up logins. */
static void test_many(void **state ATTR_UNUSED)
{
	struct director_vfuncs vfuncs = test_vfuncs;

	director_deinit(&director);
	vfuncs.process_lives = test_all_live;
	director = director_init(&test_set, &vfuncs, &now, &now);
	for (pid_t pid = 1; pid <= PID; pid++)
		RESTORE(PROCESS, .pid = pid);
	test_configure("10.0.0.1");
	asked_msecs = 0;
	asked_most = 0;
	test_pass(10000);
	assert_int_equal(asked_most, 100);
	/* that one was found to be gone, all others are asked again */
	assert_int_equal(dumped(PID), 0);
	assert_int_equal(dumped(1), 1);
	assert_int_equal(dumped(PID - 1), 1);
	for (pid_t pid = 1; pid < PID; pid++)
		announced(pid);
	assert_non_null(strstr(str_c(test_logs),
			       "I All login processes have told"));
	test_pass(10000);
	assert_true(asked_msecs < now.msecs - 9000);
}

/* Users whom a changed setting moves wait, too. */
static void test_setting_changed(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	unsigned int i;

	restore_config("10.0.0.1", "");
	restore_host("10.0.0.1", "");
	test_living = PID;
	RESTORE(PROCESS, .pid = PID);
	test_configure("10.0.0.1 10.0.0.2");
	for (i = 0; strcmp(hashed(t_strdup_printf("u%u", i)), "10.0.0.2") != 0;)
		i++;
	lookup = test_lookup(t_strdup_printf("u%u", i));
	test_pass(10000);
	assert_int_equal(lookup->state, 0);
	announced(PID);
	test_pass(KICK_DELAY);
	assert_int_equal(lookup->state, 1);
}

static void test_recorded(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct login_process *other = login_process_ref(leases, PID + 2);
	const struct director_record *record;
	struct session_plugin *plugin;

	test_living = PID + 1;
	RESTORE(PROCESS, .pid = PID + 1);
	test_configure("10.0.0.1");
	plugin = plugin_of(PID);
	array_clear(&test_records);
	director_process_connected(director, PID);
	assert_int_equal(array_count(&test_records), 1);
	record = array_idx(&test_records, 0);
	assert_int_equal(record->type, DIRECTOR_RECORD_PROCESS);
	assert_int_equal(record->pid, PID);

	assert_int_equal(dumped(PID), 1);
	/* it hasn't told this one, either */
	assert_int_equal(dumped(PID + 1), 1);
	/* that one has no plugin */
	assert_int_equal(dumped(PID + 2), 0);
	session_plugin_lost(leases, &plugin, now.msecs);
	login_process_unref(leases, &other);
	assert_int_equal(dumped(PID), 0);
}

static struct session_lease *session(struct session_plugin *plugin)
{
	const struct session_token token = { .instance = 99, .seq = 1 };
	struct session_lease *lease;
	const char *error;

	test_configure("10.0.0.1");
	lease = director_session_start(director, plugin, &token,
				       test_hash("jane"), ip_of("10.0.0.1"),
				       now.wall, &now, &error);
	assert_non_null(lease);
	return lease;
}

static void test_connection_lost(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_plugin *plugin = plugin_of(PID);

	(void)session(plugin);
	test_living = PID;
	session_plugin_lost(leases, &plugin, now.msecs);
	test_pass(10 * TEST_EXPIRE * 1000);
	assert_int_equal(session_leases_total(leases), 1);
	assert_true(test_user_exists("jane"));
	/* it goes on, and has none any more */
	announced(PID);
	test_run();
	assert_int_equal(session_leases_total(leases), 0);

	plugin = plugin_of(PID);
	(void)session(plugin);
	session_plugin_lost(leases, &plugin, now.msecs);
	test_pass(10 * SESSION_LEASE_ORPHAN_MSECS);
	assert_int_equal(session_leases_total(leases), 1);
	test_living = 0;
	test_pass(SESSION_LEASE_ORPHAN_MSECS);
	assert_int_equal(session_leases_total(leases), 0);
}

/* Its end is seen after the next one has announced all that there is. */
static void test_connection_lost_late(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_plugin *plugin = plugin_of(PID), *next = plugin_of(PID);

	(void)session(plugin);
	test_living = PID;
	director_sessions_announced(director, next, &now);
	test_run();
	assert_int_equal(session_leases_total(leases), 1);
	session_plugin_lost(leases, &plugin, now.msecs);
	test_run();
	assert_int_equal(session_leases_total(leases), 0);
	session_plugin_lost(leases, &next, now.msecs);
}

/* What an older connection said is read after what the newer one says. */
static void test_told_newer(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_plugin *plugin = plugin_of(PID), *newer = plugin_of(PID);
	struct session_lease *lease = session(newer);

	director_sessions_announced(director, newer, &now);
	assert_ptr_equal(session(plugin), lease);
	assert_ptr_equal(lease->plugin, newer);
	session_plugin_lost(leases, &plugin, now.msecs);
	test_pass(10 * SESSION_LEASE_ORPHAN_MSECS);
	assert_int_equal(session_leases_total(leases), 1);
	session_plugin_lost(leases, &newer, now.msecs);
	test_pass(SESSION_LEASE_ORPHAN_MSECS);
	assert_int_equal(session_leases_total(leases), 0);
}

static unsigned int kicked;

static bool
test_kick_session(void *context ATTR_UNUSED, struct session_plugin *plugin,
		  const struct session_token *token,
		  const char *reason ATTR_UNUSED)
{
	assert_int_equal(plugin->process->pid, PID);
	assert_int_equal(token->instance, 99);
	kicked++;
	return TRUE;
}

/* The login process has left the connection that is told of the kick. */
static void test_kicked_before_it_is_told(void **state ATTR_UNUSED)
{
	struct director_vfuncs vfuncs = test_vfuncs;
	struct session_plugin *plugin, *newer;
	struct session_lease *lease;

	director_deinit(&director);
	vfuncs.sessions.kick = test_kick_session;
	director = director_init(&test_set, &vfuncs, &now, &now);
	kicked = 0;
	plugin = plugin_of(PID);
	newer = plugin_of(PID);
	lease = session(plugin);
	lease->ending = TRUE;
	assert_ptr_equal(session(newer), lease);
	assert_int_equal(kicked, 1);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	session_plugin_lost(director_leases(director), &newer, now.msecs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		director_test(test_gone_meanwhile),
		director_test(test_stopped),
		director_test(test_stopped_until_its_end),
		director_test(test_stopped_for_long),
		director_test(test_many),
		director_test(test_setting_changed),
		director_test(test_recorded),
		director_test(test_connection_lost),
		director_test(test_connection_lost_late),
		director_test(test_told_newer),
		director_test(test_kicked_before_it_is_told),
	};

	return run_test_cases(tests);
}
