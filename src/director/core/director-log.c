/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Warnings that come as often as others want: throttled. */

#include "lib.h"
#include "director-private.h"

/* "12 more ..." */
static const char *const log_names[DIRECTOR_LOG_COUNT] = {
	[DIRECTOR_LOG_SESSION_ELSEWHERE] =
		"sessions on other backends than their users'",
	[DIRECTOR_LOG_SESSION_NOWHERE] =
		"sessions on what isn't a backend (any more)",
	[DIRECTOR_LOG_SESSION_REDIRECTED] =
		"sessions were redirected by their backends",
};

void director_log_throttled(struct director *director,
			    enum director_log_kind kind, const char *text,
			    uint64_t now_msecs)
{
	unsigned int held;

	if (log_throttle(&director->log_throttles[kind], now_msecs, &held)) {
		DIRECTOR_LOG(director, LOG_TYPE_WARNING, t_strconcat(
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
			DIRECTOR_LOG(director, LOG_TYPE_WARNING,
				     t_strdup_printf("%u more %s", held,
						     log_names[i]));
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
