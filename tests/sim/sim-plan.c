/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What a seed says: who is there, and what will be done to them. All is decided
   here, before the run, so that parts can be left out without changing the
   rest. */

#include "sim.h"

static uint64_t plan_moment(const struct sim_plan *plan, struct sim_rand *rand)
{
	return sim_rand_below(rand, plan->duration);
}

static struct sim_plan_item *
plan_add(struct sim_plan *plan, enum sim_plan_type type, uint64_t time,
	 unsigned int node)
{
	struct sim_plan_item *item = array_append_space(&plan->items);

	item->type = type;
	item->time = time;
	item->node = node;
	item->node2 = SIM_NONE;
	return item;
}

static unsigned int plan_nodes_count(struct sim_rand *rand)
{
	unsigned int n = sim_rand_below(rand, 100);

	if (n < 3)
		return 1;
	if (n < 25)
		return 2;
	if (n < 60)
		return 3;
	if (n < 80)
		return sim_rand_range(rand, 4, 5);
	if (n < 95)
		return sim_rand_range(rand, 6, 10);
	return sim_rand_range(rand, 11, SIM_MAX_NODES);
}

static void plan_address(struct sim_plan *plan, struct sim_rand *rand,
			 unsigned int idx, bool with_ip6)
{
	struct ring_address *address = &plan->addresses[idx];
	unsigned int i;
	const char *ip;

	do {
		unsigned int n = sim_rand_range(rand, 1, 250);

		ip = with_ip6 && sim_rand_percent(rand, 40) ?
			t_strdup_printf("fd00::%x", n) :
			t_strdup_printf("10.0.0.%u", n);
		if (net_addr2ip(ip, &address->ip) < 0)
			i_unreached();
		address->port = 9090;
		for (i = 0; i < idx; i++) {
			if (ring_address_cmp(&plan->addresses[i],
					     address) == 0)
				break;
		}
	} while (i < idx);
}

static void plan_nodes(struct sim_plan *plan, struct sim_rand *rand)
{
	bool with_ip6 = sim_rand_percent(rand, 10);
	uint64_t skew_max = sim_rand_percent(rand, 60) ? SIM_MSECS(1500) :
		sim_rand_percent(rand, 60) ? SIM_SECS(300) :
		SIM_SECS(100000);
	unsigned int i;

	plan->nodes_count = plan_nodes_count(rand);
	for (i = 0; i < plan->nodes_count; i++) {
		plan_address(plan, rand, i, with_ip6);
		plan->configured[i] = TRUE;
		plan->mono_base[i] = sim_rand_range(rand, SIM_SECS(10),
						    SIM_SECS(10000000));
		plan->skew[i] = (int64_t)sim_rand_below(rand, 2 * skew_max) -
			(int64_t)skew_max;
	}
}

static void plan_backends(struct sim_plan *plan, struct sim_rand *rand)
{
	static const char *const tags[SIM_MAX_TAGS] = { "", "b" };
	struct sim_backend *backend;
	unsigned int i, configured;
	uint8_t last;

	plan->tags_count = sim_rand_percent(rand, 75) ? 1 : SIM_MAX_TAGS;
	plan->backends_count = SIM_MAX_BACKENDS;
	configured = sim_rand_percent(rand, 1) ? 0 :
		sim_rand_range(rand, 1, SIM_MAX_BACKENDS - 1);
	last = sim_rand_range(rand, 1, 20);
	for (i = 0; i < plan->backends_count; i++) {
		backend = &plan->backends[i];
		i_snprintf(backend->name, sizeof(backend->name), "10.1.0.%u",
			   last);
		last += sim_rand_range(rand, 1, 25);
		if (net_addr2ip(backend->name, &backend->ip) < 0)
			i_unreached();
		backend->tag = tags[i % plan->tags_count];
		backend->configured = i < configured;
	}
}

static void plan_network(struct sim_plan *plan, struct sim_rand *rand)
{
	static const struct {
		unsigned int percent;
		uint64_t min, max;
	} classes[] = {
		{ 50, 100, SIM_MSECS(2) },
		{ 20, SIM_MSECS(1), SIM_MSECS(50) },
		{ 15, 100, SIM_MSECS(500) },
		{ 10, SIM_MSECS(50), SIM_MSECS(400) },
		{ 5, SIM_MSECS(400), SIM_MSECS(700) },
	};
	unsigned int i, j, n = sim_rand_below(rand, 100), class = 0;

	while (n >= classes[class].percent) {
		n -= classes[class].percent;
		class++;
	}
	for (i = 0; i < plan->nodes_count; i++) {
		for (j = 0; j < plan->nodes_count; j++) {
			plan->latency[i][j] = sim_rand_scale(rand,
				classes[class].min, classes[class].max);
			plan->max_latency = I_MAX(plan->max_latency,
						  plan->latency[i][j]);
		}
	}
	/* at least 100 kB a second */
	plan->window = sim_rand_scale(rand, 2048, 262144);
	plan->window = I_MAX(plan->window, plan->max_latency / 5);
}

/* While a user is near expiry (a tenth of director_user_expire) what is told of
   him has to go round, by clocks that are 2 s inexact: what is documented. */
static void plan_expiry(struct sim_plan *plan)
{
	unsigned int secs = (plan->max_latency * plan->nodes_count +
			     SIM_SECS(1) - 1) / SIM_SECS(1) + 2;

	if (secs > 3)
		plan->expire_secs = I_MAX(plan->expire_secs, 10 * secs);
}

/* -- Starts -- */

static void plan_starts(struct sim_plan *plan, struct sim_rand *rand)
{
	unsigned int i, how = sim_rand_below(rand, 100);
	uint64_t time = 0;
	struct sim_plan_item *item;

	for (i = 0; i < plan->nodes_count; i++) {
		if (how < 60)
			time = sim_rand_below(rand, SIM_SECS(3));
		else if (how < 80)
			time += sim_rand_below(rand, SIM_SECS(5));
		else if (i > 0 && sim_rand_percent(rand, 30))
			time = sim_rand_below(rand, plan->duration / 2);
		else
			time = sim_rand_below(rand, SIM_MSECS(100));
		if (plan->trouble[PLAN_RING_ADD] && i > 0 &&
		    sim_rand_percent(rand, 30)) {
			plan->configured[i] = FALSE;
			item = plan_add(plan, PLAN_RING_ADD,
					plan_moment(plan, rand), i);
			item->node2 = sim_rand_below(rand, i);
			continue;
		}
		(void)plan_add(plan, PLAN_START,
			       I_MIN(time, plan->duration * 2 / 3), i);
	}
}

/* -- Logins -- */

static void
plan_login(struct sim_plan *plan, struct sim_rand *rand, uint64_t time,
	   unsigned int user, uint64_t max_session)
{
	struct sim_plan_item *item;
	unsigned int tag = user % plan->tags_count;

	if (sim_rand_percent(rand, 10))
		tag = sim_rand_below(rand, plan->tags_count);
	item = plan_add(plan, PLAN_LOGIN, time,
			sim_rand_below(rand, plan->nodes_count));
	item->a = user | tag << 8;
	if (sim_rand_percent(rand, 10))
		item->a |= SIM_LOGIN_LMTP;
	else if (sim_rand_percent(rand, 5))
		item->a |= SIM_LOGIN_DROPPED;
	item->b = sim_rand_percent(rand, 3) ?
		sim_rand_below(rand, SIM_SECS(5)) :
		sim_rand_below(rand, SIM_MSECS(50));
	item->c = sim_rand_scale(rand, SIM_MSECS(1), max_session);
}

/* Users who come back when they are about to be forgotten */
static void plan_rare_user(struct sim_plan *plan, struct sim_rand *rand,
			   unsigned int user)
{
	uint64_t expire = SIM_SECS(plan->expire_secs);
	uint64_t time = sim_rand_below(rand, expire);

	while (time < plan->duration) {
		plan_login(plan, rand, time, user, SIM_MSECS(500));
		if (sim_rand_percent(rand, 50)) {
			plan_login(plan, rand, time + sim_rand_below(rand,
					4 * plan->max_latency + 1000),
				   user, SIM_MSECS(500));
		}
		time += sim_rand_range(rand, expire * 8 / 10,
				       expire * 11 / 10);
	}
}

static void plan_logins(struct sim_plan *plan, struct sim_rand *rand)
{
	uint64_t mean = sim_rand_scale(rand, SIM_MSECS(120), SIM_SECS(2));
	uint64_t time = 0, max_session = SIM_SECS(plan->expire_secs) * 2;
	unsigned int i, rare, user, burst;

	plan->users_count = sim_rand_range(rand, 3, SIM_MAX_USERS);
	rare = sim_rand_below(rand, plan->users_count / 2 + 1);
	for (i = 0; i < rare; i++)
		plan_rare_user(plan, rand, i);
	for (;;) {
		time += sim_rand_below(rand, mean * 2);
		if (time >= plan->duration)
			break;
		user = sim_rand_range(rand, rare, plan->users_count - 1);
		burst = sim_rand_percent(rand, 90) ? 1 :
			sim_rand_range(rand, 2, 5);
		for (i = 0; i < burst; i++) {
			plan_login(plan, rand, time +
				   sim_rand_below(rand, SIM_MSECS(i + 1)),
				   user, max_session);
		}
		if (sim_rand_percent(rand, 5)) {
			plan_add(plan, PLAN_REFRESH, time,
				 sim_rand_below(rand, plan->nodes_count))->a =
				sim_rand_below(rand, plan->users_count);
		}
	}
}

/* -- Trouble -- */

static uint64_t plan_length(struct sim_rand *rand)
{
	/* 20 ms .. 40 s */
	return sim_rand_scale(rand, SIM_MSECS(20), SIM_SECS(40));
}

static unsigned int
plan_other(struct sim_plan *plan, struct sim_rand *rand, unsigned int node)
{
	return (node + 1 + sim_rand_below(rand, plan->nodes_count - 1)) %
		plan->nodes_count;
}

static uint64_t plan_jump(struct sim_rand *rand)
{
	int64_t jump = sim_rand_scale(rand, SIM_MSECS(500), SIM_SECS(100000));

	return sim_rand_percent(rand, 50) ? jump : -jump;
}

static void plan_host_command(struct sim_plan *plan, struct sim_rand *rand,
			      struct sim_plan_item *item, bool unsafe)
{
	item->b = sim_rand_below(rand, plan->backends_count);
	item->c = sim_rand_percent(rand, 20) ? 0 :
		sim_rand_range(rand, 1, 300);
	item->a = unsafe ? sim_rand_range(rand, SIM_HOST_ADD,
					  SIM_HOST_FLUSH_ALL) :
		sim_rand_below(rand, SIM_HOST_ADD + 1);
}

/* Users who log in for the first time while a change is on its way */
static void plan_logins_at(struct sim_plan *plan, struct sim_rand *rand,
			   uint64_t time)
{
	unsigned int i, j, user, count = sim_rand_range(rand, 1, 4);

	for (i = 0; i < count; i++) {
		user = sim_rand_below(rand, plan->users_count);
		for (j = 0; j < 2; j++) {
			plan_login(plan, rand, time + sim_rand_below(rand,
					4 * plan->max_latency + 1000),
				   user, SIM_SECS(2));
		}
	}
}

/* A connection breaks while the change is on its way. */
static void plan_reset_at(struct sim_plan *plan, struct sim_rand *rand,
			  uint64_t time, unsigned int node)
{
	time += sim_rand_below(rand, 4 * plan->max_latency + 1000);
	if (sim_rand_percent(rand, 30))
		node = sim_rand_below(rand, plan->nodes_count);
	plan_add(plan, PLAN_RESET, time, node)->a = sim_rand_below(rand, 4);
}

/* What was done to the backend is undone, or done otherwise, at once or a
   little later, there or elsewhere. */
static void plan_host_again(struct sim_plan *plan, struct sim_rand *rand,
			    uint64_t time, unsigned int node, uint64_t backend)
{
	struct sim_plan_item *item;

	while (sim_rand_percent(rand, 40)) {
		if (sim_rand_percent(rand, 50))
			node = sim_rand_below(rand, plan->nodes_count);
		time += sim_rand_percent(rand, 50) ?
			sim_rand_below(rand, SIM_MSECS(10)) :
			sim_rand_below(rand, 8 * plan->max_latency + 1000);
		item = plan_add(plan, PLAN_HOST, time, node);
		plan_host_command(plan, rand, item, FALSE);
		if (sim_rand_percent(rand, 80))
			item->b = backend;
	}
}

/* Mostly of a user who logs in at about that time, and sometimes two at once */
static void plan_move(struct sim_plan *plan, struct sim_rand *rand,
		      struct sim_plan_item *item)
{
	unsigned int user = sim_rand_below(rand, plan->users_count);
	unsigned int tag = user % plan->tags_count;
	uint64_t time = item->time;

	item->a = user | tag << 8;
	item->b = sim_rand_below(rand, plan->backends_count);
	while (sim_rand_percent(rand, 60)) {
		plan_login(plan, rand, time - I_MIN(time,
				sim_rand_scale(rand, 1000, SIM_SECS(10))),
			   user, SIM_SECS(60));
	}
	while (sim_rand_percent(rand, 70)) {
		plan_login(plan, rand, time +
			   sim_rand_scale(rand, 100, SIM_SECS(5)),
			   user, SIM_SECS(5));
	}
	if (sim_rand_percent(rand, 20)) {
		struct sim_plan_item *other;

		other = plan_add(plan, PLAN_MOVE, time + sim_rand_below(rand,
					4 * plan->max_latency + 1000),
				 sim_rand_below(rand, plan->nodes_count));
		other->a = user | tag << 8;
		other->b = sim_rand_below(rand, plan->backends_count);
	}
}

/* One more of this kind */
static void plan_one(struct sim_plan *plan, struct sim_rand *rand,
		     enum sim_plan_type type)
{
	uint64_t time = plan_moment(plan, rand);
	unsigned int node = sim_rand_below(rand, plan->nodes_count);
	struct sim_plan_item *item;

	item = plan_add(plan, type, time, node);
	switch (type) {
	case PLAN_KILL:
		item->a = sim_rand_percent(rand, 10) ? 0 : plan_length(rand);
		item->b = sim_rand_below(rand, SIM_STOP_CLEAN + 1);
		item->c = sim_rand_below(rand, SIM_RESTORE_JOURNAL + 1);
		break;
	case PLAN_PAUSE:
		item->a = plan_length(rand);
		break;
	case PLAN_CUT:
		item->a = sim_rand_percent(rand, 50) ?
			(uint64_t)1 << node : sim_rand(rand);
		item->b = plan_length(rand);
		item->c = sim_rand_percent(rand, 70) ? 3 :
			sim_rand_range(rand, 1, 2);
		break;
	case PLAN_CUT_LINK:
		item->node2 = plan_other(plan, rand, node);
		item->b = plan_length(rand);
		item->c = sim_rand_range(rand, 1, 3);
		break;
	case PLAN_LATENCY:
		item->a = sim_rand_scale(rand, 100, SIM_MSECS(1200));
		item->b = plan_length(rand);
		break;
	case PLAN_CLOCK:
		item->a = plan_jump(rand);
		break;
	case PLAN_HOST:
		plan_host_command(plan, rand, item, plan->unsafe);
		plan_host_again(plan, rand, time, node, item->b);
		if (sim_rand_percent(rand, 50))
			plan_logins_at(plan, rand, time);
		if (plan->trouble[PLAN_RESET] && sim_rand_percent(rand, 60))
			plan_reset_at(plan, rand, time, node);
		break;
	case PLAN_RING_REMOVE:
		item->node2 = plan_other(plan, rand, node);
		item->a = sim_rand_scale(rand, SIM_MSECS(1), SIM_SECS(3));
		item->b = sim_rand_percent(rand, 50) ? 0 : plan_length(rand);
		if (sim_rand_percent(rand, 50))
			plan_reset_at(plan, rand, time, item->node2);
		break;
	case PLAN_RESET:
		item->a = sim_rand_below(rand, 8);
		break;
	case PLAN_STALL:
		item->a = sim_rand_below(rand, 8);
		item->b = plan_length(rand) / 4;
		break;
	case PLAN_MOVE:
		plan_move(plan, rand, item);
		break;
	case PLAN_START:
	case PLAN_LOGIN:
	case PLAN_REFRESH:
	case PLAN_RING_ADD:
	default:
		i_unreached();
	}
}

static bool plan_is_trouble(enum sim_plan_type type)
{
	return type != PLAN_START && type != PLAN_LOGIN &&
		type != PLAN_REFRESH;
}

static void plan_kinds(struct sim_plan *plan, struct sim_rand *rand)
{
	unsigned int i, n = sim_rand_below(rand, 100), kinds;

	plan->unsafe = sim_rand_percent(rand, 30);
	plan->trouble[PLAN_MOVE] = sim_rand_percent(rand, 40);
	if (n < 10 || plan->nodes_count == 1)
		return;
	if (n < 80) {
		kinds = n < 50 ? 1 : sim_rand_range(rand, 2, 3);
		for (i = 0; i < kinds; i++)
			plan->trouble[sim_rand_range(rand, PLAN_KILL,
						     PLAN_MOVE)] = TRUE;
		/* hashing alone finds everybody unless the backends change */
		if (sim_rand_percent(rand, 60))
			plan->trouble[PLAN_HOST] = TRUE;
	} else {
		for (i = 0; i <= PLAN_MOVE; i++)
			plan->trouble[i] = plan_is_trouble(i);
	}
}

static void plan_trouble(struct sim_plan *plan, struct sim_rand *rand)
{
	uint64_t gap = sim_rand_scale(rand, SIM_SECS(2), SIM_SECS(30));
	unsigned int type, i, count;

	for (type = 0; type <= PLAN_MOVE; type++) {
		if (!plan->trouble[type] || type == PLAN_RING_ADD)
			continue;
		count = sim_rand_range(rand, 1, plan->duration / gap + 1);
		for (i = 0; i < count; i++)
			plan_one(plan, rand, type);
	}
}

/* -- Login processes and flushes, which came later: what was planned before
   stays as it was -- */

static void plan_flush(struct sim_plan *plan, struct sim_rand *rand,
		       uint64_t time)
{
	struct sim_plan_item *item;
	unsigned int backend = sim_rand_below(rand, plan->backends_count);

	item = plan_add(plan, PLAN_FLUSH, time,
			sim_rand_below(rand, plan->nodes_count));
	item->b = sim_rand_percent(rand, 20) ? SIM_NONE : backend;
	item->c = sim_rand_range(rand, 1, 20);
	if (sim_rand_percent(rand, 70)) {
		/* as it is meant: nobody new comes, who is there goes */
		time -= I_MIN(time, SIM_MSECS(200));
		item = plan_add(plan, PLAN_HOST, time, item->node);
		item->a = sim_rand_percent(rand, 50) ? SIM_HOST_VHOSTS :
			SIM_HOST_DOWN;
		item->b = backend;
	}
}

/* Mostly while a user of it is being moved */
static void plan_process(struct sim_plan *plan, struct sim_rand *rand,
			 enum sim_plan_type type, uint64_t time)
{
	struct sim_plan_item *item, *move;
	unsigned int node = sim_rand_below(rand, plan->nodes_count);
	unsigned int user = sim_rand_below(rand, plan->users_count);
	unsigned int tag = user % plan->tags_count;

	plan_login(plan, rand, time - I_MIN(time, sim_rand_scale(rand, 1000,
							SIM_SECS(20))),
		   user, SIM_SECS(60));
	item = array_back_modifiable(&plan->items);
	item->node = node;
	item->a = user | tag << 8;
	if (sim_rand_percent(rand, 30)) {
		/* who expires as soon as anybody does */
		item->c = I_MAX(item->c, SIM_SECS(plan->expire_secs * 2));
	}
	if (sim_rand_percent(rand, 70)) {
		move = plan_add(plan, PLAN_MOVE, time +
				sim_rand_below(rand, SIM_SECS(2)),
				sim_rand_below(rand, plan->nodes_count));
		move->a = user | tag << 8;
		move->b = sim_rand_below(rand, plan->backends_count);
	}
	while (sim_rand_percent(rand, 70)) {
		plan_login(plan, rand, time + sim_rand_scale(rand, 100,
							     SIM_SECS(12)),
			   user, SIM_SECS(5));
	}
	item = plan_add(plan, type, time, node);
	item->a = sim_rand_below(rand, SIM_PROCESSES);
	item->b = type == PLAN_PROCESS_STOP ?
		sim_rand_scale(rand, SIM_MSECS(20), SIM_SECS(20)) :
		sim_rand_range(rand, SIM_MSECS(1), SIM_MSECS(900));
	item->c = sim_rand_below(rand, SIM_PLUGIN_LOSS_LATE + 1);
}

/* A director is killed and started again at once, while a user who has a
   session there is moved elsewhere. */
static void
plan_restart(struct sim_plan *plan, struct sim_rand *rand, uint64_t time)
{
	struct sim_plan_item *item;
	unsigned int node = sim_rand_below(rand, plan->nodes_count);
	unsigned int i, user = sim_rand_below(rand, plan->users_count);
	unsigned int tag = user % plan->tags_count;
	uint64_t length = sim_rand_range(rand, SIM_MSECS(20), SIM_SECS(3));

	plan_login(plan, rand, time - I_MIN(time, SIM_SECS(5)), user,
		   SIM_SECS(60));
	item = array_back_modifiable(&plan->items);
	item->node = node;
	item->a = user | tag << 8;
	item->c = SIM_SECS(60);
	item = plan_add(plan, PLAN_KILL, time, node);
	item->a = length;
	item->b = SIM_STOP_KILL;
	item->c = SIM_RESTORE_JOURNAL;
	item = plan_add(plan, PLAN_MOVE, time - I_MIN(time, SIM_MSECS(500)) +
			sim_rand_below(rand, length + SIM_SECS(1)),
			(node + 1) % plan->nodes_count);
	item->a = user | tag << 8;
	item->b = sim_rand_below(rand, plan->backends_count);
	for (i = 0; i < 4; i++) {
		plan_login(plan, rand, time + sim_rand_below(rand, length +
							SIM_SECS(2)),
			   user, SIM_SECS(5));
	}
}

static void plan_sessions(struct sim_plan *plan, struct sim_rand *rand)
{
	uint64_t gap = sim_rand_scale(rand, SIM_SECS(2), SIM_SECS(30));
	unsigned int type, i, count;

	if (!sim_rand_percent(rand, 40))
		return;
	plan->late_plugins = sim_rand_percent(rand, 70);
	plan->no_notify = sim_rand_percent(rand, 40);
	for (type = PLAN_FLUSH; type < PLAN_TYPES; type++) {
		if (!sim_rand_percent(rand, 50))
			continue;
		count = sim_rand_range(rand, 1, plan->duration / gap + 1);
		for (i = 0; i < count; i++) {
			uint64_t time = plan_moment(plan, rand);

			if (type == PLAN_FLUSH)
				plan_flush(plan, rand, time);
			else if (type == PLAN_PROCESS_CRASH &&
				 sim_rand_percent(rand, 40))
				plan_restart(plan, rand, time);
			else
				plan_process(plan, rand, type, time);
		}
	}
}

void sim_plan_init(struct sim_plan *plan, uint64_t seed)
{
	struct sim_rand later = { seed * 0x2545f4914f6cdd1dULL + 2 };
	struct sim_rand rand = { seed * 0x2545f4914f6cdd1dULL + 1 };

	i_zero(plan);
	plan->seed = seed;
	i_array_init(&plan->items, 256);
	plan->expire_secs = sim_rand_scale(&rand, 10, 60);
	plan->duration = SIM_SECS(sim_rand_percent(&rand, 85) ?
		sim_rand_range(&rand, 20, 60) :
		sim_rand_range(&rand, 60, 240));
	plan_nodes(plan, &rand);
	plan_backends(plan, &rand);
	plan_network(plan, &rand);
	plan_expiry(plan);
	plan_kinds(plan, &rand);
	plan_starts(plan, &rand);
	plan_logins(plan, &rand);
	plan_trouble(plan, &rand);
	plan_sessions(plan, &later);
}

void sim_plan_deinit(struct sim_plan *plan)
{
	array_free(&plan->items);
}
