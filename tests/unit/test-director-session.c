/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Sessions and the users whose they are (design.md "The promise, as rules") */

#include "test-director.h"

#define PID 4711
#define SINCE (TEST_WALL - 10)

static struct login_process *process;
static struct session_plugin *plugin;

static int setup(void **state)
{
	int ret = test_director_setup(state);

	process = login_process_ref(director_leases(director), PID);
	plugin = session_plugin_init(director_leases(director), process);
	return ret;
}

static int teardown(void **state)
{
	struct session_leases *leases = director_leases(director);

	if (plugin != NULL)
		session_plugin_lost(leases, &plugin, now.msecs);
	login_process_unref(leases, &process);
	return test_director_teardown(state);
}

static struct director_lookup *login_tag(const char *username, const char *tag)
{
	struct test_lookup *lookup = test_lookup_for(process, username, tag);

	assert_int_equal(lookup->state, 1);
	return &lookup->lookup;
}

static struct director_lookup *login(const char *username)
{
	return login_tag(username, "");
}

static struct session_lease *
start_at(const struct session_token *token, uint32_t hash, const char *ip,
	 const char **error_r)
{
	*error_r = NULL;
	return director_session_start(director, plugin, token, hash,
				      ip_of(ip), SINCE, &now, error_r);
}

static struct session_lease *start(const struct director_lookup *lookup)
{
	struct session_lease *lease;
	const char *error;

	lease = start_at(&lookup->token, lookup->hash,
			 net_ip2addr(&lookup->backend->ip), &error);
	if (lease == NULL)
		fail_msg("START failed: %s", error);
	return lease;
}

/* A session that an earlier director process allowed */
static struct session_lease *announce(const char *username, const char *ip)
{
	static struct session_token token = { .instance = 99 };
	struct session_lease *lease;
	const char *error;

	token.seq++;
	lease = start_at(&token, test_hash(username), ip, &error);
	assert_non_null(lease);
	return lease;
}

static bool is_leased_tag(const char *username, const char *tag)
{
	user_idx_t idx = test_user(username, tag);

	assert_int_not_equal(idx, USER_IDX_NONE);
	return (user_table_flags(director_users(director), idx) &
		USER_FLAG_LEASED) != 0;
}

static bool is_leased(const char *username)
{
	return is_leased_tag(username, "");
}

static void test_lease(void **state ATTR_UNUSED)
{
	const struct director_lookup *lookup, *second;
	struct session_lease *lease;

	test_configure("10.0.0.1");
	lookup = login("jane");
	assert_true(lookup->leased);
	assert_true(lookup->token.instance == test_set.instance);
	assert_true(lookup->lease_deadline == now.msecs + 5000);
	second = login("jane");
	assert_true(second->token.seq != lookup->token.seq);
	assert_int_equal(session_leases_total(director_leases(director)), 2);
	assert_int_equal(process->issued, 2);
	assert_false(is_leased("jane"));

	lease = start(lookup);
	assert_true(is_leased("jane"));
	assert_int_equal(lease->state, SESSION_LEASE_STARTED);
	assert_int_equal(session_leases_count(director_leases(director),
					      ip_of("10.0.0.1")), 1);
	director_session_end(director, &lease, &now);
	assert_null(lease);
	assert_false(is_leased("jane"));
	test_assert_not_logged();

	/* the same memory again, for no login process */
	struct director_lookup again = *lookup;
	again.process = NULL;
	assert_int_equal(director_lookup(director, &again, &now), 1);
	assert_false(again.leased);

	/* the other answer was never acted on: forgotten 2 s after the
	   deadline that the login process knows */
	assert_true(director_next_deadline(director, &now) <= now.msecs + 7000);
	test_pass(6999);
	assert_int_equal(session_leases_total(director_leases(director)), 1);
	test_pass(1);
	assert_int_equal(session_leases_total(director_leases(director)), 0);
	test_assert_not_logged();
}

/* A lookup that waited gets a lease that begins when it is answered. */
static void test_lease_after_wait(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	test_configure("");
	lookup = test_lookup_for(process, "jane", "");
	assert_int_equal(lookup->state, 0);
	assert_false(lookup->lookup.leased);
	assert_int_equal(session_leases_total(director_leases(director)), 0);
	test_pass(20000);
	assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
			 DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(lookup->state, 1);
	assert_true(lookup->lookup.leased);
	assert_true(lookup->lookup.lease_deadline == now.msecs + 5000);
	assert_non_null(start(&lookup->lookup));
}

static void test_bad_start(void **state ATTR_UNUSED)
{
	struct login_process *other =
		login_process_ref(director_leases(director), PID + 1);
	struct session_plugin *second =
		session_plugin_init(director_leases(director), other);
	const struct director_lookup *lookup;
	struct session_lease *lease;
	const char *error;

	test_configure("10.0.0.1 10.0.0.2");
	lookup = login("jane");

	/* another process */
	lease = director_session_start(director, second, &lookup->token,
				       lookup->hash, &lookup->backend->ip,
				       SINCE, &now, &error);
	assert_null(lease);
	assert_string_equal(error, "was given to process 4711");
	/* another user */
	lease = start_at(&lookup->token, lookup->hash + 1, "10.0.0.1", &error);
	assert_null(lease);
	assert_string_equal(error, "is for user hash 1480892766");
	/* none of this did anything */
	assert_int_equal(session_leases_total(director_leases(director)), 1);
	assert_false(is_leased("jane"));
	assert_int_equal(process->issued, 1);
	assert_int_equal(user_table_count(director_users(director)), 1);

	/* twice */
	lease = start(lookup);
	assert_null(start_at(&lookup->token, lookup->hash,
			     net_ip2addr(&lookup->backend->ip), &error));
	assert_string_equal(error, "was started already");
	session_plugin_lost(director_leases(director), &second, now.msecs);
	second = session_plugin_init(director_leases(director), process);
	/* The process has connected again, and we haven't seen yet that the
	   first connection is gone. */
	assert_ptr_equal(director_session_start(director, second,
			&lookup->token, lookup->hash, &lookup->backend->ip,
			SINCE, &now, &error), lease);
	assert_ptr_equal(lease->plugin, second);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	test_pass(2 * SESSION_LEASE_ORPHAN_MSECS);
	assert_true(is_leased("jane"));
	plugin = second;
	login_process_unref(director_leases(director), &other);
	test_assert_not_logged();
}

static void test_doesnt_expire(void **state ATTR_UNUSED)
{
	struct session_lease *lease, *second;
	uint64_t end;

	test_configure("10.0.0.1");
	lease = start(login("jane"));
	(void)where("other");
	test_pass(10 * TEST_EXPIRE * 1000 + 123);
	assert_true(test_user_exists("jane"));
	assert_false(test_user_exists("other"));
	assert_int_equal(user_table_count(director_users(director)), 1);

	/* he lives for exactly that long after his last session's end */
	second = start(login("jane"));
	director_session_end(director, &lease, &now);
	test_pass(10 * TEST_EXPIRE * 1000);
	director_session_end(director, &second, &now);
	end = now.msecs - now.msecs % 1000 + TEST_EXPIRE * 1000;
	test_pass(end - now.msecs - 1);
	assert_true(test_user_exists("jane"));
	test_pass(1);
	assert_false(test_user_exists("jane"));
	test_pass(2000);
	assert_int_equal(user_table_count(director_users(director)), 0);
}

/* A login process that dies without END; the plugin's connection is lost. */
static void test_process_dies(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	uint64_t gone;

	test_configure("10.0.0.1");
	(void)start(login("jane"));
	test_pass((TEST_EXPIRE / 2 - 1) * 1000);
	session_plugin_lost(leases, &plugin, now.msecs);
	gone = now.msecs + SESSION_LEASE_ORPHAN_MSECS;
	assert_true(director_next_deadline(director, &now) <= gone);
	test_pass(SESSION_LEASE_ORPHAN_MSECS - 1);
	assert_true(is_leased("jane"));
	test_pass(1);
	assert_false(is_leased("jane"));
	assert_int_equal(session_leases_total(leases), 0);

	/* from now on he is remembered as after an END */
	test_pass(TEST_EXPIRE * 1000 - 1);
	assert_true(test_user_exists("jane"));
	test_pass(1000);
	assert_false(test_user_exists("jane"));
}

/* The same, but a new connection of the process says that it is over. */
static void test_not_announced(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_lease *stays;
	struct session_token token;
	const char *error;

	test_configure("10.0.0.1");
	(void)start(login("jane"));
	stays = start(login("stays"));
	token = stays->token;
	test_pass((TEST_EXPIRE / 2 - 1) * 1000);
	session_plugin_lost(leases, &plugin, now.msecs);
	plugin = session_plugin_init(leases, process);
	assert_ptr_equal(start_at(&token, test_hash("stays"), "10.0.0.1",
				  &error), stays);
	test_pass(2000);
	assert_true(is_leased("jane"));
	director_sessions_announced(director, plugin, &now);
	assert_true(director_next_deadline(director, &now) == now.msecs);
	test_run();
	assert_false(is_leased("jane"));
	assert_true(is_leased("stays"));
	test_pass(TEST_EXPIRE * 1000 - 1);
	assert_true(test_user_exists("jane"));
	test_pass(1);
	assert_false(test_user_exists("jane"));
	test_pass(10 * TEST_EXPIRE * 1000);
	assert_true(is_leased("stays"));
}

/* A connection that was lost is heard of only after the next one: what it said
   was before that. */
static void test_announced_out_of_order(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_plugin *newer = plugin;
	struct director_lookup *jane, *jim;
	struct session_lease *lease;

	test_configure("10.0.0.1");
	newer->number = 2;
	jane = login("jane");
	jim = login("jim");
	lease = start(jane);
	director_sessions_announced(director, newer, &now);

	plugin = session_plugin_init(leases, process);
	plugin->number = 1;
	assert_ptr_equal(start(jane), lease);
	assert_ptr_equal(lease->plugin, newer);
	/* this one is over since */
	(void)start(jim);
	director_sessions_announced(director, plugin, &now);
	session_plugin_lost(leases, &plugin, now.msecs);
	test_run();
	assert_true(is_leased("jane"));
	assert_false(is_leased("jim"));

	plugin = newer;
	director_session_end(director, &lease, &now);
	assert_false(is_leased("jane"));
	assert_int_equal(session_leases_total(leases), 0);
}

/* START came so late that the lease is forgotten, or it is from before our
   start: what exists has to be counted. */
static void test_late_announcement(void **state ATTR_UNUSED)
{
	const struct director_lookup *lookup;
	struct session_lease *lease;
	const char *ip, *other;

	test_configure("10.0.0.1 10.0.0.2");
	lookup = login("jane");
	ip = net_ip2addr(&lookup->backend->ip);
	test_pass(TEST_EXPIRE * 1000);
	assert_int_equal(session_leases_total(director_leases(director)), 0);
	assert_false(test_user_exists("jane"));
	array_clear(&test_records);
	lease = start(lookup);
	assert_true(is_leased("jane"));
	assert_int_equal(lease->since, SINCE);
	assert_string_equal(where("jane"), ip);
	/* hashing knows it */
	assert_int_equal(array_count(&test_records), 0);
	test_pass(10 * TEST_EXPIRE * 1000);
	assert_true(is_leased("jane"));

	/* one that isn't where hashing would put him */
	other = strcmp(hashed("samik"), "10.0.0.1") == 0 ?
		"10.0.0.2" : "10.0.0.1";
	(void)announce("samik", other);
	assert_string_equal(where("samik"), other);
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_record_at(0)->type,
			 DIRECTOR_RECORD_USER);
	assert_int_equal(test_record_at(0)->hash, test_hash("samik"));
	assert_true(net_ip_compare(&test_record_at(0)->ip, ip_of(other)));
	test_assert_not_logged();
}

static void test_session_elsewhere(void **state ATTR_UNUSED)
{
	struct session_lease *lease, *gone;
	struct test_lookup *lookup;

	test_configure("10.0.0.1 10.0.0.2");
	assert_string_equal(where("jane"), hashed("jane"));
	/* on another backend: said, counted, and he stays where he is, but nobody
	   else is let in before it has ended */
	lease = announce("jane", strcmp(hashed("jane"), "10.0.0.1") == 0 ?
			 "10.0.0.2" : "10.0.0.1");
	assert_ptr_equal(strstr(str_c(test_logs), "W User hash 1480892766 has "
				"a session on 10.0.0."), str_c(test_logs));
	str_truncate(test_logs, 0);
	assert_true(is_leased("jane"));
	lookup = test_lookup("jane");
	test_pass(1000);
	assert_int_equal(lookup->state, 0);
	director_session_end(director, &lease, &now);
	assert_false(is_leased("jane"));
	test_pass(test_set.user_kick_delay_msecs + 100);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, hashed("jane"));
	assert_string_equal(where("jane"), hashed("jane"));

	/* on what isn't a backend */
	gone = announce("samik", "10.0.0.3");
	test_assert_logged(t_strdup_printf("W User hash %u has a session on "
		"10.0.0.3, which isn't a backend (any more)",
		test_hash("samik")));
	assert_false(test_user_exists("samik"));
	/* once he is there, he has a session */
	assert_string_equal(where("samik"), hashed("samik"));
	assert_true(is_leased("samik"));
	director_session_end(director, &gone, &now);
	assert_false(is_leased("samik"));
}

/* Nobody knows which tag's user it is who has a session there. */
static void test_unknown_tag(void **state ATTR_UNUSED)
{
	struct session_lease *unknown, *known;

	test_configure("10.0.0.1 10.0.0.2@t 10.0.0.3@u");
	(void)where("jane");
	(void)where_tag("jane", "t");
	(void)where("other");
	unknown = announce("jane", "10.0.0.9");
	str_truncate(test_logs, 0);
	assert_true(is_leased("jane"));
	assert_true(is_leased_tag("jane", "t"));
	assert_false(is_leased("other"));
	test_pass(10 * TEST_EXPIRE * 1000);
	assert_true(is_leased("jane"));
	assert_true(is_leased_tag("jane", "t"));
	(void)where_tag("jane", "u");
	assert_true(is_leased_tag("jane", "u"));

	/* whichever of them ends first */
	known = start(login_tag("jane", "t"));
	director_session_end(director, &known, &now);
	assert_true(is_leased_tag("jane", "t"));
	known = start(login_tag("jane", "t"));
	director_session_end(director, &unknown, &now);
	assert_false(is_leased("jane"));
	assert_false(is_leased_tag("jane", "u"));
	assert_true(is_leased_tag("jane", "t"));
	director_session_end(director, &known, &now);
	assert_false(is_leased_tag("jane", "t"));
	test_pass(2 * TEST_EXPIRE * 1000);
	assert_int_equal(user_table_count(director_users(director)), 0);
}

/* A user who is forgotten while his login is under way comes back. */
static void test_forgotten_user(void **state ATTR_UNUSED)
{
	const struct director_lookup *lookup;

	test_configure("10.0.0.1 10.0.0.2");
	lookup = login("jane");
	assert_int_equal(test_host_flush(NULL), DIRECTOR_HOST_OK);
	assert_false(test_user_exists("jane"));
	(void)start(lookup);
	assert_true(is_leased("jane"));

	/* and with a session, whatever happens to his entry */
	assert_int_equal(test_host_flush(NULL), DIRECTOR_HOST_OK);
	assert_false(test_user_exists("jane"));
	test_run();
	(void)where("jane");
	assert_true(is_leased("jane"));
	test_pass(10 * TEST_EXPIRE * 1000);
	assert_true(is_leased("jane"));
}

/* What comes from outside must not break anything: a START that names another
   backend than the answer, of another tag even. */
static void test_start_other_backend(void **state ATTR_UNUSED)
{
	const struct director_lookup *lookup;
	struct session_lease *lease;
	const char *error;

	test_configure("10.0.0.1 10.0.0.2@t");
	lookup = login("jane");
	(void)where_tag("jane", "t");
	assert_int_equal(test_host_flush("10.0.0.1"), DIRECTOR_HOST_OK);
	lease = start_at(&lookup->token, lookup->hash, "10.0.0.2", &error);
	assert_non_null(lease);
	/* it is counted where it is */
	assert_int_equal(session_leases_count(director_leases(director),
					      ip_of("10.0.0.2")), 1);
	assert_int_equal(session_leases_count(director_leases(director),
					      ip_of("10.0.0.1")), 0);
	test_pass(10 * TEST_EXPIRE * 1000);
	assert_int_not_equal(test_user("jane", "t"), USER_IDX_NONE);
	director_session_end(director, &lease, &now);
	test_pass(TEST_EXPIRE * 1000 + 2000);
	assert_int_equal(user_table_count(director_users(director)), 0);
}

/* The session is announced before its backend is known, and again after. */
static void test_announced_before_backend(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_lease *lease;
	struct session_token token;
	const char *error;

	test_configure("");
	lease = announce("jane", "10.0.0.1");
	token = lease->token;
	str_truncate(test_logs, 0);
	for (unsigned int i = 0; i < 2; i++) {
		const char *tag = i == 0 ? "" : "t";

		assert_int_equal(test_host_set("10.0.0.1", tag, 100),
				 DIRECTOR_HOST_OK);
		test_run();
		(void)where_tag("jane", tag);
		session_plugin_lost(leases, &plugin, now.msecs);
		plugin = session_plugin_init(leases, process);
		lease = start_at(&token, test_hash("jane"), "10.0.0.1",
				 &error);
		assert_non_null(lease);
		director_sessions_announced(director, plugin, &now);
		test_run();
		assert_int_equal(session_leases_total(leases), 1);
		test_pass(10 * TEST_EXPIRE * 1000);
		/* his session keeps him */
		assert_int_not_equal(test_user("jane", tag), USER_IDX_NONE);
		assert_int_equal(test_host_remove("10.0.0.1"),
				 DIRECTOR_HOST_OK);
		test_run();
	}
}

static void test_up(void **state ATTR_UNUSED)
{
	struct session_leases *leases = director_leases(director);
	struct session_lease *lease;

	test_configure("10.0.0.1");
	lease = start(login("jane"));
	director_session_up(director, lease, NULL, &now);
	assert_int_equal(lease->state, SESSION_LEASE_UP);
	director_session_up(director, lease, ip_of("10.0.0.1"), &now);
	test_assert_not_logged();
	director_session_up(director, lease, ip_of("10.0.0.2"), &now);
	test_assert_logged("W Backend 10.0.0.1 redirected user hash "
			   "1480892766 to 10.0.0.2: he may be on two "
			   "backends");
	assert_int_equal(session_leases_count(leases, ip_of("10.0.0.1")), 0);
	assert_int_equal(session_leases_count(leases, ip_of("10.0.0.2")), 1);
	assert_true(is_leased("jane"));
	director_session_end(director, &lease, &now);
	assert_int_equal(session_leases_count(leases, ip_of("10.0.0.2")), 0);
	assert_false(is_leased("jane"));
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_lease),
		test(test_lease_after_wait),
		test(test_bad_start),
		test(test_doesnt_expire),
		test(test_process_dies),
		test(test_not_announced),
		test(test_announced_out_of_order),
		test(test_late_announcement),
		test(test_session_elsewhere),
		test(test_unknown_tag),
		test(test_forgotten_user),
		test(test_start_other_backend),
		test(test_announced_before_backend),
		test(test_up),
	};

	return run_test_cases(tests);
}
