#ifndef SESSION_LEASE_H
#define SESSION_LEASE_H

#include "net.h"

/* Which proxied sessions exist here (design.md "The promise, as rules", 1-5;
   dovecot-2.4-platform.md §5.3). Every answer to a login process is a lease:

   ISSUED    answered; the login process has not told yet that it acts on it
   STARTED   it may connect to the backend
   UP        the backend has accepted the login

   A lease is gone on END, when its login process has gone, or, while ISSUED,
   when its deadline has passed. */

struct session_leases;

enum session_lease_state {
	SESSION_LEASE_ISSUED,
	SESSION_LEASE_STARTED,
	SESSION_LEASE_UP,
};

/* After this the login process drops the answer (it reads the deadline). */
#define SESSION_LEASE_DEADLINE_MSECS 5000
/* How much later the lease is forgotten: a START that was sent in time may
   still be in a socket. */
#define SESSION_LEASE_SLACK_MSECS 2000
/* How long the sessions of a login process whose plugin lost its connection
   count on, waiting for it to announce them again. */
#define SESSION_LEASE_ORPHAN_MSECS 3000
/* The longest name of a user that is kept (what is longer is cut), and the
   longest field with its value (a longer one isn't) */
#define SESSION_NAME_MAX_LEN 255
#define SESSION_NAME_MAX_FIELDS 8
/* Answers outstanding to a login process that never had a plugin; the others
   get no lease. */
#define SESSION_LEASE_MAX_ISSUED_WITHOUT_START 1024
/* The same for one that has none, as it seems: maybe all its clients went away
   so far, and now several log in at once. */
#define SESSION_LEASE_MAX_ISSUED_MISSING 16

/* In a chain of a hash table */
struct session_node {
	struct session_node *next;
};

/* Of a protocol's name; the rest is cut. */
#define SESSION_PROTOCOL_MAX_LEN 15
/* Of others the name isn't known. */
#define SESSION_PROTOCOLS_MAX 8

/* What login processes speak. Lives as long as the leases. */
struct session_protocol {
	char name[SESSION_PROTOCOL_MAX_LEN + 1];
	/* A lease that wasn't told of was forgotten when this one was the last
	   that was issued, and no process of this protocol has told of anything
	   since; 0 = none was */
	uint64_t forgotten_seq;
};

/* A login process, named by the pid that it gave itself. It exists as long as
   somebody holds a reference or it has leases. */
struct login_process {
	struct session_node node;
	pid_t pid;
	int refcount;
	/* Leases that are ISSUED */
	unsigned int issued;
	/* NULL if not known */
	struct session_protocol *protocol;
	/* It has a plugin, or had one */
	bool plugin_seen;
	/* It has shown that it has no plugin: gets one lease at a time */
	bool plugin_missing;
	/* A lease that wasn't told of was forgotten when this one was the last
	   that was issued; 0 = none was */
	uint64_t forgotten_seq;
	/* Connections of its plugin that are lost, with sessions that wait to
	   be announced again */
	struct session_plugin *lost;
	/* Number of the last connection that was heard of */
	unsigned int last_plugin;
	/* The newest connection that has announced all that there is; NULL if
	   none has, or it is lost. What only others have told of is over. */
	const struct session_plugin *announced;
};

/* A connection of a login plugin. Once it is lost it exists only as long as it
   has sessions: orphans, which count on until its deadline. */
struct session_plugin {
	/* of the same process, lost; by deadline */
	struct session_plugin *prev, *next;
	struct session_plugin *deadline_prev, *deadline_next;

	struct login_process *process;
	/* Those of a process in the order in which they were made. The adapter
	   sets it if it heard of one only after a later one. */
	unsigned int number;
	/* The sessions that it told of */
	struct session_lease *leases;
	/* The adapter's; of no use once it is lost */
	void *connection;
	/* The director_kick_sessions() that it was told of last, or the look for
	   strays, and the backend that it was about (only to be compared) */
	unsigned int kicked;
	const struct session_backend *kicked_backend;
	/* Monotonic milliseconds; 0 = connected */
	uint64_t deadline;
	/* The process has announced all that it has to another connection */
	bool over;
};

struct session_token {
	/* Of the director process that issued the lease */
	uint64_t instance;
	uint64_t seq;
};

/* Sessions to one backend address */
struct session_backend {
	struct session_node node;
	struct ip_addr ip;
	/* Leases in STARTED or UP */
	unsigned int sessions;
	/* All leases */
	unsigned int refcount;
};

/* A user who has leases here */
struct session_user {
	struct session_node node;
	/* Of the backend. NULL: that isn't known, he may be one of any tag.
	   Lives as long as backends. */
	const char *tag;
	/* All of them, the newest first */
	struct session_lease *leases;
	uint32_t hash;
	/* How many are ISSUED, how many STARTED or UP */
	unsigned int issued, sessions;
};

struct session_lease {
	struct session_node node;
	/* of the same user */
	struct session_lease *user_prev, *user_next;
	/* ISSUED: by deadline. Others: of the same plugin connection */
	struct session_lease *prev, *next;

	struct login_process *process;
	struct session_user *user;
	struct session_backend *backend;
	struct session_token token;
	/* ISSUED: monotonic milliseconds, when it is forgotten */
	uint64_t deadline;
	/* Which plugin connection told of it (last); NULL if ISSUED */
	struct session_plugin *plugin;
	/* When it was issued or, if announced, as the plugin says; seconds since
	   1970, until 2106 */
	uint32_t since;
	enum session_lease_state state;

	/* As the plugin told; NULL if it didn't. One string behind the other,
	   the last one is empty: his name, then the fields. */
	char *names;
	/* The plugin was told to end it; ISSUED: is to be told when it starts */
	bool ending:1;
	/* It was ISSUED when somebody was kicked by what isn't known of it then */
	bool was_issued:1;
	/* destuser is among the fields. */
	bool has_destuser:1;
};

/* Called when the first lease in STARTED or UP of (tag, hash) came, or the
   last one went. May only ask session_leases_has(). */
typedef void session_lease_changed_callback_t(const char *tag, uint32_t hash,
					      bool leased, void *context);

/* Called when a lease in STARTED or UP has ended, which was to this backend. May
   only ask session_leases_has(). */
typedef void session_lease_ended_callback_t(const char *tag, uint32_t hash,
					    const struct ip_addr *ip,
					    void *context);

/* instance: random, different for every process start in the cluster; tokens
   show it. hash_key: random, kept to itself. */
struct session_leases *
session_leases_init(uint64_t instance, uint64_t hash_key,
		    session_lease_changed_callback_t *changed, void *context);
/* Gets the context of changed. May be NULL, which is the default. */
void session_leases_set_ended_callback(struct session_leases *leases,
				       session_lease_ended_callback_t *ended);
void session_leases_deinit(struct session_leases **leases);
/* Called before a lease is forgotten that a process without plugin, as it seems
   (for certain if lease->process->plugin_missing), didn't tell of. With the
   context of "changed". Must not change the leases. */
void session_leases_set_untold_callback(
	struct session_leases *leases,
	void (*untold)(const struct session_lease *lease, void *context));
/* Asks whether the process of a lost connection is still there: then its
   sessions are not forgotten. With the context of "changed". */
void session_leases_set_lives_callback(
	struct session_leases *leases,
	bool (*lives)(const struct login_process *process, void *context));

/* Finds or adds the process. */
struct login_process *
login_process_ref(struct session_leases *leases, pid_t pid);
void login_process_unref(struct session_leases *leases,
			 struct login_process **process);
/* Must not change them. */
void login_processes_foreach(struct session_leases *leases,
			     void (*callback)(const struct login_process
					      *process, void *context),
			     void *context);
/* Does nothing if it is known already. */
void login_process_set_protocol(struct session_leases *leases,
				struct login_process *process,
				const char *protocol);

/* Issues a lease. tag: from backends_tag(). */
struct session_lease *
session_lease_issue(struct session_leases *leases,
		    struct login_process *process, const char *tag,
		    uint32_t hash, const struct ip_addr *ip,
		    uint64_t now_msecs, time_t now);
/* A lease that its director doesn't know (it was issued by an earlier director
   process, or is forgotten already), as STARTED. tag: NULL if unknown. */
struct session_lease *
session_lease_announce(struct session_leases *leases,
		       struct session_plugin *plugin, const char *tag,
		       uint32_t hash, const struct ip_addr *ip,
		       const struct session_token *token, time_t since);
/* NULL if unknown. */
struct session_lease *
session_lease_lookup(struct session_leases *leases,
		     const struct session_token *token);
/* ISSUED or orphaned -> STARTED, told by this connection of its process. Or it is
   another one's, whose end hasn't been seen yet. */
void session_lease_start(struct session_leases *leases,
			 struct session_lease *lease,
			 struct session_plugin *plugin);
/* It is told by a connection that isn't lost. */
static inline bool session_lease_is_told(const struct session_lease *lease)
{
	return lease->plugin != NULL && lease->plugin->deadline == 0;
}
/* It is told by a connection that is newer than this one of its process: what
   this one says of it was said before, and is read only now. */
static inline bool
session_lease_is_told_newer(const struct session_lease *lease,
			    const struct session_plugin *plugin)
{
	return session_lease_is_told(lease) &&
		lease->process == plugin->process &&
		lease->plugin->number > plugin->number;
}
void session_lease_up(struct session_lease *lease);
/* The session is to another backend than the answer said. */
void session_lease_redirect(struct session_leases *leases,
			    struct session_lease *lease,
			    const struct ip_addr *ip);
/* The user's name as the login gave it, and "<field>=<value>"s, ended by NULL:
   his other names. */
void session_lease_set_names(struct session_leases *leases,
			     struct session_lease *lease, const char *name,
			     const char *const *fields);
/* NULL if it wasn't told. */
static inline const char *
session_lease_name(const struct session_lease *lease)
{
	return lease->names;
}
/* The field's value, NULL if there is none */
const char *session_lease_field(const struct session_lease *lease,
				const char *field);
/* Are there some whose user is another one at the backend? */
bool session_leases_have_destusers(const struct session_leases *leases);
void session_lease_set_tag(struct session_leases *leases,
			   struct session_lease *lease, const char *tag);
void session_lease_end(struct session_leases *leases,
		       struct session_lease **lease);

/* The process has a plugin, and this is a connection of it. */
struct session_plugin *
session_plugin_init(struct session_leases *leases,
		    struct login_process *process);
/* The connection is lost: its sessions are orphans until they are announced
   again. Constant time, as the next one. */
void session_plugin_lost(struct session_leases *leases,
			 struct session_plugin **plugin, uint64_t now_msecs);
/* The process has announced all that it has to this connection: orphans of it
   are due now, and what other connections have told of when they are lost. */
void session_leases_announced(struct session_leases *leases,
			      const struct session_plugin *plugin,
			      uint64_t now_msecs);

/* Forgets up to max leases whose deadline has passed. Returns TRUE if there are
   more. */
bool session_leases_expire(struct session_leases *leases, uint64_t now_msecs,
			   unsigned int max);
/* Monotonic milliseconds, 0 = never */
uint64_t session_leases_next_deadline(const struct session_leases *leases);

/* Leases of exactly this tag, which may be NULL: the sessions of a user are in
   both. NULL if there is none. Valid until the next lease ends. */
const struct session_user *
session_leases_user(struct session_leases *leases, const char *tag,
		    uint32_t hash);
/* Calls fn for what the user has in each tag. fn must not change the leases. */
void session_leases_foreach_hash(struct session_leases *leases, uint32_t hash,
				 void (*fn)(const struct session_user *user,
					    void *context), void *context);
/* Is a lease in STARTED or UP there, of this tag or of an unknown one? */
bool session_leases_has(struct session_leases *leases, const char *tag,
			uint32_t hash);
/* Calls fn for users with leases, in slices: *pos starts at 0, at most max
   places a call. fn must not change the leases. Returns TRUE if there is
   more. */
bool session_leases_walk(struct session_leases *leases, unsigned int *pos,
			 unsigned int max,
			 void (*fn)(const struct session_user *user,
				    void *context), void *context);
/* The same for the leases themselves: each one that is there all the time is
   given once. The place isn't that of any of them in particular: max places
   may have none, or many. */
bool session_leases_walk_all(struct session_leases *leases, unsigned int *pos,
			     unsigned int max,
			     void (*fn)(struct session_lease *lease,
					void *context), void *context);
/* Sessions (STARTED or UP) to the backend */
unsigned int session_leases_count(struct session_leases *leases,
				  const struct ip_addr *ip);
/* All leases, ISSUED ones too */
unsigned int session_leases_total(const struct session_leases *leases);
/* What was looked at in chains since init: grows with the calls, not with what
   is there. */
uint64_t session_leases_steps(const struct session_leases *leases);

/* Token <-> text of [0-9a-f-]. The text is on the data stack. */
const char *session_token_str(const struct session_token *token);
int session_token_parse(const char *str, struct session_token *token_r);

#endif
