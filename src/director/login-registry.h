#ifndef LOGIN_REGISTRY_H
#define LOGIN_REGISTRY_H

struct master_service_connection;

/* login/director-proxy: the login plugins' sockets
   (director-proxy-protocol.h). */

void login_registry_init(void);
/* Closes all. */
void login_registry_deinit(void);

/* Takes over the accepted connection. */
void login_registry_connection_create(struct master_service_connection *conn);

/* Tells the connected plugin to end its sessions of the hash, except those to
   that backend (may be NULL). */
struct session_plugin;
struct ip_addr;
struct session_token;
void login_registry_kick(struct session_plugin *plugin, uint32_t hash,
			 const struct ip_addr *except, const char *reason);
/* Tells it to end this session. Returns FALSE if it has too much to read
   already. */
bool login_registry_kick_session(struct session_plugin *plugin,
				 const struct session_token *token,
				 const char *reason);
/* The same for all sessions on that backend. */
void login_registry_kick_backend(struct session_plugin *plugin,
				 const struct ip_addr *ip, const char *reason);

#endif
