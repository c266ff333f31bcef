/*
 * Theory of operation
 *
 * The ruleset (ruleset.c) goes to the kernel as one nfnetlink batch: delete
 * what is there, add what shall be. The kernel commits a batch as a whole or
 * not at all, and hooks the new chains before it unhooks the old ones; so there
 * is no moment between two modes. Flows of the uplink survive, because their
 * mark lies in conntrack.
 *
 * Where the kernel knows it (6.9), the tables belong to this process' netlink
 * socket (`owner`): another program's flush does not touch them. `persist` lets
 * them outlive us; they are then orphans that the next controller, or
 * `torvm recover`, may replace or delete. Older kernels refuse the flags, and
 * the tables are made without them.
 *
 * Sending a batch that must fail at its last message has the kernel check all
 * the others, load what modules they need, and drop the lot: net_precheck()
 * learns everything and changes nothing. (A chain's policy takes effect when it
 * is committed, not before.)
 */
#include "platform/linux/ruleset.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>

/* Defined to 0 by the test that stands for an older kernel. */
#ifndef FIREWALL_TABLE_FLAGS
#define FIREWALL_TABLE_FLAGS (NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST)
#endif

/* A table or link that vanished between our look and our batch: look again. */
#define COMMIT_ATTEMPTS 4

static const int families[] = { NFPROTO_INET, NFPROTO_NETDEV };

/* --- what is there --- */

struct present {
	bool table[ARRAY_SIZE(families)];
	bool lockdown; /* the inet table says so */
};

/* The comment lies in the table's user data, as nft(8) writes it. */
static bool is_lockdown(const struct nftnl_table *t)
{
	const char want[] = RULESET_LOCKDOWN_COMMENT;
	const uint8_t *data;
	uint32_t len = 0;

	data = nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &len);
	/* Type, length, text with its NUL. */
	return data && len == 2 + sizeof(want) &&
	       data[0] == NFTNL_UDATA_TABLE_COMMENT &&
	       data[1] == sizeof(want) &&
	       memcmp(data + 2, want, sizeof(want)) == 0;
}

static int on_table(const struct nlmsghdr *nlh, void *data)
{
	struct present *present = data;
	struct nftnl_table *t = nftnl_table_alloc();
	const char *name;

	if (!t) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	if (nftnl_table_nlmsg_parse(nlh, t) == 0) {
		name = nftnl_table_get_str(t, NFTNL_TABLE_NAME);
		for (size_t i = 0; i < ARRAY_SIZE(families); i++)
			if (name && strcmp(name, NET_TABLE_NAME) == 0 &&
			    nftnl_table_get_u32(t, NFTNL_TABLE_FAMILY) ==
				    (uint32_t)families[i]) {
				present->table[i] = true;
				if (families[i] == NFPROTO_INET)
					present->lockdown = is_lockdown(t);
			}
	}
	nftnl_table_free(t);
	return MNL_CB_OK;
}

static int present_read(struct net *net, struct present *ret)
{
	struct nlmsghdr *nlh;

	*ret = (struct present){ 0 };
	nlh = nftnl_nlmsg_build_hdr(net->buf, NFT_MSG_GETTABLE, NFPROTO_UNSPEC,
				    NLM_F_DUMP, 0);
	return netlink_dump(net, net->nft, nlh, on_table, ret, NULL);
}

static int on_counter(const struct nlmsghdr *nlh, void *data)
{
	struct ruleset_count *counts = data;
	struct nftnl_obj *o = nftnl_obj_alloc();
	const char *table, *name;

	if (!o) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	if (nftnl_obj_nlmsg_parse(nlh, o) < 0 ||
	    nftnl_obj_get_u32(o, NFTNL_OBJ_TYPE) != NFT_OBJECT_COUNTER)
		goto out;
	table = nftnl_obj_get_str(o, NFTNL_OBJ_TABLE);
	name = nftnl_obj_get_str(o, NFTNL_OBJ_NAME);
	if (!table || !name || strcmp(table, NET_TABLE_NAME) != 0)
		goto out;
	for (int i = 0; i < RULESET_COUNTER_COUNT; i++)
		if (strcmp(name, ruleset_counter_name(i)) == 0)
			counts[i] = (struct ruleset_count){
				nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS),
				nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_BYTES),
			};
out:
	nftnl_obj_free(o);
	return MNL_CB_OK;
}

static int counts_read(struct net *net,
		       struct ruleset_count ret[RULESET_COUNTER_COUNT])
{
	struct nlmsghdr *nlh;

	memset(ret, 0, sizeof(*ret) * RULESET_COUNTER_COUNT);
	nlh = nftnl_nlmsg_build_hdr(net->buf, NFT_MSG_GETOBJ, NFPROTO_UNSPEC,
				    NLM_F_DUMP, 0);
	return netlink_dump(net, net->nft, nlh, on_counter, ret, NULL);
}

struct users {
	struct nft_counted v[RULESET_USERS_MAX];
	size_t n;
};

static void take_user(struct users *users, const struct nftnl_set_elem *elem)
{
	const struct nftnl_expr *x = NULL;
	const uint32_t *uid;
	uint32_t len;

	uid = nftnl_set_elem_get((struct nftnl_set_elem *)elem,
				 NFTNL_SET_ELEM_KEY, &len);
	if (!uid || len != sizeof(*uid) || users->n == ARRAY_SIZE(users->v))
		return;
	x = nftnl_set_elem_get((struct nftnl_set_elem *)elem,
			       NFTNL_SET_ELEM_EXPR, &len);
	users->v[users->n++] = (struct nft_counted){
		.key = *uid,
		.packets =
			x ? nftnl_expr_get_u64(x, NFTNL_EXPR_CTR_PACKETS) : 0,
		.bytes = x ? nftnl_expr_get_u64(x, NFTNL_EXPR_CTR_BYTES) : 0,
	};
}

static int on_users(const struct nlmsghdr *nlh, void *data)
{
	struct nftnl_set *s = nftnl_set_alloc();
	struct nftnl_set_elems_iter *i = NULL;
	struct nftnl_set_elem *elem;

	if (s && nftnl_set_elems_nlmsg_parse(nlh, s) == 0)
		i = nftnl_set_elems_iter_create(s);
	while (i && (elem = nftnl_set_elems_iter_next(i)))
		take_user(data, elem);
	if (i)
		nftnl_set_elems_iter_destroy(i);
	if (s)
		nftnl_set_free(s);
	return MNL_CB_OK;
}

/* Those of a table that has no such set, or of no table: none. */
static int users_read(struct net *net, struct users *ret)
{
	struct nftnl_set *s = nftnl_set_alloc();
	struct nlmsghdr *nlh;
	int r;

	ret->n = 0;
	if (!s)
		return -ENOMEM;
	nftnl_set_set_str(s, NFTNL_SET_TABLE, NET_TABLE_NAME);
	nftnl_set_set_str(s, NFTNL_SET_NAME, RULESET_REFUSED_USERS);
	nlh = nftnl_nlmsg_build_hdr(net->buf, NFT_MSG_GETSETELEM, NFPROTO_INET,
				    NLM_F_DUMP, 0);
	nftnl_set_elems_nlmsg_build_payload(nlh, s);
	nftnl_set_free(s);
	r = netlink_dump(net, net->nft, nlh, on_users, ret, &ret->n);
	return r == -ENOENT ? 0 : r;
}

/* --- sending --- */

/* What the kernel said to a batch. */
struct verdict {
	int err; /* of the first message that failed; 0: none */
	uint32_t seq;
};

static int commit(struct net *net, struct nft_batch *b, struct verdict *ret)
{
	/* Acknowledged: its answer proves that the kernel read the batch. */
	const uint32_t last = b->seq - 1;
	bool answered = false;
	ssize_t n;

	*ret = (struct verdict){ 0 };
	/* The batch's last message but one (the end marker). */
	for (char *p = b->buf; p < b->buf + b->len;) {
		struct nlmsghdr *nlh = (struct nlmsghdr *)p;

		if (nlh->nlmsg_seq == last)
			nlh->nlmsg_flags |= NLM_F_ACK;
		p += NLMSG_ALIGN(nlh->nlmsg_len);
	}
	net->seq = b->seq;
	if (mnl_socket_sendto(net->nft, b->buf, b->len) < 0)
		return -errno;
	for (;;) {
		int len;

		n = recv(mnl_socket_get_fd(net->nft), net->buf,
			 sizeof(net->buf), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		len = (int)n;
		for (struct nlmsghdr *nlh = (struct nlmsghdr *)net->buf;
		     mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
			const struct nlmsgerr *err;

			if (nlh->nlmsg_type != NLMSG_ERROR ||
			    nlh->nlmsg_seq < b->seq_first ||
			    nlh->nlmsg_seq > b->seq)
				continue;
			err = mnl_nlmsg_get_payload(nlh);
			answered |= nlh->nlmsg_seq == last;
			if (err->error && !ret->err)
				*ret = (struct verdict){ err->error,
							 nlh->nlmsg_seq };
		}
	}
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return -errno;
	return ret->err || answered ? 0 : -EIO;
}

static int unanswered(struct error *e, int r)
{
	if (r == -EPERM)
		return error_set(e, r,
				 "the firewall needs the capability "
				 "CAP_NET_ADMIN: run as root");
	return error_set(e, r, "the kernel's nf_tables does not answer: %s",
			 strerror(-r));
}

static void explain(struct error *e, const struct nft_batch *b,
		    const struct verdict *v)
{
	const char *what = b->what[v->seq - b->seq_first];

	if (v->err == -EPERM && v->seq == b->seq_first)
		unanswered(e, v->err);
	else if (v->err == -EPERM)
		error_set(e, v->err,
			  "another TorVM holds the block of this network: stop "
			  "it first (torvm down)");
	else
		error_set(e, v->err,
			  "the kernel's nf_tables refuses %s (%s); Linux 5.16 "
			  "or later is needed with NF_TABLES, NFT_CT, NFT_FIB, "
			  "NFT_REJECT and NETFILTER_EGRESS",
			  what, strerror(-v->err));
}

/*
 * One attempt. @probe: have it checked, not committed. Return: 0; -EAGAIN if
 * what was looked at (a table, a link) went meanwhile; a negative errno.
 */
static int replace_once(struct net *net, struct ruleset *rs, bool probe,
			struct error *e)
{
	struct nft_batch b;
	struct verdict v = { 0 };
	struct present present;
	struct users users = { 0 };
	int r;

	r = present_read(net, &present);
	if (r == 0)
		r = counts_read(net, rs->counts);
	if (r == 0)
		r = users_read(net, &users);
	if (r < 0)
		return unanswered(e, r);
	memcpy(rs->users, users.v, sizeof(rs->users));
	rs->n_users = users.n;
	nft_batch_begin(&b, net->seq + 1);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (present.table[i])
			nft_table_delete(&b, families[i], NET_TABLE_NAME);
	ruleset_build(&b, rs);
	if (probe)
		nft_table_delete(&b, NFPROTO_INET, "torvm-no-such");
	r = nft_batch_end(&b);
	if (r == 0)
		r = commit(net, &b, &v);
	if (r < 0) {
		error_set(e, r, "the firewall's batch failed: %s",
			  strerror(-r));
	} else if (probe && v.err == -ENOENT && v.seq == b.seq - 1) {
		/* All the others were accepted. */
	} else if (v.err) {
		explain(e, &b, &v);
		r = v.err == -ENOENT ? -EAGAIN : v.err;
	} else if (probe) {
		/* Cannot be: the last message names what does not exist. */
		r = error_set(e, -EIO, "nf_tables accepted a faulty batch");
	}
	nft_batch_done(&b);
	return r;
}

/* @ret_links: the links as they were covered; the caller frees them.
 * @ret_lan: the LAN as it was opened */
static int replace(struct net *net, const struct net_plan *plan,
		   enum net_firewall mode, bool probe,
		   struct net_links *ret_links, struct lan *ret_lan,
		   struct error *e)
{
	uint32_t flags = FIREWALL_TABLE_FLAGS;
	int r = -EAGAIN;

	for (int i = 0; i < COMMIT_ATTEMPTS && r == -EAGAIN; i++) {
		struct ruleset rs = {
			.plan = plan,
			.mode = mode,
			.links = ret_links,
			.lan = ret_lan,
			.table_flags = flags,
		};

		r = links_read(net, ret_links, e);
		if (r < 0)
			return r;
		r = lan_read(net, plan, ret_links, ret_lan);
		if (r < 0) {
			links_free(ret_links);
			return error_set(e, r, "cannot list the addresses: %s",
					 strerror(-r));
		}
		r = replace_once(net, &rs, probe, e);
		if (r < 0)
			links_free(ret_links);
		/* Before 6.9: EOPNOTSUPP (persist), before 5.12: EINVAL. */
		if ((r == -EOPNOTSUPP || r == -EINVAL) && flags) {
			flags = 0;
			r = -EAGAIN;
		}
	}
	if (r == 0 && e)
		*e = ERROR_NULL(*e);
	return r;
}

int net_firewall_set(struct net *net, const struct net_plan *plan,
		     enum net_firewall mode, struct error *e)
{
	struct net_links links;
	struct lan lan;
	int r;

	r = replace(net, plan, mode, false, &links, &lan, e);
	if (r < 0)
		return r;
	watch_drain(net);
	links_free(&net->covered);
	net->covered = links;
	net->lan = lan;
	net->firewall = true;
	/* The links may have changed, and with them the inner bridges. */
	return net->rules ? routes_sync(net, plan, e) : 0;
}

int firewall_probe(struct net *net, const struct net_plan *plan,
		   struct error *e)
{
	struct net_links links;
	struct lan lan;
	int r;

	r = replace(net, plan, NET_FIREWALL_OPEN, true, &links, &lan, e);
	if (r == 0)
		links_free(&links);
	return r;
}

int net_firewall_remove(struct net *net, struct error *e)
{
	struct verdict v = { .err = -ENOENT };
	struct nft_batch b;
	struct present present;
	int r = 0;

	net->firewall = false;
	for (int i = 0; i < COMMIT_ATTEMPTS && v.err == -ENOENT; i++) {
		r = present_read(net, &present);
		if (r < 0)
			break;
		if (!present.table[0] && !present.table[1])
			return 0;
		nft_batch_begin(&b, net->seq + 1);
		for (size_t k = 0; k < ARRAY_SIZE(families); k++)
			if (present.table[k])
				nft_table_delete(&b, families[k],
						 NET_TABLE_NAME);
		r = nft_batch_end(&b);
		if (r == 0)
			r = commit(net, &b, &v);
		if (r == 0 && v.err)
			explain(e, &b, &v);
		nft_batch_done(&b);
		if (r < 0)
			break;
	}
	if (r < 0)
		return error_set(e, r,
				 "cannot remove the block: %s; the network "
				 "stays closed",
				 strerror(-r));
	return v.err;
}

bool net_firewall_present(struct net *net)
{
	struct present present;

	return present_read(net, &present) == 0 && present.table[0] &&
	       present.table[1];
}

bool net_firewall_is_lockdown(struct net *net)
{
	struct present present;

	return present_read(net, &present) == 0 && present.table[0] &&
	       present.lockdown;
}

uint64_t net_firewall_refused(struct net *net)
{
	struct ruleset_count counts[RULESET_COUNTER_COUNT];
	uint64_t sum = 0;

	if (counts_read(net, counts) < 0)
		return 0;
	for (int i = 0; i < RULESET_COUNTER_COUNT; i++)
		sum += counts[i].packets;
	return sum;
}

static int by_packets(const void *a, const void *b)
{
	const struct nft_counted *x = a, *y = b;

	return x->packets < y->packets ? 1 : x->packets > y->packets ? -1 : 0;
}

size_t net_firewall_refused_by(struct net *net, struct net_refused *ret,
			       size_t max)
{
	struct users users;
	size_t i;

	if (users_read(net, &users) < 0)
		return 0;
	qsort(users.v, users.n, sizeof(users.v[0]), by_packets);
	for (i = 0; i < users.n && i < max; i++)
		ret[i] = (struct net_refused){
			.uid = users.v[i].key,
			.packets = users.v[i].packets,
		};
	return i;
}
