/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* A fuzzer's main() without a fuzzer: runs the files given, or else those of
   its corpus. */

#include "lib.h"
#include "read-full.h"
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void replay_file(const char *path)
{
	struct stat st;
	uint8_t *data;
	int fd = open(path, O_RDONLY);

	if (fd == -1 || fstat(fd, &st) < 0)
		i_fatal("Can't open %s: %m", path);
	data = i_malloc(st.st_size + 1);
	if (read_full(fd, data, st.st_size) <= 0 && st.st_size > 0)
		i_fatal("Can't read %s: %m", path);
	i_close_fd(&fd);
	/* the last one named is the one that failed */
	printf("%s\n", path);
	fflush(stdout);
	(void)LLVMFuzzerTestOneInput(data, st.st_size);
	i_free(data);
}

static unsigned int replay_folder(const char *path)
{
	unsigned int count = 0;
	struct dirent *entry;
	DIR *dir = opendir(path);

	if (dir == NULL)
		i_fatal("Can't open %s: %m", path);
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		T_BEGIN {
			replay_file(t_strconcat(path, "/", entry->d_name,
						NULL));
		} T_END;
		count++;
	}
	(void)closedir(dir);
	return count;
}

int main(int argc, char *argv[])
{
	const char *srcdir = getenv("srcdir");

	(void)LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++)
		replay_file(argv[i]);
	if (argc == 1) {
		srcdir = t_strconcat(srcdir == NULL ? "." : srcdir,
				     "/corpus/" CORPUS, NULL);
		if (replay_folder(srcdir) == 0)
			i_fatal("%s is empty", srcdir);
	}
	lib_deinit();
	return 0;
}
