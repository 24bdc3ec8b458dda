/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What all agree on when nothing happens any more, and what never grows. */

#include "sim-check-private.h"

/* Connections of a director: its neighbours, and as many again that are being
   tried or are going; all others may try it at the same time. */
#define CHECK_MAX_PEERS (2 * SIM_MAX_NODES + 8)

static bool check_belongs(const struct sim_node *node)
{
	return node->core != NULL && !node->removed;
}

static void check_node_bounds(struct sim_check *check, struct sim_node *node)
{
	struct sim *sim = check->sim;
	struct ring *ring = director_ring(node->core);
	const struct ring_peer *peer;
	unsigned int peers = 0, members;
	uint64_t since;

	for (peer = ring_peers(ring); peer != NULL; peer = peer->next)
		peers++;
	sim->tally->peers_max = I_MAX(sim->tally->peers_max, peers);
	if (peers > CHECK_MAX_PEERS) {
		sim_fail(sim, "peers", "%s has %u connections", node->name,
			 peers);
	}
	(void)ring_members_sorted(ring_get_members(ring), &members);
	if (members > sim->nodes_count) {
		sim_fail(sim, "members", "%s knows %u directors, there are %u",
			 node->name, members, sim->nodes_count);
	}
	since = sim_client_waits_since(node);
	if (since != UINT64_MAX &&
	    sim->now > I_MAX(since, node->since) + SIM_LOOKUP_MAX) {
		sim_fail(sim, "lookup", "%s: Lookup waits for more than 30 s",
			 node->name);
	}
}

void sim_check_bounds(struct sim_check *check)
{
	struct sim *sim = check->sim;
	unsigned int i;

	/* (who knows whom changes) */
	sim_check_world(check);
	for (i = 0; i < sim->nodes_count; i++) {
		if (sim_node_runs(&sim->nodes[i]))
			check_node_bounds(check, &sim->nodes[i]);
	}
}

/* -- What administrators said -- */

void sim_check_commanded(struct sim_check *check,
			 const struct sim_plan_item *item, bool whole)
{
	struct check_command *command = &check->commands[item->b];
	uint64_t now = check->sim->now;

	bool alone = command->time == 0 ||
		now >= command->time + check_grace(check);

	/* (what was said before may have been lost meanwhile) */
	if (command->time == 0 || (command->contested && alone) ||
	    check->sim->isolating_time >= command->time) {
		command->vhosts = command->down = -1;
		command->contested = FALSE;
	}
	if (!whole || (!alone && command->node != item->node))
		command->contested = TRUE;
	command->time = now;
	command->node = item->node;
	switch ((enum sim_host_command)item->a) {
	case SIM_HOST_UP:
	case SIM_HOST_DOWN:
		command->down = item->a == SIM_HOST_DOWN ? 1 : 0;
		break;
	case SIM_HOST_VHOSTS:
	case SIM_HOST_ADD:
		command->vhosts = item->c;
		break;
	case SIM_HOST_REMOVE:
		/* may be added again: up */
		command->down = command->vhosts = -1;
		break;
	case SIM_HOST_FLUSH:
	case SIM_HOST_FLUSH_ALL:
		break;
	}
}

static bool check_commands(const struct sim_check *check,
			   const struct sim_node *node, const char **why_r)
{
	const struct sim_backend *backends = check->sim->plan->backends;
	const struct check_command *command;
	const struct backend *backend;
	unsigned int i;

	for (i = 0; i < check->sim->plan->backends_count; i++) {
		command = &check->commands[i];
		backend = backend_lookup(director_backends(node->core),
					 &backends[i].ip);
		if (backend == NULL || command->time == 0 ||
		    command->contested ||
		    check->sim->isolating_time >= command->time)
			continue;
		if (command->vhosts >= 0 &&
		    (unsigned int)command->vhosts != backend->vhosts) {
			*why_r = t_strdup_printf("%s has %u vhosts on %s, but "
				"%s was told %d", backends[i].name,
				backend->vhosts, node->name,
				check->sim->nodes[command->node].name,
				command->vhosts);
			return FALSE;
		}
		if (command->down >= 0 &&
		    (command->down != 0) != backend->down) {
			*why_r = t_strdup_printf("%s is %s on %s, but %s was "
				"told otherwise", backends[i].name,
				backend->down ? "down" : "up", node->name,
				check->sim->nodes[command->node].name);
			return FALSE;
		}
	}
	return TRUE;
}

/* -- Agreement -- */

static const char *
check_members_str(const struct sim *sim, struct sim_node *node)
{
	struct ring_member *const *members;
	unsigned int i, j, count;
	const char *str = "";

	members = ring_members_sorted(ring_get_members(
		director_ring(node->core)), &count);
	for (i = 0; i < count; i++) {
		for (j = 0; j < sim->nodes_count && !members[i]->removed; j++) {
			if (ring_address_cmp(&members[i]->address,
					     &sim->nodes[j].address) == 0)
				str = t_strconcat(str, " ", sim->nodes[j].name,
						  NULL);
		}
	}
	return str;
}

static const char *
check_hosts_str(const struct sim_node *node)
{
	struct backend *const *backends;
	unsigned int i, count;
	const char *str = "";

	backends = backends_sorted(director_backends(node->core), &count);
	for (i = 0; i < count; i++) {
		str = t_strdup_printf("%s %s%s%s=%u%s", str,
				      net_ip2addr(&backends[i]->ip),
				      *backends[i]->tag == '\0' ? "" : "@",
				      backends[i]->tag, backends[i]->vhosts,
				      backends[i]->down ? "(down)" : "");
	}
	return str;
}

/* Who has to be to the right, or left: of those that run, in the order of the
   ring */
static struct sim_node *
check_next(struct sim *sim, const struct sim_node *node, int direction)
{
	struct sim_node *other, *next = NULL, *end = NULL;
	unsigned int i;

	for (i = 0; i < sim->nodes_count; i++) {
		other = &sim->nodes[i];
		if (other == node || !check_belongs(other))
			continue;
		if (ring_address_cmp(&other->address, &node->address) *
		    direction > 0 &&
		    (next == NULL || ring_address_cmp(&other->address,
			&next->address) * direction < 0))
			next = other;
		if (end == NULL || ring_address_cmp(&other->address,
				&end->address) * direction < 0)
			end = other;
	}
	return next != NULL ? next : end;
}

static bool check_neighbour(const struct ring_peer *peer,
			    const struct sim_node *expected)
{
	if (peer == NULL || expected == NULL)
		return peer == NULL && expected == NULL;
	return ring_address_cmp(&peer->member->address,
				&expected->address) == 0;
}

static bool check_ring(struct sim *sim, struct sim_node *node,
		       const struct sim_node *first, const char **what_r,
		       const char **why_r)
{
	struct ring *ring = director_ring(node->core);
	const char *str1, *str2;
	unsigned int i;

	*what_r = "ring";
	if (!ring_is_synced(ring)) {
		*why_r = t_strdup_printf("%s isn't synced", node->name);
		return FALSE;
	}
	if (!check_neighbour(ring_right(ring), check_next(sim, node, 1)) ||
	    !check_neighbour(ring_left(ring), check_next(sim, node, -1))) {
		*why_r = t_strdup_printf("%s has other neighbours than it "
					 "should have", node->name);
		return FALSE;
	}
	*what_r = "members";
	str1 = check_members_str(sim, &sim->nodes[first->idx]);
	str2 = check_members_str(sim, node);
	if (strcmp(str1, str2) != 0) {
		*why_r = t_strdup_printf("members: %s has%s, %s has%s",
					 first->name, str1, node->name, str2);
		return FALSE;
	}
	for (i = 0; i < sim->nodes_count; i++) {
		if (sim->nodes[i].cleanly_removed && sim->nodes[i].removed &&
		    strstr(t_strconcat(str2, " ", NULL), t_strdup_printf(
				" %s ", sim->nodes[i].name)) != NULL) {
			*why_r = t_strdup_printf("removed %s is back on %s",
				sim->nodes[i].name, node->name);
			return FALSE;
		}
	}
	*what_r = "hosts";
	str1 = check_hosts_str(first);
	str2 = check_hosts_str(node);
	if (strcmp(str1, str2) != 0) {
		*why_r = t_strdup_printf("hosts: %s has%s, %s has%s",
					 first->name, str1, node->name, str2);
		return FALSE;
	}
	return TRUE;
}

struct check_place {
	struct ip_addr ip;
	/* He is in the table, and will be for a while. */
	bool lasts;
};

static void check_place(struct sim_check *check, struct sim_node *node,
			unsigned int user, unsigned int tag_idx,
			struct check_place *place_r)
{
	struct backends *backends = director_backends(node->core);
	struct user_table *users = director_users(node->core);
	const char *error, *tag = backends_tag(backends,
		check->sim->plan->backends[tag_idx].tag);
	struct director_time now = sim_node_time(node);
	const struct backend *backend;
	uint32_t hash;
	user_idx_t idx;

	i_zero(place_r);
	if (director_user_hash(node->core, sim_client_user(user), &hash,
			       &error) < 0)
		i_unreached();
	if (tag == NULL)
		return;
	idx = user_table_lookup(users, tag, hash, now.wall);
	if (idx == USER_IDX_NONE) {
		backend = backend_by_hash(backends, tag, hash);
	} else {
		backend = backend_by_slot(backends,
					  user_table_slot(users, idx));
		place_r->lasts = !user_table_is_near_expiry(users, idx,
							    now.wall + 3);
	}
	if (backend != NULL)
		place_r->ip = backend->ip;
}

static bool check_users(struct sim_check *check, unsigned int user,
			unsigned int tag, const char **why_r)
{
	struct sim *sim = check->sim;
	struct check_place places[SIM_MAX_NODES];
	unsigned int i, lasting = SIM_NONE;

	for (i = 0; i < sim->nodes_count; i++) {
		if (!check_belongs(&sim->nodes[i]))
			continue;
		check_place(check, &sim->nodes[i], user, tag, &places[i]);
		if (places[i].lasts)
			lasting = i;
	}
	if (lasting == SIM_NONE)
		return TRUE;
	for (i = 0; i < sim->nodes_count; i++) {
		if (!check_belongs(&sim->nodes[i]) ||
		    net_ip_compare(&places[i].ip, &places[lasting].ip))
			continue;
		*why_r = t_strdup_printf("user %s tag '%s': %s has %s, %s has "
			"%s", sim_client_user(user),
			sim->plan->backends[tag].tag,
			sim->nodes[lasting].name,
			t_strdup(net_ip2addr(&places[lasting].ip)),
			sim->nodes[i].name, net_ip2addr(&places[i].ip));
		return FALSE;
	}
	return TRUE;
}

bool sim_check_settled(struct sim_check *check, const char **what_r,
		       const char **why_r)
{
	struct sim *sim = check->sim;
	const struct sim_node *first = NULL;
	unsigned int i, tag;

	for (i = 0; i < sim->nodes_count; i++) {
		if (!check_belongs(&sim->nodes[i]))
			continue;
		if (first == NULL)
			first = &sim->nodes[i];
		if (!check_ring(sim, &sim->nodes[i], first, what_r, why_r))
			return FALSE;
		*what_r = "commands";
		if (!check_commands(check, &sim->nodes[i], why_r))
			return FALSE;
	}
	*what_r = "users";
	for (i = 0; i < sim->plan->users_count; i++) {
		for (tag = 0; tag < sim->plan->tags_count; tag++) {
			if (!check_users(check, i, tag, why_r))
				return FALSE;
		}
	}
	return TRUE;
}
