/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Whose SYNCs count, and who gets them again (doc/ring-protocol.md §9) */

#include "test-ring.h"

static void close_conn(struct test_conn *conn)
{
	ring_peer_closed(director, conn->peer, "reset", &now);
	conn->peer = NULL;
	ring_end();
}

/* hosts: differs from ours by so much */
static void sync_in(struct test_conn *conn, unsigned int host,
		    unsigned int seq, unsigned int hosts, unsigned int instance)
{
	in(conn, "SYNC|10.0.0.%u|9090|%u|10|%u|%u|%u", host, seq, TEST_WALL,
	   backends_hash(director_backends(director)) + hosts, instance);
}

/* Somebody who passed over our left takes us for his right. */
static void test_not_left(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *farther;
	const char *own;

	ring_of(4, &left, &right);
	/* a change, so that we send ours */
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.1|70||U0||2000");
	own = t_strcut(strstr(str_c(right->sent), "\nSYNC|10.0.0.2|") + 1,
		       '\n');
	farther = left_joins("10.0.0.4", 444, TRUE, NULL);
	forget_sent();
	sync_in(farther, 4, 5, 0, 444);
	sync_in(farther, 1, 3, 0, TEST_INSTANCE_LEFT);
	assert_not_said(right, "SYNC|10.0.0.4|");
	assert_not_said(right, "SYNC|10.0.0.1|");
	in(farther, "%s", own);
	assert_false(ring_is_synced(director_ring(director)));
	/* What comes from the left is passed on, once. */
	sync_in(left, 1, 4, 0, TEST_INSTANCE_LEFT);
	assert_said(right, "SYNC|10.0.0.1|9090|4|");
	assert_not_said(right, "SYNC|10.0.0.4|");
	/* It becomes our left. */
	close_conn(left);
	assert_int_equal(said(right, "SYNC|10.0.0.4|9090|5|"), 1);
	assert_not_said(right, "SYNC|10.0.0.1|9090|3|");
	assert_said(right, "SYNC|10.0.0.2|");
	ring_syncs(farther, right);
}

/* The right is lost, and maybe what it got last. */
static void test_new_right(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(4, &left, &right);
	sync_in(left, 4, 7, 0, 444);
	test_pass(1000);
	in(left, "PING|%u|0", TEST_WALL);
	test_pass(1000);
	in(left, "PING|%u|0", TEST_WALL);
	in(right, "PING|%u|0", TEST_WALL);
	test_pass(1000);
	sync_in(left, 1, 5, 0, TEST_INSTANCE_LEFT);
	sync_in(left, 1, 6, 77, TEST_INSTANCE_LEFT);
	test_pass(2000);
	sync_in(left, 3, 8, 0, TEST_INSTANCE_RIGHT);
	close_conn(right);
	right = right_joins("10.0.0.3", 10);
	/* too old, with other hosts, its own */
	assert_not_said(right, "SYNC|10.0.0.4|");
	assert_not_said(right, "SYNC|10.0.0.1|");
	assert_int_equal(said(right, "SYNC|10.0.0.3|9090|8|10|"), 1);
}

/* A process that is gone */
static void test_old_instance(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(4, &left, &right);
	in(left, "DIRECTOR|10.0.0.4|9090|1|444|%u", TEST_WALL);
	forget_sent();
	sync_in(left, 4, 100, 0, 443);
	assert_not_said(right, "SYNC|10.0.0.4|");
	sync_in(left, 4, 2, 0, 444);
	assert_said(right, "SYNC|10.0.0.4|9090|2|10|");
	in(left, "SYNC|10.0.0.4|9090|3|10|%u", TEST_WALL);
	assert_said(right, "SYNC|10.0.0.4|9090|3|10|");
	/* nobody has told of this one */
	sync_in(left, 4, 1, 0, 445);
	assert_said(right, "SYNC|10.0.0.4|9090|1|10|");
}

/* We were stopped: what we know of a user may be old. */
static void test_hung(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	struct test_lookup *lookup;

	ring_of(3, &left, &right);
	(void)where("jane");
	test_set_time(now.msecs + 2500);
	ring_end();
	assert_string_equal(where("jane"), hashed("jane"));
	forget_sent();
	test_set_time(now.msecs + 10000);
	ring_end();
	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, 0);
	ring_syncs(left, right);
	ring_end();
	assert_int_equal(lookup->state, 1);
	/* nor alone */
	ring_peer_closed(director, left->peer, "reset", &now);
	ring_peer_closed(director, right->peer, "reset", &now);
	test_pass(10000);
	assert_true(ring_is_alone(director_ring(director)));
	test_set_time(now.msecs + 10000);
	ring_end();
	assert_string_equal(where("jane"), hashed("jane"));
}

/* Nobody needs to wait, but we ask whether all are ours. */
static void assert_asks(struct test_conn *left, struct test_conn *right,
			const char *minor, unsigned int min_minor)
{
	struct ring *ring = director_ring(director);

	assert_int_equal(said(right, "SYNC|10.0.0.2|"), 1);
	assert_true(ring_is_synced(ring));
	ring_sync_returns(left, right, minor);
	assert_int_equal(ring_min_minor(ring), min_minor);
	assert_true(ring_is_synced(ring));
	forget_sent();
}

static void sync_minor(struct test_conn *conn, unsigned int host,
		       unsigned int seq, unsigned int minor)
{
	in(conn, "SYNC|10.0.0.%u|9090|%u|%u|%u|%u", host, seq, minor, TEST_WALL,
	   backends_hash(director_backends(director)));
}

/* A member of 2.3 that isn't our neighbour comes and goes. */
static void test_asks_who_is_there(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	struct ring *ring;

	ring_of(4, &left, &right);
	ring = director_ring(director);
	sync_minor(left, 4, 5, 9);
	assert_asks(left, right, "9", 9);
	/* that is what is known */
	sync_minor(left, 4, 6, 9);
	test_pass(1000);
	in(left, "PING|%u|0", TEST_WALL);
	assert_not_said(right, "SYNC|10.0.0.2|");

	/* ours in its place */
	in(left, "DIRECTOR|10.0.0.4|9090|1|444|%u", TEST_WALL);
	assert_not_said(right, "SYNC|10.0.0.2|");
	sync_in(left, 4, 1, 0, 444);
	assert_asks(left, right, NULL, 10);

	/* It is lost. */
	in(right, "PING|%u|0", TEST_WALL);
	sync_minor(left, 1, 7, 9);
	test_pass(1000);
	assert_int_equal(said(right, "SYNC|10.0.0.2|"), 1);
	for (unsigned int i = 0; i < 5; i++) {
		in(left, "PING|%u|0", TEST_WALL);
		in(right, "PING|%u|0", TEST_WALL);
		test_pass(1000);
	}
	assert_int_equal(said(right, "SYNC|10.0.0.2|"), 2);
	assert_non_null(strstr(str_c(test_logs), "appears to have got lost"));
	ring_sync_returns(left, right, "9");
	assert_int_equal(ring_min_minor(ring), 9);

	/* not twice a second */
	forget_sent();
	in(left, "DIRECTOR|10.0.0.4|9090|1|445|%u", TEST_WALL);
	sync_in(left, 1, 8, 0, TEST_INSTANCE_LEFT);
	assert_asks(left, right, "9", 9);
	in(left, "DIRECTOR|10.0.0.5|9090|1|555|%u", TEST_WALL);
	sync_in(left, 1, 9, 0, TEST_INSTANCE_LEFT);
	assert_not_said(right, "SYNC|10.0.0.2|");
	test_pass(1000);
	assert_asks(left, right, NULL, 10);
	/* what our right says has passed all others */
	sync_minor(left, 1, 10, 9);
	assert_not_said(right, "SYNC|10.0.0.2|");
	test_pass(1000);
	assert_asks(left, right, "9", 9);
	in(right, "PING|%u|0", TEST_WALL);
	sync_minor(left, 1, 11, 10);
	assert_not_said(right, "SYNC|10.0.0.2|");
	test_pass(1000);
	assert_not_said(right, "SYNC|10.0.0.2|");
	sync_minor(left, 3, 1, 10);
	assert_asks(left, right, NULL, 10);
	/* a change, which asks too */
	test_pass(1000);
	sync_minor(left, 1, 12, 9);
	assert_int_equal(said(right, "SYNC|10.0.0.2|"), 1);
	test_set_time(now.msecs + 100);
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.1|70||U0||2000");
	assert_int_equal(said(right, "SYNC|10.0.0.2|"), 2);
	test_set_time(now.msecs + 100);
	ring_syncs_minor(left, right, "9");
	assert_int_equal(ring_sync_msecs(ring), 100);
	test_pass(1000);
	assert_not_said(right, "SYNC|10.0.0.2|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_not_left),
		ring_test(test_new_right),
		ring_test(test_old_instance),
		ring_test(test_hung),
		ring_test(test_asks_who_is_there),
	};

	return run_test_cases(tests);
}
