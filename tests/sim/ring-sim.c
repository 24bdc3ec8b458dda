/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "sim-batch.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

/* Failures of different kinds for which a short history is looked for */
#define MAX_SHRINKS 3
#define SELF_TEST_SEEDS 40

static const char usage_text[] =
"usage: ring-sim [OPTION...]\n"
"\n"
"  --seeds N        run so many seeds (default 1000)\n"
"  --first SEED     beginning with this one (default 1)\n"
"  --jobs N         so many processes (default 2)\n"
"  --state FILE     keep there what is done, and go on where it was\n"
"  --max-failures N stop after so many (default 20; 0 = never)\n"
"  --no-shrink      don't look for short histories of what failed\n"
"  --blocks N       print \">> PASSED\" or \">> FAILED\" for each N seeds\n"
"\n"
"  --seed SEED      run this one\n"
"  --verbose        print what happens in it\n"
"  --shrink         look for a short history if it fails\n"
"  --only LIST      only these parts of its plan (3,5-7)\n"
"  --absent LIST    without these directors\n"
"\n"
"  --self-test      is a seed's history always the same?\n";

enum {
	OPT_SEEDS = 256, OPT_FIRST, OPT_JOBS, OPT_STATE, OPT_MAX_FAILURES,
	OPT_NO_SHRINK, OPT_BLOCKS, OPT_SEED, OPT_VERBOSE, OPT_SHRINK, OPT_ONLY,
	OPT_ABSENT, OPT_SELF_TEST
};

static const struct option long_options[] = {
	{ "seeds", required_argument, NULL, OPT_SEEDS },
	{ "first", required_argument, NULL, OPT_FIRST },
	{ "jobs", required_argument, NULL, OPT_JOBS },
	{ "state", required_argument, NULL, OPT_STATE },
	{ "max-failures", required_argument, NULL, OPT_MAX_FAILURES },
	{ "no-shrink", no_argument, NULL, OPT_NO_SHRINK },
	{ "blocks", required_argument, NULL, OPT_BLOCKS },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "verbose", no_argument, NULL, OPT_VERBOSE },
	{ "shrink", no_argument, NULL, OPT_SHRINK },
	{ "only", required_argument, NULL, OPT_ONLY },
	{ "absent", required_argument, NULL, OPT_ABSENT },
	{ "self-test", no_argument, NULL, OPT_SELF_TEST },
	{ NULL, 0, NULL, 0 }
};

struct options {
	struct sim_batch_settings batch;
	uint64_t seed;
	bool one_seed, verbose, shrink, no_shrink, self_test;
	const char *only, *absent;
};

static void ATTR_NORETURN usage(void)
{
	fputs(usage_text, stderr);
	exit(2);
}

static uint64_t number(const char *str, uint64_t max)
{
	uint64_t n;

	if (str_to_uint64(str, &n) < 0 || n > max)
		usage();
	return n;
}

static void parse_option(struct options *options, int opt)
{
	switch (opt) {
	case OPT_SEEDS:
		options->batch.count = number(optarg, INT64_MAX);
		break;
	case OPT_FIRST:
		options->batch.first = number(optarg, INT64_MAX);
		break;
	case OPT_JOBS:
		options->batch.jobs = I_MAX(number(optarg, 64), 1);
		break;
	case OPT_STATE:
		options->batch.state_path = optarg;
		break;
	case OPT_MAX_FAILURES:
		options->batch.max_failures = number(optarg, UINT_MAX);
		break;
	case OPT_NO_SHRINK:
		options->no_shrink = TRUE;
		break;
	case OPT_BLOCKS:
		options->batch.report_block = number(optarg, UINT_MAX);
		break;
	case OPT_SEED:
		options->seed = number(optarg, UINT64_MAX);
		options->one_seed = TRUE;
		break;
	case OPT_VERBOSE:
		options->verbose = TRUE;
		break;
	case OPT_SHRINK:
		options->shrink = TRUE;
		break;
	case OPT_ONLY:
		options->only = optarg;
		break;
	case OPT_ABSENT:
		options->absent = optarg;
		break;
	case OPT_SELF_TEST:
		options->self_test = TRUE;
		break;
	default:
		usage();
	}
}

static bool shrink(struct sim_plan *plan, const struct sim_failure *failure)
{
	printf("\nseed %llu: %s: %s\nlooking for a short history...\n",
	       (unsigned long long)failure->seed, failure->kind,
	       failure->text);
	sim_shrink(plan, failure);
	sim_shrink_print(plan);
	return FALSE;
}

static bool run_seed(const struct options *options)
{
	struct sim_failure failure;
	struct sim_tally tally;
	struct sim_plan plan;
	uint64_t digest;
	char *kind = NULL, *text = NULL;
	bool success;

	sim_plan_init(&plan, options->seed);
	if ((options->only != NULL && sim_plan_only(&plan, options->only) < 0) ||
	    (options->absent != NULL &&
	     sim_plan_absent(&plan, options->absent) < 0))
		usage();
	if (options->shrink) {
		success = sim_run_apart(&plan, &failure) ||
			shrink(&plan, &failure);
		sim_plan_deinit(&plan);
		return success;
	}
	i_zero(&tally);
	success = sim_run(&plan, options->verbose, &tally, &digest, &kind,
			  &text);
	sim_plan_deinit(&plan);
	if (!success)
		printf("%s: %s\n", kind, text);
	printf("history %016llx\n", (unsigned long long)digest);
	sim_tally_print(&tally);
	i_free(kind);
	i_free(text);
	return success;
}

static uint64_t history_of(uint64_t seed)
{
	struct sim_tally tally;
	struct sim_plan plan;
	uint64_t digest;
	char *kind, *text;

	i_zero(&tally);
	sim_plan_init(&plan, seed);
	(void)sim_run(&plan, FALSE, &tally, &digest, &kind, &text);
	sim_plan_deinit(&plan);
	i_free(kind);
	i_free(text);
	return digest;
}

/* The second time with another layout of the heap */
static bool self_test(uint64_t first)
{
	uint64_t seed, history, last = 0;
	bool success = TRUE;

	for (seed = first; seed < first + SELF_TEST_SEEDS; seed++) {
		void *mem;

		history = history_of(seed);
		mem = i_malloc(10000 + seed * 48);
		if (history != history_of(seed)) {
			printf("seed %llu has another history the second "
			       "time\n", (unsigned long long)seed);
			success = FALSE;
		}
		if (history == last) {
			printf("seeds %llu and %llu have the same history\n",
			       (unsigned long long)seed - 1,
			       (unsigned long long)seed);
			success = FALSE;
		}
		last = history;
		i_free(mem);
	}
	if (success)
		printf("%u seeds: the same history each time\n",
		       SELF_TEST_SEEDS);
	return success;
}

static void shrink_failures(const struct sim_batch_result *result)
{
	const struct sim_failure *failures = result->failures;
	unsigned int i, j, done = 0;
	struct sim_plan plan;

	for (i = 0; i < result->failures_count && done < MAX_SHRINKS; i++) {
		for (j = 0; j < i; j++) {
			if (strcmp(failures[i].kind, failures[j].kind) == 0)
				break;
		}
		if (j < i)
			continue;
		sim_plan_init(&plan, failures[i].seed);
		(void)shrink(&plan, &failures[i]);
		sim_plan_deinit(&plan);
		done++;
	}
}

static bool run_batch(const struct options *options)
{
	static struct sim_batch_result result;

	sim_batch_run(&options->batch, &result);
	if (result.failures_count > 0 && !options->no_shrink &&
	    !result.interrupted)
		shrink_failures(&result);
	putchar('\n');
	sim_tally_print(&result.tally);
	if (result.interrupted)
		printf("interrupted\n");
	return result.tally.failures == 0 && !result.interrupted;
}

int main(int argc, char *argv[])
{
	struct options options = {
		.batch = {
			.first = 1,
			.count = 1000,
			.jobs = 2,
			.max_failures = 20,
		},
	};
	bool success;
	int opt;

	lib_init();
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(&options, opt);
	if (optind < argc)
		usage();
	if (options.self_test)
		success = self_test(options.batch.first);
	else if (options.one_seed)
		success = run_seed(&options);
	else
		success = run_batch(&options);
	lib_deinit();
	return success ? 0 : 1;
}
