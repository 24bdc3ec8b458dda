/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Plays login processes with sessions that stay: their connections to one or
   more directors, the auth process behind these, and either our login plugin's
   socket, where a KICK or KICK-SESSION ends the sessions, or that of the original's ipc, which
   is told that they have ended. Users are numbers.

   A line of stdin is a command, whose end is told by a JSON object:
   hold FIRST COUNT          each of these users logs in
   visit FIRST COUNT [RATE]  each logs in, and out again soon; RATE a second
   look FIRST COUNT [RATE]   each is looked up, but doesn't stay for the answer
   wait COUNT                until no more than COUNT sessions live */

#define _GNU_SOURCE
#include "load.h"

#define MAX_DIRECTORS 16
#define MAX_USERS 1000000
#define BUCKETS (1U << 17)
/* Lookups that wait for an answer, of all */
#define MAX_WAITING 1600
/* The backend accepts the login after this; who only visits leaves after
   that. */
#define UP_NS 5000000ULL
#define LEAVE_NS 200000000ULL
#define STUCK_NS 90000000000ULL

enum conn_kind { KIND_LISTEN, KIND_AUTH, KIND_LOGIN, KIND_PLUGIN, KIND_IPC,
		 KIND_CONTROL };

struct session {
	struct session *hash_next, *token_next;
	uint64_t started;
	uint32_t hash;
	bool live;
	char token[40], host[40];
};

static struct {
	const char *auth_path[MAX_DIRECTORS], *login_path[MAX_DIRECTORS];
	const char *told_path[MAX_DIRECTORS];
	unsigned int auth_count, login_count, told_count, logins;
	bool ipc;
} opt = {
	.logins = 100,
};

/* Connections to the directors, and to what the sessions are told to; user n
   is at the (n modulo opt.logins)th */
static struct conn **logins, **told;
static struct conn **dirty;
static unsigned int dirty_count, ready_count;
static struct session *sessions, *buckets[BUCKETS], *by_token[BUCKETS];
static unsigned int live, kicked;
static uint64_t last_news;

/* What the command is about, and how far it is: sent, answered, in the order of
   the answers up and left */
static struct {
	unsigned int first, count, rate, sent, answered, ups, left, wait;
	bool visit, look, waits;
	uint64_t start;
} task;
static unsigned int *order;

static const char auth_args[] =
	"\tPLAIN\tservice=imap\tsecured\tsession=0123456789abcdef"
	"\tlip=127.0.0.1\trip=127.0.0.2\tlport=143\trport=50000"
	"\tresp=AHUxMjM0NTY3QGV4YW1wbGUuY29tAHNlY3JldA==\n";

static void mark_dirty(struct conn *conn)
{
	if (!conn->dirty) {
		conn->dirty = true;
		dirty[dirty_count++] = conn;
	}
}

static void flush_dirty(void)
{
	for (unsigned int i = 0; i < dirty_count; i++) {
		dirty[i]->dirty = false;
		if (!conn_flush(dirty[i]))
			die("A connection was closed");
	}
	dirty_count = 0;
}

/* The number of a request is that of its user, and one more. */
static bool auth_line(struct conn *conn, char *line, size_t len)
{
	unsigned int id;

	(void)len;
	if (strncmp(line, "AUTH\t", 5) == 0) {
		id = strtoul(line + 5, NULL, 10);
		conn->out_len += sprintf(conn_reserve(conn, 160),
			"OK\t%u\tuser=u%u@example.com\tproxy=y"
			"\tlip=127.0.0.1\tlport=143\tpass=secret\n", id,
			id - 1);
		mark_dirty(conn);
	} else if (strncmp(line, "VERSION\t", 8) == 0) {
		conn_add(conn, "MECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\n"
			 "COOKIE\t0123456789abcdef0123456789abcdef\nDONE\n");
		mark_dirty(conn);
	}
	return true;
}

static void auth_accept(struct conn *listener)
{
	struct conn *conn;
	int fd;

	while ((fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		conn = conn_new(fd, KIND_AUTH);
		conn_add(conn, "VERSION\t1\t2\n");
		mark_dirty(conn);
	}
}

static void copy_field(const char *line, const char *name, char *dest,
		       size_t size)
{
	const char *value = strstr(line, name);
	size_t len;

	if (value == NULL)
		die("No %s in: %s", name + 1, line);
	value += strlen(name);
	len = strcspn(value, "\t");
	if (len >= size)
		die("Strange %s in: %s", name + 1, line);
	memcpy(dest, value, len);
	dest[len] = '\0';
}

static void session_tell(unsigned int user, const char *fmt, ...)
{
	struct conn *conn = told[user % opt.logins];
	va_list args;

	va_start(args, fmt);
	conn->out_len += vsnprintf(conn_reserve(conn, 256), 256, fmt, args);
	va_end(args);
	mark_dirty(conn);
}

static struct session **token_bucket(const char *token, size_t len)
{
	uint32_t hash = 5381;

	while (len-- > 0)
		hash = hash * 33 + (unsigned char)*token++;
	return &by_token[hash % BUCKETS];
}

static void session_start(unsigned int user, const char *line)
{
	struct session *session = &sessions[user], **bucket;
	char hash[16];

	if (session->live)
		die("User %u has a session", user);
	if (opt.ipc || task.look)
		return;
	copy_field(line, "\tdirector_id=", session->token,
		   sizeof(session->token));
	copy_field(line, "\thost=", session->host, sizeof(session->host));
	copy_field(line, "\tuser_director_hash=", hash, sizeof(hash));
	session->hash = strtoul(hash, NULL, 10);
	session->live = true;
	bucket = &buckets[session->hash % BUCKETS];
	session->hash_next = *bucket;
	*bucket = session;
	bucket = token_bucket(session->token, strlen(session->token));
	session->token_next = *bucket;
	*bucket = session;
	live++;
	session_tell(user, "START\t%s\t%u\t%s\t%ld\tu%u@example.com\n",
		     session->token, session->hash, session->host,
		     (long)time(NULL), user);
}

static void session_end(struct session *session, const char *reason)
{
	struct session **p = &buckets[session->hash % BUCKETS];

	while (*p != session)
		p = &(*p)->hash_next;
	*p = session->hash_next;
	p = token_bucket(session->token, strlen(session->token));
	while (*p != session)
		p = &(*p)->token_next;
	*p = session->token_next;
	session->live = false;
	live--;
	session_tell(session - sessions, "END\t%s\t%s\n", session->token,
		     reason);
}

static bool login_line(struct conn *conn, char *line, size_t len)
{
	unsigned int user;

	(void)conn;
	(void)len;
	if (strcmp(line, "DONE") == 0)
		ready_count++;
	else if (strncmp(line, "FAIL\t", 5) == 0)
		die("Login failed: %s", line);
	else if (strncmp(line, "OK\t", 3) == 0) {
		user = strtoul(line + 3, NULL, 10) - 1;
		session_start(user, line);
		sessions[user].started = last_news = now_ns();
		order[task.answered++] = user;
	}
	return true;
}

static void session_kicked(struct session *session)
{
	session_end(session, "Kicked");
	kicked++;
	last_news = now_ns();
}

/* KICK-SESSION <token> <reason> */
static void kick_session(const char *token)
{
	size_t len = strcspn(token, "\t");
	struct session *session = *token_bucket(token, len);

	while (session != NULL && (strlen(session->token) != len ||
				   memcmp(session->token, token, len) != 0))
		session = session->token_next;
	if (session != NULL)
		session_kicked(session);
}

/* KICK <hash> <except ip> <reason> */
static bool plugin_line(struct conn *conn, char *line, size_t len)
{
	struct session *session, *next;
	char *except;
	size_t except_len;
	uint32_t hash;

	(void)len;
	if (strncmp(line, "KICK-SESSION\t", 13) == 0)
		kick_session(line + 13);
	if (strncmp(line, "KICK\t", 5) != 0)
		return true;
	hash = strtoul(line + 5, &except, 10);
	if (*except == '\t')
		except++;
	except_len = strcspn(except, "\t");
	session = buckets[hash % BUCKETS];
	for (; session != NULL; session = next) {
		next = session->hash_next;
		if (session->hash != hash ||
		    told[(session - sessions) % opt.logins] != conn ||
		    (except_len == strlen(session->host) &&
		     memcmp(except, session->host, except_len) == 0))
			continue;
		session_kicked(session);
	}
	return true;
}

/* <tag> <command> <arguments>. The count that is answered is of no use to the
   director. */
static bool ipc_line(struct conn *conn, char *line, size_t len)
{
	(void)len;
	if (strncmp(line, "VERSION\t", 8) == 0)
		return true;
	conn->out_len += sprintf(conn_reserve(conn, 64), "%u\t+1\n",
				 (unsigned int)strtoul(line, NULL, 10));
	mark_dirty(conn);
	kicked++;
	return true;
}

static bool control_line(struct conn *conn, char *line, size_t len)
{
	unsigned int first, count, rate = 0;

	(void)conn;
	(void)len;
	memset(&task, 0, sizeof(task));
	if (sscanf(line, "wait %u", &task.wait) == 1)
		task.waits = true;
	else if (sscanf(line, "hold %u %u", &first, &count) == 2 ||
		 sscanf(line, "visit %u %u %u", &first, &count, &rate) >= 2 ||
		 sscanf(line, "look %u %u %u", &first, &count, &rate) >= 2) {
		if (first + count > MAX_USERS)
			die("Too many users: %s", line);
		task.first = first;
		task.count = count;
		task.rate = rate;
		task.visit = line[0] == 'v';
		task.look = line[0] == 'l';
	} else
		die("Unknown command: %s", line);
	task.start = last_news = now_ns();
	return true;
}

static void send_lookups(uint64_t now)
{
	unsigned int due = task.count, user;
	struct conn *conn;
	char *p;

	if (task.rate > 0) {
		uint64_t count = (now - task.start) / 1000 * task.rate /
			1000000;

		due = count < due ? count : due;
	}
	while (task.sent < due && task.sent - task.answered < MAX_WAITING) {
		user = task.first + task.sent++;
		conn = logins[user % opt.logins];
		p = conn_reserve(conn, 32 + sizeof(auth_args));
		p += sprintf(p, "AUTH\t%u", user + 1);
		memcpy(p, auth_args, sizeof(auth_args) - 1);
		conn->out_len = p + sizeof(auth_args) - 1 - conn->out;
		mark_dirty(conn);
	}
}

static void tell_later(uint64_t now)
{
	struct session *session;

	for (; task.ups < task.answered; task.ups++) {
		session = &sessions[order[task.ups]];
		if (session->started + UP_NS > now)
			break;
		if (session->live)
			session_tell(session - sessions, "UP\t%s\n",
				     session->token);
	}
	for (; task.visit && task.left < task.answered; task.left++) {
		session = &sessions[order[task.left]];
		if (session->started + LEAVE_NS > now)
			break;
		if (session->live)
			session_end(session, "Logged out");
	}
}

/* Whoever waits for that reads it. */
static void task_ended(uint64_t now)
{
	printf("{\"live\": %u, \"kicked\": %u, \"seconds\": %.4f, "
	       "\"driver_ns\": %llu}\n", live, kicked, (now - task.start) / 1e9,
	       (unsigned long long)clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	fflush(stdout);
	task.start = 0;
}

static bool output_is_empty(void)
{
	for (unsigned int i = 0; i < opt.logins; i++) {
		if (told[i]->out_len > 0)
			return false;
	}
	return true;
}

static void task_run(void)
{
	uint64_t now = now_ns();

	send_lookups(now);
	tell_later(now);
	flush_dirty();
	if (task.ups == task.count && (!task.visit || task.left == task.count) &&
	    (!task.waits || live <= task.wait) && output_is_empty())
		task_ended(now);
	else if (now > last_news + STUCK_NS)
		die("%u of %u answered, %u sessions", task.answered,
		    task.count, live);
}

static bool conn_input(struct conn *conn)
{
	if (!conn_read(conn))
		return false;
	switch (conn->kind) {
	case KIND_AUTH: return conn_lines(conn, auth_line);
	case KIND_LOGIN: return conn_lines(conn, login_line);
	case KIND_PLUGIN: return conn_lines(conn, plugin_line);
	case KIND_IPC: return conn_lines(conn, ipc_line);
	default: return conn_lines(conn, control_line);
	}
}

static void poll_once(int msecs)
{
	struct epoll_event events[256];
	int count = epoll_wait(epoll_fd, events, 256, msecs);

	for (int i = 0; i < count; i++) {
		struct conn *conn = events[i].data.ptr;

		if (conn->kind == KIND_LISTEN) {
			auth_accept(conn);
			continue;
		}
		if ((events[i].events & EPOLLOUT) != 0)
			mark_dirty(conn);
		if ((events[i].events & ~EPOLLOUT) == 0 || conn_input(conn))
			continue;
		if (conn->kind == KIND_CONTROL)
			exit(0);
		die("A connection was closed (%d)", conn->kind);
	}
	flush_dirty();
}

/* Our plugin's pid has to be ours. */
static void connect_login(unsigned int i)
{
	unsigned int director = i % opt.login_count;
	int pid = opt.ipc ? 100000 + (int)i : getpid();
	char text[128];

	logins[i] = conn_new(unix_connect(opt.login_path[director]),
			     KIND_LOGIN);
	sprintf(text, "VERSION\t1\t2\nCPID\t%d\n", pid);
	conn_add(logins[i], text);
	mark_dirty(logins[i]);
	told[i] = conn_new(unix_connect(opt.told_path[director]),
			   opt.ipc ? KIND_IPC : KIND_PLUGIN);
	sprintf(text, opt.ipc ?
		"VERSION\tipc-server\t1\t0\nHANDSHAKE\tproxy\t%d\n" :
		"VERSION\tdirector-login-plugin\t1\t0\nPROCESS\t%d\timap\n"
		"ANNOUNCED\n", pid);
	conn_add(told[i], text);
	mark_dirty(told[i]);
	flush_dirty();
	poll_once(0);
}

static void run(void)
{
	for (unsigned int i = 0; i < opt.auth_count; i++)
		conn_new(unix_listen(opt.auth_path[i]), KIND_LISTEN);
	for (unsigned int i = 0; i < opt.logins; i++)
		connect_login(i);
	while (ready_count < opt.logins)
		poll_once(100);
	/* as the answer to a command: it is there */
	task_ended(now_ns());
	conn_new(STDIN_FILENO, KIND_CONTROL);
	for (;;) {
		if (task.start != 0)
			task_run();
		poll_once(task.start != 0 ? 1 : 1000);
	}
}

static const struct option long_options[] = {
	{ "auth", required_argument, NULL, 'a' },
	{ "login", required_argument, NULL, 'l' },
	{ "told", required_argument, NULL, 't' },
	{ "logins", required_argument, NULL, 'n' },
	{ "ipc", no_argument, NULL, 'i' },
	{ NULL, 0, NULL, 0 }
};

static unsigned int next_director(unsigned int *count)
{
	if (*count == MAX_DIRECTORS)
		die("Too many directors");
	return (*count)++;
}

static void parse_option(int c)
{
	switch (c) {
	case 'a': opt.auth_path[next_director(&opt.auth_count)] = optarg; break;
	case 'l': opt.login_path[next_director(&opt.login_count)] = optarg; break;
	case 't': opt.told_path[next_director(&opt.told_count)] = optarg; break;
	case 'n': opt.logins = strtoul(optarg, NULL, 10); break;
	case 'i': opt.ipc = true; break;
	default: die("See the source for the options");
	}
}

int main(int argc, char *argv[])
{
	struct rlimit limit;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(c);
	if (opt.login_count == 0 || opt.auth_count != opt.login_count ||
	    opt.told_count != opt.login_count || opt.logins == 0)
		die("Wrong options");
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	sessions = calloc(MAX_USERS, sizeof(*sessions));
	order = malloc(MAX_USERS * sizeof(*order));
	logins = calloc(opt.logins, sizeof(*logins));
	told = calloc(opt.logins, sizeof(*told));
	dirty = calloc(opt.logins * 3 + 16, sizeof(*dirty));
	run();
	return 0;
}
