/* The pure parts: what a ruleset holds in each mode, where a link leads. */
#include "platform/linux/ruleset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_arp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>

#include "base/golden.h"
#include "base/ip.h"

#define MARK 0x5eedf00du

static struct net_plan plan(void)
{
	struct net_plan p = {
		.tap_name = "torvm0",
		.vm_uid = 61101,
		.mark = MARK,
		.uplink = { .any_tcp = true },
	};

	inet_pton(AF_INET, "10.10.10.2", &p.host_ip);
	inet_pton(AF_INET, "10.10.10.1", &p.vm_ip);
	return p;
}

static struct net_link ether(int index, const char *name, const char *kind,
			     int master)
{
	struct net_link link = {
		.index = index,
		.type = ARPHRD_ETHER,
		.master = master,
	};

	assert_int_equal(str_copy(link.name, sizeof(link.name), name), 0);
	assert_int_equal(str_copy(link.kind, sizeof(link.kind), kind), 0);
	return link;
}

static struct net_link tap(void)
{
	struct net_link link = ether(3, "torvm0", "tun", 0);

	memcpy(link.mac, (const uint8_t[])NET_TAP_MAC_BYTES, sizeof(link.mac));
	link.mac_len = sizeof(link.mac);
	return link;
}

static const struct nlmsghdr *next_message(const struct nft_batch *b,
					   size_t *offset)
{
	const struct nlmsghdr *nlh;

	if (*offset >= b->len)
		return NULL;
	nlh = (const struct nlmsghdr *)(b->buf + *offset);
	*offset += NLMSG_ALIGN(nlh->nlmsg_len);
	return nlh;
}

struct summary {
	unsigned int egress_chains, devices, postrouting_policy;
	unsigned int tables, marks; /* the plan's mark in rules */
	bool rule_into_tap;
};

/* How often the four bytes of the mark occur in a rule. */
static unsigned int count_mark(const struct nlmsghdr *nlh)
{
	const uint32_t mark = MARK;
	const char *p = (const char *)nlh;
	unsigned int n = 0;

	for (size_t i = 0; i + 4 <= nlh->nlmsg_len; i++)
		n += memcmp(p + i, &mark, 4) == 0;
	return n;
}

static struct summary summarize(const struct nft_batch *b)
{
	struct summary s = { .postrouting_policy = UINT32_MAX };
	const struct nlmsghdr *nlh;
	size_t offset = 0;

	while ((nlh = next_message(b, &offset))) {
		struct nftnl_chain *c;
		struct nftnl_rule *rule;
		const char *const *devices;
		const char *name;

		switch (nlh->nlmsg_type & 255) {
		case NFT_MSG_NEWTABLE:
			s.tables +=
				nlh->nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES;
			break;
		case NFT_MSG_NEWRULE:
			rule = nftnl_rule_alloc();
			nftnl_rule_nlmsg_parse(nlh, rule);
			name = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
			if (strcmp(name, "output") == 0 &&
			    memmem(nlh, nlh->nlmsg_len, "TCP into the TAP", 16))
				s.rule_into_tap = true;
			s.marks += count_mark(nlh);
			nftnl_rule_free(rule);
			break;
		case NFT_MSG_NEWCHAIN:
			c = nftnl_chain_alloc();
			nftnl_chain_nlmsg_parse(nlh, c);
			name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
			if (strcmp(name, "postrouting") == 0)
				s.postrouting_policy = nftnl_chain_get_u32(
					c, NFTNL_CHAIN_POLICY);
			if (strncmp(name, "egress", 6) == 0) {
				s.egress_chains++;
				devices = nftnl_chain_get_array(
					c, NFTNL_CHAIN_DEVICES);
				while (devices && *devices++)
					s.devices++;
				assert_int_equal(nftnl_chain_get_u32(
							 c, NFTNL_CHAIN_POLICY),
						 NF_DROP);
			}
			nftnl_chain_free(c);
			break;
		}
	}
	return s;
}

/* A ruleset's rules in words: of the chain that says whom the uplink reaches,
 * and of all others. */
struct rules_text {
	char uplink[16384], others[131072];
};

/* libnftnl's own words for a rule change with its version: here each expression
 * with its attributes' numbers (libnftnl/expr.h) and bytes. */
static void describe(struct nftnl_rule *rule, char *to, size_t size)
{
	struct nftnl_expr_iter *it = nftnl_expr_iter_create(rule);
	FILE *f = fmemopen(to + strlen(to), size - strlen(to), "w");
	struct nftnl_expr *e;

	assert_non_null(f);
	fprintf(f, "%s\n", nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN));
	while ((e = nftnl_expr_iter_next(it))) {
		fprintf(f, "\t%s", nftnl_expr_get_str(e, NFTNL_EXPR_NAME));
		for (uint16_t i = NFTNL_EXPR_BASE; i < NFTNL_EXPR_BASE + 12;
		     i++) {
			uint32_t len = 0;
			const uint8_t *data =
				nftnl_expr_is_set(e, i)
					? nftnl_expr_get(e, i, &len)
					: NULL;

			if (data)
				fprintf(f, " %u=", i - NFTNL_EXPR_BASE);
			for (uint32_t k = 0; data && k < len; k++)
				fprintf(f, "%02x", data[k]);
		}
		fputc('\n', f);
	}
	assert_int_equal(ferror(f), 0);
	assert_int_equal(fclose(f), 0);
	nftnl_expr_iter_destroy(it);
}

static void write_rules(const struct nft_batch *b, struct rules_text *ret)
{
	const struct nlmsghdr *nlh;
	size_t offset = 0;

	ret->uplink[0] = ret->others[0] = '\0';
	while ((nlh = next_message(b, &offset))) {
		struct nftnl_rule *rule;
		char *to = ret->others;
		size_t size = sizeof(ret->others);

		if ((nlh->nlmsg_type & 255) != NFT_MSG_NEWRULE)
			continue;
		rule = nftnl_rule_alloc();
		nftnl_rule_nlmsg_parse(nlh, rule);
		if (!strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN),
			    "uplink")) {
			to = ret->uplink;
			size = sizeof(ret->uplink);
		}
		describe(rule, to, size);
		nftnl_rule_free(rule);
	}
}

static struct lan test_lan;

static int build_plan(const struct net_plan *p, enum net_firewall mode,
		      const struct net_links *links, struct summary *ret,
		      struct rules_text *text)
{
	const struct ruleset rs = {
		.plan = p,
		.mode = mode,
		.links = links,
		.lan = &test_lan,
	};
	struct nft_batch b;
	int r;

	assert_int_equal(nft_batch_begin(&b, 1), 0);
	ruleset_build(&b, &rs);
	r = nft_batch_end(&b);
	if (r == 0 && ret)
		*ret = summarize(&b);
	if (r == 0 && text)
		write_rules(&b, text);
	nft_batch_done(&b);
	return r;
}

static int build(enum net_firewall mode, const struct net_links *links,
		 struct summary *ret)
{
	const struct net_plan p = plan();

	return build_plan(&p, mode, links, ret, NULL);
}

static void test_modes(void **state)
{
	struct net_link v[] = {
		{ .index = 1, .type = ARPHRD_LOOPBACK, .name = "lo" },
		ether(2, "eth0", "", 0),
		tap(),
	};
	const struct net_links links = { v, ARRAY_SIZE(v) };
	struct summary s;

	assert_int_equal(build(NET_FIREWALL_BLOCKED, &links, &s), 0);
	assert_int_equal(s.tables, 2);
	assert_int_equal(s.postrouting_policy, NF_DROP);
	assert_int_equal(s.devices, 1);
	/* Nothing can pass by a mark, and nothing enters the TAP. */
	assert_int_equal(s.marks, 0);
	assert_false(s.rule_into_tap);

	assert_int_equal(build(NET_FIREWALL_UPLINK, &links, &s), 0);
	assert_int_equal(s.postrouting_policy, NF_DROP);
	assert_true(s.marks > 0);
	assert_false(s.rule_into_tap);

	assert_int_equal(build(NET_FIREWALL_OPEN, &links, &s), 0);
	assert_int_equal(s.postrouting_policy, NF_DROP);
	assert_true(s.rule_into_tap);
}

static void uplink_is(const struct net_plan *p, const char *name,
		      struct rules_text *text)
{
	struct net_link v[] = { ether(2, "eth0", "", 0), tap() };
	const struct net_links links = { v, ARRAY_SIZE(v) };
	char path[512];

	assert_int_equal(build_plan(p, NET_FIREWALL_OPEN, &links, NULL, text),
			 0);
	snprintf(path, sizeof(path), "%s/%s.rules", GOLDEN_DIR, name);
	golden_check(path, text->uplink);
}

/* Who does not ask for IPv6 gets not one rule with it, and who does gets no
 * other rule than these. */
static void test_uplink_families(void **state)
{
	static struct rules_text ipv4, other;
	struct net_plan p = plan();

	uplink_is(&p, "uplink-ipv4", &ipv4);
	p.uplink.any_tcp6 = true;
	uplink_is(&p, "uplink-both", &other);
	assert_string_equal(other.others, ipv4.others);
	p.uplink = (struct net_uplink){ .any_tcp6 = true, .any_udp6 = true };
	uplink_is(&p, "uplink-ipv6", &other);
	assert_string_equal(other.others, ipv4.others);
	p.uplink = (struct net_uplink){
		.n_peers = 2,
		.peers = { { .protocol = IPPROTO_TCP, .port = 443 },
			   { .protocol = IPPROTO_UDP, .port = 53 } },
	};
	assert_int_equal(ip_parse("fd00::5", &p.uplink.peers[0].address), 0);
	assert_int_equal(ip_parse("192.0.2.5", &p.uplink.peers[1].address), 0);
	uplink_is(&p, "uplink-peers", &other);
	assert_string_equal(other.others, ipv4.others);
}

static void test_most_peers(void **state)
{
	struct net_link v[] = { ether(2, "eth0", "", 0), tap() };
	const struct net_links links = { v, ARRAY_SIZE(v) };
	struct net_plan p = plan();

	p.uplink = (struct net_uplink){ .n_peers = NET_PEERS_MAX };
	for (size_t i = 0; i < NET_PEERS_MAX; i++) {
		p.uplink.peers[i].protocol = IPPROTO_TCP;
		p.uplink.peers[i].port = 443;
		ip_parse("2001:db8::1", &p.uplink.peers[i].address);
	}
	assert_int_equal(build_plan(&p, NET_FIREWALL_OPEN, &links, NULL, NULL),
			 0);
}

/* LAN access opens nothing but its own: no way into the TAP, none by a mark
 * that a packet brings along. */
static void test_lan_modes(void **state)
{
	struct net_link v[] = { ether(2, "eth0", "", 0), tap() };
	const struct net_links links = { v, ARRAY_SIZE(v) };
	struct summary s;

	test_lan = (struct lan){
		.n = 1,
		.v = { { AF_INET, 2, 24, { 192, 168, 1 } } },
	};
	assert_int_equal(build(NET_FIREWALL_BLOCKED, &links, &s), 0);
	assert_int_equal(s.postrouting_policy, NF_DROP);
	assert_false(s.rule_into_tap);
	/* Set in postrouting, accepted in egress. */
	assert_int_equal(s.marks, 2);
	assert_int_equal(build(NET_FIREWALL_LOCKDOWN, &links, &s), 0);
	assert_int_equal(s.marks, 0);
	test_lan.n = 0;
}

static void test_lan_networks(void **state)
{
	const struct {
		int family;
		const char *address;
		uint8_t len;
		bool is_private;
	} networks[] = {
		{ AF_INET, "10.0.0.0", 8, true },
		{ AF_INET, "10.20.0.0", 16, true },
		{ AF_INET, "10.0.0.0", 7, false },
		{ AF_INET, "172.16.0.0", 12, true },
		{ AF_INET, "172.31.255.0", 24, true },
		{ AF_INET, "172.32.0.0", 16, false },
		{ AF_INET, "172.0.0.0", 8, false },
		{ AF_INET, "192.168.0.0", 15, false },
		{ AF_INET, "192.168.77.0", 24, true },
		{ AF_INET, "169.254.0.0", 16, true },
		{ AF_INET, "100.64.0.0", 10, false },
		{ AF_INET, "192.0.2.0", 24, false },
		{ AF_INET, "0.0.0.0", 0, false },
		{ AF_INET6, "fe80::", 64, true },
		{ AF_INET6, "fd00:1::", 64, true },
		{ AF_INET6, "fc00::", 7, true },
		{ AF_INET6, "fc00::", 6, false },
		{ AF_INET6, "2001:db8::", 64, false },
		{ AF_INET6, "fec0::", 64, false },
		{ AF_INET6, "ff02::", 16, false },
	};
	const struct lan lan = {
		.n = 2,
		.v = { { AF_INET, 2, 20, { 192, 168, 16 } },
		       { AF_INET6, 3, 64, { 0xfe, 0x80 } } },
	};
	const struct lan less = { .n = 1, .v = { lan.v[0] } };
	uint8_t mask[16];

	for (size_t i = 0; i < ARRAY_SIZE(networks); i++) {
		uint8_t address[16] = { 0 };

		inet_pton(networks[i].family, networks[i].address, address);
		if (lan_is_private(networks[i].family, address,
				   networks[i].len) != networks[i].is_private)
			fail_msg("%s/%u", networks[i].address, networks[i].len);
	}
	assert_true(lan_covers(&lan, 2, AF_INET,
			       (const uint8_t[16]){ 192, 168, 31 }, 24));
	assert_false(lan_covers(&lan, 2, AF_INET,
				(const uint8_t[16]){ 192, 168, 32 }, 24));
	assert_false(lan_covers(&lan, 2, AF_INET,
				(const uint8_t[16]){ 192, 168, 16 }, 19));
	assert_false(lan_covers(&lan, 3, AF_INET,
				(const uint8_t[16]){ 192, 168, 16 }, 24));
	assert_true(lan_same(&lan, &lan));
	assert_false(lan_same(&lan, &less));
	assert_false(lan_same(&less, &lan));
	lan_mask(20, mask);
	assert_memory_equal(mask, ((const uint8_t[16]){ 255, 255, 240 }), 16);
	lan_mask(0, mask);
	assert_memory_equal(mask, (const uint8_t[16]){ 0 }, 16);
}

static void test_many_links(void **state)
{
	const size_t most = 16 * 256;
	struct net_links links = {
		.v = calloc(most + 1, sizeof(*links.v)),
	};
	struct summary s;
	char name[16];

	assert_non_null(links.v);
	for (size_t i = 0; i <= most; i++) {
		snprintf(name, sizeof(name), "eth%zu", i);
		links.v[i] = ether((int)i + 2, name, "", 0);
	}
	links.n = 0;
	assert_int_equal(build(NET_FIREWALL_OPEN, &links, &s), 0);
	assert_int_equal(s.egress_chains, 0);
	links.n = 256;
	assert_int_equal(build(NET_FIREWALL_OPEN, &links, &s), 0);
	assert_int_equal(s.egress_chains, 1);
	links.n = 257;
	assert_int_equal(build(NET_FIREWALL_OPEN, &links, &s), 0);
	assert_int_equal(s.egress_chains, 2);
	assert_int_equal(s.devices, 257);
	links.n = most;
	assert_int_equal(build(NET_FIREWALL_OPEN, &links, &s), 0);
	assert_int_equal(s.devices, most);
	/* One link without a guard would be a hole: no ruleset at all. */
	links.n = most + 1;
	assert_int_equal(build(NET_FIREWALL_OPEN, &links, &s), -E2BIG);
	free(links.v);
}

static void test_batch_overflow(void **state)
{
	struct nft_batch b;

	assert_int_equal(nft_batch_begin(&b, 1), 0);
	for (int i = 0; i < 2 * NFT_BATCH_MESSAGES; i++)
		nft_table_add(&b, NFPROTO_INET, "t", 0, NULL);
	assert_int_equal(nft_batch_end(&b), -E2BIG);
	assert_true(b.len <= NFT_BATCH_SIZE);
	nft_batch_done(&b);
}

static void test_reach(void **state)
{
	struct net_link v[] = {
		{ .index = 1, .type = ARPHRD_LOOPBACK, .name = "lo" },
		ether(2, "eth0", "", 0),
		tap(),
		/* containers and a guest */
		ether(4, "docker0", "bridge", 0),
		ether(5, "veth1", "veth", 4),
		ether(6, "vnet0", "tun", 4),
		/* a guest on the LAN */
		ether(7, "br0", "bridge", 0),
		ether(8, "eth1", "", 7),
		ether(9, "vnet1", "tun", 7),
		/* its ports are VLANs of the LAN */
		ether(10, "br1", "bridge", 0),
		ether(11, "eth0.7", "vlan", 10),
		ether(12, "bond0", "bond", 0),
		ether(13, "eth2", "", 12),
		ether(14, "wg0", "wireguard", 0),
		/* a router behind a bridge without hardware */
		ether(15, "br2", "bridge", 0),
		ether(16, "veth2", "veth", 15),
		/* a veth of its own leads who knows where */
		ether(17, "veth3", "veth", 0),
		ether(18, "virbr0", "bridge", 0),
		/* a veth that is the way out (a container's eth0), bridged */
		ether(19, "br3", "bridge", 0),
		ether(20, "veth4", "veth", 19),
		ether(21, "veth5", "veth", 19),
	};
	static const enum link_reach expected[] = {
		LINK_REACH_LOCAL, LINK_REACH_OUTER, LINK_REACH_LOCAL,
		LINK_REACH_INNER, LINK_REACH_INNER, LINK_REACH_INNER,
		LINK_REACH_OUTER, LINK_REACH_OUTER, LINK_REACH_OUTER,
		LINK_REACH_OUTER, LINK_REACH_OUTER, LINK_REACH_OUTER,
		LINK_REACH_OUTER, LINK_REACH_OUTER, LINK_REACH_OUTER,
		LINK_REACH_OUTER, LINK_REACH_OUTER, LINK_REACH_INNER,
		LINK_REACH_OUTER, LINK_REACH_OUTER, LINK_REACH_OUTER,
	};
	const struct net_links links = { v, ARRAY_SIZE(v) };

	_Static_assert(ARRAY_SIZE(v) == ARRAY_SIZE(expected), "one each");
	v[14].gateway = true;
	v[19].gateway = true;
	assert_int_equal(link_reach(&links,
				    &(struct net_link){ .name = "torvm0" },
				    "torvm0"),
			 LINK_REACH_OUTER);
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		if (link_reach(&links, &v[i], "torvm0") != expected[i])
			fail_msg("%s: %d", v[i].name,
				 link_reach(&links, &v[i], "torvm0"));
}

static void test_tap_is_known(void **state)
{
	static const uint8_t mac[] = NET_TAP_MAC_BYTES;
	struct net_link link = ether(3, "torvm0", "tun", 0);
	char text[18];

	assert_false(link_is_tap(&link));
	memcpy(link.mac, mac, sizeof(mac));
	link.mac_len = sizeof(mac);
	assert_true(link_is_tap(&link));
	strcpy(link.kind, "veth");
	assert_false(link_is_tap(&link));
	/* The two spellings are the same, unicast, locally administered. */
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0],
		 mac[1], mac[2], mac[3], mac[4], mac[5]);
	assert_string_equal(text, NET_TAP_MAC);
	assert_int_equal(mac[0] & 3, 2);
}

static void test_array_grow(void **state)
{
	int *v = NULL;

	for (size_t n = 0; n < 1000; n++) {
		v = array_grow(v, n, sizeof(*v));
		assert_non_null(v);
		v[n] = (int)n;
	}
	for (size_t n = 0; n < 1000; n++)
		assert_int_equal(v[n], n);
	free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_uplink_families),
		cmocka_unit_test(test_most_peers),
		cmocka_unit_test(test_lan_modes),
		cmocka_unit_test(test_lan_networks),
		cmocka_unit_test(test_many_links),
		cmocka_unit_test(test_batch_overflow),
		cmocka_unit_test(test_reach),
		cmocka_unit_test(test_tap_is_known),
		cmocka_unit_test(test_array_grow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
