#ifndef SIM_NET_PRIVATE_H
#define SIM_NET_PRIVATE_H

#include "sim.h"

/* TCP as a director sees it. A connection is two streams of whole lines; each
   has a latency, keeps its order, and holds at most a window of bytes that the
   other side's director hasn't read. What a cut link or a machine that is off
   holds up arrives later, or the connection breaks after a while. */

/* Bytes held up for so long: the connection breaks */
#define TCP_BREAK_TIME SIM_SECS(60)
/* Written at once at most */
#define TCP_SEGMENT_SIZE 4096
/* The director is told that there is room again below this. */
#define TCP_DRAINED_SIZE (64*1024)
/* 1 + 2 + 4 + 8 + 16 + 32 seconds */
#define TCP_SYN_TRIES 6
/* More means that nobody limits it */
#define TCP_QUEUED_MAX (4*1024*1024)

enum tcp_segment_type {
	/* The end of the connection's own handshake */
	SEGMENT_ACCEPT,
	SEGMENT_DATA,
	SEGMENT_FIN,
	SEGMENT_RST,
};

struct tcp_segment {
	struct tcp_segment *next;
	enum tcp_segment_type type;
	uint64_t arrive;
	size_t size;
	char data[];
};

struct tcp_stream {
	struct tcp_segment *head, **tail;
};

enum tcp_end_state {
	/* No socket yet */
	END_NONE,
	END_OPEN,
	/* Not any more */
	END_GONE,
};

struct sim_end {
	struct sim_conn *conn;
	struct sim_node *node;
	unsigned int incarnation;
	/* NULL: the director doesn't know it (any more) */
	struct ring_peer *peer;
	enum tcp_end_state state;
	/* To tell to the director */
	bool connected;
	const char *error;
	bool rst_sent;

	/* The director's own buffer */
	string_t *out;
	/* What it sent and hasn't arrived, what arrived and isn't read */
	struct tcp_stream wire, input;
	uint64_t last_arrive;
	/* Sent and not known to be read, bytes */
	size_t in_flight;
	/* Read, but the cut link didn't let it be known */
	size_t lost_credit;
	/* Nothing of the wire arrives before */
	uint64_t hold_until;
	/* 0 = it isn't */
	uint64_t blocked_since;
};

enum tcp_conn_state {
	CONN_CONNECTING,
	CONN_ESTABLISHED,
	CONN_CLOSED,
};

struct sim_conn {
	struct sim_conn *prev, *next;
	struct sim *sim;
	struct sim_node *to;
	enum tcp_conn_state state;
	unsigned int syn_tries;
	unsigned int to_incarnation;
	/* Who connects, who is connected to */
	struct sim_end ends[2];
};

struct sim_net {
	struct sim *sim;
	struct sim_conn *conns;
	unsigned int cuts[SIM_MAX_NODES][SIM_MAX_NODES];
	uint64_t latency[SIM_MAX_NODES][SIM_MAX_NODES];
};

static inline struct sim_end *tcp_other(struct sim_end *end)
{
	return &end->conn->ends[end == &end->conn->ends[0] ? 1 : 0];
}

static inline uint64_t
tcp_latency(const struct sim_node *from, const struct sim_node *to)
{
	return from->sim->net->latency[from->idx][to->idx];
}

static inline bool
tcp_is_cut(const struct sim_node *from, const struct sim_node *to)
{
	return from->sim->net->cuts[from->idx][to->idx] > 0;
}

/* -- sim-net-stream.c -- */

void tcp_push(struct sim_end *end, enum tcp_segment_type type,
	      const void *data, size_t size);
/* Sends what the window allows. */
void tcp_transmit(struct sim_end *end);
void tcp_stream_free(struct tcp_stream *stream);
/* Segments or credit of it may be able to go on. */
void tcp_kick(struct sim_end *end);
/* So much of the other side's has been read. */
void tcp_credit(struct sim_end *end, size_t size);
/* The socket is gone. */
void tcp_end_gone(struct sim_end *end);

/* -- sim-net.c -- */

/* The director does what is to do. */
void tcp_poll(struct sim_end *end);

#endif
