/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "str.h"
#include "strescape.h"
#include "auth-line.h"

/* Is the field this key, alone or with a value? value_r points behind the '='
   (NULL if there is none). */
static bool
field_is(const char *field, size_t size, const char *key, size_t key_len,
	 const char **value_r)
{
	if (size < key_len || memcmp(field, key, key_len) != 0)
		return FALSE;
	*value_r = NULL;
	if (size == key_len)
		return TRUE;
	if (field[key_len] != '=')
		return FALSE;
	*value_r = field + key_len + 1;
	return TRUE;
}
#define FIELD_IS(field, size, key, value_r) \
	field_is(field, size, key, sizeof(key)-1, value_r)

static const char *field_value(const char *value, const char *end)
{
	if (memchr(value, '\001', end - value) == NULL)
		return t_strdup_until(value, end);
	return str_tabunescape(p_strdup_until(unsafe_data_stack_pool,
					      value, end));
}

static void
parse_ip(const char *value, const char *end, struct ip_addr *ip_r)
{
	if (end - value >= MAX_IP_LEN ||
	    net_addr2ip(t_strdup_until(value, end), ip_r) < 0)
		i_zero(ip_r);
}

static void parse_port(const char *value, const char *end, in_port_t *port_r)
{
	if (end - value > 5 ||
	    net_str2port(t_strdup_until(value, end), port_r) < 0)
		*port_r = 0;
}

struct auth_line_context {
	struct auth_line *line;
	const char *user, *user_end;
	const char *destuser, *destuser_end;
};

static void
parse_field(struct auth_line_context *ctx, const char *field, const char *end)
{
	struct auth_line *line = ctx->line;
	size_t size = end - field;
	const char *value;

	/* the first letter tells nearly all fields apart */
	switch (*field) {
	case 'd':
		if (FIELD_IS(field, size, "destuser", &value)) {
			if (value != NULL) {
				ctx->destuser = value;
				ctx->destuser_end = end;
			}
		} else if (FIELD_IS(field, size, "director_tag", &value)) {
			if (value != NULL)
				line->tag = field_value(value, end);
		} else if (FIELD_IS(field, size, "director_proxy_maybe",
				    &value)) {
			line->proxy_maybe = TRUE;
		}
		break;
	case 'h':
		if (FIELD_IS(field, size, "host", &value))
			line->host = TRUE;
		break;
	case 'l':
		if (FIELD_IS(field, size, "lip", &value)) {
			if (value != NULL)
				parse_ip(value, end, &line->lip);
		} else if (FIELD_IS(field, size, "lport", &value)) {
			if (value != NULL)
				parse_port(value, end, &line->lport);
		}
		break;
	case 'p':
		if (FIELD_IS(field, size, "proxy", &value))
			line->proxy = TRUE;
		else if (FIELD_IS(field, size, "port", &value)) {
			if (value != NULL)
				parse_port(value, end, &line->port);
		}
		break;
	case 'u':
		if (FIELD_IS(field, size, "user", &value) && value != NULL) {
			ctx->user = value;
			ctx->user_end = end;
		}
		break;
	}
}

bool auth_line_parse(const char *data, size_t size, struct auth_line *line_r)
{
	struct auth_line_context ctx = { .line = line_r };
	const char *end = data + size, *p, *next;

	i_zero(line_r);
	line_r->tag = "";
	line_r->id = data;
	p = memchr(data, '\t', size);
	line_r->id_len = (p == NULL ? end : p) - data;
	for (; p != NULL; p = next) {
		p++;
		next = memchr(p, '\t', end - p);
		if (p < end)
			parse_field(&ctx, p, next == NULL ? end : next);
	}
	if ((!line_r->proxy && !line_r->proxy_maybe) || line_r->host)
		return FALSE;

	if (ctx.destuser != NULL && ctx.destuser != ctx.destuser_end) {
		line_r->username = field_value(ctx.destuser,
					       ctx.destuser_end);
	} else if (ctx.user != NULL && ctx.user != ctx.user_end)
		line_r->username = field_value(ctx.user, ctx.user_end);
	return line_r->username != NULL;
}

bool auth_line_is_self(const struct auth_line *line, const struct ip_addr *ip,
		       const struct ip_addr *lip, in_port_t lport)
{
	if (line->lip.family != 0)
		lip = &line->lip;
	if (line->lport != 0)
		lport = line->lport;
	if (lip->family == 0 || !net_ip_compare(lip, ip))
		return FALSE;
	return line->port == 0 || lport == 0 || line->port == lport;
}

void auth_line_append_local(string_t *dest, const char *line, size_t size)
{
	const char *end = line + size, *field = line, *next, *value;
	bool first = TRUE;

	for (;; field = next + 1) {
		next = memchr(field, '\t', end - field);
		if (next == NULL)
			next = end;
		if (!FIELD_IS(field, (size_t)(next - field), "proxy", &value) &&
		    !FIELD_IS(field, (size_t)(next - field),
			      "director_proxy_maybe", &value)) {
			if (!first)
				str_append_c(dest, '\t');
			str_append_data(dest, field, next - field);
			first = FALSE;
		}
		if (next == end)
			break;
	}
}

int auth_line_parse_id(const char *args, size_t size, uint32_t *id_r)
{
	uint64_t id = 0;
	size_t i;

	for (i = 0; i < size && args[i] != '\t'; i++) {
		if (args[i] < '0' || args[i] > '9' || i == 10)
			return -1;
		id = id * 10 + (args[i] - '0');
	}
	if (i == 0 || id > UINT32_MAX)
		return -1;
	*id_r = id;
	return 0;
}

int auth_line_parse_request(const char *line, size_t size, uint32_t *id_r,
			    struct ip_addr *lip_r, in_port_t *lport_r)
{
	const char *end = line + size, *p, *next, *value;

	i_zero(lip_r);
	*lport_r = 0;
	if (auth_line_parse_id(line, size, id_r) < 0)
		return -1;
	/* the mechanism or the user is no field */
	p = memchr(line, '\t', size);
	if (p != NULL)
		p = memchr(p + 1, '\t', end - (p + 1));
	for (; p != NULL; p = next) {
		p++;
		next = memchr(p, '\t', end - p);
		size = (next == NULL ? end : next) - p;
		if (size == 0 || *p != 'l')
			continue;
		if (FIELD_IS(p, size, "lip", &value) && value != NULL)
			parse_ip(value, p + size, lip_r);
		else if (FIELD_IS(p, size, "lport", &value) && value != NULL)
			parse_port(value, p + size, lport_r);
	}
	return 0;
}

const char *auth_line_parse_protocol(const char *line, size_t size)
{
	const char *end = line + size, *p, *next, *value;

	for (p = memchr(line, '\t', size); p != NULL; p = next) {
		p++;
		next = memchr(p, '\t', end - p);
		size = (next == NULL ? end : next) - p;
		if (FIELD_IS(p, size, "protocol", &value) && value != NULL)
			return field_value(value, p + size);
	}
	return NULL;
}
