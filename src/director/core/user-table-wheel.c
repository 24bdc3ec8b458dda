/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "user-table-private.h"

/* An entry is in the list of a second in which it may be due, or in one before.
   A refresh only stores the new time; that the entry isn't due yet is found
   out when its list's turn comes, and it goes to a later list then. So each
   entry is touched once in its life time, however often the user logs in.

   The lists' heads are entries themselves. So an entry can be taken out of its
   list without knowing which one it is. */

/* With a longer life than this, entries are looked at more than once in it. */
#define WHEEL_MAX_SIZE 16384
/* So many lists are searched for the next one that isn't empty. */
#define WHEEL_MAX_SEARCH 64

static void list_init(struct user_store *store, uint32_t head)
{
	struct user_entry *entry = user_entry(store, head);

	entry->wheel_prev = entry->wheel_next = head;
}

static inline bool list_is_empty(const struct user_store *store, uint32_t head)
{
	return user_entry(store, head)->wheel_next == head;
}

static void list_append(struct user_store *store, uint32_t head, uint32_t idx)
{
	struct user_entry *head_entry = user_entry(store, head);
	struct user_entry *entry = user_entry(store, idx);

	entry->wheel_prev = head_entry->wheel_prev;
	entry->wheel_next = head;
	user_entry(store, head_entry->wheel_prev)->wheel_next = idx;
	head_entry->wheel_prev = idx;
}

static void list_unlink(struct user_store *store, uint32_t idx)
{
	struct user_entry *entry = user_entry(store, idx);

	user_entry(store, entry->wheel_prev)->wheel_next = entry->wheel_next;
	user_entry(store, entry->wheel_next)->wheel_prev = entry->wheel_prev;
}

/* Moves all entries of a list to another one that is empty. */
static void list_move(struct user_store *store, uint32_t src, uint32_t dest)
{
	struct user_entry *src_entry = user_entry(store, src);
	struct user_entry *dest_entry = user_entry(store, dest);

	if (list_is_empty(store, src))
		return;
	dest_entry->wheel_prev = src_entry->wheel_prev;
	dest_entry->wheel_next = src_entry->wheel_next;
	user_entry(store, dest_entry->wheel_prev)->wheel_next = dest;
	user_entry(store, dest_entry->wheel_next)->wheel_prev = dest;
	list_init(store, src);
}

static uint32_t wheel_list(const struct user_table *table, time_t t)
{
	return 1 + ((uint64_t)t & (table->wheel_size - 1));
}

/* When something has to be done with the entry */
static time_t
entry_due(const struct user_table *table, const struct user_entry *entry)
{
	if ((entry->flags & USER_FLAG_LEASED) != 0) {
		return (time_t)entry->timestamp + table->expire_secs / 2 + 1;
	}
	return (time_t)entry->timestamp + table->expire_secs;
}

static void wheel_add_at(struct user_table *table, uint32_t idx, time_t t)
{
	list_append(&table->store, t <= table->wheel_time ?
		    table->wheel_pending : wheel_list(table, t), idx);
	if (t < table->wheel_next)
		table->wheel_next = t;
}

void user_wheel_init(struct user_table *table, time_t now)
{
	uint32_t idx;

	table->wheel_size = 16;
	while (table->wheel_size <= table->expire_secs &&
	       table->wheel_size < WHEEL_MAX_SIZE)
		table->wheel_size *= 2;
	for (unsigned int i = 0; i <= table->wheel_size; i++) {
		idx = user_store_alloc(&table->store);
		list_init(&table->store, idx);
	}
	table->wheel_pending = idx;
	table->wheel_time = user_table_clamp_time(now);
	table->wheel_next = table->wheel_time;
}

void user_wheel_add(struct user_table *table, uint32_t idx)
{
	wheel_add_at(table, idx,
		     entry_due(table, user_entry(&table->store, idx)));
}

void user_wheel_remove(struct user_table *table, uint32_t idx)
{
	list_unlink(&table->store, idx);
}

void user_wheel_update(struct user_table *table, uint32_t idx)
{
	user_wheel_remove(table, idx);
	user_wheel_add(table, idx);
}

static void
wheel_look_at(struct user_table *table, uint32_t idx, time_t now)
{
	struct user_entry *entry = user_entry(&table->store, idx);

	if (backend_by_slot(table->backends, entry->slot) == NULL) {
		user_table_remove(table, idx);
	} else if (entry_due(table, entry) > now) {
		user_wheel_update(table, idx);
	} else if ((entry->flags & USER_FLAG_LEASED) != 0) {
		time_t old_timestamp = entry->timestamp;

		entry->timestamp = now;
		user_wheel_update(table, idx);
		if (table->refreshed != NULL) {
			table->refreshed(idx, old_timestamp,
					 table->removed_context);
		}
	} else if ((entry->flags & USER_FLAG_MOVING) != 0 ||
		   ((entry->flags & USER_FLAG_WEAK) != 0 &&
		    now - entry_due(table, entry) < USER_WEAK_MAX_SECS)) {
		user_wheel_remove(table, idx);
		wheel_add_at(table, idx, now + 1);
	} else {
		user_table_remove(table, idx);
	}
}

static void wheel_update_next(struct user_table *table)
{
	unsigned int n = I_MIN(WHEEL_MAX_SEARCH, table->wheel_size);

	table->wheel_next = table->wheel_time;
	do {
		table->wheel_next++;
	} while (--n > 0 &&
		 list_is_empty(&table->store,
			       wheel_list(table, table->wheel_next)));
}

static void wheel_set_time(struct user_table *table, time_t now)
{
	if (table->wheel_time >= table->wheel_round_end)
		table->wheel_round_end = 0;
	if (now < table->wheel_round_end ||
	    now - table->wheel_size > table->wheel_time) {
		/* The clock leapt forward: go through all lists once. (Or it was
		   set back before that had ended: start again.) */
		table->wheel_time = now - table->wheel_size;
		table->wheel_round_end = now;
	} else if (table->wheel_time > now) {
		/* The clock was set back: the lists' times come again. */
		table->wheel_time = now;
	}
}

bool user_table_expire(struct user_table *table, time_t _now,
		       unsigned int max_steps)
{
	struct user_store *store = &table->store;
	time_t now = user_table_clamp_time(_now);

	wheel_set_time(table, now);
	while (!list_is_empty(store, table->wheel_pending) ||
	       table->wheel_time < now) {
		if (max_steps-- == 0)
			return TRUE;
		if (!list_is_empty(store, table->wheel_pending)) {
			wheel_look_at(table, user_entry(store,
				table->wheel_pending)->wheel_next, now);
		} else {
			table->wheel_time++;
			list_move(store, wheel_list(table, table->wheel_time),
				  table->wheel_pending);
		}
	}
	wheel_update_next(table);
	return FALSE;
}

time_t user_table_next_expire(const struct user_table *table)
{
	return table->store.used == 0 ? 0 : table->wheel_next;
}
