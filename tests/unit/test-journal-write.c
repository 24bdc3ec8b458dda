/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The journal's lock, its replacement, and what can go wrong with both */

#include "test-journal.h"
#include "sleep.h"
#include "time-util.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* More than what makes a replacement begin: 1 MB on top of twice the size */
#define GROW_RECORDS 60000

/* As another process would find the folder now, in a copy of it */
static void read_copy(void)
{
	char dir[sizeof(test_dir)];
	string_t *file = test_file("journal"), *tmp = NULL;
	const char *error;

	if (test_exists("journal.tmp"))
		tmp = test_file("journal.tmp");
	memcpy(dir, test_dir, sizeof(dir));
	i_strocpy(test_dir, "/tmp/test-journal.XXXXXX", sizeof(test_dir));
	assert_non_null(mkdtemp(test_dir));
	test_write_file("journal", str_data(file), str_len(file));
	if (tmp != NULL) {
		test_write_file("journal.tmp", str_data(tmp), str_len(tmp));
	}
	test_reread();
	assert_true(unlink_directory(test_dir, UNLINK_DIRECTORY_FLAG_RMDIR,
				     &error) >= 0);
	memcpy(test_dir, dir, sizeof(dir));
}

static void assert_users(uint32_t first, unsigned int idx, unsigned int count)
{
	assert_true(idx + count <= array_count(&test_read));
	for (unsigned int i = 0; i < count; i++) T_BEGIN {
		assert_true(test_record_equals(array_idx(&test_read, idx + i),
					       user_record(first + i)));
	} T_END;
}

/* -- The lock -- */

/* Returns when the child has the lock. It ends in msecs, or when *fd_r is
   closed. */
static pid_t lock_in_child(unsigned int msecs, int *fd_r)
{
	const char *path = test_path("journal.lock");
	int fds[2], done[2], fd;
	char c;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pipe(done), 0);
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		(void)close(fds[0]);
		(void)close(done[1]);
		fd = open(path, O_CREAT | O_RDWR, 0600);
		if (fd == -1 || flock(fd, LOCK_EX) < 0 ||
		    write(fds[1], "x", 1) != 1)
			_exit(1);
		if (msecs > 0)
			i_sleep_msecs(msecs);
		else if (read(done[0], &c, 1) != 0)
			_exit(1);
		_exit(0);
	}
	i_close_fd(&fds[1]);
	i_close_fd(&done[0]);
	assert_int_equal(read(fds[0], &c, 1), 1);
	i_close_fd(&fds[0]);
	*fd_r = done[1];
	return pid;
}

static void wait_for_child(pid_t pid, int *fd)
{
	int status;

	i_close_fd(fd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static struct journal *open_and_wait(unsigned int secs, unsigned int *msecs_r)
{
	struct timeval start, end;
	struct journal *journal;
	int fd = open(test_dir, O_RDONLY | O_DIRECTORY);

	assert_int_not_equal(fd, -1);
	i_gettimeofday(&start);
	journal = journal_init(test_event, fd, secs, test_dump,
			       test_not_superseded);
	i_gettimeofday(&end);
	*msecs_r = timeval_diff_msecs(&end, &start);
	return journal;
}

static void test_lock_waits(void **state ATTR_UNUSED)
{
	struct journal *journal;
	unsigned int msecs;
	int fd;
	pid_t pid = lock_in_child(400, &fd);

	journal = open_and_wait(20, &msecs);
	assert_true(msecs >= 300 && msecs <= 10000);
	test_assert_logged("");
	wait_for_child(pid, &fd);

	/* it is ours now, until the end */
	fd = open(test_path("journal.lock"), O_RDWR);
	assert_int_not_equal(fd, -1);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	journal_deinit(&journal);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	i_close_fd(&fd);
	test_assert_logged("");
}

static void test_lock_held(void **state ATTR_UNUSED)
{
	struct journal *journal;
	unsigned int msecs;
	int fd;
	pid_t pid = lock_in_child(0, &fd);

	journal = open_and_wait(1, &msecs);
	assert_true(msecs >= 1000 && msecs <= 10000);
	test_assert_logged("W journal: Another director process still has "
			   "journal.lock after 1 secs, going on without it\n");
	/* it works nevertheless */
	journal_start(journal);
	record_users(journal, 5, 1);
	journal_deinit(&journal);
	journal = open_and_wait(0, &msecs);
	assert_true(str_len(test_logs) > 0);
	str_truncate(test_logs, 0);
	test_journal_read(journal);
	assert_int_equal(array_count(&test_read), 1);
	assert_users(5, 0, 1);
	journal_deinit(&journal);
	wait_for_child(pid, &fd);

	journal = open_and_wait(0, &msecs);
	test_assert_logged("");
	journal_deinit(&journal);
}

static unsigned int test_superseded_after;

static bool test_superseded(void)
{
	return test_superseded_after-- == 0;
}

static void test_lock_superseded(void **state ATTR_UNUSED)
{
	int fd, dir_fd = open(test_dir, O_RDONLY | O_DIRECTORY);
	pid_t pid = lock_in_child(0, &fd);

	/* while waiting */
	assert_int_not_equal(dir_fd, -1);
	test_superseded_after = 3;
	assert_null(journal_init(test_event, dir_fd, 20, test_dump,
				 test_superseded));
	wait_for_child(pid, &fd);

	/* the lock is free */
	dir_fd = open(test_dir, O_RDONLY | O_DIRECTORY);
	assert_int_not_equal(dir_fd, -1);
	test_superseded_after = 0;
	assert_null(journal_init(test_event, dir_fd, 20, test_dump,
				 test_superseded));
	test_assert_logged("");
	fd = open(test_path("journal.lock"), O_RDWR);
	assert_int_not_equal(fd, -1);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	i_close_fd(&fd);
}

/* -- Replacement -- */

static struct journal *start_with_users(unsigned int count)
{
	struct journal *journal = test_journal_open();

	present_users(count);
	test_dump_slice = 100;
	journal_start(journal);
	assert_int_equal(test_dumps, 1);
	return journal;
}

static void test_replacement(void **state ATTR_UNUSED)
{
	struct journal *journal = start_with_users(2500);
	size_t size = str_len(test_file("journal")), threshold, grown;
	unsigned int slices = 0, i, old_count = 2500;

	threshold = size * 2 + 1024 * 1024;
	/* not before it has grown much */
	while (str_len(test_file("journal")) + 40000 < threshold) {
		record_users(journal, 100000, 1000);
		old_count += 1000;
		journal_commit(journal);
	}
	run_shortly();
	assert_int_equal(test_dumps, 1);
	record_users(journal, 100000, 2000);
	old_count += 2000;
	journal_commit(journal);
	assert_true(str_len(test_file("journal")) >= threshold);
	grown = str_len(test_file("journal"));

	/* a slice a turn; what comes meanwhile is in both */
	assert_int_equal(test_dumps, 1);
	for (i = 0; str_len(test_file("journal")) >= grown; i++) {
		run_turn();
		slices++;
		record_users(journal, 200000 + i, 1);
		if (i <= 10)
			journal_commit(journal);
		if (test_exists("journal.tmp")) {
			assert_int_equal(test_dumps, 2);
			if (i == 10) {
				/* killed now */
				read_copy();
				assert_int_equal(array_count(&test_read),
						 old_count + 11);
				assert_users(0, 0, 2500);
				assert_users(200000, old_count, 11);
			}
		}
	}
	assert_true(slices >= 2500 / 100);
	assert_int_equal(test_dumps, 2);
	assert_false(test_exists("journal.tmp"));
	read_copy();
	test_assert_logged("");
	/* each of the others once, behind what was dumped before it */
	unsigned int dumped = 0, later = 0;
	const struct director_record *record;
	array_foreach(&test_read, record) {
		if (record->hash < 2500)
			assert_int_equal(record->hash, dumped++);
		else
			assert_int_equal(record->hash, 200000 + later++);
	}
	assert_int_equal(dumped, 2500);
	assert_int_equal(later, i - 1);
	journal_commit(journal);
	read_copy();
	assert_int_equal(array_count(&test_read), 2500 + i);

	/* and when it has grown so much again */
	threshold = str_len(test_file("journal")) * 2 + 1024 * 1024;
	while ((size = str_len(test_file("journal"))) < threshold) {
		assert_int_equal(test_dumps, 2);
		if (threshold - size < 5000)
			run_shortly();
		record_users(journal, 100000, threshold - size > 50000 ?
			     1000 : 100);
		journal_commit(journal);
	}
	run_turn();
	assert_int_equal(test_dumps, 3);
	journal_deinit(&journal);
}

/* The end comes in the middle: the old file is complete, and what was left of
   the new one isn't in the way. */
static void test_replacement_interrupted(void **state ATTR_UNUSED)
{
	struct journal *journal = start_with_users(2500);

	record_users(journal, 100000, GROW_RECORDS);
	journal_commit(journal);
	run_turn();
	run_turn();
	assert_true(test_exists("journal.tmp"));
	record_users(journal, 900000, 1);
	read_copy();
	assert_int_equal(array_count(&test_read), 2500 + GROW_RECORDS);
	journal_deinit(&journal);

	assert_true(test_exists("journal.tmp"));
	test_reread();
	assert_int_equal(array_count(&test_read), 2500 + GROW_RECORDS + 1);
	assert_users(900000, 2500 + GROW_RECORDS, 1);
	test_dumps = 0;
	journal = start_with_users(3);
	journal_deinit(&journal);
	assert_false(test_exists("journal.tmp"));
	test_reread();
	assert_int_equal(array_count(&test_read), 3);
	test_assert_logged("");
}

/* -- No more room -- */

static void limit_size(rlim_t size)
{
	struct rlimit rlim;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &rlim), 0);
	rlim.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &rlim), 0);
}

static int limit_setup(void **state)
{
	(void)signal(SIGXFSZ, SIG_IGN);
	return test_journal_setup(state);
}

static int limit_teardown(void **state)
{
	limit_size(RLIM_INFINITY);
	return test_journal_teardown(state);
}

#define E_WRITE \
	"E journal: write(journal) failed: File too large - until this is " \
	"mended, users may be answered other backends after a restart\n"

static void wait_until_kept(void)
{
	while (strstr(str_c(test_logs), "I journal: Is kept again\n") == NULL)
		run_turn();
	test_assert_logged("I journal: Is kept again\n");
}

static void test_full(void **state ATTR_UNUSED)
{
	struct journal *journal = start_with_users(10);
	size_t size = str_len(test_file("journal"));
	unsigned int count;

	/* in the middle of a line */
	limit_size(size + 1000);
	record_users(journal, 100000, 500);
	journal_commit(journal);
	test_assert_logged(E_WRITE);
	assert_int_equal(str_len(test_file("journal")), size + 1000);
	read_copy();
	count = array_count(&test_read);
	assert_true(count >= 15 && count <= 60);
	assert_users(0, 0, 10);
	assert_users(100000, 10, count - 10);
	assert_ptr_equal(strstr(str_c(test_logs), "E journal: 1 of "),
			 str_c(test_logs));
	str_truncate(test_logs, 0);
	/* told once */
	record_users(journal, 200000, 500);
	journal_commit(journal);
	record_users(journal, 200000, 500);
	journal_commit(journal);
	test_assert_logged("");

	/* a bit of room: what is written after the gap is whole again */
	limit_size(size + 5000);
	record_users(journal, 300000, 3);
	journal_commit(journal);
	read_copy();
	assert_true(array_count(&test_read) == count + 3);
	assert_users(300000, count, 3);
	str_truncate(test_logs, 0);

	/* room: the whole present is written anew */
	limit_size(RLIM_INFINITY);
	present_users(20);
	test_dumps = 0;
	wait_until_kept();
	assert_int_equal(test_dumps, 1);
	record_users(journal, 400000, 1);
	journal_commit(journal);
	read_copy();
	assert_int_equal(array_count(&test_read), 21);
	assert_users(0, 0, 20);
	assert_users(400000, 20, 1);
	test_assert_logged("");
	/* another failure is told again */
	limit_size(0);
	record_users(journal, 500000, 1);
	journal_deinit(&journal);
	test_assert_logged(E_WRITE);
}

/* The new file doesn't fit: the old one goes on, and it is tried again. */
static void test_full_while_replaced(void **state ATTR_UNUSED)
{
	struct journal *journal = start_with_users(10);
	unsigned int i;

	record_users(journal, 100000, GROW_RECORDS);
	journal_commit(journal);
	present_users(GROW_RECORDS * 2);
	test_dump_slice = 10000;
	limit_size(str_len(test_file("journal")) + 2000);
	for (i = 0; str_len(test_logs) == 0; i++) {
		record_users(journal, 200000 + i, 1);
		journal_commit(journal);
		run_turn();
	}
	assert_true(i > 1);
	test_assert_logged(E_WRITE);
	/* not at once */
	assert_int_equal(test_dumps, 2);
	run_shortly();
	assert_int_equal(test_dumps, 2);
	/* nor because the file is as large as it was */
	record_users(journal, 300000, 1);
	journal_commit(journal);
	run_shortly();
	assert_int_equal(test_dumps, 2);
	read_copy();
	assert_int_equal(array_count(&test_read), 10 + GROW_RECORDS + i + 1);
	assert_users(0, 0, 10);
	assert_users(200000, 10 + GROW_RECORDS, i);
	assert_users(300000, 10 + GROW_RECORDS + i, 1);
	test_assert_logged("");

	limit_size(RLIM_INFINITY);
	wait_until_kept();
	journal_deinit(&journal);
	test_reread();
	assert_int_equal(array_count(&test_read), GROW_RECORDS * 2);
	test_assert_logged("");
}

/* The old file can't grow any more, but a new one has room: it is written,
   however many records come meanwhile. */
static void test_full_old_file(void **state ATTR_UNUSED)
{
	struct journal *journal = start_with_users(1000);

	record_users(journal, 100000, GROW_RECORDS);
	journal_commit(journal);
	limit_size(str_len(test_file("journal")));
	for (unsigned int i = 0; i < 100; i++) {
		record_users(journal, 200000 + i, 1);
		journal_commit(journal);
		run_turn();
		if (strstr(str_c(test_logs), "Is kept again") != NULL)
			break;
	}
	test_assert_logged(E_WRITE "I journal: Is kept again\n");
	assert_false(test_exists("journal.tmp"));
	assert_true(str_len(test_file("journal")) < 1024 * 1024);
	journal_deinit(&journal);
	test_assert_logged("");
}

/* Nothing can be written at the start. */
static void test_full_at_start(void **state ATTR_UNUSED)
{
	struct journal *journal;

	limit_size(0);
	journal = start_with_users(10);
	test_assert_logged(E_WRITE);
	assert_false(test_exists("journal"));
	record_users(journal, 100000, 2000);
	journal_commit(journal);
	test_assert_logged("");
	limit_size(RLIM_INFINITY);
	wait_until_kept();
	record_users(journal, 200000, 1);
	journal_deinit(&journal);
	test_reread();
	assert_int_equal(array_count(&test_read), 11);
	test_assert_logged("");
}

/* It can't be put in place. */
static void test_rename_fails(void **state ATTR_UNUSED)
{
	struct journal *journal;

	assert_int_equal(mkdir(test_path("journal"), 0700), 0);
	journal = start_with_users(10);
	test_assert_logged("E journal: rename(journal) failed: Is a directory "
		"- until this is mended, users may be answered other backends "
		"after a restart\n");
	assert_int_equal(rmdir(test_path("journal")), 0);
	record_users(journal, 100000, 1);
	journal_commit(journal);
	wait_until_kept();
	journal_deinit(&journal);
	test_reread();
	assert_int_equal(array_count(&test_read), 10);
	test_assert_logged("");
}

int main(void)
{
#define limit_test(func) \
	cmocka_unit_test_setup_teardown(func, limit_setup, limit_teardown)
	const struct CMUnitTest tests[] = {
		journal_test(test_lock_waits),
		journal_test(test_lock_held),
		journal_test(test_lock_superseded),
		journal_test(test_replacement),
		journal_test(test_replacement_interrupted),
		limit_test(test_full),
		limit_test(test_full_while_replaced),
		limit_test(test_full_old_file),
		limit_test(test_full_at_start),
		journal_test(test_rename_fails),
	};

	return run_test_cases(tests);
}
