/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who is where, on its way round the ring (spec: ring-protocol.md §8). */

#include "lib.h"
#include "str.h"
#include "ring-private.h"
#include "user-move.h"

/* Refreshes of a user are told once in so many seconds: half of the window of
   near expiry. A director that knows an older time than another one may think
   that the user is near expiry, or even has expired, while he hasn't; but for
   the other one he is near expiry then, and takes what the first one says. */
static unsigned int near_expiry_secs(const struct ring *ring)
{
	unsigned int n = ring->director->set.user_expire_secs / 10;

	return I_MIN(I_MAX(n, 3), 30);
}

static unsigned int refresh_secs(const struct ring *ring)
{
	return I_MAX(near_expiry_secs(ring) / 2, 1);
}

bool ring_refresh_is_due(struct ring *ring, uint32_t hash,
			 time_t old_timestamp, time_t timestamp)
{
	unsigned int secs = refresh_secs(ring);
	unsigned int shift = hash % secs;

	return (old_timestamp + shift) / secs != (timestamp + shift) / secs;
}

static void
user_message(struct ring *ring, user_idx_t idx, struct ring_message *msg_r)
{
	struct director *director = ring->director;
	const struct backend *backend =
		backend_by_slot(director->backends,
				user_table_slot(director->users, idx));

	i_zero(msg_r);
	msg_r->type = RING_USER;
	msg_r->hash = user_table_hash(director->users, idx);
	msg_r->ip = backend->ip;
	msg_r->timestamp = user_table_timestamp(director->users, idx);
	msg_r->has_timestamp = TRUE;
	msg_r->instance = ring->self->instance;
}

/* That is told now: a HOST-FLUSH may be on its way here. */
static void
told_message(struct ring *ring, user_idx_t idx, struct ring_message *msg_r,
	     const struct director_time *now)
{
	struct director *director = ring->director;

	backend_by_slot(director->backends,
			user_table_slot(director->users, idx))->told_msecs =
		I_MAX(now->msecs, 1);
	user_message(ring, idx, msg_r);
}

static void
user_tell(struct ring *ring, user_idx_t idx, const struct ring_member *except,
	  const struct director_time *now)
{
	struct director *director = ring->director;
	struct ring_message msg;

	if ((user_table_flags(director->users, idx) & USER_FLAG_MOVING) != 0 &&
	    ring_min_minor(ring) >= RING_MINOR_OURS) {
		/* He isn't there before the move ends, and who has just connected
		   may not know of it. (With 2.3 members several may move him at
		   once, and this is how they agree.) */
		return;
	}
	told_message(ring, idx, &msg, now);
	ring_broadcast_user(ring, except, &msg, msg.timestamp, now);
}

void ring_user_told(struct ring *ring, user_idx_t idx,
		    const struct director_time *now)
{
	if (ring->peers != NULL)
		user_tell(ring, idx, NULL, now);
}

void ring_users_tell_recent(struct ring *ring, struct ring_peer *peer,
			    const struct director_time *now)
{
	struct director *director = ring->director;
	unsigned int i, end = ring->recent_users_count;
	const struct backend *backend;
	struct ring_message msg;
	user_idx_t idx;

	/* 2.3 would tell all of them on. */
	if (peer->minor < RING_MINOR_OURS || !ring_peer_is_usable(peer) ||
	    !ring_knows(ring))
		return;
	for (i = end - I_MIN(end, RING_RECENT_USERS); i != end; i++) {
		unsigned int n = i % RING_RECENT_USERS;

		if (now->msecs > ring->recent_users[n].msecs +
				 RING_RECENT_MSECS)
			continue;
		backend = backend_lookup(director->backends,
					 &ring->recent_users[n].ip);
		idx = backend == NULL ? USER_IDX_NONE :
			director_user_find(director, backend->tag,
					   ring->recent_users[n].hash, now);
		if (idx == USER_IDX_NONE ||
		    (user_table_flags(director->users, idx) &
		     (USER_FLAG_WEAK | USER_FLAG_MOVING)) != 0)
			continue;
		told_message(ring, idx, &msg, now);
		ring_send(ring, peer, &msg);
	}
}

void ring_user_weaken(struct ring *ring, user_idx_t idx)
{
	struct ring_message msg;

	user_table_set_flags(ring->director->users, idx, USER_FLAG_WEAK, 0);
	user_message(ring, idx, &msg);
	msg.type = RING_USER_WEAK;
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
}

enum refresh_result {
	/* It was too old, or says what we know */
	REFRESH_SAME,
	REFRESH_CHANGED,
	/* Ours holds, or the message's, and everybody has to know it. */
	REFRESH_CONFLICT,
};

/* He is on two backends. The one where he was used last wins if the other is of
   long ago, remembered by a director that was away, else the lower address
   (§8.1, rule 4). What all believe in the end is the same: every word makes
   the times more alike. */
static bool
conflict_is_won(struct ring *ring, user_idx_t idx,
		const struct backend *backend, const struct backend *current,
		time_t timestamp)
{
	time_t own = user_table_timestamp(ring->director->users, idx);
	time_t long_ago = near_expiry_secs(ring);

	if (timestamp > own + long_ago)
		return TRUE;
	if (timestamp + long_ago < own)
		return FALSE;
	return backend_ip_cmp(&backend->ip, &current->ip) < 0;
}

/* Returns TRUE if the message's backend wins. */
static bool
user_conflict(struct ring *ring, user_idx_t idx, struct backend *backend,
	      time_t timestamp, const struct director_time *now)
{
	struct director *director = ring->director;
	struct backend *current =
		backend_by_slot(director->backends,
				user_table_slot(director->users, idx));
	bool wins = conflict_is_won(ring, idx, backend, current, timestamp);
	uint32_t hash = user_table_hash(director->users, idx);
	struct ring_message msg = {
		.type = RING_USER_KICK_HASH,
		.hash = hash,
		.ip = wins ? backend->ip : current->ip,
	};
	unsigned int held;

	if (log_throttle(&ring->conflict_throttle, now->msecs, &held)) {
		RING_LOG(ring, LOG_TYPE_ERROR, "User hash %u is being "
			 "redirected to two hosts: %s and %s (old_ts=%lld, "
			 "new_ts=%lld)%s", hash, net_ip2addr(&backend->ip),
			 net_ip2addr(&current->ip), (long long)
			 user_table_timestamp(director->users, idx),
			 (long long)timestamp, log_throttle_more(held));
	}
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
	(void)director_kick_sessions(director, NULL, hash, &msg.ip,
		t_strdup_printf("assigned to %s and %s, the former wins",
				net_ip2addr(&msg.ip), net_ip2addr(wins ?
					&current->ip : &backend->ip)), now);
	return wins;
}

static void
set_backend(struct director *director, user_idx_t idx, struct backend *backend)
{
	if (user_table_slot(director->users, idx) == backend->slot)
		return;
	user_table_set_slot(director->users, idx, backend->slot);
	director_user_placed(director, idx);
	if (director_has_sessions(director, backend->tag,
				  user_table_hash(director->users, idx),
				  &backend->ip)) {
		user_table_set_flags(director->users, idx,
				     USER_FLAG_CHANGED, 0);
	}
}

static enum refresh_result
refresh_known(struct ring *ring, const struct ring_message *msg,
	      user_idx_t idx, struct backend *backend, time_t timestamp,
	      bool weak, const struct director_time *now)
{
	struct user_table *users = ring->director->users;
	enum user_flags flags = user_table_flags(users, idx);
	bool same = user_table_slot(users, idx) == backend->slot;
	time_t old_timestamp = user_table_timestamp(users, idx);
	enum refresh_result result = REFRESH_SAME;

	if ((flags & USER_FLAG_MOVING) != 0) {
		/* the move says where he is */
	} else if ((flags & USER_FLAG_WEAK) != 0) {
		if (!weak && user_table_time_is_near_expiry(users, timestamp,
							    now->wall)) {
			/* It was sent before the agreement was begun. */
			return REFRESH_SAME;
		}
		if (!weak) {
			user_table_set_flags(users, idx, 0, USER_FLAG_WEAK);
			director_user_changed(ring->director);
			result = REFRESH_CHANGED;
		} else if (!same)
			result = REFRESH_CHANGED;
		set_backend(ring->director, idx, backend);
	} else if (weak) {
		if ((flags & USER_FLAG_LEASED) == 0 &&
		    !user_table_is_recent(users, idx, now->wall)) {
			user_table_set_flags(users, idx, USER_FLAG_WEAK, 0);
			set_backend(ring->director, idx, backend);
		}
		if (!same)
			result = REFRESH_CHANGED;
	} else if (!same) {
		/* What we remember from before ends anyway when we have
		   joined, and he may have been moved meanwhile. */
		if ((msg->type == RING_USER && !ring_knows(ring)) ||
		    ((flags & USER_FLAG_LEASED) == 0 &&
		     user_table_is_near_expiry(users, idx, now->wall))) {
			set_backend(ring->director, idx, backend);
			result = REFRESH_CHANGED;
		} else if (msg->type == RING_USER && msg->instance != 0 &&
			   user_moves_is_stale(ring->director->moves,
					       backend->tag, msg->hash,
					       timestamp, now)) {
			return REFRESH_SAME;
		} else {
			if (user_conflict(ring, idx, backend, timestamp, now))
				set_backend(ring->director, idx, backend);
			result = REFRESH_CONFLICT;
		}
	}
	if (timestamp > old_timestamp) {
		user_table_set_timestamp(users, idx, timestamp);
		/* (told as USER it would be an objection) */
		if (result == REFRESH_SAME && !weak &&
		    ring_refresh_is_due(ring, user_table_hash(users, idx),
					old_timestamp, timestamp))
			result = REFRESH_CHANGED;
	}
	return result;
}

/* Those before minor 9 don't tell when. A time that is hardly older than now isn't
   worth a message of each of them to each other. */
static time_t
untold_time(struct director *director, user_idx_t idx,
	    const struct director_time *now)
{
	time_t old = user_table_timestamp(director->users, idx);
	unsigned int secs = I_MIN(director->set.user_expire_secs / 4, 15);

	return old + secs >= now->wall ? old : now->wall;
}

/* The common rule, §8.1. Returns the user or USER_IDX_NONE. */
static user_idx_t
user_refresh(struct ring *ring, const struct ring_message *msg,
	     struct backend *backend, time_t timestamp, bool weak,
	     const struct director_time *now, enum refresh_result *result_r)
{
	struct director *director = ring->director;
	user_idx_t idx;

	*result_r = REFRESH_SAME;
	timestamp = I_MIN(timestamp, now->wall);
	if (timestamp + (time_t)director->set.user_expire_secs <= now->wall)
		return USER_IDX_NONE;
	idx = director_user_find(director, backend->tag, msg->hash, now);
	if (idx != USER_IDX_NONE) {
		if (msg->type == RING_USER && !msg->has_timestamp)
			timestamp = untold_time(director, idx, now);
		*result_r = refresh_known(ring, msg, idx, backend, timestamp,
					  weak, now);
		return idx;
	}
	idx = director_user_add(director, backend->tag, msg->hash,
				backend->slot, timestamp, now);
	if (idx == USER_IDX_NONE)
		return idx;
	if (weak)
		user_table_set_flags(director->users, idx, USER_FLAG_WEAK, 0);
	director_user_placed(director, idx);
	*result_r = REFRESH_CHANGED;
	return idx;
}

/* The timestamp goes round as it is: were each one to turn it into its own
   clock's for the next, what is lost or won by that would add up, and a user
   could live for ever. */
static time_t
message_time(struct ring *ring, const struct ring_message *msg,
	     uint64_t instance, const struct director_time *now)
{
	const struct ring_member *origin = instance == 0 ? NULL :
		ring_member_by_instance(ring->members, instance);

	if (!msg->has_timestamp)
		return now->wall;
	if (origin != NULL && origin->clock_known)
		return msg->timestamp - origin->clock_diff;
	return ring_time_from_wire(now, msg->timestamp);
}

/* -- Told before we have joined -- */

static void early_user_add(struct ring *ring, const struct ring_message *msg,
			   time_t timestamp)
{
	struct ring_early_user *user;

	if (array_count(&ring->early_users) >= RING_EARLY_USERS_MAX)
		return;
	user = array_append_space(&ring->early_users);
	user->hash = msg->hash;
	user->ip = msg->ip;
	user->timestamp = timestamp;
}

void ring_early_users_forget(struct ring *ring, const struct ip_addr *ip)
{
	struct ring_early_user *user;
	unsigned int kept = 0;

	array_foreach_modifiable(&ring->early_users, user) {
		if (!net_ip_compare(&user->ip, ip))
			*array_idx_modifiable(&ring->early_users, kept++) =
				*user;
	}
	array_delete(&ring->early_users, kept,
		     array_count(&ring->early_users) - kept);
}

static void
early_user_restore(struct director *director,
		   const struct ring_early_user *user,
		   const struct director_time *now)
{
	struct backend *backend =
		backend_lookup(director->backends, &user->ip);
	time_t timestamp = I_MIN(user->timestamp, now->wall);
	user_idx_t idx;

	if (backend == NULL || timestamp +
	    (time_t)director->set.user_expire_secs <= now->wall)
		return;
	idx = director_user_find(director, backend->tag, user->hash, now);
	if (idx == USER_IDX_NONE) {
		idx = director_user_add(director, backend->tag, user->hash,
					backend->slot, timestamp, now);
		if (idx != USER_IDX_NONE)
			director_user_placed(director, idx);
	} else if (user_table_slot(director->users, idx) == backend->slot &&
		   user_table_timestamp(director->users, idx) < timestamp)
		user_table_set_timestamp(director->users, idx, timestamp);
}

void ring_early_users_restore(struct ring *ring,
			      const struct director_time *now)
{
	unsigned int i;

	/* of two about the same user the later one counts */
	for (i = array_count(&ring->early_users); i > 0; i--) {
		early_user_restore(ring->director,
				   array_idx(&ring->early_users, i - 1), now);
	}
	array_clear(&ring->early_users);
}

void ring_handle_user(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now)
{
	enum refresh_result result;
	struct backend *backend;
	time_t timestamp = message_time(ring, msg, msg->instance, now);
	user_idx_t idx;

	ring->users_received++;
	if (!ring_knows(ring))
		early_user_add(ring, msg, timestamp);
	backend = backend_lookup(ring->director->backends, &msg->ip);
	if (backend == NULL)
		return;
	idx = user_refresh(ring, msg, backend, timestamp, FALSE, now, &result);
	if (idx == USER_IDX_NONE || result == REFRESH_SAME)
		return;
	/* (those of before the flush only) */
	if (timestamp <= now->wall + 1 - (time_t)((now->msecs -
					backend->flushed_msecs) / 1000))
		backend->taken_since = TRUE;
	if (result == REFRESH_CHANGED && msg->has_timestamp &&
	    user_table_slot(ring->director->users, idx) == backend->slot)
		ring_broadcast_user(ring, peer->member, msg, timestamp, now);
	else
		user_tell(ring, idx, result == REFRESH_CONFLICT ? NULL :
			  peer->member, now);
}

void ring_handle_hand_user(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now)
{
	enum refresh_result result;
	struct backend *backend;
	user_idx_t idx;

	peer->users_received++;
	ring->users_received++;
	backend = backend_lookup(ring->director->backends, &msg->ip);
	if (backend == NULL || peer->ignore_users)
		return;
	if (msg->moving &&
	    user_moves_handed(ring->director->moves, backend, msg->hash,
			      &peer->member->address, now))
		return;
	idx = user_refresh(ring, msg, backend,
			   message_time(ring, msg, peer->minor <
					RING_MINOR_OURS ? 0 :
					peer->instance, now),
			   msg->weak, now, &result);
	if (idx == USER_IDX_NONE)
		return;
	if (result == REFRESH_CONFLICT ||
	    (result == REFRESH_CHANGED && peer->merging)) {
		/* what one half knew the other half has to learn */
		user_tell(ring, idx, result == REFRESH_CONFLICT ? NULL :
			  peer->member, now);
	}
}

/* Goes round the ring: a ring of two is one too (§8.4, rule 5). */
static void
weak_forward(struct ring *ring, struct ring_peer *peer,
	     const struct ring_message *msg, bool own)
{
	struct ring_peer *other;

	if (own || ring->left == NULL || ring->right == NULL ||
	    ring->left->member != ring->right->member) {
		ring_broadcast(ring, peer->member, msg);
		return;
	}
	if (peer == ring->right)
		other = ring->left;
	else if (peer == ring->left)
		other = ring->right;
	else {
		ring_broadcast(ring, peer->member, msg);
		return;
	}
	ring_send(ring, other, msg);
}

void ring_handle_user_weak(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now)
{
	struct director *director = ring->director;
	struct ring_member *origin;
	struct backend *backend;
	enum refresh_result result;
	bool own = FALSE;
	user_idx_t idx;

	ring->users_received++;
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend == NULL)
		return;
	origin = ring_member_lookup(ring->members, &msg->origin);
	if (origin == NULL || origin->removed) {
		ring_originate(ring, msg);
		own = TRUE;
	} else if (origin->self) {
		/* It came round: nobody objected, or he isn't weak any more. */
		director_user_agreed(director, backend->tag, msg->hash, now);
		return;
	} else if (!ring_member_accept_weak(origin, msg->seq)) {
		/* its origin is gone, it would circle for ever */
		return;
	}
	idx = user_refresh(ring, msg, backend, now->wall, TRUE, now, &result);
	if (idx != USER_IDX_NONE &&
	    (user_table_flags(director->users, idx) & USER_FLAG_WEAK) == 0) {
		/* No: he was used here. Whoever hears of it both ways round must
		   not take the other one for consent. */
		user_tell(ring, idx, NULL, now);
		return;
	}
	weak_forward(ring, peer, msg, own);
}
