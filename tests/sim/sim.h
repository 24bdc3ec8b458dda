#ifndef SIM_H
#define SIM_H

/* A ring of directors in one process: N cores, a network, clients and trouble,
   all made from one seed. Nothing here reads a clock, and
   nothing depends on an address: the same seed gives the same history. */

#include "lib.h"
#include "array.h"
#include "net.h"
#include "director/core/director.h"
#include "sim-queue.h"
#include "sim-rand.h"
#include "sim-tally.h"

#define SIM_MAX_NODES 20
#define SIM_MAX_BACKENDS 8
#define SIM_MAX_USERS 40
/* Users who log in only at the end, to see whether that works */
#define SIM_MAX_PROBES 4
#define SIM_MAX_TAGS 2
#define SIM_PROCESSES 2
#define SIM_NONE UINT_MAX

/* Virtual time is in microseconds. */
#define SIM_MSECS(n) ((uint64_t)(n) * 1000)
#define SIM_SECS(n) ((uint64_t)(n) * 1000000)
/* The machines' clocks at virtual time 0, before their skew */
#define SIM_EPOCH_SECS 1700000000
/* After a director's death its plugins end their sessions (design.md, rule 5), so
   that they are over within the grace: director_settings_plugin_grace_msecs() */
#define SIM_ORPHAN_GRACE SIM_SECS(12)
#define SIM_PLUGIN_PING (SIM_ORPHAN_GRACE / 4)
/* director_user_kick_delay */
#define SIM_KICK_DELAY SIM_SECS(2)
/* A lookup waits at most so long */
#define SIM_LOOKUP_MAX SIM_MSECS(DIRECTOR_LOOKUP_TIMEOUT_MSECS + 200)

/* -- What the seed says (sim-plan.c) -- */

enum sim_plan_type {
	PLAN_START,
	PLAN_LOGIN,
	PLAN_REFRESH,
	/* a: for how long (0 = for ever), b: enum sim_stop, c: enum
	   sim_restore */
	PLAN_KILL,
	/* a: for how long */
	PLAN_PAUSE,
	/* a: nodes of one side (bits), b: for how long, c: directions that are
	   cut (1 = out of these nodes, 2 = to them) */
	PLAN_CUT,
	/* The same for the link node-node2 */
	PLAN_CUT_LINK,
	/* Links of the node get this latency (a) for a while (b) */
	PLAN_LATENCY,
	/* a: by so much (signed) */
	PLAN_CLOCK,
	/* a: enum sim_host_command, b: backend, c: vhosts */
	PLAN_HOST,
	/* node: who joins, node2: where the administrator says so */
	PLAN_RING_ADD,
	/* node: who goes, node2: where it's said, a: when it's stopped, b: when
	   it comes back after that (0 = never) */
	PLAN_RING_REMOVE,
	/* a: which connection of the node */
	PLAN_RESET,
	/* The same; b: for how long */
	PLAN_STALL,
	/* a: user and tag, b: backend */
	PLAN_MOVE,
	/* b: backend (SIM_NONE: all), c: how many at once */
	PLAN_FLUSH,
	/* a: which login process of the node */
	PLAN_PROCESS_CRASH,
	/* b: for how long */
	PLAN_PROCESS_STOP,
	/* Its plugin's connection breaks; b: until there is a new one, c: enum
	   sim_plugin_loss */
	PLAN_PLUGIN_LOST,
	PLAN_TYPES
};

enum sim_stop {
	SIM_STOP_KILL,
	SIM_STOP_MACHINE,
	SIM_STOP_CLEAN,
};

enum sim_restore {
	SIM_RESTORE_NOTHING,
	SIM_RESTORE_JOURNAL,
};

enum sim_plugin_loss {
	SIM_PLUGIN_LOSS_NOTHING,
	/* What was on its way */
	SIM_PLUGIN_LOSS_MESSAGES,
	/* The director sees it only after the new connection. */
	SIM_PLUGIN_LOSS_LATE,
};

enum sim_host_command {
	SIM_HOST_UP,
	SIM_HOST_DOWN,
	SIM_HOST_VHOSTS,
	SIM_HOST_ADD,
	/* Unsafe: users are forgotten */
	SIM_HOST_REMOVE,
	SIM_HOST_FLUSH,
	SIM_HOST_FLUSH_ALL,
};

/* PLAN_LOGIN, a: user, and */
#define SIM_LOGIN_USER(a) ((a) & 0xff)
#define SIM_LOGIN_TAG(a) (((a) >> 8) & 0xff)
/* No login process: LMTP, doveadm */
#define SIM_LOGIN_LMTP 0x10000
/* The client is gone when the answer comes. */
#define SIM_LOGIN_DROPPED 0x20000
/* b: microseconds until START, c: until END */

struct sim_plan_item {
	uint64_t time;
	enum sim_plan_type type;
	unsigned int node, node2;
	uint64_t a, b, c;
	/* Taken out, to find a short history */
	bool disabled;
};

struct sim_backend {
	struct ip_addr ip;
	char name[MAX_IP_LEN];
	const char *tag;
	/* director_mail_servers has it */
	bool configured;
};

struct sim_plan {
	uint64_t seed;
	unsigned int nodes_count, backends_count, users_count, tags_count;
	struct ring_address addresses[SIM_MAX_NODES];
	/* In the settings of all from the start */
	bool configured[SIM_MAX_NODES];
	/* Taken out, to find a short history */
	bool absent[SIM_MAX_NODES];
	uint64_t mono_base[SIM_MAX_NODES];
	int64_t skew[SIM_MAX_NODES];
	struct sim_backend backends[SIM_MAX_BACKENDS];
	uint64_t latency[SIM_MAX_NODES][SIM_MAX_NODES];
	uint64_t max_latency;
	size_t window;
	unsigned int expire_secs;
	/* When trouble and logins end */
	uint64_t duration;
	bool trouble[PLAN_TYPES];
	/* PLAN_HOST may make the directors forget users. */
	bool unsafe;
	/* What plugins tell is on its way for a while. */
	bool late_plugins;
	/* proxy-notify doesn't tell of sessions. */
	bool no_notify;
	ARRAY(struct sim_plan_item) items;
};

void sim_plan_init(struct sim_plan *plan, uint64_t seed);
void sim_plan_deinit(struct sim_plan *plan);
const char *sim_plan_item_str(const struct sim_plan *plan,
			      const struct sim_plan_item *item);

/* -- Directors (sim-node.c) -- */

enum sim_node_state {
	/* Hasn't been started yet */
	SIM_NODE_NEW,
	SIM_NODE_RUNNING,
	/* SIGSTOP */
	SIM_NODE_PAUSED,
	/* The process is gone, the machine runs. */
	SIM_NODE_DEAD,
	SIM_NODE_OFF,
};

struct sim_session;
struct sim_process;
struct sim_link;

/* Something that happens in a director that is paused */
struct sim_pending {
	sim_event_func_t *func;
	void *arg;
	uint64_t value;
};

struct sim_node {
	struct sim *sim;
	unsigned int idx;
	char name[8];
	struct ring_address address;
	enum sim_node_state state;
	/* Of the state */
	uint64_t since;
	/* Counts starts; when it said that it started */
	unsigned int incarnation;
	uint64_t started_msecs;
	/* An administrator removed it from the ring; when, by the clock of the
	   director that he told */
	bool removed;
	time_t removed_clock;
	/* In the settings of directors that start now */
	bool configured;
	/* It will be started again, with what it remembers. */
	bool comes_back;
	enum sim_restore comeback;
	/* Nothing else happened while it was removed: nobody may know it any
	   more. */
	bool cleanly_removed;
	/* It was removed, or added again (last when), while its administrator
	   saw a part of the ring only: there may be two rings until he looks
	   (sim_nemesis_repair()). */
	bool torn;
	uint64_t added_time;
	/* The world is gone for it: nothing of it goes out. */
	bool dying;

	uint64_t mono_base;
	int64_t skew;
	/* The core's wall clock minus its monotonic one, msecs */
	int64_t wall_offset;

	struct director *core;
	/* When it'll be called, monotonic msecs; UINT64_MAX = never */
	uint64_t timer_msecs;
	unsigned int timer_generation;
	/* Calls in this virtual second, connects in these ten */
	uint64_t calls_second, connects_period;
	unsigned int calls, connects;
	/* Set by the core: look at admin commands that wait. */
	bool ring_synced;

	/* NULL: not yet */
	struct sim_process *processes[SIM_PROCESSES];
	/* Connections of their plugins that the director knows */
	ARRAY(struct sim_link *) links;
	ARRAY(struct sim_pending) pending, admin;
	/* Lookups that wait, the oldest first */
	struct sim_session *waiting_head, *waiting_tail;

	pool_t journal_pool;
	ARRAY(struct director_record) journal;
};

struct director_time sim_node_time(const struct sim_node *node);
void sim_node_start(struct sim_node *node, enum sim_restore restore);
void sim_node_stop(struct sim_node *node, enum sim_stop how);
void sim_node_pause(struct sim_node *node);
void sim_node_continue(struct sim_node *node);
/* Calls func now if the director runs, later if it is paused. FALSE if there is
   none. */
bool sim_node_post(struct sim_node *node, sim_event_func_t *func, void *arg,
		   uint64_t value);
/* The same, but not before its ring is synced */
bool sim_node_post_synced(struct sim_node *node, sim_event_func_t *func,
			  void *arg, uint64_t value);
/* After each call of the core */
void sim_node_called(struct sim_node *node);
void sim_node_deinit(struct sim_node *node);
static inline bool sim_node_runs(const struct sim_node *node)
{
	return node->state == SIM_NODE_RUNNING;
}
/* Is the other one a member of its ring? Its core exists. */
bool sim_node_knows(const struct sim_node *node, const struct sim_node *other);
/* The machine's clock, seconds since 1970 */
time_t sim_node_clock(const struct sim_node *node);

/* -- The network (sim-net.c): see there -- */

struct sim_net;
struct sim_end;

struct sim_net *sim_net_init(struct sim *sim);
void sim_net_deinit(struct sim_net **net);
void sim_net_connect(struct sim_node *node, struct sim_node *to,
		     struct ring_peer *peer);
void sim_net_send(struct sim_end *end, const void *data, size_t size);
size_t sim_net_queued(const struct sim_end *end);
void sim_net_close(struct sim_end *end);
/* Its process is gone; silent: the machine too */
void sim_net_node_gone(struct sim_node *node, bool silent);
void sim_net_node_booted(struct sim_node *node);
/* It is continued: whatever happened meanwhile happens now. */
void sim_net_node_continued(struct sim_node *node);
/* Counted */
void sim_net_cut(struct sim_net *net, unsigned int from, unsigned int to);
void sim_net_heal(struct sim_net *net, unsigned int from, unsigned int to);
bool sim_net_is_cut(const struct sim_net *net, unsigned int from,
		    unsigned int to);
/* In microseconds, both ways */
uint64_t sim_net_round_trip(const struct sim_net *net, unsigned int i,
			    unsigned int j);
void sim_net_set_latency(struct sim_net *net, unsigned int from,
			 unsigned int to, uint64_t usecs);
void sim_net_reset(struct sim_node *node, unsigned int nth);
void sim_net_stall(struct sim_node *node, unsigned int nth, uint64_t usecs);
/* Ends what sim_net_stall() did. */
void sim_net_rest(struct sim_net *net);

/* -- Clients (sim-client.c) -- */

void sim_client_login(struct sim *sim, const struct sim_plan_item *item);
/* A user who never logged in before, on this director */
void sim_client_probe(struct sim_node *node, unsigned int probe);
/* When the oldest lookup that still waits there began; UINT64_MAX: none */
uint64_t sim_client_waits_since(const struct sim_node *node);
void sim_client_refresh(struct sim *sim, const struct sim_plan_item *item);
void sim_client_kick(struct sim_node *node, const struct session_plugin *plugin,
		     uint32_t hash, const struct ip_addr *except);
void sim_client_lookup_done(struct director_lookup *lookup, bool success);
/* The director has gone. Its sessions live on for a while if the login
   processes do. */
void sim_client_node_stopped(struct sim_node *node, bool sessions_live);
/* It is hung: its plugins hear nothing of it. */
void sim_client_node_paused(struct sim_node *node);
/* A login process crashes, is stopped, or loses its director. */
void sim_process_trouble(struct sim *sim, const struct sim_plan_item *item);
/* All that are stopped go on. */
void sim_process_rest(struct sim_node *node);
/* They connect, and announce what they have. */
/* journal: it has the records of the one before. */
void sim_process_director_started(struct sim_node *node, bool journal);
bool sim_process_lives(struct sim_node *node, pid_t pid);
void sim_client_end_all(struct sim *sim);
const char *sim_client_user(unsigned int user);

/* -- Trouble (sim-nemesis.c) -- */

void sim_nemesis(struct sim *sim, struct sim_plan_item *item);
/* Everything heals, and stays so. */
void sim_nemesis_rest(struct sim *sim);
/* Directors that nobody else knows are added to the ring. */
void sim_nemesis_repair(struct sim *sim);
/* The last trouble is so long ago that nothing of it may be felt. */
bool sim_is_calm(const struct sim *sim, uint64_t since);
/* For a message to get round, with some to spare */
uint64_t sim_round_time(const struct sim *sim);

/* -- The world (sim-run.c) -- */

struct sim_check;

struct sim {
	struct sim_plan *plan;
	uint64_t now;
	struct sim_queue *queue;
	struct sim_net *net;
	struct sim_check *check;
	struct sim_tally *tally;
	pool_t pool;

	struct sim_node nodes[SIM_MAX_NODES];
	unsigned int nodes_count;
	ARRAY(struct sim_session *) sessions;

	bool resting;
	/* No sessions any more */
	bool ending;
	/* When something was last done to the ring */
	uint64_t trouble_time;
	/* When directors last came or went, or were cut off */
	uint64_t isolating_time;
	/* Lines of the ring, and those that aren't PING or PONG */
	uint64_t lines, busy_lines;
	/* Of all that happened */
	uint64_t digest;
	bool verbose;

	/* What went wrong: the check's name, and what it saw */
	char *failure, *failure_text;
};

/* Runs the plan. TRUE if nothing went wrong; else failure_r (its kind) and
   text_r have to be freed. */
bool sim_run(struct sim_plan *plan, bool verbose, struct sim_tally *tally,
	     uint64_t *digest_r, char **failure_r, char **text_r);
void sim_after(struct sim *sim, uint64_t usecs, sim_event_func_t *func,
	       void *arg, uint64_t value);
void sim_fail(struct sim *sim, const char *kind, const char *format, ...)
	ATTR_FORMAT(3, 4);
/* For --verbose */
void sim_trace_line(struct sim *sim, const struct sim_node *node,
		    const char *format, ...) ATTR_FORMAT(3, 4);
#define sim_trace(sim, node, ...) \
	STMT_START { \
		if ((sim)->verbose) \
			sim_trace_line(sim, node, __VA_ARGS__); \
	} STMT_END
/* This has happened. */
void sim_history(struct sim *sim, const void *data, size_t size);
void sim_history_number(struct sim *sim, uint64_t number);

#endif
