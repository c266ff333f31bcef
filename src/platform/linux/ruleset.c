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
 * This file writes the chains that every mode has; ruleset_uplink.c (uplink,
 * mark), ruleset_lan.c and ruleset_egress.c write the others.
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
#include "platform/linux/ruleset_words.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <stddef.h>
#include <string.h>

/* Bridges in the set of inner ones; the containers of more have no network. */
#define INNER_MAX 256

/* Senders without NAT that are remembered, and for how long. */
#define UNTRANSLATED_MAX 1024
#define UNTRANSLATED_MS 30000

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

static const char *table_comment(const struct ruleset *rs)
{
	return rs->mode == NET_FIREWALL_LOCKDOWN ? RULESET_LOCKDOWN_COMMENT
						 : NULL;
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

static void accept_loopback(struct nft_batch *b)
{
	nft_rule(b, NULL);
	nft_meta(b, NFT_META_OIF);
	nft_cmp_u32(b, NFT_CMP_EQ, LOOPBACK_INDEX);
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
	uint32_t inner[INNER_MAX] = { 0 };
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

static void from_host_to_tap(struct nft_batch *b, const struct net_plan *plan)
{
	nft_ifname(b, NFT_META_OIFNAME, NFT_CMP_EQ, plan->tap_name);
	nft_nfproto(b, NFPROTO_IPV4);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, IP4_SADDR, 4);
	nft_cmp(b, NFT_CMP_EQ, &plan->host_ip, sizeof(plan->host_ip));
}

/* A guest that was taken over makes QEMU connect to whom it likes: this host's
 * services, its containers. A denial by user holds here, as in the LAN's chain:
 * without its first packet there is no flow, and none of what comes later. */
static void refuse_vm(struct nft_batch *b, const struct ruleset *rs)
{
	if (rs->mode == NET_FIREWALL_LOCKDOWN)
		return;
	nft_rule(b, "the VM has its flows, and no business on this host");
	nft_meta(b, NFT_META_SKUID);
	nft_cmp_u32(b, NFT_CMP_EQ, rs->plan->vm_uid);
	if (has_uplink(rs)) {
		nft_meta(b, NFT_META_MARK);
		nft_cmp_u32(b, NFT_CMP_NEQ, rs->plan->mark);
	}
	jump(b, "refuse");
}

static void add_output_chain(struct nft_batch *b, const struct ruleset *rs)
{
	const struct net_plan *plan = rs->plan;

	base_chain(b, "output", NF_INET_LOCAL_OUT, -10, NF_ACCEPT);
	refuse_vm(b, rs);
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
	if (has_uplink(rs))
		ruleset_uplink_add(b, rs->plan);
	if (has_lan(rs))
		ruleset_lan_add(b, rs);
	add_output_chain(b, rs);
	add_forward_chain(b, rs);
	add_postrouting_chain(b, rs);

	nft_table_add(b, NFPROTO_NETDEV, NET_TABLE_NAME, rs->table_flags,
		      table_comment(rs));
	nft_counter_add(b, counter_names[RULESET_DROPPED_EGRESS],
			rs->counts[RULESET_DROPPED_EGRESS].packets,
			rs->counts[RULESET_DROPPED_EGRESS].bytes);
	add_hold_chain(b);
	ruleset_egress_add(b, rs);
}
