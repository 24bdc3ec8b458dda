#ifndef TEST_UNIT_H
#define TEST_UNIT_H

/* What every unit test includes first, instead of cmocka.h */

#include "lib.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static inline int test_lib_setup(void **state ATTR_UNUSED)
{
	lib_init();
	return 0;
}

static inline int test_lib_teardown(void **state ATTR_UNUSED)
{
	lib_deinit();
	return 0;
}

/* An assertion that fails leaves the function by longjmp(). Without this its
   data stack frames would stay and lib_deinit() would panic. */
static data_stack_frame_t test_frame;

static inline int test_frame_setup(void **state ATTR_UNUSED)
{
	test_frame = t_push("test");
	return 0;
}

static inline int test_frame_teardown(void **state ATTR_UNUSED)
{
	data_stack_frame_t frame;

	do {
		frame = test_frame;
	} while (!t_pop(&frame));
	return 0;
}

#define test_case(func) \
	cmocka_unit_test_setup_teardown(func, test_frame_setup, \
					test_frame_teardown)
#define run_test_cases(tests) \
	cmocka_run_group_tests(tests, test_lib_setup, test_lib_teardown)

/* A generator of our own: the same numbers everywhere for the same seed */
static inline uint32_t test_rand(uint64_t *seed)
{
	uint64_t x = (*seed += 0x9e3779b97f4a7c15ULL);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x >> 32;
}

/* 0 .. max-1 */
static inline uint32_t test_rand_below(uint64_t *seed, uint32_t max)
{
	return test_rand(seed) % max;
}

#endif
