/*
 * What the files of this folder share. Not for anybody outside of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "platform/platform.h"

/* Largest datagram the kernel builds for a dump, in bytes. */
#define NET_RECV_SIZE 32768

struct net_link {
	int index;
	int master; /* ifindex of the bridge or bond, 0: none */
	unsigned int flags;
	unsigned int mtu;    /* bytes */
	unsigned short type; /* ARPHRD_* */
	uint8_t mac[6];
	uint8_t mac_len;
	char name[IFNAMSIZ];
	char kind[16]; /* IFLA_INFO_KIND, "" for hardware */
	bool gateway;  /* a route with a next hop leaves by it, or once did */
};

struct net_links {
	struct net_link *v;
	size_t n;
};

/* Networks beyond these stay closed. */
#define LAN_MAX 32

struct lan_network {
	int family, ifindex;
	uint8_t len;         /* bits */
	uint8_t address[16]; /* of IPv4 the first four; rest 0 */
};

/* What net_plan.lan_access opens at the moment; empty without it. */
struct lan {
	struct lan_network v[LAN_MAX];
	size_t n;
};

enum net_tap_state {
	NET_TAP_NONE,
	NET_TAP_CREATED,
	NET_TAP_CONFIGURED,
};

struct net {
	struct mnl_socket *route;
	/* Owns the tables where the kernel knows owners: they are orphaned,
	 * never removed, when it is closed. */
	struct mnl_socket *nft;
	struct mnl_socket *watch_route;
	struct mnl_socket *watch_nft;
	int watch_fd; /* epoll over both */
	uint32_t seq;
	enum net_tap_state tap; /* what net_watch_read() expects */
	bool rules;
	bool firewall;
	unsigned int seen; /* by the watch, not yet looked into */
	/* Links that the installed egress chains cover, and the bridges that
	 * the installed ruleset takes for part of this machine. */
	struct net_links covered;
	struct lan lan; /* as the installed ruleset has it */
	char buf[NET_RECV_SIZE] __attribute__((aligned(8)));
};

/* --- netlink.c --- */

int netlink_open(int bus, struct mnl_socket **ret, struct error *e);

/* Starts a message in net->buf. */
struct nlmsghdr *netlink_message(struct net *net, uint16_t type, uint16_t flags,
				 const void *family, size_t family_len);

/* Sends @nlh with NLM_F_ACK and waits for the verdict. 0 or negative errno. */
int netlink_do(struct net *net, struct mnl_socket *nl, struct nlmsghdr *nlh);

/* As netlink_do(); what the kernel says before the verdict goes to @cb. */
int netlink_ask(struct net *net, struct mnl_socket *nl, struct nlmsghdr *nlh,
		mnl_cb_t cb, void *data);

/* Sends @nlh as a dump. @count is set to 0 before each attempt: a dump that
 * was interrupted by a change is taken again. */
int netlink_dump(struct net *net, struct mnl_socket *nl, struct nlmsghdr *nlh,
		 mnl_cb_t cb, void *data, size_t *count);

/* Grows an array for one more element of @size bytes; NULL: out of memory. */
void *array_grow(void *v, size_t n, size_t size);

/* --- link.c --- */

int links_read(struct net *net, struct net_links *ret, struct error *e);
void links_free(struct net_links *links);
const struct net_link *links_by_name(const struct net_links *links,
				     const char *name);
int link_read(struct net *net, const char *name, struct net_link *ret);

/* Whether the link is the TAP as net_tap_create() makes it. */
bool link_is_tap(const struct net_link *link);

/*
 * Where a link leads:
 *   LOCAL  loopback, or the TAP: the inet table alone decides
 *   INNER  a bridge none of whose ports leads out of this machine, and its
 *          ports: containers, guests. Traffic of the host itself into it stays
 *          on the machine
 *   OUTER  everything else: guarded by an egress chain
 */
enum link_reach { LINK_REACH_LOCAL, LINK_REACH_INNER, LINK_REACH_OUTER };
enum link_reach link_reach(const struct net_links *links,
			   const struct net_link *link, const char *tap_name);

/* --- lan.c --- */

int lan_read(struct net *net, const struct net_plan *plan,
	     const struct net_links *links, struct lan *ret);
/* Whether the network lies within one of @lan on that link. */
bool lan_covers(const struct lan *lan, int ifindex, int family,
		const uint8_t *address, uint8_t len);
bool lan_same(const struct lan *a, const struct lan *b);
bool lan_is_private(int family, const uint8_t *address, uint8_t len);
/* The netmask of @len bits. */
void lan_mask(uint8_t len, uint8_t ret[16]);

/* --- firewall.c --- */

/* Lets the kernel check every expression of the ruleset without committing
 * any: the batch ends in a message that must fail. */
int firewall_probe(struct net *net, const struct net_plan *plan,
		   struct error *e);

/* --- rules.c --- */

int rules_precheck(struct net *net, const struct net_plan *plan,
		   struct error *e);
/* Whether every rule of ours is there and none of others before them, and the
 * default route of T. */
bool rules_complete(struct net *net, const struct net_plan *plan);

/* --- route.c --- */

/* Brings our tables to what the TAP's state, the inner bridges and the LAN ask
 * for. */
int routes_sync(struct net *net, const struct net_plan *plan, struct error *e);
enum routes_state {
	ROUTES_COMPLETE,
	ROUTES_OTHER_INNER, /* only the inner bridges' or LAN's differ */
	ROUTES_NO_DEFAULT,
};
enum routes_state routes_check(struct net *net, const struct net_plan *plan);
int routes_remove(struct net *net, struct error *e);
int routes_precheck(struct net *net, const struct net_plan *plan,
		    struct error *e);

/* --- tap.c --- */

int tap_precheck(struct net *net, const struct net_plan *plan, struct error *e);
/* False when a configured TAP has lost it; or it cannot be found out. */
bool tap_has_address(struct net *net, const struct net_plan *plan);

/* --- watch.c --- */

int watch_open(struct net *net, struct error *e);
/* Reads what waits; what it means is kept for net_watch_read(). */
void watch_drain(struct net *net);
