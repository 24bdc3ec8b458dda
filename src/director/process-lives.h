#ifndef PROCESS_LIVES_H
#define PROCESS_LIVES_H

/* Whether a process of before is still there, and not another one with its
   pid. */

/* Seconds since the machine was started, also those that it slept */
time_t process_clock(void);
/* Different each time that the machine is started; "" if it isn't known. Lives
   as long as this process. */
const char *process_boot_id(void);
/* Returns 1 if there is a process with this pid that had started by then
   (process_clock()) and hasn't ended, 0 if there is none, -1 if there is one, but
   /proc doesn't tell since when. */
int process_lives(pid_t pid, time_t started_by);

#endif
