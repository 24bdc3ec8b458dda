#ifndef USER_KICK_H
#define USER_KICK_H

#include "ring.h"

/* Kicks: sessions are ended, nothing else changes (spec: assignment.md §7).
   Which sessions they are is found by a walk over all, a slice at a time. */

struct director;
struct director_time;
struct user_kicks;

struct user_kicks *user_kicks_init(struct director *director);
void user_kicks_deinit(struct user_kicks **kicks);

/* Does a slice. Returns TRUE if there is more to do at once. */
bool user_kicks_run(struct user_kicks *kicks, const struct director_time *now);
/* Monotonic msecs; 0 = never */
uint64_t user_kicks_next_deadline(const struct user_kicks *kicks,
				  const struct director_time *now);

void ring_handle_user_kick(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now);
void ring_handle_user_count(struct ring *ring, struct ring_peer *peer,
			    struct ring_message *msg,
			    const struct director_time *now);

#endif
