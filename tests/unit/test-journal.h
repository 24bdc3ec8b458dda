#ifndef TEST_JOURNAL_H
#define TEST_JOURNAL_H

/* A folder for journals, and what is logged of them */

#include "test-unit.h"
#include "array.h"
#include "ioloop.h"
#include "lib-event-private.h"
#include "str.h"
#include "unlink-directory.h"
#include "write-full.h"
#include "director/core/director.h"
#include "director/journal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/stat.h>

ARRAY_DEFINE_TYPE(director_record, struct director_record);

static char test_dir[64];
static struct ioloop *test_ioloop;
static struct event *test_event;
static pool_t test_pool;
static string_t *test_logs;
/* What journal_read() gave */
static ARRAY_TYPE(director_record) test_read;
static time_t test_alive_until;
static uint64_t test_generation;
/* What the dump gives, so many records a slice */
static ARRAY_TYPE(director_record) test_present;
static unsigned int test_dump_slice, test_dumps;

static inline void
test_log_handler(const struct failure_context *ctx, const char *format,
		 va_list args)
{
	va_list args2;

	va_copy(args2, args);
	str_append_c(test_logs, ctx->type == LOG_TYPE_ERROR ? 'E' :
		     (ctx->type == LOG_TYPE_WARNING ? 'W' : 'I'));
	str_append_c(test_logs, ' ');
	str_vprintfa(test_logs, format, args2);
	str_append_c(test_logs, '\n');
	va_end(args2);
}

static inline int test_journal_setup(void **state)
{
	i_set_error_handler(test_log_handler);
	i_set_info_handler(test_log_handler);
	test_ioloop = io_loop_create();
	test_pool = pool_alloconly_create("test", 65536);
	test_logs = str_new(default_pool, 1024);
	p_array_init(&test_read, test_pool, 64);
	p_array_init(&test_present, test_pool, 64);
	test_dump_slice = UINT_MAX;
	test_dumps = 0;
	i_strocpy(test_dir, "/tmp/test-journal.XXXXXX", sizeof(test_dir));
	if (mkdtemp(test_dir) == NULL)
		return -1;
	test_event = event_create(NULL);
	return test_frame_setup(state);
}

static inline int test_journal_teardown(void **state)
{
	const char *error;
	int ret = test_frame_teardown(state);

	i_set_error_handler(default_error_handler);
	i_set_info_handler(default_error_handler);
	if (unlink_directory(test_dir, UNLINK_DIRECTORY_FLAG_RMDIR,
			     &error) < 0)
		i_error("%s", error);
	event_unref(&test_event);
	str_free(&test_logs);
	pool_unref(&test_pool);
	io_loop_destroy(&test_ioloop);
	return ret;
}

#define journal_test(func) \
	cmocka_unit_test_setup_teardown(func, test_journal_setup, \
					test_journal_teardown)

static inline const char *test_path(const char *name)
{
	return t_strdup_printf("%s/%s", test_dir, name);
}

static inline void
test_record_copy(ARRAY_TYPE(director_record) *dest,
		 const struct director_record *record)
{
	struct director_record *copy = array_append_space(dest);

	*copy = *record;
	copy->tag = p_strdup(test_pool, record->tag);
	copy->hostname = p_strdup(test_pool, record->hostname);
}

static inline void
test_read_record(void *context, const struct director_record *record)
{
	assert_ptr_equal(context, &test_read);
	test_record_copy(&test_read, record);
}

static inline bool
test_dump(uint32_t *pos, journal_callback_t *callback, void *context)
{
	unsigned int i, count = array_count(&test_present);

	if (*pos == 0)
		test_dumps++;
	for (i = 0; i < test_dump_slice && *pos < count; i++)
		callback(context, array_idx(&test_present, (*pos)++));
	return *pos < count;
}

static inline bool test_not_superseded(void)
{
	return FALSE;
}

/* Returns a journal in the folder, which must not be locked. */
static inline struct journal *test_journal_open(void)
{
	int fd = open(test_dir, O_RDONLY | O_DIRECTORY);

	assert_int_not_equal(fd, -1);
	return journal_init(test_event, fd, 0, test_dump,
			    test_not_superseded);
}

static inline void test_journal_read(struct journal *journal)
{
	array_clear(&test_read);
	test_alive_until = 0;
	journal_read(journal, test_read_record, &test_read, &test_alive_until);
	test_generation = journal_read_generation(journal);
}

/* Opens, reads, closes. */
static inline void test_reread(void)
{
	struct journal *journal = test_journal_open();

	test_journal_read(journal);
	journal_deinit(&journal);
}

static inline bool test_exists(const char *name)
{
	struct stat st;

	return stat(test_path(name), &st) == 0;
}

static inline string_t *test_file(const char *name)
{
	string_t *str = t_str_new(65536);
	char buf[65536];
	ssize_t ret;
	int fd = open(test_path(name), O_RDONLY);

	assert_int_not_equal(fd, -1);
	while ((ret = read(fd, buf, sizeof(buf))) > 0)
		str_append_data(str, buf, ret);
	assert_int_equal(ret, 0);
	i_close_fd(&fd);
	return str;
}

static inline void
test_write_file(const char *name, const void *data, size_t size)
{
	int fd = open(test_path(name), O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write_full(fd, data, size), 0);
	i_close_fd(&fd);
}

static inline bool
test_record_equals(const struct director_record *r1,
		   const struct director_record *r2)
{
	if (r1->type != r2->type)
		return FALSE;
	switch (r1->type) {
	case DIRECTOR_RECORD_CONFIG:
	case DIRECTOR_RECORD_HOST:
		if (!net_ip_compare(&r1->ip, &r2->ip) ||
		    null_strcmp(r1->hostname, r2->hostname) != 0 ||
		    strcmp(r1->tag, r2->tag) != 0)
			return FALSE;
		return r1->type == DIRECTOR_RECORD_CONFIG ||
			(r1->vhosts == r2->vhosts && r1->down == r2->down &&
			 r1->timestamp == r2->timestamp);
	case DIRECTOR_RECORD_HOST_REMOVE:
		if (r1->keep != r2->keep)
			return FALSE;
		/* fall through */
	case DIRECTOR_RECORD_HOST_FLUSH:
		return net_ip_compare(&r1->ip, &r2->ip);
	case DIRECTOR_RECORD_USER:
		return r1->hash == r2->hash &&
			net_ip_compare(&r1->ip, &r2->ip) &&
			r1->timestamp == r2->timestamp;
	case DIRECTOR_RECORD_USER_FORGET:
		return r1->hash == r2->hash && strcmp(r1->tag, r2->tag) == 0;
	case DIRECTOR_RECORD_PROCESS:
		return r1->pid == r2->pid && r1->timestamp == r2->timestamp &&
			strcmp(r1->tag, r2->tag) == 0;
	}
	return FALSE;
}

/* What was read is this. */
static inline void
test_assert_read(const struct director_record *records, unsigned int count)
{
	assert_int_equal(array_count(&test_read), count);
	for (unsigned int i = 0; i < count; i++) {
		assert_true(test_record_equals(array_idx(&test_read, i),
					       &records[i]));
	}
}

static inline void test_assert_logged(const char *text)
{
	if (strcmp(str_c(test_logs), text) != 0)
		fail_msg("logged:\n%sexpected:\n%s", str_c(test_logs), text);
	str_truncate(test_logs, 0);
}

#define TEST_WAIT_MSECS 30000

static inline const struct director_record *user_record(uint32_t hash)
{
	struct director_record *record = t_new(struct director_record, 1);

	record->type = DIRECTOR_RECORD_USER;
	record->hash = hash;
	assert_int_equal(net_addr2ip("10.0.0.1", &record->ip), 0);
	record->tag = "";
	record->timestamp = 1700000000;
	return record;
}

static inline void present_users(unsigned int count)
{
	array_clear(&test_present);
	for (unsigned int i = 0; i < count; i++) T_BEGIN {
		test_record_copy(&test_present, user_record(i));
	} T_END;
}

/* Hashes first .. first+count-1 */
static inline void
record_users(struct journal *journal, uint32_t first, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) T_BEGIN {
		journal_record(journal, user_record(first + i));
	} T_END;
}

static bool loop_timed_out;

static inline void loop_timeout(void *context ATTR_UNUSED)
{
	loop_timed_out = TRUE;
}

static inline void never(void *context ATTR_UNUSED)
{
	fail();
}

/* Runs the ioloop's next turn. */
static inline void run_turn(void)
{
	struct timeout *to = timeout_add(TEST_WAIT_MSECS, loop_timeout,
					 (void *)NULL);
	int fds[2];
	struct io *io;

	/* the ioloop needs a descriptor to wait for */
	assert_int_equal(pipe(fds), 0);
	io = io_add(fds[0], IO_READ, never, (void *)NULL);
	loop_timed_out = FALSE;
	io_loop_set_running(test_ioloop);
	io_loop_handler_run(test_ioloop);
	timeout_remove(&to);
	io_remove(&io);
	i_close_fd(&fds[0]);
	i_close_fd(&fds[1]);
	assert_false(loop_timed_out);
}

static inline void stop_loop(void *context)
{
	bool *stopped = context;

	*stopped = TRUE;
}

/* Gives the journal time to do what it mustn't. */
static inline void run_shortly(void)
{
	bool stopped = FALSE;
	struct timeout *to = timeout_add_short(30, stop_loop,
					       (void *)&stopped);

	while (!stopped)
		run_turn();
	timeout_remove(&to);
}

#endif
