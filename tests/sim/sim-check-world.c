/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who can talk to whom. */

#include "sim-check-private.h"

uint64_t check_grace(const struct sim_check *check)
{
	return CHECK_GRACE + sim_round_time(check->sim);
}

static bool check_is_up(const struct sim_node *node)
{
	return sim_node_runs(node) && !node->removed;
}

static bool
check_linked(const struct sim *sim, unsigned int i, unsigned int j)
{
	return !sim_net_is_cut(sim->net, i, j) &&
		!sim_net_is_cut(sim->net, j, i) &&
		sim_net_round_trip(sim->net, i, j) < CHECK_CONNECT_MAX;
}

static void check_components(struct sim_check *check)
{
	struct sim *sim = check->sim;
	unsigned int i, j, old, count = sim->nodes_count;

	for (i = 0; i < count; i++)
		check->components[i] = i;
	for (i = 0; i < count; i++) {
		for (j = 0; j < i; j++) {
			if (!check_is_up(&sim->nodes[i]) ||
			    !check_is_up(&sim->nodes[j]) ||
			    !check_linked(sim, i, j) ||
			    check->components[i] == check->components[j])
				continue;
			old = check->components[i];
			for (unsigned int k = 0; k < count; k++) {
				if (check->components[k] == old)
					check->components[k] =
						check->components[j];
			}
		}
	}
}

/* Do all of the component reach each other directly? */
static bool check_is_whole(struct sim_check *check, unsigned int component)
{
	struct sim *sim = check->sim;
	unsigned int i, j;

	for (i = 0; i < sim->nodes_count; i++) {
		for (j = 0; j < i; j++) {
			if (check->components[i] == component &&
			    check->components[j] == component &&
			    !check_linked(sim, i, j))
				return FALSE;
		}
	}
	return TRUE;
}

static enum sim_excuse
check_why_apart(struct sim_check *check, unsigned int i, unsigned int j)
{
	struct sim_node *nodes = check->sim->nodes;

	if (nodes[i].removed || nodes[j].removed)
		return SIM_EXCUSE_REMOVED;
	if (nodes[i].core == NULL || nodes[j].core == NULL)
		return SIM_EXCUSE_CRASH;
	if (nodes[i].state == SIM_NODE_PAUSED ||
	    nodes[j].state == SIM_NODE_PAUSED)
		return SIM_EXCUSE_HUNG;
	if (check->components[i] != check->components[j])
		return SIM_EXCUSE_PARTITION;
	return check_is_whole(check, check->components[i]) ? SIM_NO_EXCUSE :
		SIM_EXCUSE_PARTIAL;
}

static void check_user_died(struct check_user *user,
			    const struct sim_node *node)
{
	struct check_hold *hold;

	array_foreach_elem(&user->holds, hold) {
		if (hold->node == node && hold->director_died == 0)
			hold->director_died = node->sim->now;
	}
}

static void check_node(struct sim_check *check, const struct sim_node *node)
{
	struct sim *sim = check->sim;
	unsigned int i, j;

	if (node->state == SIM_NODE_PAUSED)
		check->paused[node->idx] = node->since;
	if (node->state == SIM_NODE_RUNNING &&
	    check->paused[node->idx] > check->continued[node->idx]) {
		check->continued[node->idx] = node->since;
		if (node->since > check->paused[node->idx] + CHECK_GIVE_UP)
			check->revived_time = node->since;
	}
	if (check->incarnations[node->idx] != node->incarnation) {
		check->incarnations[node->idx] = node->incarnation;
		check->started[node->idx] = sim->now;
	}
	if (node->core != NULL)
		return;
	for (i = 0; i < N_ELEMENTS(check->users); i++) {
		for (j = 0; j < SIM_MAX_TAGS; j++)
			check_user_died(&check->users[i][j], node);
	}
}

void sim_check_world(struct sim_check *check)
{
	struct sim *sim = check->sim;
	enum sim_excuse why;
	unsigned int i, j;

	for (i = 0; i < sim->nodes_count; i++)
		check_node(check, &sim->nodes[i]);
	check_components(check);
	if (check->partial)
		check->partial_time = sim->now;
	check->partial = FALSE;
	for (i = 0; i < sim->nodes_count; i++) {
		for (j = 0; j < sim->nodes_count; j++) {
			why = check->apart[i][j];
			if (why != SIM_NO_EXCUSE)
				check->apart_time[why][i][j] = sim->now;
			if (why == SIM_EXCUSE_PARTITION)
				check->parted_time = sim->now;
			why = i == j ? SIM_NO_EXCUSE :
				check_why_apart(check, i, j);
			check->apart[i][j] = why;
			if (why == SIM_EXCUSE_PARTIAL)
				check->partial = TRUE;
		}
	}
}

uint64_t check_apart_time(struct sim_check *check, enum sim_excuse why,
			  unsigned int i, unsigned int j)
{
	return check->apart[i][j] == why ? check->sim->now :
		check->apart_time[why][i][j];
}

bool sim_check_is_partial(struct sim_check *check)
{
	return check->partial || (check->partial_time != 0 &&
		check->sim->now < check->partial_time + check_grace(check));
}
