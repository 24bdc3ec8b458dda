/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "str-sanitize.h"
#include "ring-private.h"
#include "session-lease-private.h"
#include "session-match.h"
#include "user-kick.h"

/* director_max_parallel_kicks, if it isn't told */
#define KICKS_DEFAULT_MAX 100
/* Others may ask for this many times as much. */
#define KICKS_OTHERS_FACTOR 10
/* A login process that doesn't read, or isn't connected at the moment, is told
   later, but not after so long. */
#define KICK_AGAIN_MSECS 100
/* An answer may have become a session of which we hear a little later, and only
   then by its name. */
#define KICK_LATE_MSECS 300
/* A slice ends after one of so many parts in which it has come to so many
   sessions to end. */
#define KICK_SLICE_PARTS 16
#define KICK_SLICE_MAX 128
#define KICK_TIMEOUT_MSECS 10000

struct user_kick {
	struct user_kick *prev, *next;
	/* Its texts are ours. */
	struct session_match match;
	/* Who wants to know how many there were (port 0: nobody), and as which
	   number */
	struct ring_address asked_by;
	uint32_t id;
	/* For the logs */
	char *reason;

	uint64_t began_msecs;
	time_t began;
	/* Place in the leases, and when it goes on */
	unsigned int pos;
	uint64_t again_msecs;
	unsigned int count;
	/* Some couldn't be told in this lap, which is the first, or not */
	unsigned int missed;
	bool again;
	/* In an earlier lap */
	bool had_missed;
	/* There are answers that weren't sessions when it began. */
	bool late;
};

struct user_kicks {
	struct director *director;
	/* Those that are being carried out, and those that wait for processes,
	   by again_msecs */
	struct user_kick *head, *tail, *waiting_head, *waiting_tail;
	unsigned int count;
	struct log_throttle full_throttle;
};

struct user_kicks *user_kicks_init(struct director *director)
{
	struct user_kicks *kicks = i_new(struct user_kicks, 1);

	kicks->director = director;
	return kicks;
}

static void kick_free(struct user_kicks *kicks, struct user_kick *kick)
{
	DLLIST2_REMOVE(&kicks->head, &kicks->tail, kick);
	kicks->count--;
	session_match_free(&kick->match);
	i_free(kick->reason);
	i_free(kick);
}

static void kick_go_on(struct user_kicks *kicks, struct user_kick *kick)
{
	DLLIST2_REMOVE(&kicks->waiting_head, &kicks->waiting_tail, kick);
	DLLIST2_APPEND(&kicks->head, &kicks->tail, kick);
}

void user_kicks_deinit(struct user_kicks **_kicks)
{
	struct user_kicks *kicks = *_kicks;

	*_kicks = NULL;
	while (kicks->waiting_head != NULL)
		kick_go_on(kicks, kicks->waiting_head);
	while (kicks->head != NULL)
		kick_free(kicks, kicks->head);
	i_free(kicks);
}

/* -- One session -- */

struct kick_context {
	struct director *director;
	struct user_kick *kick;
};

static bool lease_kick(struct director *director, struct session_lease *lease,
		       const char *reason)
{
	if (!session_lease_is_told(lease))
		return FALSE;
	if (director->v.sessions.kick != NULL &&
	    !director->v.sessions.kick(director->context, lease->plugin,
				       &lease->token, reason))
		return FALSE;
	lease->ending = TRUE;
	return TRUE;
}

/* An answer of which we haven't heard yet what became of it. Its name isn't known,
   only its hash. */
static void
kick_issued(struct user_kick *kick, struct session_lease *lease)
{
	if (kick->match.type != SESSION_MATCH_NAME) {
		if (!kick->again)
			lease->was_issued = TRUE;
		if (lease->was_issued)
			kick->late = TRUE;
		return;
	}
	if (kick->again ||
	    (lease->user->hash != kick->match.hash &&
	     (kick->match.number == 0 ||
	      lease->user->hash != kick->match.number)))
		return;
	lease->ending = TRUE;
	kick->count++;
}

static void kick_lease(struct session_lease *lease, void *context)
{
	struct kick_context *ctx = context;
	struct user_kick *kick = ctx->kick;

	if (lease->state == SESSION_LEASE_ISSUED) {
		kick_issued(kick, lease);
		return;
	}

	/* later laps are for those that couldn't be told in the first one */
	if (kick->again &&
	    (lease->ending ||
	     (!lease->was_issued &&
	      (!kick->had_missed || (time_t)lease->since > kick->began))))
		return;
	if (!session_matches(ctx->director, &kick->match, lease))
		return;
	if (lease_kick(ctx->director, lease, kick->reason))
		kick->count++;
	else
		kick->missed++;
}

static void kick_user(const struct session_user *user, void *context)
{
	struct session_lease *lease;

	for (lease = user->leases; lease != NULL; lease = lease->user_next)
		kick_lease(lease, context);
}

/* -- A kick -- */

static const char *kick_name(const struct session_match *match)
{
	const char *text = str_sanitize(match->text, 128);

	if (match->type == SESSION_MATCH_FIELD) {
		return t_strdup_printf("Users with %s=%s",
				       str_sanitize(match->field, 64), text);
	}
	return t_strdup_printf("%s %s", match->type == SESSION_MATCH_MASK ?
			       "Users" : "User", text);
}

static void tell_count(struct director *director,
		       const struct ring_address *asked_by, uint32_t id,
		       unsigned int count)
{
	struct ring *ring = director->ring;
	struct ring_message msg = {
		.type = RING_USER_KICKED,
		.seq = id,
		.count = count,
	};

	if (ring_address_cmp(asked_by, &ring->self->address) != 0)
		(void)ring_send_to(ring, asked_by, &msg);
	else if (director->v.sessions.kicked != NULL) {
		director->v.sessions.kicked(director->context, id, asked_by,
					    count);
	}
}

static void kick_ended(struct user_kicks *kicks, struct user_kick *kick,
		       const struct director_time *now)
{
	struct director *director = kicks->director;

	if (kick->count > 0) {
		director_log_throttled(director, DIRECTOR_LOG_KICK,
			t_strdup_printf("%s %s kicked (%u sessions here): %s",
				kick_name(&kick->match), kick->match.type ==
				SESSION_MATCH_NAME ? "is" : "are",
				kick->count, kick->reason), now->msecs);
	}
	director_untold_kick(director, kick_name(&kick->match), now);
	if (kick->missed > 0) {
		DIRECTOR_LOG(director, LOG_TYPE_WARNING, t_strdup_printf(
			"%s: %u sessions couldn't be ended, their login "
			"processes don't answer", kick_name(&kick->match),
			kick->missed));
	}
	if (kick->asked_by.ip.family != 0) {
		tell_count(director, &kick->asked_by, kick->id,
			   kick->count);
	}
	kick_free(kicks, kick);
}

static void kick_lap_ended(struct user_kicks *kicks, struct user_kick *kick,
			   const struct director_time *now)
{
	bool late = kick->late &&
		now->msecs < kick->began_msecs + KICK_LATE_MSECS;

	if ((kick->missed == 0 && !late) ||
	    now->msecs >= kick->began_msecs + KICK_TIMEOUT_MSECS) {
		kick_ended(kicks, kick, now);
		return;
	}
	kick->again = TRUE;
	if (kick->missed > 0)
		kick->had_missed = TRUE;
	kick->missed = 0;
	kick->late = FALSE;
	kick->pos = 0;
	kick->again_msecs = now->msecs + KICK_AGAIN_MSECS;
	DLLIST2_REMOVE(&kicks->head, &kicks->tail, kick);
	DLLIST2_APPEND(&kicks->waiting_head, &kicks->waiting_tail, kick);
}

/* A slice: to look at a session takes much less time than to end it. */
static bool kick_walk(struct user_kicks *kicks, struct user_kick *kick)
{
	struct session_leases *leases = kicks->director->leases;
	struct kick_context ctx = { .director = kicks->director, .kick = kick };
	unsigned int places = session_walk_places(leases) / KICK_SLICE_PARTS;
	unsigned int i, before = kick->count + kick->missed;

	for (i = 0; i < KICK_SLICE_PARTS &&
	     kick->count + kick->missed - before < KICK_SLICE_MAX; i++) {
		if (!session_leases_walk_all(leases, &kick->pos,
					     I_MAX(places, 1), kick_lease,
					     &ctx))
			return FALSE;
	}
	return TRUE;
}

bool user_kicks_run(struct user_kicks *kicks, const struct director_time *now)
{
	struct user_kick *kick = kicks->waiting_head;

	while (kick != NULL && now->msecs >= kick->again_msecs) {
		kick_go_on(kicks, kick);
		kick = kicks->waiting_head;
	}
	kick = kicks->head;
	if (kick == NULL)
		return FALSE;
	if (!kick_walk(kicks, kick))
		kick_lap_ended(kicks, kick, now);
	return kicks->head != NULL;
}

uint64_t user_kicks_next_deadline(const struct user_kicks *kicks,
				  const struct director_time *now)
{
	if (kicks->head != NULL)
		return now->msecs;
	return kicks->waiting_head == NULL ? 0 :
		kicks->waiting_head->again_msecs;
}

static void kick_begin(struct user_kicks *kicks,
		       const struct session_match *match,
		       const struct ring_address *asked_by, uint32_t id,
		       const char *who, const struct director_time *now)
{
	struct director *director = kicks->director;
	struct user_kick *kick = i_new(struct user_kick, 1);
	struct kick_context ctx = { .director = director, .kick = kick };

	session_match_dup(&kick->match, match);
	if (asked_by != NULL)
		kick->asked_by = *asked_by;
	kick->id = id;
	kick->reason = i_strconcat("kicked by ", who, NULL);
	kick->began_msecs = now->msecs;
	kick->began = now->wall;
	kicks->count++;
	DLLIST2_APPEND(&kicks->head, &kicks->tail, kick);
	if (match->type == SESSION_MATCH_NAME &&
	    !session_leases_have_destusers(director->leases)) {
		/* all that match have his hash */
		session_leases_foreach_hash(director->leases, match->hash,
					    kick_user, &ctx);
		kick->pos = SESSION_TABLE_SIZE;
	}
}

static unsigned int kicks_max(const struct director *director)
{
	return director->set.max_parallel_kicks == 0 ? KICKS_DEFAULT_MAX :
		director->set.max_parallel_kicks;
}

/* -- Counting -- */

struct count_context {
	/* NULL: any */
	const char *tag;
	const struct ip_addr *except;
	unsigned int count;
};

static void count_user(const struct session_user *user, void *context)
{
	struct count_context *ctx = context;
	const struct session_lease *lease;

	/* one of an unknown tag may be of this one */
	if (ctx->tag != NULL && user->tag != NULL &&
	    strcmp(user->tag, ctx->tag) != 0)
		return;
	for (lease = user->leases; lease != NULL; lease = lease->user_next) {
		if (lease->state != SESSION_LEASE_ISSUED &&
		    !net_ip_compare(&lease->backend->ip, ctx->except))
			ctx->count++;
	}
}

unsigned int director_count_sessions(struct director *director, uint32_t hash,
				     const struct ip_addr *except)
{
	const struct backend *backend =
		backend_lookup(director->backends, except);
	struct count_context ctx = {
		.tag = backend == NULL ? NULL : backend->tag,
		.except = except,
	};

	session_leases_foreach_hash(director->leases, hash, count_user, &ctx);
	return ctx.count;
}

/* -- By an administrator -- */

bool director_sessions_kick(struct director *director,
			    const struct session_match *match, bool counted,
			    const char *by, uint32_t *id_r,
			    const struct director_time *now)
{
	struct ring *ring = director->ring;
	struct ring_message msg = {
		.type = RING_USER_KICK,
		.text = match->text,
		.flag = counted && ring->min_minor >= RING_MINOR_OURS,
	};

	if (director->kicking->count >= kicks_max(director))
		return FALSE;
	if (match->type == SESSION_MATCH_FIELD) {
		msg.type = RING_USER_KICK_ALT;
		msg.text = match->field;
		msg.value = match->text;
	}
	ring_originate(ring, &msg);
	*id_r = msg.seq;
	ring_broadcast(ring, NULL, &msg);
	kick_begin(director->kicking, match,
		   counted ? &ring->self->address : NULL, msg.seq,
		   director_log_who(by), now);
	return TRUE;
}

void director_sessions_count(struct director *director, uint32_t hash,
			     const struct ip_addr *except, uint32_t *id_r)
{
	struct ring *ring = director->ring;
	struct ring_message msg = {
		.type = RING_USER_COUNT,
		.hash = hash,
		.ip = *except,
	};

	ring_originate(ring, &msg);
	*id_r = msg.seq;
	if (ring->min_minor >= RING_MINOR_OURS)
		ring_broadcast(ring, NULL, &msg);
	tell_count(director, &msg.origin, msg.seq,
		   director_count_sessions(director, hash, except));
}

/* -- By another director -- */

void ring_handle_user_count(struct ring *ring, struct ring_peer *peer,
			    struct ring_message *msg,
			    const struct director_time *now ATTR_UNUSED)
{
	struct ring_address asked_by = msg->origin;
	uint32_t id = msg->seq;

	if (!ring_accept(ring, msg))
		return;
	ring_broadcast(ring, peer->member, msg);
	tell_count(ring->director, &asked_by, id,
		   director_count_sessions(ring->director, msg->hash,
					   &msg->ip));
}

void ring_handle_user_kick(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now)
{
	struct director *director = ring->director;
	struct user_kicks *kicks = director->kicking;
	struct ring_address asked_by = msg->origin;
	uint32_t id = msg->seq;
	struct session_match match;
	const char *error, *who = director_who(&asked_by);
	unsigned int held;

	if (!ring_accept(ring, msg))
		return;
	ring_broadcast(ring, peer->member, msg);
	if (msg->type == RING_USER_KICK_HASH) {
		(void)director_kick_sessions(director, NULL, msg->hash,
			&msg->ip, t_strdup_printf(
				"%s says that he belongs to %s", who,
				net_ip2addr(&msg->ip)), now);
		return;
	}
	if (msg->type == RING_USER_KICK_ALT) {
		i_zero(&match);
		match.type = SESSION_MATCH_FIELD;
		match.field = msg->text;
		match.text = msg->value;
	} else if (*msg->text == '\0' ||
		   session_match_user(director, msg->text, FALSE, &match,
				      &error) < 0) {
		return;
	}
	if (kicks->count >= kicks_max(director) * KICKS_OTHERS_FACTOR) {
		if (log_throttle(&kicks->full_throttle, now->msecs, &held)) {
			RING_LOG(ring, LOG_TYPE_ERROR, "%s: not kicked here, "
				 "%u kicks are being carried out%s",
				 kick_name(&match), kicks->count,
				 log_throttle_more(held));
		}
		return;
	}
	kick_begin(kicks, &match, msg->flag ? &asked_by : NULL, id, who, now);
}
