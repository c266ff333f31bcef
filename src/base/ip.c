#include "base/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
/* 64:ff9b::/96 */
static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };

struct in6_addr ip_from_v4(struct in_addr v4)
{
	struct in6_addr ip = { 0 };

	memcpy(ip.s6_addr, mapped, sizeof(mapped));
	memcpy(ip.s6_addr + sizeof(mapped), &v4, sizeof(v4));
	return ip;
}

bool ip_is_v4(const struct in6_addr *ip)
{
	return memcmp(ip->s6_addr, mapped, sizeof(mapped)) == 0;
}

struct in_addr ip_to_v4(const struct in6_addr *ip)
{
	struct in_addr v4 = { 0 };

	memcpy(&v4, ip->s6_addr + sizeof(mapped), sizeof(v4));
	return v4;
}

bool ip_equal(const struct in6_addr *a, const struct in6_addr *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

int ip_parse(const char *text, struct in6_addr *ret)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (inet_pton(AF_INET, text, &v4) == 1)
		*ret = ip_from_v4(v4);
	else if (inet_pton(AF_INET6, text, &v6) == 1 && !ip_is_v4(&v6))
		*ret = v6;
	else
		return -EINVAL;
	return 0;
}

const char *ip_format(const struct in6_addr *ip, char buf[IP_TEXT_MAX])
{
	struct in_addr v4 = ip_to_v4(ip);

	return ip_is_v4(ip) ? inet_ntop(AF_INET, &v4, buf, IP_TEXT_MAX)
			    : inet_ntop(AF_INET6, ip, buf, IP_TEXT_MAX);
}

static bool stands_for_v4(const struct in6_addr *ip)
{
	return ip_is_v4(ip) || memcmp(ip->s6_addr, nat64, sizeof(nat64)) == 0;
}

bool ip_is_unicast(const struct in6_addr *ip)
{
	uint8_t top = ip->s6_addr[12];

	if (stands_for_v4(ip))
		return top != 0 && top != 127 && top < 224;
	return ip->s6_addr[0] >> 5 == 1 || (ip->s6_addr[0] & 0xfe) == 0xfc;
}

bool ip_is_private(const struct in6_addr *ip)
{
	uint32_t v4 = ntohl(ip_to_v4(ip).s_addr);

	if (stands_for_v4(ip))
		return v4 >> 24 == 10 || v4 >> 20 == 0xac1 ||
		       v4 >> 16 == 0xc0a8 || v4 >> 16 == 0xa9fe ||
		       v4 >> 22 == 0x191;
	return ip->s6_addr[0] >> 5 != 1 ||
	       (ip->s6_addr[0] == 0x20 && ip->s6_addr[1] == 0x02);
}

uint32_t ip_sum(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	return sum;
}

uint16_t ip_checksum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}
