/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* director flush: moves the users of backends, and shows how far it is */

#include "lib.h"
#include "net.h"
#include "settings.h"
#include "director-admin-protocol.h"
#include "director/director-settings.h"
#include "doveadm-director.h"

#include <stdio.h>
#include <unistd.h>

/* Nothing has changed for so long: the moves have to wait for something. */
#define FLUSH_STALL_MSECS (60*1000)
/* Rows and lines of progress, at most that often */
#define FLUSH_SHOW_MSECS 1000
/* A progress line is written over by the next one */
#define CLEAR_LINE "\r\033[K"

struct flush_progress {
	unsigned int users, seen, moved, waiting, failed, msecs;
};

struct flush_cmd {
	struct doveadm_cmd_context *cctx;
	struct director_admin_client *client;
	/* "all" or an IP */
	const char *host;
	struct flush_progress last;
	/* Milliseconds of the flush: when something had changed last, and when
	   it was shown last */
	unsigned int changed_msecs, shown_msecs;
	/* Has told of progress: not a server of 2.3 */
	bool told;
	/* Progress goes to a terminal; a row is printed for it. */
	bool terminal, rows;
};

static unsigned int flush_rate(const struct flush_progress *progress)
{
	return progress->msecs == 0 ? 0 :
		(uint64_t)progress->moved * 1000 / progress->msecs;
}

/* Seconds; UINT_MAX = nobody can tell */
static unsigned int flush_time_left(const struct flush_progress *progress)
{
	unsigned int left = progress->users - I_MIN(progress->users,
						    progress->seen);

	if (left == 0 && progress->waiting == 0)
		return 0;
	if (progress->seen == 0 || progress->moved == 0)
		return UINT_MAX;
	/* Of the users who are left as many have to be moved as of those before,
	   as fast as these. */
	left = progress->waiting + (uint64_t)left *
		(progress->moved + progress->waiting) / progress->seen;
	return ((uint64_t)left * progress->msecs / progress->moved + 999) /
		1000;
}

static const char *flush_time_left_str(const struct flush_progress *progress)
{
	unsigned int secs = flush_time_left(progress);

	return secs == UINT_MAX ? "-" : dec2str(secs);
}

static void flush_show(struct flush_cmd *cmd, bool ended)
{
	const struct flush_progress *progress = &cmd->last;

	if (!ended && progress->msecs - cmd->shown_msecs < FLUSH_SHOW_MSECS)
		return;
	cmd->shown_msecs = progress->msecs;
	if (cmd->rows) {
		doveadm_print(cmd->host);
		doveadm_print_num(progress->users);
		doveadm_print_num(progress->moved);
		doveadm_print_num(progress->waiting);
		doveadm_print_num(progress->failed);
		doveadm_print_num(flush_rate(progress));
		doveadm_print(flush_time_left_str(progress));
		doveadm_print(t_strdup_printf("%u.%03u", progress->msecs / 1000,
					      progress->msecs % 1000));
	}
	if (cmd->terminal && !ended) {
		fprintf(stderr, CLEAR_LINE"%s: %u of %u users looked at: "
			"%u moved, %u waiting, %u failed; %u/s, %s s left",
			cmd->host, progress->seen, progress->users,
			progress->moved, progress->waiting, progress->failed,
			flush_rate(progress), flush_time_left_str(progress));
	} else if (cmd->terminal) {
		fputs(CLEAR_LINE, stderr);
	}
	fflush(stderr);
}

static int
flush_parse(const char *const *fields, struct flush_progress *progress_r)
{
	unsigned int *const values[] = {
		&progress_r->users, &progress_r->seen, &progress_r->moved,
		&progress_r->waiting, &progress_r->failed, &progress_r->msecs,
	};
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(values); i++) {
		if (fields[i] == NULL || str_to_uint(fields[i], values[i]) < 0)
			return -1;
	}
	return 0;
}

/* Returns FALSE if nothing has changed for too long. */
static bool
flush_goes_on(struct flush_cmd *cmd, const struct flush_progress *progress)
{
	if (progress->seen != cmd->last.seen ||
	    progress->moved != cmd->last.moved ||
	    progress->waiting != cmd->last.waiting)
		cmd->changed_msecs = progress->msecs;
	cmd->last = *progress;
	flush_show(cmd, FALSE);
	return progress->msecs - cmd->changed_msecs < FLUSH_STALL_MSECS;
}

static const char *flush_how_far(const struct flush_progress *progress)
{
	return t_strdup_printf("%u users were moved, the moves of %u go on, the "
			       "others stay where they are", progress->moved,
			       progress->waiting);
}

static void flush_ended(struct flush_cmd *cmd)
{
	struct doveadm_cmd_context *cctx = cmd->cctx;
	const struct flush_progress *progress = &cmd->last;
	bool all = strcmp(cmd->host, "all") == 0;

	if (all)
		director_cmd_info(cctx, "flushed");
	else
		director_cmd_info(cctx, "%s: flushed", cmd->host);
	if (!cmd->told)
		return;
	flush_show(cmd, TRUE);
	director_cmd_info(cctx, "%s: %u users moved in %u.%03u secs (%u/s)",
			  cmd->host, progress->moved, progress->msecs / 1000,
			  progress->msecs % 1000, flush_rate(progress));
	if (progress->failed > 0) {
		director_cmd_warning(cctx, EX_TEMPFAIL,
			"%s: %u users weren't moved (the director's log says "
			"why)", cmd->host, progress->failed);
	}
}

static void flush_failed(struct flush_cmd *cmd, const char *line)
{
	int status = EX_TEMPFAIL;

	if (strcmp(cmd->host, "all") == 0) {
		director_cmd_error(cmd->cctx, status, "failed: %s",
				   director_cmd_reply_text(line));
		return;
	}
	if (strcmp(line, DIRECTOR_ADMIN_REPLY_NOTFOUND) == 0) {
		line = "doesn't exist";
		status = DOVEADM_EX_NOTFOUND;
	} else {
		line = director_cmd_reply_text(line);
	}
	director_cmd_warning(cmd->cctx, status, "%s: %s", cmd->host, line);
}

/* Returns 1 if there is more to read, 0 if it has ended, -1 if the connection
   is of no use any more. */
static int flush_line(struct flush_cmd *cmd, const char *line)
{
	const char *const *fields = t_strsplit(line, "\t");
	struct flush_progress progress;

	if (strcmp(fields[0], DIRECTOR_ADMIN_PROGRESS) == 0 &&
	    flush_parse(fields + 1, &progress) == 0) {
		if (!cmd->told) {
			cmd->told = TRUE;
			director_admin_set_reply_limit(cmd->client,
				DIRECTOR_ADMIN_REPLY_MSECS);
		}
		if (flush_goes_on(cmd, &progress))
			return 1;
		flush_show(cmd, TRUE);
		director_cmd_warning(cmd->cctx, EX_TEMPFAIL,
			"%s: nothing has changed for %u secs, giving up: %s "
			"(the director's log says why)", cmd->host,
			FLUSH_STALL_MSECS / 1000, flush_how_far(&progress));
		return -1;
	}
	if (strcmp(fields[0], DIRECTOR_ADMIN_REPLY_OK) != 0) {
		flush_failed(cmd, line);
		return 0;
	}
	if (flush_parse(fields + 1, &progress) == 0) {
		cmd->told = TRUE;
		cmd->last = progress;
	}
	flush_ended(cmd);
	return 0;
}

/* Returns -1 if the connection is of no use any more. */
static int flush_run(struct flush_cmd *cmd, const char *max_parallel)
{
	const char *args[] = {
		"HOST-RESET-USERS", strcmp(cmd->host, "all") == 0 ? "" :
		cmd->host, max_parallel, "progress", NULL
	};
	const char *line;
	int ret;

	i_zero(&cmd->last);
	cmd->told = FALSE;
	cmd->changed_msecs = cmd->shown_msecs = 0;
	if (director_cmd_send(cmd->cctx, cmd->client, args) < 0)
		return -1;
	director_admin_set_reply_limit(cmd->client,
				       DIRECTOR_ADMIN_RESET_REPLY_MSECS);
	do {
		if (director_cmd_read_line(cmd->cctx, cmd->client, &line) < 0) {
			if (cmd->told) {
				director_cmd_warning(cmd->cctx, EX_TEMPFAIL,
					"%s: %s", cmd->host,
					flush_how_far(&cmd->last));
			}
			return -1;
		}
		T_BEGIN {
			ret = flush_line(cmd, line);
		} T_END;
	} while (ret > 0);
	return ret;
}

static void flush_print_headers(struct flush_cmd *cmd)
{
	cmd->rows = doveadm_print_is_initialized();
	cmd->terminal = cmd->cctx->conn_type == DOVEADM_CONNECTION_TYPE_CLI &&
		isatty(STDERR_FILENO) != 0;
	if (!cmd->rows)
		return;
	doveadm_print_header_simple("mail server ip");
	doveadm_print_header_simple("users");
	doveadm_print_header_simple("moved");
	doveadm_print_header_simple("waiting");
	doveadm_print_header_simple("failed");
	doveadm_print_header_simple("rate");
	doveadm_print_header("time-left", "time left", 0);
	doveadm_print_header_simple("secs");
}

/* hosts_r: "all", or the host's IPs; ends with NULL. Returns -1 if it failed. */
static int
flush_begin(struct doveadm_cmd_context *cctx, const char *host,
	    struct flush_cmd *cmd_r, const char *const **hosts_r)
{
	const struct ip_addr *ips;
	unsigned int i, count;
	const char **hosts;

	i_zero(cmd_r);
	cmd_r->cctx = cctx;
	if (strcmp(host, "all") == 0)
		*hosts_r = t_strsplit(host, " ");
	else {
		if (director_cmd_get_ips(cctx, host, &ips, &count) < 0)
			return -1;
		hosts = t_new(const char *, count + 1);
		for (i = 0; i < count; i++)
			hosts[i] = t_strdup(net_ip2addr(&ips[i]));
		*hosts_r = hosts;
	}
	cmd_r->client = director_cmd_connect(cctx);
	return cmd_r->client == NULL ? -1 : 0;
}

/* Moves them. */
static void
flush_users(struct doveadm_cmd_context *cctx, const char *host,
	    const char *max_parallel)
{
	const char *const *hosts;
	struct flush_cmd cmd;

	if (flush_begin(cctx, host, &cmd, &hosts) < 0)
		return;
	flush_print_headers(&cmd);
	for (; *hosts != NULL; hosts++) {
		cmd.host = *hosts;
		if (flush_run(&cmd, max_parallel) < 0)
			break;
	}
	director_admin_deinit(&cmd.client);
}

/* -F: forgets them. */
static void flush_forget(struct doveadm_cmd_context *cctx, const char *host)
{
	const char *args[] = { "HOST-FLUSH", NULL, NULL };
	const char *const *hosts, *line;
	struct flush_cmd cmd;
	unsigned int i, sent;

	if (flush_begin(cctx, host, &cmd, &hosts) < 0)
		return;
	for (sent = 0; hosts[sent] != NULL; sent++) {
		if (strcmp(hosts[sent], "all") != 0)
			args[1] = hosts[sent];
		if (director_cmd_send(cctx, cmd.client, args) < 0)
			break;
	}
	for (i = 0; i < sent; i++) {
		cmd.host = hosts[i];
		if (director_cmd_read_line(cctx, cmd.client, &line) < 0 ||
		    flush_line(&cmd, line) < 0)
			break;
	}
	director_admin_deinit(&cmd.client);
}

/* Sent even if it is the director's default: one of 2.3 wants it before
   "progress", which it ignores. Returns NULL if it failed. */
static const char *flush_default_parallel(struct doveadm_cmd_context *cctx)
{
	const struct director_settings *set;
	const char *error, *value;

	if (settings_get(cctx->set_event, &director_setting_parser_info,
			 SETTINGS_GET_FLAG_NO_CHECK, &set, &error) < 0) {
		director_cmd_fatal(cctx, EX_TEMPFAIL, "%s", error);
		return NULL;
	}
	value = dec2str(set->director_max_parallel_moves);
	settings_free(set);
	return value;
}

void cmd_director_flush(struct doveadm_cmd_context *cctx)
{
	const char *host, *max_parallel;
	int64_t n;

	host = director_cmd_str(cctx, "host");
	if (host == NULL) {
		director_cmd_usage(cctx);
		return;
	}
	if (director_cmd_bool(cctx, "force-flush") ||
	    director_cmd_bool(cctx, "force")) {
		flush_forget(cctx, host);
		return;
	}
	if (doveadm_cmd_param_int64(cctx, "max-parallel", &n) && n > 0)
		max_parallel = dec2str(n);
	else {
		max_parallel = flush_default_parallel(cctx);
		if (max_parallel == NULL)
			return;
	}
	flush_users(cctx, host, max_parallel);
}
