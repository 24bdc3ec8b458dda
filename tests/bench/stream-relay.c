/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The same as copy-relay, made of what Dovecot's own services are made of:
   libdovecot's ioloop, connections and streams. */

#include "lib.h"
#include "connection.h"
#include "ioloop.h"
#include "istream.h"
#include "net.h"
#include "ostream.h"

#include <sys/stat.h>

#define HOST "\thost=127.0.0.11"

struct relay {
	struct connection login, auth;
};

static struct connection_list *logins, *auths;
static const char *auth_path;

static void relay_destroy(struct relay *relay)
{
	connection_deinit(&relay->login);
	connection_deinit(&relay->auth);
	i_free(relay);
}

static void login_destroy(struct connection *conn)
{
	relay_destroy(container_of(conn, struct relay, login));
}

static void auth_destroy(struct connection *conn)
{
	relay_destroy(container_of(conn, struct relay, auth));
}

static void login_input(struct connection *conn)
{
	struct relay *relay = container_of(conn, struct relay, login);
	const unsigned char *data;
	size_t size;

	if (connection_input_read(conn) < 0)
		return;
	data = i_stream_get_data(conn->input, &size);
	o_stream_nsend(relay->auth.output, data, size);
	i_stream_skip(conn->input, size);
}

static void auth_input(struct connection *conn)
{
	struct relay *relay = container_of(conn, struct relay, auth);
	const unsigned char *data, *line, *lf, *end;
	size_t size;

	if (connection_input_read(conn) < 0)
		return;
	data = i_stream_get_data(conn->input, &size);
	end = data + size;
	o_stream_cork(relay->login.output);
	for (line = data; line < end &&
	     (lf = memchr(line, '\n', end - line)) != NULL; line = lf + 1) {
		o_stream_nsend(relay->login.output, line, lf - line);
		if (memcmp(line, "OK\t", 3) == 0)
			o_stream_nsend_str(relay->login.output, HOST);
		o_stream_nsend(relay->login.output, "\n", 1);
	}
	o_stream_uncork(relay->login.output);
	i_stream_skip(conn->input, line - data);
}

static void relay_accept(int *listen_fd)
{
	struct relay *relay;
	int fd = net_accept(*listen_fd, NULL, NULL);

	if (fd < 0)
		return;
	relay = i_new(struct relay, 1);
	connection_init_client_unix(auths, &relay->auth, auth_path);
	if (connection_client_connect(&relay->auth) < 0)
		i_fatal("connect(%s) failed: %m", auth_path);
	connection_init_server(logins, &relay->login, "login", fd, fd);
	o_stream_set_no_error_handling(relay->auth.output, TRUE);
	o_stream_set_no_error_handling(relay->login.output, TRUE);
	connection_set_handshake_ready(&relay->auth);
	connection_set_handshake_ready(&relay->login);
}

int main(int argc, char *argv[])
{
	const struct connection_settings login_set = {
		.dont_send_version = TRUE,
		.input_max_size = 64 * 1024,
		.output_max_size = SIZE_MAX,
	}, auth_set = {
		.dont_send_version = TRUE,
		.input_max_size = 64 * 1024,
		.output_max_size = SIZE_MAX,
		.client = TRUE,
	};
	const struct connection_vfuncs login_vfuncs = {
		.destroy = login_destroy,
		.input = login_input,
	}, auth_vfuncs = {
		.destroy = auth_destroy,
		.input = auth_input,
	};
	struct ioloop *ioloop;
	int listen_fd;

	lib_init();
	if (argc != 3)
		i_fatal("stream-relay <login socket to make> <auth socket>");
	ioloop = io_loop_create();
	logins = connection_list_init(&login_set, &login_vfuncs);
	auths = connection_list_init(&auth_set, &auth_vfuncs);
	auth_path = argv[2];
	/* login processes aren't root */
	umask(0);
	if ((listen_fd = net_listen_unix(argv[1], 1024)) < 0)
		i_fatal("net_listen_unix(%s) failed: %m", argv[1]);
	(void)io_add(listen_fd, IO_READ, relay_accept, &listen_fd);
	io_loop_run(ioloop);
	return 0;
}
