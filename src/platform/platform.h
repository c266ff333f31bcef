/*
 * What the broker asks of an operating system's network: one header, a folder
 * of twins per system (linux/, later darwin/ and windows/).
 *
 * Every function is idempotent, touches nothing that is not TorVM's own, may
 * block for the length of a kernel call (sd-bus: NET_DNS_TIMEOUT_MS), and
 * returns 0 or a negative errno with a sentence in @e. The caller journals
 * before it calls.
 */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define NET_DNS_TIMEOUT_MS 3000

/* Our marks in the kernel, by which leftovers are recognised. */
#define NET_TABLE_NAME "torvm"  /* nftables: inet torvm, netdev torvm */
#define NET_ROUTE_TABLE 9095    /* the own routing table T */
#define NET_PROHIBIT_TABLE 9096 /* IPv4: nothing but "prohibit default" */
#define NET_LAN_TABLE 9097      /* the LAN's routes, with lan_access */
#define NET_ROUTE_PROTOCOL 116  /* rtm_protocol, FRA_PROTOCOL */
/* Where our policy rules stand unless another program's come before 140; then
 * they stand right before those, in the same order. */
#define NET_RULE_PREF_UPLINK 100 /* uid -> goto NET_RULE_PREF_NOP */
#define NET_RULE_PREF_DHCP 101
/* With lan_access: port 53 -> T, everyone -> NET_LAN_TABLE */
#define NET_RULE_PREF_DNS_UDP 103
#define NET_RULE_PREF_DNS_TCP 104
#define NET_RULE_PREF_LAN 105
#define NET_RULE_PREF_TORVM 110 /* everyone -> T */
/* everyone -> prohibit; in IPv4 by way of NET_PROHIBIT_TABLE */
#define NET_RULE_PREF_PROHIBIT 120
#define NET_RULE_PREF_NOP 140
#define NET_TAP_MTU 65520 /* bytes */

/* The TAP's own address (locally administered) and the guest's eth1, of
 * docs/guest-protocol.md: each end's permanent neighbour. */
#define NET_TAP_MAC "52:54:00:12:34:03"
#define NET_TAP_MAC_BYTES { 0x52, 0x54, 0x00, 0x12, 0x34, 0x03 }
#define NET_VM_MAC_BYTES { 0x52, 0x54, 0x00, 0x12, 0x34, 0x02 }

enum net_firewall {
	NET_FIREWALL_BLOCKED, /* no uplink, TAP refused */
	NET_FIREWALL_UPLINK,  /* the VM's uplink allowed, TAP refused */
	NET_FIREWALL_OPEN,    /* the uplink and the TAP allowed */
	/* As BLOCKED, marked as the block that no controller is behind and
	 * that the user has asked for (`torvm lockdown`). */
	NET_FIREWALL_LOCKDOWN,
};

/* Whom the VM's uplink may open a flow to, in UPLINK and OPEN. All zero:
 * nobody. */
#define NET_PEERS_MAX 104

struct net_peer {
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint16_t port;    /* host order */
	struct in6_addr
		address; /* of either family: base/ip.h; may be private */
};

struct net_uplink {
	bool any_tcp, any_tcp6; /* to any public address, IPv4 and IPv6 */
	bool any_udp, any_udp6; /* the same, but not to port 53 */
	uint32_t n_peers;
	struct net_peer peers[NET_PEERS_MAX];
};

struct net_plan {
	char tap_name[IFNAMSIZ];
	struct in_addr host_ip; /* on the TAP, /30 */
	struct in_addr vm_ip;
	uid_t vm_uid;  /* QEMU's user: the uplink's flows */
	uint32_t mark; /* random per start, never 0: ct and packet mark */
	/* Private addresses on directly connected links are reached, and
	 * answered, beside Tor; never name servers there. */
	bool lan_access;
	struct net_uplink uplink;
};

struct net; /* open netlink sockets and what is known of the kernel */

/* Opens what the functions below need. *ret is freed by net_close(). */
int net_open(struct net **ret, struct error *e);
void net_close(struct net *net);
void net_closep(struct net **net);

/* Nothing is changed. One sentence for the first thing that is missing. */
int net_precheck(struct net *net, const struct net_plan *plan, struct error *e);

/* Replaces both tables by those of @mode in one transaction: there is no
 * moment without a block between two modes. Established flows of the uplink
 * survive a change between UPLINK and OPEN (same plan->mark). */
int net_firewall_set(struct net *net, const struct net_plan *plan,
		     enum net_firewall mode, struct error *e);
int net_firewall_remove(struct net *net, struct error *e);
bool net_firewall_present(struct net *net);
/* Whether what is present is NET_FIREWALL_LOCKDOWN. */
bool net_firewall_is_lockdown(struct net *net);
/* Packets refused by the block so far; 0 when there is none. */
uint64_t net_firewall_refused(struct net *net);
/* Those of them that a socket of this host sent, by its user, most first.
 * Return: how many of @max were written to @ret. */
struct net_refused {
	uid_t uid;
	uint64_t packets;
};
size_t net_firewall_refused_by(struct net *net, struct net_refused *ret,
			       size_t max);

int net_rules_add(struct net *net, const struct net_plan *plan,
		  struct error *e);
int net_rules_remove(struct net *net, struct error *e);

/* Creates the persistent TAP, owner and group root, vnet_hdr, addrgenmode
 * none, down; *ret_fd is a queue of it (caller closes). */
int net_tap_create(struct net *net, const struct net_plan *plan, int *ret_fd,
		   struct error *e);
/* Another queue fd of the existing TAP, with stale packets drained. */
int net_tap_open(struct net *net, const struct net_plan *plan, int *ret_fd,
		 struct error *e);
/* Address, MTU, permanent neighbour, up, default route in T. */
int net_tap_configure(struct net *net, const struct net_plan *plan,
		      struct error *e);
int net_tap_delete(struct net *net, const struct net_plan *plan,
		   struct error *e);
/* The name of a TAP that was made by net_tap_create(), whatever it is called.
 * Return: whether there is one. */
bool net_tap_find(struct net *net, char ret[IFNAMSIZ]);

/* Ends the TCP connections of containers and guests through the TAP, for a VM
 * that has not ended them. The TAP is up, without a reader, and refused by the
 * firewall. Blocks for up to 300 ms if there are any. */
int net_forwarded_end(struct net *net, const struct net_plan *plan,
		      struct error *e);

/* Destroys every TCP and UDP socket bound to @addr (sock_diag). */
int net_sockets_destroy(struct net *net, struct in_addr addr, struct error *e);

/* Ends TCP connections of the uplink's user: those whose source address is not
 * the one a new connection would get (the uplink has changed), or @all of them.
 * *ret_closed: how many. */
int net_uplink_renew(struct net *net, const struct net_plan *plan, bool all,
		     unsigned int *ret_closed, struct error *e);

/* systemd-resolved's per-link settings; -EOPNOTSUPP: not there or not in our
 * network namespace (not an error: resolv.conf's servers go by T). */
int net_dns_set(struct net *net, const struct net_plan *plan, struct error *e);
int net_dns_restore(struct net *net, const struct net_plan *plan,
		    struct error *e);
/* 1: names go to the VM as net_dns_set() set it, 0: somebody else has changed
 * that; errors as net_dns_set(). */
int net_dns_check(struct net *net, const struct net_plan *plan,
		  struct error *e);

/* What systemd-resolved holds besides TorVM's own settings: for `torvm doctor`.
 * Nothing is changed; errors as net_dns_set(). */
struct net_dns_survey {
	char link[IFNAMSIZ]; /* another link with a domain of its own, or "" */
	char domain[256];    /* the first one; ".": everything */
	char dnssec[32], over_tls[32]; /* the global settings: "yes", ... */
	bool global_all; /* the global servers are asked for everything */
	bool tap_all;    /* the TAP's are */
};
int net_dns_survey(const char *tap_name, struct net_dns_survey *ret,
		   struct error *e);

/* Whether firewalld is in panic mode, in which it drops every packet. */
bool net_firewalld_panics(void);

/* Listens for a systemd-resolved that starts, and for changes of its settings.
 * None of these functions blocks. */
struct net_dns_watch;
/* *ret is freed by net_dns_watch_close(). A negative errno: there is no system
 * bus now. */
int net_dns_watch_open(struct net_dns_watch **ret, struct error *e);
void net_dns_watch_close(struct net_dns_watch *watch);
void net_dns_watch_closep(struct net_dns_watch **watch);
/* The fd and the poll(2) events that net_dns_watch_read() waits for; they are
 * others after each call of it. */
int net_dns_watch_fd(struct net_dns_watch *watch, short *ret_events);
/* 1: time for net_dns_check(); 0: nothing; negative errno: the bus is gone, and
 * the watch of no more use. */
int net_dns_watch_read(struct net_dns_watch *watch);

/* Sysctls that TorVM needs while it runs. For each one that has to change,
 * @save is called before the change with its path below /proc/sys, its value
 * and the new one; a non-zero return stops and is forwarded. */
typedef int (*net_sysctl_save_fn)(void *userdata, const char *name,
				  const char *old_value, const char *new_value);
int net_sysctls_apply(struct net *net, const struct net_plan *plan,
		      net_sysctl_save_fn save, void *userdata, struct error *e);
/* Sets @name back to @old_value if it still has @new_value. */
int net_sysctl_restore(struct net *net, const char *name, const char *old_value,
		       const char *new_value, struct error *e);

/* The links that lead out of this machine, as the block's egress chains cover
 * them. Return: how many of @max were written to @ret, or a negative errno;
 * -E2BIG: more than @max. */
struct net_outer_link {
	char name[IFNAMSIZ];
	int index;
	bool usable; /* up, with a carrier */
	bool ethernet;
};
int net_outer_links(struct net *net, struct net_outer_link *ret, size_t max,
		    struct error *e);

/* An fd that polls readable when links, rules or tables changed. */
int net_watch_fd(struct net *net);
/* Reads the watch: bits of what has to be repaired. */
enum {
	NET_CHANGED_TAP = 1 << 0,      /* the TAP is gone */
	NET_CHANGED_FIREWALL = 1 << 1, /* one of our tables was touched */
	NET_CHANGED_RULES = 1 << 2,    /* one of our rules, T's default, the
					* TAP's address */
	NET_CHANGED_LINKS = 1 << 3,    /* other links or bridges than the block
					* covers: net_firewall_set() again */
	NET_CHANGED_UPLINK = 1 << 4,   /* the way out may be another one:
					* net_uplink_renew() */
};
unsigned int net_watch_read(struct net *net, const struct net_plan *plan);
