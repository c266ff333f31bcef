/*
 * The spawner: forked by the broker before its seccomp filter, which every
 * child of the broker would inherit. It starts the engine and QEMU and tells
 * when they end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "broker/message.h"
#include "daemon/fds.h"
#include "vm/fds.h"

enum spawner_type {
	SPAWNER_REQUEST_ENGINE = 1, /* fd: the engine's end of the channel */
	SPAWNER_REQUEST_VM,         /* fds: the argument vector, VM_FD_QMP to
				       VM_FD_TAP, then the engine's as in `present` */
	SPAWNER_STARTED,            /* the answer; on success with a pidfd */
	SPAWNER_EXITED,             /* unasked: a child has been reaped */
};

enum spawner_child { SPAWNER_CHILD_ENGINE, SPAWNER_CHILD_VM };

struct spawner_message {
	uint32_t type;
	uint32_t child;
	uint32_t resume;     /* ENGINE: it replaces one that died */
	uint32_t present;    /* VM: bit n: VM_FD_FROM_ENGINE + n */
	int32_t status;      /* STARTED: 0 or a negative errno */
	int32_t pid;         /* STARTED, EXITED */
	int32_t wait_status; /* EXITED: as of waitpid(2) */
	uint64_t started;    /* STARTED: start time, proc_pid_stat(5) */
	char text[BROKER_TEXT_MAX];
};

struct spawner_user {
	uid_t uid;
	gid_t gid;
	gid_t group; /* one supplementary group; 0: none */
};

/* What the spawner is born with; nothing of it can be changed later. */
struct spawner_setup {
	struct spawner_user engine, vm;
	int engine_binary;  /* O_PATH */
	char **engine_argv; /* NULL-terminated; --resume is added */
	int engine_fds[ENGINE_FD_COUNT]; /* from ENGINE_FD_CONTROL on */
};

/**
 * spawner_main() - Be the spawner
 * @fd:		Its end of the channel to the broker
 *
 * Returns, with the process's exit code, when the broker is gone; both
 * children are dead then.
 */
int spawner_main(const struct spawner_setup *setup, int fd);

/* --- the broker's side --- */

#define SPAWNER_PENDING_MAX 8

struct spawner {
	int fd; /* -1: none */
	struct spawner_message pending[SPAWNER_PENDING_MAX];
	unsigned int n_pending;
};

#define SPAWNER_NULL ((struct spawner){ .fd = -1 })

struct spawner_vm_fds {
	int argv;
	int made[VM_FD_FROM_ENGINE]; /* VM_FD_QMP to VM_FD_TAP */
	const int *from_engine;      /* as many as bits in present */
	uint32_t present;
};

/**
 * spawner_start_engine() - Start the engine
 * @engine_socket:	Its end of the channel; stays the caller's
 * @ret_pidfd:	Owned by the caller
 *
 * Blocks until it is executed, at most SPAWNER_TIMEOUT_MS.
 * Return: 0 or a negative errno with a sentence; -EPIPE: no spawner.
 */
int spawner_start_engine(struct spawner *s, bool resume, int engine_socket,
			 int *ret_pidfd, struct error *e);

/**
 * spawner_start_vm() - Start QEMU
 * @ret_pidfd:	Owned by the caller
 * @ret_started: Its start time, clock ticks since boot
 *
 * As spawner_start_engine().
 */
int spawner_start_vm(struct spawner *s, const struct spawner_vm_fds *fds,
		     pid_t *ret_pid, int *ret_pidfd, uint64_t *ret_started,
		     struct error *e);

/**
 * spawner_next_exit() - Take the next report of a child's end
 * @child:	enum spawner_child, or -1: any; others' reports are kept
 * @timeout_ms:	0: only what is already there
 *
 * Return: 1: @ret is filled in; 0: nothing within the time; -EPIPE: the
 * spawner is gone (and with it every child).
 */
int spawner_next_exit(struct spawner *s, int child, int timeout_ms,
		      struct spawner_message *ret);

#define SPAWNER_TIMEOUT_MS 15000

/* Start time of process @pid in clock ticks since boot (proc_pid_stat(5)), or
 * 0 if there is no such process. */
uint64_t process_start_time(pid_t pid);
