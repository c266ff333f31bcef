/* A resolv.conf(5): at most three servers, none of them this computer. */
#include "fuzz.h"

#include <arpa/inet.h>

#include "daemon/resolvers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct in_addr found[RESOLVERS_MAX];
	const struct in_addr own = { htonl(0x0a0a0a01) };
	bool local;
	size_t n =
		resolvers_parse((const char *)data, size, own, found, &local);

	must(n <= RESOLVERS_MAX);
	for (size_t i = 0; i < n; i++) {
		uint32_t top = ntohl(found[i].s_addr) >> 24;

		must(top != 127 && top != 0 && top < 224);
		must(found[i].s_addr != own.s_addr);
	}
	return 0;
}
