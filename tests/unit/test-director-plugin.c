/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Login processes that may have no plugin: none of their answers is told of. */

#include "test-director.h"

#define PID 4711

static struct login_process *process;

static int setup(void **state)
{
	int ret = test_director_setup(state);

	process = login_process_ref(director_leases(director), PID);
	return ret;
}

static int teardown(void **state)
{
	login_process_unref(director_leases(director), &process);
	return test_director_teardown(state);
}

static struct director_lookup *login(const char *username)
{
	struct test_lookup *lookup = test_lookup_for(process, username, "");

	assert_int_equal(lookup->state, 1);
	return &lookup->lookup;
}

/* Without plugin leases don't pile up, whatever the load. */
static void test_no_plugin(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct director_lookup *lookup;
	unsigned int i;

	test_configure("10.0.0.1");
	for (i = 0; i < SESSION_LEASE_MAX_ISSUED_WITHOUT_START * 2; i++) {
		lookup = login("jane");
		assert_int_equal(lookup->leased,
			i < SESSION_LEASE_MAX_ISSUED_WITHOUT_START);
		test_lookup_free((struct test_lookup *)lookup);
	}
	assert_int_equal(session_leases_total(leases),
			 SESSION_LEASE_MAX_ISSUED_WITHOUT_START);

	/* forgotten in slices */
	test_set_time(now.msecs + 7000);
	i = session_leases_total(leases);
	while (director_run(director, &now)) {
		assert_true(i - session_leases_total(leases) <= 2000);
		i = session_leases_total(leases);
	}
	assert_int_equal(session_leases_total(leases), 0);
	/* it may have been stopped */
	assert_false(process->plugin_missing);
	test_assert_not_logged();
	(void)login("jane");
	test_pass(7000);
	assert_true(process->plugin_missing);
	assert_ptr_equal(strstr(str_c(test_logs), "E Login process 4711 "),
			 str_c(test_logs));
}

/* Has one answer that it doesn't act on. */
static void drop_answer(struct login_process *dropping)
{
	assert_int_equal(test_lookup_for(dropping, "x", "")->state, 1);
	test_pass(7000);
	assert_false(dropping->plugin_missing);
	test_assert_not_logged();
}

static void test_no_plugin_log(void **state ATTR_UNUSED)
{
	struct login_process *other =
		login_process_ref(director_leases(director), PID + 1);
	struct login_process *third =
		login_process_ref(director_leases(director), PID + 2);

	test_configure("10.0.0.1");
	drop_answer(process);
	assert_true(login("jane")->leased);
	test_pass(6999);
	test_assert_not_logged();
	assert_false(process->plugin_missing);
	test_pass(1);
	assert_true(process->plugin_missing);
	test_assert_logged("E Login process 4711 doesn't tell of its sessions: "
		"users can't be moved or kicked safely (set login_plugins { "
		"director_login = yes } for its protocol)");

	/* at most one line a minute for all of them */
	drop_answer(other);
	drop_answer(third);
	assert_int_equal(test_lookup_for(other, "x", "")->state, 1);
	test_pass(53000 - 14000);
	assert_true(other->plugin_missing);
	assert_int_equal(test_lookup_for(third, "x", "")->state, 1);
	test_pass(6999);
	test_assert_not_logged();
	test_pass(1);
	assert_true(third->plugin_missing);
	test_assert_logged("E Login process 4713 doesn't tell of its sessions: "
		"users can't be moved or kicked safely (set login_plugins { "
		"director_login = yes } for its protocol)");
	login_process_unref(director_leases(director), &other);
	login_process_unref(director_leases(director), &third);
}

/* A single answer that a login process with plugin dropped (its client had
   gone) doesn't mean that it has none: it gets a lease again. The plugin
   connects only when it has a session to tell of. */
static void test_plugin_not_missing(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_plugin *plugin;
	unsigned int i;

	test_configure("10.0.0.1");
	drop_answer(process);
	assert_true(login("jane")->leased);
	test_pass(7000);
	assert_true(process->plugin_missing);
	/* A few are enough to find out, and for those who log in at once. */
	assert_true(login("jane")->leased);
	assert_true(login("joe")->leased);
	for (i = 2; i < 1000; i++) {
		assert_int_equal(login("jane")->leased,
				 i < SESSION_LEASE_MAX_ISSUED_MISSING);
	}
	assert_int_equal(session_leases_total(leases),
			 SESSION_LEASE_MAX_ISSUED_MISSING);
	test_pass(7000);
	assert_int_equal(session_leases_total(leases), 0);

	/* PROCESS comes */
	plugin = session_plugin_init(leases, process);
	assert_false(process->plugin_missing);
	assert_true(login("jane")->leased);
	assert_true(login("jane")->leased);
	session_plugin_lost(leases, &plugin, now.msecs);
}

/* With a plugin any number of leases is right. */
static void test_many_leases(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_plugin *plugin = session_plugin_init(leases, process);
	struct director_lookup *lookup;

	test_configure("10.0.0.1");
	for (unsigned int i = 0;
	     i < SESSION_LEASE_MAX_ISSUED_WITHOUT_START * 2; i++) {
		lookup = login("jane");
		assert_true(lookup->leased);
		test_lookup_free((struct test_lookup *)lookup);
	}
	test_pass(7000);
	assert_false(process->plugin_missing);
	test_assert_not_logged();
	assert_int_equal(session_leases_total(leases), 0);
	session_plugin_lost(leases, &plugin, now.msecs);
}

static enum director_host_result move(const char *username)
{
	uint32_t hash = test_hash(username);
	const char *from = hashed(username);

	return director_user_move(director, hash, ip_of(
		strcmp(from, "10.0.0.1") == 0 ? "10.0.0.2" : "10.0.0.1"),
		"", &now);
}

/* design.md, rule 7 */
static void test_move(void **state ATTR_UNUSED)
{
	struct login_process *other =
		login_process_ref(director_leases(director), PID + 1);
	struct session_plugin *plugin;
	struct director_lookup *lookup;
	struct user_flush_status status;
	struct user_flush *flush;
	const char *error;

	login_process_set_protocol(director_leases(director), process, "imap");
	test_configure("10.0.0.1 10.0.0.2");
	(void)login("first");
	test_pass(7000);
	(void)login("jane");
	(void)login("jim");
	test_pass(7000);
	test_assert_logged("E Login process 4711 (imap) doesn't tell of its "
		"sessions: users can't be moved or kicked safely (set "
		"login_plugins { director_login = yes } for its protocol)");
	/* with a lease or without */
	for (unsigned int i = 0; i < SESSION_LEASE_MAX_ISSUED_MISSING; i++)
		assert_true(login("with")->leased);
	assert_false(login("without")->leased);
	assert_int_equal(move("first"), DIRECTOR_HOST_UNSAFE);
	assert_int_equal(move("jane"), DIRECTOR_HOST_UNSAFE);
	assert_int_equal(move("jim"), DIRECTOR_HOST_UNSAFE);
	assert_int_equal(move("with"), DIRECTOR_HOST_UNSAFE);
	assert_int_equal(move("without"), DIRECTOR_HOST_UNSAFE);
	assert_int_equal(director_users_moving(director), 0);
	assert_string_equal(director_unsafe_reason(director),
		"login process 4711 (imap) doesn't tell of its sessions (set "
		"login_plugins { director_login = yes } for its protocol)");
	/* to where he is, it can do no harm */
	assert_int_equal(director_user_move(director, test_hash("jane"),
					    ip_of(hashed("jane")), "", &now),
			 DIRECTOR_HOST_OK);
	/* A flush leaves them where they are, and says so. */
	assert_int_equal(director_host_set(director, ip_of(hashed("jane")),
					   NULL, 0, FALSE, "", &now),
			 DIRECTOR_HOST_OK);
	str_truncate(test_logs, 0);
	flush = director_flush_users(director, NULL, 0, "", NULL, NULL, &now);
	test_pass(1000);
	director_flush_status(flush, &status, &now);
	assert_true(status.ended);
	assert_int_equal(status.moved, 0);
	assert_true(status.failed > 0);
	test_assert_logged(t_strdup_printf(
		"E %u users weren't moved, since they may have sessions that "
		"nobody can see: %s", status.failed,
		director_unsafe_reason(director)));
	director_flush_unref(&flush, FALSE);
	/* Others can be moved: who is told of, and who isn't there. */
	plugin = session_plugin_init(director_leases(director), other);
	lookup = &test_lookup_for(other, "joe", "")->lookup;
	assert_non_null(director_session_start(director, plugin, &lookup->token,
					       lookup->hash,
					       &lookup->backend->ip, now.clock,
					       &now, &error));
	assert_int_equal(move("joe"), DIRECTOR_HOST_OK);
	assert_int_equal(move("nobody"), DIRECTOR_HOST_OK);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	login_process_unref(director_leases(director), &other);
}

/* A session that nobody tells of may live as long as it is refreshed. */
static void test_move_later(void **state ATTR_UNUSED)
{
	struct session_plugin *plugin;
	unsigned int i;

	test_configure("10.0.0.1 10.0.0.2");
	(void)login("jane");
	test_pass(7000);
	(void)login("jim");
	test_pass(7000);
	plugin = session_plugin_init(director_leases(director), process);
	for (i = 0; i < 5; i++) {
		test_pass(TEST_EXPIRE * 1000 / 2);
		director_refresh(director, "jane", &now);
		(void)login("jim");
		assert_int_equal(move("jane"), DIRECTOR_HOST_UNSAFE);
	}
	/* and then it is gone for certain */
	for (i = 0; i < 4; i++) {
		test_pass(TEST_EXPIRE * 1000 / 3);
		(void)login("jim");
	}
	assert_int_equal(move("jim"), DIRECTOR_HOST_OK);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_no_plugin),
		test(test_no_plugin_log),
		test(test_plugin_not_missing),
		test(test_many_leases),
		test(test_move),
		test(test_move_later),
	};

	return run_test_cases(tests);
}
