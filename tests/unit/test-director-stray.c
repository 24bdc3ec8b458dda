/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Sessions on what isn't a backend (any more) */

#include "test-ring.h"
#include "test-restore.h"

static struct login_process *processes[2];
static struct session_plugin *plugins[2];
static unsigned int last_seq;
static string_t *kicks;

/* "<plugin> <backend> <reason>" */
static void test_kick_backend(void *context ATTR_UNUSED,
			      struct session_plugin *plugin,
			      const struct ip_addr *ip, const char *reason)
{
	str_printfa(kicks, "%u %s %s\n", plugin == plugins[0] ? 0 : 1,
		    net_ip2addr(ip), reason);
}

static int setup(void **state)
{
	int ret = test_ring_setup(state);

	ring_vfuncs.kick_backend = test_kick_backend;
	kicks = str_new(test_pool, 256);
	return ret;
}

static void begin(void)
{
	for (unsigned int i = 0; i < N_ELEMENTS(plugins); i++) {
		processes[i] = login_process_ref(director_leases(director),
						 100 + i);
		plugins[i] = session_plugin_init(director_leases(director),
						 processes[i]);
	}
}

static int teardown(void **state)
{
	for (unsigned int i = 0; i < N_ELEMENTS(plugins); i++) {
		session_plugin_lost(director_leases(director), &plugins[i],
				    now.msecs);
		login_process_unref(director_leases(director), &processes[i]);
	}
	return test_director_teardown(state);
}

static void alone(void)
{
	ring_start(1, 1);
	test_pass(DIRECTOR_START_GRACE_MSECS);
	begin();
}

/* START of a session that the director doesn't know */
static void announce(unsigned int plugin, const char *user, const char *ip)
{
	const struct session_token token = { .instance = 1,
					     .seq = ++last_seq };
	const char *error;

	assert_non_null(director_session_start(director, plugins[plugin],
		&token, test_hash(user), ip_of(ip), now.clock, &now, &error));
}

static void remove_host(const char *ip, bool keep)
{
	assert_int_equal(director_host_remove(director, ip_of(ip), keep,
					      "doveadm: ", &now),
			 DIRECTOR_HOST_OK);
	ring_end();
}

static void assert_kicked(const char *text)
{
	test_pass(1);
	assert_string_equal(str_c(kicks), text);
	str_truncate(kicks, 0);
}

#define REMOVED(plugin, ip) \
	plugin " " ip " backend " ip " was removed by doveadm\n"

static void test_removed(void **state ATTR_UNUSED)
{
	alone();
	for (unsigned int i = 0; i < 5; i++) {
		announce(0, t_strdup_printf("a%u", i), "10.1.0.1");
		announce(1, t_strdup_printf("b%u", i), "10.1.0.2");
		announce(0, t_strdup_printf("c%u", i), "10.1.0.2");
	}
	str_truncate(test_logs, 0);
	remove_host("10.1.0.1", FALSE);
	test_assert_logged("W doveadm: Host 10.1.0.1 removed with 5 live "
		"sessions that are ended: until they end, their users may be "
		"on two backends");
	/* each plugin is told once */
	assert_kicked(REMOVED("0", "10.1.0.1"));
	remove_host("10.1.0.2", FALSE);
	test_pass(1);
	assert_non_null(strstr(str_c(kicks), REMOVED("0", "10.1.0.2")));
	assert_non_null(strstr(str_c(kicks), REMOVED("1", "10.1.0.2")));
}

/* An answer that was given before, and is acted on afterwards */
static void test_pending(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	struct session_lease *lease;
	const char *error, *ip;

	alone();
	lookup = test_lookup_for(processes[1], "jane", "");
	assert_int_equal(lookup->state, 1);
	ip = lookup->ip;
	remove_host(ip, FALSE);
	assert_kicked("");
	lease = director_session_start(director, plugins[1],
				       &lookup->lookup.token,
				       lookup->lookup.hash, ip_of(ip),
				       now.clock, &now, &error);
	assert_non_null(lease);
	assert_kicked(t_strdup_printf("1 %s backend %s was removed by "
				      "doveadm\n", ip, ip));
}

static void test_keep(void **state ATTR_UNUSED)
{
	alone();
	announce(0, "jane", "10.1.0.1");
	str_truncate(test_logs, 0);
	remove_host("10.1.0.1", TRUE);
	test_assert_logged("W doveadm: Host 10.1.0.1 removed with 1 live "
		"sessions that stay: until they end, their users may be on two "
		"backends");
	assert_kicked("");
	announce(0, "john", "10.1.0.1");
	assert_kicked("");
	remove_host("10.1.0.2", FALSE);
	assert_kicked("");
	/* the wish was for that time */
	assert_int_equal(director_host_set(director, ip_of("10.1.0.1"), NULL,
					   100, TRUE, "", &now),
			 DIRECTOR_HOST_OK);
	ring_end();
	remove_host("10.1.0.1", FALSE);
	assert_kicked(REMOVED("0", "10.1.0.1"));
}

static void dump_record(void *context, const struct director_record *record)
{
	string_t *str = context;

	if (record->type == DIRECTOR_RECORD_HOST_REMOVE) {
		str_printfa(str, "%s%s\n", net_ip2addr(&record->ip),
			    record->keep ? " keep" : "");
	}
}

/* A director that starts doesn't know all at once. */
static void test_start(void **state ATTR_UNUSED)
{
	string_t *dump = t_str_new(64);
	uint32_t pos = 0;

	ring_start(1, 1);
	begin();
	restore_host("10.1.0.7", "");
	RESTORE(HOST_REMOVE, .ip = *ip_of("10.1.0.7"), .keep = TRUE);
	RESTORE(HOST_REMOVE, .ip = *ip_of("10.1.0.8"));
	RESTORE(HOST_REMOVE, .ip = *ip_of("10.1.0.9"), .keep = TRUE);
	restore_host("10.1.0.9", "");
	while (director_dump(director, &pos, 1000, &now, dump_record, dump)) ;
	assert_string_equal(str_c(dump), "10.1.0.7 keep\n");

	announce(0, "kept", "10.1.0.7");
	announce(0, "removed", "10.1.0.8");
	announce(1, "there", "10.1.0.9");
	announce(1, "unknown", "10.1.0.10");
	test_pass(DIRECTOR_START_GRACE_MSECS - 2);
	assert_kicked("");
	test_pass(1);
	assert_non_null(strstr(str_c(kicks), "0 10.1.0.8 10.1.0.8 isn't a "
			       "backend any more\n"));
	assert_non_null(strstr(str_c(kicks), "1 10.1.0.10 10.1.0.10 isn't a "
			       "backend any more\n"));
	assert_null(strstr(str_c(kicks), "10.1.0.7"));
	assert_null(strstr(str_c(kicks), "10.1.0.9"));
}

static void count_kept(void *context, const struct director_record *record)
{
	unsigned int *kept = context;

	if (record->type == DIRECTOR_RECORD_HOST_REMOVE && record->keep)
		(*kept)++;
}

static void test_bounded(void **state ATTR_UNUSED)
{
	unsigned int i, kept = 0;
	uint32_t pos = 0;

	alone();
	announce(0, "jane", "10.1.0.1");
	for (i = 0; i < 1000; i++) {
		const char *ip = t_strdup_printf("10.9.%u.%u", i / 250,
						 i % 250);

		assert_int_equal(director_host_set(director, ip_of(ip), NULL, 1,
						   TRUE, "", &now),
				 DIRECTOR_HOST_OK);
		ring_end();
		remove_host(ip, i % 2 == 0);
		test_pass(1);
	}
	assert_kicked("");
	/* of the last 100 */
	while (director_dump(director, &pos, 1000, &now, count_kept, &kept)) ;
	assert_int_equal(kept, 50);
}

/* Others tell. */
static void test_ring(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_start(2, 3);
	right = right_joins("10.0.0.3", 10);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	ring_syncs(left, right);
	test_pass(DIRECTOR_START_GRACE_MSECS);
	begin();
	announce(0, "jane", "10.1.0.1");
	announce(1, "john", "10.1.0.2");
	forget_sent();
	in(left, "HOST-REMOVE|10.0.0.1|9090|1|10.1.0.1|3000|1");
	assert_said(right, "HOST-REMOVE|10.0.0.1|9090|1|10.1.0.1|3000|1\n");
	assert_kicked("");
	in(left, "HOST-REMOVE|10.0.0.1|9090|2|10.1.0.2|3000");
	assert_said(right, "HOST-REMOVE|10.0.0.1|9090|2|10.1.0.2|3000\n");
	test_pass(1);
	assert_non_null(strstr(str_c(kicks),
			       "1 10.1.0.2 backend 10.1.0.2 was removed by "));
	str_truncate(kicks, 0);
	/* our own */
	ring_syncs(left, right);
	assert_int_equal(director_host_set(director, ip_of("10.1.0.1"), NULL,
					   100, TRUE, "", &now),
			 DIRECTOR_HOST_OK);
	ring_end();
	ring_syncs(left, right);
	forget_sent();
	remove_host("10.1.0.1", TRUE);
	assert_non_null(strstr(str_c(left->sent), "|1\n"));
	assert_said(left, "HOST-REMOVE|10.0.0.2|9090|");
	test_pass(1);
	assert_null(strstr(str_c(kicks), "10.1.0.1 "));
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_removed),
		test(test_pending),
		test(test_keep),
		test(test_start),
		test(test_bounded),
		test(test_ring),
	};

	return run_test_cases(tests);
}
