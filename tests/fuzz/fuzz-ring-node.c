/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What is around a core, but for the ring: time, lookups, the login plugins,
   an administrator. */

#include "fuzz-ring.h"
#include "director/core/username-hash.h"

#define MEMBERS_MAX 5
#define BACKENDS 3
#define BACKEND_VHOSTS 8
#define KICKS 2
/* How often cores run in so much time although nothing comes. Silence is
   counted twice a second for each connection, and each member may be tried; who
   is moved is looked at four times a second, kicks ten times. */
#define IDLE_MAX(msecs, moves) \
	(200 + 8 * RING_MEMBERS_MAX + 100 * KICKS * 11 + 8 * (moves) + \
	 (msecs) * (20 + 4 * array_count(&world.conns) + 4 * (moves)) / 1000)

struct director_time fuzz_now(const struct fuzz_node *node)
{
	time_t wall = FUZZ_WALL + (world.msecs - FUZZ_MSECS) / 1000;

	return (struct director_time){
		.msecs = world.msecs,
		.wall = wall,
		.clock = wall + node->clock_skew,
	};
}

/* How often orderly others pass something on in so much time: what was there
   may go round 64 times. */
#define PASSED_ON_MAX(msecs, moves) \
	(1000 + ((msecs) / 1000 + 1) * (100 + 8 * (moves)))

/* -- What the core wants -- */

static void
node_record(void *context ATTR_UNUSED, const struct director_record *record)
{
	i_assert(record->tag != NULL);
	i_assert(record->type == DIRECTOR_RECORD_USER_FORGET ||
		 record->ip.family != 0);
}

static void node_log(void *context, enum log_type type ATTR_UNUSED,
		     const char *text)
{
	fuzz_check_log(context, text);
}

static void
lookup_answered(struct fuzz_node *node, struct fuzz_lookup *lookup)
{
	const struct backend *backend = lookup->lookup.backend;

	i_assert(strcmp(backend->tag, lookup->lookup.tag) == 0);
	fuzz_check_answer(node, backend->tag, lookup->lookup.hash);
	lookup->waits = FALSE;
	lookup->answered = TRUE;
	lookup->token = lookup->lookup.token;
	lookup->ip = backend->ip;
}

static void
node_lookup_done(void *context, struct director_lookup *_lookup,
		 bool success)
{
	struct fuzz_lookup *lookup =
		container_of(_lookup, struct fuzz_lookup, lookup);

	i_assert(lookup->waits);
	if (success)
		lookup_answered(context, lookup);
	else
		i_assert(lookup->lookup.error != NULL);
	lookup->waits = FALSE;
}

static void node_changes_recorded(void *context ATTR_UNUSED)
{
}

static const struct director_vfuncs node_vfuncs = {
	.record = node_record,
	.log = node_log,
	.lookup_done = node_lookup_done,
	.changes_recorded = node_changes_recorded,
	.kick = fuzz_kick,
	.kick_backend = fuzz_kick_backend,
	.flush_hook = fuzz_flush_hook,
	.ring = { fuzz_connect, fuzz_send, fuzz_queued, fuzz_close },
};

/* -- Start and end -- */

/* Backends with few vhosts, since computing their rings takes long. If it knows
   more from before, a backend has been added since, and there is a user. */
static void node_restore(struct fuzz_node *node, bool more)
{
	struct director_time now = fuzz_now(node);
	struct director_record record = { .vhosts = BACKEND_VHOSTS };
	const char *error;

	for (unsigned int i = 0; i < (more ? 2 : BACKENDS); i++) {
		record.ip = fuzz_backend_nth(i);
		record.tag = i == 2 ? "t1" : "";
		record.type = DIRECTOR_RECORD_CONFIG;
		director_restore(node->core, &record, &now);
		record.type = DIRECTOR_RECORD_HOST;
		director_restore(node->core, &record, &now);
	}
	if (!more)
		return;
	record.type = DIRECTOR_RECORD_USER;
	record.timestamp = now.wall - 5;
	if (director_user_hash(node->core, "jane", &record.hash, &error) == 0)
		director_restore(node->core, &record, &now);
}

static void node_configure(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	struct director_record records[BACKENDS];

	i_zero(&records);
	for (unsigned int i = 0; i < N_ELEMENTS(records); i++) {
		records[i].type = DIRECTOR_RECORD_CONFIG;
		records[i].ip = fuzz_backend_nth(i);
		records[i].tag = i == 2 ? "t1" : "";
	}
	director_configure(node->core, records, N_ELEMENTS(records), FALSE,
			   &now);
}

void fuzz_node_start(struct fuzz_node *node, bool restore)
{
	struct director_time now = fuzz_now(node);
	struct ring_address members[MEMBERS_MAX];
	struct director_vfuncs vfuncs = node_vfuncs;
	struct director_core_settings set = {
		.username_hash = USERNAME_HASH_DEFAULT_FORMAT,
		.master_user_separator = "*",
		.user_expire_secs = world.expire_secs,
		.user_kick_delay_msecs = 2000,
		.lost_grace_msecs = 15000,
		.max_parallel_moves = 3,
		.max_parallel_kicks = KICKS,
		.instance = 4711 + node->starts,
		.hash_key = 4711,
		.ring = {
			.self = node->address,
			.members = members,
			.members_count = world.members_count,
			.ping_idle_msecs = 30000,
			.ping_max_msecs = 60000,
			.started = now.clock * 1000ULL + node->starts++,
		},
	};

	for (unsigned int i = 0; i < world.members_count; i++)
		members[i] = fuzz_member(world.first_member + i);
	vfuncs.sessions = fuzz_session_vfuncs;
	node->core = director_init(&set, &vfuncs, node, &now);
	node_restore(node, restore);
	node_configure(node);
	for (unsigned int i = 0; i < FUZZ_PROCESSES; i++) {
		node->processes[i] =
			login_process_ref(director_leases(node->core), i + 1);
	}
	fuzz_allow_all(node);
}

void fuzz_node_stop(struct fuzz_node *node)
{
	struct session_leases *leases = director_leases(node->core);
	unsigned int i;

	/* QUIT */
	fuzz_allow(node, 1);
	for (i = 0; i < FUZZ_LOOKUPS; i++) {
		if (node->lookups[i].waits) {
			director_lookup_abort(node->core,
					      &node->lookups[i].lookup);
		}
		i_zero(&node->lookups[i]);
	}
	for (i = 0; i < FUZZ_PROCESSES; i++) {
		if (node->plugins[i] != NULL)
			session_plugin_lost(leases, &node->plugins[i],
					    world.msecs);
		login_process_unref(leases, &node->processes[i]);
	}
	if (node->flush != NULL)
		director_flush_unref(&node->flush, FALSE);
	node->hooks_count = 0;
	director_deinit(&node->core);
}

/* -- Time -- */

static bool node_wants_to_run(struct fuzz_node *node, uint64_t *deadline_r)
{
	struct director_time now = fuzz_now(node);

	*deadline_r = director_next_deadline(node->core, &now);
	return *deadline_r != 0 && *deadline_r <= now.msecs;
}

void fuzz_run(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	uint64_t deadline;

	if (!node_wants_to_run(node, &deadline))
		return;
	fuzz_check_run(node);
	T_BEGIN {
		(void)director_run(node->core, &now);
	} T_END;
}

void fuzz_pass(uint64_t msecs, bool asleep)
{
	uint64_t end = world.msecs + msecs, next, deadline;
	uint64_t passed_on = world.passed_on;
	unsigned int i, idle = 0, moves = 0;

	if (asleep)
		world.msecs = end;
	for (;;) {
		next = end;
		for (i = 0; i < world.nodes_count; i++) {
			fuzz_run(&world.nodes[i]);
			moves = I_MAX(moves, world.nodes_count *
				director_users_moving(world.nodes[i].core));
			(void)node_wants_to_run(&world.nodes[i], &deadline);
			if (deadline != 0)
				next = I_MIN(next, deadline);
		}
		if (fuzz_deliver_all())
			next = 0;
		else if (++idle > IDLE_MAX(msecs, moves))
			i_panic("A core runs and runs for nothing");
		if (world.passed_on - passed_on > PASSED_ON_MAX(msecs, moves))
			i_panic("Lines go round and round");
		fuzz_check_step();
		fuzz_conns_sweep();
		if (world.msecs == end)
			break;
		world.msecs = I_MAX(next, world.msecs + 1);
	}
}

/* -- What happens at it -- */

void fuzz_node_lookup(struct fuzz_node *node)
{
	struct fuzz_lookup *lookup = &node->lookups[fuzz_byte() % FUZZ_LOOKUPS];
	struct director_time now = fuzz_now(node);
	uint8_t process = fuzz_byte();
	int ret;

	fuzz_allow(node, 1);
	if (lookup->waits)
		director_lookup_abort(node->core, &lookup->lookup);
	i_zero(lookup);
	lookup->lookup.username = fuzz_user();
	lookup->lookup.tag = fuzz_tag();
	if (process % 4 < FUZZ_PROCESSES)
		lookup->lookup.process = node->processes[process % 4];
	lookup->since_msecs = now.msecs;
	ret = director_lookup(node->core, &lookup->lookup, &now);
	i_assert(ret >= 0);
	if (ret > 0)
		lookup_answered(node, lookup);
	else
		lookup->waits = TRUE;
	fuzz_run(node);
}

static struct session_token session_token(struct fuzz_node *node)
{
	uint8_t byte = fuzz_byte();

	/* of a director before, or none */
	if (byte >= 0xf0) {
		return (struct session_token){ .instance = 4000,
					       .seq = byte % 4 };
	}
	return node->lookups[byte % FUZZ_LOOKUPS].token;
}

static void session_start(struct fuzz_node *node, struct session_plugin *plugin)
{
	struct fuzz_lookup *lookup =
		&node->lookups[fuzz_byte() % FUZZ_LOOKUPS];
	struct session_token token = session_token(node);
	struct director_time now = fuzz_now(node);
	struct ip_addr ip = lookup->answered ? lookup->ip : fuzz_backend();
	const char *error = NULL;

	if (director_session_start(node->core, plugin, &token,
				   I_MAX(lookup->lookup.hash, 1), &ip,
				   now.wall - fuzz_byte(), &now, &error) == NULL)
		i_assert(error != NULL);
}

void fuzz_node_session(struct fuzz_node *node)
{
	struct session_leases *leases = director_leases(node->core);
	struct director_time now = fuzz_now(node);
	unsigned int op = fuzz_byte() % 8;
	unsigned int process = fuzz_byte() % FUZZ_PROCESSES;
	struct session_plugin **plugin = &node->plugins[process];
	struct session_lease *lease;
	struct session_token token;
	struct ip_addr ip;

	fuzz_allow(node, 4);
	if (*plugin == NULL) {
		*plugin = session_plugin_init(leases, node->processes[process]);
		op = 0;
	}
	switch (op) {
	case 0:
	case 1:
	case 2:
		session_start(node, *plugin);
		break;
	case 3:
	case 4:
	case 5:
		token = session_token(node);
		lease = session_lease_lookup(leases, &token);
		if (lease == NULL || lease->plugin != *plugin)
			break;
		if (op != 5)
			director_session_end(node->core, &lease, &now);
		else {
			ip = fuzz_backend();
			director_session_up(node->core, lease, &ip, &now);
		}
		break;
	case 6:
		session_plugin_lost(leases, plugin, now.msecs);
		break;
	case 7:
		director_sessions_announced(node->core, *plugin, &now);
		break;
	}
	fuzz_run(node);
}

void fuzz_node_admin(struct fuzz_node *node)
{
	static const unsigned int vhosts[] = { 8, 5, 0, UINT_MAX, 1, 9 };
	struct director_time now = fuzz_now(node);
	struct director *core = node->core;
	unsigned int op = fuzz_byte() % 8;
	struct ring_address address;
	struct ip_addr ip = fuzz_backend();
	unsigned int count;

	/* a flush is of all */
	(void)backends_sorted(director_backends(core), &count);
	fuzz_allow(node, 8 + count);
	switch (op) {
	case 0:
	case 1:
		(void)director_host_set(core, &ip, op == 0 ? NULL : fuzz_tag(),
					vhosts[fuzz_byte() % N_ELEMENTS(vhosts)],
					TRUE, "fuzz: ", &now);
		break;
	case 2:
	case 3:
		(void)director_host_set_down(core, &ip, op == 2, "fuzz: ",
					     &now);
		break;
	case 4:
		(void)director_host_remove(core, &ip, (fuzz_byte() & 1) != 0,
					   "fuzz: ", &now);
		break;
	case 5:
		(void)director_host_flush(core, fuzz_byte() % 4 == 0 ? NULL :
					  &ip, "fuzz: ", &now);
		break;
	case 6:
		address = fuzz_address();
		world.added++;
		ring_add_member(core, &address, "fuzz: ", &now);
		break;
	case 7:
		address = fuzz_address();
		(void)ring_remove_member(core, &address, "fuzz: ", &now);
		break;
	}
	fuzz_run(node);
}
