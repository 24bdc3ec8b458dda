#ifndef SESSION_LEASE_PRIVATE_H
#define SESSION_LEASE_PRIVATE_H

#include "session-lease.h"

/* Inside of the leases: session-lease-tables.c finds what they are about,
   session-lease.c has the rules. */

enum session_table {
	SESSION_TABLE_TOKENS,
	SESSION_TABLE_USERS,
	SESSION_TABLE_BACKENDS,
	SESSION_TABLE_PROCESSES,

	SESSION_TABLE_COUNT
};

/* Fixed, so that no login ever waits for a table to grow: pages that aren't
   used cost nothing, and with a million sessions a chain has 16. (A fuzzer,
   which starts a thousand times a second, has them smaller.) */
#ifndef SESSION_TABLE_SIZE
#  define SESSION_TABLE_SIZE (1U << 16)
#endif

struct session_leases {
	uint64_t instance, last_seq;
	session_lease_changed_callback_t *changed;
	void (*untold)(const struct session_lease *lease, void *context);
	bool (*lives)(const struct login_process *process, void *context);
	session_lease_ended_callback_t *ended;
	void *context;
	struct session_protocol protocols[SESSION_PROTOCOLS_MAX];
	unsigned int protocols_count;

	/* What is looked for comes from outside: keyed, so that nobody can
	   make the chains long. */
	uint64_t hash_key;
	struct session_node **tables[SESSION_TABLE_COUNT];
	/* Nodes of chains that were looked at */
	uint64_t steps;
	unsigned int count, processes_count;
	/* Leases with has_destuser */
	unsigned int destusers;

	/* ISSUED ones in order of deadline, and the same for plugins that are
	   lost: in each list all have the same time to live, so that the order
	   is that of coming. Before them are those whose sessions are over. */
	struct session_lease *issued_head, *issued_tail;
	struct session_plugin *lost_head, *lost_tail;
};

void session_tables_init(struct session_leases *leases);
void session_tables_deinit(struct session_leases *leases);

/* Finds or adds */
struct session_user *
session_user_get(struct session_leases *leases, const char *tag, uint32_t hash);
/* Who has no lease (any more) */
void session_user_free(struct session_leases *leases,
		       struct session_user *user);
/* Referenced by each of its leases */
struct session_backend *
session_backend_ref(struct session_leases *leases, const struct ip_addr *ip);
void session_backend_unref(struct session_leases *leases,
			   struct session_backend *backend);

void session_lease_forget_names(struct session_leases *leases,
				struct session_lease *lease);

/* By token */
void session_lease_link(struct session_leases *leases,
			struct session_lease *lease);
void session_lease_unlink(struct session_leases *leases,
			  struct session_lease *lease);

#endif
