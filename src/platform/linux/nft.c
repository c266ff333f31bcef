/* See nft.h. */
#include "platform/linux/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libmnl/libmnl.h>
#include <libnftnl/batch.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>

#include "base/util.h"

/* Room that any one message may need: a chain with 256 devices is the
 * largest. */
#define MESSAGE_MAX 16384

/* One register is enough: every expression loads, then compares. */
#define REG NFT_REG_1

static void fail(struct nft_batch *b, int err)
{
	if (!b->err)
		b->err = err;
}

/* The next message's header, or NULL after a failure. */
static struct nlmsghdr *message(struct nft_batch *b, uint16_t type,
				uint16_t flags, const char *what)
{
	if (!b->err && (b->len + MESSAGE_MAX > NFT_BATCH_SIZE ||
			b->seq + 1 - b->seq_first >= NFT_BATCH_MESSAGES))
		fail(b, -E2BIG);
	if (b->err)
		return NULL;
	b->seq++;
	b->what[b->seq - b->seq_first] = what;
	return nftnl_nlmsg_build_hdr(b->buf + b->len, type, (uint16_t)b->family,
				     flags, b->seq);
}

static void message_done(struct nft_batch *b, const struct nlmsghdr *nlh)
{
	b->len += NLMSG_ALIGN(nlh->nlmsg_len);
}

int nft_batch_begin(struct nft_batch *b, uint32_t seq)
{
	*b = (struct nft_batch){ .seq_first = seq, .seq = seq };
	b->buf = malloc(NFT_BATCH_SIZE);
	if (!b->buf)
		return b->err = -ENOMEM;
	b->what[0] = "a batch";
	nftnl_batch_begin(b->buf, b->seq);
	b->len = ((struct nlmsghdr *)b->buf)->nlmsg_len;
	return 0;
}

int nft_batch_end(struct nft_batch *b)
{
	const struct nlmsghdr *nlh;

	if (b->err)
		return b->err;
	b->seq++;
	nlh = nftnl_batch_end(b->buf + b->len, b->seq);
	message_done(b, nlh);
	return 0;
}

void nft_batch_done(struct nft_batch *b)
{
	free(b->buf);
	if (b->rule)
		nftnl_rule_free(b->rule);
	*b = (struct nft_batch){ 0 };
}

static void table_message(struct nft_batch *b, uint16_t type, uint16_t flags,
			  int family, const char *name, uint32_t table_flags,
			  const char *comment)
{
	struct nftnl_table *t = nftnl_table_alloc();
	struct nftnl_udata_buf *u = NULL;
	struct nlmsghdr *nlh;

	b->family = family;
	b->table = name;
	if (!t)
		return fail(b, -ENOMEM);
	nftnl_table_set_u32(t, NFTNL_TABLE_FAMILY, (uint32_t)family);
	nftnl_table_set_str(t, NFTNL_TABLE_NAME, name);
	if (table_flags)
		nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, table_flags);
	if (comment)
		u = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	if (u && nftnl_udata_put_strz(u, NFTNL_UDATA_TABLE_COMMENT, comment))
		nftnl_table_set_data(t, NFTNL_TABLE_USERDATA,
				     nftnl_udata_buf_data(u),
				     nftnl_udata_buf_len(u));
	else if (comment)
		fail(b, -ENOMEM);
	nlh = message(b, type, flags, "a table");
	if (nlh) {
		nftnl_table_nlmsg_build_payload(nlh, t);
		message_done(b, nlh);
	}
	if (u)
		nftnl_udata_buf_free(u);
	nftnl_table_free(t);
}

void nft_table_delete(struct nft_batch *b, int family, const char *name)
{
	table_message(b, NFT_MSG_DELTABLE, 0, family, name, 0, NULL);
}

void nft_table_add(struct nft_batch *b, int family, const char *name,
		   uint32_t flags, const char *comment)
{
	table_message(b, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, family,
		      name, flags, comment);
}

void nft_counter_add(struct nft_batch *b, const char *name, uint64_t packets,
		     uint64_t bytes)
{
	struct nftnl_obj *o = nftnl_obj_alloc();
	struct nlmsghdr *nlh;

	if (!o)
		return fail(b, -ENOMEM);
	nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, b->table);
	nftnl_obj_set_str(o, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(o, NFTNL_OBJ_FAMILY, (uint32_t)b->family);
	nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_PKTS, packets);
	nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_BYTES, bytes);
	nlh = message(b, NFT_MSG_NEWOBJ, NLM_F_CREATE, "a named counter");
	if (nlh) {
		nftnl_obj_nlmsg_build_payload(nlh, o);
		message_done(b, nlh);
	}
	nftnl_obj_free(o);
}

static void set_elem(struct nft_batch *b, struct nftnl_set *s, const void *key,
		     uint32_t len, uint32_t flags)
{
	struct nftnl_set_elem *elem = nftnl_set_elem_alloc();

	if (!elem)
		return fail(b, -ENOMEM);
	nftnl_set_elem_set(elem, NFTNL_SET_ELEM_KEY, key, len);
	if (flags)
		nftnl_set_elem_set_u32(elem, NFTNL_SET_ELEM_FLAGS, flags);
	nftnl_set_elem_add(s, elem);
}

/* @s is sent, first the set, then its elements, and freed. */
static void set_message(struct nft_batch *b, struct nftnl_set *s, bool filled)
{
	struct nlmsghdr *nlh;

	nlh = message(b, NFT_MSG_NEWSET, NLM_F_CREATE, "a set");
	if (nlh) {
		nftnl_set_nlmsg_build_payload(nlh, s);
		message_done(b, nlh);
	}
	nlh = filled ? message(b, NFT_MSG_NEWSETELEM, NLM_F_CREATE,
			       "set elements")
		     : NULL;
	if (nlh) {
		nftnl_set_elems_nlmsg_build_payload(nlh, s);
		message_done(b, nlh);
	}
	nftnl_set_free(s);
}

/* For nft(8), which would list the keys the other way round. */
static void mark_host_order(struct nft_batch *b, struct nftnl_set *s)
{
	const uint32_t byteorder_host_endian = 1;
	struct nftnl_udata_buf *u = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);

	if (!u)
		return fail(b, -ENOMEM);
	nftnl_udata_put_u32(u, NFTNL_UDATA_SET_KEYBYTEORDER,
			    byteorder_host_endian);
	nftnl_set_set_data(s, NFTNL_SET_USERDATA, nftnl_udata_buf_data(u),
			   nftnl_udata_buf_len(u));
	nftnl_udata_buf_free(u);
}

/* Keys are in network byte order, but for numbers of the host's own. */
static struct nftnl_set *set_new(struct nft_batch *b, const char *name,
				 uint32_t key_type, uint32_t key_len,
				 uint32_t flags)
{
	const bool host_order =
		key_type == NFT_TYPE_IFINDEX || key_type == NFT_TYPE_UID;
	struct nftnl_set *s = nftnl_set_alloc();

	if (!s) {
		fail(b, -ENOMEM);
		return NULL;
	}
	nftnl_set_set_u32(s, NFTNL_SET_FAMILY, (uint32_t)b->family);
	nftnl_set_set_str(s, NFTNL_SET_TABLE, b->table);
	nftnl_set_set_str(s, NFTNL_SET_NAME, name);
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, flags);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, key_type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, key_len);
	/* The kernel wants an id; it only matters within the batch. */
	nftnl_set_set_u32(s, NFTNL_SET_ID, b->seq);
	if (host_order)
		mark_host_order(b, s);
	return s;
}

void nft_set_add(struct nft_batch *b, const char *name, uint32_t key_type,
		 uint32_t key_len, const struct nft_range *ranges, size_t n)
{
	struct nftnl_set *s = set_new(b, name, key_type, key_len,
				      NFT_SET_INTERVAL | NFT_SET_CONSTANT);

	if (!s)
		return;
	for (size_t i = 0; i < n; i++) {
		set_elem(b, s, ranges[i].from, key_len, 0);
		if (ranges[i].to)
			set_elem(b, s, ranges[i].to, key_len,
				 NFT_SET_ELEM_INTERVAL_END);
	}
	set_message(b, s, true);
}

void nft_key_set_add(struct nft_batch *b, const char *name, uint32_t key_type,
		     uint32_t key_len, const void *keys, size_t n)
{
	struct nftnl_set *s =
		set_new(b, name, key_type, key_len, NFT_SET_CONSTANT);

	if (!s)
		return;
	for (size_t i = 0; i < n; i++)
		set_elem(b, s, (const char *)keys + i * key_len, key_len, 0);
	set_message(b, s, n > 0);
}

void nft_dynamic_set_add(struct nft_batch *b, const char *name,
			 uint32_t key_type, uint32_t key_len, uint32_t size,
			 uint64_t timeout_ms)
{
	struct nftnl_set *s =
		set_new(b, name, key_type, key_len,
			NFT_SET_EVAL | (timeout_ms ? NFT_SET_TIMEOUT : 0));

	if (!s)
		return;
	nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, size);
	if (timeout_ms)
		nftnl_set_set_u64(s, NFTNL_SET_TIMEOUT, timeout_ms);
	set_message(b, s, false);
}

static struct nftnl_expr *counter(struct nft_batch *b, uint64_t packets,
				  uint64_t bytes)
{
	struct nftnl_expr *x = nftnl_expr_alloc("counter");

	if (!x) {
		fail(b, -ENOMEM);
		return NULL;
	}
	nftnl_expr_set_u64(x, NFTNL_EXPR_CTR_PACKETS, packets);
	nftnl_expr_set_u64(x, NFTNL_EXPR_CTR_BYTES, bytes);
	return x;
}

void nft_counted_add(struct nft_batch *b, const char *set,
		     const struct nft_counted *counted, size_t n)
{
	struct nftnl_set *s = n > 0 ? nftnl_set_alloc() : NULL;
	struct nlmsghdr *nlh;

	if (n == 0)
		return;
	if (!s)
		return fail(b, -ENOMEM);
	nftnl_set_set_str(s, NFTNL_SET_TABLE, b->table);
	nftnl_set_set_str(s, NFTNL_SET_NAME, set);
	for (size_t i = 0; i < n; i++) {
		struct nftnl_set_elem *elem = nftnl_set_elem_alloc();
		struct nftnl_expr *x =
			counter(b, counted[i].packets, counted[i].bytes);

		if (!elem || !x) {
			fail(b, -ENOMEM);
			if (elem)
				nftnl_set_elem_free(elem);
			if (x)
				nftnl_expr_free(x);
			break;
		}
		nftnl_set_elem_set(elem, NFTNL_SET_ELEM_KEY, &counted[i].key,
				   sizeof(counted[i].key));
		nftnl_set_elem_add_expr(elem, x);
		nftnl_set_elem_add(s, elem);
	}
	nlh = message(b, NFT_MSG_NEWSETELEM, NLM_F_CREATE, "set elements");
	if (nlh) {
		nftnl_set_elems_nlmsg_build_payload(nlh, s);
		message_done(b, nlh);
	}
	nftnl_set_free(s);
}

void nft_chain_add(struct nft_batch *b, const char *name,
		   const struct nft_hook *hook)
{
	struct nftnl_chain *c = nftnl_chain_alloc();
	struct nlmsghdr *nlh;

	b->chain = name;
	if (!c)
		return fail(b, -ENOMEM);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_FAMILY, (uint32_t)b->family);
	nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, b->table);
	nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
	if (hook) {
		nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, hook->type);
		nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook->num);
		nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, hook->priority);
		nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, hook->policy);
		if (hook->devices)
			nftnl_chain_set_array(c, NFTNL_CHAIN_DEVICES,
					      hook->devices);
	}
	nlh = message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE,
		      hook && hook->devices ? "a netdev egress chain"
					    : "a chain");
	if (nlh) {
		nftnl_chain_nlmsg_build_payload(nlh, c);
		message_done(b, nlh);
	}
	nftnl_chain_free(c);
}

void nft_rule(struct nft_batch *b, const char *comment)
{
	struct nftnl_udata_buf *udata;

	if (b->rule)
		nftnl_rule_free(b->rule);
	b->rule = nftnl_rule_alloc();
	if (!b->rule)
		return fail(b, -ENOMEM);
	nftnl_rule_set_u32(b->rule, NFTNL_RULE_FAMILY, (uint32_t)b->family);
	nftnl_rule_set_str(b->rule, NFTNL_RULE_TABLE, b->table);
	nftnl_rule_set_str(b->rule, NFTNL_RULE_CHAIN, b->chain);
	if (!comment)
		return;
	udata = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	if (!udata)
		return fail(b, -ENOMEM);
	if (nftnl_udata_put_strz(udata, NFTNL_UDATA_RULE_COMMENT, comment))
		nftnl_rule_set_data(b->rule, NFTNL_RULE_USERDATA,
				    nftnl_udata_buf_data(udata),
				    nftnl_udata_buf_len(udata));
	nftnl_udata_buf_free(udata);
}

void nft_rule_end(struct nft_batch *b)
{
	struct nlmsghdr *nlh;

	if (!b->rule)
		return;
	nlh = message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND,
		      b->chain);
	if (nlh) {
		nftnl_rule_nlmsg_build_payload(nlh, b->rule);
		message_done(b, nlh);
	}
	nftnl_rule_free(b->rule);
	b->rule = NULL;
}

static struct nftnl_expr *expr(struct nft_batch *b, const char *name)
{
	struct nftnl_expr *x = b->rule ? nftnl_expr_alloc(name) : NULL;

	if (!x)
		fail(b, -ENOMEM);
	else
		nftnl_rule_add_expr(b->rule, x);
	return x;
}

void nft_meta(struct nft_batch *b, uint32_t key)
{
	struct nftnl_expr *x = expr(b, "meta");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, REG);
}

void nft_ct(struct nft_batch *b, uint32_t key)
{
	struct nftnl_expr *x = expr(b, "ct");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, REG);
}

void nft_ct_original(struct nft_batch *b, uint32_t key)
{
	struct nftnl_expr *x = expr(b, "ct");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u8(x, NFTNL_EXPR_CT_DIR, IP_CT_DIR_ORIGINAL);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, REG);
}

void nft_fib_type(struct nft_batch *b)
{
	struct nftnl_expr *x = expr(b, "fib");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_DREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
	nftnl_expr_set_u32(x, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
}

void nft_payload(struct nft_batch *b, uint32_t base, uint32_t offset,
		 uint32_t len)
{
	struct nftnl_expr *x = expr(b, "payload");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, len);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, REG);
}

void nft_mask(struct nft_batch *b, const void *mask, uint32_t len)
{
	static const uint8_t zero[16];
	struct nftnl_expr *x = expr(b, "bitwise");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, len);
	nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, mask, len);
	nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, zero, len);
}

void nft_cmp(struct nft_batch *b, uint32_t op, const void *data, uint32_t len)
{
	struct nftnl_expr *x = expr(b, "cmp");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, len);
}

void nft_lookup(struct nft_batch *b, const char *set, uint32_t flags)
{
	struct nftnl_expr *x = expr(b, "lookup");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SREG, REG);
	nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, set);
	if (flags)
		nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_FLAGS, flags);
}

void nft_set_update(struct nft_batch *b, const char *set)
{
	struct nftnl_expr *x = expr(b, "dynset");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_SREG_KEY, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
	nftnl_expr_set_str(x, NFTNL_EXPR_DYNSET_SET_NAME, set);
}

void nft_set_count(struct nft_batch *b, const char *set)
{
	struct nftnl_expr *x = expr(b, "dynset");
	struct nftnl_expr *count = counter(b, 0, 0);

	if (!x || !count) {
		if (count)
			nftnl_expr_free(count);
		return;
	}
	nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_SREG_KEY, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_ADD);
	nftnl_expr_set_str(x, NFTNL_EXPR_DYNSET_SET_NAME, set);
	nftnl_expr_add_expr(x, NFTNL_EXPR_DYNSET_EXPRESSIONS, count);
}

static void immediate(struct nft_batch *b, uint32_t value)
{
	struct nftnl_expr *x = expr(b, "immediate");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, REG);
	nftnl_expr_set(x, NFTNL_EXPR_IMM_DATA, &value, sizeof(value));
}

void nft_meta_mark_set(struct nft_batch *b, uint32_t value)
{
	struct nftnl_expr *x;

	immediate(b, value);
	x = expr(b, "meta");
	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, NFT_META_MARK);
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_SREG, REG);
}

void nft_ct_mark_set(struct nft_batch *b, uint32_t value)
{
	struct nftnl_expr *x;

	immediate(b, value);
	x = expr(b, "ct");
	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, NFT_CT_MARK);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_SREG, REG);
}

void nft_count(struct nft_batch *b, const char *counter)
{
	struct nftnl_expr *x = expr(b, "objref");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	nftnl_expr_set_str(x, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
}

void nft_reject(struct nft_batch *b, uint32_t type, uint8_t code)
{
	struct nftnl_expr *x = expr(b, "reject");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_REJECT_TYPE, type);
	nftnl_expr_set_u8(x, NFTNL_EXPR_REJECT_CODE, code);
}

void nft_verdict(struct nft_batch *b, int verdict, const char *chain)
{
	struct nftnl_expr *x = expr(b, "immediate");

	if (!x)
		return;
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (chain)
		nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, chain);
}

void nft_cmp_u8(struct nft_batch *b, uint32_t op, uint8_t value)
{
	nft_cmp(b, op, &value, sizeof(value));
}

void nft_cmp_u32(struct nft_batch *b, uint32_t op, uint32_t value)
{
	nft_cmp(b, op, &value, sizeof(value));
}

void nft_ifname(struct nft_batch *b, uint32_t key, uint32_t op,
		const char *name)
{
	char padded[IFNAMSIZ] = { 0 };

	/* All 16 bytes, terminator included: no prefix match. */
	str_copy(padded, sizeof(padded), name);
	nft_meta(b, key);
	nft_cmp(b, op, padded, sizeof(padded));
}

void nft_nfproto(struct nft_batch *b, uint8_t proto)
{
	nft_meta(b, NFT_META_NFPROTO);
	nft_cmp_u8(b, NFT_CMP_EQ, proto);
}

void nft_l4proto(struct nft_batch *b, uint8_t proto)
{
	nft_meta(b, NFT_META_L4PROTO);
	nft_cmp_u8(b, NFT_CMP_EQ, proto);
}

void nft_udp_ports(struct nft_batch *b, uint16_t sport, uint16_t dport)
{
	uint16_t ports[2] = { htons(sport), htons(dport) };

	nft_l4proto(b, IPPROTO_UDP);
	nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof(ports));
	nft_cmp(b, NFT_CMP_EQ, ports, sizeof(ports));
}
