/*
 * What the controller and the guest agree on in numbers and names: the C side
 * of docs/guest-protocol.md. Macros only, no code; included by guest/init/ and,
 * as "init/contract.h", by the host's src/tor and src/vm.
 */
#pragma once

/* Of the agent protocol's `hello` and of `version=` in opt/torvm/config. */
#define GUEST_PROTOCOL_VERSION 1
#define GUEST_CONFIG_VERSION 1

/* fw_cfg files, as QEMU names them. */
#define GUEST_FW_CFG_CONFIG "opt/torvm/config"
#define GUEST_FW_CFG_TORRC "opt/torvm/torrc"

#define GUEST_FILE_MAX 65536 /* bytes of either file */
#define GUEST_LINE_MAX 1024  /* bytes of a line, its LF included */

/* Virtio-serial ports. */
#define GUEST_PORT_AGENT "torvm.agent"
#define GUEST_PORT_TORCTL "torvm.torctl"

/* The network devices' addresses; the guest knows its links by them. */
#define GUEST_MAC_ETH0 "52:54:00:12:34:01"
#define GUEST_MAC_ETH1 "52:54:00:12:34:02"
#define GUEST_ETH1_MTU 65520

/* QEMU's user-mode network. */
#define GUEST_ETH0_ADDRESS "10.0.2.15"
#define GUEST_ETH0_PREFIX 24
#define GUEST_ETH0_GATEWAY "10.0.2.2"
/* The same in IPv6, where it is asked for: libslirp's own network. */
#define GUEST_ETH0_PREFIX6 "fec0::"
#define GUEST_ETH0_ADDRESS6 "fec0::15"
#define GUEST_ETH0_GATEWAY6 "fec0::2"

/* Who runs as which user and group in the guest: Tor, the pluggable transport
 * that goes out in its stead, what looks up names for either, the TLS client
 * that goes out to a proxy for all of them, and what leads from eth1 into the
 * transport. */
#define GUEST_TOR_UID 100
#define GUEST_TRANSPORT_UID 101
#define GUEST_RESOLVER_UID 102
#define GUEST_TLS_UID 103
#define GUEST_MOAT_UID 104

/* Most `peer`, `name` and `resolver` lines of opt/torvm/config. */
#define GUEST_PEERS_MAX 96
#define GUEST_NAMES_MAX 32
#define GUEST_RESOLVERS_MAX 3
#define GUEST_NAME_ADDRESSES_MAX 8 /* of one name */
#define GUEST_HOST_NAME_MAX 253    /* RFC 1035, 2.3.4 */
#define GUEST_MOAT_ARGS_MAX 510    /* of a transport: as Tor has it */

/* /etc/hosts of the guest leads there: what was looked up. */
#define GUEST_HOSTS "/run/torvm/hosts"

#define GUEST_TRANS_PORT 9095
#define GUEST_DNS_PORT 9093
#define GUEST_SOCKS_PORT 9050
#define GUEST_MOAT_PORT 9097 /* with `moat`, instead of Tor's */

/* Where the TLS client for the proxy listens, on 127.0.0.1, and the file, in
 * PEM, of the authorities that it trusts instead of the public ones. */
#define GUEST_TLS_PORT 9094
#define GUEST_TLS_ADDRESS "127.0.0.1:9094"
#define GUEST_TLS_AUTHORITIES "/etc/torvm/proxy.pem"

/*
 * Lines that the torrc holds, each exactly once: TransPort, DNSPort,
 * SocksPort, ControlSocket, DataDirectory, Log. The guest's firewall, relay
 * and supervision rely on them, so it refuses a torrc without one of them or
 * with another value. Flags may follow the three ports' value. They are bound
 * to vm_ip: Tor calls 0.0.0.0 an open proxy to the Internet, at each start.
 */
#define GUEST_TORRC_TRANS_PORT ":9095" /* after vm_ip, as the next two */
#define GUEST_TORRC_DNS_PORT ":9093"
#define GUEST_TORRC_SOCKS_PORT ":9050"
#define GUEST_TORRC_CONTROL_SOCKET "/run/tor/control"
#define GUEST_TORRC_DATA_DISK "/var/lib/tor-state/tor" /* state_disk=1 */
#define GUEST_TORRC_DATA_RAM "/run/tor/data"           /* state_disk=0 */
#define GUEST_TORRC_LOG "notice stdout"
/* May be there, once: GeoIPFile. Then the initramfs has this file and, behind
 * it, the other, which shows that all was unpacked. Tor looks for that one
 * there by itself. */
#define GUEST_TORRC_GEOIP "/usr/share/tor/geoip"
#define GUEST_GEOIP_LAST GUEST_TORRC_GEOIP "6"

/*
 * Options that the guest refuses, in lower case: they would open another door
 * to Tor, take its log away, give it another user or start a program. So are
 * abbreviations of them, which Tor would understand, a name with a "+" or "/"
 * before it, a
 * "%include" and a line that ends in a backslash.
 */
#define GUEST_TORRC_REFUSED                                                 \
	"user", "controlport", "hashedcontrolpassword",                     \
		"cookieauthentication", "orport", "dirport", "extorport",   \
		"metricsport", "natdport", "httptunnelport", "runasdaemon", \
		"pidfile", "syslogidentitytag", "controlportwritetofile",   \
		"servertransportplugin", "clienttransportplugin",           \
		"hiddenservicedir", "controlsocketsgroupwritable",          \
		"cachedirectory", "keydirectory", "disableallswap",         \
		"keepbindcapabilities"

/*
 * Latest time the guest's clock is set to, in seconds since 1970 (2199). An
 * early one is taken as it is: a host with a dead clock has to be told so by
 * Tor, which needs to start for that.
 */
#define GUEST_TIME_MAX 7258118399LL
