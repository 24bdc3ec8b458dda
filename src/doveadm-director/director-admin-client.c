/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "istream.h"
#include "net.h"
#include "str.h"
#include "str-sanitize.h"
#include "strescape.h"
#include "master-service.h"
#include "director-admin-protocol.h"
#include "director-admin-client.h"

#include <unistd.h>
#include <poll.h>
#include <time.h>
#include <sysexits.h>

/* What of a server's line is repeated in an error */
#define MAX_QUOTED_LEN 256
/* Between attempts to get into the listen queue */
#define UNIX_RETRY_MSECS 20

struct director_admin_client {
	const char *path;
	int fd;
	struct istream *input;
	unsigned int reply_msecs;

	char *error;
	int error_status;
};

struct director_admin_client *director_admin_init(const char *path)
{
	struct director_admin_client *client;

	client = i_new(struct director_admin_client, 1);
	client->path = path;
	client->fd = -1;
	client->reply_msecs = DIRECTOR_ADMIN_REPLY_MSECS;
	return client;
}

void director_admin_deinit(struct director_admin_client **_client)
{
	struct director_admin_client *client = *_client;

	*_client = NULL;
	i_stream_destroy(&client->input);
	i_close_fd(&client->fd);
	i_free(client->error);
	i_free(client);
}

void director_admin_set_reply_limit(struct director_admin_client *client,
				    unsigned int msecs)
{
	client->reply_msecs = msecs;
}

const char *director_admin_error(struct director_admin_client *client,
				 int *status_r)
{
	*status_r = client->error_status;
	return client->error;
}

static int ATTR_FORMAT(3, 4)
admin_fail(struct director_admin_client *client, int status,
	   const char *format, ...)
{
	va_list args;

	va_start(args, format);
	i_free(client->error);
	client->error = i_strdup_vprintf(format, args);
	client->error_status = status;
	va_end(args);
	return -1;
}

static int admin_check_killed(struct director_admin_client *client)
{
	if (!master_service_is_killed(master_service))
		return 0;
	return admin_fail(client, EX_TEMPFAIL, "%s: Interrupted", client->path);
}

static uint64_t admin_now(void)
{
	struct timespec ts;

	/* can't fail */
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Returns 1 if there is something to do, 0 if the deadline has passed, -1 with
   an error if we are told to stop. */
static int
admin_poll(struct director_admin_client *client, short events,
	   uint64_t deadline)
{
	struct pollfd pfd = { .fd = client->fd, .events = events };
	uint64_t now;
	int ret;

	do {
		if (admin_check_killed(client) < 0)
			return -1;
		now = admin_now();
		ret = poll(&pfd, 1, now >= deadline ? 0 : deadline - now);
	} while (ret < 0 && errno == EINTR);
	if (ret < 0) {
		return admin_fail(client, EX_TEMPFAIL,
				  "poll(%s) failed: %m", client->path);
	}
	return ret;
}

static int admin_connect_unix(struct director_admin_client *client)
{
	uint64_t deadline = admin_now() + DIRECTOR_ADMIN_UNIX_CONNECT_MSECS;

	for (;;) {
		client->fd = net_connect_unix(client->path);
		if (client->fd != -1)
			return 0;
		/* EAGAIN: the listen queue is full */
		if (errno != EAGAIN || admin_now() >= deadline)
			break;
		/* poll() ignores an fd of -1 */
		if (admin_poll(client, 0, admin_now() + UNIX_RETRY_MSECS) < 0)
			return -1;
	}
	if (errno == EAGAIN) {
		return admin_fail(client, EX_TEMPFAIL,
			"net_connect_unix(%s) failed: "
			"Server is too busy to accept() for %u secs",
			client->path, DIRECTOR_ADMIN_UNIX_CONNECT_MSECS / 1000);
	}
	return admin_fail(client, EX_TEMPFAIL,
			  "net_connect_unix(%s) failed: %m", client->path);
}

static int admin_connect_tcp(struct director_admin_client *client)
{
	uint64_t deadline = admin_now() + DIRECTOR_ADMIN_CONNECT_MSECS;
	struct ip_addr *ips;
	unsigned int ips_count;
	const char *host, *addr;
	in_port_t port;
	int ret;

	if (net_str2hostport(client->path, 0, &host, &port) < 0 || port == 0) {
		return admin_fail(client, EX_TEMPFAIL,
			"Port not known for %s: use %s:port",
			client->path, client->path);
	}
	ret = net_gethostbyname(host, &ips, &ips_count);
	if (ret != 0) {
		return admin_fail(client, EX_TEMPFAIL,
			"Lookup of host %s failed: %s",
			host, net_gethosterror(ret));
	}
	addr = net_ipport2str(&ips[0], port);
	client->fd = net_connect_ip(&ips[0], port, NULL);
	if (client->fd == -1) {
		return admin_fail(client, EX_TEMPFAIL,
				  "connect(%s) failed: %m", addr);
	}
	ret = admin_poll(client, POLLOUT, deadline);
	if (ret < 0)
		return -1;
	if (ret == 0) {
		return admin_fail(client, EX_TEMPFAIL,
			"connect(%s) failed: Timed out in %u secs",
			addr, DIRECTOR_ADMIN_CONNECT_MSECS / 1000);
	}
	errno = net_geterror(client->fd);
	if (errno != 0) {
		return admin_fail(client, EX_TEMPFAIL,
				  "connect(%s) failed: %m", addr);
	}
	return 0;
}

static int
admin_write(struct director_admin_client *client, const string_t *str)
{
	uint64_t deadline = admin_now() + DIRECTOR_ADMIN_REPLY_MSECS;
	const unsigned char *data = str_data(str);
	size_t left = str_len(str);
	ssize_t ret;

	while (left > 0) {
		ret = write(client->fd, data, left);
		if (ret >= 0) {
			data += ret;
			left -= ret;
		} else if (errno == EPIPE || errno == ECONNRESET) {
			/* There may be a reply that tells why. */
			return 0;
		} else if (errno != EAGAIN && errno != EINTR) {
			return admin_fail(client, EX_TEMPFAIL,
				"write(%s) failed: %m", client->path);
		} else if ((ret = admin_poll(client, POLLOUT, deadline)) < 0) {
			return -1;
		} else if (ret == 0) {
			return admin_fail(client, EX_TEMPFAIL,
				"write(%s) timed out in %u secs", client->path,
				DIRECTOR_ADMIN_REPLY_MSECS / 1000);
		}
	}
	return 0;
}

/* Returns 1 and a line, 0 if there was none in time, -1 with an error. */
static int
admin_read(struct director_admin_client *client, unsigned int msecs,
	   const char *eof_error, const char **line_r)
{
	uint64_t deadline = admin_now() + msecs;
	int ret;

	for (;;) {
		if ((*line_r = i_stream_next_line(client->input)) != NULL)
			return 1;
		if (admin_check_killed(client) < 0)
			return -1;
		switch (i_stream_read(client->input)) {
		case -2:
			return admin_fail(client, EX_PROTOCOL,
				"%s sent a line longer than %u bytes",
				client->path, DIRECTOR_ADMIN_MAX_REPLY_LEN);
		case -1:
			if (client->input->stream_errno == 0) {
				return admin_fail(client, EX_TEMPFAIL,
					"%s %s", client->path, eof_error);
			}
			return admin_fail(client, EX_TEMPFAIL,
				"read(%s) failed: %s", client->path,
				strerror(client->input->stream_errno));
		case 0:
			if ((ret = admin_poll(client, POLLIN, deadline)) <= 0)
				return ret;
			break;
		}
	}
}

/* Dovecot's version_string_verify() moves between headers. */
static bool admin_version_is_ours(const char *line)
{
	unsigned int major;

	return str_begins(line, "VERSION\t"DIRECTOR_ADMIN_SERVICE"\t", &line) &&
		str_parse_uint(line, &major, &line) == 0 &&
		major == DIRECTOR_ADMIN_MAJOR_VERSION && *line == '\t';
}

static int admin_handshake(struct director_admin_client *client)
{
	string_t *str = t_str_new(64);
	const char *line;
	int ret;

	str_append(str, DIRECTOR_ADMIN_VERSION_LINE"\n");
	if (admin_write(client, str) < 0)
		return -1;

	ret = admin_read(client, DIRECTOR_ADMIN_HANDSHAKE_MSECS,
			 "disconnected", &line);
	if (ret < 0)
		return -1;
	if (ret == 0) {
		return admin_fail(client, EX_TEMPFAIL,
			"read(%s) timed out (is director configured?)",
			client->path);
	}
	if (!admin_version_is_ours(line)) {
		return admin_fail(client, EX_PROTOCOL,
			"%s not a compatible "DIRECTOR_ADMIN_SERVICE" socket",
			client->path);
	}
	return 0;
}

int director_admin_connect(struct director_admin_client *client)
{
	int ret;

	T_BEGIN {
		if (strchr(client->path, '/') != NULL)
			ret = admin_connect_unix(client);
		else
			ret = admin_connect_tcp(client);
		if (ret == 0) {
			client->input = i_stream_create_fd(client->fd,
				DIRECTOR_ADMIN_MAX_REPLY_LEN);
			i_stream_set_name(client->input, client->path);
			ret = admin_handshake(client);
		}
	} T_END;
	return ret;
}

int director_admin_send(struct director_admin_client *client,
			const char *const *args)
{
	string_t *str;
	int ret;

	T_BEGIN {
		str = t_str_new(256);
		for (unsigned int i = 0; args[i] != NULL; i++) {
			if (i > 0)
				str_append_c(str, '\t');
			str_append_tabescaped(str, args[i]);
		}
		if (str_len(str) > DIRECTOR_ADMIN_MAX_LINE_LEN) {
			ret = admin_fail(client, EX_USAGE,
				"%s command is longer than %u bytes: %s...",
				args[0], DIRECTOR_ADMIN_MAX_LINE_LEN,
				str_sanitize(str_c(str), MAX_QUOTED_LEN));
		} else {
			str_append_c(str, '\n');
			ret = admin_write(client, str);
		}
	} T_END;
	return ret;
}

int director_admin_read_line(struct director_admin_client *client,
			     const char **line_r)
{
	int ret;

	ret = admin_read(client, client->reply_msecs,
			 "unexpectedly disconnected", line_r);
	if (ret == 0) {
		ret = admin_fail(client, EX_TEMPFAIL,
			"read(%s) timed out: No reply in %u secs",
			client->path, client->reply_msecs / 1000);
	}
	return ret < 0 ? -1 : 0;
}
