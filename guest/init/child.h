/* Starting a program without privileges. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct child {
	const char *what;        /* for messages: "Tor" */
	const char *const *argv; /* argv[0] is the program's path */
	const char *const *environment;
	uid_t uid; /* user and group */
	/* Without what a program that only speaks TCP and UDP never needs:
	 * seccomp.c. Tor brings a filter of its own. */
	bool filtered;
	/* Instead of a program: runs in the child, which ends with what it
	 * returns. @output: where PID 1 reads. */
	int (*run)(void *userdata, int output);
	void *userdata;
};

/**
 * child_start() - Start a child of PID 1
 * @ret_output:	The read end of its output, non-blocking, the caller's
 *
 * Return: its process id, or a negative errno. That it cannot be executed is
 * seen as exit code 127, that its privileges cannot be taken away as 126.
 */
pid_t child_start(const struct child *child, int *ret_output, struct error *e);
