#include "proto/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

struct endpoint endpoint_from_ip4(const void *address, uint16_t port)
{
	struct endpoint e = { .port = port };

	memcpy(e.address, mapped, sizeof(mapped));
	memcpy(e.address + sizeof(mapped), address, 4);
	return e;
}

struct endpoint endpoint_from_ip6(const void *address, uint16_t port)
{
	struct endpoint e = { .port = port };

	memcpy(e.address, address, sizeof(e.address));
	return e;
}

int endpoint_parse(const char *text, size_t len, struct endpoint *ret)
{
	char copy[ENDPOINT_TEXT_MAX], *address = copy, *colon;
	uint8_t bytes[16];
	uint32_t port = 0;
	bool v6;

	if (len == 0 || len >= sizeof(copy) || memchr(text, '\0', len))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	colon = strrchr(copy, ':');
	if (!colon || !colon[1] || strlen(colon + 1) > 5)
		return -EINVAL;
	*colon = '\0';
	for (const char *c = colon + 1; *c; c++) {
		if (*c < '0' || *c > '9')
			return -EINVAL;
		port = port * 10 + (uint32_t)(*c - '0');
	}
	if (port == 0 || port > UINT16_MAX)
		return -EINVAL;
	v6 = copy[0] == '[';
	if (v6) {
		if (colon - copy < 2 || colon[-1] != ']')
			return -EINVAL;
		colon[-1] = '\0';
		address++;
	}
	if (inet_pton(v6 ? AF_INET6 : AF_INET, address, bytes) != 1)
		return -EINVAL;
	*ret = v6 ? endpoint_from_ip6(bytes, (uint16_t)port)
		  : endpoint_from_ip4(bytes, (uint16_t)port);
	return 0;
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port &&
	       memcmp(a->address, b->address, sizeof(a->address)) == 0;
}

const char *endpoint_format(const struct endpoint *e,
			    char buf[ENDPOINT_TEXT_MAX])
{
	char text[INET6_ADDRSTRLEN];

	if (memcmp(e->address, mapped, sizeof(mapped)) == 0) {
		inet_ntop(AF_INET, e->address + sizeof(mapped), text,
			  sizeof(text));
		snprintf(buf, ENDPOINT_TEXT_MAX, "%s:%u", text, e->port);
	} else {
		inet_ntop(AF_INET6, e->address, text, sizeof(text));
		snprintf(buf, ENDPOINT_TEXT_MAX, "[%s]:%u", text, e->port);
	}
	return buf;
}
