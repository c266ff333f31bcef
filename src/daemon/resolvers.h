/* Which resolvers this computer itself uses. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Of them, as many as the VM is told. */
#define RESOLVERS_MAX 3

/**
 * resolvers_parse() - The servers of a resolv.conf(5) that the VM can ask
 * @text:	@len bytes, need not be terminated
 * @own:	Ours, which is no resolver: the VM's address
 * @ipv6:	Whether the VM has IPv6
 * @ret:	RESOLVERS_MAX addresses; loopback, link-local and @own are left
 * out
 * @ret_local:	Set if a loopback address was left out
 *
 * Pure. Return: how many are in @ret.
 */
size_t resolvers_parse(const char *text, size_t len, struct in_addr own,
		       bool ipv6, struct in6_addr *ret, bool *ret_local);

/**
 * resolvers_find() - Read them from this computer's configuration
 *
 * /etc/resolv.conf, or what systemd-resolved says it asks where that names
 * systemd-resolved. Return: how many are in @ret, 0 if there is none, as before
 * a network is there; -ENOENT with a sentence: only a program of this computer.
 */
int resolvers_find(struct in_addr own, bool ipv6, struct in6_addr *ret,
		   struct error *e);
