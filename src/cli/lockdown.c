/*
 * torvm lockdown.
 *
 * Theory of operation: the block itself is broker/lockdown.c's. Here is what
 * makes it last: torvm-lockdown.service, enabled by systemctl(1), which works
 * on links in /etc alone and so also offline and in a rescue shell. A runtime
 * directory that is not the default one is a test's or a second network
 * namespace's: boot is then none of its business.
 */
#include "broker/lockdown.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/cli.h"

#define SYSTEMCTL "/usr/bin/systemctl"

bool cli_lockdown(const char *runtime_dir)
{
	struct net *net = NULL;
	bool on;

	if (client_lockdown(runtime_dir))
		return true;
	if (geteuid() != 0 || net_open(&net, NULL) < 0)
		return false;
	on = net_firewall_is_lockdown(net);
	net_close(net);
	return on;
}

int cli_lockdown_at_boot(void)
{
	static const char *const units[] = {
		"/etc/systemd/system/" CLI_LOCKDOWN_UNIT,
		"/usr/lib/systemd/system/" CLI_LOCKDOWN_UNIT,
		"/usr/local/lib/systemd/system/" CLI_LOCKDOWN_UNIT,
		"/lib/systemd/system/" CLI_LOCKDOWN_UNIT,
	};
	struct stat st;

	/* As WantedBy= of the unit says. */
	if (lstat("/etc/systemd/system/sysinit.target.wants/" CLI_LOCKDOWN_UNIT,
		  &st) == 0)
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (access(units[i], F_OK) == 0 && access(SYSTEMCTL, X_OK) == 0)
			return 0;
	return -1;
}

bool cli_lockdown_set_boot(bool on)
{
	char *const argv[] = { (char *)SYSTEMCTL, (char *)"--quiet",
			       (char *)(on ? "enable" : "disable"),
			       (char *)CLI_LOCKDOWN_UNIT, NULL };
	char *const environment[] = { NULL };
	int status;
	pid_t pid;

	if (posix_spawn(&pid, SYSTEMCTL, NULL, NULL, argv, environment) != 0)
		return false;
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == 0;
}

static bool is_default(const struct cli_args *args)
{
	return !strcmp(cli_runtime_dir(args), CLIENT_RUNTIME_DIR);
}

static int failed(const struct error *e, int r)
{
	return cli_fail(r == -EPERM ? EXIT_CODE_PRIVILEGES : EXIT_CODE_FAILED,
			"%s", e->text);
}

static int turn_on(const struct cli_args *args)
{
	struct error e = ERROR_NULL(e);
	int r;

	if (!(args->given & CLI_BIT(YES)) && cli_session_is_remote())
		return cli_fail(
			EXIT_CODE_USAGE,
			"this is a remote session, which lockdown would "
			"cut off; --yes does it all the same. Nothing "
			"was changed.");
	r = lockdown_enter(cli_runtime_dir(args), &e);
	if (r < 0)
		return failed(&e, r);
	puts(r ? "Lockdown is on: when TorVM ends, traffic stays blocked."
	       : "Lockdown is on: all traffic is blocked until \"torvm up\".");
	if (!is_default(args)) {
		puts("It does not outlast a restart: this is not the default "
		     "--runtime-dir.");
		return EXIT_CODE_OK;
	}
	if (cli_lockdown_at_boot() < 0) {
		puts("It does not outlast a restart of this computer: that "
		     "needs systemd and\n" CLI_LOCKDOWN_UNIT
		     " (sudo make install).");
		return EXIT_CODE_OK;
	}
	if (!cli_lockdown_set_boot(true))
		return cli_fail(
			EXIT_CODE_FAILED,
			"lockdown is on, but systemctl could not enable " CLI_LOCKDOWN_UNIT
			", so that it ends when this computer is "
			"restarted");
	puts("It is also on from the start of each boot.");
	return EXIT_CODE_OK;
}

static int turn_off(const struct cli_args *args)
{
	struct error e = ERROR_NULL(e);
	int r;

	/* First what would bring it back. */
	if (is_default(args) && cli_lockdown_at_boot() == 1 &&
	    !cli_lockdown_set_boot(false))
		return cli_fail(EXIT_CODE_FAILED,
				"systemctl could not disable " CLI_LOCKDOWN_UNIT
				"; lockdown stays on");
	r = lockdown_leave(cli_runtime_dir(args), &e);
	if (r < 0)
		return failed(&e, r);
	if (r == 2)
		return cli_fail(
			EXIT_CODE_RESTORE,
			"lockdown is off, but a controller ended without "
			"restoring the network, and its block is still "
			"there: \"torvm up\" or \"torvm recover\"");
	puts(r ? "Lockdown is off: when TorVM ends, the network opens."
	       : "Lockdown is off: the network is open.");
	return EXIT_CODE_OK;
}

static int show(const struct cli_args *args)
{
	bool on = cli_lockdown(cli_runtime_dir(args));
	int boot = cli_lockdown_at_boot();

	if (args->given & CLI_BIT(JSON))
		printf("{\"lockdown\": %s, \"at_boot\": %s}\n",
		       on ? "true" : "false",
		       boot < 0 ? "null"
		       : boot   ? "true"
				: "false");
	else
		printf("Lockdown   %s\nAt boot    %s\n",
		       on ? "on: while TorVM does not run, all traffic is "
			    "blocked"
			  : "off: while TorVM does not run, the network is open",
		       boot < 0 ? "not installed"
		       : boot   ? "on"
				: "off");
	return on ? EXIT_CODE_OK : EXIT_CODE_NOT_RUNNING;
}

int cli_lockdown_command(const struct cli_args *args)
{
	const char *word = args->words[0];
	bool on = !strcmp(word, "on");

	if (!strcmp(word, "status"))
		return show(args);
	if (!on && strcmp(word, "off") != 0)
		return cli_fail(EXIT_CODE_USAGE,
				"lockdown: \"%.40s\"; allowed: on, off, status",
				word);
	if (geteuid() != 0)
		return cli_fail(EXIT_CODE_PRIVILEGES,
				"root is needed to change the network; run it "
				"again with sudo");
	return on ? turn_on(args) : turn_off(args);
}
