/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Changes of backends, and what is recorded of them and of users. */

#include "lib.h"
#include "ring-private.h"

/* Users recorded in a slice of the walk: about 500 microseconds */
#define WALK_MAX_RECORDS 500

void director_host_record(const struct backend *backend,
			  struct director_record *record_r)
{
	i_zero(record_r);
	record_r->type = DIRECTOR_RECORD_HOST;
	record_r->ip = backend->ip;
	record_r->hostname = backend->hostname;
	record_r->tag = backend->tag;
	record_r->vhosts = backend->vhosts;
	record_r->down = backend->down;
	record_r->timestamp = backend->last_updown_change;
}

static void
record_host(struct director *director, const struct backend *backend)
{
	struct director_record record;

	director_host_record(backend, &record);
	director->v.record(director->context, &record);
}

static void
record_host_gone(struct director *director, const struct ip_addr *ip,
		 enum director_record_type type)
{
	const struct director_record record = {
		.type = type,
		.ip = *ip,
		.tag = "",
		.keep = type == DIRECTOR_RECORD_HOST_REMOVE &&
			director_keeps_sessions(director, ip),
	};

	director->v.record(director->context, &record);
}

bool director_user_record(struct director *director, user_idx_t idx,
			  struct director_record *record_r)
{
	uint32_t hash = user_table_hash(director->users, idx);
	const struct backend *backend =
		backend_by_slot(director->backends,
				user_table_slot(director->users, idx));

	if (backend != NULL && (user_table_flags(director->users, idx) &
				USER_FLAG_MOVING) != 0) {
		/* a director that starts has to find him where his sessions
		   are */
		backend = user_moves_old_backend(director->moves, backend->tag,
						 hash);
	}
	if (backend == NULL ||
	    backend_by_hash(director->backends, backend->tag, hash) == backend)
		return FALSE;
	i_zero(record_r);
	record_r->type = DIRECTOR_RECORD_USER;
	record_r->ip = backend->ip;
	record_r->tag = backend->tag;
	record_r->hash = hash;
	record_r->timestamp = user_table_timestamp(director->users, idx);
	return TRUE;
}

bool director_record_user(struct director *director, user_idx_t idx)
{
	struct director_record record;

	if ((user_table_flags(director->users, idx) &
	     USER_FLAG_JOURNALED) != 0 ||
	    !director_user_record(director, idx, &record))
		return FALSE;
	user_table_set_flags(director->users, idx, USER_FLAG_JOURNALED, 0);
	director->v.record(director->context, &record);
	return TRUE;
}

void director_record_user_forget(struct director *director, user_idx_t idx)
{
	uint16_t slot = user_table_slot(director->users, idx);
	const struct director_record record = {
		.type = DIRECTOR_RECORD_USER_FORGET,
		.hash = user_table_hash(director->users, idx),
		.tag = backend_slot_tag(director->backends, slot),
	};

	director->v.record(director->context, &record);
}

static void director_walk_begin(struct director *director)
{
	director->walking = TRUE;
	director->walk_pos = 0;
	director->walk_change = director->last_change;
}

void director_backends_changed(struct director *director)
{
	director->last_change++;
	/* A walk that is under way goes on: were it to begin anew each time,
	   none would end while changes come fast. */
	if (!director->walking)
		director_walk_begin(director);
	director->retry = director->waiting_head;
}

struct walk_context {
	struct director *director;
	unsigned int recorded;
};

static bool director_walk_user(user_idx_t idx, void *context)
{
	struct walk_context *ctx = context;

	/* a record costs as much as looking at ten users */
	return !director_record_user(ctx->director, idx) ||
		++ctx->recorded < WALK_MAX_RECORDS;
}

bool director_walk(struct director *director, const struct director_time *now,
		   unsigned int max_steps)
{
	struct walk_context ctx = { .director = director };

	if (!director->walking)
		return FALSE;
	if (user_table_walk(director->users, &director->walk_pos, now->wall,
			    max_steps, director_walk_user, &ctx))
		return TRUE;
	director->walking = FALSE;
	director->recorded_change = director->walk_change;
	if (director->walk_change != director->last_change)
		director_walk_begin(director);
	director->v.changes_recorded(director->context);
	return director->walking;
}

unsigned int director_last_change(const struct director *director)
{
	return director->last_change;
}

bool director_change_is_recorded(const struct director *director,
				 unsigned int change)
{
	/* the counter may wrap */
	return (int)(director->recorded_change - change) >= 0;
}

static void
host_changed(struct director *director, struct backend *backend,
	     const struct director_time *now)
{
	record_host(director, backend);
	director_backends_changed(director);
	ring_host_changed(director->ring, backend, now);
}

enum director_host_result
director_host_set(struct director *director, const struct ip_addr *ip,
		  const char *tag, unsigned int vhosts, bool may_add,
		  const char *by, const struct director_time *now)
{
	struct backend *backend = backend_lookup(director->backends, ip);
	unsigned int old_vhosts;

	if (backend == NULL) {
		if (!may_add)
			return DIRECTOR_HOST_NOTFOUND;
		backend = backend_add(director->backends, ip, NULL,
				      tag == NULL ? "" : tag, vhosts);
		if (backend == NULL)
			return DIRECTOR_HOST_BUSY;
		director_host_is_added(director, ip);
		DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
			"%sHost %s added (vhost_count=%u%s%s)", by,
			net_ip2addr(ip), backend->vhosts,
			*backend->tag == '\0' ? "" : " tag=", backend->tag));
	} else {
		if (tag != NULL && strcmp(backend->tag, tag) != 0)
			return DIRECTOR_HOST_TAG_CHANGED;
		if (backend->desynced)
			return DIRECTOR_HOST_BUSY;
		old_vhosts = backend->vhosts;
		if (vhosts != UINT_MAX)
			(void)backend_set_vhosts(director->backends, backend,
						 vhosts);
		DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
			"%sHost %s vhost count changed from %u to %u", by,
			net_ip2addr(ip), old_vhosts, backend->vhosts));
	}
	host_changed(director, backend, now);
	return DIRECTOR_HOST_OK;
}

enum director_host_result
director_host_set_down(struct director *director, const struct ip_addr *ip,
		       bool down, const char *by,
		       const struct director_time *now)
{
	struct backend *backend = backend_lookup(director->backends, ip);
	time_t old_change;

	if (backend == NULL)
		return DIRECTOR_HOST_NOTFOUND;
	if (backend->down == down)
		return DIRECTOR_HOST_OK;
	if (backend->desynced)
		return DIRECTOR_HOST_BUSY;
	old_change = backend->last_updown_change;
	/* newer than what a director said whose clock is ahead of ours */
	if (!backend_set_down(director->backends, backend, down,
			      I_MAX(now->clock, old_change + 1)))
		return DIRECTOR_HOST_OK;
	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%sHost %s changed %s (vhost_count=%u last_updown_change=%"
		PRIdTIME_T")", by, net_ip2addr(ip), down ? "down" : "up",
		backend->vhosts, old_change));
	host_changed(director, backend, now);
	return DIRECTOR_HOST_OK;
}

/* how: the sessions' end */
static void
log_sessions_left(struct director *director, const struct ip_addr *ip,
		  const char *by, const char *what, const char *how)
{
	unsigned int count = session_leases_count(director->leases, ip);

	if (count == 0)
		return;
	DIRECTOR_LOG(director, LOG_TYPE_WARNING, t_strdup_printf(
		"%sHost %s %s with %u live sessions%s: until they end, their "
		"users may be on two backends", by, net_ip2addr(ip), what,
		count, how));
}

static void
log_removed_sessions(struct director *director, const struct ip_addr *ip,
		     bool keep, const char *by)
{
	log_sessions_left(director, ip, by, "removed",
			  keep ? " that stay" : " that are ended");
}

enum director_host_result
director_host_remove(struct director *director, const struct ip_addr *ip,
		     bool keep_sessions, const char *by,
		     const struct director_time *now)
{
	struct backend *backend = backend_lookup(director->backends, ip);
	/* it may be the backend's own */
	const struct ip_addr ip_copy = *ip;
	uint64_t changed;

	if (backend == NULL)
		return DIRECTOR_HOST_NOTFOUND;
	changed = backend->changed;
	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%sHost %s removed (%u users)", by, net_ip2addr(ip),
		backend_users(director->backends, backend)));
	log_removed_sessions(director, ip, keep_sessions, by);
	backend_remove(director->backends, &backend);
	director_host_is_removed(director, &ip_copy, keep_sessions, by);
	record_host_gone(director, &ip_copy, DIRECTOR_RECORD_HOST_REMOVE);
	user_moves_backend_removed(director->moves, &ip_copy, now);
	director_backends_changed(director);
	ring_host_removed(director->ring, &ip_copy, changed, now);
	return DIRECTOR_HOST_OK;
}

static bool
flush_backend(struct director *director, struct backend *backend,
	      const char *by, const struct director_time *now)
{
	if (!backend_flush(director->backends, backend))
		return FALSE;
	log_sessions_left(director, &backend->ip, by, "flushed", "");
	record_host_gone(director, &backend->ip, DIRECTOR_RECORD_HOST_FLUSH);
	user_moves_backend_flushed(director->moves, &backend->ip, now);
	ring_host_flushed(director->ring, &backend->ip, now);
	return TRUE;
}

enum director_host_result
director_host_flush(struct director *director, const struct ip_addr *ip,
		    const char *by, const struct director_time *now)
{
	struct backend *const *backends, *backend;
	unsigned int i, count, users = user_table_count(director->users);

	if (ip != NULL) {
		backend = backend_lookup(director->backends, ip);
		if (backend == NULL)
			return DIRECTOR_HOST_NOTFOUND;
		return flush_backend(director, backend, by, now) ?
			DIRECTOR_HOST_OK : DIRECTOR_HOST_BUSY;
	}

	backends = backends_sorted(director->backends, &count);
	for (i = 0; i < count; i++) {
		if (!flush_backend(director, backends[i], by, now))
			return DIRECTOR_HOST_BUSY;
	}
	DIRECTOR_LOG(director, LOG_TYPE_WARNING, t_strdup_printf(
		"%sFlushed all backend hosts with %u users. This is an unsafe "
		"operation and may cause the same users to end up in multiple "
		"backends.", by, users));
	return DIRECTOR_HOST_OK;
}

const struct backend *
director_initial_backend(struct director *director, const char *tag,
			 uint32_t hash)
{
	return backend_by_hash(director->initial, tag, hash);
}

/* -- What the ring says -- */

void director_user_placed(struct director *director, user_idx_t idx)
{
	bool journaled = (user_table_flags(director->users, idx) &
			  USER_FLAG_JOURNALED) != 0;

	user_table_set_flags(director->users, idx, 0, USER_FLAG_JOURNALED);
	/* a new record replaces the one that there may be */
	if (!director_record_user(director, idx) && journaled)
		director_record_user_forget(director, idx);
}

static void
take_state(struct director *director, struct backend *backend,
	   const struct ring_message *msg, const char *by)
{
	time_t old_change = backend->last_updown_change;
	unsigned int old_vhosts = backend->vhosts;

	if (backend_set_down(director->backends, backend, msg->down,
			     msg->timestamp)) {
		DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
			"%s: Host %s changed %s (vhost_count=%u "
			"last_updown_change=%"PRIdTIME_T")", by,
			net_ip2addr(&backend->ip), msg->down ? "down" : "up",
			backend->vhosts, old_change));
	}
	backend->last_updown_change = I_MAX(old_change, msg->timestamp);
	(void)backend_set_vhosts(director->backends, backend, msg->vhosts);
	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%s: Host %s vhost count changed from %u to %u", by,
		net_ip2addr(&backend->ip), old_vhosts, backend->vhosts));
}

struct backend *
director_host_take(struct director *director, const struct ring_message *msg,
		   const char *by)
{
	struct backend *backend = backend_lookup(director->backends, &msg->ip);
	const char *hostname = msg->hostname;

	if (backend != NULL && strcmp(backend->tag, msg->tag) != 0) {
		DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
			"%s: Host %s changed its tag from '%s' to '%s', its "
			"users are forgotten", by, net_ip2addr(&msg->ip),
			backend->tag, msg->tag));
		if (*hostname == '\0' && backend->hostname != NULL)
			hostname = t_strdup(backend->hostname);
		director_host_forget(director, backend);
		backend = NULL;
	}
	if (backend == NULL) {
		backend = backend_add(director->backends, &msg->ip,
				      *hostname == '\0' ? NULL : hostname,
				      msg->tag, UINT_MAX);
		if (backend == NULL) {
			DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
				"%s: Host %s can't be added: too many backends "
				"are being removed, or too many tags known", by,
				net_ip2addr(&msg->ip)));
			return NULL;
		}
		director_host_is_added(director, &msg->ip);
		DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
			"%s: Host %s added (vhost_count=%u%s%s)", by,
			net_ip2addr(&msg->ip), msg->vhosts,
			*backend->tag == '\0' ? "" : " tag=", backend->tag));
	}
	take_state(director, backend, msg, by);
	record_host(director, backend);
	director_backends_changed(director);
	return backend;
}

void director_host_forget(struct director *director, struct backend *backend)
{
	const struct ip_addr ip = backend->ip;

	backend_remove(director->backends, &backend);
	if (session_leases_count(director->leases, &ip) > 0)
		director_look_for_strays(director);
	record_host_gone(director, &ip, DIRECTOR_RECORD_HOST_REMOVE);
	director_backends_changed(director);
}

void director_host_drop(struct director *director, struct backend *backend,
			bool keep, const char *by,
			const struct director_time *now)
{
	const char *prefix = t_strconcat(by, ": ", NULL);
	const struct ip_addr ip = backend->ip;

	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%sHost %s removed (%u users)", prefix,
		net_ip2addr(&backend->ip),
		backend_users(director->backends, backend)));
	log_removed_sessions(director, &backend->ip, keep, prefix);
	director_host_is_removed(director, &backend->ip, keep, by);
	director_host_forget(director, backend);
	user_moves_backend_removed(director->moves, &ip, now);
}

void director_host_forget_users(struct director *director,
				struct backend *backend, const char *by,
				const struct director_time *now)
{
	const char *prefix = t_strconcat(by, ": ", NULL);

	if (!backend_flush(director->backends, backend)) {
		DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
			"%sHost %s can't be flushed: too many backends are "
			"being removed", prefix, net_ip2addr(&backend->ip)));
		return;
	}
	log_sessions_left(director, &backend->ip, prefix, "flushed", "");
	record_host_gone(director, &backend->ip, DIRECTOR_RECORD_HOST_FLUSH);
	user_moves_backend_flushed(director->moves, &backend->ip, now);
}
