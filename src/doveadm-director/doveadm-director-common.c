/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "net.h"
#include "str.h"
#include "str-sanitize.h"
#include "strescape.h"
#include "director-admin-protocol.h"
#include "doveadm-director.h"

/* 9999-12-31 23:59:59 UTC. localtime() doesn't know all that fit into time_t. */
#define MAX_TIME 253402300799LL
#define MAX_TEXT_LEN 1024

void director_cmd_set_exit_code(int status)
{
	if (doveadm_exit_code == 0 || status != DOVEADM_EX_NOTFOUND)
		doveadm_exit_code = status;
}

void director_cmd_usage(struct doveadm_cmd_context *cctx)
{
	/* doveadm-server's would be fatal, and the client get no answer */
	if (cctx->conn_type == DOVEADM_CONNECTION_TYPE_CLI)
		help_ver2(cctx->cmd);
	director_cmd_error(cctx, EX_USAGE,
			   "Client sent invalid command. Usage: %s %s",
			   cctx->cmd->name, cctx->cmd->usage);
}

/* A command line's messages have no prefix: scripts look for them. */
static void ATTR_FORMAT(3, 0)
director_cmd_log(struct doveadm_cmd_context *cctx, enum log_type type,
		 const char *format, va_list args)
{
	const struct failure_context ctx = { .type = type };

	if (cctx->conn_type == DOVEADM_CONNECTION_TYPE_CLI) {
		i_log_typev(&ctx, format, args);
		return;
	}
	T_BEGIN {
		const char *text = t_strdup_vprintf(format, args);

		if (type == LOG_TYPE_INFO)
			e_info(cctx->event, "%s", text);
		else if (type == LOG_TYPE_WARNING)
			e_warning(cctx->event, "%s", text);
		else
			e_error(cctx->event, "%s", text);
	} T_END;
}

void director_cmd_error(struct doveadm_cmd_context *cctx, int status,
			const char *format, ...)
{
	va_list args;

	director_cmd_set_exit_code(status);
	va_start(args, format);
	director_cmd_log(cctx, LOG_TYPE_ERROR, format, args);
	va_end(args);
}

void director_cmd_warning(struct doveadm_cmd_context *cctx, int status,
			  const char *format, ...)
{
	va_list args;

	director_cmd_set_exit_code(status);
	va_start(args, format);
	director_cmd_log(cctx, LOG_TYPE_WARNING, format, args);
	va_end(args);
}

void director_cmd_fatal(struct doveadm_cmd_context *cctx, int status,
			const char *format, ...)
{
	va_list args;

	director_cmd_set_exit_code(status);
	va_start(args, format);
	director_cmd_log(cctx, LOG_TYPE_FATAL, format, args);
	va_end(args);
}

void director_cmd_info(struct doveadm_cmd_context *cctx,
		       const char *format, ...)
{
	va_list args;

	if (!doveadm_verbose)
		return;
	va_start(args, format);
	director_cmd_log(cctx, LOG_TYPE_INFO, format, args);
	va_end(args);
}

const char *director_cmd_str(struct doveadm_cmd_context *cctx, const char *name)
{
	const char *value;

	if (!doveadm_cmd_param_str(cctx, name, &value) || *value == '\0')
		return NULL;
	return value;
}

bool director_cmd_bool(struct doveadm_cmd_context *cctx, const char *name)
{
	bool value;

	return doveadm_cmd_param_bool(cctx, name, &value) && value;
}

struct director_admin_client *
director_cmd_connect(struct doveadm_cmd_context *cctx)
{
	struct director_admin_client *client;
	const char *path, *error;
	int status;

	path = director_cmd_str(cctx, "socket-path");
	if (path == NULL) {
		path = t_strconcat(doveadm_settings->base_dir,
				   "/"DIRECTOR_ADMIN_SOCKET, NULL);
	}
	client = director_admin_init(path);
	if (director_admin_connect(client) < 0) {
		error = director_admin_error(client, &status);
		director_cmd_fatal(cctx, status, "%s", error);
		director_admin_deinit(&client);
	}
	return client;
}

static void
director_cmd_client_error(struct doveadm_cmd_context *cctx,
			  struct director_admin_client *client)
{
	const char *error;
	int status;

	error = director_admin_error(client, &status);
	director_cmd_error(cctx, status, "%s", error);
}

int director_cmd_send(struct doveadm_cmd_context *cctx,
		      struct director_admin_client *client,
		      const char *const *args)
{
	if (director_admin_send(client, args) < 0) {
		director_cmd_client_error(cctx, client);
		return -1;
	}
	return 0;
}

int director_cmd_read_line(struct doveadm_cmd_context *cctx,
			   struct director_admin_client *client,
			   const char **line_r)
{
	if (director_admin_read_line(client, line_r) < 0) {
		director_cmd_client_error(cctx, client);
		return -1;
	}
	return 0;
}

int director_cmd_next_row(struct doveadm_cmd_context *cctx,
			  struct director_admin_client *client,
			  const char *const **fields_r)
{
	const char *line;

	if (director_cmd_read_line(cctx, client, &line) < 0)
		return -1;
	if (*line == '\0')
		return 0;
	if (director_cmd_reply_is_error(line)) {
		director_cmd_error(cctx, EX_TEMPFAIL, "failed: %s",
				   director_cmd_reply_text(line));
		return -1;
	}
	*fields_r = t_strsplit_tabescaped(line);
	return 1;
}

const char *director_cmd_text(const char *text)
{
	return str_sanitize_utf8(text, MAX_TEXT_LEN);
}

bool director_cmd_reply_is_error(const char *line)
{
	return str_begins_with(line, DIRECTOR_ADMIN_REPLY_ERROR" ");
}

const char *director_cmd_reply_text(const char *line)
{
	const char *text;

	if (!str_begins(line, DIRECTOR_ADMIN_REPLY_ERROR" ", &text))
		text = line;
	return director_cmd_text(text);
}

int director_cmd_get_ips(struct doveadm_cmd_context *cctx, const char *host,
			 const struct ip_addr **ips_r, unsigned int *count_r)
{
	struct ip_addr *ips;
	int ret;

	ips = t_new(struct ip_addr, 1);
	if (net_addr2ip(host, ips) == 0) {
		*count_r = 1;
	} else if ((ret = net_gethostbyname(host, &ips, count_r)) != 0) {
		director_cmd_error(cctx, EX_TEMPFAIL,
			"gethostname(%s) failed: %s", host,
			net_gethosterror(ret));
		return -1;
	}
	*ips_r = ips;
	return 0;
}

const char *director_cmd_time(time_t t, const char *empty)
{
	return t <= 0 || t > MAX_TIME ? empty : unixdate2str(t);
}
