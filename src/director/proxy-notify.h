#ifndef PROXY_NOTIFY_H
#define PROXY_NOTIFY_H

struct master_service_connection;

/* login/proxy-notify (spec: sockets.md §5): login processes name the users of
   their proxied sessions, one TAB-escaped name a line; they are refreshed.
   Lines that are too long or broken are skipped and reported. Takes over the
   FIFO, or the accepted connection of a unix socket of this type. */
void proxy_notify_create(struct master_service_connection *conn);
/* Closes all. */
void proxy_notify_deinit(void);

#endif
