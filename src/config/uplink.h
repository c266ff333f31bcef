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
	uint16_t port;
	bool known; /* @address is: it was given, or pinned for @host */
	struct in6_addr address;        /* of either family: base/ip.h */
	char host[UPLINK_HOST_MAX + 1]; /* "": it was given as an address */
	bool proxy; /* may be a private address also when looked up */
};

struct uplink {
	/* Tor's relays, snowflake's peers: anybody with a public address. */
	bool any_tcp, any_tcp6; /* IPv4, IPv6 */
	bool any_udp, any_udp6;
	bool ipv6; /* the VM needs IPv6: for these, or for a target */
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
 * Pure. Return: 0; -E2BIG: over UPLINK_TARGETS_MAX; -EADDRNOTAVAIL: an address
 * that another machine cannot have. @e has what is wrong with proxy.address or
 * bridge.bridges.
 */
int uplink_plan(const struct config *cfg, struct uplink *ret, struct error *e);

/* Whether a host name has to be looked up. */
bool uplink_needs_names(const struct uplink *uplink);
