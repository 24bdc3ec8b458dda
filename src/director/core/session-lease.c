/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "llist.h"
#include "hash.h"
#include "session-lease.h"

/* Fixed, so that no login ever waits for a table to grow: pages that aren't
   used cost nothing, and with a million sessions a chain has 16. */
#define BUCKETS_COUNT (1U << 16)

HASH_TABLE_DEFINE_TYPE(login_process, void *, struct login_process *);
HASH_TABLE_DEFINE_TYPE(session_backend, const struct ip_addr *,
		       struct session_backend *);

struct session_leases {
	uint64_t instance, last_seq;
	session_lease_changed_callback_t *changed;
	void *context;

	HASH_TABLE_TYPE(login_process) processes;
	HASH_TABLE_TYPE(session_backend) backends;

	/* Chains by token and by user hash */
	struct session_lease **by_token, **by_hash;
	unsigned int count;

	/* ISSUED ones in order of deadline, and the same for orphans: in each
	   list all have the same time to live, so that the order is that of
	   coming. */
	struct session_lease *issued_head, *issued_tail;
	struct session_lease *orphans_head, *orphans_tail;
};

static unsigned int token_bucket(const struct session_token *token)
{
	uint64_t h = (token->instance ^ token->seq) * 0x9e3779b97f4a7c15ULL;

	return (h >> 32) & (BUCKETS_COUNT - 1);
}

static unsigned int hash_bucket(uint32_t hash)
{
	return ((hash * 0x9e3779b97f4a7c15ULL) >> 32) &
		(BUCKETS_COUNT - 1);
}

struct session_leases *
session_leases_init(uint64_t instance,
		    session_lease_changed_callback_t *changed, void *context)
{
	struct session_leases *leases;

	leases = i_new(struct session_leases, 1);
	leases->instance = instance;
	leases->changed = changed;
	leases->context = context;
	leases->by_token = i_new(struct session_lease *, BUCKETS_COUNT);
	leases->by_hash = i_new(struct session_lease *, BUCKETS_COUNT);
	hash_table_create_direct(&leases->processes, default_pool, 0);
	hash_table_create(&leases->backends, default_pool, 0,
			  net_ip_hash, net_ip_cmp);
	return leases;
}

void session_leases_deinit(struct session_leases **_leases)
{
	struct session_leases *leases = *_leases;
	struct session_lease *lease, *next;
	unsigned int i;

	*_leases = NULL;
	leases->changed = NULL;
	for (i = 0; i < BUCKETS_COUNT; i++) {
		for (lease = leases->by_token[i]; lease != NULL; lease = next) {
			next = lease->token_next;
			session_lease_end(leases, &lease);
		}
	}
	/* Whoever holds a reference has to let it go before. */
	i_assert(hash_table_count(leases->processes) == 0);
	hash_table_destroy(&leases->processes);
	hash_table_destroy(&leases->backends);
	i_free(leases->by_token);
	i_free(leases->by_hash);
	i_free(leases);
}

struct login_process *
login_process_ref(struct session_leases *leases, pid_t pid)
{
	struct login_process *process;

	process = hash_table_lookup(leases->processes, POINTER_CAST(pid));
	if (process == NULL) {
		process = i_new(struct login_process, 1);
		process->pid = pid;
		hash_table_insert(leases->processes, POINTER_CAST(pid),
				  process);
	}
	process->refcount++;
	return process;
}

void login_process_unref(struct session_leases *leases,
			 struct login_process **_process)
{
	struct login_process *process = *_process;

	*_process = NULL;
	i_assert(process->refcount > 0);
	if (--process->refcount > 0)
		return;
	hash_table_remove(leases->processes, POINTER_CAST(process->pid));
	i_free(process);
}

static struct session_backend *
session_backend_ref(struct session_leases *leases, const struct ip_addr *ip)
{
	struct session_backend *backend;

	backend = hash_table_lookup(leases->backends, ip);
	if (backend == NULL) {
		backend = i_new(struct session_backend, 1);
		backend->ip = *ip;
		ip = &backend->ip;
		hash_table_insert(leases->backends, ip, backend);
	}
	backend->refcount++;
	return backend;
}

static void
session_backend_unref(struct session_leases *leases,
		      struct session_backend *backend)
{
	const struct ip_addr *ip = &backend->ip;

	if (--backend->refcount > 0)
		return;
	hash_table_remove(leases->backends, ip);
	i_free(backend);
}

static struct session_lease *
lease_add(struct session_leases *leases, struct login_process *process,
	  const char *tag, uint32_t hash, const struct ip_addr *ip,
	  const struct session_token *token, time_t since)
{
	struct session_lease *lease;
	unsigned int bucket;

	lease = i_new(struct session_lease, 1);
	lease->process = process;
	process->refcount++;
	lease->backend = session_backend_ref(leases, ip);
	lease->token = *token;
	lease->tag = tag;
	lease->hash = hash;
	lease->since = since;
	lease->state = SESSION_LEASE_ISSUED;

	bucket = token_bucket(token);
	lease->token_next = leases->by_token[bucket];
	leases->by_token[bucket] = lease;
	bucket = hash_bucket(hash);
	lease->hash_next = leases->by_hash[bucket];
	leases->by_hash[bucket] = lease;
	DLLIST_PREPEND_FULL(&process->leases, lease,
			    process_prev, process_next);
	leases->count++;
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

	lease = lease_add(leases, process, tag, hash, ip, &token, now);
	lease->deadline = now_msecs + SESSION_LEASE_DEADLINE_MSECS +
		SESSION_LEASE_SLACK_MSECS;
	DLLIST2_APPEND_FULL(&leases->issued_head, &leases->issued_tail, lease,
			    deadline_prev, deadline_next);
	process->issued++;
	return lease;
}

static void
lease_clear_deadline(struct session_leases *leases, struct session_lease *lease)
{
	if (lease->deadline == 0)
		return;
	if (lease->state == SESSION_LEASE_ISSUED) {
		DLLIST2_REMOVE_FULL(&leases->issued_head, &leases->issued_tail,
				    lease, deadline_prev, deadline_next);
		i_assert(lease->process->issued > 0);
		lease->process->issued--;
	} else {
		DLLIST2_REMOVE_FULL(&leases->orphans_head,
				    &leases->orphans_tail, lease,
				    deadline_prev, deadline_next);
	}
	lease->deadline = 0;
}

static void
lease_set_started(struct session_leases *leases, struct session_lease *lease)
{
	bool first = leases->changed != NULL &&
		!session_leases_has(leases, lease->tag, lease->hash);

	lease->state = SESSION_LEASE_STARTED;
	lease->backend->sessions++;
	if (first)
		leases->changed(lease->tag, lease->hash, TRUE, leases->context);
}

struct session_lease *
session_lease_announce(struct session_leases *leases,
		       struct login_process *process, const char *tag,
		       uint32_t hash, const struct ip_addr *ip,
		       const struct session_token *token, time_t since)
{
	struct session_lease *lease;

	lease = lease_add(leases, process, tag, hash, ip, token, since);
	lease_set_started(leases, lease);
	return lease;
}

struct session_lease *
session_lease_lookup(struct session_leases *leases,
		     const struct session_token *token)
{
	struct session_lease *lease;

	lease = leases->by_token[token_bucket(token)];
	for (; lease != NULL; lease = lease->token_next) {
		if (lease->token.seq == token->seq &&
		    lease->token.instance == token->instance)
			return lease;
	}
	return NULL;
}

void session_lease_start(struct session_leases *leases,
			 struct session_lease *lease, void *plugin)
{
	lease_clear_deadline(leases, lease);
	lease->plugin = plugin;
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
	const char *old_tag = lease->tag;
	bool first;

	if (lease->state == SESSION_LEASE_ISSUED || leases->changed == NULL ||
	    strcmp(old_tag, tag) == 0) {
		lease->tag = tag;
		return;
	}
	first = !session_leases_has(leases, tag, lease->hash);
	lease->tag = tag;
	if (!session_leases_has(leases, old_tag, lease->hash))
		leases->changed(old_tag, lease->hash, FALSE, leases->context);
	if (first)
		leases->changed(tag, lease->hash, TRUE, leases->context);
}

static void
chain_remove_token(struct session_leases *leases, struct session_lease *lease)
{
	struct session_lease **p =
		&leases->by_token[token_bucket(&lease->token)];

	while (*p != lease)
		p = &(*p)->token_next;
	*p = lease->token_next;
}

static void
chain_remove_hash(struct session_leases *leases, struct session_lease *lease)
{
	struct session_lease **p =
		&leases->by_hash[hash_bucket(lease->hash)];

	while (*p != lease)
		p = &(*p)->hash_next;
	*p = lease->hash_next;
}

void session_lease_end(struct session_leases *leases,
		       struct session_lease **_lease)
{
	struct session_lease *lease = *_lease;
	bool was_session = lease->state != SESSION_LEASE_ISSUED;

	*_lease = NULL;
	lease_clear_deadline(leases, lease);
	if (was_session) {
		i_assert(lease->backend->sessions > 0);
		lease->backend->sessions--;
	}
	chain_remove_token(leases, lease);
	chain_remove_hash(leases, lease);
	DLLIST_REMOVE_FULL(&lease->process->leases, lease,
			   process_prev, process_next);
	leases->count--;
	session_backend_unref(leases, lease->backend);
	login_process_unref(leases, &lease->process);
	if (was_session && leases->changed != NULL &&
	    !session_leases_has(leases, lease->tag, lease->hash)) {
		leases->changed(lease->tag, lease->hash, FALSE,
				leases->context);
	}
	i_free(lease);
}

unsigned int
session_leases_plugin_lost(struct session_leases *leases,
			   struct login_process *process, void *plugin,
			   uint64_t now_msecs)
{
	struct session_lease *lease;
	unsigned int count = 0;

	for (lease = process->leases; lease != NULL;
	     lease = lease->process_next) {
		if (lease->plugin != plugin)
			continue;
		lease->plugin = NULL;
		lease->deadline = now_msecs + SESSION_LEASE_ORPHAN_MSECS;
		DLLIST2_APPEND_FULL(&leases->orphans_head,
				    &leases->orphans_tail, lease,
				    deadline_prev, deadline_next);
		count++;
	}
	return count;
}

void session_leases_plugin_announced(struct session_leases *leases,
				     struct login_process *process)
{
	struct session_lease *lease, *next;

	/* the last lease must not free it */
	process->refcount++;
	for (lease = process->leases; lease != NULL; lease = next) {
		next = lease->process_next;
		if (lease->state != SESSION_LEASE_ISSUED &&
		    lease->plugin == NULL)
			session_lease_end(leases, &lease);
	}
	login_process_unref(leases, &process);
}

/* Its answer was never acted on. */
static bool lease_shows_missing_plugin(const struct session_lease *lease)
{
	return lease->state == SESSION_LEASE_ISSUED &&
		!lease->process->plugin_seen && !lease->process->plugin_missing;
}

bool session_leases_expire(struct session_leases *leases, uint64_t now_msecs,
			   unsigned int max,
			   const struct login_process **missing_r)
{
	struct session_lease *lease;

	*missing_r = NULL;
	for (; max > 0; max--) {
		lease = leases->issued_head;
		if (lease == NULL || lease->deadline > now_msecs)
			lease = leases->orphans_head;
		if (lease == NULL || lease->deadline > now_msecs)
			return FALSE;
		if (lease_shows_missing_plugin(lease)) {
			lease->process->plugin_missing = TRUE;
			if (lease->process->refcount > 1)
				*missing_r = lease->process;
		}
		if (*missing_r == lease->process &&
		    lease->process->refcount == 1) {
			/* it goes with its last lease */
			*missing_r = NULL;
		}
		session_lease_end(leases, &lease);
	}
	return TRUE;
}

uint64_t session_leases_next_deadline(const struct session_leases *leases)
{
	uint64_t deadline = 0;

	if (leases->issued_head != NULL)
		deadline = leases->issued_head->deadline;
	if (leases->orphans_head != NULL &&
	    (deadline == 0 || leases->orphans_head->deadline < deadline))
		deadline = leases->orphans_head->deadline;
	return deadline;
}

bool session_leases_has(struct session_leases *leases, const char *tag,
			uint32_t hash)
{
	const struct session_lease *lease;

	lease = leases->by_hash[hash_bucket(hash)];
	for (; lease != NULL; lease = lease->hash_next) {
		if (lease->hash == hash && strcmp(lease->tag, tag) == 0 &&
		    lease->state != SESSION_LEASE_ISSUED)
			return TRUE;
	}
	return FALSE;
}

unsigned int session_leases_count(struct session_leases *leases,
				  const struct ip_addr *ip)
{
	const struct session_backend *backend =
		hash_table_lookup(leases->backends, ip);

	return backend == NULL ? 0 : backend->sessions;
}

unsigned int session_leases_total(const struct session_leases *leases)
{
	return leases->count;
}

const char *session_token_str(const struct session_token *token)
{
	return t_strdup_printf("%016"PRIx64"-%"PRIx64,
			       token->instance, token->seq);
}

int session_token_parse(const char *str, struct session_token *token_r)
{
	const char *p = strchr(str, '-');
	uintmax_t instance, seq;

	if (p == NULL || p - str != 16 || strlen(p + 1) > 16 ||
	    str_to_uintmax_hex(t_strdup_until(str, p), &instance) < 0 ||
	    str_to_uintmax_hex(p + 1, &seq) < 0)
		return -1;
	token_r->instance = instance;
	token_r->seq = seq;
	return 0;
}
