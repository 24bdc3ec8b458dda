/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "str.h"
#include "sim-net-private.h"

struct sim_net *sim_net_init(struct sim *sim)
{
	struct sim_net *net = p_new(sim->pool, struct sim_net, 1);

	net->sim = sim;
	memcpy(net->latency, sim->plan->latency, sizeof(net->latency));
	return net;
}

void sim_net_deinit(struct sim_net **_net)
{
	struct sim_net *net = *_net;
	struct sim_conn *conn;
	unsigned int i;

	*_net = NULL;
	for (conn = net->conns; conn != NULL; conn = conn->next) {
		for (i = 0; i < N_ELEMENTS(conn->ends); i++) {
			tcp_stream_free(&conn->ends[i].wire);
			tcp_stream_free(&conn->ends[i].input);
			str_free(&conn->ends[i].out);
		}
	}
}

/* -- The director reads -- */

static void
tcp_accept(struct sim_end *end, const struct director_time *now)
{
	struct sim_node *node = end->node;
	const struct sim_node *from = tcp_other(end)->node;

	end->peer = ring_peer_accept(node->core, &from->address.ip, now);
	sim_trace(node->sim, node, "accepts %s%s", from->name,
		  end->peer == NULL ? ": no" : "");
	if (end->peer == NULL) {
		tcp_push(end, SEGMENT_FIN, NULL, 0);
		tcp_end_gone(end);
		return;
	}
	end->peer->connection = end;
}

/* Returns FALSE if no more is wanted. */
static bool tcp_read(struct sim_end *end, struct tcp_segment *segment,
		     const struct director_time *now)
{
	struct sim_node *node = end->node;
	struct sim *sim = node->sim;
	char *line = segment->data, *data_end = line + segment->size, *p;

	sim_history(sim, segment->data, segment->size);
	while (line < data_end) {
		p = memchr(line, '\n', data_end - line);
		i_assert(p != NULL);
		*p = '\0';
		sim_trace(sim, node, "<- %s: %s", tcp_other(end)->node->name,
			  line);
		sim->lines++;
		if (!str_begins_with(line, "PING") &&
		    !str_begins_with(line, "PONG"))
			sim->busy_lines++;
		if (!ring_peer_input(node->core, end->peer, line, now))
			return FALSE;
		line = p + 1;
	}
	return TRUE;
}

static void tcp_closed(struct sim_end *end, const char *reason,
		       const struct director_time *now)
{
	struct sim_node *node = end->node;
	struct ring_peer *peer = end->peer;

	tcp_end_gone(end);
	if (peer == NULL)
		return;
	sim_trace(node->sim, node, "connection with %s: %s",
		  tcp_other(end)->node->name, reason);
	ring_peer_closed(node->core, peer, reason, now);
}

static struct tcp_segment *tcp_take(struct sim_end *end)
{
	struct tcp_segment *segment = end->input.head;

	if (segment != NULL)
		end->input.head = segment->next;
	return segment;
}

void tcp_poll(struct sim_end *end)
{
	struct sim_node *node = end->node;
	struct tcp_segment *segment;
	struct director_time now;
	bool more = TRUE;
	size_t size = 0;

	if (end->state == END_GONE || !sim_node_runs(node) ||
	    end->incarnation != node->incarnation)
		return;
	now = sim_node_time(node);
	if (end->connected) {
		end->connected = FALSE;
		ring_peer_connected(node->core, end->peer, &now);
	}
	while (more && (segment = tcp_take(end)) != NULL) {
		switch (segment->type) {
		case SEGMENT_ACCEPT:
			tcp_accept(end, &now);
			break;
		case SEGMENT_DATA:
			size += segment->size;
			more = end->peer != NULL &&
				tcp_read(end, segment, &now);
			break;
		case SEGMENT_FIN:
			end->error = "Connection closed";
			more = FALSE;
			break;
		case SEGMENT_RST:
			end->error = "Connection reset by peer";
			more = FALSE;
			break;
		}
		i_free(segment);
	}
	if (size > 0) {
		tcp_credit(end, size);
		/* may close it */
		ring_input_end(node->core, &now);
	}
	if (end->error != NULL && end->state != END_GONE)
		tcp_closed(end, end->error, &now);
	sim_node_called(node);
}

/* -- What the director does -- */

void sim_net_send(struct sim_end *end, const void *data, size_t size)
{
	struct sim *sim = end->conn->sim;

	str_append_data(end->out, data, size);
	tcp_transmit(end);
	if (str_len(end->out) > sim->tally->queued_max) {
		sim->tally->queued_max = str_len(end->out);
		sim->tally->queued_max_seed = sim->plan->seed;
	}
	if (str_len(end->out) > TCP_QUEUED_MAX) {
		sim_fail(sim, "output", "%s: %zu bytes wait for %s",
			 end->node->name, str_len(end->out),
			 tcp_other(end)->node->name);
	}
}

size_t sim_net_queued(const struct sim_end *end)
{
	return str_len(end->out);
}

void sim_net_close(struct sim_end *end)
{
	tcp_transmit(end);
	if (end->conn->state == CONN_ESTABLISHED)
		tcp_push(end, SEGMENT_FIN, NULL, 0);
	tcp_end_gone(end);
}

/* -- Connecting -- */

static void tcp_refused(struct sim *sim ATTR_UNUSED, void *arg,
			uint64_t value ATTR_UNUSED)
{
	struct sim_conn *conn = arg;

	if (conn->state != CONN_CONNECTING ||
	    tcp_is_cut(conn->to, conn->ends[0].node))
		return;
	conn->state = CONN_CLOSED;
	conn->ends[0].error = "connect() failed: Connection refused";
	tcp_poll(&conn->ends[0]);
}

static void tcp_answered(struct sim *sim ATTR_UNUSED, void *arg,
			 uint64_t incarnation)
{
	struct sim_conn *conn = arg;
	struct sim_end *from = &conn->ends[0], *to = &conn->ends[1];

	if (conn->state != CONN_CONNECTING || tcp_is_cut(conn->to, from->node))
		return;
	conn->state = CONN_ESTABLISHED;
	from->connected = TRUE;
	to->incarnation = incarnation;
	to->state = incarnation == conn->to->incarnation &&
		(conn->to->state == SIM_NODE_RUNNING ||
		 conn->to->state == SIM_NODE_PAUSED) ? END_OPEN : END_GONE;
	tcp_push(from, SEGMENT_ACCEPT, NULL, 0);
	tcp_poll(from);
}

static void tcp_syn_arrives(struct sim *sim, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	struct sim_conn *conn = arg;
	struct sim_node *from = conn->ends[0].node;
	uint64_t time = sim->now + tcp_latency(conn->to, from);

	if (conn->state != CONN_CONNECTING || tcp_is_cut(from, conn->to))
		return;
	switch (conn->to->state) {
	case SIM_NODE_OFF:
		break;
	case SIM_NODE_NEW:
	case SIM_NODE_DEAD:
		sim_queue_add(sim->queue, time, tcp_refused, conn, 0);
		break;
	case SIM_NODE_RUNNING:
	case SIM_NODE_PAUSED:
		sim_queue_add(sim->queue, time, tcp_answered, conn,
			      conn->to->incarnation);
		break;
	}
}

static void tcp_syn(struct sim *sim, void *arg, uint64_t value ATTR_UNUSED)
{
	struct sim_conn *conn = arg;

	if (conn->state != CONN_CONNECTING)
		return;
	if (++conn->syn_tries > TCP_SYN_TRIES) {
		conn->state = CONN_CLOSED;
		conn->ends[0].error = "connect() failed: Connection timed out";
		tcp_poll(&conn->ends[0]);
		return;
	}
	sim_after(sim, tcp_latency(conn->ends[0].node, conn->to),
		  tcp_syn_arrives, conn, 0);
	sim_after(sim, SIM_SECS(1) << (conn->syn_tries - 1), tcp_syn, conn, 0);
}

void sim_net_connect(struct sim_node *node, struct sim_node *to,
		     struct ring_peer *peer)
{
	struct sim *sim = node->sim;
	struct sim_conn *conn = p_new(sim->pool, struct sim_conn, 1);
	unsigned int i;

	conn->sim = sim;
	conn->to = to;
	for (i = 0; i < N_ELEMENTS(conn->ends); i++) {
		conn->ends[i].conn = conn;
		conn->ends[i].out = str_new(default_pool, 256);
	}
	conn->ends[0].node = node;
	conn->ends[0].incarnation = node->incarnation;
	conn->ends[0].state = END_OPEN;
	conn->ends[0].peer = peer;
	conn->ends[1].node = to;
	peer->connection = &conn->ends[0];
	DLLIST_PREPEND(&sim->net->conns, conn);
	sim_trace(sim, node, "connects to %s", to->name);
	tcp_syn(sim, conn, 0);
}

/* -- Trouble -- */

static void tcp_foreach_end(struct sim_net *net, const struct sim_node *node,
			    void (*func)(struct sim_end *end))
{
	struct sim_conn *conn, *next;
	unsigned int i;

	for (conn = net->conns; conn != NULL; conn = next) {
		next = conn->next;
		for (i = 0; i < N_ELEMENTS(conn->ends); i++) {
			if (conn->ends[i].node == node)
				func(&conn->ends[i]);
		}
	}
}

static void tcp_end_killed(struct sim_end *end)
{
	if (end->state != END_OPEN)
		return;
	if (end->conn->state == CONN_ESTABLISHED) {
		end->rst_sent = TRUE;
		tcp_push(end, SEGMENT_RST, NULL, 0);
	}
	tcp_end_gone(end);
}

static void tcp_end_vanished(struct sim_end *end)
{
	if (end->state == END_OPEN)
		tcp_end_gone(end);
}

static void tcp_end_booted(struct sim_end *end)
{
	tcp_kick(tcp_other(end));
}

static void tcp_end_continued(struct sim_end *end)
{
	struct sim_node *node = end->node;
	struct director_time now;
	bool waited = str_len(end->out) > 0;

	tcp_poll(end);
	if (!waited || end->peer == NULL)
		return;
	tcp_transmit(end);
	if (str_len(end->out) < TCP_DRAINED_SIZE) {
		now = sim_node_time(node);
		ring_peer_drained(node->core, end->peer, &now);
		sim_node_called(node);
	}
}

void sim_net_node_gone(struct sim_node *node, bool silent)
{
	tcp_foreach_end(node->sim->net, node,
			silent ? tcp_end_vanished : tcp_end_killed);
}

void sim_net_node_booted(struct sim_node *node)
{
	tcp_foreach_end(node->sim->net, node, tcp_end_booted);
}

void sim_net_node_continued(struct sim_node *node)
{
	tcp_foreach_end(node->sim->net, node, tcp_end_continued);
}

void sim_net_cut(struct sim_net *net, unsigned int from, unsigned int to)
{
	net->cuts[from][to]++;
}

void sim_net_heal(struct sim_net *net, unsigned int from, unsigned int to)
{
	struct sim_conn *conn;
	unsigned int i;

	i_assert(net->cuts[from][to] > 0);
	if (--net->cuts[from][to] > 0)
		return;
	for (conn = net->conns; conn != NULL; conn = conn->next) {
		for (i = 0; i < N_ELEMENTS(conn->ends); i++) {
			if (conn->ends[i].node->idx == from &&
			    tcp_other(&conn->ends[i])->node->idx == to)
				tcp_kick(&conn->ends[i]);
		}
	}
}

bool sim_net_is_cut(const struct sim_net *net, unsigned int from,
		    unsigned int to)
{
	return net->cuts[from][to] > 0;
}

uint64_t sim_net_round_trip(const struct sim_net *net, unsigned int i,
			    unsigned int j)
{
	return net->latency[i][j] + net->latency[j][i];
}

void sim_net_set_latency(struct sim_net *net, unsigned int from,
			 unsigned int to, uint64_t usecs)
{
	net->latency[from][to] = usecs;
}

static struct sim_end *tcp_find_end(struct sim_node *node, unsigned int nth)
{
	struct sim_conn *conn;
	struct sim_end *found[8];
	unsigned int i, count = 0;

	for (conn = node->sim->net->conns; conn != NULL; conn = conn->next) {
		for (i = 0; i < N_ELEMENTS(conn->ends); i++) {
			if (conn->ends[i].node == node &&
			    conn->ends[i].state == END_OPEN &&
			    conn->state == CONN_ESTABLISHED &&
			    count < N_ELEMENTS(found))
				found[count++] = &conn->ends[i];
		}
	}
	return count == 0 ? NULL : found[nth % count];
}

void sim_net_reset(struct sim_node *node, unsigned int nth)
{
	struct sim_end *end = tcp_find_end(node, nth);

	if (end == NULL)
		return;
	end->error = tcp_other(end)->error = "Connection reset by peer";
	tcp_poll(end);
	tcp_poll(tcp_other(end));
}

void sim_net_stall(struct sim_node *node, unsigned int nth, uint64_t usecs)
{
	struct sim_end *end = tcp_find_end(node, nth);

	if (end != NULL)
		end->hold_until = node->sim->now + usecs;
}

void sim_net_rest(struct sim_net *net)
{
	struct sim_conn *conn;
	unsigned int i;

	for (conn = net->conns; conn != NULL; conn = conn->next) {
		for (i = 0; i < N_ELEMENTS(conn->ends); i++) {
			conn->ends[i].hold_until = 0;
			tcp_kick(&conn->ends[i]);
		}
	}
}
