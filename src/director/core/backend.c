/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "crc32.h"
#include "hash.h"
#include "backend.h"
#include "vhost-ring.h"

struct backend_entry {
	/* what the others see; has to be first */
	struct backend backend;
	struct backend_tag *tag;
	struct vhost_points points;
};

ARRAY_DEFINE_TYPE(backend_entries, struct backend_entry *);

/* Rings of a tag that are remembered at most: each may be large. */
#define BACKEND_OLD_RINGS_MAX 4

struct backend_ring {
	struct vhost_ring points;
	/* whom the points refer to */
	ARRAY_TYPE(backend_entries) members;
};

struct backend_tag {
	char *name;
	bool ring_valid;
	struct backend_ring ring;
	/* How it was since backends_mark() */
	struct backend_ring old_rings[BACKEND_OLD_RINGS_MAX];
	unsigned int old_rings_count;
};

struct backend_slot {
	/* NULL if the slot is dead or free */
	struct backend *backend;
	/* NULL if the slot is free */
	const char *tag;
	unsigned int users;
	uint16_t next_free;
};

struct backends {
	HASH_TABLE(const struct ip_addr *, struct backend *) by_ip;
	HASH_TABLE(const char *, struct backend_tag *) tags;
	/* the tag that was asked for last: mostly there is only one */
	struct backend_tag *last_tag;
	ARRAY(struct backend *) sorted;

	/* [0] is never used */
	ARRAY(struct backend_slot) slots;
	uint16_t first_free_slot;
	unsigned int dead_users;

	uint64_t vhosts_sum;
	/* Nobody gets more points than this. */
	unsigned int max_points;
	unsigned int generation;
	/* Old rings are remembered. */
	bool marked;
};

static struct backend_entry *backend_entry(struct backend *backend)
{
	return container_of(backend, struct backend_entry, backend);
}

int backend_ip_cmp(const struct ip_addr *ip1, const struct ip_addr *ip2)
{
	int ret;

	if (ip1->family != ip2->family)
		return IPADDR_IS_V4(ip1) ? -1 : 1;
	if (IPADDR_IS_V4(ip1))
		ret = memcmp(&ip1->u.ip4, &ip2->u.ip4, sizeof(ip1->u.ip4));
	else
		ret = memcmp(&ip1->u.ip6, &ip2->u.ip6, sizeof(ip1->u.ip6));
	return ret < 0 ? -1 : (ret > 0 ? 1 : 0);
}

struct backends *backends_init(void)
{
	struct backends *backends = i_new(struct backends, 1);

	hash_table_create(&backends->by_ip, default_pool, 0,
			  net_ip_hash, backend_ip_cmp);
	hash_table_create(&backends->tags, default_pool, 0, str_hash, strcmp);
	i_array_init(&backends->sorted, 16);
	i_array_init(&backends->slots, 16);
	array_append_zero(&backends->slots);
	backends->max_points = BACKEND_MAX_POINTS;
	return backends;
}

static void backend_free(struct backend *backend)
{
	struct backend_entry *entry = backend_entry(backend);

	vhost_points_free(&entry->points);
	i_free(*(char **)&backend->hostname);
	i_free(entry);
}

static void ring_free(struct backend_ring *ring)
{
	vhost_ring_free(&ring->points);
	array_free(&ring->members);
}

static void tag_free_old_rings(struct backend_tag *tag)
{
	while (tag->old_rings_count > 0)
		ring_free(&tag->old_rings[--tag->old_rings_count]);
}

static void backend_tag_free(struct backend_tag *tag)
{
	tag_free_old_rings(tag);
	ring_free(&tag->ring);
	i_free(tag->name);
	i_free(tag);
}

void backends_deinit(struct backends **_backends)
{
	struct backends *backends = *_backends;
	struct hash_iterate_context *iter;
	struct backend *backend;
	const char *name;
	struct backend_tag *tag;

	*_backends = NULL;
	array_foreach_elem(&backends->sorted, backend)
		backend_free(backend);
	iter = hash_table_iterate_init(backends->tags);
	while (hash_table_iterate(iter, backends->tags, &name, &tag))
		backend_tag_free(tag);
	hash_table_iterate_deinit(&iter);
	hash_table_destroy(&backends->tags);
	hash_table_destroy(&backends->by_ip);
	array_free(&backends->sorted);
	array_free(&backends->slots);
	i_free(backends);
}

/* Slots */

static bool slot_alloc(struct backends *backends, struct backend *backend)
{
	struct backend_slot *slot;
	unsigned int idx = backends->first_free_slot;

	if (idx != BACKEND_SLOT_NONE) {
		slot = array_idx_modifiable(&backends->slots, idx);
		backends->first_free_slot = slot->next_free;
	} else {
		idx = array_count(&backends->slots);
		if (idx > BACKEND_SLOT_MAX)
			return FALSE;
		slot = array_append_space(&backends->slots);
	}
	slot->backend = backend;
	slot->tag = backend->tag;
	backend->slot = idx;
	return TRUE;
}

static void slot_free(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot =
		array_idx_modifiable(&backends->slots, idx);

	slot->tag = NULL;
	slot->next_free = backends->first_free_slot;
	backends->first_free_slot = idx;
}

static void slot_kill(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot =
		array_idx_modifiable(&backends->slots, idx);

	slot->backend = NULL;
	if (slot->users > 0)
		backends->dead_users += slot->users;
	else
		slot_free(backends, idx);
}

static inline struct backend_slot *
slot_get(struct backends *backends, uint16_t idx)
{
	if (idx >= array_count(&backends->slots))
		return NULL;
	return array_idx_modifiable(&backends->slots, idx);
}

struct backend *backend_by_slot(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot = slot_get(backends, idx);

	return slot == NULL ? NULL : slot->backend;
}

const char *backend_slot_tag(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot = slot_get(backends, idx);

	return slot == NULL ? NULL : slot->tag;
}

void backend_slot_user_added(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot = slot_get(backends, idx);

	i_assert(slot != NULL && slot->backend != NULL);
	slot->users++;
}

void backend_slot_user_removed(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot = slot_get(backends, idx);

	i_assert(slot != NULL && slot->users > 0);
	slot->users--;
	if (slot->backend != NULL)
		return;
	backends->dead_users--;
	if (slot->users == 0)
		slot_free(backends, idx);
}

unsigned int backend_slot_users(struct backends *backends, uint16_t idx)
{
	struct backend_slot *slot = slot_get(backends, idx);

	return slot == NULL ? 0 : slot->users;
}

unsigned int backends_dead_users(const struct backends *backends)
{
	return backends->dead_users;
}

/* Tags */

static struct backend_tag *
tag_lookup(struct backends *backends, const char *name)
{
	struct backend_tag *tag = backends->last_tag;

	if (tag != NULL && tag->name == name)
		return tag;
	tag = hash_table_lookup(backends->tags, name);
	if (tag != NULL)
		backends->last_tag = tag;
	return tag;
}

static struct backend_tag *tag_get(struct backends *backends, const char *name)
{
	struct backend_tag *tag = tag_lookup(backends, name);
	const char *key;

	if (tag != NULL)
		return tag;
	tag = i_new(struct backend_tag, 1);
	key = tag->name = i_strdup(name);
	i_array_init(&tag->ring.members, 8);
	hash_table_insert(backends->tags, key, tag);
	return tag;
}

const char *backends_tag(struct backends *backends, const char *name)
{
	struct backend_tag *tag = tag_lookup(backends, name);

	return tag == NULL ? NULL : tag->name;
}

/* The ring of virtual hosts */

static uint64_t points_needed(struct backends *backends, unsigned int max)
{
	struct backend *backend;
	uint64_t sum = 0;

	array_foreach_elem(&backends->sorted, backend)
		sum += I_MIN(backend->vhosts, max);
	return sum;
}

static void
backend_update_points(struct backends *backends, struct backend_entry *entry)
{
	vhost_points_resize(&entry->points, &entry->backend.ip,
			    I_MIN(entry->backend.vhosts, backends->max_points));
}

/* The ring is built again when it is needed. Until then nothing stays
   allocated beyond BACKENDS_MAX_POINTS. */
static void
backend_ring_changed(struct backends *backends, struct backend *backend)
{
	struct backend_entry *entry = backend_entry(backend);

	if (entry->points.count > I_MIN(backend->vhosts, backends->max_points))
		backend_update_points(backends, entry);
	vhost_ring_free(&entry->tag->ring.points);
	entry->tag->ring_valid = FALSE;
	backends->generation++;
}

/* Finds the largest limit with which all backends' points are not too many, so
   that only those with the most vhosts are cut. It depends on nothing but the
   numbers of vhosts: every director comes to the same. */
static unsigned int backends_find_max_points(struct backends *backends)
{
	unsigned int low = 0, high = BACKEND_MAX_POINTS;

	if (backends->vhosts_sum <= BACKENDS_MAX_POINTS)
		return high;
	while (low < high) {
		unsigned int mid = low + (high - low + 1) / 2;

		if (points_needed(backends, mid) <= BACKENDS_MAX_POINTS)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

static void backends_update_max_points(struct backends *backends)
{
	unsigned int max_points = backends_find_max_points(backends);
	struct backend *backend;

	if (backends->max_points == max_points)
		return;
	/* every ring would have to be remembered as it was */
	backends_unmark(backends);
	backends->max_points = max_points;
	array_foreach_elem(&backends->sorted, backend)
		backend_ring_changed(backends, backend);
}

static void tag_build_ring(struct backends *backends, struct backend_tag *tag)
{
	ARRAY(const struct vhost_points *) points;
	const struct vhost_points *const *list;
	struct backend_entry *entry;
	struct backend *backend;
	unsigned int count;

	array_clear(&tag->ring.members);
	i_array_init(&points, 16);
	array_foreach_elem(&backends->sorted, backend) {
		entry = backend_entry(backend);
		if (entry->tag != tag)
			continue;
		backend_update_points(backends, entry);
		if (backend->down)
			continue;
		const struct vhost_points *p = &entry->points;
		array_push_back(&tag->ring.members, &entry);
		array_push_back(&points, &p);
	}
	list = array_get(&points, &count);
	vhost_ring_build(&tag->ring.points, list, count);
	array_free(&points);
	tag->ring_valid = TRUE;
}

static struct backend *
ring_find(const struct backend_ring *ring, uint32_t hash)
{
	struct backend_entry *const *entryp;
	uint32_t member;

	if (!vhost_ring_find(&ring->points, hash, &member))
		return NULL;
	entryp = array_idx(&ring->members, member);
	return &(*entryp)->backend;
}

struct backend *
backend_by_hash(struct backends *backends, const char *tag_name, uint32_t hash)
{
	struct backend_tag *tag = tag_lookup(backends, tag_name);

	if (tag == NULL)
		return NULL;
	if (!tag->ring_valid)
		tag_build_ring(backends, tag);
	return ring_find(&tag->ring, hash);
}

struct backend *
backend_by_hash_unchanged(struct backends *backends, const char *tag_name,
			  uint32_t hash)
{
	struct backend_tag *tag = tag_lookup(backends, tag_name);
	struct backend *backend;
	unsigned int i;

	if (!backends->marked || tag == NULL)
		return NULL;
	backend = backend_by_hash(backends, tag_name, hash);
	for (i = 0; i < tag->old_rings_count; i++) {
		if (ring_find(&tag->old_rings[i], hash) != backend)
			return NULL;
	}
	return backend;
}

void backends_unmark(struct backends *backends)
{
	struct hash_iterate_context *iter;
	struct backend_tag *tag;
	const char *name;

	if (!backends->marked)
		return;
	backends->marked = FALSE;
	iter = hash_table_iterate_init(backends->tags);
	while (hash_table_iterate(iter, backends->tags, &name, &tag))
		tag_free_old_rings(tag);
	hash_table_iterate_deinit(&iter);
}

void backends_mark(struct backends *backends)
{
	backends_unmark(backends);
	backends->marked = TRUE;
}

/* The tag's ring is about to change. */
static void tag_remember(struct backends *backends, struct backend_tag *tag)
{
	if (!backends->marked)
		return;
	if (tag->old_rings_count == BACKEND_OLD_RINGS_MAX) {
		backends_unmark(backends);
		return;
	}
	/* nobody may have asked for it, but others may have had it too */
	if (!tag->ring_valid)
		tag_build_ring(backends, tag);
	tag->old_rings[tag->old_rings_count++] = tag->ring;
	i_zero(&tag->ring);
	i_array_init(&tag->ring.members, 8);
	tag->ring_valid = FALSE;
}

unsigned int backends_generation(const struct backends *backends)
{
	return backends->generation;
}

/* Backends */

/* Returns the place of ip in the sorted list, or where it belongs. */
static unsigned int
sorted_find(struct backends *backends, const struct ip_addr *ip)
{
	struct backend *const *list;
	unsigned int left = 0, right;

	list = array_get(&backends->sorted, &right);
	while (left < right) {
		unsigned int mid = left + (right - left) / 2;

		if (backend_ip_cmp(&list[mid]->ip, ip) < 0)
			left = mid + 1;
		else
			right = mid;
	}
	return left;
}

struct backend *
backend_add(struct backends *backends, const struct ip_addr *ip,
	    const char *hostname, const char *tag, unsigned int vhosts)
{
	struct backend_entry *entry;
	struct backend *backend;
	const struct ip_addr *key;

	i_assert(backend_lookup(backends, ip) == NULL);

	if (tag_lookup(backends, tag) == NULL &&
	    hash_table_count(backends->tags) >= BACKENDS_MAX_TAGS)
		return NULL;
	entry = i_new(struct backend_entry, 1);
	entry->tag = tag_get(backends, tag);
	tag_remember(backends, entry->tag);
	backend = &entry->backend;
	backend->ip = *ip;
	backend->tag = entry->tag->name;
	backend->changed = 1;
	backend->vhosts = vhosts == UINT_MAX ? DIRECTOR_DEFAULT_VHOSTS : vhosts;
	if (!slot_alloc(backends, backend)) {
		i_free(entry);
		return NULL;
	}
	backend->hostname = i_strdup(hostname);
	key = &backend->ip;
	hash_table_insert(backends->by_ip, key, backend);
	array_insert(&backends->sorted, sorted_find(backends, ip), &backend, 1);

	backends->vhosts_sum += backend->vhosts;
	backends_update_max_points(backends);
	backend_ring_changed(backends, backend);
	return backend;
}

void backend_remove(struct backends *backends, struct backend **_backend)
{
	struct backend *backend = *_backend;
	const struct ip_addr *key = &backend->ip;

	*_backend = NULL;
	backends_unmark(backends);
	slot_kill(backends, backend->slot);
	array_delete(&backends->sorted, sorted_find(backends, &backend->ip), 1);
	hash_table_remove(backends->by_ip, key);
	backends->vhosts_sum -= backend->vhosts;
	backends_update_max_points(backends);
	backend_ring_changed(backends, backend);
	backend_free(backend);
}

bool backend_flush(struct backends *backends, struct backend *backend)
{
	uint16_t old_slot = backend->slot;

	backends_unmark(backends);
	if (backend_users(backends, backend) == 0)
		return TRUE;
	if (!slot_alloc(backends, backend))
		return FALSE;
	slot_kill(backends, old_slot);
	return TRUE;
}

bool backend_set_vhosts(struct backends *backends, struct backend *backend,
			unsigned int vhosts)
{
	if (backend->vhosts == vhosts)
		return FALSE;
	tag_remember(backends, backend_entry(backend)->tag);
	backends->vhosts_sum += vhosts;
	backends->vhosts_sum -= backend->vhosts;
	backend->vhosts = vhosts;
	backends_update_max_points(backends);
	backend_ring_changed(backends, backend);
	return TRUE;
}

bool backend_set_down(struct backends *backends, struct backend *backend,
		      bool down, time_t now)
{
	if (backend->down == down)
		return FALSE;
	tag_remember(backends, backend_entry(backend)->tag);
	backend->down = down;
	backend->last_updown_change = now;
	backend_ring_changed(backends, backend);
	return TRUE;
}

void backend_set_hostname(struct backend *backend, const char *hostname)
{
	char *old = (char *)backend->hostname;

	backend->hostname = i_strdup(hostname);
	i_free(old);
}

struct backend *
backend_lookup(struct backends *backends, const struct ip_addr *ip)
{
	return hash_table_lookup(backends->by_ip, ip);
}

struct backend *const *
backends_sorted(struct backends *backends, unsigned int *count_r)
{
	return array_get(&backends->sorted, count_r);
}

/* The hosts hash needs this value for an IPv6 address: the classic ELF hash. */
static uint32_t ip6_hash(const struct in6_addr *ip6)
{
	uint32_t h = 0, g;

	for (unsigned int i = 0; i < sizeof(ip6->s6_addr); i++) {
		h = (h << 4) + ip6->s6_addr[i];
		g = h & 0xf0000000;
		h ^= g >> 24;
		h ^= g;
	}
	return h;
}

uint32_t backends_hash(struct backends *backends)
{
	struct backend *backend;
	uint32_t crc = 0;

	array_foreach_elem(&backends->sorted, backend) {
		uint32_t state = backend->vhosts ^ (backend->down ? 1 : 0);
		uint32_t ip;

		if (IPADDR_IS_V4(&backend->ip))
			memcpy(&ip, &backend->ip.u.ip4, sizeof(ip));
		else
			ip = ip6_hash(&backend->ip.u.ip6);
		crc = crc32_data_more(crc, &state, sizeof(state));
		crc = crc32_data_more(crc, &ip, sizeof(ip));
		crc = crc32_str_more(crc, backend->tag);
	}
	return crc == 0 ? 1 : crc;
}
