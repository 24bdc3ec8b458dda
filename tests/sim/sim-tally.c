/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "sim.h"

#include <stdio.h>

static const struct {
	const char *text;
	enum sim_log_kind kind;
} log_texts[] = {
	{ "is being redirected to two hosts", SIM_LOG_TWO_HOSTS },
	{ "SYNC request hosts don't match", SIM_LOG_HOSTS_DIFFER },
	{ "appears to have got lost", SIM_LOG_SYNC_LOST },
	{ "(input: ", SIM_LOG_PROTOCOL },
	{ "we must be the only director left", SIM_LOG_ALONE },
	{ "Connecting to ", SIM_LOG_CONNECTING },
};

static const char *const excuse_names[SIM_EXCUSES] = {
	"partition", "not all reach all", "removed director",
	"director died", "director hung", "login process stopped at a restart",
	"users forgotten by command",
	"had two before",
};

static const char *const log_names[SIM_LOG_KINDS] = {
	"two hosts", "hosts differ", "SYNC lost", "protocol error", "alone",
	"connecting",
};

static const char *const nemesis_names[PLAN_TYPES] = {
	[PLAN_START] = "starts",
	[PLAN_KILL] = "kills",
	[PLAN_PAUSE] = "pauses",
	[PLAN_CUT] = "partitions",
	[PLAN_CUT_LINK] = "cut links",
	[PLAN_LATENCY] = "latency changes",
	[PLAN_CLOCK] = "clock jumps",
	[PLAN_HOST] = "backend commands",
	[PLAN_RING_ADD] = "ring adds",
	[PLAN_RING_REMOVE] = "ring removes",
	[PLAN_RESET] = "resets",
	[PLAN_STALL] = "stalls",
	[PLAN_MOVE] = "moves",
	[PLAN_FLUSH] = "flushes",
	[PLAN_PROCESS_CRASH] = "crashed login processes",
	[PLAN_PROCESS_STOP] = "stopped login processes",
	[PLAN_PLUGIN_LOST] = "lost plugin connections",
};

void sim_tally_log(struct sim_tally *tally, const char *line)
{
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(log_texts); i++) {
		if (strstr(line, log_texts[i].text) != NULL)
			tally->logs[log_texts[i].kind]++;
	}
}

static void
tally_max(uint64_t *dest, uint64_t *dest_seed, uint64_t src, uint64_t src_seed)
{
	if (src > *dest) {
		*dest = src;
		*dest_seed = src_seed;
	}
}

void sim_tally_add(struct sim_tally *dest, const struct sim_tally *src)
{
	unsigned int i;

	dest->seeds += src->seeds;
	dest->failures += src->failures;
	dest->virtual_usecs += src->virtual_usecs;
	dest->events += src->events;
	dest->lines += src->lines;
	dest->lookups += src->lookups;
	dest->admissions += src->admissions;
	dest->waited += src->waited;
	dest->timeouts += src->timeouts;
	dest->unanswered += src->unanswered;
	dest->sessions += src->sessions;
	dest->announced += src->announced;
	dest->too_late += src->too_late;
	dest->early_moves += src->early_moves;
	dest->settled_usecs += src->settled_usecs;
	for (i = 0; i < N_ELEMENTS(dest->nemesis); i++)
		dest->nemesis[i] += src->nemesis[i];
	for (i = 0; i < SIM_EXCUSES; i++)
		dest->excuses[i] += src->excuses[i];
	for (i = 0; i < SIM_LOG_KINDS; i++)
		dest->logs[i] += src->logs[i];
	tally_max(&dest->settled_max_usecs, &dest->settled_max_seed,
		  src->settled_max_usecs, src->settled_max_seed);
	tally_max(&dest->wait_max_usecs, &dest->wait_max_seed,
		  src->wait_max_usecs, src->wait_max_seed);
	tally_max(&dest->queued_max, &dest->queued_max_seed,
		  src->queued_max, src->queued_max_seed);
	dest->peers_max = I_MAX(dest->peers_max, src->peers_max);
}

static void
print_list(const char *what, const char *const *names, const uint64_t *numbers,
	   unsigned int count)
{
	const char *separator = "";
	unsigned int i;

	printf("%s: ", what);
	for (i = 0; i < count; i++) {
		if (names[i] == NULL)
			continue;
		printf("%s%s %llu", separator, names[i],
		       (unsigned long long)numbers[i]);
		separator = ", ";
	}
	putchar('\n');
}

void sim_tally_print(const struct sim_tally *tally)
{
	uint64_t good = tally->seeds - tally->failures;

	printf("%llu seeds, %llu failed; %.1f hours of virtual time, "
	       "%llu events, %llu ring messages\n",
	       (unsigned long long)tally->seeds,
	       (unsigned long long)tally->failures,
	       tally->virtual_usecs / 3.6e9,
	       (unsigned long long)tally->events,
	       (unsigned long long)tally->lines);
	printf("%llu lookups, %llu answered, %llu waited, %llu timed out, "
	       "%llu cut off; %llu sessions, %llu announced again, "
	       "%llu answers too late\n",
	       (unsigned long long)tally->lookups,
	       (unsigned long long)tally->admissions,
	       (unsigned long long)tally->waited,
	       (unsigned long long)tally->timeouts,
	       (unsigned long long)tally->unanswered,
	       (unsigned long long)tally->sessions,
	       (unsigned long long)tally->announced,
	       (unsigned long long)tally->too_late);
	print_list("done to them", nemesis_names, tally->nemesis, PLAN_TYPES);
	print_list("two backends, excused", excuse_names, tally->excuses,
		   SIM_EXCUSES);
	printf("moved without a session before they expired: %llu\n",
	       (unsigned long long)tally->early_moves);
	print_list("logged", log_names, tally->logs, SIM_LOG_KINDS);
	printf("all agreed after %.2f s (mean), %.2f s (max, seed %llu); "
	       "longest wait %.2f s (seed %llu); at most %llu connections of "
	       "one director, %llu bytes queued (seed %llu)\n",
	       good == 0 ? 0 : tally->settled_usecs / 1e6 / good,
	       tally->settled_max_usecs / 1e6,
	       (unsigned long long)tally->settled_max_seed,
	       tally->wait_max_usecs / 1e6,
	       (unsigned long long)tally->wait_max_seed,
	       (unsigned long long)tally->peers_max,
	       (unsigned long long)tally->queued_max,
	       (unsigned long long)tally->queued_max_seed);
}
