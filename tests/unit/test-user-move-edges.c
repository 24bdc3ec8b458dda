/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Moves when something else happens at the same time */

#include "test-user-move.h"

/* The last SYNC took long, since the ring was broken: what gets lost of a move
   is sent again as soon as ever. */
static void test_after_broken_ring(void **state ATTR_UNUSED)
{
	begin(3);
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.2|70||U0||2000");
	pass(30000);
	ring_syncs(left, right);
	assert_in_range(ring_sync_msecs(director_ring(director)), 30000, 31000);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	forget_sent();
	pass(5250);
	assert_int_equal(said(right, "USER-MOVE|"), 1);
	assert_int_equal(said(right, "USER-KILLED|"), 1);
}

/* We join a ring while somebody moves: our backends and users go, the move
   stays, whatever the one who hands us the ring knows of it. */
static void test_while_joining(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *target, *home;

	kicks = str_new(test_pool, 128);
	ring_start(2, 3);
	process = login_process_ref(director_leases(director), 100);
	plugin = session_plugin_init(director_leases(director), process);
	right = right_joins("10.0.0.3", 10);
	target = elsewhere("jane");
	in(right, "USER-MOVE|10.0.0.3|9090|5|%u|%s|5", test_hash("jane"),
	   target);
	left = incoming("10.0.0.1");
	greet(left, "10.0.0.1", 10, TEST_INSTANCE_LEFT);
	home = hashed("jane");
	in(left, "HOST-HAND-START|1");
	test_pass(500);
	in(left, "HOST|%s|100||U0||1", home);
	/* still not the one where he goes */
	test_pass(500);
	in(left, "HOST|%s|100||U0||1", target);
	in(left, "HOST-HAND-END|1");
	in(left, "U|%u|%s|%u", test_hash("jane"), home, TEST_WALL);
	in(left, "OPTIONS|consistent-hashing");
	in(left, "DONE");
	ring_syncs(left, right);
	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, 0);
	assert_string_equal(known("jane", ""), target);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.3|9090|6|%u|%s|5",
	   test_hash("jane"), target);
	ring_end();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
}

/* Who doesn't know of the move would take him to be there. */
static void test_not_told_where(void **state ATTR_UNUSED)
{
	const char *target, *home;

	/* refreshes are told once a second */
	test_set.user_expire_secs = 30;
	begin(3);
	test_set.user_expire_secs = TEST_EXPIRE;
	home = hashed("jane");
	target = elsewhere("jane");
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s|5", test_hash("jane"),
	   target);
	pass(2000);
	forget_sent();
	in(right, "USER|%u|%s|%u|%u", test_hash("jane"), home,
	   (unsigned int)now.wall, TEST_INSTANCE_RIGHT);
	assert_not_said(left, "USER|");
	assert_not_said(right, "USER|");
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|6|%u|%s|5",
	   test_hash("jane"), target);
	pass(2000);
	director_refresh(director, "jane", &now);
	ring_end();
	assert_said(left, t_strdup_printf("USER|%u|%s|", test_hash("jane"),
					  target));
}

/* Users of the new backend are forgotten, but not who is on his way there. */
static void test_forgotten(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *target;

	begin(3);
	target = elsewhere("jane");
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s|5", test_hash("jane"),
	   target);
	in(left, "HOST-FLUSH|10.0.0.1|9090|6|%s", target);
	in(left, "USER|%u|%s|%u|%u", test_hash("jane"), hashed("jane"),
	   TEST_WALL, TEST_INSTANCE_LEFT);
	ring_syncs(left, right);
	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, 0);
	in(left, "HOST-FLUSH|10.0.0.1|9090|7|%s", target);
	ring_syncs(left, right);
	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|8|%u|%s|5",
	   test_hash("jane"), target);
	ring_end();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
}

/* Nor is he forgotten for those who join meanwhile. */
static void test_forgotten_and_told(void **state ATTR_UNUSED)
{
	const char *target;
	unsigned int i;

	begin(3);
	target = elsewhere("jane");
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s|5", test_hash("jane"),
	   target);
	for (i = 0; i < 2; i++) {
		if (i == 0)
			in(left, "HOST-FLUSH|10.0.0.1|9090|6|%s", target);
		else {
			assert_int_equal(director_host_flush(director,
				ip_of(target), "", &now), DIRECTOR_HOST_OK);
		}
		assert_true(test_user_exists("jane"));
		assert_int_equal(user_table_flags(director_users(director),
						  test_user("jane", "")),
				 USER_FLAG_MOVING | USER_FLAG_JOURNALED);
		assert_string_equal(known("jane", ""), target);
	}
}

/* His old backend gets its time after each session that ends there, whatever
   he has on the new one. */
static void test_both_backends(void **state ATTR_UNUSED)
{
	const struct session_token token = { 1, 1 };
	struct session_lease *old, *new;
	struct test_lookup *lookup;
	const char *target, *error;

	left = right = NULL;
	begin(1);
	target = elsewhere("jane");
	old = session("jane");
	pass(5000);
	assert_int_equal(move("jane", target), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	/* announced late */
	new = director_session_start(director, plugin, &token,
				     test_hash("jane"), ip_of(target),
				     now.clock, &now, &error);
	assert_non_null(new);
	director_session_end(director, &old, &now);
	test_pass(1000);
	director_session_end(director, &new, &now);
	test_pass(KICK_DELAY - 1000);
	assert_int_equal(lookup->state, 0);
	test_pass(1);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, target);
}

/* Only who passes on to his right has seen that all are ready. */
static void test_not_left(void **state ATTR_UNUSED)
{
	struct test_conn *farther;
	const char *killed;

	begin(4);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	farther = left_joins("10.0.0.4", 444, TRUE, NULL);
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s",
		test_hash("jane"), elsewhere("jane"),
		strrchr(said_after(left, "USER-MOVE"), '|') + 1);
	in(farther, "%s", killed);
	assert_not_said(left, "USER-KILLED-EVERYWHERE");
	in(left, "%s", killed);
	assert_said(left, "USER-KILLED-EVERYWHERE");
}

/* Somebody comes between our left and us while the wave waits for us: he has to
   be asked, too. */
static void test_new_left(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	const char *killed;

	begin(4);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	left = left_joins("10.0.0.4", 444, TRUE, NULL);
	ring_syncs(left, right);
	lease = session("jane");
	pass(20000);
	in(left, "USER-MOVE|10.0.0.4|9090|5|%u|%s|5", test_hash("jane"),
	   elsewhere("jane"));
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.4|9090|5",
				 test_hash("jane"), elsewhere("jane"));
	in(left, "%s", killed);
	ring_peer_closed(director, left->peer, "reset", &now);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT + 1, TRUE, NULL);
	director_session_end(director, &lease, &now);
	forget_sent();
	pass(18000);
	assert_not_said(right, killed);
	in(left, "%s", killed);
	ring_end();
	assert_said(right, killed);
}

/* We are handed one for whom there is no backend: he isn't placed in the end. */
static void test_handed_nowhere(void **state ATTR_UNUSED)
{
	begin(4);
	ring_peer_closed(director, left->peer, "reset", &now);
	left = left_joins("10.0.0.4", 444, TRUE, t_strdup_printf(
		"U|%u|10.1.0.1|%u|m", test_hash("jane"), TEST_WALL));
	ring_syncs(left, right);
	assert_int_equal(director_users_moving(director), 1);
	in(left, "USER-MOVE|10.0.0.1|9090|6|%u|10.1.0.1|5|1",
	   test_hash("jane"));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|7|%u|10.1.0.1|5|1",
	   test_hash("jane"));
	assert_int_equal(director_users_moving(director), 0);
	assert_false(test_user_exists("jane"));
}

/* That somebody is to be connected to doesn't mean that he is back. */
static void test_lost_and_named(void **state ATTR_UNUSED)
{
	const struct ring_address lost = address_of("10.0.0.1");

	begin(4);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	left = left_joins("10.0.0.4", 444, TRUE, NULL);
	ring_syncs(left, right);
	ring_add_member(director, &lost, "", &now);
	ring_end();
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	pass(5000);
	assert_not_said(right, "USER-KILLED");
	pass(12000);
	assert_said(right, "USER-KILLED");
}

/* We haven't heard that a move was over; another one that begins soon after it
   says where he is. */
static void test_end_not_heard(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	unsigned int i;

	begin(3);
	in(right, "USER-MOVE|10.0.0.3|9090|5|%u|10.1.0.1|5",
	   test_hash("jane"));
	for (i = 0; i < 7; i++) {
		in(left, "USER-MOVE|10.0.0.1|9090|%u|%u|10.1.0.2|7", 5 + i,
		   test_hash("jane"));
		pass(1000);
	}
	lookup = test_lookup("jane");
	in(left, "USER-KILLED|%u|10.1.0.2|10.0.0.1|9090|7", test_hash("jane"));
	ring_end();
	assert_int_equal(lookup->state, 0);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|20|%u|10.1.0.2|7",
	   test_hash("jane"));
	ring_end();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, "10.1.0.2");
}

/* Another director says that he belongs elsewhere, while an answer of ours is on
   its way: nobody is let in there before it can't become a session. */
static void test_conflict_with_answer(void **state ATTR_UNUSED)
{
	struct test_lookup *answer, *lookup;
	struct session_lease *lease;
	unsigned int number = 0;
	const char *user, *error;

	begin(3);
	for (unsigned int i = 0; i < 2; i++) {
		do {
			user = t_strdup_printf("u%u", number++);
		} while (strcmp(hashed(user), "10.1.0.2") != 0);
		answer = test_lookup_for(process, user, "");
		assert_string_equal(answer->ip, "10.1.0.2");
		in(left, "USER|%u|10.1.0.1|%ld|%u", test_hash(user),
		   (long)now.wall, TEST_INSTANCE_LEFT);
		lookup = test_lookup(user);
		assert_int_equal(lookup->state, 0);
		pass(1000);
		assert_int_equal(lookup->state, 0);
		if (i == 0) {
			/* it comes, is kicked, and ends */
			lease = director_session_start(director, plugin,
				&answer->lookup.token, answer->lookup.hash,
				ip_of("10.1.0.2"), now.clock, &now, &error);
			assert_true(str_len(kicks) > 0);
			pass(250);
			assert_int_equal(lookup->state, 0);
			director_session_end(director, &lease, &now);
		} else {
			/* or its time is over */
			pass(SESSION_LEASE_DEADLINE_MSECS);
			assert_int_equal(lookup->state, 0);
			pass(SESSION_LEASE_SLACK_MSECS - 1000);
		}
		/* that backend gets its time */
		pass(KICK_DELAY - 250);
		assert_int_equal(lookup->state, 0);
		pass(500);
		assert_int_equal(lookup->state, 1);
		assert_string_equal(lookup->ip, "10.1.0.1");
		assert_string_equal(where(user), "10.1.0.1");
	}
}

/* The ring that we join has somebody elsewhere than his session here. */
static void test_session_elsewhere(void **state ATTR_UNUSED)
{
	const struct session_token token = { 1, 1 };
	struct session_lease *lease;
	struct test_lookup *lookup;
	const char *error;

	kicks = str_new(test_pool, 128);
	test_set.user_kick_delay_msecs = KICK_DELAY;
	ring_vfuncs.kick = test_kick;
	ring_start(2, 3);
	process = login_process_ref(director_leases(director), 100);
	plugin = session_plugin_init(director_leases(director), process);
	right = right_joins("10.0.0.3", 10);
	lease = director_session_start(director, plugin, &token,
				       test_hash("jane"),
				       ip_of(elsewhere("jane")),
				       now.clock, &now, &error);
	assert_non_null(lease);
	assert_int_equal(str_len(kicks), 0);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE,
			  t_strdup_printf("U|%u|%s|%u", test_hash("jane"),
					  hashed("jane"), TEST_WALL));
	ring_syncs(left, right);
	assert_string_equal(str_c(kicks), t_strdup_printf(
		"%u %s session on %s although assigned to %s\n",
		test_hash("jane"), hashed("jane"), elsewhere("jane"),
		hashed("jane")));
	lookup = test_lookup("jane");
	pass(5000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY + 500);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, hashed("jane"));
}

/* His sessions on the old backend have to end all the same. */
static void test_target_removed(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;
	const char *home, *old;

	left = right = NULL;
	begin(1);
	home = t_strdup(hashed("jane"));
	old = t_strdup(elsewhere("jane"));
	assert_int_equal(move("jane", old), DIRECTOR_HOST_OK);
	pass(5000);
	lease = session("jane");
	assert_string_equal(net_ip2addr(&lease->backend->ip), old);
	assert_int_equal(test_host_set("10.1.0.3", "", 100), DIRECTOR_HOST_OK);
	assert_int_equal(move("jane", "10.1.0.3"), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	assert_int_equal(test_host_remove("10.1.0.3"), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_set("10.1.0.3", "", 100), DIRECTOR_HOST_OK);
	pass(5000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	assert_let_in(lookup, home);
}

/* There is no other backend either, and then there is. */
static void test_target_removed_alone(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;

	left = right = NULL;
	begin(1);
	lease = session("jane");
	assert_int_equal(test_host_set("10.1.0.3", "", 100), DIRECTOR_HOST_OK);
	assert_int_equal(move("jane", "10.1.0.3"), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_down("10.1.0.1", TRUE), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_down("10.1.0.2", TRUE), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_remove("10.1.0.3"), DIRECTOR_HOST_OK);
	pass(5000);
	assert_int_equal(director_users_moving(director), 1);
	director_session_end(director, &lease, &now);
	/* his backend gets its time all the same */
	pass(1000);
	assert_int_equal(director_users_moving(director), 1);
	assert_int_equal(test_host_set("10.1.0.4", "", 100), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	pass(KICK_DELAY - 1250);
	assert_int_equal(lookup->state, 0);
	pass(500);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, "10.1.0.4");
	assert_int_equal(director_users_moving(director), 0);

	/* Nobody is there to wait for, nor a backend to go to. */
	assert_int_equal(move("jane", "10.1.0.1"), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_remove("10.1.0.1"), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_remove("10.1.0.4"), DIRECTOR_HOST_OK);
	pass(6000);
	assert_int_equal(director_users_moving(director), 0);
}

/* He is ended on the only backend that there is, which is removed when there is
   another one. */
static void test_nowhere_removed(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;
	struct user_flush *flush;
	const char *home;

	left = right = NULL;
	begin(1);
	home = t_strdup(hashed("jane"));
	lease = session("jane");
	assert_int_equal(test_host_down("10.1.0.1", TRUE), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_down("10.1.0.2", TRUE), DIRECTOR_HOST_OK);
	flush = director_flush_users(director, ip_of(home), 0, "", NULL, NULL,
				     &now);
	director_flush_unref(&flush, FALSE);
	test_run();
	assert_int_equal(director_users_moving(director), 1);
	assert_int_equal(test_host_set("10.1.0.3", "", 100), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_remove(home), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	pass(5000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	assert_let_in(lookup, "10.1.0.3");
	assert_int_equal(director_users_moving(director), 0);
}

/* The backend is removed while the one before gets its time, as in 2.3. */
static void test_delaying_removed(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	begin(3);
	in(left, "HOST|10.0.0.1|9090|5|10.1.0.3|0||U0||2000");
	in(left, "USER-MOVE|10.0.0.1|9090|6|%u|10.1.0.3", test_hash("jane"));
	in(left, "USER-KILLED|%u", test_hash("jane"));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|7|%u",
	   test_hash("jane"));
	in(left, "HOST-REMOVE|10.0.0.1|9090|8|10.1.0.3|3000");
	ring_syncs(left, right);
	lookup = test_lookup("jane");
	assert_let_in(lookup, hashed("jane"));
}

/* The wave of one who was handed to us, before we are told of the move: it says
   that there is no backend for him. */
static void test_handed_killed_nowhere(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	const char *ip, *killed;

	begin(4);
	lease = session("jane");
	ip = t_strdup(net_ip2addr(&lease->backend->ip));
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.1|9090|5|1",
				 test_hash("jane"), ip);
	ring_peer_closed(director, left->peer, "reset", &now);
	left = left_joins("10.0.0.4", 444, TRUE, t_strdup_printf(
		"U|%u|%s|%u|m", test_hash("jane"), ip, TEST_WALL));
	ring_syncs(left, right);
	str_truncate(kicks, 0);
	in(left, "%s", killed);
	assert_non_null(strstr(str_c(kicks), " - flushed from all backends"));
	/* also the grace of who was lost is over */
	pass(20000);
	assert_not_said(right, "USER-KILLED");
	in(left, "%s", killed);
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY + 500);
	assert_said(right, killed);
}

/* Who is connected isn't in the ring yet, and isn't asked by a wave. */
static void test_back_but_not_in_the_ring(void **state ATTR_UNUSED)
{
	struct test_conn *farther;

	begin(4);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	ring_end();
	farther = left = left_joins("10.0.0.4", 444, TRUE, NULL);
	ring_syncs(left, right);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT + 1, TRUE, NULL);
	in(farther, "QUIT|CONNECT requested");
	pass(2000);
	assert_not_said(right, "USER-KILLED");
	in(left, "SYNC|10.0.0.1|9090|1|10|%u|%u|%u", TEST_WALL,
	   backends_hash(director_backends(director)), TEST_INSTANCE_LEFT + 1);
	pass(250);
	assert_said(right, "USER-KILLED");
}

/* Who leaves the ring because it can't reach somebody takes his sessions with
   him. */
static void test_leaves_the_ring(void **state ATTR_UNUSED)
{
	begin(4);
	in(left, "QUIT|Can't reach 10.0.0.3:9090");
	left = left_joins("10.0.0.4", 444, TRUE, NULL);
	ring_syncs(left, right);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	pass(10000);
	assert_not_said(right, "USER-KILLED");
	pass(6000);
	assert_said(right, "USER-KILLED");
}

static const char *dumped(const char *user)
{
	const struct director_record *record;
	const char *ip = "none";
	uint32_t pos = 0;

	array_clear(&test_records);
	while (director_dump(director, &pos, 100, &now, test_record, &now)) ;
	array_foreach(&test_records, record) {
		if (record->type == DIRECTOR_RECORD_USER &&
		    record->hash == test_hash(user))
			ip = net_ip2addr(&record->ip);
	}
	return ip;
}

/* A director that starts has to find him where his sessions are. */
static void test_recorded(void **state ATTR_UNUSED)
{
	const char *user, *home, *away;

	left = right = NULL;
	begin(1);
	/* from where hashing puts him, back, and to where he is */
	for (unsigned int i = 0; i < 3; i++) {
		user = i == 2 ? "jim" : "jane";
		home = t_strdup(hashed(user));
		away = t_strdup(elsewhere(user));
		if (i == 2) {
			assert_int_equal(move(user, away), DIRECTOR_HOST_OK);
			pass(5000);
		}
		(void)where(user);
		array_clear(&test_records);
		assert_int_equal(move(user, i == 1 ? home : away),
				 DIRECTOR_HOST_OK);
		assert_int_equal(array_count(&test_records), 0);
		assert_string_equal(dumped(user), i == 0 ? "none" : away);
		array_clear(&test_records);
		pass(5250);
		assert_int_equal(director_users_moving(director), 0);
		assert_int_equal(array_count(&test_records), 1);
		assert_string_equal(dumped(user), i == 1 ? "none" : away);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		move_test(test_after_broken_ring),
		move_test(test_while_joining),
		move_test(test_not_told_where),
		move_test(test_forgotten),
		move_test(test_forgotten_and_told),
		move_test(test_both_backends),
		move_test(test_not_left),
		move_test(test_new_left),
		move_test(test_handed_nowhere),
		move_test(test_lost_and_named),
		move_test(test_end_not_heard),
		move_test(test_conflict_with_answer),
		move_test(test_session_elsewhere),
		move_test(test_target_removed),
		move_test(test_target_removed_alone),
		move_test(test_nowhere_removed),
		move_test(test_delaying_removed),
		move_test(test_handed_killed_nowhere),
		move_test(test_back_but_not_in_the_ring),
		move_test(test_leaves_the_ring),
		move_test(test_recorded),
	};

	return run_test_cases(tests);
}
