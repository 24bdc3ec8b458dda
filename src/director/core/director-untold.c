/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Login processes that don't tell of their sessions, having no plugin: whoever
   got an answer through one of them can't be moved safely (design.md, rule 7).
   Which users these are is a flag; it counts as long as such answers are given,
   and director_user_expire after it. */

#include "lib.h"
#include "str.h"
#include "str-sanitize.h"
#include "ring-private.h"

#define DIRECTOR_UNTOLD_REMEDY \
	"(set login_plugins { director_login = yes } for its protocol)"
/* At most one line a minute about logins without plugin */
#define UNTOLD_LOG_MSECS (60*1000)

static void
untold_goes_on(struct director *director, const struct director_time *now)
{
	director->untold_until_msecs = now->msecs +
		director->set.user_expire_secs * 1000ULL;
}

static void
untold_by(struct director *director, const struct login_process *process,
	  const struct director_time *now)
{
	untold_goes_on(director, now);
	director->untold_pid = process->pid;
	director->untold_protocol = process->protocol == NULL ? NULL :
		process->protocol->name;
}

static const char *untold_process(const struct director *director)
{
	string_t *str = t_str_new(64);

	str_printfa(str, "%ld", (long)director->untold_pid);
	if (director->untold_protocol != NULL) {
		str_append(str, " (");
		str_sanitize_append(str, director->untold_protocol,
				    SESSION_PROTOCOL_MAX_LEN);
		str_append_c(str, ')');
	}
	return str_c(str);
}

const char *director_unsafe_reason(const struct director *director)
{
	return t_strdup_printf("login process %s doesn't tell of its sessions "
			       DIRECTOR_UNTOLD_REMEDY,
			       untold_process(director));
}

bool director_user_is_untold(struct director *director, user_idx_t idx,
			     const struct director_time *now)
{
	return now->msecs < director->untold_until_msecs &&
		(user_table_flags(director->users, idx) &
		 USER_FLAG_UNTOLD) != 0;
}

void director_untold_used(struct director *director, user_idx_t idx,
			  bool by_session, const struct director_time *now)
{
	enum user_flags flags = user_table_flags(director->users, idx);

	if ((flags & USER_FLAG_UNTOLD) == 0)
		return;
	if (now->msecs >= director->untold_until_msecs)
		user_table_set_flags(director->users, idx, 0, USER_FLAG_UNTOLD);
	else if (by_session && (flags & USER_FLAG_LEASED) == 0) {
		/* a session is alive, and it isn't one that was told of */
		untold_goes_on(director, now);
	}
}

void director_untold_answer(struct director *director, user_idx_t idx,
			    const struct login_process *process,
			    const struct director_time *now)
{
	user_table_set_flags(director->users, idx, USER_FLAG_UNTOLD, 0);
	untold_by(director, process, now);
}

static void log_unsafe_move(struct director *director, uint32_t hash,
			    const struct director_time *now)
{
	director_log_throttled(director, DIRECTOR_LOG_UNSAFE_MOVE,
		t_strdup_printf("User hash %u is moved, but may have sessions "
				"that nobody can see: login process %s doesn't "
				"tell of its sessions", hash,
				untold_process(director)), now->msecs);
}

void director_untold_move(struct director *director, user_idx_t idx,
			  const struct director_time *now)
{
	if (director_user_is_untold(director, idx, now)) {
		log_unsafe_move(director,
				user_table_hash(director->users, idx), now);
	}
}

void director_untold_kick(struct director *director, const char *name,
			  const struct director_time *now)
{
	if (now->msecs >= director->untold_until_msecs)
		return;
	director_log_throttled(director, DIRECTOR_LOG_UNSAFE_KICK,
		t_strdup_printf("%s: sessions that nobody can see aren't ended: "
				"%s", name, director_unsafe_reason(director)),
		now->msecs);
}

void director_session_untold(const struct session_lease *lease, void *context)
{
	struct director *director = context;
	const struct director_time *now = &director->session_now;
	const struct session_user *user = lease->user;
	user_idx_t idx;

	/* with time 0 nobody is expired */
	idx = user_table_lookup(director->users, user->tag, user->hash, 0);
	if (idx != USER_IDX_NONE) {
		user_table_set_flags(director->users, idx,
				     USER_FLAG_UNTOLD, 0);
	}
	if (!lease->process->plugin_missing)
		return;
	untold_by(director, lease->process, now);
	if (idx != USER_IDX_NONE &&
	    (user_table_flags(director->users, idx) & USER_FLAG_MOVING) != 0)
		log_unsafe_move(director, user->hash, now);
	if (director->untold_logged_msecs != 0 &&
	    now->msecs < director->untold_logged_msecs + UNTOLD_LOG_MSECS)
		return;
	director->untold_logged_msecs = now->msecs;
	DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
		"Login process %s doesn't tell of its sessions: users can't be "
		"moved or kicked safely "DIRECTOR_UNTOLD_REMEDY,
		untold_process(director)));
}
