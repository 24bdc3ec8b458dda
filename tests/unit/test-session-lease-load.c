/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Nothing that login processes tell makes the leases slow: the work of N calls
   is counted, and it is O(N). */

#include "test-unit.h"
#include "director/core/session-lease.h"

#define COUNT 10000
/* Links followed for one session in its life, whatever the others are. The
   tables have 65536 chains, so a chain has hardly two. */
#define STEPS_MAX 10

static struct session_leases *leases;
static struct login_process *process;
static struct session_lease *all[COUNT];
static const char *const tag = "";
static struct session_plugin *plugin;

static int setup(void **state)
{
	leases = session_leases_init(7, 0x1234567890abcdefULL, NULL, NULL);
	process = login_process_ref(leases, 1);
	plugin = session_plugin_init(leases, process);
	return test_frame_setup(state);
}

static int teardown(void **state)
{
	session_plugin_lost(leases, &plugin, 1);
	login_process_unref(leases, &process);
	session_leases_deinit(&leases);
	return test_frame_teardown(state);
}

static const struct ip_addr *ip_of(const char *text)
{
	struct ip_addr *ip = t_new(struct ip_addr, 1);

	assert_int_equal(net_addr2ip(text, ip), 0);
	return ip;
}

/* The life of a session that an earlier director allowed */
static void announce(unsigned int i, uint32_t hash, const struct ip_addr *ip,
		     const struct session_token *token)
{
	assert_null(session_lease_lookup(leases, token));
	all[i] = session_lease_announce(leases, plugin, tag, hash, ip, token,
					1);
	assert_true(session_leases_has(leases, tag, hash));
	assert_ptr_equal(session_lease_lookup(leases, token), all[i]);
}

static void end_all(unsigned int count)
{
	/* the oldest first: the last of each chain */
	for (unsigned int i = 0; i < count; i++) {
		struct session_token token = all[i]->token;

		assert_ptr_equal(session_lease_lookup(leases, &token), all[i]);
		session_lease_end(leases, &all[i]);
	}
	assert_int_equal(session_leases_total(leases), 0);
	assert_true(session_leases_steps(leases) <= count * STEPS_MAX);
}

/* All are one user's, and most of his leases are no sessions (yet). */
static void test_one_user(void **state ATTR_UNUSED)
{
	const struct ip_addr *ip = ip_of("10.0.0.1");
	const struct session_user *user;

	for (unsigned int i = 0; i < COUNT; i++) {
		all[i] = session_lease_issue(leases, process, tag, 5, ip, 1, 1);
		assert_false(session_leases_has(leases, tag, 5));
	}
	session_lease_start(leases, all[0], plugin);
	for (unsigned int i = 0; i < COUNT; i++)
		assert_true(session_leases_has(leases, tag, 5));
	for (unsigned int i = 1; i < COUNT; i += 2)
		session_lease_start(leases, all[i], plugin);
	user = session_leases_user(leases, tag, 5);
	assert_int_equal(user->sessions, COUNT / 2 + 1);
	assert_int_equal(user->issued, COUNT / 2 - 1);
	end_all(COUNT);
	assert_null(session_leases_user(leases, tag, 5));
}

static void test_one_user_announced(void **state ATTR_UNUSED)
{
	const struct ip_addr *ip = ip_of("10.0.0.1");

	for (unsigned int i = 0; i < COUNT; i++) {
		announce(i, 5, ip, &(struct session_token){ 1, i });
		/* another tag's is another one */
		assert_false(session_leases_has(leases, "t", 5));
	}
	end_all(COUNT);
}

/* The list that a user's sessions are in */
static void test_list(void **state ATTR_UNUSED)
{
	const struct ip_addr *ip = ip_of("10.0.0.1");
	const struct session_lease *lease;
	unsigned int i = 0;

	for (i = 0; i < 10; i++)
		announce(i, i % 2, ip, &(struct session_token){ 1, i });
	session_lease_set_tag(leases, all[5], "t");
	session_lease_end(leases, &all[9]);
	for (lease = session_leases_user(leases, tag, 1)->leases, i = 7;
	     lease != NULL; lease = lease->user_next, i -= i == 7 ? 4 : 2)
		assert_ptr_equal(lease, all[i]);
	assert_int_equal(i + 1, 0);
	assert_ptr_equal(session_leases_user(leases, "t", 1)->leases, all[5]);
	assert_null(all[5]->user_next);
}

/* Tokens that a plain hash function would put into few chains */
static void test_tokens(void **state ATTR_UNUSED)
{
	const struct ip_addr *ip = ip_of("10.0.0.1");
	unsigned int kind, i;

	for (kind = 0; kind < 6; kind++) {
		for (i = 0; i < COUNT; i++) {
			const struct session_token tokens[] = {
				{ 0x5555 ^ i, i },
				{ 0, (uint64_t)i << 16 },
				{ 0, (uint64_t)i << 32 },
				{ 0, (uint64_t)i << 50 },
				{ (uint64_t)i << 48, 0 },
				/* multiples of the golden ratio's inverse */
				{ 0, i * 0xf1de83e19937733dULL },
			};

			announce(i, i, ip, &tokens[kind]);
		}
		for (i = 0; i < COUNT; i++)
			session_lease_end(leases, &all[i]);
		assert_true(session_leases_steps(leases) <=
			    (uint64_t)COUNT * STEPS_MAX * (kind + 1));
	}
}

/* The same of users' hashes: any of 2^32 can be told. */
static void test_hashes(void **state ATTR_UNUSED)
{
	const struct ip_addr *ip = ip_of("10.0.0.1");
	const unsigned int count = COUNT / 4;
	uint32_t hash = 0;

	for (unsigned int i = 0; i < count; i++) {
		while (((++hash * 0x9e3779b97f4a7c15ULL) >> 32) % 65536 != 0) ;
		announce(i, hash, ip, &(struct session_token){ 1, i });
	}
	end_all(count);
}

/* And of backends that aren't. The common hash of these addresses, 16 times
   the sum so far plus the byte, is one. */
static void test_backends(void **state ATTR_UNUSED)
{
	struct ip_addr ip = *ip_of("fd00::1");

	for (unsigned int i = 0; i < COUNT; i++) {
		for (unsigned int j = 0; j < 4; j++) {
			unsigned int digit = (i >> (4 * j)) & 15;

			ip.u.ip6.s6_addr[8 + j * 2] = digit;
			ip.u.ip6.s6_addr[9 + j * 2] = 0xf0 - digit * 16;
		}
		announce(i, i, &ip, &(struct session_token){ 1, i });
		assert_int_equal(session_leases_count(leases, &ip), 1);
	}
	end_all(COUNT);
}

/* And of processes: the pid of a client of auth is its own word. */
static void test_processes(void **state ATTR_UNUSED)
{
	static struct login_process *processes[COUNT];

	for (unsigned int i = 0; i < COUNT; i++) {
		processes[i] = login_process_ref(leases, i << 16);
		assert_ptr_equal(login_process_ref(leases, i << 16),
				 processes[i]);
	}
	for (unsigned int i = 0; i < COUNT; i++) {
		struct login_process *again = processes[i];

		login_process_unref(leases, &again);
		login_process_unref(leases, &processes[i]);
	}
	assert_true(session_leases_steps(leases) <= COUNT * STEPS_MAX);
}

/* However many sessions a login process has, none of it waits for them. */
static void test_lost_sliced(void **state ATTR_UNUSED)
{
	const struct ip_addr *ip = ip_of("10.0.0.1");
	uint64_t steps;
	unsigned int i, left;

	for (i = 0; i < COUNT; i++)
		announce(i, i, ip, &(struct session_token){ 1, i });
	steps = session_leases_steps(leases);
	session_plugin_lost(leases, &plugin, 1);
	plugin = session_plugin_init(leases, process);
	session_leases_announced(leases, plugin, 2);
	assert_true(session_leases_steps(leases) == steps);
	assert_int_equal(session_leases_total(leases), COUNT);
	assert_int_equal(session_leases_count(leases, ip), COUNT);
	for (left = COUNT; left > 1000; left -= 1000) {
		assert_true(session_leases_expire(leases, 2, 1000));
		assert_int_equal(session_leases_total(leases), left - 1000);
	}
	assert_false(session_leases_expire(leases, 2, 1001));
	assert_int_equal(session_leases_total(leases), 0);
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_one_user),
		test(test_one_user_announced),
		test(test_list),
		test(test_tokens),
		test(test_hashes),
		test(test_backends),
		test(test_processes),
		test(test_lost_sliced),
	};

	return run_test_cases(tests);
}
