/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "ioloop.h"
#include "time-util.h"
#include "str.h"
#include "process-title.h"
#include "randgen.h"
#include "restrict-access.h"
#include "settings-parser.h"
#include "master-service.h"
#include "master-service-settings.h"
#include "admin-connection.h"
#include "admin-sessions.h"
#include "auth-relay.h"
#include "director-settings.h"
#include "flush-hook.h"
#include "journal.h"
#include "login-registry.h"
#include "process-lives.h"
#include "ring-connection.h"
#include "server-list.h"
#include "user-snapshot.h"
#include "director-daemon.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>

#define JOURNAL_DIR "director"
#define JOURNAL_LOCK_WAIT_SECS 5
/* A slice of writing the journal takes so long, and looks at so many users
   between two looks at the clock. Lookups wait for it twice. */
#define JOURNAL_SLICE_NSECS (200*1000)
#define JOURNAL_SLICE_STEPS 64

/* A process of before of which /proc doesn't tell when it started counts so
   long. */
#define PROCESS_UNSURE_SECS 15

struct director_daemon director_daemon;

static int64_t clock_msecs(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		i_fatal("clock_gettime() failed: %m");
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

struct director_time director_daemon_now(void)
{
	struct director_time now;

	now.msecs = clock_msecs(CLOCK_MONOTONIC);
	now.wall = (now.msecs + director_daemon.wall_offset_msecs) / 1000;
	now.clock = time(NULL);
	return now;
}

/* Seconds by which the machine's clock was set since we started; 0 if it goes
   on evenly. */
static time_t clock_drift(void)
{
	int64_t msecs = clock_msecs(CLOCK_REALTIME) -
		clock_msecs(CLOCK_MONOTONIC) -
		director_daemon.wall_offset_msecs;

	return (msecs + (msecs < 0 ? -500 : 500)) / 1000;
}

time_t director_daemon_to_wall(time_t core_time)
{
	return core_time == 0 ? 0 : core_time + clock_drift();
}

time_t director_daemon_from_wall(time_t wall_time)
{
	return wall_time == 0 ? 0 : wall_time - clock_drift();
}

/* Those of backends are of the machine's clock already, and those of processes
   count since its start. */
static void record_to_wall(struct director_record *record)
{
	if (record->type == DIRECTOR_RECORD_PROCESS) {
		/* it is there now */
		record->timestamp = process_clock();
		record->tag = process_boot_id();
	}
	if (record->type == DIRECTOR_RECORD_USER) {
		record->timestamp =
			director_daemon_to_wall(record->timestamp);
	}
}

static void daemon_record(void *context ATTR_UNUSED,
			  const struct director_record *record)
{
	struct director_record wall_record = *record;

	record_to_wall(&wall_record);
	journal_record(director_daemon.journal, &wall_record);
}

static void daemon_log(void *context ATTR_UNUSED, enum log_type type,
		       const char *text)
{
	struct event *event = director_daemon.event;

	switch (type) {
	case LOG_TYPE_DEBUG:
		e_debug(event, "%s", text);
		break;
	case LOG_TYPE_INFO:
		e_info(event, "%s", text);
		break;
	case LOG_TYPE_WARNING:
		e_warning(event, "%s", text);
		break;
	default:
		e_error(event, "%s", text);
		break;
	}
}

static void
daemon_lookup_done(void *context ATTR_UNUSED, struct director_lookup *lookup,
		   bool success)
{
	director_daemon_commit();
	auth_relay_lookup_done(lookup, success);
}

static void daemon_changes_recorded(void *context ATTR_UNUSED)
{
	director_daemon_commit();
	admin_connections_changes_recorded();
}

static bool daemon_process_is_there(pid_t pid, time_t started_by)
{
	int ret = process_lives(pid, started_by);

	/* it may be another one: not for ever */
	return ret > 0 || (ret < 0 && process_clock() <
		director_daemon.started_clock + PROCESS_UNSURE_SECS);
}

static bool daemon_process_lives(void *context ATTR_UNUSED, pid_t pid,
				 uint64_t msecs)
{
	bool lives;

	T_BEGIN {
		lives = daemon_process_is_there(pid,
			process_clock() - (time_t)(msecs / 1000));
	} T_END;
	return lives;
}

static void daemon_ring_synced(void *context ATTR_UNUSED)
{
	admin_connections_ring_synced();
}

static void
daemon_kick(void *context ATTR_UNUSED, struct session_plugin *plugin,
	    uint32_t hash, const struct ip_addr *except, const char *reason)
{
	login_registry_kick(plugin, hash, except, reason);
}

static void
daemon_kick_backend(void *context ATTR_UNUSED, struct session_plugin *plugin,
		    const struct ip_addr *ip, const char *reason)
{
	login_registry_kick_backend(plugin, ip, reason);
}

static bool
daemon_flush_hook(void *context ATTR_UNUSED,
		  const struct director_flush_hook *hook)
{
	return flush_hook_run(hook);
}

static bool
daemon_kick_session(void *context ATTR_UNUSED, struct session_plugin *plugin,
		    const struct session_token *token, const char *reason)
{
	return login_registry_kick_session(plugin, token, reason);
}

static const struct director_vfuncs daemon_vfuncs = {
	.sessions = {
		.kick = daemon_kick_session,
		.kicked = admin_sessions_kicked,
		.row = admin_sessions_row,
		.end = admin_sessions_end,
	},
	.flush_hook = daemon_flush_hook,
	.kick = daemon_kick,
	.kick_backend = daemon_kick_backend,
	.record = daemon_record,
	.log = daemon_log,
	.lookup_done = daemon_lookup_done,
	.changes_recorded = daemon_changes_recorded,
	.ring_synced = daemon_ring_synced,
	.process_lives = daemon_process_lives,
};

struct dump_context {
	journal_callback_t *callback;
	void *context;
};

static void dump_record(void *context, const struct director_record *record)
{
	struct dump_context *ctx = context;
	struct director_record wall_record = *record;

	record_to_wall(&wall_record);
	ctx->callback(ctx->context, &wall_record);
}

static bool daemon_dump(uint32_t *pos, journal_callback_t *callback,
			void *context)
{
	struct dump_context ctx = { .callback = callback, .context = context };
	struct director_time now = director_daemon_now();
	uint64_t start = i_nanoseconds();
	bool more;

	do {
		more = director_dump(director_daemon.core, pos,
				     JOURNAL_SLICE_STEPS, &now, dump_record,
				     &ctx);
	} while (more && i_nanoseconds() - start < JOURNAL_SLICE_NSECS);
	return more;
}

struct restore_context {
	ARRAY(struct director_record) records;
	pool_t pool;
	time_t alive_until;
	unsigned int hosts, users;
};

static void restore_record(void *context, const struct director_record *record)
{
	struct restore_context *ctx = context;
	struct director_time now = director_daemon_now();
	struct director_record core_record = *record;

	if (record->type == DIRECTOR_RECORD_PROCESS &&
	    (strcmp(record->tag, process_boot_id()) != 0 ||
	     !daemon_process_is_there(record->pid, record->timestamp)))
		return;
	/* The user may have been seen until the end: refreshes aren't
	   recorded. */
	if (record->type == DIRECTOR_RECORD_USER &&
	    core_record.timestamp < ctx->alive_until)
		core_record.timestamp = ctx->alive_until;
	if (record->type == DIRECTOR_RECORD_USER) {
		core_record.timestamp =
			director_daemon_from_wall(core_record.timestamp);
	}
	director_restore(director_daemon.core, &core_record, &now);
}

static void daemon_configure(bool all_restored)
{
	const struct director_settings *set = director_daemon.set;
	struct director_time now = director_daemon_now();
	ARRAY_TYPE(server_list_backend) list;
	ARRAY_TYPE(const_string) warnings;
	const struct server_list_backend *backend;
	struct director_record *record;
	ARRAY(struct director_record) records;
	const char *error, *warning;
	pool_t pool = pool_alloconly_create("director_mail_servers", 1024);

	if (server_list_parse_backends(
			settings_boollist_get(&set->director_mail_servers),
			pool, &list, &warnings, &error) < 0)
		i_fatal("Invalid value for director_mail_servers setting: %s",
			error);
	array_foreach_elem(&warnings, warning)
		e_warning(director_daemon.event, "%s", warning);

	t_array_init(&records, array_count(&list));
	array_foreach(&list, backend) {
		record = array_append_space(&records);
		record->type = DIRECTOR_RECORD_CONFIG;
		record->ip = backend->ip;
		record->hostname = backend->hostname;
		record->tag = backend->tag;
	}
	director_configure(director_daemon.core,
			   array_count(&records) == 0 ? NULL :
			   array_front(&records), array_count(&records),
			   all_restored, &now);
	pool_unref(&pool);
}

static void daemon_warn(const struct director_settings *set)
{
	struct event *event = director_daemon.event;
	unsigned int count;

	if (!set->director_consistent_hashing) {
		e_warning(event, "director_consistent_hashing = no is "
			  "obsolete: hashing is always consistent");
	}
	(void)backends_sorted(director_backends(director_daemon.core), &count);
	if (count == 0) {
		e_warning(event, "There are no backends: set "
			  "director_mail_servers or use doveadm director add");
	}
}

/* The format is the original's. */
static void daemon_update_title(void *context ATTR_UNUSED)
{
	struct director *core = director_daemon.core;
	unsigned int waiting = director_lookups_waiting(core);
	unsigned int moving = director_users_moving(core);
	unsigned int kicking = director_users_kicking(core);
	unsigned int users = ring_users_received(director_ring(core));
	static unsigned int last_users;
	static uint64_t last_in, last_out;
	string_t *str = t_str_new(64);
	uint64_t in, out;

	str_printfa(str, "[%u users",
		    user_table_count(director_users(core)));
	if (waiting > 0)
		str_printfa(str, ", %u delayed", waiting);
	if (moving > 0)
		str_printfa(str, ", %u moving", moving);
	if (kicking > 0)
		str_printfa(str, ", %u kicking", kicking);
	ring_connections_get_bytes(&in, &out);
	str_printfa(str, ", %u+%u req/s, %"PRIu64"+%"PRIu64" kB/s]",
		    director_daemon.lookups, users - last_users,
		    (in - last_in) / 1024, (out - last_out) / 1024);
	process_title_set(str_c(str));
	director_daemon.lookups = 0;
	last_users = users;
	last_in = in;
	last_out = out;
}

int director_daemon_open_dir(const char *base_dir)
{
	const char *path = t_strconcat(base_dir, "/"JOURNAL_DIR, NULL);
	struct restrict_access_settings set;
	int fd;

	restrict_access_get_env(&set);
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		i_error("mkdir(%s) failed: %m", path);
		return -1;
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1) {
		i_error("open(%s) failed: %m", path);
		return -1;
	}
	if (geteuid() == 0 && set.uid != (uid_t)-1 &&
	    (fchown(fd, set.uid, set.gid) < 0 || fchmod(fd, 0700) < 0))
		i_error("chown(%s) failed: %m", path);
	return fd;
}

/* Whose ring this is, and which of them we are */
static void
daemon_ring_settings(const struct director_settings *set, pool_t pool,
		     struct ring_settings *ring_r)
{
	struct ip_addr ip;
	const char *error;

	i_zero(ring_r);
	ring_r->members = server_list_parse_directors(
		settings_boollist_get(&set->director_servers),
		ring_listener_port(&ip), pool, &ring_r->members_count, &error);
	if (ring_r->members == NULL)
		i_fatal("Invalid value for director_servers setting: %s",
			error);
	if (ring_find_self(ring_r->members, ring_r->members_count,
			   &ring_r->self, &error) < 0)
		i_fatal("%s", error);
	ring_r->ping_idle_msecs = set->director_ping_idle_timeout * 1000;
	ring_r->ping_max_msecs = set->director_ping_max_timeout * 1000;
	ring_r->started = clock_msecs(CLOCK_REALTIME);
}

bool director_daemon_init(const struct director_settings *set,
			  struct event *event, int journal_dir_fd,
			  journal_superseded_t *superseded)
{
	struct director_daemon *daemon = &director_daemon;
	struct restore_context ctx = { .hosts = 0 };
	struct director_core_settings core_set = {
		.username_hash = set->director_username_hash,
		.master_user_separator = set->auth_master_user_separator,
		.user_expire_secs = set->director_user_expire,
		.user_kick_delay_msecs =
			set->director_user_kick_delay * 1000,
		.lost_grace_msecs = director_settings_lost_grace_msecs(set),
		.max_parallel_kicks = set->director_max_parallel_kicks,
		.max_parallel_moves = set->director_max_parallel_moves,
	};
	struct director_vfuncs vfuncs = daemon_vfuncs;
	struct director_time now;
	bool all_restored;
	pool_t pool;

	vfuncs.ring = ring_connection_vfuncs;
	random_fill(&core_set.instance, sizeof(core_set.instance));
	pool = pool_alloconly_create("director_servers", 1024);
	daemon_ring_settings(set, pool, &core_set.ring);
	random_fill(&core_set.hash_key, sizeof(core_set.hash_key));
	daemon->set = set;
	daemon->event = event;
	daemon->started_clock = process_clock();
	daemon->dir_fd = journal_dir_fd;
	daemon->timer_msecs = UINT64_MAX;
	daemon->wall_offset_msecs = clock_msecs(CLOCK_REALTIME) -
		clock_msecs(CLOCK_MONOTONIC);

	/* The wait for the one before us is not part of the start grace. */
	daemon->journal = journal_init(event, journal_dir_fd,
				       JOURNAL_LOCK_WAIT_SECS, daemon_dump,
				       superseded);
	if (daemon->journal == NULL) {
		pool_unref(&pool);
		return FALSE;
	}
	now = director_daemon_now();
	daemon->core = director_init(&core_set, &vfuncs, daemon, &now);
	pool_unref(&pool);
	journal_read(daemon->journal, restore_record, &ctx, &ctx.alive_until);
	all_restored = journal_dir_fd != -1 &&
		user_snapshot_read(daemon->core, journal_dir_fd,
				   journal_read_generation(daemon->journal),
				   event);
	T_BEGIN {
		daemon_configure(all_restored);
	} T_END;
	journal_start(daemon->journal);
	daemon_warn(set);
	if (master_service_get_service_settings(master_service)->
	    verbose_proctitle) {
		daemon->to_title = timeout_add(1000, daemon_update_title,
					       (void *)NULL);
	}
	director_daemon_schedule();
	return TRUE;
}

void director_daemon_deinit(void)
{
	timeout_remove(&director_daemon.to);
	timeout_remove(&director_daemon.to_title);
	if (director_daemon.dir_fd != -1) {
		user_snapshot_write(director_daemon.core,
				    director_daemon.dir_fd,
				    journal_generation(director_daemon.journal),
				    director_daemon.event);
	}
	/* closes the folder and releases the lock */
	journal_deinit(&director_daemon.journal);
	director_deinit(&director_daemon.core);
}

void director_daemon_commit(void)
{
	journal_commit(director_daemon.journal);
}

static void daemon_timer(void *context ATTR_UNUSED)
{
	struct director_time now = director_daemon_now();
	bool more;

	timeout_remove(&director_daemon.to);
	director_daemon.timer_msecs = UINT64_MAX;
	more = director_run(director_daemon.core, &now);
	director_daemon_commit();
	if (more) {
		/* Logins have their turn, and other processes theirs: whoever
		   uses all of his CPU waits longer for it when it matters. */
		timeout_remove(&director_daemon.to);
		director_daemon.timer_msecs = 0;
		director_daemon.to = timeout_add_short(
			DIRECTOR_SLICE_PAUSE_MSECS, daemon_timer,
			(void *)NULL);
	} else {
		director_daemon_schedule();
	}
}

void director_daemon_schedule(void)
{
	struct director_time now = director_daemon_now();
	uint64_t deadline = director_next_deadline(director_daemon.core, &now);
	uint64_t wait;

	if (deadline == 0 || deadline >= director_daemon.timer_msecs)
		return;
	wait = deadline <= now.msecs ? 0 : deadline - now.msecs;
	timeout_remove(&director_daemon.to);
	director_daemon.timer_msecs = deadline;
	director_daemon.to = timeout_add_short(I_MIN(wait, 60*60*1000),
					       daemon_timer, (void *)NULL);
}
