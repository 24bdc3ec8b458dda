/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The promise: nobody is on two backends. */

#include "sim-check-private.h"
#include "hash.h"

struct sim_check *sim_check_init(struct sim *sim)
{
	struct sim_check *check = p_new(sim->pool, struct sim_check, 1);
	unsigned int i, j;

	check->sim = sim;
	hash_table_create(&check->commands_sent, sim->pool, 0, str_hash, strcmp);
	for (i = 0; i < SIM_MAX_NODES; i++) {
		for (j = 0; j < SIM_MAX_NODES; j++)
			check->apart[i][j] = SIM_NO_EXCUSE;
	}
	for (i = 0; i < N_ELEMENTS(check->users); i++) {
		for (j = 0; j < SIM_MAX_TAGS; j++)
			p_array_init(&check->users[i][j].holds, sim->pool, 4);
	}
	return check;
}

/* Others know of a user at least what was so long ago: near expiry and
   refreshes that are not told at once (doc/ring-protocol). */
static uint64_t check_forget_time(const struct sim_check *check)
{
	unsigned int expire = check->sim->plan->expire_secs;
	unsigned int near = I_MIN(I_MAX(expire / 10, 3), 30);

	return expire < 2 * near + 2 ? 0 : SIM_SECS(expire - 2 * near - 2);
}

static bool check_is_live(const struct sim_check *check,
			  const struct check_hold *hold)
{
	return hold->ended == UINT64_MAX ||
		(!hold->lmtp && hold->came &&
		 check->sim->now < hold->ended + CHECK_KICK_DELAY);
}

/* May somebody still remember it? */
static bool check_is_remembered(const struct sim_check *check,
				const struct check_hold *hold)
{
	return hold->ended == UINT64_MAX || check->sim->now < hold->ended +
		SIM_SECS(check->sim->plan->expire_secs + 2) +
		check_grace(check);
}

static const struct sim_backend *
check_backend(const struct sim_check *check, const struct ip_addr *ip)
{
	const struct sim_plan *plan = check->sim->plan;
	unsigned int i;

	for (i = 0; i < plan->backends_count; i++) {
		if (net_ip_compare(&plan->backends[i].ip, ip))
			return &plan->backends[i];
	}
	return NULL;
}

static bool check_recently(const struct sim_check *check, uint64_t time)
{
	return time != 0 && check->sim->now < time + check_grace(check);
}

/* Besides the director itself: is there one whom it told, who can't have
   forgotten it, and whom the node can ask? */
static bool check_is_known(struct sim_check *check,
			   const struct check_hold *hold, unsigned int node)
{
	uint64_t refresh = SIM_SECS(check->sim->plan->expire_secs) / 2;
	uint64_t told;
	unsigned int i;

	for (i = 0; i < check->sim->nodes_count; i++) {
		told = check_told_time(check, hold, i);
		/* (who has sessions is refreshed so often) */
		if (told > refresh)
			told = I_MAX(told - refresh, hold->since);
		if (i != hold->node->idx &&
		    sim_node_runs(&check->sim->nodes[i]) &&
		    check->started[i] < hold->since && told != 0 &&
		    check->sim->now <= told + check_forget_time(check) &&
		    (i == node || check->apart[i][node] == SIM_NO_EXCUSE))
			return TRUE;
	}
	return FALSE;
}

/* Its director is gone, or was until a moment ago. */
static bool check_crashed(struct sim_check *check,
			  const struct check_hold *hold, unsigned int node)
{
	uint64_t started = check->started[hold->node->idx];
	uint64_t died = hold->director_died;

	/* It has come back, and hasn't told all yet. */
	if (died == 0) {
		return hold->since < started &&
			check_recently(check, started) &&
			!check_is_known(check, hold, node);
	}
	/* It may not have told anybody, or there is nobody who remembers; or
	   its login process was stopped and couldn't end it. */
	return hold->since + CHECK_TOLD > died || hold->stopped ||
		check_recently(check, hold->continued) ||
		!check_is_known(check, hold, node);
}

/* It was let in while they were parted, and was not told of, or not kicked, when
   they weren't any more: its director had died before, or its login process was
   stopped. */
static bool
check_parted_before(struct sim_check *check, const struct check_hold *hold,
		    unsigned int node)
{
	uint64_t parted = check_apart_time(check, SIM_EXCUSE_PARTITION,
					   hold->node->idx, node);

	if (parted < hold->since)
		return FALSE;
	return (hold->director_died != 0 && parted >= hold->director_died) ||
		hold->stopped || check_recently(check, hold->continued);
}

static bool check_hung(struct sim_check *check, const struct check_hold *hold,
		       unsigned int node)
{
	unsigned int idx = hold->node->idx;

	/* It doesn't know yet what happened meanwhile. */
	if (check_recently(check, check->continued[node]))
		return TRUE;
	return check_recently(check, check_apart_time(check, SIM_EXCUSE_HUNG,
						      idx, node)) &&
		(hold->stopped || check_recently(check, hold->continued) ||
		 !check_is_known(check, hold, node));
}

/* The users of the backend were forgotten (by some, if another command came at
   the same time). */
static bool
check_is_forgotten(const struct sim_check *check, const struct ip_addr *ip,
		   uint64_t since)
{
	const struct sim_backend *backend = check_backend(check, ip);

	return backend != NULL && since <
		check->forgotten[backend - check->sim->plan->backends];
}

/* Why he may be let in elsewhere although he is there */
static enum sim_excuse
check_excuse(struct sim_check *check, const struct check_hold *hold,
	     const struct check_hold *new_hold)
{
	static const enum sim_excuse apart[] = {
		SIM_EXCUSE_PARTITION, SIM_EXCUSE_PARTIAL, SIM_EXCUSE_REMOVED,
	};
	unsigned int i, node = new_hold->node->idx;

	if (check_is_forgotten(check, &hold->ip, hold->since) ||
	    check_is_forgotten(check, &new_hold->ip, hold->since) ||
	    check_is_forgotten(check, &hold->user->moved_to, hold->since))
		return SIM_EXCUSE_FORGOTTEN;
	for (i = 0; i < N_ELEMENTS(apart); i++) {
		if (check_recently(check, check_apart_time(check, apart[i],
						hold->node->idx, node)))
			return apart[i];
	}
	/* Until the halves are one ring, those of one half may be in two. */
	if (check_recently(check, check->parted_time) ||
	    check_parted_before(check, hold, node))
		return SIM_EXCUSE_PARTITION;
	if (check_recently(check, check->revived_time))
		return SIM_EXCUSE_HUNG;
	if (check_crashed(check, hold, node))
		return SIM_EXCUSE_CRASH;
	if (check_hung(check, hold, node))
		return SIM_EXCUSE_HUNG;
	if (hold->unseen)
		return SIM_EXCUSE_UNSEEN;
	return hold->divergent || new_hold->follows ?
		SIM_EXCUSE_AFTERWARDS : SIM_NO_EXCUSE;
}

/* What the excuse says happens now, or happened a moment ago. */
static bool
check_is_unsure(const struct sim_check *check, enum sim_excuse excuse,
		const struct check_hold *hold,
		const struct check_hold *new_hold)
{
	uint64_t now = check->sim->now;

	switch (excuse) {
	case SIM_EXCUSE_FORGOTTEN:
		return check_is_forgotten(check, &hold->ip, now) ||
			check_is_forgotten(check, &new_hold->ip, now);
	case SIM_EXCUSE_CRASH:
		return hold->node->core == NULL ||
			check_recently(check,
				       check->started[hold->node->idx]);
	case SIM_EXCUSE_AFTERWARDS:
		return FALSE;
	default:
		return TRUE;
	}
}

static const char *
check_hold_str(const struct sim_check *check, const struct check_hold *hold)
{
	return t_strdup_printf("%s let him in to %s %llu ms ago%s",
		hold->node->name, net_ip2addr(&hold->ip),
		(unsigned long long)(check->sim->now - hold->since) / 1000,
		hold->ended == UINT64_MAX ? "" : ", that has just ended");
}

/* He is let in to another backend than the hold's. */
static void check_other(struct sim_check *check, struct check_hold *hold,
			struct check_hold *new_hold, const char *user)
{
	enum sim_excuse excuse = check_excuse(check, hold, new_hold);
	struct sim *sim = check->sim;

	if (excuse == SIM_NO_EXCUSE) {
		if (!check_is_live(check, hold)) {
			if (sim->now < hold->ended + check_forget_time(check))
				sim->tally->early_moves++;
			return;
		}
		sim_fail(sim, "two backends", "%s lets in %s to %s, but %s",
			 new_hold->node->name, user,
			 net_ip2addr(&new_hold->ip),
			 check_hold_str(check, hold));
		return;
	}
	if (check_is_live(check, hold)) {
		sim->tally->excuses[excuse]++;
		sim_trace(sim, new_hold->node, "two backends (excuse %u): %s",
			  excuse, check_hold_str(check, hold));
	}
	hold->divergent = TRUE;
	/* It may not be what all will agree on either. */
	if (check_is_unsure(check, excuse, hold, new_hold))
		new_hold->divergent = TRUE;
}

struct check_hold *
sim_check_admitted(struct sim_check *check, const struct sim_node *node,
		   unsigned int user, unsigned int tag,
		   const struct ip_addr *ip, bool lmtp)
{
	struct check_user *cu = &check->users[user][tag];
	const struct sim_backend *backend = check_backend(check, ip);
	struct check_hold *hold, *new_hold;
	unsigned int i;

	if (backend == NULL ||
	    strcmp(backend->tag, check->sim->plan->backends[tag].tag) != 0) {
		sim_fail(check->sim, "wrong backend", "%s: %s to %s",
			 node->name, sim_client_user(user), net_ip2addr(ip));
	}
	new_hold = p_new(check->sim->pool, struct check_hold, 1);
	new_hold->node = node;
	new_hold->user = cu;
	new_hold->incarnation = node->incarnation;
	new_hold->ip = *ip;
	new_hold->since = check->sim->now;
	new_hold->ended = UINT64_MAX;
	new_hold->lmtp = lmtp;
	array_foreach_elem(&cu->holds, hold) {
		if (check_is_live(check, hold) && hold->node == node &&
		    net_ip_compare(&hold->ip, ip) &&
		    (hold->divergent ||
		     check_is_forgotten(check, ip, hold->since)))
			new_hold->follows = TRUE;
	}
	new_hold->divergent = new_hold->follows;
	for (i = array_count(&cu->holds); i > 0; i--) {
		hold = array_idx_elem(&cu->holds, i - 1);
		if (!check_is_remembered(check, hold))
			array_delete(&cu->holds, i - 1, 1);
		else if (!net_ip_compare(&hold->ip, ip)) {
			check_other(check, hold, new_hold,
				    sim_client_user(user));
		}
	}
	array_push_back(&cu->holds, &new_hold);
	return new_hold;
}

void sim_check_ended(struct sim_check *check, struct check_hold *hold,
		     bool came)
{
	hold->came = came;
	hold->ended = check->sim->now;
}

void sim_check_moved(struct sim_check *check, unsigned int user,
		     unsigned int tag, const struct ip_addr *ip)
{
	check->users[user][tag].moved_to = *ip;
}

void sim_check_told(struct check_hold *hold)
{
	hold->director_died = 0;
	hold->unseen = FALSE;
}

void sim_check_unseen(struct check_hold *hold)
{
	hold->unseen = TRUE;
}

void sim_check_stopped(struct sim_check *check, struct check_hold *hold,
		       bool stopped)
{
	hold->stopped = stopped;
	if (!stopped)
		hold->continued = check->sim->now;
}

void sim_check_forgotten(struct sim_check *check, const struct ip_addr *ip)
{
	const struct sim_plan *plan = check->sim->plan;
	unsigned int i;

	for (i = 0; i < plan->backends_count; i++) {
		if (ip == NULL || net_ip_compare(&plan->backends[i].ip, ip))
			check->forgotten[i] = check->sim->now +
				check_grace(check);
	}
}

void sim_check_waited(struct sim_check *check, const struct sim_node *node,
		      uint64_t since, bool may_wait)
{
	struct sim *sim = check->sim;
	uint64_t waited = sim->now - I_MAX(since, node->since);

	if (waited > SIM_LOOKUP_MAX) {
		sim_fail(sim, "lookup", "%s: Lookup waited for %llu ms",
			 node->name, (unsigned long long)waited / 1000);
	}
	if (!may_wait && sim_is_calm(sim, since) &&
	    !sim_check_is_partial(check) &&
	    waited > SIM_SECS(3) + sim_round_time(sim)) {
		sim_fail(sim, "calm lookup", "%s: Lookup waited for %llu ms "
			 "although all was calm", node->name,
			 (unsigned long long)waited / 1000);
	}
}
