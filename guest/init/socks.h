/*
 * The client's half of SOCKS 5 as a pluggable transport wants it: RFC 1928, the
 * transport's arguments as user name and password (RFC 1929; pt-spec.txt,
 * section 3.5). Pure: no I/O.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* In this order; each has a request and a reply. */
enum socks_step {
	SOCKS_STEP_METHOD,
	SOCKS_STEP_LOGIN,
	SOCKS_STEP_CONNECT,
	SOCKS_STEP_COUNT,
};

#define SOCKS_ARGS_MAX 510    /* bytes: a user name's and a password's 255 */
#define SOCKS_REQUEST_MAX 513 /* and what goes before each */
#define SOCKS_REPLY_MAX 262   /* with a host name of 255 bytes */

/**
 * socks_request() - What to send
 * @args:	"NAME=VALUE;NAME=VALUE", 1 to SOCKS_ARGS_MAX bytes
 *
 * The transport goes where its arguments say, so the destination is the same
 * for all: one of TEST-NET-1 (RFC 5737). Return: its length.
 */
size_t socks_request(enum socks_step step, const char *args,
		     uint8_t ret[SOCKS_REQUEST_MAX]);

/**
 * socks_reply() - Judge what has come so far
 * @data:	@len bytes, never more than this function asked for
 *
 * Return: how many more bytes to read (at least), 0: it is whole and good;
 * -EBADMSG: no such reply; -EACCES: the login is refused; -ECONNREFUSED: the
 * connection is
 */
int socks_reply(enum socks_step step, const uint8_t *data, size_t len);
