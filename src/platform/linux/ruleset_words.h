/*
 * The words that the chains of ruleset*.c are written in, and the parts of the
 * ruleset that are files of their own. For ruleset*.c only.
 */
#pragma once

#include "platform/linux/ruleset.h"

#include <linux/netfilter.h>

#define LOOPBACK_INDEX 1
#define DNS_PORT 53

/* Offsets of header fields, in bytes (RFC 791, 8200, 9293, 826). */
#define IP4_SADDR 12
#define IP4_DADDR 16
#define IP6_HOPLIMIT 7
#define IP6_SADDR 8
#define IP6_DADDR 24
#define TCP_FLAGS 13
#define DPORT 2
#define ARP_SENDER_IP 14

static inline bool has_uplink(const struct ruleset *rs)
{
	return rs->mode == NET_FIREWALL_UPLINK || rs->mode == NET_FIREWALL_OPEN;
}

/* Lockdown has no configuration to go by. */
static inline bool has_lan(const struct ruleset *rs)
{
	return rs->lan->n > 0 && rs->mode != NET_FIREWALL_LOCKDOWN;
}

static inline void base_chain(struct nft_batch *b, const char *name,
			      uint32_t num, int32_t priority, uint32_t policy)
{
	const struct nft_hook hook = {
		.type = "filter",
		.num = num,
		.priority = priority,
		.policy = policy,
	};

	nft_chain_add(b, name, &hook);
}

static inline void verdict(struct nft_batch *b, int code)
{
	nft_verdict(b, code, NULL);
	nft_rule_end(b);
}

static inline void jump(struct nft_batch *b, const char *chain)
{
	nft_verdict(b, NFT_JUMP, chain);
	nft_rule_end(b);
}

static inline void count_drop(struct nft_batch *b, enum ruleset_counter counter)
{
	nft_count(b, ruleset_counter_name(counter));
	verdict(b, NF_DROP);
}

static inline void is_syn(struct nft_batch *b, uint32_t op)
{
	nft_l4proto(b, IPPROTO_TCP);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS, 1);
	/* FIN, SYN, RST, ACK */
	nft_mask(b, &(uint8_t){ 0x17 }, 1);
	nft_cmp_u8(b, op, 0x02);
}

static inline void ct_state(struct nft_batch *b, uint32_t bits)
{
	nft_ct(b, NFT_CT_STATE);
	nft_mask(b, &bits, sizeof(bits));
	nft_cmp_u32(b, NFT_CMP_NEQ, 0);
}

static inline void accept_mark(struct nft_batch *b, const struct net_plan *plan)
{
	nft_rule(b, "the uplink");
	nft_meta(b, NFT_META_MARK);
	nft_cmp_u32(b, NFT_CMP_EQ, plan->mark);
	verdict(b, NF_ACCEPT);
}

/* The sets and chains that know the uplink's flows and mark their packets. */
void ruleset_uplink_add(struct nft_batch *b, const struct net_plan *plan);

/* The set and chains that other chains jump to for LAN access. */
void ruleset_lan_add(struct nft_batch *b, const struct ruleset *rs);

/* The chains of table netdev on the links that lead out. Needs chain hold. */
void ruleset_egress_add(struct nft_batch *b, const struct ruleset *rs);
