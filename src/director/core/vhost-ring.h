#ifndef VHOST_RING_H
#define VHOST_RING_H

/* The ring of virtual hosts of one tag: where each hash belongs
   (spec: assignment.md §2). Used by backend.c only. */

struct ip_addr;

/* The points of one backend in order of their numbers. They cost an MD5 each,
   so they are kept when the backend goes down or the ring is built anew. */
struct vhost_points {
	uint32_t *values;
	unsigned int count, alloc;
};

struct vhost_point {
	uint32_t value;
	/* Index into the array that the ring was built from */
	uint32_t member;
};

struct vhost_ring {
	struct vhost_point *points;
	unsigned int count;
};

void vhost_points_resize(struct vhost_points *points, const struct ip_addr *ip,
			 unsigned int count);
void vhost_points_free(struct vhost_points *points);

/* members have to be in the order of their addresses: it decides between equal
   values. They are only read during the call. */
void vhost_ring_build(struct vhost_ring *ring,
		      const struct vhost_points *const *members,
		      unsigned int members_count);
void vhost_ring_free(struct vhost_ring *ring);

/* Returns FALSE if the ring has no points. */
bool vhost_ring_find(const struct vhost_ring *ring, uint32_t hash,
		     uint32_t *member_r);

#endif
