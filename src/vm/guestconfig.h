/* The text of fw_cfg's opt/torvm/config (docs/guest-protocol.md). */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "config/uplink.h"

/* Where the guest leads to the bridge service, on its side of the TAP. */
#define GUESTCONFIG_MOAT_PORT 9097

struct guestconfig {
	time_t time; /* the host's clock, UTC */
	bool state_disk;
	struct in_addr host_ip;
	struct in_addr vm_ip;
	uint8_t host_mac[6]; /* of the TAP */
	const struct uplink *uplink;
	const struct in6_addr *resolvers; /* for the names of @uplink */
	size_t n_resolvers;
	const char *transport; /* NULL: none */
	/* Of which: proxy.*; the first bridge, if @moat. */
	const struct config *config;
	bool moat; /* no Tor: that bridge is the way to the bridge service */
};

/* The text may hold a proxy's login. Return: 0 with text in *@ret (caller
 * frees), -ENOMEM. */
int guestconfig_render(const struct guestconfig *g, char **ret,
		       struct error *e);

/**
 * guestconfig_memfd() - Put a text where QEMU can read it by fd
 * @name:	For /proc/PID/fd
 *
 * Return: a sealed memfd (close-on-exec, caller closes), or negative errno
 */
int guestconfig_memfd(const char *name, const char *text, struct error *e);
