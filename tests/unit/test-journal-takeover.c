/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The process before us hangs: we go on without it, and it may wake up. */

#include "test-journal.h"

/* More than what makes a replacement begin */
#define GROW_RECORDS 60000
/* A replacement takes 30 of them. */
#define MAX_TURNS 1000

#define W_LOCKED \
	"W journal: Another director process still has journal.lock after 0 " \
	"secs, going on without it\n"
#define E_TAKEN_OVER \
	"E journal: Another director process has taken it over, nothing is " \
	"kept by this one any more\n"

static struct journal *old, *new;

static void start_old(unsigned int users)
{
	old = test_journal_open();
	present_users(users);
	journal_start(old);
	test_assert_logged("");
}

/* It reads what old wrote. */
static void start_new(unsigned int users)
{
	new = test_journal_open();
	test_assert_logged(W_LOCKED);
	test_journal_read(new);
	test_assert_logged("");
	assert_true(test_generation == journal_generation(old));
	present_users(users);
	journal_start(new);
}

static void assert_file(unsigned int users, uint32_t later)
{
	journal_deinit(&new);
	test_reread();
	test_assert_logged("");
	assert_int_equal(array_count(&test_read), users + 1);
	assert_true(test_record_equals(array_idx(&test_read, users),
				       user_record(later)));
}

static void test_taken_over(void **state ATTR_UNUSED)
{
	uint64_t generation;

	start_old(10);
	start_new(20);
	generation = journal_generation(new);
	assert_true(generation != 0);
	record_users(old, 100, 1000);
	journal_commit(old);
	record_users(new, 5000, 1);
	/* nothing that it hands over now is for the next one */
	assert_true(journal_generation(old) == 0);
	test_assert_logged(E_TAKEN_OVER);
	assert_true(journal_generation(old) == 0);
	record_users(old, 100, GROW_RECORDS);
	journal_commit(old);
	run_shortly();
	journal_deinit(&old);
	test_assert_logged("");

	assert_true(journal_generation(new) == generation);
	assert_file(20, 5000);
	assert_true(test_generation == generation);
}

/* It hung while it wrote a new file. */
static void test_taken_over_replacing(void **state ATTR_UNUSED)
{
	unsigned int i;

	start_old(2500);
	test_dump_slice = 100;
	record_users(old, 100, GROW_RECORDS);
	journal_commit(old);
	run_turn();
	assert_true(test_exists("journal.tmp"));
	start_new(3000);
	record_users(new, 5000, 1);
	for (i = 0; str_len(test_logs) == 0; i++) {
		assert_true(i < MAX_TURNS);
		run_turn();
	}
	test_assert_logged(E_TAKEN_OVER);
	run_shortly();
	journal_deinit(&old);
	test_assert_logged("");
	assert_file(3000, 5000);
}

/* Both do. */
static void test_taken_over_both_replacing(void **state ATTR_UNUSED)
{
	unsigned int i;

	start_old(2500);
	test_dump_slice = 100;
	record_users(old, 100, GROW_RECORDS);
	journal_commit(old);
	run_turn();
	start_new(1000);
	record_users(new, 100, GROW_RECORDS);
	journal_commit(new);
	for (i = 0; test_exists("journal.tmp") || str_len(test_logs) == 0;
	     i++) {
		assert_true(i < MAX_TURNS);
		run_turn();
	}
	run_shortly();
	test_assert_logged(E_TAKEN_OVER);
	record_users(new, 5000, 1);
	journal_deinit(&old);
	assert_file(1000, 5000);
	test_assert_logged("");
}

/* The file's time says every 10 s that we live, and the lock that the old
   process had is ours at last. */
static void test_alive(void **state ATTR_UNUSED)
{
	const struct timespec past[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	time_t started = time(NULL);
	struct journal *third;
	struct stat st;

	start_old(10);
	start_new(10);
	assert_int_equal(utimensat(AT_FDCWD, test_path("journal"), past, 0), 0);
	journal_deinit(&old);
	do {
		assert_true(time(NULL) < started + TEST_WAIT_MSECS / 1000);
		run_turn();
		assert_int_equal(stat(test_path("journal"), &st), 0);
	} while (st.st_mtime == 1);
	assert_true(st.st_mtime >= started + 9);
	test_assert_logged("");
	third = test_journal_open();
	test_assert_logged(W_LOCKED);
	journal_deinit(&third);
	journal_deinit(&new);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		journal_test(test_taken_over),
		journal_test(test_taken_over_replacing),
		journal_test(test_taken_over_both_replacing),
		journal_test(test_alive),
	};

	return run_test_cases(tests);
}
