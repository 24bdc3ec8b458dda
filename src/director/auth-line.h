#ifndef AUTH_LINE_H
#define AUTH_LINE_H

#include "net.h"

/* The lines of the auth protocols that the relay looks at or changes (spec:
   sockets.md §2.2-2.5, dovecot-2.4-platform.md §3.3, §4). Pure. Lines are
   without LF; sizes in bytes; what points into a line lives as long as it. */

/* "OK <id> ..." or "PASS <id> ..." as auth sent it */
struct auth_line {
	/* Up to the tab behind it */
	const char *id;
	size_t id_len;
	/* What to hash: destuser or user, unescaped; NULL if none */
	const char *username;
	/* "" if none */
	const char *tag;
	/* Of the client's connection, if auth told; else family 0 and 0 */
	struct ip_addr lip;
	in_port_t lport;
	/* port= of the answer, 0 if none */
	in_port_t port;

	bool proxy;
	bool host;
	bool proxy_maybe;
};

/* Parses the line behind its command word. Returns TRUE if the director has to
   add a host: proxying is wanted, no host is given, and there is a name.
   Unescaped texts are on the data stack. */
bool auth_line_parse(const char *line, size_t size, struct auth_line *line_r);

/* Is the answer's backend the one that the client is connected to already?
   lip/lport: where the client is connected to, if the line doesn't say. */
bool auth_line_is_self(const struct auth_line *line, const struct ip_addr *ip,
		       const struct ip_addr *lip, in_port_t lport);

/* Appends the line to dest without the fields proxy and
   director_proxy_maybe: the login is local. */
void auth_line_append_local(string_t *dest, const char *line, size_t size);

/* An AUTH or PASS line without that word: its id and, if it says so, the address
   that the client is connected to. Returns 0, or -1 if there is no id. */
int auth_line_parse_request(const char *line, size_t size, uint32_t *id_r,
			    struct ip_addr *lip_r, in_port_t *lport_r);

/* The protocol that the AUTH line names, on the data stack; NULL if none */
const char *auth_line_parse_protocol(const char *line, size_t size);

/* The number behind the command word, as in "CANCEL <id>". Returns 0 or -1. */
int auth_line_parse_id(const char *args, size_t size, uint32_t *id_r);

#endif
