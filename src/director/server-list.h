#ifndef SERVER_LIST_H
#define SERVER_LIST_H

#include "core/ring-message.h"

/* The entries of director_servers and director_mail_servers (spec: settings.md
   §1.1, §1.2). */

#define SERVER_LIST_MAX_BACKENDS 10000

struct server_list_backend {
	struct ip_addr ip;
	/* NULL if the entry was an address */
	const char *hostname;
	/* "" for none */
	const char *tag;
};
ARRAY_DEFINE_TYPE(server_list_backend, struct server_list_backend);
ARRAY_DEFINE_TYPE(ring_address, struct ring_address);

/* Syntax only, no DNS. Return 0, or -1 and error_r: what is wrong and what would
   be right, without the entry and the setting's name. */
int server_list_check_director(const char *entry, const char **error_r);
int server_list_check_backend(const char *entry, const char **error_r);

/* Parses a director_mail_servers list; names are resolved, which blocks. What
   is allocated comes from pool. An address that comes twice is taken once and
   told in warnings_r (a text each). Returns 0, or -1 and error_r, which names the
   entry. */
int server_list_parse_backends(const char *const *entries, pool_t pool,
			       ARRAY_TYPE(server_list_backend) *list_r,
			       ARRAY_TYPE(const_string) *warnings_r,
			       const char **error_r);

/* Parses a director_servers list; names are resolved, which blocks. Returns the
   addresses, each once, or NULL and error_r, which names the entry. */
const struct ring_address *
server_list_parse_directors(const char *const *entries, in_port_t default_port,
			    pool_t pool, unsigned int *count_r,
			    const char **error_r);

/* May this be a tag? Not with spaces or control characters. */
bool server_list_is_tag(const char *tag);

/* Parses one host with an optional tag, "ip[@tag]"; brackets are allowed. For
   commands. Returns 0 or -1. */
int server_list_parse_ip_tag(const char *str, struct ip_addr *ip_r,
			     const char **tag_r);

#endif
