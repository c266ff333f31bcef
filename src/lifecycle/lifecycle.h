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

enum lifecycle_event {
	LIFECYCLE_EVENT_START, /* nothing of ours is up */
	LIFECYCLE_EVENT_ADOPT, /* an engine died; the block is up */
	LIFECYCLE_EVENT_CHECKS_PASSED,
	LIFECYCLE_EVENT_CHECKS_FAILED,
	LIFECYCLE_EVENT_BLOCK_UP,
	LIFECYCLE_EVENT_BLOCK_FAILED,
	LIFECYCLE_EVENT_TAP_CREATED,
	LIFECYCLE_EVENT_TAP_FAILED,
	LIFECYCLE_EVENT_VM_STARTED, /* QEMU runs and answers on QMP */
	LIFECYCLE_EVENT_VM_FAILED,  /* it could not be started */
	LIFECYCLE_EVENT_VM_EXITED,  /* it ended; never after KILL_VM */
	LIFECYCLE_EVENT_VM_SILENT,  /* no hello, not ready, no heartbeat */
	LIFECYCLE_EVENT_GUEST_UP,   /* the guest's network and firewall are */
	LIFECYCLE_EVENT_TAP_CONFIGURED,
	LIFECYCLE_EVENT_TAP_NOT_CONFIGURED,
	LIFECYCLE_EVENT_DNS_SET,
	LIFECYCLE_EVENT_DNS_FAILED,
	LIFECYCLE_EVENT_BOOTSTRAPPED,
	LIFECYCLE_EVENT_TOR_LOST,
	LIFECYCLE_EVENT_TAP_LOST,
	LIFECYCLE_EVENT_RETRY, /* the pause after a failure is over */
	LIFECYCLE_EVENT_STOP,  /* the user wants the network back */
	LIFECYCLE_EVENT_RESTORED,
	LIFECYCLE_EVENT_RESTORE_FAILED,
	LIFECYCLE_EVENT_COUNT,
};

/*
 * Effects of one step are performed in order; the executor may start one
 * before the outcome of the previous is known only where the broker, which
 * handles requests in order, performs both.
 */
enum lifecycle_effect {
	LIFECYCLE_EFFECT_NONE,  /* ends a list */
	LIFECYCLE_EFFECT_CHECK, /* every check; changes nothing */
	LIFECYCLE_EFFECT_BLOCK, /* the kill switch goes up */
	LIFECYCLE_EFFECT_CREATE_TAP,
	LIFECYCLE_EFFECT_LAUNCH_VM,     /* also starts its timeouts */
	LIFECYCLE_EFFECT_ADOPT_VM,      /* connects to a VM that runs */
	LIFECYCLE_EFFECT_KILL_VM,       /* at once; no VM_EXITED follows */
	LIFECYCLE_EFFECT_STOP_VM,       /* gracefully; ends in VM_EXITED */
	LIFECYCLE_EFFECT_CONFIGURE_TAP, /* and traffic into it is allowed */
	LIFECYCLE_EFFECT_REFUSE_TAP,    /* traffic into it is refused */
	LIFECYCLE_EFFECT_SET_DNS,
	LIFECYCLE_EFFECT_ASK_GUEST, /* GUEST_UP once it is, or already is */
	LIFECYCLE_EFFECT_ASK_TOR,   /* BOOTSTRAPPED once it is, or already is */
	LIFECYCLE_EFFECT_ANNOUNCE,  /* the service is ready */
	LIFECYCLE_EFFECT_SCHEDULE_RETRY,
	LIFECYCLE_EFFECT_DELETE_TAP,
	LIFECYCLE_EFFECT_RESTORE_DNS,
	LIFECYCLE_EFFECT_UNBLOCK, /* the kill switch comes down */
	LIFECYCLE_EFFECT_EXIT,
	LIFECYCLE_EFFECT_COUNT,
};

#define LIFECYCLE_EFFECTS_MAX 4

/* What the executor knows that decides between two ways on. */
enum lifecycle_guard {
	LIFECYCLE_GUARD_NONE, /* always true */
	/* The cause is known and mended at once: another accelerator is left
	 * to try, or the state disk will be replaced by a fresh one. */
	LIFECYCLE_GUARD_RELAUNCH,
	LIFECYCLE_GUARD_VM_ALIVE,
	LIFECYCLE_GUARD_TAP_PRESENT,
	LIFECYCLE_GUARD_COUNT,
};

struct lifecycle_guards {
	bool relaunch;
	bool vm_alive;
	bool tap_present;
};

enum lifecycle_kind {
	LIFECYCLE_KIND_UNSET, /* a hole in the table: a test fails */
	LIFECYCLE_KIND_GO,
	LIFECYCLE_KIND_IGNORE,     /* can happen, asks for nothing */
	LIFECYCLE_KIND_IMPOSSIBLE, /* a fault of the executor: logged */
};

struct lifecycle_way {
	uint8_t guard; /* enum lifecycle_guard; NONE: the last way */
	uint8_t next;  /* enum lifecycle_state */
	uint8_t effects[LIFECYCLE_EFFECTS_MAX];
};

#define LIFECYCLE_WAYS_MAX 3

struct lifecycle_cell {
	uint8_t kind; /* enum lifecycle_kind */
	struct lifecycle_way ways[LIFECYCLE_WAYS_MAX];
};

struct lifecycle_step {
	enum lifecycle_kind kind;
	enum lifecycle_state next; /* the same state unless kind is GO */
	/* Ended by LIFECYCLE_EFFECT_NONE. */
	enum lifecycle_effect effects[LIFECYCLE_EFFECTS_MAX + 1];
};

/**
 * lifecycle_step() - Where an event leads and what has to be done
 *
 * Pure and total: every combination has an answer.
 */
struct lifecycle_step lifecycle_step(enum lifecycle_state state,
				     enum lifecycle_event event,
				     const struct lifecycle_guards *guards);

/* The table's cell, for the document and the tests. */
const struct lifecycle_cell *lifecycle_cell(enum lifecycle_state state,
					    enum lifecycle_event event);

/**
 * lifecycle_outcome() - The event that an effect's success or failure feeds
 *
 * Return: an event, or LIFECYCLE_EVENT_COUNT where none follows: the effect
 * cannot fail, or its failure is logged and changes nothing about the block
 */
enum lifecycle_event lifecycle_outcome(enum lifecycle_effect effect, bool ok);

/* "Init", "CheckPrivileges", ... as the control interface shows them. */
const char *lifecycle_state_name(enum lifecycle_state state);
/* "start", "checks-passed", ...; "block", "create-tap", ... */
const char *lifecycle_event_name(enum lifecycle_event event);
const char *lifecycle_effect_name(enum lifecycle_effect effect);
const char *lifecycle_guard_name(enum lifecycle_guard guard);
