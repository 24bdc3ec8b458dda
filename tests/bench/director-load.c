/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Plays both ends of one or more directors: the login processes that connect to
   login/director, and the auth process behind it, whose socket this creates.
   Every answer is checked. Prints one JSON object. */

#define _GNU_SOURCE
#include "load.h"
#include "admin-load.h"

#include <sched.h>
#include <sys/wait.h>

#define MAX_OUTSTANDING (1U << 16)
#define MAX_SAMPLES 4000000
#define MAX_HOSTS 200
#define MAX_DIRECTORS 16
/* Nothing was answered for this long: give up */
#define STUCK_NS 90000000000ULL

enum conn_kind { KIND_LISTEN, KIND_AUTH, KIND_CLIENT, KIND_CONTROL };

struct request {
	unsigned int user;
	bool used;
	uint64_t due;
};

struct sample {
	uint32_t due_us, latency_us;
};

static struct {
	const char *auth_path[MAX_DIRECTORS], *login_path[MAX_DIRECTORS];
	int pid[MAX_DIRECTORS];
	/* How often each was given. Login processes are spread over the
	   directors; there may be more pids, whose CPU time counts, too. */
	unsigned int auth_count, login_count, pid_count;
	const char *admin_path, *admin_command;
	unsigned int first, users, clients, depth, rate;
	uint64_t requests;
	double idle_secs, tail_secs;
	bool random, may_change, realtime, control;
} opt = {
	.users = 1, .clients = 50, .depth = 1, .idle_secs = 1, .tail_secs = 1,
};

static struct request slots[MAX_OUTSTANDING];
static struct conn **clients;
static struct conn **dirty;
static unsigned int dirty_count, ready_count, auth_count;
static bool closing;
static struct sample *samples;
static size_t sample_count;
static uint8_t *user_host;
static char hosts[MAX_HOSTS][48];
static unsigned int host_count;
static uint64_t start_time, last_answer, sent, answered;
static uint64_t failed, hostless, changed;
static uint32_t next_id = 1;
static uint64_t random_state = 88172645463325252ULL;
static struct admin *admin;

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

static unsigned int next_user(void)
{
	if (!opt.random)
		return sent % opt.users;
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % opt.users;
}

static void send_request(struct conn *conn, uint64_t due)
{
	struct request *request;
	char *p;

	do {
		if (next_id >= INT32_MAX)
			next_id = 1;
		request = &slots[next_id++ % MAX_OUTSTANDING];
	} while (request->used);

	request->used = true;
	request->due = due;
	request->user = next_user();
	p = conn_reserve(conn, 32 + sizeof(auth_args));
	p += sprintf(p, "AUTH\t%u", next_id - 1);
	memcpy(p, auth_args, sizeof(auth_args) - 1);
	conn->out_len = p + sizeof(auth_args) - 1 - conn->out;
	sent++;
	mark_dirty(conn);
}

/* The auth process: the user is that of the request's slot */
static bool auth_line(struct conn *conn, char *line, size_t len)
{
	unsigned int id;

	if (len > 5 && memcmp(line, "AUTH\t", 5) == 0) {
		id = strtoul(line + 5, NULL, 10);
		conn->out_len += sprintf(conn_reserve(conn, 160),
			"OK\t%u\tuser=u%u@example.com\tproxy=y"
			"\tlip=127.0.0.1\tlport=143\tpass=secret\n", id,
			opt.first + slots[id % MAX_OUTSTANDING].user);
		mark_dirty(conn);
	} else if (strncmp(line, "VERSION\t", 8) == 0) {
		conn_add(conn, "MECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\n"
			 "COOKIE\t0123456789abcdef0123456789abcdef\nDONE\n");
		mark_dirty(conn);
	}
	return true;
}

static unsigned int host_number(const char *host, size_t len)
{
	unsigned int i;

	for (i = 0; i < host_count; i++) {
		if (memcmp(hosts[i], host, len) == 0 && hosts[i][len] == '\0')
			return i + 1;
	}
	if (host_count == MAX_HOSTS || len >= sizeof(hosts[0]))
		die("Strange host: %.*s", (int)len, host);
	memcpy(hosts[host_count], host, len);
	return ++host_count;
}

static void check_host(unsigned int user, const char *line, size_t len)
{
	const char *host = memmem(line, len, "\thost=", 6);
	unsigned int num;

	if (host == NULL) {
		hostless++;
		return;
	}
	host += 6;
	num = host_number(host, strcspn(host, "\t"));
	if (user_host[user] != 0 && user_host[user] != num)
		changed++;
	user_host[user] = num;
}

/* A login process */
static bool client_line(struct conn *conn, char *line, size_t len)
{
	struct request *request;
	bool ok = strncmp(line, "OK\t", 3) == 0;
	uint64_t now;

	if (!ok && strncmp(line, "FAIL\t", 5) != 0) {
		if (strcmp(line, "DONE") == 0)
			ready_count++;
		return true;
	}
	request = &slots[strtoul(line + (ok ? 3 : 5), NULL, 10) %
			 MAX_OUTSTANDING];
	if (!request->used)
		die("Unexpected answer: %s", line);
	request->used = false;
	if (ok)
		check_host(request->user, line, len);
	else
		failed++;

	now = last_answer = now_ns();
	answered++;
	if (sample_count < MAX_SAMPLES) {
		samples[sample_count++] = (struct sample) {
			.due_us = (request->due - start_time) / 1000,
			.latency_us = (now - request->due) / 1000,
		};
	}
	if (opt.rate == 0 && sent < opt.requests)
		send_request(conn, now);
	return true;
}

static void auth_accept(struct conn *listener)
{
	struct conn *conn;
	int fd;

	while ((fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		conn = conn_new(fd, KIND_AUTH);
		auth_count++;
		conn_add(conn, "VERSION\t1\t2\n");
		mark_dirty(conn);
	}
}

static void flush_dirty(void)
{
	for (unsigned int i = 0; i < dirty_count; i++) {
		dirty[i]->dirty = false;
		if (!conn_flush(dirty[i]))
			die("The director closed a connection");
	}
	dirty_count = 0;
}

/* The director has closed its connection to the auth process */
static void auth_closed(struct conn *conn)
{
	if (!closing)
		die("The director closed a connection");
	auth_count--;
	conn_free(conn);
}

/* "begin" and "end" on stdin stand for the start and the end of an admin
   command */
static bool control_line(struct conn *conn, char *line, size_t len)
{
	(void)conn;
	(void)len;
	if (strcmp(line, "begin") == 0)
		admin->start = now_ns();
	else
		admin->end = now_ns();
	return true;
}

static void poll_once(uint64_t timeout_ns)
{
	struct epoll_event events[256];
	struct timespec ts = {
		.tv_sec = timeout_ns / 1000000000,
		.tv_nsec = timeout_ns % 1000000000,
	};
	int count = epoll_pwait2(epoll_fd, events, 256, &ts, NULL);

	for (int i = 0; i < count; i++) {
		struct conn *conn = events[i].data.ptr;

		if (conn->kind == KIND_LISTEN) {
			auth_accept(conn);
			continue;
		}
		if ((events[i].events & EPOLLOUT) != 0)
			mark_dirty(conn);
		if ((events[i].events & ~EPOLLOUT) == 0)
			continue;
		if (conn->kind == KIND_CONTROL) {
			if (!conn_read(conn))
				die("Nobody controls us any more");
			conn_lines(conn, control_line);
		} else if (!conn_read(conn))
			auth_closed(conn);
		else {
			conn_lines(conn, conn->kind == KIND_AUTH ?
				   auth_line : client_line);
		}
	}
	flush_dirty();
}

static void connect_clients(void)
{
	char handshake[64];

	clients = calloc(opt.clients, sizeof(*clients));
	for (unsigned int i = 0; i < opt.clients; i++) {
		clients[i] = conn_new(unix_connect(
			opt.login_path[i % opt.login_count]), KIND_CLIENT);
		sprintf(handshake, "VERSION\t1\t2\nCPID\t%u\n", 100000 + i);
		conn_add(clients[i], handshake);
		mark_dirty(clients[i]);
		flush_dirty();
		poll_once(0);
	}
	last_answer = now_ns();
	while (ready_count < opt.clients) {
		poll_once(100000000);
		if (now_ns() - last_answer > 10000000000)
			die("Handshake timed out");
	}
}

/* Login processes go first, so that the director does not report a lost auth
   process */
static void disconnect_clients(void)
{
	uint64_t start = now_ns();

	closing = true;
	for (unsigned int i = 0; i < opt.clients; i++)
		conn_free(clients[i]);
	while (auth_count > 0) {
		poll_once(100000000);
		if (now_ns() - start > 10000000000)
			die("The director keeps auth connections open");
	}
}

/* So that what else runs on the machine does not count as latency. The admin
   client stays an ordinary process. We also play auth: its answers are not to
   wait for the CPU while directors use all there are. */
static void set_realtime(void)
{
	struct sched_param param = { .sched_priority = 2 };

	(void)sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param);
	param.sched_priority = 1;
	for (unsigned int i = 0; i < opt.pid_count; i++)
		(void)sched_setscheduler(opt.pid[i], SCHED_RR |
					 SCHED_RESET_ON_FORK, &param);
}

static uint64_t directors_cpu_ns(void)
{
	uint64_t cpu = 0;

	for (unsigned int i = 0; i < opt.pid_count; i++)
		cpu += process_cpu_ns(opt.pid[i]);
	return cpu;
}

/* When a ring's other directors have done their part as well */
static uint64_t settled_cpu_ns(void)
{
	uint64_t cpu = directors_cpu_ns(), last;

	if (opt.pid_count == 1)
		return cpu;
	do {
		last = cpu;
		usleep(50000);
		cpu = directors_cpu_ns();
	} while (cpu - last > 2000000);
	return cpu;
}

static void check_stuck(uint64_t now)
{
	if (answered < sent && now - last_answer > STUCK_NS)
		die("%llu requests were not answered",
		    (unsigned long long)(sent - answered));
}

/* As fast as it goes, opt.depth requests on each connection at a time */
static void run_closed(void)
{
	for (unsigned int i = 0; i < opt.clients * opt.depth; i++) {
		if (sent < opt.requests)
			send_request(clients[i % opt.clients], now_ns());
	}
	flush_dirty();
	while (answered < opt.requests) {
		poll_once(1000000000);
		check_stuck(now_ns());
	}
}

/* A request is due every 1/rate seconds, whether earlier ones were answered or
   not; its latency counts from when it was due */
static void run_paced(void)
{
	uint64_t gap = 1000000000 / opt.rate, due = start_time, now;
	uint64_t last = admin != NULL ? UINT64_MAX : opt.requests;

	while (answered < sent || sent < last) {
		now = now_ns();
		for (; sent < last && due <= now; due += gap) {
			if (sent - answered >= MAX_OUTSTANDING / 2)
				die("Too many requests are waiting");
			send_request(clients[sent % opt.clients], due);
		}
		flush_dirty();
		if (admin != NULL) {
			if (admin->end == 0 && now > admin->start + STUCK_NS)
				die("%s: no reply", opt.control ? "control" :
				    opt.admin_command);
			last = admin->end == 0 ||
				now < admin->end + opt.tail_secs * 1e9 ?
				UINT64_MAX : sent;
		}
		check_stuck(now);
		now = now_ns();
		poll_once(sent >= last ? 100000000 : due > now ? due - now : 0);
	}
}

static void print_samples(void)
{
	uint32_t *before = malloc(sizeof(*before) * (sample_count + 1));
	uint32_t *during = malloc(sizeof(*during) * (sample_count + 1));
	size_t before_count = 0, during_count = 0;
	uint64_t begin = UINT64_MAX;

	/* it may not have begun */
	if (admin != NULL && admin->start < now_ns())
		begin = (admin->start - start_time) / 1000;
	for (size_t i = 0; i < sample_count; i++) {
		/* a request that was due just before waits as well */
		if ((uint64_t)samples[i].due_us + samples[i].latency_us < begin)
			before[before_count++] = samples[i].latency_us;
		else
			during[during_count++] = samples[i].latency_us;
	}
	print_latency("latency", before, before_count);
	if (admin != NULL) {
		print_latency("during", during, during_count);
		printf("\"admin\": {\"seconds\": %.4f, \"bytes\": %llu, "
		       "\"lines\": %llu, \"reply\": \"%s\"}, ",
		       (admin->end - admin->start) / 1e9,
		       (unsigned long long)admin->bytes,
		       (unsigned long long)admin->lines, admin->reply);
	}
}

static void print_hosts(void)
{
	uint64_t counts[MAX_HOSTS + 1] = { 0 };

	for (unsigned int i = 0; i < opt.users; i++)
		counts[user_host[i]]++;
	printf("\"hosts\": {");
	for (unsigned int i = 0; i < host_count; i++) {
		printf("%s\"%s\": %llu", i == 0 ? "" : ", ", hosts[i],
		       (unsigned long long)counts[i + 1]);
	}
	printf("}}\n");
}

static void run(void)
{
	uint64_t cpu, own_cpu, secs_ns;
	pid_t admin_pid = 0;
	int status = 0;

	for (unsigned int i = 0; i < opt.auth_count; i++)
		conn_new(unix_listen(opt.auth_path[i]), KIND_LISTEN);
	connect_clients();
	if (opt.realtime)
		set_realtime();
	start_time = last_answer = now_ns();
	if (opt.admin_command != NULL) {
		admin = admin_start(opt.admin_path, opt.admin_command,
				    start_time + opt.idle_secs * 1e9,
				    &admin_pid);
	} else if (opt.control) {
		admin = calloc(1, sizeof(*admin));
		admin->start = UINT64_MAX / 2;
		conn_new(STDIN_FILENO, KIND_CONTROL);
	}
	cpu = directors_cpu_ns();
	own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	if (opt.rate == 0)
		run_closed();
	else
		run_paced();
	own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu;
	secs_ns = now_ns() - start_time;
	cpu = settled_cpu_ns() - cpu;
	disconnect_clients();
	if (admin_pid != 0 &&
	    (waitpid(admin_pid, &status, 0) < 0 || status != 0))
		die("%s failed", opt.admin_command);

	printf("{\"requests\": %llu, \"seconds\": %.4f, \"director_ns\": %.1f,"
	       " \"driver_ns\": %.1f, \"failed\": %llu, \"hostless\": %llu, "
	       "\"changed\": %llu, ", (unsigned long long)answered,
	       secs_ns / 1e9, (double)cpu / answered, (double)own_cpu / answered,
	       (unsigned long long)failed, (unsigned long long)hostless,
	       (unsigned long long)changed);
	print_samples();
	print_hosts();
	fflush(stdout);
	if (failed > 0 || hostless > 0 || (changed > 0 && !opt.may_change))
		die("%llu failed, %llu without host, %llu on another host",
		    (unsigned long long)failed, (unsigned long long)hostless,
		    (unsigned long long)changed);
}

static const struct option long_options[] = {
	{ "auth", required_argument, NULL, 'a' },
	{ "login", required_argument, NULL, 'l' },
	{ "pid", required_argument, NULL, 'p' },
	{ "first", required_argument, NULL, 'f' },
	{ "users", required_argument, NULL, 'u' },
	{ "requests", required_argument, NULL, 'n' },
	{ "random", no_argument, NULL, 'r' },
	{ "clients", required_argument, NULL, 'c' },
	{ "depth", required_argument, NULL, 'd' },
	{ "rate", required_argument, NULL, 'R' },
	{ "admin", required_argument, NULL, 'A' },
	{ "command", required_argument, NULL, 'C' },
	{ "idle", required_argument, NULL, 'i' },
	{ "tail", required_argument, NULL, 't' },
	{ "may-change", no_argument, NULL, 'm' },
	{ "realtime", no_argument, NULL, 'T' },
	{ "control", no_argument, NULL, 'x' },
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
	case 'p': opt.pid[next_director(&opt.pid_count)] = atoi(optarg); break;
	case 'f': opt.first = strtoul(optarg, NULL, 10); break;
	case 'u': opt.users = strtoul(optarg, NULL, 10); break;
	case 'n': opt.requests = strtoull(optarg, NULL, 10); break;
	case 'r': opt.random = true; break;
	case 'c': opt.clients = strtoul(optarg, NULL, 10); break;
	case 'd': opt.depth = strtoul(optarg, NULL, 10); break;
	case 'R': opt.rate = strtoul(optarg, NULL, 10); break;
	case 'A': opt.admin_path = optarg; break;
	case 'C': opt.admin_command = optarg; break;
	case 'i': opt.idle_secs = atof(optarg); break;
	case 't': opt.tail_secs = atof(optarg); break;
	case 'T': opt.realtime = true; break;
	case 'x': opt.control = true; break;
	case 'm': opt.may_change = true; break;
	default: die("See the source for the options");
	}
}

int main(int argc, char *argv[])
{
	struct rlimit limit;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(c);
	if (opt.auth_count != opt.login_count || opt.login_count == 0 ||
	    opt.pid_count == 0 || opt.users == 0 || opt.clients == 0 || opt.depth == 0 ||
	    (opt.admin_command != NULL) != (opt.admin_path != NULL) ||
	    (opt.admin_command != NULL && (opt.rate == 0 || opt.control)) ||
	    (opt.control && opt.rate == 0) ||
	    opt.clients * opt.depth > MAX_OUTSTANDING / 2)
		die("Wrong options");
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	samples = malloc(sizeof(*samples) * MAX_SAMPLES);
	user_host = calloc(opt.users, 1);
	dirty = calloc(opt.clients * 2 + 16, sizeof(*dirty));
	run();
	return 0;
}
