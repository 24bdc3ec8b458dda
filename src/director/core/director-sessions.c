/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Sessions, as the login plugins tell them, and the users whose they are. */

#include "lib.h"
#include "ring-private.h"

/* Places of the table of sessions looked at in a slice */
#define ADOPT_STEPS 4096

static void session_changed(user_idx_t idx, void *context)
{
	struct director *director = context;
	uint16_t slot = user_table_slot(director->users, idx);

	if (session_leases_has(director->leases,
			       backend_slot_tag(director->backends, slot),
			       user_table_hash(director->users, idx))) {
		user_table_set_flags(director->users, idx,
				     USER_FLAG_LEASED, 0);
	} else {
		user_table_set_flags(director->users, idx,
				     0, USER_FLAG_LEASED);
		/* He is remembered from now on, not from his last refresh */
		director_user_used(director, idx, &director->session_now);
	}
}

void director_session_changed(const char *tag, uint32_t hash,
			      bool leased ATTR_UNUSED, void *context)
{
	struct director *director = context;
	user_idx_t idx;

	/* with time 0 nobody is expired */
	if (tag == NULL) {
		user_table_foreach_hash(director->users, hash, 0,
					session_changed, director);
		return;
	}
	tag = backends_tag(director->backends, tag);
	idx = user_table_lookup(director->users, tag, hash, 0);
	if (idx != USER_IDX_NONE)
		session_changed(idx, director);
}

void director_session_ended(const char *tag, uint32_t hash,
			    const struct ip_addr *ip, void *context)
{
	struct director *director = context;

	if (tag != NULL)
		tag = backends_tag(director->backends, tag);
	user_moves_session_ended(director->moves, tag, hash, ip,
				 &director->session_now);
}

struct kick_context {
	struct director *director;
	/* NULL: in every tag */
	const char *tag;
	const struct ip_addr *except;
	const char *reason;
	unsigned int count;
};

static void kick_user(const struct session_user *user, void *context)
{
	struct kick_context *ctx = context;
	struct director *director = ctx->director;
	struct session_lease *lease;

	/* one of an unknown tag may be of this one */
	if (ctx->tag != NULL && user->tag != NULL &&
	    strcmp(user->tag, ctx->tag) != 0)
		return;
	for (lease = user->leases; lease != NULL; lease = lease->user_next) {
		if (lease->state == SESSION_LEASE_ISSUED ||
		    (ctx->except != NULL &&
		     net_ip_compare(&lease->backend->ip, ctx->except)))
			continue;
		ctx->count++;
		if (!session_lease_is_told(lease))
			continue;
		lease->ending = TRUE;
		if (lease->plugin->kicked == director->kicks)
			continue;
		lease->plugin->kicked = director->kicks;
		if (director->v.kick == NULL)
			continue;
		director->kicks_told++;
		director->v.kick(director->context, lease->plugin, user->hash,
				 ctx->except, ctx->reason);
	}
}

static unsigned int
kick_sessions(struct director *director, const char *tag, uint32_t hash,
	      const struct ip_addr *except, const char *reason)
{
	struct kick_context ctx = {
		.director = director,
		.tag = tag,
		.except = except,
		.reason = reason,
	};

	director->kicks++;
	session_leases_foreach_hash(director->leases, hash, kick_user, &ctx);
	return ctx.count;
}

unsigned int
director_kick_sessions(struct director *director, const char *tag,
		       uint32_t hash, const struct ip_addr *except,
		       const char *reason, const struct director_time *now)
{
	unsigned int count;

	count = kick_sessions(director, tag, hash, except, reason);
	if (count > 0) {
		director_log_throttled(director, DIRECTOR_LOG_KICK,
			t_strdup_printf("User hash %u is kicked (%u sessions "
					"here): %s", hash, count, reason),
			now->msecs);
	}
	return count;
}

/* The lease belongs to a user; make the table say so. He is kicked if he is
   somewhere else. */
static void
director_session_adopt(struct director *director,
		       const struct session_lease *lease,
		       struct backend *backend,
		       const struct director_time *now)
{
	uint32_t hash = lease->user->hash;
	struct backend *current;
	user_idx_t idx;

	idx = director_user_find(director, backend->tag, hash, now);
	if (idx == USER_IDX_NONE) {
		idx = director_user_add(director, backend->tag, hash,
					backend->slot, now->wall, now);
		if (idx != USER_IDX_NONE) {
			(void)director_record_user(director, idx);
			ring_user_told(director->ring, idx, now);
		}
		return;
	}
	current = backend_by_slot(director->backends,
				  user_table_slot(director->users, idx));
	if (current != backend) {
		/* (a move waits by itself) */
		if ((user_table_flags(director->users, idx) &
		     USER_FLAG_MOVING) == 0) {
			user_table_set_flags(director->users, idx,
					     USER_FLAG_CHANGED, 0);
		}
		director_log_throttled(director, DIRECTOR_LOG_SESSION_ELSEWHERE,
			t_strdup_printf("User hash %u has a session on %s "
					"although he is assigned to %s", hash,
					net_ip2addr(&backend->ip),
					net_ip2addr(&current->ip)),
			now->msecs);
		(void)kick_sessions(director, backend->tag, hash, &current->ip,
			t_strdup_printf("session on %s although assigned to %s",
					net_ip2addr(&backend->ip),
					net_ip2addr(&current->ip)));
	}
	user_moves_session_started(director->moves, backend->tag, hash,
				   &backend->ip, now);
}

static struct backend *
user_session_backend(struct director *director, const struct session_user *user,
		     const char *tag)
{
	const struct session_lease *lease;
	struct backend *backend;

	for (lease = user->leases; lease != NULL; lease = lease->user_next) {
		if (lease->state == SESSION_LEASE_ISSUED)
			continue;
		backend = backend_lookup(director->backends,
					 &lease->backend->ip);
		if (backend != NULL &&
		    (tag == NULL || strcmp(backend->tag, tag) == 0))
			return backend;
	}
	return NULL;
}

struct backend *
director_session_backend(struct director *director, const char *tag,
			 uint32_t hash)
{
	const struct session_user *user;
	struct backend *backend = NULL;

	user = session_leases_user(director->leases, tag, hash);
	if (user != NULL)
		backend = user_session_backend(director, user, tag);
	if (backend == NULL) {
		/* one that came before its backend was known */
		user = session_leases_user(director->leases, NULL, hash);
		if (user != NULL)
			backend = user_session_backend(director, user, tag);
	}
	return backend;
}

void director_users_replaced(struct director *director)
{
	director->adopting = TRUE;
	director->adopt_pos = 0;
}

/* The ring may have him elsewhere. */
static void adopt_user(const struct session_user *user, void *context)
{
	struct director *director = context;
	const struct session_lease *lease;
	struct backend *backend, *last = NULL;

	for (lease = user->leases; lease != NULL; lease = lease->user_next) {
		backend = lease->state == SESSION_LEASE_ISSUED ? NULL :
			backend_lookup(director->backends, &lease->backend->ip);
		/* one of each says it all */
		if (backend != NULL && backend != last) {
			director_session_adopt(director, lease, backend,
					       &director->session_now);
			last = backend;
		}
	}
}

bool director_run_adopt(struct director *director,
			const struct director_time *now)
{
	if (!director->adopting)
		return FALSE;
	director->session_now = *now;
	director->adopting = session_leases_walk(director->leases,
						 &director->adopt_pos,
						 ADOPT_STEPS, adopt_user,
						 director);
	return director->adopting;
}

static bool
user_is_elsewhere(const struct session_user *user, const struct ip_addr *except)
{
	const struct session_lease *lease;

	if (user == NULL)
		return FALSE;
	for (lease = user->leases; lease != NULL; lease = lease->user_next) {
		if (except == NULL ||
		    !net_ip_compare(&lease->backend->ip, except))
			return TRUE;
	}
	return FALSE;
}

bool director_has_sessions(struct director *director, const char *tag,
			   uint32_t hash, const struct ip_addr *except)
{
	return user_is_elsewhere(session_leases_user(director->leases, tag,
						     hash), except) ||
		user_is_elsewhere(session_leases_user(director->leases, NULL,
						      hash), except);
}

struct session_lease *
director_session_start(struct director *director,
		       struct session_plugin *plugin,
		       const struct session_token *token, uint32_t hash,
		       const struct ip_addr *ip, time_t since,
		       const struct director_time *now, const char **error_r)
{
	struct session_lease *lease;
	struct backend *backend;

	director->session_now = *now;
	backend = backend_lookup(director->backends, ip);
	lease = session_lease_lookup(director->leases, token);
	if (lease != NULL) {
		if (lease->process != plugin->process) {
			*error_r = t_strdup_printf(
				"was given to process %ld",
				(long)lease->process->pid);
			return NULL;
		}
		if (lease->plugin == plugin) {
			*error_r = "was started already";
			return NULL;
		}
		if (lease->user->hash != hash) {
			*error_r = t_strdup_printf("is for user hash %u",
						   lease->user->hash);
			return NULL;
		}
		if (session_lease_is_told_newer(lease, plugin))
			return lease;
		/* it counts where it is, whatever was answered */
		if (!net_ip_compare(&lease->backend->ip, ip))
			session_lease_redirect(director->leases, lease, ip);
		if (backend != NULL) {
			session_lease_set_tag(director->leases, lease,
					      backend->tag);
		}
		session_lease_start(director->leases, lease, plugin);
		/* it was an answer then, or told by a connection that may have
		   been lost already */
		if (lease->ending && director->v.sessions.kick != NULL) {
			(void)director->v.sessions.kick(director->context,
				plugin, token, "kicked before it was told");
		}
	} else {
		/* From an earlier director, or so late that it is forgotten:
		   what exists has to be counted. */
		lease = session_lease_announce(director->leases, plugin,
					       backend == NULL ? NULL :
					       backend->tag,
					       hash, ip, token, since);
	}
	if (backend != NULL)
		director_session_adopt(director, lease, backend, now);
	else
		director_stray_started(director, lease, now);
	return lease;
}

void director_session_up(struct director *director,
			 struct session_lease *lease,
			 const struct ip_addr *redirected,
			 const struct director_time *now)
{
	session_lease_up(lease);
	if (redirected == NULL ||
	    net_ip_compare(redirected, &lease->backend->ip))
		return;
	director_log_throttled(director, DIRECTOR_LOG_SESSION_REDIRECTED,
		t_strdup_printf("Backend %s redirected user hash %u to %s: he "
				"may be on two backends",
				net_ip2addr(&lease->backend->ip),
				lease->user->hash, net_ip2addr(redirected)),
		now->msecs);
	session_lease_redirect(director->leases, lease, redirected);
}

void director_session_end(struct director *director,
			  struct session_lease **lease,
			  const struct director_time *now)
{
	director->session_now = *now;
	session_lease_end(director->leases, lease);
}

void director_sessions_announced(struct director *director,
				 const struct session_plugin *plugin,
				 const struct director_time *now)
{
	director_process_announced(director, plugin->process->pid, now);
	session_leases_announced(director->leases, plugin, now->msecs);
}

bool director_run_sessions(struct director *director,
			   const struct director_time *now,
			   unsigned int max_steps)
{
	director->session_now = *now;
	return session_leases_expire(director->leases, now->msecs, max_steps);
}
