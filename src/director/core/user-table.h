#ifndef USER_TABLE_H
#define USER_TABLE_H

#include "backend.h"

/* Who is assigned where: (tag, hash) -> slot of a backend, time of last use,
   flags (spec: assignment.md §4). Users of all tags are in one table; a user's
   tag is that of its slot. About 28 bytes a user, all included, up to tens of
   millions; grows in small steps, never by copying the whole.

   Time is in seconds since 1970 and given by the caller. It may jump; then
   nothing breaks, users only expire sooner or later. Timestamps before 1970 and
   after 2106 are moved to these ends.

   An entry is named by its index, valid until the next call that may remove
   users (user_table_add(), _remove(), _expire(), _sweep(), _deinit()). */

struct user_table;
typedef uint32_t user_idx_t;
#define USER_IDX_NONE 0

enum user_flags {
	/* Has a session that is alive: does not expire. */
	USER_FLAG_LEASED	= BIT(0),
	/* The journal says where this user is. */
	USER_FLAG_JOURNALED	= BIT(1),
	/* Near-expiry agreement is under way (ring). */
	USER_FLAG_WEAK		= BIT(2),
	/* Has a move/kill context (moves). */
	USER_FLAG_MOVING	= BIT(3),
	/* Was answered to who isn't a login process, less than
	   USER_UNSEEN_SECS before his last use: nobody sees when what came of
	   it is over. */
	USER_FLAG_UNSEEN	= BIT(4),
	/* Was answered to a login process that doesn't tell of its sessions:
	   see director-untold.c. */
	USER_FLAG_UNTOLD	= BIT(5),
	/* He belongs to another backend than before, since another director says
	   so or a session elsewhere has come: what is here may not have left
	   the one before. */
	USER_FLAG_CHANGED	= BIT(6),
};

#define USER_UNSEEN_SECS 5

/* An agreement about a weak user that has no end: he is kept so much longer. */
#define USER_WEAK_MAX_SECS 30

/* Called just before an entry goes away for any reason (expired, removed,
   swept), but not by user_table_deinit(). It may read the table, not change
   it. */
typedef void user_table_removed_callback_t(user_idx_t idx, void *context);

/* user_table_expire() has refreshed the user, because he has
   USER_FLAG_LEASED. May read the table, not change it. Gets the context of the
   removed callback. */
typedef void user_table_refreshed_callback_t(user_idx_t idx,
					     time_t old_timestamp,
					     void *context);

/* expire_secs >= 1: life of an entry since its last use. backends isn't owned
   and must outlive the table; they can have only one. now: current time.
   removed may be NULL. */
struct user_table *
user_table_init(struct backends *backends, unsigned int expire_secs, time_t now,
		user_table_removed_callback_t *removed, void *context);
/* refreshed may be NULL, which is the default. */
void user_table_set_refreshed_callback(
	struct user_table *table, user_table_refreshed_callback_t *refreshed);
void user_table_deinit(struct user_table **table);

/* Returns the live user or USER_IDX_NONE. tag: pointer from backends_tag().
   A user whose slot is dead or who has expired at now (and has no
   USER_FLAG_LEASED|WEAK|MOVING) isn't returned, even if still in the table. */
user_idx_t user_table_lookup(struct user_table *table, const char *tag,
			     uint32_t hash, time_t now);
/* Adds a user who must not be there. An expired or dead entry of the same
   (tag, hash) that is still in the table is removed first. slot must be live.
   Returns USER_IDX_NONE only if the table is full (2^32 - 2 entries). */
user_idx_t user_table_add(struct user_table *table, uint32_t hash,
			  uint16_t slot, time_t timestamp, time_t now);
void user_table_remove(struct user_table *table, user_idx_t idx);

uint32_t user_table_hash(const struct user_table *table, user_idx_t idx);
uint16_t user_table_slot(const struct user_table *table, user_idx_t idx);
time_t user_table_timestamp(const struct user_table *table, user_idx_t idx);
enum user_flags user_table_flags(const struct user_table *table, user_idx_t idx);

/* The new slot must be live and have the same tag. */
void user_table_set_slot(struct user_table *table, user_idx_t idx,
			 uint16_t slot);
/* Nearly free, unless the new time is before the old one. */
void user_table_set_timestamp(struct user_table *table, user_idx_t idx,
			      time_t timestamp);
void user_table_set_flags(struct user_table *table, user_idx_t idx,
			  enum user_flags add, enum user_flags remove);

/* timestamp + expire <= now, whatever the flags */
bool user_table_is_expired(const struct user_table *table, user_idx_t idx,
			   time_t now);
/* assignment.md §4: n = 10 % of expire, limited to 3..30 s;
   timestamp + expire - n < now */
bool user_table_is_near_expiry(const struct user_table *table, user_idx_t idx,
			       time_t now);
bool user_table_time_is_near_expiry(const struct user_table *table,
				    time_t timestamp, time_t now);
/* timestamp + expire/2 >= now */
bool user_table_is_recent(const struct user_table *table, user_idx_t idx,
			  time_t now);

/* Number of entries that are in live slots (expired ones may be counted until
   user_table_expire() has come to them, at most a turn later). */
unsigned int user_table_count(const struct user_table *table);
/* Calls fn for every live user with the hash, in whatever tag. fn may change
   the entry, not add or remove users. */
void user_table_foreach_hash(struct user_table *table, uint32_t hash,
			     time_t now,
			     void (*fn)(user_idx_t idx, void *context),
			     void *context);

/* Removes users who have expired at now, and refreshes to now the users with
   USER_FLAG_LEASED who aren't recent any more (so that they never get near
   expiry). Looks at most at max_steps entries or seconds. Returns TRUE if there
   is more to do now. Users with WEAK or MOVING are kept and looked at again 1 s
   later, WEAK at most USER_WEAK_MAX_SECS after they have expired. Users of
   dead slots who are met are removed. */
bool user_table_expire(struct user_table *table, time_t now,
		       unsigned int max_steps);
/* When user_table_expire() will have work next, seconds since 1970; 0 if never
   (table empty). May be early, never late. */
time_t user_table_next_expire(const struct user_table *table);

/* Looks at up to max_steps places and removes the users of dead slots. Returns
   TRUE if there is more to do. */
bool user_table_sweep(struct user_table *table, unsigned int max_steps);

/* Walk over all entries in slices: *pos starts at 0. Looks at up to max_steps
   places and calls fn for each user in a live slot who has not expired.
   Returns TRUE if there is more. Users that exist during the whole walk are
   seen exactly once, others at most once for each time that they are added. fn
   may change the entry, not add or remove users. fn returns FALSE to stop after
   this entry (e.g. output full): *pos then names the next one. */
bool user_table_walk(struct user_table *table, uint32_t *pos, time_t now,
		     unsigned int max_steps,
		     bool (*fn)(user_idx_t idx, void *context), void *context);

/* The same in the order of the buckets: another table that takes the users in
   by this order always works in the same part of its memory, which makes it
   twice as fast. Users that exist during the whole walk are seen at least once.
   Users may be added and removed between the slices. A bucket is a step, a user
   is 24. */
bool user_table_walk_buckets(struct user_table *table, uint32_t *pos,
			     time_t now, unsigned int max_steps,
			     void (*fn)(user_idx_t idx, void *context),
			     void *context);

/* The largest position of a walk, to show its progress. */
uint32_t user_table_walk_end(const struct user_table *table);

#endif
