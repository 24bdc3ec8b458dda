/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What a director of a ring says to whom (doc/ring-protocol.md) */

#include "test-ring.h"

/* -- USER-WEAK -- */

/* Both ways round; nobody may take one for consent. */
static void
assert_objects(struct test_conn *first, struct test_conn *second,
	       const char *origin, const char *ip)
{
	const char *weak = t_strdup_printf("USER-WEAK|%s|9090|5|%u|%s", origin,
					   test_hash("jane"), ip);
	const char *user = t_strdup_printf("USER|%u|%s|", test_hash("jane"),
					   ip);

	ring_end();
	forget_sent();
	in(first, "%s", weak);
	assert_said(first, user);
	assert_said(second, user);
	in(second, "%s", weak);
	assert_not_said(first, "USER-WEAK|");
	assert_not_said(second, "USER-WEAK|");
	assert_int_equal(user_table_flags(director_users(director),
					  test_user("jane", "")) &
			 USER_FLAG_WEAK, 0);
}

static void test_weak_recent_of_two(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *ip;

	ring_of_two(&left, &right);
	ip = where("jane");
	assert_objects(right, left, "10.0.0.2", ip);
}

static void test_weak_recent_of_four(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *ip;

	ring_of(4, &left, &right);
	ip = where("jane");
	assert_objects(left, right, "10.0.0.4", ip);
}

/* Neither recent nor, at first, leased */
static void old_user_is_told(struct test_conn *conn)
{
	in(conn, "USER|%u|10.1.0.1|%u|%u", test_hash("jane"),
	   TEST_WALL - TEST_EXPIRE / 2 - 5, TEST_INSTANCE_RIGHT);
	assert_string_equal(known("jane", ""), "10.1.0.1");
}

static void test_weak_leased_of_two(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of_two(&left, &right);
	old_user_is_told(right);
	user_table_set_flags(director_users(director), test_user("jane", ""),
			     USER_FLAG_LEASED, 0);
	assert_objects(right, left, "10.0.0.2", "10.1.0.1");
	user_table_set_flags(director_users(director), test_user("jane", ""),
			     0, USER_FLAG_LEASED);
}

static void test_weak_consent_of_two(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *weak;

	ring_of_two(&left, &right);
	old_user_is_told(right);
	weak = t_strdup_printf("USER-WEAK|10.0.0.2|9090|5|%u|10.1.0.1",
			       test_hash("jane"));
	forget_sent();
	in(right, "%s", weak);
	assert_int_equal(said(left, weak), 1);
	assert_not_said(right, "USER");
	in(left, "%s", weak);
	assert_int_equal(said(right, weak), 1);
	assert_int_equal(said(left, "USER"), 1);
}

/* 10.0.0.4 is known, but there is nobody there to take it from the ring. */
static void test_weak_of_dead_origin(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *weak;
	unsigned int i;

	ring_of(4, &left, &right);
	weak = t_strdup_printf("USER-WEAK|10.0.0.4|9090|5|%u|10.1.0.1",
			       test_hash("jane"));
	for (i = 0; i < 600; i++)
		in(left, "%s", weak);
	assert_true(said(right, weak) > 1);
	assert_true(said(right, weak) <= 5);
	/* the next one is another one */
	forget_sent();
	weak = t_strdup_printf("USER-WEAK|10.0.0.4|9090|6|%u|10.1.0.1",
			       test_hash("jane"));
	in(left, "%s", weak);
	assert_int_equal(said(right, weak), 1);
}

/* A handshake that was sent before he became weak says nothing new. */
static void test_weak_in_old_handshake(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int old = TEST_WALL - TEST_EXPIRE + 1;
	uint32_t hash;

	ring_of(4, &left, &right);
	hash = test_hash("jane");
	in(left, "USER|%u|10.1.0.1|%u|%u", hash, old, TEST_INSTANCE_LEFT);
	in(left, "USER-WEAK|10.0.0.4|9090|5|%u|10.1.0.1", hash);
	forget_sent();
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE,
			  t_strdup_printf("U|%u|10.1.0.1|%u", hash, old));
	assert_true((user_table_flags(director_users(director),
				      test_user("jane", "")) &
		     USER_FLAG_WEAK) != 0);
	assert_not_said(right, "USER");
	/* but that he is used does */
	in(left, "USER|%u|10.1.0.1|%u|%u", hash, TEST_WALL,
	   TEST_INSTANCE_LEFT);
	assert_int_equal(user_table_flags(director_users(director),
					  test_user("jane", "")) &
			 USER_FLAG_WEAK, 0);
}

/* A director that was away remembers an old backend: not the lower address
   wins, whoever tells first. */
static void test_conflict_with_old(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int old = TEST_WALL - TEST_EXPIRE / 2;
	const char *jane, *jim;

	ring_of(4, &left, &right);
	jane = t_strdup_printf("USER|%u|10.1.0.", test_hash("jane"));
	jim = t_strdup_printf("USER|%u|10.1.0.", test_hash("jim"));
	in(left, "%s2|%u|%u", jane, TEST_WALL, TEST_INSTANCE_LEFT);
	in(left, "%s1|%u|%u", jane, old, TEST_INSTANCE_LEFT);
	assert_non_null(strstr(str_c(test_logs), "redirected to two hosts"));
	assert_string_equal(known("jane", ""), "10.1.0.2");
	assert_said(left, t_strconcat(jane, "2|", NULL));

	in(left, "%s1|%u|%u", jim, old, TEST_INSTANCE_LEFT);
	in(left, "%s2|%u|%u", jim, TEST_WALL, TEST_INSTANCE_LEFT);
	assert_string_equal(known("jim", ""), "10.1.0.2");
	/* of the same time: the lower address */
	in(left, "%s1|%u|%u", jim, TEST_WALL, TEST_INSTANCE_LEFT);
	assert_string_equal(known("jim", ""), "10.1.0.1");
	in(left, "%s2|%u|%u", jim, TEST_WALL, TEST_INSTANCE_LEFT);
	assert_string_equal(known("jim", ""), "10.1.0.1");
}

/* Directors before 1.9 don't tell when he was used. */
static void test_user_without_time(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *user;

	ring_of(3, &left, &right);
	user = t_strdup_printf("USER|%u|10.1.0.1", test_hash("jane"));
	in(left, "USER|%u|10.1.0.1|%u|%u", test_hash("jane"),
	   TEST_WALL - 15, TEST_INSTANCE_LEFT);
	forget_sent();
	in(left, "%s", user);
	assert_int_equal(user_table_timestamp(director_users(director),
				test_user("jane", "")), TEST_WALL - 15);
	assert_not_said(right, "USER");
	now.wall++;
	in(left, "%s", user);
	assert_int_equal(user_table_timestamp(director_users(director),
				test_user("jane", "")), now.wall);
}

/* -- Members -- */

/* What the process before said is passed on late. */
static void test_sequence_of_restarted(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *first, *second, *p;

	ring_of(3, &left, &right);
	assert_int_equal(test_host_set("10.1.0.1", NULL, 50), DIRECTOR_HOST_OK);
	ring_end();
	p = strstr(str_c(left->sent), "HOST|10.0.0.2|9090|");
	assert_non_null(p);
	first = t_strcut(p + strlen("HOST|10.0.0.2|9090|"), '|');

	now.msecs += 1000;
	now.wall++;
	ring_init_at(2, 3, 1000);
	test_configure("10.1.0.1 10.1.0.2");
	ring_end();
	right = right_joins("10.0.0.3", 10);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	ring_syncs(left, right);
	assert_int_equal(test_host_set("10.1.0.1", NULL, 50), DIRECTOR_HOST_OK);
	ring_end();
	p = strstr(str_c(left->sent), "HOST|10.0.0.2|9090|");
	assert_non_null(p);
	second = t_strcut(p + strlen("HOST|10.0.0.2|9090|"), '|');
	assert_true(strtoul(second, NULL, 10) > strtoul(first, NULL, 10) + 1);
}

/* Several that don't answer are tried again all the time, each at its own. */
static void test_alone_among_dead(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *conn;
	unsigned int i;

	ring_of(3, &left, &right);
	/* 10.0.0.3 dies, later 10.0.0.1 */
	ring_peer_closed(director, right->peer, "reset", &now);
	right->peer = NULL;
	ring_end();
	for (i = 0; i < 3; i++) {
		test_pass(1000);
		in(left, "PING|%u|0", TEST_WALL);
		in(left, "PONG|%u|0", TEST_WALL);
	}
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	for (i = 0; i < 16 && !ring_is_alone(director_ring(director)); i++)
		test_pass(500);
	assert_true(ring_is_alone(director_ring(director)));
	assert_non_null(strstr(str_c(test_logs), "the only director left"));
	array_foreach_elem(&test_conns, conn) {
		if (conn->peer != NULL)
			assert_int_equal(conn->peer->state,
					 RING_PEER_CONNECTING);
	}
}

/* 2.3 passes DIRECTOR on without instance, and so do we from it. */
static void test_director_without_instance(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(4, &left, &right);
	in(left, "HOST|10.0.0.4|9090|9|10.1.0.1|70||U0||2000");
	assert_int_equal(test_vhosts("10.1.0.1"), 70);
	in(left, "HOST|10.0.0.4|9090|1|10.1.0.1|50||U0||3000");
	assert_int_equal(test_vhosts("10.1.0.1"), 70);

	in(left, "DIRECTOR|10.0.0.4|9090|1");
	in(left, "HOST|10.0.0.4|9090|1|10.1.0.1|50||U0||3000");
	assert_int_equal(test_vhosts("10.1.0.1"), 50);
	assert_said(right, "HOST|10.0.0.4|9090|1|10.1.0.1|50|");
}

/* He says when he was added. */
static struct test_conn *says_me(const char *ip, unsigned int changed)
{
	struct test_conn *conn = incoming(ip);

	assert_non_null(conn);
	in(conn, "VERSION|director|1|10");
	in(conn, "ME|%s|9090|%u|444|%u|%u", ip, TEST_WALL, TEST_WALL, changed);
	return conn;
}

static void assert_refused(const char *ip, unsigned int changed)
{
	struct test_conn *conn = says_me(ip, changed);

	assert_null(conn->peer);
	assert_said(conn, "QUIT|Was removed from the ring");
	assert_not_said(conn, "DIRECTOR");
}

static void test_director_removed(void **state ATTR_UNUSED)
{
	static const char *const ips[] = { "10.0.0.4", "10.0.0.9" };
	struct test_conn *left, *right;
	const char *removed;
	unsigned int i;

	ring_of(4, &left, &right);
	/* the second one isn't known before */
	for (i = 0; i < N_ELEMENTS(ips); i++) {
		removed = t_strdup_printf("DIRECTOR-REMOVE|%s|9090|5000",
					  ips[i]);
		forget_sent();
		in(left, "%s", removed);
		assert_said(right, removed);
		assert_refused(ips[i], 4000);

		/* who was apart doesn't bring it back */
		forget_sent();
		in(right, "DIRECTOR|%s|9090|4000", ips[i]);
		assert_said(right, removed);
		assert_not_said(left, "DIRECTOR|");
		assert_refused(ips[i], 4000);

		in(right, "DIRECTOR|%s|9090|6000", ips[i]);
		assert_said(left, t_strdup_printf("DIRECTOR|%s|9090|6000",
						  ips[i]));
		assert_not_said(says_me(ips[i], 0), "QUIT");

		/* Two that were apart, at the same time: were each to teach
		   the other one, they'd go on for ever. */
		removed = t_strdup_printf("DIRECTOR-REMOVE|%s|9090|6000",
					  ips[i]);
		forget_sent();
		in(right, "%s", removed);
		assert_said(left, removed);
		assert_not_said(right, "DIRECTOR|");
		assert_refused(ips[i], 4000);
		forget_sent();
		in(left, "DIRECTOR|%s|9090|6000", ips[i]);
		assert_said(left, removed);
		assert_refused(ips[i], 4000);
	}
	/* He was added again where we didn't hear of it, and knows it. */
	forget_sent();
	assert_not_said(says_me("10.0.0.4", 6001), "QUIT");
	assert_said(left, "DIRECTOR|10.0.0.4|9090|6001|444");
	in(left, "DIRECTOR-REMOVE|10.0.0.4|9090|6000");
	assert_not_said(says_me("10.0.0.4", 6001), "QUIT");
	/* (2.3 doesn't say) */
	in(left, "DIRECTOR-REMOVE|10.0.0.4|9090");
	assert_refused("10.0.0.4", 6001);
	/* So do we. */
	in(left, "DIRECTOR|10.0.0.2|9090|7000");
	assert_non_null(strstr(str_c(incoming("10.0.0.4")->sent), "|7000\n"));
}

static void test_pending(void **state ATTR_UNUSED)
{
	struct test_conn *first, *left, *right;
	unsigned int i;

	ring_of(4, &left, &right);
	assert_null(incoming("10.0.0.5"));
	assert_null(incoming("127.0.0.1"));
	first = incoming("10.0.0.4");
	assert_non_null(first);
	for (i = 1; i < RING_MAX_PENDING_SOURCE; i++)
		assert_non_null(incoming("10.0.0.4"));
	assert_null(incoming("10.0.0.4"));
	assert_non_null(incoming("10.0.0.3"));
	/* who has said who he is doesn't count */
	greet(first, "10.0.0.4", 10, 444);
	assert_non_null(incoming("10.0.0.4"));
	assert_null(incoming("10.0.0.4"));
}

/* -- Handshake -- */

static struct test_conn *right_of_restored(unsigned int minor)
{
	ring_init(2, 3);
	restore_host("10.1.0.1", "");
	restore_host("10.1.0.2", "");
	restore_config("10.1.0.1", "");
	restore_config("10.1.0.2", "");
	restore_user("jane", strcmp(hashed("jane"), "10.1.0.1") == 0 ?
		     "10.1.0.2" : "10.1.0.1");
	test_configure_restored("10.1.0.1 10.1.0.2", TRUE);
	ring_end();
	return right_joins("10.0.0.3", minor);
}

/* Who wasn't there yet says that he is now. */
static void test_starts_later(void **state ATTR_UNUSED)
{
	struct test_conn *conn;

	ring_start(1, 2);
	conn = conn_out();
	ring_peer_closed(director, conn->peer, "refused", &now);
	conn->peer = NULL;
	ring_end();
	assert_int_equal(test_connects, 1);
	conn = incoming("10.0.0.2");
	greet(conn, "10.0.0.2", 10, TEST_INSTANCE_RIGHT);
	assert_int_equal(test_connects, 2);
	/* but not again and again */
	conn = connected();
	ring_peer_closed(director, conn->peer, "reset", &now);
	conn->peer = NULL;
	ring_end();
	conn = incoming("10.0.0.2");
	greet(conn, "10.0.0.2", 10, TEST_INSTANCE_RIGHT);
	assert_int_equal(test_connects, 2);
}

static void test_restored_users(void **state ATTR_UNUSED)
{
	struct test_conn *right;

	right = right_of_restored(9);
	assert_said(right, "DONE");
	assert_not_said(right, "U|");
	right = right_of_restored(10);
	assert_said(right, "DONE");
	assert_int_equal(said(right, "U|"), 1);
}

static void test_joining_users(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *user;

	ring_of(3, &left, &right);
	user = t_strdup_printf("U|%u|10.1.0.2|%u", test_hash("jane"),
			       TEST_WALL);
	/* started again */
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT + 1, FALSE, user);
	assert_said(left, "DONE");
	assert_string_equal(known("jane", ""), "none");
	assert_not_said(right, "USER|");
	/* was in a ring of its own */
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT + 1, TRUE, user);
	assert_said(left, "DONE");
	assert_string_equal(known("jane", ""), "10.1.0.2");
	assert_said(right, "USER|");
}

/* We are connected to our right, which knows nothing either, before we join a
   ring: our right has to get what we got. */
static void test_joining_hands_over(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *again;
	const char *user;

	ring_start(2, 3);
	user = t_strdup_printf("U|%u|10.1.0.2|%u", test_hash("jane"),
			       TEST_WALL);
	right = connected();
	greet(right, "10.0.0.3", 10, TEST_INSTANCE_RIGHT);
	assert_said(right, "HOST-HAND-START|0");
	assert_said(right, "DONE|1");
	in(right, "DONE|1");
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, user);
	assert_said(left, "DONE\n");
	assert_null(right->peer);
	again = connected();
	greet(again, "10.0.0.3", 10, TEST_INSTANCE_RIGHT);
	assert_said(again, "HOST-HAND-START|1");
	assert_said(again, user);
	in(again, "DONE");
	ring_syncs(left, again);

	/* The ring is there already. */
	ring_start(2, 3);
	right = right_joins("10.0.0.3", 10);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, user);
	assert_non_null(right->peer);
	ring_syncs(left, right);
}

static void assert_only_greeting(struct test_conn *conn)
{
	unsigned int lines = said(conn, "") - 1;

	assert_int_equal(said(conn, "VERSION|director|1|10\n"), 1);
	assert_int_equal(said(conn, "ME|10.0.0.2|9090|"), 1);
	if (lines != 2 + said(conn, "DIRECTOR|10.0.0."))
		fail_msg("said:%s", str_c(conn->sent));
	assert_int_equal(said(conn, "DIRECTOR|"), conn->incoming ? 0 : 3);
}

static void test_only_greeting_before_me(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right, *pending;
	unsigned int i;

	ring_start(2, 3);
	right = connected();
	pending = incoming("10.0.0.3");
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	assert_int_equal(test_host_down("10.1.0.2", TRUE), DIRECTOR_HOST_OK);
	for (i = 0; i < 2; i++) {
		in(left, "HOST|10.0.0.1|9090|%u|10.1.0.1|70||U0||%u", 1 + i * 3,
		   2000 + i);
		in(left, "USER|%u|10.1.0.1|%u|%u", test_hash("jane") + i,
		   TEST_WALL, TEST_INSTANCE_LEFT);
		in(left, "HOST-FLUSH|10.0.0.1|9090|%u|10.1.0.1", 2 + i * 3);
		in(left, "SYNC|10.0.0.1|9090|%u|10|%u", 1 + i, TEST_WALL);
		in(left, "DIRECTOR-REMOVE|10.0.0.%u|9090|5000", 8 + i);
		/* no PING either */
		test_pass(2500);
		assert_only_greeting(right);
		assert_only_greeting(pending);
		/* now their version is known, but not who they are */
		if (i == 0) {
			in(right, "VERSION|director|1|10");
			in(pending, "VERSION|director|1|10");
			in(left, "PING|%u|0", TEST_WALL);
		}
	}
	assert_non_null(right->peer);
	assert_non_null(pending->peer);
}

/* -- Errors -- */

#define PEER_VERSION "VERSION|director|1|10"
#define PEER_ME "ME|10.0.0.2|9090|1700000000|333|1700000000"

static const struct test_bad {
	const char *lines[5];
	/* Start of its reason; NULL: it can't be told, the version isn't
	   known */
	const char *quit;
	unsigned int backoff_msecs;
} test_bads[] = {
	{ { "VERSION|director-x|1|10" }, NULL, 2000 },
	{ { "VERSION|director|2|10" }, NULL, 2000 },
	{ { "VERSION|director|1|6" }, NULL, 2000 },
	{ { PEER_VERSION, "ME|10.0.0.3|9090|1700000000" },
	  "Remote director thinks it's someone else", 2000 },
	{ { PEER_ME }, NULL, 60000 },
	{ { PEER_VERSION, "PING" }, "Command PING: Unexpected now", 60000 },
	{ { PEER_VERSION, PEER_VERSION }, "Command VERSION: Unexpected now",
	  60000 },
	{ { PEER_VERSION, PEER_ME, PEER_ME }, "Command ME: Unexpected now",
	  60000 },
	{ { PEER_VERSION, PEER_ME, "HOST-HAND-START|0" },
	  "Command HOST-HAND-START: Unexpected now", 60000 },
	{ { PEER_VERSION, PEER_ME, "U|5|10.1.0.1|1700000000" }, "", 60000 },
	{ { PEER_VERSION, PEER_ME, "DONE", "DONE" }, "Unexpected command",
	  60000 },
	{ { PEER_VERSION, PEER_ME, "DONE", "NO-SUCH-COMMAND" }, "", 60000 },
	{ { PEER_VERSION, PEER_ME, "DONE", "SYNC|nonsense" }, "", 60000 },
	{ { PEER_VERSION, PEER_ME, "OPTIONS|other" },
	  "director_consistent_hashing settings differ", 2000 },
};

static void test_bad_one(const struct test_bad *bad)
{
	struct test_conn *conn;
	unsigned int i, connects;

	test_set_time(TEST_MSECS);
	ring_start(1, 2);
	/* so that it isn't only that one doesn't connect twice within 2 s */
	test_pass(1500);
	conn = connected();
	for (i = 0; bad->lines[i] != NULL; i++)
		in(conn, "%s", bad->lines[i]);
	assert_null(conn->peer);
	if (bad->quit != NULL) {
		assert_int_equal(said(conn, "QUIT|"), 1);
		assert_said(conn, t_strconcat("QUIT|", bad->quit, NULL));
	}

	connects = test_connects;
	test_pass(bad->backoff_msecs - 100);
	assert_int_equal(test_connects, connects);
	test_pass(200);
	assert_int_equal(test_connects, connects + 1);
}

static void test_bad(void **state ATTR_UNUSED)
{
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(test_bads); i++)
		test_bad_one(&test_bads[i]);
}

/* Who broke the protocol isn't let in by the other way either. */
static void test_bad_incoming(void **state ATTR_UNUSED)
{
	struct test_conn *conn;

	ring_start(1, 2);
	conn = incoming("10.0.0.2");
	in(conn, PEER_VERSION);
	in(conn, PEER_ME);
	in(conn, "NO-SUCH-COMMAND");
	assert_null(conn->peer);
	assert_said(conn, "QUIT|");

	conn = incoming("10.0.0.2");
	in(conn, PEER_VERSION);
	in(conn, PEER_ME);
	assert_null(conn->peer);
	assert_said(conn, "QUIT|Protocol failure before");

	test_pass(60100);
	conn = incoming("10.0.0.2");
	in(conn, PEER_VERSION);
	in(conn, PEER_ME);
	assert_non_null(conn->peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_weak_recent_of_two),
		ring_test(test_weak_recent_of_four),
		ring_test(test_weak_leased_of_two),
		ring_test(test_weak_consent_of_two),
		ring_test(test_weak_of_dead_origin),
		ring_test(test_weak_in_old_handshake),
		ring_test(test_conflict_with_old),
		ring_test(test_user_without_time),
		ring_test(test_sequence_of_restarted),
		ring_test(test_alone_among_dead),
		ring_test(test_director_without_instance),
		ring_test(test_director_removed),
		ring_test(test_pending),
		ring_test(test_starts_later),
		ring_test(test_restored_users),
		ring_test(test_joining_users),
		ring_test(test_joining_hands_over),
		ring_test(test_only_greeting_before_me),
		ring_test(test_bad),
		ring_test(test_bad_incoming),
	};

	return run_test_cases(tests);
}
