/*
 * The VM's state disk: Tor's guards and cached consensus, kept across starts.
 * Made as a copy of the image's pristine state.img.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define STATE_DISK_NAME "state.img"
#define STATE_DISK_BAD_SUFFIX ".bad"

/**
 * state_disk_open() - Open the state disk, made from @pristine if missing
 * @dirfd:	Folder of the disk
 * @dir:	Its path, for messages
 * @name:	File name in it
 * @pristine:	fd of the image's state.img
 * @ret_fd:	Open read-write and locked against a second VM (OFD lock),
 *		close-on-exec; caller closes
 * @ret_made:	Whether it is new; NULL allowed
 *
 * A disk of a wrong size is kept as NAME.bad and replaced.
 *
 * Return: 0; -EBUSY: another process holds it; -ENOSPC, -EACCES, ... with a
 * sentence. Blocks for the copy (a few MiB of data).
 */
int state_disk_open(int dirfd, const char *dir, const char *name, int pristine,
		    int *ret_fd, bool *ret_made, struct error *e);

/**
 * state_disk_replace() - Put an unusable disk aside as NAME.bad, make a new one
 *
 * An older NAME.bad is overwritten. To be called while no VM has it open; then
 * state_disk_open(). Return: as state_disk_open().
 */
int state_disk_replace(int dirfd, const char *dir, const char *name,
		       int pristine, struct error *e);

/**
 * state_disk_is_current() - Whether an open disk still is the one of that name
 * @fd:	From state_disk_open(), maybe long ago
 *
 * What is written to one that was deleted or replaced meanwhile is lost.
 */
bool state_disk_is_current(int dirfd, const char *name, int fd);
