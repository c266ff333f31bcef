/*
 * Destroying sockets by sock_diag(7).
 *
 * Those bound to the TAP's address must go before the TAP does: a connected UDP
 * socket would otherwise go on sending from that address, in clear, by the
 * host's own route.
 *
 * The uplink's connections keep the source address they began with. When the
 * way out has got another one, nothing answers them any more, and Tor would
 * wait for minutes; destroyed, they end at once and Tor makes new ones.
 */
#include "platform/linux/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>

struct found {
	struct in_addr addr; /* whose sockets are looked for */
	uid_t uid;           /* if by_uid: instead of those of addr */
	bool by_uid;
	struct sock {
		uint8_t family;
		struct inet_diag_sockid id;
	} *v;
	size_t n;
};

static bool is_of_address(const struct inet_diag_msg *msg, struct in_addr addr)
{
	const uint32_t *src = msg->id.idiag_src;

	if (msg->idiag_family == AF_INET)
		return src[0] == addr.s_addr;
	/* ::ffff:a.b.c.d */
	return !src[0] && !src[1] && src[2] == htonl(0xffff) &&
	       src[3] == addr.s_addr;
}

static int on_socket(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct found *found = data;
	struct sock *grown;

	if (found->by_uid ? msg->idiag_uid != found->uid
			  : !is_of_address(msg, found->addr))
		return MNL_CB_OK;
	grown = array_grow(found->v, found->n, sizeof(*found->v));
	if (!grown) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	found->v = grown;
	found->v[found->n++] = (struct sock){ msg->idiag_family, msg->id };
	return MNL_CB_OK;
}

static int find(struct net *net, struct mnl_socket *nl, uint8_t protocol,
		uint8_t family, struct found *found)
{
	const struct inet_diag_req_v2 req = {
		.sdiag_family = family,
		.sdiag_protocol = protocol,
		.idiag_states = UINT32_MAX,
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, SOCK_DIAG_BY_FAMILY, 0, &req, sizeof(req));
	return netlink_dump(net, nl, nlh, on_socket, found, &found->n);
}

static int destroy_one(struct net *net, struct mnl_socket *nl, uint8_t protocol,
		       const struct sock *sock)
{
	const struct inet_diag_req_v2 req = {
		.sdiag_family = sock->family,
		.sdiag_protocol = protocol,
		.idiag_states = UINT32_MAX,
		.id = sock->id,
	};
	struct nlmsghdr *nlh;
	int r;

	nlh = netlink_message(net, SOCK_DESTROY, 0, &req, sizeof(req));
	r = netlink_do(net, nl, nlh);
	/* It ended by itself meanwhile. */
	return r == -ENOENT ? 0 : r;
}

static int destroy(struct net *net, struct mnl_socket *nl, uint8_t protocol,
		   struct in_addr addr, uint8_t family)
{
	struct found found = { .addr = addr };
	int r, first = 0;

	r = find(net, nl, protocol, family, &found);
	for (size_t i = 0; r == 0 && i < found.n; i++) {
		int one = destroy_one(net, nl, protocol, &found.v[i]);

		/* The others must go all the same. */
		if (one < 0 && first == 0)
			first = one;
	}
	free(found.v);
	/* No such family or no diag module for the protocol: nothing listed. */
	return r < 0 && r != -ENOENT && r != -EAFNOSUPPORT ? r : first;
}

int net_sockets_destroy(struct net *net, struct in_addr addr, struct error *e)
{
	static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	static const uint8_t diag_families[] = { AF_INET, AF_INET6 };
	struct mnl_socket *nl;
	int r, first = 0;

	r = netlink_open(NETLINK_SOCK_DIAG, &nl, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
		for (size_t k = 0; k < ARRAY_SIZE(diag_families); k++) {
			r = destroy(net, nl, protocols[i], addr,
				    diag_families[k]);
			if (r < 0 && first == 0)
				first = r;
		}
	mnl_socket_close(nl);
	if (first < 0)
		return error_set(e, first,
				 "cannot close the connections of the TAP: %s",
				 strerror(-first));
	return 0;
}

struct source {
	size_t size; /* of an address, in bytes */
	uint8_t address[16];
};

static int on_source(const struct nlmsghdr *nlh, void *data)
{
	struct source *source = data;
	const struct nlattr *attr;

	if (nlh->nlmsg_type != RTM_NEWROUTE)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(struct rtmsg))
	{
		if (mnl_attr_get_type(attr) == RTA_PREFSRC &&
		    mnl_attr_get_payload_len(attr) == source->size)
			memcpy(source->address, mnl_attr_get_payload(attr),
			       source->size);
	}
	return MNL_CB_OK;
}

/* Whether a new connection of @uid to where @s leads would get another source
 * address. Without a way to it, it may come back by the same one. */
static bool has_moved(struct net *net, const struct sock *s, uid_t uid)
{
	static const uint8_t none[16];
	/* Of IPv6 the network's half: the other one changes by itself (RFC
	 * 8981), and the old address goes on working. */
	const size_t compared = s->family == AF_INET ? 4 : 8;
	struct source source = {
		.size = s->family == AF_INET ? sizeof(struct in_addr)
					     : sizeof(struct in6_addr),
	};
	const struct rtmsg rtm = {
		.rtm_family = s->family,
		.rtm_dst_len = (uint8_t)(source.size * 8),
	};
	struct nlmsghdr *nlh;

	nlh = netlink_message(net, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
	mnl_attr_put(nlh, RTA_DST, source.size, s->id.idiag_dst);
	mnl_attr_put_u32(nlh, RTA_UID, uid);
	return netlink_ask(net, net->route, nlh, on_source, &source) >= 0 &&
	       memcmp(source.address, none, source.size) != 0 &&
	       memcmp(source.address, s->id.idiag_src, compared) != 0;
}

static int renew(struct net *net, struct mnl_socket *nl, uint8_t family,
		 uid_t uid, bool all, unsigned int *closed)
{
	struct found found = { .uid = uid, .by_uid = true };
	int r = find(net, nl, IPPROTO_TCP, family, &found), first = 0;

	for (size_t i = 0; r == 0 && i < found.n; i++) {
		const struct sock *s = &found.v[i];
		int one;

		if (!all && !has_moved(net, s, uid))
			continue;
		one = destroy_one(net, nl, IPPROTO_TCP, s);
		if (one < 0 && first == 0)
			first = one;
		*closed += one == 0;
	}
	free(found.v);
	/* A kernel without this family. */
	return r < 0 && r != -ENOENT && r != -EAFNOSUPPORT ? r : first;
}

int net_uplink_renew(struct net *net, const struct net_plan *plan, bool all,
		     unsigned int *ret_closed, struct error *e)
{
	struct mnl_socket *nl;
	int r, r6;

	*ret_closed = 0;
	r = netlink_open(NETLINK_SOCK_DIAG, &nl, e);
	if (r < 0)
		return r;
	r = renew(net, nl, AF_INET, plan->vm_uid, all, ret_closed);
	r6 = renew(net, nl, AF_INET6, plan->vm_uid, all, ret_closed);
	mnl_socket_close(nl);
	if (r == 0)
		r = r6;
	return r < 0 ? error_set(e, r,
				 "cannot close the VM's old connections: %s",
				 strerror(-r))
		     : 0;
}
