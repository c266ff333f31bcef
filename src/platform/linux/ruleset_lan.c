/* What LAN access opens. Which networks are the LAN: lan.c. */
#include "platform/linux/ruleset_words.h"

#include <arpa/inet.h>

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
void ruleset_lan_add(struct nft_batch *b, const struct ruleset *rs)
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
