#include "proto/inet_diag.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

void inet_diag_request(int family, uint32_t seq,
		       uint8_t buf[INET_DIAG_REQUEST_SIZE])
{
	const struct nlmsghdr head = {
		.nlmsg_len = INET_DIAG_REQUEST_SIZE,
		.nlmsg_type = SOCK_DIAG_BY_FAMILY,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		.nlmsg_seq = seq,
	};
	const struct inet_diag_req_v2 request = {
		.sdiag_family = (uint8_t)family,
		.sdiag_protocol = IPPROTO_TCP,
		.idiag_states = 1 << TCP_ESTABLISHED | 1 << TCP_SYN_SENT,
	};

	_Static_assert(sizeof(head) + sizeof(request) == INET_DIAG_REQUEST_SIZE,
		       "size of a request");
	memcpy(buf, &head, sizeof(head));
	memcpy(buf + sizeof(head), &request, sizeof(request));
}

static void add(struct inet_diag_list *list, const struct endpoint *e)
{
	for (size_t i = 0; i < list->n; i++)
		if (endpoint_equal(&list->v[i], e))
			return;
	if (list->n < sizeof(list->v) / sizeof(list->v[0]))
		list->v[list->n++] = *e;
	else
		list->n_more++;
}

static int take(const struct nlmsghdr *head, const uint8_t *payload,
		uint32_t uid, struct inet_diag_list *list)
{
	struct inet_diag_msg msg;
	struct endpoint e;
	uint16_t port;

	if (head->nlmsg_len < NLMSG_LENGTH(sizeof(msg)))
		return -EBADMSG;
	memcpy(&msg, payload, sizeof(msg));
	if (msg.idiag_uid != uid)
		return 0;
	port = ntohs(msg.id.idiag_dport);
	if (msg.idiag_family == AF_INET)
		e = endpoint_from_ip4(msg.id.idiag_dst, port);
	else if (msg.idiag_family == AF_INET6)
		e = endpoint_from_ip6(msg.id.idiag_dst, port);
	else
		return -EBADMSG;
	add(list, &e);
	return 0;
}

int inet_diag_parse(const void *buf, size_t len, uint32_t seq, uint32_t uid,
		    struct inet_diag_list *list)
{
	const uint8_t *at = buf;
	struct nlmsghdr head;
	int32_t error;
	int r;

	while (len > 0) {
		size_t step;

		if (len < sizeof(head))
			return -EBADMSG;
		memcpy(&head, at, sizeof(head));
		if (head.nlmsg_len < sizeof(head) || head.nlmsg_len > len)
			return -EBADMSG;
		if (head.nlmsg_seq != seq)
			return -EBADMSG;
		if (head.nlmsg_flags & NLM_F_DUMP_INTR)
			return -EINTR;
		if (head.nlmsg_type == NLMSG_DONE)
			return 1;
		if (head.nlmsg_type == NLMSG_ERROR) {
			if (head.nlmsg_len < NLMSG_LENGTH(sizeof(error)))
				return -EBADMSG;
			memcpy(&error, at + sizeof(head), sizeof(error));
			return error < 0 && error > -4096 ? error : -EBADMSG;
		}
		if (head.nlmsg_type == SOCK_DIAG_BY_FAMILY) {
			r = take(&head, at + sizeof(head), uid, list);
			if (r < 0)
				return r;
		}
		step = NLMSG_ALIGN(head.nlmsg_len);
		if (step >= len)
			return 0;
		at += step;
		len -= step;
	}
	return 0;
}
