/*
 * Theory of operation
 *
 * A table of subcommands; each is a function in a file of its own, and its row
 * holds everything that --help says. Options are parsed by one function from
 * one table (options.c), so that no command can have an option that its help,
 * the manual and the completions do not know: tests compare them.
 *
 * Nothing here is privileged: `torvm` runs as the caller, talks to the control
 * socket, or becomes torvm-broker if the caller is root.
 */
#include "cli/cli.h"

#include <locale.h>
#include <signal.h>
#include <string.h>

#include "base/nearest.h"

#define START_EXIT_CODES                                                     \
	"  1  it failed; the message says at what\n"                         \
	"  2  wrong usage, or a remote session without --yes or --confirm\n" \
	"  4  the configuration was refused\n"                               \
	"  5  a check failed; nothing was changed\n"                         \
	"  6  root is needed\n"                                              \
	"  7  another instance runs\n"                                       \
	"  8  stopped, but something could not be restored: torvm recover\n"

static const struct cli_command root_command = {
	.name = "",
	.arguments = "",
	.summary = "send all of this computer's traffic through Tor",
	.options = CLI_BIT(HEADLESS) | CLI_BIT(VERSION) | CLI_START_OPTIONS,
	.run = cli_headless,
};

const struct cli_command cli_commands[] = {
	{ "up", "", "protect this computer",
	  CLI_BIT(WAIT) | CLI_BIT(TIMEOUT) | CLI_START_OPTIONS, 0, 0, cli_up,
	  "Starts the controller in the background: the service torvm.service\n"
	  "where it is installed and no other options are given, else a process\n"
	  "of its own whose messages go to RUNTIME_DIR/controller.log. Returns as\n"
	  "soon as nothing can leave any more except through Tor; with --wait,\n"
	  "when Tor is connected. Does nothing if it already runs.\n",
	  "  0  protected (--wait: and connected)\n" START_EXIT_CODES
	  "  9  --wait: not connected in time; traffic stays blocked\n",
	  "  torvm up --wait\n"
	  "  torvm up --config torvm.json\n"
	  "  torvm up --confirm 120    # then, if the session lives: torvm confirm\n" },
	{ "down", "", "end the protection and restore the network",
	  CLI_BIT(RUNTIME_DIR), 0, 0, cli_down,
	  "Stops Tor and its virtual machine, then puts the network back exactly\n"
	  "as it was found, and returns when that is done. The block comes down\n"
	  "last.\n",
	  "  0  the network is as it was, also if nothing ran\n"
	  "  6  root or group torvm is needed\n"
	  "  8  a dead controller left something behind: torvm recover\n"
	  "  9  the controller did not finish in time\n",
	  "  torvm down\n" },
	{ "status", "", "show what is going on",
	  CLI_BIT(RUNTIME_DIR) | CLI_BIT(JSON) | CLI_BIT(WATCH), 0, 0,
	  cli_status,
	  "Shows the state, whether traffic is blocked, how far Tor has come, and\n"
	  "the last failure. --json prints one object, with null where nothing is\n"
	  "known; --watch goes on with one line for each change.\n",
	  "  0  Running\n"
	  "  3  any other state\n"
	  "  6  root or group torvm is needed\n",
	  "  torvm status --json\n"
	  "  until torvm status >/dev/null; do sleep 1; done\n" },
	{ "log", "", "show the controller's log",
	  CLI_BIT(RUNTIME_DIR) | CLI_BIT(FOLLOW), 0, 0, cli_log,
	  "Prints the last lines of the controller's log, Tor's included.\n",
	  "  0  printed\n"
	  "  3  no controller runs\n"
	  "  6  root or group torvm is needed\n",
	  "  torvm log -f\n" },
	{ "circuits", "", "show Tor's circuits and who uses them",
	  CLI_BIT(RUNTIME_DIR) | CLI_BIT(JSON), 0, 0, cli_circuits,
	  "Shows the circuits that Tor has built, the relays of each, and below each\n"
	  "what is connected through it. Bridges are not named. Countries are shown\n"
	  "where the configuration names one, or has tor.geoip.\n",
	  "  0  printed\n"
	  "  1  Tor does not answer yet\n"
	  "  3  no controller runs\n"
	  "  6  root or group torvm is needed\n",
	  "  torvm circuits --json\n" },
	{ "newnym", "", "use new circuits from now on", CLI_BIT(RUNTIME_DIR), 0,
	  0, cli_newnym,
	  "What begins from now on uses new circuits, most likely with another exit,\n"
	  "and names are resolved anew. Connections that exist stay as they are; a\n"
	  "site that knows you by a cookie still does. Tor does this at most every\n"
	  "10 seconds; what is asked for too early is done when it is due.\n",
	  "  0  done, or due within seconds\n"
	  "  1  Tor does not answer yet\n"
	  "  3  no controller runs\n"
	  "  6  root or group torvm is needed\n",
	  "  torvm newnym\n" },
	{ "bridges", "list | add | remove | use | test | request",
	  "enter Tor by bridges, where it is blocked",
	  CLI_BIT(CONFIG) | CLI_BIT(JSON) | CLI_BIT(SHOW_SECRETS) |
		  CLI_BIT(QR) | CLI_BIT(RUNTIME_DIR) | CLI_BIT(TRANSPORT) |
		  CLI_BIT(COUNTRY) | CLI_BIT(DIRECT) | CLI_BIT(URL) |
		  CLI_BIT(ADD),
	  1, 256, cli_bridges,
	  "list, add [LINE...], remove N, use TRANSPORT, test [N], request [WHAT].\n\n"
	  "list shows the bridges of the configuration, with \"***\" for what is\n"
	  "secret; --qr N draws one for a camera. add reads bridge lines as they are\n"
	  "handed out, or the text of a QR code, from standard input (\"-\", or no\n"
	  "argument); lines given as arguments can be seen by other users of this\n"
	  "computer while the command runs. remove takes a number of the list or a\n"
	  "line. use obfs4, meek, snowflake or webtunnel enters Tor by that\n"
	  "transport's bridges, the built-in ones if the configuration has none;\n"
	  "use plain by those without a transport; use none without bridges.\n"
	  "The file is replaced in one step; a running controller goes on as it is\n"
	  "until the next start. test asks the running Tor which of the bridges it\n"
	  "reaches; nothing else is sent. request asks the Tor Project's bridge\n"
	  "service for bridges that work in a country, and prints them (WHAT:\n"
	  "settings, defaults, builtin, map, countries): through Tor; through meek\n"
	  "if TorVM is up and Tor not connected, for which the virtual machine is\n"
	  "started anew; not at all if TorVM is down. If there is no answer, the\n"
	  "built-in ones are printed.\n",
	  "  0  done; test: at least one was reached\n"
	  "  1  it failed; the message says at what; test: none was reached\n"
	  "  2  wrong usage\n"
	  "  3  test: no controller runs, or it uses no bridges\n"
	  "  4  a line or the configuration was refused; nothing was changed\n"
	  "  6  root is needed\n",
	  "  torvm bridges add < bridges.txt\n"
	  "  torvm bridges use snowflake\n"
	  "  torvm bridges list --json\n"
	  "  sudo torvm bridges request --country cn --add\n" },
	{ "confirm", "", "keep a protection started with --confirm",
	  CLI_BIT(RUNTIME_DIR), 0, 0, cli_confirm,
	  "Tells a controller that was started with --confirm that the caller can\n"
	  "still reach this computer. Without it the network is opened again.\n",
	  "  0  confirmed\n"
	  "  1  there is nothing to confirm\n"
	  "  3  no controller runs\n"
	  "  6  root or group torvm is needed\n",
	  "  torvm confirm\n" },
	{ "lockdown", "on | off | status",
	  "block everything while TorVM is down",
	  CLI_BIT(RUNTIME_DIR) | CLI_BIT(YES) | CLI_BIT(JSON), 1, 1,
	  cli_lockdown_command,
	  "on keeps the block in place whenever TorVM does not run: now, after\n"
	  "\"torvm down\", and from the start of each boot where the service\n"
	  "torvm-lockdown.service is installed. \"torvm up\" replaces the block by\n"
	  "its own without an open moment. off ends that; \"torvm recover\" does,\n"
	  "too. status prints whether it is on, --json as one object.\n",
	  "  0  done; status: it is on\n"
	  "  1  it failed; the message says at what\n"
	  "  2  wrong usage, or a remote session without --yes\n"
	  "  3  status: it is off\n"
	  "  6  root is needed\n"
	  "  8  off: a dead controller left something behind: torvm recover\n",
	  "  torvm lockdown on\n"
	  "  torvm lockdown status --json\n" },
	{ "recover", "", "restore the network after a crash",
	  CLI_BIT(RUNTIME_DIR), 0, 0, cli_recover,
	  "Removes what a controller that was killed left in the kernel: firewall\n"
	  "tables, policy rules, the network interface, DNS settings. Needed only\n"
	  "if \"torvm up\" is not wanted, which takes over without an open moment.\n"
	  "Turns lockdown off, too, now and at boot.\n",
	  "  0  the network is as it was, also if nothing was left\n"
	  "  6  root is needed\n"
	  "  7  a controller runs: torvm down\n"
	  "  8  something could not be restored; the message says what\n",
	  "  torvm recover\n" },
	{ "doctor", "", "find what is missing on this computer",
	  CLI_BIT(CONFIG) | CLI_BIT(RUNTIME_DIR) | CLI_BIT(IMAGE_DIR) |
		  CLI_BIT(JSON) | CLI_BIT(CONNECTION),
	  0, 0, cli_doctor,
	  "Checks everything a start needs, changes nothing, and names for each\n"
	  "thing that is missing the command that mends it. Some checks need "
	  "root.\n"
	  "With --connection it says instead what keeps Tor from connecting, by what\n"
	  "the kernel and the running Tor know, and what to try next; nothing is sent.\n",
	  "  0  nothing is missing\n"
	  "  1  something is; its line says what to do\n"
	  "  6  --connection: root or group torvm is needed\n",
	  "  torvm doctor\n"
	  "  torvm doctor --connection\n" },
	{ "selftest", "", "try to get past the block",
	  CLI_BIT(RUNTIME_DIR) | CLI_BIT(JSON), 0, 0, cli_selftest,
	  "Sends probes of many kinds, by themselves and bound to each network link\n"
	  "that leads out, and watches those links for them: a probe counts as SENT\n"
	  "if it was handed to a link's driver, whatever the program was told. Probes\n"
	  "live for one hop at most and go to addresses that nobody has.\n",
	  "  0  nothing got out\n"
	  "  1  something did, or it could not be watched; the table says what\n"
	  "  3  TorVM is down: that probes get out is as it should be\n"
	  "  6  root is needed\n",
	  "  torvm selftest\n" },
	{ "config", "check FILE | default | schema",
	  "check a configuration, print the default one or its schema", 0, 1, 2,
	  cli_config,
	  "check FILE says whether FILE would be accepted; if not, it names the\n"
	  "key and what is allowed there. default prints a configuration with "
	  "every\n"
	  "key at its default. schema prints the JSON Schema, for editors.\n"
	  "torvm.json(5) explains the keys.\n",
	  "  0  good\n"
	  "  4  the configuration was refused\n",
	  "  torvm config default > torvm.json\n"
	  "  torvm config check torvm.json\n" },
	{ "version", "", "print the version", 0, 0, 0, cli_version,
	  "Prints the version.\n", "  0  always\n", "  torvm version\n" },
	{ .name = NULL },
};

static void print_usage(FILE *out)
{
	fprintf(out, "Usage: torvm COMMAND [OPTION...]\n"
		     "       torvm --headless [OPTION...]\n\n"
		     "TorVM sends all of this computer's traffic through Tor, "
		     "which runs in a\n"
		     "small virtual machine. What cannot go through Tor is "
		     "refused.\n\nCommands:\n");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		fprintf(out, "  %-10s %s\n", c->name, c->summary);
	fputs("\n\"torvm COMMAND --help\" explains a command, torvm(1) "
	      "everything.\n",
	      out);
}

static void print_root_help(void)
{
	print_usage(stdout);
	fputs("\nWith --headless, torvm is the controller itself: it protects "
	      "this computer\nat once and until it gets SIGTERM, SIGINT or "
	      "\"torvm down\".\n\nOptions:\n",
	      stdout);
	cli_print_options(stdout, root_command.options | CLI_BIT(HELP));
	fputs("\nExit codes:\n"
	      "  0  stopped as asked, the network is as it was\n" START_EXIT_CODES
	      "\nExamples:\n"
	      "  torvm up --wait\n"
	      "  torvm --headless --config torvm.json --verbose\n",
	      stdout);
}

static void print_help(const struct cli_command *c)
{
	if (!c->name[0]) {
		print_root_help();
		return;
	}
	printf("Usage: torvm %s%s%s%s\n\n%s", c->name,
	       c->options ? " [OPTION...]" : "", c->arguments[0] ? " " : "",
	       c->arguments, c->description);
	fputs("\nOptions:\n", stdout);
	cli_print_options(stdout, c->options | CLI_BIT(HELP));
	printf("\nExit codes:\n%s\nExamples:\n%s", c->exit_codes, c->examples);
}

static const struct cli_command *find_command(const char *name)
{
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static int unknown_command(const char *name)
{
	size_t best = NEAREST_WORD_MAX + 1;
	const char *near = NULL;

	for (const struct cli_command *c = cli_commands; c->name; c++) {
		size_t d = nearest_distance(name, c->name);

		if (d < best) {
			best = d;
			near = c->name;
		}
	}
	if (near && nearest_is_close(name, best))
		return cli_fail(EXIT_CODE_USAGE,
				"there is no command \"%.40s\"; did you mean "
				"\"torvm %s\"?",
				name, near);
	return cli_fail(EXIT_CODE_USAGE,
			"there is no command \"%.40s\"; see \"torvm --help\"",
			name);
}

int cli_version(const struct cli_args *args)
{
	puts("torvm " TORVM_VERSION);
	return EXIT_CODE_OK;
}

static int run(const struct cli_command *c, int argc, char **argv)
{
	_cleanup_(cli_args_deinit) struct cli_args args = { 0 };
	int r = cli_parse(c, argc, argv, &args);

	if (r != 0)
		return r;
	if (args.given & CLI_BIT(HELP)) {
		print_help(c);
		return EXIT_CODE_OK;
	}
	if (args.given & CLI_BIT(VERSION))
		return cli_version(&args);
	if (c == &root_command && !(args.given & CLI_BIT(HEADLESS)))
		return cli_fail(EXIT_CODE_USAGE,
				"these options need --headless or a command; "
				"see \"torvm --help\"");
	return c->run(&args);
}

/* Whether everything that was printed has arrived. */
static int finish(int code)
{
	if (fflush(stdout) != 0 || ferror(stdout)) {
		cli_fail(EXIT_CODE_FAILED, "cannot write the output: %m");
		return code == EXIT_CODE_OK ? EXIT_CODE_FAILED : code;
	}
	return code;
}

int main(int argc, char **argv)
{
	const struct cli_command *c;

	setlocale(LC_ALL, "");
	if (argc < 2) {
		print_usage(stderr);
		fputs("\nThere is no graphical interface in this version; "
		      "begin with \"torvm up --wait\".\n",
		      stderr);
		return EXIT_CODE_USAGE;
	}
	if (argv[1][0] == '-')
		return finish(run(&root_command, argc, argv));
	if (!strcmp(argv[1], "help")) {
		c = argc > 2 ? find_command(argv[2]) : &root_command;
		if (!c)
			return unknown_command(argv[2]);
		print_help(c);
		return finish(EXIT_CODE_OK);
	}
	c = find_command(argv[1]);
	if (!c)
		return unknown_command(argv[1]);
	return finish(run(c, argc - 1, argv + 1));
}
