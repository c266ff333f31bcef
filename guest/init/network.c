/*
 * Theory of operation
 *
 * Two virtio links, told apart by their hardware addresses. The kernel names
 * them in the order it finds them, so they are renamed while they are down, by
 * way of names that cannot collide. Nothing is learnt from the wire: addresses,
 * the route and the host's neighbour entry are fixed, IPv6 is off but for
 * eth0's address where the configuration asks for it.
 */
#include "init/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "init/contract.h"
#include "init/netlink.h"

#define DEVICE_WAIT_MS 3000
#define DEVICE_POLL_MS 10

#define ETH0 "eth0"
#define ETH1 "eth1"

struct link {
	const char *mac;  /* as in contract.h */
	const char *name; /* wanted */
	int index;        /* 0: not seen yet */
	char current[IF_NAMESIZE];
};

static int see_link(void *userdata, const struct nlmsghdr *header)
{
	struct link *links = userdata;
	const struct ifinfomsg *info = NLMSG_DATA(header);
	const uint8_t *m = netlink_attr(header, sizeof(*info), IFLA_ADDRESS, 6);
	const char *name = netlink_attr(header, sizeof(*info), IFLA_IFNAME, 2);
	char mac[18];

	if (header->nlmsg_type != RTM_NEWLINK || !m || !name)
		return 0;
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1],
		 m[2], m[3], m[4], m[5]);
	for (int i = 0; i < 2; i++) {
		if (strcmp(mac, links[i].mac) != 0)
			continue;
		links[i].index = info->ifi_index;
		snprintf(links[i].current, IF_NAMESIZE, "%s", name);
	}
	return 0;
}

static int find_links(struct netlink *nl, struct link links[2], struct error *e)
{
	const struct timespec pause = { .tv_nsec = DEVICE_POLL_MS * 1000000L };
	int r;

	/* virtio devices are probed after their module has loaded. */
	for (int ms = 0;; ms += DEVICE_POLL_MS) {
		struct ifinfomsg *info = netlink_begin(
			nl, RTM_GETLINK, NLM_F_DUMP, sizeof(*info));

		info->ifi_family = AF_UNSPEC;
		netlink_end(nl);
		r = netlink_dump(nl, see_link, links);
		if (r < 0)
			return error_set(e, r, "cannot list the links: %s",
					 strerror(-r));
		if (links[0].index && links[1].index)
			return 0;
		if (ms >= DEVICE_WAIT_MS)
			return error_set(e, -ENODEV,
					 "the VM has no network device %s",
					 links[links[0].index ? 1 : 0].mac);
		nanosleep(&pause, NULL);
	}
}

static int rename_link(struct netlink *nl, int index, const char *name)
{
	struct ifinfomsg *info;

	info = netlink_begin(nl, RTM_NEWLINK, NLM_F_ACK, sizeof(*info));
	info->ifi_index = index;
	netlink_put_string(nl, IFLA_IFNAME, name);
	netlink_end(nl);
	return netlink_commit(nl);
}

int network_name_links(struct error *e)
{
	_cleanup_(netlink_close) struct netlink nl = NETLINK_NULL(nl);
	struct link links[2] = {
		{ .mac = GUEST_MAC_ETH0, .name = ETH0 },
		{ .mac = GUEST_MAC_ETH1, .name = ETH1 },
	};
	int r = netlink_open(&nl, NETLINK_ROUTE);

	if (r < 0)
		return error_set(e, r, "cannot open rtnetlink: %s",
				 strerror(-r));
	r = find_links(&nl, links, e);
	if (r < 0)
		return r;
	if (!strcmp(links[0].current, ETH0) && !strcmp(links[1].current, ETH1))
		return 0;
	for (int pass = 0; pass < 2 && r == 0; pass++) {
		for (int i = 0; i < 2 && r == 0; i++) {
			char aside[IF_NAMESIZE];

			snprintf(aside, sizeof(aside), "aside%d", i);
			r = rename_link(&nl, links[i].index,
					pass ? links[i].name : aside);
		}
	}
	if (r < 0)
		return error_set(e, r, "cannot rename the links: %s",
				 strerror(-r));
	return 0;
}

static size_t address_size(int family)
{
	return family == AF_INET6 ? sizeof(struct in6_addr)
				  : sizeof(struct in_addr);
}

/* @address: as @family has it, likewise below */
static int add_address(struct netlink *nl, int index, int family,
		       const void *address, int prefix)
{
	struct ifaddrmsg *m;

	m = netlink_begin(nl, RTM_NEWADDR,
			  NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
	m->ifa_family = (uint8_t)family;
	m->ifa_prefixlen = (uint8_t)prefix;
	m->ifa_scope = RT_SCOPE_UNIVERSE;
	m->ifa_index = (uint32_t)index;
	netlink_put(nl, IFA_LOCAL, address, address_size(family));
	netlink_put(nl, IFA_ADDRESS, address, address_size(family));
	netlink_end(nl);
	return netlink_commit(nl);
}

static int set_up(struct netlink *nl, int index, uint32_t mtu)
{
	struct ifinfomsg *info;

	info = netlink_begin(nl, RTM_NEWLINK, NLM_F_ACK, sizeof(*info));
	info->ifi_index = index;
	info->ifi_flags = IFF_UP;
	info->ifi_change = IFF_UP;
	if (mtu)
		netlink_put_u32(nl, IFLA_MTU, mtu);
	netlink_end(nl);
	return netlink_commit(nl);
}

static int add_neighbour(struct netlink *nl, int index, int family,
			 const void *address, const uint8_t mac[6])
{
	struct ndmsg *m;

	m = netlink_begin(nl, RTM_NEWNEIGH,
			  NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
	m->ndm_family = (uint8_t)family;
	m->ndm_ifindex = index;
	m->ndm_state = NUD_PERMANENT;
	netlink_put(nl, NDA_DST, address, address_size(family));
	netlink_put(nl, NDA_LLADDR, mac, 6);
	netlink_end(nl);
	return netlink_commit(nl);
}

static int add_default_route(struct netlink *nl, int index, int family,
			     const void *gateway)
{
	struct rtmsg *m;

	m = netlink_begin(nl, RTM_NEWROUTE,
			  NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
	m->rtm_family = (uint8_t)family;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = RT_SCOPE_UNIVERSE;
	m->rtm_type = RTN_UNICAST;
	netlink_put(nl, RTA_GATEWAY, gateway, address_size(family));
	netlink_put_u32(nl, RTA_OIF, (uint32_t)index);
	netlink_end(nl);
	return netlink_commit(nl);
}

/* libslirp needs no neighbour entry: it takes what is sent to any address, and
 * asks for ours. */
static int add_ipv6(struct netlink *nl, int index)
{
	static const uint8_t any_mac[6] = { 0x52, 0x56, 0, 0, 0, 2 };
	struct in6_addr address, gateway;
	int r;

	inet_pton(AF_INET6, GUEST_ETH0_ADDRESS6, &address);
	inet_pton(AF_INET6, GUEST_ETH0_GATEWAY6, &gateway);
	r = add_address(nl, index, AF_INET6, &address, 64);
	if (r == 0)
		r = add_neighbour(nl, index, AF_INET6, &gateway, any_mac);
	return r < 0 ? r : add_default_route(nl, index, AF_INET6, &gateway);
}

int network_up(const struct guest_config *config, struct error *e)
{
	_cleanup_(netlink_close) struct netlink nl = NETLINK_NULL(nl);
	struct in_addr uplink = { .s_addr = inet_addr(GUEST_ETH0_ADDRESS) };
	struct in_addr gateway = { .s_addr = inet_addr(GUEST_ETH0_GATEWAY) };
	int lo = (int)if_nametoindex("lo");
	int eth0 = (int)if_nametoindex(ETH0);
	int eth1 = (int)if_nametoindex(ETH1);
	int r = netlink_open(&nl, NETLINK_ROUTE);

	if (r < 0)
		return error_set(e, r, "cannot open rtnetlink: %s",
				 strerror(-r));
	if ((r = set_up(&nl, lo, 0)) < 0)
		return error_set(e, r, "lo does not come up: %s", strerror(-r));
	if ((r = add_address(&nl, eth0, AF_INET, &uplink, GUEST_ETH0_PREFIX)) <
		    0 ||
	    (r = set_up(&nl, eth0, 0)) < 0 ||
	    (r = add_default_route(&nl, eth0, AF_INET, &gateway)) < 0 ||
	    (config->ipv6 && (r = add_ipv6(&nl, eth0)) < 0))
		return error_set(e, r, "the uplink eth0 does not come up: %s",
				 strerror(-r));
	if ((r = add_address(&nl, eth1, AF_INET, &config->vm_ip, 30)) < 0 ||
	    (r = set_up(&nl, eth1, GUEST_ETH1_MTU)) < 0 ||
	    (r = add_neighbour(&nl, eth1, AF_INET, &config->host_ip,
			       config->host_mac)) < 0)
		return error_set(e, r, "the TAP's eth1 does not come up: %s",
				 strerror(-r));
	return 0;
}
