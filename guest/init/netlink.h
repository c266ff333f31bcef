/*
 * Just enough netlink to bring up two links and load a firewall, without a
 * library: Debian ships no static libmnl.
 */
#pragma once

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct netlink {
	int fd;
	uint32_t seq;
	size_t len;     /* bytes of buf in use */
	bool failed;    /* something did not fit: nothing is sent */
	size_t message; /* where the open message starts */
	_Alignas(NLMSG_ALIGNTO) char buf[131072];
};

#define NETLINK_NULL(n) ((struct netlink){ .fd = -1 })

/* Return: 0 or a negative errno. @protocol: NETLINK_ROUTE, NETLINK_NETFILTER */
int netlink_open(struct netlink *nl, int protocol);
void netlink_close(struct netlink *nl);

/* Starts a message with a zeroed @header_len bytes header, which is returned,
 * valid until the next call. */
void *netlink_begin(struct netlink *nl, int type, int flags, size_t header_len);
void netlink_put(struct netlink *nl, int attr, const void *data, size_t len);
void netlink_put_u32(struct netlink *nl, int attr, uint32_t value);
void netlink_put_be32(struct netlink *nl, int attr, uint32_t value);
void netlink_put_string(struct netlink *nl, int attr, const char *value);
size_t netlink_nest(struct netlink *nl, int attr);
void netlink_nest_end(struct netlink *nl, size_t nest);
void netlink_end(struct netlink *nl);

/**
 * netlink_commit() - Send all messages, wait for the last one's answer
 *
 * The last message has to carry NLM_F_ACK. Waits for at most 2 s. Return: 0,
 * the first error the kernel reported for any of them, or -ETIMEDOUT.
 */
int netlink_commit(struct netlink *nl);

/* @attrs, @len: the message after its header. Return: 0 to go on. */
typedef int (*netlink_dump_fn)(void *userdata, const struct nlmsghdr *header);

/* netlink_dump() - Send one NLM_F_DUMP message, hand each answer to @fn */
int netlink_dump(struct netlink *nl, netlink_dump_fn fn, void *userdata);

/* One attribute of a received message, or NULL. */
const void *netlink_attr(const struct nlmsghdr *header, size_t header_len,
			 int attr, size_t min_len);
/* As netlink_attr(), inside a nested one. */
const void *netlink_attr_in(const void *nest, size_t len, int attr,
			    size_t min_len, size_t *ret_len);
