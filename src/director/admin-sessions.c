/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The commands of the admin socket that end sessions, and that have to hear from
   other directors how many: USER-KICK, USER-KICK-ALT, USER-MOVE. */

#include "lib.h"
#include "array.h"
#include "ioloop.h"
#include "llist.h"
#include "str.h"
#include "director-admin-protocol.h"
#include "director-daemon.h"
#include "admin-connection.h"
#include "admin-sessions.h"
#include "admin-sessions-private.h"

/* A kick that has to wait for others to end, and a move that is waited for, are
   looked at so often. */
#define LOOK_MSECS 100
/* A kick waits for others so long. */
#define KICK_WAIT_MSECS (30*1000)

static struct admin_query *queries;

struct admin_query *admin_query_new(struct admin_connection *ac)
{
	struct ring *ring = director_ring(director_daemon.core);
	struct admin_query *query = i_new(struct admin_query, 1);
	struct ring_member *const *list;
	struct query_member *member;
	unsigned int i, count;

	list = ring_members_sorted(ring_get_members(ring), &count);
	i_array_init(&query->members, count);
	for (i = 0; i < count; i++) {
		if (list[i]->removed)
			continue;
		member = array_append_space(&query->members);
		member->address = list[i]->address;
	}
	query->only_own = ring_right(ring) == NULL ||
		ring_min_minor(ring) < RING_MINOR_OURS;
	query->ac = ac;
	ac->query = query;
	DLLIST_PREPEND(&queries, query);
	return query;
}

void admin_query_free(struct admin_connection *ac)
{
	struct admin_query *query = ac->query;

	if (query == NULL)
		return;
	ac->query = NULL;
	DLLIST_REMOVE(&queries, query);
	timeout_remove(&query->to);
	array_free(&query->members);
	i_free(query->text);
	i_free(query->field);
	str_free(&query->page);
	i_free(query);
}

/* The command is done. */
static void query_reply(struct admin_query *query, const char *line)
{
	struct admin_connection *ac = query->ac;

	admin_query_free(ac);
	admin_reply(ac, line);
	admin_continue(ac);
}

struct admin_query *admin_query_find(uint32_t id)
{
	struct admin_query *query = queries;

	while (query != NULL && (query->id != id || id == 0))
		query = query->next;
	return query;
}

/* -- Counts -- */

static void query_look(struct admin_query *query);

/* OK and the counts */
static const char *query_counts(const struct admin_query *query)
{
	string_t *str = t_str_new(256);
	const struct query_member *member;

	str_append(str, DIRECTOR_ADMIN_REPLY_OK);
	array_foreach(&query->members, member) {
		str_printfa(str, "\t%s\t", net_ip2addr(&member->address.ip));
		if (member->answered)
			str_printfa(str, "%u", member->count);
		else
			str_append_c(str, '?');
	}
	return str_c(str);
}

/* Nobody is there, as far as one can see from here. */
static bool director_is_down(const struct ring_address *address)
{
	struct ring *ring = director_ring(director_daemon.core);
	const struct ring_member *member =
		ring_member_lookup(ring_get_members(ring), address);

	return member != NULL && member->unreached_msecs != 0;
}

/* How long those who haven't answered yet have for it */
static unsigned int query_patience_msecs(const struct admin_query *query)
{
	const struct query_member *member;
	unsigned int msecs = 0;

	array_foreach(&query->members, member) {
		if (member->answered ||
		    (query->only_own &&
		     ring_address_cmp(&member->address, own_address()) != 0))
			continue;
		if (!director_is_down(&member->address))
			return DIRECTOR_ADMIN_COUNT_MSECS;
		msecs = DIRECTOR_ADMIN_COUNT_DOWN_MSECS;
	}
	return msecs;
}

void admin_query_wait(struct admin_query *query, unsigned int msecs)
{
	timeout_remove(&query->to);
	query->to = timeout_add_short(msecs, query_look, query);
}

void admin_sessions_kicked(void *context ATTR_UNUSED, uint32_t id,
			   const struct ring_address *from, unsigned int count)
{
	struct admin_query *query = admin_query_find(id);
	struct query_member *member;
	unsigned int msecs;

	if (query == NULL)
		return;
	array_foreach_modifiable(&query->members, member) {
		if (ring_address_cmp(&member->address, from) == 0) {
			member->answered = TRUE;
			member->count = count;
		}
	}
	msecs = query_patience_msecs(query);
	/* (we are called by the core) */
	if (msecs < DIRECTOR_ADMIN_COUNT_MSECS)
		admin_query_wait(query, msecs);
}

static void query_expect_counts(struct admin_query *query, uint32_t id)
{
	query->id = id;
	admin_query_wait(query, query_patience_msecs(query));
}

/* -- Kicks -- */

/* Returns FALSE if it has to wait for others. */
static bool kick_begin(struct admin_connection *ac, const char *field,
		       const char *text, bool counted)
{
	struct director_time now = director_daemon_now();
	struct director *core = director_daemon.core;
	struct session_match match;
	const char *error;
	uint32_t id;

	if (field != NULL) {
		i_zero(&match);
		match.type = SESSION_MATCH_FIELD;
		match.field = field;
		match.text = text;
	} else if (session_match_user(core, text, FALSE, &match, &error) < 0) {
		e_error(ac->conn.event, "%s", error);
		admin_query_free(ac);
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_TRYAGAIN);
		return TRUE;
	}
	if (!director_sessions_kick(core, &match, counted, ADMIN_LOG_PREFIX,
				    &id, &now))
		return FALSE;
	director_daemon_schedule();
	if (!counted) {
		admin_query_free(ac);
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_OK);
		return TRUE;
	}
	query_expect_counts(ac->query != NULL ? ac->query : admin_query_new(ac), id);
	return TRUE;
}

static void
kick(struct admin_connection *ac, const char *field, const char *text,
     const char *const *words)
{
	struct director_time now = director_daemon_now();
	struct admin_query *query;
	bool nowait = FALSE, counted = FALSE;

	for (; *words != NULL; words++) {
		if (strcmp(*words, "nowait") == 0)
			nowait = TRUE;
		else if (strcmp(*words, "count") == 0)
			counted = TRUE;
	}
	if (*text == '\0' || (field != NULL && *field == '\0')) {
		admin_error(ac, "Nobody named to be kicked");
		return;
	}
	if (strlen(text) > DIRECTOR_SESSION_TEXT_MAX ||
	    (field != NULL && strlen(field) > DIRECTOR_SESSION_TEXT_MAX)) {
		admin_error(ac, t_strdup_printf(
			"Name, field or value is longer than %u bytes",
			DIRECTOR_SESSION_TEXT_MAX));
		return;
	}
	if (kick_begin(ac, field, text, counted))
		return;
	if (nowait) {
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_TRYAGAIN);
		return;
	}
	query = admin_query_new(ac);
	query->text = i_strdup(text);
	query->field = i_strdup(field);
	query->counted = counted;
	query->deadline_msecs = now.msecs + KICK_WAIT_MSECS;
	admin_query_wait(query, LOOK_MSECS);
}

void admin_cmd_user_kick(struct admin_connection *ac, const char *const *args)
{
	kick(ac, NULL, args[0], args + 1);
}

void admin_cmd_user_kick_alt(struct admin_connection *ac,
			     const char *const *args)
{
	kick(ac, args[0], args[1], args + 2);
}

static void kick_try_again(struct admin_query *query)
{
	struct director_time now = director_daemon_now();
	struct admin_connection *ac = query->ac;
	char *text = query->text;

	query->text = NULL;
	if (kick_begin(ac, query->field, text, query->counted)) {
		/* without counts it is answered */
		if (ac->query == NULL)
			admin_continue(ac);
		i_free(text);
		return;
	}
	query->text = text;
	if (now.msecs >= query->deadline_msecs)
		query_reply(query, DIRECTOR_ADMIN_REPLY_TRYAGAIN);
	else
		admin_query_wait(query, LOOK_MSECS);
}

/* -- Moves -- */

static const char *move_error(enum director_host_result result)
{
	switch (result) {
	case DIRECTOR_HOST_NOTFOUND:
		return DIRECTOR_ADMIN_REPLY_NOTFOUND;
	case DIRECTOR_HOST_UNSAFE:
		return t_strconcat("user can't be moved safely: ",
			director_unsafe_reason(director_daemon.core), NULL);
	default:
		return DIRECTOR_ADMIN_REPLY_TRYAGAIN;
	}
}

static void
move_begin(struct admin_connection *ac, uint32_t hash,
	   const struct ip_addr *ip, bool counted, bool wait_end)
{
	struct director_time now = director_daemon_now();
	struct director *core = director_daemon.core;
	struct admin_query *query = NULL;
	enum director_host_result result;

	if (counted) {
		query = admin_query_new(ac);
		director_sessions_count(core, hash, ip, &query->id);
	}
	result = director_user_move(core, hash, ip, ADMIN_LOG_PREFIX, &now);
	director_daemon_commit();
	if (result != DIRECTOR_HOST_OK) {
		admin_query_free(ac);
		admin_reply(ac, move_error(result));
		return;
	}
	if (query == NULL) {
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_OK);
		return;
	}
	query->hash = hash;
	query->ip = *ip;
	query->wait_end = wait_end;
	query->deadline_msecs = now.msecs + DIRECTOR_ADMIN_MOVE_MSECS;
	admin_query_wait(query, query_patience_msecs(query));
}

void admin_cmd_user_move(struct admin_connection *ac, const char *const *args)
{
	bool is_name = FALSE, counted = FALSE, wait_end = FALSE;
	const char *const *words;
	struct ip_addr ip;
	const char *error;
	uint32_t hash;

	for (words = args + 2; *words != NULL; words++) {
		if (strcmp(*words, "user") == 0)
			is_name = TRUE;
		else if (strcmp(*words, "count") == 0)
			counted = TRUE;
		else if (strcmp(*words, "wait") == 0)
			counted = wait_end = TRUE;
	}
	if (!admin_parse_ip(ac, args[1], &ip))
		return;
	if (admin_parse_user(args[0], is_name, &hash, &error) < 0) {
		e_error(ac->conn.event, "%s", error);
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_TRYAGAIN);
		return;
	}
	move_begin(ac, hash, &ip, counted, wait_end);
}

/* Why he isn't where he was to be moved to; NULL if he is */
static const char *move_missed(const struct admin_query *query)
{
	struct director_time now = director_daemon_now();
	struct director *core = director_daemon.core;
	const struct backend *backend =
		backend_lookup(director_backends(core), &query->ip);
	user_idx_t idx;

	if (backend == NULL)
		return "the move has ended, but the backend was removed";
	idx = user_table_lookup(director_users(core), backend->tag,
				query->hash, now.wall);
	if (idx == USER_IDX_NONE)
		return NULL;
	backend = backend_by_slot(director_backends(core), user_table_slot(
		director_users(core), idx));
	return backend == NULL || net_ip_compare(&backend->ip, &query->ip) ?
		NULL : t_strdup_printf("the move has ended, but the user is "
				       "on %s", net_ip2addr(&backend->ip));
}

static void move_look(struct admin_query *query)
{
	struct director_time now = director_daemon_now();
	const char *why, *missed;

	why = !query->wait_end ? NULL :
		director_user_move_waits(director_daemon.core, query->hash,
					 &query->ip, &now);
	if (why == NULL) {
		missed = query->wait_end ? move_missed(query) : NULL;
		query_reply(query, missed != NULL ? missed :
			    query_counts(query));
	} else if (now.msecs >= query->deadline_msecs) {
		query_reply(query, t_strconcat(DIRECTOR_ADMIN_REPLY_WAITING
					       "\t", why, NULL));
	} else {
		admin_query_wait(query, LOOK_MSECS);
	}
}

/* -- Time -- */

static void query_look(struct admin_query *query)
{
	timeout_remove(&query->to);
	if (query->page != NULL) {
		query->id = 0;
		admin_output(query->ac, admin_session_list_more);
	} else if (query->text != NULL)
		kick_try_again(query);
	else if (query->hash != 0)
		move_look(query);
	else
		query_reply(query, query_counts(query));
}
