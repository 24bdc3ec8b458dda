/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who is connected to whom (spec: ring-protocol.md §4, §5.1, §5.2, §7). */

#include "lib.h"
#include "str.h"
#include "ring-private.h"

unsigned int
ring_right_distance(struct ring *ring, const struct ring_member *member)
{
	unsigned int distance =
		ring_members_distance(ring->members, ring->self, member);

	return distance == 0 ? UINT_MAX : distance;
}

static unsigned int
left_distance(struct ring *ring, const struct ring_member *member)
{
	unsigned int distance =
		ring_members_distance(ring->members, member, ring->self);

	return distance == 0 ? UINT_MAX : distance;
}

bool ring_is_skipped(struct ring *ring, const struct ring_member *member)
{
	return ring->right != NULL && ring_right_distance(ring, member) <
		ring_right_distance(ring, ring->right->member);
}

/* Whoever is between us and our right, or anybody else if we are alone, isn't in
   the ring. Its neighbours have noticed it when it went, but maybe they are gone
   themselves, or it was never among theirs since they started. */
static void lose_skipped(struct ring *ring, const struct director_time *now)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		if (list[i]->self || list[i]->lost_msecs != 0 ||
		    (ring->right != NULL && !ring_is_skipped(ring, list[i])))
			continue;
		ring_member_lost(list[i], now);
		/* its next SYNC counts, whoever it is connected to */
		list[i]->lost_connected = TRUE;
	}
}

static bool have_others(struct ring *ring)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		if (!list[i]->self && !list[i]->removed)
			return TRUE;
	}
	return FALSE;
}

static void set_left(struct ring *ring, struct ring_peer *peer)
{
	if (ring->left != NULL)
		ring_peer_end(ring, ring->left, "Replacing with new incoming "
			      "connection");
	ring->left = peer;
	ring->left_changes++;
	ring->neighbours_changed = TRUE;
}

/* Among the incoming connections that are done, the nearest becomes left if
   there is none. */
static void choose_left(struct ring *ring)
{
	struct ring_peer *peer, *best = NULL;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->incoming || peer->state != RING_PEER_DONE ||
		    !ring_peer_is_usable(peer))
			continue;
		if (best == NULL || left_distance(ring, peer->member) <
				    left_distance(ring, best->member))
			best = peer;
	}
	if (best != NULL)
		set_left(ring, best);
}

static void run_alone(struct ring *ring, const struct director_time *now)
{
	if (have_others(ring)) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "director: Couldn't connect to right side, "
			 "we must be the only director left");
	}
	if (ring->left != NULL) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "director: Assuming %s is dead, disconnecting",
			 ring->left->member->name);
		ring_peer_end(ring, ring->left, "This connection is dead?");
		ring->neighbours_changed = FALSE;
	}
	lose_skipped(ring, now);
	ring->min_minor = RING_PROTOCOL_MINOR;
	ring->handshaked = TRUE;
	ring->sync_needed = FALSE;
	ring->sync_sent_msecs = 0;
	ring_set_synced(ring, now);
}

static uint64_t member_retry_msecs(const struct ring_member *member)
{
	return member->connected_msecs == 0 ? member->retry_msecs :
		I_MAX(member->retry_msecs,
		      member->connected_msecs + RING_REDIAL_MSECS);
}

/* Not worth waiting for: the last attempt failed, and this one followed on it
   (one of several dead ones is always being tried again), or who knows of a ring
   hears nothing of one of ours for so long. But if we were hung meanwhile, it may
   have answered. */
static bool
is_dead(const struct ring *ring, const struct ring_peer *peer,
	const struct director_time *now)
{
	const struct ring_member *member = peer->member;

	if (now->msecs - peer->created_msecs >
	    peer->silent_msecs + RING_SILENCE_STEP_MSECS)
		return FALSE;
	if (ring->handshaked && member->instance != 0 &&
	    peer->silent_msecs >= RING_FAST_DEAD_MSECS)
		return TRUE;
	return ring_member_last_failed(member) != 0 &&
		now->msecs >= member->broke_until_msecs &&
		peer->created_msecs < member->retry_msecs +
			RING_CONNECT_TIMEOUT_MSECS + RING_SILENCE_STEP_MSECS;
}

/* Who is far away gets longer than who isn't. */
static unsigned int connect_race_msecs(const struct ring_member *member)
{
	return I_MIN(I_MAX(member->greeting_msecs * 2, RING_CONNECT_RACE_MSECS),
		     RING_CONNECT_TIMEOUT_MSECS);
}

/* Walks the members to our right, nearest first, up to the one that we have,
   and sees to it that somebody is being connected to. Returns FALSE if all are
   out of reach at the moment. *deadline: when to look again. */
static bool
connect_candidates(struct ring *ring, const struct director_time *now,
		   bool start, uint64_t *deadline)
{
	struct ring_member *const *list, *member;
	struct ring_peer *peer;
	unsigned int i, count, self_idx, race_msecs;
	bool trying = FALSE;
	uint64_t retry;

	list = ring_members_sorted(ring->members, &count);
	self_idx = 0;
	while (list[self_idx] != ring->self)
		self_idx++;
	for (i = 1; i < count; i++) {
		member = list[(self_idx + i) % count];
		if (ring->right != NULL && ring->right->member == member)
			return TRUE;
		if (member->removed)
			continue;
		if (now->msecs < member->broke_until_msecs)
			ring_deadline_min(deadline, member->broke_until_msecs);
		peer = ring_peer_find_out(ring, member);
		if (peer == NULL) {
			retry = member_retry_msecs(member);
			if (retry > now->msecs) {
				ring_deadline_min(deadline, retry);
				/* It worked a moment ago: we aren't alone. */
				if (member->retry_msecs <= now->msecs ||
				    now->msecs < member->broke_until_msecs)
					trying = TRUE;
				continue;
			}
			if (!start) {
				ring_deadline_min(deadline, now->msecs);
				return TRUE;
			}
			peer = ring_peer_connect(ring, member,
				ring->right != NULL ?
				"Reconnecting to the preferred right side" :
				"Connecting to the right side", now);
		}
		/* A dead one that is nearer must not hold up the ring, nor one
		   that accepts but says nothing. */
		if (peer->state >= RING_PEER_HANDSHAKING)
			return TRUE;
		if (is_dead(ring, peer, now))
			continue;
		trying = TRUE;
		race_msecs = connect_race_msecs(member);
		if (now->msecs - peer->created_msecs < race_msecs) {
			ring_deadline_min(deadline,
					  peer->created_msecs + race_msecs);
			return TRUE;
		}
	}
	return trying;
}

/* Somebody whom we connected to has said who he is, a moment ago: he lives. */
static bool
is_being_greeted(struct ring *ring, const struct director_time *now,
		 uint64_t *deadline)
{
	const struct ring_peer *peer;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->incoming && !peer->dead &&
		    peer->state == RING_PEER_HANDSHAKING &&
		    now->msecs - peer->created_msecs < RING_GREETED_MSECS) {
			ring_deadline_min(deadline, peer->created_msecs +
					  RING_GREETED_MSECS);
			return TRUE;
		}
	}
	return FALSE;
}

void ring_connect_run(struct ring *ring, const struct director_time *now)
{
	uint64_t deadline = UINT64_MAX;
	bool wait;

	if (ring->left == NULL)
		choose_left(ring);
	wait = ring->set.self.port != 0 &&
		connect_candidates(ring, now, TRUE, &deadline);
	if (ring_is_outside(ring, now))
		wait = !ring_outside_is_sure(ring, now) ||
			is_being_greeted(ring, now, &deadline);
	if (wait) {
		ring->half_msecs = 0;
		return;
	}
	if (ring->right != NULL || ring->left == NULL)
		ring->half_msecs = 0;
	else if (ring->half_msecs == 0)
		ring->half_msecs = now->msecs;
	if (ring->right != NULL || (ring->synced && ring->left == NULL))
		return;
	if (ring->half_msecs != 0 &&
	    now->msecs - ring->half_msecs < RING_HALF_MSECS)
		return;
	/* At first others may be starting as well. */
	if (!ring->handshaked && have_others(ring) &&
	    now->msecs - ring->started_msecs < RING_ALONE_WAIT_MSECS)
		return;
	run_alone(ring, now);
}

/* What isn't done when its time has come waits for something else. */
static void
deadline_once(uint64_t since_msecs, unsigned int msecs,
	      const struct director_time *now, uint64_t *deadline)
{
	if (since_msecs != 0 && now->msecs < since_msecs + msecs)
		ring_deadline_min(deadline, since_msecs + msecs);
}

void ring_connect_deadline(struct ring *ring, const struct director_time *now,
			   uint64_t *deadline)
{
	if (ring->set.self.port != 0)
		(void)connect_candidates(ring, now, FALSE, deadline);
	deadline_once(ring->handshaked ? 0 : ring->started_msecs,
		      RING_ALONE_WAIT_MSECS, now, deadline);
	deadline_once(ring->half_msecs, RING_HALF_MSECS, now, deadline);
	ring_outside_deadline(ring, now, deadline);
	if (ring_is_outside(ring, now))
		(void)is_being_greeted(ring, now, deadline);
}

static void
send_connect(struct ring *ring, struct ring_peer *peer,
	     const struct ring_member *to, const struct director_time *now)
{
	struct ring_message msg = {
		.type = RING_CONNECT,
		.director = to->address,
	};

	RING_LOG(ring, LOG_TYPE_INFO, "%s: Telling it to connect to %s",
		 ring_peer_name(ring->director, peer), to->name);
	ring_send(ring, peer, &msg);
	peer->told_connect = TRUE;
	peer->deadline_msecs = now->msecs + RING_CONNECT_TOLD_TIMEOUT_MSECS;
}

/* -- Somebody introduces himself -- */

static struct ring_member *
member_of_me(struct ring *ring, struct ring_peer *peer,
	     const struct ring_message *msg, const struct director_time *now)
{
	struct ring_member *member;

	if (!peer->incoming) {
		if (ring_address_cmp(&peer->member->address,
				     &msg->director) == 0)
			return peer->member;
		ring_peer_fail(ring, peer, FALSE, now, t_strdup_printf(
			"Remote director thinks it's someone else "
			"(connected to %s, remote says it's %s)",
			peer->member->name,
			ring_address_str(&msg->director)));
		return NULL;
	}
	if (!net_ip_compare(&peer->source_ip, &msg->director.ip)) {
		ring_peer_fail(ring, peer, FALSE, now, t_strdup_printf(
			"Remote director says it's %s, but connects from %s",
			ring_address_str(&msg->director),
			net_ip2addr(&peer->source_ip)));
		return NULL;
	}
	member = ring_member_lookup(ring->members, &msg->director);
	if (member == NULL) {
		if (!ring_members_make_room(ring, &msg->director, now)) {
			ring_peer_fail(ring, peer, FALSE, now,
				       "Too many directors");
			return NULL;
		}
		member = ring_member_add(ring->members, &msg->director);
	} else if (member->self) {
		ring_peer_fail(ring, peer, FALSE, now,
			       "Connection from self, dropping");
		return NULL;
	} else if (member->removed &&
		   !ring_member_returns(ring, member, msg->changed)) {
		ring_log_unlisted(ring, &peer->source_ip, now);
		ring_peer_end(ring, peer, "Was removed from the ring");
		return NULL;
	}
	return member;
}

static void left_arrives(struct ring *ring, struct ring_peer *peer,
			 const struct director_time *now)
{
	struct ring_peer *left = ring->left, *other;

	for (other = ring->peers; other != NULL; other = other->next) {
		/* one is enough, whatever became of the other */
		if (other != peer && other != left && other->incoming &&
		    other->member == peer->member) {
			ring_peer_end(ring, other, "Replacing with new "
				      "incoming connection");
		}
	}
	if (left == NULL) {
		ring_member_works(peer->member);
	} else if (left->member == peer->member) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "Replacing left director connection %s with %s",
			 left->member->name, peer->member->name);
		ring_peer_end(ring, left,
			      "Replacing with new incoming connection");
	} else if (left->told_connect) {
		; /* until it goes */
	} else if (left_distance(ring, peer->member) <
		   left_distance(ring, left->member)) {
		send_connect(ring, left, peer->member, now);
	} else {
		/* The newcomer shouldn't be connected to us, unless our left is
		   dead. */
		left->verifying = TRUE;
		ring_ping(ring, left, now);
	}
}

void ring_handle_me(struct ring *ring, struct ring_peer *peer,
		    struct ring_message *msg, const struct director_time *now)
{
	struct ring_member *member = member_of_me(ring, peer, msg, now);
	bool restarted;

	if (member == NULL)
		return;
	if (peer->incoming && member->last_protocol_failure != 0 &&
	    member->retry_msecs > now->msecs) {
		peer->member = member;
		RING_LOG(ring, LOG_TYPE_ERROR,
			 "%s: Refusing it, since it broke the protocol %u secs "
			 "ago", ring_peer_name(ring->director, peer),
			 (unsigned int)(now->clock -
					member->last_protocol_failure));
		ring_peer_end(ring, peer, "Protocol failure before");
		return;
	}
	peer->member = member;
	if (peer->incoming && ring_is_outside(ring, now)) {
		ring_peer_end(ring, peer,
			      RING_QUIT_UNREACHED"my right side");
		return;
	}
	peer->me_received = TRUE;
	peer->state = RING_PEER_HANDSHAKING;
	peer->greeting_msecs += now->msecs - peer->created_msecs;
	if (!peer->incoming)
		member->greeting_msecs = peer->greeting_msecs;
	if (msg->has_timestamp) {
		long long diff = msg->timestamp - now->clock;

		if (diff > 1 || diff < -1) {
			RING_LOG(ring, LOG_TYPE_WARNING,
				 "Director %s clock differs from ours by %lld "
				 "secs", member->name, diff);
		}
	}
	peer->instance = msg->instance;
	/* An earlier one than we know of (its clock was set back, or it said this
	   before it took a later one) will be told so below. */
	restarted = (msg->instance == 0 ||
		     ring_member_is_later(member, msg->instance)) &&
		ring_member_restarted(member, msg->instance);
	ring_member_heard(member, msg->instance, now);
	if (msg->even_clock != 0 && msg->instance == member->instance) {
		ring_member_set_clock(member, msg->even_clock, now->wall,
				      now->msecs);
	}
	if (peer->minor >= RING_MINOR_OURS) {
		/* What we learned since the greeting wasn't told to it. */
		ring_send_members(ring, peer, now);
	}
	if (peer->incoming) {
		RING_LOG(ring, LOG_TYPE_INFO,
			 "Incoming connection from director %s", member->name);
		/* Whoever it will have to connect to has to know it. */
		ring_tell_member(ring, member, member, now);
		left_arrives(ring, peer, now);
	} else {
		/* Its commands must not come to anybody before that. (Of 2.3
		   nobody knows.) */
		if (restarted && msg->instance != 0)
			ring_tell_member(ring, member, member, now);
		ring_outside_ends(ring, member);
		ring_handshake_start(ring, peer, now);
	}
	ring_wake(ring);
}

void ring_left_verified(struct ring *ring, struct ring_peer *left,
			const struct director_time *now)
{
	struct ring_peer *peer;

	if (ring->left != left)
		return;
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (peer == left || !peer->incoming ||
		    !ring_peer_is_usable(peer) ||
		    left_distance(ring, peer->member) <
		    left_distance(ring, left->member))
			continue;
		RING_LOG(ring, LOG_TYPE_WARNING, "Director %s tried to connect "
			 "to us, should use %s instead", peer->member->name,
			 left->member->name);
		send_connect(ring, peer, left->member, now);
	}
}

/* -- The handshake is done -- */

static void
done_incoming(struct ring *ring, struct ring_peer *peer,
	      const struct director_time *now)
{
	struct ring_message reply = {
		.type = RING_DONE,
		.flag = !ring_knows(ring),
	};
	struct ring_peer *left = ring->left;

	ring_send(ring, peer, &reply);
	peer->done_sent = TRUE;
	ring_tell_member(ring, peer->member, peer->member, now);
	if (left == NULL)
		choose_left(ring);
	else if (left->member == peer->member)
		set_left(ring, peer);
	else if (left->verifying || left->told_connect)
		; /* until its answer comes, or until it goes */
	else if (left_distance(ring, left->member) <
		 left_distance(ring, peer->member))
		send_connect(ring, peer, left->member, now);
	else
		send_connect(ring, left, peer->member, now);
}

static void
done_outgoing(struct ring *ring, struct ring_peer *peer,
	      const struct director_time *now)
{
	struct ring_peer *right = ring->right;

	if (right != NULL && ring_right_distance(ring, right->member) <=
			     ring_right_distance(ring, peer->member)) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "Aborting incorrect outgoing connection to %s "
			 "(already connected to correct one: %s)",
			 peer->member->name, right->member->name);
		ring_peer_end(ring, peer, "Unwanted outgoing connection");
		return;
	}
	if (right != NULL) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "Replacing right director connection %s with %s",
			 right->member->name, peer->member->name);
		ring_peer_end(ring, right, t_strdup_printf(
			"Replacing with %s", peer->member->name));
	}
	ring->right = peer;
	ring->neighbours_changed = TRUE;
	lose_skipped(ring, now);
	ring_sync_again(ring, now);
}

/* We were connected to our right before we joined the ring, and so was it: it
   has to get what we got. */
static void hand_over_again(struct ring *ring, const struct director_time *now)
{
	struct ring_peer *right = ring->right;

	if (right == NULL || !right->isnt_ready || right->handed_ring ||
	    !ring_knows(ring))
		return;
	ring_peer_end(ring, right, "Connecting again to hand over the ring");
	(void)ring_peer_connect(ring, right->member,
				"Handing over the ring to it", now);
}

void ring_handle_done(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg,
		      const struct director_time *now)
{
	unsigned int msecs = now->msecs - peer->created_msecs;

	if (peer->incoming && !peer->options_received) {
		/* allowed: only very old ones don't send it */
		RING_LOG(ring, LOG_TYPE_DEBUG, "%s: No OPTIONS",
			 ring_peer_name(ring->director, peer));
	}
	if (!peer->incoming && !peer->done_sent) {
		ring_peer_fail(ring, peer, TRUE, now,
			       "Command DONE: We aren't done yet");
		return;
	}
	RING_LOG(ring, msecs >= 29000 ? LOG_TYPE_WARNING : LOG_TYPE_INFO,
		 "%s: Handshake finished in %u.%03u secs (%u USERs received, "
		 "%u USERs sent)", ring_peer_name(ring->director, peer),
		 msecs / 1000, msecs % 1000, peer->users_received,
		 peer->users_sent);
	peer->done_received = TRUE;
	peer->state = RING_PEER_DONE;
	peer->isnt_ready = msg->flag;
	if (peer->joining) {
		ring->joined = TRUE;
		ring_early_users_restore(ring, now);
		director_users_replaced(ring->director);
	}
	ring_member_works(peer->member);
	/* (Its SYNC shows that it is in the ring.) */
	peer->member->lost_connected = TRUE;
	/* It has told us whom it lost. */
	ring_forget_assumed(ring);
	if (peer->incoming)
		done_incoming(ring, peer, now);
	else
		done_outgoing(ring, peer, now);
	ring_users_tell_recent(ring, peer, now);
	if (peer->joining || !peer->incoming)
		hand_over_again(ring, now);
	ring_wake(ring);
}

void ring_handle_connect(struct ring *ring, struct ring_peer *peer,
			 struct ring_message *msg,
			 const struct director_time *now)
{
	struct ring_member *member;

	member = ring_member_lookup(ring->members, &msg->director);
	if (member == NULL) {
		if (!ring_members_make_room(ring, &msg->director, now)) {
			ring_peer_end(ring, peer, "Too many directors");
			return;
		}
		member = ring_member_new(ring, &msg->director,
					 peer->member->name);
	}
	if (member->self || member->removed || (ring->right != NULL &&
	    ring_right_distance(ring, member) >=
	    ring_right_distance(ring, ring->right->member))) {
		RING_LOG(ring, LOG_TYPE_INFO,
			 "%s: CONNECT to %s requested, but %s",
			 ring_peer_name(ring->director, peer), member->name,
			 member->self ? "that's us" : member->removed ?
			 "it was removed" : "our right side is nearer");
		peer->wrong_connect = TRUE;
		peer->deadline_msecs = now->msecs +
			RING_WRONG_CONNECT_TIMEOUT_MSECS;
		ring_wake(ring);
		return;
	}
	if (ring_is_out_of_reach(ring, member, now)) {
		/* We have just tried it. Were we to do so again at once, we'd
		   be sent to and fro without end. */
		RING_LOG(ring, LOG_TYPE_WARNING, "%s: CONNECT to %s requested, "
			 "which we can't reach",
			 ring_peer_name(ring->director, peer), member->name);
		peer->member->retry_msecs = now->msecs +
			RING_RETRY_NETWORK_MSECS;
		if (peer == ring->left || peer == ring->right)
			ring_member_lost(peer->member, now);
		ring_peer_end(ring, peer, RING_QUIT_UNREACHED"it");
		ring_go_outside(ring, member, now);
		return;
	}
	ring_stop_hanging(ring, member, now);
	/* to be asked again soon if it is in vain */
	peer->member->connected_msecs = 0;
	member->connect_told_msecs = now->msecs;
	ring_member_works(member);
	if (ring->right != NULL)
		ring_peer_end(ring, ring->right, "CONNECT requested");
	ring_peer_end(ring, peer, "CONNECT requested");
	(void)ring_peer_connect(ring, member, t_strdup_printf(
		"CONNECT requested by %s", peer->member->name), now);
}
