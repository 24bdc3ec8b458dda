/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "str.h"
#include "str-sanitize.h"
#include "username-hash.h"
#include "ring-private.h"

/* Slices of work: each about 100 microseconds */
#define RUN_MAX_STEPS 1000
#define RUN_MAX_WALK_STEPS 5000
#define RUN_MAX_LOOKUPS 200

static void director_user_removed(user_idx_t idx, void *context)
{
	struct director *director = context;
	uint16_t slot = user_table_slot(director->users, idx);

	/* of a dead slot the record of the flush or removal says it already */
	if ((user_table_flags(director->users, idx) &
	     USER_FLAG_JOURNALED) != 0 &&
	    backend_by_slot(director->backends, slot) != NULL)
		director_record_user_forget(director, idx);
}

static void director_user_refreshed(user_idx_t idx, time_t old_timestamp,
				    void *context)
{
	struct director *director = context;
	time_t timestamp = user_table_timestamp(director->users, idx);

	if (ring_refresh_is_due(director->ring,
				user_table_hash(director->users, idx),
				old_timestamp, timestamp))
		ring_user_told(director->ring, idx, &director->session_now);
}

struct director *
director_init(const struct director_core_settings *set,
	      const struct director_vfuncs *vfuncs, void *context,
	      const struct director_time *now)
{
	struct director *director;
	const char *error;

	director = i_new(struct director, 1);
	director->set = *set;
	director->v = *vfuncs;
	director->context = context;
	director->started_msecs = now->msecs;
	director->username_hash = username_hash_init(set->username_hash, &error);
	if (director->username_hash == NULL)
		i_panic("director_username_hash wasn't checked: %s", error);
	director->backends = backends_init();
	director->initial = backends_init();
	director->users = user_table_init(director->backends,
					  set->user_expire_secs, now->wall,
					  director_user_removed, director);
	director->leases = session_leases_init(set->instance, set->hash_key,
					       director_session_changed,
					       director);
	user_table_set_refreshed_callback(director->users,
					  director_user_refreshed);
	director->moves = user_moves_init(director);
	(void)ring_init(director, &set->ring, now);
	return director;
}

void director_deinit(struct director **_director)
{
	struct director *director = *_director;

	*_director = NULL;
	i_assert(director->waiting_count == 0);
	ring_deinit(&director->ring);
	user_moves_deinit(&director->moves);
	session_leases_deinit(&director->leases);
	user_table_deinit(&director->users);
	if (director->previous != NULL)
		backends_deinit(&director->previous);
	backends_deinit(&director->initial);
	backends_deinit(&director->backends);
	username_hash_deinit(&director->username_hash);
	i_free(director);
}

struct backends *director_backends(struct director *director)
{
	return director->backends;
}

struct backends *director_initial_backends(struct director *director)
{
	return director->initial;
}

struct user_table *director_users(struct director *director)
{
	return director->users;
}

struct session_leases *director_leases(struct director *director)
{
	return director->leases;
}

int director_user_hash(struct director *director, const char *username,
		       uint32_t *hash_r, const char **error_r)
{
	const char *error;

	username = username_hash_cut(username,
				     director->set.master_user_separator);
	if (username_hash_get(director->username_hash, username,
			      hash_r, &error) == 0)
		return 0;
	*error_r = t_strdup_printf("Failed to expand director_username_hash=%s: "
				   "%s", director->set.username_hash, error);
	return -1;
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
		if (previous != NULL &&
		    !net_ip_compare(&previous->ip, &backend->ip)) {
			*reason_r = "director starting";
			return NULL;
		}
	}
	return backend;
}

user_idx_t
director_user_add(struct director *director, const char *tag, uint32_t hash,
		  uint16_t slot, time_t timestamp,
		  const struct director_time *now)
{
	user_idx_t idx;

	idx = user_table_add(director->users, hash, slot, timestamp, now->wall);
	if (idx != USER_IDX_NONE &&
	    session_leases_has(director->leases, tag, hash)) {
		user_table_set_flags(director->users, idx,
				     USER_FLAG_LEASED, 0);
	}
	return idx;
}

static void
director_issue_lease(struct director *director, struct director_lookup *lookup,
		     const char *tag, const struct director_time *now)
{
	struct login_process *process = lookup->process;
	struct session_lease *lease;

	if (process == NULL)
		return;
	/* The plugin connects when it acts on a lease. So one without a plugin
	   is given a lease now and then: maybe it only dropped an answer. */
	if (!process->plugin_seen &&
	    process->issued >= (process->plugin_missing ? 1 :
				SESSION_LEASE_MAX_ISSUED_WITHOUT_START))
		return;
	lease = session_lease_issue(director->leases, process, tag,
				    lookup->hash, &lookup->backend->ip,
				    now->msecs, now->wall);
	lookup->leased = TRUE;
	lookup->token = lease->token;
	lookup->lease_deadline = now->msecs + SESSION_LEASE_DEADLINE_MSECS;
}

/* Agreement about a weak user is asked for anew after this: who asked first
   may be gone. */
#define WEAK_RETRY_MSECS 2000
/* That lookups wait for the ring is logged after this. */
#define RING_DELAY_LOG_MSECS 2000

void director_user_used(struct director *director, user_idx_t idx,
			const struct director_time *now)
{
	struct user_table *users = director->users;
	time_t old_timestamp = user_table_timestamp(users, idx);

	if (old_timestamp == now->wall)
		return;
	if (old_timestamp + USER_UNSEEN_SECS < now->wall)
		user_table_set_flags(users, idx, 0, USER_FLAG_UNSEEN);
	user_table_set_timestamp(users, idx, now->wall);
	if (ring_refresh_is_due(director->ring, user_table_hash(users, idx),
				old_timestamp, now->wall))
		ring_user_told(director->ring, idx, now);
}

/* Another backend than the user's: he goes back to where hashing puts him when
   he isn't used any more. */
static bool
director_user_leaves(struct director *director, user_idx_t idx,
		     const char *tag, const struct director_time *now)
{
	struct user_table *users = director->users;
	struct backend *hashed;

	if ((user_table_flags(users, idx) & USER_FLAG_LEASED) != 0 ||
	    !user_table_is_near_expiry(users, idx, now->wall))
		return FALSE;
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
static void
director_run_delay(struct director *director, const struct director_time *now)
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
	if (tag == NULL) {
		return ring_is_synced(director->ring) ? "no hosts" :
			"ring not synced";
	}
	idx = user_table_lookup(users, tag, lookup->hash, now->wall);
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
	lookup->weak_msecs = 0;
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

struct refresh_context {
	struct director *director;
	const struct director_time *now;
};

static void refresh_user(user_idx_t idx, void *context)
{
	struct refresh_context *ctx = context;

	director_user_used(ctx->director, idx, ctx->now);
}

void director_refresh(struct director *director, const char *username,
		      const struct director_time *now)
{
	struct refresh_context ctx = {
		.director = director,
		.now = now,
	};
	const char *error;
	uint32_t hash;

	if (director_user_hash(director, username, &hash, &error) < 0) {
		DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
			"notify: User %s: %s", str_sanitize(username, 128),
			error));
		return;
	}
	user_table_foreach_hash(director->users, hash, now->wall, refresh_user,
				&ctx);
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

static bool
director_run_timeouts(struct director *director,
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

static bool
director_run_retries(struct director *director,
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

static uint64_t director_grace_end(const struct director *director)
{
	return director->started_msecs + DIRECTOR_START_GRACE_MSECS;
}

bool director_run(struct director *director, const struct director_time *now)
{
	bool more = FALSE;

	if (director->previous != NULL &&
	    now->msecs >= director_grace_end(director)) {
		backends_deinit(&director->previous);
		director->retry = director->waiting_head;
	}
	if (director->weak_retry_msecs != 0 &&
	    now->msecs >= director->weak_retry_msecs) {
		director->weak_retry_msecs = 0;
		director_user_changed(director);
	}
	director_run_delay(director, now);
	if (director_run_retries(director, now))
		more = TRUE;
	if (director_run_timeouts(director, now))
		more = TRUE;
	if (director_run_sessions(director, now, RUN_MAX_STEPS))
		more = TRUE;
	if (director_run_adopt(director, now))
		more = TRUE;
	director->session_now = *now;
	if (user_table_expire(director->users, now->wall, RUN_MAX_STEPS))
		more = TRUE;
	director_log_run(director, now->msecs);
	if (backends_have_dead_slots(director->backends) &&
	    user_table_sweep(director->users, RUN_MAX_STEPS))
		more = TRUE;
	if (director_walk(director, now, RUN_MAX_WALK_STEPS))
		more = TRUE;
	if (user_moves_run(director->moves, now, RUN_MAX_LOOKUPS))
		more = TRUE;
	if (now->msecs >= ring_next_deadline(director->ring))
		ring_run(director->ring, now);
	return more;
}

static void min_deadline(uint64_t *deadline, uint64_t msecs)
{
	if (msecs != 0 && (*deadline == 0 || msecs < *deadline))
		*deadline = msecs;
}

uint64_t director_next_deadline(struct director *director,
				const struct director_time *now)
{
	uint64_t deadline = 0;
	time_t expire;

	if (director->retry != NULL || director->walking ||
	    director->adopting ||
	    backends_have_dead_slots(director->backends))
		return now->msecs;
	if (director->waiting_head != NULL) {
		min_deadline(&deadline, director->waiting_head->queued_msecs +
			     DIRECTOR_LOOKUP_TIMEOUT_MSECS);
	}
	min_deadline(&deadline, director_log_next_deadline(director));
	if (director->previous != NULL)
		min_deadline(&deadline, director_grace_end(director));
	min_deadline(&deadline,
		     session_leases_next_deadline(director->leases));
	min_deadline(&deadline, director->weak_retry_msecs);
	min_deadline(&deadline, user_moves_next_deadline(director->moves));
	if (director->ring_delay_msecs != 0 && !director->ring_delay_logged) {
		min_deadline(&deadline, director->ring_delay_msecs +
			     RING_DELAY_LOG_MSECS);
	}
	if (ring_next_deadline(director->ring) != UINT64_MAX) {
		min_deadline(&deadline,
			     I_MAX(ring_next_deadline(director->ring), 1));
	}
	expire = user_table_next_expire(director->users);
	if (expire > now->wall) {
		/* not later than this even if the clock is moved */
		min_deadline(&deadline, now->msecs +
			     I_MIN((uint64_t)(expire - now->wall), 60) * 1000);
	} else if (expire != 0) {
		min_deadline(&deadline, now->msecs);
	}
	return deadline;
}
