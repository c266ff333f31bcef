/*
 * The lifecycle: a dense table and a pure step. No I/O, no clock, no
 * allocation; the executor (src/daemon) performs effects and feeds their
 * outcome back as events. docs/lifecycle.md is generated from the table.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum lifecycle_state {
	LIFECYCLE_STATE_INIT,
	LIFECYCLE_STATE_CHECK_PRIVILEGES,
	LIFECYCLE_STATE_SAVE_NETWORK,
	LIFECYCLE_STATE_CREATE_TAP,
	LIFECYCLE_STATE_LAUNCH_VM,
	LIFECYCLE_STATE_WAIT_TAP,
	LIFECYCLE_STATE_CONFIGURE_TAP,
	LIFECYCLE_STATE_FLUSH_DNS,
	LIFECYCLE_STATE_WAIT_BOOTSTRAP,
	LIFECYCLE_STATE_RUNNING,
	LIFECYCLE_STATE_BLOCKED,
	LIFECYCLE_STATE_SHUTDOWN,
	LIFECYCLE_STATE_RESTORE_NETWORK,
	LIFECYCLE_STATE_CLEANUP,
	LIFECYCLE_STATE_COUNT,
};

/* "Init", "CheckPrivileges", ... as the control interface shows them. */
const char *lifecycle_state_name(enum lifecycle_state state);
