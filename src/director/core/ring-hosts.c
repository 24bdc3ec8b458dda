/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Changes of the backends on their way round the ring (spec:
   ring-protocol.md §6.2). */

#include "lib.h"
#include "array.h"
#include "str.h"
#include "ring-private.h"

void ring_host_message(const struct backend *backend,
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
	msg_r->timestamp = backend->last_updown_change;
	msg_r->changed = backend->changed;
}

/* -- Backends that are gone -- */

static struct ring_removed_host *
removed_find(struct ring *ring, const struct ip_addr *ip)
{
	struct ring_removed_host *host;

	array_foreach_modifiable(&ring->removed_hosts, host) {
		if (net_ip_compare(&host->ip, ip))
			return host;
	}
	return NULL;
}

static void
removed_forget(struct ring *ring, const struct ip_addr *ip)
{
	struct ring_removed_host *host = removed_find(ring, ip);

	if (host != NULL) {
		array_delete(&ring->removed_hosts,
			     array_ptr_to_idx(&ring->removed_hosts, host), 1);
	}
}

static void
removed_remember(struct ring *ring, const struct ip_addr *ip, uint64_t changed,
		 const struct director_time *now)
{
	struct ring_removed_host *host;

	removed_forget(ring, ip);
	if (array_count(&ring->removed_hosts) >= RING_REMOVED_MAX)
		array_delete(&ring->removed_hosts, 0, 1);
	host = array_append_space(&ring->removed_hosts);
	host->ip = *ip;
	host->changed = changed;
	host->removed_msecs = now->msecs;
}

void ring_hosts_purge(struct ring *ring, const struct director_time *now)
{
	const struct ring_removed_host *host;

	while (array_count(&ring->removed_hosts) > 0) {
		/* the oldest first */
		host = array_front(&ring->removed_hosts);
		if (now->msecs < host->removed_msecs +
				 RING_REMOVED_PURGE_MSECS)
			break;
		array_delete(&ring->removed_hosts, 0, 1);
	}
}

static void
removed_send(struct ring *ring, struct ring_peer *peer,
	     const struct ring_removed_host *host)
{
	struct ring_message msg = {
		.type = RING_HOST_REMOVE,
		.ip = host->ip,
		.changed = host->changed,
		.flag = director_keeps_sessions(ring->director, &host->ip),
	};

	if (peer->minor < RING_MINOR_OURS)
		return;
	ring_originate(ring, &msg);
	ring_send(ring, peer, &msg);
}

void ring_send_removed_hosts(struct ring *ring, struct ring_peer *peer)
{
	const struct ring_removed_host *host;

	array_foreach(&ring->removed_hosts, host)
		removed_send(ring, peer, host);
}

/* -- Changes made here -- */

/* It is on its way until everybody has seen it. */
static void
host_travels(struct ring *ring, struct backend *backend,
	     const struct director_time *now)
{
	if (ring->left != NULL || ring->right != NULL)
		backend->desynced = TRUE;
	ring_hosts_changed(ring, now);
}

static void host_tell(struct ring *ring, const struct backend *backend)
{
	struct ring_message msg;

	ring_host_message(backend, &msg);
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
}

void ring_host_changed(struct ring *ring, struct backend *backend,
		       const struct director_time *now)
{
	const struct ring_removed_host *host =
		removed_find(ring, &backend->ip);

	if (host != NULL && host->changed > backend->changed)
		backend->changed = host->changed;
	backend->changed = ring_change_after(now, backend->changed);
	removed_forget(ring, &backend->ip);
	host_tell(ring, backend);
	host_travels(ring, backend, now);
}

void ring_host_removed(struct ring *ring, const struct ip_addr *ip,
		       uint64_t changed, const struct director_time *now)
{
	struct ring_message msg = {
		.type = RING_HOST_REMOVE,
		.ip = *ip,
		.changed = ring_change_after(now, changed),
		.flag = director_keeps_sessions(ring->director, ip),
	};

	if (msg.flag && ring_min_minor(ring) < RING_MINOR_OURS &&
	    !ring_is_alone(ring)) {
		msg.flag = FALSE;
		RING_LOG(ring, LOG_TYPE_WARNING, "Host %s: with directors of "
			 "2.3 in the ring, only this director keeps its "
			 "sessions", net_ip2addr(ip));
	}
	removed_remember(ring, ip, msg.changed, now);
	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
	ring_changed(ring, now);
}

static void host_flush_tell(struct ring *ring, const struct ip_addr *ip)
{
	struct ring_message msg = {
		.type = RING_HOST_FLUSH,
		.ip = *ip,
	};

	ring_originate(ring, &msg);
	ring_broadcast(ring, NULL, &msg);
}

static void host_flushed(struct backend *backend, const struct director_time *now)
{
	backend->told_msecs = 0;
	backend->flushed_msecs = I_MAX(now->msecs, 1);
	backend->taken_since = FALSE;
}

void ring_host_flushed(struct ring *ring, const struct ip_addr *ip,
		       const struct director_time *now)
{
	struct backend *backend =
		backend_lookup(ring->director->backends, ip);

	if (backend != NULL)
		host_flushed(backend, now);
	host_flush_tell(ring, ip);
	ring_changed(ring, now);
}

void ring_resend_hosts(struct ring *ring)
{
	struct backend *const *backends;
	struct ring_peer *peer;
	unsigned int i, count;

	backends = backends_sorted(ring->director->backends, &count);
	for (i = 0; i < count; i++)
		host_tell(ring, backends[i]);
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (ring_peer_is_usable(peer))
			ring_send_removed_hosts(ring, peer);
	}
}

/* -- Changes that come from others -- */

/* Two changes of one backend met, and none is known to be newer. The newer
   up/down state wins, the lower number of vhosts. Returns TRUE if not all is
   as the message has it. */
static bool
host_merge(struct ring *ring, const struct backend *backend,
	   struct ring_message *msg)
{
	bool conflict = FALSE;

	if (backend->last_updown_change > msg->timestamp ||
	    (msg->changed != 0 && backend->down &&
	     backend->last_updown_change == msg->timestamp)) {
		if (msg->down != backend->down)
			conflict = TRUE;
		msg->down = backend->down;
		msg->timestamp = backend->last_updown_change;
	}
	if (backend->vhosts < msg->vhosts) {
		conflict = TRUE;
		msg->vhosts = backend->vhosts;
	}
	if (msg->changed != 0 && strcmp(backend->tag, msg->tag) < 0) {
		conflict = TRUE;
		msg->tag = backend->tag;
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

enum host_action {
	HOST_IGNORE,
	/* It is as we have it, but newer. */
	HOST_SAME,
	HOST_TAKE,
	/* Take what the message says now, and tell everybody */
	HOST_MERGED,
	/* We know better, and the sender has to learn it. */
	HOST_TEACH,
};

/* It is known which of the two changes is the newer one. Up and down have a time
   of their own: they can have been changed on two directors at once. */
static enum host_action
host_decide_newer(const struct backend *backend, struct ring_message *msg)
{
	bool state_differs = backend->down != msg->down &&
		backend->last_updown_change != msg->timestamp;
	bool our_state = state_differs &&
		backend->last_updown_change > msg->timestamp;

	if (msg->changed > backend->changed) {
		if (!our_state)
			return HOST_TAKE;
		msg->down = backend->down;
		msg->timestamp = backend->last_updown_change;
		return HOST_MERGED;
	}
	if (!state_differs || our_state)
		return HOST_TEACH;
	msg->vhosts = backend->vhosts;
	msg->tag = backend->tag;
	msg->changed = backend->changed;
	return HOST_MERGED;
}

static enum host_action
host_decide(struct ring *ring, struct ring_peer *peer, struct backend *backend,
	    struct ring_message *msg)
{
	if (!host_differs(backend, msg)) {
		if (msg->timestamp > backend->last_updown_change)
			backend->last_updown_change = msg->timestamp;
		if (msg->changed <= backend->changed)
			return HOST_IGNORE;
		backend->changed = msg->changed;
		return HOST_SAME;
	}
	if (!msg->has_state)
		msg->down = backend->down;
	if (msg->changed != 0 && msg->changed != backend->changed)
		return host_decide_newer(backend, msg);
	/* Everybody has seen ours. (The same time: who made this change may have
	   got ours by a member of 2.3, without a time.) */
	if (!backend->desynced &&
	    !(msg->type == RING_HAND_HOST && peer->merging))
		return HOST_TAKE;
	return host_merge(ring, backend, msg) ? HOST_MERGED : HOST_TAKE;
}

static void
host_forward(struct ring *ring, struct ring_peer *peer,
	     const struct ring_message *msg, const struct backend *backend)
{
	struct ring_message forward;

	ring_host_message(backend, &forward);
	if (msg->seq != 0) {
		forward.origin = msg->origin;
		forward.seq = msg->seq;
		/* Ours may be lower than that of whoever gets it next. */
		forward.changed = msg->changed;
	} else {
		/* out of a handshake */
		ring_originate(ring, &forward);
	}
	ring_broadcast(ring, peer->member, &forward);
}

static void
host_taken(struct ring *ring, struct ring_peer *peer,
	   const struct ring_message *msg, struct backend *backend, bool merged,
	   const struct director_time *now)
{
	const struct ring_removed_host *removed =
		removed_find(ring, &backend->ip);

	if (removed != NULL && removed->changed > backend->changed)
		backend->changed = removed->changed;
	if (merged || (msg->changed == 0 && msg->seq == 0))
		backend->changed = ring_change_after(now,
			I_MAX(backend->changed, msg->changed));
	else if (msg->changed == 0) {
		/* The original doesn't tell: the same for all of ours. */
		backend->changed++;
	} else
		backend->changed = msg->changed;
	removed_forget(ring, &backend->ip);
	/* A joining director tells nobody: all others know them. */
	if (msg->type == RING_HAND_HOST && !peer->merging) {
		backend->changed = I_MAX(msg->changed, 1);
		return;
	}
	if (merged) {
		/* what came of two is our word, for the sender too */
		host_tell(ring, backend);
	} else {
		host_forward(ring, peer, msg, backend);
	}
	host_travels(ring, backend, now);
}

/* A copy of a change that came first through a member of 2.3, without its time.
   Without it ours would be the older one for everybody else. */
static void host_learn_time(struct ring *ring, const struct ring_message *msg)
{
	struct backend *backend =
		backend_lookup(ring->director->backends, &msg->ip);

	if (backend != NULL && !host_differs(backend, msg) &&
	    msg->changed > backend->changed)
		backend->changed = msg->changed;
}

static void
removed_learn_time(struct ring *ring, const struct ring_message *msg)
{
	struct ring_removed_host *removed = removed_find(ring, &msg->ip);

	if (removed != NULL && msg->changed > removed->changed)
		removed->changed = msg->changed;
}

void ring_handle_host(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now)
{
	struct director *director = ring->director;
	const struct ring_removed_host *removed;
	enum host_action action = HOST_TAKE;
	struct backend *backend;

	if (msg->type == RING_HOST && !ring_accept(ring, msg)) {
		host_learn_time(ring, msg);
		return;
	}
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend != NULL)
		action = host_decide(ring, peer, backend, msg);
	else if (msg->changed != 0 && ring->handshaked &&
		 (removed = removed_find(ring, &msg->ip)) != NULL &&
		 removed->changed >= msg->changed) {
		removed_send(ring, peer, removed);
		return;
	}
	switch (action) {
	case HOST_IGNORE:
		break;
	case HOST_SAME:
		if (msg->type == RING_HAND_HOST && !peer->merging)
			break;
		host_forward(ring, peer, msg, backend);
		break;
	case HOST_TEACH:
		host_tell(ring, backend);
		break;
	case HOST_TAKE:
	case HOST_MERGED:
		backend = director_host_take(director, msg,
					     ring_peer_name(director, peer));
		if (backend != NULL) {
			host_taken(ring, peer, msg, backend,
				   action == HOST_MERGED, now);
		}
		break;
	}
}

void ring_handle_host_remove(struct ring *ring, struct ring_peer *peer,
			     struct ring_message *msg,
			     const struct director_time *now)
{
	struct director *director = ring->director;
	const struct ring_removed_host *removed;
	struct backend *backend;

	if (!ring_accept(ring, msg)) {
		removed_learn_time(ring, msg);
		return;
	}
	ring_early_users_forget(ring, &msg->ip);
	backend = backend_lookup(director->backends, &msg->ip);
	if (backend == NULL) {
		removed = removed_find(ring, &msg->ip);
		if (msg->changed == 0 ||
		    (removed != NULL && removed->changed >= msg->changed))
			return;
	} else if (msg->changed != 0 && msg->changed < backend->changed) {
		/* It was added again, but who removed it has forgotten its
		   users. (Those of 2.3 would lose its time.) */
		if (ring->min_minor >= RING_MINOR_OURS)
			ring_broadcast(ring, peer->member, msg);
		director_host_forget_users(director, backend,
					   ring_peer_name(director, peer), now);
		host_tell(ring, backend);
		return;
	}
	removed_remember(ring, &msg->ip, msg->changed != 0 ? msg->changed :
			 backend->changed + 1, now);
	ring_broadcast(ring, peer->member, msg);
	if (backend != NULL) {
		director_host_drop(director, backend, msg->flag,
				   ring_peer_name(director, peer), now);
		ring_changed(ring, now);
	} else {
		director_host_is_removed(director, &msg->ip, msg->flag,
					 ring_peer_name(director, peer));
	}
}

static bool happened(uint64_t msecs, unsigned int within_msecs,
		     const struct director_time *now)
{
	return msecs != 0 && now->msecs < msecs + within_msecs;
}

void ring_handle_host_flush(struct ring *ring, struct ring_peer *peer,
			    struct ring_message *msg,
			    const struct director_time *now)
{
	struct director *director = ring->director;
	struct backend *backend = backend_lookup(director->backends, &msg->ip);

	if (!ring_accept(ring, msg)) {
		/* It has come the other way before. Users who were told before
		   it may have come this way, and we have passed them on. */
		if (backend == NULL || !backend->taken_since ||
		    !happened(backend->flushed_msecs, RING_CROSSING_MSECS,
			      now) ||
		    happened(backend->crossed_msecs, RING_CROSSED_MSECS, now))
			return;
		backend->crossed_msecs = I_MAX(now->msecs, 1);
		host_flush_tell(ring, &backend->ip);
	} else {
		if (backend == NULL) {
			ring_early_users_forget(ring, &msg->ip);
			return;
		}
		ring_broadcast(ring, peer->member, msg);
		/* Users of it that we told of may meet the flush on the way,
		   and come after it: whoever takes them has to forget them,
		   too. */
		if (happened(backend->told_msecs, RING_CROSSING_MSECS, now))
			host_flush_tell(ring, &backend->ip);
	}
	ring_early_users_forget(ring, &backend->ip);
	host_flushed(backend, now);
	director_host_forget_users(director, backend,
				   ring_peer_name(director, peer), now);
	ring_changed(ring, now);
}
