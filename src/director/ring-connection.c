/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "connection.h"
#include "ioloop.h"
#include "istream.h"
#include "ostream.h"
#include "time-util.h"
#include "master-service-private.h"
#include "director-daemon.h"
#include "director-settings.h"
#include "listener.h"
#include "ring-connection.h"

/* So long lines are handled before others have their turn; longer in a
   handshake, which may have millions of users. The clock is looked at after so
   many lines. */
#define RING_TURN_NSECS (500*1000)
#define RING_HANDSHAKE_TURN_NSECS (3*1000*1000)
#define RING_TURN_LINES 32
/* What one read() may bring; the line's own limit is RING_LINE_MAX. */
#define RING_INPUT_SIZE (64*1024)
/* The core is told that there is room again below this. */
#define RING_DRAINED_SIZE (64*1024)

struct ring_connection {
	struct connection conn;
	struct ring_peer *peer;
	struct timeout *to_input;

	uint64_t bytes_in;
	size_t peak_buffered;
	time_t last_input, last_output;

	/* Our own connect(); else accepted */
	bool outgoing:1;
	bool connected:1;
};

static struct connection_list *ring_servers, *ring_clients;
static uoff_t ring_max_output;
/* Of all connections that there were */
static uint64_t ring_bytes_in, ring_bytes_out;

static struct ring_connection *ring_connection(struct connection *conn)
{
	return container_of(conn, struct ring_connection, conn);
}

static void ring_free(struct ring_connection *rc)
{
	bool accepted = !rc->outgoing;

	timeout_remove(&rc->to_input);
	connection_deinit(&rc->conn);
	i_free(rc);
	if (accepted)
		master_service_client_connection_destroyed(master_service);
}

/* The other side closed, or something failed. */
static void ring_closed(struct ring_connection *rc, const char *reason)
{
	struct director_time now = director_daemon_now();
	struct ring_peer *peer = rc->peer;

	rc->peer = NULL;
	if (peer != NULL) {
		ring_peer_closed(director_daemon.core, peer, reason, &now);
		director_daemon_commit();
		director_daemon_schedule();
	}
	ring_free(rc);
}

static const char *ring_closed_reason(struct ring_connection *rc)
{
	struct connection *conn = &rc->conn;

	if (conn->input != NULL && conn->input->stream_errno != 0) {
		return t_strdup_printf("Connection closed: %s",
				       i_stream_get_error(conn->input));
	}
	if (conn->output != NULL && conn->output->stream_errno != 0) {
		return t_strdup_printf("Connection closed: %s",
				       o_stream_get_error(conn->output));
	}
	return "Connection closed";
}

static void ring_destroy(struct connection *conn)
{
	struct ring_connection *rc = ring_connection(conn);

	ring_closed(rc, ring_closed_reason(rc));
}

/* -- Input -- */

/* Returns the next line, or NULL if there is none yet. *problem_r is set if the
   line is none. */
static const char *
ring_next_line(struct ring_connection *rc, const char **problem_r)
{
	const unsigned char *data, *end;
	size_t size;
	const char *line;

	*problem_r = NULL;
	data = i_stream_get_data(rc->conn.input, &size);
	end = size == 0 ? NULL : memchr(data, '\n', size);
	if ((end == NULL ? size : (size_t)(end - data)) > RING_LINE_MAX) {
		*problem_r = "Too long input line";
		return NULL;
	}
	if (end == NULL)
		return NULL;
	if (memchr(data, '\0', end - data) != NULL) {
		*problem_r = "Line with NUL";
		return NULL;
	}
	line = i_stream_next_line(rc->conn.input);
	rc->bytes_in += end - data + 1;
	ring_bytes_in += end - data + 1;
	rc->last_input = ioloop_time;
	return line;
}

static void ring_resume(struct ring_connection *rc);

/* After so many lines, which began at that time */
static bool ring_turn_is_over(const struct ring_connection *rc,
			      unsigned int count, uint64_t began)
{
	return count > 0 && count % RING_TURN_LINES == 0 &&
		i_nanoseconds() - began >=
		(rc->peer->state == RING_PEER_DONE ? RING_TURN_NSECS :
		 RING_HANDSHAKE_TURN_NSECS);
}

static void ring_lines(struct ring_connection *rc)
{
	struct director *core = director_daemon.core;
	struct director_time now = director_daemon_now();
	const char *line, *problem = NULL;
	uint64_t began = i_nanoseconds();
	unsigned int count = 0;
	bool more = TRUE, over = FALSE;

	while (more && !(over = ring_turn_is_over(rc, count, began)) &&
	       (line = ring_next_line(rc, &problem)) != NULL) {
		more = ring_peer_input(core, rc->peer, line, &now);
		count++;
	}
	if (more && problem != NULL)
		ring_peer_bad_input(core, rc->peer, problem, &now);
	else if (more && over) {
		/* others first */
		connection_input_halt(&rc->conn);
		rc->to_input = timeout_add_short(DIRECTOR_SLICE_PAUSE_MSECS,
						 ring_resume, rc);
	}
	/* may close it */
	ring_input_end(core, &now);
	director_daemon_commit();
	director_daemon_schedule();
}

static void ring_resume(struct ring_connection *rc)
{
	timeout_remove(&rc->to_input);
	connection_input_resume(&rc->conn);
	ring_lines(rc);
}

static void ring_input(struct connection *conn)
{
	struct ring_connection *rc = ring_connection(conn);

	/* lines that came before the end count */
	if (i_stream_read(conn->input) == -1 &&
	    i_stream_get_data_size(conn->input) == 0)
		ring_destroy(conn);
	else
		ring_lines(rc);
}

/* -- Output -- */

static int ring_flush(struct ring_connection *rc)
{
	struct director_time now;
	int ret = o_stream_flush(rc->conn.output);

	if (ret < 0 || rc->peer == NULL)
		return 1;
	rc->last_output = ioloop_time;
	if (o_stream_get_buffer_used_size(rc->conn.output) <
	    RING_DRAINED_SIZE) {
		now = director_daemon_now();
		ring_peer_drained(director_daemon.core, rc->peer, &now);
		director_daemon_schedule();
	}
	return ret;
}

static void ring_set_streams(struct ring_connection *rc)
{
	o_stream_set_no_error_handling(rc->conn.output, TRUE);
	o_stream_set_flush_callback(rc->conn.output, ring_flush, rc);
	net_set_tcp_nodelay(rc->conn.fd_out, TRUE);
}

static void ring_output_full(struct ring_connection *rc)
{
	timeout_remove(&rc->to_input);
	ring_closed(rc, t_strdup_printf(
		"Output buffer is full (director_output_buffer_size = %"PRIuUOFF_T
		"), it doesn't read", ring_max_output));
}

static void
ring_vfunc_send(void *context ATTR_UNUSED, struct ring_peer *peer,
		const void *data, size_t size)
{
	struct ring_connection *rc = peer->connection;
	size_t used;

	if (rc->conn.output->closed)
		return;
	o_stream_nsend(rc->conn.output, data, size);
	ring_bytes_out += size;
	rc->last_output = ioloop_time;
	used = o_stream_get_buffer_used_size(rc->conn.output);
	if (used > rc->peak_buffered)
		rc->peak_buffered = used;
	if (used > ring_max_output && rc->to_input == NULL) {
		/* not from within the core */
		connection_input_halt(&rc->conn);
		rc->to_input = timeout_add_short(0, ring_output_full, rc);
	}
}

static size_t
ring_vfunc_queued(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	struct ring_connection *rc = peer->connection;

	return rc == NULL || rc->conn.output == NULL ? 0 :
		o_stream_get_buffer_used_size(rc->conn.output);
}

static void
ring_vfunc_close(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	struct ring_connection *rc = peer->connection;

	if (rc == NULL)
		return;
	rc->peer = NULL;
	if (rc->conn.output != NULL)
		(void)o_stream_flush(rc->conn.output);
	ring_free(rc);
}

/* -- Connecting -- */

static void ring_client_connected(struct connection *conn, bool success)
{
	struct ring_connection *rc = ring_connection(conn);
	struct director_time now;

	if (!success) {
		/* destroy() follows */
		return;
	}
	ring_set_streams(rc);
	rc->connected = TRUE;
	now = director_daemon_now();
	ring_peer_connected(director_daemon.core, rc->peer, &now);
	director_daemon_schedule();
}

static void ring_client_destroy(struct connection *conn)
{
	struct ring_connection *rc = ring_connection(conn);
	const char *reason = rc->connected ? ring_closed_reason(rc) :
		t_strdup_printf("connect(%s) failed: %s", conn->name,
				strerror(conn->connect_failed_errno));

	ring_closed(rc, reason);
}

static void
ring_vfunc_connect(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	const struct ring_address *address = &peer->member->address;
	const struct ring_member *self =
		ring_self(director_ring(director_daemon.core));
	struct ring_connection *rc;

	rc = i_new(struct ring_connection, 1);
	rc->outgoing = TRUE;
	rc->peer = peer;
	peer->connection = rc;
	rc->conn.event_parent = director_daemon.event;
	connection_init_client_ip_from(ring_clients, &rc->conn, NULL,
				       &address->ip, address->port,
				       &self->address.ip);
	(void)connection_client_connect_async(&rc->conn);
}

void ring_connection_create(struct master_service_connection *conn)
{
	struct director_time now = director_daemon_now();
	struct ring_connection *rc;
	struct ring_peer *peer;

	peer = ring_peer_accept(director_daemon.core, &conn->remote_ip, &now);
	if (peer == NULL)
		return;
	master_service_client_connection_accept(conn);
	rc = i_new(struct ring_connection, 1);
	rc->peer = peer;
	rc->connected = TRUE;
	peer->connection = rc;
	rc->conn.event_parent = director_daemon.event;
	connection_init_server_ip(ring_servers, &rc->conn, NULL, conn->fd,
				  conn->fd, &conn->remote_ip,
				  conn->remote_port);
	ring_set_streams(rc);
	director_daemon_schedule();
}

const struct ring_vfuncs ring_connection_vfuncs = {
	.connect = ring_vfunc_connect,
	.send = ring_vfunc_send,
	.queued = ring_vfunc_queued,
	.close = ring_vfunc_close,
};

void ring_connection_get_stats(const struct ring_peer *peer,
			       struct ring_connection_stats *stats_r)
{
	const struct ring_connection *rc = peer->connection;

	i_zero(stats_r);
	if (rc == NULL || rc->conn.output == NULL)
		return;
	stats_r->bytes_in = rc->bytes_in;
	stats_r->buffered = o_stream_get_buffer_used_size(rc->conn.output);
	stats_r->bytes_out = rc->conn.output->offset;
	stats_r->peak_buffered = rc->peak_buffered;
	stats_r->last_input = rc->last_input;
	stats_r->last_output = rc->last_output;
}

void ring_connections_get_bytes(uint64_t *in_r, uint64_t *out_r)
{
	*in_r = ring_bytes_in;
	*out_r = ring_bytes_out;
}

static const struct connection_vfuncs ring_server_vfuncs = {
	.destroy = ring_destroy,
	.input = ring_input,
};

static const struct connection_vfuncs ring_client_vfuncs = {
	.destroy = ring_client_destroy,
	.client_connected = ring_client_connected,
	.input = ring_input,
};

void ring_connections_init(const struct director_settings *set)
{
	struct connection_settings conn_set = {
		.dont_send_version = TRUE,
		.input_max_size = RING_INPUT_SIZE,
		.input_full_behavior = CONNECTION_BEHAVIOR_ALLOW,
		.output_max_size = SIZE_MAX,
	};

	ring_max_output = set->director_output_buffer_size;
	ring_servers = connection_list_init(&conn_set, &ring_server_vfuncs);
	conn_set.client = TRUE;
	ring_clients = connection_list_init(&conn_set, &ring_client_vfuncs);
}

void ring_connections_deinit(void)
{
	connection_list_deinit(&ring_servers);
	connection_list_deinit(&ring_clients);
}

/* -- Who we are -- */

in_port_t ring_listener_port(struct ip_addr *ip_r)
{
	const struct master_service_listener *listener;
	unsigned int i;
	in_port_t port;

	for (i = 0; i < master_service->socket_count; i++) {
		listener = &master_service->listeners[i];
		if (net_getsockname(listener->fd, ip_r, &port) < 0 ||
		    ip_r->family == 0 || port == 0 ||
		    listener_get_type(listener->name, listener->type, FALSE,
				      TRUE) != LISTENER_RING)
			continue;
		if (net_ip_compare(ip_r, IPADDR_IS_V4(ip_r) ?
				   &net_ip4_any : &net_ip6_any))
			i_zero(ip_r);
		return port;
	}
	i_zero(ip_r);
	return 0;
}

/* Can we bind to it? */
static bool is_own_address(const struct ip_addr *ip)
{
	in_port_t port = 0;
	int fd = net_listen(ip, &port, 1);

	if (fd == -1)
		return FALSE;
	net_disconnect(fd);
	return TRUE;
}

int ring_find_self(const struct ring_address *members, unsigned int count,
		   struct ring_address *self_r, const char **error_r)
{
	struct ip_addr ip;
	in_port_t port = ring_listener_port(&ip);
	unsigned int i;

	i_zero(self_r);
	if (count == 0)
		return 0;
	if (port == 0) {
		*error_r = "director_servers is set, but there is no listener "
			"for the ring: set port in service director { "
			"inet_listener director { port = 9090 } }";
		return -1;
	}
	for (i = 0; i < count; i++) {
		if (members[i].port != port)
			continue;
		if (ip.family != 0 ? net_ip_compare(&ip, &members[i].ip) :
		    is_own_address(&members[i].ip)) {
			*self_r = members[i];
			return 0;
		}
	}
	if (ip.family == 0)
		*error_r = "director_servers doesn't list ourself";
	else {
		*error_r = t_strdup_printf(
			"director_servers doesn't list ourself (%s)",
			net_ipport2str(&ip, port));
	}
	return -1;
}
