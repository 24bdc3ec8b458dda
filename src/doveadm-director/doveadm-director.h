#ifndef DOVEADM_DIRECTOR_H
#define DOVEADM_DIRECTOR_H

#include "doveadm.h"
#include "doveadm-print.h"
#include "director-admin-client.h"

/* What the commands have in common. Whatever fails is logged and sets
   doveadm_exit_code; a command then returns. Nothing here exits in
   doveadm-server. */

/* 68 (not found) never replaces another failure. */
void director_cmd_set_exit_code(int status);

/* Wrong or missing arguments. In a command line's doveadm this exits. */
void director_cmd_usage(struct doveadm_cmd_context *cctx);
void director_cmd_error(struct doveadm_cmd_context *cctx, int status,
			const char *format, ...) ATTR_FORMAT(3, 4);
void director_cmd_warning(struct doveadm_cmd_context *cctx, int status,
			  const char *format, ...) ATTR_FORMAT(3, 4);
/* What the original said before it exited. This one returns. */
void director_cmd_fatal(struct doveadm_cmd_context *cctx, int status,
			const char *format, ...) ATTR_FORMAT(3, 4);
/* Success: shown only if doveadm is to be verbose */
void director_cmd_info(struct doveadm_cmd_context *cctx,
		       const char *format, ...) ATTR_FORMAT(2, 3);

/* NULL and "" are the same to us: HTTP clients send the latter. */
const char *director_cmd_str(struct doveadm_cmd_context *cctx,
			     const char *name);
/* TRUE only if given and not "false" (HTTP) */
bool director_cmd_bool(struct doveadm_cmd_context *cctx, const char *name);

/* Returns NULL if it failed. */
struct director_admin_client *
director_cmd_connect(struct doveadm_cmd_context *cctx);
/* As the client's functions, but log the error */
int director_cmd_send(struct doveadm_cmd_context *cctx,
		      struct director_admin_client *client,
		      const char *const *args);
int director_cmd_read_line(struct doveadm_cmd_context *cctx,
			   struct director_admin_client *client,
			   const char **line_r);
/* Reads the next line of a reply that is a list. Returns 1 and the unescaped
   fields (in the data stack), 0 at its end, -1 if it failed. */
int director_cmd_next_row(struct doveadm_cmd_context *cctx,
			  struct director_admin_client *client,
			  const char *const **fields_r);

/* A server's words, fit for a terminal or a log */
const char *director_cmd_text(const char *text);
/* The same for a reply that isn't OK. "ERROR <text>" becomes the text. */
const char *director_cmd_reply_text(const char *line);
bool director_cmd_reply_is_error(const char *line);

/* All addresses of a host: an IP or a name. Returns -1 if it failed. */
int director_cmd_get_ips(struct doveadm_cmd_context *cctx, const char *host,
			 const struct ip_addr **ips_r, unsigned int *count_r);
/* Local time, or empty if it's 0 or no time that anybody could mean */
const char *director_cmd_time(time_t t, const char *empty);

/* doveadm-director-status.c */
void cmd_director_status(struct doveadm_cmd_context *cctx);
void cmd_director_dump(struct doveadm_cmd_context *cctx);
/* doveadm-director-host.c */
void cmd_director_add(struct doveadm_cmd_context *cctx);
void cmd_director_update(struct doveadm_cmd_context *cctx);
void cmd_director_up(struct doveadm_cmd_context *cctx);
void cmd_director_down(struct doveadm_cmd_context *cctx);
void cmd_director_remove(struct doveadm_cmd_context *cctx);
/* doveadm-director-flush.c */
void cmd_director_flush(struct doveadm_cmd_context *cctx);
/* doveadm-director-map.c */
void cmd_director_map(struct doveadm_cmd_context *cctx);
/* doveadm-director-user.c */
void cmd_director_move(struct doveadm_cmd_context *cctx);
void cmd_director_kick(struct doveadm_cmd_context *cctx);
/* doveadm-director-sessions.c */
void cmd_director_sessions(struct doveadm_cmd_context *cctx);
/* doveadm-director-ring.c */
void cmd_director_ring_add(struct doveadm_cmd_context *cctx);
void cmd_director_ring_remove(struct doveadm_cmd_context *cctx);
void cmd_director_ring_status(struct doveadm_cmd_context *cctx);

#endif
