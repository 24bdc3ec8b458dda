/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "user-table-private.h"

#define NEAR_EXPIRY_MIN_SECS 3
#define NEAR_EXPIRY_MAX_SECS 30
/* A walk asks for the memory of so many buckets ahead. */
#define BUCKETS_AHEAD 8
/* A user costs as much as so many empty buckets. */
#define USER_STEPS 24

/* Users with one of these are there even if their time has run out. */
#define USER_FLAGS_KEEP \
	(USER_FLAG_LEASED | USER_FLAG_WEAK | USER_FLAG_MOVING)

struct user_table *
user_table_init(struct backends *backends, unsigned int expire_secs, time_t now,
		user_table_removed_callback_t *removed, void *context)
{
	struct user_table *table;

	i_assert(expire_secs >= 1);

	table = i_new(struct user_table, 1);
	table->backends = backends;
	table->expire_secs = expire_secs;
	table->removed = removed;
	table->removed_context = context;
	user_store_init(&table->store);
	user_wheel_init(table, now);
	return table;
}

void user_table_set_refreshed_callback(
	struct user_table *table, user_table_refreshed_callback_t *refreshed)
{
	table->refreshed = refreshed;
}

void user_table_deinit(struct user_table **_table)
{
	struct user_table *table = *_table;

	*_table = NULL;
	for (uint32_t idx = 0; idx < table->store.end; idx++) {
		uint16_t slot = user_entry(&table->store, idx)->slot;

		if (slot != BACKEND_SLOT_NONE)
			backend_slot_user_removed(table->backends, slot);
	}
	user_store_deinit(&table->store);
	i_free(table);
}

static bool
entry_is_expired(const struct user_table *table, const struct user_entry *entry,
		 time_t now)
{
	return (time_t)entry->timestamp + table->expire_secs <= now;
}

static bool
entry_is_alive(const struct user_table *table, const struct user_entry *entry,
	       time_t now)
{
	return (entry->flags & USER_FLAGS_KEEP) != 0 ||
		!entry_is_expired(table, entry, now);
}

/* Returns an entry that is in use. */
static inline struct user_entry *
user_get(const struct user_table *table, user_idx_t idx)
{
	struct user_entry *entry;

	i_assert(idx < table->store.end);
	entry = user_entry(&table->store, idx);
	i_assert(entry->slot != BACKEND_SLOT_NONE);
	return entry;
}

user_idx_t user_table_lookup(struct user_table *table, const char *tag,
			     uint32_t hash, time_t now)
{
	const struct user_store *store = &table->store;
	uint32_t idx;

	for (idx = user_store_hash_first(store, hash); idx != 0;
	     idx = user_store_hash_next(store, idx)) {
		const struct user_entry *entry = user_entry(store, idx);
		const struct backend *backend =
			backend_by_slot(table->backends, entry->slot);

		if (backend != NULL && backend->tag == tag) {
			return entry_is_alive(table, entry, now) ?
				idx : USER_IDX_NONE;
		}
	}
	return USER_IDX_NONE;
}

/* Removes all entries of the user, none of whom may be alive. */
static void
user_remove_old(struct user_table *table, uint32_t hash, const char *tag,
		time_t now)
{
	uint32_t idx = user_store_hash_first(&table->store, hash), next_idx;

	for (; idx != 0; idx = next_idx) {
		const struct user_entry *entry = user_entry(&table->store, idx);

		next_idx = user_store_hash_next(&table->store, idx);
		if (backend_slot_tag(table->backends, entry->slot) != tag)
			continue;
		i_assert(backend_by_slot(table->backends,
					 entry->slot) == NULL ||
			 !entry_is_alive(table, entry, now));
		user_table_remove(table, idx);
	}
}

user_idx_t user_table_add(struct user_table *table, uint32_t hash,
			  uint16_t slot, time_t timestamp, time_t now)
{
	struct user_entry *entry;
	uint32_t idx;

	user_remove_old(table, hash, backend_slot_tag(table->backends, slot),
			now);
	idx = user_store_alloc(&table->store);
	if (idx == 0)
		return USER_IDX_NONE;
	backend_slot_user_added(table->backends, slot);
	entry = user_entry(&table->store, idx);
	entry->hash = hash;
	entry->slot = slot;
	entry->timestamp = user_table_clamp_time(timestamp);
	user_store_hash_add(&table->store, idx);
	user_wheel_add(table, idx);
	return idx;
}

void user_table_remove(struct user_table *table, user_idx_t idx)
{
	struct user_entry *entry = user_get(table, idx);

	if (table->removed != NULL)
		table->removed(idx, table->removed_context);
	backend_slot_user_removed(table->backends, entry->slot);
	user_wheel_remove(table, idx);
	user_store_hash_remove(&table->store, idx);
	user_store_free(&table->store, idx);
}

uint32_t user_table_hash(const struct user_table *table, user_idx_t idx)
{
	return user_get(table, idx)->hash;
}

uint16_t user_table_slot(const struct user_table *table, user_idx_t idx)
{
	return user_get(table, idx)->slot;
}

time_t user_table_timestamp(const struct user_table *table, user_idx_t idx)
{
	return user_get(table, idx)->timestamp;
}

enum user_flags user_table_flags(const struct user_table *table, user_idx_t idx)
{
	return user_get(table, idx)->flags;
}

void user_table_set_slot(struct user_table *table, user_idx_t idx,
			 uint16_t slot)
{
	struct user_entry *entry = user_get(table, idx);

	if (entry->slot == slot)
		return;
	i_assert(backend_slot_tag(table->backends, slot) ==
		 backend_slot_tag(table->backends, entry->slot));
	backend_slot_user_added(table->backends, slot);
	backend_slot_user_removed(table->backends, entry->slot);
	entry->slot = slot;
}

void user_table_set_timestamp(struct user_table *table, user_idx_t idx,
			      time_t _timestamp)
{
	struct user_entry *entry = user_get(table, idx);
	uint32_t timestamp = user_table_clamp_time(_timestamp);
	bool earlier = timestamp < entry->timestamp;

	entry->timestamp = timestamp;
	if (earlier)
		user_wheel_update(table, idx);
}

void user_table_set_flags(struct user_table *table, user_idx_t idx,
			  enum user_flags add, enum user_flags remove)
{
	struct user_entry *entry = user_get(table, idx);
	enum user_flags old_flags = entry->flags;
	enum user_flags new_flags = (old_flags & ENUM_NEGATE(remove)) | add;
	enum user_flags added = new_flags & ENUM_NEGATE(old_flags);
	enum user_flags removed = old_flags & ENUM_NEGATE(new_flags);

	entry->flags = new_flags;
	if ((added & USER_FLAG_LEASED) != 0 ||
	    (removed & (USER_FLAG_WEAK | USER_FLAG_MOVING)) != 0)
		user_wheel_update(table, idx);
}

bool user_table_is_expired(const struct user_table *table, user_idx_t idx,
			   time_t now)
{
	return entry_is_expired(table, user_get(table, idx), now);
}

bool user_table_is_near_expiry(const struct user_table *table, user_idx_t idx,
			       time_t now)
{
	return user_table_time_is_near_expiry(
		table, user_table_timestamp(table, idx), now);
}

bool user_table_time_is_near_expiry(const struct user_table *table,
				    time_t timestamp, time_t now)
{
	unsigned int n = table->expire_secs / 10;

	n = I_MAX(n, NEAR_EXPIRY_MIN_SECS);
	n = I_MIN(n, NEAR_EXPIRY_MAX_SECS);
	return timestamp + table->expire_secs < now + n;
}

bool user_table_is_recent(const struct user_table *table, user_idx_t idx,
			  time_t now)
{
	return user_table_timestamp(table, idx) + table->expire_secs / 2 >= now;
}

unsigned int user_table_count(const struct user_table *table)
{
	return table->store.used - backends_dead_users(table->backends);
}

void user_table_foreach_hash(struct user_table *table, uint32_t hash,
			     time_t now,
			     void (*fn)(user_idx_t idx, void *context),
			     void *context)
{
	const struct user_store *store = &table->store;
	uint32_t idx;

	for (idx = user_store_hash_first(store, hash); idx != 0;
	     idx = user_store_hash_next(store, idx)) {
		const struct user_entry *entry = user_entry(store, idx);

		if (backend_by_slot(table->backends, entry->slot) != NULL &&
		    entry_is_alive(table, entry, now))
			fn(idx, context);
	}
}

bool user_table_sweep(struct user_table *table, unsigned int max_steps)
{
	const struct user_store *store = &table->store;

	while (backends_have_dead_slots(table->backends)) {
		const struct user_entry *entry;

		if (max_steps-- == 0)
			return TRUE;
		if (table->sweep_pos >= store->end)
			table->sweep_pos = 0;
		entry = user_entry(store, table->sweep_pos);
		if (entry->slot != BACKEND_SLOT_NONE &&
		    backend_by_slot(table->backends, entry->slot) == NULL)
			user_table_remove(table, table->sweep_pos);
		table->sweep_pos++;
	}
	return FALSE;
}

bool user_table_walk(struct user_table *table, uint32_t *pos, time_t now,
		     unsigned int max_steps,
		     bool (*fn)(user_idx_t idx, void *context), void *context)
{
	const struct user_store *store = &table->store;
	bool stopped = FALSE;

	while (!stopped && *pos < store->end && max_steps-- > 0) {
		uint32_t idx = (*pos)++;
		const struct user_entry *entry = user_entry(store, idx);

		if (entry->slot != BACKEND_SLOT_NONE &&
		    backend_by_slot(table->backends, entry->slot) != NULL &&
		    entry_is_alive(table, entry, now))
			stopped = !fn(idx, context);
	}
	return *pos < store->end;
}

bool user_table_walk_buckets(struct user_table *table, uint32_t *pos,
			     time_t now, unsigned int max_steps,
			     void (*fn)(user_idx_t idx, void *context),
			     void *context)
{
	const struct user_store *store = &table->store;
	const struct user_entry *entry;
	unsigned int steps = 0;
	uint32_t idx;

	for (; *pos < store->buckets_count && steps < max_steps; (*pos)++) {
		user_store_prefetch(store, *pos + BUCKETS_AHEAD);
		idx = *user_store_bucket(store, *pos);
		for (steps++; idx != 0; idx = entry->chain_next) {
			entry = user_entry(store, idx);
			steps += USER_STEPS;
			if (backend_by_slot(table->backends,
					    entry->slot) != NULL &&
			    entry_is_alive(table, entry, now))
				fn(idx, context);
		}
	}
	return *pos < store->buckets_count;
}

uint32_t user_table_walk_end(const struct user_table *table)
{
	return table->store.end;
}
