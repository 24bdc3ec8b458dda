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
#define DIRECTOR_ADMIN_REPLY_WAITING "WAITING"
#define DIRECTOR_ADMIN_ROW_NO_ANSWER "NOANSWER"
#define DIRECTOR_ADMIN_ROW_ONLY_OWN "ONLYOWN"
#define DIRECTOR_ADMIN_PROGRESS "PROGRESS"

/* Beyond the original:
   HOST-LIST has a seventh field: the number of live proxied sessions.
   USER-LOOKUP <user|hash> [<tag> ["user"]]: with the third argument "user" the
   first one is a name even if it is a number.
   HOST-REMOVE <ip> ["keep"]: the sessions on the backend are ended, unless "keep"
   is given.
   HOST-RESET-USERS [<ip>] [<max parallel>] ["progress"]: with "progress", after
   lines that tell of the progress, OK comes when all moves have ended, not when
   they were begun, followed by the same fields:
     PROGRESS|OK TAB <users of the backends> TAB <users looked at> TAB <moved>
     TAB <being moved> TAB <failed> TAB <milliseconds>
   and a client that closes stops the flush (moves that have begun go on).

   USER-KICK <user>|<mask> ["nowait"] ["count"]
   USER-KICK-ALT <field> <value> ["nowait"] ["count"]
   USER-MOVE <user>|<hash> <ip> ["user"] ["count"|"wait"]: a mask has * or ?.
   With "count" or "wait" OK has fields behind it, two for each director: its IP,
   and how many sessions it has told to end, or "?" if it didn't say so within
   DIRECTOR_ADMIN_COUNT_MSECS (DIRECTOR_ADMIN_COUNT_DOWN_MSECS if it can't be
   connected to), or can't (2.3). With "wait" the reply comes when the move has
   ended. After DIRECTOR_ADMIN_MOVE_MSECS that hasn't it is
     WAITING TAB <what it waits for>

   SESSION-LIST [<user>|<hash>|<mask>]: the live proxied sessions of all
   directors, then an empty line:
     <user, "" if not known> TAB <hash> TAB <service> TAB <director's IP> TAB
     <backend's IP> TAB <since, seconds since 1970> TAB <state>
   (starting, up, ending, or lost if its login process isn't connected). Among
   them may be
     NOANSWER TAB <IP>   the sessions of this director are missing, or some
     ONLYOWN             those of all others are: some of them are of 2.3, or
			 there is no ring at the moment */

/* So long the other directors have for telling how many sessions they ended, for
   an end of a move, and for some sessions of SESSION-LIST. */
#define DIRECTOR_ADMIN_COUNT_MSECS 2000
#define DIRECTOR_ADMIN_COUNT_DOWN_MSECS 200
#define DIRECTOR_ADMIN_MOVE_MSECS (60*1000)
#define DIRECTOR_ADMIN_PAGE_MSECS 5000

#endif
