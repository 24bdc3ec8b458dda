/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* How commands come and answers go; what they do is in admin-commands.c. */

#include "lib.h"
#include "ioloop.h"
#include "istream.h"
#include "ostream.h"
#include "strescape.h"
#include "master-service.h"
#include "director-admin-protocol.h"
#include "director-daemon.h"
#include "admin-connection.h"

/* No more output is made while this much waits to be read */
#define ADMIN_OUTPUT_THROTTLE_SIZE (64*1024)
/* sockets.md §7.1: the longest wait for the ring (here: for the journal) */
#define ADMIN_WAIT_MSECS (30*1000)
#define ADMIN_PROGRESS_MSECS 200

static struct connection_list *admin_connections;
static struct timeout *to_ring_synced;

static void admin_process(struct admin_connection *ac);

static bool admin_is_busy(const struct admin_connection *ac)
{
	return ac->output_more != NULL || ac->waiting_change ||
		ac->waiting_line != NULL || ac->flush != NULL ||
		ac->query != NULL;
}

bool admin_output_has_room(struct admin_connection *ac)
{
	/* What was sent to a client that is gone is never written; its other
	   commands are still executed. */
	return ac->conn.output->closed ||
		o_stream_get_buffer_used_size(ac->conn.output) <
		ADMIN_OUTPUT_THROTTLE_SIZE;
}

static void admin_destroy(struct connection *conn)
{
	struct admin_connection *ac =
		container_of(conn, struct admin_connection, conn);

	timeout_remove(&ac->to_wait);
	timeout_remove(&ac->to_output);
	timeout_remove(&ac->to_flush);
	admin_query_free(ac);
	if (ac->flush != NULL)
		director_flush_unref(&ac->flush, ac->flush_progress);
	i_free(ac->waiting_line);
	connection_deinit(conn);
	i_free(ac);
	master_service_client_connection_destroyed(master_service);
}

void admin_reply(struct admin_connection *ac, const char *line)
{
	struct const_iovec iov[2] = {
		{ .iov_base = line, .iov_len = strlen(line) },
		{ .iov_base = "\n", .iov_len = 1 },
	};

	o_stream_nsendv(ac->conn.output, iov, N_ELEMENTS(iov));
}

void admin_error(struct admin_connection *ac, const char *error)
{
	e_error(ac->conn.event, "%s", error);
	admin_reply(ac, t_strconcat(DIRECTOR_ADMIN_REPLY_ERROR" ", error,
				    NULL));
}

/* -- Waiting for the journal and for the ring -- */

static void admin_wait_done(struct admin_connection *ac, const char *reply)
{
	timeout_remove(&ac->to_wait);
	ac->waiting_change = FALSE;
	i_free(ac->waiting_line);
	admin_reply(ac, reply);
	admin_process(ac);
}

static void admin_wait_timeout(struct admin_connection *ac)
{
	e_error(ac->conn.event, "Ring sync timed out: %s", ac->waiting_line !=
		NULL ? "the command was not executed" :
		"the change was made, but not all directors have confirmed it");
	admin_wait_done(ac, "Ring sync timed out");
}

static bool admin_change_is_known(unsigned int change)
{
	struct director *core = director_daemon.core;

	return director_change_is_recorded(core, change) &&
		ring_is_synced(director_ring(core));
}

void admin_reply_when_recorded(struct admin_connection *ac)
{
	unsigned int change = director_last_change(director_daemon.core);

	if (admin_change_is_known(change)) {
		director_daemon_commit();
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_OK);
		return;
	}
	ac->waiting_change = TRUE;
	ac->wait_change = change;
	ac->to_wait = timeout_add(ADMIN_WAIT_MSECS, admin_wait_timeout, ac);
}

/* Goes on with what it waited for, if it may. */
static void admin_wake(struct admin_connection *ac)
{
	char *line = ac->waiting_line;

	if (ac->waiting_change) {
		if (admin_change_is_known(ac->wait_change)) {
			director_daemon_commit();
			admin_wait_done(ac, DIRECTOR_ADMIN_REPLY_OK);
		}
	} else if (line != NULL &&
		   ring_is_synced(director_ring(director_daemon.core))) {
		timeout_remove(&ac->to_wait);
		ac->waiting_line = NULL;
		T_BEGIN {
			admin_command(ac, t_strsplit_tabescaped(line));
		} T_END;
		i_free(line);
		admin_process(ac);
	}
}

static void admin_connections_wake(void *context ATTR_UNUSED)
{
	struct connection *conn, *next;

	timeout_remove(&to_ring_synced);
	for (conn = admin_connections->connections; conn != NULL; conn = next) {
		next = conn->next;
		admin_wake(container_of(conn, struct admin_connection, conn));
	}
}

void admin_connections_changes_recorded(void)
{
	admin_connections_wake(NULL);
}

void admin_connections_ring_synced(void)
{
	/* we are called by the core */
	if (admin_connections != NULL && to_ring_synced == NULL) {
		to_ring_synced = timeout_add_short(0, admin_connections_wake,
						   (void *)NULL);
	}
}

/* -- Waiting for a flush -- */

static const char *
admin_flush_line(const char *name, const struct user_flush_status *status)
{
	return t_strdup_printf("%s\t%u\t%u\t%u\t%u\t%u\t%u", name,
			       status->users, status->seen, status->moved,
			       status->waiting, status->failed,
			       status->elapsed_msecs);
}

static void admin_flush_ended(struct admin_connection *ac, bool stop)
{
	timeout_remove(&ac->to_flush);
	director_flush_unref(&ac->flush, stop);
	admin_process(ac);
}

static void admin_flush_look(struct admin_connection *ac)
{
	struct director_time now = director_daemon_now();
	struct user_flush_status status;

	timeout_remove(&ac->to_flush);
	director_daemon_commit();
	director_flush_status(ac->flush, &status, &now);
	if (!ac->flush_progress) {
		if (status.begun) {
			admin_reply(ac, DIRECTOR_ADMIN_REPLY_OK);
			admin_flush_ended(ac, FALSE);
		}
		return;
	}
	if (status.ended) {
		admin_reply(ac, admin_flush_line(DIRECTOR_ADMIN_REPLY_OK,
						 &status));
	} else if (admin_output_has_room(ac)) {
		admin_reply(ac, admin_flush_line(DIRECTOR_ADMIN_PROGRESS,
						 &status));
	}
	if (status.ended)
		admin_flush_ended(ac, FALSE);
	else if (ac->conn.output->closed) {
		e_info(ac->conn.event, "Client has gone: the flush stops "
		       "(%u users moved, %u being moved)", status.moved,
		       status.waiting);
		admin_flush_ended(ac, TRUE);
	} else {
		ac->to_flush = timeout_add_short(ADMIN_PROGRESS_MSECS,
						 admin_flush_look, ac);
	}
}

/* We are called by the core. */
static void admin_flush_changed(void *context)
{
	struct admin_connection *ac = context;

	timeout_remove(&ac->to_flush);
	ac->to_flush = timeout_add_short(0, admin_flush_look, ac);
}

bool admin_flush(struct admin_connection *ac, const struct ip_addr *ip,
		 unsigned int max_parallel, bool progress)
{
	struct director_time now = director_daemon_now();

	ac->flush = director_flush_users(director_daemon.core, ip, max_parallel,
					 ADMIN_LOG_PREFIX, admin_flush_changed,
					 ac, &now);
	if (ac->flush == NULL)
		return FALSE;
	ac->flush_progress = progress;
	if (progress)
		ac->to_flush = timeout_add_short(0, admin_flush_look, ac);
	return TRUE;
}

/* -- Long lists -- */

static void admin_output_slice(struct admin_connection *ac)
{
	timeout_remove(&ac->to_output);
	o_stream_cork(ac->conn.output);
	if (!ac->output_more(ac))
		ac->output_more = NULL;
	o_stream_uncork(ac->conn.output);
	if (ac->conn.output->closed) {
		/* nobody to give it to */
		ac->output_more = NULL;
		admin_query_free(ac);
	}
	if (ac->output_more == NULL)
		admin_process(ac);
	else if (admin_output_has_room(ac)) {
		/* others first */
		ac->to_output = timeout_add_short(DIRECTOR_SLICE_PAUSE_MSECS,
						  admin_output_slice, ac);
	}
	/* else the flush callback goes on */
}

void admin_output(struct admin_connection *ac, admin_output_t *output_more)
{
	ac->output_more = output_more;
	ac->to_output = timeout_add_short(DIRECTOR_SLICE_PAUSE_MSECS,
						  admin_output_slice, ac);
}

static int admin_output_flush(struct admin_connection *ac)
{
	int ret = o_stream_flush(ac->conn.output);

	if (ac->to_output != NULL || !admin_output_has_room(ac))
		return ret;
	if (ac->output_more != NULL) {
		ac->to_output = timeout_add_short(DIRECTOR_SLICE_PAUSE_MSECS,
						  admin_output_slice, ac);
	} else if (ac->conn.io == NULL && !admin_is_busy(ac)) {
		/* it was halted because nothing was read */
		ac->to_output = timeout_add_short(0, admin_process, ac);
	}
	return ret;
}

/* -- Input -- */

static void admin_line(struct admin_connection *ac, const char *line)
{
	const char *const *args = t_strsplit_tabescaped(line);
	unsigned int major, minor;

	if (ac->conn.version_received) {
		if (admin_command_waits(args) &&
		    !ring_is_synced(director_ring(director_daemon.core))) {
			ac->waiting_line = i_strdup(line);
			ac->to_wait = timeout_add(ADMIN_WAIT_MSECS,
						  admin_wait_timeout, ac);
		} else {
			admin_command(ac, args);
		}
		return;
	}
	if (str_array_length(args) < 4 || strcmp(args[0], "VERSION") != 0 ||
	    strcmp(args[1], DIRECTOR_ADMIN_SERVICE) != 0 ||
	    str_to_uint(args[2], &major) < 0 ||
	    str_to_uint(args[3], &minor) < 0 ||
	    major != DIRECTOR_ADMIN_MAJOR_VERSION) {
		admin_error(ac, "doveadm not compatible with this server "
			    "(mixed old and new binaries?): expected "
			    "VERSION "DIRECTOR_ADMIN_SERVICE" 1 0");
		ac->conn.disconnect_reason =
			CONNECTION_DISCONNECT_HANDSHAKE_FAILED;
		return;
	}
	(void)connection_verify_version(&ac->conn, args[1], major, minor);
	connection_set_handshake_ready(&ac->conn);
}

/* Skips a line that is too long for the buffer. */
static void admin_skip_line(struct admin_connection *ac)
{
	size_t size;

	(void)i_stream_get_data(ac->conn.input, &size);
	if (!ac->skipping_line) {
		ac->skipping_line = TRUE;
		admin_error(ac, t_strdup_printf(
			"Line is longer than %u bytes",
			DIRECTOR_ADMIN_MAX_LINE_LEN));
	}
	i_stream_skip(ac->conn.input, size);
}

/* A line with a NUL ends there: what it meant isn't known. */
static const char *
admin_next_line(struct admin_connection *ac, bool *has_nul_r)
{
	const unsigned char *data, *end;
	size_t size;

	data = i_stream_get_data(ac->conn.input, &size);
	end = size == 0 ? NULL : memchr(data, '\n', size);
	if (end == NULL)
		return NULL;
	*has_nul_r = memchr(data, '\0', end - data) != NULL;
	return i_stream_next_line(ac->conn.input);
}

/* Executes what was read, as far as nothing has to be waited for. */
static void admin_process(struct admin_connection *ac)
{
	struct connection *conn = &ac->conn;
	const char *line;
	bool has_nul;

	timeout_remove(&ac->to_output);
	if (ac->processing)
		return;
	ac->processing = TRUE;
	o_stream_cork(conn->output);
	while (!admin_is_busy(ac) && admin_output_has_room(ac) &&
	       conn->disconnect_reason == CONNECTION_DISCONNECT_NOT &&
	       (line = admin_next_line(ac, &has_nul)) != NULL) {
		if (ac->skipping_line) {
			ac->skipping_line = FALSE;
			continue;
		}
		T_BEGIN {
			if (has_nul)
				admin_error(ac, "Line with NUL");
			else
				admin_line(ac, line);
		} T_END;
	}
	o_stream_uncork(conn->output);
	ac->processing = FALSE;
	director_daemon_schedule();

	if (conn->disconnect_reason != CONNECTION_DISCONNECT_NOT)
		admin_destroy(conn);
	else if (admin_is_busy(ac) || !admin_output_has_room(ac))
		connection_input_halt(conn);
	else if (conn->io == NULL)
		connection_input_resume(conn);
}

void admin_continue(struct admin_connection *ac)
{
	admin_process(ac);
}

static void admin_input(struct connection *conn)
{
	struct admin_connection *ac =
		container_of(conn, struct admin_connection, conn);

	switch (connection_input_read(conn)) {
	case -1:
		return;
	case -2:
		admin_skip_line(ac);
		break;
	default:
		break;
	}
	admin_process(ac);
}

void admin_connection_create(struct master_service_connection *conn)
{
	struct admin_connection *ac;

	master_service_client_connection_accept(conn);
	ac = i_new(struct admin_connection, 1);
	connection_init_server_ip(admin_connections, &ac->conn, conn->name,
				  conn->fd, conn->fd, &conn->remote_ip,
				  conn->remote_port);
	o_stream_set_no_error_handling(ac->conn.output, TRUE);
	o_stream_set_flush_callback(ac->conn.output, admin_output_flush, ac);
	o_stream_nsend_str(ac->conn.output, DIRECTOR_ADMIN_VERSION_LINE"\n");
}

static const struct connection_settings admin_set = {
	.service_name_in = DIRECTOR_ADMIN_SERVICE,
	.service_name_out = DIRECTOR_ADMIN_SERVICE,
	.major_version = DIRECTOR_ADMIN_MAJOR_VERSION,
	.minor_version = DIRECTOR_ADMIN_MINOR_VERSION,
	/* the greeting is sent as one exact line */
	.dont_send_version = TRUE,
	/* with LF */
	.input_max_size = DIRECTOR_ADMIN_MAX_LINE_LEN + 1,
	.input_full_behavior = CONNECTION_BEHAVIOR_ALLOW,
	.output_max_size = SIZE_MAX,
	.client = FALSE,
};

static const struct connection_vfuncs admin_vfuncs = {
	.destroy = admin_destroy,
	.input = admin_input,
};

void admin_connections_init(void)
{
	admin_connections = connection_list_init(&admin_set, &admin_vfuncs);
}

void admin_connections_deinit(void)
{
	struct connection *conn;

	timeout_remove(&to_ring_synced);
	while ((conn = admin_connections->connections) != NULL)
		admin_destroy(conn);
	connection_list_deinit(&admin_connections);
}
