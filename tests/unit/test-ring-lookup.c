/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who has to wait while a change of the backends goes round the ring
   (doc/ring-protocol.md §9) */

#include "test-ring.h"

/* The backends as they were when the ring was synced */
static struct backends *test_before;

/* Our left makes its nth change. */
static void
left_changes(struct test_conn *left, unsigned int n, const char *ip,
	     unsigned int vhosts)
{
	in(left, "HOST|10.0.0.1|9090|%u|%s|%u||U0||%u%03u", n, ip, vhosts,
	   TEST_WALL, n);
}

/* A new user, of those whom the hashing of now and before put to these */
static const char *new_user(const char *ip_before, const char *ip_now)
{
	static unsigned int n;
	const char *name;

	for (;;) {
		name = t_strdup_printf("new%u", n++);
		assert_true(n < 10000);
		if (strcmp(hashed(name), ip_now) == 0 &&
		    strcmp(net_ip2addr(&backend_by_hash(test_before, "",
				test_hash(name))->ip), ip_before) == 0)
			return name;
	}
}

/* While a change goes round only those wait whom it moves, or moved. */
static void test_new_users_meanwhile(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	struct test_lookup *lookup, *lookup2;

	ring_of(3, &left, &right);
	test_before = backends_init();
	(void)backend_add(test_before, ip_of("10.1.0.1"), NULL, "", 100);
	(void)backend_add(test_before, ip_of("10.1.0.2"), NULL, "", 100);
	assert_int_equal(test_host_set("10.1.0.1", NULL, 50), DIRECTOR_HOST_OK);
	assert_false(ring_is_synced(director_ring(director)));
	assert_string_equal(where(new_user("10.1.0.1", "10.1.0.1")),
			    "10.1.0.1");
	assert_string_equal(where(new_user("10.1.0.2", "10.1.0.2")),
			    "10.1.0.2");
	lookup = test_lookup(new_user("10.1.0.1", "10.1.0.2"));
	ring_end();
	assert_int_equal(lookup->state, 0);

	/* Back again: others may have let him in while it was so. */
	left_changes(left, 1, "10.1.0.1", 100);
	lookup2 = test_lookup(lookup->lookup.username);
	ring_end();
	assert_int_equal(lookup2->state, 0);
	assert_int_equal(lookup->state, 0);
	ring_syncs(left, right);
	test_run();
	assert_int_equal(lookup->state, 1);
	assert_int_equal(lookup2->state, 1);

	/* A down one, and one that another director adds */
	assert_int_equal(test_host_down("10.1.0.2", TRUE), DIRECTOR_HOST_OK);
	left_changes(left, 2, "10.1.0.3", 1);
	assert_string_equal(where(new_user("10.1.0.1", "10.1.0.1")),
			    "10.1.0.1");
	lookup = test_lookup(new_user("10.1.0.2", "10.1.0.1"));
	ring_end();
	assert_int_equal(lookup->state, 0);
	/* With a removal users are forgotten, here earlier than there. */
	assert_int_equal(test_host_remove("10.1.0.3"), DIRECTOR_HOST_OK);
	lookup2 = test_lookup(new_user("10.1.0.1", "10.1.0.1"));
	ring_end();
	assert_int_equal(lookup2->state, 0);
	ring_syncs(left, right);
	test_run();
	assert_int_equal(lookup->state, 1);
	assert_int_equal(lookup2->state, 1);

	/* and with another neighbour somebody else's users come */
	assert_int_equal(test_host_set("10.1.0.1", NULL, 90), DIRECTOR_HOST_OK);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT + 1, TRUE, NULL);
	lookup = test_lookup(new_user("10.1.0.1", "10.1.0.1"));
	ring_end();
	assert_int_equal(lookup->state, 0);
	backends_deinit(&test_before);
}

/* He is near expiry and where hashing puts him, but didn't put him a moment ago:
   others may have forgotten him before they heard of it. */
static void test_old_user_meanwhile(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	struct test_lookup *lookup;
	const char *jane, *joe;

	ring_of(3, &left, &right);
	test_before = backends_init();
	(void)backend_add(test_before, ip_of("10.1.0.1"), NULL, "", 100);
	(void)backend_add(test_before, ip_of("10.1.0.2"), NULL, "", 100);
	left_changes(left, 1, "10.1.0.2", 50);
	jane = new_user("10.1.0.2", "10.1.0.1");
	joe = new_user("10.1.0.1", "10.1.0.1");
	/* (as it was before jane's backend was the other one) */
	left_changes(left, 2, "10.1.0.2", 100);
	ring_syncs(left, right);
	for (unsigned int i = 0; i < 2; i++) {
		in(left, "USER|%u|10.1.0.1|%u", test_hash(i == 0 ? jane : joe),
		   TEST_WALL - TEST_EXPIRE + 3);
	}
	left_changes(left, 3, "10.1.0.2", 50);
	assert_false(ring_is_synced(director_ring(director)));
	assert_string_equal(where(joe), "10.1.0.1");
	lookup = test_lookup(jane);
	ring_end();
	assert_int_equal(lookup->state, 0);
	ring_syncs(left, right);
	test_run();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(known(jane, ""), "10.1.0.1");
	backends_deinit(&test_before);
}

/* More changes than are remembered: everybody waits. */
static void test_new_users_forgotten(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	struct test_lookup *lookup;
	unsigned int i;

	ring_of(3, &left, &right);
	for (i = 1; i <= 4; i++)
		left_changes(left, i, "10.1.0.1", 100 - i);
	for (i = 0; i < 20; i++)
		(void)test_lookup(t_strdup_printf("user%u", i));
	assert_true(director_lookups_waiting(director) < 10);
	left_changes(left, 5, "10.1.0.1", 95);
	for (i = 0; i < 10; i++) {
		lookup = test_lookup(t_strdup_printf("later%u", i));
		assert_int_equal(lookup->state, 0);
	}
	ring_syncs(left, right);
	test_run();
	assert_int_equal(director_lookups_waiting(director), 0);
}

/* Whoever changes its neighbour is connected to nobody for a moment. */
static void test_recent_users(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *jane;

	ring_of(4, &left, &right);
	jane = t_strdup_printf("USER|%u|%s|", test_hash("jane"),
			       hashed("jane"));
	(void)where("jane");
	ring_end();
	assert_said(left, jane);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	(void)where("joe");
	test_pass(1000);
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_int_equal(said(left, jane), 1);
	assert_int_equal(said(left, "USER|"), 2);
	ring_syncs(left, right);

	/* He is being moved; and joe was used long ago. */
	for (unsigned int i = 0; i < 5; i++) {
		in(left, "PING|%u|0", TEST_WALL);
		in(right, "PING|%u|0", TEST_WALL);
		test_pass(1000);
	}
	in(left, "USER|%u|%s|%u", test_hash("jim"), hashed("jim"),
	   (unsigned int)now.wall);
	in(left, "USER|%u|%s|%u", test_hash("june"), hashed("june"),
	   (unsigned int)now.wall);
	in(left, "USER-MOVE|10.0.0.1|9090|5|%u|10.1.0.2|7", test_hash("june"));
	ring_peer_closed(director, right->peer, "reset", &now);
	right->peer = NULL;
	test_pass(300);
	forget_sent();
	right = right_joins("10.0.0.3", 10);
	assert_int_equal(said(right, "USER|"), 1);
	assert_said(right, t_strdup_printf("USER|%u|", test_hash("jim")));
	ring_syncs(left, right);

	/* the last ones of very many */
	for (unsigned int i = 1; i <= 3000; i++)
		in(right, "USER|%u|10.1.0.1|%u", i, (unsigned int)now.wall);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_int_equal(said(left, "USER|"), 1024);
	assert_said(left, "USER|3000|");
	ring_syncs(left, right);

	/* 2.3 */
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	left = incoming("10.0.0.1");
	greet(left, "10.0.0.1", 9, 0);
	in(left, "HOST-HAND-START|1");
	in(left, "HOST|10.1.0.1|100||U0||1");
	in(left, "HOST|10.1.0.2|100||U0||1");
	in(left, "HOST-HAND-END|1");
	in(left, "OPTIONS|consistent-hashing");
	in(left, "DONE");
	assert_not_said(left, "USER|");
}

/* A new neighbour may have flushed them already, and have told it before. */
static void test_recent_users_flushed(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(4, &left, &right);
	in(right, "USER|7|10.1.0.1|%u", (unsigned int)now.wall);
	ring_peer_closed(director, left->peer, "reset", &now);
	left->peer = NULL;
	left = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, TRUE, NULL);
	assert_said(left, "USER|7|");
	ring_syncs(left, right);
	in(left, "HOST-FLUSH|10.0.0.1|9090|1|10.1.0.1");
	assert_said(left, "HOST-FLUSH|10.0.0.2|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_new_users_meanwhile),
		ring_test(test_old_user_meanwhile),
		ring_test(test_new_users_forgotten),
		ring_test(test_recent_users),
		ring_test(test_recent_users_flushed),
	};

	return run_test_cases(tests);
}
