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
void login_registry_kick(struct session_plugin *plugin, uint32_t hash,
			 const struct ip_addr *except, const char *reason);

#endif
