/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The connection to a director that goes, comes back, hangs, says garbage, or
   doesn't read */

#define SOCKET_PATH "test-login-link.sock"
#include "test-login-link.h"

static void test_reconnect(void **state ATTR_UNUSED)
{
	struct test_client clients[4];

	start(&clients[0], "a0", 1, &ip1, "user0");
	start(&clients[1], "a1", 2, &ip1, "user1");
	accept_link();
	expect("ANNOUNCED\n");

	/* The director goes away. Meanwhile sessions start, are up and end. */
	test_unlisten();
	test_disconnect();
	run_turn();
	director_link_up(director, clients[0].session, &ip2);
	director_link_end(director, &clients[1].session, "closed");
	start(&clients[2], "a2", 3, &ip1, "user2");
	start(&clients[3], "a3", 3, &ip1, "user3");
	director_link_end(director, &clients[3].session, "closed");
	for (unsigned int i = 0; i < 50; i++)
		run_turn();

	test_listen();
	accept_link();
	expect("ANNOUNCED\n");
	assert_non_null(strstr(str_c(received),
			       "START\ta0\t1\t2001:db8::1\t"));
	assert_non_null(strstr(str_c(received), "\tuser0\nUP\ta0\n"));
	assert_non_null(strstr(str_c(received), "START\ta2\t3\t"));
	assert_int_equal(count_text("START\t"), 2);
	assert_int_equal(count_text("UP\t"), 1);
	assert_int_equal(count_text("END\t"), 0);
	assert_int_equal(count_text("ANNOUNCED\n"), 1);
	assert_int_equal(errors_logged, 0);

	/* No sessions: that is told, too. */
	director_link_end(director, &clients[0].session, "closed");
	director_link_end(director, &clients[2].session, "closed");
	expect("END\ta2\t");
	test_disconnect();
	accept_link();
	expect("ANNOUNCED\n");
	assert_int_equal(count_text("START\t"), 0);
	start(&clients[0], "b0", 1, &ip1, "user0");
	expect("START\tb0\t");
}

#define GRACE_MSECS 300

static void wait_kicked(unsigned int count)
{
	struct timeout *to;

	timed_out = FALSE;
	to = timeout_add(WAIT_MSECS, test_timeout, (void *)NULL);
	while (kicked < count && !timed_out)
		run_turn();
	timeout_remove(&to);
	assert_int_equal(kicked, count);
}

/* Longer than the grace */
static void pass_grace(void)
{
	struct timeout *to;

	timed_out = FALSE;
	to = timeout_add_short(GRACE_MSECS + 200, test_timeout, (void *)NULL);
	while (!timed_out) {
		run_turn();
		read_all();
		answer_pings();
	}
	timeout_remove(&to);
}

static void test_no_director(void **state ATTR_UNUSED)
{
	struct test_client a, b, c;

	start(&a, "a1", 1, &ip1, "a");
	start(&b, "b1", 2, &ip2, "b");
	director_link_up(director, b.session, &ip2);
	accept_link();
	send_text(HELLO "GRACE\t300\n");
	expect("ANNOUNCED\n");
	/* one that is there */
	answers_pings = TRUE;
	pass_grace();
	assert_int_equal(kicked, 0);
	/* one that comes back in time */
	test_disconnect();
	accept_link();
	send_text(HELLO);
	pass_grace();
	assert_int_equal(kicked, 0);
	/* one that doesn't */
	test_unlisten();
	test_disconnect();
	wait_kicked(2);
	assert_string_equal(kick_reason,
			    "There has been no director for 0.300 secs");
	assert_null(a.session);
	assert_null(b.session);
	/* a socket alone is none */
	test_listen();
	start(&c, "c1", 1, &ip1, "c");
	accept_link();
	expect("ANNOUNCED\n");
	wait_kicked(3);
	/* nobody is there to be ended */
	pass_grace();
	send_text(HELLO);
	start(&c, "c2", 1, &ip1, "c");
	expect("START\tc2\t");
	pass_grace();
	assert_int_equal(kicked, 3);
	assert_non_null(c.session);
	assert_int_equal(errors_logged, 0);
}

/* It is connected, and says nothing more. */
static void test_director_hangs(void **state ATTR_UNUSED)
{
	struct test_client a;

	start(&a, "a1", 1, &ip1, "a");
	accept_link();
	send_text(HELLO "GRACE\t300\n");
	expect("ANNOUNCED\n");
	answers_pings = TRUE;
	pass_grace();
	pass_grace();
	assert_int_equal(kicked, 0);
	/* whatever it says is a sign of life */
	answers_pings = FALSE;
	for (unsigned int i = 0; i < 10; i++) {
		expect("PING\n");
		str_truncate(received, 0);
		send_text("NEW-COMMAND\n");
	}
	assert_int_equal(kicked, 0);
	wait_kicked(1);
	assert_string_equal(kick_reason,
			    "There has been no director for 0.300 secs");
	expect("PING\nPING\nPING\nEND\ta1\t");
	/* Without sessions nobody asks, and the next one has its time. */
	str_truncate(received, 0);
	pass_grace();
	assert_int_equal(str_len(received), 0);
	start(&a, "a2", 1, &ip1, "a");
	answers_pings = TRUE;
	pass_grace();
	assert_int_equal(kicked, 1);
	director_link_end(director, &a.session, "closed");
}

/* It hangs, and then it is gone: there has been none since it hangs. */
static void test_director_hangs_and_goes(void **state ATTR_UNUSED)
{
	struct test_client a;
	struct timeout *to;

	start(&a, "a1", 1, &ip1, "a");
	accept_link();
	send_text(HELLO "GRACE\t300\n");
	expect("ANNOUNCED\n");
	answers_pings = FALSE;
	expect("PING\nPING\nPING\n");
	test_unlisten();
	test_disconnect();
	timed_out = FALSE;
	to = timeout_add_short(200, test_timeout, (void *)NULL);
	while (!timed_out && kicked == 0)
		run_turn();
	timeout_remove(&to);
	assert_int_equal(kicked, 1);
}

static void check_garbage(const void *data, size_t size)
{
	struct test_client client;

	/* again on the second connection: it's told only once */
	start(&client, "a1", 7, &ip1, "user");
	for (unsigned int i = 0; i < 2; i++) {
		accept_link();
		expect("ANNOUNCED\n");
		send_bytes(data, size);
		expect_eof();
		test_disconnect();
		assert_int_equal(errors_logged, 1);
	}
	assert_int_equal(kicked, 0);
	errors_logged = 0;
	director_link_deinit(&director);
	director = director_link_init(SOCKET_PATH, "imap", test_kick);
}

static void test_garbage(void **state ATTR_UNUSED)
{
	static const char *const garbage[] = {
		"VERSION\twrong-service\t1\t0\n",
		"VERSION\tdirector-proxy\t2\t0\n",
		"\n",
		"KICK\t7\n",
		HELLO"KICK\n",
		HELLO"KICK\t0\n",
		HELLO"KICK\tx\n",
		HELLO"KICK\t-7\n",
		HELLO"KICK\t4294967296\n",
		HELLO"KICK\t7\t192.0.2.x\n",
		HELLO"KICK-SESSION\n",
		HELLO"KICK-BACKEND\n",
		HELLO"KICK-BACKEND\t\tx\n",
		HELLO"KICK-BACKEND\t192.0.2.x\tx\n",
		HELLO"GRACE\n",
		HELLO"GRACE\t0\n",
		HELLO"GRACE\tx\n",
		HELLO"GRACE\t4294967296\n",
	};
	char line[8192];

	for (unsigned int i = 0; i < N_ELEMENTS(garbage); i++)
		check_garbage(garbage[i], strlen(garbage[i]));
	memset(line, 'K', sizeof(line));
	check_garbage(line, sizeof(line));
	memset(line, 0, sizeof(line));
	line[100] = '\n';
	check_garbage(line, 101);
}

static void test_unknown_commands(void **state ATTR_UNUSED)
{
	struct test_client client;

	start(&client, "a1", 7, &ip1, "user");
	accept_link();
	expect("ANNOUNCED\n");
	send_text(HELLO"\n\001\001\001\nKICKS\t7\nkick\t7\n\t\t\nKICK\t8\n");
	run_turn();
	assert_int_equal(kicked, 0);
	send_text("KICK\t7\n");
	expect("END\ta1\t");
	assert_int_equal(errors_logged, 0);
}

static void test_director_does_not_read(void **state ATTR_UNUSED)
{
	struct test_client client, other;
	unsigned int i, count;

	start(&client, "a1", 7, &ip1, "user");
	accept_link();
	expect("ANNOUNCED\n");
	str_truncate(received, 0);

	/* ends within bounds, and without having told half a line */
	for (i = 0; i < 100000 && errors_logged == 0; i++) {
		start(&other, "b1", 8, &ip1, "other");
		director_link_end(director, &other.session, "closed");
	}
	assert_int_equal(errors_logged, 1);
	/* nothing is sent any more in this turn */
	start(&other, "b2", 8, &ip1, "other");
	run_turn();
	read_all();
	assert_true(str_len(received) < 2*1024*1024);
	count = count_text("START\tb1\t");
	assert_in_range(count, 1, i - 1);
	assert_int_equal(count_text("START\tb2\t"), 0);
	test_disconnect();

	accept_link();
	expect("ANNOUNCED\n");
	assert_int_equal(count_text("START\ta1\t"), 1);
	assert_int_equal(count_text("START\tb2\t"), 1);
	assert_int_equal(count_text("START\t"), 2);
}

#define MANY_SESSIONS 20000

static void test_many_sessions(void **state ATTR_UNUSED)
{
	static struct test_client clients[MANY_SESSIONS];
	struct test_client early;
	unsigned int i, from, to, ended;

	test_unlisten();
	for (i = 0; i < MANY_SESSIONS; i++) T_BEGIN {
		start(&clients[i], t_strdup_printf("%x", i + 1), i + 1, &ip1,
		      "user");
		if (i % 2 == 0)
			director_link_up(director, clients[i].session, &ip1);
	} T_END;
	test_listen();
	accept_link();
	/* The announcement is longer than what is buffered: it stops until the
	   director reads. What changes meanwhile is told only as far as it was
	   announced: the newest are announced first. Of those that end some
	   were told, some weren't, and one is the next to be told. */
	run_turn();
	read_all();
	start(&early, "e-1", 7, &ip1, "early");
	from = MANY_SESSIONS - count_text("START\t") - 2000;
	to = from + 2100;
	for (i = from; i < to; i++)
		director_link_end(director, &clients[i].session, "closed");
	director_link_up(director, clients[1].session, &ip1);
	director_link_up(director, clients[MANY_SESSIONS-1].session, &ip1);
	expect("ANNOUNCED\n");

	ended = count_text("END\t");
	assert_in_range(ended, 100, to - from - 1);
	assert_int_equal(count_text("START\t"),
			 MANY_SESSIONS - (to - from) + 1 + ended);
	assert_int_equal(count_text("START\te-1\t"), 1);
	assert_int_equal(count_text("UP\t2\n"), 1);
	assert_int_equal(count_text(t_strdup_printf("UP\t%x\n",
						    MANY_SESSIONS)), 1);
	/* the connection was never lost for it */
	assert_int_equal(errors_logged, 0);

	for (i = 0; i < MANY_SESSIONS; i++) {
		director_link_end(director, &clients[i].session, "closed");
		if (i % 100 == 0)
			read_all();
	}
	expect(t_strdup_printf("END\t%x\t", MANY_SESSIONS));
	assert_int_equal(count_text("END\t"), count_text("START\t") - 1);
}

static void test_no_wait_for_retry(void **state ATTR_UNUSED)
{
	struct test_client clients[2];

	test_unlisten();
	start(&clients[0], "a0", 7, &ip1, "user");
	for (unsigned int i = 0; i < 50; i++)
		run_turn();
	/* the director is back, but the next retry isn't due yet */
	test_listen();
	start(&clients[1], "a1", 8, &ip1, "user");
	fd_conn = net_accept(fd_listen, NULL, NULL);
	assert_true(fd_conn >= 0);
	net_set_nonblock(fd_conn, TRUE);
	read_all();
	assert_int_equal(count_text("START\t"), 2);
	assert_int_equal(count_text("ANNOUNCED\n"), 1);
}

static void test_absent(void **state ATTR_UNUSED)
{
	struct test_client clients[3];

	test_unlisten();
	start(&clients[0], "a0", 7, &ip1, "user");
	start(&clients[1], "a1", 7, &ip1, "user");
	director_link_up(director, clients[0].session, &ip1);
	for (unsigned int i = 0; i < 60; i++)
		run_turn();
	director_link_end(director, &clients[1].session, "closed");
	/* a short absence is no error */
	assert_int_equal(errors_logged, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		login_test(test_reconnect),
		login_test(test_no_director),
		login_test(test_director_hangs),
		login_test(test_director_hangs_and_goes),
		login_test(test_garbage),
		login_test(test_unknown_commands),
		login_test(test_director_does_not_read),
		login_test(test_many_sessions),
		login_test(test_no_wait_for_retry),
		login_test(test_absent),
	};

	return run_test_cases(tests);
}
