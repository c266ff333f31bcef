/* The guest's boot configuration: refused with a sentence, or usable. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <string.h>

#include "init/config.h"
#include "init/contract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_config config;
	struct error e = ERROR_NULL(e);
	int r = guest_config_parse((const char *)data, size, &config, &e);

	must(r == e.code);
	if (r < 0) {
		must(e.text[0] && is_printable(e.text));
		return 0;
	}
	must(config.time_s >= -1 && config.time_s <= GUEST_TIME_MAX);
	must((ntohl(config.host_ip.s_addr) ^ ntohl(config.vm_ip.s_addr)) == 3);
	must(!(config.host_mac[0] & 1));
	return 0;
}
