/*
 * The VM's image: dist/vm/ as the image builder writes it. Files are opened
 * once, their hashes checked on those fds, and the same fds go to QEMU: what
 * was checked is what is booted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/buffer.h"
#include "vm/args.h"

enum image_file {
	IMAGE_FILE_KERNEL,     /* vmlinuz */
	IMAGE_FILE_INITRD,     /* initramfs.zst */
	IMAGE_FILE_STATE,      /* state.img, the pristine one */
	IMAGE_FILE_TRANSPORTS, /* transports.zst; opened where it is wanted */
	IMAGE_FILE_COUNT,
};

struct image {
	int fd[IMAGE_FILE_COUNT];        /* read-only, close-on-exec */
	uint64_t size[IMAGE_FILE_COUNT]; /* bytes */
	enum vm_arch arch;
	struct buffer authorities; /* one more archive; empty: none */
};

#define IMAGE_NULL(i) ((struct image){ .fd = { -1, -1, -1, -1 } })
void image_deinit(struct image *image);

/**
 * image_open() - Open the image and verify every file against its manifest
 * @dirfd:	The image folder; O_PATH will do
 * @dir:	Its path, for messages
 * @transports:	Whether the pluggable transports are wanted; else their file is
 *		not looked at
 * @ret:	Filled on success; image_deinit() frees it
 *
 * Reads all files once (tens of MB: blocks for a fraction of a second).
 *
 * Return: 0; -ENOENT: no image or a file is missing (the sentence says `make
 * vm`); -EBADMSG: malformed manifest or wrong hash (names file, expected,
 * found); -ENOEXEC: another architecture; else the failing call's errno
 */
int image_open(int dirfd, const char *dir, bool transports, struct image *ret,
	       struct error *e);

/**
 * image_initrd() - What QEMU gets as the initrd
 * @transports:	Whether with the pluggable transports; they were opened
 *
 * With the pluggable transports, which the kernel unpacks over the first
 * archive, and image.authorities over them, a sealed memory file of all, as
 * QEMU takes one file only.
 *
 * Return: a descriptor that the caller closes, or a negative errno
 */
int image_initrd(const struct image *image, bool transports, struct error *e);
