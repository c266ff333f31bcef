/* The two tables of the block as a batch. Pure: no I/O. */
#pragma once

#include "platform/linux/linux.h"
#include "platform/linux/nft.h"

/* Every packet that the block stopped is in exactly one of these. */
enum ruleset_counter {
	RULESET_REFUSED_TCP, /* answered by a reset */
	RULESET_REFUSED_UDP, /* answered by ICMP, like the next two */
	RULESET_REFUSED_ICMP,
	RULESET_REFUSED_OTHER,
	RULESET_REFUSED_FORWARD,
	RULESET_DROPPED_SPOOFED,  /* to the TAP's network from elsewhere */
	RULESET_DROPPED_REDIRECT, /* ICMP redirects */
	RULESET_DROPPED_GUEST,    /* connections that the VM opens to us */
	RULESET_DROPPED_POSTROUTING,
	RULESET_DROPPED_EGRESS, /* in table netdev; all before: inet */
	RULESET_COUNTER_COUNT,
};

struct ruleset_count {
	uint64_t packets, bytes;
};

/* Of both tables in NET_FIREWALL_LOCKDOWN: by it they are told from those of
 * a controller. */
#define RULESET_LOCKDOWN_COMMENT "lockdown"

/* The set of users whose sockets were refused, with how often. */
#define RULESET_REFUSED_USERS "refused_users"
#define RULESET_USERS_MAX 128

const char *ruleset_counter_name(enum ruleset_counter counter);

struct ruleset {
	const struct net_plan *plan;
	enum net_firewall mode;
	const struct net_links *links;
	const struct lan *lan; /* empty: no LAN access */
	uint32_t table_flags; /* NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST or 0 */
	struct ruleset_count counts[RULESET_COUNTER_COUNT]; /* to go on from */
	struct nft_counted users[RULESET_USERS_MAX];        /* likewise */
	size_t n_users;
};

/* Appends `table inet torvm` and `table netdev torvm` to @b. */
void ruleset_build(struct nft_batch *b, const struct ruleset *rs);
