/*
 * Ending the TCP connections that containers and guests have through the TAP.
 *
 * Theory of operation
 *
 * In a stop Tor's own end ends them. Where the VM hung and was killed, nobody
 * tells them: an idle one would go to its server directly once the network is
 * open. Its socket is in another network namespace, or in another machine, out
 * of sock_diag's reach; and a reset from outside has to bear the number that
 * its owner expects next (RFC 5961, 3.2), which nobody here knows.
 *
 * So the owner is made to say it. For each connection a SYN/ACK goes into the
 * TAP, as if the VM had sent it. Conntrack passes one of a connection that it
 * knows, whatever its numbers; the owner answers by a challenge ACK (RFC 5961,
 * 4.2); and the forward chain refuses that, as everything that is forwarded
 * while the TAP is refused: by a reset with the right number.
 *
 * Conntrack is only read. Its entries go with the TAP, since the host's NAT
 * gave them the TAP's address by masquerading.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/ip.h"

/* How long the answers are waited for: those of guests come by their VM. */
#define ANSWERS_MS 300
#define LOOK_MS 10

#define VNET_HDR_MAX 32 /* bytes */

/* What the VM sends on a connection: the reply's side of it. */
struct flow {
	uint32_t saddr, daddr;
	uint16_t sport, dport;
};

struct found {
	struct in_addr host_ip;
	struct flow *v;
	size_t n;
};

/* NULL: @nest is NULL or has none. */
static const struct nlattr *inside(const struct nlattr *nest, uint16_t type)
{
	const struct nlattr *attr;

	if (!nest)
		return NULL;
	mnl_attr_for_each_nested(attr, nest)
	{
		if (mnl_attr_get_type(attr) == type)
			return attr;
	}
	return NULL;
}

static bool read_tuple(const struct nlattr *tuple, struct flow *ret)
{
	const struct nlattr *ip = inside(tuple, CTA_TUPLE_IP);
	const struct nlattr *proto = inside(tuple, CTA_TUPLE_PROTO);
	const struct nlattr *src = inside(ip, CTA_IP_V4_SRC);
	const struct nlattr *dst = inside(ip, CTA_IP_V4_DST);
	const struct nlattr *num = inside(proto, CTA_PROTO_NUM);
	const struct nlattr *sport = inside(proto, CTA_PROTO_SRC_PORT);
	const struct nlattr *dport = inside(proto, CTA_PROTO_DST_PORT);

	if (!src || !dst || !num || !sport || !dport ||
	    mnl_attr_get_u8(num) != IPPROTO_TCP)
		return false;
	ret->saddr = mnl_attr_get_u32(src);
	ret->daddr = mnl_attr_get_u32(dst);
	ret->sport = mnl_attr_get_u16(sport);
	ret->dport = mnl_attr_get_u16(dport);
	return true;
}

/* Whether its owner may still send on it. */
static bool is_open(const struct nlattr *info)
{
	const struct nlattr *state = inside(inside(info, CTA_PROTOINFO_TCP),
					    CTA_PROTOINFO_TCP_STATE);

	if (!state)
		return false;
	switch (mnl_attr_get_u8(state)) {
	case TCP_CONNTRACK_ESTABLISHED:
	case TCP_CONNTRACK_FIN_WAIT:
	case TCP_CONNTRACK_CLOSE_WAIT: return true;
	default: return false;
	}
}

static int on_entry(const struct nlmsghdr *nlh, void *data)
{
	const struct nlattr *attr, *original = NULL, *reply = NULL;
	const struct nlattr *info = NULL;
	struct found *found = data;
	struct flow there, back, *grown;

	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		switch (mnl_attr_get_type(attr)) {
		case CTA_TUPLE_ORIG: original = attr; break;
		case CTA_TUPLE_REPLY: reply = attr; break;
		case CTA_PROTOINFO: info = attr; break;
		}
	}
	if (!read_tuple(original, &there) || !read_tuple(reply, &back) ||
	    there.saddr == found->host_ip.s_addr ||
	    back.daddr != found->host_ip.s_addr || !is_open(info))
		return MNL_CB_OK;
	grown = array_grow(found->v, found->n, sizeof(*found->v));
	if (!grown) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	found->v = grown;
	found->v[found->n++] = back;
	return MNL_CB_OK;
}

static int find(struct net *net, struct found *found, struct error *e)
{
	const struct nfgenmsg nfg = { .nfgen_family = AF_INET };
	struct mnl_socket *nl;
	struct nlmsghdr *nlh;
	int r;

	r = netlink_open(NETLINK_NETFILTER, &nl, e);
	if (r < 0)
		return r;
	nlh = netlink_message(net,
			      NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, 0,
			      &nfg, sizeof(nfg));
	r = netlink_dump(net, nl, nlh, on_entry, found, &found->n);
	mnl_socket_close(nl);
	/* A kernel without conntrack has nobody's NAT either. */
	if (r < 0 && r != -EINVAL && r != -EOPNOTSUPP)
		return error_set(e, r,
				 "the connections of containers cannot be "
				 "listed: %s",
				 strerror(-r));
	return 0;
}

static int ask(int tap_fd, size_t vnet_hdr_len, const struct flow *flow)
{
	const struct ethhdr eth = {
		.h_dest = NET_TAP_MAC_BYTES,
		.h_source = NET_VM_MAC_BYTES,
		.h_proto = htons(ETH_P_IP),
	};
	struct tcphdr tcp = {
		.source = flow->sport,
		.dest = flow->dport,
		.doff = sizeof(tcp) / 4,
		.syn = 1,
		.ack = 1,
	};
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tot_len = htons(sizeof(ip) + sizeof(tcp)),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.saddr = flow->saddr,
		.daddr = flow->daddr,
	};
	char frame[VNET_HDR_MAX + sizeof(eth) + sizeof(ip) + sizeof(tcp)] = "";
	char *at = frame + vnet_hdr_len;

	tcp.check = ip_checksum(
		ip_sum(&tcp, sizeof(tcp),
		       ip_sum(&ip.saddr, 8, IPPROTO_TCP + sizeof(tcp))));
	ip.check = ip_checksum(ip_sum(&ip, sizeof(ip), 0));
	memcpy(at, &eth, sizeof(eth));
	memcpy(at + sizeof(eth), &ip, sizeof(ip));
	memcpy(at + sizeof(eth) + sizeof(ip), &tcp, sizeof(tcp));
	at += sizeof(eth) + sizeof(ip) + sizeof(tcp);
	return write(tap_fd, frame, (size_t)(at - frame)) < 0 ? -errno : 0;
}

static int ask_all(struct net *net, const struct net_plan *plan,
		   const struct found *found, struct error *e)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * 1000000L };
	uint64_t refused = net_firewall_refused(net);
	_cleanup_close_ int fd = -1;
	int vnet_hdr_len, r;

	r = net_tap_open(net, plan, &fd, e);
	if (r < 0)
		return r;
	if (ioctl(fd, TUNGETVNETHDRSZ, &vnet_hdr_len) < 0)
		return error_set(e, -errno, "TUNGETVNETHDRSZ: %s",
				 strerror(errno));
	if (vnet_hdr_len < 0 || vnet_hdr_len > VNET_HDR_MAX)
		return error_set(e, -EPROTO, "a header of %d bytes on the TAP",
				 vnet_hdr_len);
	for (size_t i = 0; i < found->n; i++) {
		r = ask(fd, (size_t)vnet_hdr_len, &found->v[i]);
		if (r < 0)
			return error_set(e, r, "cannot write to the TAP: %s",
					 strerror(-r));
	}
	for (int ms = 0; ms < ANSWERS_MS; ms += LOOK_MS) {
		if (net_firewall_refused(net) >= refused + found->n)
			break;
		nanosleep(&look, NULL);
	}
	return 0;
}

int net_forwarded_end(struct net *net, const struct net_plan *plan,
		      struct error *e)
{
	struct found found = { .host_ip = plan->host_ip };
	int r;

	r = find(net, &found, e);
	if (r == 0 && found.n > 0)
		r = ask_all(net, plan, &found, e);
	free(found.v);
	return r;
}
