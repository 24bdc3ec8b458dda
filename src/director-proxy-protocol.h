#ifndef DIRECTOR_PROXY_PROTOCOL_H
#define DIRECTOR_PROXY_PROTOCOL_H

/* The login plugin's socket to the director (listener type "proxy", usually
   login/director-proxy). Shared by the plugin and the daemon.

   LF lines of TAB-separated, TAB-escaped fields (str_tabescape()). Both sides
   first send "VERSION TAB <service> TAB <major> TAB <minor>" as connection.h
   does. An unknown command is ignored by either side, so that a newer one may
   talk to an older one.

   plugin -> director
     PROCESS <pid> <protocol>       once, right after VERSION; pid must be that
				    of the socket's peer credentials
     START <token> <hash> <ip> <since> <user> [<field>=<value> ...]
				    this process may now connect to backend <ip>
				    for the answer with <token>. since = seconds
				    since 1970; user = name as the login gave it
				    (virtual user). Fields: his other names, as
				    the passdb gave them: user_*, and destuser
				    if it isn't user. At most
				    DIRECTOR_PROXY_MAX_FIELDS
     UP <token> [<ip>]              the backend accepted the login; <ip> if it
				    isn't that of START: a backend may redirect
				    a login to another one
     END <token> <reason>           the backend connection is closed
     ANNOUNCED                      after every (re)connect: all sessions that
				    this process has were told (START, and UP
				    where they are up)

     PING                           if there was GRACE: asks for a PONG

   A token is told with START at most once on each socket and ended with END
   once; the director drops all of a socket's sessions when it closes, except
   that it waits for the process to announce them again.

   director -> plugin
     GRACE <milliseconds>           right after VERSION: a login process that has
				    no director for so long (none that says
				    VERSION, or that answers) ends all its
				    proxied sessions
     PONG                           the answer to PING
     KICK <hash> [<except ip> [<reason>]]
				    end the proxied sessions of this hash,
				    pending and established, except those to the
				    backend <except ip> (may be empty). reason:
				    who wants it and why, for the log
     KICK-SESSION <token> [<reason>]
				    end this one; reason: as above

     KICK-BACKEND <ip> <reason>     end all proxied sessions to this backend,
				    pending and established

   Fields that the director adds to the auth reply ("OK") and that the plugin
   reads from it: */
#define DIRECTOR_PROXY_SERVICE_PLUGIN "director-login-plugin"
#define DIRECTOR_PROXY_SERVICE_DIRECTOR "director-proxy"
#define DIRECTOR_PROXY_MAJOR_VERSION 1
#define DIRECTOR_PROXY_MINOR_VERSION 0

/* Path relative to the login processes' working directory */
#define DIRECTOR_PROXY_SOCKET "director-proxy"

/* director_id=<token>: names the lease; 1..64 bytes of [0-9a-f-] */
#define DIRECTOR_PROXY_FIELD_ID "director_id"
/* director_deadline=<n>: milliseconds of CLOCK_MONOTONIC. An answer that is
   acted on later than this has to be dropped: the director may have forgotten
   it. */
#define DIRECTOR_PROXY_FIELD_DEADLINE "director_deadline"
/* user_director_hash=<hash>: the 32-bit user hash, decimal. The user_ prefix
   makes it an alternative username for doveadm who and anvil. */
#define DIRECTOR_PROXY_FIELD_HASH "user_director_hash"

#define DIRECTOR_PROXY_TOKEN_MAX_LEN 64

/* user_*: other names of the user, by which he can be kicked */
#define DIRECTOR_PROXY_FIELD_ALT_PREFIX "user_"
/* destuser=<name>: he is this one at the backend */
#define DIRECTOR_PROXY_FIELD_DESTUSER "destuser"
/* Those of a START, and the longest user name (longer ones are cut) or field
   with its value (longer ones aren't told) */
#define DIRECTOR_PROXY_MAX_FIELDS 8
#define DIRECTOR_PROXY_MAX_NAME_LEN 255

#endif
