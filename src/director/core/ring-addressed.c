/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Messages to one director, which the others pass on to the right. */

#include "lib.h"
#include "ring-private.h"
#include "session-list.h"

bool ring_send_to(struct ring *ring, const struct ring_address *to,
		  struct ring_message *msg)
{
	if (ring->right == NULL || ring->min_minor < RING_MINOR_OURS)
		return FALSE;
	msg->director = *to;
	msg->origin = ring->self->address;
	msg->hops = RING_MEMBERS_MAX;
	ring_send(ring, ring->right, msg);
	return TRUE;
}

static void
ring_take_addressed(struct ring *ring, const struct ring_message *msg,
		    const struct director_time *now)
{
	struct director *director = ring->director;
	const struct director_session_vfuncs *v = &director->v.sessions;

	switch (msg->type) {
	case RING_USER_KICKED:
		if (v->kicked != NULL) {
			v->kicked(director->context, msg->seq, &msg->origin,
				  msg->count);
		}
		break;
	case RING_SESSIONS:
		session_query_add(director->session_queries, &msg->origin,
				  msg->seq, msg->place, msg->text);
		break;
	case RING_SESSION:
	case RING_SESSIONS_END:
		session_answer(director, msg, now);
		break;
	default:
		i_unreached();
	}
}

void ring_handle_addressed(struct ring *ring,
			   struct ring_peer *peer ATTR_UNUSED,
			   struct ring_message *msg,
			   const struct director_time *now)
{
	const struct ring_address *self = &ring->self->address;

	if (ring_address_cmp(&msg->director, self) == 0) {
		ring_take_addressed(ring, msg, now);
		return;
	}
	/* Who sent it gets it back if the other one isn't there. If both are
	   gone the hops end it. */
	if (ring_address_cmp(&msg->origin, self) == 0 ||
	    ring->right == NULL || msg->hops <= 1)
		return;
	msg->hops = I_MIN(msg->hops, RING_MEMBERS_MAX) - 1;
	ring_send(ring, ring->right, msg);
}
