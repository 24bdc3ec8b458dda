/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Users who are moved and kicked: by administrators, and what login processes
   and the flush hook do about it. */

#include "fuzz-ring.h"

/* -- What the core wants -- */

void fuzz_kick(void *context, struct session_plugin *plugin, uint32_t hash,
	       const struct ip_addr *except ATTR_UNUSED, const char *reason)
{
	struct fuzz_node *node = context;

	i_assert(plugin->deadline == 0);
	fuzz_trace("%u: kick %u: %s", node->idx, hash, reason);
	fuzz_check_text(reason);
	node->kicked = hash;
}

void fuzz_kick_backend(void *context ATTR_UNUSED, struct session_plugin *plugin,
		       const struct ip_addr *ip ATTR_UNUSED, const char *reason)
{
	i_assert(plugin->deadline == 0);
	fuzz_check_text(reason);
}

static bool
kick_session(void *context, struct session_plugin *plugin,
	     const struct session_token *token, const char *reason)
{
	struct fuzz_node *node = context;
	const struct session_lease *lease =
		session_lease_lookup(director_leases(node->core), token);

	i_assert(plugin->deadline == 0);
	i_assert(lease != NULL && lease->plugin == plugin);
	fuzz_check_text(reason);
	if (node->busy)
		return FALSE;
	node->kicked = lease->user->hash;
	return TRUE;
}

static void
session_row(void *context ATTR_UNUSED, uint32_t id ATTR_UNUSED,
	    const struct director_session_row *row)
{
	i_assert(row->user != NULL && row->service != NULL);
	i_assert(row->state != NULL && row->backend.family != 0);
}

static void
sessions_kicked(void *context ATTR_UNUSED, uint32_t id ATTR_UNUSED,
		const struct ring_address *from, unsigned int count ATTR_UNUSED)
{
	i_assert(from->ip.family != 0 && from->port != 0);
}

static void
session_rows_end(void *context ATTR_UNUSED, uint32_t id ATTR_UNUSED,
		 unsigned int next ATTR_UNUSED, unsigned int count ATTR_UNUSED)
{
}

const struct director_session_vfuncs fuzz_session_vfuncs = {
	.kick = kick_session,
	.kicked = sessions_kicked,
	.row = session_row,
	.end = session_rows_end,
};

bool fuzz_flush_hook(void *context, const struct director_flush_hook *hook)
{
	struct fuzz_node *node = context;

	i_assert(!net_ip_compare(&hook->old_ip, &hook->new_ip));
	if (world.ending || node->hooks_count == FUZZ_HOOKS)
		return FALSE;
	node->hooks[node->hooks_count].hash = hook->hash;
	node->hooks[node->hooks_count++].id = hook->id;
	return TRUE;
}

/* -- What they do -- */

static void hook_ends(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	const struct fuzz_hook *hook = &node->hooks[node->hooks_count - 1];

	node->hooks_count--;
	director_flush_hook_ended(node->core, hook->hash, hook->id, &now);
}

static void sessions_end(struct fuzz_node *node, uint32_t hash)
{
	struct session_leases *leases = director_leases(node->core);
	struct director_time now = fuzz_now(node);
	struct session_lease *lease;
	unsigned int i;

	for (i = 0; i < FUZZ_LOOKUPS; i++) {
		lease = session_lease_lookup(leases, &node->lookups[i].token);
		if (lease != NULL && session_lease_is_told(lease) &&
		    lease->user->hash == hash)
			director_session_end(node->core, &lease, &now);
	}
}

void fuzz_node_ends(struct fuzz_node *node)
{
	struct session_leases *leases = director_leases(node->core);
	unsigned int i;

	for (i = 0; i < FUZZ_PROCESSES; i++) {
		if (node->plugins[i] != NULL)
			session_plugin_lost(leases, &node->plugins[i],
					    world.msecs);
	}
	while (node->hooks_count > 0)
		hook_ends(node);
	node->busy = FALSE;
}

static uint32_t user_hash(struct fuzz_node *node)
{
	const char *error;
	uint32_t hash;

	if (director_user_hash(node->core, fuzz_user(), &hash, &error) < 0)
		i_unreached();
	return hash;
}

static void admin_kicks(struct fuzz_node *node)
{
	static const char *const texts[] = { "jane", "joe", "*", "u?", "4711" };
	struct director_time now = fuzz_now(node);
	uint8_t byte = fuzz_byte();
	struct session_match match;
	const char *error;
	uint32_t id;

	i_zero(&match);
	if ((byte & 8) != 0) {
		match.type = SESSION_MATCH_FIELD;
		match.field = "user_team";
		match.text = "blue";
	} else if (session_match_user(node->core,
				      texts[byte / 16 % N_ELEMENTS(texts)],
				      (byte & 4) != 0, &match, &error) < 0)
		return;
	(void)director_sessions_kick(node->core, &match, (byte & 1) != 0,
				     "fuzz: ", &id, &now);
}

static void count_row(const struct director_session_row *row, void *context)
{
	session_row(context, 0, row);
}

static void admin_lists(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	struct ring_address to = fuzz_address();
	struct ip_addr ip = fuzz_backend();
	struct session_match match;
	unsigned int pos = 0;
	const char *error, *waits;
	uint32_t id;

	if (session_match_user(node->core, fuzz_user(), TRUE, &match,
			       &error) < 0)
		return;
	while (director_sessions_list(node->core, &match, &pos, count_row,
				      NULL, &now)) ;
	(void)director_sessions_ask(node->core, &to, match.text,
				    fuzz_byte() % 4, &id);
	waits = director_user_move_waits(node->core, match.hash, &ip, &now);
	if (waits != NULL)
		fuzz_check_text(waits);
}

static void admin_flushes(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	uint8_t byte = fuzz_byte();
	struct ip_addr ip = fuzz_backend();

	if (node->flush != NULL)
		director_flush_unref(&node->flush, (byte & 1) != 0);
	node->flush = director_flush_users(node->core,
		(byte & 2) != 0 ? NULL : &ip, 0, "fuzz: ", NULL, NULL, &now);
}

void fuzz_node_move(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	unsigned int op = fuzz_byte() % 10;
	struct ip_addr ip;
	uint32_t id;

	fuzz_allow(node, 2);
	switch (op) {
	case 0:
	case 1:
	case 2:
		ip = fuzz_backend();
		(void)director_user_move(node->core, user_hash(node), &ip,
					 "fuzz: ", &now);
		break;
	case 3:
		admin_flushes(node);
		break;
	case 4:
		admin_kicks(node);
		break;
	case 5:
		admin_lists(node);
		break;
	case 6:
		ip = fuzz_backend();
		director_sessions_count(node->core, user_hash(node), &ip, &id);
		break;
	case 7:
		sessions_end(node, node->kicked);
		break;
	case 8:
		if (node->hooks_count > 0)
			hook_ends(node);
		break;
	case 9:
		node->busy = !node->busy;
		break;
	}
	fuzz_run(node);
}

/* -- What holds -- */

bool fuzz_moves_are_over(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	struct user_flush_status status = { .ended = TRUE };

	if (node->flush != NULL)
		director_flush_status(node->flush, &status, &now);
	return status.ended && director_users_moving(node->core) == 0;
}

void fuzz_check_answer(struct fuzz_node *node, const char *tag, uint32_t hash)
{
	if (user_move_find(node->core->moves, tag, hash) != NULL)
		i_panic("User hash %u is let in while he is moved", hash);
}

void fuzz_check_killed(struct fuzz_node *node, const struct ring_message *msg)
{
	const struct backend *backend =
		backend_lookup(node->core->backends, &msg->ip);
	const struct session_user *user;
	const struct session_lease *lease;

	if (msg->wave == 0 || backend == NULL)
		return;
	/* (what isn't on a backend is ended, but nobody waits for it) */
	user = session_leases_user(director_leases(node->core), backend->tag,
				   msg->hash);
	lease = user == NULL ? NULL : user->leases;
	for (; lease != NULL; lease = lease->user_next) {
		if (msg->flag || !net_ip_compare(&lease->backend->ip, &msg->ip))
			i_panic("User hash %u still has sessions", msg->hash);
	}
}

static bool check_user(user_idx_t idx, void *context)
{
	struct director *core = context;
	const struct backend *backend =
		backend_by_slot(core->backends,
				user_table_slot(core->users, idx));
	uint32_t hash = user_table_hash(core->users, idx);

	if (backend != NULL && ((user_table_flags(core->users, idx) &
				 USER_FLAG_MOVING) != 0) !=
	    (user_move_find(core->moves, backend->tag, hash) != NULL)) {
		i_panic("User hash %u is held, but not moved, or the other "
			"way round", hash);
	}
	return TRUE;
}

void fuzz_check_moves(struct fuzz_node *node)
{
	struct director_time now = fuzz_now(node);
	uint32_t pos = 0;

	while (user_table_walk(node->core->users, &pos, now.wall, 1000,
			       check_user, node->core)) ;
}
