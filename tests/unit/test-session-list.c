/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Lists of sessions: our own, and page by page those of others
   (doc/ring-protocol.md §8.6) */

#include "test-user-move.h"

#include <stdio.h>

static string_t *rows, *ends;

static void
test_row(void *context ATTR_UNUSED, uint32_t id,
	 const struct director_session_row *row)
{
	str_printfa(rows, "%u %s %u %s %s %s %ld\n", id, row->user, row->hash,
		    row->service, row->state, net_ip2addr(&row->backend),
		    (long)row->since);
}

static void test_end(void *context ATTR_UNUSED, uint32_t id, unsigned int next,
		     unsigned int count)
{
	str_printfa(ends, "%u %u %u\n", id, next, count);
}

static void own_row(const struct director_session_row *row,
		    void *context ATTR_UNUSED)
{
	test_row(NULL, 0, row);
}

static int setup(void **state)
{
	int ret = test_ring_setup(state);

	left = right = NULL;
	rows = str_new(test_pool, 128);
	ends = str_new(test_pool, 128);
	test_session_vfuncs.row = test_row;
	test_session_vfuncs.end = test_end;
	return ret;
}

#define list_test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)

static struct session_lease *named_session(const char *name)
{
	struct session_lease *lease = session(name);
	const char *const none = NULL;

	session_lease_set_names(director_leases(director), lease, name, &none);
	return lease;
}

static void list(const char *text)
{
	struct session_match match;
	const char *error;
	unsigned int pos = 0;

	str_truncate(rows, 0);
	assert_int_equal(session_match_user(director, text, TRUE, &match,
					    &error), 0);
	while (director_sessions_list(director, &match, &pos, own_row, NULL,
				      &now)) ;
}

static unsigned int count_rows(const char *text)
{
	list(text);
	return str_array_length(t_strsplit_spaces(str_c(rows), "\n"));
}

static void test_own(void **state ATTR_UNUSED)
{
	struct session_lease *lease;

	begin(1);
	login_process_set_protocol(director_leases(director), process, "imap");
	list("");
	assert_string_equal(str_c(rows), "");
	lease = named_session("jane");
	/* not a session yet */
	(void)test_lookup_for(process, "jane", "");
	list("");
	assert_string_equal(str_c(rows), t_strdup_printf(
		"0 jane %u imap up %s %ld\n", test_hash("jane"),
		hashed("jane"), (long)now.clock));
	/* the machine's clock was set since */
	now.clock += 1000;
	list("JANE");
	assert_non_null(strstr(str_c(rows), dec2str(now.clock)));
	lease->state = SESSION_LEASE_STARTED;
	list(dec2str(test_hash("jane")));
	assert_non_null(strstr(str_c(rows), " imap starting "));
	lease->ending = TRUE;
	list("j*");
	assert_non_null(strstr(str_c(rows), " imap ending "));
	session_plugin_lost(director_leases(director), &plugin, now.msecs);
	list("jan?");
	assert_non_null(strstr(str_c(rows), " imap lost "));
	plugin = session_plugin_init(director_leases(director), process);
	assert_int_equal(count_rows("jim"), 0);
	assert_int_equal(count_rows("12345"), 0);
}

/* A name may be a number, too. */
static void test_numbers(void **state ATTR_UNUSED)
{
	const char *hash;

	begin(1);
	hash = dec2str(test_hash("jane"));
	(void)named_session("jane");
	(void)named_session(hash);
	assert_int_equal(count_rows(hash), 2);
	assert_int_equal(count_rows("jane"), 1);
}

/* Asks like another director, and goes on until it has all. */
static unsigned int ask_all(const char *text, unsigned int *pages_r)
{
	unsigned int id = 100, place = 0, count, total = 0, got;
	const char *p;

	*pages_r = 0;
	do {
		forget_sent();
		in(left, "SESSIONS|10.0.0.2|9090|10.0.0.1|9090|%u|64|%u|%s",
		   ++id, place, text);
		p = strstr(str_c(right->sent), t_strdup_printf(
			"\nSESSIONS-END|10.0.0.1|9090|10.0.0.2|9090|%u|64|",
			id));
		assert_non_null(p);
		assert_int_equal(sscanf(strstr(p, "|64|"), "|64|%u|%u\n",
					&place, &count), 2);
		got = said(right, t_strdup_printf(
			"SESSION|10.0.0.1|9090|10.0.0.2|9090|%u|64|", id));
		assert_int_equal(got, count);
		assert_true(got < 60);
		total += got;
		(*pages_r)++;
	} while (place != 0);
	return total;
}

static void test_others_ask(void **state ATTR_UNUSED)
{
	unsigned int i, pages;

	begin(3);
	login_process_set_protocol(director_leases(director), process, "pop3");
	assert_int_equal(ask_all("", &pages), 0);
	assert_int_equal(pages, 1);
	(void)named_session("jane");
	forget_sent();
	in(left, "SESSIONS|10.0.0.2|9090|10.0.0.1|9090|7|64|0|jane");
	assert_said(right, t_strdup_printf(
		"SESSION|10.0.0.1|9090|10.0.0.2|9090|7|64|%u|%s|%ld|pop3|up|"
		"jane\n", test_hash("jane"), hashed("jane"), (long)now.clock));
	assert_said(right,
		    "SESSIONS-END|10.0.0.1|9090|10.0.0.2|9090|7|64|0|1\n");
	for (i = 0; i < 500; i++)
		(void)named_session(t_strdup_printf("u%u", i));
	assert_int_equal(ask_all("", &pages), 501);
	assert_true(pages >= 10 && pages <= 11);
	assert_int_equal(ask_all("u1*", &pages), 111);
	assert_int_equal(ask_all("nobody", &pages), 0);
	/* any place will do */
	forget_sent();
	in(left, "SESSIONS|10.0.0.2|9090|10.0.0.1|9090|8|64|4294967295");
	assert_said(right,
		    "SESSIONS-END|10.0.0.1|9090|10.0.0.2|9090|8|64|0|0\n");
}

static void test_ask(void **state ATTR_UNUSED)
{
	struct ring_address to;
	uint32_t id, id2;

	begin(3);
	to = address_of("10.0.0.1");
	assert_true(director_sessions_ask(director, &to, "j*", 7, &id));
	ring_end();
	assert_said(right, t_strdup_printf(
		"SESSIONS|10.0.0.1|9090|10.0.0.2|9090|%u|64|7|j*\n", id));
	assert_not_said(left, "SESSIONS");
	in(left, "SESSION|10.0.0.2|9090|10.0.0.1|9090|%u|64|5|10.1.0.1|6|imap|"
	   "up|jane", id);
	in(left, "SESSIONS-END|10.0.0.2|9090|10.0.0.1|9090|%u|64|9|1", id);
	assert_string_equal(str_c(rows), t_strdup_printf(
		"%u jane 5 imap up 10.1.0.1 6\n", id));
	assert_string_equal(str_c(ends), t_strdup_printf("%u 9 1\n", id));
	assert_true(director_sessions_ask(director, &to, "", 9, &id2));
	assert_int_not_equal(id, id2);
}

static void test_ask_alone(void **state ATTR_UNUSED)
{
	struct ring_address to = address_of("10.0.0.9");
	uint32_t id;

	begin(1);
	assert_false(director_sessions_ask(director, &to, "", 0, &id));
}

/* More questions than there can be are forgotten, the oldest ones first. */
static void test_flood(void **state ATTR_UNUSED)
{
	begin(3);
	forget_sent();
	for (unsigned int i = 0; i < 1000; i++) {
		(void)ring_peer_input(director, left->peer, t_strdup_printf(
			"SESSIONS\t10.0.0.2\t9090\t10.0.0.1\t9090\t%u\t64\t0",
			i), &now);
	}
	ring_end();
	assert_int_equal(said(right, "SESSIONS-END|"), 64);
	assert_said(right, "SESSIONS-END|10.0.0.1|9090|10.0.0.2|9090|999|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		list_test(test_own),
		list_test(test_numbers),
		list_test(test_others_ask),
		list_test(test_ask),
		list_test(test_ask_alone),
		list_test(test_flood),
	};

	return run_test_cases(tests);
}
