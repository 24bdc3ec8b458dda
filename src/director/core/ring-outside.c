/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* A director that can't reach its right side, which others can (doc/
   ring-protocol.md "Outside"). Were it to stay somebody's right, no ring would
   be whole, neither theirs nor its own. So nobody may be its left, and they
   close the ring without it. */

#include "lib.h"
#include "ring-private.h"

static bool is_hanging(const struct ring_peer *peer,
		       const struct director_time *now)
{
	return peer->state == RING_PEER_CONNECTING && now->msecs -
		peer->created_msecs >= RING_CONNECT_RACE_MSECS;
}

/* It doesn't answer, or didn't a moment ago. */
static bool is_unreached(struct ring *ring, const struct ring_member *member,
			 const struct director_time *now)
{
	const struct ring_peer *peer = ring_peer_find_out(ring, member);

	if (peer != NULL)
		return is_hanging(peer, now);
	return member->unreached_msecs != 0 && now->msecs -
		member->unreached_msecs < RING_REDIAL_MSECS;
}

bool ring_is_out_of_reach(struct ring *ring, const struct ring_member *member,
			  const struct director_time *now)
{
	const struct ring_peer *peer = ring_peer_find_out(ring, member);

	if (member->connect_told_msecs != 0 && now->msecs -
	    member->connect_told_msecs < RING_REDIAL_MSECS)
		return TRUE;
	/* The link may have healed since it hangs, or since it failed. */
	return peer != NULL && is_hanging(peer, now) &&
		now->msecs - peer->created_msecs <
		2 * RING_CONNECT_RACE_MSECS && member->unreached_msecs == 0;
}

void ring_stop_hanging(struct ring *ring, struct ring_member *member,
		       const struct director_time *now)
{
	struct ring_peer *peer = ring_peer_find_out(ring, member);

	if (peer != NULL && is_hanging(peer, now)) {
		member->unreached_msecs = now->msecs;
		ring_peer_end(ring, peer, NULL);
	}
}

void ring_connect_anew(struct ring *ring, struct ring_member *member)
{
	struct ring_peer *peer = ring_peer_find_out(ring, member);

	if (peer != NULL && peer->state == RING_PEER_CONNECTING)
		ring_peer_end(ring, peer, NULL);
	member->unreached_msecs = member->connected_msecs = 0;
}

bool ring_is_outside(const struct ring *ring, const struct director_time *now)
{
	/* a right that is new may yet send us on */
	return now->msecs < ring->outside_msecs && (ring->right == NULL ||
		now->msecs - ring->right->created_msecs <
		RING_CONNECT_RACE_MSECS);
}

void ring_go_outside(struct ring *ring, const struct ring_member *unreached,
		     const struct director_time *now)
{
	struct ring_peer *peer;

	if (ring->right != NULL || !is_unreached(ring, unreached, now))
		return;
	if (!ring_is_outside(ring, now)) {
		RING_LOG(ring, LOG_TYPE_WARNING, "director: %s can't be "
			 "reached from here, but from others: leaving the ring "
			 "until it can", unreached->name);
		ring->outside_since_msecs = now->msecs;
		ring->outside_sure = FALSE;
	}
	ring->outside_msecs = now->msecs + RING_OUTSIDE_MSECS;
	ring->unreached = unreached->address;
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (peer->incoming && peer->me_received) {
			if (peer == ring->left)
				ring_member_lost(peer->member, now);
			ring_peer_end(ring, peer, t_strconcat(
				RING_QUIT_UNREACHED, unreached->name, NULL));
		}
	}
}

void ring_outside_ends(struct ring *ring, const struct ring_member *member)
{
	if (ring_address_cmp(&member->address, &ring->unreached) == 0)
		ring->outside_msecs = 0;
}

/* To leave the ring harms nobody if the network was only slow. To go on alone
   does. */
bool ring_outside_is_sure(struct ring *ring, const struct director_time *now)
{
	const struct ring_member *unreached;

	unreached = ring_member_lookup(ring->members, &ring->unreached);
	if (unreached != NULL && unreached->unreached_msecs != 0 &&
	    now->msecs - ring->outside_since_msecs >= RING_REDIAL_MSECS)
		ring->outside_sure = TRUE;
	return ring->outside_sure;
}

void ring_outside_deadline(const struct ring *ring,
			   const struct director_time *now, uint64_t *deadline)
{
	uint64_t sure_msecs = ring->outside_since_msecs + RING_REDIAL_MSECS;

	/* after it when a connect() fails, which has a time of its own */
	if (ring_is_outside(ring, now) && now->msecs < sure_msecs)
		ring_deadline_min(deadline, sure_msecs);
}
