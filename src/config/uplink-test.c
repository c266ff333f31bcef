#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/ip.h"
#include "config/uplink.h"

#define FP "0123456789ABCDEF0123456789ABCDEF01234567"
#define CERT                       \
	"AAAAAAAAAAAAAAAAAAAAAAAA" \
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static void describe(const struct uplink *u, char *ret, size_t size)
{
	size_t used = 0;

	used += (size_t)snprintf(
		ret, size, "%s%s%s%s%s", u->ipv6 ? "(ipv6) " : "",
		u->any_tcp ? "any-tcp " : "", u->any_udp ? "any-udp " : "",
		u->any_tcp6 ? "any-tcp6 " : "", u->any_udp6 ? "any-udp6 " : "");
	for (size_t i = 0; i < u->n; i++) {
		const struct uplink_target *t = &u->targets[i];
		char ip[IP_TEXT_MAX] = "?";

		if (t->known)
			ip_format(&t->address, ip);
		used += (size_t)snprintf(
			ret + used, size - used, "%s:%s%s%s:%u%s ",
			t->protocol == IPPROTO_UDP ? "udp" : "tcp", ip,
			t->host[0] ? "=" : "", t->host, t->port,
			t->proxy ? "!" : "");
	}
}

/* @json: of sections; single quotes. */
static void plans(const char *json, const char *wanted)
{
	char *copy = strdup(json), text[2000];
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;
	struct uplink u;

	for (char *s = copy; *s; s++)
		if (*s == '\'')
			*s = '"';
	if (config_parse("t", copy, strlen(copy), &cfg, &e) < 0)
		fail_msg("%s: %s", json, e.text);
	assert_int_equal(uplink_plan(cfg, &u, &e), 0);
	describe(&u, text, sizeof(text));
	assert_string_equal(text, wanted);
	config_free(cfg);
	free(copy);
}

#define BRIDGES(transport, lines)                                         \
	"{'bridge': {'use_bridges': true, 'transport': '" transport "', " \
	"'bridges': [" lines "]}}"

static void direct(void **state)
{
	plans("{}", "any-tcp ");
	plans("{'tor': {'client_use_ipv6': true}}", "(ipv6) any-tcp any-tcp6 ");
	plans("{'tor': {'client_use_ipv6': true, 'client_use_ipv4': false}}",
	      "(ipv6) any-tcp6 ");
}

static void addresses_of_bridges(void **state)
{
	plans(BRIDGES("none", "'192.0.2.4:443 " FP "', '[2001:db8::4]:443', "
			      "'obfs4 192.0.2.9:1 cert=" CERT " iat-mode=0'"),
	      "(ipv6) tcp:192.0.2.4:443 tcp:2001:db8::4:443 ");
	plans(BRIDGES("obfs4",
		      "'obfs4 [fd00::4]:80 " FP " cert=" CERT " iat-mode=0'"),
	      "(ipv6) tcp:fd00::4:80 ");
	plans(BRIDGES("obfs4",
		      "'obfs4 192.0.2.4:443 " FP " cert=" CERT " iat-mode=0',"
		      "'obfs4 192.0.2.4:443 " FP " cert=" CERT " iat-mode=1',"
		      "'obfs4 10.0.0.4:80 " FP " cert=" CERT " iat-mode=0'"),
	      "tcp:192.0.2.4:443 tcp:10.0.0.4:80 ");
}

/* The line's own address is a placeholder. */
static void where_a_transport_connects_to(void **state)
{
	plans(BRIDGES("webtunnel", "'webtunnel [2001:db8::1]:443 " FP
				   " url=https://tunnel.example/secret'"),
	      "tcp:?=tunnel.example:443 ");
	plans(BRIDGES("webtunnel", "'webtunnel 192.0.2.3:1 " FP
				   " url=http://tunnel.example:8080/secret'"),
	      "tcp:?=tunnel.example:8080 ");
	plans(BRIDGES("webtunnel",
		      "'webtunnel 192.0.2.3:1 " FP
		      " url=https://tunnel.example/secret addr=192.0.2.7:444'"),
	      "tcp:192.0.2.7:444 ");
	plans(BRIDGES("meek", "'meek_lite 192.0.2.20:80 " FP
			      " url=https://meek.example/ "
			      "front=front.example'"),
	      "tcp:?=front.example:443 ");
	plans(BRIDGES("meek", "'meek_lite 192.0.2.20:80 " FP
			      " url=https://meek.example/'"),
	      "tcp:?=meek.example:443 ");
	plans(BRIDGES("meek", "'meek_lite 192.0.2.20:80 " FP
			      " targets=https://a.example/|f.example+"
			      "g.example,https://b.example/'"),
	      "tcp:?=f.example:443 tcp:?=g.example:443 "
	      "tcp:?=b.example:443 ");
	plans(BRIDGES("snowflake",
		      "'snowflake 192.0.2.3:80 " FP " fingerprint=" FP
		      " url=https://broker.example/ fronts=f.example,g.example "
		      "ice=stun:stun.example:3478,stun:stun2.example:10000'"),
	      "any-udp tcp:?=f.example:443 tcp:?=g.example:443 "
	      "udp:?=stun.example:3478 udp:?=stun2.example:10000 ");
	plans(BRIDGES("snowflake",
		      "'snowflake 192.0.2.3:80 " FP " fingerprint=" FP
		      " url=https://broker.example/ "
		      "ampcache=https://cache.example/'"),
	      "any-udp tcp:?=cache.example:443 ");
}

static void pinned_names(void **state)
{
	plans("{'bridge': {'use_bridges': true, 'transport': 'meek', "
	      "'addresses': ['FRONT.example=192.0.2.1', "
	      "'front.example=192.0.2.2', 'other.example=192.0.2.3'], "
	      "'bridges': ['meek_lite 192.0.2.20:80 " FP
	      " url=https://meek.example/ front=front.example']}}",
	      "tcp:192.0.2.1=front.example:443 "
	      "tcp:192.0.2.2=front.example:443 ");
	plans("{'bridge': {'use_bridges': true, 'transport': 'meek', "
	      "'addresses': ['front.example=2001:db8::2'], "
	      "'bridges': ['meek_lite 192.0.2.20:80 " FP
	      " url=https://meek.example/ front=front.example']}}",
	      "(ipv6) tcp:2001:db8::2=front.example:443 ");
}

/* Whatever lies behind it. */
static void a_proxy_is_all_there_is(void **state)
{
	plans("{'proxy': {'type': 'http', 'address': '10.1.2.3:3128'}}",
	      "tcp:10.1.2.3:3128! ");
	plans("{'proxy': {'type': 'http', 'address': '[fd12::3]:3128'}, "
	      "'tor': {'client_use_ipv6': true}}",
	      "(ipv6) tcp:fd12::3:3128! ");
	plans("{'proxy': {'type': 'socks5', 'address': 'proxy.example:1080'}, "
	      "'bridge': {'use_bridges': true, 'transport': 'webtunnel', "
	      "'bridges': ['webtunnel 192.0.2.3:443 " FP
	      " url=https://tunnel.example/secret']}}",
	      "tcp:?=proxy.example:1080! ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(direct),
		cmocka_unit_test(addresses_of_bridges),
		cmocka_unit_test(where_a_transport_connects_to),
		cmocka_unit_test(pinned_names),
		cmocka_unit_test(a_proxy_is_all_there_is),
	};

	return cmocka_run_group_tests_name("uplink", tests, NULL, NULL);
}
