#ifndef BACKEND_H
#define BACKEND_H

#include "net.h"

/* The backends (mail servers), their tags, and for each tag the ring of
   virtual hosts by which a hash finds its backend (spec: assignment.md §2-3,
   ring-protocol.md §9.1). */

#define DIRECTOR_MAX_VHOSTS 1000
#define DIRECTOR_DEFAULT_VHOSTS 100

struct backends;

/* Belongs to struct backends; read only for others. Users don't refer to it but
   to its slot, so it may go away at any time. */
struct backend {
	struct ip_addr ip;
	/* As the configuration or a peer named it; NULL if known by IP only */
	const char *hostname;
	/* "" for no tag; never NULL. Equal tags are the same pointer. */
	const char *tag;
	unsigned int vhosts;
	bool down;
	/* A change of it is on its way round the ring. */
	bool desynced;
	/* When anything of it was changed (struct ring_message); 1 if it was
	   configured */
	uint64_t changed;
	/* When up/down changed last, seconds since 1970 by the machine's clock
	   (of the director where it was done); 0 = never */
	time_t last_updown_change;
	/* Monotonic msecs, when the ring was told of a user of it last; 0 =
	   never since it was flushed */
	uint64_t told_msecs;
	/* When its users were flushed last; whether the ring told of one of its
	   since; when they were flushed for that reason last. 0 = never */
	uint64_t flushed_msecs, crossed_msecs;
	bool taken_since;
	/* Which slot users who are assigned from now on get. */
	uint16_t slot;
};

/* A slot is what a user entry refers to: a backend during one "life". When a
   backend is removed or flushed, its slot is dead at once: all users of it are
   forgotten in one step, and the user table sweeps their entries up later.
   A slot number is used again only when its last user is gone.
   Slot 0 is never used. */
#define BACKEND_SLOT_NONE 0
#define BACKEND_SLOT_MAX 65535

/* A peer may send any number of vhosts. A backend gets no more points than
   this (computing them takes 15 ms). */
#define BACKEND_MAX_POINTS (1U << 16)
/* If all backends together (of all tags, up or down) would have more than this,
   those with the most get fewer: as many as the largest limit for each backend
   that keeps within this sum. It is the same on all directors; vhosts itself
   keeps its value. */
#define BACKENDS_MAX_POINTS (1U << 20)

/* Tags are never forgotten: others can't make us know more of them. */
#define BACKENDS_MAX_TAGS 4096

struct backends *backends_init(void);
void backends_deinit(struct backends **backends);

/* Adds a backend (up, DIRECTOR_DEFAULT_VHOSTS if vhosts is UINT_MAX: give a
   peer's number to backend_set_vhosts() afterwards). ip must not be known. tag
   may be ""; hostname may be NULL. Returns NULL if no slot is left, or if the tag
   is new and there are too many. The rings
   are rebuilt lazily at the next lookup. */
struct backend *
backend_add(struct backends *backends, const struct ip_addr *ip,
	    const char *hostname, const char *tag, unsigned int vhosts);
/* Kills its slot and frees it. */
void backend_remove(struct backends *backends, struct backend **backend);
/* Forgets the backend's users: kills its slot and gives it a new one. Returns
   FALSE (nothing done) if no slot is left. If the slot's user count is 0,
   does nothing and returns TRUE. */
bool backend_flush(struct backends *backends, struct backend *backend);

/* Return TRUE if something changed (and the ring has to be rebuilt). now is
   stored as the time of an up/down change only if the state changes. */
bool backend_set_vhosts(struct backends *backends, struct backend *backend,
			unsigned int vhosts);
bool backend_set_down(struct backends *backends, struct backend *backend,
		      bool down, time_t now);

/* The name that was known before is freed. hostname may be NULL. */
void backend_set_hostname(struct backend *backend, const char *hostname);

/* Constant time. NULL if unknown. */
struct backend *
backend_lookup(struct backends *backends, const struct ip_addr *ip);
/* The backend whose slot this is; NULL if the slot is dead or not in use.
   Constant time, the hot path of every lookup. */
struct backend *backend_by_slot(struct backends *backends, uint16_t slot);
/* The tag of a live or dead slot ("" or a text; same pointer as
   backends_tag()). NULL if the slot isn't in use at all. */
const char *backend_slot_tag(struct backends *backends, uint16_t slot);

/* Returns the one pointer for this tag text, valid until backends_deinit(), or
   NULL if no backend ever had this tag. */
const char *backends_tag(struct backends *backends, const char *tag);

/* All backends ordered by address (IPv4 before IPv6, then bytes); count_r of
   them. The array is valid until a backend is added or removed. */
struct backend *const *
backends_sorted(struct backends *backends, unsigned int *count_r);

/* The backend where hashing puts hash now, among those of tag (pointer from
   backends_tag(), or any text) that are up; NULL if there is none.
   O(log points). Spec: assignment.md §2.3. */
struct backend *
backend_by_hash(struct backends *backends, const char *tag, uint32_t hash);

/* From now on it is remembered where backend_by_hash() would put each hash, until
   backends_unmark(), or a backend is removed or flushed, or too much changes to
   be remembered. What was remembered before is forgotten. */
void backends_mark(struct backends *backends);
void backends_unmark(struct backends *backends);
/* As backend_by_hash(), but NULL if the hash was put elsewhere at any time since
   backends_mark(), or that isn't remembered. */
struct backend *
backend_by_hash_unchanged(struct backends *backends, const char *tag,
			  uint32_t hash);

/* Number of changes that could alter backend_by_hash() since init. */
unsigned int backends_generation(const struct backends *backends);

/* CRC-32 of all backends, ring-protocol.md §9.1; never 0. */
uint32_t backends_hash(struct backends *backends);

/* Users per slot, kept by the user table. */
void backend_slot_user_added(struct backends *backends, uint16_t slot);
void backend_slot_user_removed(struct backends *backends, uint16_t slot);
unsigned int backend_slot_users(struct backends *backends, uint16_t slot);
static inline unsigned int
backend_users(struct backends *backends, const struct backend *backend)
{
	return backend_slot_users(backends, backend->slot);
}

/* Number of users in dead slots, who wait to be swept up. */
unsigned int backends_dead_users(const struct backends *backends);
/* A dead slot without users is free. */
static inline bool backends_have_dead_slots(const struct backends *backends)
{
	return backends_dead_users(backends) > 0;
}

/* Total order of addresses: -1, 0, 1 (family, then bytes). */
int backend_ip_cmp(const struct ip_addr *ip1, const struct ip_addr *ip2);

#endif
