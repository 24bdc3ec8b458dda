#ifndef RING_PRIVATE_H
#define RING_PRIVATE_H

#include "director-private.h"
#include "log-throttle.h"
#include "ring.h"

/* Limits of silence and of waiting, ring-protocol.md §1 and
   doc/ring-protocol */
#define RING_CONNECT_TIMEOUT_MSECS 3000
#define RING_ME_TIMEOUT_MSECS 10000
#define RING_HANDSHAKE_OUT_TIMEOUT_MSECS 30000
#define RING_HANDSHAKE_IN_TIMEOUT_MSECS 40000
#define RING_CONNECT_TOLD_TIMEOUT_MSECS 10000
#define RING_WRONG_CONNECT_TIMEOUT_MSECS 1000
#define RING_PING_INTERVAL_MSECS 15000
#define RING_PING_UNSYNCED_INTERVAL_MSECS 1000
#define RING_SYNC_RESEND_MSECS 5000
/* So long a message may be on its way */
#define RING_CROSSING_MSECS 10000
/* A backend isn't flushed more often for users who came behind its flush: on a
   way that is always slower than the round, they would come for ever. */
#define RING_CROSSED_MSECS 60000
/* A removed director or backend is remembered so long, so that nobody who was
   apart brings it back. */
#define RING_REMOVED_PURGE_MSECS (24*60*60*1000)
#define RING_REMOVED_MAX 1000
/* The same DIRECTOR is passed on once in so long: what nobody knows to be news
   could circle in a ring that isn't complete. */
#define RING_PASS_ON_MSECS 1000
/* That a member which is down is tried again is logged once in so long. */
#define RING_CONNECT_LOG_MSECS 60000
/* A candidate for our right gets so much time before the next one is tried as
   well. */
#define RING_CONNECT_RACE_MSECS 500
/* How long others are tried after the start before we run alone */
#define RING_ALONE_WAIT_MSECS DIRECTOR_START_GRACE_MSECS
/* Somebody is connected to us, but we can't connect to anybody: after so long we
   believe that his connection is dead. */
#define RING_HALF_MSECS 5000
/* Others are in a ring with somebody whom we can't reach: so long we are sure of
   it. It is told anew each time that they are tried. */
#define RING_OUTSIDE_MSECS 10000
/* Who has said ME lives. Before we go on alone he has so long to go on. */
#define RING_GREETED_MSECS 5000
/* Links of which both ends are ours: PING after so much silence, gone after so
   much. Silence is counted in steps, so that time in which we didn't run
   ourselves counts as one step only. */
#define RING_FAST_PING_MSECS 1000
#define RING_FAST_DEAD_MSECS 3000
/* The first answer may take twice as long as ME took, and this, but not longer
   than that. */
#define RING_FIRST_PING_MIN_MSECS 1000
#define RING_FIRST_PING_MSECS 7000
#define RING_SILENCE_STEP_MSECS 500
/* More output than this in a peer's buffer goes to the adapter at once. */
#define RING_OUT_FLUSH_SIZE (32*1024)
/* The handshake's users are sent as long as less is waiting for the peer. */
#define RING_HANDSHAKE_QUEUE_SIZE (128*1024)
/* Steps in the user table in a slice of the handshake: about 200 users. A login
   may have to wait for several slices. */
#define RING_HANDSHAKE_STEPS 5000
/* Slices without a pause */
#define RING_HANDSHAKE_SLICES 8
/* So many users who were told last, and not longer ago than this, are told again
   to who has just been connected with us. With what else may be queued then they
   stay below DIRECTOR_OUTPUT_BUFFER_MIN_SIZE. */
#define RING_RECENT_USERS 1024
#define RING_RECENT_MSECS 5000

struct ring {
	struct director *director;
	/* Slices of handshakes that were sent */
	unsigned int slices;
	struct ring_settings set;

	struct ring_members *members;
	struct ring_member *self;
	struct ring_peer *peers;
	/* Among peers */
	struct ring_peer *left, *right;

	/* By number, modulo the size */
	struct {
		uint64_t msecs;
		struct ip_addr ip;
		uint32_t hash;
	} recent_users[RING_RECENT_USERS];
	unsigned int recent_users_count;

	/* How often left came or went */
	unsigned int left_changes;
	/* Left or right came or went: SYNC has to go round again. */
	bool neighbours_changed;

	/* Of our own commands */
	uint32_t last_seq;
	/* Our SYNC rounds: the last one begun, and the one after the last
	   change: who has seen that has seen all. */
	uint32_t sync_seq, sync_changed_seq;
	/* Send it at the end of this turn */
	bool sync_needed;
	/* When the last one was sent; 0 = not since the change */
	uint64_t sync_sent_msecs;
	uint64_t sync_began_msecs;
	unsigned int sync_msecs;
	unsigned int users_received;
	/* A DIRECTOR line told of a change since our last SYNC. */
	bool members_changed;
	/* While we are synced: a SYNC of ours is to be sent at this time, or was
	   with that number, to ask who is there. 0 = none */
	uint64_t ask_msecs, asked_msecs;
	uint32_t ask_seq;

	/* Our ring was complete once. */
	bool handshaked;
	/* We got what a ring knows; soon it is handshaked. */
	bool joined;
	bool synced;
	uint64_t synced_changed_msecs;
	unsigned int min_minor;
	struct log_throttle refused_throttle, failed_throttle;
	struct log_throttle conflict_throttle, full_throttle;

	uint64_t started_msecs;
	/* Since when we have a left but no right, nor a candidate; 0 = it isn't
	   so */
	uint64_t half_msecs;
	/* Until when others are in a ring with this one, whom we can't reach,
	   and since when. Sure: we go on alone. */
	uint64_t outside_msecs, outside_since_msecs;
	struct ring_address unreached;
	bool outside_sure;
	/* What has to be done next by time; 0 = now */
	uint64_t deadline_msecs;
	uint64_t ran_msecs;
	/* We were stopped for so long that the others may have gone on without
	   us: nobody is answered before the ring is synced again. */
	bool was_hung;

	/* Backends that were removed */
	ARRAY(struct ring_removed_host) removed_hosts;
	/* USERs that came before we joined the ring: who hands it to us may have
	   got them later. At most RING_EARLY_USERS_MAX. */
	ARRAY(struct ring_early_user) early_users;
};

#define RING_EARLY_USERS_MAX 16384

struct ring_early_user {
	uint32_t hash;
	struct ip_addr ip;
	/* struct director_time.wall */
	time_t timestamp;
};

struct ring_removed_host {
	struct ip_addr ip;
	/* struct ring_message */
	uint64_t changed;
	uint64_t removed_msecs;
};

/* Text that waits for the end of the turn. Kept beside the peer so that the
   adapter doesn't see it. */
struct ring_peer_out {
	struct ring_peer peer;
	string_t *out;
};

/* Higher ones of ours that others pass on aren't believed: more than enough may
   follow on it. */
#define RING_LAST_SEQ 0xf0000000

/* Why a director ends its connections when it stops */
#define RING_QUIT_SHUTDOWN "Shutting down"
/* What follows is whom. Who says so leaves the ring, with his sessions. */
#define RING_QUIT_UNREACHED "Can't reach "

#define RING_LOG(ring, type, ...) \
	DIRECTOR_LOG((ring)->director, type, t_strdup_printf(__VA_ARGS__))

/* -- ring-peer.c: sending and ending -- */

/* Hands what waits to the adapter. */
void ring_peer_flush(struct ring *ring, struct ring_peer *peer);
/* Closes it and frees it. */
void ring_peer_close(struct ring *ring, struct ring_peer *peer);

/* To one peer, if it knows the message. */
void ring_send(struct ring *ring, struct ring_peer *peer,
	       const struct ring_message *msg);
/* To all who have introduced themselves, except those of one director (may be
   NULL). */
void ring_broadcast(struct ring *ring, const struct ring_member *except,
		    const struct ring_message *msg);
/* USER: its timestamp is of msg->instance's even clock (0: the machine's). */
void ring_broadcast_user(struct ring *ring, const struct ring_member *except,
			 const struct ring_message *msg, time_t core_timestamp,
			 const struct director_time *now);
/* Gives the message ourself as its origin, and a new sequence number. */
void ring_originate(struct ring *ring, struct ring_message *msg);
/* Is it from somebody whose sequence number it carries? If it is new: returns
   TRUE; one of an unknown director becomes ours. */
bool ring_accept(struct ring *ring, struct ring_message *msg);
/* Says that one connects who isn't a member. */
void ring_log_unlisted(struct ring *ring, const struct ip_addr *source_ip,
		       const struct director_time *now);
/* The connection ends: the peer gets QUIT with the reason if not NULL. Nothing
   is freed before the end of the event. */
void ring_peer_end(struct ring *ring, struct ring_peer *peer,
		   const char *quit_reason);
/* The same after an error, which is logged; the member isn't tried for a
   while. */
void ring_peer_fail(struct ring *ring, struct ring_peer *peer, bool protocol,
		    const struct director_time *now, const char *error);
/* Something is to be done before the next deadline. */
static inline void ring_wake(struct ring *ring)
{
	ring->deadline_msecs = 0;
}
bool ring_peer_is_usable(const struct ring_peer *peer);
/* The connection that we made to it; NULL if none */
struct ring_peer *
ring_peer_find_out(struct ring *ring, const struct ring_member *member);
/* The connection to it that there is, or a new one. why: for the log */
struct ring_peer *
ring_peer_connect(struct ring *ring, struct ring_member *member,
		  const char *why, const struct director_time *now);

/* -- ring-connect.c: who is connected to whom -- */

/* How many steps it is upwards from us; we ourself are the farthest. */
unsigned int
ring_right_distance(struct ring *ring, const struct ring_member *member);
void ring_connect_run(struct ring *ring, const struct director_time *now);
void ring_connect_deadline(struct ring *ring, const struct director_time *now,
			   uint64_t *deadline);

/* Others are in a ring with a member whom we can't reach. */
bool ring_is_outside(const struct ring *ring, const struct director_time *now);
/* When outside: so surely that we go on alone */
bool ring_outside_is_sure(struct ring *ring, const struct director_time *now);
void ring_outside_deadline(const struct ring *ring,
			   const struct director_time *now, uint64_t *deadline);
/* We were told to connect to it, whom we have just tried. */
void ring_go_outside(struct ring *ring, const struct ring_member *unreached,
		     const struct director_time *now);
/* It is reached. */
void ring_outside_ends(struct ring *ring, const struct ring_member *member);
/* We were told to connect to it a moment ago, or it doesn't answer. */
bool ring_is_out_of_reach(struct ring *ring, const struct ring_member *member,
			  const struct director_time *now);
/* It may be reached by now: then a new connection works at once, and one that
   hangs may not for seconds. */
void ring_stop_hanging(struct ring *ring, struct ring_member *member,
		       const struct director_time *now);
/* It has been started (again): what became of connecting to the process before,
   and what becomes of it now, says nothing. */
void ring_connect_anew(struct ring *ring, struct ring_member *member);

void ring_handle_me(struct ring *ring, struct ring_peer *peer,
		    struct ring_message *msg, const struct director_time *now);
void ring_handle_done(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now);
void ring_handle_director(struct ring *ring, struct ring_peer *peer,
			  struct ring_message *msg,
			  const struct director_time *now);
void ring_handle_director_remove(struct ring *ring, struct ring_peer *peer,
				 struct ring_message *msg,
				 const struct director_time *now);
void ring_handle_connect(struct ring *ring, struct ring_peer *peer,
			 struct ring_message *msg,
			 const struct director_time *now);
/* -- ring-members.c: who belongs to it -- */

/* Is it between us and our right? Then it isn't in the ring now. */
bool ring_is_skipped(struct ring *ring, const struct ring_member *member);
/* Adds a director that isn't known, and logs by whom. */
struct ring_member *
ring_member_new(struct ring *ring, const struct ring_address *address,
		const char *by);
/* May a director that somebody else tells of be added? If there are too many,
   the one that was removed first is forgotten. Returns FALSE (and logs it) if
   that isn't possible. */
bool ring_members_make_room(struct ring *ring,
			    const struct ring_address *address,
			    const struct director_time *now);
/* A removed member says that it was added at that time (struct ring_message). If
   that was later, somebody has added it while he and we were apart: it is one
   again. */
bool ring_member_returns(struct ring *ring, struct ring_member *member,
			 uint64_t changed);
/* Does a connection to it exist, maybe one that is about to be closed? */
bool ring_member_has_peer(struct ring *ring, const struct ring_member *member);
/* Tells all except one's connections of the member. */
void ring_tell_member(struct ring *ring, const struct ring_member *member,
		      const struct ring_member *except,
		      const struct director_time *now);
/* DIRECTOR, or DIRECTOR-REMOVE if it was removed */
void ring_send_member(struct ring *ring, struct ring_peer *peer,
		      const struct ring_member *member,
		      const struct director_time *now);
/* Tells which directors were lost a moment ago, as far as we know. */
void ring_send_lost(struct ring *ring, struct ring_peer *peer,
		    const struct director_time *now);
void ring_handle_director_lost(struct ring *ring, struct ring_peer *peer,
			       struct ring_message *msg,
			       const struct director_time *now);
/* Somebody knew who was lost when we started, and has told us. */
void ring_forget_assumed(struct ring *ring);
/* Our left has answered a PING: it is alive. */
void ring_left_verified(struct ring *ring, struct ring_peer *left,
			const struct director_time *now);

/* -- ring-handshake.c -- */

/* All members, as DIRECTOR or, if the peer understands when, DIRECTOR-REMOVE */
void ring_send_members(struct ring *ring, struct ring_peer *peer,
		       const struct director_time *now);
void ring_greet(struct ring *ring, struct ring_peer *peer,
		const struct director_time *now);
bool ring_handshake_has_room(struct ring *ring, struct ring_peer *peer);
/* Sends more users if there is room. */
void ring_handshake_more(struct ring *ring, struct ring_peer *peer,
			 const struct director_time *now);
/* The peer has introduced itself: sends what we know. */
void ring_handshake_start(struct ring *ring, struct ring_peer *peer,
			  const struct director_time *now);
void ring_handle_version(struct ring *ring, struct ring_peer *peer,
			 struct ring_message *msg,
			 const struct director_time *now);
void ring_handle_host_hand_start(struct ring *ring, struct ring_peer *peer,
				 struct ring_message *msg,
				 const struct director_time *now);
void ring_handle_hand_host(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now);
void ring_handle_host_hand_end(struct ring *ring, struct ring_peer *peer,
			       struct ring_message *msg,
			       const struct director_time *now);
void ring_handle_options(struct ring *ring, struct ring_peer *peer,
			 struct ring_message *msg,
			 const struct director_time *now);

/* -- ring-hosts.c -- */

/* A change made here: tells the ring. */
void ring_host_changed(struct ring *ring, struct backend *backend,
		       const struct director_time *now);
/* changed: of the backend before it was removed */
void ring_host_removed(struct ring *ring, const struct ip_addr *ip,
		       uint64_t changed, const struct director_time *now);
void ring_host_flushed(struct ring *ring, const struct ip_addr *ip,
		       const struct director_time *now);
/* Tells the peer what was removed, if it understands when. */
void ring_send_removed_hosts(struct ring *ring, struct ring_peer *peer);
/* Forgets backends that were removed long ago. */
void ring_hosts_purge(struct ring *ring, const struct director_time *now);
void ring_host_message(const struct backend *backend,
		       struct ring_message *msg_r);
void ring_resend_hosts(struct ring *ring);
void ring_handle_host(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now);
void ring_handle_host_remove(struct ring *ring, struct ring_peer *peer,
			     struct ring_message *msg,
			     const struct director_time *now);
void ring_handle_host_flush(struct ring *ring, struct ring_peer *peer,
			    struct ring_message *msg,
			    const struct director_time *now);

/* -- ring-users.c -- */

/* A neighbour that was connected to somebody else may have missed the USERs of
   that moment. */
void ring_users_tell_recent(struct ring *ring, struct ring_peer *peer,
			    const struct director_time *now);
/* Tells the ring of this user, whom we have here. */
void ring_user_told(struct ring *ring, user_idx_t idx,
		    const struct director_time *now);
/* He was used at old_timestamp and is used now: is it time to tell? */
bool ring_refresh_is_due(struct ring *ring, uint32_t hash,
			 time_t old_timestamp, time_t timestamp);
/* Starts the agreement that he is near expiry. */
void ring_user_weaken(struct ring *ring, user_idx_t idx);
/* We have joined: USERs that came before and that the handshake didn't know of
   count, unless we know of the user from somewhere else. */
void ring_early_users_restore(struct ring *ring,
			      const struct director_time *now);
/* All users of this backend are forgotten. */
void ring_early_users_forget(struct ring *ring, const struct ip_addr *ip);
void ring_handle_user(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now);
void ring_handle_hand_user(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now);
void ring_handle_user_weak(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now);

/* -- ring-addressed.c: to one director, over the others -- */

/* Sends a message with RING_TRAVEL_TO of ours on its way; its number is
   msg->seq. Returns FALSE if nobody is there who would pass it on. */
bool ring_send_to(struct ring *ring, const struct ring_address *to,
		  struct ring_message *msg);
void ring_handle_addressed(struct ring *ring, struct ring_peer *peer,
			   struct ring_message *msg,
			   const struct director_time *now);

/* -- ring-sync.c -- */

/* Something changed that everybody has to have seen before new users are let
   in. */
void ring_changed(struct ring *ring, const struct director_time *now);
/* The same, but only new users whom the change moves have to wait
   (doc/ring-protocol.md §9). */
void ring_hosts_changed(struct ring *ring, const struct director_time *now);
/* Whether all directors are ours may have changed without our neighbours having:
   asks them with a round for which nobody waits. ring_is_asking() until it has
   come back. */
void ring_ask_minor(struct ring *ring, const struct director_time *now);
bool ring_is_asking(const struct ring *ring);
/* After left or right came or went */
void ring_neighbours_run(struct ring *ring, const struct director_time *now);
/* We have a new right: what the one before got lately may have been lost with
   it. */
void ring_sync_again(struct ring *ring, const struct director_time *now);
void ring_sync_run(struct ring *ring, const struct director_time *now);
void ring_sync_deadline(struct ring *ring, const struct director_time *now,
			uint64_t *deadline);
void ring_set_synced(struct ring *ring, const struct director_time *now);
void ring_handle_sync(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now);

/* -- ring-ping.c -- */

void ring_ping(struct ring *ring, struct ring_peer *peer,
	       const struct director_time *now);
/* Silence is counted in steps, also before ME. */
void ring_count_silence(struct ring_peer *peer,
			const struct director_time *now);
/* Ends it if it was silent for too long. */
void ring_ping_run(struct ring *ring, struct ring_peer *peer,
		   const struct director_time *now);
void ring_ping_deadline(struct ring *ring, const struct ring_peer *peer,
			const struct director_time *now, uint64_t *deadline);
void ring_handle_ping(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now);
void ring_handle_pong(struct ring *ring, struct ring_peer *peer,
		      struct ring_message *msg, const struct director_time *now);

/* The core's seconds, which go on evenly, <-> the machine's clock, which 2.3
   knows only */
static inline time_t
ring_time_to_wire(const struct director_time *now, time_t t)
{
	return t == 0 ? 0 : t - now->wall + now->clock;
}

static inline time_t
ring_time_from_wire(const struct director_time *now, time_t t)
{
	return t == 0 ? 0 : t - now->clock + now->wall;
}

/* The time of a user, told with our instance */
static inline time_t
ring_user_time_to_wire(const struct ring_peer *peer,
		       const struct director_time *now, time_t t)
{
	return peer->minor >= RING_MINOR_OURS ? t : ring_time_to_wire(now, t);
}

/* What a change that follows on one of this time has */
static inline uint64_t
ring_change_after(const struct director_time *now, uint64_t changed)
{
	return I_MAX((uint64_t)now->clock * 1000, changed + 1);
}

/* It was our neighbour. */
static inline void
ring_member_lost(struct ring_member *member, const struct director_time *now)
{
	member->lost_msecs = now->msecs;
	member->lost_instance = member->instance;
	member->lost_connected = member->lost_assumed = FALSE;
	member->lost_heard = 0;
}

/* Its process says ME. Is it another one than the one that was lost, then its
   login processes have had a director since: it is lost from now on, if it
   isn't back soon. */
static inline void
ring_member_heard(struct ring_member *member, uint64_t instance,
		  const struct director_time *now)
{
	if (member->lost_msecs != 0 && instance != member->lost_instance &&
	    instance != member->lost_heard) {
		member->lost_heard = instance;
		member->lost_msecs = now->msecs;
	}
}

/* We start: whoever knew may have started again, too. */
static inline void
ring_member_assume_lost(struct ring_member *member,
			const struct director_time *now)
{
	member->lost_msecs = I_MAX(now->msecs, 1);
	member->lost_assumed = TRUE;
}

/* It may have sessions that nobody sees. */
static inline bool
ring_member_is_lost(const struct director *director,
		    const struct ring_member *member,
		    const struct director_time *now)
{
	return member->lost_msecs != 0 && !member->removed &&
		now->msecs < member->lost_msecs +
			     director->set.lost_grace_msecs;
}

/* Do we know what a ring knows? */
static inline bool ring_knows(const struct ring *ring)
{
	return ring->handshaked || ring->joined;
}

static inline void ring_deadline_min(uint64_t *deadline, uint64_t msecs)
{
	if (msecs < *deadline)
		*deadline = msecs;
}

#endif
