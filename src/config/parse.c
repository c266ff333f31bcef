/*
 * Theory of operation
 *
 * jansson turns the text into values (and refuses duplicate keys, bad UTF-8,
 * NUL characters, integers beyond 64 bits and absurd nesting); this file walks
 * them with the field table, so that a message always names the file, the
 * dotted key and what is allowed there. jansson knows the position of a
 * syntax error but not the key it is in: key_at() finds that again with a small
 * scan of the text up to there.
 *
 * Values are copied into a struct config that starts with every default. At the
 * first problem all of it is dropped: there is no half-read configuration.
 */
#include "config/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>

#include "base/nearest.h"

int config_refuse(const struct config_context *ctx, const char *key,
		  const char *allowed, const char *fmt, ...)
{
	char what[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return error_set(ctx->e, -EINVAL, "%.100s: %s%s%s%s%s%s", ctx->file,
			 key ? "key " : "", key ? key : "", key ? ": " : "",
			 what, allowed ? "; allowed: " : "",
			 allowed ? allowed : "");
}

static const char *type_name(const json_t *json)
{
	switch (json_typeof(json)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "a whole number";
	case JSON_REAL: return "a number with a fraction or exponent";
	case JSON_TRUE: return "true";
	case JSON_FALSE: return "false";
	case JSON_NULL: return "null";
	}
	return "unknown";
}

/* ------------------------------------------------------------------------- */
/* Syntax errors */

/* "section.name" of the last keys before @end, as far as there are any. A value
 * must not be taken for a key: it could be a password. */
static void key_at(const char *text, size_t end, char *buf, size_t size)
{
	char last[2][CONFIG_KEY_MAX / 2] = { "", "" };
	size_t depth = 0, lists = 0, n = 0;
	bool in_string = false, key_next = false;
	char *word = NULL; /* of last, while in a key */

	for (size_t i = 0; i < end; i++) {
		char c = text[i];

		if (in_string) {
			if (c == '"') {
				in_string = false;
				continue;
			}
			if (c == '\\')
				i++;
			/* Printable only: the message is for terminals. */
			if (word && n + 1 < sizeof(last[0])) {
				word[n++] = c >= 0x20 && c < 0x7f ? c : '?';
				word[n] = '\0';
			}
			continue;
		}
		switch (c) {
		case '{':
			if (++depth <= 2)
				last[depth - 1][0] = '\0';
			key_next = true;
			break;
		case '}': depth -= depth > 0; break;
		case '[': lists++; break;
		case ']': lists -= lists > 0; break;
		case ',': key_next = lists == 0; break;
		case '"':
			word = key_next && depth >= 1 && depth <= 2
				       ? last[depth - 1]
				       : NULL;
			in_string = true;
			key_next = false;
			n = 0;
			break;
		}
	}
	if (depth >= 2)
		snprintf(buf, size, "%s.%s", last[0], last[1]);
	else
		snprintf(buf, size, "%s", last[0]);
}

static int syntax_error(const struct config_context *ctx, const char *text,
			size_t len, const json_error_t *je)
{
	size_t end = je->position > 0 ? (size_t)je->position : 0;
	char key[CONFIG_KEY_MAX];

	key_at(text, end < len ? end : len, key, sizeof(key));
	/* Only what has a sentence of its own is named; the rest shares one. */
	switch ((int)json_error_code(je)) {
	case json_error_duplicate_key:
		return config_refuse(ctx, key, "each key once",
				     "given twice (line %d)", je->line);
	case json_error_numeric_overflow:
		return config_refuse(ctx, key, NULL,
				     "the number in line %d is too large",
				     je->line);
	case json_error_null_character:
		return config_refuse(ctx, key,
				     "strings without control "
				     "characters",
				     "a NUL character in line %d", je->line);
	case json_error_invalid_utf8:
		return config_refuse(ctx, NULL, "UTF-8 text",
				     "line %d is not UTF-8", je->line);
	case json_error_stack_overflow:
		return config_refuse(ctx, NULL, "objects of objects with keys",
				     "nested too deeply (line %d)", je->line);
	case json_error_end_of_input_expected:
		return config_refuse(ctx, NULL, "one JSON object",
				     "something follows the object's end "
				     "(line %d)",
				     je->line);
	}
	/* jansson quotes the text near the error: never into a message that may
	 * be logged, it could be a password. */
	return config_refuse(ctx, NULL, "one JSON object (RFC 8259)",
			     "no valid JSON at line %d, column %d%s%s",
			     je->line, je->column, key[0] ? ", near key " : "",
			     key);
}

/* ------------------------------------------------------------------------- */
/* Values */

static int wrong_type(const json_t *json, struct config_problem *p)
{
	return config_problem_set(p, NULL, "is %s", type_name(json));
}

/* Bytes that would end a line, hide in a terminal, or not fit into a torrc. */
static int check_characters(const struct config_field *field, const char *value,
			    struct config_problem *p)
{
	for (const unsigned char *s = (const void *)value; *s; s++) {
		bool c1 = s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0;

		if (*s < 0x20 || *s == 0x7f || c1)
			return config_problem_set(
				p, "text without control characters",
				"has a control character at byte %zu",
				(size_t)((const char *)s - value + 1));
		if (field->ascii && *s >= 0x80)
			return config_problem_set(
				p, "ASCII text", "byte %zu is not ASCII",
				(size_t)((const char *)s - value + 1));
	}
	return 0;
}

static int set_string(char **at, const struct config_field *field,
		      const json_t *json, struct config_problem *p)
{
	const char *value = json_string_value(json);
	char *copy;
	int r;

	r = check_characters(field, value, p);
	if (r < 0)
		return r;
	if (field->type == CONFIG_TYPE_STRING && strlen(value) > field->max)
		return config_problem_set(p, NULL, "is %zu bytes long, over %u",
					  strlen(value), field->max);
	if (value[0] && field->check) {
		r = field->check(value, p);
		if (r < 0)
			return r;
	}
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int set_list(struct config *cfg, const struct config_field *field,
		    const json_t *json, struct config_problem *p)
{
	char ***list = config_field_at(cfg, field);
	size_t *n = (void *)((char *)cfg + field->count_offset);
	size_t size = json_array_size(json);
	struct config_problem inner = { 0 };

	if (size > field->max)
		return config_problem_set(p, NULL, "has %zu entries, over %u",
					  size, field->max);
	config_field_clear(cfg, field);
	*list = calloc(size + 1, sizeof(**list));
	if (!*list)
		return -ENOMEM;
	for (size_t i = 0; i < size; i++) {
		const json_t *entry = json_array_get(json, i);
		int r;

		if (!json_is_string(entry))
			return config_problem_set(p, NULL, "entry %zu is %s",
						  i + 1, type_name(entry));
		if (json_string_length(entry) == 0)
			return config_problem_set(p, NULL, "entry %zu is empty",
						  i + 1);
		r = set_string(&(*list)[i], field, entry, &inner);
		if (r == -EINVAL)
			return config_problem_set(p, inner.allowed,
						  "entry %zu: %.200s", i + 1,
						  inner.what);
		if (r < 0)
			return r;
		*n = i + 1;
	}
	return 0;
}

static int set_enum(struct config *cfg, const struct config_field *field,
		    const json_t *json, struct config_problem *p)
{
	const char *value = json_string_value(json);
	size_t best = NEAREST_WORD_MAX + 1;
	const char *near = NULL;
	int v, r;

	r = check_characters(field, value, p);
	if (r < 0)
		return r;
	v = field->value_from_name(value);
	if (v >= 0) {
		*(unsigned int *)config_field_at(cfg, field) = (unsigned int)v;
		return 0;
	}
	for (unsigned int i = 0; field->value_name(i); i++) {
		size_t d = nearest_distance(value, field->value_name(i));

		if (d < best) {
			best = d;
			near = field->value_name(i);
		}
	}
	if (near && nearest_is_close(value, best))
		return config_problem_set(p, NULL,
					  "is \"%.40s\"; did you mean \"%s\"?",
					  value, near);
	return config_problem_set(p, NULL, "is \"%.40s\"", value);
}

static int set_field(struct config *cfg, const struct config_field *field,
		     const json_t *json, struct config_problem *p)
{
	void *at = config_field_at(cfg, field);
	json_int_t number;

	switch (field->type) {
	case CONFIG_TYPE_BOOL:
		if (!json_is_boolean(json))
			return wrong_type(json, p);
		*(bool *)at = json_is_true(json);
		return 0;
	case CONFIG_TYPE_UINT:
		if (!json_is_integer(json))
			return wrong_type(json, p);
		number = json_integer_value(json);
		if (number < (json_int_t)field->min ||
		    number > (json_int_t)field->max)
			return config_problem_set(
				p, NULL, "is %" JSON_INTEGER_FORMAT, number);
		*(uint32_t *)at = (uint32_t)number;
		return 0;
	case CONFIG_TYPE_ENUM:
		if (!json_is_string(json))
			return wrong_type(json, p);
		return set_enum(cfg, field, json, p);
	case CONFIG_TYPE_ADDR:
		if (!json_is_string(json))
			return wrong_type(json, p);
		if (check_characters(field, json_string_value(json), p) < 0)
			return -EINVAL;
		if (inet_pton(AF_INET, json_string_value(json), at) != 1)
			return config_problem_set(p, NULL,
						  "\"%.40s\" is no IPv4 "
						  "address",
						  json_string_value(json));
		return 0;
	case CONFIG_TYPE_STRING:
		if (!json_is_string(json))
			return wrong_type(json, p);
		if (json_string_length(json) == 0 && field->def[0])
			return config_problem_set(p, NULL, "is empty");
		return set_string(at, field, json, p);
	case CONFIG_TYPE_LIST:
		if (!json_is_array(json))
			return wrong_type(json, p);
		return set_list(cfg, field, json, p);
	case CONFIG_TYPE_COUNT: break;
	}
	return -EINVAL;
}

/* ------------------------------------------------------------------------- */
/* Keys */

static const struct config_field *find_field(const char *section,
					     const char *name)
{
	for (size_t i = 0; i < config_n_fields; i++)
		if (!strcmp(config_fields[i].section, section) &&
		    !strcmp(config_fields[i].name, name))
			return &config_fields[i];
	return NULL;
}

static bool is_section(const char *name)
{
	for (size_t i = 0; i < config_n_fields; i++)
		if (!strcmp(config_fields[i].section, name))
			return true;
	return false;
}

/* Printable ASCII of a foreign key, cut. */
static void show_key(const char *key, char *buf, size_t size)
{
	size_t n = 0;

	for (; key[n] && n + 1 < size; n++)
		buf[n] = key[n] >= 0x20 && key[n] < 0x7f ? key[n] : '?';
	buf[n] = '\0';
}

/* "a, b, c": the names of a section, or the sections for NULL. */
static void list_names(const char *section, char *buf, size_t size)
{
	const char *previous = "";
	size_t used = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < config_n_fields && used < size; i++) {
		const struct config_field *field = &config_fields[i];
		const char *name = section ? field->name : field->section;
		int n;

		if (section ? strcmp(field->section, section) != 0
			    : !strcmp(previous, name))
			continue;
		n = snprintf(buf + used, size - used, "%s%s", used ? ", " : "",
			     name);
		used += n > 0 ? (size_t)n : 0;
		previous = name;
	}
}

/* @section NULL: @name stands at the top, where a section should. */
static int unknown_key(const struct config_context *ctx, const char *section,
		       const char *name)
{
	char shown[CONFIG_KEY_MAX / 2], key[CONFIG_KEY_MAX], names[160];
	char best_key[CONFIG_KEY_MAX] = "";
	size_t best = NEAREST_WORD_MAX + 1;

	show_key(name, shown, sizeof(shown));
	snprintf(key, sizeof(key), "%s%s%s", section ? section : "",
		 section ? "." : "", shown);
	list_names(section, names, sizeof(names));
	for (size_t i = 0; i < config_n_fields; i++) {
		const struct config_field *field = &config_fields[i];
		bool here = section && !strcmp(field->section, section);
		size_t d = nearest_distance(name, field->name);
		char full[CONFIG_KEY_MAX];

		/* The right name in the wrong place, or a typing error. */
		snprintf(full, sizeof(full), "%s.%s", field->section,
			 field->name);
		if (!here && d > 0)
			d = nearest_distance(name, full) + 1;
		if (d < best) {
			best = d;
			str_copy(best_key, sizeof(best_key), full);
		}
		if (section)
			continue;
		d = nearest_distance(name, field->section);
		if (d < best) {
			best = d;
			str_copy(best_key, sizeof(best_key), field->section);
		}
	}
	if (nearest_is_close(name, best))
		return config_refuse(ctx, key, names,
				     "there is no such key; did you mean %s?",
				     best_key);
	return config_refuse(ctx, key, names, "there is no such key");
}

static int parse_section(struct config *cfg, const struct config_context *ctx,
			 const char *section, json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach (object, name, value) {
		const struct config_field *field = find_field(section, name);
		struct config_problem p = { 0 };
		char key[CONFIG_KEY_MAX], allowed[200];
		int r;

		if (!field)
			return unknown_key(ctx, section, name);
		r = set_field(cfg, field, value, &p);
		if (r == 0)
			continue;
		if (r != -EINVAL)
			return error_set(ctx->e, r, "%.100s: out of memory",
					 ctx->file);
		snprintf(key, sizeof(key), "%s.%s", section, name);
		config_field_allowed(field, allowed, sizeof(allowed));
		return config_refuse(ctx, key, p.allowed ? p.allowed : allowed,
				     "%s", p.what);
	}
	return 0;
}

static int parse_root(struct config *cfg, const struct config_context *ctx,
		      json_t *root)
{
	const char *name;
	json_t *value;

	json_object_foreach (root, name, value) {
		char names[160];
		int r;

		if (!is_section(name))
			return unknown_key(ctx, NULL, name);
		if (!json_is_object(value)) {
			list_names(name, names, sizeof(names));
			return config_refuse(ctx, name, names,
					     "is %s instead of an object with "
					     "keys",
					     type_name(value));
		}
		r = parse_section(cfg, ctx, name, value);
		if (r < 0)
			return r;
	}
	return config_check_combinations(cfg, ctx);
}

int config_parse(const char *name, const char *text, size_t len,
		 struct config **ret, struct error *e)
{
	const struct config_context ctx = { .file = name, .e = e };
	_cleanup_(config_freep) struct config *cfg = NULL;
	_cleanup_(json_decrefp) json_t *root = NULL;
	json_error_t je;
	int r;

	if (len > CONFIG_FILE_MAX)
		return config_refuse(&ctx, NULL, NULL,
				     "over %zu bytes: no configuration is that "
				     "long",
				     CONFIG_FILE_MAX);
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		return config_refuse(&ctx, NULL, "UTF-8 text without one",
				     "begins with a byte order mark");
	if (len == 0)
		return config_refuse(&ctx, NULL,
				     "one JSON object, {} for the defaults",
				     "is empty");
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	if (!root)
		return syntax_error(&ctx, text, len, &je);
	if (!json_is_object(root))
		return config_refuse(&ctx, NULL, "one JSON object",
				     "is a list instead of an object");
	cfg = config_new_default();
	if (!cfg)
		return error_set(e, -ENOMEM, "%.100s: out of memory", name);
	r = parse_root(cfg, &ctx, root);
	if (r < 0)
		return r;
	*ret = steal_ptr(&cfg);
	return 0;
}
