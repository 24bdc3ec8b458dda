/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What the commands of the admin socket do (spec: sockets.md §7.2-7.5). */

#include "lib.h"
#include "ostream.h"
#include "str.h"
#include "str-sanitize.h"
#include "strescape.h"
#include "strnum.h"
#include "director-admin-protocol.h"
#include "director-daemon.h"
#include "director-settings.h"
#include "ring-connection.h"
#include "server-list.h"
#include "admin-connection.h"
#include "admin-sessions.h"

/* Entries of the user table looked at in a slice of USER-LIST */
#define USER_LIST_STEPS 1000

const char *admin_quote(const char *str)
{
	return t_strdup_printf("'%s'", str_sanitize(str, 80));
}

bool admin_parse_ip(struct admin_connection *ac, const char *str,
		    struct ip_addr *ip_r)
{
	const char *tag;

	if (strchr(str, '@') == NULL &&
	    server_list_parse_ip_tag(str, ip_r, &tag) == 0)
		return TRUE;
	admin_error(ac, t_strdup_printf("Invalid IP address %s", admin_quote(str)));
	return FALSE;
}

static void reply_host(struct admin_connection *ac,
		       enum director_host_result result)
{
	switch (result) {
	case DIRECTOR_HOST_OK:
		admin_reply_when_recorded(ac);
		break;
	case DIRECTOR_HOST_NOTFOUND:
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_NOTFOUND);
		break;
	case DIRECTOR_HOST_TAG_CHANGED:
		admin_reply(ac, "host tag can't be changed");
		break;
	case DIRECTOR_HOST_BUSY:
		admin_reply(ac, "host is already being updated - "
			    "try again later");
		break;
	case DIRECTOR_HOST_UNSAFE:
		/* only of moves */
		i_unreached();
	}
}

/* -- HOST-* -- */

static void
cmd_host_list(struct admin_connection *ac, const char *const *args ATTR_UNUSED)
{
	struct director *director = director_daemon.core;
	struct backends *backends = director_backends(director);
	struct backend *const *list;
	string_t *str = t_str_new(4096);
	unsigned int i, count;

	list = backends_sorted(backends, &count);
	for (i = 0; i < count; i++) {
		const struct backend *backend = list[i];

		str_printfa(str, "%s\t%u\t%u\t", net_ip2addr(&backend->ip),
			    backend->vhosts, backend_users(backends, backend));
		str_append_tabescaped(str, backend->tag);
		str_printfa(str, "\t%c\t%"PRIdTIME_T"\t%u\n",
			    backend->down ? 'D' : 'U',
			    backend->last_updown_change,
			    session_leases_count(director_leases(director),
						 &backend->ip));
	}
	str_append_c(str, '\n');
	o_stream_nsend(ac->conn.output, str_data(str), str_len(str));
}

static void
cmd_host_list_removed(struct admin_connection *ac,
		      const char *const *args ATTR_UNUSED)
{
	struct director *director = director_daemon.core;
	const struct backend *backend;
	struct backend *const *list;
	unsigned int i, count;

	list = backends_sorted(director_initial_backends(director), &count);
	for (i = 0; i < count; i++) {
		backend = backend_lookup(director_backends(director),
					 &list[i]->ip);
		/* that with another tag is another one */
		if (backend == NULL ||
		    strcmp(backend->tag, list[i]->tag) != 0)
			admin_reply(ac, net_ip2addr(&list[i]->ip));
	}
	admin_reply(ac, "");
}

static void host_set(struct admin_connection *ac, const char *const *args,
		     bool may_add)
{
	struct director_time now = director_daemon_now();
	unsigned int vhosts = UINT_MAX;
	struct ip_addr ip;
	const char *tag;

	if (server_list_parse_ip_tag(args[0], &ip, &tag) < 0) {
		admin_error(ac, t_strdup_printf("Invalid IP address %s",
						admin_quote(args[0])));
		return;
	}
	if (!server_list_is_tag(tag)) {
		admin_error(ac, t_strdup_printf(
			"Invalid tag %s: can't contain spaces or control "
			"characters", admin_quote(tag)));
		return;
	}
	if (args[1] != NULL && str_to_uint(args[1], &vhosts) < 0) {
		admin_error(ac, t_strdup_printf(
			"Invalid vhost count %s: must be a number from 0 to "
			"%u", admin_quote(args[1]), DIRECTOR_MAX_VHOSTS));
		return;
	}
	if (args[1] != NULL && vhosts > DIRECTOR_MAX_VHOSTS) {
		admin_reply(ac, "vhost count too large");
		return;
	}
	if (strchr(args[0], '@') == NULL)
		tag = NULL;
	reply_host(ac, director_host_set(director_daemon.core, &ip, tag,
					 vhosts, may_add, ADMIN_LOG_PREFIX,
					 &now));
}

static void
cmd_host_set(struct admin_connection *ac, const char *const *args)
{
	host_set(ac, args, TRUE);
}

static void
cmd_host_update(struct admin_connection *ac, const char *const *args)
{
	host_set(ac, args, FALSE);
}

static void host_set_down(struct admin_connection *ac, const char *const *args,
			  bool down)
{
	struct director_time now = director_daemon_now();
	struct ip_addr ip;

	if (admin_parse_ip(ac, args[0], &ip)) {
		reply_host(ac, director_host_set_down(director_daemon.core, &ip,
						      down, ADMIN_LOG_PREFIX,
						      &now));
	}
}

static void cmd_host_up(struct admin_connection *ac, const char *const *args)
{
	host_set_down(ac, args, FALSE);
}

static void
cmd_host_down(struct admin_connection *ac, const char *const *args)
{
	host_set_down(ac, args, TRUE);
}

static void
cmd_host_remove(struct admin_connection *ac, const char *const *args)
{
	struct director_time now = director_daemon_now();
	bool keep = args[1] != NULL;
	struct ip_addr ip;

	if (keep && strcmp(args[1], "keep") != 0) {
		admin_error(ac, t_strdup_printf(
			"Invalid parameter %s: must be keep", admin_quote(args[1])));
	} else if (admin_parse_ip(ac, args[0], &ip)) {
		reply_host(ac, director_host_remove(director_daemon.core, &ip,
						    keep, ADMIN_LOG_PREFIX,
						    &now));
	}
}

static void
cmd_host_flush(struct admin_connection *ac, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct ip_addr ip;

	if (args[0] != NULL && !admin_parse_ip(ac, args[0], &ip))
		return;
	reply_host(ac, director_host_flush(director_daemon.core,
					   args[0] == NULL ? NULL : &ip,
					   ADMIN_LOG_PREFIX, &now));
}

static void
cmd_host_reset_users(struct admin_connection *ac, const char *const *args)
{
	unsigned int max_parallel = 0;
	bool one, progress = FALSE;
	struct ip_addr ip;

	one = args[0] != NULL && args[0][0] != '\0';
	if (one && !admin_parse_ip(ac, args[0], &ip))
		return;
	if (args[0] != NULL && args[1] != NULL) {
		if (args[1][0] != '\0' &&
		    (str_to_uint(args[1], &max_parallel) < 0 ||
		     max_parallel == 0)) {
			admin_error(ac, t_strdup_printf(
				"Invalid number of parallel moves %s: must be "
				"at least 1", admin_quote(args[1])));
			return;
		}
		if (args[2] != NULL) {
			progress = strcmp(args[2], "progress") == 0;
			if (!progress) {
				admin_error(ac, t_strdup_printf(
					"Invalid parameter %s: must be "
					"progress", admin_quote(args[2])));
				return;
			}
		}
	}
	if (!admin_flush(ac, one ? &ip : NULL, max_parallel, progress))
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_NOTFOUND);
}

/* -- DIRECTOR-* -- */

static void
add_director(string_t *str, const struct ring_member *member, const char *type,
	     const char *status)
{
	str_printfa(str, "%s\t%u\t%s\t%"PRIdTIME_T"\t%s",
		    net_ip2addr(&member->address.ip), member->address.port,
		    type, ring_member_last_failed(member), status);
}

static const char *self_status(const struct ring *ring)
{
	struct director_time now = director_daemon_now();

	if (!ring_is_handshaked(ring))
		return "ring handshaking";
	if (ring_is_synced(ring))
		return "ring synced";
	return t_strdup_printf("ring syncing - last sync %u secs ago",
		(unsigned int)((now.msecs - ring_sync_began(ring)) / 1000));
}

static const char *peer_status(const struct ring_peer *peer)
{
	if (peer->state == RING_PEER_DONE)
		return peer->synced ? "synced" : "syncing";
	return t_strdup_printf("handshaking - %u USERs %s", peer->incoming ?
			       peer->users_received : peer->users_sent,
			       peer->incoming ? "received" : "sent");
}

static void
add_peer(string_t *str, const struct ring *ring, const struct ring_peer *peer)
{
	const struct ring_member unknown = {
		.address = { .ip = peer->source_ip },
	};
	struct ring_connection_stats stats;

	add_director(str, peer->member == NULL ? &unknown : peer->member,
		     peer == ring_left(ring) ? "left" :
		     peer == ring_right(ring) ? "right" :
		     peer->incoming ? "in" : "out", peer_status(peer));
	ring_connection_get_stats(peer, &stats);
	str_printfa(str, "\t%u\t%"PRIu64"\t%"PRIu64"\t%zu\t%zu\t%"
		    PRIdTIME_T"\t%"PRIdTIME_T"\n",
		    peer->ping_msecs == UINT_MAX ? 0 : peer->ping_msecs,
		    stats.bytes_in, stats.bytes_out, stats.buffered,
		    stats.peak_buffered, stats.last_input, stats.last_output);
}

/* All connections of one director, or those that haven't said whose they are */
static bool
add_peers_of(string_t *str, const struct ring *ring,
	     const struct ring_member *member)
{
	const struct ring_peer *peer;
	bool found = FALSE;

	for (peer = ring_peers(ring); peer != NULL; peer = peer->next) {
		if (peer->member == member && !peer->dead) {
			add_peer(str, ring, peer);
			found = TRUE;
		}
	}
	return found;
}

static void
cmd_director_list(struct admin_connection *ac,
		  const char *const *args ATTR_UNUSED)
{
	struct ring *ring = director_ring(director_daemon.core);
	struct ring_member *const *list;
	string_t *str = t_str_new(1024);
	unsigned int i, count;

	(void)add_peers_of(str, ring, NULL);
	list = ring_members_sorted(ring_get_members(ring), &count);
	for (i = 0; i < count; i++) {
		if (list[i]->self) {
			add_director(str, list[i], "self", self_status(ring));
			str_printfa(str, "\t%u\n", ring_sync_msecs(ring));
		} else if (!add_peers_of(str, ring, list[i])) {
			add_director(str, list[i],
				     list[i]->removed ? "removed" : "", "");
			str_append_c(str, '\n');
		}
	}
	str_append_c(str, '\n');
	o_stream_nsend(ac->conn.output, str_data(str), str_len(str));
}

static bool
parse_director(struct admin_connection *ac, const char *const *args,
	       struct ring_address *address_r)
{
	address_r->port = 0;
	if (!admin_parse_ip(ac, args[0], &address_r->ip))
		return FALSE;
	if (args[1] != NULL && net_str2port(args[1], &address_r->port) < 0) {
		admin_error(ac, t_strdup_printf(
			"Invalid port %s: must be a number from 1 to 65535",
			admin_quote(args[1])));
		return FALSE;
	}
	return TRUE;
}

static void
cmd_director_add(struct admin_connection *ac, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct director *core = director_daemon.core;
	struct ring_address address;
	in_port_t own_port = ring_self(director_ring(core))->address.port;

	if (!parse_director(ac, args, &address))
		return;
	if (own_port == 0) {
		admin_error(ac, "There is no ring: director_servers is empty");
		return;
	}
	if (address.port == 0)
		address.port = own_port;
	ring_add_member(core, &address, "doveadm", &now);
	admin_reply(ac, DIRECTOR_ADMIN_REPLY_OK);
}

static void
cmd_director_remove(struct admin_connection *ac, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct ring_address address;

	if (!parse_director(ac, args, &address))
		return;
	if (!ring_remove_member(director_daemon.core, &address, "doveadm",
				&now))
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_NOTFOUND);
	else
		admin_reply_when_recorded(ac);
}

/* -- USER-* -- */

int admin_parse_user(const char *user, bool is_name, uint32_t *hash_r,
		     const char **error_r)
{
	if (!is_name && str_to_uint32(user, hash_r) == 0)
		return 0;
	return director_user_hash(director_daemon.core, user, hash_r, error_r);
}

/* In the core's time */
static time_t user_expires(user_idx_t idx)
{
	return user_table_timestamp(director_users(director_daemon.core),
				    idx) +
		director_daemon.set->director_user_expire;
}

static const char *backend_ip_str(const struct backend *backend)
{
	return backend == NULL ? "" : net_ip2addr(&backend->ip);
}

static void
cmd_user_lookup(struct admin_connection *ac, const char *const *args)
{
	struct director_time now = director_daemon_now();
	struct director *director = director_daemon.core;
	struct backends *backends = director_backends(director);
	struct user_table *users = director_users(director);
	const char *tag = "", *tag_ptr, *error;
	const struct backend *current = NULL;
	user_idx_t idx = USER_IDX_NONE;
	bool is_name = FALSE;
	uint32_t hash;

	if (args[1] != NULL) {
		tag = args[1];
		is_name = args[2] != NULL && strcmp(args[2], "user") == 0;
	}
	if (admin_parse_user(args[0], is_name, &hash, &error) < 0) {
		e_error(ac->conn.event, "%s", error);
		admin_reply(ac, DIRECTOR_ADMIN_REPLY_TRYAGAIN);
		return;
	}
	tag_ptr = backends_tag(backends, tag);
	if (tag_ptr != NULL)
		idx = user_table_lookup(users, tag_ptr, hash, now.wall);
	if (idx != USER_IDX_NONE) {
		current = backend_by_slot(backends,
					  user_table_slot(users, idx));
	}
	admin_reply(ac, t_strdup_printf("%s\t%"PRIdTIME_T"\t%s\t%s",
		backend_ip_str(current),
		idx == USER_IDX_NONE ? 0 :
			director_daemon_to_wall(user_expires(idx)),
		backend_ip_str(backend_by_hash(backends, tag, hash)),
		backend_ip_str(director_initial_backend(director, tag,
							hash))));
}

struct user_list_context {
	struct admin_connection *ac;
	string_t *str;
	/* From the core's time to the machine's */
	time_t wall_diff;
};

static bool user_list_user(user_idx_t idx, void *context)
{
	struct user_list_context *ctx = context;
	struct director *director = director_daemon.core;
	struct user_table *users = director_users(director);
	const struct ip_addr *wanted = &ctx->ac->walk_ip;
	const struct backend *backend =
		backend_by_slot(director_backends(director),
				user_table_slot(users, idx));
	char buf[MAX_INT_STRLEN];

	if (backend == NULL ||
	    (wanted->family != 0 && !net_ip_compare(wanted, &backend->ip)))
		return TRUE;
	str_append(ctx->str, dec2str_buf(buf, user_table_hash(users, idx)));
	str_append_c(ctx->str, '\t');
	str_append(ctx->str, dec2str_buf(buf, user_expires(idx) +
					 ctx->wall_diff));
	str_append_c(ctx->str, '\t');
	T_BEGIN {
		str_append(ctx->str, net_ip2addr(&backend->ip));
	} T_END;
	str_append_c(ctx->str, '\n');
	return TRUE;
}

static bool user_list_more(struct admin_connection *ac)
{
	struct director_time now = director_daemon_now();
	struct user_list_context ctx = {
		.ac = ac,
		.wall_diff = director_daemon_to_wall(now.wall) - now.wall,
	};
	bool more;

	ctx.str = str_new(default_pool, USER_LIST_STEPS * 48);
	more = user_table_walk(director_users(director_daemon.core),
			       &ac->walk_pos, now.wall, USER_LIST_STEPS,
			       user_list_user, &ctx);
	if (!more)
		str_append_c(ctx.str, '\n');
	o_stream_nsend(ac->conn.output, str_data(ctx.str), str_len(ctx.str));
	str_free(&ctx.str);
	return more;
}

static void
cmd_user_list(struct admin_connection *ac, const char *const *args)
{
	i_zero(&ac->walk_ip);
	if (args[0] != NULL && !admin_parse_ip(ac, args[0], &ac->walk_ip))
		return;
	ac->walk_pos = 0;
	admin_output(ac, user_list_more);
}

static const struct admin_command {
	const char *name;
	unsigned int min_args, max_args;
	/* Executed only when the ring is synced (P in sockets.md §7.2) */
	bool when_synced;
	void (*handler)(struct admin_connection *ac, const char *const *args);
	const char *usage;
} admin_commands[] = {
	{ "HOST-LIST", 0, 0, FALSE, cmd_host_list, "" },
	{ "HOST-LIST-REMOVED", 0, 0, FALSE, cmd_host_list_removed, "" },
	{ "HOST-SET", 1, 2, TRUE, cmd_host_set, "<ip>[@<tag>] [<vhosts>]" },
	{ "HOST-UPDATE", 2, 2, TRUE, cmd_host_update, "<ip>[@<tag>] <vhosts>" },
	{ "HOST-UP", 1, 1, TRUE, cmd_host_up, "<ip>" },
	{ "HOST-DOWN", 1, 1, TRUE, cmd_host_down, "<ip>" },
	{ "HOST-REMOVE", 1, 2, TRUE, cmd_host_remove, "<ip> [keep]" },
	{ "HOST-FLUSH", 0, 1, TRUE, cmd_host_flush, "[<ip>]" },
	{ "HOST-RESET-USERS", 0, 3, FALSE, cmd_host_reset_users,
	  "[<ip>] [<max parallel> [progress]]" },
	{ "DIRECTOR-LIST", 0, 0, FALSE, cmd_director_list, "" },
	{ "DIRECTOR-ADD", 1, 2, TRUE, cmd_director_add, "<ip> [<port>]" },
	{ "DIRECTOR-REMOVE", 1, 2, TRUE, cmd_director_remove,
	  "<ip> [<port>]" },
	{ "USER-LOOKUP", 1, 3, FALSE, cmd_user_lookup,
	  "<user>|<hash> [<tag> [user]]" },
	{ "USER-LIST", 0, 1, FALSE, cmd_user_list, "[<ip>]" },
	{ "USER-MOVE", 2, 4, FALSE, admin_cmd_user_move,
	  "<user>|<hash> <ip> [user] [count|wait]" },
	{ "USER-KICK", 1, 3, FALSE, admin_cmd_user_kick,
	  "<user>|<mask> [nowait] [count]" },
	{ "USER-KICK-ALT", 2, 4, FALSE, admin_cmd_user_kick_alt,
	  "<field> <value> [nowait] [count]" },
	{ "SESSION-LIST", 0, 1, FALSE, admin_cmd_session_list,
	  "[<user>|<hash>|<mask>]" },
};

static const struct admin_command *admin_command_find(const char *name)
{
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(admin_commands); i++) {
		if (strcmp(admin_commands[i].name, name) == 0)
			return &admin_commands[i];
	}
	return NULL;
}

bool admin_command_waits(const char *const *args)
{
	const struct admin_command *cmd =
		args[0] == NULL ? NULL : admin_command_find(args[0]);

	return cmd != NULL && cmd->when_synced;
}

void admin_command(struct admin_connection *ac, const char *const *args)
{
	const struct admin_command *cmd;
	unsigned int count;

	if (args[0] == NULL) {
		admin_error(ac, "Empty line instead of a command");
		return;
	}
	cmd = admin_command_find(args[0]);
	if (cmd == NULL) {
		admin_error(ac, t_strdup_printf("Unknown command %s",
						admin_quote(args[0])));
		return;
	}
	args++;
	count = str_array_length(args);
	if (count < cmd->min_args || count > cmd->max_args) {
		admin_error(ac, t_strdup_printf(
			"Wrong number of parameters, usage: %s %s",
			cmd->name, cmd->usage));
		return;
	}
	cmd->handler(ac, args);
}
