/* A resolv.conf(5): at most three servers, none of them this computer. */
#include "fuzz.h"

#include <arpa/inet.h>

#include "base/ip.h"
#include "daemon/resolvers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct in6_addr found[RESOLVERS_MAX];
	const struct in_addr own = { htonl(0x0a0a0a01) };
	const struct in6_addr own6 = ip_from_v4(own);
	bool local;

	for (int ipv6 = 0; ipv6 < 2; ipv6++) {
		size_t n = resolvers_parse((const char *)data, size, own, ipv6,
					   found, &local);

		must(n <= RESOLVERS_MAX);
		for (size_t i = 0; i < n; i++)
			must(ip_is_unicast(&found[i]) &&
			     !ip_equal(&found[i], &own6) &&
			     (ipv6 || ip_is_v4(&found[i])));
	}
	return 0;
}
