/*
 * Theory of operation
 * ===================
 * One cell per state and event. The rules that the cells follow, and that
 * lifecycle-test.c checks by walking the table at random:
 *
 *  - BLOCK comes before every other change, UNBLOCK after every other change
 *    has been taken back, and UNBLOCK is reached by STOP only. The single
 *    exception: when BLOCK itself fails, what it left half-made is removed,
 *    since nothing was protected yet and the start exits with an error.
 *  - A failure after that leads to Blocked: traffic into the TAP is refused
 *    and a retry is scheduled; the block is not touched.
 *  - STOP has a way on from every state.
 *  - Outcomes may be late (a state was left while the broker was still at
 *    work). The executor drops the outcomes of a state that was left; the
 *    cells ignore them nevertheless, so that a slip cannot open anything.
 */
#include "lifecycle/lifecycle.h"

#include <assert.h>

#include "base/util.h"

static const char *const state_names[] = {
	[LIFECYCLE_STATE_INIT] = "Init",
	[LIFECYCLE_STATE_CHECK_PRIVILEGES] = "CheckPrivileges",
	[LIFECYCLE_STATE_SAVE_NETWORK] = "SaveNetwork",
	[LIFECYCLE_STATE_CREATE_TAP] = "CreateTAP",
	[LIFECYCLE_STATE_LAUNCH_VM] = "LaunchVM",
	[LIFECYCLE_STATE_WAIT_TAP] = "WaitTAP",
	[LIFECYCLE_STATE_CONFIGURE_TAP] = "ConfigureTAP",
	[LIFECYCLE_STATE_FLUSH_DNS] = "FlushDNS",
	[LIFECYCLE_STATE_WAIT_BOOTSTRAP] = "WaitBootstrap",
	[LIFECYCLE_STATE_RUNNING] = "Running",
	[LIFECYCLE_STATE_BLOCKED] = "Blocked",
	[LIFECYCLE_STATE_SHUTDOWN] = "Shutdown",
	[LIFECYCLE_STATE_RESTORE_NETWORK] = "RestoreNetwork",
	[LIFECYCLE_STATE_CLEANUP] = "Cleanup",
};
static_assert(ARRAY_SIZE(state_names) == LIFECYCLE_STATE_COUNT,
	      "a name per state");

static const char *const event_names[] = {
	[LIFECYCLE_EVENT_START] = "start",
	[LIFECYCLE_EVENT_ADOPT] = "adopt",
	[LIFECYCLE_EVENT_CHECKS_PASSED] = "checks-passed",
	[LIFECYCLE_EVENT_CHECKS_FAILED] = "checks-failed",
	[LIFECYCLE_EVENT_BLOCK_UP] = "block-up",
	[LIFECYCLE_EVENT_BLOCK_FAILED] = "block-failed",
	[LIFECYCLE_EVENT_TAP_CREATED] = "tap-created",
	[LIFECYCLE_EVENT_TAP_FAILED] = "tap-failed",
	[LIFECYCLE_EVENT_VM_STARTED] = "vm-started",
	[LIFECYCLE_EVENT_VM_FAILED] = "vm-failed",
	[LIFECYCLE_EVENT_VM_EXITED] = "vm-exited",
	[LIFECYCLE_EVENT_VM_SILENT] = "vm-silent",
	[LIFECYCLE_EVENT_GUEST_UP] = "guest-up",
	[LIFECYCLE_EVENT_TAP_CONFIGURED] = "tap-configured",
	[LIFECYCLE_EVENT_TAP_NOT_CONFIGURED] = "tap-not-configured",
	[LIFECYCLE_EVENT_DNS_SET] = "dns-set",
	[LIFECYCLE_EVENT_DNS_FAILED] = "dns-failed",
	[LIFECYCLE_EVENT_BOOTSTRAPPED] = "bootstrapped",
	[LIFECYCLE_EVENT_TOR_LOST] = "tor-lost",
	[LIFECYCLE_EVENT_TAP_LOST] = "tap-lost",
	[LIFECYCLE_EVENT_RETRY] = "retry",
	[LIFECYCLE_EVENT_STOP] = "stop",
	[LIFECYCLE_EVENT_RESTORED] = "restored",
	[LIFECYCLE_EVENT_RESTORE_FAILED] = "restore-failed",
};
static_assert(ARRAY_SIZE(event_names) == LIFECYCLE_EVENT_COUNT,
	      "a name per event");

static const char *const effect_names[] = {
	[LIFECYCLE_EFFECT_NONE] = "none",
	[LIFECYCLE_EFFECT_CHECK] = "check",
	[LIFECYCLE_EFFECT_BLOCK] = "block",
	[LIFECYCLE_EFFECT_CREATE_TAP] = "create-tap",
	[LIFECYCLE_EFFECT_LAUNCH_VM] = "launch-vm",
	[LIFECYCLE_EFFECT_ADOPT_VM] = "adopt-vm",
	[LIFECYCLE_EFFECT_KILL_VM] = "kill-vm",
	[LIFECYCLE_EFFECT_STOP_VM] = "stop-vm",
	[LIFECYCLE_EFFECT_CONFIGURE_TAP] = "configure-tap",
	[LIFECYCLE_EFFECT_REFUSE_TAP] = "refuse-tap",
	[LIFECYCLE_EFFECT_SET_DNS] = "set-dns",
	[LIFECYCLE_EFFECT_ASK_GUEST] = "ask-guest",
	[LIFECYCLE_EFFECT_ASK_TOR] = "ask-tor",
	[LIFECYCLE_EFFECT_ANNOUNCE] = "announce",
	[LIFECYCLE_EFFECT_SCHEDULE_RETRY] = "schedule-retry",
	[LIFECYCLE_EFFECT_DELETE_TAP] = "delete-tap",
	[LIFECYCLE_EFFECT_RESTORE_DNS] = "restore-dns",
	[LIFECYCLE_EFFECT_UNBLOCK] = "unblock",
	[LIFECYCLE_EFFECT_EXIT] = "exit",
};
static_assert(ARRAY_SIZE(effect_names) == LIFECYCLE_EFFECT_COUNT,
	      "a name per effect");

static const char *const guard_names[] = {
	[LIFECYCLE_GUARD_NONE] = "",
	[LIFECYCLE_GUARD_RELAUNCH] = "relaunch",
	[LIFECYCLE_GUARD_VM_ALIVE] = "vm-alive",
	[LIFECYCLE_GUARD_TAP_PRESENT] = "tap-present",
};
static_assert(ARRAY_SIZE(guard_names) == LIFECYCLE_GUARD_COUNT,
	      "a name per guard");

/* What an effect's end feeds back. */
static const struct {
	uint8_t ok, failed; /* enum lifecycle_event; COUNT: none */
} outcomes[] = {
#define OUTCOME(effect, o, f) \
	[LIFECYCLE_EFFECT_##  \
		effect] = { LIFECYCLE_EVENT_##o, LIFECYCLE_EVENT_##f }
	OUTCOME(NONE, COUNT, COUNT),
	OUTCOME(CHECK, CHECKS_PASSED, CHECKS_FAILED),
	OUTCOME(BLOCK, BLOCK_UP, BLOCK_FAILED),
	OUTCOME(CREATE_TAP, TAP_CREATED, TAP_FAILED),
	OUTCOME(LAUNCH_VM, VM_STARTED, VM_FAILED),
	/* What an adopted VM says next is GUEST_UP, or it is silent. */
	OUTCOME(ADOPT_VM, COUNT, VM_FAILED),
	/* Cannot be made to matter: a VM that survived SIGKILL makes the next
	 * launch fail. */
	OUTCOME(KILL_VM, COUNT, COUNT),
	OUTCOME(STOP_VM, VM_EXITED, VM_EXITED),
	OUTCOME(CONFIGURE_TAP, TAP_CONFIGURED, TAP_NOT_CONFIGURED),
	/* Traffic into a TAP that nobody serves goes nowhere: no leak. */
	OUTCOME(REFUSE_TAP, COUNT, COUNT),
	OUTCOME(SET_DNS, DNS_SET, DNS_FAILED),
	OUTCOME(ASK_GUEST, GUEST_UP, VM_SILENT),
	OUTCOME(ASK_TOR, BOOTSTRAPPED, TOR_LOST),
	OUTCOME(ANNOUNCE, COUNT, COUNT),
	OUTCOME(SCHEDULE_RETRY, RETRY, RETRY),
	/* The executor remembers a failure of these two and makes UNBLOCK's
	 * outcome RESTORE_FAILED. */
	OUTCOME(DELETE_TAP, COUNT, COUNT),
	OUTCOME(RESTORE_DNS, COUNT, COUNT),
	OUTCOME(UNBLOCK, RESTORED, RESTORE_FAILED),
	OUTCOME(EXIT, COUNT, COUNT),
#undef OUTCOME
};
static_assert(ARRAY_SIZE(outcomes) == LIFECYCLE_EFFECT_COUNT,
	      "an outcome per effect");

/* The table's vocabulary: short here, spelled out nowhere else. */
#define E(x) LIFECYCLE_EFFECT_##x
#define WAY(g, state, ...)                       \
	{                                        \
		.guard = LIFECYCLE_GUARD_##g,    \
		.next = LIFECYCLE_STATE_##state, \
		.effects = { __VA_ARGS__ },      \
	}
#define CELL(...)                          \
	{                                  \
		.kind = LIFECYCLE_KIND_GO, \
		.ways = { __VA_ARGS__ },   \
	}
#define GO(state, ...) CELL(WAY(NONE, state, __VA_ARGS__))
#define IGNORE                                 \
	{                                      \
		.kind = LIFECYCLE_KIND_IGNORE, \
	}
#define IMPOSSIBLE                                 \
	{                                          \
		.kind = LIFECYCLE_KIND_IMPOSSIBLE, \
	}
#define ON(event) [LIFECYCLE_EVENT_##event]

/* The ways that many states share. */
#define STOP_CHANGED GO(SHUTDOWN, E(REFUSE_TAP), E(STOP_VM))
#define RESTART_VM GO(BLOCKED, E(REFUSE_TAP), E(KILL_VM), E(SCHEDULE_RETRY))
#define VM_IS_GONE GO(BLOCKED, E(REFUSE_TAP), E(SCHEDULE_RETRY))
#define WAIT_FOR_TOR GO(BLOCKED, E(REFUSE_TAP), E(ASK_TOR))
/* The guard holds while the end may be the accelerator's or the disk's fault.
 */
#define END_OR_RELAUNCH                                             \
	CELL(WAY(RELAUNCH, LAUNCH_VM, E(REFUSE_TAP), E(LAUNCH_VM)), \
	     WAY(NONE, BLOCKED, E(REFUSE_TAP), E(SCHEDULE_RETRY)))
#define SILENT_OR_RELAUNCH                                       \
	CELL(WAY(RELAUNCH, LAUNCH_VM, E(REFUSE_TAP), E(KILL_VM), \
		 E(LAUNCH_VM)),                                  \
	     WAY(NONE, BLOCKED, E(REFUSE_TAP), E(KILL_VM), E(SCHEDULE_RETRY)))

/* clang-format off */
static const struct lifecycle_cell table[][LIFECYCLE_EVENT_COUNT] = {
	[LIFECYCLE_STATE_INIT] = {
		ON(START) = GO(CHECK_PRIVILEGES, E(CHECK)),
		/* Through WaitTAP: a repeated hello tells how far the guest
		 * is, and what the dead engine left undone is done. */
		ON(ADOPT) = CELL(
			WAY(VM_ALIVE, WAIT_TAP, E(ADOPT_VM), E(ASK_GUEST)),
			WAY(TAP_PRESENT, LAUNCH_VM, E(LAUNCH_VM)),
			WAY(NONE, CREATE_TAP, E(CREATE_TAP))),
		ON(CHECKS_PASSED) = IMPOSSIBLE,
		ON(CHECKS_FAILED) = GO(CLEANUP, E(EXIT)),
		ON(BLOCK_UP) = IMPOSSIBLE,
		ON(BLOCK_FAILED) = IMPOSSIBLE,
		ON(TAP_CREATED) = IMPOSSIBLE,
		ON(TAP_FAILED) = IMPOSSIBLE,
		ON(VM_STARTED) = IMPOSSIBLE,
		ON(VM_FAILED) = IMPOSSIBLE,
		/* Adopting is still being found out. */
		ON(VM_EXITED) = IGNORE,
		ON(VM_SILENT) = IMPOSSIBLE,
		ON(GUEST_UP) = IMPOSSIBLE,
		ON(TAP_CONFIGURED) = IMPOSSIBLE,
		ON(TAP_NOT_CONFIGURED) = IMPOSSIBLE,
		ON(DNS_SET) = IMPOSSIBLE,
		ON(DNS_FAILED) = IMPOSSIBLE,
		ON(BOOTSTRAPPED) = IMPOSSIBLE,
		ON(TOR_LOST) = IMPOSSIBLE,
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IMPOSSIBLE,
		/* What an earlier engine left is up to the broker's status,
		 * which is not known yet: take back whatever there is. */
		ON(STOP) = GO(SHUTDOWN, E(STOP_VM)),
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_CHECK_PRIVILEGES] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = GO(SAVE_NETWORK, E(BLOCK)),
		ON(CHECKS_FAILED) = GO(CLEANUP, E(EXIT)),
		ON(BLOCK_UP) = IMPOSSIBLE,
		ON(BLOCK_FAILED) = IMPOSSIBLE,
		ON(TAP_CREATED) = IMPOSSIBLE,
		ON(TAP_FAILED) = IMPOSSIBLE,
		ON(VM_STARTED) = IMPOSSIBLE,
		ON(VM_FAILED) = IMPOSSIBLE,
		ON(VM_EXITED) = IMPOSSIBLE,
		ON(VM_SILENT) = IMPOSSIBLE,
		ON(GUEST_UP) = IMPOSSIBLE,
		ON(TAP_CONFIGURED) = IMPOSSIBLE,
		ON(TAP_NOT_CONFIGURED) = IMPOSSIBLE,
		ON(DNS_SET) = IMPOSSIBLE,
		ON(DNS_FAILED) = IMPOSSIBLE,
		ON(BOOTSTRAPPED) = IMPOSSIBLE,
		ON(TOR_LOST) = IMPOSSIBLE,
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IMPOSSIBLE,
		ON(STOP) = GO(CLEANUP, E(EXIT)),
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_SAVE_NETWORK] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = GO(CREATE_TAP, E(CREATE_TAP)),
		ON(BLOCK_FAILED) = GO(RESTORE_NETWORK, E(UNBLOCK)),
		ON(TAP_CREATED) = IMPOSSIBLE,
		ON(TAP_FAILED) = IMPOSSIBLE,
		ON(VM_STARTED) = IMPOSSIBLE,
		ON(VM_FAILED) = IMPOSSIBLE,
		ON(VM_EXITED) = IMPOSSIBLE,
		ON(VM_SILENT) = IMPOSSIBLE,
		ON(GUEST_UP) = IMPOSSIBLE,
		ON(TAP_CONFIGURED) = IMPOSSIBLE,
		ON(TAP_NOT_CONFIGURED) = IMPOSSIBLE,
		ON(DNS_SET) = IMPOSSIBLE,
		ON(DNS_FAILED) = IMPOSSIBLE,
		ON(BOOTSTRAPPED) = IMPOSSIBLE,
		ON(TOR_LOST) = IMPOSSIBLE,
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IMPOSSIBLE,
		ON(STOP) = GO(SHUTDOWN, E(STOP_VM)),
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_CREATE_TAP] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = GO(LAUNCH_VM, E(LAUNCH_VM)),
		ON(TAP_FAILED) = GO(BLOCKED, E(SCHEDULE_RETRY)),
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = IGNORE,
		ON(VM_EXITED) = IGNORE,
		ON(VM_SILENT) = IGNORE,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = IGNORE,
		/* The next step needs it and will fail. */
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_LAUNCH_VM] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = GO(WAIT_TAP, E(ASK_GUEST)),
		ON(VM_FAILED) = RESTART_VM,
		ON(VM_EXITED) = END_OR_RELAUNCH,
		ON(VM_SILENT) = SILENT_OR_RELAUNCH,
		/* The guest was faster than QMP; WaitTAP asks. */
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = IGNORE,
		ON(TAP_LOST) = RESTART_VM,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_WAIT_TAP] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		/* Adopting failed. */
		ON(VM_FAILED) = RESTART_VM,
		ON(VM_EXITED) = END_OR_RELAUNCH,
		ON(VM_SILENT) = SILENT_OR_RELAUNCH,
		ON(GUEST_UP) = GO(CONFIGURE_TAP, E(CONFIGURE_TAP)),
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		/* The guest starts it again; WaitBootstrap asks. */
		ON(TOR_LOST) = IGNORE,
		ON(TAP_LOST) = RESTART_VM,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_CONFIGURE_TAP] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = RESTART_VM,
		ON(VM_EXITED) = END_OR_RELAUNCH,
		ON(VM_SILENT) = RESTART_VM,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = GO(FLUSH_DNS, E(SET_DNS)),
		ON(TAP_NOT_CONFIGURED) = VM_IS_GONE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = WAIT_FOR_TOR,
		ON(TAP_LOST) = RESTART_VM,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_FLUSH_DNS] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = RESTART_VM,
		ON(VM_EXITED) = END_OR_RELAUNCH,
		ON(VM_SILENT) = RESTART_VM,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = VM_IS_GONE,
		ON(DNS_SET) = GO(WAIT_BOOTSTRAP, E(ASK_TOR)),
		ON(DNS_FAILED) = VM_IS_GONE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = WAIT_FOR_TOR,
		ON(TAP_LOST) = RESTART_VM,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_WAIT_BOOTSTRAP] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = RESTART_VM,
		ON(VM_EXITED) = END_OR_RELAUNCH,
		ON(VM_SILENT) = RESTART_VM,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = VM_IS_GONE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = GO(RUNNING, E(ANNOUNCE)),
		ON(TOR_LOST) = WAIT_FOR_TOR,
		ON(TAP_LOST) = RESTART_VM,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_RUNNING] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = RESTART_VM,
		ON(VM_EXITED) = VM_IS_GONE,
		ON(VM_SILENT) = RESTART_VM,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = VM_IS_GONE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = WAIT_FOR_TOR,
		ON(TAP_LOST) = RESTART_VM,
		ON(RETRY) = IGNORE,
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	/* With a VM: waiting for its Tor. Without: waiting for the retry. */
	[LIFECYCLE_STATE_BLOCKED] = {
		ON(START) = IMPOSSIBLE,
		ON(ADOPT) = IMPOSSIBLE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = GO(BLOCKED, E(KILL_VM), E(SCHEDULE_RETRY)),
		ON(VM_EXITED) = GO(BLOCKED, E(SCHEDULE_RETRY)),
		ON(VM_SILENT) = GO(BLOCKED, E(KILL_VM), E(SCHEDULE_RETRY)),
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = CELL(
			WAY(VM_ALIVE, CONFIGURE_TAP, E(CONFIGURE_TAP)),
			WAY(NONE, BLOCKED)),
		/* Tor ended once more; it is being waited for already. */
		ON(TOR_LOST) = IGNORE,
		ON(TAP_LOST) = GO(BLOCKED, E(KILL_VM), E(SCHEDULE_RETRY)),
		ON(RETRY) = CELL(
			WAY(VM_ALIVE, CONFIGURE_TAP, E(CONFIGURE_TAP)),
			WAY(TAP_PRESENT, LAUNCH_VM, E(LAUNCH_VM)),
			WAY(NONE, CREATE_TAP, E(CREATE_TAP))),
		ON(STOP) = STOP_CHANGED,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_SHUTDOWN] = {
		ON(START) = IGNORE,
		ON(ADOPT) = IGNORE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = IGNORE,
		/* The blueprint's order: the TAP and what is bound to it, its
		 * DNS settings, rules, and the firewall last. */
		ON(VM_EXITED) = GO(RESTORE_NETWORK, E(DELETE_TAP),
				   E(RESTORE_DNS), E(UNBLOCK)),
		ON(VM_SILENT) = IGNORE,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = IGNORE,
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IGNORE,
		ON(STOP) = IGNORE,
		ON(RESTORED) = IMPOSSIBLE,
		ON(RESTORE_FAILED) = IMPOSSIBLE,
	},
	[LIFECYCLE_STATE_RESTORE_NETWORK] = {
		ON(START) = IGNORE,
		ON(ADOPT) = IGNORE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = IGNORE,
		ON(VM_EXITED) = IGNORE,
		ON(VM_SILENT) = IGNORE,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = IGNORE,
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IGNORE,
		ON(STOP) = IGNORE,
		ON(RESTORED) = GO(CLEANUP, E(EXIT)),
		/* The exit code and the log name torvm recover. */
		ON(RESTORE_FAILED) = GO(CLEANUP, E(EXIT)),
	},
	[LIFECYCLE_STATE_CLEANUP] = {
		ON(START) = IGNORE,
		ON(ADOPT) = IGNORE,
		ON(CHECKS_PASSED) = IGNORE,
		ON(CHECKS_FAILED) = IGNORE,
		ON(BLOCK_UP) = IGNORE,
		ON(BLOCK_FAILED) = IGNORE,
		ON(TAP_CREATED) = IGNORE,
		ON(TAP_FAILED) = IGNORE,
		ON(VM_STARTED) = IGNORE,
		ON(VM_FAILED) = IGNORE,
		ON(VM_EXITED) = IGNORE,
		ON(VM_SILENT) = IGNORE,
		ON(GUEST_UP) = IGNORE,
		ON(TAP_CONFIGURED) = IGNORE,
		ON(TAP_NOT_CONFIGURED) = IGNORE,
		ON(DNS_SET) = IGNORE,
		ON(DNS_FAILED) = IGNORE,
		ON(BOOTSTRAPPED) = IGNORE,
		ON(TOR_LOST) = IGNORE,
		ON(TAP_LOST) = IGNORE,
		ON(RETRY) = IGNORE,
		ON(STOP) = IGNORE,
		ON(RESTORED) = IGNORE,
		ON(RESTORE_FAILED) = IGNORE,
	},
};
/* clang-format on */
static_assert(ARRAY_SIZE(table) == LIFECYCLE_STATE_COUNT, "a row per state");

static bool guard_holds(enum lifecycle_guard guard,
			const struct lifecycle_guards *guards)
{
	switch (guard) {
	case LIFECYCLE_GUARD_NONE: return true;
	case LIFECYCLE_GUARD_RELAUNCH: return guards->relaunch;
	case LIFECYCLE_GUARD_VM_ALIVE: return guards->vm_alive;
	case LIFECYCLE_GUARD_TAP_PRESENT: return guards->tap_present;
	case LIFECYCLE_GUARD_COUNT: break;
	}
	return false;
}

struct lifecycle_step lifecycle_step(enum lifecycle_state state,
				     enum lifecycle_event event,
				     const struct lifecycle_guards *guards)
{
	const struct lifecycle_cell *cell = &table[state][event];
	struct lifecycle_step step = { .kind = cell->kind, .next = state };
	const struct lifecycle_way *way = cell->ways;

	if (cell->kind != LIFECYCLE_KIND_GO)
		return step;
	/* A test shows that the last way of each cell has no guard. */
	while (!guard_holds(way->guard, guards))
		way++;
	step.next = way->next;
	for (int i = 0; i < LIFECYCLE_EFFECTS_MAX; i++)
		step.effects[i] = way->effects[i];
	return step;
}

const struct lifecycle_cell *lifecycle_cell(enum lifecycle_state state,
					    enum lifecycle_event event)
{
	return &table[state][event];
}

enum lifecycle_event lifecycle_outcome(enum lifecycle_effect effect, bool ok)
{
	return ok ? outcomes[effect].ok : outcomes[effect].failed;
}

const char *lifecycle_state_name(enum lifecycle_state state)
{
	return state_names[state];
}

const char *lifecycle_event_name(enum lifecycle_event event)
{
	return event_names[event];
}

const char *lifecycle_effect_name(enum lifecycle_effect effect)
{
	return effect_names[effect];
}

const char *lifecycle_guard_name(enum lifecycle_guard guard)
{
	return guard_names[guard];
}
