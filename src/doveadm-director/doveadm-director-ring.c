/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Commands that show and change which directors are in the ring. */

#include "lib.h"
#include "net.h"
#include "director-admin-protocol.h"
#include "doveadm-director.h"

/* Fields of a DIRECTOR-LIST line (sockets.md §7.4), which are the columns, too.
   Not all lines have all of them. */
enum director_field {
	DIRECTOR_FIELD_IP,
	DIRECTOR_FIELD_PORT,
	DIRECTOR_FIELD_TYPE,
	DIRECTOR_FIELD_LAST_FAILED,
	/* An incoming connection that hasn't introduced itself: with the
	   original its line begins here. */
	DIRECTOR_FIELD_STATUS,
	DIRECTOR_FIELD_LAST_READ = 10,
	DIRECTOR_FIELD_LAST_WRITE,
	DIRECTOR_FIELD_COUNT
};

static const char *const ring_status_titles[DIRECTOR_FIELD_COUNT] = {
	"director ip", "port", "type", "last failed", "status", "ping ms",
	"input", "output", "buffered", "buffered peak", "last read",
	"last write"
};

static const char *ring_status_time(const char *value)
{
	time_t t;

	if (str_to_time(value, &t) < 0)
		return director_cmd_text(value);
	return director_cmd_time(t, "never");
}

static const char *
ring_status_column(enum director_field column, const char *value)
{
	switch (column) {
	case DIRECTOR_FIELD_PORT:
		/* nobody's port: where a connection comes from */
		return strcmp(value, "0") == 0 ? "-" : director_cmd_text(value);
	case DIRECTOR_FIELD_LAST_FAILED:
	case DIRECTOR_FIELD_LAST_READ:
	case DIRECTOR_FIELD_LAST_WRITE:
		return ring_status_time(value);
	default:
		return director_cmd_text(value);
	}
}

static void ring_status_print(const char *const *fields)
{
	unsigned int column = 0;
	struct ip_addr ip;

	if (net_addr2ip(fields[DIRECTOR_FIELD_IP], &ip) < 0) {
		while (column < DIRECTOR_FIELD_STATUS) {
			doveadm_print(column == DIRECTOR_FIELD_TYPE ?
				      "in" : "-");
			column++;
		}
	}
	for (; column < DIRECTOR_FIELD_COUNT && *fields != NULL; column++) {
		doveadm_print(ring_status_column(column, *fields));
		fields++;
	}
	for (; column < DIRECTOR_FIELD_COUNT; column++)
		doveadm_print("-");
}

void cmd_director_ring_status(struct doveadm_cmd_context *cctx)
{
	static const char *const args[] = { "DIRECTOR-LIST", NULL };
	struct director_admin_client *client;
	const char *const *fields;
	int ret;

	client = director_cmd_connect(cctx);
	if (client == NULL)
		return;

	doveadm_print_init(DOVEADM_PRINT_TYPE_TABLE);
	for (unsigned int i = 0; i < DIRECTOR_FIELD_COUNT; i++)
		doveadm_print_header_simple(ring_status_titles[i]);
	if (director_cmd_send(cctx, client, args) == 0) {
		do T_BEGIN {
			ret = director_cmd_next_row(cctx, client, &fields);
			if (ret > 0)
				ring_status_print(fields);
		} T_END; while (ret > 0);
	}
	director_admin_deinit(&client);
}

static void
ring_command_run(struct doveadm_cmd_context *cctx, const char *name,
		 const char *ip, const char *port)
{
	const char *const args[] = { name, ip, port, NULL };
	struct director_admin_client *client;
	const char *line;

	client = director_cmd_connect(cctx);
	if (client == NULL)
		return;
	if (director_cmd_send(cctx, client, args) < 0 ||
	    director_cmd_read_line(cctx, client, &line) < 0)
		;
	else if (strcmp(line, DIRECTOR_ADMIN_REPLY_NOTFOUND) == 0)
		director_cmd_error(cctx, DOVEADM_EX_NOTFOUND, "Not found");
	else if (strcmp(line, DIRECTOR_ADMIN_REPLY_OK) != 0) {
		director_cmd_error(cctx, EX_TEMPFAIL, "Failed: %s",
				   director_cmd_reply_text(line));
	}
	director_admin_deinit(&client);
}

static void
ring_command(struct doveadm_cmd_context *cctx, const char *name)
{
	const char *ip_str, *port_str;
	struct ip_addr ip;
	in_port_t port;

	ip_str = director_cmd_str(cctx, "ip");
	port_str = director_cmd_str(cctx, "port");
	if (ip_str == NULL) {
		director_cmd_usage(cctx);
		return;
	}
	/* A number is most likely a misplaced port, not the address 0.0.0.N */
	if (str_is_numeric(ip_str, '\0') || net_addr2ip(ip_str, &ip) < 0) {
		director_cmd_error(cctx, EX_USAGE, "Invalid IP address '%s'",
				   director_cmd_text(ip_str));
		director_cmd_usage(cctx);
		return;
	}
	if (port_str != NULL && net_str2port(port_str, &port) < 0) {
		director_cmd_error(cctx, EX_USAGE,
				   "Invalid port '%s': not from 1 to 65535",
				   director_cmd_text(port_str));
		director_cmd_usage(cctx);
		return;
	}
	ring_command_run(cctx, name, net_ip2addr(&ip),
			 port_str == NULL ? NULL : dec2str(port));
}

void cmd_director_ring_add(struct doveadm_cmd_context *cctx)
{
	ring_command(cctx, "DIRECTOR-ADD");
}

void cmd_director_ring_remove(struct doveadm_cmd_context *cctx)
{
	ring_command(cctx, "DIRECTOR-REMOVE");
}
