/*
 * Theory of operation
 *
 * "torvm bridges" works on the configuration file and on nothing else: what a
 * running controller has read stays as it is until the next start. Bridge lines
 * are secrets; lists hide what is secret in them unless asked, and no message
 * quotes a line.
 */
#include "cli/bridges.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "config/bridge_line.h"

const char *cli_bridges_transport_name(enum config_transport transport)
{
	return transport == CONFIG_TRANSPORT_NONE
		       ? "plain"
		       : config_transport_name(transport);
}

enum exit_code cli_bridges_code(int error)
{
	if (error == -EINVAL || error == -E2BIG)
		return EXIT_CODE_CONFIG;
	if (error == -EACCES || error == -EPERM)
		return EXIT_CODE_PRIVILEGES;
	return EXIT_CODE_FAILED;
}

const char *cli_bridges_count(size_t n, enum config_transport transport,
			      char *buf, size_t size)
{
	snprintf(buf, size, "%zu %s bridge%s", n,
		 cli_bridges_transport_name(transport), n == 1 ? "" : "s");
	return buf;
}

bool cli_bridges_is_used(const struct config *cfg, size_t i)
{
	return cfg->bridge.use_bridges &&
	       config_bridge_line_transport(cfg->bridge.bridges[i]) ==
		       cfg->bridge.transport;
}

static int print_json(const struct config *cfg, bool secrets)
{
	json_t *list = json_array(), *root;

	for (size_t i = 0; i < cfg->bridge.n_bridges; i++) {
		const char *line = cfg->bridge.bridges[i];
		_cleanup_free_ char *masked = config_bridge_mask(line);

		json_array_append_new(
			list,
			json_pack("{s:i, s:s, s:b, s:s}", "number",
				  (int)(i + 1), "transport",
				  cli_bridges_transport_name(
					  config_bridge_line_transport(line)),
				  "used", (int)cli_bridges_is_used(cfg, i),
				  "line",
				  secrets  ? line
				  : masked ? masked
					   : "***"));
	}
	root = json_pack("{s:b, s:s, s:o}", "use_bridges",
			 (int)cfg->bridge.use_bridges, "transport",
			 config_transport_name(cfg->bridge.transport),
			 "bridges", list);
	if (!root)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return EXIT_CODE_OK;
}

static void print_text(const struct config *cfg, bool secrets)
{
	if (cfg->bridge.use_bridges)
		printf("Tor is entered by the bridges marked with *.\n");
	else
		printf("Bridges are not used.%s\n",
		       cfg->bridge.n_bridges
			       ? " To use these: torvm bridges use TRANSPORT"
			       : " There are none; torvm bridges add, or torvm "
				 "bridges use snowflake");
	for (size_t i = 0; i < cfg->bridge.n_bridges; i++) {
		const char *line = cfg->bridge.bridges[i];
		_cleanup_free_ char *masked = config_bridge_mask(line);

		printf("%c%3zu  %s\n", cli_bridges_is_used(cfg, i) ? '*' : ' ',
		       i + 1,
		       secrets  ? line
		       : masked ? masked
				: "***");
	}
}

static int list(const struct cli_args *args, const char *path,
		char *const *words, int n)
{
	_cleanup_(config_freep) struct config *cfg = NULL;
	struct error e = ERROR_NULL(e);
	int r;

	if (n > 0)
		return cli_fail(EXIT_CODE_USAGE,
				"torvm bridges list takes no argument");
	r = config_load(path, &cfg, &e);
	if (r == -ENOENT && !(args->given & CLI_BIT(CONFIG)))
		cfg = config_new_default();
	else if (r < 0)
		return cli_fail(cli_bridges_code(r), "%s", e.text);
	if (!cfg)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	if (args->given & CLI_BIT(QR)) {
		if (args->qr > cfg->bridge.n_bridges)
			return cli_fail(EXIT_CODE_USAGE,
					"--qr: there is no bridge %u; \"torvm "
					"bridges list\" numbers them",
					args->qr);
		return cli_bridges_print_qr(cfg->bridge.bridges[args->qr - 1]);
	}
	if (args->given & CLI_BIT(JSON))
		return print_json(cfg, args->given & CLI_BIT(SHOW_SECRETS));
	print_text(cfg, args->given & CLI_BIT(SHOW_SECRETS));
	return EXIT_CODE_OK;
}

static const struct {
	const char *name;
	int (*run)(const struct cli_args *args, const char *path,
		   char *const *words, int n);
	bool edits;
	unsigned int options; /* of those that not every one of them takes */
} subcommands[] = {
	{ "list", list, false,
	  CLI_BIT(JSON) | CLI_BIT(SHOW_SECRETS) | CLI_BIT(QR) },
	{ "add", cli_bridges_add, true, 0 },
	{ "remove", cli_bridges_remove, true, 0 },
	{ "use", cli_bridges_use, true, 0 },
	{ "request", cli_bridges_request, true,
	  CLI_BIT(RUNTIME_DIR) | CLI_BIT(TRANSPORT) | CLI_BIT(COUNTRY) |
		  CLI_BIT(DIRECT) | CLI_BIT(URL) | CLI_BIT(ADD) },
	{ "test", cli_bridges_test, false,
	  CLI_BIT(JSON) | CLI_BIT(RUNTIME_DIR) },
};

int cli_bridges(const struct cli_args *args)
{
	const char *path = args->config ? args->config : CLI_CONFIG_FILE;
	const char *name = args->words[0];

	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++) {
		unsigned int common = CLI_BIT(CONFIG);

		if (strcmp(subcommands[i].name, name) != 0)
			continue;
		if (args->given & ~(subcommands[i].options | common)) {
			cli_fail(EXIT_CODE_USAGE,
				 "torvm bridges %s: an option that it does not "
				 "take; allowed:",
				 name);
			cli_print_options(stderr,
					  subcommands[i].options | common);
			return EXIT_CODE_USAGE;
		}
		/* Not there before the first configuration is made. */
		if (!args->config && subcommands[i].edits)
			mkdir(CLI_CONFIG_DIR, 0755);
		return subcommands[i].run(args, path, args->words + 1,
					  args->n_words - 1);
	}
	return cli_fail(EXIT_CODE_USAGE,
			"torvm bridges: there is no \"%.40s\"; allowed: list, "
			"add, remove, use, test, request",
			name);
}
