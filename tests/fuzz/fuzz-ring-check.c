/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What holds whatever the others say. */

#include "fuzz-ring.h"

#include <ctype.h>

/* Connections to the same director in DIALS_MSECS: at most one in 2 s, and as
   many again because somebody told us to by CONNECT */
#define DIALS_MSECS 10000
#define DIALS_MAX 12
/* How long it takes at most until a core works that was left alone: every
   member is waited for once, lookups fail after 30 s */
#define SETTLE_MSECS(members) (35000 + (members) * 500)
#define SETTLE_TWO_MSECS 150000
#define LOG_LINE_MAX 4096
/* After this, so many lines go round in a second: SYNC, questions about weak
   users for whom lookups wait, refreshes */
#define CIRCLES_AFTER_MSECS 8000
#define CIRCLES_MAX 40

static unsigned int peers_count(struct ring *ring)
{
	const struct ring_peer *peer;
	unsigned int count = 0;

	for (peer = ring_peers(ring); peer != NULL; peer = peer->next)
		count++;
	return count;
}

static unsigned int members_count(struct ring *ring)
{
	unsigned int count;

	(void)ring_members_sorted(ring->members, &count);
	return count;
}

/* -- No amplification -- */

void fuzz_allow(struct fuzz_node *node, unsigned int events)
{
	unsigned int peers = peers_count(director_ring(node->core));

	node->lines_allowed += events * (4 * (peers + 1) + 8);
	node->logs_allowed += events * 4;
}

/* The members twice: with the greeting, and when the other one's version is
   known. */
void fuzz_allow_all(struct fuzz_node *node)
{
	struct ring *ring = director_ring(node->core);
	unsigned int hosts;

	(void)backends_sorted(director_backends(node->core), &hosts);
	node->lines_allowed += members_count(ring) * 2 + hosts +
		array_count(&ring->removed_hosts) +
		user_table_count(director_users(node->core));
	node->logs_allowed += hosts;
	fuzz_allow(node, 2);
}

/* PING, an own SYNC, an end with its reason; and what waits for it may be done
   now. */
void fuzz_check_run(struct fuzz_node *node)
{
	struct ring *ring = director_ring(node->core);
	unsigned int peers = peers_count(ring);
	unsigned int moves = director_users_moving(node->core);

	/* a session in each, too, if somebody asks for a list */
	node->lines_allowed += (peers + 1) *
		(8 + user_table_count(director_users(node->core)) +
		 2 * director_lookups_waiting(node->core) + 4 * moves) +
		members_count(ring) * 2 +
		session_leases_total(director_leases(node->core));
	node->logs_allowed += 8 + peers * 2 + members_count(ring) +
		director_lookups_waiting(node->core) + moves;
}

void fuzz_check_dial(struct fuzz_node *node, const struct ring_address *to)
{
	struct fuzz_dials *dials = NULL, *d;

	array_foreach_modifiable(&node->dials, d) {
		if (ring_address_cmp(&d->address, to) == 0)
			dials = d;
	}
	if (dials == NULL) {
		dials = array_append_space(&node->dials);
		dials->address = *to;
	}
	if (world.msecs >= dials->since_msecs + DIALS_MSECS) {
		dials->since_msecs = world.msecs;
		dials->count = 0;
	}
	if (++dials->count > DIALS_MAX) {
		i_panic("%s is connected to again and again",
			ring_address_str(to));
	}
}

void fuzz_check_text(const char *text)
{
	size_t i;

	for (i = 0; text[i] != '\0'; i++) {
		if (i_iscntrl(text[i]))
			i_panic("Control character logged: %s", text);
	}
	if (i > LOG_LINE_MAX)
		i_panic("Logged too much: %s", text);
}

void fuzz_check_log(struct fuzz_node *node, const char *text)
{
	struct ring *ring = director_ring(node->core);
	unsigned int hosts;

	fuzz_trace("%u: log: %s", node->idx, text);
	fuzz_check_text(text);
	node->logs_sent++;
	if (strstr(text, "resending hosts") != NULL) {
		/* everything to everybody: once a second and member */
		if (world.msecs >= node->resent_msecs + 1000) {
			node->resent_msecs = world.msecs;
			node->resent = 0;
		}
		if (++node->resent > members_count(ring))
			i_panic("Resends hosts again and again: %s", text);
		(void)backends_sorted(director_backends(node->core), &hosts);
		node->lines_allowed += (peers_count(ring) + 1) *
			(hosts + array_count(&ring->removed_hosts));
	}
}

/* -- What is said can be understood -- */

static void
check_when(struct fuzz_conn *conn, const struct ring_message *msg,
	   const char *line)
{
	enum ring_message_type type = msg->type;

	switch (type) {
	case RING_VERSION:
		if (conn->version_seen)
			i_panic("VERSION twice");
		conn->version_seen = TRUE;
		break;
	case RING_DONE:
		conn->done_seen = TRUE;
		break;
	case RING_HOST_HAND_START:
		if (conn->in_host_list)
			i_panic("HOST-HAND-START twice");
		conn->in_host_list = TRUE;
		break;
	case RING_HOST_HAND_END:
		conn->in_host_list = FALSE;
		break;
	case RING_QUIT:
		conn->quit_seen = TRUE;
		break;
	case RING_USER_KILLED:
		/* (it was our right) */
		if (conn->peer->incoming)
			i_panic("Said to the left: %s", line);
		fuzz_check_killed(conn->node, msg);
		break;
	default:
		break;
	}
	if (conn->peer->me_received || type == RING_VERSION ||
	    type == RING_ME || type == RING_QUIT ||
	    (type == RING_DIRECTOR && !conn->peer->incoming))
		return;
	i_panic("Said to one who hasn't introduced himself: %s", line);
}

void fuzz_check_line(struct fuzz_conn *conn, const char *line)
{
	struct ring_message msg;
	unsigned int minor = 0;
	const char *error;

	fuzz_trace("%u: to %s: %s", conn->node->idx, fuzz_conn_name(conn), line);
	conn->node->lines_sent++;
	if (strlen(line) > RING_LINE_MAX)
		i_panic("Line is too long: %s", line);
	if (conn->quit_seen)
		i_panic("Said after QUIT: %s", line);
	if (conn->version_seen) {
		minor = conn->peer->version_received ?
			I_MIN(conn->peer->minor, RING_PROTOCOL_MINOR) :
			RING_PROTOCOL_MINOR;
	}
	if (ring_message_parse(line, minor, !conn->done_seen,
			       conn->in_host_list, &msg, &error) < 0)
		i_panic("Nobody will understand this: %s (%s)", line, error);
	check_when(conn, &msg, line);
}

/* -- The core's own things -- */

/* Who says who he is has one connection each way, others a few. */
static bool
peers_are_alike(const struct ring_peer *peer, const struct ring_peer *peer2)
{
	if (peer->incoming != peer2->incoming ||
	    peer->me_received != peer2->me_received)
		return FALSE;
	return peer->me_received || !peer->incoming ?
		peer->member == peer2->member :
		net_ip_compare(&peer->source_ip, &peer2->source_ip);
}

static void check_peer(struct ring *ring, const struct ring_peer *peer)
{
	const struct ring_peer *peer2;
	unsigned int count = 0, max;

	i_assert(!peer->dead);
	i_assert(peer->member == NULL || !peer->member->removed);
	max = peer->me_received || !peer->incoming ? 1 :
		RING_MAX_PENDING_SOURCE;
	for (peer2 = ring->peers; peer2 != NULL; peer2 = peer2->next) {
		if (peers_are_alike(peer, peer2))
			count++;
	}
	if (count > max) {
		i_panic("%u connections with %s", count,
			net_ip2addr(&peer->source_ip));
	}
}

static void check_peers(struct ring *ring)
{
	const struct ring_peer *peer;
	unsigned int pending = 0;

	for (peer = ring->peers; peer != NULL; peer = peer->next) {
		check_peer(ring, peer);
		if (!peer->me_received && peer->incoming)
			pending++;
	}
	i_assert(pending <= RING_MAX_PENDING);
	peer = ring_left(ring);
	i_assert(peer == NULL || (peer->incoming &&
				  peer->state == RING_PEER_DONE));
	peer = ring_right(ring);
	i_assert(peer == NULL || (!peer->incoming &&
				  peer->state == RING_PEER_DONE));
}

static void check_hosts(struct fuzz_node *node)
{
	struct ring *ring = director_ring(node->core);
	struct backend *const *list;
	unsigned int i, count;

	i_assert(array_count(&ring->removed_hosts) <= RING_REMOVED_MAX);
	i_assert(!ring->synced || ring->handshaked);
	i_assert(members_count(ring) <= RING_MEMBERS_MAX + world.added);
	list = backends_sorted(director_backends(node->core), &count);
	for (i = 0; i < count && ring->synced; i++)
		i_assert(!list[i]->desynced);
}

static void check_lookups(struct fuzz_node *node)
{
	unsigned int i, waiting = 0;

	for (i = 0; i < FUZZ_LOOKUPS; i++) {
		if (!node->lookups[i].waits)
			continue;
		waiting++;
		i_assert(world.msecs - node->lookups[i].since_msecs <
			 DIRECTOR_LOOKUP_TIMEOUT_MSECS);
	}
	i_assert(waiting == director_lookups_waiting(node->core));
}

void fuzz_check_step(void)
{
	struct fuzz_node *node;
	unsigned int i;

	for (i = 0; i < world.nodes_count; i++) T_BEGIN {
		node = &world.nodes[i];
		check_peers(director_ring(node->core));
		check_hosts(node);
		check_lookups(node);
		i_assert(director_users_moving(node->core) <= USER_MOVES_MAX);
		if (node->lines_sent > node->lines_allowed) {
			i_panic("Says %"PRIu64" lines, expected at most "
				"%"PRIu64, node->lines_sent,
				node->lines_allowed);
		}
		if (node->logs_sent > node->logs_allowed) {
			i_panic("Logs %"PRIu64" lines, expected at most "
				"%"PRIu64, node->logs_sent,
				node->logs_allowed);
		}
		node->lines_sent = node->lines_allowed = 0;
		node->logs_sent = node->logs_allowed = 0;
	} T_END;
}

/* -- Afterwards it works -- */

static bool is_settled(void)
{
	const struct ring *ring;

	for (unsigned int i = 0; i < world.nodes_count; i++) {
		ring = director_ring(world.nodes[i].core);
		if (!ring_is_synced(ring) ||
		    director_lookups_waiting(world.nodes[i].core) > 0 ||
		    !fuzz_moves_are_over(&world.nodes[i]))
			return FALSE;
	}
	return TRUE;
}

static bool has_backend(struct fuzz_node *node)
{
	return backend_by_hash(director_backends(node->core), "", 4711) != NULL;
}

static void check_works(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	struct director_lookup lookup = {
		.username = "somebody new",
		.tag = "",
	};

	if (!has_backend(node))
		return;
	if (director_lookup(node->core, &lookup, &now) != 1)
		i_panic("A new user waits: %s", lookup.wait_reason);
}

static void check_agree(struct fuzz_node *n1, struct fuzz_node *n2)
{
	struct ring *ring = director_ring(n1->core);

	if (ring->right == NULL || ring->left == NULL ||
	    ring_address_cmp(&ring->right->member->address,
			     &n2->address) != 0)
		return;
	i_assert(backends_hash(director_backends(n1->core)) ==
		 backends_hash(director_backends(n2->core)));
}

/* In a ring that passes everything on, nobody else drops what has been seen. */
static void check_circling(void)
{
	const struct ring *ring = director_ring(world.nodes[0].core);
	struct fuzz_conn *left, *right;
	unsigned int i, moves = 0;
	uint64_t before;

	if (ring->left == NULL || ring->right == NULL)
		return;
	left = ring->left->connection;
	right = ring->right->connection;
	if (!left->tame || !right->tame)
		return;
	fuzz_pass(CIRCLES_AFTER_MSECS, FALSE);
	before = world.passed_on;
	for (i = 0; i < world.nodes_count; i++)
		moves += director_users_moving(world.nodes[i].core);
	fuzz_pass(1000, FALSE);
	if (world.passed_on - before > CIRCLES_MAX + 8 * moves) {
		i_panic("%"PRIu64" lines go round in a second",
			world.passed_on - before);
	}
}

void fuzz_check_end(bool silent)
{
	struct fuzz_conn *conn;
	unsigned int i;
	uint64_t passed;
	uint64_t max = SETTLE_MSECS(members_count(
				director_ring(world.nodes[0].core)));

	if (world.nodes_count > 1)
		max += SETTLE_TWO_MSECS;

	world.ending = TRUE;
	for (i = 0; i < world.nodes_count; i++) {
		fuzz_check_moves(&world.nodes[i]);
		fuzz_node_ends(&world.nodes[i]);
	}
	check_circling();
	world.dial = silent ? FUZZ_DIAL_SILENT : FUZZ_DIAL_REFUSE;
	world.link_up = TRUE;
	array_foreach_elem(&world.conns, conn) {
		if (!conn->linked && fuzz_conn_is_open(conn))
			fuzz_closed(conn);
	}
	for (passed = 0; passed < max; passed += 1000) {
		fuzz_pass(1000, FALSE);
		if (is_settled() && passed >= 5000)
			break;
	}
	if (!is_settled())
		i_panic("Doesn't work after all others have gone");
	for (i = 0; i < world.nodes_count; i++) {
		fuzz_check_moves(&world.nodes[i]);
		check_works(&world.nodes[i]);
	}
	if (world.nodes_count == 1)
		return;
	check_agree(&world.nodes[0], &world.nodes[1]);
	check_agree(&world.nodes[1], &world.nodes[0]);
}
