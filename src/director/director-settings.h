#ifndef DIRECTOR_SETTINGS_H
#define DIRECTOR_SETTINGS_H

/* The director_* settings (spec: settings.md §1). Shared by the daemon and by
   the settings module that config and doveconf load. */

struct director_settings {
	pool_t pool;

	ARRAY_TYPE(const_string) director_servers;
	ARRAY_TYPE(const_string) director_mail_servers;
	const char *director_username_hash;
	const char *director_flush_socket;
	unsigned int director_user_expire;
	unsigned int director_user_kick_delay;
	unsigned int director_lost_grace;
	unsigned int director_max_parallel_moves;
	unsigned int director_max_parallel_kicks;
	uoff_t director_output_buffer_size;
	unsigned int director_ping_idle_timeout;
	unsigned int director_ping_max_timeout;
	bool director_consistent_hashing;

	/* Dovecot's own setting, defined there with the same type */
	const char *auth_master_user_separator;
};

#define DIRECTOR_USER_EXPIRE_MIN_SECS 10
#define DIRECTOR_USER_EXPIRE_MAX_SECS (60*60*24*365)
/* A handshake fills half of it (RING_HANDSHAKE_QUEUE_SIZE) */
#define DIRECTOR_OUTPUT_BUFFER_MIN_SIZE (256*1024)

extern const struct setting_parser_info director_setting_parser_info;

/* How long a director that was lost is waited for: director_lost_grace, but at
   least so long that login processes without it can notice, end their sessions,
   and backends finish before it is over. */
unsigned int
director_settings_lost_grace_msecs(const struct director_settings *set);
/* After this a login process without director ends its sessions. */
unsigned int
director_settings_plugin_grace_msecs(const struct director_settings *set);

#endif
