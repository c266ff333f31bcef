/*
 * The part of libmnl that libnftnl and platform/linux use, for the statically
 * linked torvm-block: distributions ship libnftnl.a, but no libmnl.a.
 *
 * Theory of operation: the same functions with the same contracts as in
 * <libmnl/libmnl.h>, whose declarations the compiler holds this file against.
 * Everything is arithmetic on a buffer; only the mnl_socket_*() make calls.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- sockets --- */

struct mnl_socket {
	int fd;
	struct sockaddr_nl addr;
};

struct mnl_socket *mnl_socket_open2(int bus, int flags)
{
	struct mnl_socket *nl = calloc(1, sizeof(*nl));

	if (!nl)
		return NULL;
	nl->fd = socket(AF_NETLINK, SOCK_RAW | flags, bus);
	if (nl->fd < 0) {
		int err = errno;

		free(nl);
		errno = err;
		return NULL;
	}
	return nl;
}

struct mnl_socket *mnl_socket_open(int bus)
{
	return mnl_socket_open2(bus, 0);
}

int mnl_socket_bind(struct mnl_socket *nl, unsigned int groups, pid_t pid)
{
	socklen_t len = sizeof(nl->addr);

	nl->addr = (struct sockaddr_nl){
		.nl_family = AF_NETLINK,
		.nl_groups = groups,
		.nl_pid = (uint32_t)pid,
	};
	if (bind(nl->fd, (struct sockaddr *)&nl->addr, len) < 0)
		return -1;
	return getsockname(nl->fd, (struct sockaddr *)&nl->addr, &len);
}

int mnl_socket_close(struct mnl_socket *nl)
{
	int r = close(nl->fd);

	free(nl);
	return r;
}

int mnl_socket_get_fd(const struct mnl_socket *nl)
{
	return nl->fd;
}

unsigned int mnl_socket_get_portid(const struct mnl_socket *nl)
{
	return nl->addr.nl_pid;
}

int mnl_socket_setsockopt(const struct mnl_socket *nl, int type, void *buf,
			  socklen_t len)
{
	return setsockopt(nl->fd, SOL_NETLINK, type, buf, len);
}

ssize_t mnl_socket_sendto(const struct mnl_socket *nl, const void *buf,
			  size_t len)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	return sendto(nl->fd, buf, len, 0, (const struct sockaddr *)&kernel,
		      sizeof(kernel));
}

/* Only what the kernel itself sent; all of it or ENOSPC. */
ssize_t mnl_socket_recvfrom(const struct mnl_socket *nl, void *buf, size_t len)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {
		.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	ssize_t n = recvmsg(nl->fd, &msg, 0);

	if (n < 0)
		return -1;
	if (msg.msg_flags & MSG_TRUNC) {
		errno = ENOSPC;
		return -1;
	}
	if (msg.msg_namelen != sizeof(from) || from.nl_pid != 0) {
		errno = EINVAL;
		return -1;
	}
	return n;
}

/* --- messages --- */

struct nlmsghdr *mnl_nlmsg_put_header(void *buf)
{
	struct nlmsghdr *nlh = buf;

	memset(nlh, 0, NLMSG_HDRLEN);
	nlh->nlmsg_len = NLMSG_HDRLEN;
	return nlh;
}

void *mnl_nlmsg_put_extra_header(struct nlmsghdr *nlh, size_t size)
{
	char *at = (char *)nlh + nlh->nlmsg_len;

	memset(at, 0, NLMSG_ALIGN(size));
	nlh->nlmsg_len += (uint32_t)NLMSG_ALIGN(size);
	return at;
}

void *mnl_nlmsg_get_payload(const struct nlmsghdr *nlh)
{
	return (char *)nlh + NLMSG_HDRLEN;
}

void *mnl_nlmsg_get_payload_offset(const struct nlmsghdr *nlh, size_t offset)
{
	return (char *)mnl_nlmsg_get_payload(nlh) + NLMSG_ALIGN(offset);
}

void *mnl_nlmsg_get_payload_tail(const struct nlmsghdr *nlh)
{
	return (char *)nlh + NLMSG_ALIGN(nlh->nlmsg_len);
}

bool mnl_nlmsg_ok(const struct nlmsghdr *nlh, int len)
{
	return len >= (int)sizeof(*nlh) && nlh->nlmsg_len >= sizeof(*nlh) &&
	       nlh->nlmsg_len <= (uint32_t)len;
}

struct nlmsghdr *mnl_nlmsg_next(const struct nlmsghdr *nlh, int *len)
{
	*len -= (int)NLMSG_ALIGN(nlh->nlmsg_len);
	return (struct nlmsghdr *)((char *)nlh + NLMSG_ALIGN(nlh->nlmsg_len));
}

static int on_error(const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);

	if (nlh->nlmsg_len < NLMSG_LENGTH(sizeof(*err))) {
		errno = EBADMSG;
		return MNL_CB_ERROR;
	}
	if (err->error == 0)
		return MNL_CB_STOP;
	errno = err->error < 0 ? -err->error : err->error;
	return MNL_CB_ERROR;
}

int mnl_cb_run(const void *buf, size_t size, unsigned int seq,
	       unsigned int portid, mnl_cb_t cb, void *data)
{
	const struct nlmsghdr *nlh = buf;
	int len = (int)size, r = MNL_CB_OK;

	for (; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
		if (portid && nlh->nlmsg_pid && nlh->nlmsg_pid != portid) {
			errno = ESRCH;
			return MNL_CB_ERROR;
		}
		if (seq && nlh->nlmsg_seq && nlh->nlmsg_seq != seq) {
			errno = EPROTO;
			return MNL_CB_ERROR;
		}
		/* A dump that a change went through is no answer. */
		if (nlh->nlmsg_flags & NLM_F_DUMP_INTR) {
			errno = EINTR;
			return MNL_CB_ERROR;
		}
		if (nlh->nlmsg_type == NLMSG_ERROR)
			r = on_error(nlh);
		else if (nlh->nlmsg_type == NLMSG_DONE)
			r = MNL_CB_STOP;
		else if (nlh->nlmsg_type >= NLMSG_MIN_TYPE && cb)
			r = cb(nlh, data);
		if (r <= MNL_CB_STOP)
			return r;
	}
	return r;
}

/* --- attributes --- */

#define ATTR_HEADER NLA_HDRLEN

uint16_t mnl_attr_get_type(const struct nlattr *attr)
{
	return attr->nla_type & NLA_TYPE_MASK;
}

uint16_t mnl_attr_get_payload_len(const struct nlattr *attr)
{
	return (uint16_t)(attr->nla_len - ATTR_HEADER);
}

void *mnl_attr_get_payload(const struct nlattr *attr)
{
	return (char *)attr + ATTR_HEADER;
}

bool mnl_attr_ok(const struct nlattr *attr, int len)
{
	return len >= (int)sizeof(*attr) && attr->nla_len >= sizeof(*attr) &&
	       attr->nla_len <= len;
}

struct nlattr *mnl_attr_next(const struct nlattr *attr)
{
	return (struct nlattr *)((char *)attr + NLA_ALIGN(attr->nla_len));
}

const char *mnl_attr_get_str(const struct nlattr *attr)
{
	return mnl_attr_get_payload(attr);
}

uint8_t mnl_attr_get_u8(const struct nlattr *attr)
{
	return *(uint8_t *)mnl_attr_get_payload(attr);
}

uint16_t mnl_attr_get_u16(const struct nlattr *attr)
{
	return *(uint16_t *)mnl_attr_get_payload(attr);
}

uint32_t mnl_attr_get_u32(const struct nlattr *attr)
{
	return *(uint32_t *)mnl_attr_get_payload(attr);
}

uint64_t mnl_attr_get_u64(const struct nlattr *attr)
{
	uint64_t value;

	/* Attributes are aligned to four bytes only. */
	memcpy(&value, mnl_attr_get_payload(attr), sizeof(value));
	return value;
}

int mnl_attr_type_valid(const struct nlattr *attr, uint16_t max)
{
	if (mnl_attr_get_type(attr) <= max)
		return 1;
	errno = EOPNOTSUPP;
	return -1;
}

static int refuse(int err)
{
	errno = err;
	return -1;
}

int mnl_attr_validate(const struct nlattr *attr, enum mnl_attr_data_type type)
{
	static const uint16_t sizes[MNL_TYPE_MAX] = {
		[MNL_TYPE_U8] = 1,  [MNL_TYPE_U16] = 2,   [MNL_TYPE_U32] = 4,
		[MNL_TYPE_U64] = 8, [MNL_TYPE_MSECS] = 8,
	};
	const uint16_t len = mnl_attr_get_payload_len(attr);
	const char *text = mnl_attr_get_payload(attr);

	if (type >= MNL_TYPE_MAX)
		return refuse(EINVAL);
	if (sizes[type] && len != sizes[type])
		return refuse(ERANGE);
	if (type == MNL_TYPE_FLAG && len > 0)
		return refuse(ERANGE);
	if ((type == MNL_TYPE_NUL_STRING || type == MNL_TYPE_STRING) &&
	    len == 0)
		return refuse(ERANGE);
	if (type == MNL_TYPE_NUL_STRING && text[len - 1] != '\0')
		return refuse(EINVAL);
	if (type == MNL_TYPE_NESTED && len > 0 && len < ATTR_HEADER)
		return refuse(ERANGE);
	return 0;
}

static int parse(const struct nlattr *attr, const char *end, mnl_attr_cb_t cb,
		 void *data)
{
	int r = MNL_CB_OK;

	for (; mnl_attr_ok(attr, (int)(end - (const char *)attr));
	     attr = mnl_attr_next(attr)) {
		r = cb(attr, data);
		if (r <= MNL_CB_STOP)
			return r;
	}
	return r;
}

int mnl_attr_parse(const struct nlmsghdr *nlh, unsigned int offset,
		   mnl_attr_cb_t cb, void *data)
{
	const char *from =
		(char *)mnl_nlmsg_get_payload(nlh) + NLMSG_ALIGN(offset);

	return parse((const struct nlattr *)from,
		     (const char *)nlh + NLMSG_ALIGN(nlh->nlmsg_len), cb, data);
}

int mnl_attr_parse_nested(const struct nlattr *nested, mnl_attr_cb_t cb,
			  void *data)
{
	const char *from = mnl_attr_get_payload(nested);

	return parse((const struct nlattr *)from,
		     from + mnl_attr_get_payload_len(nested), cb, data);
}

void mnl_attr_put(struct nlmsghdr *nlh, uint16_t type, size_t len,
		  const void *data)
{
	struct nlattr *attr =
		(struct nlattr *)((char *)nlh + NLMSG_ALIGN(nlh->nlmsg_len));
	const size_t whole = ATTR_HEADER + len;

	attr->nla_type = type;
	attr->nla_len = (uint16_t)whole;
	memcpy(mnl_attr_get_payload(attr), data, len);
	memset((char *)attr + whole, 0, NLA_ALIGN(whole) - whole);
	nlh->nlmsg_len += (uint32_t)NLA_ALIGN(whole);
}

void mnl_attr_put_u8(struct nlmsghdr *nlh, uint16_t type, uint8_t value)
{
	mnl_attr_put(nlh, type, sizeof(value), &value);
}

void mnl_attr_put_u16(struct nlmsghdr *nlh, uint16_t type, uint16_t value)
{
	mnl_attr_put(nlh, type, sizeof(value), &value);
}

void mnl_attr_put_u32(struct nlmsghdr *nlh, uint16_t type, uint32_t value)
{
	mnl_attr_put(nlh, type, sizeof(value), &value);
}

void mnl_attr_put_u64(struct nlmsghdr *nlh, uint16_t type, uint64_t value)
{
	mnl_attr_put(nlh, type, sizeof(value), &value);
}

void mnl_attr_put_str(struct nlmsghdr *nlh, uint16_t type, const char *text)
{
	mnl_attr_put(nlh, type, strlen(text), text);
}

void mnl_attr_put_strz(struct nlmsghdr *nlh, uint16_t type, const char *text)
{
	mnl_attr_put(nlh, type, strlen(text) + 1, text);
}

struct nlattr *mnl_attr_nest_start(struct nlmsghdr *nlh, uint16_t type)
{
	struct nlattr *attr =
		(struct nlattr *)((char *)nlh + NLMSG_ALIGN(nlh->nlmsg_len));

	attr->nla_type = NLA_F_NESTED | type;
	nlh->nlmsg_len += NLA_ALIGN(sizeof(*attr));
	return attr;
}

void mnl_attr_nest_end(struct nlmsghdr *nlh, struct nlattr *start)
{
	start->nla_len = (uint16_t)((char *)nlh + NLMSG_ALIGN(nlh->nlmsg_len) -
				    (char *)start);
}

/* --- batches: libnftnl's common.o names them, and nobody calls that --- */

struct mnl_nlmsg_batch {
	char *buf;
	size_t limit, len; /* bytes */
};

struct mnl_nlmsg_batch *mnl_nlmsg_batch_start(void *buf, size_t limit)
{
	struct mnl_nlmsg_batch *b = calloc(1, sizeof(*b));

	if (b)
		*b = (struct mnl_nlmsg_batch){ .buf = buf, .limit = limit };
	return b;
}

void mnl_nlmsg_batch_stop(struct mnl_nlmsg_batch *b)
{
	free(b);
}

bool mnl_nlmsg_batch_next(struct mnl_nlmsg_batch *b)
{
	const struct nlmsghdr *nlh = mnl_nlmsg_batch_current(b);

	if (b->len + nlh->nlmsg_len > b->limit)
		return false;
	b->len += nlh->nlmsg_len;
	return true;
}

size_t mnl_nlmsg_batch_size(struct mnl_nlmsg_batch *b)
{
	return b->len;
}

void *mnl_nlmsg_batch_head(struct mnl_nlmsg_batch *b)
{
	return b->buf;
}

void *mnl_nlmsg_batch_current(struct mnl_nlmsg_batch *b)
{
	return b->buf + b->len;
}

bool mnl_nlmsg_batch_is_empty(struct mnl_nlmsg_batch *b)
{
	return b->len == 0;
}
