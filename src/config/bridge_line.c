/*
 * Theory of operation
 *
 * A bridge line is checked by what its transport needs before anything is
 * started, because a wrong one shows later only as "stuck at 10 %". The rules
 * are a table: one row per transport with every argument its client knows. An
 * argument that is none of them is left to the transport, which ignores it (a
 * later one may know it), unless it looks like a typing error.
 *
 * Sources: Tor's manual (Bridge) and Tor 0.4.9 itself (at most 510 bytes of
 * arguments, as it hands them to the transport); obfs4-spec.txt (cert: node id
 * and public key, 52 bytes of base64 without padding; iat-mode 0 to 2); the
 * arguments that lyrebird 0.8.1 and snowflake-client 2.10 look for.
 */
#include "config/bridge_line.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/nearest.h"
#include "config/values.h"

#define FINGERPRINT_DIGITS 40
#define OBFS4_CERT_CHARS 70

/* Tor hands the arguments over as a SOCKS user name and password of at most 255
 * bytes each, "name=value;name=value" with \ before ; and \. */
#define ARGS_BYTES_MAX 510

static bool is_url(const char *value)
{
	return (!strncmp(value, "https://", 8) && value[8] != '\0') ||
	       (!strncmp(value, "http://", 7) && value[7] != '\0');
}

static bool is_obfs4_cert(const char *value)
{
	size_t n = strlen(value);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)value[i]) && value[i] != '+' &&
		    value[i] != '/')
			return false;
	return n == OBFS4_CERT_CHARS;
}

static bool is_iat_mode(const char *value)
{
	return strlen(value) == 1 && value[0] >= '0' && value[0] <= '2';
}

static bool is_fingerprint(const char *value)
{
	return config_is_hex(value, FINGERPRINT_DIGITS);
}

/* Whether each of the items between @separators passes @good. */
static bool all_items(const char *value, const char *separators,
		      bool (*good)(const char *item))
{
	char item[300];

	for (;;) {
		size_t n = strcspn(value, separators);

		if (n == 0 || n >= sizeof(item))
			return false;
		memcpy(item, value, n);
		item[n] = '\0';
		if (!good(item))
			return false;
		if (value[n] == '\0')
			return true;
		value += n + 1;
	}
}

static bool is_host_list(const char *value)
{
	return all_items(value, ",", config_is_host);
}

static bool is_stun(const char *value)
{
	struct config_problem p;

	if (!strncmp(value, "stuns:", 6))
		value += 6;
	else if (!strncmp(value, "stun:", 5))
		value += 5;
	else
		return false;
	return config_is_host(value) || config_check_host_port(value, &p) == 0;
}

static bool is_stun_list(const char *value)
{
	return all_items(value, ",", is_stun);
}

/* "URL|FRONT+FRONT,URL|FRONT": what later versions of meek_lite try in turn. */
static bool is_target(const char *value)
{
	const char *fronts = strchr(value, '|');
	char url[300];

	if (!fronts)
		return is_url(value);
	if (fronts == value || fronts[1] == '\0' ||
	    str_copy(url, sizeof(url), value) < 0)
		return false;
	url[fronts - value] = '\0';
	return is_url(url) && all_items(fronts + 1, "+", config_is_host);
}

static bool is_target_list(const char *value)
{
	return all_items(value, ",", is_target);
}

static bool is_word(const char *value)
{
	for (const char *s = value; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
			return false;
	return value[0] != '\0';
}

static bool is_count(const char *value)
{
	return strlen(value) == 1 && value[0] >= '1' && value[0] <= '8';
}

static bool is_yes_or_no(const char *value)
{
	static const char *const words[] = { "true", "false", "yes", "no" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcasecmp(value, words[i]))
			return true;
	return false;
}

static bool is_host_port(const char *value)
{
	struct config_problem p;

	return config_check_host_port(value, &p) == 0;
}

static bool is_anything(const char *value)
{
	return value[0] != '\0';
}

struct argument {
	const char *name;
	bool (*good)(const char *value);
	const char *allowed;
	bool required; /* or @instead */
	const char *instead;
	bool secret;
};

#define ARGUMENTS_MAX 14

#define ALLOWED_URL "https://HOST/PATH"
#define ALLOWED_UTLS "a name such as HelloRandomizedALPN"

static const struct {
	const char *method; /* first word of the line */
	bool fingerprint;   /* required */
	struct argument args[ARGUMENTS_MAX];
} transports[] = {
	[CONFIG_TRANSPORT_NONE] = { "", false, { { 0 } } },
	[CONFIG_TRANSPORT_OBFS4] = {
		"obfs4",
		false,
		{
			{ "cert", is_obfs4_cert,
			  "cert= with 70 characters of base64", true, NULL,
			  true },
			{ "iat-mode", is_iat_mode, "iat-mode=0, 1 or 2", true,
			  NULL, false },
		},
	},
	[CONFIG_TRANSPORT_MEEK_LITE] = {
		"meek_lite",
		false,
		{
			{ "url", is_url, "url=" ALLOWED_URL, true, "targets",
			  false },
			{ "targets", is_target_list,
			  "targets=URL|FRONT+FRONT,URL|FRONT", false, NULL,
			  false },
			{ "front", is_host_list, "front=HOST", false, NULL,
			  false },
			{ "fronts", is_host_list, "fronts=HOST,HOST", false,
			  NULL, false },
			{ "utls", is_word, "utls= with " ALLOWED_UTLS, false,
			  NULL, false },
			{ "disableHPKP", is_yes_or_no,
			  "disableHPKP=true or false", false, NULL, false },
		},
	},
	[CONFIG_TRANSPORT_SNOWFLAKE] = {
		"snowflake",
		true,
		{
			{ "url", is_url, "url=" ALLOWED_URL, true, "sqsqueue",
			  false },
			{ "fingerprint", is_fingerprint,
			  "fingerprint= with 40 hexadecimal digits", false,
			  NULL, false },
			{ "ampcache", is_url, "ampcache=" ALLOWED_URL, false,
			  NULL, false },
			{ "front", is_host_list, "front=HOST", false, NULL,
			  false },
			{ "fronts", is_host_list, "fronts=HOST,HOST", false,
			  NULL, false },
			{ "ice", is_stun_list,
			  "ice=stun:HOST:PORT,stun:HOST:PORT", false, NULL,
			  false },
			{ "max", is_count, "max=1 to 8", false, NULL, false },
			{ "utls-imitate", is_word,
			  "utls-imitate= with " ALLOWED_UTLS, false, NULL,
			  false },
			{ "utls-nosni", is_yes_or_no,
			  "utls-nosni=true or false", false, NULL, false },
			{ "sqsqueue", is_url, "sqsqueue=" ALLOWED_URL, false,
			  NULL, true },
			{ "sqscreds", is_anything, "sqscreds= with a value",
			  false, NULL, true },
			{ "covertdtls-config", is_word,
			  "covertdtls-config= with a word", false, NULL,
			  false },
			{ "covertdtls-fingerprint", is_anything,
			  "covertdtls-fingerprint= with a value", false, NULL,
			  false },
		},
	},
	[CONFIG_TRANSPORT_WEBTUNNEL] = {
		"webtunnel",
		true,
		{
			{ "url", is_url, "url=" ALLOWED_URL, true, NULL, true },
			{ "ver", is_word, "ver= with a version such as 0.0.3",
			  false, NULL, false },
			{ "addr", is_host_port, "addr=HOST:PORT", false, NULL,
			  false },
			{ "servername", is_host_list, "servername=HOST", false,
			  NULL, false },
			{ "utls", is_word, "utls= with " ALLOWED_UTLS, false,
			  NULL, false },
			{ "utls-imitate", is_word,
			  "utls-imitate= with " ALLOWED_UTLS, false, NULL,
			  false },
			{ "sni-imitation", is_host_list, "sni-imitation=HOST",
			  false, NULL, false },
		},
	},
};
_Static_assert(ARRAY_SIZE(transports) == CONFIG_TRANSPORT_COUNT, "transports");

static const char transports_allowed[] =
	"lines that begin with an address, obfs4, meek_lite, snowflake or "
	"webtunnel";

/* By the first word; -EINVAL: a word that is no address and not ours. */
static int transport_of(const char *line, size_t *ret_skip)
{
	size_t n = strcspn(line, " ");

	*ret_skip = 0;
	/* An address has a dot or a bracket, and a colon before its port. */
	if (memchr(line, ':', n))
		return CONFIG_TRANSPORT_NONE;
	for (int i = CONFIG_TRANSPORT_OBFS4; i < CONFIG_TRANSPORT_COUNT; i++)
		if (strlen(transports[i].method) == n &&
		    !strncmp(line, transports[i].method, n)) {
			*ret_skip = n;
			return i;
		}
	return -EINVAL;
}

int config_check_moat(const char *args, struct config_problem *p)
{
	struct config_bridge b = CONFIG_BRIDGE_NULL(b);
	char line[sizeof(CONFIG_MOAT_LINE) + CONFIG_BRIDGE_LINE_MAX];
	int r;

	snprintf(line, sizeof(line), CONFIG_MOAT_LINE "%s", args);
	r = config_bridge_parse(line, &b, p);
	if (r == 0 && b.fingerprint)
		r = config_problem_set(p, "arguments only",
				       "it has a fingerprint");
	config_bridge_deinit(&b);
	return r;
}

enum config_transport config_bridge_line_transport(const char *line)
{
	size_t skip;
	int t = transport_of(line, &skip);

	return t < 0 ? CONFIG_TRANSPORT_NONE : (enum config_transport)t;
}

const char *config_bridge_arg(const struct config_bridge *b, const char *name)
{
	for (size_t i = 0; i < b->n_args; i++)
		if (!strcmp(b->args[i].name, name))
			return b->args[i].value;
	return NULL;
}

static const struct argument *find_argument(enum config_transport t,
					    const char *name)
{
	for (size_t i = 0; i < ARGUMENTS_MAX && transports[t].args[i].name; i++)
		if (!strcmp(transports[t].args[i].name, name))
			return &transports[t].args[i];
	return NULL;
}

static int add_arg(struct config_bridge *b, char *word,
		   struct config_problem *p)
{
	char *equals = strchr(word, '=');

	if (!equals || equals == word)
		return config_problem_set(
			p, "arguments of the form NAME=VALUE",
			"argument %zu has no NAME=", b->n_args + 1);
	*equals = '\0';
	if (config_bridge_arg(b, word))
		return config_problem_set(p, "each argument once",
					  "argument %.30s= is given twice",
					  word);
	if (b->n_args == CONFIG_BRIDGE_ARGS_MAX)
		return config_problem_set(p, "at most 32 arguments",
					  "too many arguments");
	b->args[b->n_args].name = word;
	b->args[b->n_args++].value = equals + 1;
	return 0;
}

/* An argument that the transport does not know: a typing error, or new. */
static int check_unknown(enum config_transport t, const char *name,
			 struct config_problem *p)
{
	for (size_t i = 0; i < ARGUMENTS_MAX && transports[t].args[i].name;
	     i++) {
		const struct argument *a = &transports[t].args[i];

		if (nearest_is_close(name, nearest_distance(name, a->name)))
			return config_problem_set(
				p, a->allowed,
				"%s has no argument %.30s=; did you mean %s=?",
				transports[t].method, name, a->name);
	}
	return 0;
}

static int check_values(const struct config_bridge *b, struct config_problem *p)
{
	enum config_transport t = b->transport;
	int r;

	for (size_t i = 0; i < b->n_args; i++) {
		const struct argument *a = find_argument(t, b->args[i].name);

		r = a ? 0 : check_unknown(t, b->args[i].name, p);
		if (r < 0)
			return r;
		if (a && !a->good(b->args[i].value))
			return config_problem_set(p, a->allowed,
						  "the value of %s= is wrong",
						  a->name);
	}
	for (size_t i = 0; i < ARGUMENTS_MAX && transports[t].args[i].name;
	     i++) {
		const struct argument *a = &transports[t].args[i];

		if (a->required && !config_bridge_arg(b, a->name) &&
		    !(a->instead && config_bridge_arg(b, a->instead)))
			return config_problem_set(
				p, a->allowed, "%s needs the argument %s=",
				transports[t].method, a->name);
	}
	return 0;
}

static size_t socks_length(const struct config_bridge *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n_args; i++) {
		const char *parts[] = { b->args[i].name, b->args[i].value };

		n += 1 + (i > 0); /* '=' and ';' */
		for (size_t k = 0; k < ARRAY_SIZE(parts); k++)
			for (const char *s = parts[k]; *s; s++)
				n += 1 + (*s == ';' || *s == '\\');
	}
	return n;
}

static int check_args(const struct config_bridge *b, struct config_problem *p)
{
	enum config_transport t = b->transport;
	const char *twice;
	size_t n;
	int r;

	if (!b->fingerprint && transports[t].fingerprint)
		return config_problem_set(p,
					  "ADDRESS:PORT, then 40 hexadecimal "
					  "digits",
					  "has no fingerprint after its "
					  "address");
	if (t == CONFIG_TRANSPORT_NONE && b->n_args > 0)
		return config_problem_set(p, transports_allowed,
					  "has arguments but no transport "
					  "before its address");
	r = check_values(b, p);
	if (r < 0)
		return r;
	twice = t == CONFIG_TRANSPORT_SNOWFLAKE
			? config_bridge_arg(b, "fingerprint")
			: NULL;
	if (twice && strcasecmp(twice, b->fingerprint) != 0)
		return config_problem_set(p, "the same fingerprint twice",
					  "fingerprint= differs from the "
					  "fingerprint after the address");
	if (config_bridge_arg(b, "sqsqueue") &&
	    !config_bridge_arg(b, "sqscreds"))
		return config_problem_set(p, "sqsqueue= with sqscreds=",
					  "sqsqueue= needs the argument "
					  "sqscreds=");
	n = socks_length(b);
	if (n > ARGS_BYTES_MAX)
		return config_problem_set(p, "at most 510 bytes of arguments",
					  "its arguments are %zu bytes long, "
					  "more than Tor hands to a transport",
					  n);
	return 0;
}

/* What follows the transport's name; @text is taken apart. */
static int parse_rest(struct config_bridge *b, char *text,
		      struct config_problem *p)
{
	char *rest = text + strspn(text, " ");
	char *word = strsep(&rest, " ");
	bool first = true;
	int r;

	if (*word == '\0')
		return config_problem_set(p, "ADDRESS:PORT after the transport",
					  "has no address");
	r = config_check_endpoint(word, p);
	if (r < 0) {
		char what[sizeof(p->what)];

		memcpy(what, p->what, sizeof(what));
		return config_problem_set(p,
					  "ADDRESS:PORT with an IPv4 or an "
					  "[IPv6] address",
					  "its address: %.200s", what);
	}
	b->address = word;
	while ((word = strsep(&rest, " "))) {
		if (*word == '\0')
			continue;
		if (first && !strchr(word, '=')) {
			if (!is_fingerprint(word))
				return config_problem_set(
					p, "40 hexadecimal digits",
					"its fingerprint is wrong");
			b->fingerprint = word;
		} else {
			r = add_arg(b, word, p);
			if (r < 0)
				return r;
		}
		first = false;
	}
	return check_args(b, p);
}

int config_bridge_parse(const char *line, struct config_bridge *ret,
			struct config_problem *p)
{
	size_t skip;
	int t;

	*ret = CONFIG_BRIDGE_NULL(*ret);
	if (strlen(line) > CONFIG_BRIDGE_LINE_MAX)
		return config_problem_set(p, "at most 1000 bytes",
					  "is too long");
	if (!strncasecmp(line, "Bridge ", 7))
		return config_problem_set(p, NULL,
					  "begins with the word \"Bridge\": "
					  "leave it out");
	t = transport_of(line, &skip);
	if (t < 0)
		return config_problem_set(
			p, transports_allowed,
			"begins with neither an address nor a "
			"transport that TorVM has");
	ret->transport = (enum config_transport)t;
	ret->copy = strdup(line + skip);
	if (!ret->copy)
		return config_problem_set(p, NULL, "out of memory");
	return parse_rest(ret, ret->copy, p);
}

void config_bridge_deinit(struct config_bridge *b)
{
	free(b->copy);
	*b = CONFIG_BRIDGE_NULL(*b);
}

int config_check_bridge_line(const char *line, struct config_problem *p)
{
	struct config_bridge b;
	int r = config_bridge_parse(line, &b, p);

	config_bridge_deinit(&b);
	return r;
}

char *config_bridge_mask(const char *line)
{
	struct config_problem p = { 0 };
	struct config_bridge b;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	if (config_bridge_parse(line, &b, &p) < 0) {
		fputs("***", out);
	} else {
		fprintf(out, "%s%s%s%s%s", transports[b.transport].method,
			b.transport == CONFIG_TRANSPORT_NONE ? "" : " ",
			b.address, b.fingerprint ? " " : "",
			b.fingerprint ? b.fingerprint : "");
		for (size_t i = 0; i < b.n_args; i++) {
			const struct argument *a =
				find_argument(b.transport, b.args[i].name);

			fprintf(out, " %s=%s", b.args[i].name,
				!a || a->secret ? "***" : b.args[i].value);
		}
	}
	config_bridge_deinit(&b);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
