/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "ioloop.h"
#include "istream.h"
#include "llist.h"
#include "net.h"
#include "str.h"
#include "str-sanitize.h"
#include "strescape.h"
#include "master-service.h"
#include "director-daemon.h"
#include "proxy-notify.h"

#include <unistd.h>

/* Longest user name that auth accepts is far below */
#define NOTIFY_MAX_LINE_LEN 8192
/* Names handled before there is a pause */
#define NOTIFY_MAX_LINES 200
/* Complaints about broken lines: not more often than this */
#define NOTIFY_LOG_INTERVAL_SECS 10
/* Names that come more often than this are collected for so long: none of them
   is urgent, and waking up costs more than what is done for a name. */
#define NOTIFY_COLLECT_MSECS 10
/* A FIFO that can't be read is tried again after this */
#define NOTIFY_RETRY_MSECS 1000

struct proxy_notify {
	struct proxy_notify *prev, *next;
	struct istream *input;
	struct io *io;
	struct timeout *to;
	int fd;
	bool fifo;
	/* The rest of a line that was too long is skipped */
	bool skipping;

	uint64_t last_msecs;
	time_t logged;
	unsigned int unlogged;
};

static struct proxy_notify *notifies;

static void notify_input(struct proxy_notify *notify);

static void notify_destroy(struct proxy_notify **_notify)
{
	struct proxy_notify *notify = *_notify;
	bool fifo = notify->fifo;

	*_notify = NULL;
	DLLIST_REMOVE(&notifies, notify);
	timeout_remove(&notify->to);
	io_remove(&notify->io);
	i_stream_unref(&notify->input);
	i_close_fd(&notify->fd);
	i_free(notify);
	/* a FIFO isn't counted by lib-master */
	if (!fifo)
		master_service_client_connection_destroyed(master_service);
}

static void
notify_bad_line(struct proxy_notify *notify, const char *what,
		const unsigned char *data, size_t size)
{
	string_t *start = t_str_new(64);

	notify->unlogged++;
	if (notify->logged != 0 &&
	    ioloop_time < notify->logged + NOTIFY_LOG_INTERVAL_SECS &&
	    ioloop_time >= notify->logged)
		return;
	str_append_tabescaped_n(start, data, I_MIN(size, 40));
	e_error(director_daemon.event, "notify: %s, skipped: %s%s "
		"(%u such lines since the last message)", what,
		str_sanitize(str_c(start), 80), size > 40 ? "..." : "",
		notify->unlogged);
	notify->logged = ioloop_time;
	notify->unlogged = 0;
}

static void
notify_line(struct proxy_notify *notify, const unsigned char *data, size_t size)
{
	struct director_time now = director_daemon_now();
	const char *user;

	if (notify->skipping) {
		notify->skipping = FALSE;
		return;
	}
	if (size == 0 || memchr(data, '\0', size) != NULL) {
		notify_bad_line(notify, size == 0 ? "Empty line" :
				"Line with NUL", data, size);
		return;
	}
	user = t_str_tabunescape(t_strndup(data, size));
	director_refresh(director_daemon.core, user, &now);
}

static void notify_resume(struct proxy_notify *notify)
{
	timeout_remove(&notify->to);
	notify->io = io_add_istream(notify->input, notify_input, notify);
	i_stream_set_input_pending(notify->input, TRUE);
}

/* Input that is pending again when its callback returns would be called again
   before anybody else is; and whoever writes without end isn't to get all of
   our time. */
static void notify_pause(struct proxy_notify *notify, unsigned int msecs)
{
	io_remove(&notify->io);
	notify->to = timeout_add_short(msecs, notify_resume, notify);
}

static void notify_eof(struct proxy_notify *notify)
{
	if (!notify->fifo) {
		notify_destroy(&notify);
		return;
	}
	/* The master holds its other end, so this doesn't happen. */
	e_error(director_daemon.event, "notify: read() failed: %s",
		notify->input->stream_errno == 0 ? "EOF" :
		i_stream_get_error(notify->input));
	i_stream_unref(&notify->input);
	notify->input = i_stream_create_fd(notify->fd, NOTIFY_MAX_LINE_LEN);
	notify_pause(notify, NOTIFY_RETRY_MSECS);
}

/* Returns FALSE if the rest has to wait for its turn. */
static bool notify_lines(struct proxy_notify *notify)
{
	const unsigned char *data, *p;
	unsigned int i;
	size_t size;

	for (i = 0; i < NOTIFY_MAX_LINES; i++) {
		data = i_stream_get_data(notify->input, &size);
		p = memchr(data, '\n', size);
		if (p == NULL)
			return TRUE;
		T_BEGIN {
			notify_line(notify, data, p - data);
		} T_END;
		i_stream_skip(notify->input, p - data + 1);
	}
	return FALSE;
}

static bool notify_is_busy(struct proxy_notify *notify)
{
	uint64_t msecs = director_daemon_now().msecs;
	bool busy = msecs - notify->last_msecs < NOTIFY_COLLECT_MSECS * 3 / 2;

	notify->last_msecs = msecs;
	return busy;
}

static void notify_input(struct proxy_notify *notify)
{
	const unsigned char *data;
	size_t size;
	ssize_t ret;

	ret = i_stream_read(notify->input);
	if (!notify_lines(notify)) {
		/* what was read before the end comes first, too */
		notify_pause(notify, DIRECTOR_SLICE_PAUSE_MSECS);
		ret = 0;
	} else if (ret > 0) {
		/* after a large read there is more */
		if (notify_is_busy(notify) && ret < NOTIFY_MAX_LINE_LEN / 2)
			notify_pause(notify, NOTIFY_COLLECT_MSECS);
	} else if (ret == -2) {
		data = i_stream_get_data(notify->input, &size);
		if (size > 0 && memchr(data, '\n', size) == NULL) {
			if (!notify->skipping) {
				T_BEGIN {
					notify_bad_line(notify,
						"Too long line", data, size);
				} T_END;
			}
			notify->skipping = TRUE;
			i_stream_skip(notify->input, size);
		}
	}
	director_daemon_schedule();
	if (ret == -1)
		notify_eof(notify);
}

void proxy_notify_create(struct master_service_connection *conn)
{
	struct proxy_notify *notify;

	notify = i_new(struct proxy_notify, 1);
	notify->fd = conn->fd;
	notify->fifo = conn->fifo;
	notify->input = i_stream_create_fd(conn->fd, NOTIFY_MAX_LINE_LEN);
	notify->io = io_add_istream(notify->input, notify_input, notify);
	DLLIST_PREPEND(&notifies, notify);
	net_set_nonblock(conn->fd, TRUE);
	/* For a FIFO this only says that lib-master must not close it. */
	master_service_client_connection_accept(conn);
}

void proxy_notify_deinit(void)
{
	struct proxy_notify *notify;

	while ((notify = notifies) != NULL)
		notify_destroy(&notify);
}
