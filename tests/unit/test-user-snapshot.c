/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What one director process hands over to the next. Damage is tested with the
   daemon. */

#include "test-director.h"
#include "lib-event.h"
#include "unlink-directory.h"
#include "director/director-daemon.h"
#include "director/user-snapshot.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define USERS 100
#define GENERATION 0x0123456789abcdefULL

static char test_dir[64];
static int dir_fd;
static struct event *test_event;

/* The daemon's clock */
struct director_time director_daemon_now(void)
{
	return now;
}

time_t director_daemon_to_wall(time_t core_time)
{
	return core_time;
}

time_t director_daemon_from_wall(time_t wall_time)
{
	return wall_time;
}

static void
test_error_handler(const struct failure_context *ctx ATTR_UNUSED,
		   const char *format, va_list args)
{
	va_list args2;

	va_copy(args2, args);
	str_vprintfa(test_logs, format, args2);
	str_append_c(test_logs, '\n');
	va_end(args2);
}

static int setup(void **state)
{
	i_strocpy(test_dir, "/tmp/test-snapshot.XXXXXX", sizeof(test_dir));
	if (mkdtemp(test_dir) == NULL)
		return -1;
	dir_fd = open(test_dir, O_RDONLY | O_DIRECTORY);
	i_set_error_handler(test_error_handler);
	test_event = event_create(NULL);
	return test_director_setup(state);
}

static int teardown(void **state)
{
	const char *error;
	int ret = test_director_teardown(state);

	i_set_error_handler(default_error_handler);
	event_unref(&test_event);
	i_close_fd(&dir_fd);
	if (unlink_directory(test_dir, UNLINK_DIRECTORY_FLAG_RMDIR,
			     &error) < 0)
		i_error("%s", error);
	return ret;
}

static bool exists(void)
{
	return faccessat(dir_fd, USER_SNAPSHOT_FILE_NAME, F_OK, 0) == 0;
}

static unsigned int users_count(void)
{
	return user_table_count(director_users(director));
}

/* The director ends, and the next one begins. */
static void write_users(uint64_t generation)
{
	test_configure("10.0.0.1 10.0.0.2");
	for (unsigned int i = 0; i < USERS; i++)
		(void)where(t_strdup_printf("u%u", i));
	user_snapshot_write(director, dir_fd, generation, test_event);
	director_deinit(&director);
	test_director_init();
	test_configure("10.0.0.1 10.0.0.2");
}

static void test_round_trip(void **state ATTR_UNUSED)
{
	const char *ip;

	test_configure("10.0.0.1 10.0.0.2");
	assert_int_equal(test_host_down(hashed("u0"), TRUE), DIRECTOR_HOST_OK);
	str_truncate(test_logs, 0);
	ip = t_strdup(where("u0"));
	write_users(GENERATION);
	assert_true(exists());
	assert_string_not_equal(hashed("u0"), ip);

	assert_true(user_snapshot_read(director, dir_fd, GENERATION,
				       test_event));
	assert_int_equal(users_count(), USERS);
	assert_string_equal(where("u0"), ip);
	assert_int_equal(users_count(), USERS);
	test_assert_not_logged();
	/* it's gone */
	assert_false(exists());
	assert_false(user_snapshot_read(director, dir_fd, GENERATION,
					test_event));
	test_assert_not_logged();
}

/* He isn't at the new backend before his sessions have ended. */
static void test_moving(void **state ATTR_UNUSED)
{
	const char *target;

	test_configure("10.0.0.1 10.0.0.2");
	(void)where("u0");
	target = strcmp(hashed("u0"), "10.0.0.1") == 0 ? "10.0.0.2" :
		"10.0.0.1";
	assert_int_equal(director_user_move(director, test_hash("u0"),
					    ip_of(target), "", &now),
			 DIRECTOR_HOST_OK);
	assert_int_equal(director_users_moving(director), 1);
	for (unsigned int i = 1; i < USERS; i++)
		(void)where(t_strdup_printf("u%u", i));
	user_snapshot_write(director, dir_fd, GENERATION, test_event);
	director_deinit(&director);
	test_director_init();
	test_configure("10.0.0.1 10.0.0.2");
	assert_true(user_snapshot_read(director, dir_fd, GENERATION,
				       test_event));
	assert_int_equal(users_count(), USERS - 1);
	assert_false(test_user_exists("u0"));
}

/* Another process has kept the journal since. */
static void test_other_generation(void **state ATTR_UNUSED)
{
	static const uint64_t others[] = { 0, GENERATION + 1, ~GENERATION };

	for (unsigned int i = 0; i < N_ELEMENTS(others); i++) {
		write_users(GENERATION);
		assert_false(user_snapshot_read(director, dir_fd, others[i],
						test_event));
		assert_int_equal(users_count(), 0);
		assert_false(exists());
		test_assert_logged("users is not of the last director "
			"process: ignored, users who aren't logged in are "
			"forgotten");
	}
}

/* Who keeps no journal (any more) leaves none, and leaves another's alone. */
static void test_no_generation(void **state ATTR_UNUSED)
{
	write_users(0);
	assert_false(exists());
	write_users(GENERATION);
	user_snapshot_write(director, dir_fd, 0, test_event);
	assert_true(user_snapshot_read(director, dir_fd, GENERATION,
				       test_event));
	assert_int_equal(users_count(), USERS);
	test_assert_not_logged();
}

int main(void)
{
#define test(func) cmocka_unit_test_setup_teardown(func, setup, teardown)
	const struct CMUnitTest tests[] = {
		test(test_round_trip),
		test(test_moving),
		test(test_other_generation),
		test(test_no_generation),
	};

	return run_test_cases(tests);
}
