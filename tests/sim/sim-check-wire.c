/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What directors tell each other: each command is carried out once. */

#include "sim-check-private.h"
#include "hash.h"
#include "strnum.h"

static bool wire_is_command(const char *name)
{
	unsigned int i;

	for (i = 0; i < RING_MESSAGE_TYPES; i++) {
		if (ring_message_travel(i) == RING_TRAVEL_ALL &&
		    strcmp(ring_message_name(i), name) == 0)
			return TRUE;
	}
	return FALSE;
}

static const struct sim_node *
wire_origin(const struct sim *sim, const char *const *args)
{
	struct ring_address address;
	unsigned int i;

	if (net_addr2ip(args[0], &address.ip) < 0 ||
	    net_str2port(args[1], &address.port) < 0)
		return NULL;
	for (i = 0; i < sim->nodes_count; i++) {
		if (ring_address_cmp(&sim->nodes[i].address, &address) == 0)
			return &sim->nodes[i];
	}
	return NULL;
}

static void
wire_line(struct sim_check *check, const struct sim_node *node, const char *line)
{
	const char *const *args = t_strsplit(line, "\t");
	const struct sim_node *origin;
	const char *key;
	uint64_t *sent;

	/* (HOST of a handshake has no origin) */
	if (str_array_length(args) < 5 || !wire_is_command(args[0]) ||
	    (origin = wire_origin(check->sim, &args[1])) == NULL)
		return;
	/* A new process of its origin may begin with numbers that were. */
	key = t_strdup_printf("%u.%u %u.%u %s %s", node->idx, node->incarnation,
			      origin->idx, origin->incarnation, args[0],
			      args[3]);
	sent = hash_table_lookup(check->commands_sent, key);
	if (sent == NULL) {
		sent = p_new(check->sim->pool, uint64_t, 1);
		*sent = check->sim->now;
		hash_table_insert(check->commands_sent,
				  p_strdup(check->sim->pool, key), sent);
	} else if (*sent != check->sim->now) {
		sim_fail(check->sim, "twice",
			 "%s passes on again what it did %.3f s ago: %s",
			 node->name, (check->sim->now - *sent) / 1e6,
			 t_str_replace(line, '\t', ' '));
	}
}

void sim_check_sent(struct sim_check *check, const struct sim_node *node,
		    const void *data, size_t size)
{
	T_BEGIN {
		const char *const *lines =
			t_strsplit(t_strndup(data, size), "\n");

		for (; *lines != NULL; lines++)
			wire_line(check, node, *lines);
	} T_END;
}
