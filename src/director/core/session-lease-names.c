/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Whose sessions they are, in words. */

#include "lib.h"
#include "session-lease-private.h"

void session_lease_forget_names(struct session_leases *leases,
				struct session_lease *lease)
{
	i_free(lease->names);
	if (lease->has_destuser) {
		i_assert(leases->destusers > 0);
		leases->destusers--;
		lease->has_destuser = FALSE;
	}
}

void session_lease_set_names(struct session_leases *leases,
			     struct session_lease *lease, const char *name,
			     const char *const *fields)
{
	const char *kept[SESSION_NAME_MAX_FIELDS];
	size_t sizes[SESSION_NAME_MAX_FIELDS];
	size_t name_len = I_MIN(strlen(name), SESSION_NAME_MAX_LEN);
	size_t size = name_len + 2;
	unsigned int i, count = 0;
	char *p;

	for (; *fields != NULL && count < SESSION_NAME_MAX_FIELDS; fields++) {
		sizes[count] = strlen(*fields) + 1;
		if (sizes[count] > SESSION_NAME_MAX_LEN + 1 ||
		    strchr(*fields, '=') == NULL)
			continue;
		size += sizes[count];
		kept[count++] = *fields;
	}
	session_lease_forget_names(leases, lease);
	p = lease->names = i_malloc(size);
	memcpy(p, name, name_len);
	p += name_len + 1;
	for (i = 0; i < count; i++) {
		memcpy(p, kept[i], sizes[i]);
		p += sizes[i];
	}
	if (session_lease_field(lease, "destuser") != NULL) {
		lease->has_destuser = TRUE;
		leases->destusers++;
	}
}

const char *session_lease_field(const struct session_lease *lease,
				const char *field)
{
	size_t len = strlen(field);
	const char *p = lease->names;

	if (p == NULL)
		return NULL;
	/* an empty one ends them, but the name may be empty, too */
	while (*(p += strlen(p) + 1) != '\0') {
		if (strncmp(p, field, len) == 0 && p[len] == '=')
			return p + len + 1;
	}
	return NULL;
}

bool session_leases_have_destusers(const struct session_leases *leases)
{
	return leases->destusers > 0;
}
