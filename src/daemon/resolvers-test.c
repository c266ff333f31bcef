#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/resolvers.h"

static void parses(const char *text, const char *wanted, bool local)
{
	struct in_addr own, found[RESOLVERS_MAX];
	bool is_local;
	char list[80] = "";
	size_t n;

	inet_aton("10.10.10.1", &own);
	n = resolvers_parse(text, strlen(text), own, found, &is_local);
	for (size_t i = 0; i < n; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list),
			 "%s ", inet_ntoa(found[i]));
	assert_string_equal(list, wanted);
	assert_int_equal(is_local, local);
}

static void servers_the_vm_can_ask(void **state)
{
	parses("# nameserver 192.0.2.9\n"
	       "search example\n"
	       "nameserver 192.168.1.1\n"
	       "nameserver\t192.0.2.53   \n"
	       "nameservers 192.0.2.1\n"
	       "nameserver 192.168.1.1",
	       "192.168.1.1 192.0.2.53 ", false);
	parses("nameserver 127.0.0.53\noptions edns0\n", "", true);
	parses("nameserver ::1\nnameserver fe80::1%eth0\n", "", true);
	/* Ours, which TorVM itself told systemd-resolved. */
	parses("nameserver 10.10.10.1\nnameserver 192.0.2.53\n", "192.0.2.53 ",
	       false);
	parses("nameserver 192.0.2.1\nnameserver 192.0.2.2\n"
	       "nameserver 192.0.2.3\nnameserver 192.0.2.4\n",
	       "192.0.2.1 192.0.2.2 192.0.2.3 ", false);
	parses("nameserver 224.0.0.1\nnameserver 0.0.0.0\nnameserver x\n"
	       "nameserver\nnameserver ",
	       "", false);
	parses("", "", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(servers_the_vm_can_ask),
	};

	return cmocka_run_group_tests_name("resolvers", tests, NULL, NULL);
}
