/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "hash.h"
#include "llist.h"
#include "str.h"
#include "strescape.h"
#include "../director-proxy-protocol.h"
#include "director-session.h"

/* What is longer than this is cut, so that lines stay short. */
#define DIRECTOR_SESSION_MAX_TEXT_LEN DIRECTOR_PROXY_MAX_NAME_LEN

struct director_sessions {
	struct director_session *head;
	/* user hash -> first of the sessions with this hash */
	HASH_TABLE(void *, struct director_session *) by_hash;
	HASH_TABLE(char *, struct director_session *) by_token;
	unsigned int count;

	/* Number of the current connection to the director */
	unsigned int connection;
	/* Sessions from here to the list's end were there when the connection
	   was made and may not have been told yet. New ones are prepended. */
	struct director_session *announce_next;
};

static bool director_token_is_valid(const char *token)
{
	size_t len = strspn(token, "0123456789abcdef-");

	return len > 0 && len <= DIRECTOR_PROXY_TOKEN_MAX_LEN &&
		token[len] == '\0';
}

int director_answer_parse(const char *const *fields,
			  struct director_answer *answer_r,
			  const char **error_r)
{
	const char *hash = NULL, *deadline = NULL;

	i_zero(answer_r);
	answer_r->fields = fields;
	for (; *fields != NULL; fields++) {
		(void)str_begins(*fields, DIRECTOR_PROXY_FIELD_ID"=",
				 &answer_r->token);
		(void)str_begins(*fields, DIRECTOR_PROXY_FIELD_DEADLINE"=",
				 &deadline);
		(void)str_begins(*fields, DIRECTOR_PROXY_FIELD_HASH"=", &hash);
	}
	if (answer_r->token == NULL)
		return 0;

	if (!director_token_is_valid(answer_r->token)) {
		*error_r = "Invalid "DIRECTOR_PROXY_FIELD_ID;
		return -1;
	}
	if (hash == NULL || str_to_uint32(hash, &answer_r->hash) < 0 ||
	    answer_r->hash == 0) {
		*error_r = "Missing or invalid "DIRECTOR_PROXY_FIELD_HASH;
		return -1;
	}
	if (deadline == NULL ||
	    str_to_uint64(deadline, &answer_r->deadline_msecs) < 0) {
		*error_r = "Missing or invalid "DIRECTOR_PROXY_FIELD_DEADLINE;
		return -1;
	}
	return 1;
}

struct director_sessions *director_sessions_init(void)
{
	struct director_sessions *sessions;

	sessions = i_new(struct director_sessions, 1);
	sessions->connection = 1;
	hash_table_create_direct(&sessions->by_hash, default_pool, 0);
	hash_table_create(&sessions->by_token, default_pool, 0,
			  str_hash, strcmp);
	return sessions;
}

void director_sessions_deinit(struct director_sessions **_sessions)
{
	struct director_sessions *sessions = *_sessions;

	*_sessions = NULL;
	while (sessions->head != NULL) {
		struct director_session *session = sessions->head;

		director_session_remove(sessions, &session);
	}
	hash_table_destroy(&sessions->by_hash);
	hash_table_destroy(&sessions->by_token);
	i_free(sessions);
}

static void
director_session_hash_link(struct director_sessions *sessions,
			   struct director_session *session)
{
	void *key = POINTER_CAST(session->hash);
	struct director_session *first;

	first = hash_table_lookup(sessions->by_hash, key);
	DLLIST_PREPEND_FULL(&first, session, hash_prev, hash_next);
	hash_table_update(sessions->by_hash, key, first);
}

static void
director_session_hash_unlink(struct director_sessions *sessions,
			     struct director_session *session)
{
	void *key = POINTER_CAST(session->hash);
	struct director_session *first;

	first = hash_table_lookup(sessions->by_hash, key);
	DLLIST_REMOVE_FULL(&first, session, hash_prev, hash_next);
	if (first != NULL)
		hash_table_update(sessions->by_hash, key, first);
	else
		hash_table_remove(sessions->by_hash, key);
}

static bool field_is_name(const char *field, const char *user)
{
	const char *destuser;

	if (str_begins_with(field, DIRECTOR_PROXY_FIELD_HASH"=") ||
	    strlen(field) > DIRECTOR_SESSION_MAX_TEXT_LEN)
		return FALSE;
	if (str_begins(field, DIRECTOR_PROXY_FIELD_DESTUSER"=", &destuser))
		return strcmp(destuser, user) != 0;
	return str_begins_with(field, DIRECTOR_PROXY_FIELD_ALT_PREFIX);
}

static char *session_names(const char *const *fields, const char *user)
{
	string_t *str = t_str_new(128);
	unsigned int count = 0;

	for (; fields != NULL && *fields != NULL; fields++) {
		if (!field_is_name(*fields, user))
			continue;
		if (count++ == DIRECTOR_PROXY_MAX_FIELDS)
			break;
		str_append_c(str, '\t');
		str_append_tabescaped(str, *fields);
	}
	return str_len(str) == 0 ? NULL : i_strdup(str_c(str));
}

struct director_session *
director_session_add(struct director_sessions *sessions,
		     const struct director_answer *answer,
		     const struct ip_addr *ip, const char *user, time_t since,
		     void *context)
{
	struct director_session *session;

	/* 0 can't be a key of by_hash */
	i_assert(answer->hash != 0);

	if (hash_table_lookup(sessions->by_token, answer->token) != NULL)
		return NULL;

	session = i_new(struct director_session, 1);
	session->token = i_strdup(answer->token);
	session->user = i_strndup(user, DIRECTOR_SESSION_MAX_TEXT_LEN);
	T_BEGIN {
		session->names = session_names(answer->fields, user);
	} T_END;
	session->hash = answer->hash;
	session->ip = *ip;
	session->since = since;
	session->context = context;

	DLLIST_PREPEND(&sessions->head, session);
	director_session_hash_link(sessions, session);
	hash_table_insert(sessions->by_token, session->token, session);
	sessions->count++;
	return session;
}

void director_session_remove(struct director_sessions *sessions,
			     struct director_session **_session)
{
	struct director_session *session = *_session;

	*_session = NULL;
	if (sessions->announce_next == session)
		sessions->announce_next = session->next;
	DLLIST_REMOVE(&sessions->head, session);
	director_session_hash_unlink(sessions, session);
	hash_table_remove(sessions->by_token, session->token);
	sessions->count--;
	i_free(session->token);
	i_free(session->user);
	i_free(session->names);
	i_free(session);
}

struct director_session *
director_sessions_find(struct director_sessions *sessions, uint32_t hash,
		       const struct ip_addr *except_ip)
{
	struct director_session *session;

	session = hash_table_lookup(sessions->by_hash, POINTER_CAST(hash));
	while (session != NULL && except_ip != NULL &&
	       net_ip_compare(&session->ip, except_ip))
		session = session->hash_next;
	return session;
}

struct director_session *
director_sessions_find_token(struct director_sessions *sessions,
			     const char *token)
{
	return hash_table_lookup(sessions->by_token, token);
}

struct director_session *
director_sessions_first(struct director_sessions *sessions)
{
	return sessions->head;
}

unsigned int director_sessions_count(const struct director_sessions *sessions)
{
	return sessions->count;
}

void director_session_append_start(struct director_sessions *sessions,
				   struct director_session *session,
				   string_t *dest)
{
	str_printfa(dest, "START\t%s\t%u\t%s\t%"PRIdTIME_T"\t", session->token,
		    session->hash, net_ip2addr(&session->ip), session->since);
	str_append_tabescaped(dest, session->user);
	if (session->names != NULL)
		str_append(dest, session->names);
	str_append_c(dest, '\n');
	session->told = sessions->connection;
}

void director_session_append_up(const struct director_session *session,
				bool redirected, string_t *dest)
{
	str_printfa(dest, "UP\t%s", session->token);
	if (redirected)
		str_printfa(dest, "\t%s", net_ip2addr(&session->ip));
	str_append_c(dest, '\n');
}

void director_session_append_end(const struct director_session *session,
				 const char *reason, string_t *dest)
{
	str_printfa(dest, "END\t%s\t", session->token);
	str_append_tabescaped(dest, t_strndup(reason,
					      DIRECTOR_SESSION_MAX_TEXT_LEN));
	str_append_c(dest, '\n');
}

void director_sessions_announce_begin(struct director_sessions *sessions)
{
	if (++sessions->connection == 0)
		sessions->connection++;
	sessions->announce_next = sessions->head;
}

bool director_sessions_announce_more(struct director_sessions *sessions,
				     string_t *dest, size_t max_size)
{
	struct director_session *session;

	while (sessions->announce_next != NULL && str_len(dest) < max_size) {
		session = sessions->announce_next;
		sessions->announce_next = session->next;
		director_session_append_start(sessions, session, dest);
		if (session->up)
			director_session_append_up(session, FALSE, dest);
	}
	return sessions->announce_next != NULL;
}

bool director_session_is_told(const struct director_sessions *sessions,
			      const struct director_session *session)
{
	return session->told == sessions->connection;
}
