#ifndef TEST_RESTORE_H
#define TEST_RESTORE_H

/* Records for a director that starts */

#include "test-director.h"

static inline void restore(struct director_record record)
{
	if (record.tag == NULL)
		record.tag = "";
	director_restore(director, &record, &now);
}

#define RESTORE(_type, ...) \
	restore((struct director_record) \
		{ .type = DIRECTOR_RECORD_##_type, __VA_ARGS__ })

static inline struct backend *get(const char *ip)
{
	return backend_lookup(director_backends(director), ip_of(ip));
}

static inline void restore_host(const char *ip, const char *tag)
{
	RESTORE(HOST, .ip = *ip_of(ip), .tag = tag, .vhosts = 100);
}

static inline void restore_config(const char *ip, const char *tag)
{
	RESTORE(CONFIG, .ip = *ip_of(ip), .tag = tag);
}

static inline void
restore_user_at(const char *name, const char *ip, time_t timestamp)
{
	RESTORE(USER, .hash = test_hash(name), .ip = *ip_of(ip),
		.timestamp = timestamp);
}

static inline void restore_user(const char *name, const char *ip)
{
	restore_user_at(name, ip, now.wall);
}

/* Where the user is known to be, "none" if he isn't */
static inline const char *known(const char *name, const char *tag)
{
	user_idx_t idx = test_user(name, tag);

	return idx == USER_IDX_NONE ? "none" : net_ip2addr(
		&backend_by_slot(director_backends(director),
			user_table_slot(director_users(director), idx))->ip);
}

#endif
