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

/* When we would go on alone somebody else has just said who he is: we wait for
   what he has to say, but not for ever. */
static void test_outside_but_greeted(void **state ATTR_UNUSED)
{
	struct test_conn *left, *next;
	struct ring *ring;

	next = right_hangs(&left);
	ring = director_ring(director);
	in(next, "CONNECT|10.0.0.3|9090");
	assert_said(left, "QUIT|Can't reach 10.0.0.3:9090");
	test_pass(2100);
	next = connected();
	greet(next, "10.0.0.4", 10, 444);
	test_pass(2400);
	in(next, "PING|%u|0", TEST_WALL);
	test_pass(2400);
	assert_false(ring_is_synced(ring));
	test_pass(300);
	assert_true(ring_is_alone(ring));
}

/* The one that we wait for to be connected with */
static struct test_conn *find_connecting(const char *ip)
{
	struct test_conn *conn;

	array_foreach_elem(&test_conns, conn) {
		if (!conn->incoming && conn->peer != NULL &&
		    net_ip_compare(&conn->peer->source_ip, ip_of(ip)))
			return conn;
	}
	return NULL;
}

static struct test_conn *connecting_to(const char *ip)
{
	struct test_conn *conn = find_connecting(ip);

	if (conn == NULL)
		fail_msg("not connecting to %s", ip);
	return conn;
}

static void told_to_connect(void)
{
	struct test_conn *next = connecting_to("10.0.0.4");

	ring_peer_connected(director, next->peer, &now);
	greet(next, "10.0.0.4", 10, 444);
	forget_sent();
	in(next, "CONNECT|10.0.0.3|9090");
	assert_not_said(next, "QUIT|Can't reach");
	assert_said(next, "QUIT|CONNECT requested");
}

/* Told twice within 2 s, but it was our right meanwhile. */
static void test_told_again(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_start(2, 4);
	broken(connected());
	told_to_connect();
	right = right_joins("10.0.0.3", 10);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	ring_syncs(left, right);
	broken(right);
	told_to_connect();
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

/* The other one wasn't there at first. Then he accepts connections, so he lives,
   but each breaks before he has said anything. We are alone only if that goes
   on. */
static void test_broken_connection(void **state ATTR_UNUSED)
{
	struct ring *ring;
	unsigned int i;

	ring_start(1, 2);
	ring = director_ring(director);
	broken(conn_out());
	for (i = 0; i < 5; i++) {
		test_pass(2000);
		broken(connected());
	}
	test_pass(1900);
	assert_false(ring_is_synced(ring));
	test_pass(200);
	assert_true(ring_is_alone(ring));
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
	test_pass(7800);
	assert_false(ring_is_synced(director_ring(director)));
	test_pass(300);
	assert_true(ring_is_alone(director_ring(director)));
}

/* -- Who isn't in the ring -- */

/* Our neighbours fall silent, and who is left accepts, but says nothing. */
static void all_are_silent(bool is_ours)
{
	struct test_conn *left, *right, *next;

	ring_of(4, &left, &right);
	if (is_ours)
		in(left, "DIRECTOR|10.0.0.4|9090|1|444|%u", TEST_WALL);
	test_pass(3900);
	assert_non_null(right->peer);
	test_pass(200);
	assert_null(right->peer);
	assert_null(left->peer);
	test_pass(500);
	next = connecting_to("10.0.0.4");
	ring_peer_connected(director, next->peer, &now);
	ring_end();
}

static void test_silent(void **state ATTR_UNUSED)
{
	all_are_silent(TRUE);
	test_pass(2900);
	assert_false(ring_is_alone(director_ring(director)));
	test_pass(600);
	assert_true(ring_is_alone(director_ring(director)));
}

/* One of 2.3 may be busy. */
static void test_original_is_silent(void **state ATTR_UNUSED)
{
	all_are_silent(FALSE);
	test_pass(9900);
	assert_false(ring_is_alone(director_ring(director)));
	test_pass(200);
	assert_true(ring_is_alone(director_ring(director)));
}

/* What he said meanwhile hasn't been read. */
static void test_silent_while_hung(void **state ATTR_UNUSED)
{
	all_are_silent(TRUE);
	test_set_time(now.msecs + 5000);
	ring_end();
	assert_false(ring_is_alone(director_ring(director)));
	test_pass(4800);
	assert_false(ring_is_alone(director_ring(director)));
	test_pass(300);
	assert_true(ring_is_alone(director_ring(director)));
}

/* Us between 10.0.0.1 and 10.0.0.3, who takes so long to greet; connecting to
   10.0.0.4 failed. */
static void ring_without_last(unsigned int msecs, struct test_conn **left_r,
			      struct test_conn **right_r)
{
	ring_start(2, 4);
	test_pass(600);
	broken(connecting_to("10.0.0.4"));
	*right_r = connecting_to("10.0.0.3");
	ring_peer_connected(director, (*right_r)->peer, &now);
	ring_end();
	if (msecs > 0)
		test_pass(msecs);
	greet(*right_r, "10.0.0.3", 10, TEST_INSTANCE_RIGHT);
	in(*right_r, "DONE");
	*left_r = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	ring_syncs(*left_r, *right_r);
}

/* What failed once says nothing of an attempt that begins later. */
static void test_failed_long_ago(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_without_last(0, &left, &right);
	for (i = 0; i < 10; i++) {
		test_pass(1000);
		in(left, "PING|%u|0", TEST_WALL);
		in(right, "PING|%u|0", TEST_WALL);
	}
	broken(left);
	broken(right);
	broken(connecting_to("10.0.0.3"));
	(void)connecting_to("10.0.0.4");
	if (find_connecting("10.0.0.1") != NULL)
		broken(find_connecting("10.0.0.1"));
	assert_false(ring_is_alone(director_ring(director)));
	broken(connecting_to("10.0.0.4"));
	if (find_connecting("10.0.0.1") != NULL)
		broken(find_connecting("10.0.0.1"));
	assert_true(ring_is_alone(director_ring(director)));
}

/* The next one is tried as well only after the time that the first one needs. */
static void test_far_away(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_without_last(400, &left, &right);
	assert_null(find_connecting("10.0.0.4"));
	broken(right);
	for (i = 0; i < 100 && find_connecting("10.0.0.3") == NULL; i++)
		test_pass(50);
	in(left, "PING|%u|0", TEST_WALL);
	test_pass(1900);
	assert_null(find_connecting("10.0.0.4"));
	in(left, "PING|%u|0", TEST_WALL);
	test_pass(200);
	assert_non_null(find_connecting("10.0.0.4"));
}

static struct test_conn *right_is(const char *ip, unsigned int instance)
{
	struct test_conn *conn = connecting_to(ip);

	ring_peer_connected(director, conn->peer, &now);
	greet(conn, ip, 10, instance);
	in(conn, "DONE");
	return conn;
}

/* Our right is gone, and he who comes after it hangs. He was none of our
   neighbours; the one that knew that he hangs is gone. */
static void test_skipped_is_lost(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(6, &left, &right);
	in(left, "SYNC|10.0.0.4|9090|3|10|%u|0|444", TEST_WALL);
	broken(right);
	for (i = 0; i < 3; i++)
		test_pass(500);
	(void)right_is("10.0.0.6", 666);
	assert_true(is_lost("10.0.0.3"));
	assert_true(is_lost("10.0.0.4"));
	assert_true(is_lost("10.0.0.5"));
	assert_false(is_lost("10.0.0.6"));
	/* That was sent before. */
	in(left, "SYNC|10.0.0.4|9090|4|10|%u|0|444", TEST_WALL);
	assert_true(is_lost("10.0.0.4"));
	/* He goes on. */
	(void)right_is("10.0.0.4", 444);
	assert_true(is_lost("10.0.0.4"));
	in(left, "SYNC|10.0.0.4|9090|5|10|%u|0|444", TEST_WALL);
	assert_false(is_lost("10.0.0.4"));
	assert_true(is_lost("10.0.0.3"));
	/* So does the next one, whom he has connected to. */
	in(left, "SYNC|10.0.0.5|9090|3|10|%u|0|0", TEST_WALL);
	assert_false(is_lost("10.0.0.5"));
}

static void test_alone_all_are_lost(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(4, &left, &right);
	test_pass(2000);
	broken(left);
	broken(right);
	for (i = 3; i <= 5; i++) {
		assert_false(is_lost("10.0.0.4"));
		broken(connecting_to(i == 5 ? "10.0.0.1" :
				     t_strdup_printf("10.0.0.%u", i)));
		test_pass(10);
	}
	assert_true(ring_is_alone(director_ring(director)));
	assert_true(is_lost("10.0.0.4"));
}

/* Who has just started doesn't know that he was gone before. */
static void test_lost_long_ago(void **state ATTR_UNUSED)
{
	struct test_conn *left;

	ring_start(2, 5);
	test_pass(500);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE,
			  "DIRECTOR-LOST|10.0.0.3|9090|60000|333");
	assert_false(is_lost("10.0.0.3"));
	(void)right_is("10.0.0.4", 444);
	assert_false(is_lost("10.0.0.3"));
	/* we know it */
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_said(left, "DIRECTOR-LOST|10.0.0.3|9090|60000|333");

	/* Who isn't new knows better: he is in our ring. */
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE,
			  "DIRECTOR-LOST|10.0.0.5|9090|60000|555");
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_not_said(left, "DIRECTOR-LOST|10.0.0.5|");
}

/* Our right has started again. Nobody may hear of its commands before he hears of
   that: he would take them for new once more. */
static void test_restart_is_told_first(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(3, &left, &right);
	broken(right);
	for (i = 0; i < 20 && find_connecting("10.0.0.3") == NULL; i++)
		test_pass(500);
	forget_sent();
	right = connecting_to("10.0.0.3");
	ring_peer_connected(director, right->peer, &now);
	greet(right, "10.0.0.3", 10, TEST_INSTANCE_RIGHT + 1);
	assert_said(left, t_strdup_printf("DIRECTOR|10.0.0.3|9090|1|%u",
					  TEST_INSTANCE_RIGHT + 1));
}

/* One of 2.3 may be the same process as before. */
static void test_original_comes_back(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_start(2, 3);
	right = right_joins("10.0.0.3", 9);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	ring_syncs_minor(left, right, "9");
	broken(right);
	for (i = 0; i < 20 && find_connecting("10.0.0.3") == NULL; i++)
		test_pass(500);
	forget_sent();
	right = connecting_to("10.0.0.3");
	ring_peer_connected(director, right->peer, &now);
	greet(right, "10.0.0.3", 9, 0);
	assert_not_said(left, "DIRECTOR|10.0.0.3|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_broken_connection),
		ring_test(test_broken_and_gone),
		ring_test(test_broken_and_silent),
		ring_test(test_outside),
		ring_test(test_outside_but_greeted),
		ring_test(test_silent),
		ring_test(test_original_is_silent),
		ring_test(test_silent_while_hung),
		ring_test(test_failed_long_ago),
		ring_test(test_far_away),
		ring_test(test_told_again),
		ring_test(test_started_meanwhile),
		ring_test(test_started_while_connecting),
		ring_test(test_skipped_is_lost),
		ring_test(test_alone_all_are_lost),
		ring_test(test_lost_long_ago),
		ring_test(test_restart_is_told_first),
		ring_test(test_original_comes_back),
	};

	return run_test_cases(tests);
}
