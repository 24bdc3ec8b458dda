/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Which backend a hash is given to (spec: assignment.md §2) */

#include "test-backends.h"
#include "array.h"
#include "md5.h"
#include "director/core/username-hash.h"

static const char *by_name(const char *name)
{
	struct username_hash *hash;
	const char *error;
	uint32_t value;

	hash = username_hash_init(USERNAME_HASH_DEFAULT_FORMAT, &error);
	assert_int_equal(username_hash_get(hash, name, &value, &error), 0);
	username_hash_deinit(&hash);
	return by_hash("", value);
}

static void test_ring_vectors(void **state ATTR_UNUSED)
{
	add("10.0.0.3", "", 100);
	add("10.0.0.1", "", 100);
	add("10.0.0.2", "", UINT_MAX);

	assert_string_equal(by_name("user@example.com"), "10.0.0.1");
	assert_string_equal(by_name("testuser"), "10.0.0.2");
	assert_string_equal(by_name("testuser@domain"), "10.0.0.3");
	assert_string_equal(by_name("samik"), "10.0.0.3");
	assert_string_equal(by_name("jane"), "10.0.0.1");
	assert_string_equal(by_name("john@example.com"), "10.0.0.3");
	/* the smallest point, from both sides and past the end */
	assert_string_equal(by_hash("", 0), "10.0.0.3");
	assert_string_equal(by_hash("", 0x004766fa), "10.0.0.3");
	assert_string_equal(by_hash("", UINT32_MAX), "10.0.0.3");
}

static void test_ring_live_vectors(void **state ATTR_UNUSED)
{
	add("127.0.0.11", "", 100);
	add("127.0.0.12", "", 100);
	add("127.0.0.13", "", 100);

	assert_string_equal(by_name("user@example.com"), "127.0.0.12");
	assert_string_equal(by_name("a"), "127.0.0.13");
	assert_string_equal(by_name("b"), "127.0.0.13");
	assert_string_equal(by_name("c"), "127.0.0.11");
	assert_string_equal(by_name("jane"), "127.0.0.12");
	assert_string_equal(by_name("john@example.com"), "127.0.0.13");
}

static void test_points(void **state ATTR_UNUSED)
{
	/* 10.0.0.1-0 is 0x3c789421, 10.0.0.1-1 is 0xb89246cf: found by which of
	   two backends gets the hash. 10.0.0.9 has no point between them. */
	struct backend *one = add("10.0.0.1", "", 0);

	assert_string_equal(by_hash("", 1), "none");
	assert_true(backend_set_vhosts(backends, one, 1));
	assert_string_equal(by_hash("", 0x3c789421), "10.0.0.1");
	assert_string_equal(by_hash("", 0x3c789422), "10.0.0.1");
	assert_true(backend_set_vhosts(backends, one, 2));
	add("10.0.0.2", "", 1000);
	assert_string_equal(by_hash("", 0x3c789421), "10.0.0.1");
	assert_string_equal(by_hash("", 0x3c789422), "10.0.0.2");
	assert_string_equal(by_hash("", 0xb89246cf), "10.0.0.1");
	assert_string_equal(by_hash("", 0xb89246d0), "10.0.0.2");
	assert_true(backend_set_vhosts(backends, one, 1));
	assert_string_equal(by_hash("", 0xb89246cf), "10.0.0.2");
}

/* The ring as the specification has it, word for word */
struct naive_point {
	uint32_t value;
	struct backend *backend;
};

static int naive_point_cmp(const struct naive_point *p1,
			   const struct naive_point *p2)
{
	if (p1->value != p2->value)
		return p1->value < p2->value ? -1 : 1;
	return backend_ip_cmp(&p1->backend->ip, &p2->backend->ip);
}

ARRAY_DEFINE_TYPE(naive_point, struct naive_point);

static void
naive_build(ARRAY_TYPE(naive_point) *points, const char *tag)
{
	struct backend *const *list;
	unsigned int count;

	t_array_init(points, 128);
	list = backends_sorted(backends, &count);
	for (unsigned int i = 0; i < count; i++) {
		if (list[i]->down || strcmp(list[i]->tag, tag) != 0)
			continue;
		for (unsigned int j = 0; j < list[i]->vhosts; j++) {
			const char *text = t_strdup_printf("%s-%u",
				net_ip2addr(&list[i]->ip), j);
			struct naive_point *p = array_append_space(points);
			unsigned char md5[MD5_RESULTLEN];

			md5_get_digest(text, strlen(text), md5);
			p->value = (uint32_t)md5[0] << 24 | md5[1] << 16 |
				md5[2] << 8 | md5[3];
			p->backend = list[i];
		}
	}
	array_sort(points, naive_point_cmp);
}

static struct backend *
naive_find(const ARRAY_TYPE(naive_point) *points, uint32_t hash)
{
	const struct naive_point *p;
	unsigned int count, left = 0, right, mid;

	p = array_get(points, &count);
	if (count == 0)
		return NULL;
	right = count;
	while (left < right) {
		mid = (left + right) / 2;
		if (p[mid].value < hash)
			left = mid + 1;
		else if (p[mid].value > hash)
			right = mid;
		else
			return p[mid].backend;
	}
	return p[left == count ? 0 : left].backend;
}

static void compare_with_naive(const char *tag, uint64_t *seed)
{
	ARRAY_TYPE(naive_point) points;
	const struct naive_point *point;

	naive_build(&points, tag);
	array_foreach(&points, point) {
		for (int d = -1; d <= 1; d++) {
			uint32_t hash = point->value + d;

			assert_ptr_equal(backend_by_hash(backends, tag, hash),
					 naive_find(&points, hash));
		}
	}
	for (unsigned int i = 0; i < 200; i++) {
		uint32_t hash = test_rand(seed);

		assert_ptr_equal(backend_by_hash(backends, tag, hash),
				 naive_find(&points, hash));
	}
}

/* Any order of changes leads to the ring that the specification gives. */
static void test_ring_random(void **state ATTR_UNUSED)
{
	static const char *const tags[] = { "", "t1", "long tag" };
	static const char *const ips[] = {
		"10.0.0.1", "10.0.0.2", "9.255.0.1", "192.168.0.1",
		"2001:db8::1", "::1", "::ffff:10.0.0.1", "fe80::10",
		"255.255.255.255", "10.0.0.10",
	};
	uint64_t seed = 7;

	for (unsigned int round = 0; round < 300; round++) T_BEGIN {
		const char *ip =
			ips[test_rand_below(&seed, N_ELEMENTS(ips))];
		struct backend *backend = get(ip);
		unsigned int vhosts = test_rand_below(&seed, 150);
		unsigned int generation = backends_generation(backends);
		bool changed = TRUE;

		if (backend == NULL) {
			add(ip, tags[test_rand_below(&seed, 3)], vhosts);
		} else switch (test_rand_below(&seed, 4)) {
		case 0:
			del(ip);
			break;
		case 1:
			changed = backend->vhosts != vhosts;
			assert_int_equal(backend_set_vhosts(backends, backend,
							    vhosts), changed);
			break;
		default:
			assert_true(backend_set_down(backends, backend,
						     !backend->down, round));
			break;
		}
		if (changed) {
			assert_int_not_equal(backends_generation(backends),
					     generation);
		}
		for (unsigned int i = 0; i < N_ELEMENTS(tags); i++)
			compare_with_naive(tags[i], &seed);
	} T_END;
}

/* 400,000 points have about 18 pairs of equal values. */
static void test_ring_ties(void **state ATTR_UNUSED)
{
	ARRAY_TYPE(naive_point) points;
	const struct naive_point *p;
	unsigned int count, ties = 0;

	for (unsigned int i = 0; i < 4000; i++) T_BEGIN {
		add(t_strdup_printf("10.%u.%u.1", i % 16, i / 16), "", 100);
	} T_END;
	naive_build(&points, "");
	p = array_get(&points, &count);
	assert_int_equal(count, 400000);
	for (unsigned int i = 1; i < count; i++) {
		if (p[i].value != p[i-1].value ||
		    p[i].backend == p[i-1].backend)
			continue;
		ties++;
		for (int d = -1; d <= 1; d++) {
			uint32_t hash = p[i].value + d;

			assert_ptr_equal(backend_by_hash(backends, "", hash),
					 naive_find(&points, hash));
		}
	}
	assert_true(ties > 10);
}

static unsigned int count_hits(const struct backend *backend)
{
	unsigned int hits = 0;
	uint64_t seed = 3;

	for (unsigned int i = 0; i < 100000; i++) {
		if (backend_by_hash(backends, "", test_rand(&seed)) == backend)
			hits++;
	}
	return hits;
}

/* What a peer may send exhausts neither memory nor time, and it takes points
   only from those who have more than their share. */
static void test_max_points(void **state ATTR_UNUSED)
{
	struct backend *huge = add("10.0.0.1", "", 1);
	struct backend *small = add("10.0.0.2", "", 100);
	unsigned int hits;

	assert_true(backend_set_vhosts(backends, huge, 4294967295U));
	assert_int_equal(huge->vhosts, 4294967295U);
	/* all of its 100 points are among the 65,636 */
	hits = count_hits(small);
	assert_true(hits > 100 && hits < 200);
	/* more of the same changes nothing */
	assert_true(backend_set_vhosts(backends, huge, BACKEND_MAX_POINTS));
	assert_int_equal(count_hits(small), hits);
	assert_true(backend_set_vhosts(backends, huge, BACKEND_MAX_POINTS / 2));
	hits = count_hits(small);
	assert_true(hits > 200 && hits < 400);

	/* and all is as if it had never been */
	backend_set_vhosts(backends, huge, 100);
	add("10.0.0.3", "", 100);
	assert_string_equal(by_name("user@example.com"), "10.0.0.1");
	assert_string_equal(by_name("testuser"), "10.0.0.2");
	assert_string_equal(by_name("testuser@domain"), "10.0.0.3");
}

static void add_many(unsigned int vhosts, const char *other_tag)
{
	add("10.0.0.1", "", 100);
	for (unsigned int i = 2; i <= 21; i++) {
		struct backend *backend =
			add(t_strdup_printf("10.0.0.%u", i),
			    i % 2 == 0 ? "" : other_tag, 1);

		backend_set_vhosts(backends, backend, vhosts);
		if (i == 4)
			backend_set_down(backends, backend, TRUE, 1);
	}
}

/* 20 who want any number and one with 100 have 1,048,576 points in all: the 20
   have 52,423 each. It doesn't matter who is up or has which tag. */
static void test_max_points_shared(void **state ATTR_UNUSED)
{
	struct backends *limited = backends;
	uint64_t seed = 9;

	add_many(4294967295U, "t1");
	backends = backends_init();
	add_many((BACKENDS_MAX_POINTS - 100) / 20, "t1");
	for (unsigned int i = 0; i < 100000; i++) {
		uint32_t hash = test_rand(&seed);
		const char *tag = i % 4 == 0 ? "t1" : "";
		struct backend *one = backend_by_hash(limited, tag, hash);
		struct backend *two = backend_by_hash(backends, tag, hash);

		assert_int_equal(backend_ip_cmp(&one->ip, &two->ip), 0);
	}
	backends_deinit(&limited);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		backend_test(test_ring_vectors),
		backend_test(test_ring_live_vectors),
		backend_test(test_points),
		backend_test(test_ring_random),
		backend_test(test_ring_ties),
		backend_test(test_max_points),
		backend_test(test_max_points_shared),
	};

	return run_test_cases(tests);
}
