/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Moves as the original does them (spec: assignment.md §6), in a ring with
   directors of 2.3: what it drops, or never says, is seen to here. */

#include "lib.h"
#include "user-move-private.h"

static void
original_delay(struct user_moves *moves, struct user_move *move,
	       const struct director_time *now)
{
	move->delaying = TRUE;
	move->hold_msecs = now->msecs +
		moves->director->set.user_kick_delay_msecs;
	user_move_set_deadline(moves, move, move->hold_msecs);
}

static void
original_tell(struct user_moves *moves, struct user_move *move,
	      const struct director_time *now)
{
	move->told_msecs = now->msecs;
	user_move_tell(moves, move, 0);
}

/* It can't have asked for the sessions of one of ours that was lost a moment
   ago. (For a director of 2.3 nobody ever waits: its sessions aren't known
   again when it is back.) */
static bool
ours_is_lost(struct user_moves *moves, const struct director_time *now)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(moves->director->ring->members, &count);
	for (i = 0; i < count; i++) {
		if (list[i]->lost_instance != 0 &&
		    ring_member_is_lost(moves->director, list[i], now))
			return TRUE;
	}
	return FALSE;
}

static bool
told_long_ago(const struct user_moves *moves, const struct user_move *move,
	      const struct director_time *now)
{
	return now->msecs >= I_MAX(move->told_msecs, move->started_msecs) +
		user_move_resend_msecs(moves->director->ring);
}

static void
original_timed_out(struct user_moves *moves, struct user_move *move,
		   const struct director_time *now)
{
	DIRECTOR_LOG(moves->director, LOG_TYPE_ERROR, t_strdup_printf(
		"Finishing user %u move timed out, its state may now "
		"be inconsistent (state=%s)", move->hash,
		!move->done ? "killing" :
		(move->hook_runs ? "flushing" :
		 (!move->passed ? "waiting-for-notify" :
		  "waiting-for-everyone"))));
	move->in_vain = TRUE;
	user_move_end(moves, move, now);
}

/* We are done, and so are those before us. */
static void
original_pass(struct user_moves *moves, struct user_move *move,
	      const struct director_time *now)
{
	move->passed = TRUE;
	if (told_long_ago(moves, move, now)) {
		/* A 2.3 member that had just ended another move of his took
		   ours to be that one, and would know of none. */
		original_tell(moves, move, now);
	}
	user_move_send_killed(moves, move, NULL);
}

/* One of ours that was started during the move, or was told by a 2.3 member that
   makes none, ends it soon if nobody says that he has it still. */
static void
original_repeat(struct user_moves *moves, struct user_move *move,
		const struct director_time *now)
{
	if (now->msecs < I_MAX(move->repeated_msecs, I_MAX(move->told_msecs,
					move->started_msecs)) +
			 MOVE_RESEND_MSECS)
		return;
	move->repeated_msecs = now->msecs;
	user_move_tell(moves, move, 0);
}

/* It may be that no wave comes. */
static void
original_unsure(struct user_moves *moves, struct user_move *move,
		const struct director_time *now)
{
	uint64_t until = move->unsure_msecs + MOVE_UNSURE_MSECS;

	if (move->word_msecs != 0)
		until = I_MAX(until, move->word_msecs + MOVE_WORD_MSECS);
	if (!move->repeated_unsure) {
		if (now->msecs >= until)
			original_delay(moves, move, now);
		return;
	}
	/* Those of 2.3 that we have told wait for one: the last one of ours that
	   isn't done begins it, and not while they are in the delay after the
	   move before. */
	if (now->msecs >= move->word_msecs + MOVE_RESEND_MSECS * 3 / 2 &&
	    now->msecs >= move->unsure_msecs + MOVE_RESEND_MSECS +
	    moves->director->set.user_kick_delay_msecs)
		user_move_begin(moves, move, now);
}

bool user_move_run_original(struct user_moves *moves, struct user_move *move,
			    const struct director_time *now)
{
	struct ring *ring = moves->director->ring;

	if (move->delaying) {
		if (now->msecs < move->hold_msecs)
			return TRUE;
		user_move_end(moves, move, now);
		return FALSE;
	}
	if (now->msecs >= move->started_msecs + MOVE_TIMEOUT_MSECS) {
		original_timed_out(moves, move, now);
		return FALSE;
	}
	if (!move->done || (!move->passed && ours_is_lost(moves, now))) {
		if (move->initiator || move->notified)
			original_repeat(moves, move, now);
		else if (move->unsure_msecs != 0) {
			original_repeat(moves, move, now);
			move->repeated_unsure = move->repeated_msecs != 0;
		}
		return TRUE;
	}
	if (ours_is_lost(moves, now))
		return TRUE;
	if (move->back || ring_is_alone(ring)) {
		move->back = TRUE;
		if (move->initiator && user_move_runs_hook(moves, move)) {
			original_repeat(moves, move, now);
			return TRUE;
		}
		user_move_send_everywhere(moves, move, 0);
		original_delay(moves, move, now);
		return TRUE;
	}
	if (ring->right == NULL) {
		/* it is just being changed */
		return TRUE;
	}
	if (move->passed) {
		/* If there is nobody else its answer can only mean that it is
		   done, however often it is asked. */
		if (ring->left != NULL &&
		    ring->left->member == ring->right->member &&
		    told_long_ago(moves, move, now))
			original_pass(moves, move, now);
	} else if (move->initiator || move->notified) {
		original_pass(moves, move, now);
	} else if (move->unsure_msecs != 0)
		original_unsure(moves, move, now);
	return TRUE;
}

/* -- What others tell -- */

/* Was it told by us just now? Others may not have heard of it. */
static bool original_is_fresh(const struct user_moves *moves,
			      const struct user_move *move,
			      const struct director_time *now)
{
	return move->told_msecs != 0 && now->msecs < move->told_msecs +
		user_move_resend_msecs(moves->director->ring);
}

bool user_move_original_yields(const struct user_moves *moves,
			       const struct user_move *move,
			       const struct ring_member *origin,
			       const struct ip_addr *told,
			       const struct director_time *now)
{
	bool ours = origin != NULL && origin->instance != 0;
	bool fresh = original_is_fresh(moves, move, now);

	if (ours && move->repeated_msecs != 0 &&
	    now->msecs < move->repeated_msecs + MOVE_RESEND_MSECS)
		fresh = TRUE;
	/* With 2.3 members the last one that comes counts. */
	if (!fresh)
		return TRUE;
	/* Ours does if its sender can't have heard of it. Two of ours take the
	   lower address. */
	return ours && backend_ip_cmp(told, &move->target) < 0;
}

void user_move_original_heard(struct user_move *move,
			      const struct ring_member *origin,
			      const struct director_time *now)
{
	if (origin != NULL && origin->instance != 0)
		move->word_msecs = now->msecs;
}

void user_move_original_kept(struct user_moves *moves, struct user_move *move,
			     const struct ip_addr *told)
{
	/* Once: another one may see it the other way round. */
	if (move->retold || net_ip_compare(&move->target, told))
		return;
	move->retold = TRUE;
	user_move_tell(moves, move, 0);
}

bool user_move_original_may_last(const struct user_moves *moves,
				 const char *tag, uint32_t hash,
				 const struct director_time *now)
{
	unsigned int i = hash % MOVE_MOVED_MEMORY;

	return moves->moved[i].tag == tag && moves->moved[i].hash == hash &&
		(now->msecs < moves->moved[i].msecs + MOVE_AGAIN_MSECS ||
		 now->msecs < moves->moved[i].started_msecs +
			      MOVE_TIMEOUT_MSECS);
}

void user_moves_original_killed(struct user_moves *moves, uint32_t hash,
				const struct director_time *now)
{
	struct user_move *move = user_moves_of_hash(moves, hash);

	for (; move != NULL; move = move->tag_next) {
		if (user_move_is_named(moves, move, now)) {
			/* it counts if the names are forgotten */
			if (ring_min_minor(moves->director->ring) <
			    RING_MINOR_OURS)
				move->notified = TRUE;
			continue;
		}
		if (!move->passed) {
			move->notified = TRUE;
			user_move_set_deadline(moves, move, now->msecs);
			continue;
		}
		/* It has been everywhere. */
		if (move->delaying)
			user_move_send_everywhere(moves, move, 0);
		else {
			move->back = TRUE;
			user_move_set_deadline(moves, move, now->msecs);
		}
	}
}

/* The original passes it on only if it tells something. */
void user_moves_original_everywhere(struct user_moves *moves,
				    struct ring_peer *peer,
				    const struct ring_message *msg,
				    const struct director_time *now)
{
	struct user_move *move = user_moves_of_hash(moves, msg->hash);
	bool forward = FALSE;

	for (; move != NULL; move = move->tag_next) {
		if (user_move_is_named(moves, move, now))
			continue;
		if (!move->passed && move->unsure_msecs == 0)
			move->unsure_msecs = now->msecs;
		if (!move->passed || move->back || move->delaying)
			continue;
		forward = TRUE;
		original_delay(moves, move, now);
	}
	if (forward)
		ring_broadcast(moves->director->ring, peer->member, msg);
}
