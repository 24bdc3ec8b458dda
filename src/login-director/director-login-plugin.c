/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "login-common.h"
#include "istream.h"
#include "module-context.h"
#include "login-proxy.h"
#include "client-common.h"
#include "../director-proxy-protocol.h"
#include "director-link.h"
#include "director-login-plugin.h"

#include <time.h>
#include <sys/socket.h>

#define DIRECTOR_CONTEXT(client) \
	MODULE_CONTEXT_REQUIRE(client, director_login_module)

struct director_client {
	union login_client_module_context module_ctx;

	/* NULL if the client isn't proxied, or not by a director */
	struct director_session *session;
	/* The session's proxy, valid as long as it has a session */
	struct login_proxy *proxy;
};

const char *director_login_plugin_version = DOVECOT_ABI_VERSION;

static MODULE_CONTEXT_DEFINE_INIT(director_login_module,
				  &login_module_register);
static struct director_link *director_link;

static bool director_answer_is_late(const struct director_answer *answer)
{
	struct timespec ts;

	/* not the ioloop's time: it's that of the turn's start, and the
	   process may have been stopped since */
	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		i_fatal("clock_gettime(CLOCK_MONOTONIC) failed: %m");
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 >
		answer->deadline_msecs;
}

/* Ends a proxying that isn't established yet. The client gets a temporary
   failure and may log in again. Ends the session, too. */
static void director_client_fail(struct client *client, const char *reason)
{
	(void)login_proxy_failed(client->login_proxy,
				 login_proxy_get_event(client->login_proxy),
				 LOGIN_PROXY_FAILURE_TYPE_INTERNAL, reason);
}

/* The backend's socket is there, but nothing was sent to the backend yet: the
   login can only begin in another turn of the ioloop. */
static void director_client_proxy_started(struct client *client,
					  const char *const *fields)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);
	struct director_answer answer;
	struct ip_addr ip;
	const char *error;
	int ret;

	ret = director_answer_parse(fields, &answer, &error);
	if (ret == 0)
		return;
	if (ret < 0) {
		director_client_fail(client, t_strdup_printf(
			"Director's answer can't be used: %s", error));
		return;
	}
	if (net_addr2ip(login_proxy_get_ip_str(client->login_proxy), &ip) < 0)
		i_unreached();

	i_assert(dclient->session == NULL);
	if (director_answer_is_late(&answer)) {
		director_client_fail(client, "Director's answer came too late");
		return;
	}
	dclient->session = director_link_start(director_link, &answer, &ip,
					       client->virtual_user, client);
	if (dclient->session == NULL) {
		director_client_fail(client, t_strdup_printf(
			"Director's answer was used already (%s)",
			answer.token));
		return;
	}
	dclient->proxy = client->login_proxy;
	/* Only what the director was told before the deadline counts. */
	if (director_answer_is_late(&answer))
		director_client_fail(client, "Director's answer came too late");
}

static void
director_client_auth_result(struct client *client,
			    enum client_auth_result result,
			    const struct client_auth_reply *reply,
			    const char *text)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);

	/* First, since some protocols need to know of the success before the
	   proxying may fail. */
	dclient->module_ctx.super.auth_result(client, result, reply, text);

	if (result == CLIENT_AUTH_RESULT_SUCCESS && reply != NULL &&
	    reply->proxy.proxy && reply->all_fields != NULL &&
	    client->login_proxy != NULL)
		director_client_proxy_started(client, reply->all_fields);
}

static void
director_client_proxy_failed(struct client *client,
			     enum login_proxy_failure_type type,
			     const char *reason, bool reconnecting)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);

	client_ref(client);
	/* closes the backend connection, so that END is true */
	dclient->module_ctx.super.proxy_failed(client, type, reason,
					       reconnecting);
	/* A retry is to the same backend: the session goes on. */
	if (!reconnecting)
		director_link_end(director_link, &dclient->session, reason);
	client_unref(&client);
}

/* A backend may redirect a login to another one. The lease is for this one only,
   and a director that hears of it afterwards can but end the session. Returns
   TRUE if the login was refused. */
static bool director_client_refuse_redirect(struct client *client)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);
	struct ip_addr ip;

	if (dclient->session == NULL || dclient->session->up ||
	    client->login_proxy == NULL)
		return FALSE;
	if (net_addr2ip(login_proxy_get_ip_str(client->login_proxy), &ip) < 0)
		i_unreached();
	if (net_ip_compare(&ip, &dclient->session->ip))
		return FALSE;
	director_client_fail(client, t_strdup_printf(
		"Backend %s redirected the login, which isn't for it to decide "
		"where there is a director",
		net_ip2addr(&dclient->session->ip)));
	return TRUE;
}

/* A line of the backend, before the login is done. If it redirected us, the
   connection to the other backend has only been begun in this turn, and is given
   up. (After a reauthentication it comes later: but nothing is sent to a backend
   before its first line.) */
static int
director_client_proxy_parse_line(struct client *client, const char *line)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);
	int ret;

	if (director_client_refuse_redirect(client))
		return -1;
	client_ref(client);
	ret = dclient->module_ctx.super.proxy_parse_line(client, line);
	if (director_client_refuse_redirect(client))
		ret = -1;
	client_unref(&client);
	return ret;
}

static void director_client_destroy(struct client *client)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);
	struct ip_addr ip;

	if (dclient->session == NULL)
		;
	else if (!client->login_success)
		director_link_end(director_link, &dclient->session, "aborted");
	else {
		if (net_addr2ip(login_proxy_get_ip_str(dclient->proxy),
				&ip) < 0)
			i_unreached();
		director_link_up(director_link, dclient->session, &ip);
	}
	if (dclient->module_ctx.super.destroy != NULL)
		dclient->module_ctx.super.destroy(client);
}

static void director_client_free(struct client *client)
{
	struct director_client *dclient = DIRECTOR_CONTEXT(client);

	director_link_end(director_link, &dclient->session, "closed");
	if (dclient->module_ctx.super.free != NULL)
		dclient->module_ctx.super.free(client);
}

/* The same, if a director wants it: that is no error. */
static void
director_client_kick_pending(struct client *client, const char *reason)
{
	struct event *event;

	event = event_create(login_proxy_get_event(client->login_proxy));
	e_info(event, "Aborting login: %s", reason);
	/* It has been told, and would be told as an error. */
	event_set_min_log_level(event, LOG_TYPE_PANIC);
	(void)login_proxy_failed(client->login_proxy, event,
				 LOGIN_PROXY_FAILURE_TYPE_INTERNAL, reason);
	event_unref(&event);
}

/* login_proxy_kick_user_connection() would end all of the user's sessions,
   also those to another backend. Shutting the sockets down is exact, and the
   backend's is closed for certain when this returns, whatever is buffered or
   blocked. What remains here goes away in the next turns.

   The client isn't told why (* BYE, -ERR, 421): what goes to it is copied
   without being understood, so we can't know if it is in the middle of a
   literal, a mail or an answer of several lines, where our line would be taken
   for a part of it. */
static void director_client_shutdown(struct client *client,
				     struct login_proxy *proxy)
{
	struct istream *input = login_proxy_get_server_istream(proxy);
	int fd = input == NULL ? -1 : i_stream_get_fd(input);

	if (fd != -1 && shutdown(fd, SHUT_RDWR) < 0 && errno != ENOTCONN)
		e_error(client->event, "shutdown(backend) failed: %m");
	if (shutdown(client->fd, SHUT_RDWR) < 0 && errno != ENOTCONN)
		e_error(client->event, "shutdown(client) failed: %m");
}

static void
director_client_kick(struct director_session *session, const char *reason)
{
	struct client *client = session->context;
	struct director_client *dclient = DIRECTOR_CONTEXT(client);

	client_ref(client);
	if (!session->up)
		director_client_kick_pending(client, reason);
	else {
		e_info(login_proxy_get_event(dclient->proxy),
		       "Disconnecting: %s", reason);
		director_client_shutdown(client, dclient->proxy);
	}
	director_link_end(director_link, &dclient->session, reason);
	client_unref(&client);
}

static void director_client_allocated(struct client *client)
{
	struct client_vfuncs *v = client->vlast;
	struct director_client *dclient;

	dclient = p_new(client->pool, struct director_client, 1);
	dclient->module_ctx.super = *v;
	client->vlast = &dclient->module_ctx.super;
	v->auth_result = director_client_auth_result;
	v->proxy_failed = director_client_proxy_failed;
	v->proxy_parse_line = director_client_proxy_parse_line;
	v->destroy = director_client_destroy;
	v->free = director_client_free;
	MODULE_CONTEXT_SET(client, director_login_module, dclient);
}

static const struct login_client_hooks director_login_hooks = {
	.client_allocated = director_client_allocated,
};

void director_login_plugin_init(struct module *module)
{
	director_link = director_link_init(DIRECTOR_PROXY_SOCKET,
					   login_binary->protocol,
					   director_client_kick);
	login_client_hooks_add(module, &director_login_hooks);
}

void director_login_plugin_deinit(void)
{
	login_client_hooks_remove(&director_login_hooks);
	director_link_deinit(&director_link);
}
