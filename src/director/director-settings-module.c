/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What config and doveconf find in libdirector_settings.so: the settings and
   the service. (dovecot-2.4-platform.md §1) */

#include "lib.h"
#include "array.h"
#include "settings-parser.h"
#include "service-settings.h"
#include "director-settings.h"

extern const char *director_settings_version;
extern const struct setting_parser_info *director_settings_set_infos[];
extern const struct config_service director_settings_services_array[];

const char *director_settings_version = DOVECOT_ABI_VERSION;

const struct setting_parser_info *director_settings_set_infos[] = {
	&director_setting_parser_info,
	NULL
};

static const struct service_settings director_service_settings = {
	.name = "director",
	.protocol = "",
	.type = "",
	.executable = "director",
	.user = "$SET:default_internal_user",
	.group = "",
	.privileged_group = "",
	.extra_groups = ARRAY_INIT,
	.chroot = "",

	.drop_priv_before_exec = FALSE,

	/* Started at boot and again after a crash, not by the first login */
	.process_min_avail = 1,
	.process_limit = 1,
	/* Each login process needs two: the auth relay and the plugin. In high
	   security mode every session is a login process. */
	.client_limit = 16384,
	.idle_kill_interval = SET_TIME_INFINITE,
	/* 10 million users and a million sessions fit well within */
	.vsz_limit = 2048ULL * 1024 * 1024,

	.unix_listeners = ARRAY_INIT,
	.fifo_listeners = ARRAY_INIT,
	.inet_listeners = ARRAY_INIT,

	.process_limit_1 = TRUE
};

static const struct setting_keyvalue director_service_settings_defaults[] = {
	{ "unix_listener", "login\\sdirector login\\sdirector-proxy "
	  "director-userdb director-admin" },

	{ "unix_listener/login\\sdirector/path", "login/director" },
	{ "unix_listener/login\\sdirector/type", "login" },
	{ "unix_listener/login\\sdirector/mode", "0666" },

	{ "unix_listener/login\\sdirector-proxy/path", "login/director-proxy" },
	{ "unix_listener/login\\sdirector-proxy/type", "proxy" },
	{ "unix_listener/login\\sdirector-proxy/mode", "0666" },

	{ "unix_listener/director-userdb/path", "director-userdb" },
	{ "unix_listener/director-userdb/type", "userdb" },
	{ "unix_listener/director-userdb/mode", "0600" },

	{ "unix_listener/director-admin/path", "director-admin" },
	{ "unix_listener/director-admin/type", "admin" },
	{ "unix_listener/director-admin/mode", "0600" },

	{ "fifo_listener", "login\\sproxy-notify" },
	{ "fifo_listener/login\\sproxy-notify/path", "login/proxy-notify" },
	{ "fifo_listener/login\\sproxy-notify/type", "notify" },
	{ "fifo_listener/login\\sproxy-notify/mode", "0666" },

	{ "inet_listener", "director" },
	{ "inet_listener/director/name", "director" },
	{ "inet_listener/director/type", "ring" },
	{ "inet_listener/director/port", "0" },

	{ NULL, NULL }
};

const struct config_service director_settings_services_array[] = {
	{ &director_service_settings, director_service_settings_defaults },
	{ NULL, NULL }
};
