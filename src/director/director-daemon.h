#ifndef DIRECTOR_DAEMON_H
#define DIRECTOR_DAEMON_H

#include "core/director.h"
#include "journal.h"

/* What the adapters share: the core, its clock, its timer. */

struct director_settings;
struct master_service_connection;

/* Between two slices of work that nobody waits for by the millisecond */
#define DIRECTOR_SLICE_PAUSE_MSECS 1

struct director_daemon {
	const struct director_settings *set;
	struct event *event;
	struct director *core;
	struct journal *journal;
	/* The journal's folder, -1 if it couldn't be opened */
	int dir_fd;

	struct timeout *to, *to_title;
	/* Lookups since the process title was updated */
	unsigned int lookups;
	/* When "to" fires; UINT64_MAX if it isn't set */
	uint64_t timer_msecs;
	/* The machine's clock minus the monotonic one, at the start: the
	   core's wall clock goes on evenly even if the machine's is set. */
	int64_t wall_offset_msecs;
	/* process_clock() at the start */
	time_t started_clock;
};

extern struct director_daemon director_daemon;

/* What time the core is given. */
struct director_time director_daemon_now(void);
/* A time of the core <-> the machine's clock */
time_t director_daemon_to_wall(time_t core_time);
time_t director_daemon_from_wall(time_t wall_time);

/* Reads the journal, applies the setting. Called as soon as privileges are
   dropped; journal_dir is given by director_daemon_open_dir(). Returns FALSE if
   superseded; then this process has to end. */
bool director_daemon_init(const struct director_settings *set,
			  struct event *event, int journal_dir_fd,
			  journal_superseded_t *superseded);
/* Creates the folder of the journal as root, for the user whom the process
   will be. Returns its fd, or -1 (logged). */
int director_daemon_open_dir(const char *base_dir);
void director_daemon_deinit(void);

/* To be called after everything that told the core of an event. */
void director_daemon_schedule(void);
/* What was recorded is written. To be called before anything that rests on it
   is answered. */
void director_daemon_commit(void);

#endif
