#ifndef LISTENER_H
#define LISTENER_H

/* A listener's kind: its "type", or what its name ends in (spec: sockets.md
   §1) */
enum listener_type {
	LISTENER_LOGIN,
	LISTENER_USERDB,
	LISTENER_AUTHREPLY,
	LISTENER_ADMIN,
	LISTENER_NOTIFY,
	LISTENER_RING,
	LISTENER_PROXY,
};

enum listener_type
listener_get_type(const char *name, const char *type, bool fifo, bool inet);

#endif
