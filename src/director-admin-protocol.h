#ifndef DIRECTOR_ADMIN_PROTOCOL_H
#define DIRECTOR_ADMIN_PROTOCOL_H

/* The director-admin socket (spec: sockets.md §7). Shared by doveadm and the
   daemon. The server's greeting has to be exactly this line: poolmon compares
   all of it. */
#define DIRECTOR_ADMIN_SERVICE "director-doveadm"
#define DIRECTOR_ADMIN_MAJOR_VERSION 1
#define DIRECTOR_ADMIN_MINOR_VERSION 0
#define DIRECTOR_ADMIN_VERSION_LINE \
	"VERSION\t" DIRECTOR_ADMIN_SERVICE "\t1\t0"

/* Socket's name in base_dir */
#define DIRECTOR_ADMIN_SOCKET "director-admin"

/* Longest command line, without its LF */
#define DIRECTOR_ADMIN_MAX_LINE_LEN 1024

/* Replies that mean something to the client. Any other single-line reply is an
   error text for people; "ERROR <text>" is one for a command that could not
   be understood (the original closed the connection instead). */
#define DIRECTOR_ADMIN_REPLY_OK "OK"
#define DIRECTOR_ADMIN_REPLY_NOTFOUND "NOTFOUND"
#define DIRECTOR_ADMIN_REPLY_TRYAGAIN "TRYAGAIN"
#define DIRECTOR_ADMIN_REPLY_ERROR "ERROR"
#define DIRECTOR_ADMIN_PROGRESS "PROGRESS"

/* Beyond the original:
   HOST-LIST has a seventh field: the number of live proxied sessions.
   USER-LOOKUP <user|hash> [<tag> ["user"]]: with the third argument "user" the
   first one is a name even if it is a number.
   HOST-RESET-USERS [<ip>] [<max parallel>] ["progress"]: with "progress", after
   lines that tell of the progress, OK comes when all moves have ended, not when
   they were begun, followed by the same fields:
     PROGRESS|OK TAB <users of the backends> TAB <users looked at> TAB <moved>
     TAB <being moved> TAB <failed> TAB <milliseconds>
   and a client that closes stops the flush (moves that have begun go on). */

#define DIRECTOR_MAX_VHOSTS 1000
#define DIRECTOR_DEFAULT_VHOSTS 100

#endif
