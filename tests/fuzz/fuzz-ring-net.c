/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Connections: between two cores, or between a core and the fuzzer. */

#include "fuzz-ring.h"

static struct fuzz_conn *conn_new(struct fuzz_node *node, struct ring_peer *peer)
{
	struct fuzz_conn *conn = i_new(struct fuzz_conn, 1);

	conn->node = node;
	conn->peer = peer;
	conn->in = str_new(default_pool, 256);
	peer->connection = conn;
	array_push_back(&world.conns, &conn);
	return conn;
}

static void conn_over(struct fuzz_conn *conn)
{
	conn->peer = NULL;
	if (conn->other != NULL) {
		conn->other->closing = TRUE;
		conn->other->other = NULL;
		conn->other = NULL;
	}
}

void fuzz_conns_sweep(void)
{
	struct fuzz_conn *const *conns;
	unsigned int i;

	for (i = array_count(&world.conns); i > 0; i--) {
		conns = array_idx(&world.conns, i - 1);
		if ((*conns)->peer != NULL)
			continue;
		str_free(&(*conns)->in);
		i_free(*(struct fuzz_conn **)conns);
		array_delete(&world.conns, i - 1, 1);
	}
}

struct fuzz_conn *fuzz_conn_choose(void)
{
	unsigned int count = 0, nth = fuzz_byte();
	struct fuzz_conn *conn;

	array_foreach_elem(&world.conns, conn) {
		if (conn->peer != NULL && !conn->linked)
			count++;
	}
	if (count == 0)
		return NULL;
	/* the newest one first */
	nth = count - 1 - nth % count;
	array_foreach_elem(&world.conns, conn) {
		if (conn->peer != NULL && !conn->linked && nth-- == 0)
			return conn;
	}
	i_unreached();
}

/* -- What the core says -- */

static struct fuzz_conn *conn_of(const struct ring_peer *peer)
{
	return peer == NULL ? NULL : peer->connection;
}

/* Each member lowers the version in it to its own. */
static const char *sync_lowered(const char *line)
{
	const char **fields = t_strsplit(line, "\t");

	if (str_array_length(fields) > 4 && world.minor < RING_PROTOCOL_MINOR)
		fields[4] = t_strdup_printf("%u", world.minor);
	return t_strarray_join(fields, "\t");
}

/* Passes it on as a ring would in which there is nobody else. */
static void tame_passes_on(struct fuzz_conn *conn, const char *line)
{
	struct ring *ring = director_ring(conn->node->core);
	struct fuzz_conn *to;

	if (!conn->done_seen || (!str_begins_with(line, "SYNC\t") &&
				 !str_begins_with(line, "HOST") &&
				 !str_begins_with(line, "USER") &&
				 !str_begins_with(line, "SESSION")))
		return;
	to = conn_of(conn->peer == ring->right ? ring->left : ring->right);
	if (to == NULL || to == conn || !to->tame)
		return;
	if (str_begins_with(line, "SYNC\t"))
		line = sync_lowered(line);
	str_append(to->in, line);
	str_append_c(to->in, '\n');
	world.passed_on++;
}

static void tame_answers(struct fuzz_conn *conn, const char *line)
{
	if (str_begins_with(line, "PING\t")) {
		str_append(conn->in, "PONG\t");
		str_append(conn->in, line + 5);
		str_append_c(conn->in, '\n');
	} else if (str_begins_with(line, "DONE") && !conn->peer->incoming)
		str_append(conn->in, "DONE\n");
	else
		tame_passes_on(conn, line);
}

static void
conn_said(struct fuzz_conn *conn, const char *line)
{
	fuzz_check_line(conn, line);
	if (str_begins_with(line, "SYNC\t"))
		i_strocpy(conn->sync, line, sizeof(conn->sync));
	if (str_begins_with(line, "USER-KILLED\t"))
		i_strocpy(conn->killed, line, sizeof(conn->killed));
	/* (it may be stopping) */
	if (conn->tame && conn->node->core != NULL)
		tame_answers(conn, line);
}

void fuzz_send(void *context, struct ring_peer *peer, const void *data,
	       size_t size)
{
	struct fuzz_conn *conn = peer->connection;
	const char *p = data, *end = p + size, *lf;

	i_assert(conn->node == context && conn->peer == peer);
	i_assert(size > 0 && end[-1] == '\n');
	if (conn->other != NULL)
		str_append_data(conn->other->in, data, size);
	for (; p < end; p = lf + 1) T_BEGIN {
		lf = memchr(p, '\n', end - p);
		conn_said(conn, t_strdup_until(p, lf));
	} T_END;
}

size_t fuzz_queued(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	struct fuzz_conn *conn = peer->connection;

	return conn->other != NULL ? str_len(conn->other->in) : conn->queued;
}

void fuzz_close(void *context, struct ring_peer *peer)
{
	struct fuzz_conn *conn = peer->connection;

	i_assert(conn->node == context && conn->peer == peer);
	conn_over(conn);
}

void fuzz_connect(void *context, struct ring_peer *peer)
{
	struct fuzz_node *node = context;
	struct fuzz_conn *conn = conn_new(node, peer);
	unsigned int i;

	i_assert(peer->state == RING_PEER_CONNECTING && !peer->incoming);
	fuzz_check_dial(node, &peer->member->address);
	for (i = 0; i < world.nodes_count; i++) {
		if (ring_address_cmp(&world.nodes[i].address,
				     &peer->member->address) == 0)
			conn->linked = TRUE;
	}
}

/* -- What comes to the core -- */

struct fuzz_conn *fuzz_accept(struct fuzz_node *node, const struct ip_addr *ip)
{
	struct director_time now = fuzz_now(node);
	struct ring_peer *peer;
	struct fuzz_conn *conn;

	fuzz_allow_all(node);
	peer = ring_peer_accept(node->core, ip, &now);
	if (peer == NULL)
		return NULL;
	conn = conn_new(node, peer);
	fuzz_run(node);
	return conn->peer == NULL ? NULL : conn;
}

void fuzz_connected(struct fuzz_conn *conn)
{
	struct director_time now = fuzz_now(conn->node);

	fuzz_allow_all(conn->node);
	ring_peer_connected(conn->node->core, conn->peer, &now);
	fuzz_run(conn->node);
}

void fuzz_closed(struct fuzz_conn *conn)
{
	struct director_time now = fuzz_now(conn->node);
	struct ring_peer *peer = conn->peer;

	fuzz_allow(conn->node, 1);
	conn_over(conn);
	ring_peer_closed(conn->node->core, peer, "Connection closed", &now);
}

/* Returns FALSE if nothing happens to it now. */
static bool conn_connects(struct fuzz_conn *conn)
{
	struct fuzz_node *node = NULL;
	unsigned int i;

	if (conn->linked) {
		if (!world.link_up)
			return FALSE;
		for (i = 0; i < world.nodes_count; i++) {
			if (ring_address_cmp(&world.nodes[i].address,
				&conn->peer->member->address) == 0)
				node = &world.nodes[i];
		}
		conn->other = fuzz_accept(node, &conn->node->address.ip);
		if (conn->other == NULL) {
			fuzz_closed(conn);
			return TRUE;
		}
		conn->other->linked = TRUE;
		conn->other->other = conn;
		fuzz_connected(conn);
		return TRUE;
	}
	switch (world.dial) {
	case FUZZ_DIAL_SILENT:
		return FALSE;
	case FUZZ_DIAL_REFUSE:
		fuzz_closed(conn);
		break;
	case FUZZ_DIAL_TAME:
		conn->tame = TRUE;
		fuzz_greet(conn, &conn->peer->member->address, 222);
		/* fall through */
	case FUZZ_DIAL_ACCEPT:
		fuzz_connected(conn);
		break;
	}
	return TRUE;
}

/* What has come up to the last LF */
static const char *conn_take_lines(struct fuzz_conn *conn, size_t *size_r)
{
	const unsigned char *data = str_data(conn->in);
	size_t size = str_len(conn->in);
	char *lines;

	while (size > 0 && data[size - 1] != '\n')
		size--;
	lines = t_malloc_no0(size + 1);
	memcpy(lines, data, size);
	str_delete(conn->in, 0, size);
	*size_r = size;
	return lines;
}

/* As the adapter splits it */
static bool conn_line(struct fuzz_conn *conn, const char *data, size_t size)
{
	struct director_time now = fuzz_now(conn->node);
	struct director *core = conn->node->core;
	const char *problem = NULL;
	bool more;

	if (size > RING_LINE_MAX)
		problem = "Too long input line";
	else if (memchr(data, '\0', size) != NULL)
		problem = "Line with NUL";
	if (problem != NULL) {
		fuzz_allow(conn->node, 1);
		ring_peer_bad_input(core, conn->peer, problem, &now);
		return FALSE;
	}
	if (size > 0 && data[size - 1] == '\r')
		size--;
	if (size > 3 && memcmp(data, "ME\t", 3) == 0)
		fuzz_allow_all(conn->node);
	else
		fuzz_allow(conn->node, 1);
	T_BEGIN {
		/* memory that ends where the line does */
		char *line = i_strndup(data, size);

		more = ring_peer_input(core, conn->peer, line, &now);
		i_free(line);
	} T_END;
	return more;
}

bool fuzz_deliver(struct fuzz_conn *conn)
{
	struct fuzz_node *node = conn->node;
	struct director_time now = fuzz_now(node);
	const char *data, *p, *lf;
	bool more = TRUE;
	size_t size;

	if (conn->peer == NULL)
		return FALSE;
	if (conn->peer->state == RING_PEER_CONNECTING) {
		if (!conn_connects(conn))
			return FALSE;
		fuzz_run(node);
		return TRUE;
	}
	data = conn_take_lines(conn, &size);
	if (size == 0 && !conn->closing && str_len(conn->in) <= RING_LINE_MAX)
		return FALSE;
	for (p = data; more && p < data + size; p = lf + 1) {
		lf = memchr(p, '\n', data + size - p);
		more = conn_line(conn, p, lf - p);
	}
	if (more && str_len(conn->in) > RING_LINE_MAX) {
		/* is refused before its LF has come */
		(void)conn_line(conn, str_c(conn->in), str_len(conn->in));
		more = FALSE;
	}
	if (!more)
		str_truncate(conn->in, 0);
	fuzz_check_run(node);
	ring_input_end(node->core, &now);
	if (conn->closing && conn->peer != NULL)
		fuzz_closed(conn);
	fuzz_run(node);
	return TRUE;
}

bool fuzz_deliver_all(void)
{
	unsigned int i, count = array_count(&world.conns);
	bool done = FALSE;

	/* new ones wait for their turn */
	for (i = 0; i < count; i++) T_BEGIN {
		struct fuzz_conn *conn = array_idx_elem(&world.conns, i);

		if ((conn->tame || conn->linked ||
		     !fuzz_conn_is_open(conn)) && fuzz_deliver(conn))
			done = TRUE;
	} T_END;
	return done;
}
