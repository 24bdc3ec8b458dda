/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* SESSION-LIST of the admin socket: our own sessions, and page after page what
   each other director has. */

#include "lib.h"
#include "array.h"
#include "ostream.h"
#include "str.h"
#include "strescape.h"
#include "director-admin-protocol.h"
#include "director-daemon.h"
#include "admin-connection.h"
#include "admin-sessions.h"
#include "admin-sessions-private.h"

/* So often a director is asked for a page. */
#define PAGE_TRIES 2
/* Who sends more in a page than this is wrong. */
#define PAGE_MAX_SIZE (256*1024)

static void
add_row(string_t *str, const struct ring_address *from,
	const struct director_session_row *row)
{
	str_append_tabescaped(str, row->user);
	str_printfa(str, "\t%u\t", row->hash);
	str_append_tabescaped(str, row->service);
	str_printfa(str, "\t%s\t%s\t%"PRIdTIME_T"\t", net_ip2addr(&from->ip),
		    net_ip2addr(&row->backend), row->since);
	str_append_tabescaped(str, row->state);
	str_append_c(str, '\n');
}

static void
add_own_row(const struct director_session_row *row, void *context)
{
	add_row(context, own_address(), row);
}

/* Returns TRUE if there is more. */
static bool list_own(struct admin_query *query)
{
	struct director_time now = director_daemon_now();
	struct director *core = director_daemon.core;
	string_t *str = t_str_new(4096);
	struct session_match match;
	const char *error;
	bool more;

	if (session_match_user(core, query->text, TRUE, &match, &error) < 0)
		return FALSE;
	more = director_sessions_list(core, &match, &query->place, add_own_row,
				      str, &now);
	o_stream_nsend(query->ac->conn.output, str_data(str), str_len(str));
	return more;
}

static const struct query_member *list_member(const struct admin_query *query)
{
	return array_idx(&query->members, query->member_idx);
}

static bool list_is_own(const struct admin_query *query)
{
	return ring_address_cmp(&list_member(query)->address,
				own_address()) == 0;
}

static void list_next_member(struct admin_query *query)
{
	query->member_idx++;
	query->place = query->tries = 0;
}

static void list_no_answer(struct admin_query *query)
{
	admin_reply(query->ac, t_strdup_printf(
		DIRECTOR_ADMIN_ROW_NO_ANSWER"\t%s",
		net_ip2addr(&list_member(query)->address.ip)));
	list_next_member(query);
}

/* Returns TRUE if the answer is to be waited for. */
static bool list_ask(struct admin_query *query)
{
	if (query->tries++ == PAGE_TRIES ||
	    !director_sessions_ask(director_daemon.core,
				   &list_member(query)->address, query->text,
				   query->place, &query->id)) {
		list_no_answer(query);
		return FALSE;
	}
	director_daemon_schedule();
	str_truncate(query->page, 0);
	query->page_rows = 0;
	admin_query_wait(query, DIRECTOR_ADMIN_PAGE_MSECS / PAGE_TRIES);
	return TRUE;
}

bool admin_session_list_more(struct admin_connection *ac)
{
	struct admin_query *query = ac->query;

	if (ac->conn.output->closed) {
		admin_query_free(ac);
		return FALSE;
	}
	while (admin_output_has_room(ac)) {
		if (query->member_idx == array_count(&query->members)) {
			admin_query_free(ac);
			admin_reply(ac, "");
			return FALSE;
		}
		if (list_is_own(query)) {
			if (list_own(query))
				return TRUE;
			list_next_member(query);
		} else if (query->only_own)
			list_next_member(query);
		else if (list_ask(query))
			return FALSE;
	}
	return TRUE;
}

void admin_sessions_row(void *context ATTR_UNUSED, uint32_t id,
			const struct director_session_row *row)
{
	struct admin_query *query = admin_query_find(id);

	if (query == NULL || query->page == NULL ||
	    str_len(query->page) > PAGE_MAX_SIZE)
		return;
	add_row(query->page, &list_member(query)->address, row);
	query->page_rows++;
}

void admin_sessions_end(void *context ATTR_UNUSED, uint32_t id,
			unsigned int next, unsigned int count)
{
	struct admin_query *query = admin_query_find(id);

	if (query == NULL || query->page == NULL)
		return;
	query->id = 0;
	if (count == query->page_rows && (next == 0 || next > query->place)) {
		o_stream_nsend(query->ac->conn.output, str_data(query->page),
			       str_len(query->page));
		query->tries = 0;
		query->place = next;
		if (next == 0)
			list_next_member(query);
	}
	/* else some of it was lost: it is asked for again */
	admin_query_wait(query, 0);
}

void admin_cmd_session_list(struct admin_connection *ac,
			    const char *const *args)
{
	const char *text = args[0] == NULL ? "" : args[0];
	struct session_match match;
	struct admin_query *query;
	const char *error;

	if (strlen(text) > DIRECTOR_SESSION_TEXT_MAX) {
		admin_error(ac, t_strdup_printf(
			"Name is longer than %u bytes",
			DIRECTOR_SESSION_TEXT_MAX));
		return;
	}
	if (session_match_user(director_daemon.core, text, TRUE, &match,
			       &error) < 0) {
		admin_error(ac, error);
		return;
	}
	query = admin_query_new(ac);
	query->text = i_strdup(text);
	query->page = str_new(default_pool, 1024);
	if (query->only_own && array_count(&query->members) > 1)
		admin_reply(ac, DIRECTOR_ADMIN_ROW_ONLY_OWN);
	admin_output(ac, admin_session_list_more);
}
