/*
 * Theory of operation
 *
 * Messages are built one behind the other in a fixed buffer and sent in one
 * piece: for nf_tables a batch is one transaction. Running out of space sets
 * `failed`, which the commit reports, so that the builders need no checks.
 */
#include "init/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"

#define ANSWER_TIMEOUT_S 2

int netlink_open(struct netlink *nl, int protocol)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_S };
	int on = 1;

	memset(nl, 0, sizeof(*nl));
	nl->seq = 1;
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (nl->fd < 0)
		return -errno;
	/* Answers without the request's bytes: a batch is larger than what we
	 * receive with. */
	if (bind(nl->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on)) ||
	    setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout,
		       sizeof(timeout)) < 0)
		return -errno;
	return 0;
}

void netlink_close(struct netlink *nl)
{
	closep(&nl->fd);
	nl->fd = -1;
}

/* @len bytes, zeroed and aligned; NULL when the buffer is full. */
static void *reserve(struct netlink *nl, size_t len)
{
	void *at = nl->buf + nl->len;

	len = NLMSG_ALIGN(len);
	if (nl->failed || len > sizeof(nl->buf) - nl->len) {
		nl->failed = true;
		return NULL;
	}
	memset(at, 0, len);
	nl->len += len;
	return at;
}

void *netlink_begin(struct netlink *nl, int type, int flags, size_t header_len)
{
	static _Alignas(NLMSG_ALIGNTO) char nowhere[64];
	struct nlmsghdr *header;

	nl->message = nl->len;
	header = reserve(nl, NLMSG_HDRLEN + header_len);
	if (!header)
		return nowhere;
	header->nlmsg_type = (uint16_t)type;
	header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	header->nlmsg_seq = nl->seq++;
	return NLMSG_DATA(header);
}

void netlink_end(struct netlink *nl)
{
	struct nlmsghdr *header = (void *)(nl->buf + nl->message);

	if (!nl->failed)
		header->nlmsg_len = (uint32_t)(nl->len - nl->message);
}

void netlink_put(struct netlink *nl, int attr, const void *data, size_t len)
{
	struct nlattr *a = reserve(nl, NLA_HDRLEN + len);

	if (!a)
		return;
	a->nla_type = (uint16_t)attr;
	a->nla_len = (uint16_t)(NLA_HDRLEN + len);
	if (len > 0)
		memcpy((char *)a + NLA_HDRLEN, data, len);
}

void netlink_put_u32(struct netlink *nl, int attr, uint32_t value)
{
	netlink_put(nl, attr, &value, sizeof(value));
}

void netlink_put_be32(struct netlink *nl, int attr, uint32_t value)
{
	netlink_put_u32(nl, attr, htonl(value));
}

void netlink_put_string(struct netlink *nl, int attr, const char *value)
{
	netlink_put(nl, attr, value, strlen(value) + 1);
}

size_t netlink_nest(struct netlink *nl, int attr)
{
	size_t nest = nl->len;

	netlink_put(nl, attr | NLA_F_NESTED, NULL, 0);
	return nest;
}

void netlink_nest_end(struct netlink *nl, size_t nest)
{
	struct nlattr *a = (void *)(nl->buf + nest);

	if (!nl->failed)
		a->nla_len = (uint16_t)(nl->len - nest);
}

/* Return: what was received, in @buf; 0 is never returned. */
static ssize_t receive(struct netlink *nl, void *buf, size_t size)
{
	ssize_t n;

	do
		n = recv(nl->fd, buf, size, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return n > 0 ? n : -EPIPE;
}

static int send_all(struct netlink *nl)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	size_t len = nl->len;
	bool failed = nl->failed;

	nl->len = 0;
	nl->failed = false;
	if (failed)
		return -EMSGSIZE;
	if (sendto(nl->fd, nl->buf, len, 0, (struct sockaddr *)&kernel,
		   sizeof(kernel)) < 0)
		return -errno;
	return 0;
}

static int error_of(const struct nlmsghdr *header)
{
	const struct nlmsgerr *error = NLMSG_DATA(header);

	if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*error)))
		return -EBADMSG;
	return error->error;
}

int netlink_commit(struct netlink *nl)
{
	_Alignas(NLMSG_ALIGNTO) char buf[8192];
	uint32_t last = nl->seq - 1;
	int first_error = 0;
	int r = send_all(nl);

	if (r < 0)
		return r;
	for (;;) {
		ssize_t n = receive(nl, buf, sizeof(buf));
		struct nlmsghdr *header = (void *)buf;

		if (n < 0)
			return first_error ? first_error : (int)n;
		for (; NLMSG_OK(header, n); header = NLMSG_NEXT(header, n)) {
			if (header->nlmsg_type != NLMSG_ERROR)
				continue;
			r = error_of(header);
			if (r < 0 && !first_error)
				first_error = r;
			/* A batch as a whole fails under its first number. */
			if (header->nlmsg_seq == last || first_error)
				return first_error;
		}
	}
}

int netlink_dump(struct netlink *nl, netlink_dump_fn fn, void *userdata)
{
	_Alignas(NLMSG_ALIGNTO) char buf[32768];
	uint32_t seq = nl->seq - 1;
	int r = send_all(nl);

	if (r < 0)
		return r;
	for (;;) {
		ssize_t n = receive(nl, buf, sizeof(buf));
		struct nlmsghdr *header = (void *)buf;

		if (n < 0)
			return (int)n;
		for (; NLMSG_OK(header, n); header = NLMSG_NEXT(header, n)) {
			if (header->nlmsg_seq != seq)
				continue;
			if (header->nlmsg_type == NLMSG_DONE)
				return 0;
			if (header->nlmsg_type == NLMSG_ERROR)
				return error_of(header);
			r = fn(userdata, header);
			if (r < 0)
				return r;
		}
	}
}

const void *netlink_attr_in(const void *nest, size_t len, int attr,
			    size_t min_len, size_t *ret_len)
{
	const char *at = nest;

	while (len >= NLA_HDRLEN) {
		const struct nlattr *a = (const void *)at;
		size_t step = NLA_ALIGN(a->nla_len);

		if (a->nla_len < NLA_HDRLEN || a->nla_len > len)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == attr) {
			if ((size_t)a->nla_len - NLA_HDRLEN < min_len)
				return NULL;
			if (ret_len)
				*ret_len = a->nla_len - NLA_HDRLEN;
			return at + NLA_HDRLEN;
		}
		if (step > len)
			return NULL;
		at += step;
		len -= step;
	}
	return NULL;
}

const void *netlink_attr(const struct nlmsghdr *header, size_t header_len,
			 int attr, size_t min_len)
{
	size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header_len);

	if (header->nlmsg_len < skip)
		return NULL;
	return netlink_attr_in((const char *)header + skip,
			       header->nlmsg_len - skip, attr, min_len, NULL);
}
