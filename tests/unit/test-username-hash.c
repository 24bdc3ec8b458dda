/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "director/core/username-hash.h"

static uint32_t get_hash(const char *format, const char *user)
{
	struct username_hash *hash;
	const char *error = NULL;
	uint32_t value = 0;

	hash = username_hash_init(format, &error);
	assert_null(error);
	assert_non_null(hash);
	assert_int_equal(username_hash_get(hash, user, &value, &error), 0);
	username_hash_deinit(&hash);
	assert_null(hash);
	return value;
}

static void test_vectors(void **state ATTR_UNUSED)
{
	static const struct {
		const char *format, *user;
		uint32_t hash;
	} tests[] = {
		{ "%{user}", "", 3558706393 },
		{ "%{user}", "testuser", 1570531526 },
		{ "%{user}", "@", 1368314517 },
		{ "%{user}", "@domain", 3749630072 },
		{ "%{user}", "testuser@domain", 3813799143 },
		{ "%{user}", "test@user@domain", 2029259821 },
		{ "%{user | username}", "test@user@domain", 160394189 },
		{ "%{user | domain}", "test@user@domain", 1841230927 },
		{ "%{user | domain}", "testuser@domain", 2908717800 },
		{ USERNAME_HASH_DEFAULT_FORMAT, "user@example.com", 3045693125 },
		{ USERNAME_HASH_DEFAULT_FORMAT, "jane", 1480892766 },
		{ USERNAME_HASH_DEFAULT_FORMAT, "john@example.com", 3569829268 },
		{ USERNAME_HASH_DEFAULT_FORMAT, "samik", 3853430566 },
		{ USERNAME_HASH_DEFAULT_FORMAT, "SaMik", 3853430566 },
		/* its digest begins with 00000000: 0 is replaced by 1 */
		{ "%{user}", "user042566903633", 1 },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		assert_int_equal(get_hash(tests[i].format, tests[i].user),
				 tests[i].hash);
	}
}

static void test_text_and_parts(void **state ATTR_UNUSED)
{
	/* plain text is a part of what is hashed */
	assert_int_equal(get_hash("test%{user}", "user"),
			 get_hash("%{user}", "testuser"));
	assert_int_equal(get_hash("%{user | username}@%{user | domain}",
				  "testuser@domain"),
			 get_hash("%{user}", "testuser@domain"));
	assert_int_equal(get_hash("%{user}%", "50"),
			 get_hash("%{user}", "50%"));
	/* no domain: as %d of 2.3, it is empty; %n is all of it */
	assert_int_equal(get_hash("%{user | domain}", "testuser"),
			 get_hash("%{user}", ""));
	assert_int_equal(get_hash("%{user | username}", "testuser"),
			 get_hash("%{user}", "testuser"));
	/* ASCII letters only */
	assert_int_equal(get_hash("%{user | lower}", "\xc3\x84" "A"),
			 get_hash("%{user}", "\xc3\x84" "a"));
	/* not valid UTF-8, not a text at all */
	assert_int_equal(get_hash("%{user | lower}", "\xff\x01Z"),
			 get_hash("%{user}", "\xff\x01z"));
}

/* Formats that are worked out without libdovecot have to give what libdovecot
   gives. Empty text around the variable keeps the second one from that. */
static void test_fast_is_slow(void **state ATTR_UNUSED)
{
	static const char *const formats[] = {
		"%{user}", "%{user | lower}", "%{user | username}",
		"%{user | domain}", "%{user | username | lower}",
		"%{user | lower | domain}", "%{ user|domain|domain }",
		"%{user | domain | username | lower}",
		"%{user|domain|domain|domain|lower}",
		"%{user|domain|domain|domain|domain|lower}",
	};
	static const char chars[] = "@@abAB.\xc3\x84%{} \t";
	uint64_t seed = 1;
	char name[600];

	for (unsigned int i = 0; i < N_ELEMENTS(formats); i++) {
		const char *slow_format =
			t_strconcat(formats[i], "%{user | truncate(0)}", NULL);
		const char *error;
		struct username_hash *fast =
			username_hash_init(formats[i], &error);
		struct username_hash *slow =
			username_hash_init(slow_format, &error);

		assert_non_null(fast);
		assert_non_null(slow);
		for (unsigned int n = 0; n < 500; n++) {
			unsigned int max = n < 450 ? 20 : sizeof(name);
			unsigned int len = test_rand_below(&seed, max);
			uint32_t fast_hash, slow_hash;

			for (unsigned int j = 0; j < len; j++) {
				name[j] = chars[test_rand_below(&seed,
							sizeof(chars) - 1)];
			}
			name[len] = '\0';
			assert_int_equal(username_hash_get(fast, name,
					 &fast_hash, &error), 0);
			assert_int_equal(username_hash_get(slow, name,
					 &slow_hash, &error), 0);
			assert_int_equal(fast_hash, slow_hash);
		}
		username_hash_deinit(&fast);
		username_hash_deinit(&slow);
	}
}

static void test_bad_formats(void **state ATTR_UNUSED)
{
	/* the second string has to be in the error */
	static const char *const tests[][2] = {
		{ "%u", "use %{user}" },
		{ "%Lu", "use %{user | lower}" },
		{ "%n", "use %{user | username}" },
		{ "%Ln", "use %{user | username | lower}" },
		{ "%d", "use %{user | domain}" },
		{ "%Ld", "use %{user | domain | lower}" },
		{ "%Uu", "use %{user | upper}" },
		{ "%LRn", "use %{user | username | lower | reverse}" },
		{ "%Mu", "use %{user | md5}" },
		{ "%L{user}", "use %{user | lower}" },
		{ "%L{username}", "use %{user | username | lower}" },
		{ "%{username}", "use %{user | username}" },
		{ "%{domain}", "use %{user | domain}" },
		{ "%{domain | lower}", "use %{user | domain}" },
		{ "%{md5:user}", "%{user | md5}" },
		{ "%{sha1:username}", "%{user | username | md5}" },
		{ "%Hu", "%Hu is Dovecot 2.3 syntax" },
		{ "%2.256Nu", "%2.256Nu is Dovecot 2.3 syntax" },
		{ "%3u", "%3u is Dovecot 2.3 syntax" },
		{ "%s", "%s is Dovecot 2.3 syntax" },
		/* anywhere */
		{ "%{user}%d", "use %{user | domain}" },
		{ "x%Lux%{user}", "use %{user | lower}" },
		{ "%%%u", "use %{user}" },
		{ "%{user | default('%u')}", "use %{user}" },
		/* something else than the user */
		{ "%{user}%{hostname}", "Variable %{hostname}" },
		{ "%{env:HOME}%{user}", "Variable %{env:HOME}" },
		{ "%{pid}", "Variable %{pid}" },
		{ "%{user | default(rip)}", "Variable %{rip}" },
		{ "%{User}", "Variable %{User}" },
		/* the same for all */
		{ "", "%{user} is missing" },
		{ "user", "%{user} is missing" },
		{ "%", "%{user} is missing" },
		{ "%%{user}", "%{user} is missing" },
		{ "%%u", "%{user} is missing" },
		/* broken */
		{ "%{user", "" },
		{ "%{user | (}", "" },
		{ "%{user | nosuchfilter}", "nosuchfilter" },
		{ "%{user | lowerx}", "lowerx" },
		{ "%{user | hash('nosuchhash')}", "nosuchhash" },
		{ "%{user | lower(1)}", "lower" },
	};

	for (unsigned int i = 0; i < N_ELEMENTS(tests); i++) {
		const char *error = NULL;

		if (username_hash_init(tests[i][0], &error) != NULL)
			fail_msg("%s is accepted", tests[i][0]);
		assert_non_null(error);
		if (strstr(error, tests[i][1]) == NULL) {
			fail_msg("%s: %s instead of %s", tests[i][0], error,
				 tests[i][1]);
		}
	}
}

/* A format may fail for some names only. */
static void test_expand_error(void **state ATTR_UNUSED)
{
	struct username_hash *hash;
	const char *error = NULL;
	uint32_t value;

	hash = username_hash_init("%{user | substr(0, 8)}", &error);
	assert_non_null(hash);
	assert_int_equal(username_hash_get(hash, "jane", &value, &error), -1);
	assert_non_null(strstr(error, "substr"));
	assert_int_equal(username_hash_get(hash, "testuser2", &value, &error),
			 0);
	assert_int_equal(value, 1570531526);
	username_hash_deinit(&hash);
}

static void test_cut(void **state ATTR_UNUSED)
{
	assert_string_equal(username_hash_cut("user*master", "*"), "user");
	assert_string_equal(username_hash_cut("user*mas*ter", "*"), "user");
	assert_string_equal(username_hash_cut("user+x*master", "*+"), "user+x");
	assert_string_equal(username_hash_cut("user", "*"), "user");
	assert_string_equal(username_hash_cut("*master", "*"), "");
	assert_string_equal(username_hash_cut("user*master", ""),
			    "user*master");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_vectors),
		test_case(test_text_and_parts),
		test_case(test_fast_is_slow),
		test_case(test_bad_formats),
		test_case(test_expand_error),
		test_case(test_cut),
	};

	return run_test_cases(tests);
}
