/*
 * The VM's image: dist/vm/ as the image builder writes it. Files are opened
 * once, their hashes checked on those fds, and the same fds go to QEMU: what
 * was checked is what is booted.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "config/config.h"
#include "proto/buffer.h"
#include "vm/args.h"

enum image_file {
	IMAGE_FILE_KERNEL, /* vmlinuz */
	IMAGE_FILE_INITRD, /* initramfs.zst */
	IMAGE_FILE_STATE,  /* state.img, the pristine one */
	/* Archives that are opened where they are wanted. */
	IMAGE_FILE_TRANSPORTS, /* transports.zst */
	IMAGE_FILE_GEOIP,      /* geoip.zst */
	IMAGE_FILE_COUNT,
};

/* Which of these: a set. */
#define IMAGE_WITH(file) (1u << (file))

struct image {
	int fd[IMAGE_FILE_COUNT];        /* read-only, close-on-exec */
	uint64_t size[IMAGE_FILE_COUNT]; /* bytes */
	enum vm_arch arch;
	struct buffer authorities; /* one more archive; empty: none */
};

#define IMAGE_NULL(i) ((struct image){ .fd = { -1, -1, -1, -1, -1 } })
void image_deinit(struct image *image);

/**
 * image_open() - Open the image and verify every file against its manifest
 * @dirfd:	The image folder; O_PATH will do
 * @dir:	Its path, for messages
 * @with:	IMAGE_WITH(IMAGE_FILE_TRANSPORTS), ..GEOIP; those that are not
 *		wanted are not looked at
 * @ret:	Filled on success; image_deinit() frees it
 *
 * Reads all files once (tens of MB: blocks for a fraction of a second).
 *
 * Return: 0; -ENOENT: no image or a file is missing (the sentence says `make
 * vm`); -EBADMSG: malformed manifest or wrong hash (names file, expected,
 * found); -ENOEXEC: another architecture; else the failing call's errno
 */
int image_open(int dirfd, const char *dir, unsigned int with, struct image *ret,
	       struct error *e);

/**
 * image_initrd() - What QEMU gets as the initrd
 * @with:	As for image_open(); they were opened
 *
 * With further archives, which the kernel unpacks over the first one, and with
 * image.authorities over the transports, a sealed memory file of all, as QEMU
 * takes one file only.
 *
 * Return: a descriptor that the caller closes, or a negative errno
 */
int image_initrd(const struct image *image, unsigned int with, struct error *e);

/**
 * image_check_countries() - Whether the image's list has a configuration's
 *			     countries
 * @dirfd, @dir: As for image_open()
 *
 * Tor takes a code that it does not know for a country without relays, and goes
 * on. Reads the manifest only. Return: 0; -EINVAL: one is not there (names the
 * key and the code); -ENOENT: no image, or one without the list; -EBADMSG:
 * malformed manifest
 */
int image_check_countries(int dirfd, const char *dir, const struct config *cfg,
			  struct error *e);
