/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Whole conversations. The first two bytes tell what there is, then come steps:
   what to do, with what. README tells how it is read. */

#include "fuzz-ring.h"

#include <stdio.h>

/* What it finds it finds soon. */
#define STEPS_MAX 100

struct fuzz_world world;
bool fuzz_tracing;

/* The first byte's lower bits */
enum fuzz_mode {
	/* One of five that starts. */
	MODE_START,
	/* The second of three, the ring is complete. */
	MODE_THREE,
	/* The first of two, the ring is complete. */
	MODE_TWO,
	/* Two cores, the second and fourth of five. */
	MODE_CORES,
};

void fuzz_trace_write(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "%"PRIu64".%03u ", world.msecs / 1000,
		(unsigned int)(world.msecs % 1000));
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

/* -- Steps -- */

static struct fuzz_node *node_choose(void)
{
	return &world.nodes[world.nodes_count == 1 ? 0 :
			    fuzz_byte() % world.nodes_count];
}

/* One that can be spoken over */
static struct fuzz_conn *conn_choose_open(void)
{
	struct fuzz_conn *conn = fuzz_conn_choose();

	if (conn != NULL && !fuzz_conn_is_open(conn))
		fuzz_connected(conn);
	return conn == NULL || conn->peer == NULL ? NULL : conn;
}

static void step_lines(void)
{
	struct fuzz_conn *conn = conn_choose_open();
	unsigned int count = fuzz_byte() % 4 + 1;

	if (conn == NULL)
		return;
	while (count-- > 0) {
		str_append(conn->in, fuzz_line(conn));
		str_append_c(conn->in, '\n');
	}
	(void)fuzz_deliver(conn);
}

static void step_raw(void)
{
	struct fuzz_conn *conn = conn_choose_open();
	size_t size = fuzz_byte();

	size = I_MIN(size, (size_t)(world.end - world.data));
	if (conn != NULL) {
		str_append_data(conn->in, world.data, size);
		(void)fuzz_deliver(conn);
	}
	world.data += size;
}

static struct ring_address conn_address(const struct fuzz_conn *conn)
{
	return conn->peer->member != NULL ? conn->peer->member->address :
		(struct ring_address){ conn->peer->source_ip, FUZZ_PORT };
}

static void step_greet(void)
{
	struct fuzz_conn *conn = conn_choose_open();
	struct ring_address address;

	if (conn == NULL)
		return;
	address = conn_address(conn);
	fuzz_greet(conn, &address, fuzz_instance(conn->node));
	(void)fuzz_deliver(conn);
}

static void step_handshake(void)
{
	struct fuzz_conn *conn = conn_choose_open();
	uint8_t flags = fuzz_byte();

	if (conn == NULL)
		return;
	fuzz_handshake(conn, flags);
	(void)fuzz_deliver(conn);
}

static void
conn_joins(struct fuzz_conn *conn, uint8_t flags, uint64_t instance)
{
	struct ring_address address = conn_address(conn);

	conn->tame = (flags & 4) != 0;
	fuzz_greet(conn, &address, instance);
	if (conn->peer->incoming)
		fuzz_handshake(conn, flags);
	(void)fuzz_deliver(conn);
}

static void step_joins(void)
{
	struct fuzz_node *node = node_choose();
	struct ip_addr ip = fuzz_ip();
	struct fuzz_conn *conn = fuzz_accept(node, &ip);
	uint8_t flags = fuzz_byte();

	if (conn != NULL)
		conn_joins(conn, flags, fuzz_instance(node));
}

static void step_accept(void)
{
	struct fuzz_node *node = node_choose();
	struct ip_addr ip = fuzz_ip();

	(void)fuzz_accept(node, &ip);
}

static void step_answer(void)
{
	struct fuzz_conn *conn = fuzz_conn_choose();
	uint8_t flags = fuzz_byte();

	if (conn == NULL || fuzz_conn_is_open(conn))
		return;
	if ((flags & 8) != 0) {
		fuzz_closed(conn);
		return;
	}
	fuzz_connected(conn);
	if (conn->peer != NULL)
		conn_joins(conn, flags, 222);
}

static void step_close(void)
{
	struct fuzz_conn *conn = fuzz_conn_choose();

	if (conn != NULL) {
		struct fuzz_node *node = conn->node;

		fuzz_closed(conn);
		fuzz_run(node);
	}
}

/* It comes round, or comes again. */
static void step_round(bool killed)
{
	struct fuzz_conn *from = fuzz_conn_choose();
	struct fuzz_conn *to = conn_choose_open();
	const char *line;

	if (from == NULL || to == NULL)
		return;
	line = killed ? from->killed : from->sync;
	if (*line == '\0')
		return;
	str_append(to->in, line);
	str_append_c(to->in, '\n');
	(void)fuzz_deliver(to);
}

static void step_drain(void)
{
	struct fuzz_conn *conn = conn_choose_open();
	struct director_time now;

	if (conn == NULL)
		return;
	conn->queued = fuzz_byte() % 4 * 100000;
	if (conn->queued == 0) {
		now = fuzz_now(conn->node);
		fuzz_allow_all(conn->node);
		ring_peer_drained(conn->node->core, conn->peer, &now);
	}
	fuzz_run(conn->node);
}

static void step_refresh(void)
{
	struct fuzz_node *node = node_choose();
	struct director_time now = fuzz_now(node);

	fuzz_allow(node, 1);
	director_refresh(node->core, fuzz_user(), &now);
	fuzz_run(node);
}

static void flood_moves(struct fuzz_conn *conn, unsigned int count)
{
	for (count = I_MIN(count, 100); count > 0; count--, world.seq++) {
		str_printfa(conn->in, "USER-MOVE\t10.0.0.1\t9090\t%u\t%u\t"
			    "10.1.0.2\t%u\n", world.seq, world.seq + 1,
			    world.seq + 1);
	}
}

/* Ever new ones of something */
static void step_flood(void)
{
	static const struct {
		const char *before, *after;
	} lines[] = {
		{ "DIRECTOR\t", "\t9090\t1\t5" },
		{ "DIRECTOR-REMOVE\t", "\t9090\t5" },
		{ "HOST-REMOVE\t10.0.0.9\t9090\t1\t", "\t5" },
		{ "HOST\t10.0.0.9\t9090\t1\t", "\t1\t\tU0\t\t5" },
		{ "CONNECT\t", "\t9090" },
	};
	struct fuzz_conn *conn = conn_choose_open();
	unsigned int i, kind = fuzz_byte() % (N_ELEMENTS(lines) + 1);
	unsigned int count = fuzz_byte();

	if (conn == NULL)
		return;
	if (count == 0xff && !world.flooded) {
		world.flooded = TRUE;
		count = 1200;
	} else {
		count = count % 32 + 1;
	}
	if (kind == N_ELEMENTS(lines)) {
		flood_moves(conn, count);
		count = 0;
	}
	for (i = 0; i < count; i++, world.seq++) {
		str_printfa(conn->in, "%s10.3.%u.%u%s\n", lines[kind].before,
			    world.seq / 256 % 256, world.seq % 256,
			    lines[kind].after);
	}
	(void)fuzz_deliver(conn);
}

static void step_world(void)
{
	struct fuzz_node *node = node_choose();
	struct fuzz_conn *conn;
	uint8_t byte = fuzz_byte();

	switch (byte % 8) {
	case 0:
		node->clock_skew += ((int)byte - 128) * 10;
		break;
	case 1:
		world.link_up = !world.link_up;
		break;
	case 2:
		fuzz_node_stop(node);
		fuzz_conns_sweep();
		fuzz_node_start(node, (byte & 8) != 0);
		break;
	case 3:
		conn = fuzz_conn_choose();
		if (conn != NULL)
			conn->tame = !conn->tame;
		break;
	default:
		world.dial = byte / 8 % 4;
		break;
	}
}

static void step(void)
{
	switch (fuzz_byte() % 28) {
	case 0:
	case 1:
	case 2:
	case 3:
		step_lines();
		break;
	case 4:
		step_raw();
		break;
	case 5:
		step_accept();
		break;
	case 6:
		step_greet();
		break;
	case 7:
		step_handshake();
		break;
	case 8:
	case 9:
		step_joins();
		break;
	case 10:
		step_answer();
		break;
	case 11:
		step_close();
		break;
	case 12:
		fuzz_pass(fuzz_byte(), FALSE);
		break;
	case 13:
		fuzz_pass(fuzz_byte() * 100, FALSE);
		break;
	case 14:
		fuzz_pass(fuzz_byte() * 10000, TRUE);
		break;
	case 15:
		step_round(FALSE);
		break;
	case 16:
	case 17:
		fuzz_node_lookup(node_choose());
		break;
	case 18:
		fuzz_node_session(node_choose());
		break;
	case 19:
		fuzz_node_admin(node_choose());
		break;
	case 20:
		step_drain();
		break;
	case 21:
		step_refresh();
		break;
	case 22:
		step_flood();
		break;
	case 23:
		step_world();
		break;
	case 24:
	case 25:
	case 26:
		fuzz_node_move(node_choose());
		break;
	case 27:
		step_round(TRUE);
		break;
	}
	fuzz_check_step();
	fuzz_conns_sweep();
}

/* -- A run -- */

/* Us between others, and the ring is complete. */
static void complete_ring(struct fuzz_node *node, unsigned int left)
{
	struct ring_address address = fuzz_member(left);
	struct fuzz_conn *conn;

	world.dial = FUZZ_DIAL_TAME;
	fuzz_pass(20, FALSE);
	conn = fuzz_accept(node, &address.ip);
	i_assert(conn != NULL);
	conn_joins(conn, 4, left == 3 ? 222 : 111);
	fuzz_pass(100, FALSE);
	i_assert(ring_is_synced(director_ring(node->core)));
	i_assert(ring_left(director_ring(node->core)) != NULL);
	world.dial = FUZZ_DIAL_SILENT;
}

static void world_init(void)
{
	uint8_t flags = fuzz_byte(), flags2 = fuzz_byte();
	enum fuzz_mode mode = flags & 3;
	unsigned int i;

	world.msecs = FUZZ_MSECS;
	world.minor = (flags & 4) == 0 ? 10 : 9;
	world.expire_secs = (flags & 8) == 0 ? 60 : 900;
	world.link_up = TRUE;
	world.dial = flags2 % 4;
	world.nodes_count = mode == MODE_CORES ? 2 : 1;
	world.first_member = mode == MODE_TWO ? 2 : 1;
	world.members_count = mode == MODE_TWO ? 2 :
		(mode == MODE_THREE ? 3 : 5);
	i_array_init(&world.conns, 8);
	for (i = 0; i < world.nodes_count; i++) {
		struct fuzz_node *node = &world.nodes[i];

		node->idx = i;
		node->address = fuzz_member(2 + i * 2);
		i_array_init(&node->dials, 8);
		fuzz_node_start(node, (flags & 0x10) != 0);
	}
	if (mode == MODE_THREE)
		complete_ring(&world.nodes[0], 1);
	else if (mode == MODE_TWO)
		complete_ring(&world.nodes[0], 3);
	else
		fuzz_pass((flags & 0xc0) == 0 ? 0 : 5000, FALSE);
}

static void world_deinit(void)
{
	unsigned int i;

	for (i = 0; i < world.nodes_count; i++) {
		fuzz_node_stop(&world.nodes[i]);
		array_free(&world.nodes[i].dials);
	}
	fuzz_conns_sweep();
	i_assert(array_count(&world.conns) == 0);
	array_free(&world.conns);
}

int LLVMFuzzerInitialize(int *argc ATTR_UNUSED, char ***argv ATTR_UNUSED)
{
	lib_init();
	fuzz_tracing = getenv("FUZZ_TRACE") != NULL;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int steps = 0;
	bool silent;

	if (size < 3 || size > 4096)
		return 0;
	i_zero(&world);
	world.data = data;
	world.end = data + size;
	silent = (data[1] & 0x80) != 0;
	T_BEGIN {
		world_init();
	} T_END;
	while (world.data < world.end && steps++ < STEPS_MAX) T_BEGIN {
		step();
	} T_END;
	T_BEGIN {
		fuzz_check_end(silent);
	} T_END;
	world_deinit();
	return 0;
}
