/* The controller's directories, and the programs and images it finds. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/**
 * dirs_open() - Open a directory, making it if it is not there
 * @path:	Its parent must exist
 * @uid:	Who must own it; an empty one of root's is handed over
 * @mode:	What it is made with
 * @ret_created: May be NULL
 *
 * Refused: a symbolic link, another owner, one that group or others may write
 * to (unless @mode says so), a read-only file system.
 * Return: an fd owned by the caller, or a negative errno with a sentence.
 */
int dirs_open(int at_fd, const char *path, uid_t uid, gid_t gid, mode_t mode,
	      bool *ret_created, struct error *e);

/**
 * dirs_absolute() - Make a path absolute, by the working directory
 *
 * Return: owned by the caller, NULL when out of memory or the working
 * directory is gone
 */
char *dirs_absolute(const char *path);

/**
 * dirs_find_program() - Look a program of ours up
 *
 * In this program's own folder, then in ../libexec/torvm from there.
 * Return: an absolute path owned by the caller, or NULL.
 */
char *dirs_find_program(const char *name);

/**
 * dirs_find_images() - The image folder when none is named
 *
 * ../dist/vm beside this program's folder, then /usr/lib/torvm/vm.
 * Return: an absolute path owned by the caller (the last one if neither
 * exists), or NULL when out of memory.
 */
char *dirs_find_images(void);
