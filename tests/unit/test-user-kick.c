/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Kicks: whose sessions end, what is said of it, and what isn't held up by it
   (doc/ring-protocol.md §8.5) */

#include "test-user-move.h"
#include "sort.h"

/* Names of the sessions that were told to end, in their order, each with a
   blank behind it; and counts "<id> <director> <count>\n" */
static string_t *ended, *counts;
static bool plugin_is_full;
/* What they are told; NULL: not looked at */
static const char *kick_reason;

static bool test_kick_session(void *context ATTR_UNUSED,
			      struct session_plugin *kicked_plugin,
			      const struct session_token *token,
			      const char *reason)
{
	const struct session_lease *lease =
		session_lease_lookup(director_leases(director), token);

	assert_non_null(lease);
	assert_ptr_equal(kicked_plugin, lease->plugin);
	if (kick_reason != NULL)
		assert_string_equal(reason, kick_reason);
	if (plugin_is_full)
		return FALSE;
	str_printfa(ended, "%s ", lease->names == NULL ? "-" : lease->names);
	return TRUE;
}

static void test_kicked(void *context ATTR_UNUSED, uint32_t id,
			const struct ring_address *from, unsigned int count)
{
	str_printfa(counts, "%u %s %u\n", id, net_ip2addr(&from->ip), count);
}

static int setup(void **state)
{
	int ret = test_ring_setup(state);

	left = right = NULL;
	ended = str_new(test_pool, 128);
	counts = str_new(test_pool, 128);
	plugin_is_full = FALSE;
	kick_reason = "kicked by doveadm";
	test_session_vfuncs.kick = test_kick_session;
	test_session_vfuncs.kicked = test_kicked;
	return ret;
}

#define kick_test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)

/* names: name and fields, separated by blanks */
static struct session_lease *named_session(const char *user, const char *names)
{
	struct session_lease *lease = session(user);
	const char *const *words = t_strsplit_spaces(names, " ");

	session_lease_set_names(director_leases(director), lease, words[0],
				words + 1);
	return lease;
}

/* Returns the number, 0 if there are too many. */
static uint32_t kick(const char *field, const char *text, bool counted)
{
	struct session_match match = {
		.type = SESSION_MATCH_FIELD,
		.field = field,
		.text = text,
	};
	const char *error;
	uint32_t id;

	if (field == NULL) {
		assert_int_equal(session_match_user(director, text, FALSE,
						    &match, &error), 0);
	}
	if (!director_sessions_kick(director, &match, counted, "doveadm: ",
				    &id, &now))
		return 0;
	ring_end();
	return id;
}

static void assert_ended(const char *names)
{
	const char **words = t_strsplit_spaces(str_c(ended), " ");

	i_qsort(words, str_array_length(words), sizeof(*words), i_strcmp_p);
	assert_string_equal(t_strarray_join(words, " "), names);
	str_truncate(ended, 0);
}

static void test_name(void **state ATTR_UNUSED)
{
	begin(1);
	(void)named_session("jane", "Jane");
	(void)named_session("jane", "jane");
	(void)named_session("jim", "jim");
	(void)session("jane");
	(void)kick(NULL, "JANE", FALSE);
	assert_ended("- Jane jane");
	test_assert_logged("I User JANE is kicked (3 sessions here): "
			   "kicked by doveadm");
	(void)kick(NULL, "jan", FALSE);
	assert_ended("");
	assert_string_equal(str_c(counts), "");
	assert_string_equal(str_c(kicks), "");
}

/* He has the hash of another name. */
static void test_destuser(void **state ATTR_UNUSED)
{
	begin(1);
	(void)named_session("other", "jane destuser=other");
	(void)named_session("jane", "jane");
	(void)named_session("other", "other");
	(void)kick(NULL, "jane", FALSE);
	assert_ended("jane jane");
	(void)kick(NULL, "other", FALSE);
	assert_ended("jane other");
}

/* A hash that several users have */
static void test_shared_hash(void **state ATTR_UNUSED)
{
	test_set.username_hash = "%{user | domain}";
	begin(1);
	assert_int_equal(test_hash("jane@x"), test_hash("jim@x"));
	(void)named_session("jane@x", "jane@x");
	(void)named_session("jim@x", "jim@x");
	(void)kick(NULL, "jane@x", FALSE);
	assert_ended("jane@x");
}

/* Where upper and lower case are different users */
static void test_case_matters(void **state ATTR_UNUSED)
{
	test_set.username_hash = "%{user}";
	begin(1);
	(void)named_session("jane", "jane");
	(void)named_session("Jane", "Jane");
	(void)kick(NULL, "Jane", FALSE);
	assert_ended("Jane");
	(void)kick(NULL, "JAN?", FALSE);
	assert_ended("Jane jane");
}

static void test_masks(void **state ATTR_UNUSED)
{
	begin(1);
	(void)named_session("jane", "jane@Example.com");
	(void)named_session("jim", "jim@example.com");
	(void)named_session("joe", "joe@example.org destuser=x@example.com");
	(void)session("nameless");
	(void)kick(NULL, "*@EXAMPLE.com", FALSE);
	assert_ended("jane@Example.com jim@example.com joe@example.org");
	(void)kick(NULL, "j?m@*", FALSE);
	assert_ended("jim@example.com");
	(void)kick(NULL, "*@example.co", FALSE);
	assert_ended("");
}

static void test_fields(void **state ATTR_UNUSED)
{
	begin(1);
	(void)named_session("jane", "jane user_uid=5 user_b=6");
	(void)named_session("jim", "jim user_uid=55");
	(void)named_session("joe", "joe");
	(void)kick("user_uid", "5", FALSE);
	assert_ended("jane");
	(void)kick("user_uid", "6", FALSE);
	(void)kick("user_uid", "*", FALSE);
	(void)kick("uid", "5", FALSE);
	assert_ended("");
}

/* Answers that were given are no sessions yet. */
static void test_pending(void **state ATTR_UNUSED)
{
	struct test_lookup *jane, *jim;
	struct session_lease *lease;
	const char *error, *no_fields = NULL;

	begin(1);
	jane = test_lookup_for(process, "jane", "");
	jim = test_lookup_for(process, "jim", "");
	(void)kick(NULL, "jane", FALSE);
	/* nobody knows yet what it is about */
	(void)kick(NULL, "*", FALSE);
	assert_ended("");
	/* a session that had begun when it was kicked, and isn't told before */
	kick_reason = "kicked before it was told";
	assert_non_null(director_session_start(director, plugin,
		&jane->lookup.token, jane->lookup.hash, ip_of(jane->ip),
		now.clock, &now, &error));
	assert_int_equal(str_array_length(t_strsplit_spaces(str_c(ended),
							    " ")), 1);
	lease = director_session_start(director, plugin, &jim->lookup.token,
		jim->lookup.hash, ip_of(jim->ip), now.clock, &now, &error);
	session_lease_set_names(director_leases(director), lease, "jim",
				&no_fields);
	assert_int_equal(str_array_length(t_strsplit_spaces(str_c(ended),
							    " ")), 1);
	str_truncate(ended, 0);
	kick_reason = "kicked by doveadm";
	pass(250);
	assert_ended("jim");
	/* who comes afterwards isn't meant */
	(void)named_session("joe", "joe");
	pass(1000);
	assert_ended("");
}

static void test_ring(void **state ATTR_UNUSED)
{
	uint32_t id;

	begin(3);
	(void)named_session("jane", "jane user_uid=5");
	forget_sent();
	id = kick(NULL, "jane", FALSE);
	assert_string_equal(said_after(left, "USER-KICK"), "jane");
	assert_string_equal(said_after(right, "USER-KICK"), "jane");
	assert_string_equal(str_c(counts), "");
	forget_sent();
	id = kick(NULL, "j*", TRUE);
	assert_string_equal(said_after(right, "USER-KICK"), "j*|1");
	assert_string_equal(str_c(counts), t_strdup_printf(
		"%u 10.0.0.2 1\n", id));
	str_truncate(counts, 0);
	/* they count, too */
	in(left, "USER-KICKED|10.0.0.2|9090|10.0.0.3|9090|%u|64|7", id);
	in(left, "USER-KICKED|10.0.0.2|9090|10.0.0.1|9090|%u|1|0", id);
	assert_string_equal(str_c(counts), t_strdup_printf(
		"%u 10.0.0.3 7\n%u 10.0.0.1 0\n", id, id));
	forget_sent();
	(void)kick("user_uid", "5", TRUE);
	assert_string_equal(said_after(left, "USER-KICK-ALT"), "user_uid|5|1");
	assert_ended("jane jane jane");
}

static void test_others_kick(void **state ATTR_UNUSED)
{
	begin(3);
	(void)named_session("jane", "jane user_uid=5");
	(void)named_session("jane", "jane");
	kick_reason = "kicked by director 10.0.0.1:9090";
	in(left, "USER-KICK|10.0.0.1|9090|5|jane");
	assert_ended("jane jane");
	assert_said(right, "USER-KICK|10.0.0.1|9090|5|jane\n");
	assert_not_said(right, "USER-KICKED|");
	/* it came both ways round */
	in(right, "USER-KICK|10.0.0.1|9090|5|jane");
	assert_ended("");
	in(left, "USER-KICK|10.0.0.1|9090|6|J*|1");
	assert_ended("jane jane");
	assert_said(right, "USER-KICKED|10.0.0.1|9090|10.0.0.2|9090|6|64|2\n");
	in(left, "USER-KICK-ALT|10.0.0.1|9090|7|user_uid|5|1");
	assert_ended("jane");
	assert_said(right, "USER-KICKED|10.0.0.1|9090|10.0.0.2|9090|7|64|1\n");
	in(left, "USER-KICK|10.0.0.1|9090|8||1");
	in(left, "USER-KICK-ALT|10.0.0.1|9090|9|||1");
	assert_ended("");
	/* by hash: the plugin is told once, of all */
	in(left, "USER-KICK-HASH|10.0.0.1|9090|10|%u|%s", test_hash("jane"),
	   hashed("jane"));
	assert_string_equal(str_c(kicks), "");
	in(left, "USER-KICK-HASH|10.0.0.1|9090|11|%u|%s", test_hash("jane"),
	   elsewhere("jane"));
	assert_string_equal(str_c(kicks), t_strdup_printf(
		"%u %s director 10.0.0.1:9090 says that he belongs to %s\n",
		test_hash("jane"), elsewhere("jane"), elsewhere("jane")));
}

/* One of 2.3 is among them: nothing is said that it doesn't know. */
static void test_original(void **state ATTR_UNUSED)
{
	uint32_t id;

	test_set.user_kick_delay_msecs = KICK_DELAY;
	ring_vfuncs.sessions = test_session_vfuncs;
	kicks = str_new(test_pool, 128);
	ring_start(2, 3);
	right = right_joins("10.0.0.3", 9);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	in(left, "SYNC|10.0.0.2|9090|2|9|%u|0", TEST_WALL);
	process = login_process_ref(director_leases(director), 100);
	plugin = session_plugin_init(director_leases(director), process);
	forget_sent();
	id = kick(NULL, "jane", TRUE);
	assert_said(left, t_strdup_printf(
		"USER-KICK|10.0.0.2|9090|%u|jane\n", id));
	id = kick("user_a", "x", TRUE);
	assert_said(right, t_strdup_printf(
		"USER-KICK-ALT|10.0.0.2|9090|%u|user_a|x\n", id));
	director_sessions_count(director, 77, ip_of("10.1.0.1"), &id);
	ring_end();
	assert_not_said(left, "USER-COUNT");
	assert_not_said(right, "USER-COUNT");
	in(right, "USER-KICK|10.0.0.3|9090|1|jane");
	in(right, "USER-KICK-ALT|10.0.0.3|9090|2|user_a|x");
	assert_non_null(right->peer);
}

/* Who is in the middle of the ring passes on what is for others, but not for
   ever. */
static void test_addressed(void **state ATTR_UNUSED)
{
	begin(3);
	in(left, "USER-KICKED|10.0.0.3|9090|10.0.0.1|9090|5|64|7");
	assert_said(right,
		    "USER-KICKED|10.0.0.3|9090|10.0.0.1|9090|5|63|7\n");
	forget_sent();
	/* nobody knows it */
	in(left, "USER-KICKED|10.9.9.9|9090|10.0.0.1|9090|5|4294967295|7");
	assert_said(right,
		    "USER-KICKED|10.9.9.9|9090|10.0.0.1|9090|5|63|7\n");
	forget_sent();
	in(left, "USER-KICKED|10.9.9.9|9090|10.8.8.8|9090|5|1|7");
	in(left, "USER-KICKED|10.9.9.9|9090|10.8.8.8|9090|5|0|7");
	/* back at its sender */
	in(left, "USER-KICKED|10.9.9.9|9090|10.0.0.2|9090|5|64|7");
	assert_not_said(right, "USER-KICKED");
	assert_not_said(left, "USER-KICKED");
	assert_string_equal(str_c(counts), "");
}

static void test_count(void **state ATTR_UNUSED)
{
	uint32_t id = 0;

	begin(3);
	(void)named_session("jane", "jane");
	(void)named_session("jane", "jane");
	(void)test_lookup_for(process, "jane", "");
	forget_sent();
	director_sessions_count(director, test_hash("jane"),
				ip_of(elsewhere("jane")), &id);
	ring_end();
	assert_string_equal(said_after(right, "USER-COUNT"), t_strdup_printf(
		"%u|%s", test_hash("jane"), elsewhere("jane")));
	assert_string_equal(str_c(counts), t_strdup_printf("%u 10.0.0.2 2\n",
							   id));
	in(left, "USER-COUNT|10.0.0.1|9090|5|%u|%s", test_hash("jane"),
	   hashed("jane"));
	assert_said(right, "USER-KICKED|10.0.0.1|9090|10.0.0.2|9090|5|64|0\n");
	in(left, "USER-COUNT|10.0.0.1|9090|6|%u|10.9.9.9", test_hash("jane"));
	assert_said(right, "USER-KICKED|10.0.0.1|9090|10.0.0.2|9090|6|64|2\n");
	assert_said(right, "USER-COUNT|10.0.0.1|9090|6|");
	assert_ended("");
}

static const char *waits(const char *ip)
{
	const char *why = director_user_move_waits(director, test_hash("jane"),
						   ip_of(ip), &now);

	return why == NULL ? "nothing" : why;
}

/* What a move waits for */
static void test_move_waits(void **state ATTR_UNUSED)
{
	struct session_lease *lease;
	const char *to;

	begin(3);
	lease = named_session("jane", "jane");
	to = elsewhere("jane");
	assert_string_equal(waits(to), "nothing");
	assert_int_equal(move("jane", to), DIRECTOR_HOST_OK);
	assert_string_equal(waits(to),
			    "1 sessions on this director haven't ended");
	assert_string_equal(waits("10.9.9.9"), "nothing");
	director_session_end(director, &lease, &now);
	test_run();
	assert_string_equal(waits(to),
			    "the old backend gets its time to finish");
	pass(KICK_DELAY + 250);
	assert_non_null(strstr(waits(to), "another director hasn't told"));
	ring_peer_closed(director, right->peer, "gone", &now);
	right->peer = NULL;
	assert_string_equal(waits(to), "director 10.0.0.3:9090 was lost, which "
			    "may still have sessions");
}

/* A login process that reads nothing for a while is told later. */
static void test_full(void **state ATTR_UNUSED)
{
	uint32_t id;

	begin(1);
	(void)named_session("jane", "jane");
	plugin_is_full = TRUE;
	id = kick(NULL, "jane", TRUE);
	test_pass(1000);
	assert_string_equal(str_c(counts), "");
	/* who comes after the kick isn't meant */
	(void)named_session("jane", "jane");
	plugin_is_full = FALSE;
	test_pass(1000);
	assert_ended("jane");
	assert_string_equal(str_c(counts), t_strdup_printf("%u 10.0.0.1 1\n",
							   id));
}

/* It never does. */
static void test_hung(void **state ATTR_UNUSED)
{
	uint32_t id;

	begin(1);
	(void)named_session("jane", "jane");
	plugin_is_full = TRUE;
	id = kick(NULL, "*", TRUE);
	test_pass(20000);
	assert_ended("");
	assert_string_equal(str_c(counts), t_strdup_printf("%u 10.0.0.1 0\n",
							   id));
	assert_non_null(strstr(str_c(test_logs), "W Users *: 1 sessions "
			       "couldn't be ended"));
}

static void test_parallel(void **state ATTR_UNUSED)
{
	test_set.max_parallel_kicks = 2;
	begin(3);
	kick_reason = NULL;
	(void)named_session("jane", "jane");
	plugin_is_full = TRUE;
	assert_int_not_equal(kick(NULL, "jane", FALSE), 0);
	assert_int_not_equal(kick(NULL, "j*", FALSE), 0);
	forget_sent();
	assert_int_equal(kick(NULL, "*", FALSE), 0);
	assert_not_said(left, "USER-KICK");
	/* those of others are limited, too */
	for (unsigned int i = 0; i < 100; i++)
		in(left, "USER-KICK|10.0.0.1|9090|%u|jane", i + 5);
	assert_non_null(strstr(str_c(test_logs), "E User jane: not kicked "
			       "here, 20 kicks are being carried out"));
	plugin_is_full = FALSE;
	pass(1000);
	assert_int_not_equal(kick(NULL, "*", FALSE), 0);
}

/* Many sessions are looked at in slices, and one user's aren't all. */
static void test_slices(void **state ATTR_UNUSED)
{
	unsigned int i, runs;

	begin(1);
	for (i = 0; i < 20000; i++) {
		(void)named_session(t_strdup_printf("u%u", i),
				    t_strdup_printf("u%u@x", i));
	}
	runs = test_runs;
	(void)kick(NULL, "u7777", FALSE);
	assert_true(test_runs - runs <= 3);
	runs = test_runs;
	(void)kick(NULL, "u77*@x", FALSE);
	assert_true(test_runs - runs >= 15);
	assert_int_equal(str_array_length(t_strsplit_spaces(str_c(ended),
							    " ")), 111);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		kick_test(test_name),
		kick_test(test_destuser),
		kick_test(test_shared_hash),
		kick_test(test_case_matters),
		kick_test(test_masks),
		kick_test(test_fields),
		kick_test(test_pending),
		kick_test(test_ring),
		kick_test(test_others_kick),
		kick_test(test_original),
		kick_test(test_addressed),
		kick_test(test_count),
		kick_test(test_move_waits),
		kick_test(test_full),
		kick_test(test_hung),
		kick_test(test_parallel),
		kick_test(test_slices),
	};

	return run_test_cases(tests);
}
