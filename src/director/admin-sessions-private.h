#ifndef ADMIN_SESSIONS_PRIVATE_H
#define ADMIN_SESSIONS_PRIVATE_H

#include "director-daemon.h"

/* Inside of the commands that ask all directors: admin-sessions.c ends sessions,
   admin-session-list.c lists them. */

struct query_member {
	struct ring_address address;
	bool answered;
	unsigned int count;
};

/* What a connection waits for */
struct admin_query {
	struct admin_query *prev, *next;
	struct admin_connection *ac;
	/* What was asked; 0: nothing */
	uint32_t id;
	ARRAY(struct query_member) members;
	/* Some of them won't answer: they aren't asked. */
	bool only_own;
	/* Until when, monotonic */
	uint64_t deadline_msecs;
	struct timeout *to;

	/* A kick that hasn't begun yet: whom; NULL: none. SESSION-LIST: which
	   sessions */
	char *text;
	/* NULL: the text is a name or a mask */
	char *field;
	bool counted;

	/* A move: of whom and to where; hash 0: none */
	uint32_t hash;
	struct ip_addr ip;
	bool wait_end;
	/* SESSION-LIST: of which of the members, from which place on */
	unsigned int member_idx, place, tries;
	string_t *page;
	unsigned int page_rows;
};

static inline const struct ring_address *own_address(void)
{
	return &ring_self(director_ring(director_daemon.core))->address;
}

/* The connection waits, for all directors that are configured; until
   admin_query_free(). */
struct admin_query *admin_query_new(struct admin_connection *ac);
/* The one that was asked with this number; NULL if it isn't waited for. */
struct admin_query *admin_query_find(uint32_t id);
/* Looks at it after so long at the latest. */
void admin_query_wait(struct admin_query *query, unsigned int msecs);

/* For admin_output(): as much of the list as there is room for */
bool admin_session_list_more(struct admin_connection *ac);

#endif
