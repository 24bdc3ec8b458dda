#ifndef USER_MOVE_PRIVATE_H
#define USER_MOVE_PRIVATE_H

#include "hash.h"
#include "priorityq.h"
#include "log-throttle.h"
#include "ring-private.h"
#include "user-move.h"

/* The original gives up after this. */
#define MOVE_TIMEOUT_MSECS 30000
/* A wave of ours is sent again so often, and its move told again. */
#define MOVE_RESEND_MSECS 1000
/* Who began a move is gone if it isn't heard for so long: another takes over,
   the first one of them that is that far. */
#define MOVE_ORPHAN_RESENDS 4
#define MOVE_ORPHAN_STEP_MSECS 200
/* One of 2.3 that still has a move of the user when the next one is told takes
   its USER-KILLED for the last one. The others have let him in then: so long
   after that the wave isn't awaited any more. */
#define MOVE_UNSURE_MSECS 3000
/* One of ours that isn't done, or has begun it, tells USER-MOVE again each
   MOVE_RESEND_MSECS then. So long after the last such word it isn't awaited any
   more. */
#define MOVE_WORD_MSECS 5000
/* One of 2.3 that is told to move a user while it still has his last move tells
   USER-MOVE, but never USER-KILLED: the same then. Its delay may end so long
   after ours, or after 30 s if it waits for its flush hook, or in vain. */
#define MOVE_AGAIN_MSECS 1000
/* So long after a move there may be messages of before it. */
#define MOVE_STALE_MSECS 15000
/* Sessions are looked after at least so often. */
#define MOVE_LOOK_MSECS 250
/* Directors that moved the same user at once */
#define MOVE_MAX_WAVES 16

/* Users who are moved at once. Each is held here and looked at four times a
   second. */
#ifndef USER_MOVES_MAX
#define USER_MOVES_MAX 20000
#endif
/* Waves that are over, of which some may still be under way */
#define MOVE_ENDED_MEMORY 1024
/* Moves that are over, by user. Those of a flush end by the hundred, and two of
   them forget each other if they share a place. */
#define MOVE_MOVED_MEMORY 16384

struct user_flush;

struct move_wave {
	struct ring_address initiator;
	/* The how manieth move of it, of any user */
	uint32_t number;
	/* When it was heard of last */
	uint64_t news_msecs;
	/* It came here, from this left (struct ring); it is to be passed on,
	   unless there is another one by then, whom it has passed over. */
	bool arrived;
	unsigned int arrived_left;
	/* It was, since its initiator told of the move last: if that one isn't in
	   the ring, it would go round without end. */
	bool passed;
};

struct user_move {
	struct priorityq_item item;
	uint64_t deadline_msecs;

	/* From backends_tag() */
	const char *tag;
	uint32_t hash;
	/* The hash, keyed: others can't choose it */
	unsigned int key;
	/* The same hash in another tag */
	struct user_move *tag_next;
	struct ip_addr target;
	/* Where he was, family 0 if he wasn't known */
	struct ip_addr from_ip;
	/* The same for the flush hook, family 0 also if he was there already; its
	   state then */
	struct ip_addr old_ip;
	unsigned int old_vhosts;
	bool old_down;
	/* For which it was begun, or NULL */
	struct user_flush *flush;
	/* Of the flush hook; 0 = it wasn't run */
	unsigned int hook_id;
	uint64_t started_msecs;
	/* Not before this is he gone for good where he was. */
	uint64_t hold_msecs;
	/* When our own move was told last; the original's: when we told where he
	   goes, and when we did only because it takes long */
	uint64_t told_msecs, repeated_msecs;
	/* The original's: since when USER-KILLED may be one that doesn't come,
	   since USER-KILLED-EVERYWHERE did without it, or the move may be none
	   for its initiator; 0 = it comes */
	uint64_t unsure_msecs;
	/* When another one of ours told of it last; 0 = never */
	uint64_t word_msecs;

	/* Those that have names; none: as the original does it */
	struct move_wave waves[MOVE_MAX_WAVES];
	unsigned int waves_count;

	/* There is no backend for him: he is ended on the one where he is, and
	   forgotten. */
	bool nowhere:1;
	/* Nobody is left here. */
	bool done:1;
	/* The flush hook runs for him; it has ended. */
	bool hook_runs:1, hook_done:1;
	/* USER-KILLED was sent, since our own move was told last if it has a
	   name. */
	bool passed:1;
	/* The original's: begun here; USER-KILLED came; all are done; that was
	   told, and the delay passes */
	bool initiator:1, notified:1, back:1, delaying:1;
	/* We have told that we aren't done, not knowing of a wave. */
	bool repeated_unsure:1;
	/* Its time is over. */
	bool in_vain:1;
	/* Another backend was told of than ours, and ours again after that. */
	bool retold:1;
};

struct user_moves {
	struct director *director;
	/* By hash: the first one of its tags */
	HASH_TABLE(const struct user_move *, struct user_move *) table;
	struct log_throttle full_throttle;
	struct priorityq *queue;
	/* By number, modulo the size */
	struct {
		struct ring_address initiator;
		uint32_t number;
	} ended[MOVE_ENDED_MEMORY];
	/* Whose move ended when; by hash, modulo the size */
	struct {
		const char *tag;
		uint32_t hash;
		uint64_t started_msecs, msecs;
		time_t wall;
	} moved[MOVE_MOVED_MEMORY];
	/* Of our own moves; higher than those of the process before */
	uint32_t last_number;
	unsigned int last_hook_id;
};

/* -- user-move.c -- */

/* tag: from backends_tag(). NULL if he isn't being moved. */
struct user_move *
user_move_find(struct user_moves *moves, const char *tag, uint32_t hash);
/* The move in some tag, NULL if there is none; the others are behind it
   (tag_next). */
struct user_move *
user_moves_of_hash(struct user_moves *moves, uint32_t hash);
/* Holds him and kicks his sessions; by: who wants that, for the log. He must not
   be moved already. Returns NULL (logged) if too many users are. */
struct user_move *
user_move_new(struct user_moves *moves, const struct backend *backend,
	      uint32_t hash, bool nowhere, const char *by,
	      const struct director_time *now);
void user_move_free(struct user_moves *moves, struct user_move *move);
/* He may be answered again. Frees it. */
void user_move_end(struct user_moves *moves, struct user_move *move,
		   const struct director_time *now);
/* He moves to this backend instead (nowhere: see struct user_move). */
void user_move_retarget(struct user_moves *moves, struct user_move *move,
			const struct ip_addr *target, bool nowhere,
			const struct director_time *now);
/* All directors are ready. Returns TRUE if the flush hook has to end first, which
   is run if it isn't yet. */
bool user_move_runs_hook(struct user_moves *moves, struct user_move *move);
/* When it is looked at next */
void user_move_set_deadline(struct user_moves *moves, struct user_move *move,
			    uint64_t msecs);

/* -- user-move-ring.c -- */

/* Our own move of him; NULL if we haven't begun one. */
struct move_wave *
user_move_own_wave(struct user_moves *moves, struct user_move *move);
/* Tells the ring, and brings the move to its end. */
void user_move_begin(struct user_moves *moves, struct user_move *move,
		     const struct director_time *now);
/* A wave of this initiator was heard of. Returns NULL if it is older than what
   is known, or there are too many. */
struct move_wave *
user_move_heard(struct user_move *move, const struct ring_address *initiator,
		uint32_t number, const struct director_time *now);
/* What the ring is told. number: of the wave, 0 = as the original does it; wave:
   NULL = the same */
void user_move_tell(struct user_moves *moves, const struct user_move *move,
		    uint32_t number);
void user_move_send_killed(struct user_moves *moves,
			   const struct user_move *move,
			   const struct move_wave *wave);
void user_move_send_everywhere(struct user_moves *moves,
			       const struct user_move *move, uint32_t number);
/* Longer than a round takes. If the last SYNC took longer than until it is sent
   again, that was because the ring was broken. */
unsigned int user_move_resend_msecs(const struct ring *ring);
/* Has it names? If there are directors of 2.3 by now they are forgotten. */
bool user_move_is_named(struct user_moves *moves, struct user_move *move,
			const struct director_time *now);
/* What is to be done now. May end and free it. Returns FALSE then. */
bool user_move_run_waves(struct user_moves *moves, struct user_move *move,
			 const struct director_time *now);

/* -- user-move-original.c: without names, in a ring with directors of 2.3 -- */

/* As user_move_run_waves() */
bool user_move_run_original(struct user_moves *moves, struct user_move *move,
			    const struct director_time *now);
/* origin (NULL: not in the ring) has told that he moves to told, not where we
   know: is it right? */
bool user_move_original_yields(const struct user_moves *moves,
			       const struct user_move *move,
			       const struct ring_member *origin,
			       const struct ip_addr *told,
			       const struct director_time *now);
/* origin has told of the move, wherever to. */
void user_move_original_heard(struct user_move *move,
			      const struct ring_member *origin,
			      const struct director_time *now);
/* Our backend holds, although this one was told of: so that all have heard of
   ours last. */
void user_move_original_kept(struct user_moves *moves, struct user_move *move,
			     const struct ip_addr *told);
/* He isn't being moved (any more). May a director of 2.3 still have a move of
   him? */
bool user_move_original_may_last(const struct user_moves *moves,
				 const char *tag, uint32_t hash,
				 const struct director_time *now);
/* USER-KILLED came from the left. */
void user_moves_original_killed(struct user_moves *moves, uint32_t hash,
				const struct director_time *now);
void user_moves_original_everywhere(struct user_moves *moves,
				    struct ring_peer *peer,
				    const struct ring_message *msg,
				    const struct director_time *now);

#endif
