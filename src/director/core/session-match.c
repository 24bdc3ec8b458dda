/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Which sessions an administrator means */

#include "lib.h"
#include "wildcard-match.h"
#include "director-private.h"
#include "session-lease-private.h"
#include "session-match.h"

/* Leases looked at in a slice: a few 100 microseconds */
#define WALK_SLICE_LEASES 1000

int session_match_user(struct director *director, const char *text,
		       bool may_be_hash, struct session_match *match_r,
		       const char **error_r)
{
	i_zero(match_r);
	match_r->text = text;
	if (*text == '\0') {
		match_r->type = SESSION_MATCH_ALL;
		return 0;
	}
	if (strpbrk(text, "*?") != NULL) {
		match_r->type = SESSION_MATCH_MASK;
		return 0;
	}
	match_r->type = SESSION_MATCH_NAME;
	if (may_be_hash && str_to_uint32(text, &match_r->number) < 0)
		match_r->number = 0;
	return director_user_hash(director, text, &match_r->hash, error_r);
}

void session_match_dup(struct session_match *dest,
		       const struct session_match *src)
{
	*dest = *src;
	dest->text = i_strdup(src->text);
	dest->field = i_strdup(src->field);
}

void session_match_free(struct session_match *match)
{
	char *text = (char *)match->text, *field = (char *)match->field;

	i_free(text);
	i_free(field);
	match->text = match->field = NULL;
}

static bool name_matches(struct director *director,
			 const struct session_match *match, const char *name)
{
	const char *error;
	uint32_t hash;

	if (name == NULL)
		return FALSE;
	if (match->type == SESSION_MATCH_MASK)
		return wildcard_match_icase(name, match->text);
	if (strcasecmp(name, match->text) != 0)
		return FALSE;
	return strcmp(name, match->text) == 0 ||
		(director_user_hash(director, name, &hash, &error) == 0 &&
		 hash == match->hash);
}

bool session_matches(struct director *director,
		     const struct session_match *match,
		     const struct session_lease *lease)
{
	const char *name = session_lease_name(lease), *value;

	if (lease->state == SESSION_LEASE_ISSUED)
		return FALSE;
	switch (match->type) {
	case SESSION_MATCH_ALL:
		return TRUE;
	case SESSION_MATCH_FIELD:
		value = session_lease_field(lease, match->field);
		return value != NULL && strcmp(value, match->text) == 0;
	case SESSION_MATCH_NAME:
		if (match->number != 0 && lease->user->hash == match->number)
			return TRUE;
		if (name == NULL)
			return lease->user->hash == match->hash;
		break;
	case SESSION_MATCH_MASK:
		break;
	}
	return name_matches(director, match, name) ||
		(lease->has_destuser &&
		 name_matches(director, match,
			      session_lease_field(lease, "destuser")));
}

unsigned int session_walk_places(const struct session_leases *leases)
{
	unsigned int count = session_leases_total(leases);

	return I_MAX((uint64_t)SESSION_TABLE_SIZE * WALK_SLICE_LEASES /
		     I_MAX(count, WALK_SLICE_LEASES * 8), 1);
}
