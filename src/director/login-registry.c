/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "connection.h"
#include "ioloop.h"
#include "istream.h"
#include "llist.h"
#include "ostream.h"
#include "strescape.h"
#include "strnum.h"
#include "time-util.h"
#include "master-service.h"
#include "director-proxy-protocol.h"
#include "director-daemon.h"
#include "director-settings.h"
#include "login-registry.h"

/* A user name and the rest of a START */
#define REGISTRY_MAX_LINE_LEN 8192
/* What a plugin tells is read so often at most, if there is little of it: each
   time wakes the director, and nothing is lost by waiting. An answer counts as
   a session until its lease runs out, told or not. */
#define REGISTRY_INPUT_PAUSE_MSECS 50
#define REGISTRY_INPUT_LITTLE 2048
/* So long after it was told to end a session its answers are waited for: it is
   read as soon as there is something. */
#define REGISTRY_KICKED_MSECS 200
/* So long all of them are read from before others have their turn: of thousands
   of sessions that end at once each is told. */
#define REGISTRY_TURN_NSECS (300*1000)
/* More than one machine ever has: somebody is making them up */
#define REGISTRY_MAX_SESSIONS 4000000
/* A login process that has so much to read isn't told to end more sessions by
   themselves: it gets its time. */
#define REGISTRY_KICKS_MAX_SIZE (128*1024)
/* Complaints about one connection's lines before it is closed */
#define REGISTRY_MAX_ERRORS 10

struct registry_connection {
	struct connection conn;
	/* After PROCESS */
	struct session_plugin *plugin;
	struct timeout *to_resume;
	/* Waits for the next turn, its input is halted */
	struct registry_connection *prev, *next;
	bool queued;
	/* Set when it is destroyed, unless NULL */
	bool *destroyed;
	/* As it was accepted */
	unsigned int number;
	/* Monotonic milliseconds, when it was told to end a session last */
	uint64_t kicked_msecs;
	unsigned int errors;
	bool announced;
};

static struct connection_list *registry_connections;
static unsigned int registry_accepted;
/* What was read took so long since the last turn; set: the next one comes */
static uint64_t registry_turn_nsecs;
static struct timeout *registry_to_turn;
static struct registry_connection *registry_queue, *registry_queue_tail;

static void registry_destroy(struct connection *conn)
{
	struct registry_connection *rc =
		container_of(conn, struct registry_connection, conn);
	struct session_leases *leases = director_leases(director_daemon.core);
	struct director_time now = director_daemon_now();

	timeout_remove(&rc->to_resume);
	if (rc->queued) {
		DLLIST2_REMOVE(&registry_queue, &registry_queue_tail, rc);
	}
	if (rc->destroyed != NULL)
		*rc->destroyed = TRUE;
	if (rc->plugin != NULL)
		session_plugin_lost(leases, &rc->plugin, now.msecs);
	if (conn->disconnect_reason == CONNECTION_DISCONNECT_BUFFER_FULL) {
		e_error(conn->event, "Line longer than %u bytes, "
			"disconnecting", REGISTRY_MAX_LINE_LEN);
	}
	connection_deinit(conn);
	i_free(rc);
	master_service_client_connection_destroyed(master_service);
	director_daemon_schedule();
}

/* Returns -1 when there have been too many. */
static int registry_error(struct registry_connection *rc, const char *cmd,
			  const char *error)
{
	e_error(rc->conn.event, "%s: %s", cmd, error);
	if (++rc->errors < REGISTRY_MAX_ERRORS)
		return 1;
	e_error(rc->conn.event, "Too many errors, disconnecting");
	return -1;
}

static int
cmd_process(struct registry_connection *rc, const char *const *args)
{
	struct session_leases *leases = director_leases(director_daemon.core);
	struct connection *conn = &rc->conn;
	struct login_process *process;
	pid_t pid;

	if (rc->plugin != NULL)
		return registry_error(rc, "PROCESS", "given twice");
	if (str_to_pid(args[0], &pid) < 0 || pid <= 0)
		return registry_error(rc, "PROCESS", "invalid pid");
	/* In another pid namespace the kernel shows 0. */
	if (conn->have_unix_credentials && conn->remote_pid > 0 &&
	    conn->remote_pid != pid) {
		e_error(conn->event, "PROCESS: pid %ld isn't the peer's own "
			"%ld, disconnecting", (long)pid,
			(long)conn->remote_pid);
		return -1;
	}
	process = login_process_ref(leases, pid);
	login_process_set_protocol(leases, process, args[1]);
	rc->plugin = session_plugin_init(leases, process);
	rc->plugin->number = rc->number;
	rc->plugin->connection = rc;
	login_process_unref(leases, &process);
	if (conn->have_unix_credentials && conn->remote_pid > 0) {
		director_process_connected(director_daemon.core, pid);
		director_daemon_commit();
	}
	return 1;
}

static int
cmd_ping(struct registry_connection *rc, const char *const *args ATTR_UNUSED)
{
	/* Who reads nothing needs no more of them. */
	if (o_stream_get_buffer_used_size(rc->conn.output) == 0)
		o_stream_nsend_str(rc->conn.output, "PONG\n");
	return 1;
}

static int cmd_start(struct registry_connection *rc, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct session_token token;
	struct ip_addr ip;
	struct session_lease *lease;
	const char *error;
	time_t since;
	uint32_t hash;

	if (session_leases_total(director_leases(director_daemon.core)) >=
	    REGISTRY_MAX_SESSIONS)
		return registry_error(rc, "START", "too many sessions");
	if (session_token_parse(args[0], &token) < 0)
		return registry_error(rc, "START", "invalid token");
	if (str_to_uint32(args[1], &hash) < 0 || hash == 0)
		return registry_error(rc, "START", "invalid user hash");
	if (net_addr2ip(args[2], &ip) < 0)
		return registry_error(rc, "START", "invalid backend IP");
	if (str_to_time(args[3], &since) < 0)
		return registry_error(rc, "START", "invalid time");
	since = I_MIN(director_daemon_from_wall(since), now.wall);
	lease = director_session_start(director_daemon.core, rc->plugin, &token,
				       hash, &ip, since, &now, &error);
	if (lease == NULL) {
		return registry_error(rc, "START", t_strdup_printf(
			"token %s %s", args[0], error));
	}
	session_lease_set_names(director_leases(director_daemon.core), lease,
				args[4], args + 5);
	director_daemon_commit();
	return 1;
}

/* Returns 1 and the lease if this connection told of it, 0 if a newer one did,
   -1 if none. */
static int
registry_lease(struct registry_connection *rc, const char *token_str,
	       struct session_lease **lease_r)
{
	struct session_lease *lease;
	struct session_token token;

	if (session_token_parse(token_str, &token) < 0)
		return -1;
	lease = session_lease_lookup(director_leases(director_daemon.core),
				     &token);
	*lease_r = lease;
	if (lease == NULL)
		return -1;
	if (lease->plugin == rc->plugin)
		return 1;
	return session_lease_is_told_newer(lease, rc->plugin) ? 0 : -1;
}

static int cmd_up(struct registry_connection *rc, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct session_lease *lease;
	struct ip_addr ip;
	int ret;

	ret = registry_lease(rc, args[0], &lease);
	if (ret < 0)
		return registry_error(rc, "UP", "session wasn't started here");
	if (ret == 0)
		return 1;
	if (args[1] != NULL && net_addr2ip(args[1], &ip) < 0)
		return registry_error(rc, "UP", "invalid backend IP");
	director_session_up(director_daemon.core, lease,
			    args[1] == NULL ? NULL : &ip, &now);
	return 1;
}

static int cmd_end(struct registry_connection *rc, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct session_lease *lease;
	int ret;

	ret = registry_lease(rc, args[0], &lease);
	if (ret < 0)
		return registry_error(rc, "END", "session wasn't started here");
	if (ret > 0)
		director_session_end(director_daemon.core, &lease, &now);
	return 1;
}

static int cmd_announced(struct registry_connection *rc,
			 const char *const *args ATTR_UNUSED)
{
	struct director_time now = director_daemon_now();

	rc->announced = TRUE;
	director_sessions_announced(director_daemon.core, rc->plugin, &now);
	return 1;
}

static const struct registry_command {
	const char *name;
	unsigned int min_args;
	int (*handler)(struct registry_connection *rc,
		       const char *const *args);
} registry_commands[] = {
	{ "PROCESS", 2, cmd_process },
	{ "START", 5, cmd_start },
	{ "UP", 1, cmd_up },
	{ "END", 1, cmd_end },
	{ "ANNOUNCED", 0, cmd_announced },
	{ "PING", 0, cmd_ping },
};

static void registry_turn(void *context);

static void registry_input(struct connection *conn)
{
	struct registry_connection *rc =
		container_of(conn, struct registry_connection, conn);
	uint64_t start_nsecs;

	if (registry_to_turn != NULL) {
		connection_input_halt(conn);
		rc->queued = TRUE;
		DLLIST2_APPEND(&registry_queue, &registry_queue_tail, rc);
		return;
	}
	start_nsecs = i_nanoseconds();
	connection_input_default(conn);
	registry_turn_nsecs += i_nanoseconds() - start_nsecs;
	if (registry_turn_nsecs >= REGISTRY_TURN_NSECS)
		registry_to_turn = timeout_add_short(0, registry_turn, NULL);
}

/* Reads at once: from one that is used it is paused again then, without having
   been waited for (which takes more time than to read). */
static void registry_read(struct registry_connection *rc)
{
	bool destroyed = FALSE;

	rc->destroyed = &destroyed;
	registry_input(&rc->conn);
	if (destroyed)
		return;
	rc->destroyed = NULL;
	if (rc->to_resume == NULL && !rc->queued)
		connection_input_resume(&rc->conn);
}

static void registry_turn(void *context ATTR_UNUSED)
{
	struct registry_connection *rc;

	timeout_remove(&registry_to_turn);
	registry_turn_nsecs = 0;
	while ((rc = registry_queue) != NULL && registry_to_turn == NULL) {
		DLLIST2_REMOVE(&registry_queue, &registry_queue_tail, rc);
		rc->queued = FALSE;
		registry_read(rc);
	}
}

static void registry_pause_over(struct registry_connection *rc)
{
	timeout_remove(&rc->to_resume);
	registry_read(rc);
}

static unsigned int registry_pause_msecs(const struct registry_connection *rc)
{
	/* its socket could fill up */
	if (i_stream_get_data_size(rc->conn.input) > REGISTRY_INPUT_LITTLE)
		return 0;
	if (rc->kicked_msecs != 0 && director_daemon_now().msecs <
				     rc->kicked_msecs + REGISTRY_KICKED_MSECS)
		return DIRECTOR_SLICE_PAUSE_MSECS;
	return REGISTRY_INPUT_PAUSE_MSECS;
}

/* Called after each line; the first one of what was read decides. */
static void registry_pause(struct registry_connection *rc)
{
	/* not while it announces */
	if (rc->to_resume != NULL || !rc->announced)
		return;
	connection_input_halt(&rc->conn);
	rc->to_resume = timeout_add_short(registry_pause_msecs(rc),
					  registry_pause_over, rc);
}

static int registry_args(struct connection *conn, const char *const *args)
{
	struct registry_connection *rc =
		container_of(conn, struct registry_connection, conn);
	const struct registry_command *cmd = NULL;
	unsigned int i;
	int ret;

	for (i = 0; i < N_ELEMENTS(registry_commands); i++) {
		if (strcmp(registry_commands[i].name, args[0]) == 0)
			cmd = &registry_commands[i];
	}
	if (cmd == NULL) {
		/* of a newer plugin */
		e_debug(conn->event, "Unknown command: %s", args[0]);
		return 1;
	}
	if (cmd->handler != cmd_process && rc->plugin == NULL) {
		e_error(conn->event, "%s before PROCESS, disconnecting",
			cmd->name);
		return -1;
	}
	if (str_array_length(args + 1) < cmd->min_args)
		return registry_error(rc, cmd->name, "missing parameters");
	ret = cmd->handler(rc, args + 1);
	director_daemon_schedule();
	registry_pause(rc);
	return ret;
}

void login_registry_kick(struct session_plugin *plugin, uint32_t hash,
			 const struct ip_addr *except, const char *reason)
{
	struct registry_connection *rc = plugin->connection;

	o_stream_nsend_str(rc->conn.output, t_strdup_printf(
		"KICK\t%u\t%s\t%s\n", hash,
		except == NULL ? "" : net_ip2addr(except),
		str_tabescape(reason)));
	rc->kicked_msecs = director_daemon_now().msecs;
	if (rc->to_resume != NULL) {
		timeout_remove(&rc->to_resume);
		connection_input_resume(&rc->conn);
	}
}

bool login_registry_kick_session(struct session_plugin *plugin,
				 const struct session_token *token,
				 const char *reason)
{
	struct registry_connection *rc = plugin->connection;

	if (o_stream_get_buffer_used_size(rc->conn.output) >
	    REGISTRY_KICKS_MAX_SIZE)
		return FALSE;
	T_BEGIN {
		o_stream_nsend_str(rc->conn.output, t_strdup_printf(
			"KICK-SESSION\t%s\t%s\n", session_token_str(token),
			str_tabescape(reason)));
	} T_END;
	return TRUE;
}

void login_registry_kick_backend(struct session_plugin *plugin,
				 const struct ip_addr *ip, const char *reason)
{
	struct registry_connection *rc = plugin->connection;

	o_stream_nsend_str(rc->conn.output, t_strdup_printf(
		"KICK-BACKEND\t%s\t%s\n", net_ip2addr(ip),
		str_tabescape(reason)));
}

static const struct connection_settings registry_set = {
	.service_name_in = DIRECTOR_PROXY_SERVICE_PLUGIN,
	.service_name_out = DIRECTOR_PROXY_SERVICE_DIRECTOR,
	.major_version = DIRECTOR_PROXY_MAJOR_VERSION,
	.minor_version = DIRECTOR_PROXY_MINOR_VERSION,
	.input_max_size = REGISTRY_MAX_LINE_LEN,
	.output_max_size = 1024 * 1024,
	.client = FALSE,
	/* It goes out in one write with GRACE. */
	.dont_send_version = TRUE,
};

static const struct connection_vfuncs registry_vfuncs = {
	.destroy = registry_destroy,
	.input = registry_input,
	.input_args = registry_args,
};

void login_registry_init(void)
{
	registry_connections =
		connection_list_init(&registry_set, &registry_vfuncs);
}

void login_registry_deinit(void)
{
	struct connection *conn;

	while ((conn = registry_connections->connections) != NULL)
		registry_destroy(conn);
	timeout_remove(&registry_to_turn);
	connection_list_deinit(&registry_connections);
}

void login_registry_connection_create(struct master_service_connection *conn)
{
	struct registry_connection *rc;

	master_service_client_connection_accept(conn);
	rc = i_new(struct registry_connection, 1);
	rc->number = ++registry_accepted;
	connection_init_server(registry_connections, &rc->conn, conn->name,
			       conn->fd, conn->fd);
	o_stream_set_no_error_handling(rc->conn.output, TRUE);
	o_stream_nsend_str(rc->conn.output, t_strdup_printf(
		"VERSION\t%s\t%u\t%u\nGRACE\t%u\n",
		registry_set.service_name_out, registry_set.major_version,
		registry_set.minor_version,
		director_settings_plugin_grace_msecs(director_daemon.set)));
}
