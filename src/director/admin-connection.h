#ifndef ADMIN_CONNECTION_H
#define ADMIN_CONNECTION_H

#include "connection.h"

/* The director-admin socket (spec: sockets.md §7). */

struct admin_connection;
struct master_service_connection;

void admin_connections_init(void);
/* Closes all. */
void admin_connections_deinit(void);
/* Takes over the accepted connection, of a unix or a TCP socket. */
void admin_connection_create(struct master_service_connection *conn);
/* The core has recorded changes: commands that waited for it are answered. */
void admin_connections_changes_recorded(void);
/* The ring is synced: they go on soon. */
void admin_connections_ring_synced(void);

/* -- For admin-commands.c -- */

#define ADMIN_LOG_PREFIX "doveadm: "

/* Gives output as long as there is room; called again when there is. Returns
   TRUE if there is more. */
typedef bool admin_output_t(struct admin_connection *conn);

struct admin_connection {
	struct connection conn;

	/* Output of the command that is being answered; NULL if none */
	admin_output_t *output_more;
	/* A place in the user table, and whose users are wanted (family 0:
	   all), for output_more() */
	uint32_t walk_pos;
	struct ip_addr walk_ip;

	/* Waits for the ring to be synced, to be executed then. NULL: none */
	char *waiting_line;
	/* Waits for this change to be recorded, and known to the whole ring */
	unsigned int wait_change;
	struct timeout *to_wait;
	/* HOST-RESET-USERS that is awaited; NULL: none */
	struct user_flush *flush;
	struct timeout *to_flush;
	/* What is awaited from other directors (admin-sessions.c); NULL: none */
	struct admin_query *query;
	/* Gives the next slice */
	struct timeout *to_output;

	bool waiting_change:1;
	/* The client is told how far the flush is, and stops it by closing. */
	bool flush_progress:1;
	bool skipping_line:1;
	bool processing:1;
};

/* Replies one line. */
void admin_reply(struct admin_connection *conn, const char *line);
/* Replies ERROR with the text. */
void admin_error(struct admin_connection *conn, const char *error);
/* OK, as soon as all that was changed until now is recorded, and all directors
   know it. */
void admin_reply_when_recorded(struct admin_connection *conn);
/* Has the connection wait for the flush of the backend's users (NULL: of all),
   and replies. Returns FALSE if the backend isn't known. */
bool admin_flush(struct admin_connection *conn, const struct ip_addr *ip,
		 unsigned int max_parallel, bool progress);
/* Starts the output of a long list. */
void admin_output(struct admin_connection *conn, admin_output_t *output_more);
/* Is there room for more output now? */
bool admin_output_has_room(struct admin_connection *conn);

/* Goes on with the next command, if the one before is done. */
void admin_continue(struct admin_connection *conn);

/* admin-sessions.c: nothing is awaited any more. */
void admin_query_free(struct admin_connection *conn);

/* admin-commands.c: 'str', fit for a log */
const char *admin_quote(const char *str);
/* Returns FALSE after it has replied with an error. */
bool admin_parse_ip(struct admin_connection *conn, const char *str,
		    struct ip_addr *ip_r);
/* A number is a hash, unless the caller says that it is a name. Returns 0, or
   -1 and error_r. */
int admin_parse_user(const char *user, bool is_name, uint32_t *hash_r,
		     const char **error_r);
/* Executes one line. */
void admin_command(struct admin_connection *conn, const char *const *args);
/* Has it to wait until the ring is synced? */
bool admin_command_waits(const char *const *args);

#endif
