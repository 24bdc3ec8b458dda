/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Whose sessions they are, in words, and the walk over all of them. */

#include "test-unit.h"
#include "director/core/session-lease.h"

static struct session_leases *leases;
static struct login_process *process;
static struct session_plugin *plugin;
static unsigned int walked[100];

static int setup(void **state)
{
	leases = session_leases_init(7, 0x1234567890abcdefULL, NULL, NULL);
	process = login_process_ref(leases, 1);
	plugin = session_plugin_init(leases, process);
	memset(walked, 0, sizeof(walked));
	return test_frame_setup(state);
}

static int teardown(void **state)
{
	session_plugin_lost(leases, &plugin, 1);
	login_process_unref(leases, &process);
	session_leases_deinit(&leases);
	return test_frame_teardown(state);
}

static struct session_lease *announce(uint64_t seq)
{
	const struct session_token token = { 1, seq };
	struct ip_addr ip;

	assert_int_equal(net_addr2ip("10.0.0.1", &ip), 0);
	return session_lease_announce(leases, plugin, "", 5, &ip, &token, seq);
}

static void set(struct session_lease *lease, const char *name,
		const char *fields)
{
	session_lease_set_names(leases, lease, name,
				t_strsplit_spaces(fields, " "));
}

static void test_names(void **state ATTR_UNUSED)
{
	struct session_lease *lease = announce(1);

	assert_null(session_lease_name(lease));
	assert_null(session_lease_field(lease, "user_a"));
	set(lease, "jane", "");
	assert_string_equal(session_lease_name(lease), "jane");
	assert_null(session_lease_field(lease, "user_a"));
	set(lease, "", "user_a=1 user_ab= user_b=x=y nothing");
	assert_string_equal(session_lease_name(lease), "");
	assert_string_equal(session_lease_field(lease, "user_a"), "1");
	assert_string_equal(session_lease_field(lease, "user_ab"), "");
	assert_string_equal(session_lease_field(lease, "user_b"), "x=y");
	assert_null(session_lease_field(lease, "user_"));
	assert_null(session_lease_field(lease, "nothing"));
	assert_null(session_lease_field(lease, ""));
}

static void test_destuser(void **state ATTR_UNUSED)
{
	struct session_lease *one = announce(1), *two = announce(2);

	assert_false(session_leases_have_destusers(leases));
	set(one, "jane", "destuser=x");
	set(two, "jim", "user_a=destuser=x");
	assert_true(session_leases_have_destusers(leases));
	/* announced again */
	set(one, "jane", "destuser=y");
	assert_string_equal(session_lease_field(one, "destuser"), "y");
	session_lease_end(leases, &two);
	assert_true(session_leases_have_destusers(leases));
	session_lease_end(leases, &one);
	assert_false(session_leases_have_destusers(leases));
}

/* What is too long is cut or left out. */
static void test_limits(void **state ATTR_UNUSED)
{
	struct session_lease *lease = announce(1);
	char text[SESSION_NAME_MAX_LEN + 10];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	set(lease, text, t_strdup_printf(
		"a=%.*s b=%.*s c=1", SESSION_NAME_MAX_LEN - 1, text,
		SESSION_NAME_MAX_LEN - 2, text));
	assert_int_equal(strlen(session_lease_name(lease)),
			 SESSION_NAME_MAX_LEN);
	assert_null(session_lease_field(lease, "a"));
	assert_int_equal(strlen(session_lease_field(lease, "b")),
			 SESSION_NAME_MAX_LEN - 2);
	assert_non_null(session_lease_field(lease, "c"));

	set(lease, "jane", "a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8 i=9");
	assert_non_null(session_lease_field(lease, "h"));
	assert_null(session_lease_field(lease, "i"));
}

static void walk_one(struct session_lease *lease, void *context ATTR_UNUSED)
{
	walked[lease->token.seq]++;
}

/* Others come and go meanwhile. */
static void test_walk(void **state ATTR_UNUSED)
{
	struct session_lease *all[N_ELEMENTS(walked)];
	unsigned int i, steps = 0, pos = 0;

	for (i = 0; i < 50; i++)
		all[i] = announce(i);
	while (session_leases_walk_all(leases, &pos, 1000, walk_one, NULL)) {
		if (i < N_ELEMENTS(walked)) {
			all[i] = announce(i);
			i++;
		}
		if (steps < 10)
			session_lease_end(leases, &all[steps]);
		steps++;
	}
	assert_true(steps > 50);
	for (i = 0; i < N_ELEMENTS(walked); i++) {
		if (i >= 10 && i < 50)
			assert_int_equal(walked[i], 1);
		else
			assert_in_range(walked[i], 0, 1);
	}
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_names),
		test(test_destuser),
		test(test_limits),
		test(test_walk),
	};

	return run_test_cases(tests);
}
