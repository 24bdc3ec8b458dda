/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "str.h"
#include "str-sanitize.h"
#include "user-flush.h"
#include "user-move.h"
#include "username-hash.h"
#include "ring-private.h"
#include "session-list.h"

/* Slices of work: each about 100 microseconds */
#define RUN_MAX_STEPS 1000
#define RUN_MAX_WALK_STEPS 5000
#define RUN_MAX_MOVES 100

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
	session_leases_set_untold_callback(director->leases,
					   director_session_untold);
	session_leases_set_ended_callback(director->leases,
					  director_session_ended);
	session_leases_set_lives_callback(director->leases,
					  director_session_process_lives);
	user_table_set_refreshed_callback(director->users,
					  director_user_refreshed);
	director_strays_init(director);
	director_processes_init(director);
	director->moves = user_moves_init(director);
	director->flushes = user_flushes_init(director);
	director->kicking = user_kicks_init(director);
	director->session_queries = session_queries_init(director);
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
	user_flushes_deinit(&director->flushes);
	user_kicks_deinit(&director->kicking);
	session_queries_deinit(&director->session_queries);
	director_strays_deinit(director);
	director_processes_deinit(director);
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

user_idx_t
director_user_find(struct director *director, const char *tag, uint32_t hash,
		   const struct director_time *now)
{
	user_idx_t idx = user_table_lookup(director->users, tag, hash,
					   now->wall);

	if (idx == USER_IDX_NONE &&
	    user_moves_place(director->moves, tag, hash, now)) {
		idx = user_table_lookup(director->users, tag, hash, now->wall);
	}
	return idx;
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

struct refresh_context {
	struct director *director;
	const struct director_time *now;
};

static void refresh_user(user_idx_t idx, void *context)
{
	struct refresh_context *ctx = context;

	director_user_used(ctx->director, idx, ctx->now);
	director_untold_used(ctx->director, idx, TRUE, ctx->now);
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

bool director_run(struct director *director, const struct director_time *now)
{
	bool more = FALSE;

	director_run_processes(director, now);
	if (director->previous != NULL &&
	    director_start_is_over(director, now)) {
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
	if (director_run_strays(director, now))
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
	user_flushes_run(director->flushes, now);
	if (user_moves_run(director->moves, now, RUN_MAX_MOVES))
		more = TRUE;
	/* (moves that have ended make room) */
	if (user_flushes_next_deadline(director->flushes, now) == now->msecs)
		more = TRUE;
	if (user_kicks_run(director->kicking, now))
		more = TRUE;
	if (session_queries_run(director->session_queries, now))
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
	    session_queries_pending(director->session_queries) ||
	    backends_have_dead_slots(director->backends))
		return now->msecs;
	if (director->waiting_head != NULL) {
		min_deadline(&deadline, director->waiting_head->queued_msecs +
			     DIRECTOR_LOOKUP_TIMEOUT_MSECS);
	}
	min_deadline(&deadline, director_log_next_deadline(director));
	min_deadline(&deadline, director_strays_next_deadline(director));
	min_deadline(&deadline, director_processes_next_deadline(director));
	if (director->previous != NULL &&
	    director_processes_all_told(director)) {
		min_deadline(&deadline, director_start_over_msecs(director));
	}
	min_deadline(&deadline,
		     session_leases_next_deadline(director->leases));
	min_deadline(&deadline, director->weak_retry_msecs);
	min_deadline(&deadline, user_moves_next_deadline(director->moves));
	min_deadline(&deadline,
		     user_flushes_next_deadline(director->flushes, now));
	min_deadline(&deadline,
		     user_kicks_next_deadline(director->kicking, now));
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
