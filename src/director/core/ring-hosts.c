/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Changes of the backends on their way round the ring (spec:
   ring-protocol.md §6.2). */

#include "lib.h"
#include "str.h"
#include "ring-private.h"

void ring_host_message(struct ring *ring ATTR_UNUSED,
		       const struct backend *backend,
		       const struct director_time *now,
		       struct ring_message *msg_r)
{
	i_zero(msg_r);
	msg_r->type = RING_HOST;
	msg_r->ip = backend->ip;
	msg_r->vhosts = backend->vhosts;
	msg_r->tag = backend->tag;
	msg_r->hostname = backend->hostname == NULL ? "" : backend->hostname;
	msg_r->down = backend->down;
	msg_r->has_state = TRUE;
	msg_r->timestamp = ring_time_to_wire(now, backend->last_updown_change);
}

/* It is on its way until everybody has seen it. */
static void
host_travels(struct ring *ring, struct backend *backend,
	     const struct director_time *now)
{
	if (ring->left != NULL || ring->right != NULL)
		backend->desynced = TRUE;
	ring_changed(ring, now);
}

void ring_host_changed(struct ring *ring, struct backend *backend,
		       const struct director_time *now)
{
	struct ring_message msg;

	ring_host_message(ring, backend, now, &msg);
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
	host_travels(ring, backend, now);
}

void ring_host_gone(struct ring *ring, const struct ip_addr *ip,
		    enum ring_message_type type,
		    const struct director_time *now)
{
	struct ring_message msg = {
		.type = type,
		.ip = *ip,
	};

	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
	ring_changed(ring, now);
}

void ring_resend_hosts(struct ring *ring, const struct director_time *now)
{
	struct backend *const *backends;
	struct ring_message msg;
	unsigned int i, count;

	backends = backends_sorted(ring->director->backends, &count);
	for (i = 0; i < count; i++) {
		ring_host_message(ring, backends[i], now, &msg);
		ring_originate(ring, &msg);
		ring_broadcast(ring, NULL, &msg);
	}
}

/* Two changes of one backend met (or two rings that were apart). The newer
   up/down state wins, the lower number of vhosts. */
static bool
host_conflict(struct ring *ring, const struct backend *backend,
	      struct ring_message *msg)
{
	bool conflict = FALSE;

	if (backend->last_updown_change > msg->timestamp ||
	    (backend->last_updown_change == msg->timestamp && backend->down)) {
		if (msg->down != backend->down)
			conflict = TRUE;
		msg->down = backend->down;
		msg->timestamp = backend->last_updown_change;
	}
	if (backend->vhosts < msg->vhosts) {
		conflict = TRUE;
		msg->vhosts = backend->vhosts;
	}
	if (conflict) {
		RING_LOG(ring, LOG_TYPE_WARNING, "Host %s is being updated "
			 "before previous update had finished - setting to "
			 "state=%s vhosts=%u", net_ip2addr(&backend->ip),
			 msg->down ? "down" : "up", msg->vhosts);
	}
	return conflict;
}

static bool
host_differs(const struct backend *backend, const struct ring_message *msg)
{
	return backend->vhosts != msg->vhosts ||
		(msg->has_state && backend->down != msg->down) ||
		strcmp(backend->tag, msg->tag) != 0;
}

void ring_handle_host(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now)
{
	struct director *director = ring->director;
	const struct ring_member *except = peer->member;
	bool handshake = msg->type == RING_HAND_HOST;
	struct ring_message forward;
	struct backend *backend;

	if (!handshake && !ring_accept(ring, msg))
		return;
	msg->timestamp = ring_time_from_wire(peer, now, msg->timestamp);
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend != NULL) {
		if (!host_differs(backend, msg)) {
			if (msg->timestamp > backend->last_updown_change)
				backend->last_updown_change = msg->timestamp;
			return;
		}
		if (!msg->has_state)
			msg->down = backend->down;
		if ((backend->desynced || (handshake && peer->merging)) &&
		    host_conflict(ring, backend, msg)) {
			/* what comes out is our word, for the sender too */
			except = NULL;
		}
	}
	backend = director_host_take(director, msg,
				     ring_peer_name(director, peer), now);
	if (backend == NULL)
		return;
	/* A joining director tells nobody: all others know them. */
	if (handshake && !peer->merging) {
		backend->desynced = FALSE;
		return;
	}
	ring_host_message(ring, backend, now, &forward);
	forward.origin = msg->origin;
	forward.seq = msg->seq;
	if (handshake || except == NULL)
		ring_originate(ring, &forward);
	ring_broadcast(ring, except, &forward);
	host_travels(ring, backend, now);
}

void ring_handle_host_remove(struct ring *ring, struct ring_peer *peer,
			     struct ring_message *msg,
			     const struct director_time *now)
{
	struct director *director = ring->director;
	struct backend *backend;

	if (!ring_accept(ring, msg))
		return;
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend == NULL)
		return;
	ring_broadcast(ring, peer->member, msg);
	director_host_drop(director, backend, ring_peer_name(director, peer));
	ring_changed(ring, now);
}

void ring_handle_host_flush(struct ring *ring, struct ring_peer *peer,
			    struct ring_message *msg,
			    const struct director_time *now)
{
	struct director *director = ring->director;
	struct backend *backend;

	if (!ring_accept(ring, msg))
		return;
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend == NULL)
		return;
	ring_broadcast(ring, peer->member, msg);
	director_host_forget_users(director, backend,
				   ring_peer_name(director, peer));
	ring_changed(ring, now);
}
