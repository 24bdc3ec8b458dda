/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Moves when something else happens at the same time */

#include "test-user-move.h"

/* The last SYNC took long, since the ring was broken: what gets lost of a move
   is sent again as soon as ever. */
static void test_after_broken_ring(void **state ATTR_UNUSED)
{
	begin(3);
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.2|70||U0||2000");
	pass(30000);
	ring_syncs(left, right);
	assert_in_range(ring_sync_msecs(director_ring(director)), 30000, 31000);
	assert_int_equal(move("jane", elsewhere("jane")), DIRECTOR_HOST_OK);
	forget_sent();
	pass(5250);
	assert_int_equal(said(right, "USER-MOVE|"), 1);
	assert_int_equal(said(right, "USER-KILLED|"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		move_test(test_after_broken_ring),
	};

	return run_test_cases(tests);
}
