#ifndef TEST_LOGIN_LINK_H
#define TEST_LOGIN_LINK_H

/* The login plugin's connection; the director's side is a plain socket (of the
   path SOCKET_PATH) that is read and written by hand. */

#include "test-unit.h"
#include "ioloop.h"
#include "net.h"
#include "str.h"
#include "login-director/director-link.h"

#include <unistd.h>

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

static inline void
test_kick(struct director_session *session, const char *reason)
{
	struct test_client *client = session->context;

	assert_ptr_equal(client->session, session);
	kicked++;
	i_strocpy(kick_reason, reason, sizeof(kick_reason));
	director_link_end(director, &client->session, reason);
	assert_null(client->session);
}

static inline void
test_error_handler(const struct failure_context *ctx,
		   const char *format ATTR_UNUSED,
			       va_list args ATTR_UNUSED)
{
	if (ctx->type == LOG_TYPE_ERROR)
		errors_logged++;
}

static inline void test_listen(void)
{
	fd_listen = net_listen_unix_unlink_stale(SOCKET_PATH, 16);
	assert_true(fd_listen != -1);
	net_set_nonblock(fd_listen, TRUE);
}

static inline void test_unlisten(void)
{
	i_close_fd(&fd_listen);
	i_unlink(SOCKET_PATH);
}

static inline void test_disconnect(void)
{
	i_close_fd(&fd_conn);
	str_truncate(received, 0);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
	director_link_deinit(&director);
	test_disconnect();
	if (fd_listen != -1)
		test_unlisten();
	str_free(&received);
	io_loop_destroy(&ioloop);
	return test_frame_teardown(state);
}

static inline void test_timeout(void *context ATTR_UNUSED)
{
	timed_out = TRUE;
	io_loop_stop(ioloop);
}

static inline void test_turn(void *context ATTR_UNUSED)
{
	io_loop_stop(ioloop);
}

/* Runs the ioloop once, for a short time at most. */
static inline void run_turn(void)
{
	struct timeout *to;

	to = timeout_add_short(5, test_turn, (void *)NULL);
	io_loop_run(ioloop);
	timeout_remove(&to);
}

static inline void read_all(void)
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

static inline void answer_pings(void)
{
	const char *p = str_c(received);

	while (answers_pings && fd_conn != -1 &&
	       (p = strstr(p, "PING\n")) != NULL) {
		str_delete(received, p - str_c(received), strlen("PING\n"));
		assert_int_equal(write(fd_conn, "PONG\n", 5), 5);
	}
}

static inline void accept_link(void)
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
static inline void expect(const char *text)
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
static inline void expect_eof(void)
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

static inline void send_bytes(const void *data, size_t size)
{
	assert_int_equal(write(fd_conn, data, size), size);
}

static inline void send_text(const char *text)
{
	send_bytes(text, strlen(text));
}

static inline struct director_session *
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

static inline unsigned int count_text(const char *text)
{
	const char *p = str_c(received);
	unsigned int count = 0;

	while ((p = strstr(p, text)) != NULL) {
		count++;
		p++;
	}
	return count;
}

#define login_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
