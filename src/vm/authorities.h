/* Certificate authorities that the configuration names. */
#pragma once

#include "base/error.h"
#include "proto/buffer.h"

enum authorities_key {
	AUTHORITIES_BRIDGE, /* bridge.ca_file: besides the image's */
	AUTHORITIES_PROXY,  /* proxy.ca_file: instead of them */
};

/**
 * authorities_archive() - A PEM file as an archive that the VM's kernel unpacks
 * @path:	Regular file of at most 256 KiB, only certificates in it
 * @ret:	The archive is appended; a multiple of 4 bytes
 *
 * Return: 0; -EINVAL: it holds no certificate, or something else, such as a
 * private key; -ENOMEM; else why it cannot be read
 */
int authorities_archive(enum authorities_key key, const char *path,
			struct buffer *ret, struct error *e);
