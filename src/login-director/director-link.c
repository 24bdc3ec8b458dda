/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "ioloop.h"
#include "ostream.h"
#include "connection.h"
#include "hostpid.h"
#include "str.h"
#include "str-sanitize.h"
#include "../director-proxy-protocol.h"
#include "director-link.h"

/* The director's lines are short. */
#define LINK_MAX_INPUT_SIZE 4096
/* What is longer of a reason is cut. */
#define LINK_MAX_REASON_LEN 255
/* Disconnect if the director doesn't read and more than this is buffered. */
#define LINK_MAX_OUTPUT_SIZE (64*1024)
/* UP and END wait for others this long, or until there is so much of them: each
   write wakes the director up. (START doesn't wait: were this process stopped
   meanwhile, the director would forget the answer.) */
#define LINK_LATER_MSECS 100
#define LINK_LATER_SIZE 4096
/* Announce further sessions only while less than this is buffered. */
#define LINK_ANNOUNCE_OUTPUT_SIZE (8*1024)

/* Until a director says something else (GRACE) */
#define LINK_GRACE_MSECS 12000
/* A director that is there is asked for a sign of life so often in the grace. If
   it was asked all these times but one, and gave none, it hangs: it is over when
   the next one would be due. (Counted, not timed: this process may have been
   stopped itself.) */
#define LINK_PINGS 4

#define LINK_RETRY_MIN_MSECS 100
/* The director waits for announcements for only a few seconds. */
#define LINK_RETRY_MAX_MSECS 1000
/* A connection that lasted at least this long is retried at once. */
#define LINK_STABLE_SECS 5
/* Not reaching the director is an error only after this long, so that its
   restart is none. */
#define LINK_UNREACHABLE_SECS 5
/* Log the errors of one connection in this time, however often it's retried. */
#define LINK_LOG_INTERVAL_SECS 60

struct director_link {
	/* Initialized once, then connected and disconnected again */
	struct connection conn;
	struct connection_list *conns;

	char *protocol;
	director_link_kick_t *kick;
	struct director_sessions *sessions;

	/* What is sent with the next START, or a little later by itself */
	string_t *later;
	struct timeout *to_later;

	struct timeout *to_retry, *to_disconnect;
	/* There is no director: when the sessions are ended */
	struct timeout *to_grace;
	unsigned int grace_msecs;
	/* It has told us GRACE, so it knows PING. */
	struct timeout *to_ping;
	unsigned int unanswered_pings;
	bool pings;
	unsigned int retry_msecs;
	/* Since when the director can't be reached, 0 if it can */
	time_t unreachable_since;
	/* When an error was logged last */
	time_t last_logged;
	bool announcing;
};

static const struct connection_settings link_set = {
	.service_name_in = DIRECTOR_PROXY_SERVICE_DIRECTOR,
	.service_name_out = DIRECTOR_PROXY_SERVICE_PLUGIN,
	.major_version = DIRECTOR_PROXY_MAJOR_VERSION,
	.minor_version = DIRECTOR_PROXY_MINOR_VERSION,
	.input_max_size = LINK_MAX_INPUT_SIZE,
	.output_max_size = LINK_MAX_OUTPUT_SIZE,
	.client = TRUE,
	/* conn's own error for them would come again at each retry */
	.allow_empty_args_input = TRUE,
	/* It goes out in one write with what follows. */
	.dont_send_version = TRUE,
};

static void link_connect(struct director_link *link);
static bool link_is_usable(struct director_link *link);

static bool link_is_muted(struct director_link *link)
{
	return link->last_logged != 0 &&
		ioloop_time - link->last_logged < LINK_LOG_INTERVAL_SECS;
}

static void link_error(struct director_link *link, const char *error)
{
	if (link_is_muted(link))
		return;
	event_set_min_log_level(link->conn.event, LOG_TYPE_INFO);
	e_error(link->conn.event, "%s (%u proxied sessions)", error,
		director_sessions_count(link->sessions));
	link->last_logged = ioloop_time;
}

/* Nobody can move or kick our users, and soon their moves won't wait for us any
   more. */
static void link_grace_over(struct director_link *link)
{
	const char *reason = t_strdup_printf(
		"There has been no director for %u.%03u secs",
		link->grace_msecs / 1000, link->grace_msecs % 1000);
	struct director_session *session, *next;

	timeout_remove(&link->to_grace);
	session = director_sessions_first(link->sessions);
	for (; session != NULL; session = next) {
		next = session->next;
		link->kick(session, reason);
	}
}

static void link_ping(struct director_link *link)
{
	struct ostream *output = link->conn.output;

	if (director_sessions_count(link->sessions) == 0 ||
	    !link_is_usable(link)) {
		timeout_remove(&link->to_ping);
		return;
	}
	if (link->unanswered_pings == LINK_PINGS - 1) {
		link->unanswered_pings = 0;
		link_grace_over(link);
		return;
	}
	link->unanswered_pings++;
	o_stream_nsend_str(output, "PING\n");
}

static void link_ping_start(struct director_link *link)
{
	if (link->to_ping == NULL && link->pings && link_is_usable(link)) {
		link->unanswered_pings = 0;
		link->to_ping = timeout_add_short(
			I_MAX(link->grace_msecs / LINK_PINGS, 1),
			link_ping, link);
	}
}

static void link_has_no_director(struct director_link *link)
{
	unsigned int msecs = link->grace_msecs;

	timeout_remove(&link->to_ping);
	link->pings = FALSE;
	if (link->to_grace == NULL) {
		/* For others it was lost when it began to hang. */
		msecs -= msecs / LINK_PINGS * link->unanswered_pings;
		link->unanswered_pings = 0;
		link->to_grace = timeout_add_short(msecs, link_grace_over,
						   link);
	}
}

static void link_retry_timeout(struct director_link *link)
{
	/* Also without sessions: the next director doesn't know that there are
	   none, and would wait to be told. */
	link_connect(link);
}

static void link_retry_later(struct director_link *link)
{
	i_assert(link->to_retry == NULL);
	link->to_retry = timeout_add_short(link->retry_msecs,
					   link_retry_timeout, link);
	link->retry_msecs = I_MIN(link->retry_msecs * 2, LINK_RETRY_MAX_MSECS);
}

static void link_connect(struct director_link *link)
{
	timeout_remove(&link->to_retry);
	link_has_no_director(link);
	link->conn.disconnect_reason = CONNECTION_DISCONNECT_NOT;
	/* the errors that conn itself logs */
	event_set_min_log_level(link->conn.event, link_is_muted(link) ?
				LOG_TYPE_PANIC : LOG_TYPE_INFO);
	if (connection_client_connect(&link->conn) == 0) {
		link->unreachable_since = 0;
		return;
	}
	if (director_sessions_count(link->sessions) == 0) {
		timeout_remove(&link->to_grace);
		link->unreachable_since = 0;
	} else if (link->unreachable_since == 0)
		link->unreachable_since = ioloop_time;
	else if (ioloop_time - link->unreachable_since >=
		 LINK_UNREACHABLE_SECS) {
		link_error(link, t_strdup_printf("connect(%s) failed: %m",
						 link->conn.base_name));
	}
	link_retry_later(link);
}

static void link_later_drop(struct director_link *link)
{
	timeout_remove(&link->to_later);
	str_truncate(link->later, 0);
}

static void link_disconnect(struct director_link *link)
{
	link_later_drop(link);
	timeout_remove(&link->to_disconnect);
	if (ioloop_time - link->conn.connect_finished.tv_sec >=
	    LINK_STABLE_SECS)
		link->retry_msecs = LINK_RETRY_MIN_MSECS;
	link->announcing = FALSE;
	link_has_no_director(link);
	connection_disconnect(&link->conn);
	link_retry_later(link);
}

static void link_conn_destroy(struct connection *conn)
{
	struct director_link *link =
		container_of(conn, struct director_link, conn);

	switch (conn->disconnect_reason) {
	case CONNECTION_DISCONNECT_BUFFER_FULL:
		link_error(link, "Too long line from director");
		break;
	case CONNECTION_DISCONNECT_HANDSHAKE_FAILED:
		/* logged already */
		if (!link_is_muted(link))
			link->last_logged = ioloop_time;
		break;
	default:
		break;
	}
	link_disconnect(link);
}

/* The connection can't be used any longer. Disconnect only in the next turn:
   we may be called while its input is handled. */
static void link_disconnect_later(struct director_link *link)
{
	if (link->to_disconnect == NULL) {
		link->to_disconnect =
			timeout_add_short(0, link_disconnect, link);
	}
}

static bool link_is_usable(struct director_link *link)
{
	return !link->conn.disconnected && link->to_disconnect == NULL;
}

static void link_later_send(struct director_link *link)
{
	struct ostream *output = link->conn.output;

	timeout_remove(&link->to_later);
	if (str_len(link->later) == 0)
		return;
	if (o_stream_get_buffer_avail_size(output) < str_len(link->later)) {
		link_error(link, "Director doesn't read, disconnecting");
		link_disconnect_later(link);
	} else {
		/* If this fails the director has closed its end, which is the
		   input's matter, too. */
		o_stream_nsend(output, str_data(link->later),
			       str_len(link->later));
	}
	str_truncate(link->later, 0);
}

static void link_send(struct director_link *link, const string_t *str)
{
	str_append_str(link->later, str);
	link_later_send(link);
}

static void link_send_later(struct director_link *link, const string_t *str)
{
	str_append_str(link->later, str);
	if (str_len(link->later) >= LINK_LATER_SIZE)
		link_later_send(link);
	else if (link->to_later == NULL) {
		link->to_later = timeout_add_short(LINK_LATER_MSECS,
						   link_later_send, link);
	}
}

/* Goes on when the director has read some of it. first: what to send before */
static void link_announce(struct director_link *link, const char *first)
{
	struct ostream *output = link->conn.output;
	string_t *str = t_str_new(LINK_ANNOUNCE_OUTPUT_SIZE * 2);

	str_append(str, first);
	while (link->announcing && link_is_usable(link) &&
	       o_stream_get_buffer_used_size(output) <
						LINK_ANNOUNCE_OUTPUT_SIZE) {
		if (!director_sessions_announce_more(link->sessions, str,
						LINK_ANNOUNCE_OUTPUT_SIZE)) {
			str_append(str, "ANNOUNCED\n");
			link->announcing = FALSE;
		}
		link_send(link, str);
		str_truncate(str, 0);
	}
}

static int link_output(struct director_link *link)
{
	int ret;

	ret = o_stream_flush(link->conn.output);
	if (ret < 0) {
		/* The director has closed its end. */
		link_disconnect_later(link);
		return 1;
	}
	link_announce(link, "");
	return ret;
}

static void link_conn_connected(struct connection *conn, bool success)
{
	struct director_link *link =
		container_of(conn, struct director_link, conn);

	i_assert(success);

	o_stream_set_flush_callback(conn->output, link_output, link);
	link->announcing = TRUE;
	director_sessions_announce_begin(link->sessions);
	link_announce(link, t_strdup_printf(
		"VERSION\t%s\t%u\t%u\nPROCESS\t%s\t%s\n",
		link_set.service_name_out, link_set.major_version,
		link_set.minor_version, my_pid, link->protocol));
}

static const char *link_kick_reason(const char *text)
{
	return text == NULL || *text == '\0' ? "Kicked by director" :
		t_strconcat("Kicked by director: ",
			    str_sanitize(text, LINK_MAX_REASON_LEN), NULL);
}

static int
link_cmd_kick(struct director_link *link, const char *const *args)
{
	const struct ip_addr *except = NULL;
	struct director_session *session;
	struct ip_addr except_ip;
	const char *reason;
	uint32_t hash;

	if (args[0] == NULL || str_to_uint32(args[0], &hash) < 0 || hash == 0)
		return -1;
	if (args[1] != NULL && args[1][0] != '\0') {
		if (net_addr2ip(args[1], &except_ip) < 0)
			return -1;
		except = &except_ip;
	}
	reason = link_kick_reason(args[1] == NULL ? NULL : args[2]);
	while ((session = director_sessions_find(link->sessions, hash,
						 except)) != NULL)
		link->kick(session, reason);
	/* a move waits for them */
	if (link_is_usable(link))
		link_later_send(link);
	return 1;
}

static int
link_cmd_kick_session(struct director_link *link, const char *const *args)
{
	struct director_session *session;

	if (args[0] == NULL)
		return -1;
	session = director_sessions_find_token(link->sessions, args[0]);
	/* it may have ended meanwhile */
	if (session != NULL)
		link->kick(session, link_kick_reason(args[1]));
	return 1;
}

static int
link_cmd_kick_backend(struct director_link *link, const char *const *args)
{
	struct director_session *session, *next;
	struct ip_addr ip;
	const char *reason;

	if (args[0] == NULL || net_addr2ip(args[0], &ip) < 0)
		return -1;
	reason = link_kick_reason(args[1]);
	session = director_sessions_first(link->sessions);
	for (; session != NULL; session = next) {
		next = session->next;
		if (net_ip_compare(&session->ip, &ip))
			link->kick(session, reason);
	}
	if (link_is_usable(link))
		link_later_send(link);
	return 1;
}

static int
link_cmd_grace(struct director_link *link, const char *const *args)
{
	unsigned int msecs;

	if (args[0] == NULL || str_to_uint(args[0], &msecs) < 0 || msecs == 0)
		return -1;
	link->grace_msecs = msecs;
	link->pings = TRUE;
	timeout_remove(&link->to_ping);
	link_ping_start(link);
	return 1;
}

static const struct {
	const char *name;
	int (*handler)(struct director_link *link, const char *const *args);
} link_commands[] = {
	{ "GRACE", link_cmd_grace },
	{ "KICK", link_cmd_kick },
	{ "KICK-SESSION", link_cmd_kick_session },
	{ "KICK-BACKEND", link_cmd_kick_backend },
};

static int link_conn_input_args(struct connection *conn,
				const char *const *args)
{
	struct director_link *link =
		container_of(conn, struct director_link, conn);
	unsigned int i;

	link->unanswered_pings = 0;
	for (i = 0; i < N_ELEMENTS(link_commands); i++) {
		if (null_strcmp(args[0], link_commands[i].name) != 0)
			continue;
		if (link_commands[i].handler(link, args + 1) > 0)
			break;
		link_error(link, t_strdup_printf(
			"Invalid %s from director: %s", args[0],
			t_strarray_join(args + 1, " ")));
		return -1;
	}
	return 1;
}

/* It isn't only a socket that nobody listens to. */
static void link_conn_handshake_ready(struct connection *conn)
{
	struct director_link *link =
		container_of(conn, struct director_link, conn);

	timeout_remove(&link->to_grace);
}

static const struct connection_vfuncs link_vfuncs = {
	.handshake_ready = link_conn_handshake_ready,
	.destroy = link_conn_destroy,
	.client_connected = link_conn_connected,
	.input_args = link_conn_input_args,
};

struct director_link *
director_link_init(const char *socket_path, const char *protocol,
		   director_link_kick_t *kick)
{
	struct director_link *link;

	link = i_new(struct director_link, 1);
	link->protocol = i_strdup(protocol);
	link->later = str_new(default_pool, 256);
	link->kick = kick;
	link->retry_msecs = LINK_RETRY_MIN_MSECS;
	link->grace_msecs = LINK_GRACE_MSECS;
	link->sessions = director_sessions_init();
	link->conns = connection_list_init(&link_set, &link_vfuncs);
	connection_init_client_unix(link->conns, &link->conn, socket_path);
	return link;
}

void director_link_deinit(struct director_link **_link)
{
	struct director_link *link = *_link;

	*_link = NULL;
	if (link_is_usable(link))
		link_later_send(link);
	timeout_remove(&link->to_later);
	timeout_remove(&link->to_retry);
	timeout_remove(&link->to_grace);
	timeout_remove(&link->to_ping);
	timeout_remove(&link->to_disconnect);
	connection_deinit(&link->conn);
	connection_list_deinit(&link->conns);
	director_sessions_deinit(&link->sessions);
	str_free(&link->later);
	i_free(link->protocol);
	i_free(link);
}

struct director_session *
director_link_start(struct director_link *link,
		    const struct director_answer *answer,
		    const struct ip_addr *ip, const char *user, void *context)
{
	struct director_session *session;

	session = director_session_add(link->sessions, answer, ip, user,
				       ioloop_time, context);
	if (session == NULL)
		return NULL;
	if (link_is_usable(link)) T_BEGIN {
		string_t *str = t_str_new(256);

		director_session_append_start(link->sessions, session, str);
		link_send(link, str);
		link_ping_start(link);
	} T_END; else if (link->conn.disconnected) {
		/* Announces the session. Don't wait for a retry: this answer
		   shows that the director is there. */
		link_connect(link);
	}
	return session;
}

void director_link_up(struct director_link *link,
		      struct director_session *session,
		      const struct ip_addr *ip)
{
	bool redirected = !net_ip_compare(&session->ip, ip);

	session->up = TRUE;
	session->ip = *ip;
	if (link_is_usable(link) &&
	    director_session_is_told(link->sessions, session)) T_BEGIN {
		string_t *str = t_str_new(128);

		director_session_append_up(session, redirected, str);
		link_send_later(link, str);
	} T_END;
}

void director_link_end(struct director_link *link,
		       struct director_session **_session, const char *reason)
{
	struct director_session *session = *_session;

	if (session == NULL)
		return;
	if (link_is_usable(link) &&
	    director_session_is_told(link->sessions, session)) T_BEGIN {
		string_t *str = t_str_new(512);

		director_session_append_end(session, reason, str);
		link_send_later(link, str);
	} T_END;
	director_session_remove(link->sessions, _session);
}
