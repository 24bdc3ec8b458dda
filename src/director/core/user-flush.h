#ifndef USER_FLUSH_H
#define USER_FLUSH_H

#include "director.h"

/* Flushes of backends: walks that move their users (spec: assignment.md §9).
   Several may go on at once. */

struct user_flushes;

struct user_flushes *user_flushes_init(struct director *director);
void user_flushes_deinit(struct user_flushes **flushes);

/* Begins moves, a slice of them. */
void user_flushes_run(struct user_flushes *flushes,
		      const struct director_time *now);
/* Monotonic msecs; now if there is more to do at once, 0 = never */
uint64_t user_flushes_next_deadline(const struct user_flushes *flushes,
				    const struct director_time *now);

/* A move that was begun for it has ended. in_vain: after its time, with directors
   of 2.3, and some may not have been ready. */
void user_flush_moved(struct user_flush *flush, bool in_vain);

#endif
