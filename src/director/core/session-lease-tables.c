/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "keyed-hash.h"
#include "session-lease-private.h"

void session_tables_init(struct session_leases *leases)
{
	unsigned int i;

	for (i = 0; i < SESSION_TABLE_COUNT; i++) {
		leases->tables[i] = i_new(struct session_node *,
					  SESSION_TABLE_SIZE);
	}
}

void session_tables_deinit(struct session_leases *leases)
{
	unsigned int i;

	for (i = 0; i < SESSION_TABLE_COUNT; i++)
		i_free(leases->tables[i]);
}

static struct session_node **
table_bucket(struct session_leases *leases, enum session_table table,
	     uint64_t a, uint64_t b)
{
	uint64_t h = keyed_hash(leases->hash_key, a, b);

	return &leases->tables[table][h & (SESSION_TABLE_SIZE - 1)];
}

static void node_add(struct session_node **bucket, struct session_node *node)
{
	node->next = *bucket;
	*bucket = node;
}

static void node_remove(struct session_leases *leases,
			struct session_node **bucket, struct session_node *node)
{
	for (; *bucket != node; bucket = &(*bucket)->next)
		leases->steps++;
	*bucket = node->next;
}

/* -- Processes -- */

static struct session_node **
process_bucket(struct session_leases *leases, pid_t pid)
{
	return table_bucket(leases, SESSION_TABLE_PROCESSES, pid, 0);
}

struct login_process *
login_process_ref(struct session_leases *leases, pid_t pid)
{
	struct session_node **bucket = process_bucket(leases, pid), *node;
	struct login_process *process;

	for (node = *bucket; node != NULL; node = node->next) {
		leases->steps++;
		process = container_of(node, struct login_process, node);
		if (process->pid == pid) {
			process->refcount++;
			return process;
		}
	}
	process = i_new(struct login_process, 1);
	process->pid = pid;
	process->refcount = 1;
	node_add(bucket, &process->node);
	leases->processes_count++;
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
	i_assert(process->lost == NULL);
	node_remove(leases, process_bucket(leases, process->pid),
		    &process->node);
	leases->processes_count--;
	i_free(process);
}

void login_processes_foreach(struct session_leases *leases,
			     void (*callback)(const struct login_process
					      *process, void *context),
			     void *context)
{
	struct session_node **buckets =
		leases->tables[SESSION_TABLE_PROCESSES], *node;
	unsigned int i;

	for (i = 0; i < SESSION_TABLE_SIZE; i++) {
		for (node = buckets[i]; node != NULL; node = node->next) {
			callback(container_of(node, struct login_process,
					      node), context);
		}
	}
}

void login_process_set_protocol(struct session_leases *leases,
				struct login_process *process,
				const char *protocol)
{
	char name[SESSION_PROTOCOL_MAX_LEN + 1];
	unsigned int i;

	if (process->protocol != NULL)
		return;
	i_strocpy(name, t_strndup(protocol, SESSION_PROTOCOL_MAX_LEN),
		  sizeof(name));
	for (i = 0; i < leases->protocols_count; i++) {
		if (strcmp(leases->protocols[i].name, name) == 0)
			break;
	}
	if (i == SESSION_PROTOCOLS_MAX)
		return;
	process->protocol = &leases->protocols[i];
	if (i == leases->protocols_count) {
		memcpy(process->protocol->name, name, sizeof(name));
		leases->protocols_count++;
	}
}

/* -- Users -- */

static struct session_node **
user_bucket(struct session_leases *leases, uint32_t hash)
{
	/* Only who configures backends makes tags: there are few. */
	return table_bucket(leases, SESSION_TABLE_USERS, hash, 0);
}

static struct session_user *
user_find(struct session_leases *leases, const char *tag, uint32_t hash)
{
	struct session_node *node = *user_bucket(leases, hash);
	struct session_user *user;

	for (; node != NULL; node = node->next) {
		leases->steps++;
		user = container_of(node, struct session_user, node);
		if (user->hash == hash && null_strcmp(user->tag, tag) == 0)
			return user;
	}
	return NULL;
}

struct session_user *
session_user_get(struct session_leases *leases, const char *tag, uint32_t hash)
{
	struct session_user *user = user_find(leases, tag, hash);

	if (user == NULL) {
		user = i_new(struct session_user, 1);
		user->tag = tag;
		user->hash = hash;
		node_add(user_bucket(leases, hash), &user->node);
	}
	return user;
}

void session_user_free(struct session_leases *leases,
		       struct session_user *user)
{
	i_assert(user->leases == NULL);
	node_remove(leases, user_bucket(leases, user->hash), &user->node);
	i_free(user);
}

const struct session_user *
session_leases_user(struct session_leases *leases, const char *tag,
		    uint32_t hash)
{
	return user_find(leases, tag, hash);
}

void session_leases_foreach_hash(struct session_leases *leases, uint32_t hash,
				 void (*fn)(const struct session_user *user,
					    void *context), void *context)
{
	const struct session_node *node = *user_bucket(leases, hash);
	const struct session_user *user;

	for (; node != NULL; node = node->next) {
		leases->steps++;
		user = container_of(node, const struct session_user, node);
		if (user->hash == hash)
			fn(user, context);
	}
}

bool session_leases_has(struct session_leases *leases, const char *tag,
			uint32_t hash)
{
	const struct session_user *user = user_find(leases, tag, hash);

	if ((user == NULL || user->sessions == 0) && tag != NULL)
		user = user_find(leases, NULL, hash);
	return user != NULL && user->sessions > 0;
}

/* -- Backends -- */

static struct session_node **
backend_bucket(struct session_leases *leases, const struct ip_addr *ip)
{
	uint64_t words[2] = { 0, 0 };

	if (IPADDR_IS_V4(ip))
		memcpy(words, &ip->u.ip4, sizeof(ip->u.ip4));
	else
		memcpy(words, &ip->u.ip6, sizeof(ip->u.ip6));
	return table_bucket(leases, SESSION_TABLE_BACKENDS,
			    words[0], words[1]);
}

static struct session_backend *
backend_find(struct session_leases *leases, const struct ip_addr *ip)
{
	struct session_node *node = *backend_bucket(leases, ip);
	struct session_backend *backend;

	for (; node != NULL; node = node->next) {
		leases->steps++;
		backend = container_of(node, struct session_backend, node);
		if (net_ip_compare(&backend->ip, ip))
			return backend;
	}
	return NULL;
}

struct session_backend *
session_backend_ref(struct session_leases *leases, const struct ip_addr *ip)
{
	struct session_backend *backend = backend_find(leases, ip);

	if (backend == NULL) {
		backend = i_new(struct session_backend, 1);
		backend->ip = *ip;
		node_add(backend_bucket(leases, ip), &backend->node);
	}
	backend->refcount++;
	return backend;
}

void session_backend_unref(struct session_leases *leases,
			   struct session_backend *backend)
{
	i_assert(backend->refcount > 0);
	if (--backend->refcount > 0)
		return;
	node_remove(leases, backend_bucket(leases, &backend->ip),
		    &backend->node);
	i_free(backend);
}

unsigned int session_leases_count(struct session_leases *leases,
				  const struct ip_addr *ip)
{
	const struct session_backend *backend = backend_find(leases, ip);

	return backend == NULL ? 0 : backend->sessions;
}

/* -- Tokens -- */

static struct session_node **
token_bucket(struct session_leases *leases, const struct session_token *token)
{
	return table_bucket(leases, SESSION_TABLE_TOKENS,
			    token->instance, token->seq);
}

struct session_lease *
session_lease_lookup(struct session_leases *leases,
		     const struct session_token *token)
{
	struct session_node *node = *token_bucket(leases, token);
	struct session_lease *lease;

	for (; node != NULL; node = node->next) {
		leases->steps++;
		lease = container_of(node, struct session_lease, node);
		if (lease->token.seq == token->seq &&
		    lease->token.instance == token->instance)
			return lease;
	}
	return NULL;
}

void session_lease_link(struct session_leases *leases,
			struct session_lease *lease)
{
	node_add(token_bucket(leases, &lease->token), &lease->node);
	leases->count++;
}

void session_lease_unlink(struct session_leases *leases,
			  struct session_lease *lease)
{
	node_remove(leases, token_bucket(leases, &lease->token), &lease->node);
	leases->count--;
}

uint64_t session_leases_steps(const struct session_leases *leases)
{
	return leases->steps;
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

bool session_leases_walk_all(struct session_leases *leases, unsigned int *pos,
			     unsigned int max,
			     void (*fn)(struct session_lease *lease,
					void *context), void *context)
{
	struct session_node *node;

	for (; *pos < SESSION_TABLE_SIZE && max > 0; (*pos)++, max--) {
		node = leases->tables[SESSION_TABLE_TOKENS][*pos];
		for (; node != NULL; node = node->next)
			fn(container_of(node, struct session_lease, node),
			   context);
	}
	return *pos < SESSION_TABLE_SIZE;
}

bool session_leases_walk(struct session_leases *leases, unsigned int *pos,
			 unsigned int max,
			 void (*fn)(const struct session_user *user,
				    void *context), void *context)
{
	const struct session_node *node;

	for (; *pos < SESSION_TABLE_SIZE && max > 0; (*pos)++, max--) {
		node = leases->tables[SESSION_TABLE_USERS][*pos];
		for (; node != NULL; node = node->next)
			fn((const struct session_user *)node, context);
	}
	return *pos < SESSION_TABLE_SIZE;
}
