/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "ring-private.h"
#include "user-flush.h"
#include "user-move.h"

/* A slice: places of the user table, and moves that are begun */
#define FLUSH_MAX_STEPS 5000
#define FLUSH_MAX_MOVES 100
/* A kick, which is written to a login process, takes as long as so many moves
   of users without sessions. */
#define FLUSH_KICK_MOVES 2
/* Users who couldn't be moved, because somebody else moves them or too many are
   moved, are tried again after this, and until nothing has changed for so
   long. */
#define FLUSH_RETRY_MSECS 500
#define FLUSH_GIVE_UP_MSECS 30000

struct user_flush {
	struct user_flush *prev, *next;
	struct user_flushes *flushes;

	/* Family 0: all backends */
	struct ip_addr ip;
	const char *by;
	unsigned int max_parallel;
	void (*callback)(void *context);
	void *context;

	uint64_t started_msecs, ended_msecs;
	/* When a move was begun last */
	uint64_t begun_msecs;
	/* When the next lap over the users begins; 0: one is under way */
	uint64_t retry_msecs;
	uint32_t pos;
	unsigned int users, seen, moved, waiting, backends;
	/* In this lap; unsafe: who may have sessions that nobody can see */
	unsigned int skipped, unsafe;
	/* In this slice */
	unsigned int slice;

	/* Some had no backend to go to. */
	bool nowhere;
	/* Some may still be where they were. */
	bool in_vain;
	bool all_seen;
	bool begun, ended;
	/* The caller still has it. */
	bool referenced;
};

struct user_flushes {
	struct director *director;
	struct user_flush *head;
};

struct user_flushes *user_flushes_init(struct director *director)
{
	struct user_flushes *flushes = i_new(struct user_flushes, 1);

	flushes->director = director;
	return flushes;
}

static void flush_free(struct user_flush *flush)
{
	DLLIST_REMOVE(&flush->flushes->head, flush);
	i_free(flush);
}

void user_flushes_deinit(struct user_flushes **_flushes)
{
	struct user_flushes *flushes = *_flushes;

	*_flushes = NULL;
	while (flushes->head != NULL)
		flush_free(flushes->head);
	i_free(flushes);
}

static bool
flush_has_backend(const struct user_flush *flush, const struct ip_addr *ip)
{
	return flush->ip.family == 0 || net_ip_compare(&flush->ip, ip);
}

static void flush_tell(struct user_flush *flush)
{
	if (flush->referenced && flush->callback != NULL)
		flush->callback(flush->context);
}

struct user_flush *
director_flush_users(struct director *director, const struct ip_addr *ip,
		     unsigned int max_parallel, const char *by,
		     void (*callback)(void *context), void *context,
		     const struct director_time *now)
{
	struct user_flush *flush;
	struct backend *const *list;
	unsigned int i, count;

	if (ip != NULL && backend_lookup(director->backends, ip) == NULL)
		return NULL;
	flush = i_new(struct user_flush, 1);
	flush->flushes = director->flushes;
	DLLIST_PREPEND(&director->flushes->head, flush);
	if (ip != NULL)
		flush->ip = *ip;
	flush->by = by;
	flush->max_parallel = max_parallel != 0 ? max_parallel :
		I_MAX(director->set.max_parallel_moves, 1);
	flush->callback = callback;
	flush->context = context;
	flush->started_msecs = flush->begun_msecs = now->msecs;
	flush->referenced = TRUE;

	list = backends_sorted(director->backends, &count);
	for (i = 0; i < count; i++) {
		if (!flush_has_backend(flush, &list[i]->ip))
			continue;
		flush->backends++;
		flush->users += backend_users(director->backends, list[i]);
	}
	return flush;
}

void director_flush_unref(struct user_flush **_flush, bool stop)
{
	struct user_flush *flush = *_flush;

	*_flush = NULL;
	flush->referenced = FALSE;
	if (stop)
		flush->begun = TRUE;
	if (flush->ended)
		flush_free(flush);
}

void director_flush_status(const struct user_flush *flush,
			   struct user_flush_status *status_r,
			   const struct director_time *now)
{
	i_zero(status_r);
	status_r->users = I_MAX(flush->users, flush->seen);
	status_r->seen = flush->seen;
	status_r->moved = flush->moved;
	status_r->waiting = flush->waiting;
	status_r->failed = flush->skipped + flush->unsafe;
	status_r->backends = flush->backends;
	status_r->elapsed_msecs = (flush->ended ? flush->ended_msecs :
				   now->msecs) - flush->started_msecs;
	status_r->begun = flush->begun;
	status_r->ended = flush->ended;
}

void user_flush_moved(struct user_flush *flush, bool in_vain)
{
	i_assert(flush->waiting > 0);

	flush->waiting--;
	flush->moved++;
	if (in_vain)
		flush->in_vain = TRUE;
}

/* -- The walk -- */

struct flush_walk {
	struct user_flush *flush;
	const struct director_time *now;
};

static bool flush_may_begin(const struct user_flush *flush)
{
	return flush->waiting < flush->max_parallel &&
		flush->slice < FLUSH_MAX_MOVES;
}

/* Returns FALSE if no other one may be begun in this slice. */
static bool flush_user(user_idx_t idx, void *context)
{
	struct flush_walk *walk = context;
	struct user_flush *flush = walk->flush;
	struct director *director = flush->flushes->director;
	uint32_t hash = user_table_hash(director->users, idx);
	unsigned int kicks = director->kicks_told;
	struct backend *backend, *target;

	backend = backend_by_slot(director->backends,
				  user_table_slot(director->users, idx));
	if (backend == NULL || !flush_has_backend(flush, &backend->ip))
		return TRUE;
	if (!flush->all_seen)
		flush->seen++;
	target = backend_by_hash(director->backends, backend->tag, hash);
	if (target == backend)
		return TRUE;
	if (director_user_is_untold(director, idx, walk->now)) {
		flush->unsafe++;
		return TRUE;
	}
	if (user_move_begin_for(director->moves, flush, backend, target, hash,
				flush->by, walk->now)) {
		flush->waiting++;
		flush->slice += 1 + (director->kicks_told - kicks) *
			FLUSH_KICK_MOVES;
		flush->begun_msecs = walk->now->msecs;
		if (target == NULL)
			flush->nowhere = TRUE;
	} else {
		/* (who is being moved to this backend now, too) */
		flush->skipped++;
	}
	return flush_may_begin(flush);
}

static void flush_lap_ended(struct user_flush *flush,
			    const struct director_time *now)
{
	flush->all_seen = TRUE;
	flush->pos = 0;
	if (flush->skipped > 0 &&
	    now->msecs < flush->begun_msecs + FLUSH_GIVE_UP_MSECS) {
		flush->retry_msecs = now->msecs + FLUSH_RETRY_MSECS;
		return;
	}
	flush->begun = TRUE;
	flush_tell(flush);
}

/* Directors of 2.3 have kicked those for whom there is no backend, but not
   forgotten them. */
static void flush_forget(struct user_flush *flush,
			 const struct director_time *now)
{
	struct director *director = flush->flushes->director;
	struct backend *const *list;
	unsigned int i, count;

	if (!flush->nowhere || flush->in_vain ||
	    ring_min_minor(director->ring) >= RING_MINOR_OURS)
		return;
	list = backends_sorted(director->backends, &count);
	for (i = 0; i < count; i++) {
		if (flush_has_backend(flush, &list[i]->ip) &&
		    backend_by_hash(director->backends, list[i]->tag, 0) == NULL)
			(void)director_host_flush(director, &list[i]->ip,
						  flush->by, now);
	}
}

static void flush_end(struct user_flush *flush, const struct director_time *now)
{
	struct director *director = flush->flushes->director;
	uint64_t msecs = now->msecs - flush->started_msecs;

	flush_forget(flush, now);
	flush->ended = TRUE;
	flush->ended_msecs = now->msecs;
	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%sMoved %u users in %u hosts in %u.%03u secs "
		"(max parallel=%u)", flush->by, flush->moved, flush->backends,
		(unsigned int)(msecs / 1000), (unsigned int)(msecs % 1000),
		flush->max_parallel));
	if (flush->skipped > 0) {
		DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
			"%s%u users weren't moved: they were being moved by "
			"others, or too many users were being moved", flush->by,
			flush->skipped));
	}
	if (flush->unsafe > 0) {
		DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
			"%s%u users weren't moved, since they may have "
			"sessions that nobody can see: %s", flush->by,
			flush->unsafe, director_unsafe_reason(director)));
	}
	flush_tell(flush);
	if (!flush->referenced)
		flush_free(flush);
}

static void flush_run(struct user_flush *flush, const struct director_time *now)
{
	struct director *director = flush->flushes->director;
	struct flush_walk walk = { .flush = flush, .now = now };

	if (flush->retry_msecs != 0 && now->msecs >= flush->retry_msecs) {
		flush->retry_msecs = 0;
		flush->skipped = flush->unsafe = 0;
	}
	flush->slice = 0;
	if (!flush->begun && flush->retry_msecs == 0 &&
	    flush_may_begin(flush) &&
	    !user_table_walk(director->users, &flush->pos, now->wall,
			     FLUSH_MAX_STEPS, flush_user, &walk))
		flush_lap_ended(flush, now);
	if (flush->begun && flush->waiting == 0 && !flush->ended)
		flush_end(flush, now);
}

void user_flushes_run(struct user_flushes *flushes,
		      const struct director_time *now)
{
	struct user_flush *flush, *next;

	for (flush = flushes->head; flush != NULL; flush = next) {
		next = flush->next;
		flush_run(flush, now);
	}
}

uint64_t user_flushes_next_deadline(const struct user_flushes *flushes,
				    const struct director_time *now)
{
	const struct user_flush *flush;
	uint64_t deadline = 0;

	for (flush = flushes->head; flush != NULL; flush = flush->next) {
		if (flush->ended)
			continue;
		if (flush->begun ? flush->waiting == 0 :
		    flush->retry_msecs == 0 &&
		    flush->waiting < flush->max_parallel)
			return now->msecs;
		if (!flush->begun && flush->retry_msecs != 0 &&
		    (deadline == 0 || flush->retry_msecs < deadline))
			deadline = flush->retry_msecs;
	}
	return deadline;
}
