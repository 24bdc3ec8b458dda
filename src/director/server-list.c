/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "settings-parser.h"
#include "server-list.h"

#include <ctype.h>

/* Letters, digits, dots, dashes, underscores; IDN in its ASCII form. */
static bool is_host_name(const char *name)
{
	if (*name == '\0' || *name == '.' || *name == '-')
		return FALSE;
	for (; *name != '\0'; name++) {
		if (!i_isalnum(*name) && strchr(".-_", *name) == NULL)
			return FALSE;
	}
	return TRUE;
}

/* A mistyped address or range */
static bool is_numeric_name(const char *name)
{
	return name[strspn(name, "0123456789.-")] == '\0';
}

static bool is_dotted_quad(const char *str)
{
	unsigned int dots = 0;

	for (; *str != '\0'; str++) {
		if (*str == '.')
			dots++;
		else if (!i_isdigit(*str))
			return FALSE;
	}
	return dots == 3;
}

/* net_addr2ip() takes more: what inet_aton() does, like 10.1 for 10.0.0.1, and
   an %interface, which isn't kept in a message. */
static int parse_ip(const char *str, struct ip_addr *ip_r)
{
	size_t len = strlen(str);

	if (len > 2 && str[0] == '[' && str[len-1] == ']')
		str = t_strndup(str + 1, len - 2);
	if (*str == '\0' || strpbrk(str, "%[]") != NULL ||
	    net_addr2ip(str, ip_r) < 0)
		return -1;
	return IPADDR_IS_V4(ip_r) && !is_dotted_quad(str) ? -1 : 0;
}

/* port_r is 0 if there is none. */
static int
split_director(const char *entry, const char **host_r, in_port_t *port_r,
	       const char **error_r)
{
	const char *host = entry, *port = NULL, *p;
	struct ip_addr ip;

	*port_r = 0;
	if (*entry == '[') {
		p = strchr(entry, ']');
		if (p == NULL || (p[1] != '\0' && p[1] != ':')) {
			*error_r = "must be [<IPv6 address>] or "
				"[<IPv6 address>]:<port>";
			return -1;
		}
		host = t_strdup_until(entry + 1, p);
		if (p[1] == ':')
			port = p + 2;
		if (parse_ip(host, &ip) < 0 || !IPADDR_IS_V6(&ip)) {
			*error_r = "no IPv6 address between [ and ]";
			return -1;
		}
	} else if (parse_ip(entry, &ip) == 0) {
		/* also a bare IPv6 address, which can't have a port */
	} else if ((p = strrchr(entry, ':')) != NULL) {
		host = t_strdup_until(entry, p);
		port = p + 1;
	}
	if (port != NULL && net_str2port(port, port_r) < 0) {
		*error_r = t_strdup_printf(
			"port '%s' must be a number from 1 to 65535", port);
		return -1;
	}
	if (parse_ip(host, &ip) < 0 &&
	    (!is_host_name(host) || is_numeric_name(host))) {
		*error_r = "must be <ip>, <ip>:<port>, [<ipv6>]:<port>, "
			"<name> or <name>:<port>";
		return -1;
	}
	*host_r = host;
	return 0;
}

int server_list_check_director(const char *entry, const char **error_r)
{
	const char *host;
	in_port_t port;

	return split_director(entry, &host, &port, error_r);
}

static int
parse_director(const char *entry, in_port_t default_port,
	       ARRAY_TYPE(ring_address) *list, const char **error_r)
{
	struct ring_address address, *old;
	const char *host, *error;
	struct ip_addr ip, *ips = &ip;
	unsigned int i, count = 1;
	bool known;
	int ret;

	if (split_director(entry, &host, &address.port, &error) < 0) {
		*error_r = t_strdup_printf("%s: %s", entry, error);
		return -1;
	}
	if (address.port == 0)
		address.port = default_port;
	if (parse_ip(host, &ip) < 0) {
		ret = net_gethostbyname(host, &ips, &count);
		if (ret != 0) {
			*error_r = t_strdup_printf(
				"Unknown director host: %s (%s)", host,
				net_gethosterror(ret));
			return -1;
		}
	}
	for (i = 0; i < count; i++) {
		address.ip = ips[i];
		known = FALSE;
		array_foreach_modifiable(list, old) {
			if (net_ip_compare(&old->ip, &address.ip) &&
			    old->port == address.port)
				known = TRUE;
		}
		if (!known)
			array_push_back(list, &address);
	}
	return 0;
}

const struct ring_address *
server_list_parse_directors(const char *const *entries, in_port_t default_port,
			    pool_t pool, unsigned int *count_r,
			    const char **error_r)
{
	static const struct ring_address none;
	ARRAY_TYPE(ring_address) list;
	int ret = 0;

	p_array_init(&list, pool, 8);
	for (; *entries != NULL && ret == 0; entries++) {
		T_BEGIN {
			ret = parse_director(*entries, default_port, &list,
					     error_r);
		} T_END_PASS_STR_IF(ret < 0, error_r);
	}
	if (ret < 0)
		return NULL;
	*count_r = array_count(&list);
	return *count_r == 0 ? &none : array_front(&list);
}

static bool split_range(const char *host, struct ip_addr *first_r,
			struct ip_addr *last_r)
{
	const char *p;

	for (p = strchr(host, '-'); p != NULL; p = strchr(p + 1, '-')) {
		if (parse_ip(t_strdup_until(host, p), first_r) == 0 &&
		    parse_ip(p + 1, last_r) == 0)
			return TRUE;
	}
	return FALSE;
}

static unsigned char *ip_last_bytes(struct ip_addr *ip, size_t *len_r)
{
	if (IPADDR_IS_V4(ip)) {
		*len_r = 4;
		return (unsigned char *)&ip->u.ip4;
	}
	*len_r = 16;
	return (unsigned char *)&ip->u.ip6;
}

/* Number of addresses in the range, or 0 and error_r. */
static unsigned int
range_size(struct ip_addr *first, struct ip_addr *last, const char *host,
	   const char **error_r)
{
	size_t len, last_len, host_bytes;
	const unsigned char *f = ip_last_bytes(first, &len);
	const unsigned char *l = ip_last_bytes(last, &last_len);

	if (len != last_len) {
		*error_r = t_strdup_printf("IP address family mismatch: "
			"%s vs %s", net_ip2addr(first), net_ip2addr(last));
		return 0;
	}
	if (memcmp(f, l, len) > 0) {
		*error_r = t_strdup_printf("IP addresses reversed: %s", host);
		return 0;
	}
	/* within one /24, or one /112 */
	host_bytes = len == 4 ? 1 : 2;
	if (memcmp(f, l, len - host_bytes) != 0) {
		*error_r = t_strdup_printf("IP address range too large: %s "
			"(both ends must be in the same /%s network)", host,
			len == 4 ? "24" : "112");
		return 0;
	}
	if (host_bytes == 1)
		return l[3] - f[3] + 1;
	return (l[14] << 8 | l[15]) - (f[14] << 8 | f[15]) + 1;
}

static void range_nth(const struct ip_addr *first, unsigned int n,
		      struct ip_addr *ip_r)
{
	size_t len;
	unsigned char *b;
	unsigned int sum;

	*ip_r = *first;
	b = ip_last_bytes(ip_r, &len);
	if (len == 4)
		b[3] += n;
	else {
		sum = (b[14] << 8 | b[15]) + n;
		b[14] = sum >> 8;
		b[15] = sum & 0xff;
	}
}

bool server_list_is_tag(const char *tag)
{
	for (; *tag != '\0'; tag++) {
		if ((unsigned char)*tag <= ' ' || *tag == 0x7f)
			return FALSE;
	}
	return TRUE;
}

/* Splits off the tag. Returns -1 if the entry can't be right. */
static int
split_backend(const char *entry, const char **host_r, const char **tag_r,
	      const char **error_r)
{
	const char *p = strchr(entry, '@');

	*host_r = p == NULL ? entry : t_strdup_until(entry, p);
	*tag_r = p == NULL ? "" : p + 1;
	if (p != NULL && **tag_r == '\0') {
		*error_r = "tag missing after @";
		return -1;
	}
	if (!server_list_is_tag(*tag_r)) {
		*error_r = "tag can't contain spaces or control characters";
		return -1;
	}
	return 0;
}

int server_list_check_backend(const char *entry, const char **error_r)
{
	const char *host, *tag;
	struct ip_addr ip, last;

	if (split_backend(entry, &host, &tag, error_r) < 0)
		return -1;
	if (parse_ip(host, &ip) == 0)
		return 0;
	if (split_range(host, &ip, &last))
		return range_size(&ip, &last, host, error_r) == 0 ? -1 : 0;
	if (!is_host_name(host) || is_numeric_name(host)) {
		*error_r = "must be <ip>, <name> or <ip>-<ip>, each with an "
			"optional @<tag>; the port comes from the passdb, "
			"vhosts are set with doveadm director update";
		return -1;
	}
	return 0;
}

static void
list_add(ARRAY_TYPE(server_list_backend) *list, pool_t pool,
	 const struct ip_addr *ip, const char *hostname, const char *tag,
	 const char *entry, ARRAY_TYPE(const_string) *warnings)
{
	const struct server_list_backend *old;
	struct server_list_backend *backend;
	const char *warning;

	array_foreach(list, old) {
		if (!net_ip_compare(&old->ip, ip))
			continue;
		warning = p_strdup_printf(pool,
			"director_mail_servers: %s (in '%s') is listed more "
			"than once: counted once%s", net_ip2addr(ip), entry,
			strcmp(old->tag, tag) == 0 ? "" : t_strdup_printf(
				", with the first tag '%s'", old->tag));
		array_push_back(warnings, &warning);
		return;
	}
	backend = array_append_space(list);
	backend->ip = *ip;
	backend->hostname = p_strdup(pool, hostname);
	backend->tag = p_strdup(pool, tag);
}

static int
parse_backend(const char *entry, pool_t pool,
	      ARRAY_TYPE(server_list_backend) *list,
	      ARRAY_TYPE(const_string) *warnings, const char **error_r)
{
	const char *host, *tag, *error;
	struct ip_addr ip, last, *ips;
	unsigned int i, count;
	int ret;

	if (server_list_check_backend(entry, &error) < 0 ||
	    split_backend(entry, &host, &tag, &error) < 0) {
		*error_r = t_strdup_printf("%s: %s", entry, error);
		return -1;
	}
	if (parse_ip(host, &ip) == 0) {
		list_add(list, pool, &ip, NULL, tag, entry, warnings);
		return 0;
	}
	if (split_range(host, &ip, &last)) {
		count = range_size(&ip, &last, host, &error);
		if (count > SERVER_LIST_MAX_BACKENDS) {
			*error_r = t_strdup_printf("%s: more than %u backends",
						   entry,
						   SERVER_LIST_MAX_BACKENDS);
			return -1;
		}
		for (i = 0; i < count; i++) {
			range_nth(&ip, i, &last);
			list_add(list, pool, &last, NULL, tag, entry, warnings);
		}
		return 0;
	}
	ret = net_gethostbyname(host, &ips, &count);
	if (ret != 0) {
		*error_r = t_strdup_printf("Unknown mail host: %s (%s)",
					   host, net_gethosterror(ret));
		return -1;
	}
	for (i = 0; i < count; i++)
		list_add(list, pool, &ips[i], host, tag, entry, warnings);
	return 0;
}

int server_list_parse_backends(const char *const *entries, pool_t pool,
			       ARRAY_TYPE(server_list_backend) *list_r,
			       ARRAY_TYPE(const_string) *warnings_r,
			       const char **error_r)
{
	int ret = 0;

	p_array_init(list_r, pool, 16);
	p_array_init(warnings_r, pool, 4);
	for (; *entries != NULL && ret == 0; entries++) {
		T_BEGIN {
			ret = parse_backend(*entries, pool, list_r, warnings_r,
					    error_r);
		} T_END_PASS_STR_IF(ret < 0, error_r);
		if (array_count(list_r) > SERVER_LIST_MAX_BACKENDS) {
			*error_r = t_strdup_printf(
				"more than %u backends",
				SERVER_LIST_MAX_BACKENDS);
			ret = -1;
		}
	}
	return ret;
}

int server_list_parse_ip_tag(const char *str, struct ip_addr *ip_r,
			     const char **tag_r)
{
	const char *p = strchr(str, '@');

	*tag_r = p == NULL ? "" : p + 1;
	return parse_ip(p == NULL ? str : t_strdup_until(str, p), ip_r);
}
