#ifndef USER_TABLE_PRIVATE_H
#define USER_TABLE_PRIVATE_H

#include "user-table.h"

/* How the table is laid out: user-table-store.c has the entries and finds them
   by hash, user-table-wheel.c has the clock, user-table.c has the rules. */

struct user_entry {
	uint32_t hash;
	/* Next entry of the same bucket, or next free entry */
	uint32_t chain_next;
	/* The list of the timing wheel that this entry is in */
	uint32_t wheel_prev, wheel_next;
	uint32_t timestamp;
	/* BACKEND_SLOT_NONE if the entry is free or the head of a list */
	uint16_t slot;
	uint8_t flags;
	uint8_t unused;
};

#ifndef USER_SLAB_BITS
#  define USER_SLAB_BITS 16
#endif
#define USER_SLAB_SIZE (1U << USER_SLAB_BITS)
#define USER_SLAB_MASK (USER_SLAB_SIZE - 1)

/* Entries live in slabs that never move, so that growing costs the same at any
   size. They are found by linear hashing: the buckets are split one at a time,
   in order, as users are added. */
struct user_store {
	struct user_entry **slabs;
	unsigned int slabs_alloc;
	/* entries [0, end) have been used at least once; 0 is no entry */
	uint32_t end;
	uint32_t first_free;
	/* number of users; the wheel's heads aren't counted */
	uint32_t used;

	uint32_t **segments;
	unsigned int segments_alloc;
	uint32_t buckets_count;
	/* smallest 2^n-1 that names all buckets */
	uint32_t buckets_mask;
};

struct user_table {
	struct backends *backends;
	struct user_store store;

	user_table_removed_callback_t *removed;
	user_table_refreshed_callback_t *refreshed;
	void *removed_context;

	unsigned int expire_secs;
	/* Lists of the wheel, one for each second, then around; a power of two.
	   Their heads are entries 1 .. wheel_size. */
	unsigned int wheel_size;
	/* Head of the list of entries that have to be looked at now */
	uint32_t wheel_pending;
	/* All lists up to this time have been moved to the pending list. */
	time_t wheel_time;
	/* If not 0: that is true only when wheel_time has come to here. */
	time_t wheel_round_end;
	/* No entry has to be looked at before this. */
	time_t wheel_next;

	uint32_t sweep_pos;
};

static inline struct user_entry *
user_entry(const struct user_store *store, uint32_t idx)
{
	return &store->slabs[idx >> USER_SLAB_BITS][idx & USER_SLAB_MASK];
}

#define USER_SEGMENT_BITS 12
#define USER_SEGMENT_SIZE (1U << USER_SEGMENT_BITS)
#define USER_SEGMENT_MASK (USER_SEGMENT_SIZE - 1)

/* First entry of a bucket */
static inline uint32_t *
user_store_bucket(const struct user_store *store, uint32_t bucket)
{
	return &store->segments[bucket >> USER_SEGMENT_BITS]
		[bucket & USER_SEGMENT_MASK];
}

/* A bucket's first entry will be needed in a moment. */
static inline void
user_store_prefetch(const struct user_store *store, uint32_t bucket)
{
	if (bucket < store->buckets_count) {
		__builtin_prefetch(user_entry(store, *user_store_bucket(
			store, bucket)));
	}
}

void user_store_init(struct user_store *store);
void user_store_deinit(struct user_store *store);

/* Returns an unused entry, all zero, or 0 if there are too many. */
uint32_t user_store_alloc(struct user_store *store);
void user_store_free(struct user_store *store, uint32_t idx);

/* Puts the entry into the bucket of its hash. Within a bucket, entries of the
   same hash stay in the order in which the newest is first. */
void user_store_hash_add(struct user_store *store, uint32_t idx);
void user_store_hash_remove(struct user_store *store, uint32_t idx);
/* The first entry of this hash and the one after idx; 0 if there is none */
uint32_t user_store_hash_first(const struct user_store *store, uint32_t hash);
uint32_t user_store_hash_next(const struct user_store *store, uint32_t idx);

/* To be called while the store is empty. */
void user_wheel_init(struct user_table *table, time_t now);
/* Puts an entry that is in no list to where it is looked at when it is due. */
void user_wheel_add(struct user_table *table, uint32_t idx);
void user_wheel_remove(struct user_table *table, uint32_t idx);
/* To be called when the entry may be due earlier than before. What is due later
   needs no call: it is noticed when the entry is looked at. */
void user_wheel_update(struct user_table *table, uint32_t idx);

/* Timestamps are kept in 32 bits. */
static inline uint32_t user_table_clamp_time(time_t t)
{
	return t < 0 ? 0 : (t > (time_t)UINT32_MAX ? UINT32_MAX : t);
}

#endif
