/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-backends.h"

static void test_tags(void **state ATTR_UNUSED)
{
	char text[] = "t1";
	const struct backend *one, *two;

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
	del("10.0.0.1");
	del("10.0.0.2");
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
	del("10.0.0.9");
	list = backends_sorted(backends, &count);
	assert_int_equal(count, N_ELEMENTS(ips) - 1);
	assert_string_equal(net_ip2addr(&list[2]->ip), "10.0.0.10");

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
	struct backend *two;

	assert_int_equal(backends_hash(backends), 1);
	add("127.0.0.12", "", 100);
	add("127.0.0.11", "", 100);
	add("127.0.0.13", "", 100);
	assert_int_equal(backends_hash(backends), 1355555092);
	del("127.0.0.11");
	del("127.0.0.12");
	del("127.0.0.13");
	assert_int_equal(backends_hash(backends), 1);

	add("10.0.0.1", "", 100);
	two = add("10.0.0.2", "", 100);
	add("10.0.0.3", "", 100);
	assert_int_equal(backends_hash(backends), 1239033269);
	del("10.0.0.3");
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		backend_test(test_tags),
		backend_test(test_updown),
		backend_test(test_sorted),
		backend_test(test_ip_cmp),
		backend_test(test_hosts_hash),
		backend_test(test_hosts_hash_ipv6),
		backend_test(test_slots),
		backend_test(test_slots_run_out),
	};

	return run_test_cases(tests);
}
