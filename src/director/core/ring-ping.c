/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Is the peer alive? (spec: ring-protocol.md §10, doc/ring-protocol.md "PING
   and silence") */

#include "lib.h"
#include "str.h"
#include "ring-private.h"

#define RING_PING_SLOW_SECS 5

static bool ping_is_fast(const struct ring_peer *peer)
{
	return peer->minor >= RING_MINOR_OURS;
}

static size_t peer_queued(struct ring *ring, struct ring_peer *peer)
{
	return ring->director->v.ring.queued(ring->director->context, peer);
}

static void ping_message(struct ring *ring, struct ring_peer *peer,
			 enum ring_message_type type,
			 const struct director_time *now)
{
	struct ring_message msg = {
		.type = type,
		/* those of 2.3 compare it with their machine's */
		.timestamp = ping_is_fast(peer) ? now->wall : now->clock,
		.has_timestamp = TRUE,
		.buffered = peer_queued(ring, peer),
	};

	ring_send(ring, peer, &msg);
}

void ring_ping(struct ring *ring, struct ring_peer *peer,
	       const struct director_time *now)
{
	if (peer->ping_sent_msecs != 0 || peer->dead)
		return;
	peer->ping_sent_msecs = now->msecs;
	ping_message(ring, peer, RING_PING, now);
}

void ring_handle_ping(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now)
{
	if (msg->has_timestamp) {
		if (!ping_is_fast(peer) && now->clock - msg->timestamp >=
					   RING_PING_SLOW_SECS) {
			RING_LOG(ring, LOG_TYPE_WARNING,
				 "%s: PING took %u secs to arrive "
				 "(or its clock is wrong)",
				 ring_peer_name(ring->director, peer),
				 (unsigned int)(now->clock - msg->timestamp));
		}
		/* (each process has another clock) */
		if (ping_is_fast(peer) &&
		    peer->instance == peer->member->instance) {
			ring_member_set_clock(peer->member, msg->timestamp,
					      now->wall, now->msecs);
		}
	}
	ping_message(ring, peer, RING_PONG, now);
}

void ring_handle_pong(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg ATTR_UNUSED,
		      const struct director_time *now)
{
	if (peer->ping_sent_msecs == 0)
		return;
	peer->ping_msecs = now->msecs - peer->ping_sent_msecs;
	peer->ping_sent_msecs = 0;
	if (peer->ping_msecs > RING_PING_SLOW_SECS * 1000) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "%s: PONG response took %u.%03u secs",
			 ring_peer_name(ring->director, peer),
			 peer->ping_msecs / 1000, peer->ping_msecs % 1000);
	}
	if (peer->verifying) {
		peer->verifying = FALSE;
		ring_left_verified(ring, peer, now);
	}
}

/* Silence until we send a PING */
static unsigned int
ping_interval(const struct ring *ring, const struct ring_peer *peer)
{
	if (ping_is_fast(peer))
		return RING_FAST_PING_MSECS;
	return ring->synced || peer->state != RING_PEER_DONE ?
		RING_PING_INTERVAL_MSECS : RING_PING_UNSYNCED_INTERVAL_MSECS;
}

static unsigned int
ping_dead_after(const struct ring *ring, const struct ring_peer *peer)
{
	unsigned int msecs = RING_FAST_DEAD_MSECS;

	if (!ping_is_fast(peer))
		return ring->set.ping_idle_msecs;
	if (peer->ping_msecs != UINT_MAX)
		msecs += peer->ping_msecs;
	else if (peer->users_sent > 0) {
		/* they are before it in the queue */
		msecs += RING_FIRST_PING_MSECS;
	} else {
		msecs += I_MIN(peer->greeting_msecs * 2 +
			       RING_FIRST_PING_MIN_MSECS,
			       RING_FIRST_PING_MSECS);
	}
	return I_MIN(msecs, ring->set.ping_idle_msecs);
}

static void
ping_dead(struct ring *ring, struct ring_peer *peer, const char *reason,
	  const struct director_time *now)
{
	RING_LOG(ring, LOG_TYPE_ERROR, "Director %s disconnected: %s",
		 peer->member->name, reason);
	ring_member_network_failed(peer->member, now->msecs, now->clock);
	if (peer == ring->left || peer == ring->right)
		ring_member_lost(peer->member, now);
	ring_peer_end(ring, peer, reason);
}

void ring_count_silence(struct ring_peer *peer,
			const struct director_time *now)
{
	uint64_t step = now->msecs - peer->silence_counted_msecs;

	peer->silent_msecs += I_MIN(step, RING_SILENCE_STEP_MSECS);
	peer->silence_counted_msecs = now->msecs;
}

void ring_ping_run(struct ring *ring, struct ring_peer *peer,
		   const struct director_time *now)
{
	if (!peer->me_received)
		return;
	if (peer->ping_sent_msecs == 0) {
		if (now->msecs - peer->input_msecs >=
		    ping_interval(ring, peer))
			ring_ping(ring, peer, now);
		return;
	}
	if (peer->silent_msecs >= ping_dead_after(ring, peer))
		ping_dead(ring, peer, "Ping timeout", now);
	else if (now->msecs - peer->ping_sent_msecs >= ring->set.ping_max_msecs)
		ping_dead(ring, peer, "Pong timeout", now);
}

void ring_ping_deadline(struct ring *ring, const struct ring_peer *peer,
			const struct director_time *now, uint64_t *deadline)
{
	if (peer->ping_sent_msecs == 0) {
		ring_deadline_min(deadline, peer->input_msecs +
				  ping_interval(ring, peer));
		return;
	}
	/* silence is counted in steps */
	ring_deadline_min(deadline, now->msecs + RING_SILENCE_STEP_MSECS);
	ring_deadline_min(deadline, peer->ping_sent_msecs +
			  ring->set.ping_max_msecs);
}
