/* The listening sockets of the VM's channels (vm/fds.h). */
#pragma once

#include "base/error.h"
#include "vm/fds.h"

#define LISTENERS_COUNT (VM_FD_TAP - VM_FD_QMP)

/**
 * listeners_make() - Make RUNTIME_DIR/vm/NAME for every channel, afresh
 * @dir_fd:	RUNTIME_DIR/vm; only root and the engine can enter it
 * @ret:	From VM_FD_QMP on, owned by the caller
 *
 * What an earlier VM left is replaced, so that nobody can still be queued at
 * it. Return: 0 or a negative errno with a sentence.
 */
int listeners_make(int dir_fd, int ret[LISTENERS_COUNT], struct error *e);

/* Removes the sockets' names. */
void listeners_remove(int dir_fd);
