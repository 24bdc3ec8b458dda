/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Random operations on the leases and on a model of them that is too simple to
   be wrong. The seed is fixed. */

#include "test-unit.h"
#include "director/core/session-lease.h"

#define FORGET_MSECS (SESSION_LEASE_DEADLINE_MSECS + SESSION_LEASE_SLACK_MSECS)

static struct session_leases *leases;
static uint64_t now = 5000000;

#define MODEL_LEASES 64
#define MODEL_HASHES 20
/* NULL: unknown, may be any */
static const char *const model_tags[] = { "", "t", NULL };
#define MODEL_TAGS N_ELEMENTS(model_tags)
#define MODEL_PROCESSES 4
#define MODEL_STEPS 40000

static const char *const model_ips[] = { "10.0.0.1", "10.0.0.2", "fd00::3" };

static struct model_lease {
	bool exists;
	struct session_lease *lease;
	struct session_token token;
	unsigned int process, ip;
	const char *tag;
	uint32_t hash;
	enum session_lease_state state;
	/* NULL if ISSUED or orphaned */
	struct session_plugin *plugin;
	uint64_t deadline;
} model[MODEL_LEASES];

/* Each process has two plugin connections: an old and a new one. */
static struct session_plugin *model_plugins[MODEL_PROCESSES][2];
/* Which of them has announced last; NULL if it is lost */
static struct session_plugin *model_announced[MODEL_PROCESSES];

static const struct ip_addr *ip_of(unsigned int num)
{
	struct ip_addr *ip = t_new(struct ip_addr, 1);

	assert_int_equal(net_addr2ip(model_ips[num], ip), 0);
	return ip;
}

static bool model_has(const char *lease_tag, uint32_t hash)
{
	for (unsigned int i = 0; i < MODEL_LEASES; i++) {
		if (model[i].exists && model[i].tag == lease_tag &&
		    model[i].hash == hash &&
		    model[i].state != SESSION_LEASE_ISSUED)
			return TRUE;
	}
	return FALSE;
}

static struct {
	bool has[MODEL_TAGS][MODEL_HASHES];
	unsigned int calls;
} model_told;

static void
model_changed(const char *lease_tag, uint32_t hash, bool leased,
	      void *context ATTR_UNUSED)
{
	unsigned int i;
	bool *has;

	for (i = 0; model_tags[i] != lease_tag; i++) ;
	has = &model_told.has[i][hash];
	assert_true(*has != leased);
	*has = leased;
	model_told.calls++;
}

static void model_check(void)
{
	unsigned int total = 0;
	unsigned int ip_sessions[N_ELEMENTS(model_ips)] = { 0 };
	uint64_t next = 0;

	for (unsigned int i = 0; i < MODEL_LEASES; i++) {
		const struct model_lease *m = &model[i];

		if (!m->exists)
			continue;
		total++;
		assert_ptr_equal(session_lease_lookup(leases, &m->token),
				 m->lease);
		assert_int_equal(m->lease->state, m->state);
		assert_int_equal(session_lease_is_told(m->lease),
				 m->plugin != NULL);
		if (m->plugin != NULL)
			assert_ptr_equal(m->lease->plugin, m->plugin);
		if (m->deadline != 0 && (next == 0 || m->deadline < next))
			next = m->deadline;
		if (m->state != SESSION_LEASE_ISSUED)
			ip_sessions[m->ip]++;
	}
	assert_int_equal(session_leases_total(leases), total);
	if (next != 0 && next <= now)
		assert_true(session_leases_next_deadline(leases) <= now);
	else
		assert_true(session_leases_next_deadline(leases) == next);
	for (unsigned int i = 0; i < N_ELEMENTS(model_ips); i++) {
		assert_int_equal(session_leases_count(leases, ip_of(i)),
				 ip_sessions[i]);
	}
	for (uint32_t hash = 0; hash < MODEL_HASHES; hash++) {
		for (unsigned int i = 0; i < MODEL_TAGS; i++) {
			bool has = model_has(model_tags[i], hash);

			/* the callback has told all of it */
			assert_int_equal(model_told.has[i][hash], has);
			assert_int_equal(
				session_leases_has(leases, model_tags[i], hash),
				has || model_has(NULL, hash));
		}
	}
}

static void
model_add(struct model_lease *m, struct login_process *const *processes,
	  uint64_t *seed)
{
	static uint64_t announced = 0;
	const struct ip_addr *ip;

	m->process = test_rand_below(seed, MODEL_PROCESSES);
	m->ip = test_rand_below(seed, N_ELEMENTS(model_ips));
	m->tag = model_tags[test_rand_below(seed, MODEL_TAGS)];
	m->hash = test_rand_below(seed, MODEL_HASHES);
	m->exists = TRUE;
	ip = ip_of(m->ip);
	if (test_rand_below(seed, 4) > 0) {
		m->lease = session_lease_issue(leases, processes[m->process],
					       m->tag, m->hash, ip, now, 1);
		m->state = SESSION_LEASE_ISSUED;
		m->deadline = now + FORGET_MSECS;
		m->plugin = NULL;
		m->token = m->lease->token;
	} else {
		m->token = (struct session_token){ 1, ++announced };
		m->plugin = model_plugins[m->process][1];
		m->lease = session_lease_announce(leases, m->plugin, m->tag,
						  m->hash, ip, &m->token, 1);
		m->state = SESSION_LEASE_STARTED;
		m->deadline = 0;
	}
}

static void model_step_lease(struct model_lease *m, unsigned int action)
{
	switch (action) {
	case 0:
		session_lease_up(m->lease);
		if (m->state == SESSION_LEASE_STARTED)
			m->state = SESSION_LEASE_UP;
		break;
	case 1:
		session_lease_end(leases, &m->lease);
		m->exists = FALSE;
		break;
	case 2:
		m->tag = model_tags[m->hash % MODEL_TAGS];
		session_lease_set_tag(leases, m->lease, m->tag);
		break;
	default:
		if (m->plugin != NULL)
			break;
		m->plugin = model_plugins[m->process][action % 2];
		session_lease_start(leases, m->lease, m->plugin);
		if (m->state == SESSION_LEASE_ISSUED)
			m->state = SESSION_LEASE_STARTED;
		m->deadline = 0;
		break;
	}
}

static void
model_step_process(struct login_process *process, unsigned int num,
		   unsigned int action)
{
	struct session_plugin **plugin = &model_plugins[num][action % 2];
	struct session_plugin **announced = &model_announced[num];
	bool other_announced = *announced != NULL && *announced != *plugin;
	unsigned int i;
	struct model_lease *m;

	for (i = 0, m = model; i < MODEL_LEASES; i++, m++) {
		if (!m->exists || m->process != num)
			continue;
		if (action == 2) {
			if (m->state != SESSION_LEASE_ISSUED &&
			    m->plugin == NULL)
				m->deadline = I_MIN(m->deadline, now);
		} else if (m->plugin == *plugin) {
			m->plugin = NULL;
			m->deadline = now + (other_announced ? 0 :
					     SESSION_LEASE_ORPHAN_MSECS);
		}
	}
	if (action == 2) {
		session_leases_announced(leases, *plugin, now);
		*announced = *plugin;
	} else {
		if (*announced == *plugin)
			*announced = NULL;
		session_plugin_lost(leases, plugin, now);
		*plugin = session_plugin_init(leases, process);
	}
}

static void model_step_time(uint64_t *seed)
{

	now += test_rand_below(seed, 800);
	while (session_leases_expire(leases, now,
				     1 + test_rand_below(seed, 3))) ;
	for (unsigned int i = 0; i < MODEL_LEASES; i++) {
		if (model[i].exists && model[i].deadline != 0 &&
		    model[i].deadline <= now)
			model[i].exists = FALSE;
	}
}

static void test_model(void **state ATTR_UNUSED)
{
	struct login_process *processes[MODEL_PROCESSES];
	struct model_lease *m;
	uint64_t seed = 1;
	unsigned int i;

	leases = session_leases_init(7, 77, model_changed, NULL);
	for (i = 0; i < MODEL_PROCESSES; i++) {
		processes[i] = login_process_ref(leases, i + 1);
		for (unsigned int j = 0; j < 2; j++) {
			model_plugins[i][j] =
				session_plugin_init(leases, processes[i]);
		}
	}
	for (unsigned int step = 0; step < MODEL_STEPS; step++) T_BEGIN {
		i = test_rand_below(&seed, 100);
		m = &model[test_rand_below(&seed, MODEL_LEASES)];
		if (i < 80 && m->exists)
			model_step_lease(m, test_rand_below(&seed, 5));
		else if (i < 80)
			model_add(m, processes, &seed);
		else if (i < 90)
			model_step_time(&seed);
		else {
			i = test_rand_below(&seed, MODEL_PROCESSES);
			model_step_process(processes[i], i,
					   test_rand_below(&seed, 3));
		}
		model_check();
	} T_END;
	assert_true(model_told.calls > MODEL_STEPS / 40);
	for (i = 0; i < MODEL_PROCESSES; i++) {
		for (unsigned int j = 0; j < 2; j++) {
			session_plugin_lost(leases, &model_plugins[i][j],
					    now);
		}
		login_process_unref(leases, &processes[i]);
	}
	session_leases_deinit(&leases);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_case(test_model),
	};

	return run_test_cases(tests);
}
