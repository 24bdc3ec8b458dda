/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "membership.h"

struct ring_members {
	/* In the order of the ring */
	ARRAY(struct ring_member *) list;
};

struct ring_members *ring_members_init(void)
{
	struct ring_members *members;

	members = i_new(struct ring_members, 1);
	i_array_init(&members->list, 8);
	return members;
}

static void member_free(struct ring_member *member)
{
	i_free(member->name);
	i_free(member);
}

void ring_members_deinit(struct ring_members **_members)
{
	struct ring_members *members = *_members;
	struct ring_member *member;

	*_members = NULL;
	array_foreach_elem(&members->list, member)
		member_free(member);
	array_free(&members->list);
	i_free(members);
}

/* Returns the place where the address is or belongs. */
static unsigned int
members_find(struct ring_members *members, const struct ring_address *address,
	     bool *found_r)
{
	struct ring_member *const *list;
	unsigned int i, count;
	int ret = 1;

	list = array_get(&members->list, &count);
	for (i = 0; i < count; i++) {
		ret = ring_address_cmp(&list[i]->address, address);
		if (ret >= 0)
			break;
	}
	*found_r = i < count && ret == 0;
	return i;
}

struct ring_member *
ring_member_add(struct ring_members *members,
		const struct ring_address *address)
{
	struct ring_member *member;
	unsigned int idx;
	bool found;

	idx = members_find(members, address, &found);
	i_assert(!found);

	member = i_new(struct ring_member, 1);
	member->address = *address;
	member->changed = 1;
	member->name = i_strdup(ring_address_str(address));
	array_insert(&members->list, idx, &member, 1);
	return member;
}

void ring_member_forget(struct ring_members *members,
			struct ring_member **_member)
{
	struct ring_member *member = *_member;
	unsigned int idx;
	bool found;

	*_member = NULL;
	idx = members_find(members, &member->address, &found);
	i_assert(found);
	array_delete(&members->list, idx, 1);
	member_free(member);
}

struct ring_member *
ring_member_lookup(struct ring_members *members,
		   const struct ring_address *address)
{
	struct ring_member *member;
	unsigned int idx;
	bool found;

	if (address->port == 0) {
		array_foreach_elem(&members->list, member) {
			if (net_ip_compare(&member->address.ip, &address->ip))
				return member;
		}
		return NULL;
	}
	idx = members_find(members, address, &found);
	return found ? array_idx_elem(&members->list, idx) : NULL;
}

struct ring_member *
ring_member_by_instance(struct ring_members *members, uint64_t instance)
{
	struct ring_member *member;

	array_foreach_elem(&members->list, member) {
		if (member->instance == instance)
			return member;
	}
	return NULL;
}

bool ring_members_have_ip(struct ring_members *members,
			  const struct ip_addr *ip)
{
	struct ring_member *member;

	array_foreach_elem(&members->list, member) {
		if (net_ip_compare(&member->address.ip, ip))
			return TRUE;
	}
	return FALSE;
}

struct ring_member *const *
ring_members_sorted(struct ring_members *members, unsigned int *count_r)
{
	return array_get(&members->list, count_r);
}

static unsigned int
member_idx(struct ring_members *members, const struct ring_member *member)
{
	unsigned int idx;
	bool found;

	idx = members_find(members, &member->address, &found);
	i_assert(found);
	return idx;
}

unsigned int
ring_members_distance(struct ring_members *members,
		      const struct ring_member *from,
		      const struct ring_member *to)
{
	unsigned int count = array_count(&members->list);

	return (member_idx(members, to) + count - member_idx(members, from)) %
		count;
}

void ring_member_set_clock(struct ring_member *member, time_t its_now,
			   time_t our_now, uint64_t now_msecs)
{
	time_t diff = its_now - our_now;

	if (member->clock_known && diff <= member->clock_diff &&
	    now_msecs - member->clock_known_msecs < RING_CLOCK_RENEW_MSECS)
		return;
	member->clock_diff = diff;
	member->clock_known = TRUE;
	member->clock_known_msecs = now_msecs;
}

bool ring_member_accept_seq(struct ring_member *member, uint32_t seq)
{
	uint32_t first = RING_INSTANCE_FIRST_SEQ(member->instance);

	if (seq < first && first - seq > RING_OTHER_SEQS) {
		/* It isn't ours any more: those of 2.3 begin with 1. */
		(void)ring_member_restarted(member, 0);
	}
	if (seq <= member->last_seq)
		return FALSE;
	member->last_seq = seq;
	return TRUE;
}

bool ring_member_accept_weak(struct ring_member *member, uint32_t seq)
{
	unsigned int idx = seq % RING_WEAK_MEMORY;

	if (ring_member_accept_seq(member, seq)) {
		member->weak[idx].seq = seq;
		member->weak[idx].count = 1;
		return TRUE;
	}
	return member->weak[idx].seq == seq &&
		member->weak[idx].count++ < RING_SYNC_MAX_REPEATS;
}

bool ring_member_is_later(const struct ring_member *member, uint64_t instance)
{
	return instance > member->instance;
}

void ring_member_reset_sync(struct ring_member *member)
{
	i_zero(&member->sync);
	member->sync_count = 0;
}

void ring_member_reset(struct ring_member *member)
{
	member->last_seq = 0;
	ring_member_reset_sync(member);
	member->sync_is_delayed = FALSE;
	member->wrong_hosts_hash = 0;
	i_zero(&member->weak);
}

bool ring_member_restarted(struct ring_member *member, uint64_t instance)
{
	if (instance != 0 && member->instance == instance)
		return FALSE;
	member->instance = instance;
	member->clock_known = FALSE;
	ring_member_reset(member);
	/* What the process before said is still under way. */
	member->last_seq = RING_INSTANCE_FIRST_SEQ(instance);
	return TRUE;
}

enum ring_sync_action
ring_member_sync(struct ring_member *member,
		 const struct ring_sync_memory *sync)
{
	enum ring_sync_action action = RING_SYNC_FORWARD;
	time_t newest;

	if (sync->seq < member->sync.seq) {
		if (sync->timestamp < member->sync.timestamp +
					RING_SYNC_STALE_SECS)
			return RING_SYNC_IGNORE;
		action = RING_SYNC_FORWARD_STALE;
	} else if (sync->seq == member->sync.seq &&
		   sync->timestamp <= member->sync.timestamp) {
		if (member->sync_count >= RING_SYNC_MAX_REPEATS)
			return RING_SYNC_IGNORE;
		member->sync_count++;
		return RING_SYNC_FORWARD;
	}
	newest = I_MAX(member->sync.timestamp, sync->timestamp);
	member->sync = *sync;
	/* else two of one who is gone could each make the other one stale */
	member->sync.timestamp = newest;
	member->sync_count = 1;
	return action;
}

void ring_member_network_failed(struct ring_member *member, uint64_t now_msecs,
				time_t now)
{
	member->last_network_failure = now;
	member->broke_until_msecs = 0;
	member->retry_msecs = now_msecs + RING_RETRY_NETWORK_MSECS;
}

void ring_member_refused(struct ring_member *member, bool protocol,
			 uint64_t now_msecs, time_t now)
{
	unsigned int *backoff = &member->refused_backoff_msecs;

	if (protocol) {
		member->last_protocol_failure = now;
		*backoff = RING_RETRY_REFUSED_MAX_MSECS;
	} else {
		member->last_network_failure = now;
		*backoff = *backoff == 0 ? RING_RETRY_REFUSED_MIN_MSECS :
			I_MIN(*backoff * 2, RING_RETRY_REFUSED_MAX_MSECS);
	}
	member->retry_msecs = now_msecs + *backoff;
}

void ring_member_works(struct ring_member *member)
{
	member->retry_msecs = 0;
	member->broke_until_msecs = 0;
	member->refused_backoff_msecs = 0;
	member->last_network_failure = 0;
	member->last_protocol_failure = 0;
}

time_t ring_member_last_failed(const struct ring_member *member)
{
	return I_MAX(member->last_network_failure,
		     member->last_protocol_failure);
}
