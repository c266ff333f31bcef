#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/ip.h"
#include "vm/guestconfig.h"

static void every_key(void **state)
{
	struct guestconfig g = {
		.time = 1795531036,
		.state_disk = true,
		.host_mac = { 2, 0, 0xab, 0, 0, 0xff },
	};
	struct uplink direct = { .any_tcp = true };
	_cleanup_free_ char *text = NULL;
	struct config *cfg = config_new_default();

	g.uplink = &direct;
	g.config = cfg;
	inet_aton("10.10.10.2", &g.host_ip);
	inet_aton("10.10.10.1", &g.vm_ip);
	assert_int_equal(guestconfig_render(&g, &text, NULL), 0);
	assert_string_equal(text, "version=1\n"
				  "time=1795531036\n"
				  "state_disk=1\n"
				  "host_ip=10.10.10.2\n"
				  "vm_ip=10.10.10.1\n"
				  "host_mac=02:00:ab:00:00:ff\n"
				  "uplink=tcp\n");
	config_free(cfg);
}

/* What stands behind host_mac. */
static void assert_tail(struct guestconfig *g, const char *wanted)
{
	_cleanup_free_ char *text = NULL;
	const char *tail;

	assert_int_equal(guestconfig_render(g, &text, NULL), 0);
	tail = strstr(text, "uplink=");
	assert_non_null(tail);
	assert_string_equal(tail, wanted);
}

static void whom_the_uplink_reaches(void **state)
{
	struct uplink u = {
		.any_udp = true,
		.n = 3,
		.targets = {
			{ .protocol = IPPROTO_TCP, .port = 443, .known = true },
			{ .protocol = IPPROTO_TCP, .port = 80, .known = true,
			  .host = "front.example" },
			{ .protocol = IPPROTO_UDP, .port = 3478,
			  .host = "stun.example" },
		},
	};
	struct in6_addr resolver;
	struct guestconfig g = {
		.uplink = &u,
		.resolvers = &resolver,
		.n_resolvers = 1,
		.transport = "snowflake",
	};
	struct config *cfg = config_new_default();

	g.config = cfg;
	ip_parse("192.168.1.1", &resolver);
	ip_parse("192.0.2.4", &u.targets[0].address);
	ip_parse("192.0.2.5", &u.targets[1].address);
	assert_tail(&g, "uplink=udp\n"
			"peer=tcp 192.0.2.4 443\n"
			"peer=tcp 192.0.2.5 80\n"
			"host=front.example 192.0.2.5\n"
			"name=udp stun.example 3478\n"
			"resolver=192.168.1.1\n"
			"transport=snowflake\n");
	u.ipv6 = u.any_tcp6 = u.any_udp6 = true;
	u.n = 1;
	g.transport = NULL;
	ip_parse("2001:db8::53", &resolver);
	ip_parse("fd00::4", &u.targets[0].address);
	assert_tail(&g, "uplink=udp tcp6 udp6\n"
			"ipv6=1\n"
			"peer=tcp fd00::4 443\n"
			"resolver=2001:db8::53\n");
	config_free(cfg);
}

static void replace(char **at, const char *value)
{
	free(*at);
	*at = strdup(value);
}

/* The login of a transport's proxy; Tor's own proxy is in the torrc. */
static void a_proxy_of_the_transport(void **state)
{
	struct uplink u = { 0 };
	struct config *cfg = config_new_default();
	struct guestconfig g = { .uplink = &u, .config = cfg };

	cfg->proxy.type = CONFIG_PROXY_HTTP;
	replace(&cfg->proxy.address, "proxy.example:3128");
	assert_tail(&g, "uplink=none\n");
	g.transport = "obfs4";
	assert_tail(&g, "uplink=none\ntransport=obfs4\n"
			"proxy=http proxy.example 3128\n");
	replace(&cfg->proxy.username, "me");
	replace(&cfg->proxy.password, "a b@c:%");
	cfg->proxy.type = CONFIG_PROXY_SOCKS5;
	assert_tail(&g, "uplink=none\ntransport=obfs4\n"
			"proxy=socks5 proxy.example 3128 "
			"me:a%20b%40c%3A%25\n");
	replace(&cfg->proxy.address, "[2001:db8::8]:1080");
	replace(&cfg->proxy.username, "");
	assert_tail(&g, "uplink=none\ntransport=obfs4\n"
			"proxy=socks5 2001:db8::8 1080\n");
	config_free(cfg);
}

/* It is the TLS client's; the transport, or Tor, goes to that one. */
static void a_proxy_by_tls(void **state)
{
	struct uplink u = { 0 };
	struct config *cfg = config_new_default();
	struct guestconfig g = { .uplink = &u, .config = cfg };

	cfg->proxy.type = CONFIG_PROXY_HTTPS;
	replace(&cfg->proxy.address, "proxy.example:443");
	replace(&cfg->proxy.username, "me");
	replace(&cfg->proxy.password, "pw");
	assert_tail(&g, "uplink=none\ntls_proxy=proxy.example 443 public\n");
	replace(&cfg->proxy.ca_file, "/etc/ca.pem");
	g.transport = "obfs4";
	assert_tail(&g, "uplink=none\ntls_proxy=proxy.example 443 own\n"
			"transport=obfs4\n"
			"proxy=http 127.0.0.1 9094 me:pw\n");
	config_free(cfg);
}

/* As a transport gets them by SOCKS; what has a meaning there is escaped. */
static void the_way_to_the_bridge_service(void **state)
{
	struct uplink u = { 0 };
	struct config *cfg = config_new_default();
	char line[] = "meek_lite 192.0.2.20:80 url=https://a/;\\b front=c";
	char *lines[] = { line };
	struct guestconfig g = {
		.uplink = &u,
		.config = cfg,
		.transport = "meek_lite",
		.moat = true,
	};

	cfg->bridge.bridges = lines;
	cfg->bridge.n_bridges = 1;
	assert_tail(&g, "uplink=none\ntransport=meek_lite\n"
			"moat=url=https://a/\\;\\\\b;front=c\n");
	cfg->bridge.bridges = NULL;
	cfg->bridge.n_bridges = 0;
	config_free(cfg);
}

static void a_memfd_holds_the_text_and_is_sealed(void **state)
{
	char text[16] = "";
	int fd = guestconfig_memfd("torrc", "Sandbox 1\n", NULL);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, text, sizeof(text), 0), 10);
	assert_string_equal(text, "Sandbox 1\n");
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_key),
		cmocka_unit_test(whom_the_uplink_reaches),
		cmocka_unit_test(a_proxy_of_the_transport),
		cmocka_unit_test(a_proxy_by_tls),
		cmocka_unit_test(the_way_to_the_bridge_service),
		cmocka_unit_test(a_memfd_holds_the_text_and_is_sealed),
	};

	return cmocka_run_group_tests_name("guestconfig", tests, NULL, NULL);
}
