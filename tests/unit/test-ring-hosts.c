/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Backends that other directors change (doc/ring-protocol.md §7) */

#include "test-ring.h"

static void test_host_changed(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(3, &left, &right);
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.1|70||U0||2000");
	assert_int_equal(test_vhosts("10.1.0.1"), 70);
	assert_said(right, "HOST|10.0.0.1|9090|1|10.1.0.1|70||U0||2000\n");

	/* an older one: its sender is taught ours, and it ends here */
	forget_sent();
	in(right, "HOST|10.0.0.3|9090|1|10.1.0.1|50||U0||1500");
	assert_int_equal(test_vhosts("10.1.0.1"), 70);
	assert_said(right, "HOST|10.0.0.2|9090|");
	assert_non_null(strstr(str_c(right->sent),
			       "|10.1.0.1|70||U0||2000\n"));
	assert_not_said(left, "HOST|10.0.0.3|");

	/* a newer one is taken, though it has more */
	in(right, "HOST|10.0.0.3|9090|2|10.1.0.1|90||U0||2500");
	assert_int_equal(test_vhosts("10.1.0.1"), 90);
	assert_said(left, "HOST|10.0.0.3|9090|2|10.1.0.1|90||U0||2500\n");
}

/* Who changed it next has our change by a member of 2.3, without its time. */
static void test_host_changed_next(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *ours;

	ring_of(3, &left, &right);
	assert_int_equal(test_host_set("10.1.0.1", NULL, 50), DIRECTOR_HOST_OK);
	ring_end();
	ours = strrchr(t_strcut(strstr(str_c(left->sent),
				       "HOST|10.0.0.2|9090|"), '\n'), '|');
	ring_syncs(left, right);
	str_truncate(test_logs, 0);
	in(right, "HOST|10.0.0.3|9090|1|10.1.0.1|90||U0|%s", ours);
	assert_int_equal(test_vhosts("10.1.0.1"), 90);
	assert_null(strstr(str_c(test_logs), "before previous update"));

	/* on its way, it isn't known who was the last one */
	in(left, "HOST|10.0.0.1|9090|2|10.1.0.1|95||U0|%s", ours);
	assert_int_equal(test_vhosts("10.1.0.1"), 90);
	assert_non_null(strstr(str_c(test_logs), "before previous update"));
}

/* A change comes first through a member of 2.3, who doesn't tell its time. */
static void test_host_changed_untold(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(3, &left, &right);
	in(left, "HOST|10.0.0.3|9090|1|10.1.0.1|70||U0");
	assert_int_equal(test_vhosts("10.1.0.1"), 70);
	/* ours is not that of whoever knows it */
	assert_said(right, "HOST|10.0.0.3|9090|1|10.1.0.1|70||U0|\n");
	in(right, "HOST|10.0.0.3|9090|1|10.1.0.1|70||U0||2000");
	assert_int_equal(said(right, "HOST|"), 1);
	ring_syncs(left, right);

	/* that of 2.3 follows on it */
	in(left, "HOST|10.0.0.1|9090|1|10.1.0.1|50||U0");
	in(right, "HOST|10.0.0.3|9090|2|10.1.0.1|70||U0||2000");
	assert_int_equal(test_vhosts("10.1.0.1"), 50);
	assert_said(right, "HOST|10.0.0.2|9090|");
	assert_non_null(strstr(str_c(right->sent), "|10.1.0.1|50||U0||2001\n"));
	ring_syncs(left, right);

	/* and a removal */
	in(left, "HOST-REMOVE|10.0.0.3|9090|3|10.1.0.1");
	in(right, "HOST-REMOVE|10.0.0.3|9090|3|10.1.0.1|4000");
	in(right, "HOST|10.0.0.3|9090|4|10.1.0.1|70||U0||3000");
	assert_null(get("10.1.0.1"));
	in(left, "HOST|10.0.0.1|9090|2|10.1.0.1|60||U0");
	assert_int_equal(test_vhosts("10.1.0.1"), 60);
	forget_sent();
	in(right, "HOST|10.0.0.3|9090|5|10.1.0.1|70||U0||3000");
	assert_non_null(strstr(str_c(right->sent), "|10.1.0.1|60||U0||4001\n"));
}

static void test_host_removed(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(3, &left, &right);
	in(left, "HOST-REMOVE|10.0.0.1|9090|1|10.1.0.1|3000");
	assert_null(get("10.1.0.1"));
	assert_said(right, "HOST-REMOVE|10.0.0.1|9090|1|10.1.0.1|3000\n");

	forget_sent();
	in(right, "HOST|10.0.0.3|9090|1|10.1.0.1|50||U0||2500");
	assert_null(get("10.1.0.1"));
	assert_said(right, "HOST-REMOVE|10.0.0.2|9090|");
	assert_non_null(strstr(str_c(right->sent), "|10.1.0.1|3000\n"));
	assert_not_said(left, "HOST|");

	in(right, "HOST|10.0.0.3|9090|2|10.1.0.1|50||U0||3500");
	assert_int_equal(test_vhosts("10.1.0.1"), 50);
	assert_said(left, "HOST|10.0.0.3|9090|2|10.1.0.1|50||U0||3500\n");
	/* the removal comes late, by the other way */
	in(left, "HOST-REMOVE|10.0.0.1|9090|2|10.1.0.1|3000");
	assert_int_equal(test_vhosts("10.1.0.1"), 50);
	/* all forget its users, or none would */
	assert_said(right, "HOST-REMOVE|10.0.0.1|9090|2|10.1.0.1|3000\n");
}

/* Users that we told of may come to somebody after the flush. */
static void test_host_flushed(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	const char *ip;

	ring_of(3, &left, &right);
	ip = t_strdup(where("jane"));
	ring_end();
	assert_said(left, "USER|");
	in(left, "HOST-FLUSH|10.0.0.1|9090|1|%s", ip);
	assert_false(test_user_exists("jane"));
	assert_said(left, "HOST-FLUSH|10.0.0.2|9090|");
	assert_said(right, "HOST-FLUSH|10.0.0.2|9090|");
	forget_sent();
	/* the others do the same */
	in(right, "HOST-FLUSH|10.0.0.3|9090|1|%s", ip);
	assert_said(left, "HOST-FLUSH|10.0.0.3|9090|1|");
	assert_not_said(left, "HOST-FLUSH|10.0.0.2|");
	ring_syncs(left, right);

	/* none is on its way any more */
	assert_string_equal(where("jane"), ip);
	ring_end();
	test_set_time(now.msecs + 10000);
	forget_sent();
	in(left, "HOST-FLUSH|10.0.0.1|9090|2|%s", ip);
	assert_not_said(right, "HOST-FLUSH|10.0.0.2|");
}

static void flush_comes(struct test_conn *conn, unsigned int seq)
{
	in(conn, "HOST-FLUSH|10.0.0.1|9090|%u|10.1.0.1", seq);
}

static void user_comes(struct test_conn *conn)
{
	in(conn, "USER|%u|10.1.0.1|%u|%u", test_hash("jane"), TEST_WALL,
	   TEST_INSTANCE_RIGHT);
	assert_true(test_user_exists("jane"));
}

/* A flush comes both ways round the ring: what others told before it may come the
   slower way behind what came the faster one. */
static void test_host_flushed_behind(void **state ATTR_UNUSED)
{
	const char *own = "HOST-FLUSH|10.0.0.2|9090|";
	struct test_conn *left, *right;

	ring_of(3, &left, &right);
	flush_comes(left, 1);
	flush_comes(right, 1);
	assert_not_said(left, own);

	/* nobody is on his way for so long */
	flush_comes(left, 2);
	user_comes(right);
	test_set_time(now.msecs + 10000);
	flush_comes(right, 2);
	assert_true(test_user_exists("jane"));
	assert_not_said(left, own);

	flush_comes(left, 3);
	user_comes(right);
	flush_comes(right, 3);
	assert_false(test_user_exists("jane"));
	assert_said(left, own);
	assert_said(right, own);

	/* if it is always slower this has to end */
	forget_sent();
	flush_comes(left, 4);
	user_comes(right);
	flush_comes(right, 4);
	assert_true(test_user_exists("jane"));
	assert_not_said(left, own);
}

/* The clock was set back before we started. A director that had hung passes on
   what the process before had sent, and everybody takes ours to be older. */
static void test_own_numbers(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;

	ring_of(3, &left, &right);
	forget_sent();
	in(left, "HOST|10.0.0.2|9090|2000000000|10.1.0.1|70||U0||2000");
	assert_int_equal(test_vhosts("10.1.0.1"), 100);
	/* nobody sent that */
	in(left, "HOST|10.0.0.2|9090|4294967295|10.1.0.1|70||U0||2000");
	in(left, "HOST-FLUSH|10.0.0.2|9090|5|10.1.0.1");
	assert_int_equal(director_host_set_down(director, ip_of("10.1.0.1"),
		TRUE, "doveadm: ", &now), DIRECTOR_HOST_OK);
	ring_end();
	assert_said(right, "HOST|10.0.0.2|9090|2000000001|10.1.0.1|");
}

/* What the process before had said is still on its way when we hear of the new
   one. */
static void test_numbers_of_before(void **state ATTR_UNUSED)
{
	const uint64_t started = TEST_WALL * 1000ULL;
	struct test_conn *left, *right;
	unsigned int seq = RING_FIRST_SEQ(started);

	ring_of(4, &left, &right);
	in(left, "DIRECTOR|10.0.0.4|9090|1|%llu",
	   (unsigned long long)RING_INSTANCE(started, 0));
	in(left, "HOST-FLUSH|10.0.0.4|9090|%u|10.1.0.1", seq + 1);
	assert_said(right, "HOST-FLUSH|10.0.0.4|");
	in(left, "DIRECTOR|10.0.0.4|9090|1|%llu",
	   (unsigned long long)RING_INSTANCE(started + 2000, 0));
	forget_sent();
	in(left, "HOST-FLUSH|10.0.0.4|9090|%u|10.1.0.1", seq + 1);
	assert_not_said(right, "HOST-FLUSH|10.0.0.4|");
	seq = RING_FIRST_SEQ(started + 2000);
	in(left, "HOST-FLUSH|10.0.0.4|9090|%u|10.1.0.1", seq + 1);
	assert_said(right, "HOST-FLUSH|10.0.0.4|");
	in(left, "SYNC|10.0.0.4|9090|7|10|%u", TEST_WALL);
	/* who doesn't know which process it is can't know that it is new */
	in(left, "DIRECTOR|10.0.0.4|9090|1");
	forget_sent();
	in(left, "HOST-FLUSH|10.0.0.4|9090|%u|10.1.0.1", seq + 1);
	assert_not_said(right, "HOST-FLUSH|10.0.0.4|");
	/* unless it is of 2.3 now, and counts from 1 */
	in(left, "SYNC|10.0.0.4|9090|1|9|%u", TEST_WALL);
	assert_said(right, "SYNC|10.0.0.4|9090|1|");
	in(left, "HOST-FLUSH|10.0.0.4|9090|1|10.1.0.1");
	assert_said(right, "HOST-FLUSH|10.0.0.4|9090|1|");
}

static uint64_t own_instance(void)
{
	return ring_self(director_ring(director))->instance;
}

static unsigned int flush_seq(struct test_conn *conn)
{
	const char *p, *start = "\nHOST-FLUSH|10.0.0.2|9090|";

	forget_sent();
	assert_int_equal(director_host_flush(director, ip_of("10.1.0.1"),
					     "doveadm: ", &now),
			 DIRECTOR_HOST_OK);
	ring_end();
	p = strstr(str_c(conn->sent), start);
	assert_non_null(p);
	return strtoul(p + strlen(start), NULL, 10);
}

/* Somebody knows a later start of ours: the clock was set back. Who hears of one
   that is later still must not take what we said before for new, nor what we say
   then for old. */
static void test_own_instance(void **state ATTR_UNUSED)
{
	struct test_conn *left, *right;
	unsigned int i, j, seq;

	ring_of(3, &left, &right);
	for (i = 0; i < 3; i++) {
		/* The third time those that we used ourself are more. */
		for (j = 0; j < (i < 2 ? 50 : 16000); j++)
			seq = flush_seq(right);
		in(left, "DIRECTOR|10.0.0.2|9090|1|%llu",
		   (unsigned long long)own_instance() + 1);
		assert_said(right, t_strdup_printf("DIRECTOR|10.0.0.2|9090|1|"
			"%llu", (unsigned long long)own_instance()));
		assert_in_range(RING_INSTANCE_FIRST_SEQ(own_instance()), seq,
				seq + 2*5*60*4 + 2);
		seq = flush_seq(right);
		assert_true(seq > RING_INSTANCE_FIRST_SEQ(own_instance()));
	}
	/* the highest that can be told at all */
	in(left, "DIRECTOR|10.0.0.2|9090|1|%llu", 1ULL << 53);
	assert_not_said(right, "DIRECTOR|");
	assert_true(own_instance() < RING_INSTANCE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_host_changed),
		ring_test(test_host_changed_next),
		ring_test(test_host_changed_untold),
		ring_test(test_host_removed),
		ring_test(test_host_flushed),
		ring_test(test_host_flushed_behind),
		ring_test(test_own_numbers),
		ring_test(test_numbers_of_before),
		ring_test(test_own_instance),
	};

	return run_test_cases(tests);
}
