#ifndef TEST_RING_MESSAGE_H
#define TEST_RING_MESSAGE_H

#include "str.h"
#include "director/core/ring-message.h"

/* When a line is read */
enum test_when {
	AFTERWARDS,
	HANDSHAKE,
	HOST_LIST,
};

static inline int
test_parse(const char *line, unsigned int minor, enum test_when when,
	   struct ring_message *msg_r, const char **error_r)
{
	int ret;

	*error_r = NULL;
	ret = ring_message_parse(line, minor, when != AFTERWARDS,
				 when == HOST_LIST, msg_r, error_r);
	if (ret < 0)
		assert_non_null(*error_r);
	return ret;
}

/* Without the LF; NULL if it can't be sent */
static inline const char *
test_append(const struct ring_message *msg, unsigned int minor)
{
	string_t *str = t_str_new(128);
	size_t len;

	str_append(str, "before");
	if (!ring_message_append(str, msg, minor)) {
		assert_string_equal(str_c(str), "before");
		return NULL;
	}
	len = str_len(str);
	assert_memory_equal(str_data(str), "before", 6);
	assert_int_equal(str_data(str)[len - 1], '\n');
	assert_true(len > 7 && len - 7 <= RING_LINE_MAX);
	/* nothing in it ends the line earlier */
	assert_int_equal(strcspn(str_c(str), "\r\n"), len - 1);
	return t_strdup_until(str_c(str) + 6, str_c(str) + len - 1);
}

static inline void
assert_address_equal(const struct ring_address *a1,
		     const struct ring_address *a2)
{
	assert_true(net_ip_compare(&a1->ip, &a2->ip));
	assert_int_equal(a1->port, a2->port);
}

/* NULL is the same as "". */
static inline void assert_text_equal(const char *t1, const char *t2)
{
	assert_string_equal(t1 == NULL ? "" : t1, t2 == NULL ? "" : t2);
}

static inline void
assert_message_equal(const struct ring_message *m1,
		     const struct ring_message *m2)
{
	assert_string_equal(ring_message_name(m1->type),
			    ring_message_name(m2->type));
	assert_int_equal(m1->type, m2->type);
	assert_address_equal(&m1->origin, &m2->origin);
	assert_int_equal(m1->seq, m2->seq);
	assert_address_equal(&m1->director, &m2->director);
	assert_true(m1->instance == m2->instance);
	assert_true(m1->changed == m2->changed);
	assert_true(m1->even_clock == m2->even_clock);
	assert_int_equal(m1->lost_msecs, m2->lost_msecs);
	assert_true(net_ip_compare(&m1->ip, &m2->ip));
	assert_int_equal(m1->hops, m2->hops);
	assert_int_equal(m1->count, m2->count);
	assert_int_equal(m1->place, m2->place);
	assert_int_equal(m1->vhosts, m2->vhosts);
	assert_text_equal(m1->tag, m2->tag);
	assert_text_equal(m1->hostname, m2->hostname);
	assert_int_equal(m1->down, m2->down);
	assert_int_equal(m1->has_state, m2->has_state);
	assert_int_equal(m1->hash, m2->hash);
	assert_int_equal(m1->weak, m2->weak);
	assert_int_equal(m1->timestamp, m2->timestamp);
	assert_int_equal(m1->has_timestamp, m2->has_timestamp);
	assert_int_equal(m1->major, m2->major);
	assert_int_equal(m1->minor, m2->minor);
	assert_int_equal(m1->flag, m2->flag);
	assert_int_equal(m1->hosts_hash, m2->hosts_hash);
	assert_true(m1->buffered == m2->buffered);
	assert_text_equal(m1->text, m2->text);
	assert_text_equal(m1->value, m2->value);
}

#endif
