/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "buffer.h"
#include "ioloop.h"
#include "llist.h"
#include "net.h"
#include "ostream-private.h"
#include "program-client.h"
#include "director-daemon.h"
#include "director-settings.h"
#include "flush-hook.h"

#include <sys/stat.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MSECS (10*1000)
/* Of what it prints, to be logged if it fails */
#define OUTPUT_MAX_SIZE (64*1024)
#define OUTPUT_MAX_LINES 20
/* In base_dir, where the director works */
#define DNS_CLIENT_SOCKET "dns-client"

struct hook_run {
	struct hook_run *prev, *next;
	struct director_flush_hook hook;
	/* What is run; NULL: it is queued */
	char *uri;
	struct program_client *client;
	buffer_t *output;
	struct timeout *to;
};

static struct {
	const struct director_settings *set;
	struct event *event;
	struct hook_run *running;
	/* Oldest first */
	struct hook_run *queue_head, *queue_tail;
	unsigned int running_count;
} hooks;

static void hooks_start(void);

void flush_hooks_init(const struct director_settings *set, struct event *event)
{
	i_zero(&hooks);
	hooks.set = set;
	hooks.event = event;
}

static void hook_free(struct hook_run *run)
{
	timeout_remove(&run->to);
	if (run->client != NULL)
		program_client_destroy(&run->client);
	buffer_free(&run->output);
	i_free(run->uri);
	i_free(run);
}

void flush_hooks_deinit(void)
{
	struct hook_run *run;

	while ((run = hooks.running) != NULL) {
		DLLIST_REMOVE(&hooks.running, run);
		hook_free(run);
	}
	while ((run = hooks.queue_head) != NULL) {
		DLLIST2_REMOVE(&hooks.queue_head, &hooks.queue_tail, run);
		hook_free(run);
	}
}

static void hook_ended(struct hook_run *run)
{
	struct director_time now = director_daemon_now();
	const struct director_flush_hook hook = run->hook;

	DLLIST_REMOVE(&hooks.running, run);
	hooks.running_count--;
	hook_free(run);
	director_flush_hook_ended(director_daemon.core, hook.hash, hook.id,
				  &now);
	hooks_start();
	director_daemon_schedule();
}

static void hook_log_failure(struct hook_run *run)
{
	const char *prefix = t_strdup_printf(
		"%s: Failed to flush user hash %u in host %s", run->uri,
		run->hook.hash, net_ip2addr(&run->hook.new_ip));
	const char *const *lines;
	unsigned int i;

	lines = t_strsplit(t_strndup(run->output->data, run->output->used),
			   "\n");
	for (i = 0; lines[i] != NULL && i < OUTPUT_MAX_LINES; i++) {
		if (lines[i][0] != '\0' || (i == 0 && lines[1] != NULL))
			e_error(hooks.event, "%s: %s", prefix, lines[i]);
	}
	if (run->output->used == 0) {
		e_error(hooks.event, "%s: (no output to stdout) (old host %s)",
			prefix, net_ip2addr(&run->hook.old_ip));
	}
}

static void
hook_callback(enum program_client_exit_status status, struct hook_run *run)
{
	switch (status) {
	case PROGRAM_CLIENT_EXIT_STATUS_SUCCESS:
		break;
	case PROGRAM_CLIENT_EXIT_STATUS_FAILURE:
		T_BEGIN {
			hook_log_failure(run);
		} T_END;
		break;
	default:
		e_error(hooks.event, "%s: Failed to flush user hash %u in host "
			"%s: it couldn't be run, or its reply is not valid "
			"(old host %s)", run->uri, run->hook.hash,
			net_ip2addr(&run->hook.new_ip),
			net_ip2addr(&run->hook.old_ip));
		break;
	}
	/* not while the client is calling us */
	timeout_remove(&run->to);
	run->to = timeout_add_short(0, hook_ended, run);
}

static void hook_timeout(struct hook_run *run)
{
	e_error(hooks.event, "%s: Failed to flush user hash %u in host %s: "
		"it didn't end within %u secs (old host %s)", run->uri,
		run->hook.hash, net_ip2addr(&run->hook.new_ip),
		FLUSH_HOOK_TIMEOUT_MSECS / 1000,
		net_ip2addr(&run->hook.old_ip));
	hook_ended(run);
}

/* A plain path names what is there. */
static const char *hook_uri(const char *value)
{
	struct stat st;

	if (*value != '/')
		return value;
	if (stat(value, &st) == 0 && S_ISSOCK(st.st_mode))
		return t_strconcat("unix:", value, NULL);
	return t_strconcat("exec:", value, NULL);
}

static const char *hook_hostname(const struct director_flush_hook *hook)
{
	const struct backend *backend =
		backend_lookup(director_backends(director_daemon.core),
			       &hook->new_ip);

	return backend == NULL || backend->hostname == NULL ? "" :
		backend->hostname;
}

static int hook_client_create(struct hook_run *run, const char **error_r)
{
	const struct director_flush_hook *hook = &run->hook;
	const char *value;
	const char *args[] = {
		"FLUSH", dec2str(hook->hash), t_strdup(net_ip2addr(&hook->old_ip)),
		t_strdup(net_ip2addr(&hook->new_ip)),
		hook->old_down ? "down" : "up", dec2str(hook->old_vhosts), NULL
	};
	const struct program_client_parameters params = {
		.client_connect_timeout_msecs = CONNECT_TIMEOUT_MSECS,
		.input_idle_timeout_msecs = FLUSH_HOOK_TIMEOUT_MSECS,
		.dns_client_socket_path = DNS_CLIENT_SOCKET,
	};

	if (flush_hook_expand(hooks.set->director_flush_socket,
			      net_ip2addr(&hook->new_ip), hook_hostname(hook),
			      &value, error_r) < 0)
		return -1;
	value = hook_uri(value);
	run->uri = i_strdup(value);
	return program_client_create(hooks.event, value, args, &params,
				     &run->client, error_r);
}

/* -- What it prints -- */

struct hook_output {
	struct ostream_private ostream;
	/* The run's */
	buffer_t *buf;
};

/* A buffer that is full would have the program wait for us until its time is
   over: what doesn't fit in is dropped. */
static ssize_t
hook_output_sendv(struct ostream_private *stream,
		  const struct const_iovec *iov, unsigned int iov_count)
{
	struct hook_output *output =
		container_of(stream, struct hook_output, ostream);
	size_t total = 0;
	unsigned int i;

	for (i = 0; i < iov_count; i++) {
		buffer_append(output->buf, iov[i].iov_base,
			      I_MIN(iov[i].iov_len, OUTPUT_MAX_SIZE -
				    output->buf->used));
		total += iov[i].iov_len;
	}
	stream->ostream.offset += total;
	return total;
}

static struct ostream *hook_output_create(buffer_t *buf)
{
	struct hook_output *output = i_new(struct hook_output, 1);

	output->buf = buf;
	output->ostream.sendv = hook_output_sendv;
	return o_stream_create(&output->ostream, NULL, -1);
}

static void hook_start(struct hook_run *run)
{
	struct ostream *output;
	const char *error;

	run->output = buffer_create_dynamic(default_pool, 256);
	if (hook_client_create(run, &error) < 0) {
		e_error(hooks.event, "director_flush_socket = %s: Failed to "
			"flush user hash %u in host %s: %s",
			hooks.set->director_flush_socket, run->hook.hash,
			net_ip2addr(&run->hook.new_ip), error);
		run->to = timeout_add_short(0, hook_ended, run);
		return;
	}
	output = hook_output_create(run->output);
	program_client_set_output(run->client, output);
	o_stream_unref(&output);
	run->to = timeout_add(FLUSH_HOOK_TIMEOUT_MSECS, hook_timeout, run);
#ifdef CLOSE_RANGE_CLOEXEC
	/* The program mustn't keep our connections open: others see that we
	   are gone when they are closed. */
	(void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
#endif
	program_client_run_async(run->client, hook_callback, run);
}

static void hooks_start(void)
{
	struct hook_run *run;

	while (hooks.running_count < hooks.set->director_max_parallel_moves &&
	       (run = hooks.queue_head) != NULL) {
		DLLIST2_REMOVE(&hooks.queue_head, &hooks.queue_tail, run);
		DLLIST_PREPEND(&hooks.running, run);
		hooks.running_count++;
		T_BEGIN {
			hook_start(run);
		} T_END;
	}
}

bool flush_hook_run(const struct director_flush_hook *hook)
{
	struct hook_run *run;

	if (hooks.set->director_flush_socket[0] == '\0')
		return FALSE;
	run = i_new(struct hook_run, 1);
	run->hook = *hook;
	DLLIST2_APPEND(&hooks.queue_head, &hooks.queue_tail, run);
	hooks_start();
	return TRUE;
}
