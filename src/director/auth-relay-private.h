#ifndef AUTH_RELAY_PRIVATE_H
#define AUTH_RELAY_PRIVATE_H

#include "connection.h"
#include "director-daemon.h"
#include "auth-relay.h"

/* A login that waits for its backend: the held answer of auth */
struct relay_lookup {
	struct director_lookup lookup;
	struct auth_relay *relay;
	struct relay_lookup *prev, *next;
	/* Whole line without LF, and the id within it */
	char *line;
	const char *id;
	size_t size, id_len;
	char *username, *tag;
};

/* What a login process, lmtp or doveadm asked: where its client is connected to.
   Needed only for director_proxy_maybe, and only until answered. */
struct relay_request {
	uint32_t id;
	in_port_t lport;
	struct ip_addr lip;
	/* The answer's lease; seq is 0 if there is none */
	struct session_token token;
};

struct auth_relay {
	struct connection client;
	/* To auth; unused for AUTHREPLY */
	struct connection auth;
	enum auth_relay_type type;
	/* By CPID; NULL if not known */
	struct login_process *process;

	struct timeout *to_connect;
	unsigned int connect_tries;

	/* Lists by id, RELAY_LOOKUP_LISTS of them; NULL until one waits */
	struct relay_lookup **lookups;
	/* Not waiting: for the next line */
	struct relay_lookup *spare;
	unsigned int lookups_count;
	size_t lookups_bytes;

	/* By id modulo size; ids are given in sequence */
	struct relay_request *requests;
	unsigned int requests_size;
	/* Asked and not answered */
	unsigned int requests_pending;

	bool auth_connected:1;
	bool destroying:1;
};

/* auth-relay-reply.c: handles the answers of auth in data (whole lines) and
   sends them, or holds them, to the client. */
void auth_relay_replies(struct auth_relay *relay, const char *data,
			size_t size);
/* Handles the requests of the client in data (whole lines); they are forwarded
   by the caller. */
void auth_relay_requests(struct auth_relay *relay, const char *data,
			 size_t size);
/* Frees what is held */
void auth_relay_lookups_free(struct auth_relay *relay);
/* auth may be read from, or (again) not: depends on what the client and the
   held lookups leave room for. */
void auth_relay_update_input(struct auth_relay *relay);

#endif
