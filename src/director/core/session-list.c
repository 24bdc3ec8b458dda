/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "str-sanitize.h"
#include "ring-private.h"
#include "session-lease-private.h"
#include "session-list.h"
#include "session-match.h"

/* Sessions in a page, unless more are in the same place */
#define SESSION_PAGE_ROWS 50
/* Pages that others wait for */
#define SESSION_QUERIES_MAX RING_MEMBERS_MAX

struct session_query {
	struct session_query *prev, *next;
	struct ring_address from;
	uint32_t id;
	unsigned int pos, rows;
	/* Its texts are ours. */
	struct session_match match;
};

struct session_queries {
	struct director *director;
	struct session_query *head, *tail;
	unsigned int count;
};

struct session_queries *session_queries_init(struct director *director)
{
	struct session_queries *queries = i_new(struct session_queries, 1);

	queries->director = director;
	return queries;
}

static void query_free(struct session_queries *queries,
		       struct session_query *query)
{
	DLLIST2_REMOVE(&queries->head, &queries->tail, query);
	queries->count--;
	session_match_free(&query->match);
	i_free(query);
}

void session_queries_deinit(struct session_queries **_queries)
{
	struct session_queries *queries = *_queries;

	*_queries = NULL;
	while (queries->head != NULL)
		query_free(queries, queries->head);
	i_free(queries);
}

bool session_queries_pending(const struct session_queries *queries)
{
	return queries->head != NULL;
}

/* -- Our own -- */

static const char *lease_state(const struct session_lease *lease)
{
	if (!session_lease_is_told(lease))
		return "lost";
	if (lease->ending)
		return "ending";
	return lease->state == SESSION_LEASE_UP ? "up" : "starting";
}

static void lease_row(const struct session_lease *lease,
		      const struct director_time *now,
		      struct director_session_row *row_r)
{
	const char *name = session_lease_name(lease);

	row_r->user = name == NULL ? "" : name;
	row_r->service = lease->process->protocol == NULL ? "" :
		str_sanitize(lease->process->protocol->name, SIZE_MAX);
	row_r->state = lease_state(lease);
	row_r->hash = lease->user->hash;
	row_r->backend = lease->backend->ip;
	row_r->since = ring_time_to_wire(now, lease->since);
}

struct list_context {
	struct director *director;
	const struct session_match *match;
	void (*callback)(const struct director_session_row *row,
			 void *context);
	void *context;
	const struct director_time *now;
};

static void list_lease(struct session_lease *lease, void *context)
{
	struct list_context *ctx = context;
	struct director_session_row row;

	if (!session_matches(ctx->director, ctx->match, lease))
		return;
	lease_row(lease, ctx->now, &row);
	ctx->callback(&row, ctx->context);
}

static bool
list_places(struct director *director, const struct session_match *match,
	    unsigned int *pos, unsigned int max,
	    void (*callback)(const struct director_session_row *row,
			     void *context),
	    void *context, const struct director_time *now)
{
	struct list_context ctx = {
		.director = director,
		.match = match,
		.callback = callback,
		.context = context,
		.now = now,
	};

	return session_leases_walk_all(director->leases, pos, max, list_lease,
				       &ctx);
}

bool director_sessions_list(struct director *director,
			    const struct session_match *match,
			    unsigned int *pos,
			    void (*callback)(const struct director_session_row
					     *row, void *context),
			    void *context, const struct director_time *now)
{
	return list_places(director, match, pos,
			   session_walk_places(director->leases),
			   callback, context, now);
}

/* -- Others ask us -- */

void session_query_add(struct session_queries *queries,
		       const struct ring_address *from, uint32_t id,
		       unsigned int place, const char *text)
{
	struct session_match match;
	struct session_query *query;
	const char *error;

	/* Who asked and is forgotten now asks again. */
	if (queries->count >= SESSION_QUERIES_MAX)
		query_free(queries, queries->head);
	if (session_match_user(queries->director, text, TRUE, &match,
			       &error) < 0)
		return;
	query = i_new(struct session_query, 1);
	query->from = *from;
	query->id = id;
	query->pos = place;
	session_match_dup(&query->match, &match);
	DLLIST2_APPEND(&queries->head, &queries->tail, query);
	queries->count++;
}

struct page_context {
	struct ring *ring;
	struct session_query *query;
};

static void
page_row(const struct director_session_row *row, void *context)
{
	struct page_context *ctx = context;
	struct ring_message msg = {
		.type = RING_SESSION,
		.seq = ctx->query->id,
		.text = row->user,
		.hostname = row->service,
		.tag = row->state,
		.hash = row->hash,
		.ip = row->backend,
		.timestamp = row->since,
		.has_timestamp = TRUE,
	};

	ctx->query->rows++;
	(void)ring_send_to(ctx->ring, &ctx->query->from, &msg);
}

/* Returns FALSE if there is no more. */
static bool page_slice(struct director *director, struct session_query *query,
		       const struct director_time *now)
{
	struct page_context ctx = { director->ring, query };
	unsigned int places = session_walk_places(director->leases);
	bool more = TRUE;

	for (; more && places > 0 && query->rows < SESSION_PAGE_ROWS; places--) {
		more = list_places(director, &query->match, &query->pos, 1,
				   page_row, &ctx, now);
	}
	return more;
}

bool session_queries_run(struct session_queries *queries,
			 const struct director_time *now)
{
	struct director *director = queries->director;
	struct session_query *query = queries->head;
	struct ring_message msg = { .type = RING_SESSIONS_END };
	bool more;

	if (query == NULL)
		return FALSE;
	T_BEGIN {
		more = page_slice(director, query, now);
	} T_END;
	if (!more || query->rows >= SESSION_PAGE_ROWS) {
		msg.seq = query->id;
		msg.place = more ? query->pos : 0;
		msg.count = query->rows;
		(void)ring_send_to(director->ring, &query->from, &msg);
		query_free(queries, query);
	}
	return queries->head != NULL;
}

/* -- We ask others -- */

bool director_sessions_ask(struct director *director,
			   const struct ring_address *to, const char *text,
			   unsigned int place, uint32_t *id_r)
{
	struct ring_message msg = {
		.type = RING_SESSIONS,
		.seq = ++director->ring->last_seq,
		.place = place,
		.text = text,
	};

	*id_r = msg.seq;
	return ring_send_to(director->ring, to, &msg);
}

void session_answer(struct director *director, const struct ring_message *msg,
		    const struct director_time *now ATTR_UNUSED)
{
	const struct director_session_vfuncs *v = &director->v.sessions;
	const struct director_session_row row = {
		.user = msg->text,
		.service = msg->hostname,
		.state = msg->tag,
		.hash = msg->hash,
		.backend = msg->ip,
		.since = msg->timestamp,
	};

	if (msg->type == RING_SESSIONS_END) {
		if (v->end != NULL) {
			v->end(director->context, msg->seq, msg->place,
			       msg->count);
		}
	} else if (v->row != NULL)
		v->row(director->context, msg->seq, &row);
}
