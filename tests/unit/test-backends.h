#ifndef TEST_BACKENDS_H
#define TEST_BACKENDS_H

/* What the tests of backends share */

#include "test-unit.h"
#include "director/core/backend.h"

static struct backends *backends;

static inline int setup(void **state)
{
	backends = backends_init();
	return test_frame_setup(state);
}

static inline int teardown(void **state)
{
	backends_deinit(&backends);
	return test_frame_teardown(state);
}

static inline struct ip_addr addr(const char *text)
{
	struct ip_addr ip;

	assert_int_equal(net_addr2ip(text, &ip), 0);
	return ip;
}

static inline struct backend *
add(const char *ip_text, const char *tag, unsigned int vhosts)
{
	struct ip_addr ip = addr(ip_text);
	struct backend *backend =
		backend_add(backends, &ip, NULL, tag, vhosts);

	assert_non_null(backend);
	return backend;
}

static inline struct backend *get(const char *ip_text)
{
	struct ip_addr ip = addr(ip_text);

	return backend_lookup(backends, &ip);
}

static inline void del(const char *ip_text)
{
	struct backend *backend = get(ip_text);

	backend_remove(backends, &backend);
	assert_null(backend);
	assert_null(get(ip_text));
}

static inline const char *by_hash(const char *tag, uint32_t hash)
{
	struct backend *backend = backend_by_hash(backends, tag, hash);

	return backend == NULL ? "none" : net_ip2addr(&backend->ip);
}

#define backend_test(func) \
	cmocka_unit_test_setup_teardown(func, setup, teardown)

#endif
