/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* One director: what the daemon does around the core, in virtual time. */

#include "sim.h"
#include "sim-check.h"
#include "director/core/username-hash.h"

/* Calls of the core in a virtual second: more is a loop that never ends */
#define NODE_MAX_CALLS 20000
/* Attempts to connect in NODE_CONNECTS_PERIOD: a few to each other director,
   more is a storm */
#define NODE_CONNECTS_PERIOD SIM_SECS(10)
#define NODE_MAX_CONNECTS(sim) (20 + 10 * (sim)->nodes_count)
/* As the daemon waits between slices of work */
#define NODE_SLICE_PAUSE SIM_MSECS(1)

bool sim_node_knows(const struct sim_node *node, const struct sim_node *other)
{
	const struct ring_member *member;

	member = ring_member_lookup(ring_get_members(
		director_ring(node->core)), &other->address);
	return member != NULL && !member->removed;
}

time_t sim_node_clock(const struct sim_node *node)
{
	return (SIM_SECS((uint64_t)SIM_EPOCH_SECS) + node->sim->now +
		node->skew) / 1000000;
}

static uint64_t node_msecs(const struct sim_node *node)
{
	return (node->mono_base + node->sim->now) / 1000;
}

struct director_time sim_node_time(const struct sim_node *node)
{
	struct director_time now;

	now.msecs = node_msecs(node);
	now.wall = ((int64_t)now.msecs + node->wall_offset) / 1000;
	now.clock = sim_node_clock(node);
	return now;
}

/* -- What the core wants -- */

/* The journal has the machine's time. */
static time_t to_journal(const struct sim_node *node, time_t t)
{
	struct director_time now = sim_node_time(node);

	return t == 0 ? 0 : t - now.wall + now.clock;
}

static void
journal_add(struct sim_node *node, const struct director_record *record)
{
	struct director_record *copy = array_append_space(&node->journal);

	*copy = *record;
	copy->tag = p_strdup(node->journal_pool, record->tag);
	copy->hostname = p_strdup(node->journal_pool, record->hostname);
	copy->timestamp = to_journal(node, record->timestamp);
}

static void node_record(void *context, const struct director_record *record)
{
	struct sim_node *node = context;

	if (node->dying)
		return;
	journal_add(node, record);
	/* Who joins forgets its own, too. */
	if ((record->type == DIRECTOR_RECORD_HOST_REMOVE ||
	     record->type == DIRECTOR_RECORD_HOST_FLUSH) &&
	    node->core != NULL && ring_is_handshaked(director_ring(node->core)))
		sim_check_forgotten(node->sim->check, &record->ip);
}

static void node_log(void *context, enum log_type type, const char *text)
{
	struct sim_node *node = context;

	if (node->dying)
		return;
	sim_tally_log(node->sim->tally, text);
	sim_trace(node->sim, node, "%s: %s",
		  type == LOG_TYPE_DEBUG ? "debug" :
		  type == LOG_TYPE_INFO ? "info" :
		  type == LOG_TYPE_WARNING ? "warning" : "error", text);
}

static void node_lookup_done(void *context ATTR_UNUSED,
			     struct director_lookup *lookup, bool success)
{
	sim_client_lookup_done(lookup, success);
}

static void node_changes_recorded(void *context ATTR_UNUSED)
{
}

static void node_ring_synced(void *context)
{
	struct sim_node *node = context;

	sim_trace(node->sim, node, "SYNCED");
	node->ring_synced = TRUE;
}

static void node_connect(void *context, struct ring_peer *peer)
{
	struct sim_node *node = context;
	struct sim *sim = node->sim;
	uint64_t period = sim->now / NODE_CONNECTS_PERIOD;
	unsigned int i;

	if (period != node->connects_period) {
		node->connects_period = period;
		node->connects = 0;
	}
	if (++node->connects > NODE_MAX_CONNECTS(sim)) {
		sim_fail(sim, "storm", "%s connects to %s and others again and "
			 "again", node->name, peer->member->name);
	}
	for (i = 0; i < sim->nodes_count; i++) {
		if (ring_address_cmp(&sim->nodes[i].address,
				     &peer->member->address) == 0) {
			sim_net_connect(node, &sim->nodes[i], peer);
			return;
		}
	}
	i_panic("%s connects to unknown %s", node->name, peer->member->name);
}

static void node_send(void *context, struct ring_peer *peer,
		      const void *data, size_t size)
{
	struct sim_node *node = context;

	if (!node->dying) {
		sim_check_sent(node->sim->check, node, data, size);
		sim_net_send(peer->connection, data, size);
	}
}

static size_t node_queued(void *context ATTR_UNUSED, struct ring_peer *peer)
{
	return peer->connection == NULL ? 0 : sim_net_queued(peer->connection);
}

static void node_close(void *context, struct ring_peer *peer)
{
	struct sim_node *node = context;

	if (!node->dying && peer->connection != NULL)
		sim_net_close(peer->connection);
}

static void node_kick(void *context, struct session_plugin *plugin,
		      uint32_t hash, const struct ip_addr *except,
		      const char *reason ATTR_UNUSED)
{
	struct sim_node *node = context;

	if (!node->dying)
		sim_client_kick(node, plugin, hash, except);
}

struct node_hook {
	struct sim_node *node;
	struct director_flush_hook hook;
	unsigned int incarnation;
};

static void node_hook_ended(struct sim *sim ATTR_UNUSED, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	struct node_hook *hook = arg;
	struct sim_node *node = hook->node;
	struct director_time now = sim_node_time(node);

	if (node->incarnation != hook->incarnation || node->core == NULL)
		return;
	director_flush_hook_ended(node->core, hook->hook.hash, hook->hook.id,
				  &now);
	sim_node_called(node);
}

static void node_hook_over(struct sim *sim ATTR_UNUSED, void *arg,
			   uint64_t value ATTR_UNUSED)
{
	struct node_hook *hook = arg;

	(void)sim_node_post(hook->node, node_hook_ended, hook, 0);
}

/* For some users it takes a while. */
static bool
node_flush_hook(void *context, const struct director_flush_hook *hook)
{
	struct sim_node *node = context;
	struct node_hook *run;

	if (hook->hash % 4 != 0)
		return FALSE;
	run = p_new(node->sim->pool, struct node_hook, 1);
	run->node = node;
	run->hook = *hook;
	run->incarnation = node->incarnation;
	sim_after(node->sim, SIM_MSECS(hook->hash / 4 % 3000), node_hook_over,
		  run, 0);
	return TRUE;
}

static bool node_process_lives(void *context, pid_t pid,
			       uint64_t msecs ATTR_UNUSED)
{
	return sim_process_lives(context, pid);
}

static const struct director_vfuncs node_vfuncs = {
	.kick = node_kick,
	.record = node_record,
	.process_lives = node_process_lives,
	.log = node_log,
	.lookup_done = node_lookup_done,
	.changes_recorded = node_changes_recorded,
	.ring_synced = node_ring_synced,
	.flush_hook = node_flush_hook,
	.ring = {
		.connect = node_connect,
		.send = node_send,
		.queued = node_queued,
		.close = node_close,
	},
};

/* -- Time -- */

static void node_schedule(struct sim_node *node);

static void node_timer(struct sim *sim, void *arg, uint64_t generation)
{
	struct sim_node *node = arg;
	struct director_time now;

	if (generation != node->timer_generation || !sim_node_runs(node))
		return;
	node->timer_msecs = UINT64_MAX;
	now = sim_node_time(node);
	if (director_run(node->core, &now)) {
		node->timer_msecs = 0;
		node->timer_generation++;
		sim_after(sim, NODE_SLICE_PAUSE, node_timer, node,
			  node->timer_generation);
	}
	sim_node_called(node);
}

static void node_schedule(struct sim_node *node)
{
	struct director_time now = sim_node_time(node);
	uint64_t time, deadline = director_next_deadline(node->core, &now);

	if (deadline == 0 || deadline >= node->timer_msecs)
		return;
	node->timer_msecs = deadline;
	node->timer_generation++;
	time = SIM_MSECS(deadline) < node->mono_base ? 0 :
		SIM_MSECS(deadline) - node->mono_base;
	sim_queue_add(node->sim->queue, I_MAX(time, node->sim->now),
		      node_timer, node, node->timer_generation);
}

static void node_run_admin(struct sim_node *node)
{
	struct sim_pending pending;

	while (node->core != NULL && array_count(&node->admin) > 0 &&
	       ring_is_synced(director_ring(node->core))) {
		pending = *array_front(&node->admin);
		array_pop_front(&node->admin);
		pending.func(node->sim, pending.arg, pending.value);
	}
}

void sim_node_called(struct sim_node *node)
{
	struct sim *sim = node->sim;

	if (node->core == NULL || node->dying)
		return;
	if (sim->now / 1000000 != node->calls_second) {
		node->calls_second = sim->now / 1000000;
		node->calls = 0;
	}
	if (++node->calls == NODE_MAX_CALLS)
		sim_fail(sim, "spins", "%s never comes to rest", node->name);
	if (node->ring_synced) {
		node->ring_synced = FALSE;
		node_run_admin(node);
	}
	node_schedule(node);
}

bool sim_node_post(struct sim_node *node, sim_event_func_t *func, void *arg,
		   uint64_t value)
{
	const struct sim_pending pending = { func, arg, value };

	switch (node->state) {
	case SIM_NODE_RUNNING:
		func(node->sim, arg, value);
		return TRUE;
	case SIM_NODE_PAUSED:
		array_push_back(&node->pending, &pending);
		return TRUE;
	case SIM_NODE_NEW:
	case SIM_NODE_DEAD:
	case SIM_NODE_OFF:
		break;
	}
	return FALSE;
}

bool sim_node_post_synced(struct sim_node *node, sim_event_func_t *func,
			  void *arg, uint64_t value)
{
	const struct sim_pending pending = { func, arg, value };

	if (node->state != SIM_NODE_RUNNING)
		return FALSE;
	array_push_back(&node->admin, &pending);
	node_run_admin(node);
	return TRUE;
}

/* -- Start and end -- */

static void node_restore(struct sim_node *node, time_t alive_until)
{
	struct director_time now = sim_node_time(node);
	const struct director_record *record;
	struct director_record copy;

	array_foreach(&node->journal, record) {
		copy = *record;
		if (copy.type == DIRECTOR_RECORD_USER)
			copy.timestamp = I_MAX(copy.timestamp, alive_until);
		if (copy.timestamp != 0)
			copy.timestamp += now.wall - now.clock;
		director_restore(node->core, &copy, &now);
	}
}

static void node_configure(struct sim_node *node)
{
	struct sim_plan *plan = node->sim->plan;
	struct director_time now = sim_node_time(node);
	struct director_record records[SIM_MAX_BACKENDS];
	unsigned int i, count = 0;

	for (i = 0; i < plan->backends_count; i++) {
		if (!plan->backends[i].configured)
			continue;
		i_zero(&records[count]);
		records[count].type = DIRECTOR_RECORD_CONFIG;
		records[count].ip = plan->backends[i].ip;
		records[count].tag = plan->backends[i].tag;
		count++;
	}
	director_configure(node->core, records, count, FALSE, &now);
}

static void
node_dump_record(void *context, const struct director_record *record)
{
	journal_add(context, record);
}

/* The journal is written anew. */
static void node_journal_start(struct sim_node *node)
{
	struct director_time now = sim_node_time(node);
	uint32_t pos = 0;

	if (node->journal_pool != NULL)
		pool_unref(&node->journal_pool);
	node->journal_pool = pool_alloconly_create("journal", 1024);
	array_clear(&node->journal);
	while (director_dump(node->core, &pos, 1000, &now, node_dump_record,
			     node)) ;
}

static void
node_core_init(struct sim_node *node)
{
	struct sim *sim = node->sim;
	struct director_time now = sim_node_time(node);
	struct sim_rand rand = {
		sim->plan->seed ^ (node->idx + 1) * 0x9e3779b97f4a7c15ULL ^
		(uint64_t)node->incarnation << 32
	};
	struct ring_address members[SIM_MAX_NODES];
	struct director_core_settings set = {
		.username_hash = USERNAME_HASH_DEFAULT_FORMAT,
		.master_user_separator = "",
		.user_expire_secs = sim->plan->expire_secs,
		.instance = sim_rand(&rand),
		.hash_key = sim_rand(&rand),
		.user_kick_delay_msecs = SIM_KICK_DELAY / 1000,
		.lost_grace_msecs = 15000,
		.ring = {
			.self = node->address,
			.members = members,
			.ping_idle_msecs = 30000,
			.ping_max_msecs = 60000,
			/* as the daemon does it */
			.started = now.clock * 1000ULL +
				sim->now / 1000 % 1000,
		},
	};
	unsigned int i;

	node->started_msecs = set.ring.started;
	for (i = 0; i < sim->nodes_count; i++) {
		if (!sim->plan->absent[i] && (sim->nodes[i].configured ||
					      i == node->idx)) {
			members[set.ring.members_count++] =
				sim->nodes[i].address;
		}
	}
	node->core = director_init(&set, &node_vfuncs, node, &now);
}

void sim_node_start(struct sim_node *node, enum sim_restore restore)
{
	struct sim *sim = node->sim;
	time_t alive_until = sim_node_clock(node) -
		(time_t)((sim->now - node->since) / 1000000);
	bool booted = node->state == SIM_NODE_OFF;

	if (node->core != NULL)
		return;
	node->incarnation++;
	node->state = SIM_NODE_RUNNING;
	node->since = sim->now;
	node->timer_msecs = UINT64_MAX;
	node->wall_offset = (int64_t)(SIM_SECS((uint64_t)SIM_EPOCH_SECS) +
		sim->now + node->skew) / 1000 - (int64_t)node_msecs(node);
	sim_trace(sim, node, "START %s%s", ring_address_str(&node->address),
		  restore == SIM_RESTORE_JOURNAL ? " with its journal" : "");
	if (booted)
		sim_net_node_booted(node);
	node_core_init(node);
	if (restore == SIM_RESTORE_JOURNAL)
		node_restore(node, alive_until);
	node_configure(node);
	node_journal_start(node);
	sim_check_world(sim->check);
	sim_process_director_started(node, restore == SIM_RESTORE_JOURNAL);
	sim_node_called(node);
}

void sim_node_stop(struct sim_node *node, enum sim_stop how)
{
	if (node->core == NULL)
		return;
	sim_trace(node->sim, node, "STOP%s", how == SIM_STOP_KILL ? " (killed)" :
		  how == SIM_STOP_MACHINE ? " (machine)" : "");
	node->dying = how != SIM_STOP_CLEAN ||
		node->state == SIM_NODE_PAUSED;
	sim_client_node_stopped(node, how == SIM_STOP_KILL);
	director_deinit(&node->core);
	node->state = how == SIM_STOP_MACHINE ? SIM_NODE_OFF : SIM_NODE_DEAD;
	node->since = node->sim->now;
	node->timer_generation++;
	sim_net_node_gone(node, how == SIM_STOP_MACHINE);
	array_clear(&node->pending);
	array_clear(&node->admin);
	node->dying = FALSE;
	sim_check_world(node->sim->check);
}

void sim_node_pause(struct sim_node *node)
{
	if (node->state != SIM_NODE_RUNNING)
		return;
	sim_trace(node->sim, node, "PAUSE");
	node->state = SIM_NODE_PAUSED;
	node->since = node->sim->now;
	sim_client_node_paused(node);
	sim_check_world(node->sim->check);
}

void sim_node_continue(struct sim_node *node)
{
	unsigned int i;

	if (node->state != SIM_NODE_PAUSED)
		return;
	sim_trace(node->sim, node, "CONTINUE");
	node->state = SIM_NODE_RUNNING;
	node->since = node->sim->now;
	sim_check_world(node->sim->check);
	/* the ioloop's order: timers first */
	node->timer_generation++;
	if (node->timer_msecs <= node_msecs(node))
		node_timer(node->sim, node, node->timer_generation);
	else {
		node->timer_msecs = UINT64_MAX;
		node_schedule(node);
	}
	sim_net_node_continued(node);
	for (i = 0; i < array_count(&node->pending); i++) {
		struct sim_pending pending =
			*array_idx(&node->pending, i);

		pending.func(node->sim, pending.arg, pending.value);
	}
	array_clear(&node->pending);
}

void sim_node_deinit(struct sim_node *node)
{
	sim_node_stop(node, SIM_STOP_KILL);
	if (node->journal_pool != NULL)
		pool_unref(&node->journal_pool);
	array_free(&node->journal);
	array_free(&node->pending);
	array_free(&node->admin);
	array_free(&node->links);
}
