/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Login processes that were connected to the director process before us
   (design.md, rule 4): one that is still there may have sessions, and tells of
   them as soon as it can, which is late if it is stopped. Until then no move
   ends. */

#include "lib.h"
#include "array.h"
#include "str.h"
#include "ring-private.h"

/* How often they are looked for; so many at a time, if there are more in such
   steps: each one costs 10 us */
#define PROCESSES_LOOK_MSECS 500
#define PROCESSES_LOOK_MAX 100
#define PROCESSES_LOOK_STEP_MSECS 20
/* So many are named in the log. */
#define PROCESSES_LOG_MAX 10

void director_processes_init(struct director *director)
{
	i_array_init(&director->earlier_pids, 4);
}

void director_processes_deinit(struct director *director)
{
	array_free(&director->earlier_pids);
}

static bool process_find(const struct director *director, pid_t pid,
			 unsigned int *idx_r)
{
	const pid_t *pids;
	unsigned int i, count;

	pids = array_get(&director->earlier_pids, &count);
	for (i = 0; i < count; i++) {
		if (pids[i] == pid) {
			*idx_r = i;
			return TRUE;
		}
	}
	return FALSE;
}

static void process_record(pid_t pid, struct director_record *record_r)
{
	i_zero(record_r);
	record_r->type = DIRECTOR_RECORD_PROCESS;
	record_r->tag = "";
	record_r->pid = pid;
}

void director_process_connected(struct director *director, pid_t pid)
{
	struct director_record record;

	process_record(pid, &record);
	director->v.record(director->context, &record);
}

bool director_process_lives(struct director *director, pid_t pid,
			    uint64_t msecs)
{
	return director->v.process_lives != NULL &&
		director->v.process_lives(director->context, pid, msecs);
}

void director_process_restore(struct director *director, pid_t pid)
{
	unsigned int idx;

	if (!process_find(director, pid, &idx) &&
	    director_process_lives(director, pid, 0))
		array_push_back(&director->earlier_pids, &pid);
}

bool director_session_process_lives(const struct login_process *process,
				    void *context)
{
	return director_process_lives(context, process->pid,
				      SESSION_LEASE_ORPHAN_MSECS);
}

static void process_forget(struct director *director, unsigned int idx,
			   const struct director_time *now)
{
	array_delete(&director->earlier_pids, idx, 1);
	director->processes_told_msecs = now->msecs;
	if (director_processes_all_told(director)) {
		if (director->processes_logged) {
			DIRECTOR_LOG(director, LOG_TYPE_INFO,
				     "All login processes have told of their "
				     "sessions, or are gone");
		}
		/* moves look for it by themselves */
		director_user_changed(director);
	}
}

void director_process_announced(struct director *director, pid_t pid,
				const struct director_time *now)
{
	unsigned int idx;

	if (process_find(director, pid, &idx))
		process_forget(director, idx, now);
}

static const char *processes_str(const struct director *director)
{
	const pid_t *pids;
	unsigned int i, count;
	string_t *str = t_str_new(128);

	pids = array_get(&director->earlier_pids, &count);
	for (i = 0; i < I_MIN(count, PROCESSES_LOG_MAX); i++)
		str_printfa(str, "%s%ld", i == 0 ? "" : ", ", (long)pids[i]);
	if (count > PROCESSES_LOG_MAX)
		str_printfa(str, " and %u more", count - PROCESSES_LOG_MAX);
	return str_c(str);
}

const char *director_processes_reason(const struct director *director)
{
	return t_strdup_printf("login processes that were there before this "
			       "director have to tell of their sessions "
			       "(pid %s)", processes_str(director));
}

void director_run_processes(struct director *director,
			    const struct director_time *now)
{
	const pid_t *pid;
	unsigned int i, count = array_count(&director->earlier_pids);

	if (count == 0 || now->msecs < director->processes_look_msecs)
		return;
	/* from the end, since they go meanwhile */
	if (director->processes_pos == 0 || director->processes_pos > count)
		director->processes_pos = count;
	for (i = 0; i < PROCESSES_LOOK_MAX && director->processes_pos > 0; i++) {
		director->processes_pos--;
		pid = array_idx(&director->earlier_pids,
				director->processes_pos);
		if (!director_process_lives(director, *pid,
				now->msecs - director->started_msecs))
			process_forget(director, director->processes_pos, now);
	}
	director->processes_look_msecs = now->msecs +
		(director->processes_pos == 0 ? PROCESSES_LOOK_MSECS :
		 PROCESSES_LOOK_STEP_MSECS);
	if (director_processes_all_told(director) ||
	    director->processes_logged ||
	    now->msecs < director->started_msecs + DIRECTOR_START_GRACE_MSECS)
		return;
	director->processes_logged = TRUE;
	DIRECTOR_LOG(director, LOG_TYPE_WARNING, t_strdup_printf(
		"Login processes don't tell of the sessions that they may have "
		"from before (pid %s): no move ends until they do, or are gone",
		processes_str(director)));
}

uint64_t director_processes_next_deadline(const struct director *director)
{
	return director_processes_all_told(director) ? 0 :
		I_MAX(director->processes_look_msecs, 1);
}

uint64_t director_start_over_msecs(const struct director *director)
{
	uint64_t msecs = director->started_msecs + DIRECTOR_START_GRACE_MSECS;

	return director->processes_told_msecs == 0 ? msecs :
		I_MAX(msecs, director->processes_told_msecs +
			     director->set.user_kick_delay_msecs);
}

bool director_start_is_over(const struct director *director,
			    const struct director_time *now)
{
	return director_processes_all_told(director) &&
		now->msecs >= director_start_over_msecs(director);
}

struct dump_processes {
	void (*callback)(void *context, const struct director_record *record);
	void *context;
};

static void dump_process(pid_t pid, struct dump_processes *dump)
{
	struct director_record record;

	process_record(pid, &record);
	dump->callback(dump->context, &record);
}

static void
dump_connected(const struct login_process *process, void *context)
{
	if (process->plugin_seen)
		dump_process(process->pid, context);
}

void director_processes_dump(const struct director *director,
			     void (*callback)(void *context,
					      const struct director_record
					      *record),
			     void *context)
{
	struct dump_processes dump = {
		.callback = callback,
		.context = context,
	};
	pid_t pid;

	array_foreach_elem(&director->earlier_pids, pid)
		dump_process(pid, &dump);
	login_processes_foreach(director->leases, dump_connected, &dump);
}
