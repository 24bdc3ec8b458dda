/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* One run: first the plan, then rest, in which all have to agree. */

#include "sim.h"
#include "sim-check.h"

#include <stdio.h>

/* At rest all agree within this, */
#define SETTLE_TIME SIM_SECS(60)
#define SETTLE_STEP SIM_MSECS(250)
/* after what administrators would repair was. They look three times, since a
   removal may become known by what they join. */
#define SETTLE_REPAIR SIM_SECS(20)
#define SETTLE_REPAIRS 3
/* for so long, and sim_round_time(), */
#define SETTLE_STEADY SIM_SECS(1)
/* and still do this much later; then sessions end, */
#define SETTLED_TIME SIM_SECS(3)
/* moves and lookups are over within this, */
#define OVER_TIME SIM_SECS(60)
/* (also the next moves of a flush, for which it may wait a moment) */
#define OVER_STEADY SIM_SECS(1)
/* and after this the ring is quiet for so long; */
#define QUIET_BEFORE SIM_SECS(6)
#define QUIET_TIME SIM_SECS(5)
/* then new users log in. */
#define PROBE_TIME SIM_SECS(5)
/* In so much time there are at most so many ring messages, for n directors: a
   few for each login and refresh, and what n joining ones tell */
#define FLOOD_TIME SIM_SECS(10)
#define FLOOD_LINES(n) (2000 * (n) + 100 * (n) * (n))

void sim_after(struct sim *sim, uint64_t usecs, sim_event_func_t *func,
	       void *arg, uint64_t value)
{
	sim_queue_add(sim->queue, sim->now + usecs, func, arg, value);
}

void sim_fail(struct sim *sim, const char *kind, const char *format, ...)
{
	va_list args;

	if (sim->failure != NULL)
		return;
	va_start(args, format);
	sim->failure = i_strdup(kind);
	sim->failure_text = i_strdup_vprintf(format, args);
	va_end(args);
	sim_trace(sim, NULL, "FAILURE: %s: %s", kind, sim->failure_text);
}

void sim_trace_line(struct sim *sim, const struct sim_node *node,
		    const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("%4llu.%06llu %-4s ", (unsigned long long)sim->now / 1000000,
	       (unsigned long long)sim->now % 1000000,
	       node == NULL ? "" : node->name);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
}

void sim_history(struct sim *sim, const void *data, size_t size)
{
	const unsigned char *p = data;
	uint64_t digest = sim->digest ^ sim->now;
	size_t i;

	for (i = 0; i < size; i++)
		digest = (digest ^ p[i]) * 0x100000001b3ULL;
	sim->digest = digest * 0x9e3779b97f4a7c15ULL;
}

void sim_history_number(struct sim *sim, uint64_t number)
{
	sim_history(sim, &number, sizeof(number));
}

/* -- Phases -- */

static void run_until(struct sim *sim, uint64_t end)
{
	struct sim_event event;

	while (sim->failure == NULL &&
	       sim_queue_next(sim->queue, end, &event)) {
		sim->now = event.time;
		sim->tally->events++;
		T_BEGIN {
			event.func(sim, event.arg, event.value);
		} T_END;
	}
	if (sim->failure == NULL)
		sim->now = end;
}

static void run_second(struct sim *sim, void *arg ATTR_UNUSED,
		       uint64_t value ATTR_UNUSED)
{
	sim_check_bounds(sim->check);
	sim_after(sim, SIM_SECS(1), run_second, NULL, 0);
}

static void run_flood(struct sim *sim, void *arg ATTR_UNUSED, uint64_t lines)
{
	uint64_t count = sim->busy_lines - lines;

	if (count > FLOOD_LINES(sim->nodes_count)) {
		sim_fail(sim, "flood", "%u messages in %u s",
			 (unsigned int)count,
			 (unsigned int)(FLOOD_TIME / 1000000));
	}
	sim_after(sim, FLOOD_TIME, run_flood, NULL, sim->busy_lines);
}

static void run_item(struct sim *sim, void *arg, uint64_t value ATTR_UNUSED)
{
	struct sim_plan_item *item = arg;

	switch (item->type) {
	case PLAN_LOGIN:
		sim_client_login(sim, item);
		break;
	case PLAN_REFRESH:
		sim_client_refresh(sim, item);
		break;
	default:
		sim_nemesis(sim, item);
		break;
	}
}

static void run_add_items(struct sim *sim)
{
	struct sim_plan *plan = sim->plan;
	struct sim_plan_item *item;

	array_foreach_modifiable(&plan->items, item) {
		if (!item->disabled && !plan->absent[item->node] &&
		    (item->node2 == SIM_NONE || !plan->absent[item->node2]))
			sim_queue_add(sim->queue, item->time, run_item, item,
				      0);
	}
}

static bool run_is_settled(struct sim *sim, const char *kind)
{
	const char *what, *why;
	bool ret = TRUE;

	T_BEGIN {
		if (!sim_check_settled(sim->check, &what, &why)) {
			ret = FALSE;
			if (kind != NULL) {
				sim_fail(sim, t_strconcat(what, " ", kind,
							  NULL), "%s", why);
			}
		}
	} T_END;
	return ret;
}

/* Of users who are being moved the directors needn't agree yet. */
static bool run_is_moving(const struct sim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->nodes_count; i++) {
		if (sim->nodes[i].core != NULL &&
		    director_users_moving(sim->nodes[i].core) > 0)
			return TRUE;
	}
	return FALSE;
}

static void run_settle(struct sim *sim)
{
	uint64_t rest = sim->now, since = UINT64_MAX, end, steady, took;
	unsigned int repaired = 0;

	steady = SETTLE_STEADY + sim_round_time(sim);
	end = rest + SETTLE_TIME + 5 * sim_round_time(sim);
	/* what was done last may still be on its way */
	while (sim->failure == NULL &&
	       (since == UINT64_MAX || sim->now < since + steady)) {
		if (!run_is_settled(sim, NULL)) {
			since = UINT64_MAX;
			if (sim->now >= end) {
				(void)run_is_settled(sim, "disagree");
				return;
			}
		} else if (since == UINT64_MAX) {
			since = sim->now;
		}
		if (repaired < SETTLE_REPAIRS &&
		    sim->now >= rest + (repaired + 1) * SETTLE_REPAIR) {
			repaired++;
			sim_nemesis_repair(sim);
		}
		run_until(sim, sim->now + SETTLE_STEP);
	}
	if (sim->failure != NULL)
		return;
	took = since - rest;
	sim->tally->settled_usecs += took;
	if (took > sim->tally->settled_max_usecs) {
		sim->tally->settled_max_usecs = took;
		sim->tally->settled_max_seed = sim->plan->seed;
	}
	sim_trace(sim, NULL, "ALL AGREE");
	run_until(sim, sim->now + SETTLED_TIME);
	if (sim->failure == NULL && !run_is_moving(sim))
		(void)run_is_settled(sim, "disagree again");
}

/* What goes on when nobody has a session any more; NULL if nothing does */
static const char *run_node_goes_on(const struct sim_node *node)
{
	unsigned int moving, leases;

	if (node->core == NULL)
		return NULL;
	moving = director_users_moving(node->core);
	if (moving > 0)
		return t_strdup_printf("%s moves %u users", node->name, moving);
	if (sim_client_waits_since(node) != UINT64_MAX)
		return t_strdup_printf("a lookup waits on %s", node->name);
	leases = session_leases_total(director_leases(node->core));
	if (leases > 0)
		return t_strdup_printf("%s has %u leases", node->name, leases);
	return NULL;
}

static const char *run_goes_on(const struct sim *sim)
{
	const char *what = NULL;
	unsigned int i;

	for (i = 0; i < sim->nodes_count && what == NULL; i++)
		what = run_node_goes_on(&sim->nodes[i]);
	return what;
}

/* What waited for a move begins only now, and ends at once. */
static void run_end_sessions(struct sim *sim)
{
	uint64_t end = sim->now + OVER_TIME + 5 * sim_round_time(sim);
	uint64_t last = sim->now;
	bool goes_on = TRUE;

	sim->ending = TRUE;
	sim_client_end_all(sim);
	while (sim->failure == NULL && goes_on) {
		T_BEGIN {
			const char *what = run_goes_on(sim);

			if (what != NULL)
				last = sim->now;
			if (what != NULL && sim->now >= end)
				sim_fail(sim, "no end", "%s", what);
			goes_on = sim->now < last + OVER_STEADY;
		} T_END;
		if (goes_on)
			run_until(sim, sim->now + SETTLE_STEP);
	}
	sim_trace(sim, NULL, "SESSIONS ENDED");
}

static void run_quiet(struct sim *sim)
{
	uint64_t lines;

	run_end_sessions(sim);
	if (sim->failure == NULL)
		(void)run_is_settled(sim, "disagree at last");
	if (sim->failure != NULL)
		return;
	run_until(sim, sim->now + QUIET_BEFORE + 2 * sim_round_time(sim));
	lines = sim->busy_lines;
	run_until(sim, sim->now + QUIET_TIME);
	if (sim->failure == NULL && sim->busy_lines != lines) {
		sim_fail(sim, "circles", "%u messages in a ring that is quiet",
			 (unsigned int)(sim->busy_lines - lines));
	}
}

static bool run_can_probe(const struct sim_node *node)
{
	return sim_node_runs(node) &&
		backend_by_hash(director_backends(node->core), "", 1) != NULL;
}

static void run_probes(struct sim *sim)
{
	uint64_t admissions = sim->tally->admissions;
	unsigned int i, probe;

	for (i = 0; i < sim->nodes_count; i++) {
		for (probe = 0; probe < SIM_MAX_PROBES; probe++) {
			if (!run_can_probe(&sim->nodes[i]))
				continue;
			sim_client_probe(&sim->nodes[i], probe);
			admissions++;
		}
	}
	run_until(sim, sim->now + PROBE_TIME + sim_round_time(sim));
	if (sim->failure == NULL && sim->tally->admissions < admissions) {
		sim_fail(sim, "new user", "%u of the new users wait",
			 (unsigned int)(admissions -
					sim->tally->admissions));
	}
}

static void run_phases(struct sim *sim)
{
	run_add_items(sim);
	sim_after(sim, SIM_SECS(1), run_second, NULL, 0);
	sim_after(sim, FLOOD_TIME, run_flood, NULL, 0);
	run_until(sim, sim->plan->duration);
	if (sim->failure != NULL)
		return;
	sim_nemesis_rest(sim);
	run_settle(sim);
	if (sim->failure == NULL)
		run_quiet(sim);
	if (sim->failure == NULL)
		run_probes(sim);
}

/* -- The world -- */

static void run_init(struct sim *sim, struct sim_plan *plan)
{
	unsigned int i;

	sim->plan = plan;
	sim->pool = pool_alloconly_create("sim", 65536);
	sim->queue = sim_queue_init();
	sim->nodes_count = plan->nodes_count;
	for (i = 0; i < sim->nodes_count; i++) {
		struct sim_node *node = &sim->nodes[i];

		node->sim = sim;
		node->idx = i;
		i_snprintf(node->name, sizeof(node->name), "d%u", i);
		node->address = plan->addresses[i];
		node->configured = plan->configured[i];
		node->mono_base = plan->mono_base[i];
		node->skew = plan->skew[i];
		i_array_init(&node->journal, 16);
		i_array_init(&node->pending, 16);
		i_array_init(&node->admin, 16);
		i_array_init(&node->links, 4);
	}
	i_array_init(&sim->sessions, 64);
	sim->net = sim_net_init(sim);
	sim->check = sim_check_init(sim);
	sim_check_world(sim->check);
}

static void run_deinit(struct sim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->nodes_count; i++)
		sim_node_deinit(&sim->nodes[i]);
	sim_net_deinit(&sim->net);
	sim_queue_deinit(&sim->queue);
	array_free(&sim->sessions);
	pool_unref(&sim->pool);
}

bool sim_run(struct sim_plan *plan, bool verbose, struct sim_tally *tally,
	     uint64_t *digest_r, char **failure_r, char **text_r)
{
	struct sim *sim = i_new(struct sim, 1);
	bool success;

	sim->verbose = verbose;
	sim->tally = tally;
	run_init(sim, plan);
	run_phases(sim);
	tally->seeds++;
	tally->virtual_usecs += sim->now;
	tally->lines += sim->lines;
	*digest_r = sim->digest;
	*failure_r = sim->failure;
	*text_r = sim->failure_text;
	success = sim->failure == NULL;
	if (!success)
		tally->failures++;
	run_deinit(sim);
	i_free(sim);
	return success;
}
