/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#ifndef LOAD_H
#define LOAD_H

/* What the load drivers share: buffered non-blocking connections on one epoll
   instance, and latency figures. Plain POSIX, so that the same binary drives
   Dovecot 2.3 and 2.4. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define INPUT_SIZE (64 * 1024)

struct conn {
	int fd;
	/* what the driver makes of it; an enum of its own */
	int kind, state;
	unsigned int number;
	size_t in_len, out_len, out_size;
	char *in, *out;
	/* in the list of connections that have new output */
	bool dirty;
	bool want_write;
};

static int epoll_fd = -1;

static inline void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static inline void
unix_address(const char *path, struct sockaddr_un *addr)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(addr->sun_path))
		die("Path is too long: %s", path);
	strcpy(addr->sun_path, path);
}

static inline int unix_connect(const char *path)
{
	struct sockaddr_un addr;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unix_address(path, &addr);
	if (connect(fd, (void *)&addr, sizeof(addr)) < 0)
		die("connect(%s): %s", path, strerror(errno));
	return fd;
}

static inline int unix_listen(const char *path)
{
	struct sockaddr_un addr;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unix_address(path, &addr);
	(void)unlink(path);
	if (bind(fd, (void *)&addr, sizeof(addr)) < 0 ||
	    chmod(path, 0666) < 0 || listen(fd, 4096) < 0)
		die("bind(%s): %s", path, strerror(errno));
	return fd;
}

/* CPU time of a single-threaded process, as the scheduler counts it */
static inline uint64_t process_cpu_ns(int pid)
{
	char path[64];
	unsigned long long ns;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	if ((f = fopen(path, "r")) == NULL || fscanf(f, "%llu", &ns) != 1)
		die("%s: %s", path, strerror(errno));
	fclose(f);
	return ns;
}

static inline void conn_epoll(struct conn *conn, int op)
{
	struct epoll_event ev = {
		.events = EPOLLIN | (conn->want_write ? EPOLLOUT : 0),
		.data.ptr = conn,
	};

	if (epoll_ctl(epoll_fd, op, conn->fd, &ev) < 0)
		die("epoll_ctl(): %s", strerror(errno));
}

static inline struct conn *conn_new(int fd, int kind)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	conn->fd = fd;
	conn->kind = kind;
	conn->in = malloc(INPUT_SIZE);
	conn->out_size = 1024;
	conn->out = malloc(conn->out_size);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	conn_epoll(conn, EPOLL_CTL_ADD);
	return conn;
}

static inline void conn_free(struct conn *conn)
{
	close(conn->fd);
	free(conn->in);
	free(conn->out);
	free(conn);
}

/* Room for at least size bytes more at the end of the output buffer */
static inline char *conn_reserve(struct conn *conn, size_t size)
{
	if (conn->out_size - conn->out_len < size) {
		conn->out_size = (conn->out_len + size) * 2;
		conn->out = realloc(conn->out, conn->out_size);
	}
	return conn->out + conn->out_len;
}

static inline void conn_add(struct conn *conn, const char *text)
{
	size_t len = strlen(text);

	memcpy(conn_reserve(conn, len), text, len);
	conn->out_len += len;
}

/* Returns false if the peer is gone */
static inline bool conn_flush(struct conn *conn)
{
	ssize_t ret = 0;
	bool blocked;

	if (conn->out_len > 0) {
		ret = send(conn->fd, conn->out, conn->out_len, MSG_NOSIGNAL);
		if (ret < 0 && errno != EAGAIN)
			return false;
		if (ret > 0) {
			conn->out_len -= ret;
			memmove(conn->out, conn->out + ret, conn->out_len);
		}
	}
	blocked = conn->out_len > 0;
	if (blocked != conn->want_write) {
		conn->want_write = blocked;
		conn_epoll(conn, EPOLL_CTL_MOD);
	}
	return true;
}

/* Returns false if the peer is gone */
static inline bool conn_read(struct conn *conn)
{
	ssize_t ret;

	if (conn->in_len == INPUT_SIZE)
		die("Line is too long: %.80s", conn->in);
	ret = read(conn->fd, conn->in + conn->in_len,
		   INPUT_SIZE - conn->in_len);
	if (ret < 0 && errno == EAGAIN)
		return true;
	if (ret <= 0)
		return false;
	conn->in_len += ret;
	return true;
}

/* Calls func for each whole line (NUL instead of LF). It must not free conn;
   false from it ends the walk and the result. */
static inline bool
conn_lines(struct conn *conn, bool (*func)(struct conn *, char *, size_t))
{
	char *line = conn->in, *end = conn->in + conn->in_len, *lf;
	bool ret = true;

	while (ret && (lf = memchr(line, '\n', end - line)) != NULL) {
		*lf = '\0';
		ret = func(conn, line, lf - line);
		line = lf + 1;
	}
	conn->in_len = end - line;
	memmove(conn->in, line, conn->in_len);
	return ret;
}

static inline int compare_uint32(const void *a, const void *b)
{
	uint32_t n1 = *(const uint32_t *)a, n2 = *(const uint32_t *)b;

	return n1 < n2 ? -1 : (n1 > n2 ? 1 : 0);
}

/* Sorts the latencies (microseconds) and prints them as a JSON object */
static inline void print_latency(const char *name, uint32_t *us, size_t count)
{
	size_t last = count == 0 ? 0 : count - 1;

	qsort(us, count, sizeof(*us), compare_uint32);
	if (count == 0)
		printf("\"%s\": null, ", name);
	else {
		printf("\"%s\": {\"count\": %zu, \"p50\": %u, \"p99\": %u, "
		       "\"p999\": %u, \"max\": %u}, ", name, count,
		       us[last / 2], us[(size_t)(last * 0.99)],
		       us[(size_t)(last * 0.999)], us[last]);
	}
}

#endif
