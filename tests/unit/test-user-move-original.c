/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Moves in a ring with directors of 2.3 (doc/ring-protocol.md §8.5) */

#include "test-user-move.h"

/* With a 2.3 member: waves without names, and the delay at the end */
static void test_original(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *killed;

	begin(3);
	forget_sent();
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s", test_hash("jane"),
	   elsewhere("jane"));
	killed = t_strdup_printf("USER-KILLED|%u", test_hash("jane"));
	lookup = test_lookup("jane");
	ring_end();
	assert_not_said(right, "USER-KILLED");
	in(left, "%s", killed);
	ring_end();
	assert_int_equal(said(right, t_strconcat(killed, "\n", NULL)), 1);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|6|%u",
	   test_hash("jane"));
	assert_said(right, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|6|");
	assert_let_in(lookup, elsewhere("jane"));

	/* He is where he was a moment ago: the delay at the end is for that,
	   too, except that LMTP needs longer. */
	forget_sent();
	in(left, "USER-MOVE|10.0.0.1|9090|8|%u|%s", test_hash("jane"),
	   hashed("jane"));
	in(left, "%s", killed);
	assert_not_said(right, "USER-KILLED");
	pass(USER_UNSEEN_SECS * 1000 - KICK_DELAY);
	assert_said(right, killed);
	/* a 2.3 member may have taken that move to be the one before, which is
	   over there by now */
	assert_non_null(strstr(said_after(right, "USER-MOVE"), hashed("jane")));
	assert_true(strstr(str_c(right->sent), "USER-MOVE|10.0.0.2|") <
		    strstr(str_c(right->sent), killed));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|9|%u",
	   test_hash("jane"));
	pass(KICK_DELAY + 250);
	forget_sent();
	in(left, "USER-MOVE|10.0.0.1|9090|10|%u|%s", test_hash("jane"),
	   elsewhere("jane"));
	in(left, "%s", killed);
	assert_said(right, killed);

	/* The others have let him in already. */
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|11|%u",
	   test_hash("jane"));
	pass(KICK_DELAY + 250);
	forget_sent();
	in(left, "USER-MOVE|10.0.0.1|9090|12|%u|%s", test_hash("jane"),
	   hashed("jane"));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.3|9090|1|%u",
	   test_hash("jane"));
	assert_not_said(right, "USER-KILLED");
	lookup = test_lookup("jane");
	pass(3000);
	assert_int_equal(lookup->state, 0);
	pass(KICK_DELAY + 500);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, hashed("jane"));

	/* It is lost: 30 s, as in the original. */
	in(left, "USER-MOVE|10.0.0.1|9090|13|%u|%s", test_hash("jim"),
	   elsewhere("jim"));
	pass(31000);
	assert_non_null(strstr(str_c(test_logs), "move timed out"));
	assert_string_equal(where("jim"), elsewhere("jim"));
}

/* 2.3 members take him to be where the last USER-MOVE says, and don't tell
   again. */
static void test_original_again(void **state ATTR_UNUSED)
{
	const char *told;
	uint32_t jane, joe;

	begin(3);
	others_are_older();
	in(left, "DIRECTOR|10.0.0.9|9090");
	jane = test_hash("jane");
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s", jane, elsewhere("jane"));
	assert_string_equal(known("jane", ""), elsewhere("jane"));
	in(left, "USER-MOVE|10.0.0.1|9090|6|%u|%s", jane, hashed("jane"));
	assert_string_equal(known("jane", ""), hashed("jane"));

	/* ours, which it can't have heard of when it told */
	joe = test_hash("joe");
	assert_int_equal(move("joe", "10.1.0.2"), DIRECTOR_HOST_OK);
	forget_sent();
	in(left, "USER-MOVE|10.0.0.9|9090|7|%u|10.1.0.1", joe);
	assert_string_equal(known("joe", ""), "10.1.0.2");
	/* all get ours behind it, but only once: another one may do so, too */
	assert_int_equal(said(right, "USER-MOVE"), 2);
	told = strstr(str_c(right->sent), "USER-MOVE|10.0.0.9|9090|7|");
	assert_non_null(told);
	assert_non_null(strstr(told, t_strdup_printf("|%u|10.1.0.2\n", joe)));
	assert_said(left, "USER-MOVE|10.0.0.2|");
	in(left, "USER-MOVE|10.0.0.9|9090|8|%u|10.1.0.1", joe);
	assert_int_equal(said(right, "USER-MOVE"), 3);
	/* two of ours don't circle: the lower address */
	in(left, "USER-MOVE|10.0.0.1|9090|8|%u|10.1.0.1", joe);
	assert_string_equal(known("joe", ""), "10.1.0.1");

	assert_int_equal(move("june", "10.1.0.2"), DIRECTOR_HOST_OK);
	pass(1500);
	in(left, "USER-MOVE|10.0.0.9|9090|9|%u|10.1.0.1", test_hash("june"));
	assert_string_equal(known("june", ""), "10.1.0.1");
}

/* A 2.3 member tells USER-MOVE in the delay after a move, too, and then nothing
   more: it and we end that delay in either order. */
static void test_original_tells_move_only(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	unsigned int i, seq = 5;
	uint32_t jane;

	begin(3);
	others_are_older();
	in(left, "DIRECTOR|10.0.0.9|9090");
	jane = test_hash("jane");
	for (i = 0; i < 2; i++) {
		in(left, "USER-MOVE|10.0.0.9|9090|%u|%u|%s", seq++, jane,
		   elsewhere("jane"));
		in(left, "USER-KILLED|%u", jane);
		pass(USER_UNSEEN_SECS * 1000);
		in(left, "USER-KILLED-EVERYWHERE|10.0.0.9|9090|%u|%u", seq++,
		   jane);
		pass(KICK_DELAY - 100 + i * 500);
		in(left, "USER-MOVE|10.0.0.9|9090|%u|%u|%s", seq++, jane,
		   hashed("jane"));
		lookup = test_lookup("jane");
		pass(3000);
		assert_int_equal(lookup->state, 0);
		pass(KICK_DELAY + 500);
		assert_int_equal(lookup->state, 1);
		assert_string_equal(lookup->ip, hashed("jane"));
		pass(2000);
	}
}

/* It may not be the end of that one, and USER-KILLED take its time. */
static void test_original_tells_both(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	uint32_t jane = test_hash("jane");

	begin(3);
	others_are_older();
	in(left, "DIRECTOR|10.0.0.9|9090");
	in(left, "USER-MOVE|10.0.0.9|9090|5|%u|%s", jane, elsewhere("jane"));
	in(left, "USER-KILLED|%u", jane);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.9|9090|6|%u", jane);
	pass(KICK_DELAY + 500);
	assert_string_equal(where("jane"), elsewhere("jane"));
	in(left, "USER-MOVE|10.0.0.9|9090|7|%u|%s", jane, hashed("jane"));
	/* one of ours says that it will come */
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s", jane, hashed("jane"));
	lookup = test_lookup("jane");
	pass(8000);
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED|%u", jane);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.9|9090|8|%u", jane);
	pass(KICK_DELAY + 500);
	assert_int_equal(lookup->state, 1);

	/* after 30 s no director has the last one */
	pass(20000);
	in(left, "USER-MOVE|10.0.0.9|9090|9|%u|%s", jane, elsewhere("jane"));
	lookup = test_lookup("jane");
	pass(10000);
	assert_int_equal(lookup->state, 0);
}

/* A director of 2.3 has come, which knows no names of moves. */
static void test_names_forgotten(void **state ATTR_UNUSED)
{
	uint32_t jane = test_hash("jane");
	struct test_lookup *lookup;
	const char *killed = t_strdup_printf("USER-KILLED|%u\n", jane);

	begin(3);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	forget_sent();
	others_are_older();
	pass(250);
	assert_int_equal(said(right, "USER-MOVE"), 1);
	assert_int_equal(said(right, killed), 1);
	in(left, "%s", t_strcut(killed, '\n'));
	assert_said(left, "USER-KILLED-EVERYWHERE|10.0.0.2|9090|");
	pass(KICK_DELAY + 250);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, elsewhere("jane"));
}

/* He was handed to us as one who is being moved; nobody tells of that move, and
   we may have sessions of before. */
static void test_handed_by_original(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	begin_starting(0);
	done_starting(t_strdup_printf("U|%u|%s|%lld|m", test_hash("june"),
		elsewhere("june"), (long long)now.wall));
	others_are_older();
	lookup = test_lookup("june");
	pass(500);
	/* (done_starting() moves somebody else) */
	assert_null(strstr(str_c(right->sent), t_strdup_printf(
		"|%u|%s\n", test_hash("june"), elsewhere("june"))));
	/* so it becomes ours */
	pass(USER_UNSEEN_SECS * 1000);
	assert_non_null(strstr(str_c(right->sent), t_strdup_printf(
		"|%u|%s\n", test_hash("june"), elsewhere("june"))));
	in(left, "USER-KILLED|%u", test_hash("june"));
	assert_int_equal(lookup->state, 0);
	pass(KICK_DELAY + 250);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, elsewhere("june"));
}

/* We don't know yet that no member is of 2.3 any more: a move has a name. */
static void test_name_heard(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *move;

	begin(3);
	others_are_older();
	move = t_strdup_printf("%u|%s|5", test_hash("jane"), elsewhere("jane"));
	in(left, "USER-MOVE|10.0.0.1|9090|5|%s", move);
	lookup = test_lookup("jane");
	ring_end();
	assert_said(right, "SYNC|10.0.0.2|");
	assert_true(ring_is_synced(director_ring(director)));
	in(left, "USER-KILLED|%u|%s|10.0.0.1|9090|5", test_hash("jane"),
	   elsewhere("jane"));
	pass(500);
	assert_not_said(right, "USER-KILLED");
	ring_sync_returns(left, right, NULL);
	pass(250);
	assert_said(right, t_strdup_printf("USER-KILLED|%u|%s|10.0.0.1|9090|5",
		test_hash("jane"), elsewhere("jane")));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|6|%s", move);
	ring_end();
	assert_int_equal(lookup->state, 1);

	/* There is one, and who tells names doesn't know: he tells again. It ends
	   all the same. */
	pass(10000);
	in(left, "HOST|10.0.0.1|9090|7|10.1.0.1|98||U0||2001");
	ring_syncs_minor(left, right, "9");
	for (unsigned int i = 0; i < 31; i++) {
		forget_sent();
		in(left, "USER-MOVE|10.0.0.1|9090|%u|%u|%s|6", 8 + i,
		   test_hash("jane"), hashed("jane"));
		pass(1000);
		if (said(right, "SYNC|10.0.0.2|") > 0)
			ring_sync_returns(left, right, "9");
	}
	lookup = test_lookup("jane");
	pass(10000);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, hashed("jane"));
}

/* Ours takes long. One of ours that was started meanwhile would end it. */
static void test_original_repeated(void **state ATTR_UNUSED)
{
	struct session_lease *lease;

	begin(3);
	others_are_older();
	lease = session("jane");
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	forget_sent();
	pass(5250);
	assert_int_equal(said(right, "USER-MOVE|10.0.0.2|"), 5);
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY + 250);
	assert_said(right, "USER-KILLED|");
	forget_sent();
	pass(5000);
	assert_not_said(right, "USER-MOVE");
}

/* One of 2.3 moves jane, and soon again, to where hashing puts her. Returns her
   session at the other backend. */
static struct session_lease *begin_unsure(void)
{
	uint32_t jane = test_hash("jane");
	struct session_lease *lease;

	begin(3);
	others_are_older();
	in(left, "DIRECTOR|10.0.0.9|9090");
	in(left, "USER-MOVE|10.0.0.9|9090|5|%u|%s", jane, elsewhere("jane"));
	in(left, "USER-KILLED|%u", jane);
	pass(USER_UNSEEN_SECS * 1000);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.9|9090|6|%u", jane);
	pass(KICK_DELAY + 500);
	lease = session("jane");
	pass(6000);
	forget_sent();
	in(left, "USER-MOVE|10.0.0.9|9090|7|%u|%s", jane, hashed("jane"));
	return lease;
}

/* A director of 2.3 tells nothing but USER-MOVE, and the sessions are here: the
   others would end it. */
static void test_original_unsure(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;
	uint32_t jane = test_hash("jane");

	lease = begin_unsure();
	lookup = test_lookup("jane");
	pass(1500);
	assert_said(left, "USER-MOVE|10.0.0.2|");
	pass(6000);
	assert_not_said(right, "USER-KILLED");
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY + 250);
	assert_said(right, "USER-KILLED|");
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED|%u", jane);
	assert_said(left, "USER-KILLED-EVERYWHERE|10.0.0.2|");
	pass(KICK_DELAY + 250);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, hashed("jane"));
}

/* The same, and another one of ours isn't ready either: the last one begins a
   wave, for those of 2.3 that have been told. */
static void test_original_last_begins(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;
	uint32_t jane = test_hash("jane");
	unsigned int i, seq = 20;

	lease = begin_unsure();
	lookup = test_lookup("jane");
	for (i = 0; i < 15; i++) {
		pass(1000);
		in(left, "USER-MOVE|10.0.0.1|9090|%u|%u|%s", seq++, jane,
		   hashed("jane"));
		if (i == 5)
			director_session_end(director, &lease, &now);
	}
	assert_int_equal(said(left, "USER-MOVE|10.0.0.2|"), 6);
	pass(1000);
	assert_not_said(right, "USER-KILLED");
	pass(1000);
	assert_said(right, "USER-KILLED|");
	assert_int_equal(lookup->state, 0);
	/* (it is as if the others had told nothing) */
	in(left, "USER-KILLED|%u", jane);
	pass(KICK_DELAY + 250);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, hashed("jane"));
}

/* USER-KILLED without a name comes while we ask who is there. */
static void test_killed_while_asking(void **state ATTR_UNUSED)
{
	begin(3);
	others_are_older();
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s|5", test_hash("jane"),
	   elsewhere("jane"));
	ring_end();
	in(left, "USER-KILLED|%u", test_hash("jane"));
	pass(500);
	assert_not_said(right, "USER-KILLED");
	ring_sync_returns(left, right, "9");
	pass(500);
	assert_said(right, "USER-KILLED|");
}

/* We wait for one of ours that was lost: the others hear that it isn't over. */
static void test_original_waits_for_lost(void **state ATTR_UNUSED)
{
	uint32_t jane = test_hash("jane");

	begin(4);
	others_are_older();
	in(left, "DIRECTOR|10.0.0.9|9090");
	ring_peer_closed(director, right->peer, "reset", &now);
	right->peer = NULL;
	test_pass(300);
	right = right_joins("10.0.0.3", 10);
	ring_syncs_minor(left, right, "9");
	in(left, "USER-MOVE|10.0.0.9|9090|5|%u|%s", jane, elsewhere("jane"));
	in(left, "USER-KILLED|%u", jane);
	forget_sent();
	pass(3000);
	assert_int_equal(said(left, "USER-MOVE|10.0.0.2|"), 3);
	assert_not_said(right, "USER-KILLED");
}

/* In a ring of two the other one is asked until it answers. */
static void test_original_of_two(void **state ATTR_UNUSED)
{
	const char *killed = t_strdup_printf("USER-KILLED|%u\n",
					     test_hash("jane"));

	begin(3);
	others_are_older();
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	left = left_joins("10.0.0.3", TEST_INSTANCE_RIGHT, TRUE, NULL);
	ring_syncs_minor(left, right, "9");
	/* (10.0.0.1 is lost, and was one of ours) */
	pass(15000);
	forget_sent();
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	assert_int_equal(said(right, killed), 1);
	pass(2500);
	assert_int_equal(said(right, killed), 3);
	assert_int_equal(said(right, "USER-MOVE"), 3);
	in(left, "%s", t_strcut(killed, '\n'));
	assert_said(left, "USER-KILLED-EVERYWHERE|");
	forget_sent();
	pass(5000);
	assert_not_said(right, "USER-");
}

/* The right has gone: that isn't the end of what it was asked. And the left,
   which was one of ours, has sessions that nobody sees. */
static void test_original_loses(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	begin(4);
	others_are_older();
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	assert_said(right, "USER-KILLED|");
	ring_peer_closed(director, right->peer, "reset", &now);
	right->peer = NULL;
	test_pass(300);
	assert_not_said(left, "USER-KILLED-EVERYWHERE");
	right = right_joins("10.0.0.3", 10);
	ring_syncs_minor(left, right, "9");
	in(left, "USER-KILLED|%u", test_hash("jane"));
	pass(10000);
	assert_not_said(left, "USER-KILLED-EVERYWHERE");
	assert_int_equal(lookup->state, 0);
	pass(5500);
	assert_said(left, "USER-KILLED-EVERYWHERE|");
	pass(KICK_DELAY);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, elsewhere("jane"));
}

/* A director of 2.3 has ended it, but he is still here. */
static void test_original_ends_early(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;
	uint32_t jane = test_hash("jane");

	begin(3);
	others_are_older();
	in(left, "DIRECTOR|10.0.0.9|9090");
	lease = session("jane");
	pass(6000);
	in(left, "USER-MOVE|10.0.0.9|9090|5|%u|%s", jane, elsewhere("jane"));
	in(left, "USER-KILLED|%u", jane);
	/* who waits for it hears that it will come */
	forget_sent();
	pass(1500);
	assert_int_equal(said(left, t_strdup_printf("USER-MOVE|10.0.0.2|")), 1);
	pass(30000);
	assert_non_null(strstr(str_c(test_logs), "move timed out"));
	lookup = test_lookup("jane");
	pass(5000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	assert_let_in(lookup, elsewhere("jane"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		move_test(test_original),
		move_test(test_original_again),
		move_test(test_original_tells_move_only),
		move_test(test_original_tells_both),
		move_test(test_names_forgotten),
		move_test(test_handed_by_original),
		move_test(test_name_heard),
		move_test(test_original_repeated),
		move_test(test_original_unsure),
		move_test(test_original_last_begins),
		move_test(test_killed_while_asking),
		move_test(test_original_waits_for_lost),
		move_test(test_original_of_two),
		move_test(test_original_loses),
		move_test(test_original_ends_early),
	};

	return run_test_cases(tests);
}
