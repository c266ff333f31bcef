/*
 * Theory of operation
 *
 * Every request to the kernel goes out on a socket of its own bus and is
 * answered at once: netlink does its work inside sendto(2), so that the answer
 * already lies in the receive queue when the call returns. Requests are built
 * in net->buf, which is free again as soon as the message is sent.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* How often an interrupted dump is taken again before giving up. */
#define DUMP_ATTEMPTS 8

int netlink_open(int bus, struct mnl_socket **ret, struct error *e)
{
	struct mnl_socket *nl = mnl_socket_open2(bus, SOCK_CLOEXEC);

	if (!nl)
		return error_set(e, -errno,
				 "cannot open a netlink socket (bus %d): %s",
				 bus, strerror(errno));
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = -errno;

		mnl_socket_close(nl);
		return error_set(e, r, "cannot bind a netlink socket: %s",
				 strerror(-r));
	}
	*ret = nl;
	return 0;
}

struct nlmsghdr *netlink_message(struct net *net, uint16_t type, uint16_t flags,
				 const void *family, size_t family_len)
{
	struct nlmsghdr *nlh;

	memset(net->buf, 0, 4096);
	nlh = mnl_nlmsg_put_header(net->buf);
	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	memcpy(mnl_nlmsg_put_extra_header(nlh, family_len), family, family_len);
	return nlh;
}

static int receive(struct net *net, struct mnl_socket *nl, uint32_t seq,
		   mnl_cb_t cb, void *data)
{
	for (;;) {
		ssize_t n = mnl_socket_recvfrom(nl, net->buf, sizeof(net->buf));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* An answer to an older, abandoned request is not ours. */
		if ((size_t)n >= sizeof(struct nlmsghdr) &&
		    ((struct nlmsghdr *)net->buf)->nlmsg_seq != seq)
			continue;
		r = mnl_cb_run(net->buf, (size_t)n, seq,
			       mnl_socket_get_portid(nl), cb, data);
		if (r < 0)
			return -errno;
		if (r == MNL_CB_STOP)
			return 0;
	}
}

static int send_message(struct net *net, struct mnl_socket *nl,
			struct nlmsghdr *nlh)
{
	nlh->nlmsg_seq = ++net->seq;
	return mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0 ? -errno : 0;
}

int netlink_ask(struct net *net, struct mnl_socket *nl, struct nlmsghdr *nlh,
		mnl_cb_t cb, void *data)
{
	int r;

	nlh->nlmsg_flags |= NLM_F_ACK;
	r = send_message(net, nl, nlh);
	return r < 0 ? r : receive(net, nl, net->seq, cb, data);
}

int netlink_do(struct net *net, struct mnl_socket *nl, struct nlmsghdr *nlh)
{
	return netlink_ask(net, nl, nlh, NULL, NULL);
}

int netlink_dump(struct net *net, struct mnl_socket *nl, struct nlmsghdr *nlh,
		 mnl_cb_t cb, void *data, size_t *count)
{
	void *request = malloc(nlh->nlmsg_len);
	int r = -EINTR;

	if (!request)
		return -ENOMEM;
	nlh->nlmsg_flags |= NLM_F_DUMP;
	/* The answers overwrite net->buf; a second attempt needs the request.
	 */
	memcpy(request, nlh, nlh->nlmsg_len);
	for (int i = 0; i < DUMP_ATTEMPTS && r == -EINTR; i++) {
		if (count)
			*count = 0;
		r = send_message(net, nl, request);
		if (r == 0)
			r = receive(net, nl, net->seq, cb, data);
	}
	free(request);
	return r;
}

void *array_grow(void *v, size_t n, size_t size)
{
	/* Doubles at each power of two; the capacity need not be stored. */
	if (n && (n & (n - 1)))
		return v;
	return reallocarray(v, n ? n * 2 : 1, size);
}
