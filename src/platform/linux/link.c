/* The links of this network namespace, and where each of them leads. */
#include "platform/linux/linux.h"

#include <errno.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>

static void copy_text(char *dst, size_t size, const struct nlattr *attr)
{
	size_t len = mnl_attr_get_payload_len(attr);

	if (len >= size)
		len = size - 1;
	memcpy(dst, mnl_attr_get_payload(attr), len);
	dst[len] = '\0';
}

static void parse_link(const struct nlmsghdr *nlh, struct net_link *link)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr, *nested;

	*link = (struct net_link){
		.index = info->ifi_index,
		.flags = info->ifi_flags,
		.type = info->ifi_type,
	};
	mnl_attr_for_each(attr, nlh, sizeof(*info))
	{
		switch (mnl_attr_get_type(attr)) {
		case IFLA_IFNAME:
			copy_text(link->name, sizeof(link->name), attr);
			break;
		case IFLA_MASTER:
			link->master = (int)mnl_attr_get_u32(attr);
			break;
		case IFLA_MTU: link->mtu = mnl_attr_get_u32(attr); break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(attr) != sizeof(link->mac))
				break;
			memcpy(link->mac, mnl_attr_get_payload(attr),
			       sizeof(link->mac));
			link->mac_len = sizeof(link->mac);
			break;
		case IFLA_LINKINFO:
			mnl_attr_for_each_nested(nested, attr)
			{
				if (mnl_attr_get_type(nested) == IFLA_INFO_KIND)
					copy_text(link->kind,
						  sizeof(link->kind), nested);
			}
			break;
		}
	}
}

static int on_link(const struct nlmsghdr *nlh, void *data)
{
	struct net_links *links = data;
	struct net_link *grown;

	if (nlh->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	grown = array_grow(links->v, links->n, sizeof(*links->v));
	if (!grown) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	links->v = grown;
	parse_link(nlh, &links->v[links->n++]);
	return MNL_CB_OK;
}

/* A next hop behind a link means that the link leads out of the machine. */
static int on_route(const struct nlmsghdr *nlh, void *data)
{
	struct net_links *links = data;
	const struct nlattr *attr;
	bool gateway = false;
	int oif = 0;

	mnl_attr_for_each(attr, nlh, sizeof(struct rtmsg))
	{
		switch (mnl_attr_get_type(attr)) {
		case RTA_GATEWAY:
		case RTA_VIA: gateway = true; break;
		case RTA_OIF: oif = (int)mnl_attr_get_u32(attr); break;
		/* Several next hops: all of them may lead out. */
		case RTA_MULTIPATH: {
			const struct rtnexthop *hop =
				mnl_attr_get_payload(attr);
			int len = mnl_attr_get_payload_len(attr);

			for (; RTNH_OK(hop, len);
			     len -= NLMSG_ALIGN(hop->rtnh_len),
			     hop = RTNH_NEXT(hop))
				for (size_t i = 0; i < links->n; i++)
					if (links->v[i].index ==
					    hop->rtnh_ifindex)
						links->v[i].gateway = true;
			break;
		}
		}
	}
	if (gateway)
		for (size_t i = 0; i < links->n; i++)
			if (links->v[i].index == oif)
				links->v[i].gateway = true;
	return MNL_CB_OK;
}

/* veth and tap: links that lead into this machine, if nothing tells that they
 * lead out. */
static bool may_be_inner(const struct net_link *link)
{
	return strcmp(link->kind, "veth") == 0 ||
	       strcmp(link->kind, "tun") == 0;
}

/* Who puts a link into a bridge takes its addresses away, and its routes go
 * with them; it leads out all the same. */
static void remember_gateways(const struct net *net, struct net_links *links)
{
	for (size_t i = 0; i < links->n; i++)
		for (size_t k = 0; k < net->covered.n; k++)
			if (net->covered.v[k].index == links->v[i].index &&
			    net->covered.v[k].gateway &&
			    may_be_inner(&links->v[i]))
				links->v[i].gateway = true;
}

int links_read(struct net *net, struct net_links *ret, struct error *e)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
	struct nlmsghdr *nlh;
	int r;

	*ret = (struct net_links){ 0 };
	nlh = netlink_message(net, RTM_GETLINK, 0, &info, sizeof(info));
	r = netlink_dump(net, net->route, nlh, on_link, ret, &ret->n);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(families); i++) {
		struct rtmsg rtm = { .rtm_family = (uint8_t)families[i] };

		nlh = netlink_message(net, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
		r = netlink_dump(net, net->route, nlh, on_route, ret, NULL);
		/* A kernel without IPv6 has no IPv6 routes. */
		if (r == -EAFNOSUPPORT || r == -EOPNOTSUPP)
			r = 0;
	}
	if (r < 0) {
		links_free(ret);
		return error_set(e, r, "cannot list the network links: %s",
				 strerror(-r));
	}
	remember_gateways(net, ret);
	return 0;
}

void links_free(struct net_links *links)
{
	free(links->v);
	*links = (struct net_links){ 0 };
}

const struct net_link *links_by_name(const struct net_links *links,
				     const char *name)
{
	for (size_t i = 0; i < links->n; i++)
		if (strcmp(links->v[i].name, name) == 0)
			return &links->v[i];
	return NULL;
}

static int on_one_link(const struct nlmsghdr *nlh, void *data)
{
	parse_link(nlh, data);
	/* The acknowledgement follows. */
	return MNL_CB_OK;
}

int link_read(struct net *net, const char *name, struct net_link *ret)
{
	struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
	struct nlmsghdr *nlh;
	ssize_t n;
	int r;

	*ret = (struct net_link){ 0 };
	nlh = netlink_message(net, RTM_GETLINK, NLM_F_ACK, &info, sizeof(info));
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	nlh->nlmsg_seq = ++net->seq;
	if (mnl_socket_sendto(net->route, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	do {
		n = mnl_socket_recvfrom(net->route, net->buf, sizeof(net->buf));
		if (n < 0)
			return -errno;
		r = mnl_cb_run(net->buf, (size_t)n, net->seq,
			       mnl_socket_get_portid(net->route), on_one_link,
			       ret);
		if (r < 0)
			return -errno;
	} while (r > MNL_CB_STOP);
	return ret->index ? 0 : -ENODEV;
}

bool link_is_tap(const struct net_link *link)
{
	static const uint8_t mac[6] = NET_TAP_MAC_BYTES;

	return strcmp(link->kind, "tun") == 0 && link->type == ARPHRD_ETHER &&
	       link->mac_len == sizeof(mac) &&
	       memcmp(link->mac, mac, sizeof(mac)) == 0;
}

bool net_tap_find(struct net *net, char ret[IFNAMSIZ])
{
	struct net_links links;
	bool found = false;

	if (links_read(net, &links, NULL) < 0)
		return false;
	for (size_t i = 0; i < links.n && !found; i++) {
		found = link_is_tap(&links.v[i]);
		if (found)
			str_copy(ret, IFNAMSIZ, links.v[i].name);
	}
	links_free(&links);
	return found;
}

/* veth and tun ports end in a container or a guest, unless there is a next hop
 * behind them; anything else (hardware, a VLAN, a bond, a tunnel) may lead out.
 */
static bool bridge_is_inner(const struct net_links *links,
			    const struct net_link *bridge)
{
	if (strcmp(bridge->kind, "bridge") != 0 || bridge->gateway ||
	    bridge->master)
		return false;
	for (size_t i = 0; i < links->n; i++) {
		const struct net_link *port = &links->v[i];

		if (port->master == bridge->index &&
		    (port->gateway || !may_be_inner(port)))
			return false;
	}
	return true;
}

enum link_reach link_reach(const struct net_links *links,
			   const struct net_link *link, const char *tap_name)
{
	if (link->type == ARPHRD_LOOPBACK ||
	    (strcmp(link->name, tap_name) == 0 && link_is_tap(link)))
		return LINK_REACH_LOCAL;
	if (bridge_is_inner(links, link))
		return LINK_REACH_INNER;
	for (size_t i = 0; link->master && i < links->n; i++)
		if (links->v[i].index == link->master &&
		    bridge_is_inner(links, &links->v[i]))
			return LINK_REACH_INNER;
	return LINK_REACH_OUTER;
}

int net_outer_links(struct net *net, struct net_outer_link *ret, size_t max,
		    struct error *e)
{
	struct net_links links;
	size_t n = 0;
	int r;

	r = links_read(net, &links, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < links.n && r == 0; i++) {
		const struct net_link *link = &links.v[i];

		/* Whatever its name, the TAP is known by its address. */
		if (link_reach(&links, link, link->name) != LINK_REACH_OUTER)
			continue;
		if (n == max) {
			r = error_set(e, -E2BIG, "more than %zu network links",
				      max);
			break;
		}
		ret[n] = (struct net_outer_link){
			.index = link->index,
			.usable = (link->flags & IFF_UP) &&
				  (link->flags & IFF_LOWER_UP),
			.ethernet = link->type == ARPHRD_ETHER,
		};
		memcpy(ret[n++].name, link->name, sizeof(link->name));
	}
	links_free(&links);
	return r < 0 ? r : (int)n;
}
