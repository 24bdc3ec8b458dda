/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Login processes with their plugin, LMTP, proxy-notify. */

#include "sim.h"
#include "llist.h"
#include "sim-check.h"
#include "sim-client-private.h"

const char *sim_client_user(unsigned int user)
{
	static char names[SIM_MAX_USERS + SIM_MAX_PROBES][8];

	if (names[user][0] == '\0') {
		if (user < SIM_MAX_USERS) {
			i_snprintf(names[user], sizeof(names[user]), "u%u",
				   user);
		} else {
			i_snprintf(names[user], sizeof(names[user]), "probe%u",
				   user - SIM_MAX_USERS);
		}
	}
	return names[user];
}

static const char *client_name(const struct sim_session *session)
{
	return *session->lookup.tag == '\0' ? session->lookup.username :
		t_strconcat(session->lookup.username, "/",
			    session->lookup.tag, NULL);
}

/* -- Sessions -- */

void sim_session_over(struct sim_session *session)
{
	struct sim *sim = session->node->sim;

	if (!session->live)
		return;
	session->live = FALSE;
	sim_trace(sim, session->node, "session of %s on %s ends",
		  client_name(session), net_ip2addr(&session->ip));
	sim_check_ended(sim->check, session->hold, session->started);
}

static void client_end_now(struct sim *sim ATTR_UNUSED, void *arg,
			   uint64_t value ATTR_UNUSED)
{
	struct sim_session *session = arg;

	if (!session->live)
		return;
	sim_session_over(session);
	if (session->started)
		sim_plugin_ended(session);
}

static void client_end(struct sim *sim, void *arg, uint64_t value)
{
	struct sim_session *session = arg;

	if (session->process == NULL)
		client_end_now(sim, arg, value);
	else
		sim_process_post(session->process, client_end_now, arg, value);
}

static void client_start_now(struct sim *sim ATTR_UNUSED, void *arg,
			     uint64_t value ATTR_UNUSED)
{
	struct sim_session *session = arg;

	if (!session->live)
		return;
	session->started = TRUE;
	sim_plugin_started(session);
}

static void client_start(struct sim *sim ATTR_UNUSED, void *arg, uint64_t value)
{
	struct sim_session *session = arg;

	sim_process_post(session->process, client_start_now, arg, value);
}

/* The answer isn't good any more: its login process drops it. */
static void client_too_late(struct sim *sim, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	struct sim_session *session = arg;

	if (session->started || !session->live)
		return;
	sim_trace(sim, session->node, "%s: the answer is too old",
		  client_name(session));
	sim->tally->too_late++;
	sim_session_over(session);
}

static void client_notified(struct sim *sim ATTR_UNUSED, void *arg,
			    uint64_t user)
{
	struct sim_node *node = arg;
	struct director_time now = sim_node_time(node);

	director_refresh(node->core, sim_client_user(user), &now);
	sim_node_called(node);
}

static void client_notify(struct sim *sim, void *arg,
			  uint64_t value ATTR_UNUSED)
{
	struct sim_session *session = arg;

	if (!session->live)
		return;
	if (!session->process->stopped) {
		(void)sim_node_post(session->node, client_notified,
				    session->node, session->user);
	}
	sim_after(sim, SIM_SECS(sim->plan->expire_secs) / 2, client_notify,
		  session, 0);
}

/* Only whoever has a session is told of. */
void sim_client_refresh(struct sim *sim, const struct sim_plan_item *item)
{
	struct sim_node *node = &sim->nodes[item->node];
	struct sim_session *session;

	array_foreach_elem(&sim->sessions, session) {
		if (session->node == node && session->user == item->a &&
		    session->live && session->started &&
		    !session->process->stopped) {
			(void)sim_node_post(node, client_notified, node,
					    item->a);
			break;
		}
	}
}

struct kick_context {
	struct sim_process *process;
	uint32_t hash;
	struct ip_addr except;
};

static void client_kick_now(struct sim *sim, void *arg,
			    uint64_t value ATTR_UNUSED)
{
	const struct kick_context *ctx = arg;
	struct sim_session *session;

	array_foreach_elem(&sim->sessions, session) {
		if (session->process == ctx->process && session->live &&
		    session->started && session->lookup.hash == ctx->hash &&
		    (ctx->except.family == 0 ||
		     !net_ip_compare(&session->ip, &ctx->except))) {
			sim_trace(sim, session->node, "%s is kicked",
				  client_name(session));
			client_end_now(sim, session, 0);
		}
	}
}

static void client_kick(struct sim *sim ATTR_UNUSED, void *arg,
			uint64_t generation)
{
	struct kick_context *ctx = arg;

	if (ctx->process->generation == generation)
		sim_process_post(ctx->process, client_kick_now, ctx, 0);
}

void sim_client_kick(struct sim_node *node, const struct session_plugin *plugin,
		     uint32_t hash, const struct ip_addr *except)
{
	struct kick_context *ctx = p_new(node->sim->pool, struct kick_context,
					 1);

	ctx->process = sim_process_of_plugin(plugin);
	if (ctx->process == NULL)
		return;
	ctx->hash = hash;
	if (except != NULL)
		ctx->except = *except;
	/* some of them are slow */
	sim_after(node->sim, SIM_MSECS(hash % 16 == 0 ? 700 : 1), client_kick,
		  ctx, ctx->process->generation);
}

/* -- Lookups -- */

static void client_admitted(struct sim_session *session)
{
	struct sim_node *node = session->node;
	struct sim *sim = node->sim;

	session->ip = session->lookup.backend->ip;
	sim->tally->admissions++;
	sim_history_number(sim, node->idx << 8 | session->user);
	sim_history(sim, net_ip2addr(&session->ip),
		    strlen(net_ip2addr(&session->ip)));
	sim_trace(sim, node, "ADMITTED %s to %s%s", client_name(session),
		  net_ip2addr(&session->ip), session->process == NULL ? " (lmtp)" : "");
	session->hold = sim_check_admitted(sim->check, node, session->user,
					   session->tag, &session->ip,
					   session->process == NULL);
	session->live = TRUE;
	/* or who asked is gone, of which a director that hung hears later */
	if (session->dropped ||
	    (session->process != NULL &&
	     session->generation != session->process->generation)) {
		sim_session_over(session);
		return;
	}
	if (session->process == NULL) {
		sim_after(sim, I_MIN(session->length, SIM_SECS(5)), client_end,
			  session, 0);
		return;
	}
	sim->tally->sessions++;
	if (sim->ending)
		session->length = 0;
	array_push_back(&sim->sessions, &session);
	session->token = session->lookup.token;
	session->since = sim_node_clock(node);
	if (!session->lookup.leased) {
		sim_fail(sim, "session", "%s: No lease for %s", node->name,
			 client_name(session));
	}
	sim_after(sim, session->start_delay, client_start, session, 0);
	sim_queue_add(sim->queue,
		      SIM_MSECS(session->lookup.lease_deadline + 1) -
		      node->mono_base, client_too_late, session, 0);
	sim_after(sim, session->start_delay + session->length, client_end,
		  session, 0);
	if (!sim->plan->no_notify) {
		sim_after(sim, SIM_SECS(sim->plan->expire_secs) / 2 +
			  session->start_delay, client_notify, session, 0);
	}
}

static void client_waited(struct sim_session *session)
{
	struct sim_node *node = session->node;
	struct sim *sim = node->sim;
	const char *reason = session->lookup.wait_reason;
	uint64_t waited = sim->now - session->asked_time;

	DLLIST2_REMOVE(&node->waiting_head, &node->waiting_tail, session);
	if (waited > sim->tally->wait_max_usecs) {
		sim->tally->wait_max_usecs = waited;
		sim->tally->wait_max_seed = sim->plan->seed;
	}
	sim_check_waited(sim->check, node, session->asked_time,
			 reason != NULL &&
			 (strcmp(reason, "no hosts") == 0 ||
			  strcmp(reason, "user is being moved") == 0));
}

void sim_client_lookup_done(struct director_lookup *lookup, bool success)
{
	struct sim_session *session =
		container_of(lookup, struct sim_session, lookup);
	struct sim *sim = session->node->sim;

	client_waited(session);
	if (success) {
		client_admitted(session);
		return;
	}
	sim->tally->timeouts++;
	sim_trace(sim, session->node, "lookup of %s failed: %s",
		  client_name(session), lookup->error);
}

static void client_ask(struct sim *sim, void *arg, uint64_t value ATTR_UNUSED)
{
	struct sim_session *session = arg;
	struct sim_node *node = session->node;
	struct director_time now = sim_node_time(node);
	int ret;

	sim->tally->lookups++;
	session->asked_time = sim->now;
	if (session->process != NULL) {
		if (session->generation != session->process->generation)
			return;
		session->lookup.process = sim_process_ref(session->process);
	}
	ret = director_lookup(node->core, &session->lookup, &now);
	if (ret < 0) {
		sim_fail(sim, "lookup", "%s: %s", node->name,
			 session->lookup.error);
	} else if (ret > 0) {
		client_admitted(session);
	} else {
		sim->tally->waited++;
		sim_trace(sim, node, "%s waits: %s", client_name(session),
			  session->lookup.wait_reason);
		DLLIST2_APPEND(&node->waiting_head, &node->waiting_tail,
			       session);
	}
	sim_node_called(node);
}

void sim_client_abort_gone(struct sim_node *node)
{
	struct sim_session *session, *next;

	for (session = node->waiting_head; session != NULL; session = next) {
		next = session->next;
		if (session->process == NULL ||
		    session->generation == session->process->generation)
			continue;
		director_lookup_abort(node->core, &session->lookup);
		DLLIST2_REMOVE(&node->waiting_head, &node->waiting_tail,
			       session);
		node->sim->tally->unanswered++;
	}
}

static struct sim_session *
client_new(struct sim_node *node, unsigned int user, unsigned int tag)
{
	struct sim *sim = node->sim;
	struct sim_session *session = p_new(sim->pool, struct sim_session, 1);

	session->node = node;
	session->user = user;
	session->tag = tag;
	session->lookup.username = sim_client_user(user);
	session->lookup.tag = sim->plan->backends[tag].tag;
	return session;
}

void sim_client_login(struct sim *sim, const struct sim_plan_item *item)
{
	struct sim_session *session;

	if (sim->ending)
		return;
	session = client_new(&sim->nodes[item->node], SIM_LOGIN_USER(item->a),
			     SIM_LOGIN_TAG(item->a));
	if ((item->a & SIM_LOGIN_LMTP) == 0) {
		session->process = sim_process_get(session->node,
						   item->b % SIM_PROCESSES);
		session->generation = session->process->generation;
		if (session->process->stopped)
			return;
	}
	session->dropped = (item->a & SIM_LOGIN_DROPPED) != 0;
	session->start_delay = item->b;
	session->length = item->c;
	(void)sim_node_post(session->node, client_ask, session, 0);
}

void sim_client_probe(struct sim_node *node, unsigned int probe)
{
	struct sim_session *session;

	session = client_new(node, SIM_MAX_USERS + probe, 0);
	session->length = SIM_SECS(1);
	(void)sim_node_post(node, client_ask, session, 0);
}

uint64_t sim_client_waits_since(const struct sim_node *node)
{
	return node->waiting_head == NULL ? UINT64_MAX :
		node->waiting_head->asked_time;
}

/* -- Directors come and go -- */

static void client_end_node(struct sim_node *node)
{
	struct sim_session *session;

	array_foreach_elem(&node->sim->sessions, session) {
		if (session->node == node)
			sim_session_over(session);
	}
}

/* Their processes do it themselves, if they can. */
static void client_end_live(struct sim_node *node)
{
	struct sim_session *session;

	array_foreach_elem(&node->sim->sessions, session) {
		if (session->node == node && session->live && session->started)
			client_end(node->sim, session, 0);
	}
}

static void client_orphaned(struct sim *sim ATTR_UNUSED, void *arg,
			    uint64_t incarnation)
{
	struct sim_node *node = arg;

	if (node->core == NULL && node->incarnation == incarnation)
		client_end_live(node);
}

void sim_client_node_stopped(struct sim_node *node, bool sessions_live)
{
	struct sim *sim = node->sim;
	struct sim_session *session;
	uint64_t silent = 0;

	while (node->waiting_head != NULL) {
		session = node->waiting_head;
		director_lookup_abort(node->core, &session->lookup);
		DLLIST2_REMOVE(&node->waiting_head, &node->waiting_tail,
			       session);
		sim->tally->unanswered++;
	}
	sim_process_director_gone(node);
	if (!sessions_live)
		client_end_node(node);
	else {
		/* What it hung for before counts, as often as it was asked for
		   a sign of life. */
		if (node->state == SIM_NODE_PAUSED)
			silent = (sim->now - node->since) / SIM_PLUGIN_PING;
		sim_after(sim, SIM_ORPHAN_GRACE -
			  I_MIN(silent * SIM_PLUGIN_PING, SIM_ORPHAN_GRACE),
			  client_orphaned, node, node->incarnation);
	}
}

static void client_hung(struct sim *sim ATTR_UNUSED, void *arg, uint64_t since)
{
	struct sim_node *node = arg;

	if (node->state == SIM_NODE_PAUSED && node->since == since)
		client_end_live(node);
}

void sim_client_node_paused(struct sim_node *node)
{
	sim_after(node->sim, SIM_ORPHAN_GRACE, client_hung, node, node->since);
}

void sim_client_end_all(struct sim *sim)
{
	struct sim_session *session;

	array_foreach_elem(&sim->sessions, session)
		client_end(sim, session, 0);
}
