#ifndef SESSION_LIST_H
#define SESSION_LIST_H

#include "ring.h"

/* Lists of sessions: our own, and what other directors ask for and answer, page
   by page. */

struct director;
struct director_time;
struct session_queries;

struct session_queries *session_queries_init(struct director *director);
void session_queries_deinit(struct session_queries **queries);

/* That director asks for a page of our sessions, from this place on. */
void session_query_add(struct session_queries *queries,
		       const struct ring_address *from, uint32_t id,
		       unsigned int place, const char *text);
/* Does a slice. Returns TRUE if there is more. */
bool session_queries_run(struct session_queries *queries,
			 const struct director_time *now);
bool session_queries_pending(const struct session_queries *queries);

/* SESSION or SESSIONS-END has come for us. */
void session_answer(struct director *director, const struct ring_message *msg,
		    const struct director_time *now);

#endif
