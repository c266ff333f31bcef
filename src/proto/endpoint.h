/* An IP address and a port. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct endpoint {
	uint8_t address[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
	uint16_t port;       /* host order */
};

/* Room for endpoint_format(), terminator included. */
#define ENDPOINT_TEXT_MAX 56

/* The same from the bytes of the kernel or of a packet. */
struct endpoint endpoint_from_ip4(const void *address, uint16_t port);
struct endpoint endpoint_from_ip6(const void *address, uint16_t port);

/**
 * endpoint_parse() - Parse "192.0.2.1:80" or "[2001:db8::1]:80"
 * @len:	Of @text, which need not be terminated
 *
 * Return: 0, or -EINVAL: something else, a host name for instance
 */
int endpoint_parse(const char *text, size_t len, struct endpoint *ret);

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);

/* Writes what endpoint_parse() reads. Return: @buf */
const char *endpoint_format(const struct endpoint *e,
			    char buf[ENDPOINT_TEXT_MAX]);
