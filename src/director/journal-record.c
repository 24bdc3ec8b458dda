/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* The journal's lines. */

#include "lib.h"
#include "str.h"
#include "strescape.h"
#include "crc32.h"
#include "core/director.h"
#include "journal-record.h"

void journal_line_end(string_t *str, size_t start)
{
	str_printfa(str, "\t%08x\n", crc32_data(str_data(str) + start,
						str_len(str) - start));
}

bool journal_line_check(const char *line, size_t *len_r)
{
	const char *p = strrchr(line, '\t');
	uintmax_t crc;

	if (p == NULL || strlen(p + 1) != 8 ||
	    str_to_uintmax_hex(p + 1, &crc) < 0 ||
	    crc != crc32_data(line, p - line))
		return FALSE;
	*len_r = p - line;
	return TRUE;
}

static const char *const record_names[] = {
	"config", "host", "host-remove", "host-flush", "user", "user-forget",
	"process"
};

void journal_record_append(string_t *str, const struct director_record *record)
{
	size_t start = str_len(str);

	str_append(str, record_names[record->type]);
	str_append_c(str, '\t');
	switch (record->type) {
	case DIRECTOR_RECORD_CONFIG:
	case DIRECTOR_RECORD_HOST:
		str_append(str, net_ip2addr(&record->ip));
		str_append_c(str, '\t');
		str_append_tabescaped(str, record->tag);
		str_append_c(str, '\t');
		if (record->hostname != NULL)
			str_append_tabescaped(str, record->hostname);
		if (record->type == DIRECTOR_RECORD_CONFIG)
			break;
		str_printfa(str, "\t%u\t%s\t%"PRIdTIME_T, record->vhosts,
			    record->down ? "down" : "up", record->timestamp);
		break;
	case DIRECTOR_RECORD_HOST_REMOVE:
	case DIRECTOR_RECORD_HOST_FLUSH:
		str_append(str, net_ip2addr(&record->ip));
		if (record->keep)
			str_append(str, "\tkeep");
		break;
	case DIRECTOR_RECORD_USER:
		str_printfa(str, "%u\t%s\t%"PRIdTIME_T, record->hash,
			    net_ip2addr(&record->ip), record->timestamp);
		break;
	case DIRECTOR_RECORD_USER_FORGET:
		str_printfa(str, "%u\t", record->hash);
		str_append_tabescaped(str, record->tag);
		break;
	case DIRECTOR_RECORD_PROCESS:
		str_printfa(str, "%ld\t%"PRIdTIME_T"\t", (long)record->pid,
			    record->timestamp);
		str_append_tabescaped(str, record->tag);
		break;
	}
	journal_line_end(str, start);
}

static int
record_parse_host(const char *const *args, unsigned int count,
		  struct director_record *record_r)
{
	if (count < (record_r->type == DIRECTOR_RECORD_CONFIG ? 3 : 6) ||
	    net_addr2ip(args[0], &record_r->ip) < 0)
		return -1;
	record_r->tag = args[1];
	record_r->hostname = *args[2] == '\0' ? NULL : args[2];
	if (record_r->type == DIRECTOR_RECORD_CONFIG)
		return 0;
	record_r->down = strcmp(args[4], "down") == 0;
	if (str_to_uint(args[3], &record_r->vhosts) < 0 ||
	    str_to_time(args[5], &record_r->timestamp) < 0)
		return -1;
	return 0;
}

static int
record_parse_args(const char *const *args, unsigned int count,
		  struct director_record *record_r)
{
	switch (record_r->type) {
	case DIRECTOR_RECORD_CONFIG:
	case DIRECTOR_RECORD_HOST:
		return record_parse_host(args, count, record_r);
	case DIRECTOR_RECORD_HOST_REMOVE:
		record_r->keep = count > 1 && strcmp(args[1], "keep") == 0;
		/* fall through */
	case DIRECTOR_RECORD_HOST_FLUSH:
		return count < 1 || net_addr2ip(args[0], &record_r->ip) < 0 ?
			-1 : 0;
	case DIRECTOR_RECORD_USER:
		return count < 3 ||
			str_to_uint32(args[0], &record_r->hash) < 0 ||
			net_addr2ip(args[1], &record_r->ip) < 0 ||
			str_to_time(args[2], &record_r->timestamp) < 0 ?
			-1 : 0;
	case DIRECTOR_RECORD_USER_FORGET:
		if (count < 2 || str_to_uint32(args[0], &record_r->hash) < 0)
			return -1;
		record_r->tag = args[1];
		return 0;
	case DIRECTOR_RECORD_PROCESS:
		if (count < 3 || str_to_pid(args[0], &record_r->pid) < 0 ||
		    record_r->pid <= 0 ||
		    str_to_time(args[1], &record_r->timestamp) < 0)
			return -1;
		record_r->tag = args[2];
		return 0;
	}
	i_unreached();
}

int journal_record_parse(const char *line, struct director_record *record_r)
{
	const char *const *args;
	unsigned int i, count;
	size_t len;

	if (!journal_line_check(line, &len))
		return -1;
	args = t_strsplit_tabescaped(t_strndup(line, len));
	count = str_array_length(args);
	if (count == 0)
		return -1;
	for (i = 0; i < N_ELEMENTS(record_names); i++) {
		if (strcmp(args[0], record_names[i]) == 0)
			break;
	}
	if (i == N_ELEMENTS(record_names))
		return 0;
	i_zero(record_r);
	record_r->type = i;
	record_r->tag = "";
	return record_parse_args(args + 1, count - 1, record_r) < 0 ? -1 : 1;
}
