/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What others say costs a director only so much (doc/ring-protocol.md, 12).
   Found by tests/fuzz. */

#include "test-ring.h"

static unsigned int members(void)
{
	unsigned int count;

	(void)ring_members_sorted(ring_get_members(director_ring(director)),
				  &count);
	return count;
}

static struct ring_member *member(const char *ip)
{
	struct ring_address address = address_of(ip);

	return ring_member_lookup(ring_get_members(director_ring(director)),
				  &address);
}

static void test_members(void **state ATTR_UNUSED)
{
	struct ring_address address = address_of("10.0.1.1");
	struct test_conn *left, *right, *other;
	unsigned int i;

	ring_of(4, &left, &right);
	for (i = 1; members() < RING_MEMBERS_MAX; i++) {
		assert_true(i < 100);
		in(left, "DIRECTOR-REMOVE|10.3.0.%u|9090|%u", i, 2000 + i);
		test_pass(1);
	}
	/* what was removed first is forgotten for others */
	assert_non_null(member("10.3.0.1"));
	in(left, "DIRECTOR-REMOVE|10.3.1.1|9090|2000");
	assert_non_null(member("10.3.1.1"));
	assert_null(member("10.3.0.1"));
	assert_non_null(member("10.3.0.2"));
	for (i = 1; i < 200; i++)
		in(left, "DIRECTOR|10.4.0.%u|9090|2000", i);
	assert_int_equal(members(), RING_MEMBERS_MAX);
	assert_null(member("10.3.0.2"));
	assert_non_null(member("10.4.0.1"));
	assert_non_null(member("10.0.0.4"));

	/* nor in other ways */
	forget_sent();
	in(left, "DIRECTOR|10.5.0.1|9090|2000");
	in(left, "DIRECTOR-REMOVE|10.5.0.2|9090|2000");
	assert_not_said(right, "DIRECTOR");
	other = incoming("10.0.0.4");
	in(other, "VERSION|director|1|10");
	in(other, "ME|10.0.0.4|9091|%u", TEST_WALL);
	assert_null(other->peer);
	in(right, "CONNECT|10.5.0.3|9090");
	assert_null(right->peer);
	assert_int_equal(members(), RING_MEMBERS_MAX);
	/* an administrator can */
	ring_add_member(director, &address, "test: ", &now);
	assert_non_null(member("10.0.1.1"));
}

static void test_connections_of_one(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *conns[3];
	unsigned int i;

	ring_of(4, &left, &right);
	/* neither says that its handshake is done */
	for (i = 0; i < N_ELEMENTS(conns); i++) {
		conns[i] = incoming("10.0.0.4");
		greet(conns[i], "10.0.0.4", 10, 444);
		assert_true(i == 0 || conns[i - 1]->peer == NULL);
		assert_non_null(conns[i]->peer);
	}
	assert_non_null(left->peer);
}

static void test_left_told_once(void **state ATTR_UNUSED)
{
	struct test_conn *first, *second;
	unsigned int i;

	ring_start(3, 4);
	first = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	for (i = 0; i < 5; i++) {
		in(first, "PING|%u|0", TEST_WALL);
		second = left_joins("10.0.0.2", 222, FALSE, NULL);
		assert_non_null(second->peer);
		assert_int_equal(said(first, "CONNECT|10.0.0.2|"), 1);
		test_pass(2000);
	}
	/* it is alive, but didn't go, and had its time */
	assert_null(first->peer);
	assert_said(first, "QUIT|Timeout waiting for disconnect");
}

static void test_removed_backends(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(3, &left, &right);
	for (i = 1; i <= 100; i++) {
		in(left, "HOST-REMOVE|10.0.0.1|9090|%u|10.2.0.%u|5000", i, i);
	}
	forget_sent();
	in(left, "HOST|10.0.0.1|9090|%u|10.2.0.50|100||U0||4000", i);
	assert_int_equal(said(left, "HOST-REMOVE|"), 1);
	assert_non_null(strstr(str_c(left->sent), "|10.2.0.50|5000\n"));
}

/* -- It rests while there is nothing to do -- */

#define assert_rests(msecs) do { \
	test_runs = 0; \
	test_pass(msecs); \
	if (test_runs > (msecs) / 100) \
		fail_msg("%u runs", test_runs); \
} while (0)

static void test_rests_before_first_ring(void **state ATTR_UNUSED)
{
	ring_start(2, 3);
	/* one that says nothing, beyond the time that others have to start */
	(void)connected();
	assert_rests(9000);
}

static void test_rests_while_output_is_full(void **state ATTR_UNUSED)
{
	struct test_conn *right;

	ring_start(2, 2 + 1);
	right = connected();
	test_queue = 1000000;
	greet(right, "10.0.0.3", 9, 0);
	assert_not_said(right, "DONE");
	/* it was hung meanwhile */
	test_set_time(now.msecs + 31000);
	assert_rests(9000);
	assert_non_null(right->peer);
	test_queue = 0;
	ring_peer_drained(director, right->peer, &now);
	ring_end();
	assert_said(right, "DONE");
}

/* Each change of a backend's tag would be remembered for ever. */
static void test_tags(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(4, &left, &right);
	for (i = 1; i <= BACKENDS_MAX_TAGS + 10; i++) T_BEGIN {
		in(left, "HOST|10.0.0.1|9090|%u|10.1.0.9|100|t%u|U0||%u", i, i,
		   2000 + i);
	} T_END;
	assert_non_null(left->peer);
	assert_non_null(backends_tag(director_backends(director), "t9"));
	assert_null(backends_tag(director_backends(director),
				 t_strdup_printf("t%u", BACKENDS_MAX_TAGS)));
	assert_non_null(strstr(str_c(test_logs), "or too many tags known"));
	/* those that are known go on */
	in(left, "HOST|10.0.0.1|9090|%u|10.1.0.9|100|t9|U0||9000", i);
	assert_non_null(get("10.1.0.9"));
	assert_string_equal(get("10.1.0.9")->tag, "t9");
	assert_non_null(get("10.1.0.1"));
}

/* Of two rounds of a director that is gone the later one has the older time: each
   made the other one look as if its director had started again. */
static void test_syncs_chase(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(4, &left, &right);
	forget_sent();
	for (i = 0; i < 20; i++) {
		in(left, "SYNC|10.0.0.4|9090|4|10|%u|%u", TEST_WALL,
		   backends_hash(director_backends(director)));
		in(left, "SYNC|10.0.0.4|9090|5|10|%u|%u", TEST_WALL - 1000,
		   backends_hash(director_backends(director)));
	}
	assert_in_range(said(right, "SYNC|10.0.0.4|9090|"), 2, 15);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_tags),
		ring_test(test_members),
		ring_test(test_connections_of_one),
		ring_test(test_left_told_once),
		ring_test(test_removed_backends),
		ring_test(test_rests_before_first_ring),
		ring_test(test_rests_while_output_is_full),
		ring_test(test_syncs_chase),
	};

	return run_test_cases(tests);
}
