/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#ifndef ADMIN_LOAD_H
#define ADMIN_LOAD_H

#include <stdint.h>
#include <sys/types.h>

/* An admin command, sent by a process of its own. It shares this with us. */
struct admin {
	/* When the command is to be sent, later when it was; when its reply
	   was complete, or 0 */
	volatile uint64_t start, end;
	volatile uint64_t bytes, lines;
	char reply[64];
};

/* The process ends with code 0 after the reply. */
struct admin *admin_start(const char *path, const char *command,
			  uint64_t start, pid_t *pid_r);

#endif
