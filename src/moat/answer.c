#include "moat/answer.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "config/bridge_line.h"

static const char *const question_names[] = {
	[MOAT_QUESTION_SETTINGS] = "settings",
	[MOAT_QUESTION_DEFAULTS] = "defaults",
	[MOAT_QUESTION_BUILTIN] = "builtin",
	[MOAT_QUESTION_MAP] = "map",
	[MOAT_QUESTION_COUNTRIES] = "countries",
};
_Static_assert(ARRAY_SIZE(question_names) == MOAT_QUESTION_COUNT, "names");

const char *moat_question_name(enum moat_question question)
{
	return question < MOAT_QUESTION_COUNT ? question_names[question] : NULL;
}

int moat_question_from_name(const char *name)
{
	for (int i = 0; i < MOAT_QUESTION_COUNT; i++)
		if (!strcmp(question_names[i], name))
			return i;
	return -EINVAL;
}

/* ------------------------------------------------------------------------- */
/* Requests */

/* What the service calls a transport. */
static const char *api_name(enum config_transport transport)
{
	switch (transport) {
	case CONFIG_TRANSPORT_NONE: return "vanilla";
	case CONFIG_TRANSPORT_MEEK_LITE: return "meek-azure";
	case CONFIG_TRANSPORT_OBFS4:
	case CONFIG_TRANSPORT_SNOWFLAKE:
	case CONFIG_TRANSPORT_WEBTUNNEL:
	case CONFIG_TRANSPORT_COUNT: break;
	}
	return config_transport_name(transport);
}

char *moat_request_body(enum moat_question question, const char *country,
			int transport, bool *ret_error)
{
	json_t *transports = json_array(), *root = json_object();
	char *text;

	*ret_error = false;
	if (question != MOAT_QUESTION_SETTINGS &&
	    question != MOAT_QUESTION_DEFAULTS) {
		json_decref(transports);
		json_decref(root);
		return NULL;
	}
	for (int t = 0; t < CONFIG_TRANSPORT_COUNT; t++) {
		if (transport >= 0 && transport != t)
			continue;
		json_array_append_new(transports, json_string(api_name(t)));
		/* Its older and its newer name. */
		if (t == CONFIG_TRANSPORT_MEEK_LITE)
			json_array_append_new(transports, json_string("meek"));
	}
	if (question == MOAT_QUESTION_SETTINGS && country[0])
		json_object_set_new(root, "country", json_string(country));
	json_object_set_new(root, "transports", transports);
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	*ret_error = !text;
	return text;
}

/* ------------------------------------------------------------------------- */
/* Answers */

void moat_answer_deinit(struct moat_answer *a)
{
	config_bridge_list_deinit(&a->bridges);
	while (a->n_texts > 0)
		free(a->texts[--a->n_texts]);
}

static int bad_answer(struct error *e)
{
	return error_set(e, -EBADMSG,
			 "the answer is not the bridge service's: a login page "
			 "of the network, or something in between");
}

/* A copy of at most @max bytes with '?' for what is not printable. */
static void copy_clean(char *buf, size_t size, const char *text)
{
	size_t n = 0;

	for (; text[n] && n + 1 < size; n++)
		buf[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
	buf[n] = '\0';
}

static bool is_country(const char *text)
{
	return text && strlen(text) == 2 && text[0] >= 'a' && text[0] <= 'z' &&
	       text[1] >= 'a' && text[1] <= 'z';
}

/* {"errors": [{"code": 404, "detail": "..."}]} comes with status 200, too. */
static int check_errors(const json_t *root, struct error *e)
{
	const json_t *first =
		json_array_get(json_object_get(root, "errors"), 0);
	const char *detail =
		json_string_value(json_object_get(first, "detail"));
	char clean[200];

	if (!json_object_get(root, "errors"))
		return 0;
	copy_clean(clean, sizeof(clean), detail ? detail : "no reason given");
	return error_set(
		e, -EREMOTEIO, "the bridge service refuses (%d): %s",
		(int)json_integer_value(json_object_get(first, "code")), clean);
}

/* A line of a transport that TorVM lacks, or that is broken, is left out. */
static int add_lines(struct moat_answer *a, const json_t *lines, int transport)
{
	const json_t *line;
	size_t i;

	json_array_foreach (lines, i, line) {
		const char *text = json_string_value(line);
		int r;

		if (!text)
			return -EBADMSG;
		r = config_bridge_list_add(&a->bridges, text, "", NULL);
		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			a->n_left_out++;
			continue;
		}
		if (transport >= 0 && a->bridges.n_lines > 0 &&
		    (int)config_bridge_line_transport(
			    a->bridges.lines[a->bridges.n_lines - 1]) !=
			    transport)
			free(a->bridges.lines[--a->bridges.n_lines]);
	}
	return 0;
}

static int parse_settings(const json_t *root, int transport,
			  struct moat_answer *a)
{
	const json_t *settings = json_object_get(root, "settings"), *one;
	const char *country =
		json_string_value(json_object_get(root, "country"));
	size_t i;

	if (is_country(country))
		str_copy(a->country, sizeof(a->country), country);
	/* "{}" and "null" are old ways of saying that nothing is needed. */
	if (!settings || json_is_null(settings)) {
		a->none_needed = true;
		return json_object_size(root) > (country != NULL) ? -EBADMSG
								  : 0;
	}
	if (!json_is_array(settings))
		return -EBADMSG;
	a->none_needed = json_array_size(settings) == 0;
	json_array_foreach (settings, i, one) {
		const json_t *bridges = json_object_get(one, "bridges");
		const json_t *lines =
			json_object_get(bridges, "bridge_strings");
		int r;

		if (!json_is_object(bridges))
			return -EBADMSG;
		r = add_lines(a, lines, transport);
		if (r < 0)
			return r;
	}
	return 0;
}

/* {"obfs4": ["LINE", ...], ...} */
static int parse_builtin(json_t *root, int transport, struct moat_answer *a)
{
	const char *name;
	json_t *lines;

	json_object_foreach (root, name, lines) {
		int r;

		if (!json_is_array(lines))
			return -EBADMSG;
		r = add_lines(a, lines, transport);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_text(struct moat_answer *a, const char *text)
{
	if (a->n_texts == MOAT_TEXTS_MAX)
		return 0;
	a->texts[a->n_texts] = strdup(text);
	if (!a->texts[a->n_texts])
		return -ENOMEM;
	a->n_texts++;
	return 0;
}

/* "cn: snowflake builtin, obfs4 bridgedb" */
static int describe(struct moat_answer *a, const char *country,
		    const json_t *settings)
{
	const json_t *one;
	char text[256];
	size_t i, n;

	snprintf(text, sizeof(text), "%s:", country);
	json_array_foreach (settings, i, one) {
		const json_t *bridges = json_object_get(one, "bridges");
		const char *type =
			json_string_value(json_object_get(bridges, "type"));
		const char *source =
			json_string_value(json_object_get(bridges, "source"));
		char words[2][24];

		copy_clean(words[0], sizeof(words[0]), type ? type : "?");
		copy_clean(words[1], sizeof(words[1]), source ? source : "");
		n = strlen(text);
		snprintf(text + n, sizeof(text) - n, "%s %s%s%s",
			 i > 0 ? "," : "", words[0], words[1][0] ? " " : "",
			 words[1]);
	}
	return add_text(a, text);
}

static int parse_map(json_t *root, struct moat_answer *a)
{
	const char *country;
	json_t *value;
	int r = 0;

	json_object_foreach (root, country, value) {
		if (!is_country(country) || !json_is_object(value))
			return -EBADMSG;
		r = describe(a, country, json_object_get(value, "settings"));
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_countries(const json_t *root, struct moat_answer *a)
{
	const json_t *country;
	size_t i;

	json_array_foreach (root, i, country) {
		const char *text = json_string_value(country);
		int r;

		if (!is_country(text))
			return -EBADMSG;
		r = add_text(a, text);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse(enum moat_question question, int transport, json_t *root,
		 struct moat_answer *a)
{
	if (question == MOAT_QUESTION_COUNTRIES)
		return json_is_array(root) ? parse_countries(root, a)
					   : -EBADMSG;
	if (!json_is_object(root))
		return -EBADMSG;
	switch (question) {
	case MOAT_QUESTION_SETTINGS:
	case MOAT_QUESTION_DEFAULTS: return parse_settings(root, transport, a);
	case MOAT_QUESTION_BUILTIN: return parse_builtin(root, transport, a);
	case MOAT_QUESTION_MAP: return parse_map(root, a);
	case MOAT_QUESTION_COUNTRIES:
	case MOAT_QUESTION_COUNT: break;
	}
	return -EBADMSG;
}

int moat_answer_parse(enum moat_question question, int transport,
		      const char *text, size_t len, struct moat_answer *ret,
		      struct error *e)
{
	json_t *root;
	int r;

	*ret = MOAT_ANSWER_NULL(*ret);
	if (len > MOAT_ANSWER_MAX)
		return bad_answer(e);
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (!root)
		return bad_answer(e);
	r = check_errors(root, e);
	if (r < 0) {
		json_decref(root);
		return r;
	}
	r = parse(question, transport, root, ret);
	json_decref(root);
	if (r == -ENOMEM)
		return error_set(e, r, "out of memory");
	return r < 0 ? bad_answer(e) : 0;
}
