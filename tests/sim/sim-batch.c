/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "sim-batch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Seeds that a child runs */
#define BLOCK_SEEDS 100
/* A seed that takes longer never ends. */
#define HANG_SECS 120
#define PROGRESS_SECS 10
#define MAX_JOBS 64

/* What a child tells, in shared memory */
struct batch_block {
	uint64_t first, end;
	/* What it is at; those before it are in the tally. */
	volatile uint64_t seed;
	struct sim_tally tally;
	struct sim_failure failures[BLOCK_SEEDS];
	unsigned int failures_count;
};

struct batch_worker {
	pid_t pid;
	struct batch_block *block;
	uint64_t seed_seen;
	time_t seed_time;
};

struct batch {
	const struct sim_batch_settings *set;
	struct sim_batch_result *result;
	struct batch_worker workers[MAX_JOBS];
	/* Blocks that are done, but not all before them */
	ARRAY(struct batch_block) done;
	uint64_t next_given, next_merged, end;
	time_t started, progress_time, now;
	uint64_t started_at;
	/* Of the block that is being reported */
	uint64_t report_failures;
};

static volatile sig_atomic_t interrupted;

static void got_signal(int signo ATTR_UNUSED)
{
	interrupted = 1;
}

static void *shared_alloc(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		i_fatal("mmap() failed: %m");
	return mem;
}

static time_t real_time(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		i_fatal("clock_gettime() failed: %m");
	return ts.tv_sec;
}

/* -- The child -- */

static void block_fail(struct batch_block *block, uint64_t seed,
		       const char *kind, const char *text)
{
	struct sim_failure *failure =
		&block->failures[block->failures_count++];

	failure->seed = seed;
	i_strocpy(failure->kind, kind, sizeof(failure->kind));
	(void)i_strocpy(failure->text, t_strcut(t_strndup(text,
		sizeof(failure->text) - 1), '\n'), sizeof(failure->text));
}

static void block_run(struct batch_block *block)
{
	char *kind, *text;
	struct sim_tally tally;
	struct sim_plan plan;
	uint64_t digest;

	while (block->seed < block->end) T_BEGIN {
		i_zero(&tally);
		sim_plan_init(&plan, block->seed);
		if (!sim_run(&plan, FALSE, &tally, &digest, &kind, &text)) {
			block_fail(block, block->seed, kind, text);
			i_free(kind);
			i_free(text);
		}
		sim_plan_deinit(&plan);
		sim_tally_add(&block->tally, &tally);
		block->seed++;
	} T_END;
}

static void silence_stderr(void)
{
	int fd = open("/dev/null", O_WRONLY);

	if (fd != -1) {
		(void)dup2(fd, STDERR_FILENO);
		i_close_fd(&fd);
	}
}

static pid_t child_fork(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == -1)
		i_fatal("fork() failed: %m");
	if (pid == 0) {
		(void)signal(SIGINT, SIG_IGN);
		(void)signal(SIGTERM, SIG_DFL);
		silence_stderr();
	}
	return pid;
}

bool sim_run_apart(struct sim_plan *plan, struct sim_failure *failure_r)
{
	struct batch_block *block = shared_alloc(sizeof(*block));
	struct sim_tally tally;
	uint64_t digest;
	char *kind, *text;
	int status;
	pid_t pid;

	pid = child_fork();
	if (pid == 0) {
		i_zero(&tally);
		alarm(HANG_SECS);
		if (!sim_run(plan, FALSE, &tally, &digest, &kind, &text))
			block_fail(block, plan->seed, kind, text);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) < 0)
		i_fatal("waitpid() failed: %m");
	if (status != 0) {
		block->failures_count = 0;
		block_fail(block, plan->seed, "crash", t_strdup_printf(
			"killed by signal %d", WTERMSIG(status)));
	}
	*failure_r = block->failures[0];
	failure_r->seed = plan->seed;
	(void)munmap(block, sizeof(*block));
	return failure_r->kind[0] == '\0';
}

/* -- State -- */

static void state_write(struct batch *batch)
{
	const uint64_t *numbers = (const void *)&batch->result->tally;
	const char *path = batch->set->state_path, *temp_path;
	unsigned int i;
	FILE *f;

	if (path == NULL)
		return;
	temp_path = t_strconcat(path, ".tmp", NULL);
	f = fopen(temp_path, "w");
	if (f == NULL)
		i_fatal("open(%s) failed: %m", temp_path);
	fprintf(f, "first %llu next %llu tally",
		(unsigned long long)batch->set->first,
		(unsigned long long)batch->next_merged);
	for (i = 0; i < sizeof(struct sim_tally) / sizeof(*numbers); i++)
		fprintf(f, " %llu", (unsigned long long)numbers[i]);
	fputc('\n', f);
	for (i = 0; i < batch->result->failures_count; i++) {
		const struct sim_failure *failure =
			&batch->result->failures[i];

		fprintf(f, "failed %llu\t%s\t%s\n",
			(unsigned long long)failure->seed, failure->kind,
			failure->text);
	}
	if (fclose(f) != 0 || rename(temp_path, path) < 0)
		i_fatal("write(%s) failed: %m", path);
}

static void state_read(struct batch *batch)
{
	struct sim_batch_result *result = batch->result;
	uint64_t *numbers = (void *)&result->tally;
	unsigned long long first, next, n;
	unsigned int i;
	FILE *f;

	f = batch->set->state_path == NULL ? NULL :
		fopen(batch->set->state_path, "r");
	if (f == NULL)
		return;
	if (fscanf(f, "first %llu next %llu tally", &first, &next) != 2 ||
	    first != batch->set->first)
		i_fatal("%s belongs to another run", batch->set->state_path);
	for (i = 0; i < sizeof(struct sim_tally) / sizeof(*numbers); i++) {
		if (fscanf(f, " %llu", &n) != 1)
			i_fatal("%s is broken", batch->set->state_path);
		numbers[i] = n;
	}
	while (result->failures_count < N_ELEMENTS(result->failures)) {
		struct sim_failure *failure =
			&result->failures[result->failures_count];

		if (fscanf(f, " failed %llu\t%31[^\t]\t%199[^\n]", &n,
			   failure->kind, failure->text) != 3)
			break;
		failure->seed = n;
		result->failures_count++;
	}
	(void)fclose(f);
	batch->next_given = batch->next_merged = next;
}

/* -- The parent -- */

static void batch_report(struct batch *batch, bool last)
{
	unsigned int size = batch->set->report_block;
	uint64_t done = batch->next_merged - batch->set->first;

	if (size == 0 || done == 0 || (done % size != 0 && !last))
		return;
	printf(">> %s seeds %llu-%llu\n",
	       batch->report_failures == 0 ? "PASSED" : "FAILED",
	       (unsigned long long)(batch->set->first +
				    (done - 1) / size * size),
	       (unsigned long long)batch->next_merged - 1);
	fflush(stdout);
	batch->report_failures = 0;
}

static void batch_merge(struct batch *batch, const struct batch_block *block)
{
	struct sim_batch_result *result = batch->result;
	unsigned int i;

	sim_tally_add(&result->tally, &block->tally);
	for (i = 0; i < block->failures_count; i++) {
		if (result->failures_count < N_ELEMENTS(result->failures)) {
			result->failures[result->failures_count++] =
				block->failures[i];
		}
	}
	batch->next_merged = block->end;
	batch->report_failures += block->tally.failures;
	batch_report(batch, block->end == batch->end);
}

static void batch_block_done(struct batch *batch, struct batch_worker *worker)
{
	struct batch_block *block;
	unsigned int i;

	for (i = 0; i < worker->block->failures_count; i++) {
		const struct sim_failure *failure =
			&worker->block->failures[i];

		printf("seed %llu: %s: %s\n",
		       (unsigned long long)failure->seed, failure->kind,
		       failure->text);
	}
	array_push_back(&batch->done, worker->block);
	for (i = 0; i < array_count(&batch->done); i++) {
		block = array_idx_modifiable(&batch->done, i);
		if (block->first == batch->next_merged) {
			batch_merge(batch, block);
			array_delete(&batch->done, i, 1);
			i = UINT_MAX;
		}
	}
	state_write(batch);
}

static void batch_fork(struct batch *batch, struct batch_worker *worker)
{
	worker->seed_seen = worker->block->seed;
	worker->seed_time = batch->now;
	worker->pid = child_fork();
	if (worker->pid == 0) {
		block_run(worker->block);
		_exit(0);
	}
}

static void batch_give(struct batch *batch, struct batch_worker *worker)
{
	struct batch_block *block = worker->block;

	if (interrupted || batch->next_given >= batch->end ||
	    (batch->set->max_failures != 0 &&
	     batch->result->tally.failures >= batch->set->max_failures))
		return;
	i_zero(block);
	block->first = block->seed = batch->next_given;
	block->end = I_MIN(block->first + BLOCK_SEEDS, batch->end);
	batch->next_given = block->end;
	batch_fork(batch, worker);
}

static void
batch_ended(struct batch *batch, struct batch_worker *worker, int status)
{
	struct batch_block *block = worker->block;

	worker->pid = 0;
	if (interrupted)
		return;
	if (block->seed < block->end) {
		/* the rest is tried without it */
		block_fail(block, block->seed, "crash", t_strdup_printf(
			"killed by signal %d", WTERMSIG(status)));
		block->tally.seeds++;
		block->tally.failures++;
		block->seed++;
		batch_fork(batch, worker);
		return;
	}
	batch_block_done(batch, worker);
	batch_give(batch, worker);
}

static void batch_progress(struct batch *batch)
{
	uint64_t done = batch->next_merged - batch->started_at;
	uint64_t secs = batch->now - batch->started;
	uint64_t left = batch->end - batch->next_merged;

	if (batch->now < batch->progress_time + PROGRESS_SECS)
		return;
	batch->progress_time = batch->now;
	printf("%llu of %llu seeds, %.1f a second, %llu failed, %llu min "
	       "left\n",
	       (unsigned long long)(batch->next_merged - batch->set->first),
	       (unsigned long long)batch->set->count,
	       (double)done / (secs == 0 ? 1 : secs),
	       (unsigned long long)batch->result->tally.failures,
	       (unsigned long long)(done == 0 ? 0 : left * secs / done / 60));
	fflush(stdout);
}

static bool batch_watch(struct batch *batch)
{
	bool busy = FALSE;
	unsigned int i;
	int status;

	batch->now = real_time();
	for (i = 0; i < batch->set->jobs; i++) {
		struct batch_worker *worker = &batch->workers[i];

		if (worker->pid == 0)
			continue;
		busy = TRUE;
		if (waitpid(worker->pid, &status, WNOHANG) == worker->pid) {
			batch_ended(batch, worker, status);
		} else if (interrupted) {
			(void)kill(worker->pid, SIGKILL);
		} else if (worker->block->seed != worker->seed_seen) {
			worker->seed_seen = worker->block->seed;
			worker->seed_time = batch->now;
		} else if (batch->now - worker->seed_time > HANG_SECS) {
			(void)kill(worker->pid, SIGKILL);
		}
	}
	batch_progress(batch);
	return busy;
}

void sim_batch_run(const struct sim_batch_settings *set,
		   struct sim_batch_result *result_r)
{
	struct batch batch = {
		.set = set,
		.result = result_r,
		.next_given = set->first,
		.next_merged = set->first,
		.end = set->first + set->count,
	};
	unsigned int i;

	i_assert(set->jobs > 0 && set->jobs <= MAX_JOBS);
	i_zero(result_r);
	state_read(&batch);
	i_array_init(&batch.done, 8);
	batch.started_at = batch.next_merged;
	batch.now = batch.started = batch.progress_time = real_time();
	(void)signal(SIGINT, got_signal);
	(void)signal(SIGTERM, got_signal);
	for (i = 0; i < set->jobs; i++) {
		batch.workers[i].block = shared_alloc(sizeof(struct batch_block));
		batch_give(&batch, &batch.workers[i]);
	}
	while (batch_watch(&batch))
		usleep(5000);
	result_r->interrupted = interrupted != 0;
	if (batch.next_merged < batch.end && !result_r->interrupted)
		batch_report(&batch, TRUE);
	for (i = 0; i < set->jobs; i++)
		(void)munmap(batch.workers[i].block, sizeof(struct batch_block));
	array_free(&batch.done);
}
