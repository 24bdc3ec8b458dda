/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Sessions on what isn't a backend (any more). Their users may log in elsewhere
   at any time, so they are ended, unless who removed the backend asked for
   something else. That is remembered (and recorded) as long as the backend isn't
   added again. A removal by director_mail_servers asks for nothing. */

#include "lib.h"
#include "array.h"
#include "ring-private.h"

/* Removals that are remembered */
#define STRAY_MAX_HOSTS 100
/* Places of the table of sessions looked at in a slice */
#define STRAY_STEPS 4096

struct director_stray_host {
	struct ip_addr ip;
	bool keep;
	/* Who removed it */
	char *by;
};

void director_strays_init(struct director *director)
{
	i_array_init(&director->stray_hosts, 4);
}

static void stray_host_delete(struct director *director, unsigned int idx)
{
	struct director_stray_host *host =
		array_idx_modifiable(&director->stray_hosts, idx);

	i_free(host->by);
	array_delete(&director->stray_hosts, idx, 1);
}

void director_strays_deinit(struct director *director)
{
	while (array_count(&director->stray_hosts) > 0)
		stray_host_delete(director, 0);
	array_free(&director->stray_hosts);
}

static const struct director_stray_host *
stray_host_find(const struct director *director, const struct ip_addr *ip)
{
	const struct director_stray_host *host;

	array_foreach(&director->stray_hosts, host) {
		if (net_ip_compare(&host->ip, ip))
			return host;
	}
	return NULL;
}

bool director_keeps_sessions(const struct director *director,
			     const struct ip_addr *ip)
{
	const struct director_stray_host *host = stray_host_find(director, ip);

	return host != NULL && host->keep;
}

void director_host_is_added(struct director *director,
			    const struct ip_addr *ip)
{
	const struct director_stray_host *host = stray_host_find(director, ip);

	if (host != NULL) {
		stray_host_delete(director, array_ptr_to_idx(
			&director->stray_hosts, host));
	}
}

void director_host_is_removed(struct director *director,
			      const struct ip_addr *ip, bool keep,
			      const char *by)
{
	struct director_stray_host *host;
	/* it may be of what is deleted */
	const struct ip_addr ip_copy = *ip;

	director_host_is_added(director, ip);
	if (array_count(&director->stray_hosts) == STRAY_MAX_HOSTS)
		stray_host_delete(director, 0);
	host = array_append_space(&director->stray_hosts);
	host->ip = ip_copy;
	host->keep = keep;
	host->by = i_strdup(director_log_who(by));
	if (!keep)
		director_look_for_strays(director);
}

void director_look_for_strays(struct director *director)
{
	if (session_leases_total(director->leases) == 0)
		return;
	director->strays = TRUE;
	director->strays_pos = 0;
}

static const char *
stray_reason(const struct director *director, const struct ip_addr *ip)
{
	const struct director_stray_host *host = stray_host_find(director, ip);

	if (host == NULL || *host->by == '\0') {
		return t_strdup_printf("%s isn't a backend any more",
				       net_ip2addr(ip));
	}
	return t_strdup_printf("backend %s was removed by %s", net_ip2addr(ip),
			       host->by);
}

static void
stray_user(const struct session_user *user, void *context)
{
	struct director *director = context;
	const struct session_lease *lease;

	for (lease = user->leases; lease != NULL; lease = lease->user_next) {
		const struct ip_addr *ip = &lease->backend->ip;
		struct session_plugin *plugin = lease->plugin;

		if (!session_lease_is_told(lease) ||
		    (plugin->kicked == director->strays_kick &&
		     plugin->kicked_backend == lease->backend) ||
		    backend_lookup(director->backends, ip) != NULL ||
		    director_keeps_sessions(director, ip))
			continue;
		plugin->kicked = director->strays_kick;
		plugin->kicked_backend = lease->backend;
		if (director->v.kick_backend != NULL) T_BEGIN {
			director->v.kick_backend(director->context, plugin, ip,
						 stray_reason(director, ip));
		} T_END;
	}
}

/* Until then it isn't known which backends there are. */
static uint64_t strays_from_msecs(const struct director *director)
{
	return ring_is_handshaked(director->ring) ? director->started_msecs +
		DIRECTOR_START_GRACE_MSECS : UINT64_MAX;
}

void director_stray_started(struct director *director,
			    const struct session_lease *lease,
			    const struct director_time *now)
{
	const struct ip_addr *ip = &lease->backend->ip;

	if (director_keeps_sessions(director, ip))
		return;
	director_log_throttled(director, DIRECTOR_LOG_SESSION_NOWHERE,
		t_strdup_printf("User hash %u has a session on %s, which isn't "
				"a backend (any more)", lease->user->hash,
				net_ip2addr(ip)), now->msecs);
	if (now->msecs < strays_from_msecs(director))
		director_look_for_strays(director);
	else if (director->v.kick_backend != NULL) {
		director->v.kick_backend(director->context, lease->plugin, ip,
					 stray_reason(director, ip));
	}
}

bool director_run_strays(struct director *director,
			 const struct director_time *now)
{
	if (!director->strays || now->msecs < strays_from_msecs(director))
		return FALSE;
	if (director->strays_pos == 0)
		director->strays_kick = ++director->kicks;
	director->strays = session_leases_walk(director->leases,
					       &director->strays_pos,
					       STRAY_STEPS, stray_user,
					       director);
	return director->strays;
}

uint64_t director_strays_next_deadline(const struct director *director)
{
	uint64_t msecs = strays_from_msecs(director);

	return !director->strays || msecs == UINT64_MAX ? 0 : I_MAX(msecs, 1);
}

void director_strays_dump(const struct director *director,
			  void (*callback)(void *context,
					   const struct director_record *record),
			  void *context)
{
	const struct director_stray_host *host;

	array_foreach(&director->stray_hosts, host) {
		const struct director_record record = {
			.type = DIRECTOR_RECORD_HOST_REMOVE,
			.ip = host->ip,
			.tag = "",
			.keep = TRUE,
		};

		if (host->keep)
			callback(context, &record);
	}
}
