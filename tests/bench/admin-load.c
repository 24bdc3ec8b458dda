/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#define _GNU_SOURCE
#include "load.h"
#include "admin-load.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* Ends with an empty line, or is one line */
static bool
admin_reply_complete(struct admin *admin, const char *command, FILE *f)
{
	bool list = strstr(command, "-LIST") != NULL;
	char line[512];

	while (fgets(line, sizeof(line), f) != NULL) {
		admin->bytes += strlen(line);
		admin->lines++;
		if (!list)
			snprintf(admin->reply, sizeof(admin->reply), "%.*s",
				 (int)strcspn(line, "\n"), line);
		if (!list || line[0] == '\n')
			return true;
	}
	return false;
}

/* Runs in a process of its own, as doveadm would, on any CPU */
static void
admin_run(struct admin *admin, const char *path, const char *command)
{
	static const char version[] = "VERSION\tdirector-doveadm\t1\t0\n";
	struct timespec ts = {
		.tv_sec = admin->start / 1000000000,
		.tv_nsec = admin->start % 1000000000,
	};
	int fd = unix_connect(path);
	FILE *f = fdopen(fd, "r");
	char line[256];
	cpu_set_t cpus;

	memset(&cpus, 0xff, sizeof(cpus));
	(void)sched_setaffinity(0, sizeof(cpus), &cpus);
	(void)setpriority(PRIO_PROCESS, 0, -20);
	setvbuf(f, NULL, _IOFBF, 256 * 1024);
	if (write(fd, version, strlen(version)) < 0 ||
	    fgets(line, sizeof(line), f) == NULL)
		die("admin handshake failed");
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
	snprintf(line, sizeof(line), "%s\n", command);
	admin->start = now_ns();
	if (write(fd, line, strlen(line)) < 0 ||
	    !admin_reply_complete(admin, command, f))
		die("%s: no reply", command);
	admin->end = now_ns();
	_exit(0);
}

struct admin *admin_start(const char *path, const char *command,
			  uint64_t start, pid_t *pid_r)
{
	struct admin *admin;

	admin = mmap(NULL, sizeof(*admin), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (admin == MAP_FAILED)
		die("mmap(): %s", strerror(errno));
	admin->start = start;
	*pid_r = fork();
	if (*pid_r == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		admin_run(admin, path, command);
	}
	return admin;
}
