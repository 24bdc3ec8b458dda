/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What is found in the journal's file, whole, damaged or foreign */

#include "test-journal.h"
#include "crc32.h"

#define HEADER_START "dovecot-director-journal\t1\t1\t"
/* As if random */
#define GENERATION 0x0123456789abcdefULL
#define HEADER HEADER_START"0123456789abcdef\t8352b807\n"
/* Before it had a CRC */
#define HEADER_1_0 "dovecot-director-journal\t1\t0\n"
#define E_BAD_FOREIGN \
	"E journal: journal isn't a journal of the director: ignored, kept " \
	"as journal.bad\n"

static struct ip_addr ip4 = { .family = AF_INET };
static struct ip_addr ip6 = { .family = AF_INET6 };

static const struct director_record *sample(unsigned int *count_r)
{
	const struct director_record records[] = {
		{ .type = DIRECTOR_RECORD_CONFIG, .ip = ip4, .tag = "" },
		{ .type = DIRECTOR_RECORD_CONFIG, .ip = ip6, .tag = "t",
		  .hostname = "mail.example.com" },
		{ .type = DIRECTOR_RECORD_HOST, .ip = ip4, .tag = "",
		  .vhosts = 100 },
		{ .type = DIRECTOR_RECORD_HOST, .ip = ip6,
		  .tag = "\ttab\nlf\001x\r", .hostname = "name",
		  .vhosts = UINT_MAX, .down = TRUE, .timestamp = 1700000000 },
		{ .type = DIRECTOR_RECORD_HOST_REMOVE, .ip = ip6, .tag = "" },
		{ .type = DIRECTOR_RECORD_HOST_REMOVE, .ip = ip6, .tag = "",
		  .keep = TRUE },
		{ .type = DIRECTOR_RECORD_HOST_FLUSH, .ip = ip4, .tag = "" },
		{ .type = DIRECTOR_RECORD_USER, .hash = 1, .ip = ip4,
		  .tag = "", .timestamp = 1 },
		{ .type = DIRECTOR_RECORD_USER, .hash = UINT32_MAX, .ip = ip6,
		  .tag = "", .timestamp = 4102444800 },
		{ .type = DIRECTOR_RECORD_USER_FORGET, .hash = 77, .tag = "" },
		{ .type = DIRECTOR_RECORD_USER_FORGET, .hash = 0,
		  .tag = "t\tx" },
		{ .type = DIRECTOR_RECORD_PROCESS, .pid = 4711,
		  .timestamp = 123456, .tag = "5f3e-11" },
	};
	struct director_record *copy;

	assert_int_equal(net_addr2ip("10.0.0.1", &ip4), 0);
	assert_int_equal(net_addr2ip("fd00::1", &ip6), 0);
	copy = t_new(struct director_record, N_ELEMENTS(records));
	memcpy(copy, records, sizeof(records));
	for (unsigned int i = 0; i < N_ELEMENTS(records); i++) {
		if (copy[i].ip.family == AF_INET)
			copy[i].ip = ip4;
		else if (copy[i].ip.family == AF_INET6)
			copy[i].ip = ip6;
	}
	*count_r = N_ELEMENTS(records);
	return copy;
}

/* A complete file of these records */
static string_t *sample_file(void)
{
	const struct director_record *records;
	struct journal *journal;
	unsigned int i, count;

	records = sample(&count);
	journal = test_journal_open();
	journal_start(journal);
	for (i = 0; i < count; i++)
		journal_record(journal, &records[i]);
	journal_deinit(&journal);
	test_assert_logged("");
	return test_file("journal");
}

static void test_round_trip(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	unsigned int i, count;
	struct journal *journal;
	struct stat st;

	records = sample(&count);
	/* nothing is there */
	test_reread();
	test_assert_read(NULL, 0);
	assert_int_equal(test_alive_until, 0);
	test_assert_logged("");

	/* some by the dump, some later */
	for (i = 0; i < 4; i++)
		test_record_copy(&test_present, &records[i]);
	test_dump_slice = 1;
	journal = test_journal_open();
	/* not yet */
	journal_record(journal, &records[0]);
	journal_commit(journal);
	assert_false(test_exists("journal"));
	journal_start(journal);
	assert_int_equal(test_dumps, 1);
	for (; i < count; i++)
		journal_record(journal, &records[i]);
	journal_deinit(&journal);
	assert_false(test_exists("journal.tmp"));

	/* the header is a promise to other versions */
	assert_memory_equal(str_data(test_file("journal")), HEADER_START,
			    strlen(HEADER_START));
	assert_int_equal(stat(test_path("journal"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	test_reread();
	test_assert_read(records, count);
	assert_int_equal(test_alive_until, st.st_mtime);
	/* reading changes nothing */
	test_reread();
	test_assert_read(records, count);
	test_assert_logged("");
}

/* What is committed is there after a kill; a large buffer is written before. */
static void test_commit(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	struct journal *journal;
	unsigned int count, i;
	size_t size;

	records = sample(&count);
	journal = test_journal_open();
	journal_start(journal);
	journal_record(journal, &records[6]);
	assert_int_equal(str_len(test_file("journal")), strlen(HEADER));
	journal_commit(journal);
	size = str_len(test_file("journal"));
	assert_true(size > strlen(HEADER));
	journal_commit(journal);
	assert_int_equal(str_len(test_file("journal")), size);
	for (i = 0; i < 10000; i++)
		journal_record(journal, &records[6]);
	assert_true(str_len(test_file("journal")) > size + 100000);
	journal_deinit(&journal);
	test_reread();
	assert_int_equal(array_count(&test_read), 10001);
}

/* The file's time tells until when the process lived. */
static void test_alive(void **state ATTR_UNUSED)
{
	const struct timespec old[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	struct journal *journal;
	struct timespec now;
	time_t before = time(NULL);

	journal = test_journal_open();
	journal_start(journal);
	assert_int_equal(utimensat(AT_FDCWD, test_path("journal"), old, 0), 0);
	journal_deinit(&journal);
	test_reread();
	assert_true(test_alive_until >= before);
	/* time() may be some milliseconds behind the files' clock */
	assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
	assert_true(test_alive_until <= now.tv_sec);
	assert_int_equal(utimensat(AT_FDCWD, test_path("journal"), old, 0), 0);
	test_reread();
	assert_int_equal(test_alive_until, 1);
}

/* Whose journal it is */
static void test_generation_read(void **state ATTR_UNUSED)
{
	struct journal *journal = test_journal_open();
	uint64_t first, second;

	/* neither read nor written */
	assert_true(journal_generation(journal) == 0);
	test_journal_read(journal);
	assert_true(test_generation == 0);
	journal_start(journal);
	first = journal_generation(journal);
	assert_true(first != 0);
	journal_deinit(&journal);

	journal = test_journal_open();
	test_journal_read(journal);
	assert_true(test_generation == first);
	journal_start(journal);
	second = journal_generation(journal);
	assert_true(second != 0 && second != first);
	journal_deinit(&journal);
	test_reread();
	assert_true(test_generation == second);

	test_write_file("journal", HEADER, strlen(HEADER));
	test_reread();
	assert_true(test_generation == GENERATION);
	test_assert_logged("");
	test_write_file("journal", HEADER_START"0123456789abcde0\t8352b807\n",
			strlen(HEADER));
	test_reread();
	assert_true(test_generation == 0);
	test_assert_logged("E journal: 1 of 1 lines are damaged (the first is "
			   "line 1): skipped, the others are used; the file "
			   "is kept as journal.bad\n");
}

static void test_no_folder(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	struct journal *journal;
	unsigned int count;

	records = sample(&count);
	journal = journal_init(test_event, -1, 5, test_dump,
			       test_not_superseded);
	test_assert_logged("E journal: No folder for it: after a restart users "
			   "may be answered other backends\n");
	test_alive_until = 5;
	journal_read(journal, test_read_record, &test_read, &test_alive_until);
	assert_int_equal(test_alive_until, 0);
	journal_start(journal);
	assert_true(journal_generation(journal) == 0);
	journal_record(journal, &records[0]);
	journal_commit(journal);
	journal_deinit(&journal);
	test_assert_logged("");
	assert_int_equal(test_dumps, 0);
}

/* Cut off at any byte: all lines before that are used. */
static void test_truncated(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	string_t *file = sample_file();
	const char *data = str_c(file);
	unsigned int count, lines = 0;
	bool whole = FALSE;

	records = sample(&count);
	for (size_t size = 0; size <= str_len(file); size++) T_BEGIN {
		test_write_file("journal", data, size);
		/* a line is there with or without its LF */
		whole = size < str_len(file) && data[size] == '\n';
		if (size > 0 && data[size-1] == '\n')
			lines++;
		test_reread();
		test_assert_read(records, lines + (whole ? 1 : 0) == 0 ? 0 :
				 lines + (whole ? 1 : 0) - 1);
		if (size == 0 || whole || data[size-1] == '\n')
			test_assert_logged("");
		else if (lines == 0) {
			/* even less than a header */
			assert_int_equal(strncmp(str_c(test_logs),
						 "E journal: ", 11), 0);
			str_truncate(test_logs, 0);
		} else {
			test_assert_logged(t_strdup_printf(
				"E journal: 1 of %u lines are damaged (the "
				"first is line %u): skipped, the others are "
				"used; the file is kept as journal.bad\n",
				lines + 1, lines + 1));
			assert_int_equal(str_len(test_file("journal.bad")),
					 size);
		}
	} T_END;
	assert_int_equal(lines, count + 1);
}

/* Returns how many of the records are missing. Nothing may be wrong. */
static unsigned int
count_missing(const struct director_record *records, unsigned int count)
{
	const struct director_record *record;
	unsigned int i = 0, missing = 0;

	array_foreach(&test_read, record) {
		while (i < count && !test_record_equals(record, &records[i])) {
			missing++;
			i++;
		}
		assert_true(i < count);
		i++;
	}
	return missing + (count - i);
}

/* Any bit of any byte: at most the line and the next one are lost, unless it is
   no journal any more, and it is told. */
static void test_flipped(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	string_t *file = sample_file();
	char *data = str_c_modifiable(file);
	unsigned int i, bit, count, missing, header_len = strlen(HEADER);

	records = sample(&count);
	for (unsigned int pos = 0; pos < str_len(file) * 8; pos++) T_BEGIN {
		i = pos / 8;
		bit = pos % 8;
		data[i] ^= 1U << bit;
		test_write_file("journal", data, str_len(file));
		test_reread();
		missing = count_missing(records, count);
		if (missing > 2)
			assert_true(i < header_len && missing == count);
		if (str_len(test_logs) == 0) {
			/* only a CRC's digit may be a capital letter */
			assert_int_equal(missing, 0);
			assert_true(bit == 5 && data[i] >= 'A' &&
				    data[i] <= 'F');
		} else {
			assert_true(missing > 0 || i < header_len);
			assert_int_equal(strncmp(str_c(test_logs),
						 "E journal: ", 11), 0);
			assert_memory_equal(str_data(test_file("journal.bad")),
					    data, str_len(file));
		}
		str_truncate(test_logs, 0);
		data[i] ^= 1U << bit;
	} T_END;
}

static void test_foreign(void **state ATTR_UNUSED)
{
	static const char *const tests[] = {
		"x", "x\n", "\n", "hello\nworld\n",
		"dovecot-director-journal\n",
		"dovecot-director-journal\t1\n",
		"dovecot-director-journal\tx\t0\n",
		"dovecot-director-journal\t-1\t0\n",
		"Dovecot-director-journal\t1\t0\n",
		"\001\001\001\t1\t0\n",
	};
	char *huge = t_malloc0(100000);

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		test_write_file("journal", tests[i], strlen(tests[i]));
		test_reread();
		test_assert_read(NULL, 0);
		assert_int_equal(test_alive_until, 0);
		test_assert_logged(E_BAD_FOREIGN);
		assert_false(test_exists("journal"));
		assert_string_equal(str_c(test_file("journal.bad")), tests[i]);
	}
	/* no line at all */
	test_write_file("journal", huge, 100000);
	test_reread();
	test_assert_logged(E_BAD_FOREIGN);
	memset(huge, 'x', 100000);
	test_write_file("journal", huge, 100000);
	test_reread();
	test_assert_logged(E_BAD_FOREIGN);
	/* not even a file */
	assert_int_equal(mkdir(test_path("journal"), 0700), 0);
	test_reread();
	test_assert_read(NULL, 0);
	assert_true(str_len(test_logs) > 0);
	str_truncate(test_logs, 0);

	/* and it doesn't hinder a new one */
	(void)sample_file();
}

static void test_versions(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	string_t *file = sample_file();
	unsigned int count;
	const char *rest = strchr(str_c(file), '\n');

	records = sample(&count);
	const char *newer = "dovecot-director-journal\t1\t99\tx";
	newer = t_strdup_printf("%s\t%08x%s", newer, crc32_str(newer), rest);
	test_write_file("journal", newer, strlen(newer));
	test_reread();
	test_assert_read(records, count);
	test_assert_logged("");

	const char *older = t_strconcat(HEADER_1_0, rest + 1, NULL);
	test_write_file("journal", older, strlen(older));
	test_reread();
	test_assert_read(records, count);
	assert_true(test_generation == 0);
	test_assert_logged("");

	newer = t_strconcat("dovecot-director-journal\t2\t0", rest, NULL);
	test_write_file("journal", newer, strlen(newer));
	test_reread();
	test_assert_read(NULL, 0);
	assert_int_equal(test_alive_until, 0);
	test_assert_logged("E journal: journal has version 2, we know only "
			   "version 1: ignored, kept as journal.bad\n");
	assert_false(test_exists("journal"));
	assert_string_equal(str_c(test_file("journal.bad")), newer);
}

/* Adds a line with the right CRC. */
static void add_line(string_t *file, const char *line)
{
	str_printfa(file, "%s\t%08x\n", line, crc32_str(line));
}

static void test_unknown(void **state ATTR_UNUSED)
{
	const struct director_record *records;
	unsigned int count;
	string_t *file = t_str_new(256);

	records = sample(&count);
	str_append(file, HEADER);
	add_line(file, "user\t1\t10.0.0.1\t1");
	add_line(file, "userx\t1\t10.0.0.1\t1");
	add_line(file, "move\t1");
	add_line(file, " ");
	/* of a later minor version: more fields */
	add_line(file, "user-forget\t77\t\tmore\tfields");
	test_write_file("journal", str_data(file), str_len(file));
	test_reread();
	assert_int_equal(array_count(&test_read), 2);
	assert_true(test_record_equals(array_idx(&test_read, 0), &records[7]));
	assert_true(test_record_equals(array_idx(&test_read, 1), &records[9]));
	test_assert_logged("W journal: 3 lines are of a kind that this version "
			   "doesn't know: skipped\n");
	assert_false(test_exists("journal.bad"));
}

/* Lines whose CRC is right, but that no director writes */
static void test_wrong_lines(void **state ATTR_UNUSED)
{
	static const char *const lines[] = {
		"", "config", "config\t10.0.0.1\t", "config\tx\t\t",
		"host\t10.0.0.1\t\t\t100\tup", "host\t10.0.0.1\t\t\tx\tup\t0",
		"host\t10.0.0.1\t\t\t-1\tup\t0", "host\t10.0.0.1\t\t\t1\tup\tx",
		"host\tx\t\t\t100\tup\t0", "host-remove", "host-remove\tx",
		"host-flush\t", "user\t1\t10.0.0.1", "user\tx\t10.0.0.1\t1",
		"user\t4294967296\t10.0.0.1\t1", "user\t1\tx\t1",
		"user\t1\t10.0.0.1\tx", "user-forget\t1", "user-forget\tx\t",
		"process\t1\t1", "process\tx\t1\t", "process\t0\t1\t",
		"process\t1\tx\t",
	};
	string_t *file = t_str_new(2048);

	str_append(file, HEADER);
	for (unsigned int i = 0; i < N_ELEMENTS(lines); i++)
		add_line(file, lines[i]);
	/* and without any */
	str_append(file, "\nx\n\t\nuser\t1\t10.0.0.1\t1\n");
	add_line(file, "user\t1\t10.0.0.1\t1");
	test_write_file("journal", str_data(file), str_len(file));
	test_reread();
	assert_int_equal(array_count(&test_read), 1);
	test_assert_logged("E journal: 27 of 29 lines are damaged (the first "
		"is line 2): skipped, the others are used; the file is kept as "
		"journal.bad\n");
}

/* Longer than any line: this one is skipped, what follows is used. */
static void test_long_line(void **state ATTR_UNUSED)
{
	static const size_t sizes[] = { 16000, 16384, 20000, 70000 };
	const struct director_record *records;
	string_t *file = sample_file(), *str = t_str_new(100000);
	unsigned int i, count;
	size_t pos;

	records = sample(&count);
	/* behind the third line */
	pos = strchr(strchr(strchr(str_c(file), '\n') + 1, '\n') + 1, '\n') +
		1 - str_c(file);
	for (i = 0; i < N_ELEMENTS(sizes) * 2; i++) T_BEGIN {
		char *garbage = t_malloc0(sizes[i / 2]);

		if (i % 2 == 1)
			memset(garbage, '\t', sizes[i / 2]);
		str_truncate(str, 0);
		str_append_data(str, str_data(file), pos);
		str_append_data(str, garbage, sizes[i / 2]);
		str_append_c(str, '\n');
		str_append(str, str_c(file) + pos);
		test_write_file("journal", str_data(str), str_len(str));
		test_reread();
		test_assert_read(records, count);
		test_assert_logged(t_strdup_printf("E journal: 1 of %u lines "
			"are damaged (the first is line 4): skipped, the "
			"others are used; the file is kept as journal.bad\n",
			count + 2));

		/* at the end */
		str_truncate(str, pos);
		str_append_data(str, garbage, sizes[i / 2]);
		test_write_file("journal", str_data(str), str_len(str));
		test_reread();
		test_assert_read(records, 2);
		test_assert_logged("E journal: 1 of 4 lines are damaged (the "
			"first is line 4): skipped, the others are used; the "
			"file is kept as journal.bad\n");
	} T_END;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		journal_test(test_round_trip),
		journal_test(test_commit),
		journal_test(test_alive),
		journal_test(test_generation_read),
		journal_test(test_no_folder),
		journal_test(test_truncated),
		journal_test(test_flipped),
		journal_test(test_foreign),
		journal_test(test_versions),
		journal_test(test_unknown),
		journal_test(test_wrong_lines),
		journal_test(test_long_line),
	};

	return run_test_cases(tests);
}
