/*
 * Theory of operation
 *
 * A bridge line is checked by what its transport needs before anything is
 * started, because a wrong one shows later only as "stuck at 10 %". The rules
 * are a table: one row per transport, with the arguments it cannot work
 * without. An argument that we do not know is left to the transport.
 *
 * Sources: Tor's manual (Bridge), obfs4-spec.txt (cert: node id and public key,
 * 52 bytes of base64 without padding; iat-mode 0 to 2), the clients of
 * webtunnel, meek_lite and snowflake.
 */
#include "config/bridge_line.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "config/values.h"

#define FINGERPRINT_DIGITS 40
#define OBFS4_CERT_CHARS 70

/* The guest's torrc has lines of at most 1024 bytes. */
#define LINE_MAX_BYTES 1000

#define ARGS_MAX 32

struct arg {
	const char *name;
	const char *value;
};

struct bridge_line {
	char *fingerprint; /* or NULL */
	struct arg args[ARGS_MAX];
	size_t n_args;
};

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

struct requirement {
	const char *name;
	bool (*good)(const char *value);
	bool required;
	const char *allowed;
};

#define REQUIREMENTS_MAX 3

static const struct {
	const char *method; /* first word of the line */
	bool fingerprint;   /* required */
	struct requirement args[REQUIREMENTS_MAX];
} transports[] = {
	[CONFIG_TRANSPORT_NONE] = { "", false, { { 0 } } },
	[CONFIG_TRANSPORT_OBFS4] = {
		"obfs4",
		false,
		{ { "cert", is_obfs4_cert, true,
		    "cert= with 70 characters of base64" },
		  { "iat-mode", is_iat_mode, true, "iat-mode=0, 1 or 2" } },
	},
	[CONFIG_TRANSPORT_MEEK_LITE] = {
		"meek_lite",
		false,
		{ { "url", is_url, true, "url=https://HOST/" } },
	},
	[CONFIG_TRANSPORT_SNOWFLAKE] = {
		"snowflake",
		true,
		{ { "fingerprint", is_fingerprint, true,
		    "fingerprint= with 40 hexadecimal digits" },
		  { "url", is_url, true, "url=https://HOST/" } },
	},
	[CONFIG_TRANSPORT_WEBTUNNEL] = {
		"webtunnel",
		true,
		{ { "url", is_url, true, "url=https://HOST/PATH" } },
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

enum config_transport config_bridge_line_transport(const char *line)
{
	size_t skip;
	int t = transport_of(line, &skip);

	return t < 0 ? CONFIG_TRANSPORT_NONE : (enum config_transport)t;
}

static const char *find_arg(const struct bridge_line *b, const char *name)
{
	for (size_t i = 0; i < b->n_args; i++)
		if (!strcmp(b->args[i].name, name))
			return b->args[i].value;
	return NULL;
}

static int add_arg(struct bridge_line *b, char *word, struct config_problem *p)
{
	char *equals = strchr(word, '=');

	if (!equals || equals == word)
		return config_problem_set(
			p, "arguments of the form NAME=VALUE",
			"argument %zu has no NAME=", b->n_args + 1);
	*equals = '\0';
	if (find_arg(b, word))
		return config_problem_set(p, "each argument once",
					  "argument %.30s= is given twice",
					  word);
	if (b->n_args == ARGS_MAX)
		return config_problem_set(p, "at most 32 arguments",
					  "too many arguments");
	b->args[b->n_args++] =
		(struct arg){ .name = word, .value = equals + 1 };
	return 0;
}

static int check_args(enum config_transport t, const struct bridge_line *b,
		      struct config_problem *p)
{
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
	for (size_t i = 0; i < REQUIREMENTS_MAX; i++) {
		const struct requirement *r = &transports[t].args[i];
		const char *value;

		if (!r->name)
			break;
		value = find_arg(b, r->name);
		if (!value && r->required)
			return config_problem_set(
				p, r->allowed, "%s needs the argument %s=",
				transports[t].method, r->name);
		if (value && !r->good(value))
			return config_problem_set(p, r->allowed,
						  "the value of %s= is wrong",
						  r->name);
	}
	if (t == CONFIG_TRANSPORT_SNOWFLAKE &&
	    strcasecmp(find_arg(b, "fingerprint"), b->fingerprint) != 0)
		return config_problem_set(p, "the same fingerprint twice",
					  "fingerprint= differs from the "
					  "fingerprint after the address");
	return 0;
}

/* What follows the transport's name; @text is taken apart. */
static int check_rest(enum config_transport t, char *text,
		      struct config_problem *p)
{
	struct bridge_line b = { 0 };
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
	while ((word = strsep(&rest, " "))) {
		if (*word == '\0')
			continue;
		if (first && !strchr(word, '=')) {
			if (!is_fingerprint(word))
				return config_problem_set(
					p, "40 hexadecimal digits",
					"its fingerprint is wrong");
			b.fingerprint = word;
		} else {
			r = add_arg(&b, word, p);
			if (r < 0)
				return r;
		}
		first = false;
	}
	return check_args(t, &b, p);
}

int config_check_bridge_line(const char *line, struct config_problem *p)
{
	char *copy;
	size_t skip;
	int t, r;

	if (strlen(line) > LINE_MAX_BYTES)
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
	copy = strdup(line + skip);
	if (!copy)
		return config_problem_set(p, NULL, "out of memory");
	r = check_rest((enum config_transport)t, copy, p);
	free(copy);
	return r;
}
