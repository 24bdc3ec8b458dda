/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The first byte tells the peer's minor (the lower 4 bits), whether it is in
   its handshake (0x10) and in the list of hosts (0x20): I, Y and i for a peer
   of minor 9. Then comes a line. */

#include "lib.h"
#include "str.h"
#include "director/core/ring-message.h"
#include "fuzz.h"

static int
parse(const char *line, uint8_t flags, struct ring_message *msg_r)
{
	const char *error = NULL;
	int ret;

	ret = ring_message_parse(line, flags & 15, (flags & 0x10) != 0,
				 (flags & 0x20) != 0, msg_r, &error);
	i_assert(ret == 0 || (ret == -1 && error != NULL && *error != '\0'));
	return ret;
}

static void assert_equal(struct ring_message m1, struct ring_message m2)
{
	i_assert(strcmp(m1.tag, m2.tag) == 0);
	i_assert(strcmp(m1.hostname, m2.hostname) == 0);
	i_assert(strcmp(m1.text, m2.text) == 0);
	i_assert(strcmp(m1.value, m2.value) == 0);
	m1.tag = m2.tag = m1.hostname = m2.hostname = NULL;
	m1.text = m2.text = m1.value = m2.value = NULL;
	/* the parser clears them, so the padding is the same, too */
	i_assert(memcmp(&m1, &m2, sizeof(m1)) == 0);
}

static void check_line(const char *line, uint8_t flags)
{
	string_t *sent = t_str_new(128), *again = t_str_new(128);
	struct ring_message msg, msg2;
	size_t len;

	if (parse(line, flags, &msg) < 0 ||
	    !ring_message_append(sent, &msg, flags & 15))
		return;
	len = str_len(sent) - 1;
	i_assert(len > 0 && len <= RING_LINE_MAX);
	i_assert(strcspn(str_c(sent), "\r\n") == len);
	i_assert(strlen(str_c(sent)) == len + 1);

	str_truncate(sent, len);
	i_assert(parse(str_c(sent), flags, &msg2) == 0);
	assert_equal(msg, msg2);
	i_assert(ring_message_append(again, &msg2, flags & 15));
	str_truncate(again, len);
	i_assert(strcmp(str_c(again), str_c(sent)) == 0);
}

int LLVMFuzzerInitialize(int *argc ATTR_UNUSED, char ***argv ATTR_UNUSED)
{
	lib_init();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line;

	if (size == 0)
		return 0;
	/* memory that ends where the line does */
	line = i_strndup(data + 1, size - 1);
	T_BEGIN {
		check_line(line, data[0]);
	} T_END;
	i_free(line);
	return 0;
}
