#ifndef DIRECTOR_ADMIN_CLIENT_H
#define DIRECTOR_ADMIN_CLIENT_H

/* A connection to a director-admin socket (spec: sockets.md §7). All calls
   block, and each returns within a limit whatever the server does. Nothing is
   logged here and nothing exits: doveadm-server uses this, too.

   Functions return -1 on failure; then the client is of no use any more, and
   director_admin_error() tells why. */

/* Lookup of the name and connect(), TCP only. A connect() to a unix socket can
   only have to wait for a place in the listen queue. */
#define DIRECTOR_ADMIN_CONNECT_MSECS (30*1000)
#define DIRECTOR_ADMIN_UNIX_CONNECT_MSECS (5*1000)
#define DIRECTOR_ADMIN_HANDSHAKE_MSECS (5*1000)
/* For one line. A command may wait at the server for 30 s before and 30 s after
   it is executed. */
#define DIRECTOR_ADMIN_REPLY_MSECS (70*1000)
/* A director of 2.3 says nothing until the last move of HOST-RESET-USERS has
   begun. */
#define DIRECTOR_ADMIN_RESET_REPLY_MSECS (10*60*1000)

/* The server's longest line: an error text or an entry of a list */
#define DIRECTOR_ADMIN_MAX_REPLY_LEN 8192

struct director_admin_client;

/* path: a unix socket if there is a '/' in it, otherwise host:port. Never
   returns NULL: connect() comes later. path has to stay. */
struct director_admin_client *director_admin_init(const char *path);
void director_admin_deinit(struct director_admin_client **client);

/* How long director_admin_read_line() waits, from now on. The default is
   DIRECTOR_ADMIN_REPLY_MSECS. */
void director_admin_set_reply_limit(struct director_admin_client *client,
				    unsigned int msecs);

/* Connects and shakes hands. */
int director_admin_connect(struct director_admin_client *client);

/* Sends a command: its name and arguments, which are escaped. Any number may be
   sent before the first reply is read, as long as what they are answered fits
   into the socket's buffers. */
int director_admin_send(struct director_admin_client *client,
			const char *const *args);

/* Reads a line, which stays until the next call. */
int director_admin_read_line(struct director_admin_client *client,
			     const char **line_r);

/* Why the last call failed, and the exit status for that (sysexits.h). */
const char *director_admin_error(struct director_admin_client *client,
				 int *status_r);

#endif
