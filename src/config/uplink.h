/* Whom the VM's uplink has to reach for a configuration: what the firewalls of
 * host and guest let it reach and nothing else. */
#pragma once

#include <netinet/in.h>

#include "config/config.h"

/* As many as a message to the broker and the guest's configuration carry. */
#define UPLINK_TARGETS_MAX 96
#define UPLINK_HOST_MAX 253 /* RFC 1035, 2.3.4 */

struct uplink_target {
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint16_t port;    /* 0, UDP: any but 53 */
	bool known;       /* @address is: it was given, or pinned for @host */
	struct in_addr address;
	char host[UPLINK_HOST_MAX + 1]; /* "": it was given as an address */
	bool proxy; /* may be a private address also when looked up */
};

struct uplink {
	/* Tor's relays, snowflake's peers: anybody with a public address. */
	bool any_tcp;
	bool any_udp;
	struct uplink_target targets[UPLINK_TARGETS_MAX];
	size_t n;
};

/**
 * uplink_plan() - Whom the uplink has to reach
 * @cfg:	Found good, or about to be: every value for itself is
 *
 * With a proxy: the proxy. With bridges: their addresses, or where their
 * transport says it connects to. Otherwise any TCP. A host name comes without
 * an address unless bridge.addresses pins one.
 *
 * Pure. Return: 0; -EAFNOSUPPORT: nothing but IPv6 addresses; -E2BIG: over
 * UPLINK_TARGETS_MAX. @e has what is wrong with proxy.address or
 * bridge.bridges.
 */
int uplink_plan(const struct config *cfg, struct uplink *ret, struct error *e);

/* Whether a host name has to be looked up. */
bool uplink_needs_names(const struct uplink *uplink);
