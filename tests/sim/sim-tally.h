#ifndef SIM_TALLY_H
#define SIM_TALLY_H

/* Why a user may be on two backends */
enum sim_excuse {
	/* Somebody's directors can't reach each other, or couldn't until a
	   moment ago. */
	SIM_EXCUSE_PARTITION,
	/* Not all can reach all, so that no ring can be made */
	SIM_EXCUSE_PARTIAL,
	/* One of them was removed from the ring */
	SIM_EXCUSE_REMOVED,
	/* The director that let him in died or hung */
	SIM_EXCUSE_CRASH,
	SIM_EXCUSE_HUNG,
	/* Its director started again while the login process was stopped. */
	SIM_EXCUSE_UNSEEN,
	/* An administrator made the directors forget him */
	SIM_EXCUSE_FORGOTTEN,
	/* One of these let him in to two, and that session still lives */
	SIM_EXCUSE_AFTERWARDS,

	SIM_EXCUSES,
	SIM_NO_EXCUSE = SIM_EXCUSES
};

enum sim_log_kind {
	SIM_LOG_TWO_HOSTS,
	SIM_LOG_HOSTS_DIFFER,
	SIM_LOG_SYNC_LOST,
	SIM_LOG_PROTOCOL,
	SIM_LOG_ALONE,
	SIM_LOG_CONNECTING,
	SIM_LOG_KINDS
};

/* Summed up over seeds; no pointers (it is in shared memory). */
struct sim_tally {
	uint64_t seeds, failures;
	uint64_t virtual_usecs, events, lines;
	uint64_t lookups, admissions, waited, timeouts, unanswered;
	uint64_t sessions, announced, too_late;
	/* Trouble that really was made */
	uint64_t nemesis[32];
	uint64_t excuses[SIM_EXCUSES];
	/* A user came to another backend although he was still remembered:
	   legal only if all agreed */
	uint64_t early_moves;
	uint64_t logs[SIM_LOG_KINDS];
	/* Until all agreed */
	uint64_t settled_usecs, settled_max_usecs, settled_max_seed;
	uint64_t wait_max_usecs, wait_max_seed;
	uint64_t peers_max, queued_max, queued_max_seed;
};

void sim_tally_add(struct sim_tally *dest, const struct sim_tally *src);
void sim_tally_print(const struct sim_tally *tally);
void sim_tally_log(struct sim_tally *tally, const char *line);

#endif
