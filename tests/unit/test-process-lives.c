/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "director/process-lives.h"

#include <signal.h>
#include <unistd.h>
#include <sys/wait.h>

static pid_t child(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		for (;;)
			pause();
	}
	return pid;
}

static void test_process(void **state ATTR_UNUSED)
{
	pid_t pid = child();
	siginfo_t info;

	assert_int_equal(process_lives(pid, process_clock()), 1);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(process_lives(pid, process_clock()), 1);
	/* one of long ago had the same pid */
	assert_int_equal(process_lives(pid, process_clock() - 60), 0);

	/* it has ended, but nobody knows yet */
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(process_lives(pid, process_clock()), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(process_lives(pid, process_clock()), 0);
}

static void test_machine(void **state ATTR_UNUSED)
{
	time_t clock = process_clock();

	assert_true(clock > 0);
	assert_true(process_clock() >= clock);
	assert_int_equal(strlen(process_boot_id()), 36);
	assert_string_equal(process_boot_id(), process_boot_id());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_process),
		test_case(test_machine),
	};

	return run_test_cases(tests);
}
