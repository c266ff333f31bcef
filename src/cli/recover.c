#include "broker/recover.h"

#include <errno.h>
#include <string.h>

#include "cli/cli.h"

static void on_report(void *userdata, const char *text)
{
	puts(text);
	fflush(stdout);
}

int cli_recover(const struct cli_args *args)
{
	struct error e = ERROR_NULL(e);
	int r;

	if (geteuid() != 0)
		return cli_fail(EXIT_CODE_PRIVILEGES,
				"root is needed to change the network; run it "
				"again with sudo");
	r = recover_run(cli_runtime_dir(args), on_report, NULL, &e);
	/* Else the next boot would close the network again. */
	if (r >= 0 && !strcmp(cli_runtime_dir(args), CLIENT_RUNTIME_DIR) &&
	    cli_lockdown_at_boot() == 1)
		puts(cli_lockdown_set_boot(false)
			     ? "Turned lockdown at boot off"
			     : "Lockdown is still on at the next boot; turn it "
			       "off: systemctl disable " CLI_LOCKDOWN_UNIT);
	if (r == RESTORE_DONE) {
		puts("The network is as it was before TorVM started.");
		return EXIT_CODE_OK;
	}
	if (r == -EBUSY)
		return cli_fail(EXIT_CODE_BUSY, "%s", e.text);
	if (r == -EPERM)
		return cli_fail(EXIT_CODE_PRIVILEGES, "%s", e.text);
	return cli_fail(EXIT_CODE_RESTORE, "%s", e.text);
}
