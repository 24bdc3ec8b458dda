#ifndef TEST_USER_MOVE_H
#define TEST_USER_MOVE_H

/* A director that moves users, alone or between two others, and a login process
   of its own. */

#include "test-ring.h"

#define KICK_DELAY 2000

static struct test_conn *left, *right;
static struct login_process *process;
static struct session_plugin *plugin;
static string_t *kicks;

static inline void test_kick(void *context ATTR_UNUSED,
		      struct session_plugin *kicked_plugin, uint32_t hash,
		      const struct ip_addr *except, const char *reason)
{
	assert_ptr_equal(kicked_plugin, plugin);
	str_printfa(kicks, "%u %s %s\n", hash,
		    except == NULL ? "-" : net_ip2addr(except), reason);
}

/* A test that is about more than moves sets them before begin(). */
static struct director_session_vfuncs test_session_vfuncs;

static inline void begin_early(unsigned int members)
{
	test_set.user_kick_delay_msecs = KICK_DELAY;
	ring_vfuncs.kick = test_kick;
	ring_vfuncs.sessions = test_session_vfuncs;
	kicks = str_new(test_pool, 128);
	ring_start(members == 1 ? 1 : 2, members);
	if (members > 1) {
		right = right_joins("10.0.0.3", 10);
		left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
		ring_syncs(left, right);
	}
	/* the start grace is over */
	test_pass(DIRECTOR_START_GRACE_MSECS);
	process = login_process_ref(director_leases(director), 100);
	plugin = session_plugin_init(director_leases(director), process);
	forget_sent();
}

static inline int teardown(void **state)
{
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	login_process_unref(director_leases(director), &process);
	left = right = NULL;
	return test_director_teardown(state);
}

#define move_test(func) \
	cmocka_unit_test_setup_teardown(func, test_ring_setup, teardown)

/* A 2.3 member has come in. */
static inline void others_are_older(void)
{
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.1|99||U0||2000");
	ring_syncs_minor(left, right, "9");
}

/* The links are kept alive. */
static inline void pass(uint64_t msecs)
{
	for (uint64_t i = 0; i < msecs; i += 250) {
		test_pass(250);
		if (left != NULL && left->peer != NULL) {
			in(left, "PING|%u|0", TEST_WALL);
			in(right, "PING|%u|0", TEST_WALL);
		}
	}
}

/* What a director process before may have answered doesn't matter any more. */
static inline void begin(unsigned int members)
{
	begin_early(members);
	pass(USER_UNSEEN_SECS * 1000 - DIRECTOR_START_GRACE_MSECS);
	forget_sent();
}

static inline enum director_host_result
move(const char *user, const char *ip)
{
	enum director_host_result result;

	result = director_user_move(director, test_hash(user), ip_of(ip),
				    "doveadm: ", &now);
	ring_end();
	return result;
}

/* The last session that his login waits for has just ended: his backend gets its
   time, then the user is let in there. */
static inline void
assert_let_in(const struct test_lookup *lookup, const char *ip)
{
	pass(KICK_DELAY - 250);
	assert_int_equal(lookup->state, 0);
	pass(500);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, ip);
}

static inline struct session_lease *session(const char *user)
{
	struct test_lookup *lookup = test_lookup_for(process, user, "");
	struct session_lease *lease;
	const char *error;

	assert_int_equal(lookup->state, 1);
	lease = director_session_start(director, plugin, &lookup->lookup.token,
				       lookup->lookup.hash, ip_of(lookup->ip),
				       now.clock, &now, &error);
	assert_non_null(lease);
	director_session_up(director, lease, NULL, &now);
	return lease;
}

static inline const char *elsewhere(const char *user)
{
	return strcmp(hashed(user), "10.1.0.1") == 0 ? "10.1.0.2" : "10.1.0.1";
}

/* The message with what follows its sequence number */
static inline const char *
said_after(struct test_conn *conn, const char *name)
{
	const char *p = strstr(str_c(conn->sent), t_strconcat("\n", name,
		"|10.0.0.2|9090|", NULL));

	if (p == NULL)
		fail_msg("not said: %s\nsaid:%s", name, str_c(conn->sent));
	p = strchr(p + strlen(name) + strlen("\n|10.0.0.2|9090|"), '|');
	return t_strcut(p + 1, '\n');
}

/* Us at 10.0.0.2, for so long, and nobody has told us anything yet */
static inline void begin_starting(unsigned int msecs)
{
	begin(1);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	login_process_unref(director_leases(director), &process);
	ring_start(2, 4);
	process = login_process_ref(director_leases(director), 100);
	plugin = session_plugin_init(director_leases(director), process);
	test_pass(msecs);
	left = incoming("10.0.0.1");
	greet(left, "10.0.0.1", 10, 111);
}

static inline void done_starting(const char *user)
{
	in(left, "HOST-HAND-START|1");
	in(left, "HOST|10.1.0.1|100||U0||1");
	in(left, "HOST|10.1.0.2|100||U0||1");
	in(left, "HOST-HAND-END|1");
	if (user != NULL)
		in(left, "%s", user);
	in(left, "OPTIONS|consistent-hashing");
	in(left, "DONE");
	right = connected();
	greet(right, "10.0.0.3", 10, 333);
	in(right, "DONE");
	ring_syncs(left, right);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
}

#endif
