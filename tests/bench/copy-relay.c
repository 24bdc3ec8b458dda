/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The least that any director between login processes and auth can do: copies
   what comes and adds a host to each OK, one read and one write each way. It
   shows what of the director's CPU time is the price of its place. */

#define _GNU_SOURCE
#include "load.h"

#define HOST "\thost=127.0.0.11"

struct side {
	int fd;
	bool auth;
	struct side *other;
};

static const char *auth_path;

static struct side *side_new(int fd, bool auth)
{
	struct side *side = calloc(1, sizeof(*side));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = side };

	side->fd = fd;
	side->auth = auth;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("epoll_ctl(): %s", strerror(errno));
	return side;
}

static void relay_accept(int listen_fd)
{
	struct side *login, *auth;
	int fd;

	if ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) < 0)
		return;
	login = side_new(fd, false);
	auth = side_new(unix_connect(auth_path), true);
	login->other = auth;
	auth->other = login;
}

/* Lines come whole, because every writer writes whole lines and they are short
   enough to be read at once. */
static void relay(struct side *side)
{
	static char in[INPUT_SIZE], out[INPUT_SIZE * 2];
	ssize_t len = read(side->fd, in, sizeof(in));
	char *line = in, *lf, *p = out;

	if (len <= 0) {
		if (side->other != NULL) {
			shutdown(side->other->fd, SHUT_RDWR);
			side->other->other = NULL;
		}
		close(side->fd);
		free(side);
		return;
	}
	if (side->other == NULL)
		return;
	if (!side->auth) {
		if (write(side->other->fd, in, len) != len)
			die("write() failed");
		return;
	}
	for (; (lf = memchr(line, '\n', in + len - line)) != NULL;
	     line = lf + 1) {
		p = mempcpy(p, line, lf - line);
		if (memcmp(line, "OK\t", 3) == 0)
			p = mempcpy(p, HOST, strlen(HOST));
		*p++ = '\n';
	}
	if (write(side->other->fd, out, p - out) != p - out)
		die("write() failed");
}

int main(int argc, char *argv[])
{
	struct epoll_event events[256], ev = { .events = EPOLLIN };
	int listen_fd, count;

	if (argc != 3)
		die("copy-relay <login socket to make> <auth socket>");
	auth_path = argv[2];
	signal(SIGPIPE, SIG_IGN);
	listen_fd = unix_listen(argv[1]);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev);
	for (;;) {
		count = epoll_wait(epoll_fd, events, 256, -1);
		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr == NULL)
				relay_accept(listen_fd);
			else
				relay(events[i].data.ptr);
		}
	}
}
