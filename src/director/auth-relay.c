/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The relay's two connections: who is open, who may be read from. */

#include "lib.h"
#include "ioloop.h"
#include "istream.h"
#include "ostream.h"
#include "str-sanitize.h"
#include "strescape.h"
#include "master-service.h"
#include "auth-relay-private.h"

#include <unistd.h>

/* Longest line of either protocol that we can handle; auth's own limit is 16 kB
   of a SASL response in base64, and fields around it. */
#define RELAY_MAX_LINE_LEN (128*1024)
/* The other side isn't read from while this much waits to be sent */
#define RELAY_OUTPUT_THROTTLE_SIZE (128*1024)
/* auth isn't read from while this much is held for logins that wait */
#define RELAY_MAX_HELD_LOOKUPS 4096
#define RELAY_MAX_HELD_BYTES (1024*1024)

/* auth's listen queue may be full for a moment. If it is for long, thousands of
   relays may try: each try waits longer than the one before, 10 s in all. */
#define RELAY_CONNECT_RETRY_MSECS 20
#define RELAY_CONNECT_MAX_TRIES 31

#define AUTHREPLY_SERVICE_SERVER "director-authreply-server"
#define AUTHREPLY_SERVICE_CLIENT "director-authreply-client"

static const char *const auth_sockets[AUTH_RELAY_TYPE_COUNT] = {
	[AUTH_RELAY_LOGIN] = "auth-login",
	[AUTH_RELAY_USERDB] = "auth-userdb",
	[AUTH_RELAY_AUTHREPLY] = NULL,
};

static struct connection_list *relay_clients, *relay_auths;
static char *relay_base_dir;

static bool relay_output_full(struct connection *conn)
{
	return conn->output != NULL && !conn->output->closed &&
		o_stream_get_buffer_used_size(conn->output) >=
		RELAY_OUTPUT_THROTTLE_SIZE;
}

static void relay_set_input(struct connection *conn, bool readable)
{
	if (!readable)
		connection_input_halt(conn);
	else if (conn->io == NULL && !conn->disconnected)
		connection_input_resume(conn);
}

void auth_relay_update_input(struct auth_relay *relay)
{
	bool room = !relay_output_full(&relay->client) &&
		relay->lookups_count < RELAY_MAX_HELD_LOOKUPS &&
		relay->lookups_bytes < RELAY_MAX_HELD_BYTES;

	if (relay->destroying)
		return;
	if (relay->type == AUTH_RELAY_AUTHREPLY) {
		relay_set_input(&relay->client, room);
		return;
	}
	if (!relay->auth_connected)
		return;
	relay_set_input(&relay->auth, room);
	relay_set_input(&relay->client, !relay_output_full(&relay->auth));
}

static void relay_destroy(struct auth_relay *relay)
{
	if (relay->destroying)
		return;
	relay->destroying = TRUE;

	timeout_remove(&relay->to_connect);
	auth_relay_lookups_free(relay);
	if (relay->process != NULL) {
		login_process_unref(director_leases(director_daemon.core),
				    &relay->process);
	}
	if (relay->type != AUTH_RELAY_AUTHREPLY)
		connection_deinit(&relay->auth);
	connection_deinit(&relay->client);
	i_free(relay);
	master_service_client_connection_destroyed(master_service);
}

static void relay_client_destroy(struct connection *conn)
{
	struct auth_relay *relay =
		container_of(conn, struct auth_relay, client);

	if (conn->disconnect_reason == CONNECTION_DISCONNECT_BUFFER_FULL) {
		e_error(conn->event, "Line longer than %u bytes, "
			"disconnecting", RELAY_MAX_LINE_LEN);
	}
	relay_destroy(relay);
}

static void relay_auth_destroy(struct connection *conn)
{
	struct auth_relay *relay = container_of(conn, struct auth_relay, auth);

	if (relay->destroying)
		return;
	if (conn->disconnect_reason == CONNECTION_DISCONNECT_BUFFER_FULL) {
		e_error(conn->event, "auth sent a line longer than %u bytes, "
			"disconnecting", RELAY_MAX_LINE_LEN);
	} else if (relay->auth_connected &&
		   conn->disconnect_reason != CONNECTION_DISCONNECT_DEINIT) {
		e_error(conn->event, "Auth server disconnected unexpectedly");
	}
	relay_destroy(relay);
}

/* Reads what is there. Returns FALSE if there is no whole line (the relay may
   be gone). */
static bool relay_read_lines(struct connection *conn,
			     const unsigned char **data_r, size_t *size_r)
{
	const unsigned char *p;
	size_t size;

	if (connection_input_read(conn) < 0)
		return FALSE;
	*data_r = i_stream_get_data(conn->input, &size);
	if (size == 0 || (p = memrchr(*data_r, '\n', size)) == NULL)
		return FALSE;
	*size_r = p + 1 - *data_r;
	return TRUE;
}

static void relay_auth_input(struct connection *conn)
{
	struct auth_relay *relay = container_of(conn, struct auth_relay, auth);
	const unsigned char *data;
	size_t size;

	if (!relay_read_lines(conn, &data, &size))
		return;
	auth_relay_replies(relay, (const char *)data, size);
	i_stream_skip(conn->input, size);
}

/* The external auth proxy's greeting. Returns its length with LF, 0 if it was
   wrong. */
static size_t
relay_authreply_handshake(struct connection *conn, const unsigned char *data,
			  size_t size)
{
	const unsigned char *p = memchr(data, '\n', size);
	const char *const *args;
	unsigned int major, minor;

	i_assert(p != NULL);
	args = t_strsplit_tabescaped(t_strdup_until(data, p));
	if (str_array_length(args) < 4 || strcmp(args[0], "VERSION") != 0 ||
	    str_to_uint(args[2], &major) < 0 ||
	    str_to_uint(args[3], &minor) < 0) {
		e_error(conn->event, "Expected 'VERSION\t%s\t1\t<minor>', "
			"got '%s'", AUTHREPLY_SERVICE_CLIENT,
			str_sanitize(t_strdup_until(data, p), 80));
		return 0;
	}
	if (connection_verify_version(conn, args[1], major, minor) < 0)
		return 0;
	connection_set_handshake_ready(conn);
	return p + 1 - data;
}

static void
relay_authreply_input(struct auth_relay *relay, const unsigned char *data,
		      size_t size)
{
	struct connection *conn = &relay->client;
	size_t skip = 0;

	if (!conn->version_received) {
		T_BEGIN {
			skip = relay_authreply_handshake(conn, data, size);
		} T_END;
		if (skip == 0) {
			relay_destroy(relay);
			return;
		}
	}
	if (size > skip) {
		auth_relay_replies(relay, (const char *)data + skip,
				   size - skip);
	}
	i_stream_skip(conn->input, size);
}

static void relay_client_input(struct connection *conn)
{
	struct auth_relay *relay =
		container_of(conn, struct auth_relay, client);
	const unsigned char *data;
	size_t size;

	if (!relay_read_lines(conn, &data, &size))
		return;
	if (relay->type == AUTH_RELAY_AUTHREPLY) {
		relay_authreply_input(relay, data, size);
		return;
	}
	o_stream_nsend(relay->auth.output, data, size);
	auth_relay_requests(relay, (const char *)data, size);
	i_stream_skip(conn->input, size);
}

static int relay_flush(struct auth_relay *relay, struct connection *conn)
{
	int ret = o_stream_flush(conn->output);

	if (ret < 0) {
		/* its input may be halted and wouldn't tell */
		conn->disconnect_reason = CONNECTION_DISCONNECT_CONN_CLOSED;
		conn->v.destroy(conn);
		return ret;
	}
	auth_relay_update_input(relay);
	return ret;
}

static int relay_client_flush(struct auth_relay *relay)
{
	return relay_flush(relay, &relay->client);
}

static int relay_auth_flush(struct auth_relay *relay)
{
	return relay_flush(relay, &relay->auth);
}

static void relay_connected(struct auth_relay *relay)
{
	relay->auth_connected = TRUE;
	connection_set_handshake_ready(&relay->auth);
	o_stream_set_no_error_handling(relay->auth.output, TRUE);
	o_stream_set_flush_callback(relay->auth.output, relay_auth_flush,
				    relay);
	auth_relay_update_input(relay);
}

static void relay_connect(struct auth_relay *relay);

/* errno: of connect() */
static void relay_connect_failed(struct auth_relay *relay)
{
	if ((errno == EAGAIN || errno == ECONNREFUSED) &&
	    ++relay->connect_tries < RELAY_CONNECT_MAX_TRIES) {
		relay->to_connect = timeout_add_short(
			relay->connect_tries * RELAY_CONNECT_RETRY_MSECS,
			relay_connect, relay);
		return;
	}
	e_error(relay->auth.event, "connect(%s) failed: %m",
		relay->auth.base_name);
	relay_destroy(relay);
}

static void relay_connect(struct auth_relay *relay)
{
	timeout_remove(&relay->to_connect);
	if (connection_client_connect(&relay->auth) == 0)
		relay_connected(relay);
	else
		relay_connect_failed(relay);
}

void auth_relay_create(struct master_service_connection *conn,
		       enum auth_relay_type type)
{
	struct auth_relay *relay;
	bool connected = FALSE;
	int error = 0;

	master_service_client_connection_accept(conn);
	relay = i_new(struct auth_relay, 1);
	relay->type = type;
	if (type != AUTH_RELAY_AUTHREPLY) {
		/* first, so that the client needn't wait to be read from */
		connection_init_client_unix(relay_auths, &relay->auth,
			t_strconcat(relay_base_dir, "/", auth_sockets[type],
				    NULL));
		connected = connection_client_connect(&relay->auth) == 0;
		error = errno;
	}
	connection_init_server(relay_clients, &relay->client, conn->name,
			       conn->fd, conn->fd);
	o_stream_set_no_error_handling(relay->client.output, TRUE);
	o_stream_set_flush_callback(relay->client.output, relay_client_flush,
				    relay);
	if (type == AUTH_RELAY_AUTHREPLY) {
		o_stream_nsend_str(relay->client.output,
				   "VERSION\t"AUTHREPLY_SERVICE_SERVER
				   "\t1\t0\n");
		return;
	}

	connection_set_handshake_ready(&relay->client);
	if (connected) {
		relay_connected(relay);
		io_set_pending(relay->client.io);
		return;
	}
	/* nothing is read before there is somebody to forward it to */
	connection_input_halt(&relay->client);
	errno = error;
	relay_connect_failed(relay);
}

static const struct connection_settings client_set = {
	.service_name_in = AUTHREPLY_SERVICE_CLIENT,
	.service_name_out = AUTHREPLY_SERVICE_SERVER,
	.major_version = 1,
	.minor_version = 0,
	.dont_send_version = TRUE,
	.input_max_size = RELAY_MAX_LINE_LEN,
	.output_max_size = SIZE_MAX,
	.client = FALSE,
};

static const struct connection_vfuncs client_vfuncs = {
	.destroy = relay_client_destroy,
	.input = relay_client_input,
};

static const struct connection_settings auth_set = {
	.service_name_in = "auth",
	.service_name_out = "auth",
	.major_version = 1,
	.minor_version = 0,
	.dont_send_version = TRUE,
	.input_max_size = RELAY_MAX_LINE_LEN,
	.output_max_size = SIZE_MAX,
	.client = TRUE,
};

static const struct connection_vfuncs auth_vfuncs = {
	.destroy = relay_auth_destroy,
	.input = relay_auth_input,
};

void auth_relays_init(const char *base_dir)
{
	relay_base_dir = i_strdup(base_dir);
	relay_clients = connection_list_init(&client_set, &client_vfuncs);
	relay_auths = connection_list_init(&auth_set, &auth_vfuncs);
}

void auth_relays_deinit(void)
{
	while (relay_clients->connections != NULL) {
		relay_destroy(container_of(relay_clients->connections,
					   struct auth_relay, client));
	}
	connection_list_deinit(&relay_clients);
	connection_list_deinit(&relay_auths);
	i_free(relay_base_dir);
}
