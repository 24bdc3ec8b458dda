/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What was recorded comes back, and is recorded as a whole. */

#include "test-restore.h"

/* Neither of two backends, where hashing doesn't put him */
static const char *off_hash(const char *name)
{
	return strcmp(hashed(name), "10.0.0.1") == 0 ? "10.0.0.2" : "10.0.0.1";
}

static void test_hosts(void **state ATTR_UNUSED)
{
	struct backend *backend;

	RESTORE(HOST, .ip = *ip_of("10.0.0.1"), .tag = "t", .vhosts = 7,
		.hostname = "name", .down = TRUE, .timestamp = 123);
	backend = get("10.0.0.1");
	assert_non_null(backend);
	assert_string_equal(backend->tag, "t");
	assert_string_equal(backend->hostname, "name");
	assert_int_equal(backend->vhosts, 7);
	assert_true(backend->down);
	assert_int_equal(backend->last_updown_change, 123);

	/* as it was later: the last one counts */
	RESTORE(HOST, .ip = *ip_of("10.0.0.1"), .tag = "t", .vhosts = 0,
		.hostname = "name", .timestamp = 456);
	backend = get("10.0.0.1");
	assert_int_equal(backend->vhosts, 0);
	assert_false(backend->down);
	assert_int_equal(backend->last_updown_change, 456);
	/* the time is kept even if it didn't change */
	RESTORE(HOST, .ip = *ip_of("10.0.0.1"), .tag = "t", .vhosts = 5,
		.timestamp = 789);
	assert_int_equal(get("10.0.0.1")->last_updown_change, 789);
	assert_int_equal(get("10.0.0.1")->vhosts, 5);

	RESTORE(HOST_REMOVE, .ip = *ip_of("10.0.0.1"));
	assert_null(get("10.0.0.1"));
	/* what isn't there */
	RESTORE(HOST_REMOVE, .ip = *ip_of("10.0.0.1"));
	RESTORE(HOST_FLUSH, .ip = *ip_of("10.0.0.1"));
	RESTORE(USER_FORGET, .hash = 1, .tag = "nosuch");
	RESTORE(USER_FORGET, .hash = 1, .tag = "t");
	RESTORE(USER, .hash = 1, .ip = *ip_of("10.0.0.1"),
		.timestamp = now.wall);
	assert_int_equal(user_table_count(director_users(director)), 0);
	/* nothing of all this is recorded or told */
	assert_int_equal(array_count(&test_records), 0);
	test_assert_not_logged();
	assert_int_equal(director_last_change(director), 0);
}

static void test_users(void **state ATTR_UNUSED)
{
	restore_host("10.0.0.1", "");
	restore_host("10.0.0.2", "");
	restore_host("10.0.0.3", "t");
	restore_user("jane", "10.0.0.1");
	restore_user("jane", "10.0.0.3");
	assert_string_equal(known("jane", ""), "10.0.0.1");
	assert_string_equal(known("jane", "t"), "10.0.0.3");
	restore_user("jane", "10.0.0.2");
	assert_string_equal(known("jane", ""), "10.0.0.2");
	assert_int_equal(user_table_count(director_users(director)), 2);
	assert_int_equal(backend_users(director_backends(director),
				       get("10.0.0.1")), 0);

	/* only what has not expired, and nothing from the future */
	restore_user_at("old", "10.0.0.1", now.wall - TEST_EXPIRE);
	assert_string_equal(known("old", ""), "none");
	assert_int_equal(user_table_count(director_users(director)), 2);
	restore_user_at("nearly", "10.0.0.1", now.wall - TEST_EXPIRE + 1);
	assert_string_equal(known("nearly", ""), "10.0.0.1");
	restore_user_at("future", "10.0.0.1", now.wall + 10000);
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("future", "")),
			 now.wall);
	restore_user_at("future", "10.0.0.1", now.wall + 20000);
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("future", "")),
			 now.wall);

	RESTORE(USER_FORGET, .hash = test_hash("jane"), .tag = "t");
	assert_string_equal(known("jane", "t"), "none");
	assert_string_equal(known("jane", ""), "10.0.0.2");
	RESTORE(HOST_FLUSH, .ip = *ip_of("10.0.0.1"));
	assert_string_equal(known("nearly", ""), "none");
	assert_string_equal(known("jane", ""), "10.0.0.2");
	RESTORE(HOST_REMOVE, .ip = *ip_of("10.0.0.2"));
	assert_string_equal(known("jane", ""), "none");
	/* and are not there again with their backend */
	restore_host("10.0.0.2", "");
	assert_string_equal(known("jane", ""), "none");
	restore_user("samik", "10.0.0.1");
	restore_host("10.0.0.1", "t");
	assert_string_equal(get("10.0.0.1")->tag, "t");
	assert_string_equal(known("samik", ""), "none");
	assert_string_equal(known("samik", "t"), "none");
	assert_int_equal(array_count(&test_records), 0);
}

/* He is in the journal: neither the walk nor a lookup adds him again, and his
   end is added. */
static void test_users_are_recorded(void **state ATTR_UNUSED)
{
	restore_config("10.0.0.1", "");
	restore_config("10.0.0.2", "");
	restore_host("10.0.0.1", "");
	restore_host("10.0.0.2", "");
	restore_user("jane", off_hash("jane"));
	restore_user("jane", off_hash("jane"));
	test_configure("10.0.0.1 10.0.0.2");
	test_run();
	assert_string_equal(where("jane"), off_hash("jane"));
	assert_int_equal(array_count(&test_records), 0);
	test_pass((TEST_EXPIRE + 2) * 1000);
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_record_at(0)->type, DIRECTOR_RECORD_USER_FORGET);
	assert_int_equal(test_record_at(0)->hash, test_hash("jane"));
	assert_string_equal(test_record_at(0)->tag, "");
}

/* So many flushes that no slot would be left */
static void test_many_flushes(void **state ATTR_UNUSED)
{
	restore_host("10.0.0.1", "");
	for (unsigned int i = 0; i < 2 * BACKEND_SLOT_MAX; i++) T_BEGIN {
		restore_user(t_strdup_printf("%u", i), "10.0.0.1");
		RESTORE(HOST_FLUSH, .ip = *ip_of("10.0.0.1"));
	} T_END;
	assert_int_equal(user_table_count(director_users(director)), 0);
	for (unsigned int i = 0; i < 2 * BACKEND_SLOT_MAX; i++) T_BEGIN {
		restore_user(t_strdup_printf("%u", i), "10.0.0.1");
		RESTORE(HOST_REMOVE, .ip = *ip_of("10.0.0.1"));
		restore_host("10.0.0.1", "");
	} T_END;
	assert_non_null(get("10.0.0.1"));
	assert_int_equal(user_table_count(director_users(director)), 0);
}

static void test_restored_user(void **state ATTR_UNUSED)
{
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3@t");
	director_restore_user(director, test_hash("jane"),
			      get(off_hash("jane")), now.wall - 10, &now);
	assert_string_equal(known("jane", ""), off_hash("jane"));
	assert_string_equal(known("jane", "t"), "none");
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("jane", "")),
			 now.wall - 10);
	/* who is known stays as he is */
	director_restore_user(director, test_hash("jane"), get(hashed("jane")),
			      now.wall, &now);
	assert_string_equal(known("jane", ""), off_hash("jane"));
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("jane", "")),
			 now.wall - 10);
	director_restore_user(director, test_hash("jane"), get("10.0.0.3"),
			      now.wall + 5, &now);
	assert_string_equal(known("jane", "t"), "10.0.0.3");
	assert_int_equal(user_table_timestamp(director_users(director),
					      test_user("jane", "t")),
			 now.wall);
	director_restore_user(director, test_hash("old"), get("10.0.0.1"),
			      now.wall - TEST_EXPIRE, &now);
	assert_string_equal(known("old", ""), "none");
	/* this isn't in the journal yet */
	test_run();
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_record_at(0)->type, DIRECTOR_RECORD_USER);
	assert_int_equal(test_record_at(0)->hash, test_hash("jane"));
	assert_true(net_ip_compare(&test_record_at(0)->ip,
				   ip_of(off_hash("jane"))));
}

/* -- The dump -- */

static void dump_record(void *context ATTR_UNUSED,
			const struct director_record *record)
{
	test_record(&now, record);
}

static void dump(void)
{
	uint32_t pos = 0;

	while (director_dump(director, &pos, 7, &now, dump_record,
			     (void *)NULL)) ;
}

static void test_dump(void **state ATTR_UNUSED)
{
	static const enum director_record_type expected[] = {
		DIRECTOR_RECORD_CONFIG, DIRECTOR_RECORD_CONFIG,
		DIRECTOR_RECORD_HOST, DIRECTOR_RECORD_HOST,
		DIRECTOR_RECORD_HOST, DIRECTOR_RECORD_USER,
	};
	const struct director_record *record;

	test_configure("fd00::1 name/10.0.0.1@t");
	assert_int_equal(test_host_set("10.0.0.2", "t", 5), DIRECTOR_HOST_OK);
	assert_int_equal(test_host_down("fd00::1", TRUE), DIRECTOR_HOST_OK);
	(void)where_tag("jane", "t");
	assert_int_equal(test_host_set(known("jane", "t"), "t", 0),
			 DIRECTOR_HOST_OK);
	test_run();
	array_clear(&test_records);
	dump();
	assert_int_equal(array_count(&test_records), N_ELEMENTS(expected));
	for (unsigned int i = 0; i < N_ELEMENTS(expected); i++)
		assert_int_equal(test_record_at(i)->type, expected[i]);
	record = test_record_at(0);
	assert_true(net_ip_compare(&record->ip, ip_of("10.0.0.1")));
	assert_string_equal(record->tag, "t");
	assert_string_equal(record->hostname, "name");
	record = test_record_at(1);
	assert_true(net_ip_compare(&record->ip, ip_of("fd00::1")));
	assert_null(record->hostname);
	record = test_record_at(3);
	assert_true(net_ip_compare(&record->ip, ip_of("10.0.0.2")));
	assert_int_equal(record->vhosts, strcmp(known("jane", "t"),
						"10.0.0.2") == 0 ? 0 : 5);
	record = test_record_at(4);
	assert_true(net_ip_compare(&record->ip, ip_of("fd00::1")));
	assert_true(record->down);
	assert_int_equal(record->timestamp, now.wall);
	assert_string_equal(record->tag, "");
	record = test_record_at(5);
	assert_string_equal(net_ip2addr(&record->ip), known("jane", "t"));
	assert_int_equal(record->hash, test_hash("jane"));
	assert_int_equal(record->timestamp, now.wall);
}

/* As long as the dump isn't complete, what was recorded before has to hold, and
   after that the dump: so each change of a user is in both. */
static void test_dump_and_journal(void **state ATTR_UNUSED)
{
	const char *name = "jane", *old;
	uint32_t pos = 0;

	test_configure("10.0.0.1 10.0.0.2");
	old = where(name);
	assert_int_equal(test_host_down(old, TRUE), DIRECTOR_HOST_OK);
	array_clear(&test_records);
	/* not walked yet */
	test_on_record = NULL;
	while (director_dump(director, &pos, 7, &now, dump_record,
			     (void *)NULL)) ;
	unsigned int users = 0;
	const struct director_record *record;
	array_foreach(&test_records, record) {
		if (record->type == DIRECTOR_RECORD_USER)
			users++;
	}
	/* by record(), as both go to the same list here */
	assert_true(users > 0);
	array_clear(&test_records);
	test_run();
	assert_int_equal(array_count(&test_records), 0);

	/* hashing finds him again: the dump doesn't name him, and the record of
	   before is taken back */
	assert_int_equal(test_host_down(old, FALSE), DIRECTOR_HOST_OK);
	test_run();
	array_clear(&test_records);
	dump();
	record = test_record_at(array_count(&test_records) - 1);
	assert_int_equal(record->type, DIRECTOR_RECORD_USER_FORGET);
	assert_int_equal(record->hash, test_hash(name));
	array_clear(&test_records);
	/* and he is recorded again when needed */
	assert_int_equal(test_host_down(old, TRUE), DIRECTOR_HOST_OK);
	array_clear(&test_records);
	test_run();
	assert_int_equal(array_count(&test_records), 1);
	assert_int_equal(test_record_at(0)->type, DIRECTOR_RECORD_USER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		director_test(test_hosts),
		director_test(test_users),
		director_test(test_users_are_recorded),
		director_test(test_many_flushes),
		director_test(test_restored_user),
		director_test(test_dump),
		director_test(test_dump_and_journal),
	};

	return run_test_cases(tests);
}
