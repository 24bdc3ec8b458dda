/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "ioloop.h"
#include "net.h"
#include "str.h"
#include "login-director/director-link.h"

#include <unistd.h>

/* The director's side is a plain socket that is read and written by hand. */
#define SOCKET_PATH "test-login-session.sock"
#define HELLO "VERSION\tdirector-proxy\t1\t0\n"
#define WAIT_MSECS 5000

static struct ioloop *ioloop;
static struct director_link *director;
static struct ip_addr ip1, ip2;
static int fd_listen, fd_conn;
/* Everything read from the link since the connection was accepted */
static string_t *received;
static unsigned int kicked;
static char kick_reason[512];
static unsigned int errors_logged;
static bool timed_out;

struct test_client {
	struct director_session *session;
};

static void test_kick(struct director_session *session, const char *reason)
{
	struct test_client *client = session->context;

	assert_ptr_equal(client->session, session);
	kicked++;
	i_strocpy(kick_reason, reason, sizeof(kick_reason));
	director_link_end(director, &client->session, reason);
	assert_null(client->session);
}

static void test_error_handler(const struct failure_context *ctx,
			       const char *format ATTR_UNUSED,
			       va_list args ATTR_UNUSED)
{
	if (ctx->type == LOG_TYPE_ERROR)
		errors_logged++;
}

static void test_listen(void)
{
	fd_listen = net_listen_unix_unlink_stale(SOCKET_PATH, 16);
	assert_true(fd_listen != -1);
	net_set_nonblock(fd_listen, TRUE);
}

static void test_unlisten(void)
{
	i_close_fd(&fd_listen);
	i_unlink(SOCKET_PATH);
}

static void test_disconnect(void)
{
	i_close_fd(&fd_conn);
	str_truncate(received, 0);
}

static int setup(void **state)
{
	test_frame_setup(state);
	ioloop = io_loop_create();
	received = str_new(default_pool, 1024);
	fd_listen = fd_conn = -1;
	kicked = errors_logged = 0;
	i_set_error_handler(test_error_handler);
	assert_return_code(net_addr2ip("192.0.2.1", &ip1), 0);
	assert_return_code(net_addr2ip("2001:db8::1", &ip2), 0);
	test_listen();
	director = director_link_init(SOCKET_PATH, "imap", test_kick);
	return 0;
}

static int teardown(void **state)
{
	director_link_deinit(&director);
	test_disconnect();
	if (fd_listen != -1)
		test_unlisten();
	str_free(&received);
	io_loop_destroy(&ioloop);
	return test_frame_teardown(state);
}

static void test_timeout(void *context ATTR_UNUSED)
{
	timed_out = TRUE;
	io_loop_stop(ioloop);
}

static void test_turn(void *context ATTR_UNUSED)
{
	io_loop_stop(ioloop);
}

/* Runs the ioloop once, for a short time at most. */
static void run_turn(void)
{
	struct timeout *to;

	to = timeout_add_short(5, test_turn, (void *)NULL);
	io_loop_run(ioloop);
	timeout_remove(&to);
}

static void read_all(void)
{
	char buf[4096];
	ssize_t ret;

	if (fd_conn == -1)
		return;
	while ((ret = read(fd_conn, buf, sizeof(buf))) > 0)
		str_append_data(received, buf, ret);
}

/* The director is one that responds. */
static bool answers_pings;

static void answer_pings(void)
{
	const char *p = str_c(received);

	while (answers_pings && fd_conn != -1 &&
	       (p = strstr(p, "PING\n")) != NULL) {
		str_delete(received, p - str_c(received), strlen("PING\n"));
		assert_int_equal(write(fd_conn, "PONG\n", 5), 5);
	}
}

static void accept_link(void)
{
	struct timeout *to;

	timed_out = FALSE;
	to = timeout_add(WAIT_MSECS, test_timeout, (void *)NULL);
	while ((fd_conn = net_accept(fd_listen, NULL, NULL)) < 0 && !timed_out)
		run_turn();
	timeout_remove(&to);
	assert_false(timed_out);
	net_set_nonblock(fd_conn, TRUE);
}

/* Waits until text is received. */
static void expect(const char *text)
{
	struct timeout *to;

	timed_out = FALSE;
	to = timeout_add(WAIT_MSECS, test_timeout, (void *)NULL);
	for (;;) {
		read_all();
		if (strstr(str_c(received), text) != NULL || timed_out)
			break;
		run_turn();
	}
	timeout_remove(&to);
	if (timed_out)
		print_error("received: %.2000s\n", str_c(received));
	assert_false(timed_out);
}

/* Waits until the link has closed the connection. */
static void expect_eof(void)
{
	struct timeout *to;
	char buf[4096];
	ssize_t ret = -1;

	timed_out = FALSE;
	to = timeout_add(WAIT_MSECS, test_timeout, (void *)NULL);
	while (!timed_out) {
		while ((ret = read(fd_conn, buf, sizeof(buf))) > 0) ;
		if (ret == 0 || (ret < 0 && errno == ECONNRESET))
			break;
		run_turn();
	}
	timeout_remove(&to);
	assert_false(timed_out);
}

static void send_bytes(const void *data, size_t size)
{
	assert_int_equal(write(fd_conn, data, size), size);
}

static void send_text(const char *text)
{
	send_bytes(text, strlen(text));
}

static struct director_session *
start(struct test_client *client, const char *token, uint32_t hash,
      const struct ip_addr *ip, const char *user)
{
	const struct director_answer answer = {
		.token = token,
		.hash = hash,
	};

	client->session = director_link_start(director, &answer, ip, user,
					      client);
	return client->session;
}

static unsigned int count_text(const char *text)
{
	const char *p = str_c(received);
	unsigned int count = 0;

	while ((p = strstr(p, text)) != NULL) {
		count++;
		p++;
	}
	return count;
}

static void test_answer_parse(void **state ATTR_UNUSED)
{
#define OTHER "proxy=y", "host=192.0.2.1"
#define ID(id) "director_id=" id
#define DEADLINE "director_deadline=18446744073709551615"
#define HASH "user_director_hash=4294967295"
	static const struct {
		const char *fields[7];
		int ret;
	} tests[] = {
		{ { OTHER, NULL }, 0 },
		{ { OTHER, DEADLINE, HASH, NULL }, 0 },
		{ { OTHER, "director_idx=1", NULL }, 0 },
		{ { OTHER, ID("0-f"), DEADLINE, HASH, NULL }, 1 },
		{ { OTHER, HASH, DEADLINE, ID("1"), NULL }, 1 },
		{ { OTHER, ID("0123456789abcdef0123456789abcdef"
			      "0123456789abcdef0123456789abcdef"),
		    DEADLINE, HASH, NULL }, 1 },
		{ { OTHER, ID("0123456789abcdef0123456789abcdef"
			      "0123456789abcdef0123456789abcdef0"),
		    DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID(""), DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID("A"), DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID("a b"), DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, NULL }, -1 },
		{ { OTHER, ID("1"), HASH, NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, "user_director_hash=0",
		    NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, "user_director_hash=",
		    NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, "user_director_hash=4294967296",
		    NULL }, -1 },
		{ { OTHER, ID("1"), HASH, "director_deadline=-1", NULL }, -1 },
		{ { OTHER, ID("1"), HASH, "director_deadline=1s", NULL }, -1 },
		{ { OTHER, ID("1"), HASH,
		    "director_deadline=18446744073709551616", NULL }, -1 },
	};
	struct director_answer answer;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		error = NULL;
		assert_int_equal(director_answer_parse(tests[i].fields, &answer,
						       &error), tests[i].ret);
		assert_int_equal(error != NULL, tests[i].ret < 0);
		if (tests[i].ret > 0) {
			assert_int_equal(answer.hash, UINT32_MAX);
			assert_true(answer.deadline_msecs == UINT64_MAX);
		}
	}
}

static void test_lifecycle(void **state ATTR_UNUSED)
{
	struct test_client client, other;
	char long_user[1000];

	/* nothing connects before the first session */
	run_turn();
	assert_true(net_accept(fd_listen, NULL, NULL) < 0);

	assert_non_null(start(&client, "a1", 7, &ip1, "u\tx@y"));
	accept_link();
	expect("ANNOUNCED\n");
	assert_true(str_begins_with(str_c(received), t_strdup_printf(
		"VERSION\tdirector-login-plugin\t1\t0\n"
		"PROCESS\t%ld\timap\nSTART\ta1\t7\t192.0.2.1\t",
		(long)getpid())));
	assert_non_null(strstr(str_c(received), "\tu\001tx@y\nANNOUNCED\n"));

	/* told at once, and only once */
	assert_null(start(&other, "a1", 8, &ip1, "other"));
	memset(long_user, 'u', sizeof(long_user));
	long_user[sizeof(long_user)-1] = '\0';
	assert_non_null(start(&other, "a2", 7, &ip2, long_user));
	read_all();
	assert_non_null(strstr(str_c(received), "START\ta2\t7\t2001:db8::1\t"));
	assert_int_equal(count_text("START\t"), 2);
	assert_true(str_len(received) < 600);

	director_link_up(director, client.session, &ip1);
	director_link_up(director, other.session, &ip1);
	director_link_end(director, &client.session, "a\tb\nc");
	assert_null(client.session);
	director_link_end(director, &client.session, "again");
	director_link_end(director, &other.session, long_user);
	/* these wait for company */
	read_all();
	assert_int_equal(count_text("UP\t"), 0);
	assert_int_equal(count_text("END\t"), 0);
	expect("END\ta2\tuuu");
	assert_non_null(strstr(str_c(received),
			       "UP\ta1\nUP\ta2\t192.0.2.1\n"
			       "END\ta1\ta\001tb\001nc\nEND\ta2\tuuu"));
	assert_int_equal(count_text("END\t"), 2);

	/* the token is free again */
	assert_non_null(start(&client, "a1", 7, &ip1, "user"));

	/* a START takes along what waits, and in order */
	director_link_end(director, &client.session, "third");
	assert_non_null(start(&other, "a3", 7, &ip1, "user"));
	read_all();
	assert_non_null(strstr(str_c(received), "END\ta1\tthird\nSTART\ta3\t"));

	/* nothing is lost when the process ends */
	director_link_end(director, &other.session, "fourth");
	director_link_deinit(&director);
	read_all();
	assert_non_null(strstr(str_c(received), "END\ta3\tfourth\n"));
	director = director_link_init(SOCKET_PATH, "imap", test_kick);
}

static void test_names(void **state ATTR_UNUSED)
{
	struct director_answer answer = { .token = "b1", .hash = 7 };
	const char *const fields[] = {
		"user=jane", "destuser=jane", "proxy=y", "user_a=x\ty",
		"user_director_hash=7", "user_b=", "userdb_mail=z",
		t_strdup_printf("user_long=%0300d", 0), "user_c=3", NULL
	};
	const char *const dest[] = {
		"destuser=other", "user_1=", "user_2=", "user_3=", "user_4=",
		"user_5=", "user_6=", "user_7=", "user_8=", NULL
	};
	struct test_client client, second;

	answer.fields = fields;
	client.session = director_link_start(director, &answer, &ip1, "jane",
					     &client);
	accept_link();
	expect("ANNOUNCED\n");
	assert_non_null(strstr(str_c(received), "\tjane\tuser_a=x\001ty\t"
			       "user_b=\tuser_c=3\nANNOUNCED"));
	answer.token = "b2";
	answer.fields = dest;
	second.session = director_link_start(director, &answer, &ip1, "jane",
					     &second);
	expect("\tjane\tdestuser=other\tuser_1=\tuser_2=\tuser_3=\tuser_4=\t"
	       "user_5=\tuser_6=\tuser_7=\n");
	/* and each time that it is announced */
	test_disconnect();
	accept_link();
	expect("\tuser_c=3\n");
	director_link_end(director, &client.session, "");
	director_link_end(director, &second.session, "");
}

static void test_kick_sessions(void **state ATTR_UNUSED)
{
	struct test_client clients[5];

	start(&clients[0], "a0", 7, &ip1, "user");
	start(&clients[1], "a1", 7, &ip2, "user");
	start(&clients[2], "a2", 7, &ip1, "other");
	start(&clients[3], "a3", UINT32_MAX, &ip1, "user");
	start(&clients[4], "a4", 8, &ip1, "user");
	director_link_up(director, clients[1].session, &ip2);
	accept_link();
	send_text(HELLO"UNKNOWN\tx\nKICK\t9\n"
		  "KICK\t7\t2001:db8::1\treason\tfurther\targuments\n");
	expect("END\ta2\t");
	expect("END\ta0\t");
	assert_int_equal(kicked, 2);
	assert_non_null(clients[1].session);

	send_text("KICK\t7\nKICK\t4294967295\nKICK\t7\n");
	expect("END\ta1\t");
	expect("END\ta3\t");
	assert_int_equal(kicked, 4);
	assert_non_null(clients[4].session);
	assert_int_equal(count_text("END\t"), 4);
	assert_int_equal(errors_logged, 0);
}

static void test_kick_backend(void **state ATTR_UNUSED)
{
	struct test_client clients[4];

	start(&clients[0], "a0", 7, &ip1, "user");
	start(&clients[1], "a1", 7, &ip2, "user");
	start(&clients[2], "a2", 8, &ip1, "other");
	start(&clients[3], "a3", 9, &ip2, "third");
	director_link_up(director, clients[2].session, &ip1);
	accept_link();
	send_text(HELLO"KICK-BACKEND\t192.0.2.9\tx\n"
		  "KICK-BACKEND\t192.0.2.1\tbackend was removed\n");
	expect("END\ta0\t");
	expect("END\ta2\t");
	assert_int_equal(kicked, 2);
	assert_string_equal(kick_reason,
			    "Kicked by director: backend was removed");
	send_text("KICK-BACKEND\t2001:db8::1\n");
	expect("END\ta1\t");
	expect("END\ta3\t");
	assert_int_equal(kicked, 4);
	assert_int_equal(errors_logged, 0);
}

static void test_kick_reason(void **state ATTR_UNUSED)
{
	static const struct {
		const char *fields, *reason;
	} tests[] = {
		{ "", "Kicked by director" },
		{ "\t", "Kicked by director" },
		{ "\t\t", "Kicked by director" },
		{ "\t192.0.2.9", "Kicked by director" },
		{ "\t192.0.2.9\tjust so", "Kicked by director: just so" },
		{ "\t\tkicked by\001tdoveadm\tmore",
		  "Kicked by director: kicked by?doveadm" },
	};
	struct test_client client;
	unsigned int i;

	start(&client, "other", 8, &ip1, "user");
	accept_link();
	send_text(HELLO);
	for (i = 0; i < N_ELEMENTS(tests); i++) {
		const char *token = t_strdup_printf("a%u", i);

		start(&client, token, 7, &ip1, "user");
		send_text(t_strdup_printf("KICK\t7%s\n", tests[i].fields));
		expect(t_strdup_printf("END\t%s\tKicked by director", token));
		assert_string_equal(kick_reason, tests[i].reason);
	}
	start(&client, "long", 7, &ip1, "user");
	send_text(t_strdup_printf("KICK\t7\t\t%0500d\n", 0));
	expect("END\tlong\t");
	assert_true(strlen(kick_reason) <=
		    strlen("Kicked by director: ") + 255);
	assert_int_equal(kicked, N_ELEMENTS(tests) + 1);
	assert_int_equal(errors_logged, 0);
}

static void test_kick_one(void **state ATTR_UNUSED)
{
	struct test_client a, b;

	start(&a, "a1", 1, &ip1, "a");
	accept_link();
	expect("ANNOUNCED\n");
	start(&b, "b1", 1, &ip1, "b");
	/* unknown ones have ended already */
	send_text(HELLO "KICK-SESSION\tx1\nKICK-SESSION\tb1\twhy\n"
		  "KICK-SESSION\tb1\n");
	expect("END\tb1\t");
	assert_int_equal(kicked, 1);
	assert_string_equal(kick_reason, "Kicked by director: why");
	assert_null(b.session);
	assert_non_null(a.session);
	assert_int_equal(errors_logged, 0);
	director_link_end(director, &a.session, "");
}

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

	/* No sessions: no reconnecting, until there's one again. */
	director_link_end(director, &clients[0].session, "closed");
	director_link_end(director, &clients[2].session, "closed");
	expect("END\ta2\t");
	test_disconnect();
	for (unsigned int i = 0; i < 250; i++)
		run_turn();
	assert_true(net_accept(fd_listen, NULL, NULL) < 0);
	start(&clients[0], "b0", 1, &ip1, "user0");
	accept_link();
	expect("ANNOUNCED\n");
	assert_int_equal(count_text("START\t"), 1);
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_answer_parse),
		TEST(test_lifecycle),
		TEST(test_names),
		TEST(test_kick_sessions),
		TEST(test_kick_backend),
		TEST(test_kick_reason),
		TEST(test_kick_one),
		TEST(test_reconnect),
		TEST(test_no_director),
		TEST(test_director_hangs),
		TEST(test_garbage),
		TEST(test_unknown_commands),
		TEST(test_director_does_not_read),
		TEST(test_many_sessions),
		TEST(test_no_wait_for_retry),
		TEST(test_absent),
	};

	return run_test_cases(tests);
}
