/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "module-dir.h"
#include "doveadm-director.h"

extern const char *doveadm_director_plugin_version;
void doveadm_director_plugin_init(struct module *module);
void doveadm_director_plugin_deinit(void);

const char *doveadm_director_plugin_version = DOVECOT_ABI_VERSION;

#define USAGE_SOCKET "[-a <director socket path>]"
#define PARAM_SOCKET \
	DOVEADM_CMD_PARAM('a', "socket-path", CMD_PARAM_STR, 0)
#define PARAM_ARG(name) \
	DOVEADM_CMD_PARAM('\0', name, CMD_PARAM_STR, CMD_PARAM_FLAG_POSITIONAL)

/* The HTTP API derives its names from these ("directorStatus"), and parameter
   names are what its clients send: none may change. */
static struct doveadm_cmd_ver2 director_commands[] = {
{
	.name = "director status",
	.cmd = cmd_director_status,
	.usage = USAGE_SOCKET" [<user> | -u <user name>] [<tag>]",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('u', "user-name", CMD_PARAM_STR, 0)
PARAM_ARG("user")
PARAM_ARG("tag")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director map",
	.cmd = cmd_director_map,
	.usage = USAGE_SOCKET" [-f <users file>] [-h | -u] [<host>]",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('f', "users-file", CMD_PARAM_ISTREAM, 0)
DOVEADM_CMD_PARAM('h', "hash-map", CMD_PARAM_BOOL, 0)
DOVEADM_CMD_PARAM('u', "user-map", CMD_PARAM_BOOL, 0)
PARAM_ARG("host")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director add",
	.cmd = cmd_director_add,
	.usage = USAGE_SOCKET" [-t <tag>] <host> [<vhost count>]",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('t', "tag", CMD_PARAM_STR, 0)
PARAM_ARG("host")
PARAM_ARG("vhost-count")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director update",
	.cmd = cmd_director_update,
	.usage = USAGE_SOCKET" <host> <vhost count>",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
PARAM_ARG("host")
PARAM_ARG("vhost-count")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director up",
	.cmd = cmd_director_up,
	.usage = USAGE_SOCKET" <host>",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
PARAM_ARG("host")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director down",
	.cmd = cmd_director_down,
	.usage = USAGE_SOCKET" <host>",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
PARAM_ARG("host")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director remove",
	.cmd = cmd_director_remove,
	.usage = USAGE_SOCKET" [--keep-sessions] <host>",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('\0', "keep-sessions", CMD_PARAM_BOOL, 0)
PARAM_ARG("host")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director flush",
	.cmd = cmd_director_flush,
	.usage = USAGE_SOCKET" [-F] [--max-parallel <n>] <host>|all",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('F', "force-flush", CMD_PARAM_BOOL, 0)
/* Old man pages have -f, which the original refused. */
DOVEADM_CMD_PARAM('f', "force", CMD_PARAM_BOOL, CMD_PARAM_FLAG_DO_NOT_EXPOSE)
DOVEADM_CMD_PARAM('\0', "max-parallel", CMD_PARAM_INT64, 0)
PARAM_ARG("host")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director move",
	.cmd = cmd_director_move,
	.usage = USAGE_SOCKET" [--wait] {<user> | -u <user name>} <host>",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('\0', "wait", CMD_PARAM_BOOL, 0)
DOVEADM_CMD_PARAM('u', "user-name", CMD_PARAM_STR, 0)
PARAM_ARG("user")
PARAM_ARG("host")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director kick",
	.cmd = cmd_director_kick,
	.usage = USAGE_SOCKET" [-f <passdb field>] <user>",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAM('f', "passdb-field", CMD_PARAM_STR, 0)
PARAM_ARG("user")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director sessions",
	.cmd = cmd_director_sessions,
	.usage = USAGE_SOCKET" [<user>]",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
PARAM_ARG("user")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director dump",
	.cmd = cmd_director_dump,
	.usage = USAGE_SOCKET,
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director ring add",
	.cmd = cmd_director_ring_add,
	.usage = USAGE_SOCKET" <ip> [<port>]",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
PARAM_ARG("ip")
PARAM_ARG("port")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director ring remove",
	.cmd = cmd_director_ring_remove,
	.usage = USAGE_SOCKET" <ip> [<port>]",
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
PARAM_ARG("ip")
PARAM_ARG("port")
DOVEADM_CMD_PARAMS_END
},
{
	.name = "director ring status",
	.cmd = cmd_director_ring_status,
	.usage = USAGE_SOCKET,
DOVEADM_CMD_PARAMS_START
PARAM_SOCKET
DOVEADM_CMD_PARAMS_END
},
};

void doveadm_director_plugin_init(struct module *module ATTR_UNUSED)
{
	for (unsigned int i = 0; i < N_ELEMENTS(director_commands); i++)
		doveadm_cmd_register_ver2(&director_commands[i]);
}

void doveadm_director_plugin_deinit(void)
{
}
