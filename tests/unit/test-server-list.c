/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "array.h"
#include "str.h"
#include "director/server-list.h"

#define DIRECTOR_FORMS \
	"must be <ip>, <ip>:<port>, [<ipv6>]:<port>, <name> or <name>:<port>"
#define BACKEND_FORMS \
	"must be <ip>, <name> or <ip>-<ip>, each with an optional @<tag>; " \
	"the port comes from the passdb, vhosts are set with doveadm " \
	"director update"

static void test_check_director(void **state ATTR_UNUSED)
{
	/* NULL: all right */
	static const char *const tests[][2] = {
		{ "10.0.0.1", NULL }, { "10.0.0.1:9090", NULL },
		{ "10.0.0.1:1", NULL }, { "10.0.0.1:65535", NULL },
		{ "fd00::1", NULL }, { "::1", NULL }, { "::", NULL },
		{ "fd00::1:9090", NULL }, { "[fd00::1]", NULL },
		{ "[fd00::1]:9090", NULL }, { "director", NULL },
		{ "director:9090", NULL }, { "dir-1.example.com", NULL },
		{ "xn--mgb.example.:9090", NULL }, { "1.example.com", NULL },
		{ "a_b", NULL }, { "10.0.0.1x", NULL },

		{ "", DIRECTOR_FORMS }, { ":", "port '' must be a number from "
			"1 to 65535" },
		{ "10.0.0.1:", "port '' must be a number from 1 to 65535" },
		{ "10.0.0.1:0", "port '0' must be a number from 1 to 65535" },
		{ "10.0.0.1:65536",
		  "port '65536' must be a number from 1 to 65535" },
		{ "10.0.0.1:x", "port 'x' must be a number from 1 to 65535" },
		{ "name:-1", "port '-1' must be a number from 1 to 65535" },
		{ "[fd00::1]:", "port '' must be a number from 1 to 65535" },
		{ "[fd00::1]:0", "port '0' must be a number from 1 to 65535" },
		{ "[fd00::1", "must be [<IPv6 address>] or "
			"[<IPv6 address>]:<port>" },
		{ "[fd00::1]9090", "must be [<IPv6 address>] or "
			"[<IPv6 address>]:<port>" },
		{ "[fd00::1]]:9090", "must be [<IPv6 address>] or "
			"[<IPv6 address>]:<port>" },
		{ "[10.0.0.1]:9090", "no IPv6 address between [ and ]" },
		{ "[name]:9090", "no IPv6 address between [ and ]" },
		{ "[]", "no IPv6 address between [ and ]" },
		{ ":9090", DIRECTOR_FORMS }, { "a:b:9090", DIRECTOR_FORMS },
		{ "10.0.0.256", DIRECTOR_FORMS },
		{ "10.0.0.1.5:9090", DIRECTOR_FORMS },
		/* what inet_aton() would take: a mistyped address */
		{ "10.0.1", DIRECTOR_FORMS }, { "10", DIRECTOR_FORMS },
		{ "10.0.1:9090", DIRECTOR_FORMS },
		{ "0x7f000001", NULL /* a name */ },
		{ "10.0.0.1/24", DIRECTOR_FORMS }, { "a b", DIRECTOR_FORMS },
		{ "-x", DIRECTOR_FORMS }, { ".x", DIRECTOR_FORMS },
		{ "x@tag", DIRECTOR_FORMS }, { "\xc3\xa4", DIRECTOR_FORMS },
		{ "fe80::1%lo",
		  "port '1%lo' must be a number from 1 to 65535" },
		{ "10-20", DIRECTOR_FORMS },
		{ "[fe80::1%lo]:9090", "no IPv6 address between [ and ]" },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const char *error = NULL;
		int ret = server_list_check_director(tests[i][0], &error);

		if (ret != (tests[i][1] == NULL ? 0 : -1)) {
			fail_msg("%s: %d %s", tests[i][0], ret,
				 error == NULL ? "" : error);
		}
		if (ret < 0)
			assert_string_equal(error, tests[i][1]);
	}
}

static const struct {
	const char *entry, *error;
} backend_tests[] = {
	{ "10.0.0.1", NULL }, { "fd00::1", NULL }, { "[fd00::1]", NULL },
	{ "mail1", NULL }, { "mail-1.example.com", NULL },
	{ "mail-1-2", NULL }, { "1-mail", NULL },
	{ "10.0.0.1@tag", NULL }, { "mail1@tag", NULL },
	{ "10.0.0.1-10.0.0.5", NULL }, { "10.0.0.1-10.0.0.1", NULL },
	{ "10.0.0.0-10.0.0.255@t", NULL }, { "fd00::-fd00::ff", NULL },
	{ "[fd00::1]-[fd00::ff]@t", NULL }, { "10.0.0.1@a@b", NULL },
	{ "10.0.0.1@t-1", NULL }, { "10.0.0.1@\xc3\xa4", NULL },

	{ "10.0.0.1@", "tag missing after @" },
	{ "mail@", "tag missing after @" }, { "@", "tag missing after @" },
	{ "10.0.0.1@a b", "tag can't contain spaces or control characters" },
	{ "10.0.0.1@a\tb", "tag can't contain spaces or control characters" },
	{ "10.0.0.1-fd00::1", "IP address family mismatch: 10.0.0.1 vs "
	  "fd00::1" },
	{ "fd00::1-10.0.0.1", "IP address family mismatch: fd00::1 vs "
	  "10.0.0.1" },
	{ "10.0.0.5-10.0.0.1", "IP addresses reversed: 10.0.0.5-10.0.0.1" },
	{ "10.0.1.0-10.0.0.255@t", "IP addresses reversed: "
	  "10.0.1.0-10.0.0.255" },
	{ "fd00::2-fd00::1", "IP addresses reversed: fd00::2-fd00::1" },
	{ "10.0.0.255-10.0.1.0", "IP address range too large: "
	  "10.0.0.255-10.0.1.0 (both ends must be in the same /24 network)" },
	{ "fd00::ffff-fd00::1:0", "IP address range too large: "
	  "fd00::ffff-fd00::1:0 (both ends must be in the same /112 "
	  "network)" },
	{ "", BACKEND_FORMS }, { "@tag", BACKEND_FORMS },
	{ "10.0.0.1:143", BACKEND_FORMS }, { "mail:143", BACKEND_FORMS },
	{ "10.0.0.256", BACKEND_FORMS }, { "10.0.0.1-10.0.0.256",
	  BACKEND_FORMS }, { "10.0.0.1/24", BACKEND_FORMS },
	{ "10.0.0", BACKEND_FORMS }, { "10.1", BACKEND_FORMS },
	{ "10", BACKEND_FORMS }, { "10-20", BACKEND_FORMS },
	{ "10.0.0.1-5", BACKEND_FORMS }, { "10.0.0.1-", BACKEND_FORMS },
	{ "-10.0.0.1", BACKEND_FORMS }, { "-mail", BACKEND_FORMS },
	{ "mail*", BACKEND_FORMS }, { "a,b", BACKEND_FORMS },
	{ "[fd00::1", BACKEND_FORMS }, { "[]", BACKEND_FORMS },
	{ "fe80::1%lo", BACKEND_FORMS }, { "mail,100", BACKEND_FORMS },
};

static void test_check_backend(void **state ATTR_UNUSED)
{
	for (unsigned int i = 0; i < N_ELEMENTS(backend_tests); i++) {
		const char *entry = backend_tests[i].entry, *error = NULL;
		int ret = server_list_check_backend(entry, &error);

		if (ret != (backend_tests[i].error == NULL ? 0 : -1)) {
			fail_msg("%s: %d %s", entry, ret,
				 error == NULL ? "" : error);
		}
		if (ret < 0)
			assert_string_equal(error, backend_tests[i].error);
	}
}

static pool_t pool;
static ARRAY_TYPE(server_list_backend) list;
static ARRAY_TYPE(const_string) warnings;

static int setup(void **state)
{
	pool = pool_alloconly_create("test", 4096);
	return test_frame_setup(state);
}

static int teardown(void **state)
{
	pool_unref(&pool);
	return test_frame_teardown(state);
}

/* Returns the list as text: [name/]ip[@tag] */
static const char *parse(const char *entries, const char **error_r)
{
	const struct server_list_backend *backend;
	string_t *str = t_str_new(256);

	*error_r = NULL;
	if (server_list_parse_backends(t_strsplit_spaces(entries, ","), pool,
				       &list, &warnings, error_r) < 0)
		return "error";
	assert_null(*error_r);
	array_foreach(&list, backend) {
		if (str_len(str) > 0)
			str_append_c(str, ' ');
		if (backend->hostname != NULL)
			str_printfa(str, "%s/", backend->hostname);
		str_append(str, net_ip2addr(&backend->ip));
		if (*backend->tag != '\0')
			str_printfa(str, "@%s", backend->tag);
	}
	return str_c(str);
}

static void test_parse(void **state ATTR_UNUSED)
{
	static const char *const tests[][2] = {
		{ "", "" },
		{ "10.0.0.2,10.0.0.1@t,fd00::1,[fd00::2]@x@y",
		  "10.0.0.2 10.0.0.1@t fd00::1 fd00::2@x@y" },
		{ "10.0.0.254-10.0.0.255@t,10.0.1.0",
		  "10.0.0.254@t 10.0.0.255@t 10.0.1.0" },
		{ "10.0.0.7-10.0.0.7", "10.0.0.7" },
		{ "10.1.255.9-10.1.255.11",
		  "10.1.255.9 10.1.255.10 10.1.255.11" },
		{ "fd00::fe-fd00::101",
		  "fd00::fe fd00::ff fd00::100 fd00::101" },
		{ "fd00::1:0-fd00::1:1", "fd00::1:0 fd00::1:1" },
	};
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		assert_string_equal(parse(tests[i][0], &error), tests[i][1]);
		assert_int_equal(array_count(&warnings), 0);
	}
	(void)parse("10.0.0.0-10.0.0.255", &error);
	assert_int_equal(array_count(&list), 256);
}

static void test_name(void **state ATTR_UNUSED)
{
	const struct server_list_backend *backend;
	const char *error;

	/* its addresses are what /etc/hosts says */
	(void)parse("localhost@t", &error);
	assert_true(array_count(&list) >= 1);
	array_foreach(&list, backend) {
		assert_string_equal(backend->hostname, "localhost");
		assert_string_equal(backend->tag, "t");
	}

	assert_string_equal(parse("10.0.0.1,nosuchhost.invalid@t", &error),
			    "error");
	assert_ptr_equal(strstr(error, "Unknown mail host: "
				"nosuchhost.invalid ("), error);
}

static void test_duplicates(void **state ATTR_UNUSED)
{
	const char *const *list_warnings, *error;

	assert_string_equal(parse("10.0.0.1@a,10.0.0.2,10.0.0.1@a,"
				  "10.0.0.1-10.0.0.3@b", &error),
			    "10.0.0.1@a 10.0.0.2 10.0.0.3@b");
	assert_int_equal(array_count(&warnings), 3);
	list_warnings = array_front(&warnings);
	assert_string_equal(list_warnings[0], "director_mail_servers: "
		"10.0.0.1 (in '10.0.0.1@a') is listed more than once: counted "
		"once");
	assert_string_equal(list_warnings[1], "director_mail_servers: "
		"10.0.0.1 (in '10.0.0.1-10.0.0.3@b') is listed more than once: "
		"counted once, with the first tag 'a'");
	assert_string_equal(list_warnings[2], "director_mail_servers: "
		"10.0.0.2 (in '10.0.0.1-10.0.0.3@b') is listed more than once: "
		"counted once, with the first tag ''");
}

/* What the check refuses, parsing refuses, and names the entry. */
static void test_parse_errors(void **state ATTR_UNUSED)
{
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(backend_tests); i++) {
		const char *const entries[] = {
			"10.1.1.1", backend_tests[i].entry, NULL
		};

		if (backend_tests[i].error == NULL)
			continue;
		error = NULL;
		assert_int_equal(server_list_parse_backends(entries, pool,
					&list, &warnings, &error), -1);
		assert_string_equal(error, t_strdup_printf("%s: %s",
			backend_tests[i].entry, backend_tests[i].error));
	}
}

static void test_too_many(void **state ATTR_UNUSED)
{
	ARRAY_TYPE(const_string) entries;
	const char *entry, *error;
	unsigned int i;

	t_array_init(&entries, 64);
	for (i = 0; i < 40; i++) {
		entry = t_strdup_printf("10.%u.0.0-10.%u.0.249", i, i);
		array_push_back(&entries, &entry);
	}
	entry = NULL;
	array_push_back(&entries, &entry);
	assert_int_equal(server_list_parse_backends(array_front(&entries),
				pool, &list, &warnings, &error), 0);
	assert_int_equal(array_count(&list), SERVER_LIST_MAX_BACKENDS);
	entry = "10.255.0.1";
	array_insert(&entries, 40, &entry, 1);
	assert_int_equal(server_list_parse_backends(array_front(&entries),
				pool, &list, &warnings, &error), -1);
	assert_string_equal(error, "more than 10000 backends");
	/* without going through all of them */
	assert_string_equal(parse("fd00::-fd00::ffff", &error), "error");
	assert_string_equal(error, "fd00::-fd00::ffff: more than 10000 "
			    "backends");
	assert_int_equal(array_count(&list), 0);
	/* the check doesn't count */
	assert_int_equal(server_list_check_backend("fd00::-fd00::ffff",
						   &error), 0);
}

static void test_ip_tag(void **state ATTR_UNUSED)
{
	static const struct {
		const char *str, *ip, *tag;
	} tests[] = {
		{ "10.0.0.1", "10.0.0.1", "" },
		{ "10.0.0.1@", "10.0.0.1", "" },
		{ "10.0.0.1@t", "10.0.0.1", "t" },
		{ "10.0.0.1@a@b", "10.0.0.1", "a@b" },
		{ "fd00::1@t", "fd00::1", "t" },
		{ "[fd00::1]@t", "fd00::1", "t" },
		{ "[fd00::1]", "fd00::1", "" },
		{ "", NULL, "" }, { "@t", NULL, "" }, { "x@t", NULL, "" },
		{ "[]", NULL, "" }, { "[fd00::1", NULL, "" },
		{ "fd00::1]", NULL, "" }, { "[[fd00::1]]", NULL, "" },
		{ "fe80::1%lo", NULL, "" }, { "10.0.0", NULL, "" },
		{ "10", NULL, "" }, { "0x7f.1", NULL, "" },
		{ "10.0.0.1 ", NULL, "" }, { "10.0.0.1:143", NULL, "" },
	};
	struct ip_addr ip, ip2;
	const char *tag;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		int ret = server_list_parse_ip_tag(tests[i].str, &ip, &tag);

		if (ret != (tests[i].ip == NULL ? -1 : 0))
			fail_msg("wrong: '%s'", tests[i].str);
		if (ret < 0)
			continue;
		assert_int_equal(net_addr2ip(tests[i].ip, &ip2), 0);
		assert_true(net_ip_compare(&ip, &ip2));
		assert_string_equal(tag, tests[i].tag);
	}
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_check_director),
		test(test_check_backend),
		test(test_parse),
		test(test_name),
		test(test_duplicates),
		test(test_parse_errors),
		test(test_too_many),
		test(test_ip_tag),
	};

	return run_test_cases(tests);
}
