/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What the plan does to the directors and to their network, and what their
   administrators do. */

#include "sim.h"
#include "sim-check.h"

#define NEMESIS_BY "nemesis: "
/* So long after the last trouble the ring has to be in order. */
#define CALM_TIME SIM_SECS(10)
/* A removed director is remembered for 30 s by all. */
#define CLEAN_REMOVAL_TIME SIM_SECS(35)

static struct sim_node *
nemesis_node(struct sim *sim, const struct sim_plan_item *item)
{
	return &sim->nodes[item->node];
}

uint64_t sim_round_time(const struct sim *sim)
{
	uint64_t latency = sim->plan->max_latency;

	if (sim->plan->trouble[PLAN_LATENCY])
		latency = I_MAX(latency, SIM_MSECS(1200));
	return latency * (3 * sim->nodes_count + 4);
}

bool sim_is_calm(const struct sim *sim, uint64_t since)
{
	return since > sim->trouble_time + CALM_TIME +
		2 * sim_round_time(sim);
}

/* Nobody is isolated, or was lately. */
static bool nemesis_is_whole(const struct sim *sim)
{
	unsigned int i, j;

	for (i = 0; i < sim->nodes_count; i++) {
		for (j = 0; j < sim->nodes_count; j++) {
			if (sim_net_is_cut(sim->net, i, j))
				return FALSE;
		}
		if (sim->nodes[i].configured && !sim->plan->absent[i] &&
		    !sim_node_runs(&sim->nodes[i]))
			return FALSE;
	}
	return sim->now > sim->isolating_time + CALM_TIME +
		2 * sim_round_time(sim);
}

/* isolating: directors come or go, or can't reach each other. */
static void nemesis_acts(struct sim *sim, bool isolating)
{
	unsigned int i;

	sim->trouble_time = sim->now;
	if (isolating)
		sim->isolating_time = sim->now;
	for (i = 0; i < sim->nodes_count && isolating; i++) {
		struct sim_node *node = &sim->nodes[i];

		if (node->removed && (node->core != NULL ||
				      sim->now < node->since +
						 CLEAN_REMOVAL_TIME))
			node->cleanly_removed = FALSE;
		if (node->added_time != 0 && sim->now < node->added_time +
						CALM_TIME + sim_round_time(sim))
			node->torn = TRUE;
	}
	sim_check_world(sim->check);
}

/* -- Processes -- */

static void nemesis_back(struct sim *sim, void *arg, uint64_t incarnation)
{
	struct sim_node *node = arg;

	if (!node->comes_back || node->incarnation != incarnation)
		return;
	node->comes_back = FALSE;
	nemesis_acts(sim, TRUE);
	sim_node_start(node, node->comeback);
}

static void nemesis_kill(struct sim *sim, const struct sim_plan_item *item)
{
	struct sim_node *node = nemesis_node(sim, item);
	unsigned int i, others = 0;

	if (node->core == NULL || node->removed)
		return;
	for (i = 0; i < sim->nodes_count; i++) {
		if (i != node->idx && !sim->nodes[i].removed &&
		    (sim->nodes[i].core != NULL || sim->nodes[i].comes_back))
			others++;
	}
	node->comes_back = item->a != 0 || others == 0;
	node->comeback = item->c;
	sim_node_stop(node, item->b);
	sim_after(sim, item->a == 0 ? SIM_SECS(5) : item->a, nemesis_back,
		  node, node->incarnation);
}

static void nemesis_continue(struct sim *sim, void *arg, uint64_t since)
{
	struct sim_node *node = arg;

	if (node->state != SIM_NODE_PAUSED || node->since != since)
		return;
	nemesis_acts(sim, TRUE);
	sim_node_continue(node);
}

static void nemesis_pause(struct sim *sim, const struct sim_plan_item *item)
{
	struct sim_node *node = nemesis_node(sim, item);

	if (!sim_node_runs(node))
		return;
	sim_node_pause(node);
	sim_after(sim, item->a, nemesis_continue, node, sim->now);
}

/* -- Network -- */

static void nemesis_cut_between(struct sim *sim, unsigned int i, unsigned int j,
				unsigned int directions, bool heal)
{
	void (*func)(struct sim_net *, unsigned int, unsigned int) =
		heal ? sim_net_heal : sim_net_cut;

	if ((directions & 1) != 0)
		func(sim->net, i, j);
	if ((directions & 2) != 0)
		func(sim->net, j, i);
}

static void
nemesis_cut_item(struct sim *sim, const struct sim_plan_item *item, bool heal)
{
	unsigned int i, j;

	sim_trace(sim, NULL, "%s %s", heal ? "HEAL" : "CUT",
		  sim_plan_item_str(sim->plan, item));
	if (item->type == PLAN_CUT_LINK) {
		nemesis_cut_between(sim, item->node, item->node2, item->c,
				    heal);
		return;
	}
	for (i = 0; i < sim->nodes_count; i++) {
		for (j = 0; j < sim->nodes_count; j++) {
			if ((item->a >> i & 1) != 0 && (item->a >> j & 1) == 0)
				nemesis_cut_between(sim, i, j, item->c, heal);
		}
	}
}

static void nemesis_heal(struct sim *sim, void *arg, uint64_t value ATTR_UNUSED)
{
	if (sim->resting)
		return;
	nemesis_cut_item(sim, arg, TRUE);
	nemesis_acts(sim, TRUE);
}

static void nemesis_cut(struct sim *sim, struct sim_plan_item *item)
{
	nemesis_cut_item(sim, item, FALSE);
	sim_after(sim, item->b, nemesis_heal, item, 0);
}

static void nemesis_set_latency(struct sim *sim, unsigned int node,
				uint64_t usecs)
{
	unsigned int i;

	for (i = 0; i < sim->nodes_count; i++) {
		sim_net_set_latency(sim->net, node, i, usecs != 0 ? usecs :
				    sim->plan->latency[node][i]);
		sim_net_set_latency(sim->net, i, node, usecs != 0 ? usecs :
				    sim->plan->latency[i][node]);
	}
	sim_check_world(sim->check);
}

static void nemesis_latency_back(struct sim *sim, void *arg,
				 uint64_t value ATTR_UNUSED)
{
	const struct sim_plan_item *item = arg;

	nemesis_set_latency(sim, item->node, 0);
	nemesis_acts(sim, FALSE);
}

static void nemesis_latency(struct sim *sim, struct sim_plan_item *item)
{
	nemesis_set_latency(sim, item->node, item->a);
	sim_after(sim, item->b, nemesis_latency_back, item, 0);
}

/* -- Administrators -- */

static void nemesis_host_do(struct sim *sim, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	const struct sim_plan_item *item = arg;
	const struct sim_backend *backend = &sim->plan->backends[item->b];
	struct sim_node *node = nemesis_node(sim, item);
	struct director_time now = sim_node_time(node);
	enum director_host_result result = DIRECTOR_HOST_OK;

	sim_trace(sim, node, "ADMIN %s", sim_plan_item_str(sim->plan, item));
	switch ((enum sim_host_command)item->a) {
	case SIM_HOST_UP:
	case SIM_HOST_DOWN:
		result = director_host_set_down(node->core, &backend->ip,
						item->a == SIM_HOST_DOWN,
						NEMESIS_BY, &now);
		break;
	case SIM_HOST_VHOSTS:
	case SIM_HOST_ADD:
		result = director_host_set(node->core, &backend->ip,
					   backend->tag, item->c,
					   item->a == SIM_HOST_ADD,
					   NEMESIS_BY, &now);
		break;
	case SIM_HOST_REMOVE:
		result = director_host_remove(node->core, &backend->ip, FALSE,
					      NEMESIS_BY, &now);
		break;
	case SIM_HOST_FLUSH:
		result = director_host_flush(node->core, &backend->ip,
					     NEMESIS_BY, &now);
		break;
	case SIM_HOST_FLUSH_ALL:
		result = director_host_flush(node->core, NULL, NEMESIS_BY,
					     &now);
		break;
	}
	sim_trace(sim, node, "result: %u", result);
	if (item->a == SIM_HOST_FLUSH_ALL)
		sim_check_forgotten(sim->check, NULL);
	else if (item->a >= SIM_HOST_REMOVE)
		sim_check_forgotten(sim->check, &backend->ip);
	nemesis_acts(sim, FALSE);
	if (result == DIRECTOR_HOST_OK) {
		sim_check_commanded(sim->check, item,
				    nemesis_is_whole(sim));
	}
	sim_node_called(node);
}

static void nemesis_move(struct sim *sim, void *arg,
			 uint64_t value ATTR_UNUSED)
{
	const struct sim_plan_item *item = arg;
	const struct sim_backend *backend = &sim->plan->backends[item->b];
	struct sim_node *node = nemesis_node(sim, item);
	struct director_time now = sim_node_time(node);
	enum director_host_result result;
	const char *error;
	uint32_t hash;

	if (director_user_hash(node->core,
			       sim_client_user(SIM_LOGIN_USER(item->a)),
			       &hash, &error) < 0)
		i_unreached();
	sim_trace(sim, node, "ADMIN %s", sim_plan_item_str(sim->plan, item));
	result = director_user_move(node->core, hash, &backend->ip, NEMESIS_BY,
				    &now);
	sim_trace(sim, node, "result: %u", result);
	if (result == DIRECTOR_HOST_OK) {
		sim_check_moved(sim->check, SIM_LOGIN_USER(item->a),
				SIM_LOGIN_TAG(item->a), &backend->ip);
	}
	nemesis_acts(sim, FALSE);
	sim_node_called(node);
}

static void nemesis_flush(struct sim *sim, void *arg,
			  uint64_t value ATTR_UNUSED)
{
	const struct sim_plan_item *item = arg;
	struct sim_node *node = nemesis_node(sim, item);
	struct director_time now = sim_node_time(node);
	struct user_flush *flush;

	sim_trace(sim, node, "ADMIN %s", sim_plan_item_str(sim->plan, item));
	flush = director_flush_users(node->core, item->b == SIM_NONE ? NULL :
				     &sim->plan->backends[item->b].ip, item->c,
				     NEMESIS_BY, NULL, NULL, &now);
	if (flush != NULL)
		director_flush_unref(&flush, FALSE);
	nemesis_acts(sim, FALSE);
	sim_node_called(node);
}

static bool nemesis_linked(struct sim *sim, const struct sim_node *node1,
			   const struct sim_node *node2)
{
	return !sim_net_is_cut(sim->net, node1->idx, node2->idx) &&
		!sim_net_is_cut(sim->net, node2->idx, node1->idx);
}

/* Somebody in the ring who can be told, and can be reached by the newcomer. By
   its clock the newcomer wasn't removed later: who adds on the other side of a
   partition, by a clock that is behind, adds in vain, as it is documented. */
static struct sim_node *
nemesis_any(struct sim *sim, const struct sim_node *newcomer,
	    unsigned int preferred)
{
	unsigned int i;

	for (i = 0; i < sim->nodes_count; i++) {
		struct sim_node *node =
			&sim->nodes[(preferred + i) % sim->nodes_count];

		if (sim_node_runs(node) && !node->removed &&
		    (i == 0 || sim_node_time(node).clock >
			       newcomer->removed_clock) &&
		    nemesis_linked(sim, node, newcomer))
			return node;
	}
	return NULL;
}

static void nemesis_added(struct sim *sim, void *arg, uint64_t by)
{
	struct sim_node *node = arg, *admin = &sim->nodes[by];
	struct director_time now = sim_node_time(admin);

	if (sim->resting || node->core != NULL || (node->configured &&
						   !node->removed) ||
	    !nemesis_linked(sim, node, admin))
		return;
	sim_trace(sim, admin, "ADMIN ring add %s", node->name);
	node->removed = FALSE;
	node->configured = TRUE;
	ring_add_member(admin->core, &node->address, NEMESIS_BY, &now);
	if (!nemesis_is_whole(sim))
		node->torn = TRUE;
	nemesis_acts(sim, TRUE);
	node->added_time = sim->now;
	sim_node_called(admin);
	sim_node_start(node, node->comeback);
}

static void nemesis_ring_add(struct sim *sim, void *arg, uint64_t by)
{
	struct sim_node *node = arg, *admin = nemesis_any(sim, node, by);

	if (sim->resting || node->core != NULL)
		return;
	if (admin != NULL)
		(void)sim_node_post_synced(admin, nemesis_added, node,
					   admin->idx);
}

static void nemesis_removed_stop(struct sim *sim, void *arg,
				 uint64_t value ATTR_UNUSED)
{
	struct sim_node *node = arg;

	if (!node->removed)
		return;
	node->comes_back = FALSE;
	sim_node_stop(node, SIM_STOP_CLEAN);
	sim_check_world(sim->check);
}

static void nemesis_removed(struct sim *sim, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	const struct sim_plan_item *item = arg;
	struct sim_node *admin = &sim->nodes[item->node2];
	struct sim_node *node = nemesis_node(sim, item);
	struct director_time now = sim_node_time(admin);
	bool whole = nemesis_is_whole(sim);

	if (sim->resting || node->removed || !node->configured)
		return;
	sim_trace(sim, admin, "ADMIN ring remove %s", node->name);
	node->removed = TRUE;
	node->removed_clock = now.clock;
	node->configured = FALSE;
	nemesis_acts(sim, TRUE);
	node->cleanly_removed = whole;
	if (!whole)
		node->torn = TRUE;
	(void)ring_remove_member(admin->core, &node->address, NEMESIS_BY,
				 &now);
	sim_node_called(admin);
	sim_after(sim, item->a, nemesis_removed_stop, node, 0);
	if (item->b != 0) {
		node->comeback = item->b % 2;
		sim_after(sim, item->a + item->b, nemesis_ring_add, node,
			  item->node2);
	}
}

static void nemesis_host(struct sim *sim, struct sim_plan_item *item)
{
	(void)sim_node_post_synced(nemesis_node(sim, item), nemesis_host_do,
				   item, 0);
}

static void
nemesis_ring_remove(struct sim *sim, struct sim_plan_item *item)
{
	if (sim->nodes[item->node2].removed)
		return;
	(void)sim_node_post_synced(&sim->nodes[item->node2], nemesis_removed,
				   item, 0);
}

static bool nemesis_isolates(enum sim_plan_type type)
{
	switch (type) {
	case PLAN_LATENCY:
	case PLAN_CLOCK:
	case PLAN_HOST:
	case PLAN_RESET:
	case PLAN_STALL:
	case PLAN_MOVE:
	case PLAN_FLUSH:
	case PLAN_PROCESS_CRASH:
	case PLAN_PROCESS_STOP:
	case PLAN_PLUGIN_LOST:
		return FALSE;
	default:
		return TRUE;
	}
}

void sim_nemesis(struct sim *sim, struct sim_plan_item *item)
{
	struct sim_node *node = nemesis_node(sim, item);

	sim_history_number(sim, item->type);
	sim->tally->nemesis[item->type]++;
	if (item->type != PLAN_HOST && item->type != PLAN_RING_REMOVE)
		nemesis_acts(sim, nemesis_isolates(item->type));
	switch (item->type) {
	case PLAN_START:
		if (!node->removed)
			sim_node_start(node, SIM_RESTORE_NOTHING);
		break;
	case PLAN_KILL:
		nemesis_kill(sim, item);
		break;
	case PLAN_PAUSE:
		nemesis_pause(sim, item);
		break;
	case PLAN_CUT:
	case PLAN_CUT_LINK:
		nemesis_cut(sim, item);
		break;
	case PLAN_LATENCY:
		nemesis_latency(sim, item);
		break;
	case PLAN_CLOCK:
		sim_trace(sim, node, "CLOCK JUMPS by %lld ms",
			  (long long)item->a / 1000);
		node->skew += item->a;
		break;
	case PLAN_HOST:
		nemesis_host(sim, item);
		break;
	case PLAN_RING_ADD:
		nemesis_ring_add(sim, node, item->node2);
		break;
	case PLAN_RING_REMOVE:
		nemesis_ring_remove(sim, item);
		break;
	case PLAN_RESET:
		sim_trace(sim, node, "RESET");
		sim_net_reset(node, item->a);
		break;
	case PLAN_STALL:
		sim_trace(sim, node, "STALL");
		sim_net_stall(node, item->a, item->b);
		break;
	case PLAN_MOVE:
		(void)sim_node_post_synced(nemesis_node(sim, item),
					   nemesis_move, item, 0);
		break;
	case PLAN_FLUSH:
		(void)sim_node_post_synced(nemesis_node(sim, item),
					   nemesis_flush, item, 0);
		break;
	case PLAN_PROCESS_CRASH:
	case PLAN_PROCESS_STOP:
	case PLAN_PLUGIN_LOST:
		sim_process_trouble(sim, item);
		break;
	case PLAN_LOGIN:
	case PLAN_REFRESH:
	case PLAN_TYPES:
		i_unreached();
	}
	sim_check_world(sim->check);
}

static void nemesis_add(struct sim *sim, struct sim_node *admin,
			const struct sim_node *node)
{
	struct director_time now = sim_node_time(admin);

	if (sim_node_knows(admin, node))
		return;
	sim_trace(sim, admin, "ADMIN ring add %s", node->name);
	ring_add_member(admin->core, &node->address, NEMESIS_BY, &now);
	sim_node_called(admin);
}

static bool nemesis_knows_one(struct sim *sim, const bool *joined,
			      const struct sim_node *node)
{
	unsigned int i;

	for (i = 0; i < sim->nodes_count; i++) {
		if (joined[i] && sim_node_knows(&sim->nodes[i], node) &&
		    sim_node_knows(node, &sim->nodes[i]))
			return TRUE;
	}
	return FALSE;
}

/* Who knew it and was known to it is gone, or it was removed on one side of a
   partition and added on the other: the administrators see two rings. */
void sim_nemesis_repair(struct sim *sim)
{
	bool *joined = t_new(bool, sim->nodes_count), more;
	struct sim_node *node, *first = NULL;
	unsigned int i;

	do {
		more = FALSE;
		for (i = 0; i < sim->nodes_count; i++) {
			node = &sim->nodes[i];
			if (joined[i] || node->core == NULL || node->removed)
				continue;
			if (first == NULL)
				first = node;
			joined[i] = node == first ||
				nemesis_knows_one(sim, joined, node);
			if (joined[i])
				more = TRUE;
		}
	} while (more);

	for (i = 0; i < sim->nodes_count; i++) {
		node = &sim->nodes[i];
		if (!joined[i] && node->core != NULL && !node->removed) {
			nemesis_add(sim, first, node);
			nemesis_add(sim, node, first);
		}
	}
}

void sim_nemesis_rest(struct sim *sim)
{
	unsigned int i, j;

	sim_trace(sim, NULL, "REST");
	nemesis_acts(sim, FALSE);
	sim->resting = TRUE;
	for (i = 0; i < sim->nodes_count; i++) {
		for (j = 0; j < sim->nodes_count; j++) {
			while (sim_net_is_cut(sim->net, i, j))
				sim_net_heal(sim->net, i, j);
		}
		nemesis_set_latency(sim, i, 0);
	}
	for (i = 0; i < sim->nodes_count; i++) {
		struct sim_node *node = &sim->nodes[i];

		array_clear(&node->admin);
		sim_process_rest(node);
		sim_node_continue(node);
		if (node->removed)
			sim_node_stop(node, SIM_STOP_CLEAN);
		else if (node->comes_back)
			nemesis_back(sim, node, node->incarnation);
	}
	sim_net_rest(sim->net);
	sim_check_world(sim->check);
}
