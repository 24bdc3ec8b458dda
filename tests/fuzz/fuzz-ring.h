#ifndef FUZZ_RING_H
#define FUZZ_RING_H

/* One or two directors in virtual time, and whatever else is in their ring:
   connections over which the fuzzer speaks. */

#include "lib.h"
#include "array.h"
#include "str.h"
#include "director/core/ring-private.h"
#include "director/core/user-flush.h"
#include "director/core/user-move-private.h"
#include "fuzz.h"

#define FUZZ_MAX_NODES 2
#define FUZZ_PORT 9090
#define FUZZ_LOOKUPS 8
#define FUZZ_PROCESSES 2
#define FUZZ_HOOKS 8
/* When it starts: monotonic milliseconds, seconds since 1970 */
#define FUZZ_MSECS 1000000
#define FUZZ_WALL 1700000000

/* One end of a connection, the one of a core */
struct fuzz_conn {
	struct fuzz_node *node;
	/* NULL: closed. Freed at the end of the step. */
	struct ring_peer *peer;
	/* If the other end is a core as well; NULL: it is the fuzzer, or that
	   core isn't there any more */
	struct fuzz_conn *other;
	bool linked;
	/* Our side of it is orderly: it answers PING, and passes on what the
	   core says round a ring without anybody else in it. */
	bool tame;
	/* On its way to the core, lines and maybe a part of one. The other end
	   has closed. */
	string_t *in;
	bool closing;
	/* What the core said last to bring round, without LF; "" if nothing */
	char sync[RING_LINE_MAX + 1], killed[RING_LINE_MAX + 1];
	/* What the core believes not to be sent yet */
	size_t queued;
	/* What its lines must look like (fuzz-ring-check.c) */
	bool version_seen, done_seen, in_host_list, quit_seen;
};

struct fuzz_lookup {
	struct director_lookup lookup;
	bool waits, answered;
	uint64_t since_msecs;
	struct session_token token;
	struct ip_addr ip;
};

struct fuzz_node {
	struct director *core;
	unsigned int idx, starts;
	struct ring_address address;
	/* The machine's clock, beside the even one */
	int64_t clock_skew;
	struct fuzz_lookup lookups[FUZZ_LOOKUPS];
	struct login_process *processes[FUZZ_PROCESSES];
	struct session_plugin *plugins[FUZZ_PROCESSES];
	/* The last one */
	struct user_flush *flush;
	/* Flush hooks that run */
	struct fuzz_hook {
		uint32_t hash;
		unsigned int id;
	} hooks[FUZZ_HOOKS];
	unsigned int hooks_count;
	/* Whose sessions were kicked last */
	uint32_t kicked;
	/* Plugins don't read. */
	bool busy;

	/* fuzz-ring-check.c: what it may say, and what it said */
	uint64_t lines_allowed, lines_sent, logs_allowed, logs_sent;
	uint64_t resent_msecs;
	unsigned int resent;
	ARRAY(struct fuzz_dials) dials;
};

struct fuzz_dials {
	struct ring_address address;
	/* How often it was connected to since then */
	uint64_t since_msecs;
	unsigned int count;
};

/* What becomes of a connect() to somebody who isn't a core */
enum fuzz_dial {
	/* nothing, until the input says so */
	FUZZ_DIAL_SILENT,
	FUZZ_DIAL_REFUSE,
	FUZZ_DIAL_ACCEPT,
	/* and then it is a tame one */
	FUZZ_DIAL_TAME,
};

struct fuzz_world {
	uint64_t msecs;
	struct fuzz_node nodes[FUZZ_MAX_NODES];
	unsigned int nodes_count;
	ARRAY(struct fuzz_conn *) conns;
	enum fuzz_dial dial;
	/* The cores reach each other. */
	bool link_up;
	/* The others' protocol and user expiry */
	unsigned int minor, expire_secs;
	/* Of director_servers */
	unsigned int first_member, members_count;
	uint32_t seq;
	/* Lines that tame ones passed on */
	uint64_t passed_on;
	bool flooded;
	/* Nothing else happens. */
	bool ending;
	/* Directors that an administrator may have added */
	unsigned int added;
	/* The input that is left; 0 from its end on */
	const uint8_t *data, *end;
};
extern struct fuzz_world world;


static inline uint8_t fuzz_byte(void)
{
	return world.data < world.end ? *world.data++ : 0;
}

/* To stderr, if $FUZZ_TRACE is set */
#define fuzz_trace(...) \
	STMT_START { \
		if (fuzz_tracing) \
			fuzz_trace_write(__VA_ARGS__); \
	} STMT_END
extern bool fuzz_tracing;
void fuzz_trace_write(const char *format, ...) ATTR_FORMAT(1, 2);

struct director_time fuzz_now(const struct fuzz_node *node);

/* -- fuzz-ring-line.c: what can be said -- */

/* All of these take what they choose from the input. */
struct ip_addr fuzz_ip(void);
struct ring_address fuzz_address(void);
struct ip_addr fuzz_backend(void);
struct ip_addr fuzz_backend_nth(unsigned int nth);
/* The director 10.0.0.nth */
struct ring_address fuzz_member(unsigned int nth);
const char *fuzz_user(void);
const char *fuzz_tag(void);
uint64_t fuzz_instance(const struct fuzz_node *node);
/* A line of the table, without LF */
const char *fuzz_line(const struct fuzz_conn *conn);
/* What a director says that comes, or is connected to. who: as what it
   introduces itself */
void fuzz_greet(struct fuzz_conn *conn, const struct ring_address *who,
		uint64_t instance);
/* Its list of backends (as the node has it), users, DONE. flags: 1 its ring was
   complete, 2 with users, 16 of whom one is being moved, 32 somebody is lost */
void fuzz_handshake(struct fuzz_conn *conn, uint8_t flags);

/* -- fuzz-ring-net.c: connections -- */

void fuzz_connect(void *context, struct ring_peer *peer);
void fuzz_send(void *context, struct ring_peer *peer, const void *data,
	       size_t size);
size_t fuzz_queued(void *context, struct ring_peer *peer);
void fuzz_close(void *context, struct ring_peer *peer);

/* NULL if there is none, or it was closed by the core at once. */
struct fuzz_conn *fuzz_accept(struct fuzz_node *node, const struct ip_addr *ip);
void fuzz_connected(struct fuzz_conn *conn);
/* The other end closes. */
void fuzz_closed(struct fuzz_conn *conn);
/* Gives the lines that have come, as one turn. Returns FALSE if there was
   nothing to do. */
bool fuzz_deliver(struct fuzz_conn *conn);
/* All of them, of tame ones and cores */
bool fuzz_deliver_all(void);
/* Frees those that are closed. */
void fuzz_conns_sweep(void);
/* Open, or being opened; of those whose other end is ours. NULL if none. */
struct fuzz_conn *fuzz_conn_choose(void);
static inline const char *fuzz_conn_name(const struct fuzz_conn *conn)
{
	return t_strconcat(net_ip2addr(&conn->peer->source_ip),
			   conn->peer->incoming ? "/in" : "/out", NULL);
}
static inline bool fuzz_conn_is_open(const struct fuzz_conn *conn)
{
	return conn->peer != NULL && conn->peer->state != RING_PEER_CONNECTING;
}

/* -- fuzz-ring-node.c: the core's other surroundings -- */

void fuzz_node_start(struct fuzz_node *node, bool restore);
void fuzz_node_stop(struct fuzz_node *node);
/* Runs the core if it wants to now. */
void fuzz_run(struct fuzz_node *node);
/* Lets msecs pass: what comes is delivered, the core runs when it wants to.
   asleep: nothing of that before the end */
void fuzz_pass(uint64_t msecs, bool asleep);
void fuzz_node_lookup(struct fuzz_node *node);
void fuzz_node_session(struct fuzz_node *node);
void fuzz_node_admin(struct fuzz_node *node);

/* -- fuzz-ring-move.c: moves, kicks, flushes -- */

extern const struct director_session_vfuncs fuzz_session_vfuncs;
void fuzz_kick(void *context, struct session_plugin *plugin, uint32_t hash,
	       const struct ip_addr *except, const char *reason);
void fuzz_kick_backend(void *context, struct session_plugin *plugin,
		       const struct ip_addr *ip, const char *reason);
bool fuzz_flush_hook(void *context, const struct director_flush_hook *hook);
/* An administrator, or what is kicked ends, or a hook. */
void fuzz_node_move(struct fuzz_node *node);
/* All sessions and hooks end. */
void fuzz_node_ends(struct fuzz_node *node);
/* Nobody is being moved or flushed. */
bool fuzz_moves_are_over(struct fuzz_node *node);
/* Users are held if they are being moved, and no others are. */
void fuzz_check_moves(struct fuzz_node *node);
/* This USER-KILLED: nobody is left here. */
void fuzz_check_killed(struct fuzz_node *node, const struct ring_message *msg);
void fuzz_check_answer(struct fuzz_node *node, const char *tag, uint32_t hash);

/* -- fuzz-ring-check.c: what always holds -- */

/* Something is done to the core that it may answer by lines, in proportion to
   what is there; or by all that it knows. */
void fuzz_allow(struct fuzz_node *node, unsigned int events);
void fuzz_allow_all(struct fuzz_node *node);
/* The core is run. */
void fuzz_check_run(struct fuzz_node *node);
void fuzz_check_dial(struct fuzz_node *node, const struct ring_address *to);
void fuzz_check_line(struct fuzz_conn *conn, const char *line);
void fuzz_check_log(struct fuzz_node *node, const char *text);
/* For the log of somebody */
void fuzz_check_text(const char *text);
void fuzz_check_step(void);
/* The others are gone, or never answer: the cores go on alone or with each
   other. */
void fuzz_check_end(bool silent);

#endif
