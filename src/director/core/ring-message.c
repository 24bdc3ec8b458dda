/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "ring-message-private.h"

#include <ctype.h>

#define NAME_MAX_LEN 255

#define MEMBER(name) offsetof(struct ring_message, name)

const struct ring_field ring_fields[] = {
	[F_ORIGIN_IP] = { "origin IP", KIND_IP, MEMBER(origin.ip), 0 },
	[F_ORIGIN_PORT] = { "origin port", KIND_PORT, MEMBER(origin.port), 0 },
	[F_SEQ] = { "sequence number", KIND_UINT32, MEMBER(seq), 0 },
	[F_DIRECTOR_IP] = { "director IP", KIND_IP, MEMBER(director.ip), 0 },
	[F_DIRECTOR_PORT] = { "director port", KIND_PORT,
			      MEMBER(director.port), 0 },
	[F_INSTANCE] = { "instance", KIND_CHANGED, MEMBER(instance),
			 RING_MINOR_OURS },
	[F_CHANGED] = { "time of the change", KIND_CHANGED, MEMBER(changed),
			RING_MINOR_OURS },
	[F_IP] = { "IP", KIND_IP, MEMBER(ip), 0 },
	[F_VHOSTS] = { "vhosts", KIND_UINT32, MEMBER(vhosts), 0 },
	[F_TAG] = { "tag", KIND_TAG, MEMBER(tag), 0 },
	[F_STATE] = { "state", KIND_STATE, MEMBER(timestamp), 0 },
	[F_HOSTNAME] = { "host name", KIND_NAME, MEMBER(hostname), 0 },
	[F_HASH] = { "user hash", KIND_HASH, MEMBER(hash), 0 },
	[F_WEAK] = { "weak flag", KIND_WEAK, MEMBER(weak), 0 },
	[F_TIME] = { "timestamp", KIND_TIME, MEMBER(timestamp), 0 },
	[F_EVEN_CLOCK] = { "clock", KIND_CHANGED, MEMBER(even_clock),
			   RING_MINOR_OURS },
	[F_LOST] = { "time since it was lost", KIND_UINT32, MEMBER(lost_msecs),
		     0 },
	[F_USER_TIME] = { "timestamp", KIND_TIME, MEMBER(timestamp),
			  RING_MINOR_USER_TIMESTAMP },
	[F_MAJOR] = { "major version", KIND_UINT32, MEMBER(major), 0 },
	[F_MINOR] = { "minor version", KIND_UINT32, MEMBER(minor), 0 },
	[F_HOPS] = { "hops", KIND_UINT32, MEMBER(hops), 0 },
	[F_COUNT] = { "number of sessions", KIND_UINT32, MEMBER(count), 0 },
	[F_COUNT_WANTED] = { "count flag", KIND_BOOL, MEMBER(flag),
			     RING_MINOR_OURS },
	[F_PLACE] = { "place", KIND_UINT32, MEMBER(place), 0 },
	[F_SERVICE] = { "service", KIND_NAME, MEMBER(hostname), 0 },
	[F_SESSION_STATE] = { "session state", KIND_NAME, MEMBER(tag), 0 },
	[F_FLAG] = { "flag", KIND_BOOL, MEMBER(flag), 0 },
	[F_ISNT_READY] = { "not ready flag", KIND_BOOL, MEMBER(flag),
			   RING_MINOR_OURS },
	[F_TARGET] = { "IP", KIND_IP, MEMBER(ip), RING_MINOR_OURS },
	[F_WAVE_IP] = { "director IP", KIND_IP, MEMBER(director.ip),
			RING_MINOR_OURS },
	[F_WAVE_PORT] = { "director port", KIND_PORT, MEMBER(director.port),
			  RING_MINOR_OURS },
	[F_WAVE] = { "number of the move", KIND_UINT32, MEMBER(wave),
		     RING_MINOR_OURS },
	[F_NOWHERE] = { "nowhere flag", KIND_BOOL, MEMBER(flag),
			RING_MINOR_OURS },
	[F_KEEP] = { "keep flag", KIND_BOOL, MEMBER(flag), RING_MINOR_OURS },
	[F_HOSTS_HASH] = { "hosts hash", KIND_UINT32, MEMBER(hosts_hash), 0 },
	[F_BUFFERED] = { "buffer size", KIND_UINT64, MEMBER(buffered), 0 },
	[F_PROTOCOL] = { "protocol name", KIND_TEXT, MEMBER(text), 0 },
	[F_OPTIONS] = { "options", KIND_REST, MEMBER(text), 0 },
	[F_USERNAME] = { "user name", KIND_TEXT, MEMBER(text), 0 },
	[F_KICK_FIELD] = { "field", KIND_TEXT, MEMBER(text), 0 },
	[F_KICK_VALUE] = { "value", KIND_TEXT, MEMBER(value), 0 },
	[F_REASON] = { "reason", KIND_TEXT, MEMBER(text), 0 },
};

#define LINK RING_TRAVEL_LINK
#define OWN RING_TRAVEL_OWN
#define ALL RING_TRAVEL_ALL
#define TO RING_TRAVEL_TO
#define ORIGIN F_ORIGIN_IP, F_ORIGIN_PORT, F_SEQ
#define DIRECTOR F_DIRECTOR_IP, F_DIRECTOR_PORT
#define ADDRESSED DIRECTOR, ORIGIN, F_HOPS

#define NAME(name) name, sizeof(name) - 1

const struct ring_row ring_rows[RING_MESSAGE_TYPES] = {
	[RING_VERSION] = { NAME("VERSION"), 0, LINK, HANDSHAKE,
		{ F_PROTOCOL, F_MAJOR, F_MINOR } },
	[RING_ME] = { NAME("ME"), 0, LINK, HANDSHAKE,
		{ DIRECTOR, F_OPTIONAL, F_TIME, F_INSTANCE, F_EVEN_CLOCK,
		  F_CHANGED } },
	[RING_HOST_HAND_START] = { NAME("HOST-HAND-START"), 0, LINK, HANDSHAKE,
		{ F_FLAG } },
	[RING_HAND_HOST] = { NAME("HOST"), 0, LINK, HOST_LIST,
		{ F_IP, F_VHOSTS, F_OPTIONAL, F_TAG, F_STATE, F_HOSTNAME,
		  F_CHANGED } },
	[RING_HOST_HAND_END] = { NAME("HOST-HAND-END"), 0, LINK, HOST_LIST,
		{ F_FLAG } },
	[RING_HAND_USER] = { NAME("U"), 0, LINK, HANDSHAKE,
		{ F_HASH, F_IP, F_TIME, F_OPTIONAL, F_WEAK },
		RING_MINOR_USER_TIMESTAMP, NAME("USER"), 3 },
	[RING_OPTIONS] = { NAME("OPTIONS"), 5, LINK, HANDSHAKE,
		{ F_OPTIONAL, F_OPTIONS } },
	[RING_DONE] = { NAME("DONE"), 0, LINK, HANDSHAKE,
		{ F_OPTIONAL, F_ISNT_READY } },

	[RING_DIRECTOR] = { NAME("DIRECTOR"), 0, OWN, ORDINARY,
		{ DIRECTOR, F_OPTIONAL, F_CHANGED, F_INSTANCE,
		  F_EVEN_CLOCK } },
	[RING_DIRECTOR_REMOVE] = { NAME("DIRECTOR-REMOVE"), 2, OWN, ORDINARY,
		{ DIRECTOR, F_OPTIONAL, F_CHANGED } },
	[RING_DIRECTOR_LOST] = { NAME("DIRECTOR-LOST"), 10, LINK, HANDSHAKE,
		{ DIRECTOR, F_LOST, F_OPTIONAL, F_INSTANCE } },
	[RING_CONNECT] = { NAME("CONNECT"), 0, LINK, ORDINARY,
		{ DIRECTOR, F_EXACTLY } },

	[RING_HOST] = { NAME("HOST"), 0, ALL, ORDINARY,
		{ ORIGIN, F_IP, F_VHOSTS,
		  F_OPTIONAL, F_TAG, F_STATE, F_HOSTNAME, F_CHANGED } },
	[RING_HOST_REMOVE] = { NAME("HOST-REMOVE"), 0, ALL, ORDINARY,
		{ ORIGIN, F_IP, F_OPTIONAL, F_CHANGED, F_KEEP, F_EXACTLY } },
	[RING_HOST_FLUSH] = { NAME("HOST-FLUSH"), 0, ALL, ORDINARY,
		{ ORIGIN, F_IP, F_EXACTLY } },

	[RING_USER] = { NAME("USER"), 0, OWN, ORDINARY,
		{ F_HASH, F_IP, F_OPTIONAL, F_USER_TIME, F_INSTANCE } },
	[RING_USER_WEAK] = { NAME("USER-WEAK"), 1, OWN, ORDINARY,
		{ ORIGIN, F_HASH, F_IP, F_EXACTLY } },
	[RING_USER_MOVE] = { NAME("USER-MOVE"), 0, ALL, ORDINARY,
		{ ORIGIN, F_HASH, F_IP, F_OPTIONAL, F_WAVE, F_NOWHERE,
		  F_EXACTLY } },
	[RING_USER_KICK] = { NAME("USER-KICK"), 4, ALL, ORDINARY,
		{ ORIGIN, F_USERNAME, F_OPTIONAL, F_COUNT_WANTED,
		  F_EXACTLY } },
	[RING_USER_KICK_ALT] = { NAME("USER-KICK-ALT"), 8, ALL, ORDINARY,
		{ ORIGIN, F_KICK_FIELD, F_KICK_VALUE, F_OPTIONAL,
		  F_COUNT_WANTED, F_EXACTLY } },
	[RING_USER_KICK_HASH] = { NAME("USER-KICK-HASH"), 4, ALL, ORDINARY,
		{ ORIGIN, F_HASH, F_IP, F_EXACTLY } },
	[RING_USER_COUNT] = { NAME("USER-COUNT"), 10, ALL, ORDINARY,
		{ ORIGIN, F_HASH, F_IP, F_EXACTLY } },
	[RING_USER_KICKED] = { NAME("USER-KICKED"), 10, TO, ORDINARY,
		{ ADDRESSED, F_COUNT } },
	[RING_USER_KILLED] = { NAME("USER-KILLED"), 0, OWN, ORDINARY,
		{ F_HASH, F_OPTIONAL, F_TARGET, F_WAVE_IP, F_WAVE_PORT, F_WAVE,
		  F_NOWHERE, F_EXACTLY } },
	[RING_USER_KILLED_EVERYWHERE] = {
		NAME("USER-KILLED-EVERYWHERE"), 0, ALL, ORDINARY,
		{ ORIGIN, F_HASH, F_OPTIONAL, F_TARGET, F_WAVE, F_NOWHERE,
		  F_EXACTLY } },

	[RING_SESSIONS] = { NAME("SESSIONS"), 10, TO, ORDINARY,
		{ ADDRESSED, F_PLACE, F_OPTIONAL, F_USERNAME } },
	[RING_SESSION] = { NAME("SESSION"), 10, TO, ORDINARY,
		{ ADDRESSED, F_HASH, F_IP, F_TIME, F_SERVICE, F_SESSION_STATE,
		  F_USERNAME } },
	[RING_SESSIONS_END] = { NAME("SESSIONS-END"), 10, TO, ORDINARY,
		{ ADDRESSED, F_PLACE, F_COUNT } },

	[RING_SYNC] = { NAME("SYNC"), 0, OWN, ORDINARY,
		{ ORIGIN, F_OPTIONAL, F_MINOR, F_TIME, F_HOSTS_HASH,
		  F_INSTANCE } },
	[RING_PING] = { NAME("PING"), 0, LINK, ORDINARY,
		{ F_OPTIONAL, F_TIME, F_BUFFERED } },
	[RING_PONG] = { NAME("PONG"), 0, LINK, ORDINARY,
		{ F_OPTIONAL, F_TIME, F_BUFFERED } },
	[RING_QUIT] = { NAME("QUIT"), 3, LINK, ALWAYS,
		{ F_OPTIONAL, F_REASON } },
};

const char *ring_message_name(enum ring_message_type type)
{
	return ring_rows[type].name;
}

unsigned int ring_message_min_minor(enum ring_message_type type)
{
	return ring_rows[type].min_minor;
}

enum ring_travel ring_message_travel(enum ring_message_type type)
{
	return ring_rows[type].travel;
}

const char *ring_field_text(const struct ring_field *field,
			    const struct ring_message *msg)
{
	const char *const *text = CONST_PTR_OFFSET(msg, field->offset);

	return *text == NULL ? "" : *text;
}

bool ring_field_is_missing(const struct ring_field *field,
			   const struct ring_message *msg)
{
	const void *src = CONST_PTR_OFFSET(msg, field->offset);

	switch (field->kind) {
	case KIND_IP:
		return ((const struct ip_addr *)src)->family == 0;
	case KIND_UINT32:
		return *(const uint32_t *)src == 0;
	case KIND_CHANGED:
		return *(const uint64_t *)src == 0;
	case KIND_TIME:
		return !msg->has_timestamp;
	case KIND_STATE:
		return !msg->has_state;
	case KIND_BOOL:
		return !*(const bool *)src;
	case KIND_WEAK:
		return !msg->weak && !msg->moving;
	case KIND_TEXT:
	case KIND_REST:
		return ring_field_text(field, msg)[0] == '\0';
	default:
		return FALSE;
	}
}

bool ring_name_is_valid(const char *data, size_t size)
{
	if (size > NAME_MAX_LEN)
		return FALSE;
	for (size_t i = 0; i < size; i++) {
		if (i_iscntrl(data[i]))
			return FALSE;
	}
	return TRUE;
}

unsigned int ring_address_hash(const struct ring_address *address)
{
	return (net_ip_hash(&address->ip) * 31 + address->port) * 2654435761U >>
		16;
}

int ring_address_cmp(const struct ring_address *a1,
		     const struct ring_address *a2)
{
	int ret = net_ip_cmp(&a1->ip, &a2->ip);

	if (ret == 0)
		ret = (int)a1->port - (int)a2->port;
	return ret < 0 ? -1 : (ret > 0 ? 1 : 0);
}

const char *ring_address_str(const struct ring_address *address)
{
	return net_ipport2str(&address->ip, address->port);
}
