/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Commands that change backends: one wire command for each address of a host.
   All are sent before the first reply is awaited. */

#include "lib.h"
#include "net.h"
#include "director-admin-protocol.h"
#include "doveadm-director.h"

struct host_command {
	const char *name;
	/* Said when it's done */
	const char *done;
	/* Exit status if the host doesn't exist */
	int notfound_status;
};

static const struct host_command host_set =
	{ "HOST-SET", "OK", EX_TEMPFAIL };
static const struct host_command host_update =
	{ "HOST-UPDATE", "OK", EX_TEMPFAIL };
static const struct host_command host_up =
	{ "HOST-UP", "up", DOVEADM_EX_NOTFOUND };
static const struct host_command host_down =
	{ "HOST-DOWN", "down", DOVEADM_EX_NOTFOUND };
static const struct host_command host_remove =
	{ "HOST-REMOVE", "removed", DOVEADM_EX_NOTFOUND };

static void
host_command_reply(struct doveadm_cmd_context *cctx,
		   const struct host_command *cmd, const char *ip,
		   const char *line)
{
	int status = EX_TEMPFAIL;

	if (strcmp(line, DIRECTOR_ADMIN_REPLY_OK) == 0) {
		director_cmd_info(cctx, "%s: %s", ip, cmd->done);
		return;
	}
	if (strcmp(line, DIRECTOR_ADMIN_REPLY_NOTFOUND) == 0) {
		line = "doesn't exist";
		status = cmd->notfound_status;
	} else {
		line = director_cmd_reply_text(line);
	}
	director_cmd_error(cctx, status, "%s: %s", ip, line);
}

static void
host_command_exchange(struct doveadm_cmd_context *cctx,
		      struct director_admin_client *client,
		      const struct host_command *cmd,
		      const struct ip_addr *ips, unsigned int ips_count,
		      const char *tag, const char *arg)
{
	const char *args[] = { cmd->name, NULL, arg, NULL };
	const char *line;
	unsigned int i;

	for (i = 0; i < ips_count; i++) {
		args[1] = net_ip2addr(&ips[i]);
		if (tag != NULL)
			args[1] = t_strconcat(args[1], "@", tag, NULL);
		if (director_cmd_send(cctx, client, args) < 0)
			return;
	}
	for (i = 0; i < ips_count; i++) {
		if (director_cmd_read_line(cctx, client, &line) < 0)
			return;
		host_command_reply(cctx, cmd, net_ip2addr(&ips[i]), line);
	}
}

static void
host_command_run(struct doveadm_cmd_context *cctx,
		 const struct host_command *cmd, const char *host,
		 const char *tag, const char *arg)
{
	struct director_admin_client *client;
	const struct ip_addr *ips;
	unsigned int ips_count;

	if (director_cmd_get_ips(cctx, host, &ips, &ips_count) < 0)
		return;
	client = director_cmd_connect(cctx);
	if (client == NULL)
		return;
	host_command_exchange(cctx, client, cmd, ips, ips_count, tag, arg);
	director_admin_deinit(&client);
}

/* tag: from its own option, or NULL */
static void
host_command_set(struct doveadm_cmd_context *cctx,
		 const struct host_command *cmd, const char *tag,
		 bool need_vhosts)
{
	const char *host, *host_tag, *vhosts_str;
	unsigned int vhosts;

	host = director_cmd_str(cctx, "host");
	vhosts_str = director_cmd_str(cctx, "vhost-count");
	if (host == NULL || (vhosts_str == NULL && need_vhosts) ||
	    (vhosts_str != NULL && str_to_uint(vhosts_str, &vhosts) < 0)) {
		director_cmd_usage(cctx);
		return;
	}
	host_tag = strchr(host, '@');
	if (host_tag != NULL) {
		host = t_strdup_until(host, host_tag++);
		if (tag == NULL && *host_tag != '\0')
			tag = host_tag;
	}
	/* Most likely a misplaced vhost count. As an address it would be
	   0.0.0.N. */
	if (*host == '\0' || str_is_numeric(host, '\0')) {
		director_cmd_error(cctx, EX_USAGE, "Invalid host '%s'", host);
		director_cmd_usage(cctx);
		return;
	}
	host_command_run(cctx, cmd, host, tag, vhosts_str);
}

void cmd_director_add(struct doveadm_cmd_context *cctx)
{
	host_command_set(cctx, &host_set, director_cmd_str(cctx, "tag"), FALSE);
}

void cmd_director_update(struct doveadm_cmd_context *cctx)
{
	host_command_set(cctx, &host_update, NULL, TRUE);
}

static void
host_command_simple(struct doveadm_cmd_context *cctx,
		    const struct host_command *cmd, const char *arg)
{
	const char *host = director_cmd_str(cctx, "host");

	if (host == NULL)
		director_cmd_usage(cctx);
	else
		host_command_run(cctx, cmd, host, NULL, arg);
}

void cmd_director_up(struct doveadm_cmd_context *cctx)
{
	host_command_simple(cctx, &host_up, NULL);
}

void cmd_director_down(struct doveadm_cmd_context *cctx)
{
	host_command_simple(cctx, &host_down, NULL);
}

void cmd_director_remove(struct doveadm_cmd_context *cctx)
{
	bool keep = FALSE;

	(void)doveadm_cmd_param_bool(cctx, "keep-sessions", &keep);
	host_command_simple(cctx, &host_remove, keep ? "keep" : NULL);
}
