/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "log-throttle.h"

bool log_throttle(struct log_throttle *throttle, uint64_t now_msecs,
		  unsigned int *held_r)
{
	if (now_msecs < throttle->next_msecs) {
		throttle->held++;
		return FALSE;
	}
	*held_r = throttle->held;
	throttle->held = 0;
	throttle->next_msecs = now_msecs + LOG_THROTTLE_MSECS;
	return TRUE;
}

const char *log_throttle_more(unsigned int held)
{
	return held == 0 ? "" : t_strdup_printf(" (%u more like it)", held);
}

uint64_t log_throttle_deadline(const struct log_throttle *throttle)
{
	return throttle->held == 0 ? 0 : throttle->next_msecs;
}

unsigned int log_throttle_rest(struct log_throttle *throttle,
			       uint64_t now_msecs)
{
	unsigned int held;

	if (throttle->held == 0 || now_msecs < throttle->next_msecs)
		return 0;
	(void)log_throttle(throttle, now_msecs, &held);
	return held;
}
