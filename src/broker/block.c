/*
 * torvm-block: the block at boot.
 *
 * Theory of operation: started by torvm-lockdown.service before any network
 * comes up, when nothing can be relied on but the kernel and the file system
 * this program lies on. Linked statically, no configuration, no options, no
 * helper. It loads the block, turns lockdown on for this boot, and ends; the
 * block stays in the kernel.
 *
 * Links that appear later are covered by the inet table, whose default is to
 * drop whatever the link. The egress chains, which are for frames that do not
 * pass it, know the links of the moment; the controller renews them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/exit_code.h"
#include "broker/lockdown.h"

#define DEFAULT_RUNTIME_DIR "/run/torvm"

int main(int argc, char **argv)
{
	const char *dir = DEFAULT_RUNTIME_DIR;
	struct error e = ERROR_NULL(e);
	int r;

	if (argc == 3 && strcmp(argv[1], "--runtime-dir") == 0) {
		dir = argv[2];
	} else if (argc != 1) {
		fputs("Usage: torvm-block [--runtime-dir DIR]\n\n"
		      "Blocks all traffic of this computer until TorVM runs. "
		      "Users call\n\"torvm lockdown on\"; \"torvm lockdown "
		      "off\" or \"torvm recover\" opens the network.\n",
		      argc == 2 && !strcmp(argv[1], "--help") ? stdout
							      : stderr);
		return argc == 2 && !strcmp(argv[1], "--help")
			       ? EXIT_CODE_OK
			       : EXIT_CODE_USAGE;
	}
	r = lockdown_enter(dir, &e);
	if (r < 0) {
		fprintf(stderr, "torvm-block: %s\n", e.text);
		return r == -EPERM ? EXIT_CODE_PRIVILEGES : EXIT_CODE_FAILED;
	}
	puts(r ? "TorVM runs; lockdown takes effect when it ends"
	       : "Lockdown: all traffic is blocked until TorVM runs");
	return EXIT_CODE_OK;
}
