#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/ip.h"
#include "daemon/resolvers.h"

static void parses_for(bool ipv6, const char *text, const char *wanted,
		       bool local)
{
	struct in6_addr found[RESOLVERS_MAX];
	struct in_addr own;
	bool is_local;
	char list[160] = "", ip[IP_TEXT_MAX];
	size_t n;

	inet_aton("10.10.10.1", &own);
	n = resolvers_parse(text, strlen(text), own, ipv6, found, &is_local);
	for (size_t i = 0; i < n; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list),
			 "%s ", ip_format(&found[i], ip));
	assert_string_equal(list, wanted);
	assert_int_equal(is_local, local);
}

static void parses(const char *text, const char *wanted, bool local)
{
	parses_for(false, text, wanted, local);
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

static void ipv6_servers_where_the_vm_has_ipv6(void **state)
{
	static const char text[] = "nameserver 2001:db8::53\n"
				   "nameserver fe80::1%eth0\n"
				   "nameserver fe80::1\n"
				   "nameserver ff02::1\n"
				   "nameserver ::ffff:192.0.2.9\n"
				   "nameserver 192.0.2.53\n"
				   "nameserver fd00::53\n";

	parses_for(false, text, "192.0.2.53 ", false);
	parses_for(true, text, "2001:db8::53 192.0.2.53 fd00::53 ", false);
	parses_for(true, "nameserver ::1\n", "", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(servers_the_vm_can_ask),
		cmocka_unit_test(ipv6_servers_where_the_vm_has_ipv6),
	};

	return cmocka_run_group_tests_name("resolvers", tests, NULL, NULL);
}
