/* Options: one table, from which getopt_long(3)'s, --help and the completions'
 * test are made. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "config/config.h"

static const struct {
	const char *name;
	char letter;          /* 0: none */
	const char *argument; /* NULL: none */
	const char *help;
} options[] = {
	[CLI_OPTION_HEADLESS] = { "headless", 0, NULL,
				  "run the controller in the foreground" },
	[CLI_OPTION_CONFIG] = { "config", 'c', "FILE",
				"configuration (/etc/torvm/torvm.json)" },
	[CLI_OPTION_ACCEL] = { "accel", 0, "auto|kvm|tcg",
			       "how the virtual machine is run" },
	[CLI_OPTION_VERBOSE] = { "verbose", 'v', NULL,
				 "log what helps to find a fault" },
	[CLI_OPTION_RUNTIME_DIR] = { "runtime-dir", 0, "DIR",
				     "sockets and journal (" CLIENT_RUNTIME_DIR
				     ")" },
	[CLI_OPTION_STATE_DIR] = { "state-dir", 0, "DIR",
				   "Tor's state (/var/lib/torvm)" },
	[CLI_OPTION_IMAGE_DIR] = { "image-dir", 0, "DIR",
				   "the virtual machine's image" },
	[CLI_OPTION_YES] = { "yes", 'y', NULL,
			     "start although this is a remote session" },
	[CLI_OPTION_CONFIRM] = { "confirm", 0, "SECONDS",
				 "end it unless \"torvm confirm\" follows" },
	[CLI_OPTION_WAIT] = { "wait", 'w', NULL,
			      "return when Tor is connected" },
	[CLI_OPTION_TIMEOUT] = { "timeout", 't', "SECONDS",
				 "how long --wait waits (300)" },
	[CLI_OPTION_JSON] = { "json", 'j', NULL, "print JSON" },
	[CLI_OPTION_WATCH] = { "watch", 'w', NULL,
			       "go on and print each change" },
	[CLI_OPTION_FOLLOW] = { "follow", 'f', NULL,
				"go on and print each new line" },
	[CLI_OPTION_SHOW_SECRETS] = { "show-secrets", 0, NULL,
				      "do not hide what is secret" },
	[CLI_OPTION_QR] = { "qr", 0, "N", "draw bridge N as a QR code" },
	[CLI_OPTION_TRANSPORT] = { "transport", 0, "NAME",
				   "ask for bridges of one kind" },
	[CLI_OPTION_COUNTRY] = { "country", 0, "CC",
				 "ask for what works there" },
	[CLI_OPTION_DIRECT] = { "direct", 0, NULL,
				"ask in the clear if Tor is not connected" },
	[CLI_OPTION_URL] = { "url", 0, "URL", "ask another bridge service" },
	[CLI_OPTION_ADD] = { "add", 0, NULL,
			     "put what comes into the configuration" },
	[CLI_OPTION_CONNECTION] = { "connection", 0, NULL,
				    "find what keeps Tor from connecting" },
	[CLI_OPTION_HELP] = { "help", 'h', NULL, "explain this command" },
	[CLI_OPTION_VERSION] = { "version", 'V', NULL, "print the version" },
};
_Static_assert(ARRAY_SIZE(options) == CLI_OPTION_COUNT, "options");

void cli_print_options(FILE *out, unsigned int mask)
{
	for (int i = 0; i < CLI_OPTION_COUNT; i++) {
		char left[48], letter[8] = "    ";

		if (!(mask & (1u << i)))
			continue;
		if (options[i].letter)
			snprintf(letter, sizeof(letter), "-%c, ",
				 options[i].letter);
		snprintf(left, sizeof(left), "%s--%s%s%s", letter,
			 options[i].name, options[i].argument ? " " : "",
			 options[i].argument ? options[i].argument : "");
		fprintf(out, "  %-28s %s\n", left, options[i].help);
	}
}

unsigned long cli_parse_number(const char *text)
{
	size_t n = strlen(text);

	return n > 0 && n <= 6 && strspn(text, "0123456789") == n
		       ? strtoul(text, NULL, 10)
		       : 0;
}

static int parse_seconds(const char *name, const char *text, uint32_t *ret)
{
	unsigned long value = cli_parse_number(text);

	if (value < 1 || value > CLI_SECONDS_MAX)
		return cli_fail(
			EXIT_CODE_USAGE,
			"--%s: \"%.40s\"; allowed: seconds from 1 to %d", name,
			text, CLI_SECONDS_MAX);
	*ret = (uint32_t)value;
	return 0;
}

/* The controller may run in another working directory. */
static int parse_path(const char *name, const char *text, char **ret)
{
	_cleanup_free_ char *cwd = NULL;
	char *path = NULL;

	if (text[0] == '\0' || strchr(text, '\n'))
		return cli_fail(EXIT_CODE_USAGE,
				"--%s: an empty or broken path; allowed: the "
				"path of a %s",
				name,
				strcmp(name, "config") ? "folder" : "file");
	if (text[0] != '/') {
		cwd = get_current_dir_name();
		if (!cwd)
			return cli_fail(EXIT_CODE_FAILED,
					"the working directory is gone: %m");
	}
	if (asprintf(&path, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", text) < 0)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	free(*ret);
	*ret = path;
	return 0;
}

static int take(struct cli_args *args, enum cli_option option,
		const char *value)
{
	const char *name = options[option].name;

	args->given |= 1u << option;
	switch (option) {
	case CLI_OPTION_CONFIG: return parse_path(name, value, &args->config);
	case CLI_OPTION_RUNTIME_DIR:
		return parse_path(name, value, &args->runtime_dir);
	case CLI_OPTION_STATE_DIR:
		return parse_path(name, value, &args->state_dir);
	case CLI_OPTION_IMAGE_DIR:
		return parse_path(name, value, &args->image_dir);
	case CLI_OPTION_ACCEL:
		if (config_accel_from_name(value) < 0)
			return cli_fail(EXIT_CODE_USAGE,
					"--accel: \"%.40s\"; allowed: auto, "
					"kvm, tcg",
					value);
		args->accel = value;
		return 0;
	case CLI_OPTION_CONFIRM:
		return parse_seconds(name, value, &args->confirm_s);
	case CLI_OPTION_TIMEOUT:
		return parse_seconds(name, value, &args->timeout_s);
	case CLI_OPTION_QR:
		args->qr = (uint32_t)cli_parse_number(value);
		return args->qr ? 0
				: cli_fail(EXIT_CODE_USAGE,
					   "--qr: \"%.40s\"; allowed: a number "
					   "that \"torvm bridges list\" prints",
					   value);
	case CLI_OPTION_TRANSPORT: args->transport = value; return 0;
	case CLI_OPTION_COUNTRY: args->country = value; return 0;
	case CLI_OPTION_URL: args->url = value; return 0;
	case CLI_OPTION_CONNECTION:
	case CLI_OPTION_DIRECT:
	case CLI_OPTION_ADD:
	case CLI_OPTION_SHOW_SECRETS:
	case CLI_OPTION_HEADLESS:
	case CLI_OPTION_VERBOSE:
	case CLI_OPTION_YES:
	case CLI_OPTION_WAIT:
	case CLI_OPTION_JSON:
	case CLI_OPTION_WATCH:
	case CLI_OPTION_FOLLOW:
	case CLI_OPTION_HELP:
	case CLI_OPTION_VERSION:
	case CLI_OPTION_COUNT: break;
	}
	return 0;
}

static int usage_error(const struct cli_command *command, const char *what,
		       const char *which)
{
	return cli_fail(EXIT_CODE_USAGE, "%s %.60s; see \"torvm %s%s--help\"",
			what, which, command->name,
			command->name[0] ? " " : "");
}

int cli_parse(const struct cli_command *command, int argc, char **argv,
	      struct cli_args *ret)
{
	struct option longs[CLI_OPTION_COUNT + 1] = { 0 };
	unsigned int mask = command->options | CLI_BIT(HELP);
	char shorts[2 * CLI_OPTION_COUNT + 2] = ":";
	size_t n = 0, s = 1;
	int r;

	*ret = (struct cli_args){ 0 };
	for (int i = 0; i < CLI_OPTION_COUNT; i++) {
		if (!(mask & (1u << i)))
			continue;
		longs[n++] = (struct option){
			.name = options[i].name,
			.has_arg = options[i].argument ? required_argument
						       : no_argument,
			.val = 256 + i,
		};
		if (options[i].letter) {
			shorts[s++] = options[i].letter;
			if (options[i].argument)
				shorts[s++] = ':';
		}
	}
	opterr = 0;
	optind = 1;
	while ((r = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const char *word = argv[optind - 1];

		if (r == ':')
			return usage_error(command, "a value is missing after",
					   word);
		if (r == '?' && optopt >= 256)
			return usage_error(command, "no value belongs to",
					   word);
		if (r == '?')
			return usage_error(command, "unknown option", word);
		for (int i = 0; r < 256 && i < CLI_OPTION_COUNT; i++)
			if ((mask & (1u << i)) && options[i].letter == r)
				r = 256 + i;
		r = take(ret, (enum cli_option)(r - 256), optarg);
		if (r != 0)
			return r;
	}
	ret->words = argv + optind;
	ret->n_words = argc - optind;
	if (ret->given & CLI_BIT(HELP))
		return 0;
	if (ret->n_words > command->max_words)
		return usage_error(command, "one argument too many:",
				   ret->words[command->max_words]);
	if (ret->n_words < command->min_words)
		return usage_error(command, "missing:", command->arguments);
	if ((mask & CLI_BIT(CONFIG)) && !ret->config &&
	    access(CLI_CONFIG_FILE, F_OK) == 0)
		return parse_path("config", CLI_CONFIG_FILE, &ret->config);
	return 0;
}

void cli_args_deinit(struct cli_args *args)
{
	free(args->config);
	free(args->runtime_dir);
	free(args->state_dir);
	free(args->image_dir);
	*args = (struct cli_args){ 0 };
}

const char *cli_runtime_dir(const struct cli_args *args)
{
	return args->runtime_dir ? args->runtime_dir : CLIENT_RUNTIME_DIR;
}
