/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Lookups of a lone director (assignment.md §5) */

#include "test-director.h"

static void test_new_user(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	test_configure("127.0.0.11 name.example/127.0.0.12 127.0.0.13");
	assert_string_equal(where("a"), "127.0.0.13");
	assert_string_equal(where("b"), "127.0.0.13");
	assert_string_equal(where("c"), "127.0.0.11");
	assert_string_equal(where("jane"), "127.0.0.12");
	assert_string_equal(where("user@example.com"), "127.0.0.12");
	assert_string_equal(where("john@example.com"), "127.0.0.13");

	lookup = test_lookup("JANE");
	assert_int_equal(lookup->state, 1);
	assert_int_equal(lookup->lookup.hash, 1480892766);
	assert_string_equal(lookup->lookup.backend->hostname, "name.example");
	/* without a login process there is no lease */
	assert_false(lookup->lookup.leased);
	assert_null(test_lookup("a")->lookup.backend->hostname);

	/* they are remembered */
	assert_int_equal(user_table_count(director_users(director)), 6);
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("jane", "")), now.wall);
	assert_int_equal(director_lookups_waiting(director), 0);
}

static void test_hash_error(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	director_deinit(&director);
	test_set.username_hash = "%{user | substr(0, 8)}";
	test_director_init();
	test_configure("10.0.0.1");

	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, -1);
	assert_ptr_equal(strstr(lookup->error, "Failed to expand "
		"director_username_hash=%{user | substr(0, 8)}: "),
		lookup->error);
	assert_int_equal(director_lookups_waiting(director), 0);
	/* the same for others' sessions */
	director_refresh(director, "jane", &now);
	assert_non_null(strstr(str_c(test_logs), "E notify: User jane: Failed "
			       "to expand director_username_hash="));
	/* longer names are all right */
	assert_string_equal(where("jane@example.com"), "10.0.0.1");
}

static void test_separator(void **state ATTR_UNUSED)
{
	director_deinit(&director);
	test_set.master_user_separator = "*+";
	test_director_init();
	test_configure("127.0.0.11 127.0.0.12 127.0.0.13");

	assert_int_equal(test_hash("jane*master"), test_hash("jane"));
	assert_int_equal(test_hash("jane*a*b"), test_hash("jane"));
	assert_int_not_equal(test_hash("jane+master"), test_hash("jane"));
	assert_string_equal(where("jane*master"), "127.0.0.12");
	assert_int_equal(user_table_count(director_users(director)), 1);

	/* a session's notification is of the same user */
	test_pass((TEST_EXPIRE - 1) * 1000);
	director_refresh(director, "jane*master", &now);
	test_pass(2000);
	assert_true(test_user_exists("jane"));
}

static void test_tags(void **state ATTR_UNUSED)
{
	struct test_lookup *unknown, *none;

	test_configure("10.0.0.1@a 10.0.0.2@b 10.0.0.3@b");
	assert_string_equal(where_tag("u1", "a"), "10.0.0.1");
	assert_string_not_equal(where_tag("u1", "b"), "10.0.0.1");
	assert_string_equal(where_tag("u1", "b"), hashed_tag("u1", "b"));
	assert_int_equal(user_table_count(director_users(director)), 2);

	/* exactly the tag */
	unknown = test_lookup_tag("u1", "A");
	none = test_lookup("u1");
	assert_int_equal(unknown->state, 0);
	assert_int_equal(none->state, 0);
	assert_int_equal(test_host_set("10.0.0.4", NULL, 100),
			 DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(none->state, 1);
	assert_string_equal(none->ip, "10.0.0.4");
	assert_int_equal(unknown->state, 0);
	test_pass(DIRECTOR_LOOKUP_TIMEOUT_MSECS);
	assert_int_equal(unknown->state, -1);
	assert_string_equal(unknown->error, "Timeout because no hosts - queued "
		"for 30 secs (Ring synced for 30 secs, "
		/* u1 */
		"hash=3833023709, tag=A)");
}

/* Rows 6, 8 and 10: nobody else has to agree, so that who is near expiry goes
   where hashing puts him at once. */
static void test_known_user_stays(void **state ATTR_UNUSED)
{
	const char *old;

	test_configure("10.0.0.1 10.0.0.2 10.0.0.3");
	old = where("jane");
	assert_string_equal(old, "10.0.0.1");

	assert_int_equal(test_host_down(old, TRUE), DIRECTOR_HOST_OK);
	assert_string_not_equal(hashed("jane"), old);
	assert_string_equal(where("jane"), old);
	test_pass(54 * 1000);
	assert_string_equal(where("jane"), old);
	/* that was a use */
	test_pass(54 * 1000);
	assert_string_equal(where("jane"), old);

	assert_int_equal(test_host_down(old, FALSE), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_set(old, NULL, 0), DIRECTOR_HOST_OK);
	assert_string_equal(where("jane"), old);
	/* row 8: hashing agrees again */
	assert_int_equal(test_host_set(old, NULL, 100), DIRECTOR_HOST_OK);
	test_pass(55 * 1000);
	assert_string_equal(where("jane"), old);
	assert_int_equal(test_host_set(old, NULL, 0), DIRECTOR_HOST_OK);
	/* near expiry: the last 6 of 60 s */
	test_pass(55 * 1000);
	assert_true(user_table_is_near_expiry(director_users(director),
					      test_user("jane", ""), now.wall));
	assert_string_equal(where("jane"), hashed("jane"));
	assert_string_not_equal(where("jane"), old);
	assert_int_equal(test_host_set(old, NULL, 100), DIRECTOR_HOST_OK);
	assert_string_equal(hashed("jane"), old);
	old = where("jane");

	/* only when he has expired hashing decides */
	test_pass(TEST_EXPIRE * 1000 - 1);
	assert_true(test_user_exists("jane"));
	test_pass(1);
	assert_false(test_user_exists("jane"));
	assert_string_equal(where("jane"), hashed("jane"));
	assert_string_not_equal(where("jane"), old);
}

/* Row 12, and all the ways out of it */
static void test_no_hosts(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	test_configure("");
	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, 0);
	assert_int_equal(director_lookups_waiting(director), 1);
	test_pass(100);
	assert_int_equal(lookup->state, 0);
	/* a host that gets no users doesn't help */
	assert_int_equal(test_host_set("10.0.0.1", NULL, 0), DIRECTOR_HOST_OK);
	test_pass(100);
	assert_int_equal(lookup->state, 0);
	assert_int_equal(test_host_set("10.0.0.1", NULL, 1), DIRECTOR_HOST_OK);
	/* told from director_run() only */
	assert_int_equal(lookup->state, 0);
	assert_true(director_next_deadline(director, &now) == now.msecs);
	test_pass(0);
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, "10.0.0.1");
	assert_true(lookup->done_msecs == now.msecs);
	assert_int_equal(director_lookups_waiting(director), 0);
}

static void test_all_down_then_up(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup, *known;

	test_configure("10.0.0.1 10.0.0.2");
	(void)where("known");
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_down("10.0.0.2", TRUE), DIRECTOR_HOST_OK);
	test_run();
	lookup = test_lookup("new");
	known = test_lookup("known");
	assert_int_equal(lookup->state, 0);
	assert_int_equal(known->state, 1);
	test_pass(29999);
	assert_int_equal(lookup->state, 0);
	assert_int_equal(test_host_down("10.0.0.2", FALSE), DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(lookup->state, 1);
	assert_string_equal(lookup->ip, "10.0.0.2");
	/* in the very last moment as well: it was there before the time was
	   up */
	assert_int_equal(test_host_down("10.0.0.2", TRUE), DIRECTOR_HOST_OK);
	lookup = test_lookup("new2");
	test_pass(29999);
	assert_int_equal(test_host_down("10.0.0.1", FALSE), DIRECTOR_HOST_OK);
	test_set_time(now.msecs + 1);
	test_run();
	assert_int_equal(lookup->state, 1);
}

static void test_timeout(void **state ATTR_UNUSED)
{
	struct test_lookup *first, *second, *third;
	uint64_t start = now.msecs;

	test_configure("10.0.0.1@t");
	test_pass(1234);
	first = test_lookup("jane");
	test_pass(1);
	second = test_lookup_tag("jane", "x y");
	test_pass(20000);
	third = test_lookup("late");
	assert_true(director_next_deadline(director, &now) ==
		    start + 1234 + 30000);

	/* not a millisecond too early, even if called */
	test_set_time(start + 1234 + 29999);
	test_run();
	assert_int_equal(first->state, 0);
	test_set_time(start + 1234 + 30000);
	test_run();
	assert_int_equal(first->state, -1);
	assert_int_equal(second->state, 0);
	assert_string_equal(first->error, "Timeout because no hosts - queued "
		"for 30 secs (Ring synced for 31 secs, hash=1480892766)");
	test_pass(1);
	assert_int_equal(second->state, -1);
	assert_true(second->done_msecs == start + 1235 + 30000);
	assert_string_equal(second->error, "Timeout because no hosts - queued "
		"for 30 secs (Ring synced for 31 secs, hash=1480892766, "
		"tag=x y)");
	assert_int_equal(third->state, 0);
	test_pass(60000);
	assert_int_equal(third->state, -1);
	assert_true(third->done_msecs == start + 21235 + 30000);
	assert_int_equal(director_lookups_waiting(director), 0);
	/* nobody was added */
	assert_int_equal(user_table_count(director_users(director)), 0);
}

/* A change that doesn't help a lookup doesn't make it wait longer. */
static void test_timeout_after_retries(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	test_configure("10.0.0.1@t");
	lookup = test_lookup("jane");
	for (unsigned int i = 0; i < 29; i++) {
		test_pass(1000);
		assert_int_equal(test_host_set("10.0.0.2", "t", i),
				 DIRECTOR_HOST_OK);
		test_run();
	}
	test_pass(999);
	assert_int_equal(lookup->state, 0);
	test_pass(1);
	assert_int_equal(lookup->state, -1);
}

#define MANY 1000

static void lookup_many(struct test_lookup **lookups)
{
	for (unsigned int i = 0; i < MANY; i++) {
		lookups[i] = test_lookup(t_strdup_printf("u%u", i));
		assert_int_equal(lookups[i]->state, 0);
	}
	assert_int_equal(director_lookups_waiting(director), MANY);
}

/* In order of arrival, in slices */
static void test_retry_order(void **state ATTR_UNUSED)
{
	struct test_lookup *lookups[MANY];
	unsigned int i, slices = 1;

	test_configure("");
	lookup_many(lookups);
	assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
			 DIRECTOR_HOST_OK);
	for (; director_run(director, &now); slices++) {
		assert_true(test_done_count <= slices * 200);
		/* for whoever asks instead of remembering */
		assert_true(director_lookups_waiting(director) == 0 ||
			    director_next_deadline(director, &now) ==
			    now.msecs);
	}
	assert_true(slices >= MANY / 200);
	for (i = 0; i < MANY; i++) {
		assert_int_equal(lookups[i]->state, 1);
		assert_int_equal(lookups[i]->done_order, i + 1);
	}
}

static void test_timeout_order(void **state ATTR_UNUSED)
{
	struct test_lookup *lookups[MANY];
	unsigned int i, slices = 1;

	test_configure("");
	lookup_many(lookups);
	test_set_time(now.msecs + 29999);
	test_run();
	assert_int_equal(test_done_count, 0);
	test_set_time(now.msecs + 1);
	for (; director_run(director, &now); slices++)
		assert_true(test_done_count <= slices * 200);
	assert_true(slices >= MANY / 200);
	for (i = 0; i < MANY; i++) {
		assert_int_equal(lookups[i]->state, -1);
		assert_int_equal(lookups[i]->done_order, i + 1);
	}
}

/* While the lookups are being answered the host goes: the others wait on, for
   what is left of their time. */
static void test_host_gone_between_slices(void **state ATTR_UNUSED)
{
	struct test_lookup *lookups[MANY];
	unsigned int i, answered;
	uint64_t start = now.msecs;

	test_configure("");
	lookup_many(lookups);
	test_pass(10000);
	assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
			 DIRECTOR_HOST_OK);
	assert_true(director_run(director, &now));
	answered = test_done_count;
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(test_done_count, answered);
	test_pass(19999);
	assert_int_equal(test_done_count, answered);
	test_pass(1);
	for (i = 0; i < MANY; i++) {
		assert_int_equal(lookups[i]->state, i < answered ? 1 : -1);
		assert_int_equal(lookups[i]->done_order, i + 1);
		if (i >= answered)
			assert_true(lookups[i]->done_msecs == start + 30000);
	}
}

static void test_abort(void **state ATTR_UNUSED)
{
	/* which of five go: first, middle, last, all, neighbours */
	static const char *const cases[] = {
		"10000", "00100", "00001", "11111", "11000", "00011", "10101",
		"01110",
	};
	struct test_lookup *lookups[5];
	unsigned int i, n, order, waiting;

	test_configure("");
	for (n = 0; n < N_ELEMENTS(cases) * 2; n++) {
		const char *gone = cases[n / 2];

		test_done_count = waiting = 0;
		for (i = 0; i < 5; i++) {
			lookups[i] = test_lookup(t_strdup_printf("%u-%u", n,
								 i));
		}
		/* before or after the host came */
		if (n % 2 == 1) {
			assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
					 DIRECTOR_HOST_OK);
		}
		for (i = 0; i < 5; i++) {
			if (gone[i] == '1')
				test_lookup_free(lookups[i]);
			else
				waiting++;
		}
		assert_int_equal(director_lookups_waiting(director), waiting);
		if (n % 2 == 0) {
			assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
					 DIRECTOR_HOST_OK);
		}
		test_run();
		assert_int_equal(test_done_count, waiting);
		for (i = order = 0; i < 5; i++) {
			if (gone[i] == '0') {
				assert_int_equal(lookups[i]->done_order,
						 ++order);
			}
		}
		assert_int_equal(test_host_remove("10.0.0.1"),
				 DIRECTOR_HOST_OK);
		test_run();
	}
	/* an aborted one's deadline isn't waited for */
	test_lookup_free(test_lookup("x"));
	test_run();
	assert_true(director_next_deadline(director, &now) == 0);
}

/* What callbacks do */

static struct test_lookup *victims[MANY];
static unsigned int victims_count;

static void on_done_abort_victims(struct test_lookup *lookup)
{
	/* its own memory, too */
	unsigned int order = lookup->done_order;

	test_lookup_free(lookup);
	if (order > 1)
		return;
	while (victims_count > 0)
		test_lookup_free(victims[--victims_count]);
}

static void abort_in_callback(bool success)
{
	/* bits: which of the six others the first one's end aborts */
	for (unsigned int mask = 0; mask < 64; mask++) {
		struct test_lookup *lookup;

		test_on_done = on_done_abort_victims;
		test_done_count = victims_count = 0;
		(void)test_lookup(t_strdup_printf("%u", mask));
		for (unsigned int i = 0; i < 6; i++) {
			lookup = test_lookup(t_strdup_printf("%u-%u", mask, i));
			if ((mask & (1U << i)) != 0)
				victims[victims_count++] = lookup;
		}
		if (success) {
			assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
					 DIRECTOR_HOST_OK);
			test_run();
			assert_int_equal(test_host_remove("10.0.0.1"),
					 DIRECTOR_HOST_OK);
		} else {
			test_pass(30000);
		}
		assert_int_equal(test_done_count,
				 7 - __builtin_popcount(mask));
		assert_int_equal(director_lookups_waiting(director), 0);
		assert_int_equal(array_count(&test_lookups), 0);
	}
}

static void test_abort_in_callback(void **state ATTR_UNUSED)
{
	test_configure("");
	abort_in_callback(TRUE);
	abort_in_callback(FALSE);
}

static void on_done_lookup_more(struct test_lookup *lookup)
{
	/* a free slot of the login process: the next login comes */
	if (array_count(&test_lookups) < MANY) {
		(void)test_lookup(t_strdup_printf("%s-%u", lookup->username,
			array_count(&test_lookups)));
	}
}

static void test_lookup_in_callback(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup;

	/* answered at once */
	test_configure("");
	test_on_done = on_done_lookup_more;
	for (unsigned int i = 0; i < 10; i++)
		(void)test_lookup(t_strdup_printf("%u", i));
	assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
			 DIRECTOR_HOST_OK);
	test_run();
	assert_int_equal(array_count(&test_lookups), 20);
	array_foreach_elem(&test_lookups, lookup)
		assert_int_equal(lookup->state, 1);

	/* they have to wait, too: tried again only when there is a reason */
	assert_int_equal(test_host_down("10.0.0.1", TRUE), DIRECTOR_HOST_OK);
	test_run();
	lookup = test_lookup("timeout");
	for (unsigned int i = 1; i <= 5; i++) {
		test_pass(30000);
		assert_int_equal(array_count(&test_lookups), 21 + i);
		assert_int_equal(lookup->state, -1);
		assert_true(lookup->done_msecs == now.msecs);
		lookup = array_idx_elem(&test_lookups, 20 + i);
		assert_int_equal(lookup->state, 0);
	}
}

static void on_done_host_down(struct test_lookup *lookup)
{
	if (lookup->done_order == 3) {
		assert_int_equal(test_host_down("10.0.0.1", TRUE),
				 DIRECTOR_HOST_OK);
	}
}

/* Not promised, but nothing may break by it. */
static void test_change_in_callback(void **state ATTR_UNUSED)
{
	struct test_lookup *lookups[6];
	unsigned int i;

	test_configure("");
	test_on_done = on_done_host_down;
	for (i = 0; i < 6; i++)
		lookups[i] = test_lookup(t_strdup_printf("%u", i));
	assert_int_equal(test_host_set("10.0.0.1", NULL, 100),
			 DIRECTOR_HOST_OK);
	test_run();
	for (i = 0; i < 6; i++)
		assert_int_equal(lookups[i]->state, i < 3 ? 1 : 0);
	test_pass(30000);
	for (i = 3; i < 6; i++)
		assert_int_equal(lookups[i]->state, -1);
}

static void test_refresh(void **state ATTR_UNUSED)
{
	test_configure("10.0.0.1 10.0.0.2@t");
	(void)where("jane");
	(void)where_tag("jane", "t");
	(void)where("other");
	test_pass(30 * 1000);
	/* in all tags; who isn't known isn't added */
	director_refresh(director, "Jane", &now);
	director_refresh(director, "nobody", &now);
	test_assert_not_logged();
	assert_int_equal(user_table_count(director_users(director)), 3);
	test_pass(TEST_EXPIRE * 1000 - 1);
	assert_int_not_equal(test_user("jane", ""), USER_IDX_NONE);
	assert_int_not_equal(test_user("jane", "t"), USER_IDX_NONE);
	assert_int_equal(test_user("other", ""), USER_IDX_NONE);
	test_pass(1);
	assert_int_equal(test_user("jane", ""), USER_IDX_NONE);
	assert_int_equal(test_user("jane", "t"), USER_IDX_NONE);
	/* too late */
	director_refresh(director, "jane", &now);
	assert_int_equal(test_user("jane", ""), USER_IDX_NONE);
	/* and the table gets empty by itself */
	test_pass(2000);
	assert_int_equal(user_table_count(director_users(director)), 0);
	assert_true(director_next_deadline(director, &now) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		director_test(test_new_user),
		director_test(test_hash_error),
		director_test(test_separator),
		director_test(test_tags),
		director_test(test_known_user_stays),
		director_test(test_no_hosts),
		director_test(test_all_down_then_up),
		director_test(test_timeout),
		director_test(test_timeout_after_retries),
		director_test(test_retry_order),
		director_test(test_timeout_order),
		director_test(test_host_gone_between_slices),
		director_test(test_abort),
		director_test(test_abort_in_callback),
		director_test(test_lookup_in_callback),
		director_test(test_change_in_callback),
		director_test(test_refresh),
	};

	return run_test_cases(tests);
}
