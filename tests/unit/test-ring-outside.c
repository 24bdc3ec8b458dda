/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* A director that can't reach its right side, which others can */

#include "test-ring.h"

static struct test_conn *returns(const char *ip)
{
	struct test_conn *conn = incoming(ip);

	assert_non_null(conn);
	greet(conn, ip, 10, TEST_INSTANCE_LEFT);
	return conn;
}

static void broken(struct test_conn *conn)
{
	ring_peer_closed(director, conn->peer, "reset", &now);
	conn->peer = NULL;
	ring_end();
}

/* Connecting to 10.0.0.3 hangs. Returns the next one, which we connect to. */
static struct test_conn *right_hangs(struct test_conn **left_r)
{
	struct test_conn *right, *next;

	ring_of(4, left_r, &right);
	test_pass(2000);
	broken(right);
	right = conn_out();
	test_pass(500);
	next = connected();
	assert_ptr_not_equal(next, right);
	greet(next, "10.0.0.4", 10, 444);
	return next;
}

/* Our right doesn't answer us, but others: they close the ring without us, and
   then we go on alone. */
static void test_outside(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *next;

	next = right_hangs(&left);
	in(next, "CONNECT|10.0.0.3|9090");
	assert_said(next, "QUIT|Can't reach it");
	assert_said(left, "QUIT|Can't reach 10.0.0.3:9090");
	assert_said(returns("10.0.0.1"), "QUIT|Can't reach my right side");
	assert_false(ring_is_synced(director_ring(director)));
	/* The connection times out. */
	test_pass(2400);
	assert_false(ring_is_synced(director_ring(director)));
	test_pass(200);
	assert_true(ring_is_alone(director_ring(director)));
	assert_said(returns("10.0.0.1"), "QUIT|Can't reach my right side");

	/* It answers. */
	test_pass(2000);
	right = conn_out();
	if (!net_ip_compare(&right->peer->source_ip, ip_of("10.0.0.3"))) {
		/* somebody else is tried as well */
		ring_peer_closed(director, right->peer, "refused", &now);
		right->peer = NULL;
		ring_end();
		right = conn_out();
	}
	right = right_joins("10.0.0.3", 10);
	assert_not_said(returns("10.0.0.1"), "QUIT");
}

/* He was started while we were connecting to him: that says nothing. */
static void test_started_meanwhile(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *next;

	next = right_hangs(&left);
	in(next, "DIRECTOR|10.0.0.3|9090|1|%u|%u", TEST_INSTANCE_RIGHT + 1,
	   TEST_WALL);
	in(next, "CONNECT|10.0.0.3|9090");
	assert_not_said(next, "QUIT|Can't reach");
	assert_not_said(left, "QUIT");
	assert_said(next, "QUIT|CONNECT requested");
	right = right_joins("10.0.0.3", 10);
	assert_true(net_ip_compare(&right->peer->member->address.ip,
				   ip_of("10.0.0.3")));
}

/* Nor does a connection that was refused before he listened. */
static void test_started_while_connecting(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *again;

	ring_of(4, &left, &right);
	test_pass(2000);
	broken(right);
	right = conn_out();
	in(left, "DIRECTOR|10.0.0.3|9090|1|%u|%u", TEST_INSTANCE_RIGHT + 1,
	   TEST_WALL);
	again = conn_out();
	assert_ptr_not_equal(again, right);
	assert_true(net_ip_compare(&again->peer->member->address.ip,
				   ip_of("10.0.0.3")));
}

/* The other one accepts a connection, so he lives; it breaks before he has said
   anything. Only if that happens twice are we alone. */
static void test_broken_connection(void **state ATTR_UNUSED)
{
	ring_start(1, 2);
	broken(connected());
	test_pass(3500);
	assert_false(ring_is_synced(director_ring(director)));
	broken(connected());
	assert_true(ring_is_alone(director_ring(director)));
}

/* He did, but isn't there any more. */
static void test_broken_and_gone(void **state ATTR_UNUSED)
{
	ring_start(1, 2);
	broken(connected());
	test_pass(3500);
	assert_false(ring_is_synced(director_ring(director)));
	broken(conn_out());
	assert_true(ring_is_alone(director_ring(director)));
}

/* He doesn't get any farther. */
static void test_broken_and_silent(void **state ATTR_UNUSED)
{
	ring_start(1, 2);
	test_pass(1000);
	broken(connected());
	test_pass(2100);
	(void)connected();
	test_pass(2800);
	assert_false(ring_is_synced(director_ring(director)));
	test_pass(200);
	assert_true(ring_is_alone(director_ring(director)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_broken_connection),
		ring_test(test_broken_and_gone),
		ring_test(test_broken_and_silent),
		ring_test(test_outside),
		ring_test(test_started_meanwhile),
		ring_test(test_started_while_connecting),
	};

	return run_test_cases(tests);
}
