#ifndef MEMBERSHIP_H
#define MEMBERSHIP_H

#include "ring-message.h"

/* The directors of the ring as this one knows them: order, what was seen from
   each (sequence memory), when which one failed (spec: ring-protocol.md §4,
   §6.1, §9). Knows no connections. Times named _msecs are monotonic, others
   seconds since 1970. */

struct ring_members;

/* After a failure of the network the member is tried again this much later,
   after a refusal of any kind at first after _REFUSED_MIN, then twice as much
   each time. */
#define RING_RETRY_NETWORK_MSECS 2000
#define RING_RETRY_REFUSED_MIN_MSECS 2000
#define RING_RETRY_REFUSED_MAX_MSECS 60000

/* A member that accepts a connection lives. If that connection breaks, so long,
   since the first one that did, we don't believe to be alone. */
#define RING_BROKE_MSECS 10000

/* Whatever happened, it isn't connected to again before, unless another director
   tells us to. */
#define RING_REDIAL_MSECS 2000

/* So many USER-WEAKs of a director are remembered; what is older isn't passed on
   any more. The same one is passed on as often as a SYNC. */
#define RING_WEAK_MEMORY 64
/* Others can't make us know more members than these, the removed ones
   included. */
#define RING_MEMBERS_MAX 64
/* The same SYNC is passed on at most so many times. */
#define RING_SYNC_MAX_REPEATS 4
/* A SYNC with a lower sequence number is believed if its originator's clock
   has gone on so much. */
#define RING_SYNC_STALE_SECS 120
/* Clocks that go on evenly may still go at different speeds: after this the
   difference is measured anew. */
#define RING_CLOCK_RENEW_MSECS (10*60*1000)

/* What names a process start in the whole ring: of the same director a later
   one is higher, and no two directors have the same. */
#define RING_INSTANCE_BITS 14
#define RING_INSTANCE_MSECS 16
#define RING_INSTANCE(started_msecs, hash) \
	(((uint64_t)(started_msecs) / RING_INSTANCE_MSECS << RING_INSTANCE_BITS) | \
	 ((hash) & ((1U << RING_INSTANCE_BITS) - 1)))

/* Nobody has started so late (2248). Higher ones of ours aren't believed: what
   follows on them couldn't be told. */
#define RING_INSTANCE_MAX ((1ULL << 53) - RING_INSTANCE(24*60*60*1000, 0))

#define RING_SEQ_MSECS 250
/* Sequence numbers begin behind those of an earlier process start, unless that
   used up four in each second: what it had sent, and a director that was hung
   passes on now, isn't taken for the new one's. */
#define RING_FIRST_SEQ(started_msecs) \
	((uint32_t)((started_msecs) / RING_SEQ_MSECS) & 0x7fffffff)
/* The same of a process start as the ring knows it, or one less; 0 if that isn't
   known */
#define RING_INSTANCE_FIRST_SEQ(instance) \
	RING_FIRST_SEQ(((instance) >> RING_INSTANCE_BITS) * RING_INSTANCE_MSECS)

/* Numbers that are so much lower than that are of a process that counts otherwise:
   two weeks */
#define RING_OTHER_SEQS (14*24*60*60 * 1000ULL / RING_SEQ_MSECS)

/* A SYNC as it travels */
struct ring_sync_memory {
	uint32_t seq;
	unsigned int minor;
	time_t timestamp;
	uint32_t hosts_hash;
	/* Of its originator; 0 = not told */
	uint64_t instance;
};

struct ring_member {
	struct ring_address address;
	/* ip:port */
	char *name;
	bool self;
	/* By an administrator: isn't connected to, nor listened to. */
	bool removed;
	uint64_t removed_msecs;
	/* When it was added or removed (struct ring_message); 1 if it was
	   configured */
	uint64_t changed;
	/* Its evenly going clock minus ours, seconds */
	time_t clock_diff;
	bool clock_known;
	uint64_t clock_known_msecs;

	/* Which process start of it told us its sequence numbers; 0 if it is
	   one that doesn't tell (2.3). */
	uint64_t instance;
	/* Highest sequence number of a command that came from it, or what its
	   process begins behind */
	uint32_t last_seq;

	/* The USER-WEAKs that came from it last, by seq modulo the size, and how
	   often each was passed on */
	struct {
		uint32_t seq;
		unsigned int count;
	} weak[RING_WEAK_MEMORY];

	/* The last SYNC of it, how often it came, and when */
	struct ring_sync_memory sync;
	unsigned int sync_count;
	uint64_t sync_msecs;
	/* A SYNC that waits for a right neighbour, or for this one, over whose
	   connection it came, to become our left (port 0: it came from the
	   left) */
	struct ring_sync_memory delayed_sync;
	struct ring_address delayed_by;
	bool sync_is_delayed;
	/* Its SYNC had this hosts hash, which isn't ours; 0 = none. Since
	   when. */
	uint32_t wrong_hosts_hash;
	uint64_t wrong_hosts_msecs;
	/* Ours then */
	uint32_t wrong_own_hash;

	/* For the operator; 0 = never */
	time_t last_network_failure;
	time_t last_protocol_failure;
	/* Don't connect before; 0 = any time */
	uint64_t retry_msecs;
	unsigned int refused_backoff_msecs;
	/* When its DIRECTOR was passed on last; 0 = never */
	uint64_t passed_on_msecs;
	/* When we lost our connection with it; 0: it is in the ring again, or
	   was none of our neighbours. Which process that was; it has connected
	   since */
	uint64_t lost_msecs;
	uint64_t lost_instance;
	bool lost_connected;
	/* Which later one has said ME; 0 = none */
	uint64_t lost_heard;
	/* Nobody has told us yet whether it was lost before we started. */
	bool lost_assumed;
	/* When we connected to it last, when we were told to, when that was
	   logged; 0 = never */
	uint64_t connected_msecs, connect_told_msecs, connect_logged_msecs;
	/* So long it took the last time until it said ME; 0 = not known */
	unsigned int greeting_msecs;
	/* When connect() failed; 0 = it has worked since, or never failed */
	uint64_t unreached_msecs;
	/* A connection with it broke before it was of any use, the first one
	   that did: until then it isn't given up; 0 = it didn't */
	uint64_t broke_until_msecs;
};

struct ring_members *ring_members_init(void);
void ring_members_deinit(struct ring_members **members);

/* Adds a member that isn't there. It stays until ring_member_forget(). */
struct ring_member *
ring_member_add(struct ring_members *members,
		const struct ring_address *address);
void ring_member_forget(struct ring_members *members,
			struct ring_member **member);
/* NULL if unknown. port 0: the first one with that address. */
struct ring_member *
ring_member_lookup(struct ring_members *members,
		   const struct ring_address *address);
/* The one that told this instance, which isn't 0; NULL if none. */
struct ring_member *
ring_member_by_instance(struct ring_members *members, uint64_t instance);
/* Is a member at this address, on whatever port, maybe one that is removed? */
bool ring_members_have_ip(struct ring_members *members,
			  const struct ip_addr *ip);

/* All, in the order of the ring; valid until one is added or forgotten. */
struct ring_member *const *
ring_members_sorted(struct ring_members *members, unsigned int *count_r);
/* How many steps from one member upwards to the other, with wrap; 1 is its
   right neighbour, 0 itself. */
unsigned int
ring_members_distance(struct ring_members *members,
		      const struct ring_member *from,
		      const struct ring_member *to);

/* Its evenly going clock showed its_now when it sent what we got just now, when
   ours shows our_now. What was on its way for the shortest time is believed. */
void ring_member_set_clock(struct ring_member *member, time_t its_now,
			   time_t our_now, uint64_t now_msecs);
/* A command of this origin: returns FALSE if it is a duplicate. */
bool ring_member_accept_seq(struct ring_member *member, uint32_t seq);
/* A USER-WEAK of this origin, which has to come round: returns FALSE if it did so
   too often already. */
bool ring_member_accept_weak(struct ring_member *member, uint32_t seq);
/* Somebody tells that this is a process start of it: is it a later one than
   what we know? */
bool ring_member_is_later(const struct ring_member *member, uint64_t instance);
/* Its SYNCs may have any number again. */
void ring_member_reset_sync(struct ring_member *member);
/* Whatever was seen of it may come again. */
void ring_member_reset(struct ring_member *member);
/* It has started (again): what was seen is of no use any more. instance: as it
   told, 0 if it didn't. Returns FALSE if it is the process that we know. */
bool ring_member_restarted(struct ring_member *member, uint64_t instance);

enum ring_sync_action {
	RING_SYNC_IGNORE,
	/* First time, or again */
	RING_SYNC_FORWARD,
	/* Like forward; its clock shows that we missed a restart. */
	RING_SYNC_FORWARD_STALE,
};
/* What to do with a SYNC of this member; remembers it. */
enum ring_sync_action
ring_member_sync(struct ring_member *member,
		 const struct ring_sync_memory *sync);

void ring_member_network_failed(struct ring_member *member, uint64_t now_msecs,
				time_t now);
/* It refused us or we refused it. protocol: it broke the protocol. */
void ring_member_refused(struct ring_member *member, bool protocol,
			 uint64_t now_msecs, time_t now);
/* It works: whatever failed is forgotten. */
void ring_member_works(struct ring_member *member);
/* For the operator: the last failure of any kind; 0 = never */
time_t ring_member_last_failed(const struct ring_member *member);

#endif
