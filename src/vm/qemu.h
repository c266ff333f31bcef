/* Which QEMU to run. */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "vm/args.h"

/**
 * qemu_find() - Find and check the QEMU binary
 * @configured:	vm.qemu_path; "": /usr/bin/qemu-system-ARCH
 * @ret:	Absolute path of the file itself
 *
 * Refused: relative, not a regular file, not executable, not owned by root,
 * or it or one of its folders writable by others. A symlink is refused if
 * configured and followed if it is the distribution's.
 *
 * Return: 0; -ENOENT with the command that installs it; -EPERM, -EINVAL
 */
int qemu_find(const char *configured, enum vm_arch arch, char *ret, size_t size,
	      struct error *e);
