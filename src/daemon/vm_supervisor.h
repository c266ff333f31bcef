/*
 * The VM as a process: what it is started with, its QMP session, its output,
 * its timeouts and its end.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/lines.h"
#include "daemon/stream.h"
#include "proto/qmp.h"
#include "vm/accel.h"
#include "vm/image.h"

struct engine;

enum vm_phase {
	VM_PHASE_NONE,
	VM_PHASE_STARTING, /* the broker was asked */
	VM_PHASE_UP,       /* QEMU runs */
	VM_PHASE_STOPPING, /* gracefully */
	VM_PHASE_KILLING,  /* the broker was asked */
};

/* Why a console is kept: what a guest that never got to its agent last said. */
#define VM_CONSOLE_LINES 12

struct vm_supervisor {
	struct engine *engine;
	enum vm_phase phase;
	unsigned int generation; /* tells late replies */
	int pid;                 /* -1: none */
	uint64_t started_ms;     /* uv_now() */
	bool qmp_ready;
	bool hello;            /* the guest has shown life */
	bool ready;            /* the guest has booted */
	bool stop_asked;       /* VM_EXITED is owed at the end */
	bool relaunch;         /* lifecycle_guards.relaunch */
	unsigned int patience; /* multiplies failsafe.boot_timeout_s */
	bool accel_known;      /* accel_first() was asked */
	struct accel accel;

	char qemu[PATH_MAX]; /* "": not found yet */
	struct image image;
	bool image_opened;
	int state_dirfd; /* of the state disk */
	char state_dir[PATH_MAX];
	char state_name[256];
	int disk_fd;        /* -1: not open */
	bool disk_bad;      /* to be replaced before the next start */
	bool disk_replaced; /* once in this run is enough */

	uv_timer_t deadline; /* of hello, then of booting */
	uv_timer_t ladder;   /* powerdown, quit, kill */
	struct stream qmp_stream;
	struct qmp *qmp;
	struct stream console_stream;
	struct lines console;
	char console_tail[VM_CONSOLE_LINES][160];
	unsigned int n_console;
	struct vm_output *output; /* of QEMU itself */
	char output_tail[240];
	char guest_error[240]; /* the guest's own last word */
};

int vm_supervisor_init(struct vm_supervisor *vm, struct engine *e);
void vm_supervisor_deinit(struct vm_supervisor *vm);

/**
 * vm_supervisor_prepare() - Every check of the VM that changes nothing
 *
 * QEMU, the image and its hashes, the accelerator, the torrc, the state
 * directory. Blocks for the reading of the image. Idempotent.
 */
int vm_supervisor_prepare(struct vm_supervisor *vm, struct error *e);

/* A VM of an earlier engine runs; guards see it, nothing is done yet. */
void vm_supervisor_found(struct vm_supervisor *vm, int pid);

/* The effects of the lifecycle. */
void vm_supervisor_launch(struct vm_supervisor *vm);
void vm_supervisor_adopt(struct vm_supervisor *vm);
void vm_supervisor_kill(struct vm_supervisor *vm);
void vm_supervisor_stop(struct vm_supervisor *vm);

/* What others saw. */
void vm_supervisor_exited(struct vm_supervisor *vm, int wait_status);
void vm_supervisor_guest_hello(struct vm_supervisor *vm);
void vm_supervisor_guest_ready(struct vm_supervisor *vm);
void vm_supervisor_guest_error(struct vm_supervisor *vm, const char *text);
void vm_supervisor_disk_unusable(struct vm_supervisor *vm, const char *reason);

static inline bool vm_supervisor_alive(const struct vm_supervisor *vm)
{
	return vm->phase == VM_PHASE_UP;
}
