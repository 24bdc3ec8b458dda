/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "user-table-private.h"

#define MAX_BUCKETS (1U << 31)

/* User hashes are spread well already, unless a peer makes them up. */
static inline uint32_t hash_mix(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x85ebca6bU;
	h ^= h >> 13;
	h *= 0xc2b2ae35U;
	return h ^ (h >> 16);
}

static inline uint32_t *
hash_bucket(const struct user_store *store, uint32_t hash)
{
	uint32_t bucket = hash_mix(hash) & store->buckets_mask;

	if (bucket >= store->buckets_count)
		bucket &= store->buckets_mask >> 1;
	return user_store_bucket(store, bucket);
}

static void segment_add(struct user_store *store, unsigned int idx)
{
	if (idx >= store->segments_alloc) {
		unsigned int new_alloc = I_MAX(8, store->segments_alloc * 2);

		store->segments = i_realloc_type(store->segments, uint32_t *,
						 store->segments_alloc,
						 new_alloc);
		store->segments_alloc = new_alloc;
	}
	store->segments[idx] = i_new(uint32_t, USER_SEGMENT_SIZE);
}

static void slab_add(struct user_store *store, unsigned int idx)
{
	if (idx >= store->slabs_alloc) {
		unsigned int new_alloc = I_MAX(8, store->slabs_alloc * 2);

		store->slabs = i_realloc_type(store->slabs, struct user_entry *,
					      store->slabs_alloc, new_alloc);
		store->slabs_alloc = new_alloc;
	}
	store->slabs[idx] = i_new(struct user_entry, USER_SLAB_SIZE);
}

void user_store_init(struct user_store *store)
{
	i_zero(store);
	slab_add(store, 0);
	store->end = 1;
	segment_add(store, 0);
	store->buckets_count = USER_SEGMENT_SIZE;
	store->buckets_mask = USER_SEGMENT_SIZE - 1;
}

void user_store_deinit(struct user_store *store)
{
	for (unsigned int i = 0; i < store->slabs_alloc; i++)
		i_free(store->slabs[i]);
	i_free(store->slabs);
	for (unsigned int i = 0; i < store->segments_alloc; i++)
		i_free(store->segments[i]);
	i_free(store->segments);
}

uint32_t user_store_alloc(struct user_store *store)
{
	uint32_t idx = store->first_free;

	if (idx != 0) {
		struct user_entry *entry = user_entry(store, idx);

		store->first_free = entry->chain_next;
		entry->chain_next = 0;
		return idx;
	}
	if (store->end == UINT32_MAX)
		return 0;
	if ((store->end & USER_SLAB_MASK) == 0)
		slab_add(store, store->end >> USER_SLAB_BITS);
	return store->end++;
}

void user_store_free(struct user_store *store, uint32_t idx)
{
	struct user_entry *entry = user_entry(store, idx);

	i_zero(entry);
	entry->chain_next = store->first_free;
	store->first_free = idx;
}

/* Moves the entries of the bucket that is next in turn, which now belong to
   the new one at the end, without changing their order. */
static void bucket_split(struct user_store *store)
{
	uint32_t new_bucket = store->buckets_count;
	uint32_t *old_tail, *new_tail, idx;

	if (new_bucket > store->buckets_mask)
		store->buckets_mask = store->buckets_mask * 2 + 1;
	if ((new_bucket & USER_SEGMENT_MASK) == 0)
		segment_add(store, new_bucket >> USER_SEGMENT_BITS);
	store->buckets_count++;

	old_tail = user_store_bucket(store,
				     new_bucket & (store->buckets_mask >> 1));
	new_tail = user_store_bucket(store, new_bucket);
	for (idx = *old_tail; idx != 0; ) {
		struct user_entry *entry = user_entry(store, idx);

		if ((hash_mix(entry->hash) & store->buckets_mask) ==
		    new_bucket) {
			*new_tail = idx;
			new_tail = &entry->chain_next;
		} else {
			*old_tail = idx;
			old_tail = &entry->chain_next;
		}
		idx = entry->chain_next;
	}
	*old_tail = 0;
	*new_tail = 0;
}

void user_store_hash_add(struct user_store *store, uint32_t idx)
{
	struct user_entry *entry = user_entry(store, idx);
	uint32_t *head = hash_bucket(store, entry->hash);

	entry->chain_next = *head;
	*head = idx;
	store->used++;
	if (store->used > store->buckets_count &&
	    store->buckets_count < MAX_BUCKETS)
		bucket_split(store);
}

void user_store_hash_remove(struct user_store *store, uint32_t idx)
{
	struct user_entry *entry = user_entry(store, idx);
	uint32_t *prev = hash_bucket(store, entry->hash);

	while (*prev != idx)
		prev = &user_entry(store, *prev)->chain_next;
	*prev = entry->chain_next;
	store->used--;
}

static uint32_t
chain_find(const struct user_store *store, uint32_t idx, uint32_t hash)
{
	while (idx != 0) {
		const struct user_entry *entry = user_entry(store, idx);

		if (entry->hash == hash)
			break;
		idx = entry->chain_next;
	}
	return idx;
}

uint32_t user_store_hash_first(const struct user_store *store, uint32_t hash)
{
	return chain_find(store, *hash_bucket(store, hash), hash);
}

uint32_t user_store_hash_next(const struct user_store *store, uint32_t idx)
{
	const struct user_entry *entry = user_entry(store, idx);

	return chain_find(store, entry->chain_next, entry->hash);
}
