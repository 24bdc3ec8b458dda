/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "fd-util.h"
#include "ioloop.h"
#include "restrict-access.h"
#include "settings.h"
#include "master-interface.h"
#include "master-service.h"
#include "master-service-settings.h"
#include "admin-connection.h"
#include "auth-relay.h"
#include "director-daemon.h"
#include "director-settings.h"
#include "flush-hook.h"
#include "listener.h"
#include "login-registry.h"
#include "proxy-notify.h"
#include "ring-connection.h"

#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct {
	const char *name;
	enum listener_type type;
} listener_types[] = {
	{ "login", LISTENER_LOGIN },
	{ "auth", LISTENER_LOGIN },
	{ "userdb", LISTENER_USERDB },
	{ "authreply", LISTENER_AUTHREPLY },
	{ "admin", LISTENER_ADMIN },
	{ "doveadm", LISTENER_ADMIN },
	{ "notify", LISTENER_NOTIFY },
	{ "ring", LISTENER_RING },
	{ "proxy", LISTENER_PROXY },
};

/* Longer than Dovecot's log process takes to start */
#define LOG_FLUSH_MSECS 2000

static const struct director_settings *director_set;
static struct timeout *to_log_flush;

/* TRUE from the die callback on: nobody is answered any more. */
static bool dying;

enum listener_type
listener_get_type(const char *name, const char *type, bool fifo, bool inet)
{
	const char *p;
	unsigned int i;

	if (fifo)
		return LISTENER_NOTIFY;
	if (type == NULL || *type == '\0') {
		type = name == NULL ? "" : name;
		p = strrchr(type, '/');
		if (p != NULL)
			type = p + 1;
		p = strrchr(type, '-');
		if (p != NULL)
			type = p + 1;
	}
	for (i = 0; i < N_ELEMENTS(listener_types); i++) {
		if (strcmp(listener_types[i].name, type) == 0)
			return listener_types[i].type;
	}
	return inet ? LISTENER_RING : LISTENER_LOGIN;
}

static void client_connected(struct master_service_connection *conn)
{
	if (dying)
		return;
	switch (listener_get_type(conn->name, conn->type, conn->fifo,
				  conn->remote_ip.family != 0)) {
	case LISTENER_LOGIN:
		auth_relay_create(conn, AUTH_RELAY_LOGIN);
		break;
	case LISTENER_USERDB:
		auth_relay_create(conn, AUTH_RELAY_USERDB);
		break;
	case LISTENER_AUTHREPLY:
		auth_relay_create(conn, AUTH_RELAY_AUTHREPLY);
		break;
	case LISTENER_ADMIN:
		admin_connection_create(conn);
		break;
	case LISTENER_NOTIFY:
		proxy_notify_create(conn);
		break;
	case LISTENER_PROXY:
		login_registry_connection_create(conn);
		break;
	case LISTENER_RING:
		ring_connection_create(conn);
		break;
	}
}

/* What a process logs before the log process has read the first of the
   service's pipe stays unread there until more comes, which for us may be hours
   later. An option without a value is something more, and isn't logged. */
static void log_flush(void *context ATTR_UNUSED)
{
	static const struct ip_addr no_ip;

	timeout_remove(&to_log_flush);
	i_set_failure_send_ip(&no_ip);
}

/* Closes whatever answers anybody, and only then releases the journal: a new
   process may wait for it (design.md, rule 6). */
static void director_stop(void)
{
	if (dying)
		return;
	dying = TRUE;
	timeout_remove(&to_log_flush);
	auth_relays_deinit();
	admin_connections_deinit();
	proxy_notify_deinit();
	login_registry_deinit();
	flush_hooks_deinit();
	director_daemon_deinit();
	ring_connections_deinit();
}

static void director_die(void)
{
	master_service_stop_new_connections(master_service);
	director_stop();
	master_service_stop(master_service);
}

/* Struct layouts differ between Dovecot's releases, and nothing else compares
   them for a binary. */
static void check_dovecot_version(void)
{
	const char *version =
		master_service_get_version_string(master_service);

	if (version == NULL || strcmp(version, PACKAGE_VERSION) == 0)
		return;
	i_fatal("director was built for Dovecot %s, but this is Dovecot %s: "
		"install the dovecot-director package that was built for "
		"this release, or rebuild it against it, "
		"and restart Dovecot", PACKAGE_VERSION, version);
}

/* Dovecot was told to reload again before we were ready: it has started the next
   director process, which may have been faster. */
static bool director_is_superseded(void)
{
	struct pollfd fd = { .fd = MASTER_DEAD_FD };

	return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLERR | POLLHUP)) != 0;
}

/* Each login needs two descriptors here: the login process, and auth. */
static void raise_fd_limit(void)
{
	struct rlimit rlim;

	if (getrlimit(RLIMIT_NOFILE, &rlim) < 0 ||
	    rlim.rlim_cur >= rlim.rlim_max)
		return;
	rlim.rlim_cur = rlim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rlim) < 0)
		i_warning("setrlimit(RLIMIT_NOFILE, %llu) failed: %m",
			  (unsigned long long)rlim.rlim_cur);
}

int main(int argc, char *argv[])
{
	const enum master_service_flags service_flags =
		MASTER_SERVICE_FLAG_NO_IDLE_DIE |
		MASTER_SERVICE_FLAG_NO_SSL_INIT;
	struct event *event;
	const char *base_dir, *error;
	int dir_fd, opt;
	bool debug = FALSE;

	if (getenv(MASTER_IS_PARENT_ENV) == NULL) {
		i_fatal("director can't be run by hand: "
			"Dovecot's master process starts it");
	}
	master_service = master_service_init("director", service_flags,
					     &argc, &argv, "D");
	while ((opt = master_getopt(master_service)) > 0) {
		if (opt != 'D')
			return FATAL_DEFAULT;
		debug = TRUE;
	}
	check_dovecot_version();
#ifdef M_MXFAST
	/* Or glibc's free() leaves small pieces as they are, and merges them all at once
	   when a large one is freed: 6 ms after 100,000 sessions have ended. */
	mallopt(M_MXFAST, 0);
#endif
	if (master_service_settings_read_simple(master_service, &error) < 0)
		i_fatal("%s", error);
	master_service_init_log(master_service);
	director_set = settings_get_or_fatal(
		master_service_get_event(master_service),
		&director_setting_parser_info);
	base_dir = master_service_get_service_settings(
		master_service)->base_dir;

	dir_fd = director_daemon_open_dir(base_dir);
	raise_fd_limit();
	restrict_access_by_env(RESTRICT_ACCESS_FLAG_ALLOW_ROOT, NULL);
	restrict_access_allow_coredumps(TRUE);

	event = event_create(master_service_get_event(master_service));
	event_set_forced_debug(event, debug);
	ring_connections_init(director_set);
	flush_hooks_init(director_set, event);
	if (!director_daemon_init(director_set, event, dir_fd,
				  director_is_superseded))
		lib_exit(0);
	auth_relays_init(base_dir);
	admin_connections_init();
	login_registry_init();
	to_log_flush = timeout_add(LOG_FLUSH_MSECS, log_flush, NULL);

	master_service_set_die_with_master(master_service, TRUE);
	master_service_set_die_callback(master_service, director_die);
	master_service_init_finish(master_service);
	master_service_run(master_service, client_connected);

	director_stop();
	settings_free(director_set);
	event_unref(&event);
	master_service_deinit(&master_service);
	return 0;
}
