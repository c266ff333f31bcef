/* Addresses of either family in one type: IPv4 as ::ffff:a.b.c.d (RFC 4291,
 * 2.5.5.2), which is never written like that. And IP's checksum. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for ip_format(), terminator included. */
#define IP_TEXT_MAX INET6_ADDRSTRLEN

struct in6_addr ip_from_v4(struct in_addr v4);
bool ip_is_v4(const struct in6_addr *ip);
struct in_addr ip_to_v4(const struct in6_addr *ip); /* of one that is */
bool ip_equal(const struct in6_addr *a, const struct in6_addr *b);

/**
 * ip_parse() - Parse "192.0.2.1" or "2001:db8::1", without brackets
 *
 * Return: 0, or -EINVAL: something else, a host name or a mapped address for
 * instance
 */
int ip_parse(const char *text, struct in6_addr *ret);

/* Writes what ip_parse() reads. Return: @buf */
const char *ip_format(const struct in6_addr *ip, char buf[IP_TEXT_MAX]);

/* Whether another machine can have it and be reached by a router: of IPv6 the
 * global addresses, the local ones of fc00::/7 and those that stand for IPv4
 * (64:ff9b::/96, RFC 6052). */
bool ip_is_unicast(const struct in6_addr *ip);

/* Whether a unicast address is one that the Internet does not route, or may
 * hide one (6to4, 64:ff9b::/96). */
bool ip_is_private(const struct in6_addr *ip);

/**
 * ip_sum() - Add up 16 bit words for a checksum (RFC 1071)
 * @len:	In bytes; even
 * @sum:	Of what goes before, or 0
 */
uint32_t ip_sum(const void *data, size_t len, uint32_t sum);

/* The checksum of what was added up, in network order. */
uint16_t ip_checksum(uint32_t sum);
