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
#include "init/contract.h"

/* Whom the uplink may reach beside or instead of anybody. */
struct guest_peer {
	uint8_t protocol;        /* IPPROTO_TCP or IPPROTO_UDP */
	struct in6_addr address; /* of either family: base/ip.h */
	uint16_t port;
};

/* The same, by a name that is looked up in the guest. */
struct guest_name {
	uint8_t protocol;
	uint16_t port;
	char host[GUEST_HOST_NAME_MAX + 1];
};

/* What needs no looking up. */
struct guest_host {
	char name[GUEST_HOST_NAME_MAX + 1];
	struct in6_addr address;
};

struct guest_proxy {
	char scheme[8]; /* "http", "socks5"; "": none */
	char host[GUEST_HOST_NAME_MAX + 1];
	uint16_t port;
	char login[800]; /* as in a URI, percent-encoded; "": none. A secret */
};

/* To be spoken to by TLS: by whoever would go out by eth0 without it. */
struct guest_tls_proxy {
	char host[GUEST_HOST_NAME_MAX + 1];
	uint16_t port;        /* 0: none */
	bool own_authorities; /* GUEST_TLS_AUTHORITIES, else public ones */
};

struct guest_config {
	int64_t time_s; /* host's clock at QEMU's start, UTC; -1: not given */
	bool state_disk;
	struct in_addr host_ip;
	struct in_addr vm_ip;
	uint8_t host_mac[6];

	/* The uplink: what may begin a flow to any address, and to whom else.
	 */
	bool any_tcp, any_udp;   /* of IPv4 */
	bool any_tcp6, any_udp6; /* of IPv6 */
	bool ipv6;               /* eth0 has it */
	struct guest_peer peers[GUEST_PEERS_MAX];
	size_t n_peers;
	struct guest_name names[GUEST_NAMES_MAX];
	size_t n_names;
	struct guest_host hosts[GUEST_PEERS_MAX];
	size_t n_hosts;
	struct in6_addr resolvers[GUEST_RESOLVERS_MAX];
	size_t n_resolvers;

	char transport[16];       /* "obfs4", ...; "": none */
	struct guest_proxy proxy; /* of the transport; Tor's is in the torrc */
	struct guest_tls_proxy tls_proxy;
	/* Instead of Tor: arguments with which the transport leads to the
	 * bridge service, "NAME=VALUE;NAME=VALUE"; "": Tor. */
	char moat[GUEST_MOAT_ARGS_MAX + 1];
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
