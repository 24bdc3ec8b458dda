/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "str.h"
#include "str-sanitize.h"
#include "strescape.h"
#include "ring-message-private.h"

#include <arpa/inet.h>

#define ERROR_VALUE_MAX_LEN 80
/* [IPv6] */
#define IP_TEXT_MAX (INET6_ADDRSTRLEN + 2)

struct parser {
	unsigned int peer_minor;
	/* Of the next field; NULL if there is none */
	const char *next;
	/* This field, unescaped. Not ended by a NUL, but may contain some. */
	const char *data;
	size_t size;
};

static bool parser_next(struct parser *parser)
{
	const char *p = parser->next;
	bool escaped = FALSE;
	string_t *str;

	if (p == NULL)
		return FALSE;
	for (; *p != '\t' && *p != '\0'; p++) {
		if (*p == '\001')
			escaped = TRUE;
	}
	parser->data = parser->next;
	parser->size = p - parser->data;
	parser->next = *p == '\0' ? NULL : p + 1;
	if (escaped) {
		str = t_str_new(parser->size);
		str_append_tabunescaped(str, parser->data, parser->size);
		parser->data = str_c(str);
		parser->size = str_len(str);
	}
	return TRUE;
}

/* For error texts */
static const char *parser_field_str(const struct parser *parser)
{
	return str_sanitize(t_strdup_until(parser->data,
					   parser->data + parser->size),
			    ERROR_VALUE_MAX_LEN);
}

static int
parse_num(const char *data, size_t size, uint64_t max, uint64_t *num_r)
{
	uint64_t num = 0;

	if (size == 0)
		return -1;
	for (size_t i = 0; i < size; i++) {
		unsigned int digit = (unsigned char)data[i] - '0';

		/* 19 digits always fit */
		if (digit > 9 ||
		    (i >= 19 && num > (UINT64_MAX - digit) / 10))
			return -1;
		num = num * 10 + digit;
	}
	if (num > max)
		return -1;
	*num_r = num;
	return 0;
}

static int parse_ip4(const char *data, size_t size, struct ip_addr *ip_r)
{
	unsigned int num = 0, digits = 0, count = 0;
	unsigned char bytes[4];

	for (size_t i = 0; i <= size; i++) {
		unsigned int digit;

		if (i == size || data[i] == '.') {
			if (digits == 0 || count == N_ELEMENTS(bytes))
				return -1;
			bytes[count++] = num;
			num = digits = 0;
			continue;
		}
		digit = (unsigned char)data[i] - '0';
		num = num * 10 + digit;
		/* without leading zeros: others take those for octal */
		if (digit > 9 || num > 255 || (digits > 0 && num < 10))
			return -1;
		digits++;
	}
	if (count < N_ELEMENTS(bytes))
		return -1;
	ip_r->family = AF_INET;
	memcpy(&ip_r->u.ip4, bytes, sizeof(bytes));
	return 0;
}

static int parse_ip(const char *data, size_t size, struct ip_addr *ip_r)
{
	char text[IP_TEXT_MAX];

	if (memchr(data, ':', size) == NULL)
		return parse_ip4(data, size, ip_r);
	if (size >= sizeof(text) || memchr(data, '\0', size) != NULL)
		return -1;
	memcpy(text, data, size);
	text[size] = '\0';
	ip_r->family = AF_INET6;
	data = text;
	if (text[0] == '[' && text[size - 1] == ']') {
		text[size - 1] = '\0';
		data++;
	}
	return inet_pton(AF_INET6, data, &ip_r->u.ip6) == 1 ? 0 : -1;
}

static int parse_text(const char *data, size_t size, const char **text_r)
{
	if (memchr(data, '\0', size) != NULL)
		return -1;
	if (size > 0)
		*text_r = t_strdup_until(data, data + size);
	return 0;
}

static int parse_rest(struct parser *parser, const char **text_r)
{
	string_t *str = t_str_new(128);

	for (;;) {
		str_append_data(str, parser->data, parser->size);
		if (!parser_next(parser))
			break;
		str_append_c(str, '\t');
	}
	return parse_text(str_c(str), str_len(str), text_r);
}

static int parse_field(struct parser *parser, const struct ring_field *field,
		       struct ring_message *msg)
{
	const char *data = parser->data;
	size_t size = parser->size;
	void *dest = PTR_OFFSET(msg, field->offset);
	uint64_t num;

	switch (field->kind) {
	case KIND_IP:
		return parse_ip(data, size, dest);
	case KIND_PORT:
		if (parse_num(data, size, UINT16_MAX, &num) < 0 || num == 0)
			return -1;
		*(in_port_t *)dest = num;
		return 0;
	case KIND_UINT32:
	case KIND_HASH:
		if (parse_num(data, size, UINT32_MAX, &num) < 0 ||
		    (num == 0 && field->kind == KIND_HASH))
			return -1;
		*(uint32_t *)dest = num;
		return 0;
	case KIND_UINT64:
		return parse_num(data, size, UINT64_MAX, dest);
	case KIND_CHANGED:
		return parse_num(data, size, RING_TIMESTAMP_MAX, dest);
	case KIND_STATE:
		if (size == 0 || (data[0] != 'U' && data[0] != 'D'))
			return -1;
		msg->has_state = TRUE;
		msg->down = data[0] == 'D';
		if (parse_num(data + 1, size - 1, RING_TIMESTAMP_MAX, &num) < 0)
			return -1;
		*(time_t *)dest = num;
		return 0;
	case KIND_TIME:
		if (parse_num(data, size, RING_TIMESTAMP_MAX, &num) < 0)
			return -1;
		msg->has_timestamp = TRUE;
		*(time_t *)dest = num;
		return 0;
	case KIND_BOOL:
		if (parse_num(data, size, 1, &num) < 0)
			return -1;
		*(bool *)dest = num != 0;
		return 0;
	case KIND_WEAK:
		msg->weak = size > 0 && data[0] == 'w';
		msg->moving = size > 0 && data[0] == 'm' &&
			parser->peer_minor >= RING_MINOR_OURS;
		return 0;
	case KIND_TAG:
		if (size > 0 && parser->peer_minor < RING_MINOR_MIN)
			return -1;
		/* fall through */
	case KIND_NAME:
		if (!ring_name_is_valid(data, size))
			return -1;
		/* fall through */
	case KIND_TEXT:
		return parse_text(data, size, dest);
	case KIND_REST:
		return parse_rest(parser, dest);
	}
	i_unreached();
}

static int
parse_fields(struct parser *parser, const struct ring_row *row,
	     struct ring_message *msg, const char **error_r)
{
	const struct ring_field *field;
	bool optional = FALSE, skip = FALSE;

	for (const enum ring_field_id *f = row->fields; *f != F_END; f++) {
		field = &ring_fields[*f];
		if (*f == F_OPTIONAL) {
			optional = TRUE;
			continue;
		}
		if (*f == F_EXACTLY) {
			if (parser->next == NULL)
				break;
			*error_r = t_strdup_printf(
				"%s: Too many arguments", row->name);
			return -1;
		}
		if (optional && parser->peer_minor < field->minor)
			skip = TRUE;
		if (skip)
			continue;
		if (!parser_next(parser)) {
			/* no address without its port */
			if (optional && field->kind != KIND_PORT)
				break;
			*error_r = t_strdup_printf("%s: Missing %s",
						   row->name, field->name);
			return -1;
		}
		if (parse_field(parser, field, msg) < 0) {
			*error_r = t_strdup_printf(
				"%s: Invalid %s '%s'", row->name, field->name,
				parser_field_str(parser));
			return -1;
		}
		/* what could not be sent behind it isn't looked at either */
		skip = optional && ring_field_is_missing(field, msg);
	}
	return 0;
}

static bool
parser_field_is(const struct parser *parser, const char *str, size_t size)
{
	return parser->size == size && memcmp(parser->data, str, size) == 0;
}

static bool parser_has_args(const struct parser *parser, unsigned int count)
{
	const char *p = parser->next;

	for (; p != NULL && count > 0; count--) {
		p = strchr(p, '\t');
		if (p != NULL)
			p++;
	}
	return count == 0;
}

static const struct ring_row *
parser_find_row(const struct parser *parser, enum ring_when when)
{
	for (unsigned int i = 0; i < RING_MESSAGE_TYPES; i++) {
		const struct ring_row *row = &ring_rows[i];

		if ((row->when & when) == 0)
			continue;
		if (parser->peer_minor >= row->old_minor) {
			if (parser_field_is(parser, row->name, row->name_size))
				return row;
		} else if (parser_field_is(parser, row->old_name,
					   row->old_name_size) &&
			   parser_has_args(parser, row->old_args)) {
			return row;
		}
	}
	return NULL;
}

int ring_message_parse(const char *line, unsigned int peer_minor,
		       bool handshake, bool in_host_list,
		       struct ring_message *msg_r, const char **error_r)
{
	struct parser parser = { .peer_minor = peer_minor, .next = line };
	enum ring_when when = in_host_list ? HOST_LIST :
		(handshake ? HANDSHAKE : AFTERWARDS);
	const struct ring_row *row;

	if (*line == '\0') {
		*error_r = "Empty line";
		return -1;
	}
	(void)parser_next(&parser);
	row = parser_find_row(&parser, when);
	if (row == NULL) {
		*error_r = t_strdup_printf("%s command '%s'",
			parser_find_row(&parser, ALWAYS) == NULL ?
			"Unknown" : "Unexpected", parser_field_str(&parser));
		return -1;
	}
	i_zero(msg_r);
	msg_r->type = row - ring_rows;
	msg_r->tag = msg_r->hostname = msg_r->text = msg_r->value = "";
	return parse_fields(&parser, row, msg_r, error_r);
}
