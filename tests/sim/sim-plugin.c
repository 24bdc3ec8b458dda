/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Login processes, and what their plugins tell the director: late, twice, or
   not at all. */

#include "sim.h"
#include "sim-check.h"
#include "sim-client-private.h"

/* How long what a plugin tells may be on its way */
#define PLUGIN_MAX_DELAY SIM_MSECS(150)

enum plugin_message_type {
	PLUGIN_CONNECT,
	PLUGIN_START,
	PLUGIN_END,
	PLUGIN_ANNOUNCED,
	PLUGIN_CLOSED,
};

/* A connection of a plugin */
struct sim_link {
	struct sim_process *process;
	/* Of the director */
	unsigned int incarnation;
	pid_t pid;
	/* Of this process */
	unsigned int number;
	/* The director's; NULL: it doesn't know of the connection (any more) */
	struct session_plugin *plugin;
	uint64_t last_arrival;
	/* What is still on its way is lost. */
	bool lost;
};

struct plugin_message {
	struct sim_link *link;
	enum plugin_message_type type;
	struct sim_session *session;
};

static pid_t process_pid(const struct sim_process *process)
{
	return process->node->idx * 100000 + process->generation * 100 +
		process->slot + 1;
}

bool sim_process_lives(struct sim_node *node, pid_t pid)
{
	unsigned int i;

	for (i = 0; i < SIM_PROCESSES; i++) {
		if (node->processes[i] != NULL &&
		    process_pid(node->processes[i]) == pid)
			return TRUE;
	}
	return FALSE;
}

struct sim_process *
sim_process_get(struct sim_node *node, unsigned int slot)
{
	struct sim_process *process = node->processes[slot];

	if (process != NULL)
		return process;
	process = p_new(node->sim->pool, struct sim_process, 1);
	process->node = node;
	process->slot = slot;
	p_array_init(&process->pending, node->sim->pool, 4);
	node->processes[slot] = process;
	return process;
}

struct login_process *sim_process_ref(struct sim_process *process)
{
	if (process->director_side == NULL) {
		process->director_side = login_process_ref(
			director_leases(process->node->core),
			process_pid(process));
	}
	return process->director_side;
}

void sim_process_post(struct sim_process *process, sim_event_func_t *func,
		      void *arg, uint64_t value)
{
	const struct sim_pending pending = { func, arg, value };

	if (process->stopped)
		array_push_back(&process->pending, &pending);
	else
		func(process->node->sim, arg, value);
}

/* -- What the director gets -- */

static void plugin_start_arrives(struct sim_link *link,
				 struct sim_session *session,
				 const struct director_time *now)
{
	struct sim_node *node = session->node;
	struct session_lease *lease;
	const char *error;

	lease = director_session_start(node->core, link->plugin,
		&session->token, session->lookup.hash, &session->ip,
		session->since, now, &error);
	if (lease == NULL) {
		sim_fail(node->sim, "session", "%s: START of %s failed: %s",
			 node->name, session->lookup.username, error);
		return;
	}
	/* without its journal it may not know the backend */
	if (backend_lookup(director_backends(node->core), &session->ip) != NULL)
		sim_check_told(session->hold);
	director_session_up(node->core, lease, NULL, now);
}

static void plugin_arrives(struct sim *sim ATTR_UNUSED, void *arg,
			   uint64_t value ATTR_UNUSED)
{
	struct plugin_message *msg = arg;
	struct sim_link *link = msg->link, *const *links;
	struct sim_node *node = link->process->node;
	struct director_time now = sim_node_time(node);
	struct session_leases *leases;
	struct session_lease *lease;
	struct login_process *lp;
	unsigned int i, count;

	if (link->incarnation != node->incarnation || node->core == NULL ||
	    (link->plugin == NULL && msg->type != PLUGIN_CONNECT))
		return;
	leases = director_leases(node->core);
	switch (msg->type) {
	case PLUGIN_CONNECT:
		lp = login_process_ref(leases, link->pid);
		link->plugin = session_plugin_init(leases, lp);
		link->plugin->connection = link;
		link->plugin->number = link->number;
		director_process_connected(node->core, link->pid);
		if (link->pid == process_pid(link->process))
			link->process->recorded = TRUE;
		login_process_unref(leases, &lp);
		array_push_back(&node->links, &link);
		break;
	case PLUGIN_START:
		plugin_start_arrives(link, msg->session, &now);
		break;
	case PLUGIN_END:
		lease = session_lease_lookup(leases, &msg->session->token);
		if (lease != NULL && lease->plugin == link->plugin)
			director_session_end(node->core, &lease, &now);
		break;
	case PLUGIN_ANNOUNCED:
		director_sessions_announced(node->core, link->plugin, &now);
		break;
	case PLUGIN_CLOSED:
		links = array_get(&node->links, &count);
		for (i = 0; links[i] != link; i++)
			i_assert(i < count);
		array_delete(&node->links, i, 1);
		session_plugin_lost(leases, &link->plugin, now.msecs);
		break;
	}
	sim_node_called(node);
}

static void plugin_came(struct sim *sim ATTR_UNUSED, void *arg,
			uint64_t value ATTR_UNUSED)
{
	struct plugin_message *msg = arg;

	if (!msg->link->lost || msg->type == PLUGIN_CLOSED ||
	    msg->type == PLUGIN_CONNECT) {
		(void)sim_node_post(msg->link->process->node, plugin_arrives,
				    msg, 0);
	}
}

static void plugin_send(struct sim_link *link, enum plugin_message_type type,
			struct sim_session *session)
{
	struct sim *sim = link->process->node->sim;
	struct plugin_message *msg = p_new(sim->pool, struct plugin_message, 1);
	uint64_t mix = (sim->now + link->pid) * 0x9e3779b97f4a7c15ULL;

	msg->link = link;
	msg->type = type;
	msg->session = session;
	link->last_arrival = I_MAX(link->last_arrival, sim->now +
		(sim->plan->late_plugins ? (mix >> 32) % PLUGIN_MAX_DELAY : 0));
	if (link->last_arrival == sim->now)
		plugin_came(sim, msg, 0);
	else {
		sim_queue_add(sim->queue, link->last_arrival, plugin_came, msg,
			      0);
	}
}

/* -- What the plugin does -- */

static void plugin_tell(struct sim_link *link, struct sim_session *session)
{
	session->told = link;
	plugin_send(link, PLUGIN_START, session);
}

static void plugin_connect(struct sim *sim, void *arg,
			   uint64_t value ATTR_UNUSED)
{
	struct sim_process *process = arg;
	struct sim_node *node = process->node;
	struct sim_session *session;
	struct sim_link *link;

	if (process->link != NULL || node->core == NULL)
		return;
	link = p_new(sim->pool, struct sim_link, 1);
	link->process = process;
	link->incarnation = node->incarnation;
	link->pid = process_pid(process);
	link->number = ++process->connects;
	process->link = link;
	plugin_send(link, PLUGIN_CONNECT, NULL);
	array_foreach_elem(&sim->sessions, session) {
		if (session->process != process || !session->live ||
		    !session->started)
			continue;
		if (session->told != NULL) {
			sim_trace(sim, node, "announced: %s on %s",
				  session->lookup.username,
				  net_ip2addr(&session->ip));
			sim->tally->announced++;
		}
		plugin_tell(link, session);
	}
	plugin_send(link, PLUGIN_ANNOUNCED, NULL);
}

void sim_plugin_started(struct sim_session *session)
{
	struct sim_process *process = session->process;

	if (process->link == NULL)
		plugin_connect(process->node->sim, process, 0);
	else
		plugin_tell(process->link, session);
}

void sim_plugin_ended(struct sim_session *session)
{
	struct sim_link *link = session->process->link;

	if (link != NULL && session->told == link)
		plugin_send(link, PLUGIN_END, session);
}

static void plugin_connect_later(struct sim *sim ATTR_UNUSED, void *arg,
				 uint64_t generation)
{
	struct sim_process *process = arg;

	if (process->generation == generation)
		sim_process_post(process, plugin_connect, process, 0);
}

static void plugin_close_late(struct sim *sim ATTR_UNUSED, void *arg,
			      uint64_t value ATTR_UNUSED)
{
	plugin_send(arg, PLUGIN_CLOSED, NULL);
}

/* The connection breaks; it is made again after a while. */
static void plugin_lost(struct sim_process *process,
			const struct sim_plan_item *item)
{
	struct sim *sim = process->node->sim;
	struct sim_link *link = process->link;

	if (link == NULL)
		return;
	process->link = NULL;
	switch ((enum sim_plugin_loss)item->c) {
	case SIM_PLUGIN_LOSS_MESSAGES:
		link->lost = TRUE;
		/* fall through */
	case SIM_PLUGIN_LOSS_NOTHING:
		plugin_send(link, PLUGIN_CLOSED, NULL);
		break;
	case SIM_PLUGIN_LOSS_LATE:
		sim_after(sim, SIM_MSECS(300) + item->b, plugin_close_late,
			  link, 0);
		break;
	}
	sim_after(sim, item->b, plugin_connect_later, process,
		  process->generation);
}

/* -- The processes -- */

static void process_is_gone(struct sim *sim ATTR_UNUSED, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	struct sim_node *node = arg;

	sim_client_abort_gone(node);
	sim_node_called(node);
}

static void process_crash(struct sim_process *process)
{
	struct sim_node *node = process->node;
	struct sim_session *session;

	array_foreach_elem(&node->sim->sessions, session) {
		if (session->process == process)
			sim_session_over(session);
	}
	process->generation++;
	process->stopped = FALSE;
	process->recorded = FALSE;
	array_clear(&process->pending);
	if (process->link != NULL)
		plugin_send(process->link, PLUGIN_CLOSED, NULL);
	process->link = NULL;
	(void)sim_node_post(node, process_is_gone, node, 0);
	if (process->director_side != NULL && node->core != NULL) {
		login_process_unref(director_leases(node->core),
				    &process->director_side);
	}
}

static void process_set_stopped(struct sim_process *process, bool stopped)
{
	struct sim *sim = process->node->sim;
	struct sim_session *session;

	process->stopped = stopped;
	array_foreach_elem(&sim->sessions, session) {
		if (session->process == process && session->live)
			sim_check_stopped(sim->check, session->hold, stopped);
	}
}

static void process_continue(struct sim *sim, void *arg, uint64_t since)
{
	struct sim_process *process = arg;
	struct sim_pending pending;

	if (!process->stopped || process->stopped_since != since)
		return;
	sim_trace(sim, process->node, "login process %u goes on",
		  process->slot);
	process_set_stopped(process, FALSE);
	while (array_count(&process->pending) > 0) {
		pending = *array_front(&process->pending);
		array_pop_front(&process->pending);
		pending.func(sim, pending.arg, pending.value);
	}
}

void sim_process_trouble(struct sim *sim, const struct sim_plan_item *item)
{
	struct sim_node *node = &sim->nodes[item->node];
	struct sim_process *process = sim_process_get(node, item->a);

	if (node->state == SIM_NODE_NEW || node->state == SIM_NODE_OFF)
		return;
	sim_trace(sim, node, "%s", sim_plan_item_str(sim->plan, item));
	switch (item->type) {
	case PLAN_PROCESS_CRASH:
		process_crash(process);
		break;
	case PLAN_PROCESS_STOP:
		if (process->stopped)
			break;
		process_set_stopped(process, TRUE);
		process->stopped_since = sim->now;
		sim_after(sim, item->b, process_continue, process, sim->now);
		break;
	default:
		if (!process->stopped)
			plugin_lost(process, item);
		break;
	}
}

void sim_process_rest(struct sim_node *node)
{
	unsigned int i;

	for (i = 0; i < SIM_PROCESSES; i++) {
		if (node->processes[i] != NULL) {
			process_continue(node->sim, node->processes[i],
					 node->processes[i]->stopped_since);
		}
	}
}

/* -- Directors come and go -- */

void sim_process_director_gone(struct sim_node *node)
{
	struct session_leases *leases = director_leases(node->core);
	uint64_t msecs = sim_node_time(node).msecs;
	struct sim_process *process;
	struct sim_link *link;
	unsigned int i;

	array_foreach_elem(&node->links, link)
		session_plugin_lost(leases, &link->plugin, msecs);
	array_clear(&node->links);
	for (i = 0; i < SIM_PROCESSES; i++) {
		process = node->processes[i];
		if (process == NULL)
			continue;
		process->link = NULL;
		if (process->director_side != NULL) {
			login_process_unref(leases, &process->director_side);
		}
	}
}

void sim_process_director_started(struct sim_node *node, bool journal)
{
	struct sim_process *process;
	struct sim_session *session;
	unsigned int i;

	for (i = 0; i < SIM_PROCESSES; i++) {
		process = sim_process_get(node, i);
		sim_after(node->sim, SIM_MSECS((node->idx * 7919 + i * 31 +
						node->incarnation * 10473) %
					       1000), plugin_connect_later,
			  process, process->generation);
	}
	array_foreach_elem(&node->sim->sessions, session) {
		if (session->node == node && session->live &&
		    session->process->stopped &&
		    !(journal && session->process->recorded))
			sim_check_unseen(session->hold);
	}
}

struct sim_process *
sim_process_of_plugin(const struct session_plugin *plugin)
{
	struct sim_link *link = plugin->connection;

	return link->process->link == link ? link->process : NULL;
}
