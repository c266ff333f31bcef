/*
 * opt/torvm/config: what the controller tells the guest before it boots.
 * docs/guest-protocol.md lists the keys.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct guest_config {
	int64_t time_s; /* host's clock at QEMU's start, UTC; -1: not given */
	bool state_disk;
	struct in_addr host_ip;
	struct in_addr vm_ip;
	uint8_t host_mac[6];
};

/**
 * guest_config_parse() - Parse and validate the configuration
 * @text:	@len bytes, need not be terminated
 * @ret:	Untouched on failure
 *
 * Pure: no I/O. Return: 0, or -EINVAL with a sentence that names the key, never
 * its value.
 */
int guest_config_parse(const char *text, size_t len, struct guest_config *ret,
		       struct error *e);
