/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What two directors tell each other when they connect (spec:
   ring-protocol.md §5). */

#include "lib.h"
#include "str.h"
#include "str-sanitize.h"
#include "ring-private.h"

#define OPTION_CONSISTENT_HASHING "consistent-hashing"

void ring_send_members(struct ring *ring, struct ring_peer *peer,
		       const struct director_time *now)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		if (!list[i]->removed || peer->minor >= RING_MINOR_OURS)
			ring_send_member(ring, peer, list[i], now);
	}
	if (peer->minor >= RING_MINOR_OURS)
		ring_send_lost(ring, peer, now);
}

void ring_greet(struct ring *ring, struct ring_peer *peer,
		const struct director_time *now)
{
	struct ring_message version = {
		.type = RING_VERSION,
		.text = RING_PROTOCOL_NAME,
		.major = RING_PROTOCOL_MAJOR,
		.minor = RING_PROTOCOL_MINOR,
	};
	struct ring_message me = {
		.type = RING_ME,
		.director = ring->self->address,
		.timestamp = now->clock,
		.has_timestamp = TRUE,
		.instance = ring->self->instance,
		.even_clock = now->wall,
		.changed = ring->self->changed,
	};

	ring_send(ring, peer, &version);
	ring_send(ring, peer, &me);
	if (!peer->incoming)
		ring_send_members(ring, peer, now);
}

void ring_handle_version(struct ring *ring, struct ring_peer *peer,
			 struct ring_message *msg,
			 const struct director_time *now)
{
	const char *error = NULL;

	if (strcmp(msg->text, RING_PROTOCOL_NAME) != 0) {
		error = t_strdup_printf("Wrong protocol %s (wanted %s)",
					str_sanitize(msg->text, 64),
					RING_PROTOCOL_NAME);
	} else if (msg->major != RING_PROTOCOL_MAJOR) {
		error = t_strdup_printf(
			"Incompatible protocol version: %u vs %u",
			msg->major, RING_PROTOCOL_MAJOR);
	} else if (msg->minor < RING_MINOR_MIN) {
		error = t_strdup_printf(
			"Too old protocol version 1.%u (1.%u is needed): "
			"upgrade it to Dovecot 2.3", msg->minor,
			RING_MINOR_MIN);
	}
	if (error != NULL) {
		ring_peer_fail(ring, peer, FALSE, now, error);
		return;
	}
	peer->version_received = TRUE;
	peer->minor = msg->minor;
}

/* We have connected, the peer has introduced himself: here is what we know. */
static void send_hosts(struct ring *ring, struct ring_peer *peer)
{
	struct ring_message msg = {
		.type = RING_HOST_HAND_START,
		.flag = ring_knows(ring),
	};
	struct backend *const *backends;
	unsigned int i, count;

	peer->handed_ring = msg.flag;
	ring_send(ring, peer, &msg);
	backends = backends_sorted(ring->director->backends, &count);
	for (i = 0; i < count; i++) {
		ring_host_message(backends[i], &msg);
		msg.type = RING_HAND_HOST;
		ring_send(ring, peer, &msg);
	}
	i_zero(&msg);
	msg.type = RING_HOST_HAND_END;
	msg.flag = peer->handed_ring;
	ring_send(ring, peer, &msg);
}

void ring_handshake_start(struct ring *ring, struct ring_peer *peer,
			  const struct director_time *now)
{
	ring_send_removed_hosts(ring, peer);
	send_hosts(ring, peer);
	peer->sending_users = TRUE;
	peer->users_pos = 0;
	ring_handshake_more(ring, peer, now);
}

struct send_context {
	struct ring *ring;
	struct ring_peer *peer;
	const struct director_time *now;
};

static void send_user(user_idx_t idx, void *context)
{
	struct send_context *ctx = context;
	struct director *director = ctx->ring->director;
	struct user_table *users = director->users;
	struct ring_message msg = {
		.type = RING_HAND_USER,
		.hash = user_table_hash(users, idx),
		.timestamp = ring_user_time_to_wire(ctx->peer, ctx->now,
			user_table_timestamp(users, idx)),
		.has_timestamp = TRUE,
		.weak = (user_table_flags(users, idx) & USER_FLAG_WEAK) != 0,
		.moving = ctx->peer->minor >= RING_MINOR_OURS &&
			(user_table_flags(users, idx) & USER_FLAG_MOVING) != 0,
	};

	msg.ip = backend_by_slot(director->backends,
				 user_table_slot(users, idx))->ip;
	ring_send(ctx->ring, ctx->peer, &msg);
	ctx->peer->users_sent++;
}

bool ring_handshake_has_room(struct ring *ring, struct ring_peer *peer)
{
	struct director *director = ring->director;

	return director->v.ring.queued(director->context, peer) <
		RING_HANDSHAKE_QUEUE_SIZE;
}

void ring_handshake_more(struct ring *ring, struct ring_peer *peer,
			 const struct director_time *now)
{
	struct director *director = ring->director;
	struct ring_message options = {
		.type = RING_OPTIONS,
		.text = OPTION_CONSISTENT_HASHING,
	};
	struct ring_message done = {
		.type = RING_DONE,
		.flag = !ring_knows(ring),
	};
	struct send_context ctx = { ring, peer, now };

	if (!ring_handshake_has_room(ring, peer))
		return;
	/* What we remember from before is of no use for a ring that we join,
	   and those of 2.3 would take it. */
	if (!ring_knows(ring) && peer->minor < RING_MINOR_OURS)
		peer->users_pos = UINT32_MAX;
	if (user_table_walk_buckets(director->users, &peer->users_pos,
				    now->wall, RING_HANDSHAKE_STEPS,
				    send_user, &ctx)) {
		ring_wake(ring);
		return;
	}
	peer->sending_users = FALSE;
	ring_send(ring, peer, &options);
	ring_send(ring, peer, &done);
	peer->done_sent = TRUE;
	/* the time for its answer begins */
	peer->input_msecs = now->msecs;
}

/* -- Receiving -- */

static void forget_all_hosts(struct ring *ring)
{
	struct director *director = ring->director;
	struct backend *const *backends;
	unsigned int count;

	for (;;) {
		backends = backends_sorted(director->backends, &count);
		if (count == 0)
			break;
		director_host_forget(director, backends[0]);
	}
}

void ring_handle_host_hand_start(struct ring *ring, struct ring_peer *peer,
				 struct ring_message *msg,
				 const struct director_time *now ATTR_UNUSED)
{
	peer->in_host_list = TRUE;
	if (msg->flag && !ring_knows(ring)) {
		/* We are the ones who join. */
		peer->joining = TRUE;
		forget_all_hosts(ring);
	} else if (!msg->flag && ring_knows(ring)) {
		/* It joins us: what it remembers is older than what we know. */
		peer->ignore_hosts = TRUE;
		peer->ignore_users = TRUE;
	} else {
		peer->merging = TRUE;
	}
}

void ring_handle_hand_host(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now)
{
	if (!peer->ignore_hosts)
		ring_handle_host(ring, peer, msg, now);
}

void ring_handle_host_hand_end(struct ring *ring ATTR_UNUSED,
			       struct ring_peer *peer,
			       struct ring_message *msg ATTR_UNUSED,
			       const struct director_time *now ATTR_UNUSED)
{
	peer->in_host_list = FALSE;
	peer->ignore_hosts = FALSE;
}

void ring_handle_options(struct ring *ring, struct ring_peer *peer,
			 struct ring_message *msg,
			 const struct director_time *now)
{
	const char *const *options = t_strsplit_spaces(msg->text, "\t ");

	if (str_array_find(options, OPTION_CONSISTENT_HASHING)) {
		peer->options_received = TRUE;
		return;
	}
	ring_peer_fail(ring, peer, FALSE, now,
		       "director_consistent_hashing settings differ between "
		       "directors. Set it to yes on all of them");
}
