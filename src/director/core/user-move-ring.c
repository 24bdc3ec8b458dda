/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What the directors tell each other about moves and kicks. */

#include "lib.h"
#include "user-move-private.h"

static const struct ring_address *own_address(struct user_moves *moves)
{
	return &moves->director->ring->self->address;
}

static struct move_wave *
wave_find(struct user_move *move, const struct ring_address *initiator)
{
	unsigned int i;

	for (i = 0; i < move->waves_count; i++) {
		if (ring_address_cmp(&move->waves[i].initiator,
				     initiator) == 0)
			return &move->waves[i];
	}
	return NULL;
}

/* Not those that were handed to us, until they are told of */
static unsigned int waves_named(const struct user_move *move)
{
	unsigned int i, count = 0;

	for (i = 0; i < move->waves_count; i++) {
		if (move->waves[i].number != 0)
			count++;
	}
	return count;
}

struct move_wave *
user_move_heard(struct user_move *move, const struct ring_address *initiator,
		uint32_t number, const struct director_time *now)
{
	struct move_wave *wave = wave_find(move, initiator);

	if (wave == NULL) {
		if (move->waves_count == MOVE_MAX_WAVES)
			return NULL;
		wave = &move->waves[move->waves_count++];
		i_zero(wave);
		wave->initiator = *initiator;
		wave->number = number;
		wave->news_msecs = now->msecs;
	} else if (number < wave->number)
		return NULL;
	else if (number > wave->number) {
		wave->number = number;
		wave->news_msecs = now->msecs;
		wave->arrived = wave->passed = FALSE;
	}
	return wave;
}

struct move_wave *
user_move_own_wave(struct user_moves *moves, struct user_move *move)
{
	return wave_find(move, own_address(moves));
}

static void wave_delete(struct user_move *move, struct move_wave *wave)
{
	*wave = move->waves[--move->waves_count];
}

void user_move_tell(struct user_moves *moves, const struct user_move *move,
		    uint32_t number)
{
	struct ring *ring = moves->director->ring;
	struct ring_message msg = {
		.type = RING_USER_MOVE,
		.hash = move->hash,
		.ip = move->target,
		.wave = number,
		.flag = move->nowhere,
	};

	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
}

/* The original doesn't kick who moves to where he is. */
static void
kick_everywhere(struct user_moves *moves, const struct user_move *move)
{
	struct ring *ring = moves->director->ring;
	struct ring_message msg = {
		.type = RING_USER_KICK_HASH,
		.hash = move->hash,
	};

	/* sessions to no backend are spared */
	msg.ip.family = AF_INET;
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
}

void user_move_begin(struct user_moves *moves, struct user_move *move,
		     const struct director_time *now)
{
	struct ring *ring = moves->director->ring;

	move->passed = FALSE;
	move->told_msecs = now->msecs;
	user_move_set_deadline(moves, move, now->msecs);
	if (ring_min_minor(ring) >= RING_MINOR_OURS) {
		(void)user_move_heard(move, own_address(moves),
				      ++moves->last_number, now);
		user_move_tell(moves, move, moves->last_number);
	} else {
		move->initiator = TRUE;
		user_move_tell(moves, move, 0);
		if (move->nowhere)
			kick_everywhere(moves, move);
	}
}

/* -- Waves -- */

void user_move_send_killed(struct user_moves *moves,
			   const struct user_move *move,
			   const struct move_wave *wave)
{
	struct ring *ring = moves->director->ring;
	struct ring_message msg = {
		.type = RING_USER_KILLED,
		.hash = move->hash,
	};

	if (ring->right == NULL)
		return;
	if (wave != NULL) {
		msg.ip = move->target;
		msg.director = wave->initiator;
		msg.wave = wave->number;
		msg.flag = move->nowhere;
	}
	ring_send(ring, ring->right, &msg);
}

void user_move_send_everywhere(struct user_moves *moves,
			       const struct user_move *move, uint32_t number)
{
	struct ring *ring = moves->director->ring;
	struct ring_message msg = {
		.type = RING_USER_KILLED_EVERYWHERE,
		.hash = move->hash,
		.wave = number,
	};

	if (number != 0) {
		msg.ip = move->target;
		msg.flag = move->nowhere;
	}
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
}

/* A director was lost a moment ago: who is there doesn't know of all
   sessions. */
static bool
somebody_is_lost(struct user_moves *moves, const struct director_time *now)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(moves->director->ring->members, &count);
	for (i = 0; i < count; i++) {
		if (ring_member_is_lost(moves->director, list[i], now))
			return TRUE;
	}
	return FALSE;
}

unsigned int user_move_resend_msecs(const struct ring *ring)
{
	return I_MIN(I_MAX(MOVE_RESEND_MSECS, 2 * ring_sync_msecs(ring)),
		     RING_SYNC_RESEND_MSECS);
}

static unsigned int orphan_msecs(const struct ring *ring)
{
	return user_move_resend_msecs(ring) * MOVE_ORPHAN_RESENDS;
}

static void
wave_ended(struct user_moves *moves, const struct ring_address *initiator,
	   uint32_t number)
{
	unsigned int i = number % MOVE_ENDED_MEMORY;

	moves->ended[i].initiator = *initiator;
	moves->ended[i].number = number;
}

/* Those whose initiators are gone are over. */
static void
waves_drop_orphans(struct user_moves *moves, struct user_move *move,
		   const struct director_time *now)
{
	const struct ring *ring = moves->director->ring;
	struct move_wave *wave;
	unsigned int i;

	for (i = move->waves_count; i > 0; i--) {
		wave = &move->waves[i - 1];
		if (wave->number != 0 &&
		    now->msecs < wave->news_msecs + orphan_msecs(ring))
			continue;
		wave_ended(moves, &wave->initiator, wave->number);
		wave_delete(move, wave);
	}
}

/* This wave is over, and the orphans are, too. */
static void
wave_is_over(struct user_moves *moves, struct user_move *move,
	     struct move_wave *wave, const struct director_time *now)
{
	if (wave != NULL)
		wave_delete(move, wave);
	waves_drop_orphans(moves, move, now);
	if (move->waves_count == 0)
		user_move_end(moves, move, now);
	else
		user_move_set_deadline(moves, move, now->msecs);
}

static bool
wave_has_ended(const struct user_moves *moves,
	       const struct ring_address *initiator, uint32_t number)
{
	unsigned int i = number % MOVE_ENDED_MEMORY;

	return moves->ended[i].number == number &&
		ring_address_cmp(&moves->ended[i].initiator, initiator) == 0;
}

static void
wave_not_ended(struct user_moves *moves, const struct ring_address *initiator,
	       uint32_t number)
{
	if (wave_has_ended(moves, initiator, number))
		moves->ended[number % MOVE_ENDED_MEMORY].number = 0;
}

/* Our wave has come round, or there is nobody else. */
static void
wave_is_back(struct user_moves *moves, struct user_move *move,
	     struct move_wave *wave, const struct director_time *now)
{
	user_move_send_everywhere(moves, move, wave->number);
	wave_ended(moves, &wave->initiator, wave->number);
	wave_is_over(moves, move, wave, now);
}

/* Who is the how manieth to take over */
static unsigned int own_place(struct ring *ring)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count && list[i] != ring->self; i++) ;
	return i;
}

/* All that have names, and have arrived, go on. Returns FALSE if the move has
   ended. */
static bool
waves_run(struct user_moves *moves, struct user_move *move,
	  const struct director_time *now)
{
	struct ring *ring = moves->director->ring;
	struct move_wave *own = user_move_own_wave(moves, move);
	uint64_t news = 0;
	unsigned int i;

	for (i = 0; i < move->waves_count; i++) {
		struct move_wave *wave = &move->waves[i];

		news = I_MAX(news, wave->news_msecs);
		if (wave->arrived_left != ring->left_changes)
			wave->arrived = FALSE;
		if (wave != own && wave->arrived && ring->right != NULL) {
			wave->arrived = FALSE;
			wave->passed = TRUE;
			user_move_send_killed(moves, move, wave);
		}
	}
	if (own == NULL) {
		if (now->msecs < news + orphan_msecs(ring) +
				 own_place(ring) * MOVE_ORPHAN_STEP_MSECS)
			return TRUE;
		user_move_begin(moves, move, now);
		own = user_move_own_wave(moves, move);
		if (own == NULL)
			return TRUE;
	}
	if (own->arrived || ring_is_alone(ring)) {
		if (user_move_runs_hook(moves, move))
			return TRUE;
		wave_is_back(moves, move, own, now);
		return FALSE;
	}
	if (move->passed)
		return TRUE;
	move->passed = TRUE;
	user_move_send_killed(moves, move, own);
	return TRUE;
}

/* There is a 2.3 member by now, which doesn't know names: it goes on as the
   original does it. */
static void forget_names(struct user_moves *moves, struct user_move *move,
			 const struct director_time *now)
{
	bool own = user_move_own_wave(moves, move) != NULL;

	move->waves_count = 0;
	move->passed = move->back = FALSE;
	if (own) {
		move->notified = FALSE;
		move->started_msecs = now->msecs;
		user_move_begin(moves, move, now);
	} else if (move->unsure_msecs == 0) {
		/* who has begun it will tell so, if it is there */
		move->started_msecs = move->unsure_msecs = now->msecs;
	}
}

/* Who tells a name knows of no 2.3 member. */
static void
name_heard(struct ring *ring, const struct ring_message *msg,
	   const struct director_time *now)
{
	if (msg->wave != 0 && ring_min_minor(ring) < RING_MINOR_OURS)
		ring_ask_minor(ring, now);
}

bool user_move_is_named(struct user_moves *moves, struct user_move *move,
			const struct director_time *now)
{
	const struct ring *ring = moves->director->ring;

	if (move->waves_count > 0 && ring_is_synced(ring) &&
	    !ring_is_asking(ring) && ring_min_minor(ring) < RING_MINOR_OURS)
		forget_names(moves, move, now);
	return move->waves_count > 0;
}

bool user_move_run_waves(struct user_moves *moves, struct user_move *move,
			 const struct director_time *now)
{
	const struct ring *ring = moves->director->ring;
	struct move_wave *own;

	if (!user_move_is_named(moves, move, now))
		return user_move_run_original(moves, move, now);
	if (ring_min_minor(ring) < RING_MINOR_OURS) {
		/* the next SYNC says whether they still are there */
		return TRUE;
	}
	own = user_move_own_wave(moves, move);
	if (own != NULL &&
	    now->msecs >= move->told_msecs + user_move_resend_msecs(ring)) {
		/* It may have got lost. That we are there is news, too. */
		move->told_msecs = own->news_msecs = now->msecs;
		move->passed = FALSE;
		user_move_tell(moves, move, own->number);
	}
	return !move->done || somebody_is_lost(moves, now) ||
		waves_run(moves, move, now);
}

/* -- What others tell -- */

/* Does the move go where the message says, not where we know? */
static bool
target_wins(const struct user_moves *moves, const struct user_move *move,
	    const struct ring_message *msg, const struct ring_member *origin,
	    const struct director_time *now)
{
	if (backend_lookup(moves->director->backends, &move->target) == NULL)
		return TRUE;
	if (move->waves_count == 0) {
		return user_move_original_yields(moves, move, origin, &msg->ip,
						 now);
	}
	/* one that was handed to us hasn't told where it goes */
	if (waves_named(move) == 0)
		return TRUE;
	/* Of moves that were begun at once that to a backend wins, and then that
	   to the lower address. */
	if (msg->flag != move->nowhere)
		return move->nowhere;
	return backend_ip_cmp(&msg->ip, &move->target) < 0;
}

void ring_handle_user_move(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now)
{
	struct director *director = ring->director;
	struct user_moves *moves = director->moves;
	const struct ring_member *origin =
		ring_member_lookup(ring->members, &msg->origin);
	bool known = origin != NULL && !origin->removed;
	bool unsure, keep = FALSE;
	struct backend *backend;
	struct user_move *move;
	struct move_wave *wave;

	if (!ring_accept(ring, msg))
		return;
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend == NULL) {
		if (msg->wave != 0)
			ring_broadcast(ring, peer->member, msg);
		return;
	}
	name_heard(ring, msg, now);
	move = user_move_find(moves, backend->tag, msg->hash);
	if (move == NULL || move->delaying) {
		unsure = msg->wave == 0 && known && origin->instance == 0 &&
			(move != NULL ||
			 user_move_original_may_last(moves, backend->tag,
						     msg->hash, now));
		if (move != NULL)
			user_move_free(moves, move);
		move = user_move_new(moves, backend, msg->hash, msg->flag,
				     director_who(&msg->origin), now);
		if (move == NULL) {
			/* We don't pass its wave on until there is room. */
			ring_broadcast(ring, peer->member, msg);
			return;
		}
		if (unsure)
			move->unsure_msecs = now->msecs;
	} else {
		(void)user_move_is_named(moves, move, now);
		keep = !target_wins(moves, move, msg, origin, now);
		if (!keep) {
			user_move_retarget(moves, move, &msg->ip, msg->flag,
					   now);
		}
		user_move_original_heard(move, known ? origin : NULL, now);
	}
	if (!known) {
		/* it isn't there to bring it to an end */
		user_move_begin(moves, move, now);
		return;
	}
	ring_broadcast(ring, peer->member, msg);
	if (keep && move->waves_count == 0)
		user_move_original_kept(moves, move, &msg->ip);
	if (msg->wave != 0) {
		/* it may only have been silent */
		wave_not_ended(moves, &msg->origin, msg->wave);
		wave = user_move_heard(move, &msg->origin, msg->wave, now);
		/* Its wave alone could go round for ever. */
		if (wave != NULL) {
			wave->news_msecs = now->msecs;
			wave->passed = FALSE;
		}
	}
	user_move_set_deadline(moves, move, now->msecs);
}

/* One with the name of its move */
static void
named_killed(struct ring *ring, const struct ring_message *msg,
	     const struct director_time *now)
{
	struct director *director = ring->director;
	struct user_moves *moves = director->moves;
	struct backend *backend = backend_lookup(director->backends, &msg->ip);
	const struct ring_member *initiator;
	struct move_wave *wave;
	struct user_move *move;
	bool own, wins;

	if (backend == NULL)
		return;
	move = user_move_find(moves, backend->tag, msg->hash);
	initiator = ring_member_lookup(ring->members, &msg->director);
	if (initiator == NULL || initiator->removed ||
	    wave_has_ended(moves, &msg->director, msg->wave)) {
		/* it is gone, or sent it twice */
		return;
	}
	own = ring_address_cmp(&msg->director, &ring->self->address) == 0;
	name_heard(ring, msg, now);
	if (move == NULL) {
		/* We have started since. */
		move = user_move_new(moves, backend, msg->hash, msg->flag,
				     director_who(&msg->director), now);
		if (move == NULL)
			return;
		if (own) {
			user_move_begin(moves, move, now);
			return;
		}
	}
	/* It may have been handed to us, which doesn't tell where to, or two that
	   were begun in two rings meet: their USER-MOVEs were told in those. */
	wins = move->waves_count > 0 && target_wins(moves, move, msg, NULL, now);
	wave = user_move_heard(move, &msg->director, msg->wave, now);
	if (wave == NULL)
		return;
	if (wins) {
		user_move_retarget(moves, move, &msg->ip, msg->flag, now);
		/* ours has to go round again */
		move->told_msecs = 0;
	}
	if (wave->passed || (wins && own))
		return;
	wave->arrived = TRUE;
	wave->arrived_left = ring->left_changes;
	user_move_set_deadline(moves, move, now->msecs);
}

void ring_handle_user_killed(struct ring *ring, struct ring_peer *peer,
			     struct ring_message *msg,
			     const struct director_time *now)
{
	struct user_moves *moves = ring->director->moves;

	/* Who isn't our left may have passed over somebody. */
	if (peer != ring->left)
		return;
	if (msg->wave != 0) {
		named_killed(ring, msg, now);
		return;
	}
	user_moves_original_killed(moves, msg->hash, now);
}

void ring_handle_user_killed_everywhere(struct ring *ring,
					struct ring_peer *peer,
					struct ring_message *msg,
					const struct director_time *now)
{
	struct user_moves *moves = ring->director->moves;
	struct ring_address initiator = msg->origin;
	struct backend *backend;
	struct user_move *move;
	struct move_wave *wave;

	if (!ring_accept(ring, msg))
		return;
	if (msg->wave == 0) {
		user_moves_original_everywhere(moves, peer, msg, now);
		return;
	}
	ring_broadcast(ring, peer->member, msg);
	wave_ended(moves, &initiator, msg->wave);
	backend = backend_lookup(ring->director->backends, &msg->ip);
	move = backend == NULL ? NULL :
		user_move_find(moves, backend->tag, msg->hash);
	if (move == NULL)
		return;
	wave = wave_find(move, &initiator);
	if (wave != NULL && wave->number > msg->wave)
		return;
	/* orphans have no say in where he is */
	waves_drop_orphans(moves, move, now);
	wave = wave_find(move, &initiator);
	if (waves_named(move) <= 1)
		user_move_retarget(moves, move, &msg->ip, msg->flag, now);
	wave_is_over(moves, move, wave, now);
}
