#ifndef SIM_CLIENT_PRIVATE_H
#define SIM_CLIENT_PRIVATE_H

#include "sim.h"

struct check_hold;
struct sim_link;

/* A login process; after a crash the one that is started instead */
struct sim_process {
	struct sim_node *node;
	unsigned int slot, generation;
	/* SIGSTOP, and what it will do when it goes on */
	bool stopped;
	uint64_t stopped_since;
	ARRAY(struct sim_pending) pending;
	/* The connection of its plugin; NULL: none */
	struct sim_link *link;
	/* Connections made so far */
	unsigned int connects;
	/* What its lookups are for; NULL: there were none yet */
	struct login_process *director_side;
	/* A director has recorded it. */
	bool recorded;
};

struct sim_session {
	struct director_lookup lookup;
	/* While it waits */
	struct sim_session *prev, *next;
	struct sim_node *node;
	unsigned int user, tag;
	/* NULL: none (LMTP) */
	struct sim_process *process;
	unsigned int generation;
	bool dropped;
	uint64_t start_delay, length;
	uint64_t asked_time;

	struct check_hold *hold;
	struct ip_addr ip;
	struct session_token token;
	time_t since;
	/* The login process acts on the answer. */
	bool live, started;
	/* The connection over which it was told last */
	struct sim_link *told;
};

/* -- sim-client.c -- */

void sim_session_over(struct sim_session *session);
/* Ends lookups of processes that are gone. */
void sim_client_abort_gone(struct sim_node *node);

/* -- sim-plugin.c -- */

struct sim_process *
sim_process_get(struct sim_node *node, unsigned int slot);
/* For lookups */
struct login_process *sim_process_ref(struct sim_process *process);
/* Calls func now, or when the process goes on. */
void sim_process_post(struct sim_process *process, sim_event_func_t *func,
		      void *arg, uint64_t value);
/* Their process tells the director. */
void sim_plugin_started(struct sim_session *session);
void sim_plugin_ended(struct sim_session *session);
void sim_process_director_gone(struct sim_node *node);
/* NULL if this connection is broken. */
struct sim_process *
sim_process_of_plugin(const struct session_plugin *plugin);

#endif
