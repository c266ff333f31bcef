/*
 * What "the LAN" is when the user has allowed it.
 *
 * Theory of operation: the networks of this computer's own addresses on links
 * of the Ethernet kind that lead out, if they are private as a whole. Nothing
 * else counts: not a route, which a DHCP server may push as it likes (option
 * 121), not a public network, which an access point may dress as its LAN
 * (TunnelCrack LocalNet, CVE-2023-36672), not a tunnel. Compared each time
 * addresses, links or routes change.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <string.h>

struct lan_reader {
	const struct net_links *links;
	const struct net_plan *plan;
	struct lan *lan;
};

/* RFC 1918, 3927, 4193, 4291 */
static const struct {
	int family;
	uint8_t len; /* bits */
	uint8_t address[2];
} private_networks[] = {
	{ AF_INET, 8, { 10 } },        { AF_INET, 12, { 172, 16 } },
	{ AF_INET, 16, { 192, 168 } }, { AF_INET, 16, { 169, 254 } },
	{ AF_INET6, 7, { 0xfc } },     { AF_INET6, 10, { 0xfe, 0x80 } },
};

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned int bits)
{
	const unsigned int rest = bits % 8;

	return memcmp(a, b, bits / 8) == 0 &&
	       (!rest || (a[bits / 8] ^ b[bits / 8]) >> (8 - rest) == 0);
}

bool lan_is_private(int family, const uint8_t *address, uint8_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(private_networks); i++)
		if (private_networks[i].family == family &&
		    len >= private_networks[i].len &&
		    same_bits(private_networks[i].address, address,
			      private_networks[i].len))
			return true;
	return false;
}

bool lan_covers(const struct lan *lan, int ifindex, int family,
		const uint8_t *address, uint8_t len)
{
	for (size_t i = 0; i < lan->n; i++) {
		const struct lan_network *v = &lan->v[i];

		if (v->ifindex == ifindex && v->family == family &&
		    v->len <= len && same_bits(v->address, address, v->len))
			return true;
	}
	return false;
}

bool lan_same(const struct lan *a, const struct lan *b)
{
	for (size_t i = 0; i < a->n; i++)
		if (!lan_covers(b, a->v[i].ifindex, a->v[i].family,
				a->v[i].address, a->v[i].len))
			return false;
	for (size_t i = 0; i < b->n; i++)
		if (!lan_covers(a, b->v[i].ifindex, b->v[i].family,
				b->v[i].address, b->v[i].len))
			return false;
	return true;
}

void lan_mask(uint8_t len, uint8_t ret[16])
{
	for (unsigned int i = 0; i < 16; i++)
		ret[i] = len >= 8 * (i + 1) ? 0xff
			 : len > 8 * i      ? (uint8_t)(0xff00 >> (len - 8 * i))
					    : 0;
}

/* A port of a bridge has its addresses on the bridge; a tunnel is no LAN. */
static bool is_lan_link(const struct lan_reader *r, unsigned int ifindex)
{
	for (size_t i = 0; i < r->links->n; i++) {
		const struct net_link *link = &r->links->v[i];

		if ((unsigned int)link->index == ifindex)
			return link->type == ARPHRD_ETHER &&
			       !(link->flags & (IFF_POINTOPOINT | IFF_NOARP)) &&
			       strcmp(link->kind, "tun") != 0 &&
			       link_reach(r->links, link, r->plan->tap_name) ==
				       LINK_REACH_OUTER;
	}
	return false;
}

static int on_address(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	struct lan_reader *r = data;
	struct lan_network network = {
		.family = ifa->ifa_family,
		.ifindex = (int)ifa->ifa_index,
		.len = ifa->ifa_prefixlen,
	};
	const size_t size = ifa->ifa_family == AF_INET ? 4 : 16;
	const struct nlattr *attr, *local = NULL, *address = NULL;
	uint8_t mask[16];

	if ((ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6) ||
	    !is_lan_link(r, ifa->ifa_index) || r->lan->n == LAN_MAX)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*ifa))
	{
		switch (mnl_attr_get_type(attr)) {
		case IFA_LOCAL: local = attr; break;
		case IFA_ADDRESS: address = attr; break;
		}
	}
	/* IFA_ADDRESS is the other end's where there is one. */
	if (local)
		address = local;
	if (!address || mnl_attr_get_payload_len(address) != size ||
	    network.len > 8 * size)
		return MNL_CB_OK;
	memcpy(network.address, mnl_attr_get_payload(address), size);
	lan_mask(network.len, mask);
	for (size_t i = 0; i < size; i++)
		network.address[i] &= mask[i];
	/* An address without a network says nothing about its neighbours. */
	if (network.len < 8 * size &&
	    lan_is_private(network.family, network.address, network.len) &&
	    !lan_covers(r->lan, network.ifindex, network.family,
			network.address, network.len))
		r->lan->v[r->lan->n++] = network;
	return MNL_CB_OK;
}

int lan_read(struct net *net, const struct net_plan *plan,
	     const struct net_links *links, struct lan *ret)
{
	struct ifaddrmsg ifa = { .ifa_family = AF_UNSPEC };
	struct lan_reader reader = { .links = links, .plan = plan, .lan = ret };
	struct nlmsghdr *nlh;

	*ret = (struct lan){ 0 };
	if (!plan->lan_access)
		return 0;
	nlh = netlink_message(net, RTM_GETADDR, 0, &ifa, sizeof(ifa));
	return netlink_dump(net, net->route, nlh, on_address, &reader, &ret->n);
}
