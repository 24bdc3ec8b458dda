/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* SYNC rounds: everything that was sent before has been seen by all (spec:
   ring-protocol.md §9). */

#include "lib.h"
#include "ring-private.h"

/* Our hosts differ from a director's for so long although nothing changes
   here: something got lost. */
#define RING_WRONG_HOSTS_MSECS 1000
/* Not more often is asked who is there. */
#define RING_ASK_INTERVAL_MSECS 1000

static void
sync_message(const struct ring_member *origin,
	     const struct ring_sync_memory *sync, struct ring_message *msg_r)
{
	i_zero(msg_r);
	msg_r->type = RING_SYNC;
	msg_r->origin = origin->address;
	msg_r->seq = sync->seq;
	msg_r->minor = I_MIN(sync->minor, RING_PROTOCOL_MINOR);
	msg_r->timestamp = sync->timestamp;
	msg_r->has_timestamp = TRUE;
	msg_r->hosts_hash = sync->hosts_hash;
	msg_r->instance = sync->instance;
}

static void set_unsynced(struct ring *ring, const struct director_time *now)
{
	struct ring_peer *peer;

	if (!ring->synced)
		return;
	/* the round that comes asks, too */
	if (ring->ask_seq != 0)
		ring->sync_sent_msecs = 0;
	ring->ask_msecs = 0;
	ring->ask_seq = 0;
	ring->synced = FALSE;
	ring->synced_changed_msecs = now->msecs;
	for (peer = ring->peers; peer != NULL; peer = peer->next)
		peer->synced = FALSE;
}

void ring_changed(struct ring *ring, const struct director_time *now)
{
	backends_unmark(ring->director->backends);
	ring_hosts_changed(ring, now);
}

void ring_hosts_changed(struct ring *ring, const struct director_time *now)
{
	ring->sync_seq++;
	ring->sync_changed_seq = ring->sync_seq;
	if (ring->left == NULL && ring->right == NULL)
		return;
	ring->sync_needed = TRUE;
	set_unsynced(ring, now);
	ring_wake(ring);
}

void ring_ask_minor(struct ring *ring, const struct director_time *now)
{
	if (!ring->synced || ring->ask_msecs != 0 || ring->ask_seq != 0)
		return;
	ring->ask_msecs = I_MAX(now->msecs,
				ring->asked_msecs + RING_ASK_INTERVAL_MSECS);
	ring_wake(ring);
}

bool ring_is_asking(const struct ring *ring)
{
	return ring->ask_msecs != 0 || ring->ask_seq != 0;
}

static void send_own_sync(struct ring *ring, const struct director_time *now)
{
	struct ring_sync_memory sync = {
		.seq = ring->sync_seq,
		.minor = RING_PROTOCOL_MINOR,
		.timestamp = now->wall,
		.hosts_hash = backends_hash(ring->director->backends),
		.instance = ring->self->instance,
	};
	struct ring_message msg;

	if (ring->sync_sent_msecs == 0 && !ring->synced)
		ring->sync_began_msecs = now->msecs;
	ring->sync_needed = FALSE;
	ring->sync_sent_msecs = now->msecs;
	ring->members_changed = FALSE;
	sync_message(ring->self, &sync, &msg);
	ring_send(ring, ring->right, &msg);
	ring_ping(ring, ring->right, now);
	if (ring->left != NULL)
		ring_ping(ring, ring->left, now);
}

/* Who told it us is our left. */
static bool may_send_delayed(struct ring *ring, const struct ring_member *origin)
{
	const struct ring_address *by = &origin->delayed_by;

	return by->port == 0 ||
		(ring->left != NULL && ring_address_cmp(
			&ring->left->member->address, by) == 0);
}

static void send_delayed(struct ring *ring)
{
	struct ring_member *const *list;
	struct ring_message msg;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		if (!list[i]->sync_is_delayed ||
		    !may_send_delayed(ring, list[i]))
			continue;
		list[i]->sync_is_delayed = FALSE;
		sync_message(list[i], &list[i]->delayed_sync, &msg);
		ring_send(ring, ring->right, &msg);
	}
}

void ring_sync_again(struct ring *ring, const struct director_time *now)
{
	struct ring_member *const *list, *origin;
	uint32_t hash = backends_hash(ring->director->backends);
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		origin = list[i];
		if (origin->removed || origin->sync_is_delayed ||
		    origin->sync_count == 0 ||
		    now->msecs - origin->sync_msecs >= RING_SYNC_RESEND_MSECS ||
		    (origin->sync.hosts_hash != 0 &&
		     origin->sync.hosts_hash != hash))
			continue;
		origin->delayed_sync = origin->sync;
		i_zero(&origin->delayed_by);
		origin->sync_is_delayed = TRUE;
	}
}

void ring_neighbours_run(struct ring *ring, const struct director_time *now)
{
	if (!ring->neighbours_changed)
		return;
	ring->neighbours_changed = FALSE;
	ring_changed(ring, now);
	/* Whoever lost both isn't alone before it has tried all others. */
	set_unsynced(ring, now);
	ring_wake(ring);
}

void ring_sync_run(struct ring *ring, const struct director_time *now)
{
	ring_neighbours_run(ring, now);
	if (ring->right == NULL)
		return;
	send_delayed(ring);
	/* Without a left it couldn't come back. */
	if (ring->left == NULL)
		return;
	if (ring->sync_needed) {
		set_unsynced(ring, now);
		send_own_sync(ring, now);
	} else if (ring->ask_msecs != 0 && now->msecs >= ring->ask_msecs) {
		ring->ask_msecs = 0;
		ring->asked_msecs = now->msecs;
		ring->ask_seq = ++ring->sync_seq;
		send_own_sync(ring, now);
	} else if ((!ring->synced || ring->ask_seq != 0) &&
		   now->msecs - ring->sync_sent_msecs >=
		   RING_SYNC_RESEND_MSECS) {
		RING_LOG(ring, LOG_TYPE_ERROR, "Ring SYNC seq=%u appears to "
			 "have got lost, resending", ring->sync_seq);
		ring->sync_seq++;
		send_own_sync(ring, now);
	}
}

void ring_sync_deadline(struct ring *ring, const struct director_time *now,
			uint64_t *deadline)
{
	if (ring->right == NULL || ring->left == NULL)
		return;
	if (ring->sync_needed)
		ring_deadline_min(deadline, now->msecs);
	else if (ring->ask_msecs != 0)
		ring_deadline_min(deadline, ring->ask_msecs);
	else if (!ring->synced || ring->ask_seq != 0) {
		ring_deadline_min(deadline, ring->sync_sent_msecs +
				  RING_SYNC_RESEND_MSECS);
	}
}

void ring_set_synced(struct ring *ring, const struct director_time *now)
{
	struct director *director = ring->director;
	struct backend *const *backends;
	unsigned int i, count;

	array_clear(&ring->early_users);
	if (ring->left != NULL)
		ring->left->synced = TRUE;
	if (ring->right != NULL)
		ring->right->synced = TRUE;
	if (ring->synced)
		return;
	ring->synced = TRUE;
	ring->was_hung = FALSE;
	ring->synced_changed_msecs = now->msecs;
	if (ring->sync_sent_msecs != 0) {
		ring->sync_msecs = now->msecs - ring->sync_began_msecs;
		ring->sync_sent_msecs = 0;
	}
	/* We were told to connect there, and it was right. */
	if (ring->right != NULL)
		ring->right->member->connect_told_msecs = 0;
	backends = backends_sorted(director->backends, &count);
	for (i = 0; i < count; i++)
		backends[i]->desynced = FALSE;
	/* Everybody had these backends a moment ago. */
	if (ring->right != NULL)
		backends_mark(director->backends);
	director_ring_synced(director, now);
	ring_wake(ring);
}

static void set_min_minor(struct ring *ring, const struct ring_message *msg)
{
	ring->min_minor = I_MIN(msg->minor, RING_PROTOCOL_MINOR);
}

/* It came round. */
static void
own_sync(struct ring *ring, const struct ring_message *msg,
	 const struct director_time *now)
{
	if (ring->sync_needed || msg->seq < ring->sync_changed_seq ||
	    msg->seq > ring->sync_seq)
		return;
	if (ring->synced) {
		if (ring->ask_seq != 0 && msg->seq >= ring->ask_seq) {
			ring->ask_seq = 0;
			ring->sync_sent_msecs = 0;
			set_min_minor(ring, msg);
		}
		return;
	}
	if (msg->hosts_hash != 0 &&
	    msg->hosts_hash != backends_hash(ring->director->backends)) {
		RING_LOG(ring, LOG_TYPE_ERROR, "Hosts unexpectedly changed "
			 "during SYNC reply - resending");
		ring_hosts_changed(ring, now);
		return;
	}
	set_min_minor(ring, msg);
	ring->handshaked = TRUE;
	ring->outside_msecs = 0;
	ring_set_synced(ring, now);
}

/* Returns FALSE if it isn't to be passed on, since its originator has other
   hosts than we. */
static bool
check_hosts(struct ring *ring, struct ring_member *origin,
	    const struct ring_message *msg, const struct director_time *now)
{
	uint32_t hash = backends_hash(ring->director->backends);

	if (msg->hosts_hash == 0 || msg->hosts_hash == hash) {
		origin->wrong_hosts_hash = 0;
		return TRUE;
	}
	if (origin->wrong_hosts_hash != msg->hosts_hash ||
	    origin->wrong_own_hash != hash) {
		/* a change may be on its way, ours or its */
		origin->wrong_hosts_hash = msg->hosts_hash;
		origin->wrong_own_hash = hash;
		origin->wrong_hosts_msecs = now->msecs;
		return FALSE;
	}
	if (now->msecs - origin->wrong_hosts_msecs < RING_WRONG_HOSTS_MSECS)
		return FALSE;
	RING_LOG(ring, LOG_TYPE_ERROR, "Director %s SYNC request hosts don't "
		 "match us - resending hosts (seq=%u, remote hosts_hash=%u, "
		 "my hosts_hash=%u)", origin->name, msg->seq, msg->hosts_hash,
		 hash);
	origin->wrong_hosts_hash = 0;
	ring_resend_hosts(ring);
	return FALSE;
}

void ring_handle_sync(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now)
{
	struct ring_sync_memory sync = {
		.seq = msg->seq,
		.minor = msg->minor,
		.timestamp = msg->timestamp,
		.hosts_hash = msg->hosts_hash,
		.instance = msg->instance,
	};
	struct ring_member *origin;
	struct ring_message forward;

	origin = ring_member_lookup(ring->members, &msg->origin);
	if (origin == NULL || origin->removed)
		return;
	if (origin->self) {
		if (peer == ring->left)
			own_sync(ring, msg, now);
		return;
	}
	if (msg->instance != 0 && msg->instance < origin->instance) {
		/* of a process that is gone */
		return;
	}
	if (ring_member_is_later(origin, msg->instance) &&
	    origin->sync.instance != msg->instance) {
		/* It has started again, and counts anew: we haven't heard of
		   that yet. */
		ring_member_reset_sync(origin);
	}
	switch (ring_member_sync(origin, &sync)) {
	case RING_SYNC_IGNORE:
		return;
	case RING_SYNC_FORWARD_STALE:
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "Last SYNC seq for %s appears to be stale, resetting "
			 "(seq=%u, timestamp=%lld)", origin->name, msg->seq,
			 (long long)msg->timestamp);
		break;
	case RING_SYNC_FORWARD:
		break;
	}
	origin->sync_msecs = now->msecs;
	/* Was it sent after we had lost it, then waves pass it again. */
	if (peer == ring->left && !ring_is_skipped(ring, origin) &&
	    (origin->lost_connected || msg->instance > origin->lost_instance ||
	     !ring_member_is_lost(ring->director, origin, now)))
		origin->lost_msecs = 0;
	if (!check_hosts(ring, origin, msg, now))
		return;
	if (ring->right == NULL || peer != ring->left) {
		/* Who isn't our left may have passed over somebody: a round of
		   less than all would prove nothing. */
		origin->delayed_sync = sync;
		i_zero(&origin->delayed_by);
		if (peer != ring->left)
			origin->delayed_by = peer->member->address;
		origin->sync_is_delayed = TRUE;
	} else {
		origin->sync_is_delayed = FALSE;
		sync_message(origin, &sync, &forward);
		ring_send(ring, ring->right, &forward);
	}
	/* Ours may have got lost where the ring was broken. */
	if (!ring->synced) {
		if (ring->members_changed &&
		    now->msecs - ring->sync_sent_msecs >= 1000)
			ring_changed(ring, now);
	} else if (ring->members_changed || msg->minor < ring->min_minor ||
		   (msg->minor > ring->min_minor && ring->right != NULL &&
		    origin == ring->right->member)) {
		/* One of 2.3 has come or gone, and isn't our neighbour. (That of
		   our right has passed all others.) */
		ring_ask_minor(ring, now);
	}
}
