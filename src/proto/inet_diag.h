/*
 * sock_diag(7): where a user's TCP connections go. Bytes in, bytes out; any
 * user may ask about every user's sockets.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/endpoint.h"

/* Bytes of a request. */
#define INET_DIAG_REQUEST_SIZE 72
/* The kernel builds no larger datagram for a dump, in bytes. */
#define INET_DIAG_ANSWER_MAX 32768

/**
 * inet_diag_request() - A dump of TCP connections that stand or begin
 * @family:	AF_INET or AF_INET6
 */
void inet_diag_request(int family, uint32_t seq,
		       uint8_t buf[INET_DIAG_REQUEST_SIZE]);

/* The other ends found so far, each once. */
struct inet_diag_list {
	struct endpoint v[64];
	size_t n;
	size_t n_more; /* that did not fit */
};

/**
 * inet_diag_parse() - Take one datagram of the answer
 * @uid:	Whose sockets count
 * @list:	Grows
 *
 * Return: 1: the dump is complete; 0: more is to come; -EINTR: a change went
 * through it, ask again; another negative errno of the kernel's (-ENOENT: it
 * has no such family); -EBADMSG
 */
int inet_diag_parse(const void *buf, size_t len, uint32_t seq, uint32_t uid,
		    struct inet_diag_list *list);
