/*
 * Destroying sockets by sock_diag(7): those bound to the TAP's address must go
 * before the TAP does. A connected UDP socket would otherwise go on sending
 * from that address, in clear, by the host's own route.
 */
#include "platform/linux/linux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>

struct found {
	struct in_addr addr;
	struct sock {
		uint8_t family;
		struct inet_diag_sockid id;
	} *v;
	size_t n;
};

static int on_socket(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct found *found = data;
	const uint32_t *src = msg->id.idiag_src;
	struct sock *grown;

	if (msg->idiag_family == AF_INET) {
		if (src[0] != found->addr.s_addr)
			return MNL_CB_OK;
	} else {
		/* ::ffff:a.b.c.d */
		if (src[0] || src[1] || src[2] != htonl(0xffff) ||
		    src[3] != found->addr.s_addr)
			return MNL_CB_OK;
	}
	grown = array_grow(found->v, found->n, sizeof(*found->v));
	if (!grown) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	found->v = grown;
	found->v[found->n++] = (struct sock){ msg->idiag_family, msg->id };
	return MNL_CB_OK;
}

static int destroy(struct net *net, struct mnl_socket *nl, uint8_t protocol,
		   struct in_addr addr, uint8_t family)
{
	struct inet_diag_req_v2 req = {
		.sdiag_family = family,
		.sdiag_protocol = protocol,
		.idiag_states = UINT32_MAX,
	};
	struct found found = { .addr = addr };
	struct nlmsghdr *nlh;
	int r, first = 0;

	nlh = netlink_message(net, SOCK_DIAG_BY_FAMILY, 0, &req, sizeof(req));
	r = netlink_dump(net, nl, nlh, on_socket, &found, &found.n);
	for (size_t i = 0; r == 0 && i < found.n; i++) {
		req.sdiag_family = found.v[i].family;
		req.id = found.v[i].id;
		nlh = netlink_message(net, SOCK_DESTROY, 0, &req, sizeof(req));
		r = netlink_do(net, nl, nlh);
		/* It ended by itself meanwhile. */
		if (r == -ENOENT)
			r = 0;
		/* The others must go all the same. */
		if (r < 0 && first == 0)
			first = r;
		r = 0;
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
