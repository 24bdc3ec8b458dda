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

/* There are two rings, as administrators have ordered. */
static bool
check_is_torn(const struct sim_node *node, const struct sim_node *other)
{
	return other->torn && node->core != NULL &&
		!sim_node_knows(node, other);
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
	if (check_is_torn(&nodes[i], &nodes[j]) ||
	    check_is_torn(&nodes[j], &nodes[i]))
		return SIM_EXCUSE_REMOVED;
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

static bool check_is_together(enum sim_excuse why)
{
	return why == SIM_NO_EXCUSE || why == SIM_EXCUSE_PARTIAL;
}

uint64_t check_told_time(const struct sim_check *check,
			 const struct check_hold *hold, unsigned int node)
{
	const struct sim *sim = check->sim;
	unsigned int i = I_MAX(hold->node->idx, node);
	unsigned int j = I_MIN(hold->node->idx, node);
	uint64_t since = check->together[i][j];

	since = I_MAX(since, hold->since) + CHECK_TOLD +
		sim->plan->max_latency * sim->nodes_count;
	return check_is_together(check->apart[i][j]) && sim->now > since ?
		sim->now : hold->told[node];
}

static void check_remember_told(struct sim_check *check,
				struct check_hold *hold, unsigned int node)
{
	hold->told[node] = check_told_time(check, hold, node);
}

/* The two lose each other. */
static void
check_lose(struct sim_check *check, unsigned int i1, unsigned int i2)
{
	struct check_hold *hold;
	unsigned int i, j;

	for (i = 0; i < N_ELEMENTS(check->users); i++) {
		for (j = 0; j < SIM_MAX_TAGS; j++) {
			array_foreach_elem(&check->users[i][j].holds, hold) {
				if (hold->node->idx == i1)
					check_remember_told(check, hold, i2);
				if (hold->node->idx == i2)
					check_remember_told(check, hold, i1);
			}
		}
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
	enum sim_excuse why, old;
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
			if (check->parted[i][j]) {
				check->apart_time[SIM_EXCUSE_PARTITION][i][j] =
					check->parted_time = sim->now;
			}
			old = why;
			/* A director that was removed isn't with what it was
			   before it was started again, either. */
			why = i == j && !sim->nodes[i].removed ? SIM_NO_EXCUSE :
				check_why_apart(check, i, j);
			/* (before the pair is seen the other way round) */
			if (i < j && check_is_together(old) &&
			    !check_is_together(why))
				check_lose(check, i, j);
			if (!check_is_together(old) && check_is_together(why)) {
				/* Who starts or goes on connects at once. */
				check->together[i][j] = sim->now +
					(check->parted[i][j] ?
					 check_grace(check) : CHECK_CONNECT +
					 CHECK_CONNECT_TRIPS *
					 sim->plan->max_latency);
			}
			check->apart[i][j] = why;
			check->parted[i][j] = why == SIM_EXCUSE_PARTITION ||
				(check->parted[i][j] &&
				 !check_is_together(why));
			if (why == SIM_EXCUSE_PARTIAL)
				check->partial = TRUE;
		}
	}
}

uint64_t check_apart_time(struct sim_check *check, enum sim_excuse why,
			  unsigned int i, unsigned int j)
{
	return check->apart[i][j] == why ||
		(why == SIM_EXCUSE_PARTITION && check->parted[i][j]) ?
		check->sim->now :
		check->apart_time[why][i][j];
}

bool sim_check_is_partial(struct sim_check *check)
{
	return check->partial || (check->partial_time != 0 &&
		check->sim->now < check->partial_time + check_grace(check));
}
