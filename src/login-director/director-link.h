#ifndef DIRECTOR_LINK_H
#define DIRECTOR_LINK_H

#include "director-session.h"

/* This login process' connection to the director: tells it about the proxied
   sessions and ends those that it wants kicked. It connects when the first
   session starts, and again whenever the connection is lost; the sessions are
   ended when there has been no director for the grace that the last one told.
   It never blocks, and buffers a bounded amount. */

struct director_link;

/* Has to close the session's backend connection and to call
   director_link_end() for it before it returns. Must not end others. */
typedef void director_link_kick_t(struct director_session *session,
				  const char *reason);

/* protocol: what the clients of this process speak. */
struct director_link *
director_link_init(const char *socket_path, const char *protocol,
		   director_link_kick_t *kick);
void director_link_deinit(struct director_link **link);

/* From now on this process may be connected to the backend. When this returns,
   the director's socket has START, if it could be reached at all. Returns NULL
   if there is a session with this token already. The session is freed by
   director_link_end(). */
struct director_session *
director_link_start(struct director_link *link,
		    const struct director_answer *answer,
		    const struct ip_addr *ip, const char *user, void *context);
/* ip: the backend that accepted the login; it's not the one that the session
   started with if that redirected us. */
void director_link_up(struct director_link *link,
		      struct director_session *session,
		      const struct ip_addr *ip);
/* The backend connection is closed. Does nothing if *session is NULL. */
void director_link_end(struct director_link *link,
		       struct director_session **session, const char *reason);

#endif
