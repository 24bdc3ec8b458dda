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

#endif
