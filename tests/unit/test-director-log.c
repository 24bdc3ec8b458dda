/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who can make the director log doesn't decide how much it logs. */

#include "test-director.h"
#include "director/core/log-throttle.h"

#define NOWHERE(hash) \
	"W User hash "hash" has a session on 10.0.0.9, which isn't a backend " \
	"(any more)"

static struct login_process *process;
static struct session_plugin *plugin;

static int setup(void **state)
{
	int ret = test_director_setup(state);

	process = login_process_ref(director_leases(director), 1);
	plugin = session_plugin_init(director_leases(director), process);
	return ret;
}

static int teardown(void **state)
{
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	login_process_unref(director_leases(director), &process);
	return test_director_teardown(state);
}

static struct session_lease *announce(uint32_t hash, const char *ip)
{
	static struct session_token token = { .instance = 99 };
	struct session_lease *lease;
	const char *error;

	token.seq++;
	lease = director_session_start(director, plugin, &token, hash,
				       ip_of(ip), TEST_WALL, &now, &error);
	assert_non_null(lease);
	return lease;
}

static void test_throttle(void **state ATTR_UNUSED)
{
	struct log_throttle throttle = { .held = 0 };
	unsigned int held = 5, i;

	assert_true(log_throttle(&throttle, 1, &held));
	assert_int_equal(held, 0);
	assert_string_equal(log_throttle_more(held), "");
	assert_true(log_throttle_deadline(&throttle) == 0);
	assert_int_equal(log_throttle_rest(&throttle, 10000), 0);

	for (i = 0; i < 12; i++)
		assert_false(log_throttle(&throttle, 1 + i * 80, &held));
	assert_false(log_throttle(&throttle, 1000, &held));
	assert_true(log_throttle_deadline(&throttle) == 1001);
	assert_int_equal(log_throttle_rest(&throttle, 1000), 0);
	/* told with the next line */
	assert_true(log_throttle(&throttle, 1001, &held));
	assert_int_equal(held, 13);
	assert_string_equal(log_throttle_more(held), " (13 more like it)");
	assert_true(log_throttle_deadline(&throttle) == 0);
	/* or alone, which is a line, too */
	assert_false(log_throttle(&throttle, 2000, &held));
	assert_int_equal(log_throttle_rest(&throttle, 2001), 1);
	assert_int_equal(log_throttle_rest(&throttle, 9001), 0);
	assert_false(log_throttle(&throttle, 3000, &held));
	assert_true(log_throttle(&throttle, 3001, &held));
	assert_int_equal(held, 1);
}

static void test_nowhere(void **state ATTR_UNUSED)
{
	unsigned int i;

	test_configure("10.0.0.1");
	for (i = 0; i < 1000; i++)
		(void)announce(i, "10.0.0.9");
	assert_string_equal(str_c(test_logs), NOWHERE("0")"\n");
	str_truncate(test_logs, 0);
	test_pass(999);
	test_assert_not_logged();
	test_pass(1);
	assert_string_equal(str_c(test_logs), "W 999 more sessions on what "
			    "isn't a backend (any more)\n");
	str_truncate(test_logs, 0);

	/* that was this second's line */
	(void)announce(2000, "10.0.0.9");
	now.msecs += 1000;
	(void)announce(2001, "10.0.0.9");
	assert_string_equal(str_c(test_logs),
			    NOWHERE("2001")" (1 more like it)\n");
	str_truncate(test_logs, 0);
	test_pass(10000);
	test_assert_not_logged();
	(void)announce(2002, "10.0.0.9");
	test_assert_logged(NOWHERE("2002"));
}

static void test_elsewhere(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	const char *other;
	unsigned int i;

	test_configure("10.0.0.1 10.0.0.2");
	(void)where("jane");
	other = strcmp(hashed("jane"), "10.0.0.1") == 0 ?
		"10.0.0.2" : "10.0.0.1";
	for (i = 0; i < 100; i++)
		lease = announce(test_hash("jane"), other);
	/* each kind has its own line */
	(void)announce(1, "10.0.0.9");
	for (i = 0; i < 100; i++) {
		director_session_up(director, lease, i % 2 == 0 ?
				    ip_of("10.0.0.7") : ip_of("10.0.0.8"),
				    &now);
	}
	assert_string_equal(str_c(test_logs), t_strdup_printf(
		"W User hash 1480892766 has a session on %s although he is "
		"assigned to %s\n"NOWHERE("1")"\n"
		"W Backend %s redirected user hash 1480892766 to 10.0.0.7: he "
		"may be on two backends\n", other, hashed("jane"), other));
	str_truncate(test_logs, 0);
	test_pass(1000);
	test_assert_logged("W 99 more sessions on other backends than their "
			   "users'\nW 99 more sessions were redirected by "
			   "their backends");
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test_case(test_throttle),
		test(test_nowhere),
		test(test_elsewhere),
	};

	return run_test_cases(tests);
}
