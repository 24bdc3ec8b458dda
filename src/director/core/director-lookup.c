/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Where a user goes who logs in, and what he has to wait for (spec:
   assignment.md §5). */

#include "lib.h"
#include "llist.h"
#include "str.h"
#include "ring-private.h"

/* A slice of work */
#define RUN_MAX_LOOKUPS 200
/* Agreement about a weak user is asked for anew after this: who asked first
   may be gone. */
#define WEAK_RETRY_MSECS 2000
/* Sessions of a user that have to end are looked after so often. */
#define CHANGED_RETRY_MSECS 50

static void
director_issue_lease(struct director *director, struct director_lookup *lookup,
		     const char *tag, const struct director_time *now)
{
	struct login_process *process = lookup->process;
	struct session_lease *lease;

	if (process == NULL)
		return;
	/* The plugin connects when it acts on a lease. So one without a plugin
	   is given a few: maybe it only dropped its first answers. */
	if (!process->plugin_seen &&
	    process->issued >= (process->plugin_missing ?
				SESSION_LEASE_MAX_ISSUED_MISSING :
				SESSION_LEASE_MAX_ISSUED_WITHOUT_START))
		return;
	lease = session_lease_issue(director->leases, process, tag,
				    lookup->hash, &lookup->backend->ip,
				    now->msecs, now->wall);
	lookup->leased = TRUE;
	lookup->token = lease->token;
	lookup->lease_deadline = now->msecs + SESSION_LEASE_DEADLINE_MSECS;
}

/* Where a user who isn't known may go now. NULL and a reason: nowhere yet. */
static struct backend *
director_new_user_backend(struct director *director,
			  const struct director_lookup *lookup,
			  const char **reason_r)
{
	struct backend *backend, *previous;

	if (ring_is_synced(director->ring)) {
		backend = backend_by_hash(director->backends, lookup->tag,
					  lookup->hash);
	} else {
		/* The others put him there too, if they have seen the change
		   that goes round or not. */
		backend = director->adopting ? NULL :
			backend_by_hash_unchanged(director->backends,
						  lookup->tag, lookup->hash);
		if (backend == NULL) {
			*reason_r = "ring not synced";
			return NULL;
		}
	}
	if (backend == NULL) {
		*reason_r = "no hosts";
		return NULL;
	}
	if (director->previous != NULL) {
		/* The setting has changed. He may have a session where the old
		   one put him; the login processes will tell. */
		previous = backend_by_hash(director->previous, lookup->tag,
					   lookup->hash);
		if (director->forgot_users ||
		    (previous != NULL &&
		     !net_ip_compare(&previous->ip, &backend->ip))) {
			*reason_r = "director starting";
			return NULL;
		}
	}
	return backend;
}

/* Another backend than the user's: he goes back to where hashing puts him when
   he isn't used any more. While a change of the backends goes round, others may
   have forgotten him and put him where hashing put him before. */
static bool
director_user_leaves(struct director *director, user_idx_t idx,
		     const char *tag, const struct director_time *now)
{
	struct user_table *users = director->users;
	struct backend *hashed;

	if ((user_table_flags(users, idx) & USER_FLAG_LEASED) != 0 ||
	    !user_table_is_near_expiry(users, idx, now->wall))
		return FALSE;
	if (!ring_is_synced(director->ring)) {
		hashed = backend_by_hash_unchanged(director->backends, tag,
						   user_table_hash(users, idx));
		return hashed == NULL ||
			hashed->slot != user_table_slot(users, idx);
	}
	hashed = backend_by_hash(director->backends, tag,
				 user_table_hash(users, idx));
	return hashed != NULL && hashed->slot != user_table_slot(users, idx);
}

static void
director_user_move_to_hash(struct director *director, user_idx_t idx)
{
	struct user_table *users = director->users;
	struct backend *backend =
		backend_by_slot(director->backends,
				user_table_slot(users, idx));

	backend = backend_by_hash(director->backends, backend->tag,
				  user_table_hash(users, idx));
	if (backend == NULL || backend->slot == user_table_slot(users, idx))
		return;
	user_table_set_slot(users, idx, backend->slot);
	director_user_placed(director, idx);
}

/* His backend is another one than before. What he has here on that one was
   kicked, but an answer that no login process has acted on yet can't be; and that
   backend needs its time to finish. */
static bool
director_user_has_left(struct director *director,
		       struct director_lookup *lookup, const char *tag,
		       user_idx_t idx, const struct director_time *now)
{
	struct user_table *users = director->users;
	const struct backend *backend =
		backend_by_slot(director->backends,
				user_table_slot(users, idx));

	if (director_has_sessions(director, tag, lookup->hash, &backend->ip))
		lookup->left_msecs = 0;
	else {
		/* from now on, if nobody has asked for him meanwhile */
		if (lookup->left_msecs == 0)
			lookup->left_msecs = now->msecs;
		if (now->msecs >= lookup->left_msecs +
				  director->set.user_kick_delay_msecs) {
			user_table_set_flags(users, idx, 0, USER_FLAG_CHANGED);
			return TRUE;
		}
	}
	if (director->weak_retry_msecs == 0 ||
	    director->weak_retry_msecs > now->msecs + CHANGED_RETRY_MSECS) {
		director->weak_retry_msecs = now->msecs + CHANGED_RETRY_MSECS;
	}
	return FALSE;
}

/* assignment.md §5, rows 3-10: returns NULL if he may go to his backend. */
static const char *
director_known_user_waits(struct director *director,
			  struct director_lookup *lookup, user_idx_t idx,
			  const struct director_time *now)
{
	struct user_table *users = director->users;
	bool weak = (user_table_flags(users, idx) & USER_FLAG_WEAK) != 0;

	if ((user_table_flags(users, idx) & USER_FLAG_MOVING) != 0)
		return "user is being moved";
	if ((user_table_flags(users, idx) & USER_FLAG_CHANGED) != 0 &&
	    !director_user_has_left(director, lookup, lookup->tag, idx, now))
		return "sessions on another backend are ending";
	if (ring_is_alone(director->ring)) {
		if (weak)
			user_table_set_flags(users, idx, 0, USER_FLAG_WEAK);
		if (weak ||
		    director_user_leaves(director, idx, lookup->tag, now))
			director_user_move_to_hash(director, idx);
		return NULL;
	}
	if (!weak && !director_user_leaves(director, idx, lookup->tag, now))
		return NULL;
	if (!ring_is_synced(director->ring))
		return weak ? "weak user" : "ring not synced";
	if (!weak || now->msecs >= lookup->weak_msecs + WEAK_RETRY_MSECS) {
		if (!weak || lookup->weak_msecs != 0)
			ring_user_weaken(director->ring, idx);
		lookup->weak_msecs = now->msecs;
	}
	if (director->weak_retry_msecs == 0)
		director->weak_retry_msecs = now->msecs + WEAK_RETRY_MSECS;
	return "weak user";
}

void director_user_agreed(struct director *director, const char *tag,
			  uint32_t hash, const struct director_time *now)
{
	struct user_table *users = director->users;
	user_idx_t idx = user_table_lookup(users, tag, hash, now->wall);

	if (idx == USER_IDX_NONE || !ring_is_synced(director->ring) ||
	    (user_table_flags(users, idx) & USER_FLAG_WEAK) == 0)
		return;
	user_table_set_flags(users, idx, 0, USER_FLAG_WEAK);
	user_table_set_timestamp(users, idx, now->wall);
	/* Those of 2.3 confirm the backend where he was. */
	if (ring_min_minor(director->ring) >= RING_MINOR_OURS)
		director_user_move_to_hash(director, idx);
	ring_user_told(director->ring, idx, now);
	director_user_changed(director);
}

/* It is only worth a line if somebody notices. */
void director_run_delay(struct director *director,
			const struct director_time *now)
{
	if (director->ring_delay_msecs == 0 || director->ring_delay_logged ||
	    now->msecs < director->ring_delay_msecs + RING_DELAY_LOG_MSECS)
		return;
	director->ring_delay_logged = TRUE;
	DIRECTOR_LOG(director, LOG_TYPE_WARNING,
		     ring_is_handshaked(director->ring) ?
		     "Delaying new user requests until ring is synced" :
		     "Delaying all requests until all directors have "
		     "connected");
}

void director_ring_synced(struct director *director,
			  const struct director_time *now)
{
	if (director->ring_delay_logged) {
		DIRECTOR_LOG(director, LOG_TYPE_WARNING, t_strdup_printf(
			"Ring is synced, continuing delayed requests "
			"(syncing took %u secs, hosts_hash=%u)",
			(unsigned int)((now->msecs -
					director->ring_delay_msecs) / 1000),
			backends_hash(director->backends)));
	}
	director->ring_delay_msecs = 0;
	director->ring_delay_logged = FALSE;
	director_user_changed(director);
	if (director->v.ring_synced != NULL)
		director->v.ring_synced(director->context);
}

void director_user_changed(struct director *director)
{
	director->retry = director->waiting_head;
}

/* Returns NULL if answered, else what it has to wait for. */
static const char *
director_lookup_try(struct director *director, struct director_lookup *lookup,
		    const struct director_time *now)
{
	struct user_table *users = director->users;
	const char *tag = backends_tag(director->backends, lookup->tag);
	const char *reason;
	struct backend *backend;
	user_idx_t idx;

	if (!ring_is_handshaked(director->ring))
		return "ring not handshaked";
	if (director->ring->was_hung)
		return "ring not synced";
	if (tag == NULL) {
		return ring_is_synced(director->ring) ? "no hosts" :
			"ring not synced";
	}
	idx = director_user_find(director, tag, lookup->hash, now);
	if (idx != USER_IDX_NONE) {
		reason = director_known_user_waits(director, lookup, idx, now);
		if (reason != NULL)
			return reason;
		backend = backend_by_slot(director->backends,
					  user_table_slot(users, idx));
		director_user_used(director, idx, now);
		if (director->walking)
			(void)director_record_user(director, idx);
	} else {
		/* (Whom an administrator has forgotten goes elsewhere, session
		   or not.) */
		backend = !director->adopting ||
			!ring_is_synced(director->ring) ? NULL :
			director_session_backend(director, tag, lookup->hash);
		if (backend == NULL) {
			backend = director_new_user_backend(director, lookup,
							    &reason);
		}
		if (backend == NULL)
			return reason;
		idx = director_user_add(director, tag, lookup->hash,
					backend->slot, now->wall, now);
		if (idx == USER_IDX_NONE)
			return "user table is full";
		ring_user_told(director->ring, idx, now);
	}
	if (lookup->process == NULL)
		user_table_set_flags(users, idx, USER_FLAG_UNSEEN, 0);
	lookup->backend = backend;
	director_issue_lease(director, lookup, tag, now);
	if (lookup->process != NULL &&
	    (!lookup->leased || lookup->process->plugin_missing))
		director_untold_answer(director, idx, lookup->process, now);
	return NULL;
}

int director_lookup(struct director *director, struct director_lookup *lookup,
		    const struct director_time *now)
{
	const char *reason;

	if (director_user_hash(director, lookup->username, &lookup->hash,
			       &lookup->error) < 0)
		return -1;
	lookup->leased = FALSE;
	lookup->weak_msecs = lookup->left_msecs = 0;
	reason = director_lookup_try(director, lookup, now);
	if (reason == NULL)
		return 1;

	lookup->wait_reason = reason;
	lookup->queued_msecs = now->msecs;
	if (director->ring_delay_msecs == 0 &&
	    !ring_is_synced(director->ring))
		director->ring_delay_msecs = now->msecs;
	DLLIST2_APPEND(&director->waiting_head, &director->waiting_tail,
		       lookup);
	director->waiting_count++;
	return 0;
}

void director_lookup_abort(struct director *director,
			   struct director_lookup *lookup)
{
	i_assert(director->waiting_count > 0);

	if (director->retry == lookup)
		director->retry = lookup->next;
	DLLIST2_REMOVE(&director->waiting_head, &director->waiting_tail,
		       lookup);
	director->waiting_count--;
}

unsigned int director_lookups_waiting(const struct director *director)
{
	return director->waiting_count;
}

static const char *
director_timeout_error(struct director *director,
		       const struct director_lookup *lookup,
		       const struct director_time *now)
{
	const struct ring *ring = director->ring;
	const char *tag = backends_tag(director->backends, lookup->tag);
	string_t *str = t_str_new(128);
	user_idx_t idx;

	str_printfa(str, "Timeout because %s - queued for %u secs (",
		    lookup->wait_reason,
		    (unsigned int)((now->msecs - lookup->queued_msecs) / 1000));
	if (!ring_is_handshaked(ring))
		str_append(str, "Ring has never been synced");
	else {
		str_printfa(str, "Ring %s for %u secs", ring_is_synced(ring) ?
			    "synced" : "not synced",
			    (unsigned int)((now->msecs -
					    ring_synced_changed(ring)) / 1000));
	}
	idx = tag == NULL ? USER_IDX_NONE :
		user_table_lookup(director->users, tag, lookup->hash,
				  now->wall);
	if (idx != USER_IDX_NONE) {
		if ((user_table_flags(director->users, idx) &
		     USER_FLAG_WEAK) != 0)
			str_append(str, ", weak user");
		str_printfa(str, ", user refreshed %d secs ago",
			    (int)(now->wall -
				  user_table_timestamp(director->users, idx)));
	}
	str_printfa(str, ", hash=%u", lookup->hash);
	if (*lookup->tag != '\0')
		str_printfa(str, ", tag=%s", lookup->tag);
	str_append_c(str, ')');
	return str_c(str);
}

bool director_run_timeouts(struct director *director,
			   const struct director_time *now)
{
	struct director_lookup *lookup;
	unsigned int i;

	for (i = 0; i < RUN_MAX_LOOKUPS; i++) {
		lookup = director->waiting_head;
		if (lookup == NULL || now->msecs < lookup->queued_msecs +
					DIRECTOR_LOOKUP_TIMEOUT_MSECS)
			return FALSE;
		director_lookup_abort(director, lookup);
		lookup->error = director_timeout_error(director, lookup, now);
		director->v.lookup_done(director->context, lookup, FALSE);
	}
	return TRUE;
}

bool director_run_retries(struct director *director,
			  const struct director_time *now)
{
	struct director_lookup *lookup;
	const char *reason;
	unsigned int i;

	for (i = 0; i < RUN_MAX_LOOKUPS && director->retry != NULL; i++) {
		lookup = director->retry;
		director->retry = lookup->next;
		reason = director_lookup_try(director, lookup, now);
		if (reason != NULL) {
			lookup->wait_reason = reason;
			continue;
		}
		director_lookup_abort(director, lookup);
		director->v.lookup_done(director->context, lookup, TRUE);
	}
	return director->retry != NULL;
}
