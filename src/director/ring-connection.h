#ifndef RING_CONNECTION_H
#define RING_CONNECTION_H

#include "core/ring.h"

struct master_service_connection;
struct director_settings;

/* The TCP connections of the ring: sockets, lines and limits; what they mean is
   the core's (spec: ring-protocol.md §2). */

void ring_connections_init(const struct director_settings *set);
/* All peers must be gone: after director_deinit(). */
void ring_connections_deinit(void);

/* Takes over the accepted connection. */
void ring_connection_create(struct master_service_connection *conn);

/* What the core wants done */
extern const struct ring_vfuncs ring_connection_vfuncs;

struct ring_connection_stats {
	uint64_t bytes_in, bytes_out;
	size_t buffered, peak_buffered;
	/* Seconds since 1970, 0 = never */
	time_t last_input, last_output;
};
void ring_connection_get_stats(const struct ring_peer *peer,
			       struct ring_connection_stats *stats_r);
/* Received and sent over all connections since the process began */
void ring_connections_get_bytes(uint64_t *in_r, uint64_t *out_r);

/* Finds which of the directors we are: the address that our ring listener is
   bound to or, if that is any, the first one that is of this machine. No ring
   listener or no directors: self_r's port is 0. Returns 0, or -1 and error_r. */
int ring_find_self(const struct ring_address *members, unsigned int count,
		   struct ring_address *self_r, const char **error_r);
/* The port of our ring listener, 0 if there is none; its address in ip_r
   (family 0: any). */
in_port_t ring_listener_port(struct ip_addr *ip_r);

#endif
