/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "ioloop.h"
#include "str.h"
#include "strescape.h"
#include "istream.h"
#include "randgen.h"
#include "sleep.h"
#include "write-full.h"
#include "director-daemon.h"
#include "journal.h"
#include "journal-record.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/file.h>
#include <sys/stat.h>

#define JOURNAL_NAME "dovecot-director-journal"
#define JOURNAL_TMP_NAME JOURNAL_FILE_NAME".tmp"
#define JOURNAL_BAD_NAME JOURNAL_FILE_NAME".bad"
#define JOURNAL_LOCK_NAME JOURNAL_FILE_NAME".lock"

#define JOURNAL_BUFFER_SIZE (32*1024)
#define JOURNAL_MAX_LINE_LEN (16*1024)
/* Replaced when larger than twice what it was, plus this */
#define JOURNAL_GROWTH_MIN (1024*1024)
/* How often mtime says that we live */
#define JOURNAL_ALIVE_MSECS (10*1000)
/* After a write error the whole file is written anew after this */
#define JOURNAL_RETRY_MSECS (5*1000)

struct journal_file {
	int fd;
	uoff_t size;
	string_t *buf;
};

struct journal {
	struct event *event;
	int dir_fd, lock_fd;
	journal_dump_t *dump;
	/* Ours, and that of the journal that was read (0: unknown) */
	uint64_t generation, read_generation;

	/* The journal, and while it is being replaced the one to come */
	struct journal_file file, next;
	/* Where the dump into "next" is */
	uint32_t dump_pos;
	/* Size when it was last replaced */
	uoff_t replaced_size;
	struct timeout *to_alive, *to_retry, *to_replace;
	/* A write has failed: the file isn't complete */
	bool failed;
	bool started;
	bool locked;
};

/* Returns 1 if it is ours now, 0 if it is another one's, -1 on error. */
static int journal_try_lock(struct journal *journal)
{
	if (flock(journal->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		journal->locked = TRUE;
		return 1;
	}
	if (errno == EWOULDBLOCK || errno == EINTR)
		return 0;
	e_error(journal->event, "flock(%s) failed: %m", JOURNAL_LOCK_NAME);
	return -1;
}

/* Returns FALSE if superseded. */
static bool journal_lock(struct journal *journal, unsigned int wait_secs,
			 journal_superseded_t *superseded)
{
	unsigned int i;

	journal->lock_fd = openat(journal->dir_fd, JOURNAL_LOCK_NAME,
				  O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (journal->lock_fd == -1) {
		e_error(journal->event, "open(%s) failed: %m",
			JOURNAL_LOCK_NAME);
		return TRUE;
	}
	/* Nobody is served yet, so there is nothing to hold up. */
	for (i = 0; journal_try_lock(journal) == 0; i++) {
		if (superseded())
			return FALSE;
		if (i == wait_secs * 50) {
			e_warning(journal->event, "Another director process "
				  "still has %s after %u secs, going on "
				  "without it", JOURNAL_LOCK_NAME, wait_secs);
			return TRUE;
		}
		i_sleep_msecs(20);
	}
	return !superseded();
}

struct journal *journal_init(struct event *event, int dir_fd,
			     unsigned int lock_wait_secs,
			     journal_dump_t *dump,
			     journal_superseded_t *superseded)
{
	struct journal *journal;

	journal = i_new(struct journal, 1);
	journal->event = event_create(event);
	event_set_append_log_prefix(journal->event, "journal: ");
	journal->dir_fd = dir_fd;
	journal->dump = dump;
	journal->lock_fd = -1;
	do {
		random_fill(&journal->generation, sizeof(journal->generation));
	} while (journal->generation == 0);
	journal->file.fd = journal->next.fd = -1;
	journal->file.buf = str_new(default_pool, 1024);
	journal->next.buf = str_new(default_pool, 1024);
	if (dir_fd == -1) {
		e_error(journal->event, "No folder for it: after a restart "
			"users may be answered other backends");
	} else if (!journal_lock(journal, lock_wait_secs, superseded)) {
		journal_deinit(&journal);
		return NULL;
	}
	return journal;
}

static void file_close(struct journal_file *file)
{
	i_close_fd(&file->fd);
	str_truncate(file->buf, 0);
	file->size = 0;
}

void journal_deinit(struct journal **_journal)
{
	struct journal *journal = *_journal;

	*_journal = NULL;
	journal_commit(journal);
	timeout_remove(&journal->to_alive);
	timeout_remove(&journal->to_retry);
	timeout_remove(&journal->to_replace);
	if (journal->file.fd != -1)
		(void)futimens(journal->file.fd, NULL);
	file_close(&journal->file);
	file_close(&journal->next);
	i_close_fd(&journal->lock_fd);
	i_close_fd(&journal->dir_fd);
	str_free(&journal->file.buf);
	str_free(&journal->next.buf);
	event_unref(&journal->event);
	i_free(journal);
}

/* Returns FALSE if it is no header that we know. damaged_r: it is one, but not
   as it was written. */
static bool
read_header(struct journal *journal, const char *line, bool *damaged_r)
{
	const char *const *args = t_strsplit_tabescaped(line);
	unsigned int major, minor, count = str_array_length(args);
	uintmax_t generation;
	size_t len;

	if (count < 3 || strcmp(args[0], JOURNAL_NAME) != 0 ||
	    str_to_uint(args[1], &major) < 0) {
		e_error(journal->event, "%s isn't a journal of the director: "
			"ignored, kept as %s", JOURNAL_FILE_NAME,
			JOURNAL_BAD_NAME);
		return FALSE;
	}
	if (major != JOURNAL_MAJOR_VERSION) {
		e_error(journal->event, "%s has version %u, we know only "
			"version %u: ignored, kept as %s", JOURNAL_FILE_NAME,
			major, JOURNAL_MAJOR_VERSION, JOURNAL_BAD_NAME);
		return FALSE;
	}
	/* before minor version 1 it had nothing else */
	*damaged_r = str_to_uint(args[2], &minor) < 0 ||
		((minor > 0 || count > 3) && !journal_line_check(line, &len));
	if (!*damaged_r && count > 4 &&
	    str_to_uintmax_hex(args[3], &generation) == 0)
		journal->read_generation = generation;
	return TRUE;
}

/* Returns the next line, or what is left of it if it is too long; NULL at the
   end. */
static const char *read_line(struct istream *input, bool *too_long_r)
{
	const char *line;

	*too_long_r = FALSE;
	while ((line = i_stream_read_next_line(input)) == NULL &&
	       input->stream_errno == ENOBUFS) {
		*too_long_r = TRUE;
		i_stream_skip(input, i_stream_get_data_size(input));
		input->stream_errno = 0;
		input->eof = FALSE;
	}
	return line;
}

static void
read_lines(struct journal *journal, struct istream *input, bool header_damaged,
	   journal_callback_t *callback, void *context)
{
	struct director_record record;
	unsigned int linenum = 1, unknown = 0;
	unsigned int damaged = header_damaged ? 1 : 0, first_damaged = damaged;
	const char *line;
	bool too_long;
	int ret;

	while ((line = read_line(input, &too_long)) != NULL || too_long) {
		linenum++;
		T_BEGIN {
			ret = too_long ? -1 : journal_record_parse(line, &record);
			if (ret > 0)
				callback(context, &record);
		} T_END;
		if (ret < 0 && damaged++ == 0)
			first_damaged = linenum;
		else if (ret == 0)
			unknown++;
	}
	if (input->stream_errno != 0) {
		e_error(journal->event, "read() failed: %s",
			i_stream_get_error(input));
	}
	if (damaged > 0) {
		e_error(journal->event, "%u of %u lines are damaged "
			"(the first is line %u): skipped, the others are used; "
			"the file is kept as %s", damaged, linenum,
			first_damaged, JOURNAL_BAD_NAME);
		if (linkat(journal->dir_fd, JOURNAL_FILE_NAME,
			   journal->dir_fd, JOURNAL_BAD_NAME, 0) < 0)
			e_error(journal->event, "link(%s) failed: %m",
				JOURNAL_BAD_NAME);
	}
	if (unknown > 0) {
		e_warning(journal->event, "%u lines are of a kind that this "
			  "version doesn't know: skipped", unknown);
	}
}

void journal_read(struct journal *journal, journal_callback_t *callback,
		  void *context, time_t *alive_until_r)
{
	struct istream *input;
	struct stat st;
	const char *line;
	bool damaged;
	int fd;

	*alive_until_r = 0;
	journal->read_generation = 0;
	if (journal->dir_fd == -1)
		return;
	fd = openat(journal->dir_fd, JOURNAL_FILE_NAME, O_RDONLY | O_CLOEXEC);
	if (fd == -1) {
		if (errno != ENOENT)
			e_error(journal->event, "open(%s) failed: %m",
				JOURNAL_FILE_NAME);
		return;
	}
	if (fstat(fd, &st) == 0)
		*alive_until_r = st.st_mtime;
	(void)unlinkat(journal->dir_fd, JOURNAL_BAD_NAME, 0);

	input = i_stream_create_fd_autoclose(&fd, JOURNAL_MAX_LINE_LEN);
	i_stream_set_name(input, JOURNAL_FILE_NAME);
	/* one that was cut off exactly before its LF is whole */
	i_stream_set_return_partial_line(input, TRUE);
	line = i_stream_read_next_line(input);
	if (line != NULL && read_header(journal, line, &damaged))
		read_lines(journal, input, damaged, callback, context);
	else {
		if (line == NULL && i_stream_get_data_size(input) > 0)
			(void)read_header(journal, "", &damaged);
		else if (input->stream_errno != 0) {
			e_error(journal->event, "read() failed: %s",
				i_stream_get_error(input));
		}
		*alive_until_r = 0;
		(void)renameat(journal->dir_fd, JOURNAL_FILE_NAME,
			       journal->dir_fd, JOURNAL_BAD_NAME);
	}
	i_stream_unref(&input);
}

static void journal_failed(struct journal *journal, const char *what);

static void file_write(struct journal *journal, struct journal_file *file)
{
	size_t size = str_len(file->buf);

	if (size == 0)
		return;
	if (file->fd == -1 ||
	    write_full(file->fd, str_data(file->buf), size) == 0) {
		file->size += size;
		str_truncate(file->buf, 0);
		return;
	}
	/* a new file may have room where the old one has none */
	if (file == &journal->next)
		i_close_fd(&file->fd);
	journal_failed(journal, "write");
	/* whatever was written of the last line must not damage the next */
	str_truncate(file->buf, 0);
	str_append_c(file->buf, '\n');
}

static void
file_record(struct journal *journal, struct journal_file *file,
	    const struct director_record *record)
{
	T_BEGIN {
		journal_record_append(file->buf, record);
	} T_END;
	if (str_len(file->buf) >= JOURNAL_BUFFER_SIZE)
		file_write(journal, file);
}

static int next_open(struct journal *journal)
{
	struct journal_file *next = &journal->next;

	journal->dump_pos = 0;
	str_truncate(next->buf, 0);
	next->size = 0;
	/* an old process may still have one open */
	(void)unlinkat(journal->dir_fd, JOURNAL_TMP_NAME, 0);
	next->fd = openat(journal->dir_fd, JOURNAL_TMP_NAME,
			  O_CREAT | O_EXCL | O_WRONLY | O_APPEND | O_CLOEXEC,
			  0600);
	if (next->fd == -1) {
		journal_failed(journal, "open");
		return -1;
	}
	str_printfa(next->buf, "%s\t%u\t%u\t%016"PRIx64, JOURNAL_NAME,
		    JOURNAL_MAJOR_VERSION, JOURNAL_MINOR_VERSION,
		    journal->generation);
	journal_line_end(next->buf, 0);
	return 0;
}

static void next_record(void *context, const struct director_record *record)
{
	struct journal *journal = context;

	file_record(journal, &journal->next, record);
}

/* Is the file with that name another one than this? */
static bool
file_is_other(struct journal *journal, const char *name, int fd)
{
	struct stat st, st_name;

	return fd != -1 && fstat(fd, &st) == 0 &&
		fstatat(journal->dir_fd, name, &st_name,
			AT_SYMLINK_NOFOLLOW) == 0 &&
		(st.st_ino != st_name.st_ino || st.st_dev != st_name.st_dev);
}

/* Returns FALSE if a process that started after us keeps the journal now: it
   didn't get the lock in time and went on without it. */
static bool journal_is_ours(struct journal *journal)
{
	if (!file_is_other(journal, JOURNAL_FILE_NAME, journal->file.fd) &&
	    !file_is_other(journal, JOURNAL_TMP_NAME, journal->next.fd))
		return TRUE;
	if (journal->started) {
		e_error(journal->event, "Another director process has taken it "
			"over, nothing is kept by this one any more");
	}
	journal->started = FALSE;
	timeout_remove(&journal->to_alive);
	timeout_remove(&journal->to_retry);
	timeout_remove(&journal->to_replace);
	file_close(&journal->file);
	file_close(&journal->next);
	return FALSE;
}

uint64_t journal_generation(struct journal *journal)
{
	return journal->started && journal->dir_fd != -1 &&
		journal_is_ours(journal) ? journal->generation : 0;
}

uint64_t journal_read_generation(const struct journal *journal)
{
	return journal->read_generation;
}

/* The next file is complete: from now on it is the journal. */
static void next_finish(struct journal *journal)
{
	file_write(journal, &journal->next);
	if (journal->next.fd == -1 || !journal_is_ours(journal))
		return;
	if (renameat(journal->dir_fd, JOURNAL_TMP_NAME,
		     journal->dir_fd, JOURNAL_FILE_NAME) < 0) {
		i_close_fd(&journal->next.fd);
		journal_failed(journal, "rename");
		return;
	}
	str_truncate(journal->file.buf, 0);
	i_close_fd(&journal->file.fd);
	journal->file.fd = journal->next.fd;
	journal->file.size = journal->replaced_size = journal->next.size;
	journal->next.fd = -1;
	if (journal->failed) {
		journal->failed = FALSE;
		timeout_remove(&journal->to_retry);
		e_info(journal->event, "Is kept again");
	}
}

/* A slice; the ioloop serves others between two. */
static void journal_replace(struct journal *journal)
{
	if (journal->next.fd == -1 && next_open(journal) < 0) {
		timeout_remove(&journal->to_replace);
		return;
	}
	if (journal->dump(&journal->dump_pos, next_record, journal) &&
	    journal->next.fd != -1)
		return;
	timeout_remove(&journal->to_replace);
	if (journal->next.fd != -1)
		next_finish(journal);
}

static void journal_replace_start(struct journal *journal)
{
	timeout_remove(&journal->to_retry);
	if (journal->to_replace == NULL) {
		journal->to_replace = timeout_add_short(
			DIRECTOR_SLICE_PAUSE_MSECS, journal_replace, journal);
	}
}

static void journal_failed(struct journal *journal, const char *what)
{
	if (!journal->failed) {
		e_error(journal->event, "%s(%s) failed: %m - until this is "
			"mended, users may be answered other backends after a "
			"restart", what, JOURNAL_FILE_NAME);
	}
	journal->failed = TRUE;
	if (journal->to_retry == NULL) {
		journal->to_retry = timeout_add(JOURNAL_RETRY_MSECS,
						journal_replace_start,
						journal);
	}
}

static void journal_alive(struct journal *journal)
{
	if (journal->file.fd != -1)
		(void)futimens(journal->file.fd, NULL);
	/* whoever held it longer than we could wait may be gone now */
	if (!journal->locked && journal->lock_fd != -1)
		(void)journal_try_lock(journal);
}

void journal_start(struct journal *journal)
{
	journal->started = TRUE;
	if (journal->dir_fd == -1)
		return;
	if (next_open(journal) == 0) {
		while (journal->next.fd != -1 &&
		       journal->dump(&journal->dump_pos, next_record, journal))
			;
		next_finish(journal);
	}
	journal->to_alive = timeout_add(JOURNAL_ALIVE_MSECS, journal_alive,
					journal);
}

void journal_record(struct journal *journal,
		    const struct director_record *record)
{
	if (!journal->started || journal->dir_fd == -1)
		return;
	file_record(journal, &journal->file, record);
	if (journal->next.fd != -1)
		file_record(journal, &journal->next, record);
}

void journal_commit(struct journal *journal)
{
	file_write(journal, &journal->file);
	if (!journal->failed && journal->file.fd != -1 &&
	    journal->file.size >= journal->replaced_size * 2 +
				  JOURNAL_GROWTH_MIN)
		journal_replace_start(journal);
}
