/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "array.h"
#include "settings.h"
#include "settings-parser.h"
#include "director/core/username-hash.h"
#include "director/director-settings.h"

static struct settings_simple simple;

/* Reads the settings with one of them as given. Returns NULL and error_r if it
   is refused. The others have their defaults. To be ended by put(). */
static const struct director_settings *
get(const char *name, const char *value, const char **error_r)
{
	const char *const settings[] = { name, value, NULL };
	const char *const none[] = { NULL };
	const struct director_settings *set;

	settings_simple_init(&simple, name == NULL ? none : settings);
	return settings_get(simple.event, &director_setting_parser_info, 0,
			    &set, error_r) < 0 ? NULL : set;
}

static void put(const struct director_settings *set)
{
	settings_free(set);
	settings_simple_deinit(&simple);
}

static const struct director_settings *
get_ok(const char *name, const char *value)
{
	const struct director_settings *set;
	const char *error;

	set = get(name, value, &error);
	if (set == NULL)
		fail_msg("%s", error);
	return set;
}

static void test_defaults(void **state ATTR_UNUSED)
{
	const struct director_settings *set = get_ok(NULL, NULL);

	assert_null(settings_boollist_get(&set->director_servers)[0]);
	assert_null(settings_boollist_get(&set->director_mail_servers)[0]);
	assert_string_equal(set->director_username_hash, "%{user | lower}");
	assert_string_equal(set->director_username_hash,
			    USERNAME_HASH_DEFAULT_FORMAT);
	assert_string_equal(set->director_flush_socket, "");
	assert_int_equal(set->director_user_expire, 15 * 60);
	assert_int_equal(set->director_user_kick_delay, 2);
	assert_int_equal(set->director_lost_grace, 15);
	assert_int_equal(director_settings_lost_grace_msecs(set), 15000);
	assert_int_equal(director_settings_plugin_grace_msecs(set), 12000);
	assert_int_equal(set->director_max_parallel_moves, 100);
	assert_int_equal(set->director_max_parallel_kicks, 100);
	assert_int_equal(set->director_output_buffer_size, 10 * 1024 * 1024);
	assert_int_equal(set->director_ping_idle_timeout, 30);
	assert_int_equal(set->director_ping_max_timeout, 60);
	assert_true(set->director_consistent_hashing);
	assert_string_equal(set->auth_master_user_separator, "");
	put(set);
}

/* Expanding is for lookups, not for the reader of the configuration. */
static void test_not_expanded(void **state ATTR_UNUSED)
{
	const struct director_settings *set;

	set = get_ok("director_username_hash", "%{user | username | lower}");
	assert_string_equal(set->director_username_hash,
			    "%{user | username | lower}");
	put(set);
	set = get_ok("director_flush_socket", "exec:/bin/x %{ip} %{host}");
	assert_string_equal(set->director_flush_socket,
			    "exec:/bin/x %{ip} %{host}");
	put(set);
}

static void test_lists(void **state ATTR_UNUSED)
{
	const struct director_settings *set;
	const char *const *list;

	set = get_ok("director_mail_servers",
		     "10.0.0.2 10.0.0.1@tag [fd00::1]  mail.example.com "
		     "10.0.0.3-10.0.0.4@a@b");
	list = settings_boollist_get(&set->director_mail_servers);
	assert_int_equal(str_array_length(list), 5);
	assert_string_equal(list[0], "10.0.0.2");
	assert_string_equal(list[1], "10.0.0.1@tag");
	assert_string_equal(list[4], "10.0.0.3-10.0.0.4@a@b");
	put(set);

	set = get_ok("director_servers", "10.0.0.1:9090 name fd00::1");
	list = settings_boollist_get(&set->director_servers);
	assert_int_equal(str_array_length(list), 3);
	assert_string_equal(list[0], "10.0.0.1:9090");
	put(set);
}

/* The login processes' grace and what their backends need are within it. */
static void test_grace(void **state ATTR_UNUSED)
{
	static const struct {
		const char *lost, *kick_delay;
		unsigned int lost_msecs, plugin_msecs;
	} tests[] = {
		{ "15 secs", "2 secs", 15000, 12000 },
		{ "1 hour", "0", 3600000, 3599000 },
		{ "5 secs", "0", 5000, 4000 },
		{ "5 secs", "2 secs", 7000, 4000 },
		{ "15 secs", "1 hour", 3605000, 4000 },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const struct director_settings *set;

		const char *const settings[] = {
			"director_lost_grace", tests[i].lost,
			"director_user_kick_delay", tests[i].kick_delay, NULL
		};
		const char *error;

		settings_simple_init(&simple, settings);
		if (settings_get(simple.event, &director_setting_parser_info, 0,
				 &set, &error) < 0)
			fail_msg("%s", error);
		assert_int_equal(director_settings_lost_grace_msecs(set),
				 tests[i].lost_msecs);
		assert_int_equal(director_settings_plugin_grace_msecs(set),
				 tests[i].plugin_msecs);
		put(set);
	}
}

static void test_accepted(void **state ATTR_UNUSED)
{
	static const char *const tests[][2] = {
		{ "director_user_expire", "10 secs" },
		{ "director_user_expire", "365 days" },
		{ "director_user_kick_delay", "0" },
		{ "director_user_kick_delay", "1 hour" },
		{ "director_lost_grace", "5 secs" },
		{ "director_lost_grace", "1 hour" },
		{ "director_max_parallel_moves", "1" },
		{ "director_max_parallel_moves", "1000000" },
		{ "director_max_parallel_kicks", "1" },
		{ "director_max_parallel_kicks", "1000000" },
		{ "director_ping_idle_timeout", "1 secs" },
		{ "director_ping_idle_timeout", "60 mins" },
		{ "director_ping_max_timeout", "1 secs" },
		{ "director_ping_max_timeout", "1 hours" },
		{ "director_consistent_hashing", "no" },
		{ "director_consistent_hashing", "yes" },
		{ "director_output_buffer_size", "256 k" },
		{ "director_output_buffer_size", "1 M" },
		{ "director_username_hash", "%{user | domain}" },
		{ "director_flush_socket", "" },
		{ "director_flush_socket", "/run/flush" },
		{ "director_flush_socket", "exec:/bin/x" },
		{ "director_flush_socket", "unix:flush" },
		{ "director_flush_socket", "tcp:%i:9000" },
		{ "director_flush_socket", "tcp:%{host}:9000" },
		{ "director_flush_socket", "tcp:[%{ip}]:9000" },
		{ "auth_master_user_separator", "*" },
		{ "director_servers", "" }, { "director_mail_servers", "" },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const struct director_settings *set =
			get_ok(tests[i][0], tests[i][1]);

		put(set);
	}
}

/* Each names the setting, the value and what would be right. */
static void test_refused(void **state ATTR_UNUSED)
{
	static const struct {
		const char *name, *value, *error;
	} tests[] = {
		{ "director_flush_socket", "flush", "director_flush_socket = "
		  "flush: must be exec:/path, unix:/path, tcp:host:port or a "
		  "path; %{ip} and %{host} are those of the user's new "
		  "backend" },
		{ "director_flush_socket", "exec:flush", "must be exec:/path" },
		{ "director_flush_socket", "tcp:%{ip}", "must be exec:/path" },
		{ "director_flush_socket", "tcp::9000", "must be exec:/path" },
		{ "director_flush_socket", "/run/%{user}", "user" },
		{ "director_user_expire", "9 secs", "director_user_expire = "
		  "9 secs: must be between 10 secs and 365 days" },
		{ "director_user_expire", "0", "director_user_expire = "
		  "0 secs: must be between 10 secs and 365 days" },
		{ "director_user_expire", "366 days", "director_user_expire = "
		  "366 days: must be between 10 secs and 365 days" },
		{ "director_user_expire", "infinite", "director_user_expire = "
		  "infinite: must be between 10 secs and 365 days" },
		{ "director_user_kick_delay", "3601 secs",
		  "director_user_kick_delay = 3601 secs: must be between "
		  "0 secs and 1 hours" },
		{ "director_lost_grace", "4 secs",
		  "director_lost_grace = 4 secs: must be between 5 secs and "
		  "1 hours" },
		{ "director_max_parallel_moves", "0",
		  "director_max_parallel_moves = 0: must be between 1 and "
		  "1000000" },
		{ "director_max_parallel_moves", "unlimited",
		  "director_max_parallel_moves = unlimited: must be between 1 "
		  "and 1000000" },
		{ "director_max_parallel_kicks", "1000001",
		  "director_max_parallel_kicks = 1000001: must be between 1 "
		  "and 1000000" },
		{ "director_ping_idle_timeout", "0",
		  "director_ping_idle_timeout = 0 secs: must be between 1 secs "
		  "and 1 hours" },
		{ "director_ping_max_timeout", "61 mins",
		  "director_ping_max_timeout = 61 mins: must be between 1 secs "
		  "and 1 hours" },
		{ "director_servers", "10.0.0.1 10.0.0.2:x",
		  "director_servers: 10.0.0.2:x: port 'x' must be a number "
		  "from 1 to 65535" },
		{ "director_mail_servers", "10.0.0.1 10.0.0.9-10.0.0.2@t",
		  "director_mail_servers: 10.0.0.9-10.0.0.2@t: IP addresses "
		  "reversed: 10.0.0.9-10.0.0.2" },
		{ "director_mail_servers", "10.0.0.1:143",
		  "director_mail_servers: 10.0.0.1:143: must be <ip>, <name> "
		  "or <ip>-<ip>" },
		{ "director_username_hash", "%Lu",
		  "director_username_hash = %Lu: " },
		{ "director_username_hash", "%Lu", "use %{user | lower}" },
		{ "director_username_hash", "%n", "use %{user | username}" },
		{ "director_username_hash", "user",
		  "director_username_hash = user: " },
		{ "director_username_hash", "%{user",
		  "director_username_hash = %{user: " },
		{ "director_username_hash", "", "director_username_hash = : " },
		{ "director_output_buffer_size", "262143",
		  "director_output_buffer_size = 262143: must be at least 256 k" },
		/* refused by their types already */
		{ "director_user_expire", "15", "director_user_expire" },
		{ "director_max_parallel_moves", "x",
		  "director_max_parallel_moves" },
		{ "director_output_buffer_size", "x",
		  "director_output_buffer_size" },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const struct director_settings *set;
		const char *error = NULL;

		set = get(tests[i].name, tests[i].value, &error);
		if (set != NULL) {
			fail_msg("%s = %s is accepted", tests[i].name,
				 tests[i].value);
		}
		if (strstr(error, tests[i].error) == NULL) {
			fail_msg("%s = %s: %s", tests[i].name, tests[i].value,
				 error);
		}
		settings_simple_deinit(&simple);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_defaults),
		test_case(test_not_expanded),
		test_case(test_lists),
		test_case(test_accepted),
		test_case(test_grace),
		test_case(test_refused),
	};

	return run_test_cases(tests);
}
