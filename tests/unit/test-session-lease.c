/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "director/core/session-lease.h"

#define INSTANCE 0xfedcba9876543210ULL
#define FORGET_MSECS (SESSION_LEASE_DEADLINE_MSECS + SESSION_LEASE_SLACK_MSECS)
#define PID1 1001
#define PID2 1002

static struct session_leases *leases;
static struct login_process *process1, *process2;
static const char *const tag = "", *const tag2 = "t";
/* Connections of plugins: two of process1, one of process2 */
static struct session_plugin *plugins[3];
static uint64_t now;

/* What the callback was told last, and how often it was told something */
static struct {
	const char *tag;
	uint32_t hash;
	bool leased;
	unsigned int count;
} changed;

static void
lease_changed(const char *_tag, uint32_t hash, bool leased, void *context)
{
	assert_ptr_equal(context, &changed);
	/* it may ask */
	assert_int_equal(session_leases_has(leases, _tag, hash), leased);
	changed.tag = _tag;
	changed.hash = hash;
	changed.leased = leased;
	changed.count++;
}

static char untold[256];

static void lease_untold(const struct session_lease *lease, void *context)
{
	size_t len = strlen(untold);

	assert_ptr_equal(context, &changed);
	assert_int_equal(lease->state, SESSION_LEASE_ISSUED);
	i_snprintf(untold + len, sizeof(untold) - len, "%u%s ",
		   lease->user->hash, lease->process->plugin_missing ?
		   "!" : "");
}

/* Leases that were forgotten, by user; "!": its process has no plugin */
static void assert_untold(const char *text)
{
	assert_string_equal(untold, text);
	untold[0] = '\0';
}

static int setup(void **state)
{
	now = 5000000;
	i_zero(&changed);
	untold[0] = '\0';
	leases = session_leases_init(INSTANCE, 77, lease_changed, &changed);
	session_leases_set_untold_callback(leases, lease_untold);
	process1 = login_process_ref(leases, PID1);
	process2 = login_process_ref(leases, PID2);
	return test_frame_setup(state);
}

static int teardown(void **state)
{
	unsigned int count = changed.count;

	for (unsigned int i = 0; i < N_ELEMENTS(plugins); i++) {
		if (plugins[i] != NULL)
			session_plugin_lost(leases, &plugins[i], now);
	}
	if (process1 != NULL)
		login_process_unref(leases, &process1);
	if (process2 != NULL)
		login_process_unref(leases, &process2);
	session_leases_deinit(&leases);
	/* nobody is told of the end */
	assert_int_equal(changed.count, count);
	return test_frame_teardown(state);
}

static const struct ip_addr *ip_of(const char *text)
{
	struct ip_addr *ip = t_new(struct ip_addr, 1);

	assert_int_equal(net_addr2ip(text, ip), 0);
	return ip;
}

static struct session_lease *
issue(struct login_process *process, const char *lease_tag, uint32_t hash)
{
	return session_lease_issue(leases, process, lease_tag, hash,
				   ip_of("10.0.0.1"), now, 1700000000);
}

/* Connects when it is wanted first. */
static struct session_plugin *plugin(unsigned int idx)
{
	if (plugins[idx] == NULL) {
		plugins[idx] = session_plugin_init(leases, idx == 2 ?
						   process2 : process1);
	}
	return plugins[idx];
}

static struct session_lease *
start(unsigned int plugin_idx, const char *lease_tag, uint32_t hash)
{
	struct session_lease *lease =
		issue(plugin(plugin_idx)->process, lease_tag, hash);

	session_lease_start(leases, lease, plugin(plugin_idx));
	return lease;
}

/* Nothing remains. */
static void expire_all(void)
{
	assert_false(session_leases_expire(leases, now, UINT_MAX));
}

static unsigned int sessions(const char *ip)
{
	return session_leases_count(leases, ip_of(ip));
}

static void test_process(void **state ATTR_UNUSED)
{
	struct login_process *process = login_process_ref(leases, PID1);

	assert_ptr_equal(process, process1);
	assert_ptr_not_equal(process, process2);
	assert_int_equal(process->pid, PID1);
	process->plugin_seen = TRUE;
	login_process_unref(leases, &process);
	assert_null(process);

	/* as long as anybody refers to it, it is the same */
	process = login_process_ref(leases, PID1);
	login_process_unref(leases, &process1);
	assert_true(process->plugin_seen);
	login_process_unref(leases, &process);

	/* a later process with its pid is another one */
	process1 = login_process_ref(leases, PID1);
	assert_false(process1->plugin_seen);

	/* a lease refers to it, too */
	struct session_lease *lease = issue(process1, tag, 1);
	login_process_unref(leases, &process1);
	assert_int_equal(lease->process->pid, PID1);
	assert_int_equal(lease->process->issued, 1);
	session_lease_end(leases, &lease);
	assert_null(lease);
}

static void test_issue(void **state ATTR_UNUSED)
{
	struct session_lease *lease = issue(process1, tag, 7), *second;

	assert_int_equal(lease->state, SESSION_LEASE_ISSUED);
	assert_ptr_equal(lease->process, process1);
	assert_ptr_equal(lease->user->tag, tag);
	assert_int_equal(lease->user->hash, 7);
	assert_null(lease->plugin);
	assert_true(net_ip_compare(&lease->backend->ip, ip_of("10.0.0.1")));
	assert_int_equal(lease->since, 1700000000);
	assert_true(lease->token.instance == INSTANCE);
	assert_ptr_equal(session_lease_lookup(leases, &lease->token), lease);
	assert_int_equal(process1->issued, 1);
	assert_int_equal(session_leases_total(leases), 1);

	/* not a session yet */
	assert_false(session_leases_has(leases, tag, 7));
	assert_int_equal(sessions("10.0.0.1"), 0);
	assert_int_equal(changed.count, 0);

	second = issue(process1, tag, 7);
	assert_true(second->token.seq != lease->token.seq);
	assert_ptr_equal(session_lease_lookup(leases, &second->token), second);

	/* of another director */
	struct session_token token = lease->token;
	for (unsigned int i = 0; i < 1000000; i++) {
		token.instance++;
		assert_null(session_lease_lookup(leases, &token));
	}
	/* an UP without START doesn't make it a session */
	session_lease_up(lease);
	assert_int_equal(lease->state, SESSION_LEASE_ISSUED);
}

static void test_life(void **state ATTR_UNUSED)
{
	struct session_lease *lease = issue(process1, tag, 7);
	struct session_token token = lease->token;

	session_lease_start(leases, lease, plugin(0));
	assert_int_equal(lease->state, SESSION_LEASE_STARTED);
	assert_ptr_equal(lease->plugin, plugin(0));
	assert_int_equal(process1->issued, 0);
	assert_true(session_leases_has(leases, tag, 7));
	assert_int_equal(sessions("10.0.0.1"), 1);
	assert_int_equal(changed.count, 1);
	assert_true(changed.leased);
	assert_int_equal(changed.hash, 7);
	assert_ptr_equal(changed.tag, tag);

	/* it has no end of its own any more */
	assert_true(session_leases_next_deadline(leases) == 0);
	now += FORGET_MSECS * 1000;
	expire_all();
	assert_int_equal(session_leases_total(leases), 1);

	session_lease_up(lease);
	assert_int_equal(lease->state, SESSION_LEASE_UP);
	assert_int_equal(changed.count, 1);
	assert_int_equal(sessions("10.0.0.1"), 1);

	session_lease_end(leases, &lease);
	assert_null(session_lease_lookup(leases, &token));
	assert_false(session_leases_has(leases, tag, 7));
	assert_int_equal(sessions("10.0.0.1"), 0);
	assert_int_equal(session_leases_total(leases), 0);
	assert_int_equal(changed.count, 2);
	assert_false(changed.leased);
	assert_int_equal(changed.hash, 7);
}

/* The callback is told of the first and of the last session. */
static void test_users_sessions(void **state ATTR_UNUSED)
{
	struct session_lease *a = start(0, tag, 7);
	struct session_lease *b = start(2, tag, 7);
	struct session_lease *waiting = issue(process1, tag, 7);
	struct session_lease *other;

	assert_int_equal(changed.count, 1);
	assert_int_equal(sessions("10.0.0.1"), 2);

	/* the same hash in another tag is another user */
	assert_false(session_leases_has(leases, tag2, 7));
	other = start(0, tag2, 7);
	assert_int_equal(changed.count, 2);
	assert_ptr_equal(changed.tag, tag2);
	assert_true(session_leases_has(leases, tag2, 7));
	session_lease_end(leases, &other);
	assert_int_equal(changed.count, 3);
	assert_ptr_equal(changed.tag, tag2);
	assert_true(session_leases_has(leases, tag, 7));

	session_lease_end(leases, &a);
	assert_int_equal(changed.count, 3);
	/* what was only answered isn't told */
	session_lease_end(leases, &waiting);
	assert_int_equal(changed.count, 3);
	session_lease_end(leases, &b);
	assert_int_equal(changed.count, 4);
	assert_false(changed.leased);
}

static void test_forgotten(void **state ATTR_UNUSED)
{
	struct session_lease *lease;

	process1->plugin_seen = TRUE;
	(void)issue(process1, tag, 1);
	now += 10;
	lease = issue(process1, tag, 2);
	now += 10;
	(void)issue(process1, tag, 3);
	assert_true(session_leases_next_deadline(leases) ==
		    now - 20 + FORGET_MSECS);
	session_lease_end(leases, &lease);

	now += FORGET_MSECS - 21;
	expire_all();
	assert_int_equal(session_leases_total(leases), 2);
	assert_int_equal(process1->issued, 2);
	now++;
	expire_all();
	assert_int_equal(session_leases_total(leases), 1);
	now += 19;
	expire_all();
	assert_int_equal(session_leases_total(leases), 1);
	assert_true(session_leases_next_deadline(leases) == now + 1);
	now++;
	expire_all();
	assert_int_equal(session_leases_total(leases), 0);
	assert_true(session_leases_next_deadline(leases) == 0);
	assert_int_equal(process1->issued, 0);
	/* they were no sessions */
	assert_int_equal(changed.count, 0);

	/* no more than max in one go */
	for (unsigned int i = 0; i < 10; i++)
		(void)issue(process1, tag, i);
	now += FORGET_MSECS;
	assert_true(session_leases_expire(leases, now, 4));
	assert_int_equal(session_leases_total(leases), 6);
	assert_true(session_leases_expire(leases, now, 4));
	assert_false(session_leases_expire(leases, now, 4));
	assert_string_equal(untold, "");
	assert_int_equal(session_leases_total(leases), 0);
}

static void test_announce(void **state ATTR_UNUSED)
{
	const struct session_token token = { .instance = 5, .seq = 6 };
	struct session_lease *lease;

	lease = session_lease_announce(leases, plugin(0), tag, 9,
				       ip_of("fd00::1"), &token, 1600000000);
	assert_int_equal(lease->state, SESSION_LEASE_STARTED);
	assert_int_equal(lease->since, 1600000000);
	assert_ptr_equal(lease->plugin, plugin(0));
	assert_ptr_equal(session_lease_lookup(leases, &token), lease);
	assert_int_equal(sessions("fd00::1"), 1);
	assert_int_equal(process1->issued, 0);
	assert_int_equal(changed.count, 1);
	assert_true(changed.leased);
	assert_true(session_leases_next_deadline(leases) == 0);
	session_lease_end(leases, &lease);
	assert_int_equal(changed.count, 2);
}

static void test_orphans(void **state ATTR_UNUSED)
{
	struct session_lease *a = start(0, tag, 1);
	struct session_lease *b = start(0, tag, 2);
	struct session_lease *other = start(1, tag, 3);
	struct session_lease *waiting = issue(process1, tag, 4);
	struct session_token b_token = b->token;
	unsigned int count = changed.count;

	session_lease_up(a);
	session_plugin_lost(leases, &plugins[0], now);
	assert_null(plugins[0]);
	/* they count on */
	assert_int_equal(changed.count, count);
	assert_true(session_leases_has(leases, tag, 1));
	assert_int_equal(sessions("10.0.0.1"), 3);
	assert_false(session_lease_is_told(a));
	assert_false(session_lease_is_told(b));
	assert_true(session_lease_is_told(other));
	assert_ptr_equal(other->plugin, plugin(1));
	assert_int_equal(waiting->state, SESSION_LEASE_ISSUED);
	assert_true(session_leases_next_deadline(leases) ==
		    now + SESSION_LEASE_ORPHAN_MSECS);

	/* one of them is told by the new connection */
	now += SESSION_LEASE_ORPHAN_MSECS - 1;
	session_lease_start(leases, a, plugin(1));
	assert_int_equal(a->state, SESSION_LEASE_UP);
	assert_ptr_equal(a->plugin, plugin(1));
	assert_int_equal(changed.count, count);
	assert_int_equal(sessions("10.0.0.1"), 3);
	expire_all();
	assert_ptr_equal(session_lease_lookup(leases, &b_token), b);
	now++;
	expire_all();
	assert_null(session_lease_lookup(leases, &b_token));
	assert_int_equal(changed.count, count + 1);
	assert_int_equal(changed.hash, 2);
	assert_int_equal(sessions("10.0.0.1"), 2);
	assert_int_equal(session_leases_total(leases), 3);
}

static void test_announced(void **state ATTR_UNUSED)
{
	struct session_lease *a = start(0, tag, 1);
	struct session_lease *b = start(0, tag, 2);
	struct session_lease *elsewhere = start(2, tag, 3);
	struct session_lease *waiting = issue(process1, tag, 4);
	struct session_token b_token = b->token;

	session_plugin_lost(leases, &plugins[0], now);
	session_plugin_lost(leases, &plugins[2], now);
	now += 10;
	session_lease_start(leases, a, plugin(0));
	session_leases_announced(leases, plugin(0), now);
	/* due, and not more */
	assert_ptr_equal(session_lease_lookup(leases, &b_token), b);
	assert_true(session_leases_next_deadline(leases) == now);
	expire_all();
	assert_null(session_lease_lookup(leases, &b_token));
	assert_false(session_leases_has(leases, tag, 2));
	assert_true(session_leases_has(leases, tag, 1));
	/* another process has still to announce its own */
	assert_ptr_equal(session_lease_lookup(leases, &elsewhere->token),
			 elsewhere);
	/* an answer that is still on its way isn't affected */
	assert_ptr_equal(session_lease_lookup(leases, &waiting->token),
			 waiting);
	assert_int_equal(session_leases_total(leases), 3);

	/* the last lease may be what keeps the process */
	session_lease_end(leases, &a);
	session_lease_end(leases, &waiting);
	session_leases_announced(leases, plugin(2), now);
	session_plugin_lost(leases, &plugins[2], now);
	login_process_unref(leases, &process2);
	expire_all();
	assert_int_equal(session_leases_total(leases), 0);
}

/* Between ANNOUNCED and the end of what is over. */
static void test_announced_late(void **state ATTR_UNUSED)
{
	struct session_lease *a = start(0, tag, 1), *b = start(0, tag, 2);
	struct session_lease *later = start(1, tag, 3);

	session_plugin_lost(leases, &plugins[0], now);
	session_leases_announced(leases, plugin(0), now);
	session_leases_announced(leases, plugin(0), now);
	/* it is there after all */
	session_lease_start(leases, b, plugin(0));
	session_lease_end(leases, &a);
	expire_all();
	assert_true(session_lease_is_told(b));
	assert_int_equal(session_leases_total(leases), 2);

	/* The connection in use is lost, too; what comes then is of this one. */
	session_plugin_lost(leases, &plugins[1], now);
	now += SESSION_LEASE_ORPHAN_MSECS - 1;
	session_plugin_lost(leases, &plugins[0], now);
	session_leases_announced(leases, plugin(1), now);
	session_lease_start(leases, later, plugin(1));
	expire_all();
	assert_int_equal(session_leases_total(leases), 1);
	session_lease_end(leases, &later);
}

/* A single answer that isn't acted on proves nothing. */
static void drop_answers(struct login_process *process)
{
	for (unsigned int i = 0; i < 3; i++)
		(void)issue(process, tag, i);
	now += FORGET_MSECS;
	expire_all();
	assert_false(process->plugin_missing);
}

static void test_missing_plugin(void **state ATTR_UNUSED)
{
	struct login_process *alone = login_process_ref(leases, 1003);

	process2->plugin_seen = TRUE;
	drop_answers(process1);
	drop_answers(process2);
	drop_answers(alone);
	assert_untold("0 1 2 0 1 2 ");
	(void)issue(process1, tag, 1);
	(void)issue(process2, tag, 2);
	/* a process that is gone already */
	(void)issue(alone, tag, 3);
	login_process_unref(leases, &alone);
	now += 1;
	(void)issue(process1, tag, 5);

	now += FORGET_MSECS - 1;
	assert_true(session_leases_expire(leases, now, 1));
	assert_untold("1! ");
	assert_true(process1->plugin_missing);
	assert_false(session_leases_expire(leases, now, 3));
	assert_untold("3! ");
	assert_false(process2->plugin_missing);
	now++;
	expire_all();
	assert_untold("5! ");
	assert_int_equal(session_leases_total(leases), 0);
	/* and never if it was started */
	session_lease_start(leases, issue(process1, tag, 6), plugin(0));
	session_plugin_lost(leases, &plugins[0], now);
	now += FORGET_MSECS;
	expire_all();
	assert_untold("");
}

/* One login for each process: they show it together. */
static void test_missing_plugin_protocol(void **state ATTR_UNUSED)
{
	struct login_process *processes[6];
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(processes); i++) {
		processes[i] = login_process_ref(leases, 2000 + i);
		login_process_set_protocol(leases, processes[i], i == 2 ?
					   "pop3" : "imap");
		login_process_set_protocol(leases, processes[i], "other");
	}
	assert_string_equal(processes[0]->protocol->name, "imap");
	assert_ptr_equal(processes[0]->protocol, processes[1]->protocol);
	/* at once: they may have been stopped all together */
	for (i = 0; i < 2; i++)
		(void)issue(processes[i], tag, i);
	now += FORGET_MSECS;
	expire_all();
	assert_untold("0 1 ");
	/* another protocol is another thing */
	(void)issue(processes[2], tag, 2);
	now += FORGET_MSECS;
	expire_all();
	assert_untold("2 ");
	(void)issue(processes[3], tag, 3);
	now += FORGET_MSECS;
	expire_all();
	assert_untold("3! ");
	/* It is there after all. */
	(void)issue(processes[4], tag, 4);
	login_process_set_protocol(leases, process1, "imap");
	session_lease_start(leases, issue(process1, tag, 9), plugin(0));
	now += FORGET_MSECS;
	expire_all();
	assert_untold("4 ");
	(void)issue(processes[5], tag, 5);
	now += FORGET_MSECS;
	expire_all();
	assert_untold("5! ");
	for (i = 0; i < N_ELEMENTS(processes); i++)
		login_process_unref(leases, &processes[i]);
}

/* Names come from outside. */
static void test_protocols(void **state ATTR_UNUSED)
{
	struct login_process *process;
	unsigned int i, named = 0;

	for (i = 0; i < 100; i++) {
		process = login_process_ref(leases, 2000 + i);
		login_process_set_protocol(leases, process, t_strdup_printf(
			"%u-and-more-than-fits", i));
		if (process->protocol != NULL) {
			assert_int_equal(strlen(process->protocol->name),
					 SESSION_PROTOCOL_MAX_LEN);
			named++;
		}
		login_process_unref(leases, &process);
	}
	assert_int_equal(named, SESSION_PROTOCOLS_MAX);
}

static void test_redirect(void **state ATTR_UNUSED)
{
	struct session_lease *lease = start(0, tag, 1);
	struct session_lease *second = start(0, tag, 2);
	struct session_lease *waiting = issue(process1, tag, 3);
	unsigned int count = changed.count;

	session_lease_redirect(leases, lease, ip_of("10.0.0.9"));
	assert_true(net_ip_compare(&lease->backend->ip, ip_of("10.0.0.9")));
	assert_int_equal(sessions("10.0.0.9"), 1);
	assert_int_equal(sessions("10.0.0.1"), 1);
	/* what isn't a session isn't counted */
	session_lease_redirect(leases, waiting, ip_of("10.0.0.9"));
	assert_int_equal(sessions("10.0.0.9"), 1);
	/* to where it is */
	session_lease_redirect(leases, lease, ip_of("10.0.0.9"));
	assert_int_equal(sessions("10.0.0.9"), 1);
	assert_int_equal(changed.count, count);

	session_lease_end(leases, &lease);
	assert_int_equal(sessions("10.0.0.9"), 0);
	session_lease_start(leases, waiting, plugin(0));
	assert_int_equal(sessions("10.0.0.9"), 1);
	session_lease_end(leases, &second);
	assert_int_equal(sessions("10.0.0.1"), 0);
}

static void test_set_tag(void **state ATTR_UNUSED)
{
	char tag_copy[] = "";
	struct session_lease *lease = start(0, tag, 1);
	struct session_lease *second = start(0, tag, 1);
	struct session_lease *waiting = issue(process1, tag, 1);
	unsigned int count = changed.count;

	/* the same tag is the same, wherever its text is */
	session_lease_set_tag(leases, lease, tag_copy);
	assert_true(session_leases_has(leases, tag, 1));
	assert_true(session_leases_has(leases, tag_copy, 1));
	session_lease_set_tag(leases, lease, tag);
	/* only what was answered */
	session_lease_set_tag(leases, waiting, tag2);
	assert_int_equal(changed.count, count);
	assert_false(session_leases_has(leases, tag2, 1));

	/* one is left there */
	session_lease_set_tag(leases, lease, tag2);
	assert_int_equal(changed.count, count + 1);
	assert_ptr_equal(changed.tag, tag2);
	assert_true(changed.leased);
	assert_true(session_leases_has(leases, tag, 1));
	/* one is here already */
	session_lease_set_tag(leases, second, tag2);
	assert_int_equal(changed.count, count + 2);
	assert_ptr_equal(changed.tag, tag);
	assert_false(changed.leased);
	/* all at once */
	session_lease_end(leases, &second);
	session_lease_set_tag(leases, lease, tag);
	assert_int_equal(changed.count, count + 4);
	assert_false(session_leases_has(leases, tag2, 1));
	assert_true(session_leases_has(leases, tag, 1));
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_process),
		test(test_issue),
		test(test_life),
		test(test_users_sessions),
		test(test_forgotten),
		test(test_announce),
		test(test_orphans),
		test(test_announced),
		test(test_announced_late),
		test(test_missing_plugin),
		test(test_missing_plugin_protocol),
		test(test_protocols),
		test(test_redirect),
		test(test_set_tag),
	};

	return run_test_cases(tests);
}
