#ifndef RING_H
#define RING_H

#include "membership.h"

/* The ring of directors: what one of them knows of it and does for it (spec:
   ring-protocol.md). Part of the core: connections are the adapter's, which
   tells here what happens to them and does what struct ring_vfuncs says. */

struct director;
struct director_time;
struct ring;

/* Incoming connections that haven't introduced themselves yet */
#define RING_MAX_PENDING 32
/* of one address */
#define RING_MAX_PENDING_SOURCE 4

enum ring_peer_state {
	/* connect() hasn't succeeded yet */
	RING_PEER_CONNECTING,
	/* VERSION and ME haven't come yet */
	RING_PEER_GREETING,
	RING_PEER_HANDSHAKING,
	/* DONE in both directions */
	RING_PEER_DONE,
};

/* One connection. The core's, but for what the adapter is to set. */
struct ring_peer {
	struct ring_peer *prev, *next;
	/* -- the adapter's -- */
	void *connection;

	/* -- read only for it -- */
	/* NULL: incoming, hasn't said ME yet */
	struct ring_member *member;
	struct ip_addr source_ip;
	enum ring_peer_state state;
	bool incoming;
	/* Of the protocol, as the peer said; 0 before */
	unsigned int minor;
	/* Its ring is synced with ours. */
	bool synced;
	/* Users got and sent in the handshake */
	unsigned int users_received, users_sent;
	/* The last PING's answer took so long; UINT_MAX: none yet */
	unsigned int ping_msecs;

	/* -- the core's own -- */
	/* Which process start of the member it is; 0 = not told */
	uint64_t instance;
	uint64_t created_msecs;
	/* So long it took until it said ME */
	unsigned int greeting_msecs;
	/* Last input; next thing to do by time; 0 = none */
	uint64_t input_msecs, deadline_msecs;
	/* When the pending PING was sent; 0 = none */
	uint64_t ping_sent_msecs;
	/* Silence so far, of time in which we ran ourselves */
	unsigned int silent_msecs;
	uint64_t silence_counted_msecs;
	/* Place of the handshake in the user table */
	uint32_t users_pos;

	bool version_received:1, me_received:1, done_received:1, done_sent:1;
	/* We send users now. */
	bool sending_users:1;
	/* Between HOST-HAND-START and -END; its hosts aren't taken */
	bool in_host_list:1, ignore_hosts:1, ignore_users:1;
	bool options_received:1;
	/* We join its ring: its users are ours. */
	bool joining:1;
	/* What we handed to it is what a ring knows. It doesn't know what a ring
	   knows. */
	bool handed_ring:1, isnt_ready:1;
	/* Both rings were handshaked before: what is new to us is told on. */
	bool merging:1;
	/* Our left, but is it alive? */
	bool verifying:1;
	/* Told to CONNECT elsewhere: its input is ignored until it goes */
	bool told_connect:1;
	/* Its CONNECT was wrong: closed at deadline_msecs */
	bool wrong_connect:1;
	/* Is to be closed when the event has been handled */
	bool dead:1;
};

/* What is to be done outside. None may call the core. */
struct ring_vfuncs {
	/* Connect to peer->member, and set peer->connection. Ends in
	   ring_peer_connected() or ring_peer_closed(). */
	void (*connect)(void *context, struct ring_peer *peer);
	void (*send)(void *context, struct ring_peer *peer,
		     const void *data, size_t size);
	/* Bytes that aren't sent yet */
	size_t (*queued)(void *context, struct ring_peer *peer);
	/* Send what can be sent at once and close. peer is gone when this
	   returns. */
	void (*close)(void *context, struct ring_peer *peer);
};

struct ring_settings {
	/* port 0: no ring, we are alone for ever */
	struct ring_address self;
	/* Of director_servers; may contain ourself */
	const struct ring_address *members;
	unsigned int members_count;
	unsigned int ping_idle_msecs, ping_max_msecs;
	/* When this process was started, milliseconds since 1970 by the
	   machine's clock: a later start has a higher number. */
	uint64_t started;
};

/* -- Connections -- */

/* Somebody connected from this address. Returns NULL if the connection is to
   be dropped (logged). The caller sets peer->connection; the greeting is sent
   by ring_run(). */
struct ring_peer *
ring_peer_accept(struct director *director, const struct ip_addr *source_ip,
		 const struct director_time *now);
void ring_peer_connected(struct director *director, struct ring_peer *peer,
			 const struct director_time *now);
/* A line without its LF. May be called many times in a turn;
   ring_input_end() after the last one. Returns FALSE if no more input of this
   peer is wanted: it is closed by ring_input_end(). */
bool ring_peer_input(struct director *director, struct ring_peer *peer,
		     const char *line, const struct director_time *now);
/* The line is longer than RING_LINE_MAX, or has a NUL. */
void ring_peer_bad_input(struct director *director, struct ring_peer *peer,
			 const char *problem, const struct director_time *now);
void ring_input_end(struct director *director,
		    const struct director_time *now);
/* Its output buffer has room again. */
void ring_peer_drained(struct director *director, struct ring_peer *peer,
		       const struct director_time *now);
/* It closed, or couldn't be connected to. peer is gone when this returns;
   vfunc close() isn't called. */
void ring_peer_closed(struct director *director, struct ring_peer *peer,
		      const char *reason, const struct director_time *now);
/* "director(ip:port/right)", as the log lines name it; on the data stack */
const char *ring_peer_name(struct director *director,
			   const struct ring_peer *peer);

/* -- State -- */

struct ring *director_ring(struct director *director);
bool ring_is_synced(const struct ring *ring);
bool ring_is_handshaked(const struct ring *ring);
/* Nobody else is there (or can be reached). */
bool ring_is_alone(const struct ring *ring);
/* All directors have at least this protocol. */
unsigned int ring_min_minor(const struct ring *ring);
struct ring_members *ring_get_members(struct ring *ring);
const struct ring_member *ring_self(const struct ring *ring);
const struct ring_peer *ring_peers(const struct ring *ring);
const struct ring_peer *ring_left(const struct ring *ring);
const struct ring_peer *ring_right(const struct ring *ring);
/* When it became synced or unsynced, monotonic */
uint64_t ring_synced_changed(const struct ring *ring);
/* When the last SYNC round began, monotonic, and how long it took if it has
   ended */
uint64_t ring_sync_began(const struct ring *ring);
unsigned int ring_sync_msecs(const struct ring *ring);
/* How many users the others have told of (USER, USER-WEAK, U) */
unsigned int ring_users_received(const struct ring *ring);

/* -- Membership, by an administrator. by: prefix of the log lines -- */

/* Known ones are tried at once. */
void ring_add_member(struct director *director,
		     const struct ring_address *address, const char *by,
		     const struct director_time *now);
/* port 0: any. Returns FALSE if it isn't known. */
bool ring_remove_member(struct director *director,
			const struct ring_address *address, const char *by,
			const struct director_time *now);

#endif
