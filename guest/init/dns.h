/*
 * DNS, as little as looks up addresses: RFC 1035, sections 4.1 and 3.2, RFC
 * 3596. Pure: no I/O.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "init/contract.h"

#define DNS_QUERY_MAX 280 /* bytes: header, a name of 255, type and class */

enum dns_type {
	DNS_TYPE_A = 1,
	DNS_TYPE_AAAA = 28,
};

struct dns_result {
	struct in6_addr addresses[GUEST_NAME_ADDRESSES_MAX];
	size_t n;
	uint32_t ttl_s; /* the shortest */
};

/**
 * dns_query() - Write a query for a name's addresses
 * @id:		Random; the answer's has to be the same
 * @buf:	DNS_QUERY_MAX bytes
 *
 * Return: its length, or -EINVAL: such a name cannot be asked for
 */
int dns_query(uint16_t id, const char *name, enum dns_type type, uint8_t *buf);

/**
 * dns_answer() - Read what came back for dns_query()
 *
 * Return: 0 with addresses in @ret; -ENOENT: there is no such name; -ENODATA:
 * it has no address of this type; -EREMOTEIO: the resolver failed or refused;
 * -E2BIG: ask again by TCP; -EBADMSG: not an answer to this query
 */
int dns_answer(const uint8_t *packet, size_t len, uint16_t id, const char *name,
	       enum dns_type type, struct dns_result *ret);
