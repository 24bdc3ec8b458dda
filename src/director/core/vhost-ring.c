/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "byteorder.h"
#include "md5.h"
#include "net.h"
#include "vhost-ring.h"

#define RADIX_BITS 11
#define RADIX_SIZE (1U << RADIX_BITS)

static uint32_t point_value(const char *text, size_t len)
{
	unsigned char digest[MD5_RESULTLEN];

	md5_get_digest(text, len, digest);
	return be32_to_cpu_unaligned(digest);
}

void vhost_points_resize(struct vhost_points *points, const struct ip_addr *ip,
			 unsigned int count)
{
	char text[MAX_IP_LEN + 1 + MAX_INT_STRLEN];
	const char *ip_text;
	size_t ip_len;

	if (count == 0) {
		vhost_points_free(points);
		return;
	}
	if (count > points->alloc || count < points->alloc / 2) {
		/* what is too large is given back: the sum of all backends is
		   bounded only for what is in use */
		points->values = i_realloc_type(points->values, uint32_t,
						points->alloc, count);
		points->alloc = count;
	}
	if (count <= points->count) {
		points->count = count;
		return;
	}
	T_BEGIN {
		ip_text = net_ip2addr(ip);
		ip_len = strlen(ip_text);
		memcpy(text, ip_text, ip_len);
	} T_END;
	text[ip_len++] = '-';
	for (unsigned int i = points->count; i < count; i++) {
		char buf[MAX_INT_STRLEN];
		const char *num = dec2str_buf(buf, i);
		size_t num_len = strlen(num);

		memcpy(text + ip_len, num, num_len);
		points->values[i] = point_value(text, ip_len + num_len);
	}
	points->count = count;
}

void vhost_points_free(struct vhost_points *points)
{
	i_free(points->values);
	i_zero(points);
}

static void
radix_pass(const struct vhost_point *src, struct vhost_point *dest,
	   unsigned int count, unsigned int shift)
{
	unsigned int pos[RADIX_SIZE], sum = 0;

	memset(pos, 0, sizeof(pos));
	for (unsigned int i = 0; i < count; i++)
		pos[(src[i].value >> shift) & (RADIX_SIZE - 1)]++;
	for (unsigned int i = 0; i < RADIX_SIZE; i++) {
		unsigned int n = pos[i];

		pos[i] = sum;
		sum += n;
	}
	for (unsigned int i = 0; i < count; i++)
		dest[pos[(src[i].value >> shift) & (RADIX_SIZE - 1)]++] = src[i];
}

/* Equal values keep their order. Several times faster than qsort(). */
static void points_sort(struct vhost_point **points, unsigned int count)
{
	struct vhost_point *src = *points;
	struct vhost_point *dest = i_new(struct vhost_point, count);

	for (unsigned int shift = 0; shift < 32; shift += RADIX_BITS) {
		radix_pass(src, dest, count, shift);
		struct vhost_point *tmp = src;
		src = dest;
		dest = tmp;
	}
	i_free(dest);
	*points = src;
}

void vhost_ring_build(struct vhost_ring *ring,
		      const struct vhost_points *const *members,
		      unsigned int members_count)
{
	unsigned int count = 0, n = 0;

	vhost_ring_free(ring);
	for (unsigned int i = 0; i < members_count; i++)
		count += members[i]->count;
	if (count == 0)
		return;

	ring->points = i_new(struct vhost_point, count);
	ring->count = count;
	for (unsigned int i = 0; i < members_count; i++) {
		for (unsigned int j = 0; j < members[i]->count; j++) {
			ring->points[n].value = members[i]->values[j];
			ring->points[n++].member = i;
		}
	}
	points_sort(&ring->points, count);
}

void vhost_ring_free(struct vhost_ring *ring)
{
	i_free(ring->points);
	ring->count = 0;
}

bool vhost_ring_find(const struct vhost_ring *ring, uint32_t hash,
		     uint32_t *member_r)
{
	unsigned int left = 0, right = ring->count;

	if (ring->count == 0)
		return FALSE;

	/* Which of several points with exactly this value is taken depends on
	   these steps. All directors have to do the same. */
	while (left < right) {
		unsigned int mid = (left + right) / 2;

		if (ring->points[mid].value < hash)
			left = mid + 1;
		else if (ring->points[mid].value > hash)
			right = mid;
		else {
			left = mid;
			break;
		}
	}
	if (left == ring->count)
		left = 0;
	*member_r = ring->points[left].member;
	return TRUE;
}
