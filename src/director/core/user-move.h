#ifndef USER_MOVE_H
#define USER_MOVE_H

#include "ring.h"

/* Moves of users to another backend (spec: assignment.md §6; design.md "The
   promise, as rules", 3-5). While a user has a move, no director answers him:
   each one kicks the sessions that he has elsewhere, and waits until they are
   gone and their backend had time to finish. That all are ready is told by
   waves: USER-KILLED goes round to the right, and no director passes it on
   before it is ready itself. When it is back at the director that began the
   move, USER-KILLED-EVERYWHERE lets him in.

   Where all directors are ours the waves have the names of their moves: several
   that were begun at once don't disturb each other, and one that got lost is
   sent again. Else it goes as in the original. */

struct director;
struct director_time;
struct user_moves;
struct user_flush;

struct user_moves *user_moves_init(struct director *director);
void user_moves_deinit(struct user_moves **moves);

/* A session of the user has begun on this backend. */
void user_moves_session_started(struct user_moves *moves, const char *tag,
				uint32_t hash, const struct ip_addr *ip,
				const struct director_time *now);
/* A session of the user has ended on this backend. tag NULL: in any tag */
void user_moves_session_ended(struct user_moves *moves, const char *tag,
			      uint32_t hash, const struct ip_addr *ip,
			      const struct director_time *now);
/* Moves that begin from now on have names with higher numbers than that. */
void user_moves_number_from(struct user_moves *moves, uint32_t number);
/* The backend's users were forgotten, except those who are being moved to it. */
void user_moves_backend_flushed(struct user_moves *moves,
				const struct ip_addr *ip,
				const struct director_time *now);
/* The backend was removed: users who are being moved to it go where hashing puts
   them now, if there is a backend for them. */
void user_moves_backend_removed(struct user_moves *moves,
				const struct ip_addr *ip,
				const struct director_time *now);
/* If the user is being moved, he is put into the table, as one who is moved.
   He may have been forgotten there, with all or some backends. */
bool user_moves_place(struct user_moves *moves, const char *tag, uint32_t hash,
		      const struct director_time *now);

/* He was moved, and what was told at this time (wall seconds) is of before: it
   took another way, that was slow. */
bool user_moves_is_stale(const struct user_moves *moves, const char *tag,
			 uint32_t hash, time_t timestamp,
			 const struct director_time *now);

/* Where he was before he was moved; NULL if he wasn't known, or that backend
   isn't any more. */
const struct backend *
user_moves_old_backend(struct user_moves *moves, const char *tag,
		       uint32_t hash);

/* Looks at up to max_steps of them. Returns TRUE if there is more. */
bool user_moves_run(struct user_moves *moves, const struct director_time *now,
		    unsigned int max_steps);
/* Monotonic msecs; 0 = never */
uint64_t user_moves_next_deadline(const struct user_moves *moves);

/* Moves the user of the flush, from his backend to target; NULL: ends him there
   and forgets him. Returns FALSE if he is being moved already, or too many
   are. */
bool user_move_begin_for(struct user_moves *moves, struct user_flush *flush,
			 const struct backend *backend,
			 const struct backend *target, uint32_t hash,
			 const char *by, const struct director_time *now);

/* A director whose ring we join has handed us a user who is being moved. Returns
   FALSE if too many are. */
bool user_moves_handed(struct user_moves *moves, const struct backend *backend,
		       uint32_t hash, const struct ring_address *by,
		       const struct director_time *now);

void ring_handle_user_move(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now);
void ring_handle_user_killed(struct ring *ring, struct ring_peer *peer,
			     struct ring_message *msg,
			     const struct director_time *now);
void ring_handle_user_killed_everywhere(struct ring *ring,
					struct ring_peer *peer,
					struct ring_message *msg,
					const struct director_time *now);

#endif
