#ifndef AUTH_RELAY_H
#define AUTH_RELAY_H

/* The line proxies in front of auth (spec: sockets.md §2-4,
   dovecot-2.4-platform.md §3-4): login processes, LMTP and doveadm talk to auth
   through us; answers that want a proxy but name no host get one. */

struct director_lookup;
struct master_service_connection;

enum auth_relay_type {
	/* login/director: in front of auth-login, OK lines */
	AUTH_RELAY_LOGIN,
	/* director-userdb: in front of auth-userdb, PASS lines */
	AUTH_RELAY_USERDB,
	/* *-authreply: no auth behind; the client's own OK lines come back */
	AUTH_RELAY_AUTHREPLY,

	AUTH_RELAY_TYPE_COUNT
};

/* base_dir: where the sockets of auth are. */
void auth_relays_init(const char *base_dir);
/* Closes all. */
void auth_relays_deinit(void);

/* Takes over the accepted connection. */
void auth_relay_create(struct master_service_connection *conn,
		       enum auth_relay_type type);
/* A lookup of a relay that had to wait is done. */
void auth_relay_lookup_done(struct director_lookup *lookup, bool success);

#endif
