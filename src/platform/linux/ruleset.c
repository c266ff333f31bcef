/*
 * Theory of operation
 *
 * Two tables, replaced together. In nft's words (mode OPEN):
 *
 *  table inet torvm
 *    prerouting  raw      drop what is not from the TAP and claims to go to its
 *                         network or to come from it; drop ICMP redirects
 *    input       filter   the VM answers, it never opens a connection
 *    mark        mangle   gives the uplink's packets the mark, takes it from
 *                         everybody else
 *    output      filter   refuses at once what postrouting would drop
 *    lan         regular  what LAN access opens, for output, forward and
 *                         postrouting
 *    forward     filter   containers and guests on inner bridges: TCP and DNS
 *                         into the TAP; refuses everything else
 *    postrouting last     THE GUARANTEE: policy drop. Only here the outgoing
 *                         link is final (after DNAT and policy routing)
 *  table netdev torvm
 *    egressN              the same on each link that leads out, for what never
 *                         passes inet: AF_PACKET, bridged guests, macvlan
 *
 * The uplink is known by who sent the first packet of a flow. A rule on a
 * socket's user can only ever allow: once QEMU has been killed, its last
 * packets have no user any more, and a rule that denies by user would let them
 * pass. Therefore the first packet sets the conntrack mark of the flow, and the
 * flow sets the packet mark that postrouting and egress accept. The mark is
 * random per start and is not used for routing; so a plain filter chain sets
 * it, which spares the second route lookup of a route chain.
 *
 * What is forwarded into the TAP must leave with the TAP's own address, and
 * only the host's own NAT (Docker's, libvirt's) can see to that: we do none.
 * Whether it does is known in postrouting alone, where nothing can be refused,
 * only dropped. So a sender whose packet came there untranslated is remembered
 * for half a minute, and what it sends next is refused in forward.
 *
 * Loopback is recognised by its index, which is 1 in every namespace and cannot
 * be given to another link; the TAP by name, because it comes and goes.
 */
#include "platform/linux/ruleset.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <stddef.h>
#include <string.h>

#define LOOPBACK_INDEX 1
#define DNS_PORT 53

/* Bridges in the set of inner ones; the containers of more have no network. */
#define INNER_MAX 256

/* Senders without NAT that are remembered, and for how long. */
#define UNTRANSLATED_MAX 1024
#define UNTRANSLATED_MS 30000

/* Of one chain, NFT_NETDEVICE_MAX in the kernel. */
#define DEVICES_PER_CHAIN 256
#define EGRESS_CHAINS_MAX 16

/* Offsets of header fields, in bytes (RFC 791, 8200, 9293, 826). */
#define IP4_SADDR 12
#define IP4_DADDR 16
#define IP6_HOPLIMIT 7
#define IP6_SADDR 8
#define IP6_DADDR 24
#define TCP_FLAGS 13
#define DPORT 2
#define ARP_SENDER_IP 14

#define ICMP4_REDIRECT 5
#define ICMP6_MLD_REPORT 131
#define ICMP6_MLD_DONE 132
#define ICMP6_RS 133
#define ICMP6_NS 135
#define ICMP6_NA 136
#define ICMP6_REDIRECT 137
#define ICMP6_MLD2_REPORT 143

static const char *const counter_names[] = {
	[RULESET_REFUSED_TCP] = "refused_tcp",
	[RULESET_REFUSED_UDP] = "refused_udp",
	[RULESET_REFUSED_ICMP] = "refused_icmp",
	[RULESET_REFUSED_OTHER] = "refused_other",
	[RULESET_REFUSED_FORWARD] = "refused_forward",
	[RULESET_DROPPED_SPOOFED] = "dropped_spoofed",
	[RULESET_DROPPED_REDIRECT] = "dropped_redirect",
	[RULESET_DROPPED_GUEST] = "dropped_guest",
	[RULESET_DROPPED_POSTROUTING] = "dropped_postrouting",
	[RULESET_DROPPED_EGRESS] = "dropped_egress",
};
_Static_assert(ARRAY_SIZE(counter_names) == RULESET_COUNTER_COUNT,
	       "a counter without a name");

const char *ruleset_counter_name(enum ruleset_counter counter)
{
	return counter_names[counter];
}

#define IP4(a, b, c, d) ((const uint8_t[4]){ a, b, c, d })
#define IP6(a, b) \
	((const uint8_t[16]){ (a) >> 8, (a) & 255, (b) >> 8, (b) & 255 })

/*
 * Where no relay can be: IANA's special-purpose registries. The documentation
 * networks are left out: nothing routes them but a laboratory, where they stand
 * for the Internet.
 */
static void add_private_sets(struct nft_batch *b)
{
	const struct nft_range private4[] = {
		{ IP4(0, 0, 0, 0), IP4(1, 0, 0, 0) },
		{ IP4(10, 0, 0, 0), IP4(11, 0, 0, 0) },
		{ IP4(100, 64, 0, 0), IP4(100, 128, 0, 0) },
		{ IP4(127, 0, 0, 0), IP4(128, 0, 0, 0) },
		{ IP4(169, 254, 0, 0), IP4(169, 255, 0, 0) },
		{ IP4(172, 16, 0, 0), IP4(172, 32, 0, 0) },
		{ IP4(192, 0, 0, 0), IP4(192, 0, 1, 0) },
		{ IP4(192, 168, 0, 0), IP4(192, 169, 0, 0) },
		{ IP4(198, 18, 0, 0), IP4(198, 20, 0, 0) },
		{ IP4(224, 0, 0, 0), NULL },
	};
	/* All but the global unicast space 2000::/3, and 6to4 of it. */
	const struct nft_range private6[] = {
		{ IP6(0, 0), IP6(0x2000, 0) },
		{ IP6(0x2002, 0), IP6(0x2003, 0) },
		{ IP6(0x4000, 0), NULL },
	};

	nft_set_add(b, "private4", NFT_TYPE_IPADDR, 4, private4,
		    ARRAY_SIZE(private4));
	nft_set_add(b, "private6", NFT_TYPE_IP6ADDR, 16, private6,
		    ARRAY_SIZE(private6));
}

static bool has_uplink(const struct ruleset *rs)
{
	return rs->mode == NET_FIREWALL_UPLINK || rs->mode == NET_FIREWALL_OPEN;
}

/* Lockdown has no configuration to go by. */
static bool has_lan(const struct ruleset *rs)
{
	return rs->lan->n > 0 && rs->mode != NET_FIREWALL_LOCKDOWN;
}

static const char *table_comment(const struct ruleset *rs)
{
	return rs->mode == NET_FIREWALL_LOCKDOWN ? RULESET_LOCKDOWN_COMMENT
						 : NULL;
}

static void base_chain(struct nft_batch *b, const char *name, uint32_t num,
		       int32_t priority, uint32_t policy)
{
	const struct nft_hook hook = {
		.type = "filter",
		.num = num,
		.priority = priority,
		.policy = policy,
	};

	nft_chain_add(b, name, &hook);
}

static void verdict(struct nft_batch *b, int code)
{
	nft_verdict(b, code, NULL);
	nft_rule_end(b);
}

static void jump(struct nft_batch *b, const char *chain)
{
	nft_verdict(b, NFT_JUMP, chain);
	nft_rule_end(b);
}

static void count_drop(struct nft_batch *b, enum ruleset_counter counter)
{
	nft_count(b, counter_names[counter]);
	verdict(b, NF_DROP);
}

static void icmp6_type(struct nft_batch *b, uint8_t type, uint8_t hop_limit)
{
	nft_l4proto(b, IPPROTO_ICMPV6);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
	nft_cmp_u8(b, NFT_CMP_EQ, type);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, IP6_HOPLIMIT, 1);
	nft_cmp_u8(b, NFT_CMP_EQ, hop_limit);
}

static void is_dns(struct nft_batch *b)
{
	const uint16_t dns = htons(DNS_PORT);

	nft_l4proto(b, IPPROTO_UDP);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, DPORT, sizeof(dns));
	nft_cmp(b, NFT_CMP_EQ, &dns, sizeof(dns));
}

static void is_syn(struct nft_batch *b, uint32_t op)
{
	nft_l4proto(b, IPPROTO_TCP);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS, 1);
	/* FIN, SYN, RST, ACK */
	nft_mask(b, &(uint8_t){ 0x17 }, 1);
	nft_cmp_u8(b, op, 0x02);
}

static void ct_state(struct nft_batch *b, uint32_t bits)
{
	nft_ct(b, NFT_CT_STATE);
	nft_mask(b, &bits, sizeof(bits));
	nft_cmp_u32(b, NFT_CMP_NEQ, 0);
}

static void family_is(struct nft_batch *b, uint16_t ethertype)
{
	/* In netdev there is no nfproto; in inet there is, and it is what nft
	 * lists best. */
	if (b->family == NFPROTO_NETDEV) {
		uint16_t be = htons(ethertype);

		nft_meta(b, NFT_META_PROTOCOL);
		nft_cmp(b, NFT_CMP_EQ, &be, sizeof(be));
	} else {
		nft_nfproto(b, ethertype == ETH_P_IP ? NFPROTO_IPV4
						     : NFPROTO_IPV6);
	}
}

/* What keeps an address and a neighbour table alive (docs/SECURITY). */
static void add_hold_chain(struct nft_batch *b)
{
	static const struct {
		const char *comment;
		uint8_t type, hop_limit;
	} icmp6[] = {
		{ "router solicitation", ICMP6_RS, 255 },
		{ "neighbour solicitation", ICMP6_NS, 255 },
		{ "neighbour advertisement", ICMP6_NA, 255 },
		{ "MLD report", ICMP6_MLD_REPORT, 1 },
		{ "MLD done", ICMP6_MLD_DONE, 1 },
		{ "MLDv2 report", ICMP6_MLD2_REPORT, 1 },
	};

	nft_chain_add(b, "hold", NULL);
	nft_rule(b, "DHCP");
	family_is(b, ETH_P_IP);
	nft_udp_ports(b, 68, 67);
	verdict(b, NF_ACCEPT);
	nft_rule(b, "DHCPv6");
	family_is(b, ETH_P_IPV6);
	nft_udp_ports(b, 546, 547);
	verdict(b, NF_ACCEPT);
	for (size_t i = 0; i < ARRAY_SIZE(icmp6); i++) {
		nft_rule(b, icmp6[i].comment);
		family_is(b, ETH_P_IPV6);
		icmp6_type(b, icmp6[i].type, icmp6[i].hop_limit);
		verdict(b, NF_ACCEPT);
	}
}

static void add_refuse_chain(struct nft_batch *b)
{
	static const uint8_t icmp[] = { IPPROTO_ICMP, IPPROTO_ICMPV6 };

	nft_chain_add(b, "refuse", NULL);
	/* Only counts: a packet without a socket, or a full set, goes on. */
	nft_rule(b, "by user");
	nft_meta(b, NFT_META_SKUID);
	nft_set_count(b, RULESET_REFUSED_USERS);
	nft_rule_end(b);
	nft_rule(b, NULL);
	nft_l4proto(b, IPPROTO_TCP);
	nft_count(b, counter_names[RULESET_REFUSED_TCP]);
	nft_reject(b, NFT_REJECT_TCP_RST, 0);
	nft_rule_end(b);
	nft_rule(b, NULL);
	nft_l4proto(b, IPPROTO_UDP);
	nft_count(b, counter_names[RULESET_REFUSED_UDP]);
	nft_reject(b, NFT_REJECT_ICMPX_UNREACH,
		   NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	nft_rule_end(b);
	for (size_t i = 0; i < ARRAY_SIZE(icmp); i++) {
		nft_rule(b, NULL);
		nft_l4proto(b, icmp[i]);
		nft_count(b, counter_names[RULESET_REFUSED_ICMP]);
		nft_reject(b, NFT_REJECT_ICMPX_UNREACH,
			   NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
		nft_rule_end(b);
	}
	nft_rule(b, NULL);
	nft_count(b, counter_names[RULESET_REFUSED_OTHER]);
	nft_reject(b, NFT_REJECT_ICMPX_UNREACH,
		   NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	nft_rule_end(b);
}

static void add_prerouting_chain(struct nft_batch *b,
				 const struct net_plan *plan)
{
	const struct in_addr mask = { htonl(0xfffffffc) }; /* /30 */
	const struct in_addr network = { plan->host_ip.s_addr & mask.s_addr };
	static const struct {
		const char *comment;
		uint32_t offset;
	} addresses[] = {
		{ "the TAP's network is reached through the TAP only",
		  IP4_DADDR },
		{ "nobody else has an address of the TAP's network",
		  IP4_SADDR },
	};

	base_chain(b, "prerouting", NF_INET_PRE_ROUTING, -300, NF_ACCEPT);
	/* lo: our own refusals to sockets bound to the TAP's address. */
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		nft_rule(b, addresses[i].comment);
		nft_nfproto(b, NFPROTO_IPV4);
		nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, addresses[i].offset,
			    4);
		nft_mask(b, &mask, sizeof(mask));
		nft_cmp(b, NFT_CMP_EQ, &network, sizeof(network));
		nft_meta(b, NFT_META_IIF);
		nft_cmp_u32(b, NFT_CMP_NEQ, LOOPBACK_INDEX);
		nft_ifname(b, NFT_META_IIFNAME, NFT_CMP_NEQ, plan->tap_name);
		count_drop(b, RULESET_DROPPED_SPOOFED);
	}

	nft_rule(b, "ICMP redirect");
	nft_nfproto(b, NFPROTO_IPV4);
	nft_l4proto(b, IPPROTO_ICMP);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
	nft_cmp_u8(b, NFT_CMP_EQ, ICMP4_REDIRECT);
	count_drop(b, RULESET_DROPPED_REDIRECT);
	nft_rule(b, "ICMPv6 redirect");
	nft_nfproto(b, NFPROTO_IPV6);
	nft_l4proto(b, IPPROTO_ICMPV6);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
	nft_cmp_u8(b, NFT_CMP_EQ, ICMP6_REDIRECT);
	count_drop(b, RULESET_DROPPED_REDIRECT);
}

static void add_input_chain(struct nft_batch *b, const struct net_plan *plan)
{
	const uint32_t known = NF_CT_STATE_BIT(IP_CT_ESTABLISHED) |
			       NF_CT_STATE_BIT(IP_CT_RELATED);

	base_chain(b, "input", NF_INET_LOCAL_IN, -10, NF_ACCEPT);
	nft_rule(b, "the VM answers, it opens no connection to this host");
	nft_ifname(b, NFT_META_IIFNAME, NFT_CMP_EQ, plan->tap_name);
	nft_ct(b, NFT_CT_STATE);
	nft_mask(b, &known, sizeof(known));
	nft_cmp_u32(b, NFT_CMP_EQ, 0);
	count_drop(b, RULESET_DROPPED_GUEST);
}

static void begin_first_packet(struct nft_batch *b, const struct net_plan *plan,
			       uint8_t family, uint8_t protocol)
{
	nft_rule(b, "the first packet of a flow of the uplink");
	nft_nfproto(b, family);
	if (protocol == IPPROTO_TCP)
		is_syn(b, NFT_CMP_EQ);
	else
		nft_l4proto(b, protocol);
	ct_state(b, NF_CT_STATE_BIT(IP_CT_NEW));
	nft_meta(b, NFT_META_OIF);
	nft_cmp_u32(b, NFT_CMP_NEQ, LOOPBACK_INDEX);
	nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_NEQ, plan->tap_name);
}

static void end_first_packet(struct nft_batch *b, const struct net_plan *plan)
{
	nft_fib_type(b);
	nft_cmp_u32(b, NFT_CMP_NEQ, RTN_LOCAL);
	nft_ct_mark_set(b, plan->mark);
	nft_meta_mark_set(b, plan->mark);
	nft_rule_end(b);
}

static void to_port(struct nft_batch *b, uint32_t op, uint16_t port)
{
	const uint16_t be = htons(port);

	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, DPORT, sizeof(be));
	nft_cmp(b, op, &be, sizeof(be));
}

static void to_anybody(struct nft_batch *b, const struct net_plan *plan,
		       uint8_t family, uint8_t protocol)
{
	const bool v4 = family == NFPROTO_IPV4;

	begin_first_packet(b, plan, family, protocol);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, v4 ? IP4_DADDR : IP6_DADDR,
		    v4 ? 4 : 16);
	nft_lookup(b, v4 ? "private4" : "private6", NFT_LOOKUP_F_INV);
	/* Names are looked up by peers only: the host's own resolvers. */
	if (protocol == IPPROTO_UDP)
		to_port(b, NFT_CMP_NEQ, DNS_PORT);
	end_first_packet(b, plan);
}

static void to_peer(struct nft_batch *b, const struct net_plan *plan,
		    const struct net_peer *peer)
{
	begin_first_packet(b, plan, NFPROTO_IPV4, peer->protocol);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, IP4_DADDR, 4);
	nft_cmp(b, NFT_CMP_EQ, &peer->address, sizeof(peer->address));
	if (peer->port)
		to_port(b, NFT_CMP_EQ, peer->port);
	else
		to_port(b, NFT_CMP_NEQ, DNS_PORT);
	end_first_packet(b, plan);
}

/* What a flow of the uplink begins with. */
static void add_uplink_chain(struct nft_batch *b, const struct net_plan *plan)
{
	static const uint8_t families[] = { NFPROTO_IPV4, NFPROTO_IPV6 };
	const struct net_uplink *uplink = &plan->uplink;

	nft_chain_add(b, "uplink", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		if (uplink->any_tcp)
			to_anybody(b, plan, families[i], IPPROTO_TCP);
		if (uplink->any_udp)
			to_anybody(b, plan, families[i], IPPROTO_UDP);
	}
	for (size_t i = 0; i < uplink->n_peers && i < NET_PEERS_MAX; i++)
		to_peer(b, plan, &uplink->peers[i]);
}

static void add_mark_chain(struct nft_batch *b, const struct net_plan *plan)
{
	base_chain(b, "mark", NF_INET_LOCAL_OUT, -150, NF_ACCEPT);
	nft_rule(b, "nobody brings the mark along");
	nft_meta(b, NFT_META_MARK);
	nft_cmp_u32(b, NFT_CMP_EQ, plan->mark);
	nft_meta_mark_set(b, 0);
	nft_rule_end(b);
	/* Not a denial: a packet that has no socket any more does not match
	 * and goes on to the flow's mark. */
	nft_rule(b, "sockets of others");
	nft_meta(b, NFT_META_SKUID);
	nft_cmp_u32(b, NFT_CMP_NEQ, plan->vm_uid);
	verdict(b, NFT_RETURN);
	nft_rule(b, "a flow of the uplink");
	nft_ct(b, NFT_CT_MARK);
	nft_cmp_u32(b, NFT_CMP_EQ, plan->mark);
	nft_ct(b, NFT_CT_DIRECTION);
	nft_cmp_u8(b, NFT_CMP_EQ, IP_CT_DIR_ORIGINAL);
	nft_meta_mark_set(b, plan->mark);
	verdict(b, NFT_RETURN);
	/* From here on only what is known to be the uplink's. */
	nft_rule(b, NULL);
	nft_meta(b, NFT_META_SKUID);
	nft_cmp_u32(b, NFT_CMP_EQ, plan->vm_uid);
	jump(b, "uplink");
}

static void accept_loopback(struct nft_batch *b)
{
	nft_rule(b, NULL);
	nft_meta(b, NFT_META_OIF);
	nft_cmp_u32(b, NFT_CMP_EQ, LOOPBACK_INDEX);
	verdict(b, NF_ACCEPT);
}

static void accept_mark(struct nft_batch *b, const struct net_plan *plan)
{
	nft_rule(b, "the uplink");
	nft_meta(b, NFT_META_MARK);
	nft_cmp_u32(b, NFT_CMP_EQ, plan->mark);
	verdict(b, NF_ACCEPT);
}

static bool is_inner_bridge(const struct ruleset *rs,
			    const struct net_link *link)
{
	return !link->master &&
	       link_reach(rs->links, link, rs->plan->tap_name) ==
		       LINK_REACH_INNER;
}

static void add_inner_set(struct nft_batch *b, const struct ruleset *rs)
{
	uint32_t inner[INNER_MAX];
	size_t n = 0;

	for (size_t i = 0; i < rs->links->n && n < INNER_MAX; i++)
		if (is_inner_bridge(rs, &rs->links->v[i]))
			inner[n++] = (uint32_t)rs->links->v[i].index;
	nft_key_set_add(b, "inner", NFT_TYPE_IFINDEX, sizeof(inner[0]), inner,
			n);
}

/* @key: NFT_META_IIF or NFT_META_OIF */
static void by_inner(struct nft_batch *b, uint32_t key)
{
	nft_meta(b, key);
	nft_lookup(b, "inner", 0);
}

/* Traffic of this host with its own containers and guests stays on it. */
static void accept_inner(struct nft_batch *b)
{
	nft_rule(b, "a bridge without a port that leads out");
	by_inner(b, NFT_META_OIF);
	verdict(b, NF_ACCEPT);
}

/* @key: NFT_META_IIF, then by source; NFT_META_OIF, then by destination */
static void by_lan(struct nft_batch *b, const struct lan_network *network,
		   uint32_t key)
{
	const bool v4 = network->family == AF_INET;
	const uint32_t len = v4 ? 4 : 16;
	uint32_t offset;
	uint8_t mask[16];

	if (key == NFT_META_IIF)
		offset = v4 ? IP4_SADDR : IP6_SADDR;
	else
		offset = v4 ? IP4_DADDR : IP6_DADDR;
	lan_mask(network->len, mask);
	nft_meta(b, key);
	nft_cmp_u32(b, NFT_CMP_EQ, (uint32_t)network->ifindex);
	nft_nfproto(b, v4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, offset, len);
	nft_mask(b, mask, len);
	nft_cmp(b, NFT_CMP_EQ, network->address, len);
}

/*
 * The private networks on the host's own links (lan.c), and never a name
 * server there: a name that is asked for tells where one goes.
 */
static void add_lan_chains(struct nft_batch *b, const struct ruleset *rs)
{
	/* DNS, NetBIOS names, DNS over TLS and QUIC, mDNS, LLMNR */
	const uint16_t names[] = { htons(53), htons(137), htons(853),
				   htons(5353), htons(5355) };
	static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP,
					     IPPROTO_ICMP, IPPROTO_ICMPV6 };
	const struct in_addr mask = { htonl(0xfffffffc) }; /* /30 */
	const struct in_addr network = { rs->plan->host_ip.s_addr &
					 mask.s_addr };

	nft_key_set_add(b, "names", NFT_TYPE_SERVICE, sizeof(names[0]), names,
			ARRAY_SIZE(names));
	nft_chain_add(b, "lan_protocols", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		nft_rule(b, NULL);
		nft_l4proto(b, protocols[i]);
		verdict(b, NF_ACCEPT);
	}
	nft_chain_add(b, "lan", NULL);
	nft_rule(b, "the TAP's network is none");
	nft_nfproto(b, NFPROTO_IPV4);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, IP4_DADDR, 4);
	nft_mask(b, &mask, sizeof(mask));
	nft_cmp(b, NFT_CMP_EQ, &network, sizeof(network));
	verdict(b, NFT_RETURN);
	/* A denial by user holds where every flow is denied its first packet:
	 * what comes later without a socket belongs to none. */
	nft_rule(b, "the VM has no business there");
	nft_meta(b, NFT_META_SKUID);
	nft_cmp_u32(b, NFT_CMP_EQ, rs->plan->vm_uid);
	verdict(b, NFT_RETURN);
	for (size_t i = 0; i < 2; i++) {
		nft_rule(b, "no name servers");
		nft_l4proto(b, protocols[i]);
		nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, DPORT,
			    sizeof(names[0]));
		nft_lookup(b, "names", 0);
		verdict(b, NFT_RETURN);
	}
	for (size_t i = 0; i < rs->lan->n; i++) {
		nft_rule(b, NULL);
		by_lan(b, &rs->lan->v[i], NFT_META_OIF);
		jump(b, "lan_protocols");
	}
	nft_chain_add(b, "from_lan", NULL);
	for (size_t i = 0; i < rs->lan->n; i++) {
		nft_rule(b, NULL);
		by_lan(b, &rs->lan->v[i], NFT_META_IIF);
		verdict(b, NF_ACCEPT);
	}
}

static void from_host_to_tap(struct nft_batch *b, const struct net_plan *plan)
{
	nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_EQ, plan->tap_name);
	nft_nfproto(b, NFPROTO_IPV4);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, IP4_SADDR, 4);
	nft_cmp(b, NFT_CMP_EQ, &plan->host_ip, sizeof(plan->host_ip));
}

static void add_output_chain(struct nft_batch *b, const struct ruleset *rs)
{
	const struct net_plan *plan = rs->plan;

	base_chain(b, "output", NF_INET_LOCAL_OUT, -10, NF_ACCEPT);
	accept_loopback(b);
	if (rs->mode == NET_FIREWALL_OPEN) {
		nft_rule(b, "TCP into the TAP");
		from_host_to_tap(b, plan);
		nft_l4proto(b, IPPROTO_TCP);
		verdict(b, NF_ACCEPT);
		nft_rule(b, "DNS into the TAP");
		from_host_to_tap(b, plan);
		is_dns(b);
		verdict(b, NF_ACCEPT);
	}
	nft_rule(b, "nothing else into the TAP");
	nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_EQ, plan->tap_name);
	jump(b, "refuse");
	if (has_uplink(rs))
		accept_mark(b, plan);
	accept_inner(b);
	nft_rule(b, NULL);
	jump(b, "hold");
	if (has_lan(rs)) {
		nft_rule(b, NULL);
		jump(b, "lan");
	}
	nft_rule(b, NULL);
	jump(b, "refuse");
}

static void from_inner_to_tap(struct nft_batch *b, const char *comment,
			      const struct net_plan *plan)
{
	nft_rule(b, comment);
	by_inner(b, NFT_META_IIF);
	nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_EQ, plan->tap_name);
	nft_nfproto(b, NFPROTO_IPV4);
}

static void refuse_forward(struct nft_batch *b)
{
	nft_count(b, counter_names[RULESET_REFUSED_FORWARD]);
	jump(b, "refuse_forward");
}

/* Through Tor, if the host's own NAT gives it the TAP's address. */
static void forward_into_tap(struct nft_batch *b, const struct net_plan *plan)
{
	from_inner_to_tap(b, "a sender without NAT", plan);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, IP4_SADDR, 4);
	nft_lookup(b, "untranslated", 0);
	refuse_forward(b);
	from_inner_to_tap(b, "part of a connection that is not through Tor",
			  plan);
	is_syn(b, NFT_CMP_NEQ);
	ct_state(b, NF_CT_STATE_BIT(IP_CT_NEW));
	refuse_forward(b);
	from_inner_to_tap(b, "TCP of containers and guests", plan);
	nft_l4proto(b, IPPROTO_TCP);
	verdict(b, NF_ACCEPT);
	from_inner_to_tap(b, "DNS of containers and guests", plan);
	is_dns(b);
	verdict(b, NF_ACCEPT);
}

/* In every mode: when Tor ends, its last word closes their connections. What
 * they say to that is refused, which ends these for good. */
static void forward_from_tap(struct nft_batch *b, const struct net_plan *plan)
{
	nft_rule(b, "answers to containers and guests");
	nft_ifname(b, NFT_META_IIFNAME, NFT_CMP_EQ, plan->tap_name);
	by_inner(b, NFT_META_OIF);
	ct_state(b, NF_CT_STATE_BIT(IP_CT_ESTABLISHED) |
			    NF_CT_STATE_BIT(IP_CT_RELATED));
	nft_ct(b, NFT_CT_DIRECTION);
	nft_cmp_u8(b, NFT_CMP_EQ, IP_CT_DIR_REPLY);
	verdict(b, NF_ACCEPT);
}

static void add_forward_chain(struct nft_batch *b, const struct ruleset *rs)
{
	base_chain(b, "forward", NF_INET_FORWARD, -10, NF_ACCEPT);
	/* Also within one bridge: br_netfilter sends bridged packets here. */
	nft_rule(b, "containers and guests with each other");
	by_inner(b, NFT_META_IIF);
	by_inner(b, NFT_META_OIF);
	verdict(b, NF_ACCEPT);
	if (rs->mode == NET_FIREWALL_OPEN)
		forward_into_tap(b, rs->plan);
	forward_from_tap(b, rs->plan);
	if (has_lan(rs)) {
		nft_rule(b, "containers and guests with the LAN");
		by_inner(b, NFT_META_IIF);
		jump(b, "lan");
		nft_rule(b, "the LAN with them, as the host's NAT lets it");
		by_inner(b, NFT_META_OIF);
		jump(b, "from_lan");
	}
	nft_rule(b, NULL);
	refuse_forward(b);
}

static void add_refuse_forward_chain(struct nft_batch *b)
{
	nft_chain_add(b, "refuse_forward", NULL);
	nft_rule(b, NULL);
	nft_l4proto(b, IPPROTO_TCP);
	nft_reject(b, NFT_REJECT_TCP_RST, 0);
	nft_rule_end(b);
	nft_rule(b, NULL);
	nft_reject(b, NFT_REJECT_ICMPX_UNREACH,
		   NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	nft_rule_end(b);
}

static void add_postrouting_chain(struct nft_batch *b, const struct ruleset *rs)
{
	const struct net_plan *plan = rs->plan;

	/* After every NAT of others (srcnat: 100). */
	base_chain(b, "postrouting", NF_INET_POST_ROUTING, 300, NF_DROP);
	accept_loopback(b);
	if (rs->mode == NET_FIREWALL_OPEN) {
		nft_rule(b, "into the TAP");
		from_host_to_tap(b, plan);
		verdict(b, NF_ACCEPT);
		nft_rule(b, "a sender without NAT, to be refused from now on");
		nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_EQ, plan->tap_name);
		nft_nfproto(b, NFPROTO_IPV4);
		nft_ct_original(b, NFT_CT_SRC_IP);
		nft_set_update(b, "untranslated");
		nft_rule_end(b);
	}
	nft_rule(b, "nothing else into the TAP");
	nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_EQ, plan->tap_name);
	count_drop(b, RULESET_DROPPED_POSTROUTING);
	if (has_uplink(rs))
		accept_mark(b, plan);
	accept_inner(b);
	nft_rule(b, NULL);
	jump(b, "hold");
	if (has_lan(rs)) {
		/* Nobody after this looks at the mark but egress. What has it
		 * and is not accepted is dropped. */
		nft_rule(b, "egress lets pass what passes here");
		nft_meta_mark_set(b, plan->mark);
		nft_rule_end(b);
		nft_rule(b, NULL);
		jump(b, "lan");
	}
	nft_rule(b, NULL);
	nft_count(b, counter_names[RULESET_DROPPED_POSTROUTING]);
	nft_rule_end(b);
}

static void accept_ethertype(struct nft_batch *b, const char *comment,
			     uint16_t ethertype)
{
	uint16_t be = htons(ethertype);

	nft_rule(b, comment);
	nft_meta(b, NFT_META_PROTOCOL);
	nft_cmp(b, NFT_CMP_EQ, &be, sizeof(be));
	verdict(b, NF_ACCEPT);
}

static void add_out_chain(struct nft_batch *b, const struct ruleset *rs)
{
	const struct net_plan *plan = rs->plan;
	const uint16_t arp = htons(ETH_P_ARP);

	nft_chain_add(b, "out", NULL);
	if (has_uplink(rs) || has_lan(rs))
		accept_mark(b, plan);
	/* Linux answers ARP for any of its addresses on any link. */
	nft_rule(b, "nobody on the LAN learns of the TAP");
	nft_meta(b, NFT_META_PROTOCOL);
	nft_cmp(b, NFT_CMP_EQ, &arp, sizeof(arp));
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, ARP_SENDER_IP, 4);
	nft_cmp(b, NFT_CMP_EQ, &plan->host_ip, sizeof(plan->host_ip));
	count_drop(b, RULESET_DROPPED_EGRESS);
	accept_ethertype(b, "ARP", ETH_P_ARP);
	accept_ethertype(b, "EAPOL", ETH_P_PAE);
	nft_rule(b, NULL);
	jump(b, "hold");
	nft_rule(b, NULL);
	count_drop(b, RULESET_DROPPED_EGRESS);
}

static void add_egress_chains(struct nft_batch *b, const struct ruleset *rs)
{
	static const char *const names[EGRESS_CHAINS_MAX] = {
		"egress0",  "egress1",  "egress2",  "egress3",
		"egress4",  "egress5",  "egress6",  "egress7",
		"egress8",  "egress9",  "egress10", "egress11",
		"egress12", "egress13", "egress14", "egress15",
	};
	const char *devices[DEVICES_PER_CHAIN + 1];
	const struct net_links *links = rs->links;
	size_t next = 0, n;

	for (size_t chain = 0; chain < EGRESS_CHAINS_MAX; chain++) {
		struct nft_hook hook = {
			.type = "filter",
			.num = NF_NETDEV_EGRESS,
			.priority = 0,
			.policy = NF_DROP,
			.devices = devices,
		};

		for (n = 0; next < links->n && n < DEVICES_PER_CHAIN; next++)
			if (link_reach(links, &links->v[next],
				       rs->plan->tap_name) == LINK_REACH_OUTER)
				devices[n++] = links->v[next].name;
		if (n == 0)
			return;
		devices[n] = NULL;
		nft_chain_add(b, names[chain], &hook);
		nft_rule(b, NULL);
		jump(b, "out");
	}
	/* More links than the chains can take: no ruleset is better than one
	 * with a hole. */
	for (; next < links->n; next++)
		if (link_reach(links, &links->v[next], rs->plan->tap_name) ==
		    LINK_REACH_OUTER) {
			b->err = b->err ? b->err : -E2BIG;
			return;
		}
}

void ruleset_build(struct nft_batch *b, const struct ruleset *rs)
{
	nft_table_add(b, NFPROTO_INET, NET_TABLE_NAME, rs->table_flags,
		      table_comment(rs));
	for (int i = 0; i < RULESET_DROPPED_EGRESS; i++)
		nft_counter_add(b, counter_names[i], rs->counts[i].packets,
				rs->counts[i].bytes);
	add_inner_set(b, rs);
	nft_dynamic_set_add(b, "untranslated", NFT_TYPE_IPADDR, 4,
			    UNTRANSLATED_MAX, UNTRANSLATED_MS);
	nft_dynamic_set_add(b, RULESET_REFUSED_USERS, NFT_TYPE_UID, 4,
			    RULESET_USERS_MAX, 0);
	nft_counted_add(b, RULESET_REFUSED_USERS, rs->users, rs->n_users);
	add_hold_chain(b);
	add_refuse_chain(b);
	add_refuse_forward_chain(b);
	add_prerouting_chain(b, rs->plan);
	add_input_chain(b, rs->plan);
	if (has_uplink(rs)) {
		add_private_sets(b);
		add_uplink_chain(b, rs->plan);
		add_mark_chain(b, rs->plan);
	}
	if (has_lan(rs))
		add_lan_chains(b, rs);
	add_output_chain(b, rs);
	add_forward_chain(b, rs);
	add_postrouting_chain(b, rs);

	nft_table_add(b, NFPROTO_NETDEV, NET_TABLE_NAME, rs->table_flags,
		      table_comment(rs));
	nft_counter_add(b, counter_names[RULESET_DROPPED_EGRESS],
			rs->counts[RULESET_DROPPED_EGRESS].packets,
			rs->counts[RULESET_DROPPED_EGRESS].bytes);
	add_hold_chain(b);
	add_out_chain(b, rs);
	add_egress_chains(b, rs);
}
