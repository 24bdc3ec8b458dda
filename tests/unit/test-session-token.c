/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "test-unit.h"
#include "director/core/session-lease.h"

#define INSTANCE 0xfedcba9876543210ULL

static void test_token(void **state ATTR_UNUSED)
{
	static const struct session_token tokens[] = {
		{ 0, 0 }, { 1, 1 }, { INSTANCE, 0xabcdef },
		{ UINT64_MAX, UINT64_MAX },
	};
	static const char *const bad[] = {
		"", "-", "x", "0000000000000001", "0000000000000001-",
		"-0000000000000001", "000000000000001-1",
		"00000000000000001-1", "0000000000000001-g",
		"000000000000000g-1", "0000000000000001--1",
		"0000000000000001-1-1", "0000000000000001-1 ",
		" 000000000000001-1", "0000000000000001-00000000000000001",
		"0x00000000000001-1", "0000000000000001-0x1",
		"+000000000000001-1", "0000000000000001-+1",
	};
	struct session_token token;

	assert_string_equal(session_token_str(&tokens[0]),
			    "0000000000000000-0");
	assert_string_equal(session_token_str(&tokens[2]),
			    "fedcba9876543210-abcdef");
	for (unsigned int i = 0; i < N_ELEMENTS(tokens); i++) {
		const char *str = session_token_str(&tokens[i]);

		assert_int_equal(strspn(str, "0123456789abcdef-"), strlen(str));
		assert_int_equal(session_token_parse(str, &token), 0);
		assert_true(token.instance == tokens[i].instance);
		assert_true(token.seq == tokens[i].seq);
	}
	for (unsigned int i = 0; i < N_ELEMENTS(bad); i++) {
		if (session_token_parse(bad[i], &token) == 0)
			fail_msg("'%s' is accepted", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_token),
	};

	return run_test_cases(tests);
}
