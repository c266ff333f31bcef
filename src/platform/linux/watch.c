/*
 * Theory of operation
 *
 * Two netlink sockets subscribe to what could take the block away; an epoll
 * descriptor joins them. A notification only says that it is time to look: what
 * counts is the kernel's state, compared with what this process has set up. So
 * our own changes, a lost notification (ENOBUFS) and another program's change
 * that was undone again need no bookkeeping. Only the content of the nftables
 * tables is not compared but inferred: a change of them that another socket
 * made.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* Bytes. One replacement of the tables makes about a hundred notifications. */
#define WATCH_RCVBUF (4 << 20)

/* Bits of net->seen. */
enum {
	SEEN_LINK = 1 << 0,
	SEEN_RULE = 1 << 1,
	SEEN_TABLE = 1 << 2,
	SEEN_ROUTE = 1 << 3,
	SEEN_ADDRESS = 1 << 4,
};

static int subscribe(struct net *net, struct mnl_socket *nl, const int *groups,
		     size_t n, struct error *e)
{
	struct epoll_event event = { .events = EPOLLIN };
	const int rcvbuf = WATCH_RCVBUF;

	/* Best effort: a lost notification only costs a look too many. */
	setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf,
		   sizeof(rcvbuf));
	for (size_t i = 0; i < n; i++)
		if (mnl_socket_setsockopt(nl, NETLINK_ADD_MEMBERSHIP,
					  (void *)&groups[i],
					  sizeof(groups[i])) < 0 &&
		    /* Not privileged: net_precheck() says so better. */
		    errno != EPERM)
			return error_set(e, -errno,
					 "cannot watch the network: %s",
					 strerror(errno));
	event.data.ptr = nl;
	if (epoll_ctl(net->watch_fd, EPOLL_CTL_ADD, mnl_socket_get_fd(nl),
		      &event) < 0)
		return error_set(e, -errno, "cannot watch the network: %s",
				 strerror(errno));
	return 0;
}

int watch_open(struct net *net, struct error *e)
{
	static const int route_groups[] = {
		RTNLGRP_LINK,       RTNLGRP_IPV4_RULE,  RTNLGRP_IPV6_RULE,
		RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_IFADDR,
		RTNLGRP_IPV6_IFADDR
	};
	static const int nft_groups[] = { NFNLGRP_NFTABLES };
	int r;

	net->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	if (net->watch_fd < 0)
		return error_set(e, -errno, "cannot create an epoll: %s",
				 strerror(errno));
	r = netlink_open(NETLINK_ROUTE, &net->watch_route, e);
	if (r == 0)
		r = netlink_open(NETLINK_NETFILTER, &net->watch_nft, e);
	if (r == 0)
		r = subscribe(net, net->watch_route, route_groups,
			      ARRAY_SIZE(route_groups), e);
	if (r == 0)
		r = subscribe(net, net->watch_nft, nft_groups,
			      ARRAY_SIZE(nft_groups), e);
	return r;
}

int net_watch_fd(struct net *net)
{
	return net->watch_fd;
}

/* Whether a route may be the uplink's: no address of a link, and none of ours.
 * A point-to-point link's default has no gateway. IPv6 knows no scopes. */
static bool leads_out(const struct nlmsghdr *nlh)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	bool gateway = false;

	mnl_attr_for_each(attr, nlh, sizeof(*rtm))
	{
		switch (mnl_attr_get_type(attr)) {
		case RTA_GATEWAY:
		case RTA_VIA:
		case RTA_MULTIPATH: gateway = true; break;
		}
	}
	return rtm->rtm_protocol != NET_ROUTE_PROTOCOL &&
	       rtm->rtm_table != RT_TABLE_LOCAL &&
	       (rtm->rtm_dst_len == 0 || gateway);
}

/* The kernel has unhooked its guard: what comes in its place has none, though
 * it be the same link under the same name and number. @index 0: of any link. */
static void forget_guard(struct net *net, int index)
{
	for (size_t i = 0; i < net->covered.n; i++)
		if (!index || net->covered.v[i].index == index)
			net->covered.v[i].name[0] = '\0';
}

static unsigned int link_gone(struct net *net, const struct nlmsghdr *nlh)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);

	/* Of another family it only left a bridge. */
	if (ifi->ifi_family == AF_UNSPEC)
		forget_guard(net, ifi->ifi_index);
	return SEEN_LINK;
}

static unsigned int route_seen(struct net *net, const struct nlmsghdr *nlh)
{
	switch (nlh->nlmsg_type) {
	case RTM_DELLINK: return link_gone(net, nlh);
	case RTM_NEWLINK: return SEEN_LINK;
	case RTM_NEWADDR:
	case RTM_DELADDR: return SEEN_ADDRESS;
	case RTM_NEWRULE:
	case RTM_DELRULE: return SEEN_RULE;
	case RTM_NEWROUTE:
	case RTM_DELROUTE: return SEEN_RULE | (leads_out(nlh) ? SEEN_ROUTE : 0);
	default: return 0;
	}
}

/* Every nf_tables message names its table in attribute 1. */
static unsigned int nft_seen(const struct net *net, const struct nlmsghdr *nlh)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;

	if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
	    (nlh->nlmsg_type & 255) == NFT_MSG_NEWGEN ||
	    nlh->nlmsg_pid == mnl_socket_get_portid(net->nft) ||
	    (nfg->nfgen_family != NFPROTO_INET &&
	     nfg->nfgen_family != NFPROTO_NETDEV))
		return 0;
	mnl_attr_for_each(attr, nlh, sizeof(*nfg))
	{
		if (mnl_attr_get_type(attr) != NFTA_TABLE_NAME)
			continue;
		if (mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0 &&
		    strcmp(mnl_attr_get_str(attr), NET_TABLE_NAME) == 0)
			return SEEN_TABLE;
	}
	return 0;
}

static unsigned int drain(struct net *net, struct mnl_socket *nl)
{
	unsigned int seen = 0;
	ssize_t n;

	for (;;) {
		int len;

		n = recv(mnl_socket_get_fd(nl), net->buf, sizeof(net->buf),
			 MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ENOBUFS) {
			forget_guard(net, 0);
			seen |= SEEN_LINK | SEEN_RULE | SEEN_TABLE |
				SEEN_ROUTE | SEEN_ADDRESS;
			continue;
		}
		if (n < 0)
			return seen;
		len = (int)n;
		for (const struct nlmsghdr *nlh = (void *)net->buf;
		     mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len))
			seen |= nl == net->watch_nft ? nft_seen(net, nlh)
						     : route_seen(net, nlh);
	}
}

/* Since Linux 6.16 an egress hook goes by its link's name: a link that gets
 * another name has lost it. */
static bool same_guard(const struct net_links *a, const struct net_link *link,
		       const struct net_links *b, const char *tap_name)
{
	const enum link_reach reach = link_reach(a, link, tap_name);

	for (size_t i = 0; i < b->n; i++)
		if (b->v[i].index == link->index &&
		    strcmp(b->v[i].name, link->name) == 0)
			return link_reach(b, &b->v[i], tap_name) == reach;
	return reach == LINK_REACH_LOCAL;
}

static unsigned int check_links(struct net *net, const struct net_plan *plan)
{
	unsigned int changed = 0;
	const struct net_link *tap;
	struct net_links links;
	struct lan lan;

	if (links_read(net, &links, NULL) < 0)
		return NET_CHANGED_LINKS;
	tap = links_by_name(&links, plan->tap_name);
	if ((net->tap != NET_TAP_NONE && (!tap || !link_is_tap(tap))) ||
	    (net->tap == NET_TAP_CONFIGURED && tap && !(tap->flags & IFF_UP)))
		changed |= NET_CHANGED_TAP;
	/* A link that went needs no chain; the kernel has unhooked it. */
	for (size_t i = 0; net->firewall && i < links.n; i++)
		if (!same_guard(&links, &links.v[i], &net->covered,
				plan->tap_name))
			changed |= NET_CHANGED_LINKS;
	if (net->firewall && (lan_read(net, plan, &links, &lan) < 0 ||
			      !lan_same(&lan, &net->lan)))
		changed |= NET_CHANGED_LINKS;
	links_free(&links);
	return changed;
}

void watch_drain(struct net *net)
{
	net->seen |= drain(net, net->watch_route) | drain(net, net->watch_nft);
}

unsigned int net_watch_read(struct net *net, const struct net_plan *plan)
{
	unsigned int seen, changed = 0;

	watch_drain(net);
	seen = net->seen;
	net->seen = 0;
	if (seen & (SEEN_LINK | SEEN_ADDRESS))
		changed |= check_links(net, plan);
	/* With a link's last address its routes go, and nobody is told. */
	if (seen & SEEN_ADDRESS)
		seen |= SEEN_RULE;
	if ((seen & SEEN_RULE) && net->rules &&
	    (!rules_complete(net, plan) || !tap_has_address(net, plan)))
		changed |= NET_CHANGED_RULES;
	if ((seen & SEEN_RULE) && net->rules &&
	    routes_check(net, plan) == ROUTES_OTHER_INNER)
		changed |= NET_CHANGED_LINKS;
	if ((seen & SEEN_TABLE) && net->firewall)
		changed |= NET_CHANGED_FIREWALL;
	if ((seen & SEEN_ROUTE) && net->rules)
		changed |= NET_CHANGED_UPLINK;
	return changed;
}
