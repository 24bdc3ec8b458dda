/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "session-lease-private.h"

struct session_leases *
session_leases_init(uint64_t instance, uint64_t hash_key,
		    session_lease_changed_callback_t *changed, void *context)
{
	struct session_leases *leases;

	leases = i_new(struct session_leases, 1);
	leases->instance = instance;
	leases->hash_key = hash_key;
	leases->changed = changed;
	leases->context = context;
	session_tables_init(leases);
	return leases;
}

void session_leases_set_ended_callback(struct session_leases *leases,
				       session_lease_ended_callback_t *ended)
{
	leases->ended = ended;
}

void session_leases_deinit(struct session_leases **_leases)
{
	struct session_leases *leases = *_leases;
	struct session_node **tokens = leases->tables[SESSION_TABLE_TOKENS];
	struct session_lease *lease;
	unsigned int i;

	*_leases = NULL;
	leases->changed = NULL;
	leases->ended = NULL;
	for (i = 0; i < SESSION_TABLE_SIZE; i++) {
		while (tokens[i] != NULL) {
			lease = container_of(tokens[i], struct session_lease,
					     node);
			session_lease_end(leases, &lease);
		}
	}
	/* Whoever holds a reference has to let it go before. */
	i_assert(leases->processes_count == 0);
	session_tables_deinit(leases);
	i_free(leases);
}

void session_leases_set_untold_callback(
	struct session_leases *leases,
	void (*untold)(const struct session_lease *lease, void *context))
{
	leases->untold = untold;
}

void session_leases_set_lives_callback(
	struct session_leases *leases,
	bool (*lives)(const struct login_process *process, void *context))
{
	leases->lives = lives;
}

/* Into the user's list, counted by state */
static void
lease_set_user(struct session_leases *leases, struct session_lease *lease,
	       const char *tag, uint32_t hash)
{
	struct session_user *user = session_user_get(leases, tag, hash);

	lease->user = user;
	DLLIST_PREPEND_FULL(&user->leases, lease, user_prev, user_next);
	if (lease->state == SESSION_LEASE_ISSUED)
		user->issued++;
	else if (user->sessions++ == 0 && leases->changed != NULL)
		leases->changed(user->tag, hash, TRUE, leases->context);
}

static void
lease_unset_user(struct session_leases *leases, struct session_lease *lease)
{
	struct session_user *user = lease->user;
	const char *tag = user->tag;
	uint32_t hash = user->hash;
	bool last = FALSE;

	lease->user = NULL;
	DLLIST_REMOVE_FULL(&user->leases, lease, user_prev, user_next);
	if (lease->state == SESSION_LEASE_ISSUED) {
		i_assert(user->issued > 0);
		user->issued--;
	} else {
		i_assert(user->sessions > 0);
		last = --user->sessions == 0;
	}
	if (user->leases == NULL)
		session_user_free(leases, user);
	if (last && leases->changed != NULL)
		leases->changed(tag, hash, FALSE, leases->context);
}

static struct session_lease *
lease_add(struct session_leases *leases, struct login_process *process,
	  enum session_lease_state state, const char *tag, uint32_t hash,
	  const struct ip_addr *ip, const struct session_token *token,
	  time_t since)
{
	struct session_lease *lease;

	lease = i_new(struct session_lease, 1);
	lease->state = state;
	lease->process = process;
	process->refcount++;
	lease->backend = session_backend_ref(leases, ip);
	if (state != SESSION_LEASE_ISSUED)
		lease->backend->sessions++;
	lease->token = *token;
	lease->since = I_MAX(I_MIN(since, (time_t)UINT32_MAX), 0);
	session_lease_link(leases, lease);
	lease_set_user(leases, lease, tag, hash);
	return lease;
}

struct session_lease *
session_lease_issue(struct session_leases *leases,
		    struct login_process *process, const char *tag,
		    uint32_t hash, const struct ip_addr *ip,
		    uint64_t now_msecs, time_t now)
{
	struct session_lease *lease;
	struct session_token token = {
		.instance = leases->instance,
		.seq = ++leases->last_seq,
	};

	lease = lease_add(leases, process, SESSION_LEASE_ISSUED, tag, hash, ip,
			  &token, now);
	lease->deadline = now_msecs + SESSION_LEASE_DEADLINE_MSECS +
		SESSION_LEASE_SLACK_MSECS;
	DLLIST2_APPEND(&leases->issued_head, &leases->issued_tail, lease);
	process->issued++;
	return lease;
}

static void
lease_set_plugin(struct session_lease *lease, struct session_plugin *plugin)
{
	i_assert(lease->process == plugin->process);
	i_assert(plugin->deadline == 0);

	if (plugin->process->protocol != NULL)
		plugin->process->protocol->forgotten_seq = 0;
	lease->plugin = plugin;
	DLLIST_PREPEND(&plugin->leases, lease);
}

struct session_lease *
session_lease_announce(struct session_leases *leases,
		       struct session_plugin *plugin, const char *tag,
		       uint32_t hash, const struct ip_addr *ip,
		       const struct session_token *token, time_t since)
{
	struct session_lease *lease;

	lease = lease_add(leases, plugin->process, SESSION_LEASE_STARTED, tag,
			  hash, ip, token, since);
	lease_set_plugin(lease, plugin);
	return lease;
}

static void plugin_free(struct session_leases *leases,
			struct session_plugin *plugin)
{
	if (plugin->deadline != 0) {
		DLLIST2_REMOVE_FULL(&leases->lost_head, &leases->lost_tail,
				    plugin, deadline_prev, deadline_next);
		if (!plugin->over)
			DLLIST_REMOVE(&plugin->process->lost, plugin);
	}
	login_process_unref(leases, &plugin->process);
	i_free(plugin);
}

/* Out of the list that it is in because of its state */
static void
lease_unlist(struct session_leases *leases, struct session_lease *lease)
{
	struct session_plugin *plugin = lease->plugin;

	if (lease->state == SESSION_LEASE_ISSUED) {
		DLLIST2_REMOVE(&leases->issued_head, &leases->issued_tail,
			       lease);
		i_assert(lease->process->issued > 0);
		lease->process->issued--;
		lease->deadline = 0;
		return;
	}
	lease->plugin = NULL;
	DLLIST_REMOVE(&plugin->leases, lease);
	if (plugin->leases == NULL && plugin->deadline != 0)
		plugin_free(leases, plugin);
}

static void
lease_set_started(struct session_leases *leases, struct session_lease *lease)
{
	struct session_user *user = lease->user;

	lease->state = SESSION_LEASE_STARTED;
	lease->backend->sessions++;
	i_assert(user->issued > 0);
	user->issued--;
	if (user->sessions++ == 0 && leases->changed != NULL) {
		leases->changed(user->tag, user->hash, TRUE,
				leases->context);
	}
}

void session_lease_start(struct session_leases *leases,
			 struct session_lease *lease,
			 struct session_plugin *plugin)
{
	i_assert(lease->plugin != plugin);

	lease_unlist(leases, lease);
	lease_set_plugin(lease, plugin);
	if (lease->state == SESSION_LEASE_ISSUED)
		lease_set_started(leases, lease);
}

void session_lease_up(struct session_lease *lease)
{
	if (lease->state == SESSION_LEASE_STARTED)
		lease->state = SESSION_LEASE_UP;
}

void session_lease_redirect(struct session_leases *leases,
			    struct session_lease *lease,
			    const struct ip_addr *ip)
{
	struct session_backend *old = lease->backend;

	lease->backend = session_backend_ref(leases, ip);
	if (lease->state != SESSION_LEASE_ISSUED) {
		lease->backend->sessions++;
		old->sessions--;
	}
	session_backend_unref(leases, old);
}

void session_lease_set_tag(struct session_leases *leases,
			   struct session_lease *lease, const char *tag)
{
	uint32_t hash = lease->user->hash;

	if (null_strcmp(lease->user->tag, tag) == 0)
		return;
	lease_unset_user(leases, lease);
	lease_set_user(leases, lease, tag, hash);
}

void session_lease_end(struct session_leases *leases,
		       struct session_lease **_lease)
{
	struct session_lease *lease = *_lease;
	const bool session = lease->state != SESSION_LEASE_ISSUED;
	const struct ip_addr ip = lease->backend->ip;
	const char *tag = lease->user->tag;
	uint32_t hash = lease->user->hash;

	*_lease = NULL;
	lease_unlist(leases, lease);
	if (session) {
		i_assert(lease->backend->sessions > 0);
		lease->backend->sessions--;
	}
	session_lease_unlink(leases, lease);
	session_backend_unref(leases, lease->backend);
	login_process_unref(leases, &lease->process);
	lease_unset_user(leases, lease);
	session_lease_forget_names(leases, lease);
	i_free(lease);
	if (session && leases->ended != NULL)
		leases->ended(tag, hash, &ip, leases->context);
}

struct session_plugin *
session_plugin_init(struct session_leases *leases ATTR_UNUSED,
		    struct login_process *process)
{
	struct session_plugin *plugin;

	plugin = i_new(struct session_plugin, 1);
	plugin->process = process;
	plugin->number = ++process->last_plugin;
	process->refcount++;
	process->plugin_seen = TRUE;
	process->plugin_missing = FALSE;
	if (process->protocol != NULL)
		process->protocol->forgotten_seq = 0;
	return plugin;
}

/* Its sessions are due. */
static void plugin_is_over(struct session_leases *leases,
			   struct session_plugin *plugin, uint64_t now_msecs)
{
	plugin->over = TRUE;
	plugin->deadline = I_MAX(now_msecs, 1);
	if (leases->lost_head != NULL) {
		plugin->deadline = I_MIN(plugin->deadline,
					 leases->lost_head->deadline);
	}
	DLLIST2_PREPEND_FULL(&leases->lost_head, &leases->lost_tail, plugin,
			     deadline_prev, deadline_next);
}

void session_plugin_lost(struct session_leases *leases,
			 struct session_plugin **_plugin, uint64_t now_msecs)
{
	struct session_plugin *plugin = *_plugin;

	*_plugin = NULL;
	if (plugin->process->announced == plugin)
		plugin->process->announced = NULL;
	if (plugin->leases == NULL) {
		plugin_free(leases, plugin);
		return;
	}
	if (plugin->process->announced != NULL) {
		plugin_is_over(leases, plugin, now_msecs);
		return;
	}
	plugin->deadline = now_msecs + SESSION_LEASE_ORPHAN_MSECS;
	DLLIST2_APPEND_FULL(&leases->lost_head, &leases->lost_tail, plugin,
			    deadline_prev, deadline_next);
	DLLIST_PREPEND(&plugin->process->lost, plugin);
}

void session_leases_announced(struct session_leases *leases,
			      const struct session_plugin *announced,
			      uint64_t now_msecs)
{
	struct login_process *process = announced->process;
	struct session_plugin *plugin;

	/* it was said before, and is read only now */
	if (process->announced != NULL &&
	    process->announced->number > announced->number)
		return;
	process->announced = announced;
	while ((plugin = process->lost) != NULL) {
		DLLIST_REMOVE(&process->lost, plugin);
		DLLIST2_REMOVE_FULL(&leases->lost_head, &leases->lost_tail,
				    plugin, deadline_prev, deadline_next);
		plugin_is_over(leases, plugin, now_msecs);
	}
}

/* The first one proves nothing: it may be that the client had gone, or that the
   process was stopped for a while. One that was issued after that does. */
static bool answer_proves(uint64_t *forgotten_seq, uint64_t seq,
			  uint64_t last_seq)
{
	if (*forgotten_seq == 0)
		*forgotten_seq = last_seq;
	return seq > *forgotten_seq;
}

/* Its answer was never acted on. A process may get only one of them, so others
   of the same protocol count, too. */
static void
lease_untold(struct session_leases *leases, const struct session_lease *lease)
{
	struct login_process *process = lease->process;
	struct session_protocol *protocol = process->protocol;
	uint64_t seq = lease->token.seq;

	if (lease->state != SESSION_LEASE_ISSUED || process->plugin_seen)
		return;
	if (answer_proves(&process->forgotten_seq, seq, leases->last_seq) ||
	    (protocol != NULL &&
	     answer_proves(&protocol->forgotten_seq, seq, leases->last_seq)))
		process->plugin_missing = TRUE;
	if (leases->untold != NULL)
		leases->untold(lease, leases->context);
}

/* The time of connections that were lost is over, but their processes may be
   stopped: whoever isn't connects again (director-link.c). */
static void
leases_keep_living(struct session_leases *leases, uint64_t now_msecs)
{
	struct session_plugin *plugin;

	while ((plugin = leases->lost_head) != NULL && !plugin->over &&
	       plugin->deadline <= now_msecs && leases->lives != NULL &&
	       leases->lives(plugin->process, leases->context)) {
		DLLIST2_REMOVE_FULL(&leases->lost_head, &leases->lost_tail,
				    plugin, deadline_prev, deadline_next);
		plugin->deadline = now_msecs + SESSION_LEASE_ORPHAN_MSECS;
		DLLIST2_APPEND_FULL(&leases->lost_head, &leases->lost_tail,
				    plugin, deadline_prev, deadline_next);
	}
}

/* NULL if none is due. */
static struct session_lease *
leases_due(struct session_leases *leases, uint64_t now_msecs)
{
	if (leases->issued_head != NULL &&
	    leases->issued_head->deadline <= now_msecs)
		return leases->issued_head;
	if (leases->lost_head != NULL &&
	    leases->lost_head->deadline <= now_msecs)
		return leases->lost_head->leases;
	return NULL;
}

bool session_leases_expire(struct session_leases *leases, uint64_t now_msecs,
			   unsigned int max)
{
	struct session_lease *lease;

	for (; max > 0; max--) {
		leases_keep_living(leases, now_msecs);
		lease = leases_due(leases, now_msecs);
		if (lease == NULL)
			return FALSE;
		lease_untold(leases, lease);
		session_lease_end(leases, &lease);
	}
	return TRUE;
}

uint64_t session_leases_next_deadline(const struct session_leases *leases)
{
	uint64_t deadline = 0;

	if (leases->issued_head != NULL)
		deadline = leases->issued_head->deadline;
	if (leases->lost_head != NULL &&
	    (deadline == 0 || leases->lost_head->deadline < deadline))
		deadline = leases->lost_head->deadline;
	return deadline;
}

unsigned int session_leases_total(const struct session_leases *leases)
{
	return leases->count;
}
