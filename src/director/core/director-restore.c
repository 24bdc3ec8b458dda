/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What was recorded comes back, and the setting is applied to it. */

#include "lib.h"
#include "director-private.h"

/* No slot is left until the dead ones are swept; nobody waits yet. */
static void restore_sweep(struct director *director)
{
	while (user_table_sweep(director->users, UINT_MAX)) ;
}

static struct backend *
restore_add(struct director *director, const struct director_record *record)
{
	return backend_add(director->backends, &record->ip, record->hostname,
			   record->tag, record->vhosts);
}

static void
restore_host(struct director *director, const struct director_record *record)
{
	struct backend *backend =
		backend_lookup(director->backends, &record->ip);

	if (backend != NULL && strcmp(backend->tag, record->tag) != 0)
		backend_remove(director->backends, &backend);
	if (backend == NULL)
		backend = restore_add(director, record);
	if (backend == NULL) {
		restore_sweep(director);
		backend = restore_add(director, record);
		if (backend == NULL)
			return;
	}
	(void)backend_set_vhosts(director->backends, backend, record->vhosts);
	(void)backend_set_down(director->backends, backend, record->down,
			       record->timestamp);
	backend->last_updown_change = record->timestamp;
}

static void
restore_flush(struct director *director, const struct director_record *record)
{
	struct backend *backend =
		backend_lookup(director->backends, &record->ip);

	if (backend == NULL || backend_flush(director->backends, backend))
		return;
	restore_sweep(director);
	(void)backend_flush(director->backends, backend);
}

void director_restore_user(struct director *director, uint32_t hash,
			   const struct backend *backend, time_t timestamp,
			   const struct director_time *now)
{
	const char *tag = backends_tag(director->backends, backend->tag);

	timestamp = I_MIN(timestamp, now->wall);
	if (timestamp + (time_t)director->set.user_expire_secs > now->wall &&
	    user_table_lookup(director->users, tag, hash,
			      now->wall) == USER_IDX_NONE) {
		(void)user_table_add(director->users, hash, backend->slot,
				     timestamp, now->wall);
	}
}

static void
restore_user(struct director *director, const struct director_record *record,
	     const struct director_time *now)
{
	struct backend *backend =
		backend_lookup(director->backends, &record->ip);
	time_t timestamp = I_MIN(record->timestamp, now->wall);
	const char *tag;
	user_idx_t idx;

	if (backend == NULL)
		return;
	tag = backends_tag(director->backends, backend->tag);
	idx = user_table_lookup(director->users, tag, record->hash, now->wall);
	if (idx == USER_IDX_NONE) {
		if (timestamp + (time_t)director->set.user_expire_secs <=
		    now->wall)
			return;
		idx = user_table_add(director->users, record->hash,
				     backend->slot, timestamp, now->wall);
		if (idx == USER_IDX_NONE)
			return;
	} else {
		user_table_set_slot(director->users, idx, backend->slot);
		user_table_set_timestamp(director->users, idx, timestamp);
	}
	user_table_set_flags(director->users, idx, USER_FLAG_JOURNALED, 0);
}

static void
restore_user_forget(struct director *director,
		    const struct director_record *record,
		    const struct director_time *now)
{
	const char *tag = backends_tag(director->backends, record->tag);
	user_idx_t idx;

	if (tag == NULL)
		return;
	idx = user_table_lookup(director->users, tag, record->hash, now->wall);
	if (idx == USER_IDX_NONE)
		return;
	/* it isn't to be recorded again */
	user_table_set_flags(director->users, idx, 0, USER_FLAG_JOURNALED);
	user_table_remove(director->users, idx);
}

void director_restore(struct director *director,
		      const struct director_record *record,
		      const struct director_time *now)
{
	struct backend *backend;

	switch (record->type) {
	case DIRECTOR_RECORD_CONFIG:
		if (backend_lookup(director->initial, &record->ip) == NULL) {
			(void)backend_add(director->initial, &record->ip,
					  record->hostname, record->tag,
					  DIRECTOR_DEFAULT_VHOSTS);
		}
		break;
	case DIRECTOR_RECORD_HOST:
		director_host_is_added(director, &record->ip);
		restore_host(director, record);
		break;
	case DIRECTOR_RECORD_HOST_REMOVE:
		backend = backend_lookup(director->backends, &record->ip);
		if (backend != NULL)
			backend_remove(director->backends, &backend);
		director_host_is_removed(director, &record->ip, record->keep,
					 "");
		break;
	case DIRECTOR_RECORD_HOST_FLUSH:
		restore_flush(director, record);
		break;
	case DIRECTOR_RECORD_USER:
		restore_user(director, record, now);
		break;
	case DIRECTOR_RECORD_USER_FORGET:
		restore_user_forget(director, record, now);
		break;
	case DIRECTOR_RECORD_PROCESS:
		director_process_restore(director, record->pid);
		break;
	}
}

static struct backends *backends_copy(struct backends *src)
{
	struct backends *dest = backends_init();
	struct backend *const *backends, *backend;
	unsigned int i, count;

	backends = backends_sorted(src, &count);
	for (i = 0; i < count; i++) {
		backend = backend_add(dest, &backends[i]->ip, NULL,
				      backends[i]->tag, backends[i]->vhosts);
		if (backend != NULL && backends[i]->down) {
			(void)backend_set_down(dest, backend, TRUE,
				backends[i]->last_updown_change);
		}
	}
	return dest;
}

static bool
configure_add(struct director *director, const struct director_record *record,
	      const struct backend *old, bool first, const char *by)
{
	struct backend *backend =
		backend_lookup(director->backends, &record->ip);

	if (backend != NULL) {
		/* what was done at run time stays, but for the name */
		backend_set_hostname(backend, record->hostname);
		return FALSE;
	}
	if (old != NULL && strcmp(old->tag, record->tag) == 0) {
		/* was removed at run time: stays so */
		return FALSE;
	}
	if (backend_add(director->backends, &record->ip, record->hostname,
			record->tag, DIRECTOR_DEFAULT_VHOSTS) == NULL)
		return FALSE;
	director_host_is_added(director, &record->ip);
	if (!first) {
		DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
			"%sHost %s added", by, net_ip2addr(&record->ip)));
	}
	return TRUE;
}

static bool
configure_remove(struct director *director, const struct backend *old,
		 const struct backend *new_backend, const char *by)
{
	struct backend *backend = backend_lookup(director->backends, &old->ip);

	if (new_backend != NULL && strcmp(new_backend->tag, old->tag) == 0)
		return FALSE;
	if (backend == NULL || strcmp(backend->tag, old->tag) != 0)
		return FALSE;
	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%sHost %s removed", by, net_ip2addr(&old->ip)));
	backend_remove(director->backends, &backend);
	return TRUE;
}

void director_configure(struct director *director,
			const struct director_record *configured,
			unsigned int count, bool all_restored,
			const struct director_time *now)
{
	const char *by = "director_mail_servers changed: ";
	struct backends *old = director->initial, *new_list = backends_init();
	struct backends *previous = backends_copy(director->backends);
	struct backend *const *old_list;
	unsigned int i, old_count, count_before;
	bool changed = FALSE, removed = FALSE, first;

	old_list = backends_sorted(old, &old_count);
	(void)backends_sorted(director->backends, &count_before);
	first = old_count == 0 && count_before == 0;
	for (i = 0; i < count; i++) {
		if (backend_lookup(new_list, &configured[i].ip) == NULL) {
			(void)backend_add(new_list, &configured[i].ip,
					  configured[i].hostname,
					  configured[i].tag,
					  DIRECTOR_DEFAULT_VHOSTS);
		}
	}
	for (i = 0; i < old_count; i++) {
		if (configure_remove(director, old_list[i],
				     backend_lookup(new_list, &old_list[i]->ip),
				     by))
			changed = removed = TRUE;
	}
	for (i = 0; i < count; i++) {
		if (configure_add(director, &configured[i],
				  backend_lookup(old, &configured[i].ip),
				  first, by))
			changed = TRUE;
	}
	backends_deinit(&director->initial);
	director->initial = new_list;
	/* Who was on a backend that isn't any more has just been forgotten. */
	if (changed && !first && (!all_restored || removed) &&
	    director->previous == NULL &&
	    !director_start_is_over(director, now)) {
		director->previous = previous;
		director->forgot_users = removed;
	} else
		backends_deinit(&previous);
	director_backends_changed(director);
}

struct dump_context {
	struct director *director;
	void (*callback)(void *context, const struct director_record *record);
	void *context;
};

static bool dump_user(user_idx_t idx, void *context)
{
	struct dump_context *ctx = context;
	bool journaled = (user_table_flags(ctx->director->users, idx) &
			  USER_FLAG_JOURNALED) != 0;
	struct director_record record;

	/* What is kept until this dump is complete has to say the same of him:
	   it may be all that is found. */
	if (!journaled)
		(void)director_record_user(ctx->director, idx);
	else if (director_user_record(ctx->director, idx, &record))
		ctx->callback(ctx->context, &record);
	else {
		/* what hashing finds needs no record any more */
		director_record_user_forget(ctx->director, idx);
		user_table_set_flags(ctx->director->users, idx, 0,
				     USER_FLAG_JOURNALED);
	}
	return TRUE;
}

static void dump_hosts(struct dump_context *ctx)
{
	struct backend *const *backends;
	struct director_record record;
	unsigned int i, count;

	backends = backends_sorted(ctx->director->initial, &count);
	for (i = 0; i < count; i++) {
		director_host_record(backends[i], &record);
		record.type = DIRECTOR_RECORD_CONFIG;
		ctx->callback(ctx->context, &record);
	}
	backends = backends_sorted(ctx->director->backends, &count);
	for (i = 0; i < count; i++) {
		director_host_record(backends[i], &record);
		ctx->callback(ctx->context, &record);
	}
}

bool director_dump(struct director *director, uint32_t *pos,
		   unsigned int max_steps, const struct director_time *now,
		   void (*callback)(void *context,
				    const struct director_record *record),
		   void *context)
{
	struct dump_context ctx = {
		.director = director,
		.callback = callback,
		.context = context,
	};

	if (*pos == 0) {
		dump_hosts(&ctx);
		director_strays_dump(director, callback, context);
		director_processes_dump(director, callback, context);
	}
	return user_table_walk(director->users, pos, now->wall, max_steps,
			       dump_user, &ctx);
}
