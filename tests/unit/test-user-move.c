/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Moves and kicks: what a director says and does, and when it lets the user in
   (doc/ring-protocol.md §8.5) */

#include "test-restore.h"
#include "test-user-move.h"

static void test_alone(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;

	left = right = NULL;
	begin(1);
	lease = session("jane");
	pass(10000);
	assert_int_equal(move("jane", "10.9.9.9"), DIRECTOR_HOST_NOTFOUND);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_BUSY);
	assert_string_equal(str_c(kicks), t_strdup_printf(
		"%u %s moved to %s by doveadm\n", test_hash("jane"),
		elsewhere("jane"), elsewhere("jane")));
	assert_non_null(strstr(str_c(test_logs), t_strdup_printf(
		"I User hash %u is kicked (1 sessions here): moved to %s by "
		"doveadm\n", test_hash("jane"), elsewhere("jane"))));
	lookup = test_lookup("jane");
	pass(5000);
	assert_int_equal(lookup->state, 0);
	/* gone; his backend gets its time */
	director_session_end(director, &lease, &now);
	assert_let_in(lookup, elsewhere("jane"));
}

/* His session has ended in the same millisecond, but before: the backend has its
   time all the same. */
static void test_just_ended(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;

	left = right = NULL;
	begin(1);
	lease = session("jane");
	pass(10000);
	director_session_end(director, &lease, &now);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	test_pass(KICK_DELAY);
	assert_int_equal(lookup->state, 0);
	test_pass(1);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, elsewhere("jane"));
}

/* An answer that the login process has not acted on yet */
static void test_pending(void **state ATTR_UNUSED)
{
	struct test_lookup *answer, *lookup;
	struct session_lease *lease;
	const char *error, *target;

	left = right = NULL;
	begin(1);
	answer = test_lookup_for(process, "jane", "");
	assert_int_equal(answer->state, 1);
	target = elsewhere("jane");
	assert_int_equal(move("jane", target), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	pass(4000);
	assert_int_equal(lookup->state, 0);
	assert_string_equal(str_c(kicks), "");
	/* It comes, and is kicked at once. */
	lease = director_session_start(director, plugin, &answer->lookup.token,
				       answer->lookup.hash, ip_of(answer->ip),
				       now.clock, &now, &error);
	assert_non_null(lease);
	assert_non_null(strstr(str_c(kicks), t_strdup_printf(
		" session on %s although assigned to %s\n", answer->ip,
		target)));
	pass(1000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY + 500);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
}

/* LMTP: nobody sees when it is over. */
static void test_unseen(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	left = right = NULL;
	begin(1);
	assert_string_equal(where("jane"), hashed("jane"));
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	pass(4500);
	assert_int_equal(lookup->state, 0);
	pass(2000);
	assert_int_equal(lookup->state, 1);
	/* long ago: at once */
	pass(10000);
	assert_int_equal(move("jane", hashed("jane")), DIRECTOR_HOST_OK);
	pass(250);
	assert_string_equal(where("jane"), hashed("jane"));
}

/* The same, by the director process that was there until now. */
static void test_unseen_before(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *target;

	left = right = NULL;
	begin_early(1);
	target = elsewhere("jane");
	restore_user_at("jane", hashed("jane"),
			TEST_WALL + DIRECTOR_START_GRACE_MSECS / 1000);
	assert_int_equal(move("jane", target), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	test_pass(USER_UNSEEN_SECS * 1000 - DIRECTOR_START_GRACE_MSECS - 1);
	assert_int_equal(lookup->state, 0);
	test_pass(1001);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
}

/* We began it: our wave goes to the right, and lets him in when it is back. */
static void test_begun_here(void **state ATTR_UNUSED)
{
	const char *target, *told, *wave, *killed;
	struct test_lookup *lookup;

	begin(3);
	target = elsewhere("jane");
	assert_int_equal(move("jane", target), DIRECTOR_HOST_OK);
	told = said_after(left, "USER-MOVE");
	assert_string_equal(told, said_after(right, "USER-MOVE"));
	wave = strrchr(told, '|') + 1;
	assert_string_equal(told, t_strdup_printf("%u|%s|%s",
		test_hash("jane"), target, wave));
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s",
				 test_hash("jane"), target, wave);
	assert_said(right, killed);
	assert_not_said(left, "USER-KILLED");
	lookup = test_lookup("jane");
	/* another's, or an older one of ours, isn't it */
	in(left, "USER-KILLED|%u|%s|10.0.0.1|9090|7", test_hash("jane"),
	   target);
	in(left, "USER-KILLED|%u|%s|10.0.0.2|9090|1", test_hash("jane"),
	   target);
	ring_end();
	assert_int_equal(lookup->state, 0);
	/* it may have been lost: it is sent again */
	forget_sent();
	pass(1250);
	assert_said(right, killed);
	in(left, "%s", killed);
	assert_said(left, "USER-KILLED-EVERYWHERE|10.0.0.2|9090|");
	/* the other's is still open */
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|8|%u|%s|7",
	   test_hash("jane"), target);
	ring_end();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
	/* sent twice: no new move */
	forget_sent();
	in(left, "%s", killed);
	pass(2000);
	assert_not_said(right, "USER-");
}

/* Another began it: its wave isn't passed on while he is here. */
static void test_begun_elsewhere(void **state ATTR_UNUSED)
{
	const char *target, *killed;
	struct session_lease *lease;
	struct test_lookup *lookup;

	begin(3);
	lease = session("jane");
	pass(10000);
	forget_sent();
	target = elsewhere("jane");
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s|5", test_hash("jane"),
	   target);
	assert_said(right, "USER-MOVE|10.0.0.1|9090|5|");
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.1|9090|5",
				 test_hash("jane"), target);
	in(left, "%s", killed);
	lookup = test_lookup("jane");
	pass(1000);
	assert_not_said(right, "USER-KILLED");
	assert_string_equal(str_c(kicks), t_strdup_printf(
		"%u %s moved to %s by director 10.0.0.1:9090\n",
		test_hash("jane"), target, target));
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY - 250);
	assert_not_said(right, "USER-KILLED");
	pass(500);
	assert_int_equal(said(right, killed), 1);
	/* again only if the move is told again: it would go round as fast as it
	   can, were its initiator not there */
	in(left, "%s", killed);
	pass(250);
	assert_int_equal(said(right, killed), 1);
	in(left, "USER-MOVE|10.0.0.1|9090|6|%u|%s|5", test_hash("jane"),
	   target);
	in(left, "%s", killed);
	pass(250);
	assert_int_equal(said(right, killed), 2);
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|7|%u|%s|5",
	   test_hash("jane"), target);
	ring_end();
	assert_said(right, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|7|");
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
}

/* A USER of before the move, over a link that was slow, isn't a conflict. */
static void test_stale_user(void **state ATTR_UNUSED)
{
	uint32_t hash;
	time_t before;

	begin(3);
	hash = test_hash("jane");
	before = now.wall - 1;
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|10.1.0.2|7", hash);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|6|%u|10.1.0.2|7", hash);
	pass(2000);
	forget_sent();
	in(right, "USER|%u|10.1.0.1|%u|%u", hash, (unsigned int)before,
	   TEST_INSTANCE_RIGHT);
	assert_string_equal(known("jane", ""), "10.1.0.2");
	assert_not_said(left, "USER");
	assert_not_said(right, "USER");

	/* of after it, or long after, or who knows by which clock */
	in(right, "USER|%u|10.1.0.1|%u|%u", hash, (unsigned int)now.wall,
	   TEST_INSTANCE_RIGHT);
	assert_string_equal(known("jane", ""), "10.1.0.1");
	assert_said(left, "USER-KICK-HASH|");
	assert_non_null(strstr(str_c(test_logs), "redirected to two hosts"));
	in(left, "USER-MOVE|10.0.0.1|9090|8|%u|10.1.0.2|8", hash);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|9|%u|10.1.0.2|8", hash);
	pass(16000);
	in(right, "USER|%u|10.1.0.1|%u|%u", hash, (unsigned int)before,
	   TEST_INSTANCE_RIGHT);
	assert_string_equal(known("jane", ""), "10.1.0.1");
	in(left, "USER-MOVE|10.0.0.1|9090|10|%u|10.1.0.2|9", hash);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|11|%u|10.1.0.2|9", hash);
	pass(2000);
	forget_sent();
	in(right, "USER|%u|10.1.0.1|%u", hash, (unsigned int)before);
	assert_said(right, "USER-KICK-HASH|");
}

/* Two moves that were begun in two parts of a ring: what tells each of the
   other's backend are their waves. */
static void test_begun_apart(void **state ATTR_UNUSED)
{
	const char *low = "10.1.0.1", *high = "10.1.0.2", *wave;
	struct test_lookup *lookup;
	uint32_t hash;

	begin(3);
	hash = test_hash("jane");
	assert_int_equal(move("jane", high), DIRECTOR_HOST_OK);
	wave = strrchr(said_after(right, "USER-MOVE"), '|') + 1;
	lookup = test_lookup("jane");
	forget_sent();
	in(left, "USER-KILLED|%u|%s|10.0.0.1|9090|7", hash, low);
	assert_string_equal(known("jane", ""), low);
	ring_end();
	assert_said(right, t_strdup_printf("USER-KILLED|%u|%s|10.0.0.1|9090|7",
					   hash, low));
	/* ours goes round again, at once, since who has it goes elsewhere */
	assert_said(right, t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s",
					   hash, low, wave));
	assert_non_null(strstr(said_after(left, "USER-MOVE"), low));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|5|%u|%s|7", hash, low);
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED|%u|%s|10.0.0.2|9090|%s", hash, low, wave);
	assert_non_null(strstr(said_after(left, "USER-KILLED-EVERYWHERE"),
			       low));
	ring_end();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, low);

	/* So it is if only ours tells it, when it is back. */
	forget_sent();
	assert_int_equal(move("joe", high), DIRECTOR_HOST_OK);
	wave = strrchr(said_after(right, "USER-MOVE"), '|') + 1;
	forget_sent();
	in(left, "USER-KILLED|%u|%s|10.0.0.2|9090|%s", test_hash("joe"), low,
	   wave);
	ring_end();
	assert_not_said(right, "USER-KILLED-EVERYWHERE");
	assert_string_equal(known("joe", ""), low);
	assert_said(right, t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s",
					   test_hash("joe"), low, wave));
	/* a higher one is none */
	in(left, "USER-KILLED|%u|%s|10.0.0.2|9090|%s", test_hash("joe"), high,
	   wave);
	ring_end();
	assert_string_equal(known("joe", ""), low);
	assert_non_null(strstr(said_after(left, "USER-KILLED-EVERYWHERE"),
			       low));
}

/* Who began it isn't heard of any more: we bring it to its end. */
static void test_orphan(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	begin(4);
	in(left, "USER-MOVE|10.0.0.4|9090|5|%u|%s|5", test_hash("jane"),
	   elsewhere("jane"));
	lookup = test_lookup("jane");
	forget_sent();
	pass(3500);
	assert_not_said(right, "USER-MOVE");
	pass(2000);
	assert_said(right, "USER-MOVE|10.0.0.2|9090|");
	in(left, "USER-KILLED|%s|%s|10.0.0.2|9090|%s",
	   t_strcut(said_after(right, "USER-MOVE"), '|'), elsewhere("jane"),
	   strrchr(said_after(right, "USER-MOVE"), '|') + 1);
	ring_end();
	assert_int_equal(lookup->state, 1);
}

/* A director is lost: it may have sessions that nobody sees. */
static void test_lost_member(void **state ATTR_UNUSED)
{
	const char *killed;
	struct test_lookup *lookup;

	begin(4);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	left = left_joins("10.0.0.4", TEST_INSTANCE_LEFT + 5, TRUE, NULL);
	ring_syncs(left, right);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	pass(12000);
	assert_not_said(right, "USER-KILLED");
	pass(4000);
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s",
		test_hash("jane"), elsewhere("jane"),
		strrchr(said_after(right, "USER-MOVE"), '|') + 1);
	assert_said(right, killed);
	in(left, "%s", killed);
	ring_end();
	assert_int_equal(lookup->state, 1);
}

/* Who comes is told of it: all who knew may be gone soon. */
static void test_lost_member_told(void **state ATTR_UNUSED)
{
	begin(4);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	test_pass(700);
	left = incoming("10.0.0.4");
	greet(left, "10.0.0.4", 10, 444);
	assert_said(left, "DIRECTOR-LOST|10.0.0.1|9090|700|111\n");
	assert_int_equal(said(left, "DIRECTOR-LOST|"), 1);
}

static void test_lost_member_heard(void **state ATTR_UNUSED)
{
	begin_starting(0);
	in(left, "DIRECTOR-LOST|10.0.0.4|9090|5000|444");
	/* they are there, or aren't known */
	in(left, "DIRECTOR-LOST|10.0.0.1|9090|5000|111");
	in(left, "DIRECTOR-LOST|10.0.0.2|9090|5000|222");
	in(left, "DIRECTOR-LOST|10.0.0.5|9090|5000|555");
	done_starting(NULL);
	pass(9000);
	assert_not_said(right, "USER-KILLED");
	pass(1500);
	assert_said(right, "USER-KILLED");
}

/* The same, and we have begun to connect to it: it hangs. */
static void test_lost_member_hangs(void **state ATTR_UNUSED)
{
	const struct ring_address address = address_of("10.0.0.3");
	const struct ring_member *member;

	begin_starting(0);
	member = ring_member_lookup(ring_get_members(director_ring(director)),
				    &address);
	assert_ptr_equal(connected()->peer->member, member);
	in(left, "DIRECTOR-LOST|10.0.0.3|9090|5000|333");
	in(left, "HOST-HAND-START|1");
	in(left, "HOST|10.1.0.1|100||U0||1");
	in(left, "HOST-HAND-END|1");
	in(left, "OPTIONS|consistent-hashing");
	in(left, "DONE");
	assert_true(member->lost_msecs == now.msecs - 5000);
}

static void test_lost_member_not_heard(void **state ATTR_UNUSED)
{
	begin_starting(0);
	done_starting(NULL);
	pass(USER_UNSEEN_SECS * 1000 + 500);
	assert_said(right, "USER-KILLED");
}

/* Who has just started doesn't know better than we do. */
static void test_lost_member_assumed_elsewhere(void **state ATTR_UNUSED)
{
	const struct ring_address address = address_of("10.0.0.4");
	const struct ring_member *member;
	struct test_conn *again;

	begin(4);
	member = ring_member_lookup(ring_get_members(director_ring(director)),
				    &address);
	again = incoming("10.0.0.1");
	greet(again, "10.0.0.1", 10, TEST_INSTANCE_LEFT);
	in(again, "DIRECTOR-LOST|10.0.0.4|9090|5");
	assert_true(member->lost_msecs == 0);
	in(again, "DIRECTOR-LOST|10.0.0.4|9090|5|444");
	assert_true(member->lost_msecs == now.msecs - 5);
}

/* He is being moved; the process before us may have answered him just now. */
static void test_handed_at_start(void **state ATTR_UNUSED)
{
	uint32_t hash = test_hash("june");
	const char *ip = elsewhere("june");

	begin_starting(0);
	done_starting(t_strdup_printf("U|%u|%s|%lld|m", hash, ip,
				      (long long)now.wall));
	in(left, "USER-MOVE|10.0.0.1|9090|1|%u|%s|7", hash, ip);
	in(left, "USER-KILLED|%u|%s|10.0.0.1|9090|7", hash, ip);
	pass(USER_UNSEEN_SECS * 1000 - 750);
	assert_not_said(right, t_strdup_printf("USER-KILLED|%u|", hash));
	pass(1500);
	assert_said(right, t_strdup_printf("USER-KILLED|%u|%s|10.0.0.1|9090|7",
					   hash, ip));
}

/* Those who are there have just started, too. */
static void test_lost_member_assumed(void **state ATTR_UNUSED)
{
	begin_starting(400);
	assert_said(left, "DIRECTOR-LOST|10.0.0.4|9090|400\n");
	in(left, "DIRECTOR-LOST|10.0.0.4|9090|300");
	done_starting(NULL);
	pass(8000);
	assert_not_said(right, "USER-KILLED");
	in(left, "SYNC|10.0.0.4|9090|1|10|1700000003|1|444");
	pass(1500);
	assert_said(right, "USER-KILLED");
}

/* The same hash in two tags: moves of their own, but waves without names are
   about both. */
static void test_tags(void **state ATTR_UNUSED)
{
	struct test_lookup *plain, *tagged;
	uint32_t hash;

	begin(3);
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.8|100|t|U0||2000");
	in(left, "HOST|10.0.0.1|9090|2|10.1.0.9|100|t|U0||2001");
	ring_syncs(left, right);
	hash = test_hash("jane");
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|10.1.0.1|5", hash);
	in(left, "USER-MOVE|10.0.0.1|9090|6|%u|10.1.0.8|6", hash);
	plain = test_lookup("jane");
	tagged = test_lookup_tag("jane", "t");
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|7|%u|10.1.0.1|5", hash);
	ring_end();
	assert_int_equal(plain->state, 1);
	assert_int_equal(tagged->state, 0);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|8|%u|10.1.0.8|6", hash);
	ring_end();
	assert_int_equal(tagged->state, 1);
	assert_string_equal(tagged->ip, "10.1.0.8");

	pass(6000);
	forget_sent();
	in(left, "USER-MOVE|10.0.0.1|9090|9|%u|10.1.0.2", hash);
	in(left, "USER-MOVE|10.0.0.1|9090|10|%u|10.1.0.9", hash);
	in(left, "USER-KILLED|%u", hash);
	ring_end();
	assert_int_equal(said(right, "USER-KILLED|"), 2);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|11|%u", hash);
	pass(KICK_DELAY + 250);
	assert_string_equal(where("jane"), "10.1.0.2");
	assert_string_equal(where_tag("jane", "t"), "10.1.0.9");
}

/* A neighbour that moves everybody: so many are held, the waves of the others
   end here, and nothing takes long. */
static void test_too_many(void **state ATTR_UNUSED)
{
	const unsigned int max = 20000;
	unsigned int i;

	begin(3);
	for (i = 1; i <= max + 10; i++) T_BEGIN {
		in(left, "USER-MOVE|10.0.0.1|9090|%u|%u|10.1.0.1|%u", i, i, i);
	} T_END;
	assert_int_equal(director_users_moving(director), max);
	assert_non_null(strstr(str_c(test_logs),
			       "20000 users are being moved already"));
	assert_int_equal(said(right, "USER-MOVE|"), max + 10);
	forget_sent();
	assert_int_equal(move("jane", "10.1.0.1"), DIRECTOR_HOST_BUSY);
	in(left, "USER-KILLED|%u|10.1.0.1|10.0.0.1|9090|%u", max + 1, max + 1);
	assert_not_said(right, "USER-KILLED");
	in(left, "USER-KILLED|1|10.1.0.1|10.0.0.1|9090|1");
	assert_said(right, "USER-KILLED|1|");
	/* there is room again */
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|%u|1|10.1.0.1|1",
	   max + 11);
	assert_int_equal(move("jane", "10.1.0.1"), DIRECTOR_HOST_OK);
}

/* Nonsense about moves changes nothing. */
static void test_nonsense(void **state ATTR_UNUSED)
{
	static const char *const lines[] = {
		/* unknown backend, initiator, move */
		"USER-MOVE|10.0.0.1|9090|5|77|10.9.9.9|5",
		"USER-MOVE|10.0.0.1|9090|6|77|10.9.9.9",
		"USER-KILLED|77|10.9.9.9|10.0.0.1|9090|5",
		"USER-KILLED|77|10.1.0.1|10.9.9.9|9090|5",
		"USER-KILLED|77",
		"USER-KILLED|77|10.1.0.1",
		"USER-KILLED-EVERYWHERE|10.0.0.1|9090|7|77",
		"USER-KILLED-EVERYWHERE|10.0.0.1|9090|8|77|10.1.0.1|5",
		"USER-KILLED-EVERYWHERE|10.0.0.1|9090|9|77|10.9.9.9|4294967295",
		"USER-KICK|10.0.0.1|9090|10|no\001such\377user",
		"USER-KICK-HASH|10.0.0.1|9090|11|77|10.9.9.9",
		"USER-KICK-ALT|10.0.0.1|9090|12|field|value",
	};

	begin(3);
	for (unsigned int i = 0; i < N_ELEMENTS(lines); i++) {
		in(left, "%s", lines[i]);
		assert_non_null(left->peer);
	}
	pass(5000);
	assert_int_equal(director_users_moving(director), 0);
	assert_string_equal(str_c(kicks), "");
	assert_not_said(right, "USER-KILLED|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		move_test(test_alone),
		move_test(test_just_ended),
		move_test(test_pending),
		move_test(test_unseen),
		move_test(test_unseen_before),
		move_test(test_begun_here),
		move_test(test_begun_elsewhere),
		move_test(test_stale_user),
		move_test(test_begun_apart),
		move_test(test_orphan),
		move_test(test_lost_member),
		move_test(test_lost_member_told),
		move_test(test_lost_member_heard),
		move_test(test_lost_member_hangs),
		move_test(test_lost_member_not_heard),
		move_test(test_lost_member_assumed),
		move_test(test_lost_member_assumed_elsewhere),
		move_test(test_handed_at_start),
		move_test(test_tags),
		move_test(test_too_many),
		move_test(test_nonsense),
	};

	return run_test_cases(tests);
}
