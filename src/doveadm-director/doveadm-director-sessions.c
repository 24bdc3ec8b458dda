/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "director-admin-protocol.h"
#include "doveadm-director.h"

/* Of SESSION-LIST */
enum session_field {
	SESSION_FIELD_USER,
	SESSION_FIELD_HASH,
	SESSION_FIELD_SERVICE,
	SESSION_FIELD_DIRECTOR,
	SESSION_FIELD_BACKEND,
	SESSION_FIELD_SINCE,
	SESSION_FIELD_STATE,

	SESSION_FIELD_COUNT
};

static void sessions_header(void)
{
	if (!doveadm_print_is_initialized())
		doveadm_print_init(DOVEADM_PRINT_TYPE_TABLE);
	doveadm_print_header("user", "user", DOVEADM_PRINT_HEADER_FLAG_EXPAND);
	doveadm_print_header_simple("hash");
	doveadm_print_header_simple("service");
	doveadm_print_header_simple("director");
	doveadm_print_header_simple("backend");
	doveadm_print_header_simple("since");
	doveadm_print_header_simple("state");
}

static void session_print(const char *const *fields)
{
	const char *user = fields[SESSION_FIELD_USER];
	time_t since;

	if (str_to_time(fields[SESSION_FIELD_SINCE], &since) < 0)
		since = 0;
	doveadm_print(*user == '\0' ? "<unknown>" : director_cmd_text(user));
	doveadm_print(director_cmd_text(fields[SESSION_FIELD_HASH]));
	doveadm_print(director_cmd_text(fields[SESSION_FIELD_SERVICE]));
	doveadm_print(director_cmd_text(fields[SESSION_FIELD_DIRECTOR]));
	doveadm_print(director_cmd_text(fields[SESSION_FIELD_BACKEND]));
	doveadm_print(director_cmd_time(since, "-"));
	doveadm_print(director_cmd_text(fields[SESSION_FIELD_STATE]));
}

static void
session_row(struct doveadm_cmd_context *cctx, const char *const *fields)
{
	unsigned int count = str_array_length(fields);

	if (count >= SESSION_FIELD_COUNT)
		session_print(fields);
	else if (count == 2 &&
		 strcmp(fields[0], DIRECTOR_ADMIN_ROW_NO_ANSWER) == 0) {
		director_cmd_error(cctx, EX_TEMPFAIL, "Director %s doesn't "
				   "answer: sessions of it are missing",
				   director_cmd_text(fields[1]));
	} else if (strcmp(fields[0], DIRECTOR_ADMIN_ROW_ONLY_OWN) == 0) {
		director_cmd_warning(cctx, 0, "These are the sessions of this "
			"director only: others can't be asked (it is alone, "
			"or some are of Dovecot 2.3)");
	}
}

void cmd_director_sessions(struct doveadm_cmd_context *cctx)
{
	const char *args[] = {
		"SESSION-LIST", director_cmd_str(cctx, "user"), NULL
	};
	struct director_admin_client *client;
	const char *const *fields;
	int ret;

	client = director_cmd_connect(cctx);
	if (client == NULL)
		return;
	if (director_cmd_send(cctx, client, args) == 0) {
		sessions_header();
		do T_BEGIN {
			ret = director_cmd_next_row(cctx, client, &fields);
			if (ret > 0)
				session_row(cctx, fields);
		} T_END; while (ret > 0);
	}
	director_admin_deinit(&client);
}
