/*
 * One controller per network namespace, and one per runtime directory.
 */
#pragma once

#include "base/error.h"

#define LOCK_SOCKET_NAME "torvm-broker" /* abstract */
#define LOCK_FILE_NAME "lock"

struct lock {
	int socket_fd;
	int file_fd;
};

#define LOCK_NULL ((struct lock){ .socket_fd = -1, .file_fd = -1 })

/**
 * lock_take() - Become the only one in this network namespace
 *
 * Held until lock_release() or the end of the process. Never waits.
 * Return: 0; -EBUSY with a sentence that names the holder; another negative
 * errno with a sentence.
 */
int lock_take(struct lock *lock, struct error *e);

/* lock_take_directory() - And the only one that uses RUNTIME_DIR. As above. */
int lock_take_directory(struct lock *lock, int runtime_fd, struct error *e);

void lock_release(struct lock *lock);
