/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Connections: how they begin and end, and what is sent over them. */

#include "lib.h"
#include "llist.h"
#include "str.h"
#include "ring-private.h"

const char *ring_peer_name(struct director *director,
			   const struct ring_peer *peer)
{
	const struct ring *ring = director->ring;
	const char *name, *type;

	name = peer->member == NULL || peer->member->name == NULL ?
		net_ip2addr(&peer->source_ip) : peer->member->name;
	if (peer == ring->left)
		type = "left";
	else if (peer == ring->right)
		type = "right";
	else
		type = peer->incoming ? "in" : "out";
	return t_strdup_printf("director(%s/%s)", name, type);
}

static string_t *peer_out(struct ring_peer *peer)
{
	struct ring_peer_out *po = container_of(peer, struct ring_peer_out,
						peer);

	return po->out;
}

static void peer_free(struct ring *ring, struct ring_peer *peer)
{
	struct ring_peer_out *po = container_of(peer, struct ring_peer_out,
						peer);

	DLLIST_REMOVE(&ring->peers, peer);
	str_free(&po->out);
	i_free(po);
}

void ring_peer_flush(struct ring *ring, struct ring_peer *peer)
{
	string_t *out = peer_out(peer);
	struct director *director = ring->director;

	if (str_len(out) == 0 || peer->state == RING_PEER_CONNECTING)
		return;
	director->v.ring.send(director->context, peer, str_data(out),
			      str_len(out));
	str_truncate(out, 0);
}

void ring_peer_close(struct ring *ring, struct ring_peer *peer)
{
	struct director *director = ring->director;

	ring_peer_flush(ring, peer);
	director->v.ring.close(director->context, peer);
	peer_free(ring, peer);
}

/* -- Sending -- */

bool ring_peer_is_usable(const struct ring_peer *peer)
{
	return peer->me_received && !peer->dead && !peer->told_connect;
}

static void peer_append(struct ring *ring, struct ring_peer *peer,
			const struct ring_message *msg)
{
	string_t *out = peer_out(peer);
	/* the greeting is read by all: they ignore what they don't know */
	unsigned int minor = peer->version_received ? peer->minor :
		RING_PROTOCOL_MINOR;

	if (!ring_message_append(out, msg, minor)) {
		RING_LOG(ring, LOG_TYPE_ERROR, "%s: %s line can't be sent: it "
			 "is too long, or a tag or name in it is not valid",
			 ring_peer_name(ring->director, peer),
			 ring_message_name(msg->type));
	}
	if (str_len(out) >= RING_OUT_FLUSH_SIZE)
		ring_peer_flush(ring, peer);
}

void ring_send(struct ring *ring, struct ring_peer *peer,
	       const struct ring_message *msg)
{
	/* the greeting is sent before we know the peer's version */
	if (peer->dead || (peer->version_received &&
			   ring_message_min_minor(msg->type) > peer->minor))
		return;
	peer_append(ring, peer, msg);
	ring_wake(ring);
}

void ring_broadcast(struct ring *ring, const struct ring_member *except,
		    const struct ring_message *msg)
{
	struct ring_peer *peer;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (ring_peer_is_usable(peer) && peer->member != except)
			ring_send(ring, peer, msg);
	}
}

void ring_broadcast_user(struct ring *ring, const struct ring_member *except,
			 const struct ring_message *msg, time_t core_timestamp,
			 const struct director_time *now)
{
	unsigned int i = ring->recent_users_count++ % RING_RECENT_USERS;
	struct ring_message old = *msg;
	struct ring_peer *peer;

	ring->recent_users[i].msecs = now->msecs;
	ring->recent_users[i].ip = msg->ip;
	ring->recent_users[i].hash = msg->hash;
	if (msg->instance != 0)
		old.timestamp = ring_time_to_wire(now, core_timestamp);
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (ring_peer_is_usable(peer) && peer->member != except)
			ring_send(ring, peer, peer->minor >= RING_MINOR_OURS ?
				  msg : &old);
	}
}

void ring_originate(struct ring *ring, struct ring_message *msg)
{
	msg->origin = ring->self->address;
	msg->seq = ++ring->last_seq;
}

bool ring_accept(struct ring *ring, struct ring_message *msg)
{
	struct ring_member *origin;

	origin = ring_member_lookup(ring->members, &msg->origin);
	if (origin == NULL || origin->removed) {
		ring_originate(ring, msg);
		return TRUE;
	}
	if (origin->self) {
		if (msg->seq > ring->last_seq && msg->seq <= RING_LAST_SEQ) {
			/* Our clock was set back before we started: the others
			   take what we say to be old. */
			ring->last_seq = msg->seq;
		}
		return FALSE;
	}
	return ring_member_accept_seq(origin, msg->seq);
}

/* -- Ending -- */

void ring_peer_end(struct ring *ring, struct ring_peer *peer,
		   const char *quit_reason)
{
	struct ring_message msg = {
		.type = RING_QUIT,
		.text = quit_reason,
	};

	if (peer->dead)
		return;
	if (quit_reason != NULL && peer->version_received)
		ring_send(ring, peer, &msg);
	peer->dead = TRUE;
	if (ring->left == peer) {
		ring->left = NULL;
		ring->left_changes++;
		ring->neighbours_changed = TRUE;
	} else if (ring->right == peer) {
		ring->right = NULL;
		ring->neighbours_changed = TRUE;
	}
	ring_wake(ring);
}

void ring_peer_fail(struct ring *ring, struct ring_peer *peer, bool protocol,
		    const struct director_time *now, const char *error)
{
	unsigned int held;

	if (peer->dead)
		return;
	if (log_throttle(&ring->failed_throttle, now->msecs, &held)) {
		RING_LOG(ring, LOG_TYPE_ERROR, "%s: %s%s",
			 ring_peer_name(ring->director, peer), error,
			 log_throttle_more(held));
	}
	if (peer->member != NULL)
		ring_member_refused(peer->member, protocol, now->msecs,
				    now->clock);
	ring_peer_end(ring, peer, error);
}

/* -- Connections -- */

static struct ring_peer *
peer_add(struct ring *ring, const struct director_time *now)
{
	struct ring_peer_out *po = i_new(struct ring_peer_out, 1);
	struct ring_peer *peer = &po->peer;

	po->out = str_new(default_pool, 256);
	peer->created_msecs = now->msecs;
	peer->input_msecs = now->msecs;
	peer->silence_counted_msecs = now->msecs;
	peer->ping_msecs = UINT_MAX;
	DLLIST_PREPEND(&ring->peers, peer);
	ring_wake(ring);
	return peer;
}

static void
ring_log_refused(struct ring *ring, const struct ip_addr *source_ip,
		 const char *why, const struct director_time *now)
{
	unsigned int held;

	if (log_throttle(&ring->refused_throttle, now->msecs, &held)) {
		RING_LOG(ring, LOG_TYPE_WARNING, "Connection from %s: %s%s",
			 net_ip2addr(source_ip), why, log_throttle_more(held));
	}
}

void ring_log_unlisted(struct ring *ring, const struct ip_addr *source_ip,
		       const struct director_time *now)
{
	ring_log_refused(ring, source_ip, "Server not listed in "
			 "director_servers, dropping", now);
}

struct ring_peer *
ring_peer_accept(struct director *director, const struct ip_addr *source_ip,
		 const struct director_time *now)
{
	struct ring *ring = director->ring;
	struct ring_peer *peer;
	unsigned int pending = 0, source_pending = 0;

	/* (without a ring there is only we ourself, who doesn't connect) */
	if (ring->set.self.port == 0 ||
	    !ring_members_have_ip(ring->members, source_ip)) {
		ring_log_unlisted(ring, source_ip, now);
		return NULL;
	}
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->incoming || peer->me_received || peer->dead)
			continue;
		pending++;
		if (net_ip_compare(&peer->source_ip, source_ip))
			source_pending++;
	}
	if (pending >= RING_MAX_PENDING ||
	    source_pending >= RING_MAX_PENDING_SOURCE) {
		ring_log_refused(ring, source_ip, "Too many connections that "
				 "don't introduce themselves, dropping", now);
		return NULL;
	}
	peer = peer_add(ring, now);
	peer->incoming = TRUE;
	peer->source_ip = *source_ip;
	peer->state = RING_PEER_GREETING;
	ring_greet(ring, peer, now);
	return peer;
}

struct ring_peer *
ring_peer_find_out(struct ring *ring, const struct ring_member *member)
{
	struct ring_peer *peer;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->incoming && !peer->dead && peer->member == member)
			return peer;
	}
	return NULL;
}

static struct ring_peer *
ring_connect_peer(struct ring *ring, struct ring_member *member,
		  const struct director_time *now)
{
	struct ring_peer *peer = peer_add(ring, now);

	member->connected_msecs = now->msecs;
	peer->member = member;
	peer->source_ip = member->address.ip;
	peer->state = RING_PEER_CONNECTING;
	ring->director->v.ring.connect(ring->director->context, peer);
	return peer;
}

struct ring_peer *
ring_peer_connect(struct ring *ring, struct ring_member *member,
		  const char *why, const struct director_time *now)
{
	struct ring_peer *peer;
	string_t *str;

	peer = ring_peer_find_out(ring, member);
	if (peer != NULL)
		return peer;
	/* those who are down for long are tried for long */
	if (member->connect_logged_msecs != 0 && now->msecs -
	    member->connect_logged_msecs < RING_CONNECT_LOG_MSECS &&
	    member->last_network_failure != 0)
		return ring_connect_peer(ring, member, now);
	member->connect_logged_msecs = now->msecs;
	str = t_str_new(128);
	str_printfa(str, "Connecting to %s (as %s", member->name,
		    net_ip2addr(&ring->self->address.ip));
	if (member->last_network_failure != 0) {
		str_printfa(str, ", last network failure %ds ago",
			    (int)(now->clock - member->last_network_failure));
	}
	if (member->last_protocol_failure != 0) {
		str_printfa(str, ", last protocol failure %ds ago",
			    (int)(now->clock - member->last_protocol_failure));
	}
	str_printfa(str, "): %s", why);
	DIRECTOR_LOG(ring->director, LOG_TYPE_INFO, str_c(str));
	return ring_connect_peer(ring, member, now);
}

void ring_peer_connected(struct director *director, struct ring_peer *peer,
			 const struct director_time *now)
{
	struct ring *ring = director->ring;

	peer->state = RING_PEER_GREETING;
	peer->member->unreached_msecs = 0;
	peer->greeting_msecs = now->msecs - peer->created_msecs;
	peer->created_msecs = peer->input_msecs = now->msecs;
	peer->silent_msecs = 0;
	peer->silence_counted_msecs = now->msecs;
	ring_greet(ring, peer, now);
}

/* The connection that we made was of no use. */
static void peer_broke(struct ring_peer *peer, const struct director_time *now)
{
	struct ring_member *member = peer->member;
	uint64_t until = member->broke_until_msecs;

	ring_member_network_failed(member, now->msecs, now->clock);
	if (peer->state != RING_PEER_CONNECTING) {
		member->broke_until_msecs = until != 0 ? until :
			now->msecs + RING_BROKE_MSECS;
	}
}

void ring_peer_closed(struct director *director, struct ring_peer *peer,
		      const char *reason, const struct director_time *now)
{
	struct ring *ring = director->ring;
	bool neighbour = peer == ring->left || peer == ring->right;

	if (!peer->dead) {
		if (peer->state == RING_PEER_CONNECTING) {
			peer->member->unreached_msecs = now->msecs;
			RING_LOG(ring, LOG_TYPE_DEBUG, "%s: %s",
				 ring_peer_name(director, peer), reason);
			/* once it has started and says so, there is nothing to
			   wait for */
			peer->member->connected_msecs = 0;
		} else {
			RING_LOG(ring, neighbour ? LOG_TYPE_ERROR :
				 LOG_TYPE_INFO, "Director %s disconnected: %s",
				 peer->member == NULL ?
				 net_ip2addr(&peer->source_ip) :
				 peer->member->name, reason);
		}
		/* a neighbour that worked is tried again at once */
		if (peer->member != NULL && !neighbour && !peer->incoming)
			peer_broke(peer, now);
		if (neighbour)
			ring_member_lost(peer->member, now);
		ring_peer_end(ring, peer, NULL);
	}
	peer_free(ring, peer);
	ring_wake(ring);
}

