/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Tells the oracle when a session at a backend begins, which is before its
   login is answered, and when it is over. A process that crashes closes its
   socket, which tells it as well. */

#include "lib.h"
#include "module-context.h"
#include "net.h"
#include "write-full.h"
#include "mail-user.h"
#include "mail-storage-hooks.h"

#include <time.h>
#include <unistd.h>
#include <dirent.h>
#include <sys/socket.h>

#define ORACLE_CONTEXT(obj) MODULE_CONTEXT_REQUIRE(obj, oracle_user_module)

struct oracle_user {
	union mail_user_module_context module_ctx;
	int fd;
};

const char *chaos_oracle_plugin_version = DOVECOT_ABI_VERSION;
void chaos_oracle_plugin_init(struct module *module);
void chaos_oracle_plugin_deinit(void);

static MODULE_CONTEXT_DEFINE_INIT(oracle_user_module,
				  &mail_user_module_register);

static void oracle_tell(int fd, const char *what, const char *rest)
{
	struct timespec ts;
	const char *line;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		i_fatal("clock_gettime() failed: %m");
	line = t_strdup_printf("%s %lld%09ld%s\n", what, (long long)ts.tv_sec,
			       ts.tv_nsec, rest);
	if (write_full(fd, line, strlen(line)) < 0)
		i_error("oracle: write() failed: %m");
}

static bool oracle_is_closed(int fd)
{
	ssize_t ret;
	char c;

	/* between the login and its answer nothing is sent to the backend */
	ret = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	return ret == 0 || (ret < 0 && errno != EAGAIN && errno != EINTR);
}

/* A login whose connection was closed before the backend came to accept it is no
   session: nobody is there. The client's is this process's only connection to
   the IMAP port. */
static bool oracle_client_is_gone(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *d;
	struct ip_addr ip;
	in_port_t port;
	bool gone = FALSE;
	int fd;

	if (dir == NULL)
		i_fatal("oracle: opendir(/proc/self/fd) failed: %m");
	while ((d = readdir(dir)) != NULL) {
		if (str_to_int(d->d_name, &fd) == 0 &&
		    net_getsockname(fd, &ip, &port) == 0 && port == 143 &&
		    oracle_is_closed(fd))
			gone = TRUE;
	}
	(void)closedir(dir);
	return gone;
}

static void oracle_user_deinit(struct mail_user *user)
{
	struct oracle_user *ouser = ORACLE_CONTEXT(user);

	ouser->module_ctx.super.deinit(user);
	oracle_tell(ouser->fd, "end", "");
	i_close_fd(&ouser->fd);
}

static void oracle_user_created(struct mail_user *user)
{
	struct mail_user_vfuncs *v = user->vlast;
	struct oracle_user *ouser;

	if (user->autocreated)
		return;
	ouser = p_new(user->pool, struct oracle_user, 1);
	ouser->fd = net_connect_unix(ORACLE_SOCKET);
	if (ouser->fd == -1)
		i_fatal("oracle: connect("ORACLE_SOCKET") failed: %m");
	net_set_nonblock(ouser->fd, FALSE);
	oracle_tell(ouser->fd, oracle_client_is_gone() ? "pending" : "login",
		    t_strconcat(" "ORACLE_BACKEND" ", user->username, NULL));
	ouser->module_ctx.super = *v;
	user->vlast = &ouser->module_ctx.super;
	v->deinit = oracle_user_deinit;
	MODULE_CONTEXT_SET(user, oracle_user_module, ouser);
}

static const struct mail_storage_hooks oracle_hooks = {
	.mail_user_created = oracle_user_created,
};

void chaos_oracle_plugin_init(struct module *module)
{
	mail_storage_hooks_add(module, &oracle_hooks);
}

void chaos_oracle_plugin_deinit(void)
{
	mail_storage_hooks_remove(&oracle_hooks);
}
