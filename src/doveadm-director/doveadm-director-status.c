/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "str.h"
#include "strescape.h"
#include "director-admin-protocol.h"
#include "doveadm-director.h"

/* Fields of a HOST-LIST line (sockets.md §7.3) */
enum host_field {
	HOST_FIELD_IP,
	HOST_FIELD_VHOSTS,
	HOST_FIELD_USERS,
	HOST_FIELD_TAG,
	HOST_FIELD_STATE,
	HOST_FIELD_STATE_CHANGED,
	HOST_FIELD_MIN_COUNT,
	/* Not sent by the original */
	HOST_FIELD_SESSIONS = HOST_FIELD_MIN_COUNT
};

/* As director_cmd_next_row(), but skips what is no host. */
static int
host_list_next(struct doveadm_cmd_context *cctx,
	       struct director_admin_client *client,
	       const char *const **fields_r)
{
	int ret;

	do {
		ret = director_cmd_next_row(cctx, client, fields_r);
	} while (ret > 0 &&
		 str_array_length(*fields_r) < HOST_FIELD_MIN_COUNT);
	return ret;
}

static bool host_is_down(const char *const *fields)
{
	return strcmp(fields[HOST_FIELD_STATE], "D") == 0;
}

static void status_print_host(const char *const *fields)
{
	const char *sessions;
	time_t changed;

	if (str_to_time(fields[HOST_FIELD_STATE_CHANGED], &changed) < 0)
		changed = 0;
	sessions = fields[HOST_FIELD_SESSIONS];
	if (sessions == NULL || *sessions == '\0')
		sessions = "-";

	doveadm_print(director_cmd_text(fields[HOST_FIELD_IP]));
	doveadm_print(director_cmd_text(fields[HOST_FIELD_TAG]));
	doveadm_print(director_cmd_text(fields[HOST_FIELD_VHOSTS]));
	doveadm_print(host_is_down(fields) ? "down" : "up");
	doveadm_print(director_cmd_time(changed, "-"));
	doveadm_print(director_cmd_text(fields[HOST_FIELD_USERS]));
	doveadm_print(director_cmd_text(sessions));
}

static void
status_hosts(struct doveadm_cmd_context *cctx,
	     struct director_admin_client *client)
{
	static const char *const args[] = { "HOST-LIST", NULL };
	const char *const *fields;
	int ret;

	doveadm_print_init(DOVEADM_PRINT_TYPE_TABLE);
	doveadm_print_header_simple("mail server ip");
	doveadm_print_header_simple("tag");
	doveadm_print_header_simple("vhosts");
	doveadm_print_header_simple("state");
	doveadm_print_header("state-changed", "state changed", 0);
	doveadm_print_header_simple("users");
	doveadm_print_header_simple("sessions");

	if (director_cmd_send(cctx, client, args) < 0)
		return;
	do T_BEGIN {
		ret = host_list_next(cctx, client, &fields);
		if (ret > 0)
			status_print_host(fields);
	} T_END; while (ret > 0);
}

static void
status_invalid_reply(struct doveadm_cmd_context *cctx, const char *line)
{
	if (director_cmd_reply_is_error(line)) {
		director_cmd_error(cctx, EX_TEMPFAIL, "failed: %s",
				   director_cmd_reply_text(line));
	} else {
		director_cmd_error(cctx, EX_PROTOCOL,
				   "Invalid reply from director");
	}
}

static void
status_user_print(struct doveadm_cmd_context *cctx, const char *line)
{
	/* <current ip> <expire time> <hashed ip> <initial ip> */
	const char *const *fields = t_strsplit_tabescaped(line);
	const char *current = "n/a", *expires_str = "-1";
	time_t expires;

	if (str_array_length(fields) != 4 ||
	    str_to_time(fields[1], &expires) < 0) {
		status_invalid_reply(cctx, line);
		return;
	}
	if (fields[0][0] != '\0') {
		current = director_cmd_text(fields[0]);
		expires_str = director_cmd_time(expires, "-1");
	}

	doveadm_print_init(DOVEADM_PRINT_TYPE_FORMATTED);
	doveadm_print_formatted_set_format(
		"Current: %{status} (expires %{expires})\n"
		"Hashed: %{hashed}\n"
		"Initial config: %{initial-config}\n");
	doveadm_print_header_simple("status");
	doveadm_print_header_simple("expires");
	doveadm_print_header_simple("hashed");
	doveadm_print_header_simple("initial-config");
	doveadm_print(current);
	doveadm_print(expires_str);
	doveadm_print(director_cmd_text(fields[2]));
	doveadm_print(director_cmd_text(fields[3]));
}

static void
status_user(struct doveadm_cmd_context *cctx,
	    struct director_admin_client *client, const char *user,
	    const char *tag, bool is_name)
{
	const char *const args[] = {
		"USER-LOOKUP", user, tag == NULL ? "" : tag,
		is_name ? "user" : NULL, NULL
	};
	const char *line;

	if (director_cmd_send(cctx, client, args) == 0 &&
	    director_cmd_read_line(cctx, client, &line) == 0)
		status_user_print(cctx, line);
}

void cmd_director_status(struct doveadm_cmd_context *cctx)
{
	struct director_admin_client *client;
	const char *name, *user, *tag;

	name = director_cmd_str(cctx, "user-name");
	user = director_cmd_str(cctx, "user");
	tag = director_cmd_str(cctx, "tag");
	if (name != NULL && tag == NULL &&
	    cctx->conn_type == DOVEADM_CONNECTION_TYPE_CLI) {
		/* "-u <user name> <tag>" */
		tag = user;
		user = NULL;
	}
	if ((name != NULL && user != NULL) ||
	    (name == NULL && user == NULL && tag != NULL)) {
		director_cmd_usage(cctx);
		return;
	}

	client = director_cmd_connect(cctx);
	if (client == NULL)
		return;
	if (name != NULL)
		status_user(cctx, client, name, tag, TRUE);
	else if (user != NULL)
		status_user(cctx, client, user, tag, FALSE);
	else
		status_hosts(cctx, client);
	director_admin_deinit(&client);
}

/* The output is there to be run by a shell, and a tag may be any text. */
static const char *dump_quote(const char *word)
{
	static const char *const safe =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"0123456789@%+=:,./_-";
	string_t *str;

	if (word[strspn(word, safe)] == '\0')
		return word;
	str = t_str_new(64);
	str_append_c(str, '\'');
	for (word = director_cmd_text(word); *word != '\0'; word++) {
		if (*word == '\'')
			str_append(str, "'\\'");
		str_append_c(str, *word);
	}
	str_append_c(str, '\'');
	return str_c(str);
}

static void
dump_print(const char *command, const char *socket_path, const char *host,
	   const char *vhosts)
{
	doveadm_print(command);
	doveadm_print(socket_path);
	doveadm_print(dump_quote(host));
	doveadm_print(vhosts);
}

/* Configured backends that aren't there (any more), or with another tag */
static int
dump_get_removed(struct doveadm_cmd_context *cctx,
		 struct director_admin_client *client,
		 ARRAY_TYPE(const_string) *removed)
{
	static const char *const args[] = { "HOST-LIST-REMOVED", NULL };
	const char *const *fields, *host;
	int ret;

	if (director_cmd_send(cctx, client, args) < 0)
		return -1;
	while ((ret = director_cmd_next_row(cctx, client, &fields)) > 0) {
		host = t_strdup(fields[0]);
		array_push_back(removed, &host);
	}
	return ret;
}

/* A tag is changed by removing the backend first. */
static void
dump_retagged(ARRAY_TYPE(const_string) *removed, const char *socket_path,
	      const char *ip)
{
	const char *const *host;

	array_foreach(removed, host) {
		if (strcmp(*host, ip) == 0) {
			dump_print("remove", socket_path, *host, "");
			array_delete(removed, array_foreach_idx(removed, host),
				     1);
			return;
		}
	}
}

static int
dump_hosts(struct doveadm_cmd_context *cctx,
	   struct director_admin_client *client, const char *socket_path,
	   ARRAY_TYPE(const_string) *removed)
{
	static const char *const args[] = { "HOST-LIST", NULL };
	ARRAY_TYPE(const_string) down;
	const char *const *fields, *host;
	int ret;

	if (director_cmd_send(cctx, client, args) < 0)
		return -1;
	t_array_init(&down, 16);
	while ((ret = host_list_next(cctx, client, &fields)) > 0) {
		host = fields[HOST_FIELD_IP];
		dump_retagged(removed, socket_path, host);
		if (host_is_down(fields))
			array_push_back(&down, &host);
		if (fields[HOST_FIELD_TAG][0] != '\0') {
			host = t_strconcat(host, "@", fields[HOST_FIELD_TAG],
					   NULL);
		}
		dump_print("add", socket_path, host,
			   dump_quote(fields[HOST_FIELD_VHOSTS]));
	}
	array_foreach_elem(&down, host)
		dump_print("down", socket_path, host, "");
	return ret;
}

void cmd_director_dump(struct doveadm_cmd_context *cctx)
{
	struct director_admin_client *client;
	const char *socket_path, *host;
	ARRAY_TYPE(const_string) removed;

	client = director_cmd_connect(cctx);
	if (client == NULL)
		return;

	doveadm_print_init(DOVEADM_PRINT_TYPE_FORMATTED);
	doveadm_print_formatted_set_format(
		"doveadm director %{command} "
		"%{if(socket-path, 'eq', '', '', '-a ')}%{socket-path}"
		"%{if(socket-path, 'eq', '', '', ' ')}"
		"%{host} %{vhost_count}\n");
	doveadm_print_header_simple("command");
	doveadm_print_header_simple("socket-path");
	doveadm_print_header_simple("host");
	doveadm_print_header_simple("vhost_count");

	socket_path = director_cmd_str(cctx, "socket-path");
	socket_path = socket_path == NULL ? "" : dump_quote(socket_path);
	t_array_init(&removed, 16);
	if (dump_get_removed(cctx, client, &removed) == 0 &&
	    dump_hosts(cctx, client, socket_path, &removed) == 0) {
		array_foreach_elem(&removed, host)
			dump_print("remove", socket_path, host, "");
	}
	director_admin_deinit(&client);
}
