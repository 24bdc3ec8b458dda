/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* doveadm director move, kick */

#include "lib.h"
#include "strnum.h"
#include "director-admin-protocol.h"
#include "doveadm-director.h"

/* Sends the command and reads its one line of reply. */
static int
user_command(struct doveadm_cmd_context *cctx, const char *const *args,
	     const char **line_r)
{
	struct director_admin_client *client = director_cmd_connect(cctx);
	int ret = -1;

	if (client == NULL)
		return -1;
	if (director_cmd_send(cctx, client, args) == 0 &&
	    director_cmd_read_line(cctx, client, line_r) == 0) {
		*line_r = t_strdup(*line_r);
		ret = 0;
	}
	director_admin_deinit(&client);
	return ret;
}

void cmd_director_move(struct doveadm_cmd_context *cctx)
{
	const char *user = director_cmd_str(cctx, "user");
	const char *name = director_cmd_str(cctx, "user-name");
	const char *host = director_cmd_str(cctx, "host");
	const char *args[5] = { "USER-MOVE" }, *ip, *line;
	const struct ip_addr *ips;
	unsigned int count;

	if (host == NULL && name != NULL) {
		/* -u <name> <host> */
		host = user;
		user = NULL;
	}
	if (host == NULL || (user == NULL) == (name == NULL)) {
		director_cmd_usage(cctx);
		return;
	}
	if (director_cmd_get_ips(cctx, host, &ips, &count) < 0)
		return;
	ip = net_ip2addr(&ips[0]);
	args[1] = name != NULL ? name : user;
	args[2] = ip;
	args[3] = name != NULL ? "user" : NULL;
	if (user_command(cctx, args, &line) < 0)
		return;
	if (str_begins_with(line, DIRECTOR_ADMIN_REPLY_OK)) {
		director_cmd_info(cctx, "User hash %s moved to %s",
				  line[2] == '\t' ? line + 3 : args[1], ip);
	} else if (strcmp(line, DIRECTOR_ADMIN_REPLY_NOTFOUND) == 0) {
		director_cmd_error(cctx, EX_NOHOST, "Host '%s' doesn't exist",
				   ip);
	} else if (strcmp(line, DIRECTOR_ADMIN_REPLY_TRYAGAIN) == 0) {
		director_cmd_error(cctx, EX_TEMPFAIL, "User is already being "
			"moved, wait a while for it to be finished");
	} else {
		director_cmd_error(cctx, EX_TEMPFAIL, "failed: %s",
				   director_cmd_reply_text(line));
	}
}

void cmd_director_kick(struct doveadm_cmd_context *cctx)
{
	const char *user = director_cmd_str(cctx, "user");
	const char *args[] = { "USER-KICK", user, NULL }, *line;

	if (user == NULL) {
		director_cmd_usage(cctx);
		return;
	}
	if (user_command(cctx, args, &line) < 0)
		return;
	if (str_begins_with(line, DIRECTOR_ADMIN_REPLY_OK))
		director_cmd_info(cctx, "User %s kicked", user);
	else {
		director_cmd_error(cctx, EX_TEMPFAIL, "failed: %s",
				   director_cmd_reply_text(line));
	}
}
