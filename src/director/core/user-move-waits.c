/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What a move waits for, in words. */

#include "lib.h"
#include "user-move-private.h"

static const struct ring_member *
lost_member(const struct ring *ring, const struct director_time *now)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		if (ring_member_is_lost(ring->director, list[i], now))
			return list[i];
	}
	return NULL;
}

static const char *
waits_here(struct director *director, const struct user_move *move,
	   const struct director_time *now)
{
	unsigned int count;

	count = director_count_sessions(director, move->hash, &move->target);
	if (count > 0) {
		return t_strdup_printf("%u sessions on this director haven't "
				       "ended", count);
	}
	if (director_has_sessions(director, move->tag, move->hash,
				  &move->target)) {
		return "a login that was answered by this director may still "
			"begin on the old backend";
	}
	if (now->msecs < move->hold_msecs)
		return "the old backend gets its time to finish";
	if (!director_processes_all_told(director))
		return director_processes_reason(director);
	return "login processes have to tell this director of their sessions";
}

const char *
director_user_move_waits(struct director *director, uint32_t hash,
			 const struct ip_addr *ip,
			 const struct director_time *now)
{
	const struct backend *backend = backend_lookup(director->backends, ip);
	const struct user_move *move = backend == NULL ? NULL :
		user_move_find(director->moves, backend->tag, hash);
	const struct ring_member *lost;

	if (move == NULL)
		return NULL;
	if (!move->done)
		return waits_here(director, move, now);
	lost = lost_member(director->ring, now);
	if (lost != NULL) {
		return t_strdup_printf("director %s was lost, which may still "
				       "have sessions", lost->name);
	}
	if (move->hook_runs)
		return "director_flush_socket runs";
	if (move->delaying)
		return "the old backend gets its time to finish";
	return "another director hasn't told that it has no sessions of him "
		"left";
}
