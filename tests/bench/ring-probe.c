/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Logs new users in on one director, one after another, and asks another one's
   admin socket until that one knows him. Also plays the auth process behind
   the first one, whose socket this creates. Prints one JSON object. */

#define _GNU_SOURCE
#include "load.h"

#include <sched.h>

/* Nothing came for this long: give up */
#define STUCK_SECS 60
#define MAX_PROBES 100000

static struct {
	const char *auth_path, *login_path, *admin_path;
	unsigned int first, probes, poll_us, gap_us;
	bool realtime;
} opt = { .probes = 1000, .poll_us = 50, .gap_us = 1000 };

static FILE *auth, *login, *admin;

static FILE *open_stream(int fd)
{
	struct timeval tv = { .tv_sec = STUCK_SECS };

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fdopen(fd, "r");
}

static void say(FILE *stream, const char *fmt, ...)
{
	char line[512];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (send(fileno(stream), line, len, MSG_NOSIGNAL) != len)
		die("send(): %s", strerror(errno));
}

static const char *hear(FILE *stream)
{
	static char line[8192];

	if (fgets(line, sizeof(line), stream) == NULL)
		die("A connection was closed, or nothing came");
	return line;
}

static void hear_until(FILE *stream, const char *prefix)
{
	while (strncmp(hear(stream), prefix, strlen(prefix)) != 0)
		;
}

static void connect_all(void)
{
	int listen_fd = unix_listen(opt.auth_path);

	admin = open_stream(unix_connect(opt.admin_path));
	say(admin, "VERSION\tdirector-doveadm\t1\t0\n");
	hear_until(admin, "VERSION\t");

	login = open_stream(unix_connect(opt.login_path));
	say(login, "VERSION\t1\t2\nCPID\t99999\n");
	auth = open_stream(accept(listen_fd, NULL, NULL));
	say(auth, "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\n"
	    "COOKIE\t0123456789abcdef0123456789abcdef\nDONE\n");
	hear_until(login, "DONE");
	close(listen_fd);
}

/* Returns how long it took after the login until the other one knew him, in
   microseconds. */
static uint32_t probe(unsigned int id)
{
	uint64_t start = now_ns(), asked;

	say(login, "AUTH\t%u\tPLAIN\tservice=imap\tlip=127.0.0.1"
	    "\trip=127.0.0.2\tresp=AHUAcw==\n", id);
	hear_until(auth, "AUTH\t");
	say(auth, "OK\t%u\tuser=u%u@example.com\tproxy=y\tlip=127.0.0.1"
	    "\tlport=143\tpass=secret\n", id, opt.first + id);
	do {
		if (opt.poll_us > 0)
			usleep(opt.poll_us);
		asked = now_ns();
		if (asked - start > STUCK_SECS * 1000000000ULL)
			die("The other director never knows him");
		say(admin, "USER-LOOKUP\tu%u@example.com\t\n",
		    opt.first + id);
		/* current backend, expiry, hashed, configured */
	} while (hear(admin)[0] == '\t');
	/* it knew him when it was asked, or a little later */
	start = asked - start;
	hear_until(login, "OK\t");
	return start / 1000;
}

static const struct option long_options[] = {
	{ "auth", required_argument, NULL, 'a' },
	{ "login", required_argument, NULL, 'l' },
	{ "admin", required_argument, NULL, 'A' },
	{ "first", required_argument, NULL, 'f' },
	{ "probes", required_argument, NULL, 'n' },
	{ "poll", required_argument, NULL, 'P' },
	{ "gap", required_argument, NULL, 'g' },
	{ "realtime", no_argument, NULL, 'T' },
	{ NULL, 0, NULL, 0 }
};

int main(int argc, char *argv[])
{
	struct sched_param param = { .sched_priority = 1 };
	uint32_t *us;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'a': opt.auth_path = optarg; break;
		case 'l': opt.login_path = optarg; break;
		case 'A': opt.admin_path = optarg; break;
		case 'f': opt.first = strtoul(optarg, NULL, 10); break;
		case 'n': opt.probes = strtoul(optarg, NULL, 10); break;
		case 'P': opt.poll_us = strtoul(optarg, NULL, 10); break;
		case 'g': opt.gap_us = strtoul(optarg, NULL, 10); break;
		case 'T': opt.realtime = true; break;
		default: die("See the source for the options");
		}
	}
	if (opt.auth_path == NULL || opt.login_path == NULL ||
	    opt.admin_path == NULL || opt.probes > MAX_PROBES)
		die("Wrong options");
	signal(SIGPIPE, SIG_IGN);
	connect_all();
	if (opt.realtime)
		(void)sched_setscheduler(0, SCHED_RR, &param);
	us = malloc(sizeof(*us) * (opt.probes + 1));
	for (unsigned int i = 0; i < opt.probes; i++) {
		usleep(opt.gap_us);
		us[i] = probe(i + 1);
	}
	printf("{");
	print_latency("known", us, opt.probes);
	printf("\"probes\": %u}\n", opt.probes);
	return 0;
}
