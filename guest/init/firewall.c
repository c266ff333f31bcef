/*
 * Theory of operation
 *
 * One table, inet torvm, loaded as one transaction before any link is up. In
 * nft's words, with the addresses of the configuration:
 *
 *   chain nat { type nat hook prerouting priority dstnat
 *     iifname eth1 ip saddr HOST udp dport 53 redirect to :9093
 *     iifname != eth1 accept;  ip daddr VM accept;  tcp dport 53 accept
 *     ip saddr HOST tcp flags & (fin|syn|rst|ack) == syn redirect to :9095
 *   }
 *   chain prerouting { type filter hook prerouting priority filter; drop
 *     iifname { lo, eth0 } accept
 *     iifname eth1 ip saddr HOST ip daddr VM accept
 *     iifname eth1 ip saddr HOST goto refuse
 *   }
 *   chain input { type filter hook input priority filter; drop
 *     iifname lo accept
 *     iifname eth1 udp dport 9093 udp length < 20 goto refuse
 *     iifname eth0 ct state established accept
 *     iifname eth1 ct state established accept
 *     iifname eth1 tcp dport 9050 ct state new accept
 *     iifname eth1 tcp dport 9097 ct state new accept (where it says "moat")
 *     iifname eth1 tcp dport 9095 ct state new ct status dnat accept
 *     iifname eth1 udp dport 9093 ct state new ct status dnat accept
 *     iifname eth1 goto refuse
 *   }
 *   chain output { type filter hook output priority filter; drop
 *     oifname lo accept
 *     oifname eth0 ip daddr 10.0.2.0/24 reject with icmpx admin-prohibited
 *     oifname eth0 ip meta skuid OUT jump uplink
 *     oifname eth0 ip meta skuid RESOLVER jump resolvers
 *     oifname eth0 ip ct state established accept
 *     (the same for ip6, with fec0::/64, where the configuration has it)
 *     oifname eth1 ip daddr HOST ct state != new accept
 *   }
 *   chain uplink {
 *     ip daddr PEER tcp|udp dport PORT accept   (each one of the configuration)
 *     ip meta l4proto tcp accept                (where it says "any")
 *     ip udp dport != 53 accept                 (the same)
 *     ip6 daddr 2000::/3 ...                    (the same)
 *   }
 *   chain resolvers {
 *     ip daddr RESOLVER udp|tcp dport 53 accept (each one)
 *   }
 *   chain forward { type filter hook forward priority filter; drop }
 *   chain refuse {
 *     limit rate over 1000/second burst 1000 packets drop
 *     meta l4proto tcp reject with tcp reset
 *     reject with icmpx admin-prohibited
 *   }
 *
 * OUT is the TLS client's user where there is a proxy that wants TLS, else the
 * transport's where there is a transport, else Tor's: all others have no way
 * out.
 *
 * Why like this:
 * - What is not redirected has a destination that is not ours, and forwarding
 *   is off: routing would drop it in silence. So it is refused in prerouting.
 * - nf_conntrack_tcp_loose is 0: an ACK of a connection that an earlier VM
 *   served is invalid, not new, and gets a reset at once.
 * - ports 9095 and 9093 take redirected flows only: Tor asks for the original
 *   destination, and a direct connection has none.
 * - a datagram without a whole DNS header (12 bytes) ends Tor by a fault in
 *   libevent up to 2.1.13 (its issue 1231). Such a one is refused, in a flow
 * that has begun well, too.
 * - orphaned sockets (FIN, TIME_WAIT) have no uid, hence the established rule:
 *   such a flow was begun by Tor, since nothing else can begin one.
 * - out of eth1 goes what answers the host: replies, and the kernel's refusals,
 *   which are related, invalid or untracked. A Tor that was broken into cannot
 *   begin a flow to the host's services.
 * - links are matched by name: their index does not matter yet.
 * - with IPv6, QEMU asks which hardware address eth0 has (neighbour discovery),
 *   and gets its answer. The guest asks nothing.
 *
 * The kernel acknowledges the whole batch; then chains, hooks, policies and the
 * number of rules are read back, because everything rests on them.
 */
#include "init/firewall.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <string.h>

#include "base/ip.h"
#include "init/contract.h"
#include "init/netlink.h"

#define TABLE "torvm"
#define REFUSALS_PER_S 1000
#define UDP_HEADER 8
#define DNS_HEADER 12

#define STATE_ESTABLISHED NF_CT_STATE_BIT(IP_CT_ESTABLISHED)
#define STATE_NEW NF_CT_STATE_BIT(IP_CT_NEW)

/* Registers are 16 bytes each; one is enough for all of our expressions. */
#define REG NFT_REG_1

enum chain {
	CHAIN_REFUSE, /* before those that go to it */
	CHAIN_UPLINK,
	CHAIN_RESOLVERS,
	CHAIN_NAT,
	CHAIN_PREROUTING,
	CHAIN_INPUT,
	CHAIN_OUTPUT,
	CHAIN_FORWARD,
	CHAIN_COUNT,
};

static const struct {
	const char *name;
	const char *type; /* NULL: no hook */
	uint32_t hook;
	int32_t priority;
	uint32_t policy;
} chains[] = {
	[CHAIN_REFUSE] = { "refuse", NULL, 0, 0, 0 },
	[CHAIN_UPLINK] = { "uplink", NULL, 0, 0, 0 },
	[CHAIN_RESOLVERS] = { "resolvers", NULL, 0, 0, 0 },
	[CHAIN_NAT] = { "nat", "nat", NF_INET_PRE_ROUTING, -100, NF_ACCEPT },
	[CHAIN_PREROUTING] = { "prerouting", "filter", NF_INET_PRE_ROUTING, 0,
			       NF_DROP },
	[CHAIN_INPUT] = { "input", "filter", NF_INET_LOCAL_IN, 0, NF_DROP },
	[CHAIN_OUTPUT] = { "output", "filter", NF_INET_LOCAL_OUT, 0, NF_DROP },
	[CHAIN_FORWARD] = { "forward", "filter", NF_INET_FORWARD, 0, NF_DROP },
};
_Static_assert(sizeof(chains) / sizeof(chains[0]) == CHAIN_COUNT, "chains");

struct firewall {
	struct netlink nl;
	unsigned int rules; /* put into the batch; seen when listed */
	unsigned int chains_seen;
	size_t rule_nest;
	/* Of the expression being built. */
	size_t elem_nest;
	size_t data_nest;
};

static void begin(struct firewall *fw, int type, int flags)
{
	struct nfgenmsg *m;

	m = netlink_begin(&fw->nl, NFNL_SUBSYS_NFTABLES << 8 | type, flags,
			  sizeof(*m));
	m->nfgen_family = NFPROTO_INET;
	m->version = NFNETLINK_V0;
}

static void add_batch(struct firewall *fw, int type)
{
	struct nfgenmsg *m = netlink_begin(&fw->nl, type, 0, sizeof(*m));

	m->nfgen_family = AF_UNSPEC;
	m->version = NFNETLINK_V0;
	m->res_id = htons(NFNL_SUBSYS_NFTABLES);
	netlink_end(&fw->nl);
}

static void add_chain(struct firewall *fw, enum chain chain)
{
	begin(fw, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	netlink_put_string(&fw->nl, NFTA_CHAIN_TABLE, TABLE);
	netlink_put_string(&fw->nl, NFTA_CHAIN_NAME, chains[chain].name);
	if (chains[chain].type) {
		size_t nest = netlink_nest(&fw->nl, NFTA_CHAIN_HOOK);

		netlink_put_be32(&fw->nl, NFTA_HOOK_HOOKNUM,
				 chains[chain].hook);
		netlink_put_be32(&fw->nl, NFTA_HOOK_PRIORITY,
				 (uint32_t)chains[chain].priority);
		netlink_nest_end(&fw->nl, nest);
		netlink_put_be32(&fw->nl, NFTA_CHAIN_POLICY,
				 chains[chain].policy);
		netlink_put_string(&fw->nl, NFTA_CHAIN_TYPE,
				   chains[chain].type);
	}
	netlink_end(&fw->nl);
}

/* --- expressions --- */

static void expr_begin(struct firewall *fw, const char *name)
{
	fw->elem_nest = netlink_nest(&fw->nl, NFTA_LIST_ELEM);
	netlink_put_string(&fw->nl, NFTA_EXPR_NAME, name);
	fw->data_nest = netlink_nest(&fw->nl, NFTA_EXPR_DATA);
}

static void expr_end(struct firewall *fw)
{
	netlink_nest_end(&fw->nl, fw->data_nest);
	netlink_nest_end(&fw->nl, fw->elem_nest);
}

static void put_value(struct firewall *fw, int attr, const void *data,
		      size_t len)
{
	size_t nest = netlink_nest(&fw->nl, attr);

	netlink_put(&fw->nl, NFTA_DATA_VALUE, data, len);
	netlink_nest_end(&fw->nl, nest);
}

static void load_meta(struct firewall *fw, uint32_t key)
{
	expr_begin(fw, "meta");
	netlink_put_be32(&fw->nl, NFTA_META_DREG, REG);
	netlink_put_be32(&fw->nl, NFTA_META_KEY, key);
	expr_end(fw);
}

static void load_ct(struct firewall *fw, uint32_t key)
{
	expr_begin(fw, "ct");
	netlink_put_be32(&fw->nl, NFTA_CT_DREG, REG);
	netlink_put_be32(&fw->nl, NFTA_CT_KEY, key);
	expr_end(fw);
}

static void load_payload(struct firewall *fw, uint32_t base, uint32_t offset,
			 uint32_t len)
{
	expr_begin(fw, "payload");
	netlink_put_be32(&fw->nl, NFTA_PAYLOAD_DREG, REG);
	netlink_put_be32(&fw->nl, NFTA_PAYLOAD_BASE, base);
	netlink_put_be32(&fw->nl, NFTA_PAYLOAD_OFFSET, offset);
	netlink_put_be32(&fw->nl, NFTA_PAYLOAD_LEN, len);
	expr_end(fw);
}

static void mask(struct firewall *fw, const void *bits, size_t len)
{
	static const uint8_t zero[16];

	expr_begin(fw, "bitwise");
	netlink_put_be32(&fw->nl, NFTA_BITWISE_SREG, REG);
	netlink_put_be32(&fw->nl, NFTA_BITWISE_DREG, REG);
	netlink_put_be32(&fw->nl, NFTA_BITWISE_LEN, (uint32_t)len);
	put_value(fw, NFTA_BITWISE_MASK, bits, len);
	put_value(fw, NFTA_BITWISE_XOR, zero, len);
	expr_end(fw);
}

static void compare(struct firewall *fw, uint32_t op, const void *data,
		    size_t len)
{
	expr_begin(fw, "cmp");
	netlink_put_be32(&fw->nl, NFTA_CMP_SREG, REG);
	netlink_put_be32(&fw->nl, NFTA_CMP_OP, op);
	put_value(fw, NFTA_CMP_DATA, data, len);
	expr_end(fw);
}

/* --- what a rule matches --- */

/* IFNAME comparisons take the whole, zero-padded name. */
static void match_link(struct firewall *fw, uint32_t key, uint32_t op,
		       const char *name)
{
	char padded[IF_NAMESIZE] = { 0 };

	strncpy(padded, name, sizeof(padded) - 1);
	load_meta(fw, key);
	compare(fw, op, padded, sizeof(padded));
}

static void from(struct firewall *fw, const char *name)
{
	match_link(fw, NFT_META_IIFNAME, NFT_CMP_EQ, name);
}

static void to(struct firewall *fw, const char *name)
{
	match_link(fw, NFT_META_OIFNAME, NFT_CMP_EQ, name);
}

static void family_is(struct firewall *fw, uint8_t family)
{
	load_meta(fw, NFT_META_NFPROTO);
	compare(fw, NFT_CMP_EQ, &family, 1);
}

static void ipv4(struct firewall *fw)
{
	family_is(fw, NFPROTO_IPV4);
}

/* @offset: of the address in the IPv4 header. A match of ipv4() goes before. */
static void address(struct firewall *fw, uint32_t offset, struct in_addr value)
{
	load_payload(fw, NFT_PAYLOAD_NETWORK_HEADER, offset, sizeof(value));
	compare(fw, NFT_CMP_EQ, &value, sizeof(value));
}

static void source(struct firewall *fw, struct in_addr value)
{
	address(fw, 12, value);
}

static void destination(struct firewall *fw, struct in_addr value)
{
	address(fw, 16, value);
}

static void destination6(struct firewall *fw, const struct in6_addr *value)
{
	load_payload(fw, NFT_PAYLOAD_NETWORK_HEADER, 24, sizeof(*value));
	compare(fw, NFT_CMP_EQ, value, sizeof(*value));
}

static void protocol(struct firewall *fw, uint8_t number)
{
	load_meta(fw, NFT_META_L4PROTO);
	compare(fw, NFT_CMP_EQ, &number, 1);
}

static void port(struct firewall *fw, uint8_t proto, uint16_t number)
{
	uint16_t be = htons(number);

	protocol(fw, proto);
	load_payload(fw, NFT_PAYLOAD_TRANSPORT_HEADER, 2, sizeof(be));
	compare(fw, NFT_CMP_EQ, &be, sizeof(be));
}

/* @wanted: some of the @bits of a conntrack value are set (or not). */
static void conntrack(struct firewall *fw, uint32_t key, uint32_t bits,
		      bool wanted)
{
	const uint32_t zero = 0;

	load_ct(fw, key);
	mask(fw, &bits, sizeof(bits));
	compare(fw, wanted ? NFT_CMP_NEQ : NFT_CMP_EQ, &zero, sizeof(zero));
}

/* --- what a rule does --- */

static void verdict(struct firewall *fw, int code, const char *chain)
{
	size_t data, nest;

	expr_begin(fw, "immediate");
	netlink_put_be32(&fw->nl, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	data = netlink_nest(&fw->nl, NFTA_IMMEDIATE_DATA);
	nest = netlink_nest(&fw->nl, NFTA_DATA_VERDICT);
	netlink_put_be32(&fw->nl, NFTA_VERDICT_CODE, (uint32_t)code);
	if (chain)
		netlink_put_string(&fw->nl, NFTA_VERDICT_CHAIN, chain);
	netlink_nest_end(&fw->nl, nest);
	netlink_nest_end(&fw->nl, data);
	expr_end(fw);
}

static void accept_it(struct firewall *fw)
{
	verdict(fw, NF_ACCEPT, NULL);
}

static void refuse_it(struct firewall *fw)
{
	verdict(fw, NFT_GOTO, chains[CHAIN_REFUSE].name);
}

static void redirect_to(struct firewall *fw, uint16_t number)
{
	uint16_t be = htons(number);

	expr_begin(fw, "immediate");
	netlink_put_be32(&fw->nl, NFTA_IMMEDIATE_DREG, REG);
	put_value(fw, NFTA_IMMEDIATE_DATA, &be, sizeof(be));
	expr_end(fw);
	expr_begin(fw, "redir");
	netlink_put_be32(&fw->nl, NFTA_REDIR_REG_PROTO_MIN, REG);
	expr_end(fw);
}

static void reject_with(struct firewall *fw, uint32_t type, uint8_t code)
{
	expr_begin(fw, "reject");
	netlink_put_be32(&fw->nl, NFTA_REJECT_TYPE, type);
	netlink_put(&fw->nl, NFTA_REJECT_ICMP_CODE, &code, sizeof(code));
	expr_end(fw);
}

static void limit_over(struct firewall *fw, uint64_t per_second)
{
	uint64_t rate = htobe64(per_second), unit = htobe64(1);

	expr_begin(fw, "limit");
	netlink_put(&fw->nl, NFTA_LIMIT_RATE, &rate, sizeof(rate));
	netlink_put(&fw->nl, NFTA_LIMIT_UNIT, &unit, sizeof(unit));
	netlink_put_be32(&fw->nl, NFTA_LIMIT_BURST, (uint32_t)per_second);
	netlink_put_be32(&fw->nl, NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
	netlink_put_be32(&fw->nl, NFTA_LIMIT_FLAGS, NFT_LIMIT_F_INV);
	expr_end(fw);
}

/* --- rules --- */

static void rule(struct firewall *fw, enum chain chain)
{
	begin(fw, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	netlink_put_string(&fw->nl, NFTA_RULE_TABLE, TABLE);
	netlink_put_string(&fw->nl, NFTA_RULE_CHAIN, chains[chain].name);
	fw->rule_nest = netlink_nest(&fw->nl, NFTA_RULE_EXPRESSIONS);
}

static void end(struct firewall *fw)
{
	netlink_nest_end(&fw->nl, fw->rule_nest);
	netlink_end(&fw->nl);
	fw->rules++;
}

static void add_nat_rules(struct firewall *fw, const struct guest_config *c)
{
	/* FIN, SYN, RST, ACK; only SYN set: a first packet. */
	const uint8_t flags = 0x17, syn = 0x02;

	rule(fw, CHAIN_NAT);
	from(fw, "eth1");
	ipv4(fw);
	source(fw, c->host_ip);
	port(fw, IPPROTO_UDP, 53);
	redirect_to(fw, GUEST_DNS_PORT);
	end(fw);

	rule(fw, CHAIN_NAT);
	match_link(fw, NFT_META_IIFNAME, NFT_CMP_NEQ, "eth1");
	accept_it(fw);
	end(fw);

	rule(fw, CHAIN_NAT);
	ipv4(fw);
	destination(fw, c->vm_ip);
	accept_it(fw);
	end(fw);

	rule(fw, CHAIN_NAT);
	port(fw, IPPROTO_TCP, 53);
	accept_it(fw);
	end(fw);

	rule(fw, CHAIN_NAT);
	ipv4(fw);
	source(fw, c->host_ip);
	protocol(fw, IPPROTO_TCP);
	load_payload(fw, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1);
	mask(fw, &flags, 1);
	compare(fw, NFT_CMP_EQ, &syn, 1);
	redirect_to(fw, GUEST_TRANS_PORT);
	end(fw);
}

static void add_prerouting_rules(struct firewall *fw,
				 const struct guest_config *c)
{
	rule(fw, CHAIN_PREROUTING);
	from(fw, "lo");
	accept_it(fw);
	end(fw);

	rule(fw, CHAIN_PREROUTING);
	from(fw, "eth0");
	accept_it(fw);
	end(fw);

	rule(fw, CHAIN_PREROUTING);
	from(fw, "eth1");
	ipv4(fw);
	source(fw, c->host_ip);
	destination(fw, c->vm_ip);
	accept_it(fw);
	end(fw);

	rule(fw, CHAIN_PREROUTING);
	from(fw, "eth1");
	ipv4(fw);
	source(fw, c->host_ip);
	refuse_it(fw);
	end(fw);
}

static void add_service(struct firewall *fw, uint8_t proto, uint16_t number,
			bool redirected)
{
	rule(fw, CHAIN_INPUT);
	from(fw, "eth1");
	port(fw, proto, number);
	conntrack(fw, NFT_CT_STATE, STATE_NEW, true);
	if (redirected)
		conntrack(fw, NFT_CT_STATUS, IPS_DST_NAT, true);
	accept_it(fw);
	end(fw);
}

/* One of another link's could not have this hop limit (RFC 4861, 7.1). */
static void neighbour_message(struct firewall *fw, uint8_t type)
{
	const uint8_t hop_limit = 255;

	family_is(fw, NFPROTO_IPV6);
	load_payload(fw, NFT_PAYLOAD_NETWORK_HEADER, 7, 1);
	compare(fw, NFT_CMP_EQ, &hop_limit, 1);
	protocol(fw, IPPROTO_ICMPV6);
	load_payload(fw, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
	compare(fw, NFT_CMP_EQ, &type, 1);
}

static void refuse_short_questions(struct firewall *fw)
{
	const uint16_t least = htons(UDP_HEADER + DNS_HEADER);

	rule(fw, CHAIN_INPUT);
	from(fw, "eth1");
	port(fw, IPPROTO_UDP, GUEST_DNS_PORT);
	load_payload(fw, NFT_PAYLOAD_TRANSPORT_HEADER, 4, sizeof(least));
	compare(fw, NFT_CMP_LT, &least, sizeof(least));
	refuse_it(fw);
	end(fw);
}

static void add_input_rules(struct firewall *fw, const struct guest_config *c)
{
	static const char *const links[] = { "eth0", "eth1" };

	rule(fw, CHAIN_INPUT);
	from(fw, "lo");
	accept_it(fw);
	end(fw);

	refuse_short_questions(fw);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		rule(fw, CHAIN_INPUT);
		from(fw, links[i]);
		conntrack(fw, NFT_CT_STATE, STATE_ESTABLISHED, true);
		accept_it(fw);
		end(fw);
	}

	if (c->ipv6) {
		rule(fw, CHAIN_INPUT);
		from(fw, "eth0");
		neighbour_message(fw, ND_NEIGHBOR_SOLICIT);
		accept_it(fw);
		end(fw);
	}

	add_service(fw, IPPROTO_TCP, GUEST_SOCKS_PORT, false);
	if (c->moat[0])
		add_service(fw, IPPROTO_TCP, GUEST_MOAT_PORT, false);
	add_service(fw, IPPROTO_TCP, GUEST_TRANS_PORT, true);
	add_service(fw, IPPROTO_UDP, GUEST_DNS_PORT, true);

	rule(fw, CHAIN_INPUT);
	from(fw, "eth1");
	refuse_it(fw);
	end(fw);
}

static void add_peer(struct firewall *fw, enum chain chain, uint8_t proto,
		     const struct in6_addr *peer, uint16_t number)
{
	rule(fw, chain);
	if (ip_is_v4(peer)) {
		ipv4(fw);
		destination(fw, ip_to_v4(peer));
	} else {
		family_is(fw, NFPROTO_IPV6);
		destination6(fw, peer);
	}
	port(fw, proto, number);
	accept_it(fw);
	end(fw);
}

/* UDP to any port but 53. */
static void not_to_resolvers(struct firewall *fw)
{
	const uint16_t dns = htons(53);

	protocol(fw, IPPROTO_UDP);
	load_payload(fw, NFT_PAYLOAD_TRANSPORT_HEADER, 2, sizeof(dns));
	compare(fw, NFT_CMP_NEQ, &dns, sizeof(dns));
}

/* Whom Tor's relays or snowflake's peers may be; in IPv6 the global unicast
 * addresses, 2000::/3. */
static void add_any(struct firewall *fw, uint8_t family, uint8_t proto)
{
	const uint8_t bits = 0xe0, global = 0x20;

	rule(fw, CHAIN_UPLINK);
	family_is(fw, family);
	if (family == NFPROTO_IPV6) {
		load_payload(fw, NFT_PAYLOAD_NETWORK_HEADER, 24, 1);
		mask(fw, &bits, 1);
		compare(fw, NFT_CMP_EQ, &global, 1);
	}
	if (proto == IPPROTO_TCP)
		protocol(fw, IPPROTO_TCP);
	else
		not_to_resolvers(fw);
	accept_it(fw);
	end(fw);
}

static void add_names(struct firewall *fw, const struct names *names)
{
	for (size_t i = 0; i < names->config->n_names; i++) {
		const struct guest_name *name = &names->config->names[i];

		for (size_t k = 0; k < names->found[i].n; k++)
			add_peer(fw, CHAIN_UPLINK, name->protocol,
				 &names->found[i].addresses[k], name->port);
	}
}

static void add_uplink_rules(struct firewall *fw, const struct names *names)
{
	const struct guest_config *c = names->config;

	for (size_t i = 0; i < c->n_peers; i++)
		add_peer(fw, CHAIN_UPLINK, c->peers[i].protocol,
			 &c->peers[i].address, c->peers[i].port);
	add_names(fw, names);
	if (c->any_tcp)
		add_any(fw, NFPROTO_IPV4, IPPROTO_TCP);
	if (c->any_udp)
		add_any(fw, NFPROTO_IPV4, IPPROTO_UDP);
	if (c->any_tcp6)
		add_any(fw, NFPROTO_IPV6, IPPROTO_TCP);
	if (c->any_udp6)
		add_any(fw, NFPROTO_IPV6, IPPROTO_UDP);
	for (size_t i = 0; i < c->n_resolvers; i++) {
		add_peer(fw, CHAIN_RESOLVERS, IPPROTO_UDP, &c->resolvers[i],
			 53);
		add_peer(fw, CHAIN_RESOLVERS, IPPROTO_TCP, &c->resolvers[i],
			 53);
	}
}

static void out_of_eth0(struct firewall *fw, uint8_t family, uint32_t uid,
			enum chain chain)
{
	rule(fw, CHAIN_OUTPUT);
	to(fw, "eth0");
	family_is(fw, family);
	load_meta(fw, NFT_META_SKUID);
	compare(fw, NFT_CMP_EQ, &uid, sizeof(uid));
	verdict(fw, NFT_JUMP, chains[chain].name);
	end(fw);
}

/* QEMU's own network, where it answers for the host. */
static void refuse_qemu(struct firewall *fw, uint8_t family)
{
	const uint32_t netmask = htonl(~0U << (32 - GUEST_ETH0_PREFIX));
	const uint32_t uplink = inet_addr(GUEST_ETH0_ADDRESS) & netmask;
	struct in6_addr uplink6;

	rule(fw, CHAIN_OUTPUT);
	to(fw, "eth0");
	family_is(fw, family);
	if (family == NFPROTO_IPV4) {
		load_payload(fw, NFT_PAYLOAD_NETWORK_HEADER, 16,
			     sizeof(netmask));
		mask(fw, &netmask, sizeof(netmask));
		compare(fw, NFT_CMP_EQ, &uplink, sizeof(uplink));
	} else {
		inet_pton(AF_INET6, GUEST_ETH0_PREFIX6, &uplink6);
		load_payload(fw, NFT_PAYLOAD_NETWORK_HEADER, 24, 8);
		compare(fw, NFT_CMP_EQ, &uplink6, 8);
	}
	reject_with(fw, NFT_REJECT_ICMPX_UNREACH,
		    NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	end(fw);
}

static void add_uplink_output(struct firewall *fw, uint8_t family,
			      const struct guest_config *c)
{
	refuse_qemu(fw, family);
	out_of_eth0(fw, family,
		    c->tls_proxy.port ? GUEST_TLS_UID
		    : c->transport[0] ? GUEST_TRANSPORT_UID
				      : GUEST_TOR_UID,
		    CHAIN_UPLINK);
	out_of_eth0(fw, family, GUEST_RESOLVER_UID, CHAIN_RESOLVERS);

	rule(fw, CHAIN_OUTPUT);
	to(fw, "eth0");
	family_is(fw, family);
	conntrack(fw, NFT_CT_STATE, STATE_ESTABLISHED, true);
	accept_it(fw);
	end(fw);
}

static void add_output_rules(struct firewall *fw, const struct guest_config *c)
{
	struct in6_addr gateway6;

	rule(fw, CHAIN_OUTPUT);
	to(fw, "lo");
	accept_it(fw);
	end(fw);

	if (c->ipv6) {
		inet_pton(AF_INET6, GUEST_ETH0_GATEWAY6, &gateway6);
		rule(fw, CHAIN_OUTPUT);
		to(fw, "eth0");
		neighbour_message(fw, ND_NEIGHBOR_ADVERT);
		destination6(fw, &gateway6);
		accept_it(fw);
		end(fw);
	}
	add_uplink_output(fw, NFPROTO_IPV4, c);
	if (c->ipv6)
		add_uplink_output(fw, NFPROTO_IPV6, c);

	rule(fw, CHAIN_OUTPUT);
	to(fw, "eth1");
	ipv4(fw);
	destination(fw, c->host_ip);
	conntrack(fw, NFT_CT_STATE, STATE_NEW, false);
	accept_it(fw);
	end(fw);
}

static void add_refuse_rules(struct firewall *fw)
{
	rule(fw, CHAIN_REFUSE);
	limit_over(fw, REFUSALS_PER_S);
	verdict(fw, NF_DROP, NULL);
	end(fw);

	rule(fw, CHAIN_REFUSE);
	protocol(fw, IPPROTO_TCP);
	reject_with(fw, NFT_REJECT_TCP_RST, 0);
	end(fw);

	rule(fw, CHAIN_REFUSE);
	reject_with(fw, NFT_REJECT_ICMPX_UNREACH,
		    NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	end(fw);
}

/* Ends the batch with what netlink_commit() waits for an answer to. */
static int commit(struct firewall *fw)
{
	begin(fw, NFT_MSG_NEWTABLE, NLM_F_ACK);
	netlink_put_string(&fw->nl, NFTA_TABLE_NAME, TABLE);
	netlink_end(&fw->nl);
	fw->nl.seq--; /* the batch's end is not what is answered */
	add_batch(fw, NFNL_MSG_BATCH_END);
	return netlink_commit(&fw->nl);
}

static int load(struct firewall *fw, const struct names *names)
{
	const struct guest_config *config = names->config;

	add_batch(fw, NFNL_MSG_BATCH_BEGIN);
	begin(fw, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
	netlink_put_string(&fw->nl, NFTA_TABLE_NAME, TABLE);
	netlink_end(&fw->nl);
	for (int i = 0; i < CHAIN_COUNT; i++)
		add_chain(fw, (enum chain)i);
	add_refuse_rules(fw);
	add_nat_rules(fw, config);
	add_prerouting_rules(fw, config);
	add_input_rules(fw, config);
	add_uplink_rules(fw, names);
	add_output_rules(fw, config);
	return commit(fw);
}

static void flush(struct firewall *fw, enum chain chain)
{
	begin(fw, NFT_MSG_DELRULE, 0);
	netlink_put_string(&fw->nl, NFTA_RULE_TABLE, TABLE);
	netlink_put_string(&fw->nl, NFTA_RULE_CHAIN, chains[chain].name);
	netlink_end(&fw->nl);
}

int firewall_update(const struct names *names, struct error *e)
{
	struct firewall fw = { 0 };
	int r = netlink_open(&fw.nl, NETLINK_NETFILTER);

	if (r == 0) {
		add_batch(&fw, NFNL_MSG_BATCH_BEGIN);
		flush(&fw, CHAIN_UPLINK);
		flush(&fw, CHAIN_RESOLVERS);
		add_uplink_rules(&fw, names);
		r = commit(&fw);
	}
	netlink_close(&fw.nl);
	return r < 0 ? error_set(e, r, "the firewall cannot be changed: %s",
				 strerror(-r))
		     : 0;
}

static uint32_t get_be32(const void *p)
{
	uint32_t v;

	if (!p)
		return UINT32_MAX;
	memcpy(&v, p, sizeof(v));
	return ntohl(v);
}

/* Whether attribute @attr of the message is the terminated string @wanted. */
static bool attr_is(const struct nlmsghdr *header, int attr, const char *wanted)
{
	size_t n = strlen(wanted) + 1;
	const void *value =
		netlink_attr(header, sizeof(struct nfgenmsg), attr, n);

	return value && !memcmp(value, wanted, n);
}

static int see_chain(void *userdata, const struct nlmsghdr *header)
{
	struct firewall *fw = userdata;
	const size_t skip = sizeof(struct nfgenmsg);
	const struct nlattr *hook;

	if (!attr_is(header, NFTA_CHAIN_TABLE, TABLE))
		return 0;
	for (int i = 0; i < CHAIN_COUNT; i++) {
		if (!attr_is(header, NFTA_CHAIN_NAME, chains[i].name))
			continue;
		if (chains[i].type) {
			hook = netlink_attr(header, skip, NFTA_CHAIN_HOOK, 0);
			if (!hook)
				return -EBADMSG;
			/* The nested attribute's own length lies before it. */
			if (get_be32(netlink_attr_in(
				    hook, hook[-1].nla_len - NLA_HDRLEN,
				    NFTA_HOOK_HOOKNUM, 4, NULL)) !=
				    chains[i].hook ||
			    get_be32(netlink_attr(header, skip,
						  NFTA_CHAIN_POLICY, 4)) !=
				    chains[i].policy)
				return -EBADMSG;
		}
		fw->chains_seen |= 1U << i;
	}
	return 0;
}

static int see_rule(void *userdata, const struct nlmsghdr *header)
{
	struct firewall *fw = userdata;

	if (attr_is(header, NFTA_RULE_TABLE, TABLE))
		fw->rules++;
	return 0;
}

static int list(struct firewall *fw, unsigned int rules, struct error *e)
{
	int r;

	begin(fw, NFT_MSG_GETCHAIN, NLM_F_DUMP);
	netlink_end(&fw->nl);
	r = netlink_dump(&fw->nl, see_chain, fw);
	if (r == 0) {
		begin(fw, NFT_MSG_GETRULE, NLM_F_DUMP);
		netlink_end(&fw->nl);
		fw->rules = 0;
		r = netlink_dump(&fw->nl, see_rule, fw);
	}
	if (r < 0)
		return error_set(e, r, "the firewall cannot be listed: %s",
				 strerror(-r));
	if (fw->chains_seen != (1U << CHAIN_COUNT) - 1 || fw->rules != rules)
		return error_set(
			e, -EBADMSG,
			"the firewall is not what was loaded: %u rules "
			"instead of %u, chains %x",
			fw->rules, rules, fw->chains_seen);
	return 0;
}

int firewall_load(const struct names *names, struct error *e)
{
	struct firewall fw = { 0 };
	int r = netlink_open(&fw.nl, NETLINK_NETFILTER);

	if (r == 0)
		r = load(&fw, names);
	if (r < 0)
		error_set(e, r,
			  "the firewall cannot be loaded: %s; a kernel module "
			  "may be missing from the image",
			  strerror(-r));
	else
		r = list(&fw, fw.rules, e);
	netlink_close(&fw.nl);
	return r;
}
