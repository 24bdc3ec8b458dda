/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* A changed director_mail_servers is applied to what was recorded. */

#include "test-restore.h"

static void test_first_configure(void **state ATTR_UNUSED)
{
	test_configure("a/10.0.0.1 10.0.0.2@t fd00::1");
	test_assert_not_logged();
	/* recorded as a whole, by a dump */
	assert_int_equal(array_count(&test_records), 0);
	assert_string_equal(get("10.0.0.1")->hostname, "a");
	assert_int_equal(get("10.0.0.1")->vhosts, 100);
	assert_string_equal(get("10.0.0.2")->tag, "t");
	assert_non_null(get("fd00::1"));
	assert_string_equal(net_ip2addr(&director_initial_backend(director,
					"t", 1)->ip), "10.0.0.2");
	assert_null(director_initial_backend(director, "x", 1));
	/* who waits for a backend is answered */
	assert_int_equal(director_last_change(director), 1);
}

/* What was recorded of the setting and of the backends */
static void restore_as_configured(const char *list)
{
	const char *const *entry = t_strsplit_spaces(list, " ");
	const char *tag;

	for (; *entry != NULL; entry++) {
		tag = strchr(*entry, '@');
		tag = tag == NULL ? "" : tag + 1;
		restore_config(t_strcut(*entry, '@'), tag);
		restore_host(t_strcut(*entry, '@'), tag);
	}
}

static void test_setting_added(void **state ATTR_UNUSED)
{
	restore_as_configured("10.0.0.1");
	/* twice does no harm */
	restore_config("10.0.0.1", "t");
	test_configure("10.0.0.1 10.0.0.2@t name/10.0.0.3");
	assert_non_null(strstr(str_c(test_logs), "I director_mail_servers "
			       "changed: Host 10.0.0.3 added\n"));
	test_assert_logged("I director_mail_servers changed: Host 10.0.0.2 "
			   "added");
	assert_string_equal(get("10.0.0.2")->tag, "t");
	assert_string_equal(get("10.0.0.3")->hostname, "name");
	assert_int_equal(get("10.0.0.3")->vhosts, 100);
	/* the next time it's nothing new */
	test_configure("10.0.0.1 10.0.0.2@t name/10.0.0.3");
	test_assert_not_logged();
}

static void test_setting_removed(void **state ATTR_UNUSED)
{
	restore_as_configured("10.0.0.1 10.0.0.2 10.0.0.3@t");
	/* added at run time */
	restore_host("10.0.0.9", "");
	restore_user("jane", "10.0.0.2");
	test_configure("10.0.0.1");
	assert_non_null(strstr(str_c(test_logs), "I director_mail_servers "
			       "changed: Host 10.0.0.3 removed\n"));
	test_assert_logged("I director_mail_servers changed: Host 10.0.0.2 "
			   "removed");
	assert_null(get("10.0.0.2"));
	assert_null(get("10.0.0.3"));
	assert_non_null(get("10.0.0.1"));
	assert_non_null(get("10.0.0.9"));
	assert_int_equal(user_table_count(director_users(director)), 0);

	/* all of it */
	test_configure("");
	test_assert_logged("I director_mail_servers changed: Host 10.0.0.1 "
			   "removed");
	assert_non_null(get("10.0.0.9"));
}

static void test_setting_tag_changed(void **state ATTR_UNUSED)
{
	restore_as_configured("10.0.0.1 10.0.0.2@t");
	restore_user("jane", "10.0.0.1");
	test_configure("10.0.0.1@t 10.0.0.2");
	assert_string_equal(get("10.0.0.1")->tag, "t");
	assert_string_equal(get("10.0.0.2")->tag, "");
	assert_string_equal(known("jane", ""), "none");
	assert_string_equal(known("jane", "t"), "none");
	assert_non_null(strstr(str_c(test_logs), "I director_mail_servers "
			       "changed: Host 10.0.0.1 removed\n"));
	test_assert_logged("I director_mail_servers changed: Host 10.0.0.1 "
			   "added");
}

static void test_setting_name_changed(void **state ATTR_UNUSED)
{
	restore_as_configured("10.0.0.1 10.0.0.2");
	restore_user("jane", "10.0.0.1");
	test_configure("new/10.0.0.1 10.0.0.2");
	assert_string_equal(get("10.0.0.1")->hostname, "new");
	assert_string_equal(known("jane", ""), "10.0.0.1");
	test_configure("10.0.0.1 10.0.0.2");
	assert_null(get("10.0.0.1")->hostname);
	test_assert_not_logged();
}

/* What was changed at run time stays, whatever else changes. */
static void test_runtime_changes(void **state ATTR_UNUSED)
{
	restore_config("10.0.0.1", "");
	restore_config("10.0.0.2", "");
	restore_config("10.0.0.3", "");
	restore_config("10.0.0.4", "");
	RESTORE(HOST, .ip = *ip_of("10.0.0.1"), .vhosts = 7, .down = TRUE,
		.timestamp = 123);
	/* .2 was removed, .3 has another tag since, .9 was added */
	restore_host("10.0.0.3", "t");
	restore_host("10.0.0.4", "");
	restore_host("10.0.0.9", "t");
	for (unsigned int i = 0; i < 3; i++) {
		test_configure(i == 0 ?
			"10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4" :
			"10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.5");
		assert_int_equal(get("10.0.0.1")->vhosts, 7);
		assert_true(get("10.0.0.1")->down);
		assert_int_equal(get("10.0.0.1")->last_updown_change, 123);
		assert_null(get("10.0.0.2"));
		assert_string_equal(get("10.0.0.3")->tag, "t");
		assert_string_equal(get("10.0.0.9")->tag, "t");
		assert_int_equal(get("10.0.0.4") == NULL, i > 0);
		assert_int_equal(get("10.0.0.5") != NULL, i > 0);
	}
	/* out of the setting, and in again */
	test_configure("10.0.0.1 10.0.0.3");
	/* the tag isn't the setting's */
	assert_string_equal(get("10.0.0.3")->tag, "t");
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3");
	assert_non_null(get("10.0.0.2"));
	/* another tag in the setting is a wish of its own */
	test_configure("10.0.0.1 10.0.0.2@x");
	assert_string_equal(get("10.0.0.2")->tag, "x");
	assert_string_equal(get("10.0.0.3")->tag, "t");
}

/* -- Users whom a changed setting would move wait for the sessions. -- */

static void test_grace(void **state ATTR_UNUSED)
{
	struct login_process *process =
		login_process_ref(director_leases(director), 1);
	struct session_plugin *plugin =
		session_plugin_init(director_leases(director), process);
	const struct session_token token = { .instance = 99, .seq = 1 };
	struct test_lookup *moved[100], *lookup;
	unsigned int i, count = 0, stay = 0;
	struct session_lease *lease;
	const char *error, *old_ip = NULL;

	restore_as_configured("10.0.0.1 10.0.0.2");
	restore_user("known", "10.0.0.1");
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3");
	test_run();
	test_set_time(now.msecs + 1);
	for (i = 0; i < 100; i++) {
		lookup = test_lookup(t_strdup_printf("u%u", i));
		if (strcmp(hashed(lookup->username), "10.0.0.3") == 0) {
			assert_int_equal(lookup->state, 0);
			moved[count++] = lookup;
		} else {
			assert_int_equal(lookup->state, 1);
			stay++;
		}
	}
	assert_true(count >= 10 && stay >= 10);
	assert_string_equal(where("known"), "10.0.0.1");

	/* one of them has a session; another one says so of its user before he
	   logs in again */
	lease = director_session_start(director, plugin, &token,
				       moved[0]->lookup.hash,
				       ip_of("10.0.0.1"), 1, &now, &error);
	assert_non_null(lease);
	old_ip = "10.0.0.1";
	assert_string_equal(where(moved[0]->username), old_ip);

	/* a change of backends doesn't end it */
	assert_int_equal(test_host_set("10.0.0.4", "t", 100),
			 DIRECTOR_HOST_OK);
	assert_true(director_next_deadline(director, &now) <=
		    TEST_MSECS + 3000);
	test_pass(2998);
	for (i = 1; i < count; i++)
		assert_int_equal(moved[i]->state, 0);
	test_pass(1);
	assert_true(now.msecs == TEST_MSECS + 3000);
	assert_string_equal(moved[0]->ip, old_ip);
	for (i = 1; i < count; i++) {
		assert_int_equal(moved[i]->state, 1);
		assert_string_equal(moved[i]->ip, "10.0.0.3");
		assert_true(moved[i]->done_msecs == now.msecs);
	}
	assert_string_equal(where("known"), "10.0.0.1");
	director_session_end(director, &lease, &now);
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	login_process_unref(director_leases(director), &process);
}

/* The wait is one like any other. */
static void test_grace_timeout_text(void **state ATTR_UNUSED)
{
	struct test_lookup *lookup = NULL;

	restore_as_configured("10.0.0.1");
	test_configure("10.0.0.2");
	lookup = test_lookup("jane");
	assert_int_equal(lookup->state, 0);
	assert_string_equal(lookup->lookup.wait_reason, "director starting");
	/* nowhere to go when the grace is over */
	assert_int_equal(test_host_down("10.0.0.2", TRUE), DIRECTOR_HOST_OK);
	test_pass(3000);
	assert_int_equal(lookup->state, 0);
	assert_string_equal(lookup->lookup.wait_reason, "no hosts");
	test_pass(27000);
	assert_int_equal(lookup->state, -1);
}

static void assert_no_grace(const char *before, const char *after,
			    bool all_restored)
{
	director_deinit(&director);
	test_director_init();
	if (before != NULL)
		restore_as_configured(before);
	test_configure_restored(after, all_restored);
	for (unsigned int i = 0; i < 100; i++) T_BEGIN {
		const char *name = t_strdup_printf("u%u", i);

		assert_string_equal(where(name), hashed(name));
	} T_END;
}

static void test_no_grace(void **state ATTR_UNUSED)
{
	/* the first start, no change, only another name */
	assert_no_grace(NULL, "10.0.0.1 10.0.0.2", FALSE);
	assert_no_grace("10.0.0.1 10.0.0.2", "10.0.0.2 10.0.0.1", FALSE);
	assert_no_grace("10.0.0.1 10.0.0.2", "a/10.0.0.1 b/10.0.0.2", FALSE);
	/* nobody was there before */
	assert_no_grace("10.0.0.1@t", "10.0.0.1@t 10.0.0.2", FALSE);
	/* all are known */
	assert_no_grace("10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2 10.0.0.3",
			TRUE);
	/* it is over */
	director_deinit(&director);
	test_director_init();
	restore_as_configured("10.0.0.1");
	test_set_time(now.msecs + 3000);
	test_configure("10.0.0.2");
	assert_string_equal(where("jane"), "10.0.0.2");
}

/* All were known, but those of a backend that isn't any more are forgotten: the
   login processes tell of their sessions. */
static void test_grace_of_removed(void **state ATTR_UNUSED)
{
	restore_as_configured("10.0.0.1 10.0.0.2");
	test_configure_restored("10.0.0.1", TRUE);
	for (unsigned int i = 0; i < 100; i++) T_BEGIN {
		assert_string_equal(where(t_strdup_printf("u%u", i)), "wait");
	} T_END;
	test_pass(3000);
	for (unsigned int i = 0; i < 100; i++) T_BEGIN {
		assert_string_equal(where(t_strdup_printf("u%u", i)),
				    "10.0.0.1");
	} T_END;
}

/* Who was sent past a backend that is down has no session there. */
static void test_grace_down(void **state ATTR_UNUSED)
{
	restore_as_configured("10.0.0.1 10.0.0.2");
	RESTORE(HOST, .ip = *ip_of("10.0.0.2"), .vhosts = 100, .down = TRUE,
		.timestamp = 1);
	test_configure("10.0.0.1 10.0.0.2 10.0.0.3");
	for (unsigned int i = 0; i < 100; i++) T_BEGIN {
		const char *name = t_strdup_printf("u%u", i);

		assert_string_equal(where(name),
			strcmp(hashed(name), "10.0.0.1") == 0 ?
			"10.0.0.1" : "wait");
	} T_END;
}

/* All backends were added at run time, and now the setting names some: no
   first start. */
static void test_grace_of_first_setting(void **state ATTR_UNUSED)
{
	restore_host("10.0.0.1", "");
	test_configure("10.0.0.2");
	test_assert_logged("I director_mail_servers changed: Host 10.0.0.2 "
			   "added");
	for (unsigned int i = 0; i < 100; i++) T_BEGIN {
		const char *name = t_strdup_printf("u%u", i);

		assert_string_equal(where(name),
			strcmp(hashed(name), "10.0.0.1") == 0 ?
			"10.0.0.1" : "wait");
	} T_END;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		director_test(test_first_configure),
		director_test(test_setting_added),
		director_test(test_setting_removed),
		director_test(test_setting_tag_changed),
		director_test(test_setting_name_changed),
		director_test(test_runtime_changes),
		director_test(test_grace),
		director_test(test_grace_timeout_text),
		director_test(test_no_grace),
		director_test(test_grace_of_removed),
		director_test(test_grace_down),
		director_test(test_grace_of_first_setting),
	};

	return run_test_cases(tests);
}
