/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Lines of the ring protocol, well-formed for the most part, out of so few
   different values that they meet. */

#include "fuzz-ring.h"

#include <ctype.h>

#define TIME_MAX (1ULL << 53)

/* What there is; the first ones are in the configuration. */
static const char *const ips[] = {
	"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "fd00::1",
	"10.0.0.9", "127.0.0.1",
};
static const char *const backend_ips[] = {
	"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "fd00::1:5",
	"10.1.0.9", "0.0.0.0", "255.255.255.255",
};
static const char *const users[] = {
	"jane", "JANE@example.com", "joe", "", "u4", "u5", "u6", "u7",
};
static const char *const tags[] = { "", "", "", "t1", "t1", "x y" };

/* Fields: O origin and sequence number, D director, i backend, v vhosts,
   t tag, s state, n host name, h hash, T time, c time of a change, I instance,
   e even clock, f flag, m minor version, H hosts hash, b bytes, x text, w weak
   or moved, M number of a move, N small number, l time since a loss; others
   stand for themselves. Those behind a '?' may be left out. */
static const char *const line_table[] = {
	"VERSION\tdirector\t1\tm",
	"VERSION\tdirector\t2\tm",
	"ME\tD\t?T\tI\te",
	"HOST-HAND-START\tf",
	"HOST\ti\tv\t?t\ts\tn\tc",
	"HOST-HAND-END\tf",
	"U\th\ti\tT\t?w",
	"OPTIONS\t?consistent-hashing",
	"DONE\t?f",
	"DIRECTOR\tD\t?c\tI\te",
	"DIRECTOR-REMOVE\tD\t?c",
	"CONNECT\tD",
	"HOST\tO\ti\tv\t?t\ts\tn\tc",
	"HOST\tO\ti\tv\t?t\ts\tn\tc",
	"HOST-REMOVE\tO\ti\t?c",
	"HOST-FLUSH\tO\ti",
	"USER\th\ti\t?T\tI",
	"USER\th\ti\t?T\tI",
	"USER\th\ti\tT\tw",
	"USER-WEAK\tO\th\ti",
	"USER-WEAK\tO\th\ti",
	"USER-MOVE\tO\th\ti",
	"USER-KICK\tO\tx",
	"USER-KICK-ALT\tO\tx\tx",
	"USER-KICK-HASH\tO\th\ti",
	"USER-KILLED\th",
	"USER-KILLED-EVERYWHERE\tO\th",
	"SYNC\tO\t?m\te\tH",
	"SYNC\tO\t?m\te\tH",
	"PING\t?T\tb",
	"PONG\t?T\tb",
	"QUIT\t?x",
	"DIRECTOR-LOST\tD\tl\t?I",
	"HOST-REMOVE\tO\ti\t?c\tf",
	"USER-MOVE\tO\th\ti\t?M\tf",
	"USER-MOVE\tO\th\ti\t?M",
	"USER-KILLED\th\t?i\tD\tM\tf",
	"USER-KILLED\th\t?i\tD\tM",
	"USER-KILLED-EVERYWHERE\tO\th\t?i\tM\tf",
	"USER-KILLED-EVERYWHERE\tO\th\t?i\tM",
	"USER-KICK\tO\tx\t?1",
	"USER-KICK-ALT\tO\tx\tx\t?1",
	"USER-COUNT\tO\th\ti",
	"USER-KICKED\tD\tO\tN\tN",
	"SESSIONS\tD\tO\tN\tN\t?x",
	"SESSION\tD\tO\tN\th\ti\tT\tx\tx\tx",
	"SESSIONS-END\tD\tO\tN\tN\tN",
};

#define CHOOSE(array) array[fuzz_byte() % N_ELEMENTS(array)]

static struct ip_addr ip_of(const char *text)
{
	struct ip_addr ip;

	if (net_addr2ip(text, &ip) < 0)
		i_unreached();
	return ip;
}

struct ip_addr fuzz_ip(void)
{
	return ip_of(CHOOSE(ips));
}

struct ring_address fuzz_address(void)
{
	uint8_t byte = fuzz_byte();

	return (struct ring_address){
		.ip = ip_of(ips[byte % N_ELEMENTS(ips)]),
		.port = (byte & 0xc0) == 0xc0 ? FUZZ_PORT + 1 : FUZZ_PORT,
	};
}

struct ip_addr fuzz_backend(void)
{
	uint8_t byte = fuzz_byte();
	struct ip_addr ip;

	if (byte < 0xe0)
		return ip_of(backend_ips[byte % N_ELEMENTS(backend_ips)]);
	/* ever new ones */
	ip = ip_of("10.2.0.0");
	ip.u.ip4.s_addr = htonl(ntohl(ip.u.ip4.s_addr) + world.seq++ % 65536);
	return ip;
}

struct ip_addr fuzz_backend_nth(unsigned int nth)
{
	return ip_of(backend_ips[nth]);
}

struct ring_address fuzz_member(unsigned int nth)
{
	i_assert(nth > 0 && nth <= 5);
	return (struct ring_address){
		.ip = ip_of(ips[nth - 1]),
		.port = FUZZ_PORT,
	};
}

const char *fuzz_user(void)
{
	return CHOOSE(users);
}

const char *fuzz_tag(void)
{
	return CHOOSE(tags);
}

uint64_t fuzz_instance(const struct fuzz_node *node)
{
	uint64_t own = ring_self(director_ring(node->core))->instance;

	switch (fuzz_byte() % 8) {
	case 0:
		return 0;
	case 1:
		return 222;
	case 2:
		return own;
	case 3:
		return own + 1;
	case 4:
		return own - 1;
	case 5:
		return TIME_MAX;
	case 6:
		return own + 1000000000;
	default:
		return 111;
	}
}

/* The first ones are usual. */
static uint64_t number(const uint64_t *list, unsigned int count)
{
	return list[fuzz_byte() % count];
}

#define NUMBER(...) \
	number((const uint64_t[]){ __VA_ARGS__ }, \
	       N_ELEMENTS(((const uint64_t[]){ __VA_ARGS__ })))

/* Around now, in steps of secs, or at the ends */
static uint64_t around(uint64_t now, unsigned int step)
{
	uint8_t byte = fuzz_byte();

	switch (byte) {
	case 0x80:
		return 0;
	case 0x81:
		return TIME_MAX;
	case 0x82:
		return 1;
	case 0x83:
		return TIME_MAX - 1;
	default:
		return now + (int64_t)(int8_t)byte * step;
	}
}

static uint32_t user_hash(struct director *core)
{
	uint8_t byte = fuzz_byte();
	const char *error;
	uint32_t hash;

	if (byte >= 0xe0)
		return byte == 0xff ? UINT32_MAX : byte - 0xe0U;
	if (director_user_hash(core, users[byte % N_ELEMENTS(users)], &hash,
			       &error) < 0)
		i_unreached();
	return hash;
}

static uint32_t sequence(void)
{
	uint8_t byte = fuzz_byte();

	if (byte < 0xc0)
		return ++world.seq;
	return byte == 0xff ? UINT32_MAX : byte - 0xc0U;
}

static const char *text(void)
{
	uint8_t byte = fuzz_byte();
	string_t *str = t_str_new(1024);
	unsigned int i;

	switch (byte % 4) {
	case 0:
		return byte < 64 ? "jane" : (byte < 128 ? "*" : "j?e*");
	case 1:
		return "a\0011b\001t\001n\001r\303\244";
	case 2:
		return "";
	}
	/* too long for its line, now and then */
	for (i = 0; i < byte * 4U; i++)
		str_append_c(str, 'a' + i % 26);
	return str_c(str);
}

static void append_address(string_t *str, const struct ring_address *address)
{
	str_printfa(str, "%s\t%u", net_ip2addr(&address->ip), address->port);
}

static void append_num(string_t *str, uint64_t num)
{
	str_printfa(str, "%"PRIu64, num);
}

static void append_field(string_t *str, char field,
			 const struct fuzz_conn *conn)
{
	static const unsigned int vhosts[] = { 8, 5, 1, 0, 9, 7 };
	struct director *core = conn->node->core;
	struct director_time now = fuzz_now(conn->node);
	struct ring_address address;
	struct ip_addr ip;
	uint8_t byte;

	switch (field) {
	case 'O':
		address = fuzz_address();
		append_address(str, &address);
		str_printfa(str, "\t%u", sequence());
		break;
	case 'D':
		address = fuzz_address();
		append_address(str, &address);
		break;
	case 'i':
		ip = fuzz_backend();
		str_append(str, net_ip2addr(&ip));
		break;
	case 'v':
		byte = fuzz_byte();
		/* the ring of virtual hosts takes its time */
		append_num(str, byte == 0xff ? UINT32_MAX :
			   vhosts[byte % N_ELEMENTS(vhosts)]);
		break;
	case 't':
		str_append(str, fuzz_tag());
		break;
	case 's':
		byte = fuzz_byte();
		str_append_c(str, (byte & 1) != 0 ? 'D' : 'U');
		append_num(str, byte < 128 ? 0 : now.clock - (byte - 192));
		break;
	case 'n':
		str_append(str, CHOOSE(((const char *const[])
					{ "", "imap1", "h\303\244" })));
		break;
	case 'h':
		append_num(str, user_hash(core));
		break;
	case 'T':
		append_num(str, around(now.wall, 1));
		break;
	case 'c':
		append_num(str, around(now.clock * 1000ULL, 500));
		break;
	case 'I':
		append_num(str, fuzz_instance(conn->node));
		break;
	case 'e':
		append_num(str, around(now.wall, 10));
		break;
	case 'f':
		append_num(str, fuzz_byte() & 1);
		break;
	case 'm':
		append_num(str, NUMBER(10, 9, 8, 7, 6, 11, 0, UINT32_MAX));
		break;
	case 'H':
		append_num(str, NUMBER(backends_hash(director_backends(core)),
				       0, 1, 4711));
		break;
	case 'b':
		append_num(str, NUMBER(0, 1, UINT64_MAX));
		break;
	case 'x':
		str_append(str, text());
		break;
	case 'w':
		str_append_c(str, (fuzz_byte() & 1) != 0 ? 'm' : 'w');
		break;
	case 'M':
		/* (3 and 1027 have the same place in the memory) */
		append_num(str, NUMBER(1, 2, 3, 1027, core->moves->last_number,
				       core->moves->last_number + 1, 0,
				       UINT32_MAX));
		break;
	case 'N':
		append_num(str, NUMBER(64, 1, 2, 0, 3, UINT32_MAX));
		break;
	case 'l':
		append_num(str, NUMBER(0, 1, 2000, 14999, 15001, UINT32_MAX));
		break;
	default:
		i_unreached();
	}
}

const char *fuzz_line(const struct fuzz_conn *conn)
{
	const char *const *fields = t_strsplit(CHOOSE(line_table), "\t");
	string_t *str = t_str_new(256);
	unsigned int left_out = fuzz_byte(), optional = 0, i;
	size_t pos;

	/* most lines have all of them */
	left_out = left_out < 192 ? 0 : left_out % 8;
	str_append(str, fields[0]);
	for (i = 1; fields[i] != NULL; i++) {
		const char *field = fields[i];

		if (*field == '?' || optional > 0) {
			optional++;
			if (*field == '?')
				field++;
			if (str_array_length(fields + i) <= left_out)
				break;
		}
		str_append_c(str, '\t');
		if (field[1] == '\0' && !i_isdigit(*field))
			append_field(str, *field, conn);
		else
			str_append(str, field);
	}
	if (left_out == 7) {
		/* one byte of it is another one */
		pos = fuzz_byte() % str_len(str);
		str_c_modifiable(str)[pos] = I_MAX(fuzz_byte(), 1);
	}
	return str_c(str);
}

static void say(struct fuzz_conn *conn, const char *line)
{
	str_append(conn->in, line);
	str_append_c(conn->in, '\n');
}

void fuzz_greet(struct fuzz_conn *conn, const struct ring_address *who,
		uint64_t instance)
{
	struct director_time now = fuzz_now(conn->node);

	say(conn, t_strdup_printf("VERSION\tdirector\t1\t%u", world.minor));
	say(conn, t_strdup_printf(
		"ME\t%s\t%u\t%"PRIu64, net_ip2addr(&who->ip), who->port,
		(uint64_t)now.clock));
	if (world.minor >= RING_MINOR_OURS) {
		str_truncate(conn->in, str_len(conn->in) - 1);
		str_printfa(conn->in, "\t%"PRIu64"\t%"PRIu64"\n", instance,
			    (uint64_t)now.wall);
	}
}

static void say_hosts(struct fuzz_conn *conn)
{
	struct backend *const *backends;
	struct ring_message msg;
	unsigned int i, count;

	backends = backends_sorted(director_backends(conn->node->core),
				   &count);
	for (i = 0; i < count; i++) {
		ring_host_message(backends[i], &msg);
		msg.type = RING_HAND_HOST;
		(void)ring_message_append(conn->in, &msg, world.minor);
	}
}

static void say_users(struct fuzz_conn *conn, bool moved)
{
	struct director_time now = fuzz_now(conn->node);
	const char *error;
	unsigned int i;
	uint32_t hash;

	for (i = 0; i < 4; i++) {
		if (director_user_hash(conn->node->core, users[i],
				       &hash, &error) < 0)
			i_unreached();
		say(conn, t_strdup_printf("U\t%u\t%s\t%"PRIu64"%s", hash,
					  backend_ips[i],
					  (uint64_t)now.wall - i * 20,
					  moved && i == 1 ? "\tm" : ""));
	}
}

void fuzz_handshake(struct fuzz_conn *conn, uint8_t flags)
{
	string_t *str = t_str_new(64);
	bool complete = (flags & 1) != 0;
	struct ring_address lost;

	if ((flags & 0x20) != 0) {
		lost = fuzz_address();
		str_append(str, "DIRECTOR-LOST\t");
		append_address(str, &lost);
		str_printfa(str, "\t2000\t%"PRIu64, fuzz_instance(conn->node));
		say(conn, str_c(str));
	}
	if (conn->peer->incoming) {
		say(conn, complete ? "HOST-HAND-START\t1" :
		    "HOST-HAND-START\t0");
		say_hosts(conn);
		say(conn, complete ? "HOST-HAND-END\t1" : "HOST-HAND-END\t0");
		if ((flags & 2) != 0)
			say_users(conn, (flags & 0x10) != 0);
		say(conn, "OPTIONS\tconsistent-hashing");
	}
	say(conn, "DONE");
}
