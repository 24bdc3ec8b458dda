/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Flushes of backends, and the flush hook (assignment.md §8, §9) */

#include "test-user-move.h"

static unsigned int flush_calls;
static struct director_flush_hook hook;
static unsigned int hooks;

static void flush_changed(void *context)
{
	assert_ptr_equal(context, &flush_calls);
	flush_calls++;
}

static struct user_flush *flush(const char *ip, unsigned int max_parallel)
{
	flush_calls = 0;
	return director_flush_users(director, ip == NULL ? NULL : ip_of(ip),
				    max_parallel, "doveadm: ", flush_changed,
				    &flush_calls, &now);
}

static bool flush_hook(void *context, const struct director_flush_hook *_hook)
{
	assert_ptr_equal(context, &now);
	hook = *_hook;
	hooks++;
	return TRUE;
}

static void status(struct user_flush *flush, struct user_flush_status *status_r)
{
	director_flush_status(flush, status_r, &now);
	assert_true(status_r->seen <= status_r->users);
}

/* users many, who log in, and whose time of use has passed */
static void users_come(unsigned int users)
{
	for (unsigned int i = 0; i < users; i++)
		(void)where(t_strdup_printf("u%u", i));
	pass(10000);
}

static void vhosts(const char *ip, unsigned int count)
{
	assert_int_equal(director_host_set(director, ip_of(ip), NULL, count,
					   FALSE, "", &now), DIRECTOR_HOST_OK);
	test_run();
}

static void alone(void)
{
	ring_vfuncs.flush_hook = NULL;
	left = right = NULL;
	begin(1);
}

/* Who isn't where hashing puts him is moved: at once, as many as there are. */
static void test_flush(void **state ATTR_UNUSED)
{
	struct user_flush *f;
	struct user_flush_status st;
	unsigned int users;

	alone();
	test_set.user_expire_secs = TEST_EXPIRE;
	users_come(1000);
	users = backend_users(director_backends(director),
			      backend_lookup(director_backends(director),
					     ip_of("10.1.0.1")));
	assert_true(users > 300);
	assert_null(flush("10.9.9.9", 0));
	/* all are where they belong */
	f = flush("10.1.0.1", 0);
	pass(250);
	status(f, &st);
	assert_true(st.ended);
	assert_int_equal(st.seen, users);
	assert_int_equal(st.moved, 0);
	director_flush_unref(&f, FALSE);

	vhosts("10.1.0.1", 0);
	f = flush("10.1.0.1", 7);
	status(f, &st);
	assert_false(st.begun);
	assert_int_equal(st.users, users);
	assert_int_equal(flush_calls, 0);
	pass(250);
	status(f, &st);
	assert_true(st.begun && st.ended);
	assert_int_equal(st.moved, users);
	assert_int_equal(st.waiting, 0);
	assert_int_equal(st.failed, 0);
	assert_true(flush_calls >= 1);
	assert_non_null(strstr(str_c(test_logs), t_strdup_printf(
		"I doveadm: Moved %u users in 1 hosts in ", users)));
	director_flush_unref(&f, FALSE);
	for (unsigned int i = 0; i < 1000; i++) {
		assert_string_equal(where(t_strdup_printf("u%u", i)),
				    "10.1.0.2");
	}
}

/* Those with sessions hold up as many as may be moved at once, not more. */
static void test_parallel(void **state ATTR_UNUSED)
{
	struct session_lease *leases[20];
	struct user_flush *f;
	struct user_flush_status st;
	unsigned int i, count = 0;

	alone();
	for (i = 0; count < N_ELEMENTS(leases); i++) {
		const char *user = t_strdup_printf("u%u", i);

		if (strcmp(hashed(user), "10.1.0.1") == 0)
			leases[count++] = session(user);
	}
	pass(10000);
	vhosts("10.1.0.1", 0);
	f = flush("10.1.0.1", 5);
	pass(1000);
	status(f, &st);
	assert_int_equal(st.waiting, 5);
	assert_int_equal(st.moved, 0);
	assert_false(st.begun);
	assert_int_equal(director_users_moving(director), 5);
	/* whatever ends makes room */
	for (i = 0; i < count; i++) {
		director_session_end(director, &leases[i], &now);
		pass(1);
	}
	pass(KICK_DELAY);
	status(f, &st);
	assert_true(st.moved >= 5);
	pass(5 * KICK_DELAY);
	status(f, &st);
	assert_true(st.ended);
	assert_int_equal(st.moved, count);
	director_flush_unref(&f, FALSE);
}

/* The client goes: with stop, those who aren't begun stay. */
static void test_stop(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct user_flush *f;

	alone();
	lease = session("jane");
	session("jim");
	session("joe");
	pass(10000);
	vhosts(hashed("jane"), 0);
	f = flush(NULL, 1);
	pass(250);
	assert_int_equal(director_users_moving(director), 1);
	director_flush_unref(&f, TRUE);
	assert_null(f);
	pass(250);
	assert_int_equal(director_users_moving(director), 1);
	director_session_end(director, &lease, &now);
	pass(20000);
	assert_true(director_users_moving(director) <= 1);
	assert_int_equal(flush_calls, 0);
	/* without, it goes on; several at once, and all are freed at the end */
	f = flush(NULL, 1);
	director_flush_unref(&f, FALSE);
	f = flush(NULL, 1);
	director_flush_unref(&f, FALSE);
	pass(250);
	assert_int_equal(flush_calls, 0);
}

/* No backend is left: their sessions are ended, and they are forgotten. */
static void test_nowhere(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct user_flush *f;
	struct user_flush_status st;
	struct test_lookup *lookup;
	const char *other;

	alone();
	lease = session("jane");
	other = elsewhere("jane");
	pass(10000);
	vhosts("10.1.0.1", 0);
	vhosts("10.1.0.2", 0);
	f = flush(NULL, 0);
	pass(1000);
	assert_string_equal(str_c(kicks), t_strdup_printf(
		"%u - flushed from all backends by doveadm\n",
		test_hash("jane")));
	/* a backend comes while he is still there */
	vhosts(other, 100);
	lookup = test_lookup("jane");
	pass(1000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	assert_let_in(lookup, other);
	status(f, &st);
	assert_true(st.ended);
	assert_int_equal(st.moved, 1);
	director_flush_unref(&f, FALSE);
}

/* In a ring of ours all hold him, and forget him together. */
static void test_nowhere_ring(void **state ATTR_UNUSED)
{
	struct user_flush *f;
	const char *told, *wave, *killed, *own;

	begin(3);
	(void)where("jane");
	own = hashed("jane");
	pass(10000);
	vhosts("10.1.0.1", 0);
	ring_syncs(left, right);
	vhosts("10.1.0.2", 0);
	ring_syncs(left, right);
	forget_sent();
	f = flush(NULL, 0);
	test_run();
	told = said_after(left, "USER-MOVE");
	wave = t_strsplit(told, "|")[2];
	assert_string_equal(told, t_strdup_printf("%u|%s|%s|1",
		test_hash("jane"), own, wave));
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s|1",
				 test_hash("jane"), own, wave);
	assert_said(right, killed);
	in(left, "%s", killed);
	assert_said(left, "USER-KILLED-EVERYWHERE|10.0.0.2|9090|");
	assert_int_equal(user_table_count(director_users(director)), 0);
	director_flush_unref(&f, FALSE);

	/* Another's; a move to a backend at the same time wins. */
	forget_sent();
	vhosts("10.1.0.1", 100);
	vhosts("10.1.0.2", 100);
	ring_syncs(left, right);
	(void)where("jane");
	pass(10000);
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|%s|5|1", test_hash("jane"),
	   hashed("jane"));
	in(left, "USER-MOVE|10.0.0.3|9090|5|%u|%s|5", test_hash("jane"),
	   elsewhere("jane"));
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_BUSY);
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.1|9090|6|%u|%s|5|1",
	   test_hash("jane"), hashed("jane"));
	in(left, "USER-KILLED-EVERYWHERE|10.0.0.3|9090|6|%u|%s|5",
	   test_hash("jane"), elsewhere("jane"));
	assert_string_equal(where("jane"), elsewhere("jane"));
}

/* With a director of 2.3 such a move may end in vain: who has a session isn't
   forgotten. */
static void test_nowhere_in_vain(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct user_flush *f;
	const char *own;

	begin(3);
	others_are_older();
	lease = session("jane");
	own = hashed("jane");
	pass(10000);
	vhosts("10.1.0.1", 0);
	ring_syncs_minor(left, right, "9");
	vhosts("10.1.0.2", 0);
	ring_syncs_minor(left, right, "9");
	f = flush(NULL, 0);
	pass(1000);
	assert_int_equal(director_users_moving(director), 1);
	pass(30000);
	assert_non_null(strstr(str_c(test_logs), "move timed out"));
	assert_int_equal(director_users_moving(director), 0);
	assert_string_equal(known("jane", ""), own);
	director_session_end(director, &lease, &now);
	director_flush_unref(&f, FALSE);
}

/* The hook runs when the sessions are gone everywhere, before anybody lets him
   in. */
static void test_hook(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct test_lookup *lookup;
	const char *killed;

	ring_vfuncs.flush_hook = flush_hook;
	begin(3);
	hooks = 0;
	lease = session("jane");
	pass(10000);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	director_session_end(director, &lease, &now);
	pass(KICK_DELAY + 250);
	assert_int_equal(hooks, 0);
	killed = t_strdup_printf("USER-KILLED|%u|%s|10.0.0.2|9090|%s",
		test_hash("jane"), elsewhere("jane"),
		strrchr(said_after(right, "USER-MOVE"), '|') + 1);
	in(left, "%s", killed);
	assert_int_equal(hooks, 1);
	assert_int_equal(hook.hash, test_hash("jane"));
	assert_string_equal(net_ip2addr(&hook.old_ip), hashed("jane"));
	assert_string_equal(net_ip2addr(&hook.new_ip), elsewhere("jane"));
	assert_false(hook.old_down);
	assert_int_equal(hook.old_vhosts, 100);
	/* the others hear that we are still at it */
	forget_sent();
	pass(10000);
	assert_int_equal(hooks, 1);
	assert_true(said(left, "USER-MOVE|") >= 5);
	assert_not_said(left, "USER-KILLED-EVERYWHERE");
	assert_int_equal(lookup->state, 0);
	/* another one's end isn't it */
	director_flush_hook_ended(director, hook.hash, hook.id + 1, &now);
	director_flush_hook_ended(director, hook.hash + 1, hook.id, &now);
	test_run();
	assert_int_equal(lookup->state, 0);
	director_flush_hook_ended(director, hook.hash, hook.id, &now);
	test_pass(1);
	assert_said(left, "USER-KILLED-EVERYWHERE|10.0.0.2|9090|");
	assert_int_equal(lookup->state, 1);
	director_flush_hook_ended(director, hook.hash, hook.id, &now);
	/* who was nowhere before needs none */
	forget_sent();
	assert_int_equal(move("jim", elsewhere("jim")), DIRECTOR_HOST_OK);
	in(left, "USER-KILLED|%u|%s|10.0.0.2|9090|%s", test_hash("jim"),
	   elsewhere("jim"),
	   strrchr(said_after(right, "USER-MOVE"), '|') + 1);
	assert_string_equal(where("jim"), elsewhere("jim"));
	assert_int_equal(hooks, 1);
}

/* He stays where he was after all, since the new backend is removed. */
static void test_hook_of_none(void **state ATTR_UNUSED)
{
	ring_vfuncs.flush_hook = flush_hook;
	left = right = NULL;
	begin(1);
	assert_int_equal(test_host_set("10.1.0.3", "", 0), DIRECTOR_HOST_OK);
	hooks = 0;
	assert_string_equal(where("jane"), hashed("jane"));
	assert_int_equal(move("jane", "10.1.0.3"), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_remove("10.1.0.3"), DIRECTOR_HOST_OK);
	pass(10000);
	assert_int_equal(director_users_moving(director), 0);
	assert_string_equal(where("jane"), hashed("jane"));
	assert_int_equal(hooks, 0);
}

/* With members of 2.3 they wait for our hook, too. */
static void test_hook_original(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;
	const char *killed;

	ring_vfuncs.flush_hook = flush_hook;
	left = right = NULL;
	test_set.user_kick_delay_msecs = KICK_DELAY;
	ring_vfuncs.kick = test_kick;
	kicks = str_new(test_pool, 128);
	ring_start(2, 3);
	right = right_joins("10.0.0.3", 9);
	left = left_joins("10.0.0.1", 0, FALSE, NULL);
	ring_syncs_minor(left, right, "9");
	test_pass(DIRECTOR_START_GRACE_MSECS);
	process = login_process_ref(director_leases(director), 100);
	plugin = session_plugin_init(director_leases(director), process);
	(void)where("jane");
	pass(10000);
	hooks = 0;
	forget_sent();
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	lookup = test_lookup("jane");
	killed = t_strdup_printf("USER-KILLED|%u", test_hash("jane"));
	assert_said(right, killed);
	in(left, "%s", killed);
	assert_int_equal(hooks, 1);
	pass(3000);
	assert_not_said(left, "USER-KILLED-EVERYWHERE");
	director_flush_hook_ended(director, hook.hash, hook.id, &now);
	test_run();
	assert_said(left, "USER-KILLED-EVERYWHERE|10.0.0.2|9090|");
	assert_int_equal(lookup->state, 0);
	pass(KICK_DELAY + 250);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, elsewhere("jane"));
}

/* Somebody else moves him to the backend that is flushed: he is waited for. */
static void test_busy(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	struct user_flush *f;
	struct user_flush_status st;

	alone();
	lease = session("jane");
	pass(10000);
	vhosts(elsewhere("jane"), 0);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	f = flush(elsewhere("jane"), 0);
	pass(1000);
	status(f, &st);
	assert_int_equal(st.failed, 1);
	assert_false(st.begun);
	director_session_end(director, &lease, &now);
	pass(2 * KICK_DELAY + 2500);
	status(f, &st);
	assert_true(st.ended);
	assert_int_equal(st.moved, 1);
	assert_int_equal(st.failed, 0);
	director_flush_unref(&f, FALSE);
	assert_string_equal(where("jane"), hashed("jane"));
	/* not for ever */
	lease = session("jane");
	pass(10000);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	f = flush(elsewhere("jane"), 0);
	pass(31000);
	status(f, &st);
	assert_true(st.ended);
	assert_int_equal(st.failed, 1);
	assert_non_null(strstr(str_c(test_logs),
			       "E doveadm: 1 users weren't moved"));
	director_flush_unref(&f, FALSE);
	director_session_end(director, &lease, &now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		move_test(test_flush),
		move_test(test_parallel),
		move_test(test_stop),
		move_test(test_nowhere),
		move_test(test_nowhere_ring),
		move_test(test_nowhere_in_vain),
		move_test(test_hook),
		move_test(test_hook_of_none),
		move_test(test_hook_original),
		move_test(test_busy),
	};

	return run_test_cases(tests);
}
