/* A packet of the engine: the check, and what it promises about what passes. */
#include "fuzz.h"

#include <string.h>

#include "base/ip.h"
#include "broker/channel.h"
#include "vm/fds.h"

static void check_argv(const uint8_t *data, size_t size)
{
	char *argv[BROKER_ARGV_COUNT_MAX], *text = malloc(size + 1);
	int n;

	must(text);
	memcpy(text, data, size);
	n = broker_argv_split(text, size, argv, BROKER_ARGV_COUNT_MAX);
	if (n >= 0) {
		must(n > 0 && n < BROKER_ARGV_COUNT_MAX && !argv[n]);
		must(argv[n - 1] + strlen(argv[n - 1]) + 1 == text + size);
		if (broker_argv_check(argv, NULL) == 0)
			must(argv[0][0] == '/' && strstr(argv[0], "/qemu-"));
	}
	free(text);
}

/* One byte: how many descriptors; then the packet, cut or filled up with 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct broker_message m = { 0 };
	struct error e = ERROR_NULL(e);
	size_t n_fds;

	if (size == 0)
		return 0;
	n_fds = data[0] % (BROKER_MESSAGE_FDS_MAX + 1);
	check_argv(data + 1, size - 1);
	memcpy(&m, data + 1, size - 1 < sizeof(m) ? size - 1 : sizeof(m));
	if (broker_message_check(&m, n_fds, &e) < 0) {
		must(e.code < 0 && e.text[0] && is_printable(e.text));
		return 0;
	}
	must(m.type > BROKER_REQUEST_NONE && m.type < BROKER_REQUEST_COUNT);
	must(memchr(m.text, '\0', sizeof(m.text)));
	must(!strchr(m.text, '\n'));
	if (m.type == BROKER_REQUEST_START_VM)
		must(n_fds >= 2 &&
		     n_fds <= 1 + VM_FD_COUNT - VM_FD_FROM_ENGINE);
	else
		must(n_fds == 0);
	if (m.type == BROKER_REQUEST_SET_UPLINK)
		for (size_t i = 0; i < m.u.uplink.n_peers; i++)
			must(ip_is_unicast(&m.u.uplink.peers[i].address));
	if (m.type == BROKER_REQUEST_PRECHECK || m.type == BROKER_REQUEST_BLOCK)
		must(memchr(m.u.net.tap_name, '\0', sizeof(m.u.net.tap_name)) &&
		     !strchr(m.u.net.tap_name, '/') &&
		     m.u.net.host_ip.s_addr != m.u.net.vm_ip.s_addr);
	return 0;
}
