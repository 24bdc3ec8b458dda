/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Random messages, written and read again, and lines that are damaged. The
   seeds are fixed. */

#include "test-unit.h"
#include "test-ring-message.h"

static uint64_t seed;

static uint32_t below(uint32_t max)
{
	return test_rand_below(&seed, max);
}

/* The ends of a range are as likely as all between them. */
static uint64_t random_num(uint64_t min, uint64_t max)
{
	uint64_t num = (uint64_t)test_rand(&seed) << 32 | test_rand(&seed);

	switch (below(6)) {
	case 0:
		return min;
	case 1:
		return max;
	case 2:
		return I_MIN(min + below(300), max);
	default:
		/* each length is as likely as others */
		num >>= below(64);
		return num < min ? min : (num > max ? max : num);
	}
}

static time_t random_time(void)
{
	return random_num(0, 1ULL << 53);
}

static void random_ip(struct ip_addr *ip_r)
{
	unsigned char *bytes = (void *)&ip_r->u.ip6;
	unsigned int size = 16;

	i_zero(ip_r);
	ip_r->family = AF_INET6;
	if (below(2) == 0) {
		ip_r->family = AF_INET;
		bytes = (void *)&ip_r->u.ip4;
		size = 4;
	}
	for (unsigned int i = 0; i < size; i++) {
		switch (below(4)) {
		case 0:
			bytes[i] = below(256);
			break;
		case 1:
			bytes[i] = below(16);
			break;
		}
	}
}

static void random_address(struct ring_address *address_r)
{
	random_ip(&address_r->ip);
	address_r->port = random_num(1, 65535);
}

static const char *random_text(unsigned int max_len, unsigned int min_char)
{
	static const char special[] = "\001\t\r\n01trnwUD ";
	unsigned int len = below(4) == 0 ? below(max_len + 1) :
		below(I_MIN(max_len, 10));
	string_t *str = t_str_new(len + 1);

	while (str_len(str) < len) {
		unsigned char chr = special[below(sizeof(special) - 1)];

		if (below(2) == 0)
			chr = 1 + below(255);
		if (chr >= min_char && chr != 0x7f)
			str_append_c(str, chr);
	}
	return str_c(str);
}

static uint64_t random_changed(unsigned int minor)
{
	return minor < RING_MINOR_OURS ? 0 : random_num(0, 1ULL << 53);
}

static uint64_t random_instance(unsigned int minor)
{
	return random_changed(minor);
}

static void random_host(struct ring_message *msg, unsigned int minor)
{
	random_ip(&msg->ip);
	msg->vhosts = random_num(0, UINT32_MAX);
	msg->tag = random_text(255, ' ');
	if (below(5) == 0)
		return;
	msg->has_state = TRUE;
	msg->down = below(2) == 0;
	msg->timestamp = random_time();
	msg->hostname = random_text(255, ' ');
	msg->changed = random_changed(minor);
}

/* From some time on there is nothing more. */
static bool at_end(void)
{
	return below(4) == 0;
}

static void random_timestamp(struct ring_message *msg)
{
	msg->has_timestamp = TRUE;
	msg->timestamp = random_time();
}

static void random_origin(struct ring_message *msg)
{
	random_address(&msg->origin);
	msg->seq = random_num(0, UINT32_MAX);
}

static void random_user(struct ring_message *msg)
{
	msg->hash = random_num(1, UINT32_MAX);
	random_ip(&msg->ip);
}

static void random_director(struct ring_message *msg, unsigned int minor)
{
	random_address(&msg->director);
	msg->changed = random_changed(minor);
	if (msg->changed != 0)
		msg->instance = random_instance(minor);
	if (msg->instance != 0)
		msg->even_clock = random_changed(minor);
}

static void random_sync(struct ring_message *msg)
{
	random_origin(msg);
	if (at_end())
		return;
	msg->minor = random_num(1, UINT32_MAX);
	if (at_end())
		return;
	random_timestamp(msg);
	msg->hosts_hash = random_num(0, UINT32_MAX);
}

static void random_addressed(struct ring_message *msg)
{
	random_address(&msg->director);
	random_origin(msg);
	msg->hops = random_num(0, UINT32_MAX);
}

static void
random_message(struct ring_message *msg, unsigned int minor)
{
	i_zero(msg);
	msg->type = below(RING_MESSAGE_TYPES);
	switch (msg->type) {
	case RING_VERSION:
		msg->text = random_text(300, 1);
		msg->major = random_num(0, UINT32_MAX);
		msg->minor = random_num(0, UINT32_MAX);
		break;
	case RING_ME:
		random_address(&msg->director);
		if (at_end())
			break;
		random_timestamp(msg);
		msg->instance = random_instance(minor);
		if (msg->instance != 0)
			msg->even_clock = random_changed(minor);
		break;
	case RING_HOST_HAND_START:
	case RING_HOST_HAND_END:
		msg->flag = below(2) == 0;
		break;
	case RING_HAND_HOST:
		random_host(msg, minor);
		break;
	case RING_HAND_USER:
		random_user(msg);
		random_timestamp(msg);
		msg->weak = below(2) == 0;
		break;
	case RING_OPTIONS:
		msg->text = random_text(300, 1);
		break;
	case RING_DONE:
		break;
	case RING_DIRECTOR:
		random_director(msg, minor);
		break;
	case RING_DIRECTOR_LOST:
		random_address(&msg->director);
		msg->lost_msecs = random_num(0, UINT32_MAX);
		msg->instance = random_instance(minor);
		break;
	case RING_DIRECTOR_REMOVE:
		msg->changed = random_changed(minor);
		/* fall through */
	case RING_CONNECT:
		random_address(&msg->director);
		break;
	case RING_HOST:
		random_origin(msg);
		random_host(msg, minor);
		break;
	case RING_HOST_REMOVE:
		msg->changed = random_changed(minor);
		/* fall through */
	case RING_HOST_FLUSH:
		random_origin(msg);
		random_ip(&msg->ip);
		break;
	case RING_USER:
		random_user(msg);
		if (minor >= RING_MINOR_USER_TIMESTAMP && !at_end()) {
			random_timestamp(msg);
			msg->instance = random_instance(minor);
		}
		break;
	case RING_USER_WEAK:
	case RING_USER_MOVE:
	case RING_USER_KICK_HASH:
	case RING_USER_COUNT:
		random_origin(msg);
		random_user(msg);
		break;
	case RING_USER_KICK_ALT:
		msg->value = random_text(300, 1);
		/* fall through */
	case RING_USER_KICK:
		random_origin(msg);
		msg->text = random_text(600, 1);
		msg->flag = minor >= RING_MINOR_OURS && below(2) == 0;
		break;
	case RING_USER_KILLED_EVERYWHERE:
		random_origin(msg);
		/* fall through */
	case RING_USER_KILLED:
		msg->hash = random_num(1, UINT32_MAX);
		break;
	case RING_USER_KICKED:
		random_addressed(msg);
		msg->count = random_num(0, UINT32_MAX);
		break;
	case RING_SESSIONS:
		random_addressed(msg);
		msg->place = random_num(0, UINT32_MAX);
		msg->text = random_text(255, 1);
		break;
	case RING_SESSION:
		random_addressed(msg);
		random_user(msg);
		random_timestamp(msg);
		msg->text = random_text(255, 1);
		msg->hostname = random_text(11, ' ');
		msg->tag = random_text(11, ' ');
		break;
	case RING_SESSIONS_END:
		random_addressed(msg);
		msg->place = random_num(0, UINT32_MAX);
		msg->count = random_num(0, UINT32_MAX);
		break;
	case RING_SYNC:
		random_sync(msg);
		break;
	case RING_PING:
	case RING_PONG:
		if (at_end())
			break;
		random_timestamp(msg);
		msg->buffered = random_num(0, UINT64_MAX);
		break;
	case RING_QUIT:
		msg->text = random_text(300, 1);
		break;
	case RING_MESSAGE_TYPES:
		i_unreached();
	}
}

static enum test_when when_of(enum ring_message_type type)
{
	switch (type) {
	case RING_HAND_HOST:
	case RING_HOST_HAND_END:
		return HOST_LIST;
	case RING_VERSION:
	case RING_ME:
	case RING_HOST_HAND_START:
	case RING_HAND_USER:
	case RING_OPTIONS:
	case RING_DONE:
	case RING_DIRECTOR_LOST:
		return HANDSHAKE;
	default:
		return below(2) == 0 ? HANDSHAKE : AFTERWARDS;
	}
}

/* A random line that is right; NULL if it would have been too long */
static const char *
random_line(struct ring_message *msg, unsigned int *minor_r,
	    enum test_when *when_r)
{
	*minor_r = 7 + below(5);
	random_message(msg, *minor_r);
	*when_r = when_of(msg->type);
	return test_append(msg, *minor_r);
}

static void test_round_trip(void **state ATTR_UNUSED)
{
	unsigned int seen[RING_MESSAGE_TYPES] = { 0 }, too_long = 0;

	seed = 1;
	for (unsigned int i = 0; i < 200000; i++) T_BEGIN {
		struct ring_message msg, msg2;
		enum test_when when;
		unsigned int minor;
		const char *error, *line = random_line(&msg, &minor, &when);

		if (line == NULL)
			too_long++;
		else {
			if (test_parse(line, minor, when, &msg2, &error) < 0)
				fail_msg("%s: %s", line, error);
			assert_message_equal(&msg2, &msg);
			seen[msg.type]++;
		}
	} T_END;
	for (unsigned int i = 0; i < RING_MESSAGE_TYPES; i++)
		assert_true(seen[i] > 5000);
	assert_true(too_long > 0 && too_long < 2000);
}

static bool is_kick(const struct ring_message *msg)
{
	return msg->type == RING_USER_KICK || msg->type == RING_USER_KICK_ALT;
}

/* The original is given, and gives, nothing of what only we have. */
static void test_original(void **state ATTR_UNUSED)
{
	unsigned int removes = 0;

	seed = 5;
	for (unsigned int i = 0; i < 50000; i++) T_BEGIN {
		struct ring_message msg, msg2;
		enum test_when when;
		const char *error, *ours, *line;
		bool exact;

		random_message(&msg, RING_MINOR_OURS);
		when = when_of(msg.type);
		ours = test_append(&msg, RING_MINOR_OURS);
		line = test_append(&msg, RING_MINOR_ORIGINAL);
		exact = (msg.type == RING_HOST_REMOVE && msg.changed != 0) ||
			(is_kick(&msg) && msg.flag);

		if (is_kick(&msg))
			msg.flag = FALSE;
		msg.changed = msg.even_clock = 0;
		msg.instance = 0;
		if (line != NULL) {
			assert_int_equal(test_parse(line, RING_MINOR_OURS,
						    when, &msg2, &error), 0);
			assert_message_equal(&msg2, &msg);
		}
		if (ours != NULL) {
			assert_int_equal(test_parse(ours, RING_MINOR_ORIGINAL,
						    when, &msg2, &error),
					 exact ? -1 : 0);
			if (!exact)
				assert_message_equal(&msg2, &msg);
			else {
				assert_string_equal(error, t_strconcat(
					ring_message_name(msg.type),
					": Too many arguments", NULL));
				removes++;
			}
		}
	} T_END;
	assert_true(removes > 500);
}

/* What another parser of addresses makes of them */
static void test_ips(void **state ATTR_UNUSED)
{
	struct ring_message msg;
	struct ip_addr ip;
	const char *text, *usual;

	seed = 2;
	for (unsigned int i = 0; i < 100000; i++) T_BEGIN {
		i_zero(&msg);
		msg.type = RING_USER;
		msg.hash = 1;
		random_ip(&msg.ip);
		text = test_append(&msg, 9) + strlen("USER\t1\t");
		usual = net_ip2addr(&msg.ip);
		assert_int_equal(net_addr2ip(text, &ip), 0);
		assert_true(net_ip_compare(&ip, &msg.ip));
		/* except ::ffff:10.0.0.1 and ::10.0.0.1 */
		if (msg.ip.family == AF_INET || strchr(usual, '.') == NULL)
			assert_string_equal(text, usual);
	} T_END;
}

/* Whatever it is: if it is read, then what is sent of it is read as the
   same. */
static unsigned int check_any(const char *line)
{
	struct ring_message msg, msg2;
	unsigned int minor = below(12), read = 0;
	const char *error, *sent;

	for (enum test_when when = AFTERWARDS; when <= HOST_LIST; when++) {
		if (test_parse(line, minor, when, &msg, &error) < 0)
			continue;
		read++;
		sent = test_append(&msg, minor);
		if (sent == NULL)
			continue;
		if (test_parse(sent, minor, when, &msg2, &error) < 0)
			fail_msg("%s: %s", sent, error);
		assert_message_equal(&msg2, &msg);
		assert_string_equal(test_append(&msg2, minor), sent);
	}
	return read;
}

static void test_garbage(void **state ATTR_UNUSED)
{
	unsigned int read = 0;

	seed = 3;
	for (unsigned int i = 0; i < 100000; i++) T_BEGIN {
		const char *text = random_text(1100, 1);

		check_any(text);
		/* behind a name it is looked at */
		read += check_any(t_strdup_printf("%s\t%s",
			ring_message_name(below(RING_MESSAGE_TYPES)), text));
	} T_END;
	assert_true(read > 1000);
}

static void mutate(string_t *line)
{
	static const char *const words[] = {
		"\t", "\t\t", "\001", "\0010", "0", "1", "-", "4294967295",
		"4294967296", "18446744073709551616", "::", "[", "]", ".",
		"10.0.0.1", "fd00::1", "U", "D", "w", "USER", "HOST", "SYNC",
		"\r", "\377", " ", "%n",
	};
	size_t pos = below(str_len(line) + 1);
	size_t size = below(4) == 0 ? below(str_len(line) + 1) : below(3);
	const char *word;

	switch (below(4)) {
	case 0:
		str_delete(line, pos, I_MIN(size, str_len(line) - pos));
		break;
	case 1:
		word = words[below(N_ELEMENTS(words))];
		str_insert(line, pos, word);
		break;
	case 2:
		if (pos < str_len(line)) {
			char chr[2] = { 1 + below(255), '\0' };

			str_delete(line, pos, 1);
			str_insert(line, pos, chr);
		}
		break;
	case 3:
		/* a part of it twice */
		str_insert(line, pos, t_strdup(str_c(line) + pos));
		break;
	}
}

static void test_mutations(void **state ATTR_UNUSED)
{
	unsigned int read = 0;

	seed = 4;
	for (unsigned int i = 0; i < 100000; i++) T_BEGIN {
		struct ring_message msg;
		enum test_when when;
		unsigned int minor, count = 1 + below(4);
		const char *line = random_line(&msg, &minor, &when);
		string_t *str = t_str_new(1024);

		if (line != NULL) {
			str_append(str, line);
			for (; count > 0; count--)
				mutate(str);
			read += check_any(str_c(str));
		}
	} T_END;
	assert_true(read > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_round_trip),
		test_case(test_original),
		test_case(test_ips),
		test_case(test_garbage),
		test_case(test_mutations),
	};

	return run_test_cases(tests);
}
