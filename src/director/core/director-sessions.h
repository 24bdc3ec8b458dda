#ifndef DIRECTOR_SESSIONS_H
#define DIRECTOR_SESSIONS_H

#include "ring-message.h"

/* What administrators ask about sessions, and want of them, in the whole
   ring. */

struct director;
struct director_time;
struct session_plugin;
struct session_token;

/* Names, masks and fields are at most so long. */
#define DIRECTOR_SESSION_TEXT_MAX 255

enum session_match_type {
	SESSION_MATCH_ALL,
	/* The name as the login gave it, or destuser; upper and lower case are
	   the same if they are for the user hash. */
	SESSION_MATCH_NAME,
	/* The same with a mask: * stands for any text, ? for one byte. Upper and
	   lower case are the same. */
	SESSION_MATCH_MASK,
	/* A field of the passdb that has exactly this value */
	SESSION_MATCH_FIELD,
};

struct session_match {
	enum session_match_type type;
	/* Name, mask or value */
	const char *text;
	/* FIELD: which one */
	const char *field;
	/* NAME: his hash, also those of sessions that don't tell a name */
	uint32_t hash;
	/* NAME: the text is a number, which may be a hash. 0: it isn't */
	uint32_t number;
};

/* How a session looks; valid only during the call */
struct director_session_row {
	/* "" if it isn't known */
	const char *user, *service;
	/* starting, up, ending; lost: its login process isn't connected */
	const char *state;
	uint32_t hash;
	struct ip_addr backend;
	/* On the machine's clock */
	time_t since;
};

/* None may call the core. Any may be NULL. */
struct director_session_vfuncs {
	/* Tell the plugin to end this session. Returns FALSE if it has too much
	   to read already: nothing was told. reason: for the login process'
	   log */
	bool (*kick)(void *context, struct session_plugin *plugin,
		     const struct session_token *token, const char *reason);
	/* That director (also this one itself) has told so many sessions to end,
	   or counted them, for the question of that number. */
	void (*kicked)(void *context, uint32_t id,
		       const struct ring_address *from, unsigned int count);
	/* An answer to director_sessions_ask(): one of its sessions */
	void (*row)(void *context, uint32_t id,
		    const struct director_session_row *row);
	/* These were all of the page: count of them. next: the place of the next
	   one, 0 if there is none */
	void (*end)(void *context, uint32_t id, unsigned int next,
		    unsigned int count);
};

/* What a name, a mask or "" (all) means. The text has to stay. may_be_hash: a
   number may be one. Returns 0, or -1 and error_r if it can't be hashed. */
int session_match_user(struct director *director, const char *text,
		       bool may_be_hash, struct session_match *match_r,
		       const char **error_r);

/* Ends the sessions that match in the whole ring (assignment.md §7), a slice at
   a time. counted: each director answers by vfunc kicked(), with *id_r. No
   director of 2.3 does. by: prefix for the logs. Returns FALSE if too many
   others are being carried out. */
bool director_sessions_kick(struct director *director,
			    const struct session_match *match, bool counted,
			    const char *by, uint32_t *id_r,
			    const struct director_time *now);
/* Has each director tell, by vfunc kicked() with *id_r, how many sessions the
   hash has that aren't to the backend. To be called just before he is moved
   there. *id_r is set before we tell our own. */
void director_sessions_count(struct director *director, uint32_t hash,
			     const struct ip_addr *except, uint32_t *id_r);

/* Gives the sessions that match here, in slices: *pos starts at 0. Returns TRUE
   if there is more. */
bool director_sessions_list(struct director *director,
			    const struct session_match *match,
			    unsigned int *pos,
			    void (*callback)(const struct director_session_row
					     *row, void *context),
			    void *context, const struct director_time *now);
/* Asks another director for a page of what director_sessions_list() gives there
   for this name, mask, hash or "". It begins at this place, 0 at first. The
   answer comes by vfuncs row() and end(), with *id_r. Returns FALSE if it can't
   be asked. */
bool director_sessions_ask(struct director *director,
			   const struct ring_address *to, const char *text,
			   unsigned int place, uint32_t *id_r);

/* Why a user's move to the backend hasn't ended, for people; NULL if he isn't
   being moved (any more). */
const char *
director_user_move_waits(struct director *director, uint32_t hash,
			 const struct ip_addr *ip,
			 const struct director_time *now);

#endif
