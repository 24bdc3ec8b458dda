/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* doveadm director move, kick */

#include "lib.h"
#include "str.h"
#include "strescape.h"
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

/* Fields may be behind it. */
static bool reply_is(const char *line, const char *reply)
{
	return str_begins(line, reply, &line) &&
		(*line == '\0' || *line == '\t');
}

static const char *user_or_hash(const char *user, bool is_name)
{
	uint32_t hash;

	return !is_name && str_to_uint32(user, &hash) == 0 ?
		t_strconcat("hash ", user, NULL) : user;
}

static void
user_warn_not_told(struct doveadm_cmd_context *cctx, const char *director)
{
	director_cmd_warning(cctx, 0, "Director %s didn't say how many "
			     "sessions it ended", director_cmd_text(director));
}

/* How many sessions ended on which directors: in words, or as rows if they are
   wanted. *total_r is UINT_MAX if it isn't known. */
static const char *
user_counts(struct doveadm_cmd_context *cctx, const char *line,
	    unsigned int *total_r)
{
	const char *const *fields = t_strsplit_tabescaped(line);
	bool rows = doveadm_print_is_initialized(), all_told = TRUE;
	string_t *str = t_str_new(128);
	unsigned int count, total = 0;

	if (rows) {
		doveadm_print_header_simple("director ip");
		doveadm_print_header_simple("sessions");
	}
	if (fields[0] == NULL || fields[1] == NULL)
		all_told = FALSE;
	else
		fields++;
	for (; fields[0] != NULL && fields[1] != NULL; fields += 2) {
		bool told = str_to_uint(fields[1], &count) == 0;

		if (rows) {
			doveadm_print(director_cmd_text(fields[0]));
			doveadm_print(told ? dec2str(count) : "-");
		}
		if (!told) {
			user_warn_not_told(cctx, fields[0]);
			all_told = FALSE;
		} else if (count > 0) {
			str_printfa(str, "%s%u on %s",
				    str_len(str) == 0 ? "" : ", ", count,
				    director_cmd_text(fields[0]));
			total += count;
		}
	}
	*total_r = total == 0 && !all_told ? UINT_MAX : total;
	if (total == 0)
		return all_told ? " (he had no sessions)" : "";
	return t_strdup_printf(" (sessions ended: %s)", str_c(str));
}

void cmd_director_move(struct doveadm_cmd_context *cctx)
{
	bool wait = director_cmd_bool(cctx, "wait");
	const char *words = wait ? "wait" : "count", *counts;
	unsigned int total;
	const char *user = director_cmd_str(cctx, "user");
	const char *name = director_cmd_str(cctx, "user-name");
	const char *host = director_cmd_str(cctx, "host");
	const char *args[6] = { "USER-MOVE" }, *ip, *line;
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
	args[3] = name != NULL ? "user" : words;
	args[4] = name != NULL ? words : NULL;
	if (user_command(cctx, args, &line) < 0)
		return;
	if (reply_is(line, DIRECTOR_ADMIN_REPLY_OK)) {
		counts = user_counts(cctx, line, &total);
		director_cmd_info(cctx, "User %s moved to %s%s",
				  user_or_hash(args[1], name != NULL), ip,
				  counts);
	} else if (reply_is(line, DIRECTOR_ADMIN_REPLY_WAITING)) {
		director_cmd_error(cctx, EX_TEMPFAIL, "User's move to %s "
			"hasn't ended within %u s, it goes on: %s", ip,
			DIRECTOR_ADMIN_MOVE_MSECS / 1000,
			director_cmd_text(t_strsplit_tabescaped(line)[1]));
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
	const char *field = director_cmd_str(cctx, "passdb-field");
	const char *name_args[] = { "USER-KICK", user, "count", NULL };
	const char *field_args[] = {
		"USER-KICK-ALT", field, user, "count", NULL
	};
	const char *line, *counts;
	unsigned int total;

	if (user == NULL) {
		director_cmd_usage(cctx);
		return;
	}
	if (user_command(cctx, field == NULL ? name_args : field_args,
			 &line) < 0)
		return;
	if (reply_is(line, DIRECTOR_ADMIN_REPLY_OK)) {
		counts = user_counts(cctx, line, &total);
		if (total == 0 && !doveadm_print_is_initialized()) {
			director_cmd_warning(cctx, 0, "User %s has no "
					     "sessions: nobody was kicked",
					     user);
		} else {
			director_cmd_info(cctx, "User %s kicked%s", user,
					  counts);
		}
	} else {
		director_cmd_error(cctx, EX_TEMPFAIL, "failed: %s",
				   director_cmd_reply_text(line));
	}
}
