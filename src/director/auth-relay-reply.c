/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* What the relay does with the lines: decides nothing, the core is asked. */

#include "lib.h"
#include "ioloop.h"
#include "llist.h"
#include "ostream.h"
#include "str.h"
#include "str-sanitize.h"
#include "director-proxy-protocol.h"
#include "director-settings.h"
#include "auth-line.h"
#include "auth-relay-private.h"

/* More answers outstanding than any login process has logins */
#define RELAY_MAX_REQUESTS (1U << 13)
#define RELAY_MIN_REQUESTS 8

/* Thousands of logins may wait, and all of them be cancelled. */
#define RELAY_LOOKUP_LISTS 256

static const char *const reply_words[AUTH_RELAY_TYPE_COUNT] = {
	[AUTH_RELAY_LOGIN] = "OK\t",
	[AUTH_RELAY_USERDB] = "PASS\t",
	[AUTH_RELAY_AUTHREPLY] = "OK\t",
};

static bool line_begins(const char *line, size_t size, const char *word)
{
	size_t len = strlen(word);

	return size >= len && memcmp(line, word, len) == 0;
}

/* -- director_proxy_maybe: where the client is connected to -- */

static void requests_grow(struct auth_relay *relay)
{
	struct relay_request *old = relay->requests;
	unsigned int i, old_size = relay->requests_size;

	relay->requests_size = I_MAX(old_size * 2, RELAY_MIN_REQUESTS);
	relay->requests = i_new(struct relay_request, relay->requests_size);
	for (i = 0; i < old_size; i++) {
		if (old[i].id != 0) {
			relay->requests[old[i].id &
					(relay->requests_size - 1)] = old[i];
		}
	}
	i_free(old);
}

static void
relay_request_add(struct auth_relay *relay, const char *line, size_t size)
{
	struct relay_request request = { .id = 0 };

	if (auth_line_parse_request(line, size, &request.id, &request.lip,
				    &request.lport) < 0)
		return;
	if (relay->requests_pending >= relay->requests_size &&
	    relay->requests_size < RELAY_MAX_REQUESTS)
		requests_grow(relay);
	relay->requests_pending++;
	relay->requests[request.id & (relay->requests_size - 1)] = request;
}

/* NULL if it isn't known (any more). */
static struct relay_request *
relay_request_find(struct auth_relay *relay, const char *id_str, size_t id_len)
{
	struct relay_request *request;
	uint32_t id;

	if (relay->requests_size == 0 ||
	    auth_line_parse_id(id_str, id_len, &id) < 0)
		return NULL;
	request = &relay->requests[id & (relay->requests_size - 1)];
	return request->id == id ? request : NULL;
}

/* -- Requests -- */

static void relay_lookup_free(struct relay_lookup **_rl)
{
	struct relay_lookup *rl = *_rl;

	*_rl = NULL;
	i_free(rl->line);
	i_free(rl->username);
	i_free(rl->tag);
	i_free(rl);
}

static struct relay_lookup **
relay_lookup_list(struct auth_relay *relay, const char *id, size_t id_len)
{
	uint32_t num;

	if (auth_line_parse_id(id, id_len, &num) < 0)
		num = 0;
	return &relay->lookups[num % RELAY_LOOKUP_LISTS];
}

static void relay_lookup_unlink(struct relay_lookup *rl)
{
	struct auth_relay *relay = rl->relay;

	DLLIST_REMOVE(relay_lookup_list(relay, rl->id, rl->id_len), rl);
	relay->lookups_count--;
	relay->lookups_bytes -= rl->size;
}

/* Nobody will act on the answer. */
static void relay_drop_lease(const struct session_token *token)
{
	struct director *director = director_daemon.core;
	struct director_time now = director_daemon_now();
	struct session_lease *lease;

	lease = session_lease_lookup(director_leases(director), token);
	if (lease != NULL && lease->state == SESSION_LEASE_ISSUED)
		director_session_end(director, &lease, &now);
}

static void
relay_cancel(struct auth_relay *relay, const char *id, size_t id_len)
{
	struct relay_request *request;
	struct relay_lookup *rl;

	rl = relay->lookups_count == 0 ? NULL :
		*relay_lookup_list(relay, id, id_len);
	while (rl != NULL && (rl->id_len != id_len ||
			      memcmp(rl->id, id, id_len) != 0))
		rl = rl->next;
	if (rl == NULL) {
		/* auth won't answer it */
		if (relay->requests_pending > 0)
			relay->requests_pending--;
		/* or has, and the answer is on its way */
		request = relay_request_find(relay, id, id_len);
		if (request != NULL && request->token.seq != 0)
			relay_drop_lease(&request->token);
		return;
	}
	director_lookup_abort(director_daemon.core, &rl->lookup);
	relay_lookup_unlink(rl);
	relay_lookup_free(&rl);
}

static void relay_cpid(struct auth_relay *relay, const char *args, size_t size)
{
	uint32_t pid;

	/* the client's own word; the plugin's socket shows who it really is */
	if (relay->type != AUTH_RELAY_LOGIN || relay->process != NULL ||
	    auth_line_parse_id(args, size, &pid) < 0 || pid == 0 ||
	    pid > INT_MAX)
		return;
	relay->process = login_process_ref(
		director_leases(director_daemon.core), (pid_t)pid);
}

static void
relay_protocol(struct auth_relay *relay, const char *args, size_t size)
{
	const char *protocol;

	T_BEGIN {
		protocol = auth_line_parse_protocol(args, size);
		if (protocol != NULL) {
			login_process_set_protocol(
				director_leases(director_daemon.core),
				relay->process, protocol);
		}
	} T_END;
}

static void
relay_request(struct auth_relay *relay, const char *line, size_t size)
{
	if (line_begins(line, size, "AUTH\t")) {
		relay_request_add(relay, line + 5, size - 5);
		if (relay->process != NULL && relay->process->protocol == NULL)
			relay_protocol(relay, line + 5, size - 5);
	}
	else if (line_begins(line, size, "PASS\t"))
		relay_request_add(relay, line + 5, size - 5);
	else if (line_begins(line, size, "CANCEL\t"))
		relay_cancel(relay, line + 7, size - 7);
	else if (line_begins(line, size, "CPID\t"))
		relay_cpid(relay, line + 5, size - 5);
}

void auth_relay_requests(struct auth_relay *relay, const char *data,
			 size_t size)
{
	const char *end = data + size, *next;

	if (relay->type == AUTH_RELAY_AUTHREPLY)
		return;
	for (; data < end; data = next + 1) {
		next = memchr(data, '\n', end - data);
		i_assert(next != NULL);
		relay_request(relay, data, next - data);
	}
	auth_relay_update_input(relay);
}

/* -- Replies -- */

static void append_uint(string_t *str, uintmax_t number)
{
	char buf[MAX_INT_STRLEN];

	str_append(str, dec2str_buf(buf, number));
}

static void
append_host(string_t *str, const struct director_lookup *lookup)
{
	const struct backend *backend = lookup->backend;
	const char *ip = net_ip2addr(&backend->ip);

	str_append(str, "\tproxy_refresh=");
	append_uint(str, director_daemon.set->director_user_expire / 2);
	str_append(str, "\thost=");
	if (backend->hostname == NULL)
		str_append(str, ip);
	else {
		str_append(str, backend->hostname);
		str_append(str, "\thostip=");
		str_append(str, ip);
	}
}

static void
append_lease(string_t *str, const struct director_lookup *lookup)
{
	str_append(str, "\t"DIRECTOR_PROXY_FIELD_HASH"=");
	append_uint(str, lookup->hash);
	if (!lookup->leased)
		return;
	str_append(str, "\t"DIRECTOR_PROXY_FIELD_ID"=");
	str_append(str, session_token_str(&lookup->token));
	str_append(str, "\t"DIRECTOR_PROXY_FIELD_DEADLINE"=");
	append_uint(str, lookup->lease_deadline);
}

static void
relay_answer(struct auth_relay *relay, const struct director_lookup *lookup,
	     const struct auth_line *parsed, const char *line, size_t size)
{
	static const struct ip_addr no_ip;
	string_t *str = t_str_new(size + 256);
	struct relay_request *request =
		relay_request_find(relay, parsed->id, parsed->id_len);

	if (request != NULL && lookup->leased)
		request->token = lookup->token;
	if (parsed->proxy_maybe &&
	    auth_line_is_self(parsed, &lookup->backend->ip,
			      request == NULL ? &no_ip : &request->lip,
			      request == NULL ? 0 : request->lport)) {
		if (lookup->leased)
			relay_drop_lease(&lookup->token);
		auth_line_append_local(str, line, size);
		str_append_c(str, '\n');
		o_stream_nsend(relay->client.output, str_data(str),
			       str_len(str));
		return;
	}
	str_append_data(str, line, size);
	if (!parsed->proxy)
		str_append(str, "\tproxy=y");
	append_host(str, lookup);
	if (relay->type == AUTH_RELAY_LOGIN)
		append_lease(str, lookup);
	str_append_c(str, '\n');
	o_stream_nsend(relay->client.output, str_data(str), str_len(str));
}

static void
relay_fail(struct auth_relay *relay, const struct director_lookup *lookup,
	   const struct auth_line *parsed)
{
	string_t *str = t_str_new(64);

	e_error(director_daemon.event, "director: User %s host lookup failed: "
		"%s", str_sanitize(lookup->username, 128), lookup->error);
	str_append(str, "FAIL\t");
	str_append_data(str, parsed->id, parsed->id_len);
	str_append(str, "\tcode=temp_fail\n");
	o_stream_nsend(relay->client.output, str_data(str), str_len(str));
}

static void
relay_hold(struct auth_relay *relay, const struct auth_line *parsed,
	   const char *line, size_t size)
{
	struct relay_lookup *rl = relay->spare;

	relay->spare = NULL;
	if (relay->lookups == NULL) {
		relay->lookups = i_new(struct relay_lookup *,
				       RELAY_LOOKUP_LISTS);
	}
	rl->line = i_memdup(line, size);
	rl->size = size;
	rl->id = rl->line + (parsed->id - line);
	rl->id_len = parsed->id_len;
	rl->lookup.username = rl->username = i_strdup(rl->lookup.username);
	rl->lookup.tag = rl->tag = i_strdup(rl->lookup.tag);
	DLLIST_PREPEND(relay_lookup_list(relay, rl->id, rl->id_len), rl);
	relay->lookups_count++;
	relay->lookups_bytes += size;
}

static void
relay_lookup(struct auth_relay *relay, const struct auth_line *parsed,
	     const char *line, size_t size)
{
	struct director_time now = director_daemon_now();
	struct relay_lookup *rl = relay->spare;
	int ret;

	if (rl == NULL) {
		rl = relay->spare = i_new(struct relay_lookup, 1);
		rl->relay = relay;
	}
	rl->lookup.username = parsed->username;
	rl->lookup.tag = parsed->tag;
	rl->lookup.process = relay->process;
	director_daemon.lookups++;
	ret = director_lookup(director_daemon.core, &rl->lookup, &now);
	if (ret > 0) {
		director_daemon_commit();
		relay_answer(relay, &rl->lookup, parsed, line, size);
	} else if (ret < 0)
		relay_fail(relay, &rl->lookup, parsed);
	else
		relay_hold(relay, parsed, line, size);
}

/* Is it a line that may have to be changed? */
static bool
relay_reply_wanted(struct auth_relay *relay, const char *line, size_t size)
{
	if (relay->requests_pending > 0 &&
	    (line_begins(line, size, reply_words[relay->type]) ||
	     line_begins(line, size, "NOTFOUND\t") ||
	     line_begins(line, size, "FAIL\t")))
		relay->requests_pending--;
	return line_begins(line, size, reply_words[relay->type]);
}

/* Returns TRUE if the line was handled, FALSE if it is to be passed on. */
static bool
relay_reply(struct auth_relay *relay, const char *line, size_t size)
{
	size_t len = strlen(reply_words[relay->type]);
	struct auth_line parsed;
	bool ret;

	T_BEGIN {
		ret = auth_line_parse(line + len, size - len, &parsed);
		if (ret)
			relay_lookup(relay, &parsed, line, size);
	} T_END;
	return ret;
}

void auth_relay_replies(struct auth_relay *relay, const char *data,
			size_t size)
{
	struct ostream *output = relay->client.output;
	/* where the lines begin that are still to be passed on as they are */
	const char *run = data, *end = data + size, *next;

	o_stream_cork(output);
	for (; data < end; data = next + 1) {
		next = memchr(data, '\n', end - data);
		i_assert(next != NULL);
		if (!relay_reply_wanted(relay, data, next - data))
			continue;
		if (run < data)
			o_stream_nsend(output, run, data - run);
		if (relay_reply(relay, data, next - data))
			run = next + 1;
		else
			run = data;
	}
	if (run < end)
		o_stream_nsend(output, run, end - run);
	o_stream_uncork(output);
	director_daemon_schedule();
	auth_relay_update_input(relay);
}

void auth_relay_lookup_done(struct director_lookup *lookup, bool success)
{
	struct relay_lookup *rl =
		container_of(lookup, struct relay_lookup, lookup);
	struct auth_relay *relay = rl->relay;
	size_t len = strlen(reply_words[relay->type]);
	struct auth_line parsed;

	relay_lookup_unlink(rl);
	T_BEGIN {
		(void)auth_line_parse(rl->line + len, rl->size - len, &parsed);
		if (success) {
			relay_answer(relay, lookup, &parsed, rl->line,
				     rl->size);
		} else {
			relay_fail(relay, lookup, &parsed);
		}
	} T_END;
	relay_lookup_free(&rl);
	auth_relay_update_input(relay);
}

void auth_relay_lookups_free(struct auth_relay *relay)
{
	struct relay_lookup *rl;
	unsigned int i;

	for (i = 0; relay->lookups_count > 0; i++) {
		while ((rl = relay->lookups[i]) != NULL) {
			director_lookup_abort(director_daemon.core,
					      &rl->lookup);
			relay_lookup_unlink(rl);
			relay_lookup_free(&rl);
		}
	}
	if (relay->spare != NULL)
		relay_lookup_free(&relay->spare);
	i_free(relay->lookups);
	i_free(relay->requests);
}
