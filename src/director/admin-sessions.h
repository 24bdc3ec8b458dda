#ifndef ADMIN_SESSIONS_H
#define ADMIN_SESSIONS_H

#include "core/director-sessions.h"

/* Commands of the admin socket that ask all directors */

struct admin_connection;

void admin_cmd_user_kick(struct admin_connection *conn,
			 const char *const *args);
void admin_cmd_user_kick_alt(struct admin_connection *conn,
			     const char *const *args);
void admin_cmd_user_move(struct admin_connection *conn,
			 const char *const *args);
void admin_cmd_session_list(struct admin_connection *conn,
			    const char *const *args);

/* For struct director_session_vfuncs */
void admin_sessions_kicked(void *context, uint32_t id,
			   const struct ring_address *from, unsigned int count);
void admin_sessions_row(void *context, uint32_t id,
			const struct director_session_row *row);
void admin_sessions_end(void *context, uint32_t id, unsigned int next,
			unsigned int count);

#endif
