/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "strnum.h"
#include "process-lives.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
/* proc_pid_stat(5): where they are behind the name, which may have anything in
   it but ends with the last ")" */
#define STAT_STATE 0
#define STAT_STARTTIME 19

time_t process_clock(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_BOOTTIME, &ts) < 0)
		i_fatal("clock_gettime(CLOCK_BOOTTIME) failed: %m");
	return ts.tv_sec;
}

/* Returns the length, or -1 */
static ssize_t read_file(const char *path, char *buf, size_t size)
{
	ssize_t ret;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		return -1;
	ret = read(fd, buf, size - 1);
	i_close_fd(&fd);
	if (ret >= 0)
		buf[ret] = '\0';
	return ret;
}

const char *process_boot_id(void)
{
	/* hexadecimal and dashes */
	static char id[40];

	if (id[0] == '\0' && read_file(BOOT_ID_PATH, id, sizeof(id)) > 0)
		id[strspn(id, "0123456789abcdef-")] = '\0';
	return id;
}

int process_lives(pid_t pid, time_t started_by)
{
	char buf[1024], *p;
	const char *const *fields;
	uintmax_t ticks;

	if (kill(pid, 0) < 0 && errno == ESRCH)
		return 0;
	if (read_file(t_strdup_printf("/proc/%ld/stat", (long)pid),
		      buf, sizeof(buf)) <= 0 ||
	    (p = strrchr(buf, ')')) == NULL || p[1] != ' ')
		return kill(pid, 0) < 0 && errno == ESRCH ? 0 : -1;
	fields = t_strsplit(p + 2, " ");
	if (str_array_length(fields) <= STAT_STARTTIME ||
	    str_to_uintmax(fields[STAT_STARTTIME], &ticks) < 0)
		return -1;
	return strchr("ZXx", fields[STAT_STATE][0]) == NULL &&
		ticks / sysconf(_SC_CLK_TCK) <= (uintmax_t)started_by ? 1 : 0;
}
