/*
 * Whose packets are the uplink's: ruleset.c's theory of operation says why the
 * first packet of a flow decides.
 */
#include "platform/linux/ruleset_words.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>

#include "base/ip.h"

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
	/* All but the global unicast space 2000::/3; of it, what IETF protocols
	 * have for themselves (Teredo, ORCHID) and 6to4. */
	const struct nft_range private6[] = {
		{ IP6(0, 0), IP6(0x2000, 0) },
		{ IP6(0x2001, 0), IP6(0x2001, 0x0200) },
		{ IP6(0x2002, 0), IP6(0x2003, 0) },
		{ IP6(0x4000, 0), NULL },
	};

	nft_set_add(b, "private4", NFT_TYPE_IPADDR, 4, private4,
		    ARRAY_SIZE(private4));
	nft_set_add(b, "private6", NFT_TYPE_IP6ADDR, 16, private6,
		    ARRAY_SIZE(private6));
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
	const bool v4 = ip_is_v4(&peer->address);
	const struct in_addr address4 = ip_to_v4(&peer->address);

	begin_first_packet(b, plan, v4 ? NFPROTO_IPV4 : NFPROTO_IPV6,
			   peer->protocol);
	nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, v4 ? IP4_DADDR : IP6_DADDR,
		    v4 ? 4 : 16);
	if (v4)
		nft_cmp(b, NFT_CMP_EQ, &address4, sizeof(address4));
	else
		nft_cmp(b, NFT_CMP_EQ, &peer->address, sizeof(peer->address));
	to_port(b, NFT_CMP_EQ, peer->port);
	end_first_packet(b, plan);
}

/* What a flow of the uplink begins with. */
static void add_uplink_chain(struct nft_batch *b, const struct net_plan *plan)
{
	const struct net_uplink *uplink = &plan->uplink;

	nft_chain_add(b, "uplink", NULL);
	if (uplink->any_tcp)
		to_anybody(b, plan, NFPROTO_IPV4, IPPROTO_TCP);
	if (uplink->any_udp)
		to_anybody(b, plan, NFPROTO_IPV4, IPPROTO_UDP);
	if (uplink->any_tcp6)
		to_anybody(b, plan, NFPROTO_IPV6, IPPROTO_TCP);
	if (uplink->any_udp6)
		to_anybody(b, plan, NFPROTO_IPV6, IPPROTO_UDP);
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

void ruleset_uplink_add(struct nft_batch *b, const struct net_plan *plan)
{
	add_private_sets(b);
	add_uplink_chain(b, plan);
	add_mark_chain(b, plan);
}
