/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* How a director hands over its users */

#include "test-ring.h"

/* Several slices */
#define TEST_USERS 20000
/* doc/ring-protocol.md §4 */
#define TEST_EARLY_USERS_MAX 16384

/* Us at 10.0.0.2 with many users. Our right has gone, the next one greets. */
static struct test_conn *next_one_greets(void)
{
	struct test_conn *left, *right, *conn;
	unsigned int i;

	ring_of(3, &left, &right);
	for (i = 1; i <= TEST_USERS; i++) T_BEGIN {
		in(left, "USER|%u|10.1.0.1|%u|%u", i, TEST_WALL,
		   TEST_INSTANCE_LEFT);
		if (i % 100 == 0)
			forget_sent();
	} T_END;
	ring_peer_closed(director, right->peer, "reset", &now);
	right->peer = NULL;
	ring_end();
	conn = connected();
	greet(conn, "10.0.0.1", 10, TEST_INSTANCE_LEFT);
	assert_not_said(conn, "DONE");
	return conn;
}

/* Nothing else has to happen for that. */
static void test_users_without_pause(void **state ATTR_UNUSED)
{
	struct test_conn *conn = next_one_greets();

	test_pass(100);
	assert_int_equal(said(conn, "U|"), TEST_USERS);
	assert_int_equal(said(conn, "DONE"), 1);
}

/* It doesn't read: we wait, and not by asking again and again. */
static void test_users_wait_for_room(void **state ATTR_UNUSED)
{
	struct test_conn *conn = next_one_greets();
	unsigned int count = said(conn, "U|"), runs = test_runs;

	test_queue = 1024 * 1024;
	test_pass(100);
	assert_int_equal(said(conn, "U|"), count);
	assert_true(test_runs - runs < 5);
	test_queue = 0;
	ring_peer_drained(director, conn->peer, &now);
	ring_end();
	assert_true(said(conn, "U|") > count);
	test_pass(100);
	assert_int_equal(said(conn, "U|"), TEST_USERS);
	assert_int_equal(said(conn, "DONE"), 1);
}

/* Its greeting was 5 s old when we started and read it. What it says when it
   has got ours tells its clock, so users aren't taken for younger. */
static void test_users_after_late_greeting(void **state ATTR_UNUSED)
{
	struct test_conn *left;

	ring_start(2, 3);
	left = incoming("10.0.0.1");
	assert_non_null(left);
	in(left, "VERSION|director|1|10");
	in(left, "ME|10.0.0.1|9090|%u|%u|%u", TEST_WALL - 5,
	   TEST_INSTANCE_LEFT, TEST_WALL - 5);
	in(left, "DIRECTOR|10.0.0.1|9090|1|%u|%u", TEST_INSTANCE_LEFT,
	   TEST_WALL);
	in(left, "HOST-HAND-START|1");
	in(left, "HOST|10.1.0.1|100||U0||1");
	in(left, "HOST-HAND-END|1");
	in(left, "U|%u|10.1.0.1|%u", test_hash("jane"), TEST_WALL - 20);
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("jane", "")),
			 TEST_WALL - 20);
}

/* What we remember of before isn't worth a conflict: he was moved meanwhile. */
static void test_user_told_at_start(void **state ATTR_UNUSED)
{
	struct test_conn *right;
	const char *user = "u0";
	unsigned int i;

	ring_init(2, 3);
	restore_host("10.1.0.1", "");
	restore_host("10.1.0.2", "");
	restore_config("10.1.0.1", "");
	restore_config("10.1.0.2", "");
	/* of two the lower address would hold */
	for (i = 1; strcmp(hashed(user), "10.1.0.2") != 0; i++)
		user = t_strdup_printf("u%u", i);
	restore_user(user, "10.1.0.1");
	test_configure_restored("10.1.0.1 10.1.0.2", TRUE);
	ring_end();
	right = right_joins("10.0.0.3", 10);
	assert_string_equal(known(user, ""), "10.1.0.1");
	in(right, "USER|%u|10.1.0.2|%u|333", test_hash(user), TEST_WALL);
	assert_string_equal(known(user, ""), "10.1.0.2");
	assert_not_said(right, "USER-KICK-HASH");
}

/* Who hands the ring to us gets what it told us before only from us. */
static void test_users_told_before_handshake(void **state ATTR_UNUSED)
{
	struct test_conn *right;

	ring_start(2, 3);
	right = right_joins("10.0.0.3", 10);
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("jane"), TEST_WALL);
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("joe"), TEST_WALL);
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("kate"), TEST_WALL);
	in(right, "USER|%u|10.1.0.2|%u|333", test_hash("kate"), TEST_WALL);
	in(right, "USER|%u|10.1.0.9|%u|333", test_hash("ann"), TEST_WALL);
	(void)left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE,
		t_strdup_printf("U|%u|10.1.0.2|%u", test_hash("joe"),
				TEST_WALL));
	assert_string_equal(known("jane", ""), "10.1.0.1");
	assert_string_equal(known("kate", ""), "10.1.0.2");
	/* what it hands over counts more */
	assert_string_equal(known("joe", ""), "10.1.0.2");
	/* no such backend */
	assert_string_equal(known("ann", ""), "none");
}

/* Who comes behind a flush is forgotten when it comes again. */
static void test_users_flushed_twice_before_handshake(void **state ATTR_UNUSED)
{
	const char *flush = "HOST-FLUSH|10.0.0.3|9090|1|10.1.0.1";
	struct test_conn *right;

	ring_start(2, 3);
	right = right_joins("10.0.0.3", 10);
	in(right, "%s", flush);
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("jane"), TEST_WALL);
	in(right, "%s", flush);
	test_pass(6000);
	(void)left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_string_equal(known("jane", ""), "none");
}

static void test_users_flushed_before_handshake(void **state ATTR_UNUSED)
{
	struct test_conn *right;

	ring_start(2, 3);
	right = right_joins("10.0.0.3", 10);
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("jane"), TEST_WALL);
	in(right, "USER|%u|10.1.0.2|%u|333", test_hash("kate"), TEST_WALL);
	in(right, "HOST-FLUSH|10.0.0.3|9090|1|10.1.0.1");
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("joe"), TEST_WALL);
	/* he has expired since */
	in(right, "USER|%u|10.1.0.1|%u|333", test_hash("ann"),
	   TEST_WALL - 895);
	test_pass(6000);
	(void)left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_string_equal(known("jane", ""), "none");
	assert_string_equal(known("kate", ""), "10.1.0.2");
	assert_string_equal(known("joe", ""), "10.1.0.1");
	assert_string_equal(known("ann", ""), "none");
}

/* Whoever tells of more has to tell them again. */
static void test_users_before_handshake_are_limited(void **state ATTR_UNUSED)
{
	struct test_conn *right;
	unsigned int i;

	ring_start(2, 3);
	right = right_joins("10.0.0.3", 10);
	for (i = 1; i <= TEST_EARLY_USERS_MAX + 100; i++) T_BEGIN {
		in(right, "USER|%u|10.1.0.1|%u|333", i, TEST_WALL);
	} T_END;
	forget_sent();
	(void)left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_int_equal(user_table_count(director_users(director)),
			 TEST_EARLY_USERS_MAX);
}

/* Others agree that nobody uses him. When two parts of the ring meet, one of them
   is in it already: told on as USER it would be an objection. */
static void test_weak_user_of_the_other_part(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	uint32_t hash = test_hash("jane");

	ring_of(4, &left, &right);
	in(right, "USER-WEAK|10.0.0.3|9090|5|%u|10.1.0.1", hash);
	for (unsigned int i = 0; i < 20; i++) {
		in(left, "PING|%u|0", TEST_WALL);
		in(right, "PING|%u|0", TEST_WALL);
		test_pass(1000);
	}
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, t_strdup_printf(
		"U|%u|10.1.0.1|%lld|w", hash, (long long)now.wall));
	assert_not_said(right, t_strdup_printf("USER|%u|", hash));

	/* Here nobody had asked yet. */
	in(right, "USER|%u|10.1.0.1|%lld", test_hash("joe"),
	   (long long)now.wall - TEST_EXPIRE * 2 / 3);
	assert_string_equal(known("joe", ""), "10.1.0.1");
	forget_sent();
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, t_strdup_printf(
		"U|%u|10.1.0.1|%lld|w", test_hash("joe"), (long long)now.wall));
	assert_not_said(right, t_strdup_printf("USER|%u|", test_hash("joe")));
	assert_int_equal(user_table_flags(director_users(director),
					  test_user("joe", "")),
			 USER_FLAG_WEAK);
}

/* Our left is gone, is started again, says so, and isn't heard of any more: until
   then its login processes had a director. */
static void test_lost_again(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i;

	ring_of(3, &left, &right);
	assert_false(is_lost("10.0.0.1"));
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	test_pass(14000);
	assert_true(is_lost("10.0.0.1"));
	left = incoming("10.0.0.1");
	greet(left, "10.0.0.1", 10, TEST_INSTANCE_LEFT + 1);
	for (i = 0; i < 3; i++) {
		test_pass(4900);
		assert_true(is_lost("10.0.0.1"));
		/* That one has said so already. */
		greet(incoming("10.0.0.1"), "10.0.0.1", 10,
		      TEST_INSTANCE_LEFT + 1);
	}
	test_pass(400);
	assert_false(is_lost("10.0.0.1"));
	/* nor is it, if it is the process that was lost */
	greet(incoming("10.0.0.1"), "10.0.0.1", 10, TEST_INSTANCE_LEFT);
	assert_false(is_lost("10.0.0.1"));
}

/* Its clock was set back before it started. It learns that from us, and its
   numbers begin when it has taken a later instance. */
static void test_older_greeting(void **state ATTR_UNUSED)
{
	const char *flush = "HOST-FLUSH|10.0.0.1|9090|";
	struct test_conn *left, *right, *new;

	ring_of(3, &left, &right);
	in(left, "%s5|10.1.0.1", flush);
	assert_said(right, flush);
	new = incoming("10.0.0.1");
	greet(new, "10.0.0.1", 10, TEST_INSTANCE_LEFT - 1);
	assert_said(new, t_strdup_printf("DIRECTOR|10.0.0.1|9090|1|%u",
					 TEST_INSTANCE_LEFT));
	forget_sent();
	in(right, "%s5|10.1.0.1", flush);
	assert_not_said(new, flush);
	in(new, "DIRECTOR|10.0.0.1|9090|1|%u", TEST_INSTANCE_LEFT + 1);
	in(new, "%s1|10.1.0.1", flush);
	assert_said(right, flush);
}

/* Each process of a director has a clock of its own. What the one before said may
   come after the new one's greeting. */
static void test_clock_of_before(void **state ATTR_UNUSED)
{
	const long long ago = (long long)TEST_WALL - 30000;
	struct test_conn *left, *right, *new;

	ring_of_two(&left, &right);
	new = incoming("10.0.0.2");
	in(new, "VERSION|director|1|10");
	in(new, "ME|10.0.0.2|9090|%lld|%u|%lld", ago, TEST_INSTANCE_RIGHT + 1,
	   ago);
	in(right, "PING|%u|0", TEST_WALL);
	in(right, "USER|%u|10.1.0.1|%lld|%u", test_hash("jane"), ago,
	   TEST_INSTANCE_RIGHT + 1);
	assert_string_equal(known("jane", ""), "10.1.0.1");
}

/* So it is where somebody tells of it who doesn't know that it has started
   again. */
static void test_clock_told_of_before(void **state ATTR_UNUSED)
{
	const long long ahead = (long long)TEST_WALL + 30000;
	struct test_conn *left, *right;

	ring_of(4, &left, &right);
	in(right, "DIRECTOR|10.0.0.4|9090|1|445");
	in(right, "DIRECTOR|10.0.0.4|9090|1|444|%lld", ahead);
	in(right, "USER|%u|10.1.0.1|%u|445", test_hash("jane"), TEST_WALL);
	assert_string_equal(known("jane", ""), "10.1.0.1");
}

/* It takes another name for the same process: its clock counts on. */
static void test_clock_after_new_instance(void **state ATTR_UNUSED)
{
	const long long ago = (long long)TEST_WALL - 30000;
	struct test_conn *left, *right;

	ring_of(3, &left, &right);
	in(left, "DIRECTOR|10.0.0.1|9090|1|%u", TEST_INSTANCE_LEFT + 1);
	in(left, "PING|%lld|0", ago);
	in(right, "USER|%u|10.1.0.1|%lld|%u", test_hash("jane"), ago,
	   TEST_INSTANCE_LEFT + 1);
	assert_string_equal(known("jane", ""), "10.1.0.1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_users_without_pause),
		ring_test(test_users_wait_for_room),
		ring_test(test_users_after_late_greeting),
		ring_test(test_user_told_at_start),
		ring_test(test_users_told_before_handshake),
		ring_test(test_users_flushed_before_handshake),
		ring_test(test_users_flushed_twice_before_handshake),
		ring_test(test_users_before_handshake_are_limited),
		ring_test(test_weak_user_of_the_other_part),
		ring_test(test_lost_again),
		ring_test(test_older_greeting),
		ring_test(test_clock_of_before),
		ring_test(test_clock_told_of_before),
		ring_test(test_clock_after_new_instance),
	};

	return run_test_cases(tests);
}
