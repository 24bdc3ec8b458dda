/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "llist.h"
#include "str.h"
#include "str-sanitize.h"
#include "ring-private.h"

typedef void ring_handler_t(struct ring *ring, struct ring_peer *peer,
			    struct ring_message *msg,
			    const struct director_time *now);

static void
ring_handle_quit(struct ring *ring, struct ring_peer *peer,
		 struct ring_message *msg, const struct director_time *now);

/* When a message may come */
enum ring_when {
	/* Handshake of an incoming, or of any connection */
	WHEN_HANDSHAKE_IN,
	WHEN_HANDSHAKE,
	/* The greeting; nothing else before it */
	WHEN_GREETING,
	WHEN_ANY,
};

static const struct ring_rule {
	ring_handler_t *handler;
	enum ring_when when;
} ring_rules[RING_MESSAGE_TYPES] = {
	[RING_VERSION] = { ring_handle_version, WHEN_GREETING },
	[RING_ME] = { ring_handle_me, WHEN_GREETING },
	[RING_HOST_HAND_START] = { ring_handle_host_hand_start,
				   WHEN_HANDSHAKE_IN },
	[RING_HAND_HOST] = { ring_handle_hand_host, WHEN_HANDSHAKE_IN },
	[RING_HOST_HAND_END] = { ring_handle_host_hand_end,
				 WHEN_HANDSHAKE_IN },
	[RING_HAND_USER] = { ring_handle_hand_user, WHEN_HANDSHAKE_IN },
	[RING_OPTIONS] = { ring_handle_options, WHEN_HANDSHAKE },
	[RING_DONE] = { ring_handle_done, WHEN_HANDSHAKE },
	[RING_DIRECTOR] = { ring_handle_director, WHEN_ANY },
	[RING_DIRECTOR_REMOVE] = { ring_handle_director_remove, WHEN_ANY },
	[RING_CONNECT] = { ring_handle_connect, WHEN_ANY },
	[RING_HOST] = { ring_handle_host, WHEN_ANY },
	[RING_HOST_REMOVE] = { ring_handle_host_remove, WHEN_ANY },
	[RING_HOST_FLUSH] = { ring_handle_host_flush, WHEN_ANY },
	[RING_USER] = { ring_handle_user, WHEN_ANY },
	[RING_USER_WEAK] = { ring_handle_user_weak, WHEN_ANY },
	[RING_USER_MOVE] = { ring_handle_user_pass, WHEN_ANY },
	[RING_USER_KICK] = { ring_handle_user_pass, WHEN_ANY },
	[RING_USER_KICK_ALT] = { ring_handle_user_pass, WHEN_ANY },
	[RING_USER_KICK_HASH] = { ring_handle_user_pass, WHEN_ANY },
	[RING_USER_KILLED] = { ring_handle_user_pass, WHEN_ANY },
	[RING_USER_KILLED_EVERYWHERE] = { ring_handle_user_pass, WHEN_ANY },
	[RING_SYNC] = { ring_handle_sync, WHEN_ANY },
	[RING_PING] = { ring_handle_ping, WHEN_ANY },
	[RING_PONG] = { ring_handle_pong, WHEN_ANY },
	[RING_QUIT] = { ring_handle_quit, WHEN_ANY },
};

static string_t *peer_out(struct ring_peer *peer)
{
	struct ring_peer_out *po = container_of(peer, struct ring_peer_out,
						peer);

	return po->out;
}

struct ring *ring_init(struct director *director,
		       const struct ring_settings *set,
		       const struct director_time *now)
{
	struct ring *ring;
	unsigned int i;

	ring = i_new(struct ring, 1);
	ring->director = director;
	ring->set = *set;
	ring->set.members = NULL;
	if (set->self.port == 0)
		ring->set.self.ip = net_ip4_loopback;
	ring->members = ring_members_init();
	i_array_init(&ring->removed_hosts, 8);
	ring->self = ring_member_add(ring->members, &ring->set.self);
	ring->self->self = TRUE;
	ring->self->instance = RING_INSTANCE(set->started / 16,
					     ring_address_hash(&set->self));
	for (i = 0; i < set->members_count; i++) {
		if (ring_member_lookup(ring->members,
				       &set->members[i]) == NULL)
			(void)ring_member_add(ring->members, &set->members[i]);
	}
	ring->started_msecs = now->msecs;
	ring->synced_changed_msecs = now->msecs;
	ring->min_minor = RING_PROTOCOL_MINOR;
	director->ring = ring;
	if (set->self.port == 0) {
		/* nobody to wait for, ever */
		ring_connect_run(ring, now);
	}
	return ring;
}

static void peer_free(struct ring *ring, struct ring_peer *peer)
{
	struct ring_peer_out *po = container_of(peer, struct ring_peer_out,
						peer);

	DLLIST_REMOVE(&ring->peers, peer);
	str_free(&po->out);
	i_free(po);
}

static void peer_flush(struct ring *ring, struct ring_peer *peer)
{
	string_t *out = peer_out(peer);
	struct director *director = ring->director;

	if (str_len(out) == 0 || peer->state == RING_PEER_CONNECTING)
		return;
	director->v.ring.send(director->context, peer, str_data(out),
			      str_len(out));
	str_truncate(out, 0);
}

static void peer_close(struct ring *ring, struct ring_peer *peer)
{
	struct director *director = ring->director;

	peer_flush(ring, peer);
	director->v.ring.close(director->context, peer);
	peer_free(ring, peer);
}

void ring_deinit(struct ring **_ring)
{
	struct ring *ring = *_ring;

	*_ring = NULL;
	while (ring->peers != NULL) {
		ring_peer_end(ring, ring->peers, "Shutting down");
		peer_close(ring, ring->peers);
	}
	array_free(&ring->removed_hosts);
	ring_members_deinit(&ring->members);
	i_free(ring);
}

struct ring *director_ring(struct director *director)
{
	return director->ring;
}

bool ring_is_synced(const struct ring *ring)
{
	return ring->synced;
}

bool ring_is_handshaked(const struct ring *ring)
{
	return ring->handshaked;
}

bool ring_is_alone(const struct ring *ring)
{
	return ring->synced && ring->right == NULL;
}

unsigned int ring_min_minor(const struct ring *ring)
{
	return ring->min_minor;
}

struct ring_members *ring_get_members(struct ring *ring)
{
	return ring->members;
}

const struct ring_member *ring_self(const struct ring *ring)
{
	return ring->self;
}

const struct ring_peer *ring_peers(const struct ring *ring)
{
	return ring->peers;
}

const struct ring_peer *ring_left(const struct ring *ring)
{
	return ring->left;
}

const struct ring_peer *ring_right(const struct ring *ring)
{
	return ring->right;
}

uint64_t ring_sync_began(const struct ring *ring)
{
	return ring->sync_began_msecs;
}

unsigned int ring_sync_msecs(const struct ring *ring)
{
	return ring->sync_msecs;
}

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
		peer_flush(ring, peer);
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
	struct ring_message old = *msg;
	struct ring_peer *peer;

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
	return !origin->self && ring_member_accept_seq(origin, msg->seq);
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
	if (peer->dead)
		return;
	RING_LOG(ring, LOG_TYPE_ERROR, "%s: %s",
		 ring_peer_name(ring->director, peer), error);
	if (peer->member != NULL)
		ring_member_refused(peer->member, protocol, now->msecs,
				    now->clock);
	ring_peer_end(ring, peer, error);
}

static void
ring_handle_quit(struct ring *ring, struct ring_peer *peer,
		 struct ring_message *msg, const struct director_time *now)
{
	RING_LOG(ring, LOG_TYPE_WARNING,
		 "Director %s disconnected us with reason: %s",
		 peer->member == NULL ? net_ip2addr(&peer->source_ip) :
		 peer->member->name, str_sanitize(msg->text, 200));
	if (peer->member != NULL && peer->state != RING_PEER_DONE)
		ring_member_refused(peer->member, FALSE, now->msecs,
				    now->clock);
	ring_peer_end(ring, peer, NULL);
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

struct ring_peer *
ring_peer_accept(struct director *director, const struct ip_addr *source_ip,
		 const struct director_time *now)
{
	struct ring *ring = director->ring;
	struct ring_peer *peer;
	unsigned int pending = 0, source_pending = 0;

	if (!ring_members_have_ip(ring->members, source_ip)) {
		RING_LOG(ring, LOG_TYPE_WARNING, "Connection from %s: "
			 "Server not listed in director_servers, dropping",
			 net_ip2addr(source_ip));
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
		RING_LOG(ring, LOG_TYPE_WARNING, "Connection from %s: "
			 "Too many connections that don't introduce "
			 "themselves, dropping", net_ip2addr(source_ip));
		return NULL;
	}
	peer = peer_add(ring, now);
	peer->incoming = TRUE;
	peer->source_ip = *source_ip;
	peer->state = RING_PEER_GREETING;
	ring_greet(ring, peer, now);
	return peer;
}

static struct ring_peer *
ring_peer_find_out(struct ring *ring, const struct ring_member *member)
{
	struct ring_peer *peer;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->incoming && !peer->dead && peer->member == member)
			return peer;
	}
	return NULL;
}

struct ring_peer *
ring_peer_connect(struct ring *ring, struct ring_member *member,
		  const char *why, const struct director_time *now)
{
	struct director *director = ring->director;
	struct ring_peer *peer;
	string_t *str;

	peer = ring_peer_find_out(ring, member);
	if (peer != NULL)
		return peer;
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
	DIRECTOR_LOG(director, LOG_TYPE_INFO, str_c(str));

	peer = peer_add(ring, now);
	peer->member = member;
	peer->source_ip = member->address.ip;
	peer->state = RING_PEER_CONNECTING;
	director->v.ring.connect(director->context, peer);
	return peer;
}

void ring_peer_connected(struct director *director, struct ring_peer *peer,
			 const struct director_time *now)
{
	struct ring *ring = director->ring;

	peer->state = RING_PEER_GREETING;
	peer->created_msecs = peer->input_msecs = now->msecs;
	peer->silence_counted_msecs = now->msecs;
	ring_greet(ring, peer, now);
}

void ring_peer_closed(struct director *director, struct ring_peer *peer,
		      const char *reason, const struct director_time *now)
{
	struct ring *ring = director->ring;
	bool neighbour = peer == ring->left || peer == ring->right;

	if (!peer->dead) {
		if (peer->state == RING_PEER_CONNECTING) {
			RING_LOG(ring, LOG_TYPE_DEBUG, "%s: %s",
				 ring_peer_name(director, peer), reason);
		} else {
			RING_LOG(ring, neighbour ? LOG_TYPE_ERROR :
				 LOG_TYPE_INFO, "Director %s disconnected: %s",
				 peer->member == NULL ?
				 net_ip2addr(&peer->source_ip) :
				 peer->member->name, reason);
		}
		/* a neighbour that worked is tried again at once */
		if (peer->member != NULL && !neighbour && !peer->incoming)
			ring_member_network_failed(peer->member, now->msecs,
						   now->clock);
		ring_peer_end(ring, peer, NULL);
	}
	peer_free(ring, peer);
	ring_wake(ring);
}

/* -- Input -- */

/* Returns FALSE if the message may not come now. */
static bool ring_is_allowed(const struct ring_peer *peer,
			    const struct ring_message *msg)
{
	switch (ring_rules[msg->type].when) {
	case WHEN_GREETING:
		if (msg->type == RING_VERSION)
			return !peer->version_received;
		return peer->version_received && !peer->me_received;
	case WHEN_HANDSHAKE_IN:
		if (!peer->incoming)
			return FALSE;
		/* fall through */
	case WHEN_HANDSHAKE:
		if (peer->done_received)
			return FALSE;
		break;
	case WHEN_ANY:
		break;
	}
	if (msg->type == RING_QUIT)
		return TRUE;
	if (!peer->me_received)
		return FALSE;
	return !peer->in_host_list || msg->type == RING_HAND_HOST ||
		msg->type == RING_HOST_HAND_END;
}

bool ring_peer_input(struct director *director, struct ring_peer *peer,
		     const char *line, const struct director_time *now)
{
	struct ring *ring = director->ring;
	struct ring_message msg;
	const char *error;

	if (peer->dead)
		return FALSE;
	peer->input_msecs = now->msecs;
	peer->silent_msecs = 0;
	peer->silence_counted_msecs = now->msecs;
	if (peer->told_connect)
		return TRUE;
	T_BEGIN {
		if (ring_message_parse(line, peer->minor, !peer->done_received,
				       peer->in_host_list, &msg, &error) < 0) {
			error = t_strdup_printf("%s (input: %s)", error,
						str_sanitize(line, 256));
			ring_peer_fail(ring, peer, TRUE, now, error);
		} else if (!ring_is_allowed(peer, &msg)) {
			error = t_strdup_printf(
				"Command %s: Unexpected now (input: %s)",
				ring_message_name(msg.type),
				str_sanitize(line, 256));
			ring_peer_fail(ring, peer, TRUE, now, error);
		} else {
			ring_rules[msg.type].handler(ring, peer, &msg, now);
		}
	} T_END;
	return !peer->dead;
}

void ring_peer_bad_input(struct director *director, struct ring_peer *peer,
			 const char *problem, const struct director_time *now)
{
	ring_peer_fail(director->ring, peer, TRUE, now, problem);
}

void ring_peer_drained(struct director *director, struct ring_peer *peer,
		       const struct director_time *now)
{
	if (!peer->dead && peer->sending_users)
		ring_handshake_more(director->ring, peer, now);
}

/* -- Time -- */

static void
ring_peer_run(struct ring *ring, struct ring_peer *peer,
	      const struct director_time *now)
{
	uint64_t idle = now->msecs - peer->input_msecs;

	switch (peer->state) {
	case RING_PEER_CONNECTING:
		if (now->msecs - peer->created_msecs <
		    RING_CONNECT_TIMEOUT_MSECS)
			return;
		RING_LOG(ring, LOG_TYPE_ERROR,
			 "Director %s disconnected: Connect timed out",
			 peer->member->name);
		ring_member_network_failed(peer->member, now->msecs,
					   now->clock);
		ring_peer_end(ring, peer, NULL);
		return;
	case RING_PEER_GREETING:
		if (now->msecs - peer->created_msecs >= RING_ME_TIMEOUT_MSECS) {
			ring_peer_fail(ring, peer, FALSE, now,
				       "Handshaking ME timed out");
		}
		return;
	case RING_PEER_HANDSHAKING:
		if (idle >= (peer->incoming ?
			     RING_HANDSHAKE_IN_TIMEOUT_MSECS :
			     RING_HANDSHAKE_OUT_TIMEOUT_MSECS) &&
		    !peer->sending_users) {
			ring_peer_fail(ring, peer, FALSE, now,
				       "Handshaking DONE timed out");
			return;
		}
		break;
	case RING_PEER_DONE:
		break;
	}
	if (peer->deadline_msecs != 0 && now->msecs >= peer->deadline_msecs) {
		/* told to connect elsewhere, or told us wrongly to */
		ring_peer_end(ring, peer, peer->told_connect ?
			      "Timeout waiting for disconnect after CONNECT" :
			      "Wrong CONNECT requested");
		return;
	}
	if (peer->sending_users)
		ring_handshake_more(ring, peer, now);
	ring_ping_run(ring, peer, now);
}

static void
ring_peer_deadline(struct ring *ring, const struct ring_peer *peer,
		   const struct director_time *now, uint64_t *deadline)
{
	switch (peer->state) {
	case RING_PEER_CONNECTING:
		ring_deadline_min(deadline, peer->created_msecs +
				  RING_CONNECT_TIMEOUT_MSECS);
		return;
	case RING_PEER_GREETING:
		ring_deadline_min(deadline, peer->created_msecs +
				  RING_ME_TIMEOUT_MSECS);
		return;
	case RING_PEER_HANDSHAKING:
		ring_deadline_min(deadline, peer->input_msecs +
				  (peer->incoming ?
				   RING_HANDSHAKE_IN_TIMEOUT_MSECS :
				   RING_HANDSHAKE_OUT_TIMEOUT_MSECS));
		break;
	case RING_PEER_DONE:
		break;
	}
	if (peer->deadline_msecs != 0)
		ring_deadline_min(deadline, peer->deadline_msecs);
	ring_ping_deadline(ring, peer, now, deadline);
}

static void ring_purge_removed(struct ring *ring,
			       const struct director_time *now,
			       uint64_t *deadline)
{
	struct ring_member *const *list, *member;
	struct ring_peer *peer;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = count; i > 0; i--) {
		member = list[i - 1];
		if (!member->removed)
			continue;
		if (now->msecs < member->removed_msecs +
				 RING_REMOVED_PURGE_MSECS) {
			ring_deadline_min(deadline, member->removed_msecs +
					  RING_REMOVED_PURGE_MSECS);
			continue;
		}
		for (peer = ring->peers; peer != NULL; peer = peer->next) {
			if (peer->member == member)
				break;
		}
		if (peer == NULL) {
			ring_member_forget(ring->members, &member);
			list = ring_members_sorted(ring->members, &count);
		}
	}
}

void ring_run(struct ring *ring, const struct director_time *now)
{
	struct ring_peer *peer, *next;
	uint64_t deadline = UINT64_MAX;

	ring_member_set_clock(ring->self, now->wall, now->wall, now->msecs);
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->dead)
			ring_peer_run(ring, peer, now);
	}
	ring_connect_run(ring, now);
	ring_sync_run(ring, now);

	for (peer = ring->peers; peer != NULL; peer = next) {
		next = peer->next;
		if (peer->dead)
			peer_close(ring, peer);
		else {
			peer_flush(ring, peer);
			ring_peer_deadline(ring, peer, now, &deadline);
		}
	}
	ring_purge_removed(ring, now, &deadline);
	ring_hosts_purge(ring, now);
	ring_connect_deadline(ring, now, &deadline);
	ring_sync_deadline(ring, now, &deadline);
	ring->deadline_msecs = I_MAX(deadline, now->msecs + 1);
}

void ring_input_end(struct director *director, const struct director_time *now)
{
	ring_run(director->ring, now);
}

uint64_t ring_next_deadline(const struct ring *ring)
{
	return ring->set.self.port == 0 ? UINT64_MAX : ring->deadline_msecs;
}
