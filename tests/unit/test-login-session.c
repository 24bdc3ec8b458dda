/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Sessions, as the login plugin tells of them, and how they are ended */

#define SOCKET_PATH "test-login-session.sock"
#include "test-login-link.h"

static void test_answer_parse(void **state ATTR_UNUSED)
{
#define OTHER "proxy=y", "host=192.0.2.1"
#define ID(id) "director_id=" id
#define DEADLINE "director_deadline=18446744073709551615"
#define HASH "user_director_hash=4294967295"
	static const struct {
		const char *fields[7];
		int ret;
	} tests[] = {
		{ { OTHER, NULL }, 0 },
		{ { OTHER, DEADLINE, HASH, NULL }, 0 },
		{ { OTHER, "director_idx=1", NULL }, 0 },
		{ { OTHER, ID("0-f"), DEADLINE, HASH, NULL }, 1 },
		{ { OTHER, HASH, DEADLINE, ID("1"), NULL }, 1 },
		{ { OTHER, ID("0123456789abcdef0123456789abcdef"
			      "0123456789abcdef0123456789abcdef"),
		    DEADLINE, HASH, NULL }, 1 },
		{ { OTHER, ID("0123456789abcdef0123456789abcdef"
			      "0123456789abcdef0123456789abcdef0"),
		    DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID(""), DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID("A"), DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID("a b"), DEADLINE, HASH, NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, NULL }, -1 },
		{ { OTHER, ID("1"), HASH, NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, "user_director_hash=0",
		    NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, "user_director_hash=",
		    NULL }, -1 },
		{ { OTHER, ID("1"), DEADLINE, "user_director_hash=4294967296",
		    NULL }, -1 },
		{ { OTHER, ID("1"), HASH, "director_deadline=-1", NULL }, -1 },
		{ { OTHER, ID("1"), HASH, "director_deadline=1s", NULL }, -1 },
		{ { OTHER, ID("1"), HASH,
		    "director_deadline=18446744073709551616", NULL }, -1 },
	};
	struct director_answer answer;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		error = NULL;
		assert_int_equal(director_answer_parse(tests[i].fields, &answer,
						       &error), tests[i].ret);
		assert_int_equal(error != NULL, tests[i].ret < 0);
		if (tests[i].ret > 0) {
			assert_int_equal(answer.hash, UINT32_MAX);
			assert_true(answer.deadline_msecs == UINT64_MAX);
		}
	}
}

static void test_lifecycle(void **state ATTR_UNUSED)
{
	struct test_client client, other;
	char long_user[1000];

	/* nothing connects before the first session */
	run_turn();
	assert_true(net_accept(fd_listen, NULL, NULL) < 0);

	assert_non_null(start(&client, "a1", 7, &ip1, "u\tx@y"));
	accept_link();
	expect("ANNOUNCED\n");
	assert_true(str_begins_with(str_c(received), t_strdup_printf(
		"VERSION\tdirector-login-plugin\t1\t0\n"
		"PROCESS\t%ld\timap\nSTART\ta1\t7\t192.0.2.1\t",
		(long)getpid())));
	assert_non_null(strstr(str_c(received), "\tu\001tx@y\nANNOUNCED\n"));

	/* told at once, and only once */
	assert_null(start(&other, "a1", 8, &ip1, "other"));
	memset(long_user, 'u', sizeof(long_user));
	long_user[sizeof(long_user)-1] = '\0';
	assert_non_null(start(&other, "a2", 7, &ip2, long_user));
	read_all();
	assert_non_null(strstr(str_c(received), "START\ta2\t7\t2001:db8::1\t"));
	assert_int_equal(count_text("START\t"), 2);
	assert_true(str_len(received) < 600);

	director_link_up(director, client.session, &ip1);
	director_link_up(director, other.session, &ip1);
	director_link_end(director, &client.session, "a\tb\nc");
	assert_null(client.session);
	director_link_end(director, &client.session, "again");
	director_link_end(director, &other.session, long_user);
	/* these wait for company */
	read_all();
	assert_int_equal(count_text("UP\t"), 0);
	assert_int_equal(count_text("END\t"), 0);
	expect("END\ta2\tuuu");
	assert_non_null(strstr(str_c(received),
			       "UP\ta1\nUP\ta2\t192.0.2.1\n"
			       "END\ta1\ta\001tb\001nc\nEND\ta2\tuuu"));
	assert_int_equal(count_text("END\t"), 2);

	/* the token is free again */
	assert_non_null(start(&client, "a1", 7, &ip1, "user"));

	/* a START takes along what waits, and in order */
	director_link_end(director, &client.session, "third");
	assert_non_null(start(&other, "a3", 7, &ip1, "user"));
	read_all();
	assert_non_null(strstr(str_c(received), "END\ta1\tthird\nSTART\ta3\t"));

	/* nothing is lost when the process ends */
	director_link_end(director, &other.session, "fourth");
	director_link_deinit(&director);
	read_all();
	assert_non_null(strstr(str_c(received), "END\ta3\tfourth\n"));
	director = director_link_init(SOCKET_PATH, "imap", test_kick);
}

static void test_names(void **state ATTR_UNUSED)
{
	struct director_answer answer = { .token = "b1", .hash = 7 };
	const char *const fields[] = {
		"user=jane", "destuser=jane", "proxy=y", "user_a=x\ty",
		"user_director_hash=7", "user_b=", "userdb_mail=z",
		t_strdup_printf("user_long=%0300d", 0), "user_c=3", NULL
	};
	const char *const dest[] = {
		"destuser=other", "user_1=", "user_2=", "user_3=", "user_4=",
		"user_5=", "user_6=", "user_7=", "user_8=", NULL
	};
	struct test_client client, second;

	answer.fields = fields;
	client.session = director_link_start(director, &answer, &ip1, "jane",
					     &client);
	accept_link();
	expect("ANNOUNCED\n");
	assert_non_null(strstr(str_c(received), "\tjane\tuser_a=x\001ty\t"
			       "user_b=\tuser_c=3\nANNOUNCED"));
	answer.token = "b2";
	answer.fields = dest;
	second.session = director_link_start(director, &answer, &ip1, "jane",
					     &second);
	expect("\tjane\tdestuser=other\tuser_1=\tuser_2=\tuser_3=\tuser_4=\t"
	       "user_5=\tuser_6=\tuser_7=\n");
	/* and each time that it is announced */
	test_disconnect();
	accept_link();
	expect("\tuser_c=3\n");
	director_link_end(director, &client.session, "");
	director_link_end(director, &second.session, "");
}

static void test_kick_sessions(void **state ATTR_UNUSED)
{
	struct test_client clients[5];

	start(&clients[0], "a0", 7, &ip1, "user");
	start(&clients[1], "a1", 7, &ip2, "user");
	start(&clients[2], "a2", 7, &ip1, "other");
	start(&clients[3], "a3", UINT32_MAX, &ip1, "user");
	start(&clients[4], "a4", 8, &ip1, "user");
	director_link_up(director, clients[1].session, &ip2);
	accept_link();
	send_text(HELLO"UNKNOWN\tx\nKICK\t9\n"
		  "KICK\t7\t2001:db8::1\treason\tfurther\targuments\n");
	expect("END\ta2\t");
	expect("END\ta0\t");
	assert_int_equal(kicked, 2);
	assert_non_null(clients[1].session);

	send_text("KICK\t7\nKICK\t4294967295\nKICK\t7\n");
	expect("END\ta1\t");
	expect("END\ta3\t");
	assert_int_equal(kicked, 4);
	assert_non_null(clients[4].session);
	assert_int_equal(count_text("END\t"), 4);
	assert_int_equal(errors_logged, 0);
}

static void test_kick_backend(void **state ATTR_UNUSED)
{
	struct test_client clients[4];

	start(&clients[0], "a0", 7, &ip1, "user");
	start(&clients[1], "a1", 7, &ip2, "user");
	start(&clients[2], "a2", 8, &ip1, "other");
	start(&clients[3], "a3", 9, &ip2, "third");
	director_link_up(director, clients[2].session, &ip1);
	accept_link();
	send_text(HELLO"KICK-BACKEND\t192.0.2.9\tx\n"
		  "KICK-BACKEND\t192.0.2.1\tbackend was removed\n");
	expect("END\ta0\t");
	expect("END\ta2\t");
	assert_int_equal(kicked, 2);
	assert_string_equal(kick_reason,
			    "Kicked by director: backend was removed");
	send_text("KICK-BACKEND\t2001:db8::1\n");
	expect("END\ta1\t");
	expect("END\ta3\t");
	assert_int_equal(kicked, 4);
	assert_int_equal(errors_logged, 0);
}

static void test_kick_reason(void **state ATTR_UNUSED)
{
	static const struct {
		const char *fields, *reason;
	} tests[] = {
		{ "", "Kicked by director" },
		{ "\t", "Kicked by director" },
		{ "\t\t", "Kicked by director" },
		{ "\t192.0.2.9", "Kicked by director" },
		{ "\t192.0.2.9\tjust so", "Kicked by director: just so" },
		{ "\t\tkicked by\001tdoveadm\tmore",
		  "Kicked by director: kicked by?doveadm" },
	};
	struct test_client client;
	unsigned int i;

	start(&client, "other", 8, &ip1, "user");
	accept_link();
	send_text(HELLO);
	for (i = 0; i < N_ELEMENTS(tests); i++) {
		const char *token = t_strdup_printf("a%u", i);

		start(&client, token, 7, &ip1, "user");
		send_text(t_strdup_printf("KICK\t7%s\n", tests[i].fields));
		expect(t_strdup_printf("END\t%s\tKicked by director", token));
		assert_string_equal(kick_reason, tests[i].reason);
	}
	start(&client, "long", 7, &ip1, "user");
	send_text(t_strdup_printf("KICK\t7\t\t%0500d\n", 0));
	expect("END\tlong\t");
	assert_true(strlen(kick_reason) <=
		    strlen("Kicked by director: ") + 255);
	assert_int_equal(kicked, N_ELEMENTS(tests) + 1);
	assert_int_equal(errors_logged, 0);
}

static void test_kick_one(void **state ATTR_UNUSED)
{
	struct test_client a, b;

	start(&a, "a1", 1, &ip1, "a");
	accept_link();
	expect("ANNOUNCED\n");
	start(&b, "b1", 1, &ip1, "b");
	/* unknown ones have ended already */
	send_text(HELLO "KICK-SESSION\tx1\nKICK-SESSION\tb1\twhy\n"
		  "KICK-SESSION\tb1\n");
	expect("END\tb1\t");
	assert_int_equal(kicked, 1);
	assert_string_equal(kick_reason, "Kicked by director: why");
	assert_null(b.session);
	assert_non_null(a.session);
	assert_int_equal(errors_logged, 0);
	director_link_end(director, &a.session, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		login_test(test_answer_parse),
		login_test(test_lifecycle),
		login_test(test_names),
		login_test(test_kick_sessions),
		login_test(test_kick_backend),
		login_test(test_kick_reason),
		login_test(test_kick_one),
	};

	return run_test_cases(tests);
}
