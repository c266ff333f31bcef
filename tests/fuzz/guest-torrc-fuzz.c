/*
 * The guest's look at the torrc: whatever is accepted holds each fixed line,
 * and none that takes one of them back.
 */
#include "fuzz.h"

#include <string.h>

#include "init/contract.h"
#include "init/torrc.h"

static int accepted(const uint8_t *data, size_t size, bool state_disk)
{
	struct error e = ERROR_NULL(e);
	const struct guest_config config = {
		.state_disk = state_disk,
		.vm_ip.s_addr = htonl(0x0a0a0a01),
	};
	bool geoip;
	int r = guest_torrc_check((const char *)data, size, &config, &geoip,
				  &e);

	must(r == e.code);
	must(r == 0 || (e.text[0] && is_printable(e.text)));
	return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char more[] = "SocksPort 10.10.10.1:9150\n";
	int disk = accepted(data, size, true),
	    ram = accepted(data, size, false);
	char *text;

	/* DataDirectory can be in one place only. */
	must(!(disk && ram));
	if (!disk && !ram)
		return 0;
	text = malloc(size + sizeof(more));
	must(text);
	memcpy(text, data, size);
	text[size] = '\0';
	must(strstr(text, GUEST_TORRC_CONTROL_SOCKET));
	must(strstr(text, "10.10.10.1" GUEST_TORRC_TRANS_PORT));
	must(strstr(text, disk ? GUEST_TORRC_DATA_DISK : GUEST_TORRC_DATA_RAM));
	/* A second door after all of it is seen. */
	memcpy(text + size, more, sizeof(more));
	must(!accepted((uint8_t *)text, size + sizeof(more) - 1, disk));
	free(text);
	return 0;
}
