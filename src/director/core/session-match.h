#ifndef SESSION_MATCH_H
#define SESSION_MATCH_H

#include "director-sessions.h"

struct session_lease;
struct session_leases;

/* A copy with texts of its own */
void session_match_dup(struct session_match *dest,
		       const struct session_match *src);
void session_match_free(struct session_match *match);

bool session_matches(struct director *director,
		     const struct session_match *match,
		     const struct session_lease *lease);
/* Places of session_leases_walk_all() that have about a slice's leases */
unsigned int session_walk_places(const struct session_leases *leases);

#endif
