/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "test-ring-message.h"

#define OURS RING_MINOR_OURS

/* Each message as it is sent, and what is in it */
static const struct {
	const char *line;
	unsigned int minor;
	enum test_when when;
	/* what origin, director and ip of msg are */
	const char *origin, *director, *ip;
	struct ring_message msg;
} messages[] = {
	{ "VERSION\tdirector\t1\t9", 0, HANDSHAKE, NULL, NULL, NULL,
	  { .type = RING_VERSION, .text = "director", .major = 1,
	    .minor = 9 } },
	{ "ME\t10.0.0.1\t9090\t1700000000", 9, HANDSHAKE,
	  NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_ME, .timestamp = 1700000000,
	    .has_timestamp = TRUE } },
	{ "ME\t10.0.0.1\t9090", 9, HANDSHAKE, NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_ME } },
	{ "ME\tfd00::1\t9090\t1700000000\t77", OURS, HANDSHAKE,
	  NULL, "[fd00::1]:9090", NULL,
	  { .type = RING_ME, .timestamp = 1700000000, .has_timestamp = TRUE,
	    .instance = 77 } },
	{ "ME\t10.0.0.1\t9090\t0\t77\t1700000001", OURS, HANDSHAKE,
	  NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_ME, .has_timestamp = TRUE, .instance = 77,
	    .even_clock = 1700000001 } },
	{ "HOST-HAND-START\t0", 9, HANDSHAKE, NULL, NULL, NULL,
	  { .type = RING_HOST_HAND_START } },
	{ "HOST-HAND-START\t1", 9, HANDSHAKE, NULL, NULL, NULL,
	  { .type = RING_HOST_HAND_START, .flag = TRUE } },
	{ "HOST\t10.0.0.2\t100\t\tU0\t", 9, HOST_LIST,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_HAND_HOST, .vhosts = 100, .has_state = TRUE } },
	{ "HOST\t10.0.0.2\t0\tt1\tD1700000000\tmail2", 7, HOST_LIST,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_HAND_HOST, .tag = "t1", .down = TRUE,
	    .has_state = TRUE, .timestamp = 1700000000,
	    .hostname = "mail2" } },
	{ "HOST\t10.0.0.2\t100\t\tU0\t\t1", OURS, HOST_LIST,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_HAND_HOST, .vhosts = 100, .has_state = TRUE,
	    .changed = 1 } },
	{ "HOST-HAND-END\t0", 9, HOST_LIST, NULL, NULL, NULL,
	  { .type = RING_HOST_HAND_END } },
	{ "HOST-HAND-END\t1", 9, HOST_LIST, NULL, NULL, NULL,
	  { .type = RING_HOST_HAND_END, .flag = TRUE } },
	{ "U\t1234567890\t10.0.0.2\t1700000000", 9, HANDSHAKE,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_HAND_USER, .hash = 1234567890,
	    .timestamp = 1700000000, .has_timestamp = TRUE } },
	{ "U\t1\tfd00::2\t0\tw", OURS, HANDSHAKE, NULL, NULL, "fd00::2",
	  { .type = RING_HAND_USER, .hash = 1, .has_timestamp = TRUE,
	    .weak = TRUE } },
	{ "USER\t1234567890\t10.0.0.2\t1700000000", 8, HANDSHAKE,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_HAND_USER, .hash = 1234567890,
	    .timestamp = 1700000000, .has_timestamp = TRUE } },
	{ "USER\t1\t10.0.0.2\t5\tw", 7, HANDSHAKE, NULL, NULL, "10.0.0.2",
	  { .type = RING_HAND_USER, .hash = 1, .timestamp = 5,
	    .has_timestamp = TRUE, .weak = TRUE } },
	{ "OPTIONS\tconsistent-hashing", 9, HANDSHAKE, NULL, NULL, NULL,
	  { .type = RING_OPTIONS, .text = "consistent-hashing" } },
	{ "OPTIONS\ta\t\tb", 9, HANDSHAKE, NULL, NULL, NULL,
	  { .type = RING_OPTIONS, .text = "a\t\tb" } },
	{ "OPTIONS", 9, HANDSHAKE, NULL, NULL, NULL, { .type = RING_OPTIONS } },
	{ "DONE", 9, HANDSHAKE, NULL, NULL, NULL, { .type = RING_DONE } },
	{ "DONE\t1", OURS, HANDSHAKE, NULL, NULL, NULL,
	  { .type = RING_DONE, .flag = TRUE } },

	{ "DIRECTOR\t10.0.0.1\t9090", 9, AFTERWARDS,
	  NULL, "10.0.0.1:9090", NULL, { .type = RING_DIRECTOR } },
	{ "DIRECTOR\t10.0.0.1\t9090\t1700000000123", OURS, HANDSHAKE,
	  NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_DIRECTOR, .changed = 1700000000123 } },
	{ "DIRECTOR\t10.0.0.1\t9090\t1\t78", OURS, HANDSHAKE,
	  NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_DIRECTOR, .changed = 1, .instance = 78 } },
	{ "DIRECTOR\t10.0.0.1\t9090\t2\t4294967295\t1700000000", OURS,
	  AFTERWARDS, NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_DIRECTOR, .changed = 2, .instance = UINT32_MAX,
	    .even_clock = 1700000000 } },
	{ "DIRECTOR-LOST\t10.0.0.1\t9090\t0", OURS, HANDSHAKE,
	  NULL, "10.0.0.1:9090", NULL, { .type = RING_DIRECTOR_LOST } },
	{ "DIRECTOR-LOST\t10.0.0.1\t9090\t15000\t78", OURS, HANDSHAKE,
	  NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_DIRECTOR_LOST, .instance = 78,
	    .lost_msecs = 15000 } },
	{ "DIRECTOR-REMOVE\t10.0.0.1\t9090", 9, AFTERWARDS,
	  NULL, "10.0.0.1:9090", NULL, { .type = RING_DIRECTOR_REMOVE } },
	{ "DIRECTOR-REMOVE\t10.0.0.1\t9090\t1700000000123", OURS, AFTERWARDS,
	  NULL, "10.0.0.1:9090", NULL,
	  { .type = RING_DIRECTOR_REMOVE, .changed = 1700000000123 } },
	{ "CONNECT\tfd00::1\t65535", 9, AFTERWARDS,
	  NULL, "[fd00::1]:65535", NULL, { .type = RING_CONNECT } },

	{ "HOST\t10.0.0.1\t9090\t7\t10.0.0.2\t100\t\tU1700000000\t", 9,
	  AFTERWARDS, "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_HOST, .seq = 7, .vhosts = 100, .has_state = TRUE,
	    .timestamp = 1700000000 } },
	{ "HOST\t10.0.0.1\t9090\t7\tfd00::2\t4294967295\tt1\tD5\tmail2", 7,
	  HANDSHAKE, "10.0.0.1:9090", NULL, "fd00::2",
	  { .type = RING_HOST, .seq = 7, .vhosts = UINT32_MAX, .tag = "t1",
	    .has_state = TRUE, .down = TRUE, .timestamp = 5,
	    .hostname = "mail2" } },
	{ "HOST\t10.0.0.1\t9090\t7\t10.0.0.2\t100\t\tU5\tmail2\t"
	  "9007199254740992", OURS,
	  AFTERWARDS, "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_HOST, .seq = 7, .vhosts = 100, .has_state = TRUE,
	    .timestamp = 5, .hostname = "mail2", .changed = 1ULL << 53 } },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t4294967295\t10.0.0.2", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_HOST_REMOVE, .seq = UINT32_MAX } },
	{ "HOST-REMOVE\t10.0.0.1\t9090\t7\t10.0.0.2\t1700000000123\t1", OURS,
	  AFTERWARDS, "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_HOST_REMOVE, .seq = 7, .changed = 1700000000123,
	    .flag = TRUE } },
	{ "HOST-FLUSH\t10.0.0.1\t1\t0\t10.0.0.2", 9, AFTERWARDS,
	  "10.0.0.1:1", NULL, "10.0.0.2", { .type = RING_HOST_FLUSH } },

	{ "USER\t1234567890\t10.0.0.2\t1700000000", 9, AFTERWARDS,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_USER, .hash = 1234567890, .timestamp = 1700000000,
	    .has_timestamp = TRUE } },
	{ "USER\t1234567890\t10.0.0.2\t1700000000", 9, HANDSHAKE,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_USER, .hash = 1234567890, .timestamp = 1700000000,
	    .has_timestamp = TRUE } },
	{ "USER\t1234567890\t10.0.0.2\t1700000000\t77", OURS, HANDSHAKE,
	  NULL, NULL, "10.0.0.2",
	  { .type = RING_USER, .hash = 1234567890, .timestamp = 1700000000,
	    .has_timestamp = TRUE, .instance = 77 } },
	{ "USER\t5\t10.0.0.2", 8, HANDSHAKE, NULL, NULL, "10.0.0.2",
	  { .type = RING_USER, .hash = 5 } },
	{ "USER\t5\t10.0.0.2", 9, AFTERWARDS, NULL, NULL, "10.0.0.2",
	  { .type = RING_USER, .hash = 5 } },
	{ "USER-WEAK\t10.0.0.1\t9090\t7\t5\t10.0.0.2", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_USER_WEAK, .seq = 7, .hash = 5 } },
	{ "USER-MOVE\t10.0.0.1\t9090\t7\t4294967295\t10.0.0.2", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_USER_MOVE, .seq = 7, .hash = UINT32_MAX } },
	{ "USER-KICK\tfd00::1\t9090\t7\tjane@example.com", 9, AFTERWARDS,
	  "[fd00::1]:9090", NULL, NULL,
	  { .type = RING_USER_KICK, .seq = 7, .text = "jane@example.com" } },
	{ "USER-KICK-ALT\t10.0.0.1\t9090\t7\tuser_a\tx y", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_USER_KICK_ALT, .seq = 7, .text = "user_a",
	    .value = "x y" } },
	{ "USER-KICK-HASH\t10.0.0.1\t9090\t7\t5\t10.0.0.2", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_USER_KICK_HASH, .seq = 7, .hash = 5 } },
	{ "USER-KICK\t10.0.0.1\t9090\t7\tj*\t1", OURS, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_USER_KICK, .seq = 7, .text = "j*", .flag = TRUE } },
	{ "USER-KICK-ALT\t10.0.0.1\t9090\t7\tuser_a\t5\t1", OURS, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_USER_KICK_ALT, .seq = 7, .text = "user_a",
	    .value = "5", .flag = TRUE } },
	{ "USER-COUNT\t10.0.0.1\t9090\t7\t5\t10.0.0.2", OURS, AFTERWARDS,
	  "10.0.0.1:9090", NULL, "10.0.0.2",
	  { .type = RING_USER_COUNT, .seq = 7, .hash = 5 } },
	{ "USER-KICKED\t10.0.0.3\t9090\t10.0.0.1\t9090\t7\t64\t0", OURS,
	  AFTERWARDS, "10.0.0.1:9090", "10.0.0.3:9090", NULL,
	  { .type = RING_USER_KICKED, .seq = 7, .hops = 64 } },
	{ "SESSIONS\t10.0.0.3\t9090\tfd00::1\t9090\t7\t64\t4294967295", OURS,
	  HANDSHAKE, "[fd00::1]:9090", "10.0.0.3:9090", NULL,
	  { .type = RING_SESSIONS, .seq = 7, .hops = 64,
	    .place = UINT32_MAX } },
	{ "SESSIONS\t10.0.0.3\t9090\t10.0.0.1\t9090\t7\t64\t0\tj*", OURS,
	  AFTERWARDS, "10.0.0.1:9090", "10.0.0.3:9090", NULL,
	  { .type = RING_SESSIONS, .seq = 7, .hops = 64, .text = "j*" } },
	{ "SESSION\t10.0.0.3\t9090\t10.0.0.1\t9090\t7\t1\t5\t10.0.0.2\t"
	  "1700000000\timap\tup\tjane", OURS,
	  AFTERWARDS, "10.0.0.1:9090", "10.0.0.3:9090", "10.0.0.2",
	  { .type = RING_SESSION, .seq = 7, .hops = 1, .hash = 5,
	    .timestamp = 1700000000, .has_timestamp = TRUE,
	    .hostname = "imap", .tag = "up", .text = "jane" } },
	{ "SESSIONS-END\t10.0.0.3\t9090\t10.0.0.1\t9090\t7\t64\t9\t50", OURS,
	  AFTERWARDS, "10.0.0.1:9090", "10.0.0.3:9090", NULL,
	  { .type = RING_SESSIONS_END, .seq = 7, .hops = 64, .place = 9,
	    .count = 50 } },
	{ "USER-KILLED\t5", 9, AFTERWARDS, NULL, NULL, NULL,
	  { .type = RING_USER_KILLED, .hash = 5 } },
	{ "USER-KILLED-EVERYWHERE\t10.0.0.1\t9090\t7\t5", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_USER_KILLED_EVERYWHERE, .seq = 7, .hash = 5 } },

	{ "SYNC\t10.0.0.1\t9090\t3\t9\t1700000000\t1355555092", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_SYNC, .seq = 3, .minor = 9, .timestamp = 1700000000,
	    .has_timestamp = TRUE, .hosts_hash = 1355555092 } },
	{ "SYNC\t10.0.0.1\t9090\t3\t9\t1700000000", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_SYNC, .seq = 3, .minor = 9, .timestamp = 1700000000,
	    .has_timestamp = TRUE } },
	{ "SYNC\t10.0.0.1\t9090\t3\t9", 9, AFTERWARDS,
	  "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_SYNC, .seq = 3, .minor = 9 } },
	{ "SYNC\t10.0.0.1\t9090\t3", 9, HANDSHAKE, "10.0.0.1:9090", NULL, NULL,
	  { .type = RING_SYNC, .seq = 3 } },
	{ "PING\t1700000000\t0", 9, AFTERWARDS, NULL, NULL, NULL,
	  { .type = RING_PING, .timestamp = 1700000000,
	    .has_timestamp = TRUE } },
	{ "PING", 9, HANDSHAKE, NULL, NULL, NULL, { .type = RING_PING } },
	{ "PONG\t1700000000\t18446744073709551615", 9, AFTERWARDS,
	  NULL, NULL, NULL,
	  { .type = RING_PONG, .timestamp = 1700000000, .has_timestamp = TRUE,
	    .buffered = UINT64_MAX } },
	{ "PONG", 9, AFTERWARDS, NULL, NULL, NULL, { .type = RING_PONG } },
	{ "QUIT\tPing timeout", 9, AFTERWARDS, NULL, NULL, NULL,
	  { .type = RING_QUIT, .text = "Ping timeout" } },
	{ "QUIT\tShutting down", 9, HOST_LIST, NULL, NULL, NULL,
	  { .type = RING_QUIT, .text = "Shutting down" } },
	{ "QUIT", 9, HANDSHAKE, NULL, NULL, NULL, { .type = RING_QUIT } },
};

static void address(const char *text, struct ring_address *address_r)
{
	if (text != NULL) {
		assert_int_equal(net_str2hostport(text, 0, &text,
						  &address_r->port), 0);
		assert_int_equal(net_addr2ip(text, &address_r->ip), 0);
	}
}

static void expected_message(unsigned int i, struct ring_message *msg_r)
{
	*msg_r = messages[i].msg;
	address(messages[i].origin, &msg_r->origin);
	address(messages[i].director, &msg_r->director);
	if (messages[i].ip != NULL)
		assert_int_equal(net_addr2ip(messages[i].ip, &msg_r->ip), 0);
}

static void test_messages(void **state ATTR_UNUSED)
{
	bool seen[RING_MESSAGE_TYPES] = { FALSE };
	struct ring_message expected, msg;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(messages); i++) {
		expected_message(i, &expected);
		memset(&msg, 0xff, sizeof(msg));
		if (test_parse(messages[i].line, messages[i].minor,
			       messages[i].when, &msg, &error) < 0)
			fail_msg("%s: %s", messages[i].line, error);
		assert_message_equal(&msg, &expected);
		assert_true(msg.tag != NULL && msg.hostname != NULL &&
			    msg.text != NULL && msg.value != NULL);
		assert_string_equal(test_append(&expected, messages[i].minor),
				    messages[i].line);
		seen[msg.type] = TRUE;
	}
	for (unsigned int i = 0; i < RING_MESSAGE_TYPES; i++)
		assert_true(seen[i]);
}

/* Each line with its last argument cut off is refused, or is again one that
   would be sent like that. */
static void test_cut(void **state ATTR_UNUSED)
{
	struct ring_message msg;
	const char *line, *error;

	for (unsigned int i = 0; i < N_ELEMENTS(messages); i++) {
		line = strrchr(messages[i].line, '\t');
		if (line == NULL)
			continue;
		line = t_strdup_until(messages[i].line, line);
		if (test_parse(line, messages[i].minor, messages[i].when, &msg,
			       &error) < 0) {
			assert_non_null(strstr(error, ": Missing "));
			continue;
		}
		assert_true(str_begins_with(test_append(&msg,
					messages[i].minor), line));
	}
}

static bool is_exact(enum ring_message_type type)
{
	switch (type) {
	case RING_CONNECT:
	case RING_HOST_REMOVE:
	case RING_HOST_FLUSH:
	case RING_USER_WEAK:
	case RING_USER_MOVE:
	case RING_USER_KICK:
	case RING_USER_KICK_ALT:
	case RING_USER_KICK_HASH:
	case RING_USER_COUNT:
	case RING_USER_KILLED:
	case RING_USER_KILLED_EVERYWHERE:
		return TRUE;
	default:
		return FALSE;
	}
}

static void test_too_many_arguments(void **state ATTR_UNUSED)
{
	static const char *const more[] = { "\t\001n", "\tx", "\t1\t2", "\t" };
	/* the longest form of what has optional arguments */
	static const char *const longest[] = {
		"VERSION\tdirector\t1\t9",
		"ME\t10.0.0.1\t9090\t1\t2\t3\t4",
		"HOST-HAND-START\t1",
		"DONE\t1",
		"U\t5\t10.0.0.2\t1\tw",
		"DIRECTOR\t10.0.0.1\t9090\t4\t5\t6",
		"DIRECTOR-REMOVE\t10.0.0.1\t9090\t4",
		"DIRECTOR-LOST\t10.0.0.1\t9090\t4\t5",
		"HOST\t10.0.0.1\t9090\t7\t10.0.0.2\t100\t\tU1\tx\t4",
		"USER\t5\t10.0.0.2\t9\t4",
		"SYNC\t10.0.0.1\t9090\t3\t9\t1\t2\t4",
		"PING\t1\t2",
		"PONG\t1\t2",
		"QUIT\treason",
	};
	struct ring_message msg;
	const char *line, *error;

	for (unsigned int i = 0; i < N_ELEMENTS(messages); i++) {
		if (!is_exact(messages[i].msg.type))
			continue;
		for (unsigned int j = 0; j < N_ELEMENTS(more); j++) {
			line = t_strconcat(messages[i].line, more[j], NULL);
			assert_int_equal(test_parse(line, messages[i].minor,
						    messages[i].when, &msg,
						    &error), -1);
			assert_non_null(strstr(error, ": Too many arguments"));
		}
	}
	for (unsigned int i = 0; i < N_ELEMENTS(longest); i++) {
		for (unsigned int j = 0; j < N_ELEMENTS(more); j++) {
			line = t_strconcat(longest[i], more[j], NULL);
			assert_int_equal(test_parse(line, OURS, HANDSHAKE,
						    &msg, &error), 0);
			assert_string_equal(test_append(&msg, OURS),
					    longest[i]);
		}
	}
}

/* Between HOST-HAND-START and -END there are only hosts. */
static void test_in_host_list(void **state ATTR_UNUSED)
{
	struct ring_message msg;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(messages); i++) {
		switch (messages[i].msg.type) {
		case RING_HAND_HOST:
		case RING_HOST_HAND_END:
		case RING_HOST:
		case RING_QUIT:
			continue;
		default:
			assert_int_equal(test_parse(messages[i].line,
						    messages[i].minor,
						    HOST_LIST, &msg, &error),
					 -1);
			assert_true(str_begins_with(error,
						    "Unexpected command '"));
		}
	}
}

/* What depends on the peer's version */
static void test_versions(void **state ATTR_UNUSED)
{
	static const struct {
		const char *line;
		unsigned int minor;
		enum test_when when;
		/* what is sent to a peer of the minor */
		unsigned int to_minor;
		const char *sent;
	} tests[] = {
		{ "USER\t5\t10.0.0.2\t1", 9, AFTERWARDS,
		  8, "USER\t5\t10.0.0.2" },
		{ "USER\t5\t10.0.0.2\t1", 8, AFTERWARDS,
		  9, "USER\t5\t10.0.0.2" },
		{ "U\t5\t10.0.0.2\t1\tw", 9, HANDSHAKE,
		  8, "USER\t5\t10.0.0.2\t1\tw" },
		{ "USER\t5\t10.0.0.2\t1\tw", 8, HANDSHAKE,
		  9, "U\t5\t10.0.0.2\t1\tw" },
		{ "USER\t5\t10.0.0.2\t1\tw", 9, HANDSHAKE,
		  9, "USER\t5\t10.0.0.2\t1" },
		/* the argument begins with w, or means something else */
		{ "U\t5\t10.0.0.2\t1\tweak", 9, HANDSHAKE,
		  9, "U\t5\t10.0.0.2\t1\tw" },
		{ "U\t5\t10.0.0.2\t1\tx", 9, HANDSHAKE,
		  9, "U\t5\t10.0.0.2\t1" },
		{ "U\t5\t10.0.0.2\t1\t\tw", 9, HANDSHAKE,
		  9, "U\t5\t10.0.0.2\t1" },
		/* the original ignores further arguments */
		{ "ME\t10.0.0.1\t9090\t1\t7", 10, HANDSHAKE,
		  9, "ME\t10.0.0.1\t9090\t1" },
		{ "ME\t10.0.0.1\t9090\t1\t7", 10, HANDSHAKE,
		  11, "ME\t10.0.0.1\t9090\t1\t7" },
		{ "ME\t10.0.0.1\t9090\t1\t7\t8", 10, HANDSHAKE,
		  9, "ME\t10.0.0.1\t9090\t1" },
		{ "ME\t10.0.0.1\t9090\t1\t7\t8", 9, HANDSHAKE,
		  10, "ME\t10.0.0.1\t9090\t1" },
		{ "ME\t10.0.0.1\t9090\t1\t7\t0", 10, HANDSHAKE,
		  10, "ME\t10.0.0.1\t9090\t1\t7" },
		{ "ME\t10.0.0.1\t9090\t1\tx", 9, HANDSHAKE,
		  10, "ME\t10.0.0.1\t9090\t1" },
		{ "ME\t10.0.0.1\t9090\t1\t0", 10, HANDSHAKE,
		  10, "ME\t10.0.0.1\t9090\t1" },
		{ "DIRECTOR\t10.0.0.1\t9090\t6\t7\t8", 10, AFTERWARDS,
		  9, "DIRECTOR\t10.0.0.1\t9090" },
		{ "DIRECTOR\t10.0.0.1\t9090\t6\t7\t8", 11, AFTERWARDS,
		  11, "DIRECTOR\t10.0.0.1\t9090\t6\t7\t8" },
		{ "DIRECTOR\t10.0.0.1\t9090\t6\t7\t8", 9, AFTERWARDS,
		  10, "DIRECTOR\t10.0.0.1\t9090" },
		{ "DIRECTOR\t10.0.0.1\t9090\tx", 9, AFTERWARDS,
		  10, "DIRECTOR\t10.0.0.1\t9090" },
		{ "DIRECTOR\t10.0.0.1\t9090\t0\t7\t8", 10, AFTERWARDS,
		  10, "DIRECTOR\t10.0.0.1\t9090" },
		{ "DIRECTOR\t10.0.0.1\t9090\t6\t7\t0", 10, AFTERWARDS,
		  10, "DIRECTOR\t10.0.0.1\t9090\t6\t7" },
		{ "DIRECTOR\t10.0.0.1\t9090\t6\t0\t8", 10, AFTERWARDS,
		  10, "DIRECTOR\t10.0.0.1\t9090\t6" },
		{ "DIRECTOR-REMOVE\t10.0.0.1\t9090\t6", 10, AFTERWARDS,
		  9, "DIRECTOR-REMOVE\t10.0.0.1\t9090" },
		{ "DIRECTOR-REMOVE\t10.0.0.1\t9090\tx", 9, AFTERWARDS,
		  10, "DIRECTOR-REMOVE\t10.0.0.1\t9090" },
		{ "DIRECTOR-REMOVE\t10.0.0.1\t9090\t0\tx", 10, AFTERWARDS,
		  10, "DIRECTOR-REMOVE\t10.0.0.1\t9090" },
		{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t6", 10,
		  AFTERWARDS, 9, "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2" },
		{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t6\t1", 10,
		  AFTERWARDS, 9, "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2" },
		{ "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2\t0", 10,
		  AFTERWARDS,
		  10, "HOST-REMOVE\t10.0.0.1\t9090\t1\t10.0.0.2" },
		{ "HOST\t10.0.0.1\t1\t1\t10.0.0.2\t5\t\tU1\t\t6", 10,
		  AFTERWARDS,
		  9, "HOST\t10.0.0.1\t1\t1\t10.0.0.2\t5\t\tU1\t" },
		{ "HOST\t10.0.0.1\t1\t1\t10.0.0.2\t5\t\tU1\t\t6", 9,
		  AFTERWARDS,
		  10, "HOST\t10.0.0.1\t1\t1\t10.0.0.2\t5\t\tU1\t" },
		{ "HOST\t10.0.0.2\t5\t\tU1\tm\t6", 10, HOST_LIST,
		  9, "HOST\t10.0.0.2\t5\t\tU1\tm" },
		{ "HOST\t10.0.0.2\t5\t\tU1\tm\tx", 9, HOST_LIST,
		  10, "HOST\t10.0.0.2\t5\t\tU1\tm" },
		{ "HOST\t10.0.0.2\t5\t\tU1\tm\t0", 10, HOST_LIST,
		  10, "HOST\t10.0.0.2\t5\t\tU1\tm" },
		{ "USER\t5\t10.0.0.2\t1\t7", 10, AFTERWARDS,
		  9, "USER\t5\t10.0.0.2\t1" },
		{ "USER\t5\t10.0.0.2\t1\t7", 10, AFTERWARDS,
		  8, "USER\t5\t10.0.0.2" },
		{ "USER\t5\t10.0.0.2\t1\tx", 9, AFTERWARDS,
		  10, "USER\t5\t10.0.0.2\t1" },
		{ "USER\t5\t10.0.0.2\t1\t7", 8, AFTERWARDS,
		  10, "USER\t5\t10.0.0.2" },
		{ "USER\t5\t10.0.0.2\t1\t0", 10, AFTERWARDS,
		  10, "USER\t5\t10.0.0.2\t1" },
		/* hosts of peers that have no states, tags or names */
		{ "HOST\t10.0.0.2\t50", 6, HOST_LIST, 9,
		  "HOST\t10.0.0.2\t50\t" },
		{ "HOST\t10.0.0.2\t50\t\tD7", 6, HOST_LIST, 9,
		  "HOST\t10.0.0.2\t50\t\tD7\t" },
		{ "HOST\t10.0.0.2\t50\tt1", 7, HOST_LIST, 9,
		  "HOST\t10.0.0.2\t50\tt1" },
		{ "SYNC\t10.0.0.1\t9090\t3\t0\t1\t2", 9, AFTERWARDS,
		  9, "SYNC\t10.0.0.1\t9090\t3" },
		{ "SYNC\t10.0.0.1\t9090\t3\t9\t1\t0", 9, AFTERWARDS,
		  9, "SYNC\t10.0.0.1\t9090\t3\t9\t1" },
		{ "PING\t5", 9, AFTERWARDS, 9, "PING\t5\t0" },
	};
	struct ring_message msg;
	const char *error;

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		if (test_parse(tests[i].line, tests[i].minor, tests[i].when,
			       &msg, &error) < 0)
			fail_msg("%s: %s", tests[i].line, error);
		assert_string_equal(test_append(&msg, tests[i].to_minor),
				    tests[i].sent);
	}
}

static void test_line_length(void **state ATTR_UNUSED)
{
	struct ring_message msg = { .type = RING_USER_KICK }, msg2;
	string_t *name = t_str_new(1100);
	const char *line, *error;

	assert_int_equal(net_addr2ip("10.0.0.1", &msg.origin.ip), 0);
	msg.origin.port = 1;
	line = test_append(&msg, 9);
	for (size_t i = strlen(line); i < RING_LINE_MAX; i++)
		str_append_c(name, 'x');
	msg.text = str_c(name);
	line = test_append(&msg, 9);
	assert_int_equal(strlen(line), RING_LINE_MAX);
	assert_int_equal(test_parse(line, 9, AFTERWARDS, &msg2, &error), 0);
	assert_message_equal(&msg2, &msg);

	str_append_c(name, 'x');
	msg.text = str_c(name);
	assert_null(test_append(&msg, 9));

	/* it's the escaped text that counts */
	str_truncate(name, str_len(name) - 2);
	str_append_c(name, '\t');
	msg.text = str_c(name);
	assert_null(test_append(&msg, 9));
}

/* A clock that is nonsense doesn't make the peer refuse the line. */
static void test_odd_times(void **state ATTR_UNUSED)
{
	struct ring_message msg = {
		.type = RING_PING,
		.has_timestamp = TRUE,
	};

	msg.timestamp = -1;
	assert_string_equal(test_append(&msg, 9), "PING\t0\t0");
	msg.timestamp = INT64_MAX;
	assert_string_equal(test_append(&msg, 9), "PING\t9007199254740992\t0");

	/* or what counts on from such a clock */
	msg.type = RING_DIRECTOR_REMOVE;
	address("10.0.0.1:1", &msg.director);
	msg.changed = (1ULL << 53) + 1;
	assert_string_equal(test_append(&msg, OURS),
			    "DIRECTOR-REMOVE\t10.0.0.1\t1\t9007199254740992");
}

static void test_table(void **state ATTR_UNUSED)
{
	static const struct {
		enum ring_message_type type;
		unsigned int min_minor;
		enum ring_travel travel;
	} tests[] = {
		{ RING_VERSION, 0, RING_TRAVEL_LINK },
		{ RING_ME, 0, RING_TRAVEL_LINK },
		{ RING_HOST_HAND_START, 0, RING_TRAVEL_LINK },
		{ RING_HAND_HOST, 0, RING_TRAVEL_LINK },
		{ RING_HOST_HAND_END, 0, RING_TRAVEL_LINK },
		{ RING_HAND_USER, 0, RING_TRAVEL_LINK },
		{ RING_OPTIONS, 5, RING_TRAVEL_LINK },
		{ RING_DONE, 0, RING_TRAVEL_LINK },
		{ RING_DIRECTOR, 0, RING_TRAVEL_OWN },
		{ RING_DIRECTOR_REMOVE, 2, RING_TRAVEL_OWN },
		{ RING_DIRECTOR_LOST, 10, RING_TRAVEL_LINK },
		{ RING_CONNECT, 0, RING_TRAVEL_LINK },
		{ RING_HOST, 0, RING_TRAVEL_ALL },
		{ RING_HOST_REMOVE, 0, RING_TRAVEL_ALL },
		{ RING_HOST_FLUSH, 0, RING_TRAVEL_ALL },
		{ RING_USER, 0, RING_TRAVEL_OWN },
		{ RING_USER_WEAK, 1, RING_TRAVEL_OWN },
		{ RING_USER_MOVE, 0, RING_TRAVEL_ALL },
		{ RING_USER_KICK, 4, RING_TRAVEL_ALL },
		{ RING_USER_KICK_ALT, 8, RING_TRAVEL_ALL },
		{ RING_USER_KICK_HASH, 4, RING_TRAVEL_ALL },
		{ RING_USER_COUNT, 10, RING_TRAVEL_ALL },
		{ RING_USER_KICKED, 10, RING_TRAVEL_TO },
		{ RING_USER_KILLED, 0, RING_TRAVEL_OWN },
		{ RING_USER_KILLED_EVERYWHERE, 0, RING_TRAVEL_ALL },
		{ RING_SESSIONS, 10, RING_TRAVEL_TO },
		{ RING_SESSION, 10, RING_TRAVEL_TO },
		{ RING_SESSIONS_END, 10, RING_TRAVEL_TO },
		{ RING_SYNC, 0, RING_TRAVEL_OWN },
		{ RING_PING, 0, RING_TRAVEL_LINK },
		{ RING_PONG, 0, RING_TRAVEL_LINK },
		{ RING_QUIT, 3, RING_TRAVEL_LINK },
	};

	assert_int_equal(N_ELEMENTS(tests), RING_MESSAGE_TYPES);
	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		assert_int_equal(tests[i].type, i);
		assert_int_equal(ring_message_min_minor(i),
				 tests[i].min_minor);
		assert_int_equal(ring_message_travel(i), tests[i].travel);
	}
}

static void test_addresses(void **state ATTR_UNUSED)
{
	/* in their order */
	static const char *const texts[] = {
		"9.255.0.1:65535", "10.0.0.1:1", "10.0.0.1:9", "10.0.0.1:10",
		"10.0.0.1:65535", "10.0.0.2:1", "10.0.1.0:1", "128.0.0.1:1",
		"255.0.0.0:1", "[::]:1", "[::1]:9090", "[::1]:9091",
		"[2001:db8::1]:1", "[fd00::1]:1", "[fd00::1:0]:1",
	};
	struct ring_address addresses[N_ELEMENTS(texts)];

	i_zero(&addresses);
	for (unsigned int i = 0; i < N_ELEMENTS(texts); i++) {
		address(texts[i], &addresses[i]);
		assert_string_equal(ring_address_str(&addresses[i]), texts[i]);
	}
	for (int i = 0; i < (int)N_ELEMENTS(texts); i++) {
		for (int j = 0; j < (int)N_ELEMENTS(texts); j++) {
			assert_int_equal(ring_address_cmp(&addresses[i],
							  &addresses[j]),
					 i < j ? -1 : (i > j ? 1 : 0));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_messages),
		test_case(test_cut),
		test_case(test_too_many_arguments),
		test_case(test_in_host_list),
		test_case(test_versions),
		test_case(test_line_length),
		test_case(test_odd_times),
		test_case(test_table),
		test_case(test_addresses),
	};

	return run_test_cases(tests);
}
