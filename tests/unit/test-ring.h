#ifndef TEST_RING_H
#define TEST_RING_H

/* A director among others that we play ourselves, line by line
   (doc/ring-protocol.md). Lines have '|' where the wire has a TAB. */

#include "test-restore.h"
#include "director/core/ring.h"

#define TEST_INSTANCE_LEFT 111
#define TEST_INSTANCE_RIGHT 333

struct test_conn {
	/* NULL: closed */
	struct ring_peer *peer;
	bool incoming;
	/* Sent since the last forget_sent(); each line begins with LF */
	string_t *sent;
};

static ARRAY(struct test_conn *) test_conns;
static unsigned int test_connects;
/* What waits to be sent, on any connection */
static size_t test_queue;

static inline struct test_conn *conn_new(struct ring_peer *peer)
{
	struct test_conn *conn = p_new(test_pool, struct test_conn, 1);

	conn->peer = peer;
	conn->incoming = peer->incoming;
	conn->sent = str_new(test_pool, 1024);
	str_append_c(conn->sent, '\n');
	peer->connection = conn;
	array_push_back(&test_conns, &conn);
	return conn;
}

static inline void
test_connect(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	test_connects++;
	(void)conn_new(peer);
}

static inline void
test_send(void *context ATTR_UNUSED, struct ring_peer *peer,
	  const void *data, size_t size)
{
	struct test_conn *conn = peer->connection;
	const char *text = data;
	size_t i;

	assert_ptr_equal(conn->peer, peer);
	assert_int_equal(text[size - 1], '\n');
	for (i = 0; i < size; i++)
		str_append_c(conn->sent, text[i] == '\t' ? '|' : text[i]);
}

static inline size_t
test_queued(void *context ATTR_UNUSED, struct ring_peer *peer ATTR_UNUSED)
{
	return test_queue;
}

static inline void test_close(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	struct test_conn *conn = peer->connection;

	conn->peer = NULL;
}

static struct director_vfuncs ring_vfuncs = {
	.record = test_record,
	.log = test_log,
	.lookup_done = test_lookup_done,
	.changes_recorded = test_changes,
	.ring = { test_connect, test_send, test_queued, test_close },
};

static inline struct ring_address address_of(const char *ip)
{
	return (struct ring_address){ .ip = *ip_of(ip), .port = 9090 };
}

static inline int test_ring_setup(void **state)
{
	int ret = test_director_setup(state);

	p_array_init(&test_conns, test_pool, 8);
	test_connects = 0;
	test_queue = 0;
	return ret;
}

#define ring_test(func) \
	cmocka_unit_test_setup_teardown(func, test_ring_setup, \
					test_director_teardown)

static inline void ring_end(void)
{
	ring_input_end(director, &now);
	test_run();
}

/* The director of 10.0.0.<self> among 10.0.0.1 .. 10.0.0.<count> starts. */
static inline void
ring_init_at(unsigned int self, unsigned int count, unsigned int later_msecs)
{
	struct ring_address *members = t_new(struct ring_address, count);
	unsigned int i;

	for (i = 0; i < count; i++)
		members[i] = address_of(t_strdup_printf("10.0.0.%u", i + 1));
	director_deinit(&director);
	test_set.ring = (struct ring_settings){
		.self = members[self - 1],
		.members = members,
		.members_count = count,
		.ping_idle_msecs = 30000,
		.ping_max_msecs = 60000,
		.started = TEST_WALL * 1000ULL + later_msecs,
	};
	director = director_init(&test_set, &ring_vfuncs, &now, &now);
}

static inline void ring_init(unsigned int self, unsigned int count)
{
	ring_init_at(self, count, 0);
}

static inline void ring_start(unsigned int self, unsigned int count)
{
	ring_init(self, count);
	test_configure("10.1.0.1 10.1.0.2");
	ring_end();
}

/* -- What the others say -- */

static inline void ATTR_FORMAT(2, 3)
in(struct test_conn *conn, const char *format, ...)
{
	va_list args;
	char *line, *p;

	va_start(args, format);
	line = t_strdup_noconst(t_strdup_vprintf(format, args));
	va_end(args);
	for (p = line; *p != '\0'; p++) {
		if (*p == '|')
			*p = '\t';
	}
	assert_non_null(conn->peer);
	(void)ring_peer_input(director, conn->peer, line, &now);
	ring_end();
}

/* The connection that was made last */
static inline struct test_conn *conn_out(void)
{
	struct test_conn *const *conns;
	unsigned int i, count;

	conns = array_get(&test_conns, &count);
	for (i = count; i > 0 && conns[i - 1]->incoming; )
		i--;
	assert_true(i > 0);
	assert_non_null(conns[i - 1]->peer);
	return conns[i - 1];
}

static inline struct test_conn *connected(void)
{
	struct test_conn *conn = conn_out();

	ring_peer_connected(director, conn->peer, &now);
	ring_end();
	return conn;
}

/* Returns NULL if it was refused. */
static inline struct test_conn *incoming(const char *ip)
{
	struct ring_peer *peer = ring_peer_accept(director, ip_of(ip), &now);
	struct test_conn *conn = peer == NULL ? NULL : conn_new(peer);

	ring_end();
	return conn;
}

static inline void
greet(struct test_conn *conn, const char *ip, unsigned int minor,
      unsigned int instance)
{
	in(conn, "VERSION|director|1|%u", minor);
	if (minor < 10)
		in(conn, "ME|%s|9090|%u", ip, TEST_WALL);
	else {
		in(conn, "ME|%s|9090|%u|%u|%u", ip, TEST_WALL, instance,
		   TEST_WALL);
	}
}

static inline struct test_conn *right_joins(const char *ip, unsigned int minor)
{
	struct test_conn *conn = connected();

	greet(conn, ip, minor, TEST_INSTANCE_RIGHT);
	in(conn, "DONE");
	return conn;
}

/* flag: it was in a complete ring. user: a line of its handshake */
static inline struct test_conn *
left_joins(const char *ip, unsigned int instance, bool flag, const char *user)
{
	struct test_conn *conn = incoming(ip);

	assert_non_null(conn);
	greet(conn, ip, 10, instance);
	in(conn, "HOST-HAND-START|%u", flag ? 1 : 0);
	in(conn, "HOST|10.1.0.1|100||U0||1");
	in(conn, "HOST|10.1.0.2|100||U0||1");
	in(conn, "HOST-HAND-END|%u", flag ? 1 : 0);
	if (user != NULL)
		in(conn, "%s", user);
	in(conn, "OPTIONS|consistent-hashing");
	in(conn, "DONE");
	return conn;
}

/* -- What was said to them -- */

static inline void forget_sent(void)
{
	struct test_conn *conn;

	array_foreach_elem(&test_conns, conn)
		str_truncate(conn->sent, 1);
}

/* How many lines begin with this */
static inline unsigned int said(struct test_conn *conn, const char *start)
{
	const char *p = str_c(conn->sent);
	unsigned int count = 0;

	start = t_strconcat("\n", start, NULL);
	while ((p = strstr(p, start)) != NULL) {
		p++;
		count++;
	}
	return count;
}

static inline void assert_said(struct test_conn *conn, const char *start)
{
	if (said(conn, start) == 0)
		fail_msg("not said: %s\nsaid:%s", start, str_c(conn->sent));
}

static inline void assert_not_said(struct test_conn *conn, const char *start)
{
	if (said(conn, start) != 0)
		fail_msg("said: %s\nin:%s", start, str_c(conn->sent));
}

static inline unsigned int test_vhosts(const char *ip)
{
	struct backend *backend = get(ip);

	return backend == NULL ? 0 : backend->vhosts;
}

/* May he have sessions that nobody sees? */
static inline bool is_lost(const char *ip)
{
	const struct ring_address address = address_of(ip);
	const struct ring_member *member;

	member = ring_member_lookup(ring_get_members(director_ring(director)),
				    &address);
	return member->lost_msecs != 0 && now.msecs < member->lost_msecs +
						      test_set.lost_grace_msecs;
}

/* Our last SYNC comes back, with that minor version unless NULL. */
static inline void
ring_sync_returns(struct test_conn *left, struct test_conn *right,
		  const char *minor)
{
	const char *p, *last = NULL, *start;
	char **args;

	start = t_strdup_printf("\nSYNC|%s|", net_ip2addr(
		&ring_self(director_ring(director))->address.ip));
	for (p = str_c(right->sent); (p = strstr(p, start)) != NULL; )
		last = ++p;
	assert_non_null(last);
	args = p_strsplit(unsafe_data_stack_pool, t_strcut(last, '\n'), "|");
	if (minor != NULL)
		args[4] = t_strdup_noconst(minor);
	in(left, "%s", t_strarray_join((const char *const *)args, "|"));
}

/* Our SYNC goes round. */
static inline void
ring_syncs_minor(struct test_conn *left, struct test_conn *right,
		 const char *minor)
{
	unsigned int i;

	for (i = 0; !ring_is_synced(director_ring(director)); i++) {
		assert_true(i < 10);
		ring_sync_returns(left, right, minor);
	}
	forget_sent();
}

static inline void ring_syncs(struct test_conn *left, struct test_conn *right)
{
	ring_syncs_minor(left, right, NULL);
}

/* Us at 10.0.0.2, between 10.0.0.1 and 10.0.0.3 */
static inline void ring_of(unsigned int count, struct test_conn **left_r,
		    struct test_conn **right_r)
{
	ring_start(2, count);
	*right_r = right_joins("10.0.0.3", 10);
	*left_r = left_joins("10.0.0.1", TEST_INSTANCE_LEFT, FALSE, NULL);
	ring_syncs(*left_r, *right_r);
}

/* Us at 10.0.0.1, and 10.0.0.2 on both sides */
static inline void
ring_of_two(struct test_conn **left_r, struct test_conn **right_r)
{
	ring_start(1, 2);
	*right_r = right_joins("10.0.0.2", 10);
	*left_r = left_joins("10.0.0.2", TEST_INSTANCE_RIGHT, FALSE, NULL);
	ring_syncs(*left_r, *right_r);
}

#endif
