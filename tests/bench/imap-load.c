/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Logs in and out over IMAP through a proxying Dovecot, and plays its backends,
   so that nothing but the proxy is worth measuring. Every login is checked.
   Prints one JSON object. */

#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#define MAX_SAMPLES 1000000
#define STUCK_NS 30000000000ULL

enum conn_kind { KIND_LISTEN, KIND_BACKEND, KIND_CLIENT };
enum client_state { STATE_GREETING, STATE_LOGIN, STATE_LOGOUT };

static struct {
	const char *backends;
	unsigned int port, backend_port, logins, concurrency, users;
} opt = { .concurrency = 20, .users = 1000 };

static unsigned int started, finished, backend_conns, backend_logins[256];
static uint64_t start_time, last_event;
static uint64_t *started_at;
static uint32_t *samples;
static unsigned int sample_count, changed;
static uint8_t *user_backend;

static void tcp_address(const char *ip, unsigned int port,
			struct sockaddr_in *addr)
{
	memset(addr, 0, sizeof(*addr));
	addr->sin_family = AF_INET;
	addr->sin_port = htons(port);
	if (inet_pton(AF_INET, ip, &addr->sin_addr) != 1)
		die("Not an IPv4 address: %s", ip);
}

static struct conn *tcp_conn(int fd, int kind)
{
	int on = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return conn_new(fd, kind);
}

static void backend_listen(const char *ip)
{
	struct sockaddr_in addr;
	struct conn *conn;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	tcp_address(ip, opt.backend_port, &addr);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (void *)&addr, sizeof(addr)) < 0 || listen(fd, 1024) < 0)
		die("bind(%s:%u): %s", ip, opt.backend_port, strerror(errno));
	conn = conn_new(fd, KIND_LISTEN);
	conn->number = ntohl(addr.sin_addr.s_addr) & 0xff;
}

static void backend_accept(struct conn *listener)
{
	struct conn *conn;
	int fd;

	while ((fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		conn = tcp_conn(fd, KIND_BACKEND);
		conn->number = listener->number;
		backend_conns++;
		conn_add(conn, "* OK [CAPABILITY IMAP4rev1 SASL-IR ID] ready\r\n");
		(void)conn_flush(conn);
	}
}

static void backend_login(struct conn *conn, const char *args)
{
	unsigned long user;

	/* u<number>, perhaps quoted */
	args += strcspn(args, "u");
	user = *args == '\0' ? opt.users : strtoul(args + 1, NULL, 10);
	if (user >= opt.users)
		die("Strange user on backend: %s", args);
	if (user_backend[user] != 0 && user_backend[user] != conn->number)
		changed++;
	user_backend[user] = conn->number;
	backend_logins[conn->number]++;
	conn_add(conn, "L OK [CAPABILITY IMAP4rev1] Logged in\r\n");
}

static bool backend_line(struct conn *conn, char *line, size_t len)
{
	(void)len;
	if (strncmp(line, "I ID ", 5) == 0)
		conn_add(conn, "* ID NIL\r\nI OK done\r\n");
	else if (strncmp(line, "L LOGIN ", 8) == 0)
		backend_login(conn, line + 8);
	else if (strncmp(line, "b LOGOUT", 8) == 0) {
		conn_add(conn, "* BYE Bye\r\nb OK done\r\n");
		(void)conn_flush(conn);
		return false;
	} else
		die("Strange command on backend: %s", line);
	return true;
}

static void client_start(unsigned int number)
{
	struct sockaddr_in addr;
	struct conn *conn;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	tcp_address("127.0.0.1", opt.port, &addr);
	if (connect(fd, (void *)&addr, sizeof(addr)) < 0)
		die("connect(127.0.0.1:%u): %s", opt.port, strerror(errno));
	conn = tcp_conn(fd, KIND_CLIENT);
	conn->number = number;
	started_at[number] = now_ns();
	started++;
}

static bool client_line(struct conn *conn, char *line, size_t len)
{
	char command[80];

	(void)len;
	switch ((enum client_state)conn->state) {
	case STATE_GREETING:
		if (strncmp(line, "* OK ", 5) != 0)
			die("Bad greeting: %s", line);
		sprintf(command, "a LOGIN u%u@example.com secret\r\n",
			(started * 7919U + conn->number) % opt.users);
		conn_add(conn, command);
		conn->state = STATE_LOGIN;
		break;
	case STATE_LOGIN:
		if (line[0] == '*')
			break;
		if (strncmp(line, "a OK ", 5) != 0)
			die("Login failed: %s", line);
		if (sample_count < MAX_SAMPLES) {
			samples[sample_count++] =
				(now_ns() - started_at[conn->number]) / 1000;
		}
		conn_add(conn, "b LOGOUT\r\n");
		conn->state = STATE_LOGOUT;
		break;
	case STATE_LOGOUT:
		break;
	}
	return true;
}

static void conn_closed(struct conn *conn)
{
	unsigned int number = conn->number;

	if (conn->kind == KIND_BACKEND)
		backend_conns--;
	else if (conn->state != STATE_LOGOUT)
		die("The proxy closed a connection before the login");
	else {
		finished++;
		if (started < opt.logins)
			client_start(number);
	}
	conn_free(conn);
}

static void poll_once(void)
{
	struct epoll_event events[64];
	int count = epoll_wait(epoll_fd, events, 64, 1000);

	for (int i = 0; i < count; i++) {
		struct conn *conn = events[i].data.ptr;

		last_event = now_ns();
		if (conn->kind == KIND_LISTEN) {
			backend_accept(conn);
			continue;
		}
		if (!conn_read(conn) ||
		    !conn_lines(conn, conn->kind == KIND_BACKEND ?
				backend_line : client_line) ||
		    !conn_flush(conn))
			conn_closed(conn);
	}
	if (now_ns() - last_event > STUCK_NS)
		die("Stuck: %u of %u logins finished", finished, opt.logins);
}

static void run(void)
{
	char *list = strdup(opt.backends), *ip;
	uint64_t own_cpu, secs_ns;

	for (ip = strtok(list, ","); ip != NULL; ip = strtok(NULL, ","))
		backend_listen(ip);
	start_time = last_event = now_ns();
	own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	while (started < opt.concurrency && started < opt.logins)
		client_start(started);
	while (finished < opt.logins || backend_conns > 0)
		poll_once();
	own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu;
	secs_ns = now_ns() - start_time;

	printf("{\"logins\": %u, \"seconds\": %.4f, \"driver_ns\": %.1f, "
	       "\"changed\": %u, ", finished, secs_ns / 1e9,
	       (double)own_cpu / finished, changed);
	print_latency("latency", samples, sample_count);
	printf("\"backends\": {");
	for (unsigned int i = 0, n = 0; i < 256; i++) {
		if (backend_logins[i] > 0) {
			printf("%s\"%u\": %u", n++ == 0 ? "" : ", ", i,
			       backend_logins[i]);
		}
	}
	printf("}}\n");
	fflush(stdout);
	if (changed > 0)
		die("%u logins were on another backend", changed);
}

static const struct option long_options[] = {
	{ "port", required_argument, NULL, 'p' },
	{ "backends", required_argument, NULL, 'b' },
	{ "backend-port", required_argument, NULL, 'P' },
	{ "logins", required_argument, NULL, 'n' },
	{ "concurrency", required_argument, NULL, 'c' },
	{ "users", required_argument, NULL, 'u' },
	{ NULL, 0, NULL, 0 }
};

int main(int argc, char *argv[])
{
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'p': opt.port = atoi(optarg); break;
		case 'b': opt.backends = optarg; break;
		case 'P': opt.backend_port = atoi(optarg); break;
		case 'n': opt.logins = strtoul(optarg, NULL, 10); break;
		case 'c': opt.concurrency = strtoul(optarg, NULL, 10); break;
		case 'u': opt.users = strtoul(optarg, NULL, 10); break;
		default: die("See the source for the options");
		}
	}
	if (opt.port == 0 || opt.backends == NULL || opt.backend_port == 0 ||
	    opt.logins == 0 || opt.concurrency == 0 || opt.users == 0)
		die("Wrong options");
	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	samples = malloc(sizeof(*samples) * MAX_SAMPLES);
	started_at = calloc(opt.concurrency, sizeof(*started_at));
	user_backend = calloc(opt.users, 1);
	run();
	return 0;
}
