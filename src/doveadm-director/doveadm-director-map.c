/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "array.h"
#include "istream.h"
#include "ostream.h"
#include "net.h"
#include "sort.h"
#include "auth-master.h"
#include "master-service.h"
#include "settings.h"
#include "director/core/username-hash.h"
#include "director/director-settings.h"
#include "doveadm-director.h"

#include <stdio.h>

/* How often it is looked whether there is still a reader */
#define CHECK_OUTPUT_ROWS 1000

/* The names that are known, to be found by their hash: 16 bytes each, and the
   name itself. The director's own list is printed as it comes. */
struct user_name {
	uint32_t hash;
	/* Position in the list */
	uint32_t seq;
	const char *name;
};

struct map_context {
	struct doveadm_cmd_context *cctx;
	struct username_hash *hash;

	pool_t pool;
	ARRAY(struct user_name) names;
	/* If only_hash_set, other names aren't kept. */
	uint32_t only_hash;
	bool only_hash_set;

	/* Print only users on these, if there are any */
	const struct ip_addr *ips;
	unsigned int ips_count;

	unsigned int rows;
};

/* The format is doveadm's own setting, as the original has it: it has to be the
   same wherever a name is hashed. */
static struct username_hash *map_hash_init(struct doveadm_cmd_context *cctx)
{
	const struct director_settings *set;
	struct username_hash *hash;
	const char *error;

	if (settings_get(cctx->set_event, &director_setting_parser_info,
			 SETTINGS_GET_FLAG_NO_CHECK, &set, &error) < 0) {
		director_cmd_fatal(cctx, EX_TEMPFAIL, "%s", error);
		return NULL;
	}
	hash = username_hash_init(set->director_username_hash, &error);
	if (hash == NULL) {
		director_cmd_fatal(cctx, EX_TEMPFAIL,
			"Failed to expand director_username_hash=%s: %s",
			set->director_username_hash, error);
	}
	settings_free(set);
	return hash;
}

static int
map_hash_get(struct doveadm_cmd_context *cctx, struct username_hash *hash,
	     const char *user, uint32_t *hash_r)
{
	const char *error;

	if (username_hash_get(hash, user, hash_r, &error) < 0) {
		director_cmd_error(cctx, EX_TEMPFAIL,
			"Failed to expand director_username_hash: %s", error);
		return -1;
	}
	return 0;
}

static int user_name_cmp(const struct user_name *n1, const struct user_name *n2)
{
	if (n1->hash != n2->hash)
		return n1->hash < n2->hash ? -1 : 1;
	/* Last listed first */
	return n1->seq > n2->seq ? -1 : 1;
}

static int map_add_name(struct map_context *ctx, const char *name)
{
	struct user_name *user;
	uint32_t hash;

	if (master_service_is_killed(master_service))
		return -1;
	if (*name == '\0')
		return 0;
	if (map_hash_get(ctx->cctx, ctx->hash, name, &hash) < 0)
		return -1;
	if (ctx->only_hash_set && hash != ctx->only_hash)
		return 0;
	user = array_append_space(&ctx->names);
	user->hash = hash;
	user->seq = array_count(&ctx->names);
	user->name = p_strdup(ctx->pool, name);
	return 0;
}

static int map_read_file(struct map_context *ctx, struct istream *input)
{
	const char *line;
	int ret = 0;

	while (ret == 0 && (line = i_stream_read_next_line(input)) != NULL) {
		T_BEGIN {
			ret = map_add_name(ctx, line);
		} T_END;
	}
	if (ret == 0 && input->stream_errno != 0) {
		director_cmd_error(ctx->cctx, EX_TEMPFAIL, "users file: %s",
				   i_stream_get_error(input));
		ret = -1;
	}
	return ret;
}

static int map_read_userdb(struct map_context *ctx)
{
	struct auth_master_connection *conn;
	struct auth_master_user_list_ctx *list;
	const char *name;
	int ret = 0;

	conn = auth_master_init(t_strconcat(doveadm_settings->base_dir,
					    "/auth-userdb", NULL), 0);
	list = auth_master_user_list_init(conn, "*", NULL);
	while (ret == 0 && (name = auth_master_user_list_next(list)) != NULL) {
		T_BEGIN {
			ret = map_add_name(ctx, name);
		} T_END;
	}
	if (auth_master_user_list_deinit(&list) < 0)
		ret = -1;
	auth_master_deinit(&conn);
	return ret;
}

/* If this fails, the names until then are used. */
static void map_read_names(struct map_context *ctx)
{
	struct istream *input;
	int ret;

	if (doveadm_cmd_param_istream(ctx->cctx, "users-file", &input)) {
		/* The last line may lack its LF. */
		i_stream_set_return_partial_line(input, TRUE);
		ret = map_read_file(ctx, input);
	} else {
		ret = map_read_userdb(ctx);
	}
	if (ret < 0)
		director_cmd_error(ctx->cctx, EX_TEMPFAIL, "user listing failed");
	array_sort(&ctx->names, user_name_cmp);
}

/* Returns the first of the names with this hash, count_r of them. */
static const struct user_name *
map_find_names(struct map_context *ctx, uint32_t hash, unsigned int *count_r)
{
	const struct user_name *names;
	unsigned int count, left = 0, right, mid, end;

	names = array_get(&ctx->names, &count);
	right = count;
	while (left < right) {
		mid = left + (right - left) / 2;
		if (names[mid].hash < hash)
			left = mid + 1;
		else
			right = mid;
	}
	for (end = left; end < count && names[end].hash == hash; )
		end++;
	*count_r = end - left;
	return names + left;
}

/* Returns -1 if nobody reads what we print. */
static int map_row_printed(struct map_context *ctx)
{
	if (++ctx->rows % CHECK_OUTPUT_ROWS != 0)
		return 0;
	/* the table formatter uses stdio */
	return doveadm_print_ostream->stream_errno != 0 ||
		(!doveadm_server && ferror(stdout) != 0) ? -1 : 0;
}

static bool map_want_ip(struct map_context *ctx, const struct ip_addr *ip)
{
	if (ctx->ips_count == 0)
		return TRUE;
	for (unsigned int i = 0; i < ctx->ips_count; i++) {
		if (net_ip_compare(&ctx->ips[i], ip))
			return TRUE;
	}
	return FALSE;
}

static int
map_print_user(struct map_context *ctx, const char *const *fields)
{
	const struct user_name *names;
	const char *hash_str, *expires_str, *ip_str;
	struct ip_addr ip;
	time_t expires;
	uint32_t hash;
	unsigned int i, count;

	if (str_array_length(fields) < 3 ||
	    str_to_uint32(fields[0], &hash) < 0 ||
	    str_to_time(fields[1], &expires) < 0 ||
	    net_addr2ip(fields[2], &ip) < 0) {
		director_cmd_error(ctx->cctx, EX_PROTOCOL,
			"Invalid USER-LIST reply: %s",
			director_cmd_text(t_strarray_join(fields, " ")));
		return -1;
	}
	if (!map_want_ip(ctx, &ip))
		return 0;

	hash_str = dec2str(hash);
	expires_str = director_cmd_time(expires, "-");
	ip_str = net_ip2addr(&ip);
	names = map_find_names(ctx, hash, &count);
	for (i = 0; i < I_MAX(count, 1); i++) {
		doveadm_print(i < count ? director_cmd_text(names[i].name) :
			      "<unknown>");
		doveadm_print(hash_str);
		doveadm_print(ip_str);
		doveadm_print(expires_str);
		if (map_row_printed(ctx) < 0)
			return -1;
	}
	return 1;
}

static void
map_list(struct map_context *ctx, struct director_admin_client *client)
{
	/* The server can filter by one address only. */
	const char *const args[] = {
		"USER-LIST",
		ctx->ips_count == 1 ? net_ip2addr(&ctx->ips[0]) : NULL, NULL
	};
	const char *const *fields;
	int ret;

	if (director_cmd_send(ctx->cctx, client, args) < 0)
		return;

	doveadm_print_init(DOVEADM_PRINT_TYPE_TABLE);
	doveadm_print_header("user", "user", DOVEADM_PRINT_HEADER_FLAG_EXPAND);
	doveadm_print_header_simple("hash");
	doveadm_print_header_simple("mail server ip");
	doveadm_print_header_simple("expire time");
	do T_BEGIN {
		ret = director_cmd_next_row(ctx->cctx, client, &fields);
		if (ret > 0)
			ret = map_print_user(ctx, fields) < 0 ? -1 : 1;
	} T_END; while (ret > 0);
}

static void map_hash_of_user(struct map_context *ctx, const char *user)
{
	uint32_t hash;

	if (map_hash_get(ctx->cctx, ctx->hash, user, &hash) < 0)
		return;
	doveadm_print_init(DOVEADM_PRINT_TYPE_TABLE);
	doveadm_print_header("hash", "hash",
			     DOVEADM_PRINT_HEADER_FLAG_HIDE_TITLE);
	doveadm_print(dec2str(hash));
}

static void map_users_of_hash(struct map_context *ctx, const char *hash_str)
{
	const struct user_name *user;

	if (str_to_uint32(hash_str, &ctx->only_hash) < 0) {
		director_cmd_fatal(ctx->cctx, EX_TEMPFAIL,
				   "Invalid username hash: %s", hash_str);
		return;
	}
	ctx->only_hash_set = TRUE;
	map_read_names(ctx);
	doveadm_print_init(DOVEADM_PRINT_TYPE_TABLE);
	doveadm_print_header("user", "user",
			     DOVEADM_PRINT_HEADER_FLAG_HIDE_TITLE);
	array_foreach(&ctx->names, user)
		doveadm_print(director_cmd_text(user->name));
}

static void map_users(struct map_context *ctx, const char *host)
{
	struct director_admin_client *client;

	if (host != NULL &&
	    director_cmd_get_ips(ctx->cctx, host, &ctx->ips,
				 &ctx->ips_count) < 0)
		return;
	/* Before the names, which may take long to read */
	client = director_cmd_connect(ctx->cctx);
	if (client == NULL)
		return;
	map_read_names(ctx);
	map_list(ctx, client);
	director_admin_deinit(&client);
}

void cmd_director_map(struct doveadm_cmd_context *cctx)
{
	struct map_context ctx = { .cctx = cctx };
	const char *host = director_cmd_str(cctx, "host");
	bool hash_map = director_cmd_bool(cctx, "hash-map");
	bool user_map = director_cmd_bool(cctx, "user-map");

	if (hash_map || user_map) {
		if (host == NULL || (hash_map && user_map)) {
			director_cmd_usage(cctx);
			return;
		}
	}
	ctx.hash = map_hash_init(cctx);
	if (ctx.hash == NULL)
		return;
	ctx.pool = pool_alloconly_create("director map users", 1024);
	i_array_init(&ctx.names, 128);
	if (user_map)
		map_hash_of_user(&ctx, host);
	else if (hash_map)
		map_users_of_hash(&ctx, host);
	else
		map_users(&ctx, host);
	array_free(&ctx.names);
	pool_unref(&ctx.pool);
	username_hash_deinit(&ctx.hash);
}
