#ifndef DIRECTOR_SESSION_H
#define DIRECTOR_SESSION_H

#include "net.h"

/* The proxied sessions of this login process whose backend a director chose,
   and the lines that tell the director about them
   (director-proxy-protocol.h). No I/O. */

struct director_sessions;

/* What the director added to an auth reply. */
struct director_answer {
	const char *token;
	uint32_t hash;
	/* CLOCK_MONOTONIC */
	uint64_t deadline_msecs;
	/* All "key=value" fields of the reply; may be NULL */
	const char *const *fields;
};

struct director_session {
	struct director_session *prev, *next;
	/* Sessions with the same user hash */
	struct director_session *hash_prev, *hash_next;

	/* names: START's fields of other names, escaped, a TAB before each;
	   NULL if there are none */
	char *token, *user, *names;
	uint32_t hash;
	struct ip_addr ip;
	time_t since;
	/* The caller's own: the client whose session this is */
	void *context;

	/* Connection number on which START was sent, 0 if none */
	unsigned int told;
	/* The backend accepted the login. */
	bool up;
};

/* Finds the director's fields in an auth reply's "key=value" fields. Returns 1
   if they are there, 0 if the reply isn't a director's, -1 and error_r if it
   is but can't be used. answer_r points into fields. */
int director_answer_parse(const char *const *fields,
			  struct director_answer *answer_r,
			  const char **error_r);

struct director_sessions *director_sessions_init(void);
/* Frees the sessions that are still there, too. */
void director_sessions_deinit(struct director_sessions **sessions);

/* Returns NULL if there is already a session with the token. */
struct director_session *
director_session_add(struct director_sessions *sessions,
		     const struct director_answer *answer,
		     const struct ip_addr *ip, const char *user, time_t since,
		     void *context);
void director_session_remove(struct director_sessions *sessions,
			     struct director_session **session);

/* Any session of the hash (not 0) that isn't to the backend except_ip (NULL =
   none is excepted). NULL if there is none. */
struct director_session *
director_sessions_find(struct director_sessions *sessions, uint32_t hash,
		       const struct ip_addr *except_ip);
/* NULL if there is none. */
struct director_session *
director_sessions_find_token(struct director_sessions *sessions,
			     const char *token);
struct director_session *
director_sessions_first(struct director_sessions *sessions);
unsigned int director_sessions_count(const struct director_sessions *sessions);

/* Lines with their LF. Only a session that was told on this connection may be
   told to be up or ended on it: see director_session_is_told(). */
void director_session_append_start(struct director_sessions *sessions,
				   struct director_session *session,
				   string_t *dest);
/* redirected: session->ip isn't what START said. */
void director_session_append_up(const struct director_session *session,
				bool redirected, string_t *dest);
void director_session_append_end(const struct director_session *session,
				 const char *reason, string_t *dest);

/* A new connection to the director: nothing has been told on it. */
void director_sessions_announce_begin(struct director_sessions *sessions);
/* Appends sessions that haven't been told yet, until dest has at least
   max_size bytes. Returns TRUE if there are more of them. Sessions may be
   added (and told) and removed between the calls. */
bool director_sessions_announce_more(struct director_sessions *sessions,
				     string_t *dest, size_t max_size);
bool director_session_is_told(const struct director_sessions *sessions,
			      const struct director_session *session);

#endif
