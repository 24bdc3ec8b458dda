/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What director_flush_socket says */

#include "lib.h"
#include "net.h"
#include "str.h"
#include "var-expand.h"
#include "flush-hook.h"

int flush_hook_expand(const char *value, const char *ip, const char *hostname,
		      const char **expanded_r, const char **error_r)
{
	const struct var_expand_table table[] = {
		{ .key = "ip", .value = ip },
		{ .key = "host", .value = hostname },
		VAR_EXPAND_TABLE_END
	};
	const struct var_expand_params params = { .table = table };
	string_t *str = t_str_new(128);
	const char *p;

	/* 2.3's short forms */
	for (p = value; *p != '\0'; p++) {
		if (p[0] == '%' && (p[1] == 'i' || p[1] == 'h')) {
			str_append(str, *++p == 'i' ? "%{ip}" : "%{host}");
		} else {
			if (p[0] == '%' && p[1] == '%')
				str_append_c(str, *p++);
			str_append_c(str, *p);
		}
	}
	return t_var_expand(str_c(str), &params, expanded_r, error_r);
}

int flush_hook_check(const char *value, const char **error_r)
{
	const char *expanded, *host, *path;
	in_port_t port = 0;

	if (*value == '\0')
		return 0;
	if (flush_hook_expand(value, "127.0.0.1", "localhost", &expanded,
			      error_r) < 0)
		return -1;
	if (*expanded == '/' ||
	    (str_begins(expanded, "exec:", &path) && *path == '/') ||
	    (str_begins(expanded, "unix:", &path) && *path != '\0'))
		return 0;
	if (str_begins(expanded, "tcp:", &path) &&
	    net_str2hostport(path, 0, &host, &port) == 0 &&
	    port != 0 && *host != '\0')
		return 0;
	*error_r = "must be exec:/path, unix:/path, tcp:host:port or a path; "
		"%{ip} and %{host} are those of the user's new backend";
	return -1;
}
