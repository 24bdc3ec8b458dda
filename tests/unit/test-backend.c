/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "array.h"
#include "md5.h"
#include "director/core/backend.h"
#include "director/core/username-hash.h"

static struct backends *backends;

static int setup(void **state)
{
	backends = backends_init();
	return test_frame_setup(state);
}

static int teardown(void **state)
{
	backends_deinit(&backends);
	return test_frame_teardown(state);
}

static struct ip_addr addr(const char *text)
{
	struct ip_addr ip;

	assert_int_equal(net_addr2ip(text, &ip), 0);
	return ip;
}

static struct backend *
add(const char *ip_text, const char *tag, unsigned int vhosts)
{
	struct ip_addr ip = addr(ip_text);
	struct backend *backend =
		backend_add(backends, &ip, NULL, tag, vhosts);

	assert_non_null(backend);
	return backend;
}

static struct backend *get(const char *ip_text)
{
	struct ip_addr ip = addr(ip_text);

	return backend_lookup(backends, &ip);
}

static const char *by_hash(const char *tag, uint32_t hash)
{
	struct backend *backend = backend_by_hash(backends, tag, hash);

	return backend == NULL ? "none" : net_ip2addr(&backend->ip);
}

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
			backend_remove(backends, &backend);
			assert_null(backend);
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

static void test_tags(void **state ATTR_UNUSED)
{
	char text[] = "t1";
	struct backend *one, *two;

	assert_null(backends_tag(backends, ""));
	assert_null(backends_tag(backends, "t1"));
	assert_string_equal(by_hash("t1", 1), "none");
	one = add("10.0.0.1", "t1", 100);
	two = add("10.0.0.2", text, 100);
	assert_ptr_equal(one->tag, two->tag);
	assert_ptr_equal(backends_tag(backends, text), one->tag);
	assert_ptr_not_equal(one->tag, text);
	assert_null(backends_tag(backends, ""));
	assert_string_equal(by_hash("", 1), "none");
	add("10.0.0.3", "", 100);
	for (uint32_t i = 0; i < 100; i++) {
		uint32_t hash = i * 42949672;

		assert_string_equal(by_hash("", hash), "10.0.0.3");
		assert_string_not_equal(by_hash("t1", hash), "10.0.0.3");
		assert_string_equal(by_hash("t2", hash), "none");
	}
	/* a tag stays when its last backend goes */
	backend_remove(backends, &one);
	backend_remove(backends, &two);
	assert_string_equal(backends_tag(backends, "t1"), "t1");
	assert_string_equal(by_hash("t1", 1), "none");
}

static void test_updown(void **state ATTR_UNUSED)
{
	struct backend *backend = add("10.0.0.1", "", 100);

	assert_false(backend->down);
	assert_int_equal(backend->last_updown_change, 0);
	assert_false(backend_set_down(backends, backend, FALSE, 5));
	assert_int_equal(backend->last_updown_change, 0);
	assert_true(backend_set_down(backends, backend, TRUE, 10));
	assert_int_equal(backend->last_updown_change, 10);
	assert_false(backend_set_down(backends, backend, TRUE, 20));
	assert_int_equal(backend->last_updown_change, 10);
	assert_string_equal(by_hash("", 1), "none");
	assert_true(backend_set_down(backends, backend, FALSE, 30));
	assert_int_equal(backend->last_updown_change, 30);
	assert_string_equal(by_hash("", 1), "10.0.0.1");
}

static void test_sorted(void **state ATTR_UNUSED)
{
	static const char *const ips[] = {
		"::1", "10.0.0.10", "10.0.0.9", "2001:db8::1", "9.0.0.1",
		"255.0.0.1", "10.0.0.2",
	};
	static const char *const sorted[] = {
		"9.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.10", "255.0.0.1",
		"::1", "2001:db8::1",
	};
	struct backend *const *list;
	struct backend *backend;
	struct ip_addr ip = addr("10.0.0.1");
	unsigned int count;

	list = backends_sorted(backends, &count);
	assert_int_equal(count, 0);
	for (unsigned int i = 0; i < N_ELEMENTS(ips); i++)
		add(ips[i], "", 1);
	list = backends_sorted(backends, &count);
	assert_int_equal(count, N_ELEMENTS(ips));
	for (unsigned int i = 0; i < count; i++) {
		assert_string_equal(net_ip2addr(&list[i]->ip), sorted[i]);
		assert_ptr_equal(get(sorted[i]), list[i]);
	}
	backend = get("10.0.0.9");
	backend_remove(backends, &backend);
	list = backends_sorted(backends, &count);
	assert_int_equal(count, N_ELEMENTS(ips) - 1);
	assert_string_equal(net_ip2addr(&list[2]->ip), "10.0.0.10");
	assert_null(get("10.0.0.9"));

	backend = backend_add(backends, &ip, "mail1", "", 5);
	assert_string_equal(backend->hostname, "mail1");
	assert_null(get("9.0.0.1")->hostname);
	backend_set_hostname(backend, "mail2");
	assert_string_equal(backend->hostname, "mail2");
	backend_set_hostname(backend, backend->hostname);
	assert_string_equal(backend->hostname, "mail2");
	backend_set_hostname(backend, NULL);
	assert_null(backend->hostname);
}

static void test_ip_cmp(void **state ATTR_UNUSED)
{
	static const char *const order[] = {
		"0.0.0.0", "1.0.0.0", "9.255.255.255", "10.0.0.0", "127.0.0.1",
		"128.0.0.0", "255.255.255.255", "::", "::1", "7fff::", "8000::",
	};

	for (unsigned int i = 0; i < N_ELEMENTS(order); i++) {
		for (unsigned int j = 0; j < N_ELEMENTS(order); j++) {
			struct ip_addr ip1 = addr(order[i]);
			struct ip_addr ip2 = addr(order[j]);

			assert_int_equal(backend_ip_cmp(&ip1, &ip2),
					 i < j ? -1 : (i > j ? 1 : 0));
		}
	}
}

static void test_hosts_hash(void **state ATTR_UNUSED)
{
	struct backend *backend, *two;

	assert_int_equal(backends_hash(backends), 1);
	add("127.0.0.12", "", 100);
	add("127.0.0.11", "", 100);
	add("127.0.0.13", "", 100);
	assert_int_equal(backends_hash(backends), 1355555092);
	backend = get("127.0.0.11");
	backend_remove(backends, &backend);
	backend = get("127.0.0.12");
	backend_remove(backends, &backend);
	backend = get("127.0.0.13");
	backend_remove(backends, &backend);
	assert_int_equal(backends_hash(backends), 1);

	add("10.0.0.1", "", 100);
	two = add("10.0.0.2", "", 100);
	backend = add("10.0.0.3", "", 100);
	assert_int_equal(backends_hash(backends), 1239033269);
	backend_remove(backends, &backend);
	add("10.0.0.3", "t1", 50);
	backend_set_down(backends, two, TRUE, 1);
	assert_int_equal(backends_hash(backends), 3535415737);
}

static void test_hosts_hash_ipv6(void **state ATTR_UNUSED)
{
	struct backend *backend;
	uint32_t hash;

	add("2001:db8::1", "", 100);
	add("10.0.0.2", "", 100);
	hash = backends_hash(backends);
	assert_int_equal(hash, 4213640051);
	/* the known weakness of this sum, which peers share */
	backend = get("10.0.0.2");
	backend_set_vhosts(backends, backend, 101);
	backend_set_down(backends, backend, TRUE, 1);
	assert_int_equal(backends_hash(backends), hash);
}

static void test_slots(void **state ATTR_UNUSED)
{
	struct backend *one = add("10.0.0.1", "t1", 100);
	struct backend *two = add("10.0.0.2", "", 100);
	uint16_t slot1 = one->slot, slot2 = two->slot;

	assert_int_not_equal(slot1, BACKEND_SLOT_NONE);
	assert_int_not_equal(slot1, slot2);
	assert_ptr_equal(backend_by_slot(backends, slot1), one);
	assert_ptr_equal(backend_slot_tag(backends, slot1), one->tag);
	assert_null(backend_by_slot(backends, BACKEND_SLOT_NONE));
	assert_null(backend_slot_tag(backends, BACKEND_SLOT_NONE));
	assert_null(backend_by_slot(backends, BACKEND_SLOT_MAX));
	assert_null(backend_slot_tag(backends, BACKEND_SLOT_MAX));
	assert_int_equal(backend_slot_users(backends, BACKEND_SLOT_MAX), 0);

	/* nobody to forget: the slot stays */
	assert_true(backend_flush(backends, one));
	assert_int_equal(one->slot, slot1);

	backend_slot_user_added(backends, slot1);
	backend_slot_user_added(backends, slot1);
	assert_int_equal(backend_users(backends, one), 2);
	assert_true(backend_flush(backends, one));
	assert_int_not_equal(one->slot, slot1);
	assert_int_not_equal(one->slot, slot2);
	assert_int_equal(backend_users(backends, one), 0);
	assert_ptr_equal(backend_by_slot(backends, one->slot), one);
	/* dead, but it has its tag until it is empty */
	assert_null(backend_by_slot(backends, slot1));
	assert_ptr_equal(backend_slot_tag(backends, slot1), one->tag);
	assert_int_equal(backend_slot_users(backends, slot1), 2);
	assert_int_equal(backends_dead_users(backends), 2);
	assert_true(backends_have_dead_slots(backends));

	backend_slot_user_added(backends, slot2);
	backend_remove(backends, &two);
	assert_int_equal(backends_dead_users(backends), 3);
	backend_slot_user_removed(backends, slot1);
	backend_slot_user_removed(backends, slot2);
	assert_true(backends_have_dead_slots(backends));
	assert_null(backend_slot_tag(backends, slot2));
	/* slot2 is free, slot1 is not */
	assert_int_equal(add("10.0.0.3", "", 1)->slot, slot2);
	assert_int_not_equal(add("10.0.0.4", "", 1)->slot, slot1);
	backend_slot_user_removed(backends, slot1);
	assert_false(backends_have_dead_slots(backends));
	assert_int_equal(add("10.0.0.5", "", 1)->slot, slot1);
}

static void test_slots_run_out(void **state ATTR_UNUSED)
{
	struct ip_addr ip = addr("10.0.0.0");
	struct backend *backend = NULL;
	uint16_t dead_slot;

	for (unsigned int i = 1; i <= BACKEND_SLOT_MAX; i++) {
		ip.u.ip4.s_addr = htonl((10U << 24) + i);
		backend = backend_add(backends, &ip, NULL, "", 0);
		assert_non_null(backend);
	}
	dead_slot = backend->slot;
	backend_slot_user_added(backends, dead_slot);
	assert_false(backend_flush(backends, backend));
	assert_int_equal(backend->slot, dead_slot);
	assert_int_equal(backend_users(backends, backend), 1);

	ip = addr("11.0.0.1");
	assert_null(backend_add(backends, &ip, NULL, "", 0));
	assert_null(backend_lookup(backends, &ip));
	backend_remove(backends, &backend);
	assert_null(backend_add(backends, &ip, NULL, "", 0));
	backend_slot_user_removed(backends, dead_slot);
	backend = backend_add(backends, &ip, NULL, "", 0);
	assert_non_null(backend);
	assert_int_equal(backend->slot, dead_slot);
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
	assert_in_range(hits, 100, 200);
	/* more of the same changes nothing */
	assert_true(backend_set_vhosts(backends, huge, BACKEND_MAX_POINTS));
	assert_int_equal(count_hits(small), hits);
	assert_true(backend_set_vhosts(backends, huge, BACKEND_MAX_POINTS / 2));
	assert_in_range(count_hits(small), 200, 400);

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

#define backend_test(func) \
	cmocka_unit_test_setup_teardown(func, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		backend_test(test_ring_vectors),
		backend_test(test_ring_live_vectors),
		backend_test(test_points),
		backend_test(test_ring_random),
		backend_test(test_ring_ties),
		backend_test(test_tags),
		backend_test(test_updown),
		backend_test(test_sorted),
		backend_test(test_ip_cmp),
		backend_test(test_hosts_hash),
		backend_test(test_hosts_hash_ipv6),
		backend_test(test_slots),
		backend_test(test_slots_run_out),
		backend_test(test_max_points),
		backend_test(test_max_points_shared),
	};

	return run_test_cases(tests);
}
