/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "str.h"
#include "strescape.h"
#include "ring-message-private.h"

#include <arpa/inet.h>

static void append_num(string_t *dest, uint64_t num)
{
	char buf[MAX_INT_STRLEN];

	str_append(dest, dec2str_buf(buf, num));
}

static void append_changed(string_t *dest, uint64_t changed)
{
	append_num(dest, I_MIN(changed, RING_TIMESTAMP_MAX));
}

static void append_time(string_t *dest, time_t timestamp)
{
	append_num(dest, timestamp < 0 ? 0 :
		   I_MIN((uint64_t)timestamp, RING_TIMESTAMP_MAX));
}

/* inet_ntop() would need longer than all the rest of a line. */
static void append_ip4(string_t *dest, const unsigned char bytes[4])
{
	char text[INET_ADDRSTRLEN], *p = text;

	for (unsigned int i = 0; i < 4; i++) {
		unsigned int num = bytes[i];

		if (num >= 100)
			*p++ = '0' + num / 100;
		if (num >= 10)
			*p++ = '0' + num / 10 % 10;
		*p++ = '0' + num % 10;
		*p++ = '.';
	}
	str_append_data(dest, text, p - 1 - text);
}

static unsigned int ip6_group(const unsigned char bytes[16], unsigned int i)
{
	return i < 8 ? (unsigned int)bytes[i * 2] << 8 | bytes[i * 2 + 1] : 1;
}

/* The first longest row of at least two zero groups, which "::" replaces */
static void ip6_find_zeros(const unsigned char bytes[16],
			   unsigned int *start_r, unsigned int *count_r)
{
	unsigned int count = 0;

	*start_r = 8;
	*count_r = 1;
	for (unsigned int i = 0; i <= 8; i++) {
		if (ip6_group(bytes, i) == 0)
			count++;
		else {
			if (count > *count_r) {
				*start_r = i - count;
				*count_r = count;
			}
			count = 0;
		}
	}
}

static void append_ip6(string_t *dest, const unsigned char bytes[16])
{
	static const char hex[] = "0123456789abcdef";
	char text[INET6_ADDRSTRLEN], *p = text;
	unsigned int zeros, zeros_count;

	ip6_find_zeros(bytes, &zeros, &zeros_count);
	for (unsigned int i = 0; i < 8; i++) {
		unsigned int num = ip6_group(bytes, i);

		if (i == zeros) {
			*p++ = ':';
			i += zeros_count - 1;
			if (i == 7)
				*p++ = ':';
			continue;
		}
		if (i > 0)
			*p++ = ':';
		for (int shift = 12; shift >= 0; shift -= 4) {
			if (shift == 0 || num >> shift != 0)
				*p++ = hex[num >> shift & 15];
		}
	}
	str_append_data(dest, text, p - text);
}

static void append_ip(string_t *dest, const struct ip_addr *ip)
{
	if (ip->family == AF_INET)
		append_ip4(dest, (const void *)&ip->u.ip4);
	else {
		i_assert(ip->family == AF_INET6);
		append_ip6(dest, (const void *)&ip->u.ip6);
	}
}

/* Each argument is escaped, the TABs between them aren't. */
static void append_rest(string_t *dest, const char *text)
{
	const char *p;

	while ((p = strchr(text, '\t')) != NULL) {
		str_append_tabescaped_n(dest, (const void *)text, p - text);
		str_append_c(dest, '\t');
		text = p + 1;
	}
	str_append_tabescaped(dest, text);
}

static bool
append_field(string_t *dest, const struct ring_field *field,
	     const struct ring_message *msg)
{
	const void *src = CONST_PTR_OFFSET(msg, field->offset);
	const char *text;

	switch (field->kind) {
	case KIND_IP:
		append_ip(dest, src);
		break;
	case KIND_PORT:
		append_num(dest, *(const in_port_t *)src);
		break;
	case KIND_UINT32:
	case KIND_HASH:
		append_num(dest, *(const uint32_t *)src);
		break;
	case KIND_UINT64:
		append_num(dest, *(const uint64_t *)src);
		break;
	case KIND_CHANGED:
		append_changed(dest, *(const uint64_t *)src);
		break;
	case KIND_STATE:
		str_append_c(dest, msg->down ? 'D' : 'U');
		/* fall through */
	case KIND_TIME:
		append_time(dest, *(const time_t *)src);
		break;
	case KIND_BOOL:
		str_append_c(dest, *(const bool *)src ? '1' : '0');
		break;
	case KIND_WEAK:
		str_append_c(dest, msg->weak ? 'w' : 'm');
		break;
	case KIND_TAG:
	case KIND_NAME:
		text = ring_field_text(field, msg);
		if (!ring_name_is_valid(text, strlen(text)))
			return FALSE;
		str_append(dest, text);
		break;
	case KIND_TEXT:
		str_append_tabescaped(dest, ring_field_text(field, msg));
		break;
	case KIND_REST:
		append_rest(dest, ring_field_text(field, msg));
		break;
	}
	return TRUE;
}

static bool
append_fields(string_t *dest, const struct ring_row *row,
	      const struct ring_message *msg, unsigned int minor)
{
	const struct ring_field *field;
	bool optional = FALSE;

	for (const enum ring_field_id *f = row->fields; *f != F_END; f++) {
		field = &ring_fields[*f];
		if (*f == F_OPTIONAL) {
			optional = TRUE;
			continue;
		}
		if (*f == F_EXACTLY)
			break;
		if (optional && (minor < field->minor ||
				 ring_field_is_missing(field, msg)))
			break;
		str_append_c(dest, '\t');
		if (!append_field(dest, field, msg))
			return FALSE;
	}
	return TRUE;
}

bool ring_message_append(string_t *dest, const struct ring_message *msg,
			 unsigned int minor)
{
	const struct ring_row *row = &ring_rows[msg->type];
	size_t start = str_len(dest);

	if (minor < row->old_minor)
		str_append_data(dest, row->old_name, row->old_name_size);
	else
		str_append_data(dest, row->name, row->name_size);
	if (!append_fields(dest, row, msg, minor) ||
	    str_len(dest) - start > RING_LINE_MAX) {
		str_truncate(dest, start);
		return FALSE;
	}
	str_append_c(dest, '\n');
	return TRUE;
}
