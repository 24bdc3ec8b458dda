/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What is at the ends of the ranges, and behind them */

#include "test-unit.h"
#include "test-ring-message.h"

#define OURS RING_MINOR_OURS

/* %s is replaced by each of the values. What is good comes out as itself, or
   as what is behind the '='. */
static const struct {
	const char *line;
	const char *good, *bad;
} ranges[] = {
	{ "USER\t%s\t10.0.0.2", "1 2147483648 4294967295 007=7",
	  "0 00 4294967296 -1 +1 x 1x 0x1 1.0 18446744073709551617 "
	  "99999999999999999999999" },
	{ "USER-KILLED\t%s", "1 4294967295", "0 4294967296 -1 x" },
	{ "USER\t5\t%s",
	  "0.0.0.0 10.0.0.1 255.255.255.255 192.168.100.1 :: ::1 fd00:: "
	  "fd00::1 1:2:3:4:5:6:7:8 1:0:0:4::8 0:1:0:1:0:1:0:1 "
	  "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff FD00::A=fd00::a "
	  "[fd00::1]=fd00::1 1:0:0:0:0:6:7:8=1::6:7:8 "
	  "::ffff:10.0.0.1=::ffff:a00:1",
	  "256.0.0.1 10.0.0 10.0.0.1. 10.0.0.0.1 .10.0.0.1 10..0.1 010.0.0.1 "
	  "1 167772161 10.0.0.x 10.0.0.1000 [10.0.0.1] [fd00::1 fd00::1] [] "
	  "[:: ::] [[::1]] : ::: fd00::1%lo fd00::1::2 1:2:3:4:5:6:7 "
	  "1:2:3:4:5:6:7:8:9 g::1 12345::1 localhost "
	  "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc" },
	{ "USER\t5\t10.0.0.2\t%s", "0 1700000000 9007199254740992",
	  "9007199254740993 18446744073709551616 -1 +1 x 1x" },
	{ "USER\t5\t10.0.0.2\t1\t%s", "1 9007199254740992", "9007199254740993 -1 x" },
	{ "U\t5\t10.0.0.2\t%s", "0 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "CONNECT\t10.0.0.1\t%s", "1 9090 65535 09090=9090",
	  "0 65536 4294967297 18446744073709551617 -1 x" },
	{ "DIRECTOR\t%s\t9090", "10.0.0.1 fd00::1 [fd00::1]=fd00::1",
	  "10.0.0 10.0.0.1:9090 x" },
	{ "DIRECTOR\t10.0.0.1\t9090\t%s",
	  "1 1700000000123 9007199254740992 007=7",
	  "9007199254740993 18446744073709551617 -1 +1 x 1x" },
	{ "DIRECTOR\t10.0.0.1\t9090\t1\t%s", "1 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "DIRECTOR\t10.0.0.1\t9090\t1\t2\t%s", "1 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "DIRECTOR-REMOVE\t10.0.0.1\t%s", "1 65535", "0 65536 x" },
	{ "DIRECTOR-REMOVE\t10.0.0.1\t9090\t%s", "1 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "DIRECTOR-LOST\t%s\t9090\t1", "10.0.0.1 fd00::1", "10.0.0 x" },
	{ "DIRECTOR-LOST\t10.0.0.1\t%s\t1", "1 65535", "0 65536 x" },
	{ "DIRECTOR-LOST\t10.0.0.1\t9090\t%s", "0 4294967295",
	  "4294967296 18446744073709551617 -1 +1 x 1x" },
	{ "DIRECTOR-LOST\t10.0.0.1\t9090\t1\t%s", "1 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "ME\t10.0.0.1\t%s\t1", "1 65535", "0 65536 x" },
	{ "ME\t10.0.0.1\t9090\t%s", "0 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "ME\t10.0.0.1\t9090\t1\t%s", "1 9007199254740992", "9007199254740993 -1 x" },
	{ "ME\t10.0.0.1\t9090\t1\t2\t%s", "1 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "ME\t10.0.0.1\t9090\t1\t2\t3\t%s", "1 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "VERSION\tdirector\t%s\t9", "0 1 4294967295", "4294967296 -1 x" },
	{ "VERSION\tdirector\t1\t%s", "0 9 4294967295", "4294967296 -1 x" },
	{ "HOST-HAND-START\t%s", "0 1", "2 -1 x yes 10" },
	{ "HOST-REMOVE\t%s\t9090\t1\t10.0.0.2", "10.0.0.1 fd00::1", "x" },
	{ "HOST-REMOVE\t10.0.0.1\t%s\t1\t10.0.0.2", "1 65535", "0 65536 x" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t%s\t10.0.0.2", "0 1 4294967295",
	  "4294967296 -1 x" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t%s", "10.0.0.2", "x 10" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t%s",
	  "1 9007199254740992", "9007199254740993 -1 x" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t6\t%s",
	  "1", "2 -1 x keep" },
	{ "HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t%s\t\tU0\t",
	  "0 100 4294967295", "4294967296 -1 x" },
	{ "HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t100\t\t%s\t",
	  "U0 D0 U9007199254740992 D9007199254740992 U007=U7",
	  "U D 0 u1 X1 U-1 U+1 U9007199254740993 D9007199254740993 U1x UU1" },
	{ "HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t100\t%s\tU0\t",
	  "t1 a.b-c_d\303\244", "a\001nb a\001tb a\001rb a\0010b a\0011b "
	  "\001n \177 a\002 \033[1m" },
	{ "HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t100\t\tU0\t%s",
	  "mail.example.com \303\244", "a\001nb a\001tb a\001rb a\0010b "
	  "a\0011b \177 \033[1m" },
	{ "HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t100\t\tU0\t\t%s",
	  "1 9007199254740992", "9007199254740993 -1 x" },
	{ "USER-KICK\t10.0.0.1\t9090\t1\t%s",
	  "jane a\001nb a\001tb a\001rb a\0011b \001t \303\244 \033[1m",
	  "a\0010b \0010 a\0010" },
	{ "USER-KICK-ALT\t10.0.0.1\t9090\t1\t%s\tv", "f a\001tb", "a\0010b" },
	{ "USER-KICK-ALT\t10.0.0.1\t9090\t1\tf\t%s", "v a\001tb", "a\0010b" },
	{ "QUIT\t%s", "reason \001t", "\0010" },
	{ "OPTIONS\t%s", "consistent-hashing", "\0010" },
	{ "SYNC\t10.0.0.1\t9090\t%s\t9\t1\t2", "0 4294967295",
	  "4294967296 -1 x" },
	{ "SYNC\t10.0.0.1\t9090\t1\t%s\t1\t2", "1 9 4294967295",
	  "4294967296 -1 x" },
	{ "SYNC\t10.0.0.1\t9090\t1\t9\t%s\t2", "0 9007199254740992",
	  "9007199254740993 -1 x" },
	{ "SYNC\t10.0.0.1\t9090\t1\t9\t1\t%s", "1 4294967295",
	  "4294967296 -1 x" },
	{ "PING\t%s\t0", "0 9007199254740992", "9007199254740993 -1 x" },
	{ "PING\t0\t%s",
	  "0 18446744073709551615 00000000000000000000018446744073709551615"
	  "=18446744073709551615",
	  "18446744073709551616 18446744073709551620 184467440737095516150 "
	  "-1 x" },
};

static const char *with_value(const char *line, const char *value)
{
	const char *p = strstr(line, "%s");

	return t_strconcat(t_strdup_until(line, p), value, p + 2, NULL);
}

static void check_good(const char *line, const char *value)
{
	const char *sent = strchr(value, '='), *got, *error;
	struct ring_message msg;

	if (sent == NULL)
		sent = value;
	else {
		value = t_strdup_until(value, sent);
		sent++;
	}
	if (test_parse(with_value(line, value), OURS, HANDSHAKE, &msg,
		       &error) < 0)
		fail_msg("%s with %s: %s", line, value, error);
	got = test_append(&msg, OURS);
	assert_string_equal(got, with_value(line, sent));
}

static void check_bad(const char *line, const char *value)
{
	const char *error;
	struct ring_message msg;

	if (test_parse(with_value(line, value), OURS, HANDSHAKE, &msg,
		       &error) == 0)
		fail_msg("%s with '%s' isn't refused", line, value);
	if (strstr(error, ": Invalid ") == NULL)
		fail_msg("%s with '%s': %s", line, value, error);
}

static void test_ranges(void **state ATTR_UNUSED)
{
	const char *const *values;

	for (unsigned int i = 0; i < N_ELEMENTS(ranges); i++) {
		values = t_strsplit(ranges[i].good, " ");
		for (; *values != NULL; values++)
			check_good(ranges[i].line, *values);
		values = t_strsplit(ranges[i].bad, " ");
		for (; *values != NULL; values++)
			check_bad(ranges[i].line, *values);
		if (strpbrk(ranges[i].good, "0123456789") == ranges[i].good) {
			/* numbers and addresses */
			check_bad(ranges[i].line, "");
			check_bad(ranges[i].line, " ");
			check_bad(ranges[i].line, " 1");
			check_bad(ranges[i].line, "1 ");
			check_bad(ranges[i].line, "1\0010");
		}
	}
}

static void test_names_length(void **state ATTR_UNUSED)
{
	static const char *const lines[] = {
		"HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t100\t%s\tU0\t",
		"HOST\t10.0.0.1\t9090\t1\t10.0.0.2\t100\t\tU0\t%s",
	};
	struct ring_message msg = { .type = RING_HAND_HOST };
	char name[257];

	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	for (unsigned int i = 0; i < N_ELEMENTS(lines); i++) {
		check_bad(lines[i], name);
		check_good(lines[i], name + 1);
	}

	/* neither are they sent */
	assert_int_equal(net_addr2ip("10.0.0.2", &msg.ip), 0);
	msg.has_state = TRUE;
	msg.tag = name + 1;
	assert_non_null(test_append(&msg, 9));
	msg.tag = name;
	assert_null(test_append(&msg, 9));
	msg.tag = "a\nb";
	assert_null(test_append(&msg, 9));
	msg.tag = "";
	msg.hostname = name;
	assert_null(test_append(&msg, 9));
	msg.hostname = "a\tb";
	assert_null(test_append(&msg, 9));
}

static const struct {
	const char *line;
	unsigned int minor;
	enum test_when when;
	const char *error;
} malformed[] = {
	{ "", 9, AFTERWARDS, "Empty line" },
	{ "\t", 9, AFTERWARDS, "Unknown command ''" },
	{ "\tUSER\t5\t10.0.0.2", 9, AFTERWARDS, "Unknown command ''" },
	{ " USER\t5\t10.0.0.2", 9, AFTERWARDS, "Unknown command ' USER'" },
	{ "USER 5 10.0.0.2", 9, AFTERWARDS,
	  "Unknown command 'USER 5 10.0.0.2'" },
	{ "user\t5\t10.0.0.2", 9, AFTERWARDS, "Unknown command 'user'" },
	{ "USERS\t5\t10.0.0.2", 9, AFTERWARDS, "Unknown command 'USERS'" },
	{ "USE\t5\t10.0.0.2", 9, AFTERWARDS, "Unknown command 'USE'" },
	{ "FOO", 9, HANDSHAKE, "Unknown command 'FOO'" },
	{ "FOO", 9, HOST_LIST, "Unknown command 'FOO'" },
	{ "FOO\033[1m", 9, AFTERWARDS, "Unknown command 'FOO?[1m'" },
	{ "PING\0010", 9, AFTERWARDS, "Unknown command 'PING'" },
	{ "USER", 9, AFTERWARDS, "USER: Missing user hash" },
	{ "USER\t5", 9, AFTERWARDS, "USER: Missing IP" },
	{ "USER\t5\t10.0.0.2\t", 9, AFTERWARDS,
	  "USER: Invalid timestamp ''" },
	{ "HOST\t10.0.0.2\tx", 9, HOST_LIST, "HOST: Invalid vhosts 'x'" },
	{ "HOST\t10.0.0.2\t100\t\tU0\t\tx", 10, HOST_LIST,
	  "HOST: Invalid time of the change 'x'" },
	{ "DIRECTOR\t10.0.0.1\t9090\t1\t2\tx", 10, AFTERWARDS,
	  "DIRECTOR: Invalid clock 'x'" },

	/* how many are too many depends on the peer */
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t6", 9, AFTERWARDS,
	  "HOST-REMOVE: Too many arguments" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t", 9, AFTERWARDS,
	  "HOST-REMOVE: Too many arguments" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t", 10, AFTERWARDS,
	  "HOST-REMOVE: Invalid time of the change ''" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t6\t", 10,
	  AFTERWARDS, "HOST-REMOVE: Invalid keep flag ''" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t6\t1\t", 10,
	  AFTERWARDS, "HOST-REMOVE: Too many arguments" },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t0\t7", 10,
	  AFTERWARDS, "HOST-REMOVE: Too many arguments" },

	/* what is optional, but not one without the other */
	{ "USER-KILLED\t3\t10.0.0.2\t10.0.0.1", 10, AFTERWARDS,
	  "USER-KILLED: Missing director port" },

	/* not before, not afterwards */
	{ "VERSION\tdirector\t1\t9", 9, AFTERWARDS,
	  "Unexpected command 'VERSION'" },
	{ "ME\t10.0.0.1\t9090\t1", 9, AFTERWARDS, "Unexpected command 'ME'" },
	{ "HOST-HAND-START\t0", 9, AFTERWARDS,
	  "Unexpected command 'HOST-HAND-START'" },
	{ "HOST-HAND-END\t0", 9, AFTERWARDS,
	  "Unexpected command 'HOST-HAND-END'" },
	{ "HOST-HAND-END\t0", 9, HANDSHAKE,
	  "Unexpected command 'HOST-HAND-END'" },
	{ "U\t5\t10.0.0.2\t1", 9, AFTERWARDS, "Unexpected command 'U'" },
	{ "OPTIONS\tconsistent-hashing", 9, AFTERWARDS,
	  "Unexpected command 'OPTIONS'" },
	{ "DONE", 9, AFTERWARDS, "Unexpected command 'DONE'" },

	/* a host without an origin, and one with it in the list */
	{ "HOST\t10.0.0.2\t100\t\tU0\t", 9, HANDSHAKE,
	  "HOST: Invalid sequence number ''" },
	{ "HOST\t10.0.0.1\t9090\t7\t10.0.0.2\t100\t\tU0\t", 9, HOST_LIST,
	  "HOST: Invalid state '10.0.0.2'" },

	/* old peers */
	{ "U\t5\t10.0.0.2\t1", 8, HANDSHAKE, "Unknown command 'U'" },
	{ "HOST\t10.0.0.2\t100\tt1\tU0\t", 6, HOST_LIST,
	  "HOST: Invalid tag 't1'" },
	{ "USER\t5\t10.0.0.2\tx", 8, HANDSHAKE, "U: Invalid timestamp 'x'" },
};

static void test_malformed(void **state ATTR_UNUSED)
{
	struct ring_message msg;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(malformed); i++) {
		assert_int_equal(test_parse(malformed[i].line,
					    malformed[i].minor,
					    malformed[i].when, &msg, &error),
				 -1);
		assert_string_equal(error, malformed[i].error);
	}
}

/* An over-long value isn't repeated in whole. */
static void test_error_is_short(void **state ATTR_UNUSED)
{
	struct ring_message msg;
	string_t *line = t_str_new(2048);
	const char *error;

	str_append(line, "USER\t");
	for (unsigned int i = 0; i < 1000; i++)
		str_append_c(line, '1');
	assert_int_equal(test_parse(str_c(line), 9, AFTERWARDS, &msg, &error),
			 -1);
	assert_true(strlen(error) >= 80 && strlen(error) < 120);
	assert_int_equal(test_parse(str_c(line) + 5, 9, AFTERWARDS, &msg,
				    &error), -1);
	assert_true(strlen(error) >= 80 && strlen(error) < 120);
}

static void test_escape(void **state ATTR_UNUSED)
{
	static const struct {
		const char *field, *text, *sent;
	} tests[] = {
		{ "a\0011b\001tc\001rd\001ne", "a\001b\tc\rd\ne",
		  "a\0011b\001tc\001rd\001ne" },
		/* an unknown one is the character */
		{ "\001xa\001 b", "xa b", "xa b" },
		{ "\001\001", "\001", "\0011" },
		/* one at the end is dropped */
		{ "abc\001", "abc", "abc" },
		{ "\001", "", "" },
		{ "\001\001\001", "\001", "\0011" },
		/* a CR, which no sender leaves as it is */
		{ "a\rb", "a\rb", "a\001rb" },
	};
	struct ring_message msg;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const char *line = t_strconcat("USER-KICK-ALT\t10.0.0.1\t1\t1\t",
					       tests[i].field, "\tvalue", NULL);

		assert_int_equal(test_parse(line, 9, AFTERWARDS, &msg, &error),
				 0);
		assert_string_equal(msg.text, tests[i].text);
		assert_string_equal(msg.value, "value");
		assert_string_equal(test_append(&msg, 9),
			t_strconcat("USER-KICK-ALT\t10.0.0.1\t1\t1\t",
				    tests[i].sent, "\tvalue", NULL));
	}

	/* each field, also where nobody escapes anything */
	assert_int_equal(test_parse("\001US\001ER\001\t\0015\001\t10\001.0.0.2",
				    9, AFTERWARDS, &msg, &error), 0);
	assert_int_equal(msg.type, RING_USER);
	assert_string_equal(test_append(&msg, 9), "USER\t5\t10.0.0.2");

	/* escaped TABs separate options like others */
	assert_int_equal(test_parse("OPTIONS\ta\001tb\t\001n", 9, HANDSHAKE,
				    &msg, &error), 0);
	assert_string_equal(msg.text, "a\tb\t\n");
	assert_string_equal(test_append(&msg, 9), "OPTIONS\ta\tb\t\001n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_ranges),
		test_case(test_names_length),
		test_case(test_malformed),
		test_case(test_error_is_short),
		test_case(test_escape),
	};

	return run_test_cases(tests);
}
