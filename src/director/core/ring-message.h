#ifndef RING_MESSAGE_H
#define RING_MESSAGE_H

#include "net.h"

/* The lines of the ring protocol (spec: ring-protocol.md §2, §5-11): text to
   struct and back. Knows nobody. */

#define RING_PROTOCOL_NAME "director"
#define RING_PROTOCOL_MAJOR 1
/* Ours. 10 adds what doc/ring-protocol.md says. */
#define RING_PROTOCOL_MINOR 10
/* The last one of the original */
#define RING_MINOR_ORIGINAL 9
/* Older peers are refused: their HOST lines have no usable tags. */
#define RING_MINOR_MIN 7
/* "U" instead of "USER" in the handshake, USER has a timestamp */
#define RING_MINOR_USER_TIMESTAMP 9
/* Everything that only we have */
#define RING_MINOR_OURS 10

/* Without the LF. What is longer is refused on both sides. */
#define RING_LINE_MAX 1023

enum ring_message_type {
	/* Handshake */
	RING_VERSION,
	RING_ME,
	RING_HOST_HAND_START,
	RING_HAND_HOST,
	RING_HOST_HAND_END,
	RING_HAND_USER,
	RING_OPTIONS,
	RING_DONE,
	/* Membership */
	RING_DIRECTOR,
	RING_DIRECTOR_REMOVE,
	RING_DIRECTOR_LOST,
	RING_CONNECT,
	/* Backends */
	RING_HOST,
	RING_HOST_REMOVE,
	RING_HOST_FLUSH,
	/* Users */
	RING_USER,
	RING_USER_WEAK,
	RING_USER_MOVE,
	RING_USER_KICK,
	RING_USER_KICK_ALT,
	RING_USER_KICK_HASH,
	RING_USER_COUNT,
	RING_USER_KICKED,
	RING_USER_KILLED,
	RING_USER_KILLED_EVERYWHERE,
	/* Sessions */
	RING_SESSIONS,
	RING_SESSION,
	RING_SESSIONS_END,
	/* The link */
	RING_SYNC,
	RING_PING,
	RING_PONG,
	RING_QUIT,

	RING_MESSAGE_TYPES
};

/* How the message travels (ring-protocol.md §6) */
enum ring_travel {
	/* Not at all */
	RING_TRAVEL_LINK,
	/* Its handler decides */
	RING_TRAVEL_OWN,
	/* To all connections except the sender's; has an origin and a sequence
	   number */
	RING_TRAVEL_ALL,
	/* To the right until it is at the director that it is for; at most so
	   many hops */
	RING_TRAVEL_TO,
};

/* A director is identified by address and port. */
struct ring_address {
	struct ip_addr ip;
	in_port_t port;
};

struct ring_message {
	enum ring_message_type type;

	/* Who sent it first, and the how manieth it is from there (RING_TRAVEL_
	   ALL and USER-WEAK). SYNC: its originator and seq. RING_TRAVEL_TO: its
	   sender, and the number of what is asked or answered. */
	struct ring_address origin;
	uint32_t seq;
	/* ME, DIRECTOR, DIRECTOR-REMOVE, DIRECTOR-LOST, CONNECT: which director;
	   RING_TRAVEL_TO: for whom it is */
	struct ring_address director;
	/* From minor 10 on. ME: which process start of it; DIRECTOR: the same, 0
	   if not known; DIRECTOR-LOST: of the process that was lost, 0 if not
	   known; USER: of the director whose clock the timestamp is of, 0 if
	   not known. */
	uint64_t instance;
	/* HOST, HOST-REMOVE, DIRECTOR, DIRECTOR-REMOVE from minor 10 on: when
	   it was changed. The higher one is the newer one. Milliseconds since
	   1970, but always more than that of the change before; 0 if not told,
	   1 for what was configured. */
	uint64_t changed;
	/* ME, DIRECTOR from minor 10 on: what the clock of that director that
	   goes on evenly (struct director_time.wall) shows now, as far as the
	   sender knows; 0 if not known. Seconds since 1970. */
	uint64_t even_clock;
	/* DIRECTOR-LOST: so many milliseconds ago */
	uint32_t lost_msecs;

	/* USER-MOVE, USER-KILLED, USER-KILLED-EVERYWHERE from minor 10 on: the how
	   manieth move of that director (USER-KILLED: "director") it is; 0 if it
	   has no name */
	uint32_t wave;

	/* RING_TRAVEL_TO: how often it may still be passed on */
	uint32_t hops;
	/* USER-KICKED, SESSIONS-END: how many sessions */
	uint32_t count;
	/* SESSIONS: where in the director's list; SESSIONS-END: where it goes on,
	   0 = that was all */
	uint32_t place;

	/* Backend; USER-KICK-HASH, USER-COUNT: the spared one; USER-KILLED(-EVERYWHERE) from
	   minor 10 on: to which he moves, family 0 if not told */
	struct ip_addr ip;
	uint32_t vhosts;
	/* "" if none; SESSION: its state */
	const char *tag;
	/* "" if none; SESSION: its service */
	const char *hostname;
	bool down;
	/* The state (down, timestamp) is given. */
	bool has_state;

	uint32_t hash;
	bool weak;
	/* U from minor 10 on: he is being moved */
	bool moving;

	/* Seconds since 1970 on the sender's clock (SYNC: the originator's).
	   HOST: of the last up/down change; USER, U: last use; ME, PING, PONG:
	   now; SESSION: when it began. */
	time_t timestamp;
	bool has_timestamp;

	/* VERSION */
	unsigned int major;
	/* VERSION; SYNC: lowest until now, 0 if not told */
	unsigned int minor;
	/* HOST-HAND-START, -END: the sender knows a ring that is or was
	   handshaked. From minor 10 on: DONE: it doesn't; USER-MOVE, USER-
	   KILLED(-EVERYWHERE): he is only ended on that backend, since there is
	   no other one; USER-KICK(-ALT): it is to be told how many there were;
	   HOST-REMOVE: the sessions on it stay */
	bool flag;
	/* SYNC; 0 = not told */
	uint32_t hosts_hash;
	/* PING, PONG: bytes that the sender has not sent yet */
	uint64_t buffered;

	/* VERSION: protocol name; OPTIONS: all, separated by TABs; USER-KICK,
	   SESSIONS: user name or mask; SESSION: user name; USER-KICK-ALT:
	   field; QUIT: reason. "" if none. */
	const char *text;
	/* USER-KICK-ALT. "" if none */
	const char *value;
};

/* The name on the wire */
const char *ring_message_name(enum ring_message_type type);
/* Peers with a lower minor don't get it. */
unsigned int ring_message_min_minor(enum ring_message_type type);
enum ring_travel ring_message_travel(enum ring_message_type type);

/* Decodes a line (without LF and CR, and it can't have NULs). peer_minor: what
   the peer said in VERSION, 0 before. handshake: the sender hasn't sent DONE
   yet, so there are handshake messages, and USER of old peers is one.
   in_host_list: between HOST-HAND-START and -END, where HOST has no origin.
   What doesn't belong here is refused. Texts of msg_r are on the data stack.
   Returns 0, or -1 and what is wrong ("HOST: Invalid vhosts 'x'", on the data
   stack; msg_r is undefined then); nothing that comes from outside is an
   assert. */
int ring_message_parse(const char *line, unsigned int peer_minor,
		       bool handshake, bool in_host_list,
		       struct ring_message *msg_r, const char **error_r);

/* Appends the line with its LF, in the form that a peer of this minor
   understands (for what goes to several peers: the lowest). The caller has
   looked at ring_message_min_minor(). If the line would be longer than
   RING_LINE_MAX, or a tag or host name is one that ring_message_parse()
   refuses (over 255 bytes, control characters), nothing is appended and FALSE
   is returned. Texts may be NULL instead of "". */
bool ring_message_append(string_t *dest, const struct ring_message *msg,
			 unsigned int minor);

/* Order of ring-protocol.md §4: family, address bytes, port. -1, 0, 1 */
int ring_address_cmp(const struct ring_address *a1,
		     const struct ring_address *a2);
/* The same for all, without a key */
unsigned int ring_address_hash(const struct ring_address *address);
/* ip:port, [ip]:port; on the data stack */
const char *ring_address_str(const struct ring_address *address);

#endif
