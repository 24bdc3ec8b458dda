#ifndef SIM_BATCH_H
#define SIM_BATCH_H

#include "sim.h"

/* Many seeds, in child processes: one that crashes or never ends is a failure
   like others. */

#define SIM_KIND_MAX 32
#define SIM_TEXT_MAX 200

struct sim_failure {
	uint64_t seed;
	char kind[SIM_KIND_MAX];
	char text[SIM_TEXT_MAX];
};

struct sim_batch_settings {
	uint64_t first, count;
	unsigned int jobs;
	/* NULL: none. Goes on where it was when the file was written. */
	const char *state_path;
	/* Print a line for each so many seeds; 0 = don't */
	unsigned int report_block;
	/* Stop when so many have failed; 0 = never */
	unsigned int max_failures;
};

struct sim_batch_result {
	struct sim_tally tally;
	/* The first ones, by seed */
	struct sim_failure failures[20];
	unsigned int failures_count;
	bool interrupted;
};

void sim_batch_run(const struct sim_batch_settings *set,
		   struct sim_batch_result *result_r);

/* Runs the plan in a child process. Returns FALSE and failure_r if it fails. */
bool sim_run_apart(struct sim_plan *plan, struct sim_failure *failure_r);

/* -- sim-shrink.c -- */

/* Takes out of the plan what isn't needed for the same kind of failure. */
void sim_shrink(struct sim_plan *plan, const struct sim_failure *failure);
/* What is left in it, and how to see it */
void sim_shrink_print(const struct sim_plan *plan);
/* "3,5-7": only these items; nodes that are absent */
int sim_plan_only(struct sim_plan *plan, const char *list);
int sim_plan_absent(struct sim_plan *plan, const char *list);

#endif
