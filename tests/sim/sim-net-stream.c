/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "str.h"
#include "sim-net-private.h"

static void tcp_arrive(struct sim *sim, void *arg, uint64_t value);

static void stream_add(struct tcp_stream *stream, struct tcp_segment *segment)
{
	segment->next = NULL;
	if (stream->head == NULL)
		stream->tail = &stream->head;
	*stream->tail = segment;
	stream->tail = &segment->next;
}

static struct tcp_segment *stream_take(struct tcp_stream *stream)
{
	struct tcp_segment *segment = stream->head;

	stream->head = segment->next;
	return segment;
}

void tcp_stream_free(struct tcp_stream *stream)
{
	while (stream->head != NULL) {
		struct tcp_segment *segment = stream_take(stream);

		i_free(segment);
	}
}

void tcp_push(struct sim_end *end, enum tcp_segment_type type,
	      const void *data, size_t size)
{
	struct sim *sim = end->conn->sim;
	struct tcp_segment *segment =
		i_malloc(sizeof(*segment) + size);

	segment->type = type;
	segment->size = size;
	if (size > 0)
		memcpy(segment->data, data, size);
	segment->arrive = I_MAX(sim->now + tcp_latency(end->node,
						       tcp_other(end)->node),
				end->last_arrive);
	end->last_arrive = segment->arrive;
	stream_add(&end->wire, segment);
	sim_queue_add(sim->queue, segment->arrive, tcp_arrive, end, 0);
}

void tcp_end_gone(struct sim_end *end)
{
	struct sim_conn *conn = end->conn;

	end->state = END_GONE;
	end->peer = NULL;
	end->connected = FALSE;
	tcp_stream_free(&end->input);
	str_truncate(end->out, 0);
	if (conn->state == CONN_CONNECTING)
		conn->state = CONN_CLOSED;
}

static void tcp_break(struct sim *sim, void *arg, uint64_t since)
{
	struct sim_end *end = arg;

	if (end->blocked_since != since || end->state != END_OPEN)
		return;
	sim_trace(sim, end->node, "connection to %s breaks",
		  tcp_other(end)->node->name);
	tcp_stream_free(&end->wire);
	end->error = "Connection timed out";
	tcp_poll(end);
}

static bool tcp_is_blocked(struct sim_end *end)
{
	struct sim *sim = end->conn->sim;
	const struct sim_node *to = tcp_other(end)->node;

	if (!tcp_is_cut(end->node, to) && to->state != SIM_NODE_OFF)
		return FALSE;
	if (end->blocked_since == 0) {
		end->blocked_since = sim->now;
		sim_queue_add(sim->queue, sim->now + TCP_BREAK_TIME, tcp_break,
			      end, sim->now);
	}
	return TRUE;
}

static void tcp_arrive(struct sim *sim, void *arg, uint64_t value ATTR_UNUSED)
{
	struct sim_end *end = arg, *other = tcp_other(end);
	struct tcp_segment *segment;

	while (end->wire.head != NULL && end->wire.head->arrive <= sim->now) {
		if (tcp_is_blocked(end))
			break;
		if (sim->now < end->hold_until) {
			sim_queue_add(sim->queue, end->hold_until, tcp_arrive,
				      end, 0);
			break;
		}
		end->blocked_since = 0;
		segment = stream_take(&end->wire);
		if (other->state == END_OPEN) {
			stream_add(&other->input, segment);
			continue;
		}
		/* nobody is there */
		if (segment->type != SEGMENT_RST && !other->rst_sent) {
			other->rst_sent = TRUE;
			tcp_push(other, SEGMENT_RST, NULL, 0);
		}
		i_free(segment);
	}
	tcp_poll(other);
}

void tcp_transmit(struct sim_end *end)
{
	struct sim_conn *conn = end->conn;
	const char *data = str_c(end->out), *p;
	size_t sent = 0, left = str_len(end->out), size;

	if (end->state != END_OPEN || conn->state != CONN_ESTABLISHED)
		return;
	while (left > 0 && end->in_flight < conn->sim->plan->window) {
		size = left;
		if (size > TCP_SEGMENT_SIZE) {
			/* whole lines */
			p = memchr(data + sent + TCP_SEGMENT_SIZE, '\n',
				   left - TCP_SEGMENT_SIZE);
			if (p != NULL)
				size = p + 1 - (data + sent);
		}
		tcp_push(end, SEGMENT_DATA, data + sent, size);
		end->in_flight += size;
		sent += size;
		left -= size;
	}
	str_delete(end->out, 0, sent);
}

static void tcp_credit_arrives(struct sim *sim ATTR_UNUSED, void *arg,
			       uint64_t size)
{
	struct sim_end *end = arg;
	struct sim_node *node = end->node;
	struct director_time now;

	if (tcp_is_cut(tcp_other(end)->node, node)) {
		end->lost_credit += size;
		return;
	}
	i_assert(end->in_flight >= size);
	end->in_flight -= size;
	if (end->peer == NULL || str_len(end->out) == 0 ||
	    !sim_node_runs(node))
		return;
	tcp_transmit(end);
	if (str_len(end->out) < TCP_DRAINED_SIZE) {
		now = sim_node_time(node);
		ring_peer_drained(node->core, end->peer, &now);
		sim_node_called(node);
	}
}

void tcp_credit(struct sim_end *end, size_t size)
{
	struct sim *sim = end->conn->sim;
	struct sim_end *other = tcp_other(end);

	sim_queue_add(sim->queue, sim->now +
		      tcp_latency(end->node, other->node),
		      tcp_credit_arrives, other, size);
}

void tcp_kick(struct sim_end *end)
{
	struct sim *sim = end->conn->sim;
	struct sim_end *other = tcp_other(end);
	struct tcp_segment *segment;
	uint64_t arrive = sim->now + tcp_latency(end->node, other->node);
	size_t credit = other->lost_credit;

	end->blocked_since = 0;
	for (segment = end->wire.head; segment != NULL; segment = segment->next)
		segment->arrive = I_MAX(segment->arrive, arrive);
	end->last_arrive = I_MAX(end->last_arrive, arrive);
	if (end->wire.head != NULL)
		sim_queue_add(sim->queue, arrive, tcp_arrive, end, 0);
	if (credit > 0) {
		other->lost_credit = 0;
		tcp_credit(end, credit);
	}
}
