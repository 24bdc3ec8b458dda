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

/* Which start of the director the number is of, as far as numbers tell; 0 =
   another one than the present one */
static unsigned int
wire_start(const struct sim *sim, const char *const *args, uint32_t number)
{
	const struct sim_node *node;
	struct ring_address address;

	if (net_addr2ip(args[1], &address.ip) < 0 ||
	    net_str2port(args[2], &address.port) < 0)
		return 0;
	for (node = sim->nodes; node < sim->nodes + sim->nodes_count; node++) {
		if (ring_address_cmp(&node->address, &address) == 0 &&
		    number > RING_FIRST_SEQ(node->started_msecs))
			return node->incarnation;
	}
	return 0;
}

static void
wire_line(struct sim_check *check, const struct sim_node *node, const char *line)
{
	const char *const *args = t_strsplit(line, "\t");
	const char *key;
	uint32_t number;
	uint64_t *sent;

	/* (HOST of a handshake has no number there) */
	if (str_array_length(args) < 5 || !wire_is_command(args[0]) ||
	    str_to_uint32(args[3], &number) < 0)
		return;
	key = t_strdup_printf("%u.%u %u %s", node->idx, node->incarnation,
			      wire_start(check->sim, args, number), line);
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
