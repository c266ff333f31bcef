/*
 * A batch of nf_tables messages under construction: libnftnl's objects behind
 * one call per expression, so that the ruleset reads like one.
 *
 * Failures (out of memory, buffer full) stick to the batch: nobody checks a
 * single call, nft_batch_end() reports the first one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <linux/netfilter/nf_tables.h>

/* Since Linux 6.9; Debian 12's headers do not have it. */
#ifndef NFT_TABLE_F_PERSIST
#define NFT_TABLE_F_PERSIST 0x4
#endif

/* Bytes; less than SO_SNDBUF's default. */
#define NFT_BATCH_SIZE (192UL * 1024)
#define NFT_BATCH_MESSAGES 512

struct nftnl_rule;

struct nft_batch {
	char *buf;
	size_t len;
	int err; /* first failure, negative errno */
	uint32_t seq_first, seq;
	/* By seq - seq_first: what the message asks for, in words. */
	const char *what[NFT_BATCH_MESSAGES];
	/* The table and chain that the following calls are about. */
	int family; /* NFPROTO_* */
	const char *table;
	const char *chain;
	struct nftnl_rule *rule;
};

int nft_batch_begin(struct nft_batch *b, uint32_t seq);
/* Return: 0 or the first failure. b->seq is the last one used. */
int nft_batch_end(struct nft_batch *b);
void nft_batch_done(struct nft_batch *b);

void nft_table_delete(struct nft_batch *b, int family, const char *name);
/* @comment: as nft(8) lists it; NULL: none */
void nft_table_add(struct nft_batch *b, int family, const char *name,
		   uint32_t flags, const char *comment);

/* A named counter starting at @packets and @bytes. */
void nft_counter_add(struct nft_batch *b, const char *name, uint64_t packets,
		     uint64_t bytes);

/* libnftables' numbers for the types of a set's key; nft(8) lists by them. */
enum {
	NFT_TYPE_IPADDR = 7,
	NFT_TYPE_IP6ADDR = 8,
	NFT_TYPE_SERVICE = 13,
	NFT_TYPE_IFINDEX = 20,
	NFT_TYPE_UID = 24,
};

/* Addresses [from, to) in network byte order; @to NULL: to the end. */
struct nft_range {
	const uint8_t *from, *to;
};
void nft_set_add(struct nft_batch *b, const char *name, uint32_t key_type,
		 uint32_t key_len, const struct nft_range *ranges, size_t n);
/* A set of @n keys, one after the other at @keys. */
void nft_key_set_add(struct nft_batch *b, const char *name, uint32_t key_type,
		     uint32_t key_len, const void *keys, size_t n);
/* An empty set that rules add to; an element stays for @timeout_ms; 0: as long
 * as the set. */
void nft_dynamic_set_add(struct nft_batch *b, const char *name,
			 uint32_t key_type, uint32_t key_len, uint32_t size,
			 uint64_t timeout_ms);
/* What nft_set_count() has counted elsewhere, to go on from there. */
struct nft_counted {
	uint32_t key;
	uint64_t packets, bytes;
};
void nft_counted_add(struct nft_batch *b, const char *set,
		     const struct nft_counted *counted, size_t n);

/* @hook NULL: a regular chain. For netdev, the devices, NULL-terminated. */
struct nft_hook {
	const char *type; /* "filter", "route" */
	uint32_t num;
	int32_t priority;
	uint32_t policy; /* NF_ACCEPT, NF_DROP */
	const char **devices;
};
void nft_chain_add(struct nft_batch *b, const char *name,
		   const struct nft_hook *hook);

/* Rules: expressions up to nft_rule_end() belong to the rule. */
void nft_rule(struct nft_batch *b, const char *comment);
void nft_rule_end(struct nft_batch *b);

void nft_meta(struct nft_batch *b, uint32_t key);
void nft_ct(struct nft_batch *b, uint32_t key);
/* Of the flow's first packet, as it came. */
void nft_ct_original(struct nft_batch *b, uint32_t key);
void nft_fib_type(struct nft_batch *b);
void nft_payload(struct nft_batch *b, uint32_t base, uint32_t offset,
		 uint32_t len);
void nft_mask(struct nft_batch *b, const void *mask, uint32_t len);
void nft_cmp(struct nft_batch *b, uint32_t op, const void *data, uint32_t len);
void nft_lookup(struct nft_batch *b, const char *set, uint32_t flags);
/* Puts the loaded value into a dynamic set. */
void nft_set_update(struct nft_batch *b, const char *set);
/* The same, counting packets by the value. In a full set the rule ends here. */
void nft_set_count(struct nft_batch *b, const char *set);
/* Loads @value into meta mark or ct mark. */
void nft_meta_mark_set(struct nft_batch *b, uint32_t value);
void nft_ct_mark_set(struct nft_batch *b, uint32_t value);
void nft_count(struct nft_batch *b, const char *counter);
void nft_reject(struct nft_batch *b, uint32_t type, uint8_t code);
/* @chain: for NFT_JUMP */
void nft_verdict(struct nft_batch *b, int verdict, const char *chain);

/* Composites. Values of u8, u32 are in host order, of be16 as written. */
void nft_cmp_u8(struct nft_batch *b, uint32_t op, uint8_t value);
void nft_cmp_u32(struct nft_batch *b, uint32_t op, uint32_t value);
void nft_ifname(struct nft_batch *b, uint32_t key, uint32_t op,
		const char *name);
void nft_nfproto(struct nft_batch *b, uint8_t proto);
void nft_l4proto(struct nft_batch *b, uint8_t proto);
void nft_udp_ports(struct nft_batch *b, uint16_t sport, uint16_t dport);
