/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "str.h"
#include "strescape.h"
#include "director/auth-line.h"

#include <sys/mman.h>

/* The parser gets the line right before memory that can't be read. */
#define EDGE_SIZE (256 * 1024)

static char *edge;

static int setup(void **state)
{
	size_t page = 65536;

	edge = mmap(NULL, EDGE_SIZE + page, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(edge != MAP_FAILED);
	assert_int_equal(mprotect(edge + EDGE_SIZE, page, PROT_NONE), 0);
	return test_lib_setup(state);
}

static int teardown(void **state)
{
	(void)munmap(edge, EDGE_SIZE + 65536);
	return test_lib_teardown(state);
}

static const char *at_edge(const char *data, size_t size)
{
	char *p = edge + EDGE_SIZE - size;

	assert_true(size <= EDGE_SIZE);
	memmove(p, data, size);
	return p;
}

static bool parse_data(const char *data, size_t size, struct auth_line *line_r)
{
	memset(line_r, 0xff, sizeof(*line_r));
	return auth_line_parse(at_edge(data, size), size, line_r);
}

static bool parse(const char *text, struct auth_line *line_r)
{
	return parse_data(text, strlen(text), line_r);
}

static const char *const order_fields[] = {
	"user=jane", "destuser=dest@example.com", "director_tag=a b",
	"lip=fd00::1", "lport=143", "port=65535", "proxy",
	"director_proxy_maybe",
};
#define ORDER_COUNT N_ELEMENTS(order_fields)

static void check_order(const char *text)
{
	struct auth_line line;
	struct ip_addr ip;

	assert_true(parse(text, &line));
	assert_int_equal(line.id_len, 2);
	assert_memory_equal(line.id, "17", 2);
	assert_string_equal(line.username, "dest@example.com");
	assert_string_equal(line.tag, "a b");
	assert_int_equal(net_addr2ip("fd00::1", &ip), 0);
	assert_true(net_ip_compare(&line.lip, &ip));
	assert_int_equal(line.lport, 143);
	assert_int_equal(line.port, 65535);
	assert_true(line.proxy);
	assert_false(line.host);
	assert_true(line.proxy_maybe);
}

static void check_orders(string_t *str, unsigned int used)
{
	size_t len = str_len(str);

	if (used == (1U << ORDER_COUNT) - 1)
		check_order(str_c(str));
	for (unsigned int i = 0; i < ORDER_COUNT; i++) {
		if ((used & (1U << i)) != 0)
			continue;
		str_printfa(str, "\t%s", order_fields[i]);
		check_orders(str, used | (1U << i));
		str_truncate(str, len);
	}
}

static void test_any_order(void **state ATTR_UNUSED)
{
	string_t *str = t_str_new(256);

	str_append(str, "17");
	check_orders(str, 0);
}

static void test_wanted(void **state ATTR_UNUSED)
{
	static const struct {
		const char *text;
		bool wanted;
		const char *username, *tag;
	} tests[] = {
		/* proxying */
		{ "1\tuser=u\tproxy", TRUE, "u", "" },
		{ "1\tuser=u\tproxy=y", TRUE, "u", "" },
		{ "1\tuser=u\tproxy=", TRUE, "u", "" },
		{ "1\tproxy\tuser=u", TRUE, "u", "" },
		{ "1\tuser=u\tproxy_maybe", FALSE, NULL, "" },
		{ "1\tuser=u\tproxy_maybe=y", FALSE, NULL, "" },
		{ "1\tuser=u\tproxyx=y", FALSE, NULL, "" },
		{ "1\tuser=u\tprox", FALSE, NULL, "" },
		{ "1\tuser=u\tp", FALSE, NULL, "" },
		{ "1\tuser=u\tPROXY", FALSE, NULL, "" },
		{ "1\tuser=u\t proxy", FALSE, NULL, "" },
		{ "1\tuser=u", FALSE, NULL, "" },
		{ "1\tuser=u\tdirector_proxy_maybe", TRUE, "u", "" },
		{ "1\tuser=u\tdirector_proxy_maybe=y", TRUE, "u", "" },
		{ "1\tuser=u\tdirector_proxy_mayb", FALSE, NULL, "" },
		/* in the id it is none */
		{ "proxy\tuser=u", FALSE, NULL, "" },
		/* a host is given */
		{ "1\tuser=u\tproxy\thost=10.0.0.1", FALSE, NULL, "" },
		{ "1\thost=10.0.0.1\tuser=u\tproxy", FALSE, NULL, "" },
		{ "1\tuser=u\tproxy\thost=", FALSE, NULL, "" },
		{ "1\tuser=u\tproxy\thost", FALSE, NULL, "" },
		{ "1\tuser=u\tproxy\thostip=10.0.0.1", TRUE, "u", "" },
		{ "1\tuser=u\tproxy\thostname=x", TRUE, "u", "" },
		{ "1\tuser=u\tproxy\tproxy_host=x", TRUE, "u", "" },
		{ "1\tuser=u\tdirector_proxy_maybe\thost=x", FALSE, NULL, "" },
		/* the name */
		{ "1\tproxy", FALSE, NULL, "" },
		{ "1\tproxy\tuser", FALSE, NULL, "" },
		{ "1\tproxy\tuser=", FALSE, NULL, "" },
		{ "1\tproxy\tusername=u", FALSE, NULL, "" },
		{ "1\tproxy\tuser=u\tuser", TRUE, "u", "" },
		{ "1\tproxy\tuser=a=b", TRUE, "a=b", "" },
		{ "1\tproxy\tdestuser=d", TRUE, "d", "" },
		{ "1\tproxy\tdestuser=d\tuser=u", TRUE, "d", "" },
		{ "1\tproxy\tuser=u\tdestuser=d", TRUE, "d", "" },
		{ "1\tproxy\tdestuser=\tuser=u", TRUE, "u", "" },
		{ "1\tproxy\tuser=u\tdestuser=", TRUE, "u", "" },
		{ "1\tproxy\tuser=u\tdestuser", TRUE, "u", "" },
		{ "1\tproxy\tuser=\tdestuser=", FALSE, NULL, "" },
		{ "1\tproxy\tuser=u\toriginal_user=o", TRUE, "u", "" },
		{ "1\tproxy\tuser=\xc3\xa4 \x7f", TRUE, "\xc3\xa4 \x7f", "" },
		/* escapes */
		{ "1\tproxy\tuser=a\001tb", TRUE, "a\tb", "" },
		{ "1\tproxy\tuser=a\001nb\001rc\0011d", TRUE,
		  "a\nb\rc\001d", "" },
		{ "1\tproxy\tuser=a\001", TRUE, "a", "" },
		{ "1\tproxy\tuser=a\001\tdestuser=b\001td", TRUE, "b\td", "" },
		{ "1\tproxy\tuser=\001t", TRUE, "\t", "" },
		/* an escaped NUL ends it */
		{ "1\tproxy\tuser=a\0010b", TRUE, "a", "" },
		/* the tag */
		{ "1\tproxy\tuser=u\tdirector_tag=t", TRUE, "u", "t" },
		{ "1\tproxy\tuser=u\tdirector_tag=", TRUE, "u", "" },
		{ "1\tproxy\tuser=u\tdirector_tag", TRUE, "u", "" },
		{ "1\tproxy\tuser=u\tdirector_tagx=t", TRUE, "u", "" },
		{ "1\tproxy\tuser=u\tdirector_tag=a\001tb", TRUE, "u",
		  "a\tb" },
		/* empty fields, ends */
		{ "1\t\t\tproxy\t\tuser=u\t", TRUE, "u", "" },
		{ "1\t\t", FALSE, NULL, "" },
		{ "1\t", FALSE, NULL, "" },
		{ "1", FALSE, NULL, "" },
		{ "", FALSE, NULL, "" },
		{ "\tproxy\tuser=u", TRUE, "u", "" },
		{ "1\t=\tproxy\t=user=x\tuser=u", TRUE, "u", "" },
	};
	struct auth_line line;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		if (parse(tests[i].text, &line) != tests[i].wanted)
			fail_msg("wrong: %s", tests[i].text);
		if (!tests[i].wanted)
			continue;
		assert_string_equal(line.username, tests[i].username);
		assert_string_equal(line.tag, tests[i].tag);
	}
}

static void test_id(void **state ATTR_UNUSED)
{
	static const struct {
		const char *text;
		size_t len;
	} tests[] = {
		{ "", 0 }, { "\t", 0 }, { "1", 1 }, { "4294967295\tproxy", 10 },
		{ "x y\tuser=u", 3 },
	};
	struct auth_line line;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		(void)parse(tests[i].text, &line);
		assert_int_equal(line.id_len, tests[i].len);
		assert_ptr_equal(line.id, edge + EDGE_SIZE -
				 strlen(tests[i].text));
	}
}

static void test_addresses(void **state ATTR_UNUSED)
{
	static const struct {
		const char *text, *lip;
		in_port_t lport, port;
	} tests[] = {
		{ "1", NULL, 0, 0 },
		{ "1\tlip=10.0.0.1\tlport=143\tport=24", "10.0.0.1", 143, 24 },
		{ "1\tlip=::1", "::1", 0, 0 },
		{ "1\tlip=1111:2222:3333:4444:5555:6666:7777:8888",
		  "1111:2222:3333:4444:5555:6666:7777:8888", 0, 0 },
		/* what can't be one is none */
		{ "1\tlip\tlport\tport", NULL, 0, 0 },
		{ "1\tlip=\tlport=\tport=", NULL, 0, 0 },
		{ "1\tlip=x\tlport=x\tport=1x", NULL, 0, 0 },
		{ "1\tlip=10.0.0.256", NULL, 0, 0 },
		{ "1\tlport=65535\tport=65536", NULL, 65535, 0 },
		{ "1\tlport=0\tport=-1", NULL, 0, 0 },
		{ "1\tport=99999999999999999999", NULL, 0, 0 },
		{ "1\tport=000024", NULL, 0, 0 },
		{ "1\tlip=10.0.0.1\tlip=x\tport=1\tport=x", NULL, 0, 0 },
		{ "1\tlip=::1\tlip\tport=1\tport\tlport=2\tlport",
		  "::1", 2, 1 },
		{ "1\tlip=11111111111111111111111111111111111111111111111111"
		  "11111111111111111111111111111111111", NULL, 0, 0 },
		{ "1\tlipx=10.0.0.1\tlportx=1\tportx=1", NULL, 0, 0 },
		{ "1\tsource_ip=10.0.0.1\trport=1", NULL, 0, 0 },
	};
	struct auth_line line;
	struct ip_addr ip;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		(void)parse(tests[i].text, &line);
		if (tests[i].lip == NULL)
			assert_int_equal(line.lip.family, 0);
		else {
			assert_int_equal(net_addr2ip(tests[i].lip, &ip), 0);
			assert_true(net_ip_compare(&line.lip, &ip));
		}
		assert_int_equal(line.lport, tests[i].lport);
		assert_int_equal(line.port, tests[i].port);
	}
}

static void test_nul_and_huge(void **state ATTR_UNUSED)
{
	static const char with_nul[] = "1\tuser=a\0b\tproxy\0\tproxy\tx\0";
	struct auth_line line;
	char *huge = t_malloc0(EDGE_SIZE);
	size_t size;

	/* a NUL ends the name, nothing else */
	assert_true(parse_data(with_nul, sizeof(with_nul) - 1, &line));
	assert_string_equal(line.username, "a");
	assert_false(parse_data(with_nul, sizeof(with_nul) - 1 - 9, &line));

	/* one huge field, known and unknown */
	memset(huge, 'x', EDGE_SIZE);
	memcpy(huge, "1\tproxy\tuser=", 13);
	assert_true(parse_data(huge, EDGE_SIZE, &line));
	assert_int_equal(strlen(line.username), EDGE_SIZE - 13);
	memcpy(huge, "1\tproxy\tport=1\tlip=1\tu", 22);
	assert_false(parse_data(huge, EDGE_SIZE, &line));
	/* many fields */
	memset(huge, '\t', EDGE_SIZE);
	assert_false(parse_data(huge, EDGE_SIZE, &line));
	for (size = 0; size + 7 <= EDGE_SIZE; size += 7)
		memcpy(huge + size, "\tuser=u", 7);
	assert_false(parse_data(huge, size, &line));
	memcpy(huge + size - 7, "\tproxy=", 7);
	assert_true(parse_data(huge, size, &line));
	assert_string_equal(line.username, "u");
}

static void test_is_self(void **state ATTR_UNUSED)
{
	static const struct {
		const char *text, *lip;
		in_port_t lport;
		bool self;
	} tests[] = {
		/* what auth says wins */
		{ "1\tlip=10.0.0.1", NULL, 0, TRUE },
		{ "1\tlip=10.0.0.2", NULL, 0, FALSE },
		{ "1\tlip=10.0.0.1", "10.0.0.2", 0, TRUE },
		{ "1\tlip=10.0.0.2", "10.0.0.1", 0, FALSE },
		{ "1", "10.0.0.1", 0, TRUE },
		{ "1", "10.0.0.2", 0, FALSE },
		{ "1", "fd00::1", 0, FALSE },
		{ "1", NULL, 0, FALSE },
		/* ports count when both are known */
		{ "1\tport=143", "10.0.0.1", 0, TRUE },
		{ "1\tport=143", "10.0.0.1", 143, TRUE },
		{ "1\tport=143", "10.0.0.1", 144, FALSE },
		{ "1", "10.0.0.1", 144, TRUE },
		{ "1\tport=143\tlport=143", "10.0.0.1", 144, TRUE },
		{ "1\tport=144\tlport=143", "10.0.0.1", 144, FALSE },
		{ "1\tlport=143", "10.0.0.1", 144, TRUE },
	};
	struct ip_addr ip, lip;
	struct auth_line line;

	assert_int_equal(net_addr2ip("10.0.0.1", &ip), 0);
	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		(void)parse(tests[i].text, &line);
		i_zero(&lip);
		if (tests[i].lip != NULL)
			assert_int_equal(net_addr2ip(tests[i].lip, &lip), 0);
		assert_int_equal(auth_line_is_self(&line, &ip, &lip,
						   tests[i].lport),
				 tests[i].self);
	}
}

static void test_append_local(void **state ATTR_UNUSED)
{
	static const char *const tests[][2] = {
		{ "1\tuser=u\tproxy", "1\tuser=u" },
		{ "1\tproxy=y\tuser=u", "1\tuser=u" },
		{ "1\tproxy\tproxy=x\tdirector_proxy_maybe\tuser=u",
		  "1\tuser=u" },
		{ "1\tdirector_proxy_maybe=y\tuser=u", "1\tuser=u" },
		{ "1\tproxy", "1" },
		{ "1\tproxy_maybe\tproxyx\tdirector_tag=proxy",
		  "1\tproxy_maybe\tproxyx\tdirector_tag=proxy" },
		{ "1\tuser=a\001tproxy\tpass=\001t",
		  "1\tuser=a\001tproxy\tpass=\001t" },
		{ "1\t\tproxy\t\tx\t", "1\t\t\tx\t" },
		{ "", "" }, { "1", "1" }, { "1\t", "1\t" },
	};
	string_t *str = t_str_new(256);
	size_t size;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		size = strlen(tests[i][0]);
		str_truncate(str, 0);
		str_append(str, "OK\t");
		auth_line_append_local(str, at_edge(tests[i][0], size), size);
		assert_string_equal(str_c(str),
				    t_strconcat("OK\t", tests[i][1], NULL));
	}
}

static void test_request(void **state ATTR_UNUSED)
{
	static const struct {
		const char *text;
		int ret;
		uint32_t id;
		const char *lip;
		in_port_t lport;
	} tests[] = {
		{ "1", 0, 1, NULL, 0 },
		{ "0", 0, 0, NULL, 0 },
		{ "4294967295\tPLAIN", 0, 4294967295, NULL, 0 },
		{ "4294967296\tPLAIN", -1, 0, NULL, 0 },
		{ "10000000000", -1, 0, NULL, 0 },
		{ "00000000001", -1, 0, NULL, 0 },
		{ "", -1, 0, NULL, 0 },
		{ "\tPLAIN", -1, 0, NULL, 0 },
		{ "-1", -1, 0, NULL, 0 },
		{ "1x", -1, 0, NULL, 0 },
		{ " 1", -1, 0, NULL, 0 },
		{ "7\tPLAIN\tservice=imap\tlip=10.0.0.1\tlport=143\trip=::2",
		  0, 7, "10.0.0.1", 143 },
		{ "7\tPLAIN\tlport=143\tlip=fd00::1", 0, 7, "fd00::1", 143 },
		/* of PASS: a user with such a name */
		{ "7\tlip=10.0.0.1\tlport=143", 0, 7, NULL, 143 },
		{ "7\tlip\tlport", 0, 7, NULL, 0 },
		{ "7\tlip=\tlport=", 0, 7, NULL, 0 },
		{ "7\tPLAIN\tlip=::1\tlip\tlport=1\tlport", 0, 7, "::1", 1 },
		{ "7\tl\tli\tlp", 0, 7, NULL, 0 },
		{ "7\t", 0, 7, NULL, 0 },
		{ "7\t\t\tlport=1\t", 0, 7, NULL, 1 },
		{ "7\treal_lip=10.0.0.1\treal_lport=1", 0, 7, NULL, 0 },
		{ "7\tlip=10.0.0.1x", 0, 7, NULL, 0 },
	};
	struct ip_addr lip, ip;
	in_port_t lport;
	uint32_t id;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		size_t size = strlen(tests[i].text);

		memset(&lip, 0xff, sizeof(lip));
		lport = 0xffff;
		if (auth_line_parse_request(at_edge(tests[i].text, size), size,
					    &id, &lip, &lport) != tests[i].ret)
			fail_msg("wrong: %s", tests[i].text);
		if (tests[i].ret < 0)
			continue;
		assert_int_equal(id, tests[i].id);
		assert_int_equal(lport, tests[i].lport);
		if (tests[i].lip == NULL)
			assert_int_equal(lip.family, 0);
		else {
			assert_int_equal(net_addr2ip(tests[i].lip, &ip), 0);
			assert_true(net_ip_compare(&lip, &ip));
		}
		assert_int_equal(auth_line_parse_id(at_edge(tests[i].text,
							    size), size, &id),
				 0);
		assert_int_equal(id, tests[i].id);
	}
}

/* Random lines, and what a parser finds in them that is too simple to be
   wrong */

static void check_random(const char *data, size_t size)
{
	const char *const *fields, *user = NULL, *destuser = NULL, *tag = "";
	bool proxy = FALSE, maybe = FALSE, host = FALSE, wanted;
	struct auth_line line;
	struct ip_addr lip;
	in_port_t lport;
	uint32_t id;

	fields = t_strsplit(t_strndup(data, size), "\t");
	for (fields++; *fields != NULL; fields++) {
		const char *key = t_strcut(*fields, '=');
		const char *value = strchr(*fields, '=');

		value = value == NULL ? NULL : t_str_tabunescape(value + 1);
		if (strcmp(key, "proxy") == 0)
			proxy = TRUE;
		if (strcmp(key, "director_proxy_maybe") == 0)
			maybe = TRUE;
		if (strcmp(key, "host") == 0)
			host = TRUE;
		if (value == NULL)
			continue;
		if (strcmp(key, "user") == 0)
			user = value;
		if (strcmp(key, "destuser") == 0)
			destuser = value;
		if (strcmp(key, "director_tag") == 0)
			tag = value;
	}
	if (destuser == NULL || *destuser == '\0')
		destuser = user;
	wanted = (proxy || maybe) && !host && destuser != NULL &&
		*destuser != '\0';

	if (parse_data(data, size, &line) != wanted)
		fail_msg("wrong: %s", t_strndup(data, size));
	assert_int_equal(line.proxy, proxy);
	assert_int_equal(line.proxy_maybe, maybe);
	assert_int_equal(line.host, host);
	assert_string_equal(line.tag, tag);
	if (wanted)
		assert_string_equal(line.username, destuser);

	/* these only mustn't read too far */
	(void)auth_line_parse_request(at_edge(data, size), size, &id, &lip,
				      &lport);
	(void)auth_line_parse_protocol(at_edge(data, size), size);
	auth_line_append_local(t_str_new(128), at_edge(data, size), size);
}

static void test_protocol(void **state ATTR_UNUSED)
{
	static const struct {
		const char *line, *protocol;
	} tests[] = {
		{ "1\tPLAIN\tprotocol=imap\tsecured", "imap" },
		{ "1\tPLAIN\tsecured\tprotocol=pop3", "pop3" },
		{ "1\tPLAIN\tprotocol=a\001tb\tlip=1.2.3.4", "a\tb" },
		{ "1\tPLAIN\tprotocol=", "" },
		{ "1\tPLAIN\tprotocol", NULL },
		{ "1\tPLAIN\tprotocols=imap", NULL },
		{ "protocol=imap", NULL },
		{ "1", NULL },
		{ "", NULL },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const char *protocol;
		size_t size = strlen(tests[i].line);

		protocol = auth_line_parse_protocol(
			at_edge(tests[i].line, size), size);
		if (null_strcmp(protocol, tests[i].protocol) != 0)
			fail_msg("%s: %s", tests[i].line, protocol);
	}
}

static void test_random(void **state ATTR_UNUSED)
{
	static const char *const words[] = {
		"\t", "\t", "\t", "\t", "=", "=", "user", "destuser", "proxy",
		"host", "director_tag", "director_proxy_maybe", "lip", "lport",
		"port", "protocol", "x", "\001t", "\001n", "10.0.0.1", "143", "l", "d",
	};
	uint64_t seed = 1;
	string_t *str = t_str_new(256);

	for (unsigned int i = 0; i < 200000; i++) T_BEGIN {
		unsigned int count = test_rand_below(&seed, 16);

		str_truncate(str, 0);
		str_append_c(str, '1');
		for (; count > 0; count--) {
			str_append(str, words[test_rand_below(&seed,
						N_ELEMENTS(words))]);
		}
		check_random(str_c(str), str_len(str));
	} T_END;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_any_order),
		test_case(test_wanted),
		test_case(test_id),
		test_case(test_addresses),
		test_case(test_nul_and_huge),
		test_case(test_is_self),
		test_case(test_append_local),
		test_case(test_request),
		test_case(test_protocol),
		test_case(test_random),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
