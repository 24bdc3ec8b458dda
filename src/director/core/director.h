#ifndef DIRECTOR_H
#define DIRECTOR_H

#include "backend.h"
#include "user-table.h"
#include "session-lease.h"
#include "director-sessions.h"
#include "ring.h"

/* Ties the core together: events in, actions out. No I/O and no clock: all
   functions are given the time; what is to be done outside is told through
   struct director_vfuncs and through results. */

struct director;
struct username_hash;

struct director_time {
	/* Monotonic milliseconds (CLOCK_MONOTONIC of this host) */
	uint64_t msecs;
	/* Seconds since 1970; goes on evenly from the start of the process */
	time_t wall;
	/* The machine's clock, what those of 2.3 see; may jump */
	time_t clock;
};

/* How long a lookup waits at most (assignment.md §5) */
#define DIRECTOR_LOOKUP_TIMEOUT_MSECS 30000
/* After the start, login processes announce their sessions within this
   (design.md, rule 4) */
#define DIRECTOR_START_GRACE_MSECS 3000

struct director_core_settings {
	/* 2.4 form; has been checked */
	const char *username_hash;
	const char *master_user_separator;
	unsigned int user_expire_secs;
	/* Random, different for every process start in the cluster */
	uint64_t instance;
	struct ring_settings ring;
	/* director_user_kick_delay: so long a backend needs to finish */
	unsigned int user_kick_delay_msecs;
	/* director_lost_grace: a director that is gone may have sessions that
	   nobody sees. So long no move ends, unless it comes back (design.md,
	   rule 5). */
	unsigned int lost_grace_msecs;
	/* director_max_parallel_moves: of a flush */
	unsigned int max_parallel_moves;
	/* director_max_parallel_kicks; 0: the default */
	unsigned int max_parallel_kicks;
	/* Random, told to nobody: the tables of what comes from outside are
	   hashed with it */
	uint64_t hash_key;
};

/* What has to be known again after a restart (design.md "What hashing can
   compute is not saved"). */
enum director_record_type {
	/* ip, tag, hostname: director_mail_servers named it */
	DIRECTOR_RECORD_CONFIG,
	/* ip, tag, hostname, vhosts, down, timestamp (of the last up/down
	   change): the backend as it is now */
	DIRECTOR_RECORD_HOST,
	/* ip, keep: removed */
	DIRECTOR_RECORD_HOST_REMOVE,
	/* ip: all its users are forgotten */
	DIRECTOR_RECORD_HOST_FLUSH,
	/* hash, ip, timestamp (last use): a user who isn't where hashing puts
	   him */
	DIRECTOR_RECORD_USER,
	/* hash, tag: that user is gone */
	DIRECTOR_RECORD_USER_FORGET,
	/* pid: the plugin of that login process was connected */
	DIRECTOR_RECORD_PROCESS,
};

struct director_record {
	enum director_record_type type;
	struct ip_addr ip;
	/* NULL if none */
	const char *hostname;
	/* "" if none */
	const char *tag;
	uint32_t hash;
	unsigned int vhosts;
	bool down;
	/* The sessions on it stay. */
	bool keep;
	pid_t pid;
	time_t timestamp;
};

/* One lookup; the caller's memory. It must stay, and username and tag with it,
   until the lookup is done or aborted. */
struct director_lookup {
	/* -- given -- */
	/* Name to hash (destuser or user), not cut at the separator */
	const char *username;
	/* "" for none */
	const char *tag;
	/* Whose login it is; NULL if no lease is wanted (LMTP, doveadm) */
	struct login_process *process;

	/* -- result -- */
	/* Where to. Valid only until the next call of the core. */
	const struct backend *backend;
	uint32_t hash;
	/* A lease was issued: its token, and the monotonic msecs after which
	   the login process may not act on the answer any more */
	bool leased;
	struct session_token token;
	uint64_t lease_deadline;
	/* Why it failed, for the log; on the data stack */
	const char *error;

	/* -- the core's own -- */
	struct director_lookup *prev, *next;
	uint64_t queued_msecs;
	/* When the agreement about a weak user was (last) begun for it */
	uint64_t weak_msecs;
	/* When his sessions on the backend before had ended; 0 = they haven't */
	uint64_t left_msecs;
	const char *wait_reason;
};

/* A user's sessions are gone from old_ip, and new_ip is to get the next ones
   (assignment.md §8). */
struct director_flush_hook {
	/* For director_flush_hook_ended() */
	unsigned int id;
	uint32_t hash;
	struct ip_addr old_ip, new_ip;
	/* As the old one was when the move began */
	bool old_down;
	unsigned int old_vhosts;
};

struct director_vfuncs {
	/* Keep this record: when it returns, the record will be found again
	   after a crash of the process. Must not call the core. */
	void (*record)(void *context, const struct director_record *record);
	/* Must not call the core. */
	void (*log)(void *context, enum log_type type, const char *text);
	/* A waiting lookup was answered (TRUE) or has failed. Called from
	   director_run() only. May call director_lookup() and
	   director_lookup_abort() and free lookups. */
	void (*lookup_done)(void *context, struct director_lookup *lookup,
			    bool success);
	/* director_change_is_recorded() may have turned TRUE. Called from
	   director_run() only. */
	void (*changes_recorded)(void *context);
	/* The ring has become synced. Called from any function of the ring. Must
	   not call the core. May be NULL. */
	void (*ring_synced)(void *context);

	/* Tell the plugin to end its sessions of the hash, except those to that
	   backend (may be NULL). reason: for the login process' log. Must not
	   call the core. May be NULL. */
	void (*kick)(void *context, struct session_plugin *plugin,
		     uint32_t hash, const struct ip_addr *except,
		     const char *reason);

	/* Tell the plugin to end its sessions on that backend. Must not call the
	   core. May be NULL. */
	void (*kick_backend)(void *context, struct session_plugin *plugin,
			     const struct ip_addr *ip, const char *reason);

	/* Have what is outside get ready for the user's change of backend
	   (director_flush_socket), and call director_flush_hook_ended().
	   Returns FALSE if there is nothing to be done. Must not call the core.
	   May be NULL. */
	bool (*flush_hook)(void *context,
			   const struct director_flush_hook *hook);

	/* Is the login process with that pid, which was there so long ago,
	   still there? Must not call the core. May be NULL: it isn't. */
	bool (*process_lives)(void *context, pid_t pid, uint64_t msecs);

	struct director_session_vfuncs sessions;
	struct ring_vfuncs ring;
};

struct director *
director_init(const struct director_core_settings *set,
	      const struct director_vfuncs *vfuncs, void *context,
	      const struct director_time *now);
/* All lookups have to be aborted and all login processes unreferenced. */
void director_deinit(struct director **director);

struct backends *director_backends(struct director *director);
struct user_table *director_users(struct director *director);
struct session_leases *director_leases(struct director *director);

/* -- Start: first what was recorded, in that order, then the setting -- */

/* Nothing of this is recorded again. */
void director_restore(struct director *director,
		      const struct director_record *record,
		      const struct director_time *now);
/* A user who was known before, on this backend. Who is known already stays as
   he is. */
void director_restore_user(struct director *director, uint32_t hash,
			   const struct backend *backend, time_t timestamp,
			   const struct director_time *now);
/* Applies what is different between the director_mail_servers that were
   recorded and configured (in its order; DIRECTOR_RECORD_CONFIG's fields).
   Differences are logged, and recorded as a whole by director_dump().
   all_restored: all users who were known before are known again; if they
   aren't, or backends are removed, users whom the difference moves wait for the
   start grace, so that their sessions can be announced. */
void director_configure(struct director *director,
			const struct director_record *configured,
			unsigned int count, bool all_restored,
			const struct director_time *now);

/* Gives all records that describe the present, in slices: *pos starts at 0,
   at most max_steps places in the user table a call. Returns TRUE if there is
   more. What is given to the vfunc record() meanwhile, also by this call
   itself, belongs to them. */
bool director_dump(struct director *director, uint32_t *pos,
		   unsigned int max_steps, const struct director_time *now,
		   void (*callback)(void *context,
				    const struct director_record *record),
		   void *context);

/* -- Lookups (assignment.md §5) -- */

/* Returns 1 if answered, 0 if it waits (until lookup_done(), at most
   DIRECTOR_LOOKUP_TIMEOUT_MSECS), -1 if it failed. */
int director_lookup(struct director *director, struct director_lookup *lookup,
		    const struct director_time *now);
void director_lookup_abort(struct director *director,
			   struct director_lookup *lookup);
unsigned int director_lookups_waiting(const struct director *director);

/* The hash of a user name as lookups compute it. Returns 0 or -1. */
int director_user_hash(struct director *director, const char *username,
		       uint32_t *hash_r, const char **error_r);
/* A session of username is alive (proxy-notify): refreshes the users. */
void director_refresh(struct director *director, const char *username,
		      const struct director_time *now);

/* -- Sessions, as the login plugins tell them -- */

/* PROCESS: the login process with that pid has a plugin, which has connected.
   It is recorded, so that the next director process waits for it. Not called if
   the pid isn't known to be right. */
void director_process_connected(struct director *director, pid_t pid);
/* START: returns the lease, or NULL and error_r if it can't be. */
struct session_lease *
director_session_start(struct director *director,
		       struct session_plugin *plugin,
		       const struct session_token *token, uint32_t hash,
		       const struct ip_addr *ip, time_t since,
		       const struct director_time *now, const char **error_r);

/* UP. redirected: NULL, or the backend that the session is to instead of the
   one that it was started for. */
void director_session_up(struct director *director,
			 struct session_lease *lease,
			 const struct ip_addr *redirected,
			 const struct director_time *now);
/* END, or it can't be any more */
void director_session_end(struct director *director,
			  struct session_lease **lease,
			  const struct director_time *now);
/* ANNOUNCED by this connection: what its process had before and didn't tell now
   is over: director_run() ends it. */
void director_sessions_announced(struct director *director,
				 const struct session_plugin *plugin,
				 const struct director_time *now);

/* -- Backends. by: prefix of the log lines, e.g. "doveadm: " -- */

enum director_host_result {
	DIRECTOR_HOST_OK,
	DIRECTOR_HOST_NOTFOUND,
	DIRECTOR_HOST_TAG_CHANGED,
	/* too many dead slots at the moment */
	DIRECTOR_HOST_BUSY,
	/* director_unsafe_reason() */
	DIRECTOR_HOST_UNSAFE,
};

/* Adds the backend, or changes the vhosts of the one that is there (vhosts
   UINT_MAX: default when added, else as it is). tag NULL: any. */
enum director_host_result
director_host_set(struct director *director, const struct ip_addr *ip,
		  const char *tag, unsigned int vhosts, bool may_add,
		  const char *by, const struct director_time *now);
enum director_host_result
director_host_set_down(struct director *director, const struct ip_addr *ip,
		       bool down, const char *by,
		       const struct director_time *now);
/* The sessions on it are ended, here and by all directors of ours, unless
   keep_sessions. */
enum director_host_result
director_host_remove(struct director *director, const struct ip_addr *ip,
		     bool keep_sessions, const char *by,
		     const struct director_time *now);
/* Forgets the users of the backend, NULL: of all. */
enum director_host_result
director_host_flush(struct director *director, const struct ip_addr *ip,
		    const char *by, const struct director_time *now);

/* The last change of a backend has this number; it is recorded for good (with
   all users whom it left where hashing doesn't put them any more) when
   director_change_is_recorded(). */
unsigned int director_last_change(const struct director *director);
bool director_change_is_recorded(const struct director *director,
				 unsigned int change);

/* Where the setting alone would put the hash; NULL if nowhere. */
const struct backend *
director_initial_backend(struct director *director, const char *tag,
			 uint32_t hash);
/* The setting's own list, as backends */
struct backends *director_initial_backends(struct director *director);

/* -- Moves (assignment.md §6); kicks are in director-sessions.h -- */

/* Moves the user, in the tag of the backend, to it: NOTFOUND if there is none,
   BUSY if he is being moved, UNSAFE if he may have sessions that no login process
   tells of. The whole ring is told; lookups of him wait until
   his sessions are gone everywhere. */
enum director_host_result
director_user_move(struct director *director, uint32_t hash,
		   const struct ip_addr *ip, const char *by,
		   const struct director_time *now);
/* Names the login process and what to do; on the data stack */
const char *director_unsafe_reason(const struct director *director);
/* The hook for this user has done its work, or failed. */
void director_flush_hook_ended(struct director *director, uint32_t hash,
			       unsigned int id, const struct director_time *now);
/* Users who are being moved, and held here */
unsigned int director_users_moving(const struct director *director);
/* Those of them who have or may have sessions here still; takes time for each
   who is being moved. */
unsigned int director_users_kicking(const struct director *director);

/* -- Flushes (assignment.md §9) -- */

struct user_flush;

struct user_flush_status {
	/* Users that the backends had when it began, and how many of them (or
	   of who came since) were looked at */
	unsigned int users, seen;
	/* Of these: moved, being moved, and those that couldn't be begun to be
	   moved. The others are where hashing puts them. */
	unsigned int moved, waiting, failed;
	/* Backends whose users are flushed */
	unsigned int backends;
	unsigned int elapsed_msecs;
	/* All moves were begun; all have ended, too. */
	bool begun, ended;
};

/* Moves the users of the backend (ip NULL: of all) who aren't where hashing puts
   them now, at most max_parallel (0: the default) at a time. If there is no
   backend for a user his sessions are ended, and he is forgotten. NULL if the
   backend isn't known.

   callback, called from director_run() and everything that ends moves, says that
   begun or ended has become TRUE. It must not call the core. It may be NULL. */
struct user_flush *
director_flush_users(struct director *director, const struct ip_addr *ip,
		     unsigned int max_parallel, const char *by,
		     void (*callback)(void *context), void *context,
		     const struct director_time *now);
/* The caller doesn't need it any more: it isn't called back. stop: no more moves
   are begun. */
void director_flush_unref(struct user_flush **flush, bool stop);
void director_flush_status(const struct user_flush *flush,
			   struct user_flush_status *status_r,
			   const struct director_time *now);

/* -- Time -- */

/* Does what is due, a slice of it. Returns TRUE if it is to be called again
   without waiting (after other work had its turn). */
bool director_run(struct director *director, const struct director_time *now);
/* Monotonic msecs when director_run() has to be called next; 0 = never. */
uint64_t director_next_deadline(struct director *director,
				const struct director_time *now);

#endif
