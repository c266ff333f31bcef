/* The engine gives up what it will not need. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct confine_dir {
	int fd;           /* of a directory; -1: @path is opened */
	const char *path; /* with @file: of a file in it; "": none */
	bool file;
	bool writable; /* files in it may be made, changed and removed */
};

/**
 * confine_enter() - Bound the files that can be reached and the system calls
 * @dirs:	@n directories that are needed by name from here on; those that
 *		are not there are passed over
 *
 * For this thread and those it starts later: before any other. There is no way
 * back. Return: 0 or a negative errno with a sentence. A kernel without
 * Landlock is not an error: it is logged.
 */
int confine_enter(const struct confine_dir *dirs, size_t n, struct error *e);
