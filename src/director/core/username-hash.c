/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "byteorder.h"
#include "md5.h"
#include "str.h"
#include "var-expand.h"
#include "username-hash.h"

#define MAX_FILTERS 4
/* Longer names are lower-cased in the data stack. */
#define SHORT_NAME_LEN 256

enum name_filter {
	NAME_FILTER_NONE = 0,
	NAME_FILTER_LOWER,
	NAME_FILTER_USERNAME,
	NAME_FILTER_DOMAIN,
};

struct username_hash {
	struct var_expand_program *program;
	/* The format is nothing but %{user} with these filters: there is no
	   need to run the program. */
	bool simple;
	enum name_filter filters[MAX_FILTERS];
};

static const struct {
	const char *name;
	enum name_filter filter;
} simple_filters[] = {
	{ "lower", NAME_FILTER_LOWER },
	{ "username", NAME_FILTER_USERNAME },
	{ "domain", NAME_FILTER_DOMAIN },
};

/* What the 2.3 variables and modifiers are called now */
static const struct {
	const char *key;
	const char *expr;
} old_variables[] = {
	{ "u", "user" },
	{ "user", "user" },
	{ "n", "user | username" },
	{ "username", "user | username" },
	{ "d", "user | domain" },
	{ "domain", "user | domain" },
};

static const struct {
	char key;
	const char *filter;
} old_modifiers[] = {
	{ 'L', "lower" },
	{ 'U', "upper" },
	{ 'R', "reverse" },
	{ 'M', "md5" },
};

static const char *old_variable_expr(const char *name)
{
	for (unsigned int i = 0; i < N_ELEMENTS(old_variables); i++) {
		if (strcmp(old_variables[i].key, name) == 0)
			return old_variables[i].expr;
	}
	return NULL;
}

static const char *old_modifier_filter(char modifier)
{
	for (unsigned int i = 0; i < N_ELEMENTS(old_modifiers); i++) {
		if (old_modifiers[i].key == modifier)
			return old_modifiers[i].filter;
	}
	return NULL;
}

/* Returns the 2.4 form of %<modifiers><name>, or NULL if there is none that is
   sure to give the same. */
static const char *
old_form_translate(const char *modifiers, size_t modifiers_len,
		   const char *name)
{
	string_t *str = t_str_new(64);
	const char *expr = old_variable_expr(name);

	if (expr == NULL)
		return NULL;
	str_printfa(str, "%%{%s", expr);
	for (size_t i = 0; i < modifiers_len; i++) {
		const char *filter = old_modifier_filter(modifiers[i]);

		if (filter == NULL)
			return NULL;
		str_printfa(str, " | %s", filter);
	}
	str_append_c(str, '}');
	return str_c(str);
}

/* text begins with a '%' that isn't followed by '{' or '%'. Returns TRUE and
   error_r if it is a 2.3 variable. */
static bool old_form_parse(const char *text, const char **error_r)
{
	const char *modifiers = text + 1;
	size_t len = strspn(modifiers, "LUEXRHNMDT-.0123456789");
	const char *name = modifiers + len, *end, *new_form;

	if (*name >= 'a' && *name <= 'z') {
		end = name + 1;
		name = t_strdup_until(name, end);
	} else if (*name == '{' && (end = strchr(name, '}')) != NULL) {
		name = t_strdup_until(name + 1, end);
		end++;
	} else {
		return FALSE;
	}
	text = t_strdup_until(text, end);
	new_form = old_form_translate(modifiers, len, name);
	if (new_form != NULL) {
		*error_r = t_strdup_printf("%s is Dovecot 2.3 syntax and would "
			"be literal text, use %s", text, new_form);
	} else {
		*error_r = t_strdup_printf("%s is Dovecot 2.3 syntax and would "
			"be literal text, use %%{user} with filters", text);
	}
	return TRUE;
}

static bool format_has_old_form(const char *format, const char **error_r)
{
	const char *p = format;

	while ((p = strchr(p, '%')) != NULL) {
		if (p[1] == '%') {
			p += 2;
			continue;
		}
		if (p[1] != '{' && old_form_parse(p, error_r))
			return TRUE;
		p++;
	}
	return FALSE;
}

static const char *variable_error(const char *variable)
{
	const char *expr = old_variable_expr(variable);
	const char *arg = strrchr(variable, ':');

	if (expr != NULL) {
		return t_strdup_printf("%%{%s} is Dovecot 2.3 syntax, "
				       "use %%{%s}", variable, expr);
	}
	if (arg != NULL && (expr = old_variable_expr(arg + 1)) != NULL) {
		return t_strdup_printf("%%{%s} is Dovecot 2.3 syntax, use "
			"%%{%s} with a filter, such as %%{%s | md5}",
			variable, expr, expr);
	}
	return t_strdup_printf("Variable %%{%s} can't be used, only %%{user}",
			       variable);
}

static bool
program_variables_ok(const struct var_expand_program *program,
		     const char **error_r)
{
	const char *const *variables = var_expand_program_variables(program);

	if (*variables == NULL) {
		*error_r = "%{user} is missing, "
			"all users would have the same hash";
		return FALSE;
	}
	for (; *variables != NULL; variables++) {
		if (strcmp(*variables, "user") != 0) {
			*error_r = variable_error(*variables);
			return FALSE;
		}
	}
	return TRUE;
}

static const char *skip_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

static bool parse_word(const char **p, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*p, word, len) != 0)
		return FALSE;
	*p = skip_blanks(*p + len);
	return TRUE;
}

/* Returns TRUE if the whole format, which is known to be valid, is %{user} with
   simple filters only. */
static bool
format_parse_simple(const char *p, enum name_filter filters[MAX_FILTERS])
{
	unsigned int count = 0, i;

	if (!parse_word(&p, "%{") || !parse_word(&p, "user"))
		return FALSE;
	while (parse_word(&p, "|")) {
		for (i = 0; i < N_ELEMENTS(simple_filters); i++) {
			if (parse_word(&p, simple_filters[i].name))
				break;
		}
		if (i == N_ELEMENTS(simple_filters) || count == MAX_FILTERS)
			return FALSE;
		filters[count++] = simple_filters[i].filter;
	}
	return strcmp(p, "}") == 0;
}

struct username_hash *
username_hash_init(const char *format, const char **error_r)
{
	struct username_hash *hash;
	struct var_expand_program *program;
	uint32_t value;

	if (format_has_old_form(format, error_r))
		return NULL;
	if (var_expand_program_create(format, &program, error_r) < 0)
		return NULL;
	if (!program_variables_ok(program, error_r)) {
		var_expand_program_free(&program);
		return NULL;
	}
	hash = i_new(struct username_hash, 1);
	hash->program = program;
	/* Unknown filters and the like aren't found by the parser. */
	if (username_hash_get(hash, "user@example.com", &value, error_r) < 0) {
		username_hash_deinit(&hash);
		return NULL;
	}
	hash->simple = format_parse_simple(format, hash->filters);
	return hash;
}

void username_hash_deinit(struct username_hash **_hash)
{
	struct username_hash *hash = *_hash;

	*_hash = NULL;
	var_expand_program_free(&hash->program);
	i_free(hash);
}

static uint32_t hash_text(const void *text, size_t len)
{
	unsigned char digest[MD5_RESULTLEN];
	uint32_t value;

	md5_get_digest(text, len, digest);
	value = be32_to_cpu_unaligned(digest);
	return value == 0 ? 1 : value;
}

static uint32_t hash_lower(const char *name, size_t len)
{
	char short_name[SHORT_NAME_LEN], *buf = short_name;

	if (len > sizeof(short_name))
		buf = t_malloc_no0(len);
	/* ASCII only, whatever the locale */
	for (size_t i = 0; i < len; i++) {
		bool upper = name[i] >= 'A' && name[i] <= 'Z';

		buf[i] = upper ? name[i] + ('a' - 'A') : name[i];
	}
	return hash_text(buf, len);
}

static uint32_t
username_hash_simple(const struct username_hash *hash, const char *name)
{
	size_t len = strlen(name);
	const char *at;
	bool lower = FALSE;

	for (unsigned int i = 0; i < MAX_FILTERS; i++) {
		switch (hash->filters[i]) {
		case NAME_FILTER_NONE:
			break;
		case NAME_FILTER_LOWER:
			lower = TRUE;
			break;
		case NAME_FILTER_USERNAME:
			at = memchr(name, '@', len);
			if (at != NULL)
				len = at - name;
			break;
		case NAME_FILTER_DOMAIN:
			at = memchr(name, '@', len);
			at = at == NULL ? name + len : at + 1;
			len -= at - name;
			name = at;
			break;
		}
	}
	return lower ? hash_lower(name, len) : hash_text(name, len);
}

static int
username_hash_expand(struct username_hash *hash, const char *user,
		     uint32_t *hash_r, const char **error_r)
{
	const struct var_expand_table table[] = {
		{ .key = "user", .value = user },
		VAR_EXPAND_TABLE_END
	};
	const struct var_expand_params params = {
		.table = table,
	};
	string_t *str = t_str_new(128);

	if (var_expand_program_execute(str, hash->program, &params,
				       error_r) < 0)
		return -1;
	*hash_r = hash_text(str_data(str), str_len(str));
	return 0;
}

int username_hash_get(struct username_hash *hash, const char *user,
		      uint32_t *hash_r, const char **error_r)
{
	int ret = 0;

	T_BEGIN {
		if (hash->simple)
			*hash_r = username_hash_simple(hash, user);
		else
			ret = username_hash_expand(hash, user, hash_r, error_r);
	} T_END_PASS_STR_IF(ret < 0, error_r);
	return ret;
}

const char *username_hash_cut(const char *user, const char *separator)
{
	const char *end;

	if (separator[0] == '\0')
		return user;
	end = strchr(user, separator[0]);
	return end == NULL ? user : t_strdup_until(user, end);
}
