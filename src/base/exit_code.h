/* Exit codes of torvm, torvm-broker and torvmd; torvm(1) explains them. */
#pragma once

enum exit_code {
	EXIT_CODE_OK = 0,
	EXIT_CODE_FAILED = 1,      /* anything not listed */
	EXIT_CODE_USAGE = 2,       /* bad option or argument */
	EXIT_CODE_NOT_RUNNING = 3, /* status: not Running; no controller */
	EXIT_CODE_CONFIG = 4,      /* the configuration was refused */
	EXIT_CODE_PRECHECK = 5,    /* a check failed; nothing was changed */
	EXIT_CODE_PRIVILEGES = 6,  /* root or group torvm is needed */
	EXIT_CODE_BUSY = 7,        /* another instance runs */
	EXIT_CODE_RESTORE = 8,     /* stopped, but something could not be
				    * restored: torvm recover */
	EXIT_CODE_TIMEOUT = 9,     /* up --wait, --confirm: time is over */
};
