/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Lines that come as often as others want: throttled. */

#include "lib.h"
#include "director-private.h"

static const struct {
	enum log_type type;
	/* "12 more ..." */
	const char *name;
} log_kinds[DIRECTOR_LOG_COUNT] = {
	[DIRECTOR_LOG_KICK] = { LOG_TYPE_INFO, "users are kicked" },
	[DIRECTOR_LOG_SESSION_ELSEWHERE] = { LOG_TYPE_WARNING,
		"sessions on other backends than their users'" },
	[DIRECTOR_LOG_SESSION_NOWHERE] = { LOG_TYPE_WARNING,
		"sessions on what isn't a backend (any more)" },
	[DIRECTOR_LOG_SESSION_REDIRECTED] = { LOG_TYPE_WARNING,
		"sessions were redirected by their backends" },
	[DIRECTOR_LOG_UNSAFE_MOVE] = { LOG_TYPE_ERROR,
		"users are moved who may have sessions that nobody can see" },
	[DIRECTOR_LOG_UNSAFE_KICK] = { LOG_TYPE_WARNING,
		"kicks, which end no sessions that nobody can see" },
};

void director_log_throttled(struct director *director,
			    enum director_log_kind kind, const char *text,
			    uint64_t now_msecs)
{
	unsigned int held;

	if (log_throttle(&director->log_throttles[kind], now_msecs, &held)) {
		DIRECTOR_LOG(director, log_kinds[kind].type, t_strconcat(
			text, log_throttle_more(held), NULL));
	}
}

void director_log_run(struct director *director, uint64_t now_msecs)
{
	unsigned int i, held;

	for (i = 0; i < DIRECTOR_LOG_COUNT; i++) {
		held = log_throttle_rest(&director->log_throttles[i],
					 now_msecs);
		if (held > 0) {
			DIRECTOR_LOG(director, log_kinds[i].type,
				     t_strdup_printf("%u more %s", held,
						     log_kinds[i].name));
		}
	}
}

uint64_t director_log_next_deadline(const struct director *director)
{
	uint64_t deadline = 0, msecs;
	unsigned int i;

	for (i = 0; i < DIRECTOR_LOG_COUNT; i++) {
		msecs = log_throttle_deadline(&director->log_throttles[i]);
		if (msecs != 0 && (deadline == 0 || msecs < deadline))
			deadline = msecs;
	}
	return deadline;
}

const char *director_log_who(const char *by)
{
	size_t len = strlen(by);

	return len >= 2 && strcmp(by + len - 2, ": ") == 0 ?
		t_strndup(by, len - 2) : by;
}

const char *director_who(const struct ring_address *address)
{
	return t_strconcat("director ", ring_address_str(address), NULL);
}
