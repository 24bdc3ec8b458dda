#ifndef FLUSH_HOOK_H
#define FLUSH_HOOK_H

/* director_flush_socket: a program, or the service behind a socket, that gets a
   user's old backend ready for his sessions on the new one (spec:
   assignment.md §8). It is given FLUSH, the user hash, the IPs of the old and of
   the new backend, up or down (the old one), and the old one's vhosts. */

struct director_settings;
struct director_flush_hook;
struct event;

/* All of them have to end within this. */
#define FLUSH_HOOK_TIMEOUT_MSECS (30*1000)

/* set and event stay until flush_hooks_deinit(). */
void flush_hooks_init(const struct director_settings *set, struct event *event);
/* Those that run are ended. */
void flush_hooks_deinit(void);

/* Runs it, or queues it if director_max_parallel_moves of them run.
   director_flush_hook_ended() is called later in any case. Returns FALSE if
   there is none. Failures are logged. */
bool flush_hook_run(const struct director_flush_hook *hook);

/* Checks the setting. Returns -1 and error_r. Part of director-settings.c. */
int flush_hook_check(const char *value, const char **error_r);
/* The setting with the new backend in it, on the data stack. hostname: "" if it
   has none. Returns -1 and error_r. */
int flush_hook_expand(const char *value, const char *ip, const char *hostname,
		      const char **expanded_r, const char **error_r);

#endif
