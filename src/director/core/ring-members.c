/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who belongs to the ring, and how the others learn it (spec: ring-protocol.md
   §7). */

#include "lib.h"
#include "ring-private.h"

static void
member_message(const struct ring_member *member,
	       const struct director_time *now, struct ring_message *msg_r)
{
	i_zero(msg_r);
	msg_r->type = member->removed ? RING_DIRECTOR_REMOVE : RING_DIRECTOR;
	msg_r->director = member->address;
	msg_r->changed = member->changed;
	msg_r->instance = member->instance;
	if (member->clock_known)
		msg_r->even_clock = now->wall + member->clock_diff;
}

void ring_send_member(struct ring *ring, struct ring_peer *peer,
		      const struct ring_member *member,
		      const struct director_time *now)
{
	struct ring_message msg;

	member_message(member, now, &msg);
	ring_send(ring, peer, &msg);
}

void ring_tell_member(struct ring *ring, const struct ring_member *member,
	      const struct ring_member *except, const struct director_time *now)
{
	struct ring_message msg;

	member_message(member, now, &msg);
	ring_broadcast(ring, except, &msg);
}

static void
log_added(struct ring *ring, const struct ring_member *member, const char *by)
{
	RING_LOG(ring, LOG_TYPE_INFO, "Adding director %s to ring "
		 "(requested by %s)", member->name, by);
}

struct ring_member *
ring_member_new(struct ring *ring, const struct ring_address *address,
	   const char *by)
{
	struct ring_member *member;

	member = ring_member_add(ring->members, address);
	log_added(ring, member, by);
	ring_wake(ring);
	return member;
}

bool ring_member_returns(struct ring *ring, struct ring_member *member,
			 uint64_t changed)
{
	if (changed <= member->changed)
		return FALSE;
	log_added(ring, member, member->name);
	member->removed = FALSE;
	member->changed = changed;
	return TRUE;
}

bool ring_member_has_peer(struct ring *ring, const struct ring_member *member)
{
	const struct ring_peer *peer;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (peer->member == member)
			return TRUE;
	}
	return FALSE;
}

bool ring_members_make_room(struct ring *ring,
			    const struct ring_address *address,
			    const struct director_time *now)
{
	struct ring_member *const *list, *oldest = NULL;
	unsigned int i, count, held;

	list = ring_members_sorted(ring->members, &count);
	if (count < RING_MEMBERS_MAX)
		return TRUE;
	for (i = 0; i < count; i++) {
		if (list[i]->removed && !ring_member_has_peer(ring, list[i]) &&
		    (oldest == NULL ||
		     list[i]->removed_msecs < oldest->removed_msecs))
			oldest = list[i];
	}
	if (oldest != NULL) {
		ring_member_forget(ring->members, &oldest);
		return TRUE;
	}
	if (log_throttle(&ring->full_throttle, now->msecs, &held)) {
		RING_LOG(ring, LOG_TYPE_ERROR, "director: %u directors are "
			 "known already, ignoring %s%s", count,
			 ring_address_str(address), log_throttle_more(held));
	}
	return FALSE;
}

/* Is what the message says of the member newer than what we know? */
static bool
member_is_news(const struct ring_member *member, const struct ring_message *msg)
{
	/* The original doesn't tell when: it can only remove. Of two changes at
	   the same time the removal holds, or two would teach each other for
	   ever. */
	if (msg->type == RING_DIRECTOR_REMOVE &&
	    (msg->changed == 0 || msg->changed == member->changed))
		return TRUE;
	return msg->changed > member->changed;
}

static void
member_removed(struct ring *ring, struct ring_member *member,
	       const struct director_time *now)
{
	struct ring_peer *peer;

	member->removed = TRUE;
	member->removed_msecs = now->msecs;
	member->sync_is_delayed = FALSE;
	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		if (peer->member == member)
			ring_peer_end(ring, peer, "Removing from ring");
	}
	ring_changed(ring, now);
}

/* We take an instance that is so much later than one that we don't know: as many
   numbers as fit in are enough for that process, and for us. */
#define RING_ANEW_MSECS (5*60*1000)
/* or later still if we used more numbers ourself, but not for more than these */
#define RING_ANEW_MAX_SEQS (60*60*1000 / RING_SEQ_MSECS)

/* Takes a later instance than that one. The others look then at numbers that
   are higher than its first one: those that were used before aren't, unless that
   process used more than there were quarters of a second until our start, and
   RING_ANEW_MSECS more. */
static void start_anew(struct ring *ring, uint64_t instance)
{
	uint32_t first;

	/* (a process before us may have done so, too: another one) */
	instance += RING_INSTANCE(RING_ANEW_MSECS + ring->set.started %
				  RING_ANEW_MSECS, 0);
	first = RING_INSTANCE_FIRST_SEQ(instance);
	if (ring->last_seq >= first && ring->last_seq - first <
				       RING_ANEW_MAX_SEQS) {
		instance += RING_INSTANCE((ring->last_seq - first + 1) *
					  RING_SEQ_MSECS, 0);
		first = RING_INSTANCE_FIRST_SEQ(instance);
	}
	ring->last_seq = I_MAX(ring->last_seq, first);
	ring->self->instance = instance;
	user_moves_number_from(ring->director->moves, first);
	if (!ring->synced) {
		/* Our SYNC with the one before is ignored by now. */
		ring->sync_needed = TRUE;
	}
}

void ring_handle_director(struct ring *ring, struct ring_peer *peer,
			  struct ring_message *msg,
			  const struct director_time *now)
{
	struct ring_member *member;
	bool news;

	member = ring_member_lookup(ring->members, &msg->director);
	if (member != NULL && member->self) {
		/* whoever was apart when we were added learns it from us */
		member->changed = I_MAX(member->changed, msg->changed);
		if (ring_member_is_later(member, msg->instance) &&
		    msg->instance < RING_INSTANCE_MAX) {
			/* Our clock was set back while we didn't run: the
			   others take us for the process before us. */
			start_anew(ring, msg->instance);
			ring_tell_member(ring, member, NULL, now);
		}
		return;
	}
	if (member == NULL) {
		if (!ring_members_make_room(ring, &msg->director, now))
			return;
		member = ring_member_new(ring, &msg->director, peer->member->name);
		(void)ring_member_restarted(member, msg->instance);
		member->changed = I_MAX(msg->changed, 1);
		news = TRUE;
	} else {
		news = member_is_news(member, msg);
		if (news) {
			if (member->removed)
				log_added(ring, member, peer->member->name);
			member->removed = FALSE;
			member->changed = msg->changed;
		} else if (member->removed) {
			/* whoever was apart has to learn it */
			ring_send_member(ring, peer, member, now);
			return;
		}
		if (ring_member_is_later(member, msg->instance)) {
			(void)ring_member_restarted(member, msg->instance);
			ring_connect_anew(ring, member);
			news = TRUE;
		} else if (peer->done_received &&
			   (peer->minor < RING_MINOR_OURS ||
			    (msg->instance == 0 && member->instance == 0))) {
			/* It may have started again: those of 2.3 don't pass
			   on which start it is. */
			ring_member_reset(member);
		} else if (msg->instance == 0) {
			/* or it is of 2.3 now: its numbers tell */
			ring_member_reset_sync(member);
		} else if (msg->instance != member->instance) {
			/* its clock was set back: it has to learn it */
			ring_send_member(ring, peer, member, now);
		}
	}
	if (member == peer->member && msg->instance != 0)
		peer->instance = msg->instance;
	/* Its ME may have waited until we had started. This hasn't. */
	if (msg->even_clock != 0 && msg->instance == member->instance &&
	    (!member->clock_known || member == peer->member)) {
		ring_member_set_clock(member, msg->even_clock, now->wall,
				      now->msecs);
	}
	if (news && peer->done_received) {
		/* it is alive: try it now */
		if (member->last_protocol_failure == 0)
			member->retry_msecs = 0;
		ring_wake(ring);
	}
	if (!news && ((msg->instance != 0 && peer->minor >= RING_MINOR_OURS) ||
		      (member->passed_on_msecs != 0 && now->msecs -
		       member->passed_on_msecs < RING_PASS_ON_MSECS)))
		return;
	if (!news && ring->right != NULL && ring_right_distance(ring, member) <
		   ring_right_distance(ring, ring->right->member)) {
		/* Nobody knows whether it is news: it ends at the one who ought
		   to be connected to it but isn't. */
		return;
	}
	member->passed_on_msecs = now->msecs;
	ring->members_changed = TRUE;
	ring_tell_member(ring, member, peer->member, now);
}

void ring_send_lost(struct ring *ring, struct ring_peer *peer,
		    const struct director_time *now)
{
	struct ring_member *const *list;
	struct ring_message msg = { .type = RING_DIRECTOR_LOST };
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		/* (of long ago, too: who has just started can't know it) */
		if (list[i]->lost_msecs == 0 || list[i]->removed ||
		    (list[i]->lost_assumed &&
		     !ring_member_is_lost(ring->director, list[i], now)))
			continue;
		msg.director = list[i]->address;
		msg.lost_msecs = I_MIN(now->msecs - list[i]->lost_msecs,
				       UINT32_MAX);
		msg.instance = list[i]->lost_instance;
		ring_send(ring, peer, &msg);
	}
}

void ring_handle_director_lost(struct ring *ring, struct ring_peer *peer,
			       struct ring_message *msg,
			       const struct director_time *now)
{
	struct ring_member *member =
		ring_member_lookup(ring->members, &msg->director);
	uint64_t lost_msecs = now->msecs - I_MIN(msg->lost_msecs, now->msecs);
	const struct ring_peer *other;

	/* Without instance the sender has only started. */
	if (member == NULL || member->self || member == peer->member ||
	    (msg->instance == 0 && !member->lost_assumed) ||
	    (msg->lost_msecs >= ring->director->set.lost_grace_msecs &&
	     !member->lost_assumed) || member->sync_msecs > lost_msecs ||
	    (ring_member_is_lost(ring->director, member, now) &&
	     !member->lost_assumed))
		return;
	for (other = ring->peers; other != NULL; other = other->next) {
		/* (who hangs is connected, but doesn't answer) */
		if (other->member == member && other->done_received)
			return;
	}
	ring_member_lost(member, now);
	member->lost_msecs = I_MAX(lost_msecs, 1);
	member->lost_instance = msg->instance;
}

void ring_forget_assumed(struct ring *ring)
{
	struct ring_member *const *list;
	unsigned int i, count;

	list = ring_members_sorted(ring->members, &count);
	for (i = 0; i < count; i++) {
		if (list[i]->lost_assumed) {
			list[i]->lost_assumed = FALSE;
			list[i]->lost_msecs = 0;
		}
	}
}

void ring_handle_director_remove(struct ring *ring, struct ring_peer *peer,
				 struct ring_message *msg,
				 const struct director_time *now)
{
	struct ring_member *member;

	member = ring_member_lookup(ring->members, &msg->director);
	if (member == NULL) {
		if (msg->changed == 0 ||
		    !ring_members_make_room(ring, &msg->director, now))
			return;
		/* so that nobody who was apart brings it back */
		member = ring_member_add(ring->members, &msg->director);
		member->removed = TRUE;
		member->removed_msecs = now->msecs;
		member->changed = msg->changed;
		ring_tell_member(ring, member, peer->member, now);
		return;
	}
	if (member->self) {
		RING_LOG(ring, LOG_TYPE_WARNING,
			 "%s: We were removed from the ring",
			 ring_peer_name(ring->director, peer));
		return;
	}
	if (member->removed) {
		member->changed = I_MAX(member->changed, msg->changed);
		return;
	}
	if (!member_is_news(member, msg)) {
		/* it was added again */
		ring_send_member(ring, peer, member, now);
		return;
	}
	RING_LOG(ring, LOG_TYPE_INFO, "Removing director %s from ring "
		 "(requested by %s)", member->name, peer->member->name);
	member->changed = msg->changed != 0 ? msg->changed :
		member->changed + 1;
	member_removed(ring, member, now);
	ring_tell_member(ring, member, peer->member, now);
}

void ring_add_member(struct director *director,
		     const struct ring_address *address, const char *by,
		     const struct director_time *now)
{
	struct ring *ring = director->ring;
	struct ring_member *member;

	member = ring_member_lookup(ring->members, address);
	if (member != NULL && member->self)
		return;
	if (member == NULL)
		member = ring_member_new(ring, address, by);
	else if (member->removed) {
		log_added(ring, member, by);
		member->removed = FALSE;
	}
	member->changed = ring_change_after(now, member->changed);
	ring_member_works(member);
	ring_tell_member(ring, member, NULL, now);
	ring_connect_run(ring, now);
	ring_wake(ring);
}

bool ring_remove_member(struct director *director,
			const struct ring_address *address, const char *by,
			const struct director_time *now)
{
	struct ring *ring = director->ring;
	struct ring_message msg;
	struct ring_member *member;

	member = ring_member_lookup(ring->members, address);
	if (member == NULL || member->removed)
		return FALSE;
	RING_LOG(ring, LOG_TYPE_INFO, "Removing director %s from ring "
		 "(requested by %s)", member->name, by);
	member->changed = ring_change_after(now, member->changed);
	member_message(member, now, &msg);
	msg.type = RING_DIRECTOR_REMOVE;
	ring_broadcast(ring, NULL, &msg);
	/* ourself: the others disconnect us */
	if (!member->self)
		member_removed(ring, member, now);
	return TRUE;
}
