#ifndef DIRECTOR_PRIVATE_H
#define DIRECTOR_PRIVATE_H

#include "array.h"
#include "director.h"
#include "log-throttle.h"
#include "user-flush.h"
#include "user-kick.h"
#include "user-move.h"

/* Lines that are throttled */
enum director_log_kind {
	DIRECTOR_LOG_KICK,
	DIRECTOR_LOG_SESSION_ELSEWHERE,
	DIRECTOR_LOG_SESSION_NOWHERE,
	DIRECTOR_LOG_SESSION_REDIRECTED,
	DIRECTOR_LOG_UNSAFE_MOVE,
	DIRECTOR_LOG_UNSAFE_KICK,

	DIRECTOR_LOG_COUNT
};

struct director {
	struct director_core_settings set;
	struct director_vfuncs v;
	void *context;
	struct log_throttle log_throttles[DIRECTOR_LOG_COUNT];

	struct username_hash *username_hash;
	struct backends *backends;
	/* As the setting has it: all up, default vhosts */
	struct backends *initial;
	/* During the start grace, if the setting has changed: the backends as
	   they were before. Else NULL. */
	struct backends *previous;
	/* Some of these were removed, and with them who was moved there. */
	bool forgot_users;
	struct user_table *users;
	struct session_leases *leases;
	struct user_moves *moves;
	struct user_flushes *flushes;
	struct user_kicks *kicking;
	struct session_queries *session_queries;
	/* Number of director_kick_sessions() and director_run_strays() */
	unsigned int kicks;
	/* How often a plugin was told of one */
	unsigned int kicks_told;
	struct ring *ring;
	/* The time of the event that changes leases or refreshes users */
	struct director_time session_now;

	uint64_t started_msecs;
	/* Lookups that wait, oldest first */
	struct director_lookup *waiting_head, *waiting_tail;
	unsigned int waiting_count;
	/* The next one to try again; NULL if there is no reason to try */
	struct director_lookup *retry;

	/* Walk that records users whom a change left where hashing doesn't put
	   them any more */
	unsigned int last_change, recorded_change;
	/* The last change when the walk began: later ones need another lap */
	unsigned int walk_change;
	uint32_t walk_pos;
	bool walking;

	/* The ring's users have replaced ours: those who have sessions here are
	   put among them. */
	bool adopting;
	unsigned int adopt_pos;

	/* Backends that were removed; see director-stray.c. strays: sessions are
	   looked for that are to none, from strays_pos on. */
	ARRAY(struct director_stray_host) stray_hosts;
	bool strays;
	unsigned int strays_pos, strays_kick;

	/* Login processes that were there before us and haven't told of their
	   sessions; when they are looked for again, those before processes_pos
	   next; logged already; when the last one had told, or was gone */
	ARRAY(pid_t) earlier_pids;
	uint64_t processes_look_msecs;
	unsigned int processes_pos;
	bool processes_logged;
	uint64_t processes_told_msecs;

	/* Login processes without plugin: the last one that is known (its
	   protocol is NULL if that isn't); until when the users' flags count;
	   when it was logged */
	pid_t untold_pid;
	const char *untold_protocol;
	uint64_t untold_until_msecs;
	uint64_t untold_logged_msecs;
	/* When lookups that wait for weak users, or for sessions to end, are
	   tried again; 0 = none does */
	uint64_t weak_retry_msecs;
	/* Since when lookups wait because the ring isn't ready; 0 = none does.
	   Logged already */
	uint64_t ring_delay_msecs;
	bool ring_delay_logged;
};

#define DIRECTOR_LOG(director, type, text) \
	(director)->v.log((director)->context, type, text)
/* A line of this kind, unless one was logged within this second. */
void director_log_throttled(struct director *director,
			    enum director_log_kind kind, const char *text,
			    uint64_t now_msecs);
/* Logs how many weren't, when it is time. */
void director_log_run(struct director *director, uint64_t now_msecs);
uint64_t director_log_next_deadline(const struct director *director);

/* Callback of the leases: the user's first session came, or the last one
   went. */
void director_session_ended(const char *tag, uint32_t hash,
			    const struct ip_addr *ip, void *context);
void director_session_changed(const char *tag, uint32_t hash, bool leased,
			      void *context);
/* Callback of the leases */
bool director_session_process_lives(const struct login_process *process,
				    void *context);
/* Forgets leases whose time has come. Returns TRUE if there is more. */
bool director_run_sessions(struct director *director,
			   const struct director_time *now,
			   unsigned int max_steps);

/* -- director-stray.c -- */

void director_strays_init(struct director *director);
void director_strays_deinit(struct director *director);
/* keep: its sessions stay. by: who did it */
void director_host_is_removed(struct director *director,
			      const struct ip_addr *ip, bool keep,
			      const char *by);
void director_host_is_added(struct director *director,
			    const struct ip_addr *ip);
/* It was removed, and its sessions are to stay. */
bool director_keeps_sessions(const struct director *director,
			     const struct ip_addr *ip);
/* There may be sessions on what isn't a backend. */
void director_look_for_strays(struct director *director);
/* This one is. */
void director_stray_started(struct director *director,
			    const struct session_lease *lease,
			    const struct director_time *now);
/* Returns TRUE if there is more to do. */
bool director_run_strays(struct director *director,
			 const struct director_time *now);
/* Monotonic msecs; 0 = never */
uint64_t director_strays_next_deadline(const struct director *director);
void director_strays_dump(const struct director *director,
			  void (*callback)(void *context,
					   const struct director_record *record),
			  void *context);

/* -- director-processes.c -- */

void director_processes_init(struct director *director);
void director_processes_deinit(struct director *director);
/* It was there before us, unless it is gone. */
void director_process_restore(struct director *director, pid_t pid);
bool director_process_lives(struct director *director, pid_t pid,
			    uint64_t msecs);
void director_process_announced(struct director *director, pid_t pid,
				const struct director_time *now);
static inline bool
director_processes_all_told(const struct director *director)
{
	return array_count(&director->earlier_pids) == 0;
}
/* For whom is waited; on the data stack */
const char *director_processes_reason(const struct director *director);
/* Everything that is alive has told of its sessions, or has had its time
   (design.md, rule 4), and those that ended before they could be told have had
   the kick delay. */
bool director_start_is_over(const struct director *director,
			    const struct director_time *now);
/* When it is, if no more processes have to tell */
uint64_t director_start_over_msecs(const struct director *director);
void director_run_processes(struct director *director,
			    const struct director_time *now);
/* Monotonic msecs; 0 = never */
uint64_t director_processes_next_deadline(const struct director *director);
void director_processes_dump(const struct director *director,
			     void (*callback)(void *context,
					      const struct director_record
					      *record),
			     void *context);

/* -- director-untold.c -- */

/* An answer went to a login process that has no plugin. */
void director_untold_answer(struct director *director, user_idx_t idx,
			    const struct login_process *process,
			    const struct director_time *now);
/* Callback of the leases */
void director_session_untold(const struct session_lease *lease, void *context);
/* The user is used. by_session: by one that is alive */
void director_untold_used(struct director *director, user_idx_t idx,
			  bool by_session, const struct director_time *now);
/* May he have sessions that no login process tells of? Then he can't be moved
   safely: director_unsafe_reason(). */
bool director_user_is_untold(struct director *director, user_idx_t idx,
			     const struct director_time *now);
/* He is moved nevertheless: logs that. */
void director_untold_move(struct director *director, user_idx_t idx,
			  const struct director_time *now);
/* Somebody was kicked: if he may have sessions that weren't ended, logs that.
   name: who, as at the beginning of a line */
void director_untold_kick(struct director *director, const char *name,
			  const struct director_time *now);

/* Returns FALSE if hashing puts the user where he is. */
bool director_user_record(struct director *director, user_idx_t idx,
			  struct director_record *record_r);
/* Records the user if he isn't where hashing puts him and isn't recorded.
   Returns TRUE if he was. */
bool director_record_user(struct director *director, user_idx_t idx);
/* The record of him doesn't hold any more. */
void director_record_user_forget(struct director *director, user_idx_t idx);
/* The backends have changed: waiting lookups are tried again, users are
   walked. */
void director_backends_changed(struct director *director);
/* A slice of the walk. Returns TRUE if there is more. */
bool director_walk(struct director *director, const struct director_time *now,
		   unsigned int max_steps);
void director_host_record(const struct backend *backend,
			  struct director_record *record_r);

/* Has all login processes end the user's sessions that aren't to the backend
   except (may be NULL). tag NULL: in every tag. reason: who wants it and why,
   for the logs. Returns how many there are. */
unsigned int
director_kick_sessions(struct director *director, const char *tag,
		       uint32_t hash, const struct ip_addr *except,
		       const char *reason, const struct director_time *now);
/* "doveadm: " -> "doveadm" */
const char *director_log_who(const char *by);
/* "director 10.0.0.1:9090" */
const char *director_who(const struct ring_address *address);
/* How many sessions has he that aren't to the backend except, in its tag? */
unsigned int director_count_sessions(struct director *director, uint32_t hash,
				     const struct ip_addr *except);
/* Has the user sessions, or may get them from answers that are out, that aren't
   to the backend except (may be NULL)? */
bool director_has_sessions(struct director *director, const char *tag,
			   uint32_t hash, const struct ip_addr *except);

/* -- director-lookup.c -- */

/* That lookups wait for the ring is logged after this. */
#define RING_DELAY_LOG_MSECS 2000
/* Logs once that they wait for it. */
void director_run_delay(struct director *director,
			const struct director_time *now);
/* Fails those that waited for too long, and tries again those that may be
   answered now: a slice of them. Return TRUE if there are more. */
bool director_run_timeouts(struct director *director,
			   const struct director_time *now);
bool director_run_retries(struct director *director,
			  const struct director_time *now);

/* -- For the ring -- */

/* Adds the backend or makes it what the message says. NULL if it can't be
   added. by: prefix for the log, without ": " */
struct backend *
director_host_take(struct director *director, const struct ring_message *msg,
		   const char *by);
/* Removes it with its users, because the ring says so; its sessions are ended,
   unless keep. */
void director_host_drop(struct director *director, struct backend *backend,
			bool keep, const char *by,
			const struct director_time *now);
void director_host_forget_users(struct director *director,
				struct backend *backend, const char *by,
				const struct director_time *now);
/* Removes it silently: another ring's list takes its place. */
void director_host_forget(struct director *director, struct backend *backend);
/* The user, or USER_IDX_NONE. Who is being moved is always there, unless his new
   backend isn't. */
user_idx_t
director_user_find(struct director *director, const char *tag, uint32_t hash,
		   const struct director_time *now);
/* Adds a user who isn't there. USER_IDX_NONE if the table is full. */
user_idx_t
director_user_add(struct director *director, const char *tag, uint32_t hash,
		  uint16_t slot, time_t timestamp,
		  const struct director_time *now);
/* The user's backend is another one than before: keeps his record right. */
void director_user_placed(struct director *director, user_idx_t idx);
/* Lookups of some user may not have to wait any more. */
void director_user_changed(struct director *director);
/* All directors have seen that the user is near expiry, and none objected. */
void director_user_agreed(struct director *director, const char *tag,
			  uint32_t hash, const struct director_time *now);
void director_ring_synced(struct director *director,
			  const struct director_time *now);
/* Where he has a session here; NULL if he has none, or on a backend that isn't
   known. */
struct backend *
director_session_backend(struct director *director, const char *tag,
			 uint32_t hash);
/* Another ring's users have taken the place of ours. */
void director_users_replaced(struct director *director);
/* Returns TRUE if there is more to do. */
bool director_run_adopt(struct director *director,
			const struct director_time *now);
/* A user whom we have here is used now. */
void director_user_used(struct director *director, user_idx_t idx,
			const struct director_time *now);

/* Sets director->ring. */
struct ring *ring_init(struct director *director,
		       const struct ring_settings *set,
		       const struct director_time *now);
void ring_deinit(struct ring **ring);
void ring_run(struct ring *ring, const struct director_time *now);
uint64_t ring_next_deadline(const struct ring *ring);

#endif
