/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "llist.h"
#include "str.h"
#include "str-sanitize.h"
#include "ring-private.h"
#include "user-kick.h"
#include "user-move.h"

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
	[RING_DIRECTOR_LOST] = { ring_handle_director_lost, WHEN_HANDSHAKE },
	[RING_CONNECT] = { ring_handle_connect, WHEN_ANY },
	[RING_HOST] = { ring_handle_host, WHEN_ANY },
	[RING_HOST_REMOVE] = { ring_handle_host_remove, WHEN_ANY },
	[RING_HOST_FLUSH] = { ring_handle_host_flush, WHEN_ANY },
	[RING_USER] = { ring_handle_user, WHEN_ANY },
	[RING_USER_WEAK] = { ring_handle_user_weak, WHEN_ANY },
	[RING_USER_MOVE] = { ring_handle_user_move, WHEN_ANY },
	[RING_USER_KICK] = { ring_handle_user_kick, WHEN_ANY },
	[RING_USER_KICK_ALT] = { ring_handle_user_kick, WHEN_ANY },
	[RING_USER_KICK_HASH] = { ring_handle_user_kick, WHEN_ANY },
	[RING_USER_COUNT] = { ring_handle_user_count, WHEN_ANY },
	[RING_USER_KICKED] = { ring_handle_addressed, WHEN_ANY },
	[RING_USER_KILLED] = { ring_handle_user_killed, WHEN_ANY },
	[RING_USER_KILLED_EVERYWHERE] = {
		ring_handle_user_killed_everywhere, WHEN_ANY },
	[RING_SESSIONS] = { ring_handle_addressed, WHEN_ANY },
	[RING_SESSION] = { ring_handle_addressed, WHEN_ANY },
	[RING_SESSIONS_END] = { ring_handle_addressed, WHEN_ANY },
	[RING_SYNC] = { ring_handle_sync, WHEN_ANY },
	[RING_PING] = { ring_handle_ping, WHEN_ANY },
	[RING_PONG] = { ring_handle_pong, WHEN_ANY },
	[RING_QUIT] = { ring_handle_quit, WHEN_ANY },
};

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
		(void)net_addr2ip("127.0.0.1", &ring->set.self.ip);
	ring->members = ring_members_init();
	i_array_init(&ring->removed_hosts, 8);
	i_array_init(&ring->early_users, 8);
	ring->self = ring_member_add(ring->members, &ring->set.self);
	ring->self->self = TRUE;
	ring->self->instance = RING_INSTANCE(set->started,
					     ring_address_hash(&set->self));
	ring->last_seq = RING_FIRST_SEQ(set->started);
	for (i = 0; i < set->members_count; i++) {
		if (ring_member_lookup(ring->members,
				       &set->members[i]) == NULL) {
			ring_member_assume_lost(ring_member_add(ring->members,
						&set->members[i]), now);
		}
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

void ring_deinit(struct ring **_ring)
{
	struct ring *ring = *_ring;

	*_ring = NULL;
	while (ring->peers != NULL) {
		ring_peer_end(ring, ring->peers, RING_QUIT_SHUTDOWN);
		ring_peer_close(ring, ring->peers);
	}
	array_free(&ring->early_users);
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
	/* one that has changed may only be changing */
	return ring->synced && ring->right == NULL &&
		!ring->neighbours_changed;
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

uint64_t ring_synced_changed(const struct ring *ring)
{
	return ring->synced_changed_msecs;
}

uint64_t ring_sync_began(const struct ring *ring)
{
	return ring->sync_began_msecs;
}

unsigned int ring_sync_msecs(const struct ring *ring)
{
	return ring->sync_msecs;
}

unsigned int ring_users_received(const struct ring *ring)
{
	return ring->users_received;
}

/* -- Input -- */

static void
ring_handle_quit(struct ring *ring, struct ring_peer *peer,
		 struct ring_message *msg, const struct director_time *now)
{
	RING_LOG(ring, peer->told_connect ? LOG_TYPE_INFO : LOG_TYPE_WARNING,
		 "Director %s disconnected us with reason: %s",
		 peer->member == NULL ? net_ip2addr(&peer->source_ip) :
		 peer->member->name, str_sanitize(msg->text, 200));
	if ((peer == ring->left || peer == ring->right) &&
	    (strcmp(msg->text, RING_QUIT_SHUTDOWN) == 0 ||
	     str_begins_with(msg->text, RING_QUIT_UNREACHED)))
		ring_member_lost(peer->member, now);
	if (peer->member != NULL && peer->state != RING_PEER_DONE)
		ring_member_refused(peer->member, FALSE, now->msecs,
				    now->clock);
	ring_peer_end(ring, peer, NULL);
}

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
	/* Its handshake is of no use any more, but what others told it is. */
	if (peer->told_connect && (peer->state != RING_PEER_DONE ||
				   peer->minor < RING_MINOR_OURS))
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

	ring_count_silence(peer, now);
	switch (peer->state) {
	case RING_PEER_CONNECTING:
		if (now->msecs - peer->created_msecs <
		    RING_CONNECT_TIMEOUT_MSECS)
			return;
		RING_LOG(ring, LOG_TYPE_ERROR,
			 "Director %s disconnected: Connect timed out",
			 peer->member->name);
		peer->member->unreached_msecs = now->msecs;
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
	if (peer->state < RING_PEER_HANDSHAKING && !peer->incoming) {
		ring_deadline_min(deadline,
				  now->msecs + RING_SILENCE_STEP_MSECS);
	}
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
		if (peer->sending_users)
			break;
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
		if (!ring_member_has_peer(ring, member)) {
			ring_member_forget(ring->members, &member);
			list = ring_members_sorted(ring->members, &count);
		}
	}
}

static void
ring_notice_hang(struct ring *ring, const struct director_time *now)
{
	uint64_t due = I_MAX(ring->deadline_msecs, ring->ran_msecs);

	if (ring->ran_msecs != 0 && now->msecs >= due + RING_FAST_DEAD_MSECS &&
	    (ring->left != NULL || ring->right != NULL)) {
		ring->was_hung = TRUE;
		ring_changed(ring, now);
	}
	ring->ran_msecs = now->msecs;
}

void ring_run(struct ring *ring, const struct director_time *now)
{
	struct ring_peer *peer, *next;
	uint64_t deadline = UINT64_MAX;
	bool sending = FALSE;

	ring_member_set_clock(ring->self, now->wall, now->wall, now->msecs);
	ring_notice_hang(ring, now);
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (!peer->dead)
			ring_peer_run(ring, peer, now);
	}
	ring_neighbours_run(ring, now);
	ring_connect_run(ring, now);
	ring_sync_run(ring, now);

	for (peer = ring->peers; peer != NULL; peer = next) {
		next = peer->next;
		if (peer->dead)
			ring_peer_close(ring, peer);
		else {
			ring_peer_flush(ring, peer);
			ring_peer_deadline(ring, peer, now, &deadline);
			/* without room it goes on when there is */
			if (peer->sending_users &&
			    ring_handshake_has_room(ring, peer))
				sending = TRUE;
		}
	}
	ring_purge_removed(ring, now, &deadline);
	ring_hosts_purge(ring, now);
	ring_connect_deadline(ring, now, &deadline);
	ring_sync_deadline(ring, now, &deadline);
	ring->deadline_msecs = I_MAX(deadline, now->msecs + 1);
	if (sending) {
		/* Logins have their turn after each slice, but several slices
		   go out before the CPU is left to other processes. */
		ring->deadline_msecs =
			++ring->slices % RING_HANDSHAKE_SLICES != 0 ? 0 :
			now->msecs + 1;
	}
}

void ring_input_end(struct director *director, const struct director_time *now)
{
	ring_run(director->ring, now);
}

uint64_t ring_next_deadline(const struct ring *ring)
{
	return ring->set.self.port == 0 ? UINT64_MAX : ring->deadline_msecs;
}
