#ifndef TEST_DIRECTOR_H
#define TEST_DIRECTOR_H

/* A core with the adapter that a test needs: a clock of its own that comes to
   each deadline, and what the core told. For one test at a time. */

#include "test-unit.h"
#include "array.h"
#include "str.h"
#include "director/core/director.h"
#include "director/core/username-hash.h"

#define TEST_MSECS 1000000
#define TEST_WALL 1700000000
#define TEST_EXPIRE 60

struct test_lookup {
	struct director_lookup lookup;
	/* 1 answered, 0 waits, -1 failed */
	int state;
	char *username, *tag, *error;
	char ip[MAX_IP_LEN];
	/* When it was done, and the how manieth it was */
	uint64_t done_msecs;
	unsigned int done_order;
};

static struct director *director;
static struct director_time now;
static struct director_core_settings test_set;
static pool_t test_pool;
static ARRAY(struct director_record) test_records;
/* Lines: first letter of the type, space, text */
static string_t *test_logs;
static ARRAY(struct test_lookup *) test_lookups;
static unsigned int test_done_count, test_changes_recorded;
static unsigned int test_runs;
/* Called for lookups that are done, if not NULL */
static void (*test_on_done)(struct test_lookup *lookup);
static void (*test_on_record)(const struct director_record *record);

static inline void
test_record(void *context, const struct director_record *record)
{
	struct director_record *copy;

	assert_ptr_equal(context, &now);
	if (test_on_record != NULL) {
		test_on_record(record);
		return;
	}
	copy = array_append_space(&test_records);
	*copy = *record;
	copy->tag = p_strdup(test_pool, record->tag);
	copy->hostname = p_strdup(test_pool, record->hostname);
}

static inline void
test_log(void *context, enum log_type type, const char *text)
{
	assert_ptr_equal(context, &now);
	assert_null(strchr(text, '\n'));
	str_printfa(test_logs, "%c %s\n", type == LOG_TYPE_ERROR ? 'E' :
		    (type == LOG_TYPE_WARNING ? 'W' : 'I'), text);
}

static inline void
test_lookup_result(struct test_lookup *lookup, int ret)
{
	lookup->state = ret;
	if (ret > 0) {
		i_strocpy(lookup->ip, net_ip2addr(&lookup->lookup.backend->ip),
			  sizeof(lookup->ip));
	} else if (ret < 0) {
		lookup->error = i_strdup(lookup->lookup.error);
	}
	if (ret != 0) {
		lookup->done_msecs = now.msecs;
		lookup->done_order = ++test_done_count;
	}
}

static inline void
test_lookup_done(void *context, struct director_lookup *_lookup, bool success)
{
	struct test_lookup *lookup = (struct test_lookup *)_lookup;

	assert_ptr_equal(context, &now);
	assert_int_equal(lookup->state, 0);
	test_lookup_result(lookup, success ? 1 : -1);
	if (test_on_done != NULL)
		test_on_done(lookup);
}

static inline void test_changes(void *context)
{
	assert_ptr_equal(context, &now);
	test_changes_recorded++;
}

/* The login process that is still there although nobody hears of it; 0: none */
static pid_t test_living;

static inline bool
test_process_lives(void *context, pid_t pid, uint64_t msecs ATTR_UNUSED)
{
	assert_ptr_equal(context, &now);
	return pid == test_living;
}

static const struct director_vfuncs test_vfuncs = {
	.process_lives = test_process_lives,
	.record = test_record,
	.log = test_log,
	.lookup_done = test_lookup_done,
	.changes_recorded = test_changes,
};

/* After test_set was changed. Keeps the time. */
static inline void test_director_init(void)
{
	test_set.instance++;
	director = director_init(&test_set, &test_vfuncs, &now, &now);
}

static inline int test_director_setup(void **state)
{
	now.msecs = TEST_MSECS;
	now.wall = now.clock = TEST_WALL;
	test_set = (struct director_core_settings){
		.username_hash = USERNAME_HASH_DEFAULT_FORMAT,
		.master_user_separator = "",
		.user_expire_secs = TEST_EXPIRE,
		.instance = 7,
		.lost_grace_msecs = 15000,
	};
	test_pool = pool_alloconly_create("test", 65536);
	p_array_init(&test_records, test_pool, 64);
	i_array_init(&test_lookups, 64);
	test_logs = str_new(default_pool, 1024);
	test_done_count = test_changes_recorded = test_runs = 0;
	test_on_done = NULL;
	test_on_record = NULL;
	test_living = 0;
	test_director_init();
	return test_frame_setup(state);
}

static inline void test_lookup_free(struct test_lookup *lookup)
{
	struct test_lookup *const *p;

	array_foreach(&test_lookups, p) {
		if (*p == lookup) {
			array_delete(&test_lookups,
				     array_foreach_idx(&test_lookups, p), 1);
			break;
		}
	}
	if (lookup->state == 0)
		director_lookup_abort(director, &lookup->lookup);
	i_free(lookup->username);
	i_free(lookup->tag);
	i_free(lookup->error);
	i_free(lookup);
}

static inline int test_director_teardown(void **state)
{
	while (array_count(&test_lookups) > 0)
		test_lookup_free(array_idx_elem(&test_lookups, 0));
	assert_int_equal(director_lookups_waiting(director), 0);
	director_deinit(&director);
	array_free(&test_lookups);
	str_free(&test_logs);
	pool_unref(&test_pool);
	return test_frame_teardown(state);
}

#define director_test(func) \
	cmocka_unit_test_setup_teardown(func, test_director_setup, \
					test_director_teardown)

static inline const struct ip_addr *ip_of(const char *text)
{
	struct ip_addr *ip = t_new(struct ip_addr, 1);

	assert_int_equal(net_addr2ip(text, ip), 0);
	return ip;
}

/* Entries: [name/]ip[@tag] */
static inline void test_configure_restored(const char *list, bool all_restored)
{
	ARRAY(struct director_record) config;
	const char *const *entry = t_strsplit_spaces(list, " "), *p;
	struct director_record *record;

	t_array_init(&config, 8);
	for (; *entry != NULL; entry++) {
		record = array_append_space(&config);
		record->type = DIRECTOR_RECORD_CONFIG;
		p = strchr(*entry, '/');
		if (p != NULL)
			record->hostname = t_strdup_until(*entry, p);
		p = p == NULL ? *entry : p + 1;
		record->ip = *ip_of(t_strcut(p, '@'));
		p = strchr(p, '@');
		record->tag = p == NULL ? "" : p + 1;
	}
	director_configure(director, array_count(&config) == 0 ? NULL :
			   array_front(&config), array_count(&config),
			   all_restored, &now);
}

static inline void test_configure(const char *list)
{
	test_configure_restored(list, FALSE);
}

static inline void test_set_time(uint64_t msecs)
{
	now.msecs = msecs;
	now.wall = TEST_WALL + (time_t)((msecs - TEST_MSECS) / 1000);
	now.clock = now.wall;
}

/* Does all that is due now. */
static inline void test_run(void)
{
	unsigned int i;

	for (i = 0; director_run(director, &now); i++) {
		test_runs++;
		assert_true(i < 10000000);
	}
	test_runs++;
}

/* Time passes, the core is called when it asked for. */
static inline void test_pass(uint64_t msecs)
{
	uint64_t end = now.msecs + msecs, deadline;
	unsigned int spins = 0;

	while ((deadline = director_next_deadline(director, &now)) != 0 &&
	       deadline <= end) {
		if (deadline > now.msecs) {
			test_set_time(deadline);
			spins = 0;
		}
		/* once it has nothing to do it mustn't ask for more at once */
		assert_true(spins++ < 10);
		test_run();
	}
	test_set_time(end);
}

static inline struct test_lookup *
test_lookup_for(struct login_process *process, const char *username,
		const char *tag)
{
	struct test_lookup *lookup = i_new(struct test_lookup, 1);

	lookup->lookup.username = lookup->username = i_strdup(username);
	lookup->lookup.tag = lookup->tag = i_strdup(tag);
	lookup->lookup.process = process;
	array_push_back(&test_lookups, &lookup);
	test_lookup_result(lookup,
			   director_lookup(director, &lookup->lookup, &now));
	return lookup;
}

static inline struct test_lookup *
test_lookup_tag(const char *username, const char *tag)
{
	return test_lookup_for(NULL, username, tag);
}

static inline struct test_lookup *test_lookup(const char *username)
{
	return test_lookup_for(NULL, username, "");
}

/* Where the user is sent now, "wait" or "failed" */
static inline const char *where_tag(const char *username, const char *tag)
{
	struct test_lookup *lookup = test_lookup_tag(username, tag);
	const char *ip = lookup->state > 0 ? t_strdup(lookup->ip) :
		(lookup->state == 0 ? "wait" : "failed");

	test_lookup_free(lookup);
	return ip;
}

static inline const char *where(const char *username)
{
	return where_tag(username, "");
}

static inline uint32_t test_hash(const char *username)
{
	const char *error;
	uint32_t hash;

	assert_int_equal(director_user_hash(director, username, &hash, &error),
			 0);
	return hash;
}

/* Where hashing alone puts him, "none" if nowhere */
static inline const char *hashed_tag(const char *username, const char *tag)
{
	struct backend *backend = backend_by_hash(director_backends(director),
						  tag, test_hash(username));

	return backend == NULL ? "none" : net_ip2addr(&backend->ip);
}

static inline const char *hashed(const char *username)
{
	return hashed_tag(username, "");
}

static inline user_idx_t test_user(const char *username, const char *tag)
{
	tag = backends_tag(director_backends(director), tag);
	return tag == NULL ? USER_IDX_NONE :
		user_table_lookup(director_users(director), tag,
				  test_hash(username), now.wall);
}

static inline bool test_user_exists(const char *username)
{
	return test_user(username, "") != USER_IDX_NONE;
}

static inline enum director_host_result
test_host_down(const char *ip, bool down)
{
	return director_host_set_down(director, ip_of(ip), down, "", &now);
}

static inline enum director_host_result
test_host_set(const char *ip, const char *tag, unsigned int vhosts)
{
	return director_host_set(director, ip_of(ip), tag, vhosts, TRUE, "",
				 &now);
}

static inline enum director_host_result test_host_remove(const char *ip)
{
	return director_host_remove(director, ip_of(ip), FALSE, "", &now);
}

static inline enum director_host_result test_host_flush(const char *ip)
{
	return director_host_flush(director, ip == NULL ? NULL : ip_of(ip), "",
				   &now);
}

static inline const struct director_record *test_record_at(unsigned int idx)
{
	return array_idx(&test_records, idx);
}

/* Was this logged, as a whole line? Everything logged is forgotten then. */
static inline void test_assert_logged(const char *line)
{
	if (strstr(t_strconcat("\n", str_c(test_logs), NULL),
		   t_strconcat("\n", line, "\n", NULL)) == NULL) {
		fail_msg("not logged: %s\nlogged:\n%s", line,
			 str_c(test_logs));
	}
	str_truncate(test_logs, 0);
}

static inline void test_assert_not_logged(void)
{
	assert_string_equal(str_c(test_logs), "");
}

#endif
