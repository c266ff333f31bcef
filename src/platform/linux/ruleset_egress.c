/* The egress hook of each link that leads out. */
#include "platform/linux/ruleset_words.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>

/* Of one chain, NFT_NETDEVICE_MAX in the kernel. */
#define DEVICES_PER_CHAIN 256
#define EGRESS_CHAINS_MAX 16

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

void ruleset_egress_add(struct nft_batch *b, const struct ruleset *rs)
{
	add_out_chain(b, rs);
	add_egress_chains(b, rs);
}
