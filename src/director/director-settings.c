/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "settings.h"
#include "settings-parser.h"
#include "service-settings.h"
#include "core/username-hash.h"
#include "flush-hook.h"
#include "server-list.h"
#include "director-settings.h"

#include <sysexits.h>

static bool director_settings_check(void *_set, pool_t pool,
				    const char **error_r);

#undef DEF
#define DEF(type, name) \
	SETTING_DEFINE_STRUCT_##type(#name, name, struct director_settings)

static const struct setting_define director_setting_defines[] = {
	DEF(BOOLLIST, director_servers),
	DEF(BOOLLIST, director_mail_servers),
	DEF(STR_NOVARS, director_username_hash),
	DEF(STR_NOVARS, director_flush_socket),
	DEF(TIME, director_user_expire),
	DEF(TIME, director_user_kick_delay),
	DEF(TIME, director_lost_grace),
	DEF(UINT, director_max_parallel_moves),
	DEF(UINT, director_max_parallel_kicks),
	DEF(SIZE, director_output_buffer_size),
	DEF(TIME, director_ping_idle_timeout),
	DEF(TIME, director_ping_max_timeout),
	DEF(BOOL, director_consistent_hashing),
	DEF(STR, auth_master_user_separator),

	SETTING_DEFINE_LIST_END
};

static const struct director_settings director_default_settings = {
	.director_servers = ARRAY_INIT,
	.director_mail_servers = ARRAY_INIT,
	.director_username_hash = USERNAME_HASH_DEFAULT_FORMAT,
	.director_flush_socket = "",
	.director_user_expire = 60*15,
	.director_user_kick_delay = 2,
	.director_lost_grace = 15,
	.director_max_parallel_moves = 100,
	.director_max_parallel_kicks = 100,
	.director_output_buffer_size = 10 * 1024 * 1024,
	.director_ping_idle_timeout = 30,
	.director_ping_max_timeout = 60,
	.director_consistent_hashing = TRUE,
	.auth_master_user_separator = "",
};

const struct setting_parser_info director_setting_parser_info = {
	.name = "director",

	.defines = director_setting_defines,
	.defaults = &director_default_settings,

	.struct_size = sizeof(struct director_settings),
	.pool_offset1 = 1 + offsetof(struct director_settings, pool),
	.check_func = director_settings_check,
};

/* <settings checks> */
/* As it would be written in the configuration */
static const char *value_str(unsigned int value, bool is_time)
{
	static const struct {
		unsigned int secs;
		const char *name;
	} units[] = {
		{ 60*60*24, "days" }, { 60*60, "hours" }, { 60, "mins" },
	};
	unsigned int i;

	if (value == UINT_MAX)
		return is_time ? SET_VALUE_INFINITE : SET_VALUE_UNLIMITED;
	if (!is_time)
		return dec2str(value);
	for (i = 0; i < N_ELEMENTS(units); i++) {
		if (value > 0 && value % units[i].secs == 0) {
			return t_strdup_printf("%u %s", value / units[i].secs,
					       units[i].name);
		}
	}
	return t_strdup_printf("%u secs", value);
}

static bool
check_range(const char *name, unsigned int value, unsigned int min,
	    unsigned int max, bool is_time, const char **error_r)
{
	if (value >= min && value <= max)
		return TRUE;
	*error_r = t_strdup_printf("%s = %s: must be between %s and %s",
				   name, value_str(value, is_time),
				   value_str(min, is_time),
				   value_str(max, is_time));
	return FALSE;
}

static bool
director_settings_check(void *_set, pool_t pool ATTR_UNUSED,
			const char **error_r)
{
	struct director_settings *set = _set;
	struct username_hash *hash;
	const char *const *entry, *error;

	hash = username_hash_init(set->director_username_hash, &error);
	if (hash == NULL) {
		*error_r = t_strdup_printf("director_username_hash = %s: %s",
					   set->director_username_hash, error);
		return FALSE;
	}
	username_hash_deinit(&hash);
	if (flush_hook_check(set->director_flush_socket, &error) < 0) {
		*error_r = t_strdup_printf("director_flush_socket = %s: %s",
					   set->director_flush_socket, error);
		return FALSE;
	}

	for (entry = settings_boollist_get(&set->director_servers);
	     *entry != NULL; entry++) {
		if (server_list_check_director(*entry, &error) < 0) {
			*error_r = t_strdup_printf(
				"director_servers: %s: %s", *entry, error);
			return FALSE;
		}
	}
	for (entry = settings_boollist_get(&set->director_mail_servers);
	     *entry != NULL; entry++) {
		if (server_list_check_backend(*entry, &error) < 0) {
			*error_r = t_strdup_printf(
				"director_mail_servers: %s: %s", *entry, error);
			return FALSE;
		}
	}

	if (set->director_output_buffer_size < DIRECTOR_OUTPUT_BUFFER_MIN_SIZE) {
		*error_r = t_strdup_printf(
			"director_output_buffer_size = %"PRIuUOFF_T
			": must be at least %u k",
			set->director_output_buffer_size,
			DIRECTOR_OUTPUT_BUFFER_MIN_SIZE / 1024);
		return FALSE;
	}

	/* Whatever exceeds these is a unit that was forgotten or mistaken */
	return check_range("director_user_expire", set->director_user_expire,
			   DIRECTOR_USER_EXPIRE_MIN_SECS,
			   DIRECTOR_USER_EXPIRE_MAX_SECS, TRUE, error_r) &&
		check_range("director_user_kick_delay",
			    set->director_user_kick_delay, 0, 60*60, TRUE,
			    error_r) &&
		check_range("director_lost_grace", set->director_lost_grace,
			    5, 60*60, TRUE, error_r) &&
		check_range("director_max_parallel_moves",
			    set->director_max_parallel_moves, 1, 1000000, FALSE,
			    error_r) &&
		check_range("director_max_parallel_kicks",
			    set->director_max_parallel_kicks, 1, 1000000, FALSE,
			    error_r) &&
		check_range("director_ping_idle_timeout",
			    set->director_ping_idle_timeout, 1, 60*60, TRUE,
			    error_r) &&
		check_range("director_ping_max_timeout",
			    set->director_ping_max_timeout, 1, 60*60, TRUE,
			    error_r);
}
/* </settings checks> */

/* To notice that a director is gone, and to end sessions */
#define GRACE_MARGIN_SECS 1
#define PLUGIN_GRACE_MIN_SECS 4

unsigned int
director_settings_lost_grace_msecs(const struct director_settings *set)
{
	return I_MAX(set->director_lost_grace,
		     set->director_user_kick_delay + GRACE_MARGIN_SECS +
		     PLUGIN_GRACE_MIN_SECS) * 1000;
}

unsigned int
director_settings_plugin_grace_msecs(const struct director_settings *set)
{
	return director_settings_lost_grace_msecs(set) -
		(set->director_user_kick_delay + GRACE_MARGIN_SECS) * 1000;
}
