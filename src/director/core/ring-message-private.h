#ifndef RING_MESSAGE_PRIVATE_H
#define RING_MESSAGE_PRIVATE_H

#include "ring-message.h"

/* What the parser and the writer share: the tables of messages and fields.
   Both walk a message's row. */

#define RING_TIMESTAMP_MAX (1ULL << 53)

enum ring_kind {
	KIND_IP,
	KIND_PORT,
	KIND_UINT32,
	KIND_HASH,
	KIND_UINT64,
	/* since 1970, 0 = not told */
	KIND_CHANGED,
	/* sets has_timestamp */
	KIND_TIME,
	/* U or D with its time; sets has_state */
	KIND_STATE,
	KIND_BOOL,
	/* "w", sets weak */
	KIND_WEAK,
	/* short and printable */
	KIND_NAME,
	/* the same, and not for old peers */
	KIND_TAG,
	KIND_TEXT,
	/* all arguments from here on, separated by TABs */
	KIND_REST,
};

enum ring_field_id {
	F_END,
	/* The ones behind this may be missing, from the end on. */
	F_OPTIONAL,
	/* No further arguments; elsewhere they are ignored. */
	F_EXACTLY,

	F_ORIGIN_IP,
	F_ORIGIN_PORT,
	F_SEQ,
	F_DIRECTOR_IP,
	F_DIRECTOR_PORT,
	F_INSTANCE,
	F_CHANGED,
	F_IP,
	F_VHOSTS,
	F_TAG,
	F_STATE,
	F_HOSTNAME,
	F_HASH,
	F_WEAK,
	F_TIME,
	F_EVEN_CLOCK,
	F_LOST,
	F_USER_TIME,
	F_MAJOR,
	F_MINOR,
	F_HOPS,
	F_COUNT,
	F_COUNT_WANTED,
	F_PLACE,
	F_SERVICE,
	F_SESSION_STATE,
	F_FLAG, F_ISNT_READY, F_TARGET, F_WAVE_IP, F_WAVE_PORT, F_WAVE,
	F_NOWHERE,
	F_KEEP,
	F_HOSTS_HASH,
	F_BUFFERED,
	F_PROTOCOL,
	F_OPTIONS,
	F_USERNAME,
	F_KICK_FIELD,
	F_KICK_VALUE,
	F_REASON,
};

struct ring_field {
	const char *name;
	enum ring_kind kind;
	size_t offset;
	/* An optional field, and all behind it, isn't sent to or read from
	   peers with a lower minor. */
	unsigned int minor;
};

/* When a message may come */
enum ring_when {
	HANDSHAKE = BIT(0),
	/* between HOST-HAND-START and -END */
	HOST_LIST = BIT(1),
	AFTERWARDS = BIT(2),
};
#define ORDINARY (HANDSHAKE | AFTERWARDS)
#define ALWAYS (HANDSHAKE | HOST_LIST | AFTERWARDS)

struct ring_row {
	const char *name;
	size_t name_size;
	unsigned int min_minor;
	enum ring_travel travel;
	enum ring_when when;
	/* ended by F_END */
	enum ring_field_id fields[14];

	/* Peers with a minor lower than this know it as old_name with at least
	   old_args arguments. */
	unsigned int old_minor;
	const char *old_name;
	size_t old_name_size;
	unsigned int old_args;
};

/* by enum ring_field_id */
extern const struct ring_field ring_fields[];
extern const struct ring_row ring_rows[RING_MESSAGE_TYPES];

/* Of a name, a text or the rest; "" if there is none */
const char *ring_field_text(const struct ring_field *field,
			    const struct ring_message *msg);
/* Is this optional field, and all behind it, to be left out? */
bool ring_field_is_missing(const struct ring_field *field,
			   const struct ring_message *msg);
/* May this be a tag or a host name? */
bool ring_name_is_valid(const char *data, size_t size);

#endif
