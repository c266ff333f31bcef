/*
 * Theory of operation: torvm selftest
 *
 * What a program is told about a packet proves nothing: sendto(2) succeeds for
 * a datagram that is dropped, and fails with the answer of a router for one
 * that has left. The judge is a packet socket on all links. The kernel shows it
 * what it hands to a link's driver, after the egress hook, so what it sees has
 * passed every layer of the block, and what it does not see has not left. (The
 * exception are frames sent past the queueing discipline by a packet socket
 * that asks for that; they are not tried.)
 *
 * That the judge sees is proved on each link by a control: an ARP probe (RFC
 * 5227) or, where there is no ARP, an EAPOL frame. The block lets both pass. A
 * link without a control seen, and a judge that the kernel had to drop frames
 * for, make the verdict "unproven", never "blocked".
 *
 * Links that are down or without a carrier are left out: nothing leaves by
 * them.
 *
 * Each probe carries a needle, bytes that occur in no other packet: a random
 * token, or the addresses and ports of a TCP SYN. All probes are sent first; a
 * packet that had to wait for address resolution is still seen afterwards.
 *
 * Probes go to documentation addresses (RFC 5737, RFC 3849) and live for one
 * hop. Two would be carried further by TorVM itself and are different: TCP
 * without a link goes into 0.0.0.0/8 (RFC 1122), which Tor refuses and which,
 * unlike the private networks, is never the LAN that LAN access opens; and DNS
 * is tried on links only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "base/ip.h"
#include "cli/cli.h"
#include "platform/platform.h"

#define LINKS_MAX 32
#define PROBES_MAX (20 * (LINKS_MAX + 1))
#define TOKEN_SIZE 16
/* How long the sender may be told of a refusal, and a packet may be late. */
#define ANSWER_MS 50
#define LATE_MS 1200
#define BUSY_MS 5000
#define WATCH_RCVBUF (8 << 20) /* bytes */
#define SNAP 256               /* bytes of a frame that are looked at */

enum kind {
	KIND_TCP,
	KIND_UDP,
	KIND_ECHO,
	KIND_RAW,
	KIND_MULTICAST,
	KIND_BROADCAST,
	KIND_FRAME,
};

enum where { ANYWHERE, ON_LINKS };

static const struct probe_type {
	const char *name;
	int family;
	enum kind kind;
	uint16_t number; /* port or protocol; 0: a random port */
	enum where where;
} types[] = {
	{ "TCP, IPv4", AF_INET, KIND_TCP, 0, ANYWHERE },
	{ "TCP, IPv6", AF_INET6, KIND_TCP, 0, ANYWHERE },
	{ "UDP, IPv4", AF_INET, KIND_UDP, 0, ANYWHERE },
	{ "UDP, IPv6", AF_INET6, KIND_UDP, 0, ANYWHERE },
	{ "UDP port 443, IPv4", AF_INET, KIND_UDP, 443, ANYWHERE },
	{ "UDP port 443, IPv6", AF_INET6, KIND_UDP, 443, ANYWHERE },
	{ "DNS, IPv4", AF_INET, KIND_UDP, 53, ON_LINKS },
	{ "DNS, IPv6", AF_INET6, KIND_UDP, 53, ON_LINKS },
	{ "ping, IPv4", AF_INET, KIND_ECHO, 0, ANYWHERE },
	{ "ping, IPv6", AF_INET6, KIND_ECHO, 0, ANYWHERE },
	{ "SCTP, IPv4", AF_INET, KIND_RAW, IPPROTO_SCTP, ANYWHERE },
	{ "SCTP, IPv6", AF_INET6, KIND_RAW, IPPROTO_SCTP, ANYWHERE },
	/* For experiments, RFC 3692. */
	{ "IP protocol 253, IPv4", AF_INET, KIND_RAW, 253, ANYWHERE },
	{ "IP protocol 253, IPv6", AF_INET6, KIND_RAW, 253, ANYWHERE },
	{ "mDNS, IPv4", AF_INET, KIND_MULTICAST, 5353, ANYWHERE },
	{ "mDNS, IPv6", AF_INET6, KIND_MULTICAST, 5353, ON_LINKS },
	{ "broadcast", AF_INET, KIND_BROADCAST, 9, ANYWHERE },
	{ "packet socket", AF_PACKET, KIND_FRAME, 0, ON_LINKS },
};

enum result { REFUSED, DROPPED, INSIDE, SENT, IMPOSSIBLE };
static const char *const result_names[] = {
	[REFUSED] = "refused",         [DROPPED] = "dropped",
	[INSIDE] = "into TorVM",       [SENT] = "SENT",
	[IMPOSSIBLE] = "not possible",
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct probe {
	const struct probe_type *type;
	const struct net_outer_link *link; /* NULL: none */
	union address to;
	socklen_t to_len;
	uint8_t needle[32];
	size_t needle_len;
	int fd;        /* -1: none */
	bool possible; /* the socket could be made */
	int error;     /* what the sender was told, errno; 0: nothing */
	int seen_on;   /* ifindex; 0: not seen */
};

struct selftest {
	struct net_outer_link links[LINKS_MAX];
	bool control[LINKS_MAX]; /* the link's was seen */
	uint8_t control_needle[LINKS_MAX][28];
	size_t n_links;
	struct probe probes[PROBES_MAX];
	size_t n_probes;
	int watch_fd;
	bool overrun; /* frames were not shown */
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void random_bytes(void *buf, size_t n)
{
	while (getrandom(buf, n, 0) != (ssize_t)n)
		;
}

/* --- the judge --- */

static bool leads_out(const struct selftest *t, int ifindex)
{
	for (size_t i = 0; i < t->n_links; i++)
		if (t->links[i].index == ifindex)
			return true;
	return false;
}

static void judge(struct selftest *t, const uint8_t *frame, size_t len,
		  int ifindex)
{
	/* Our refusals come over loopback. */
	if (ifindex == 1)
		return;
	for (size_t i = 0; i < t->n_links; i++)
		if (t->links[i].index == ifindex &&
		    memmem(frame, len, t->control_needle[i],
			   t->links[i].ethernet ? 28 : TOKEN_SIZE))
			t->control[i] = true;
	for (size_t i = 0; i < t->n_probes; i++) {
		struct probe *p = &t->probes[i];

		/* What has got out stays so, wherever it is seen later. */
		if (p->needle_len && !leads_out(t, p->seen_on) &&
		    memmem(frame, len, p->needle, p->needle_len))
			p->seen_on = ifindex;
	}
}

/* Reads what the judge was shown until @until_ms, and then what still waits. On
 * links so busy that this does not end, not everything was looked at. */
static void watch(struct selftest *t, int64_t until_ms)
{
	for (;;) {
		struct pollfd p = { .fd = t->watch_fd, .events = POLLIN };
		struct sockaddr_ll from = { 0 };
		socklen_t from_len = sizeof(from);
		int64_t left = until_ms - now_ms();
		uint8_t frame[SNAP];
		ssize_t n;

		n = recvfrom(t->watch_fd, frame, sizeof(frame), MSG_DONTWAIT,
			     (struct sockaddr *)&from, &from_len);
		if (n > 0 && from.sll_pkttype == PACKET_OUTGOING)
			judge(t, frame, (size_t)n, from.sll_ifindex);
		if (left < -BUSY_MS) {
			t->overrun = true;
			return;
		}
		if (n >= 0)
			continue;
		if (left <= 0 || poll(&p, 1, (int)left) < 0)
			return;
	}
}

static int watch_open(struct selftest *t)
{
	const int rcvbuf = WATCH_RCVBUF;

	t->watch_fd =
		socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	if (t->watch_fd < 0)
		return cli_fail(EXIT_CODE_FAILED,
				"the links cannot be watched: %m");
	setsockopt(t->watch_fd, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf,
		   sizeof(rcvbuf));
	return 0;
}

static void watch_close(struct selftest *t)
{
	struct tpacket_stats stats = { 0 };
	socklen_t len = sizeof(stats);

	if (getsockopt(t->watch_fd, SOL_PACKET, PACKET_STATISTICS, &stats,
		       &len) < 0 ||
	    stats.tp_drops > 0)
		t->overrun = true;
	close(t->watch_fd);
}

/* --- controls --- */

static void send_control(struct selftest *t, size_t i)
{
	const struct net_outer_link *link = &t->links[i];
	uint8_t *needle = t->control_needle[i];
	const uint16_t ethertype = link->ethernet ? ETH_P_ARP : ETH_P_PAE;
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ethertype),
		.sll_ifindex = link->index,
		.sll_halen = link->ethernet ? ETH_ALEN : 0,
		.sll_addr = { 255, 255, 255, 255, 255, 255 },
	};
	struct ifreq ifr = { 0 };
	_cleanup_close_ int fd = -1;

	random_bytes(needle, sizeof(t->control_needle[i]));
	fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (link->ethernet) {
		/* Ethernet, IPv4, lengths, request; from this link's address
		 * and no IP address; for 192.0.2.x, which nobody has. */
		static const uint8_t head[] = { 0, 1, 8, 0, 6, 4, 0, 1 };
		const uint8_t target[] = { 192, 0, 2, needle[27] };

		memcpy(ifr.ifr_name, link->name, sizeof(ifr.ifr_name));
		if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
			return;
		memset(needle, 0, 28);
		memcpy(needle, head, sizeof(head));
		memcpy(needle + 8, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
		memcpy(needle + 24, target, sizeof(target));
	}
	sendto(fd, needle, link->ethernet ? 28 : TOKEN_SIZE, 0,
	       (struct sockaddr *)&to, sizeof(to));
}

/* --- probes --- */

static void choose_address(struct probe *p)
{
	const struct probe_type *type = p->type;
	uint16_t port = type->number;
	uint8_t r[8];

	random_bytes(r, sizeof(r));
	if (port == 0)
		port = (uint16_t)(49152 + ((r[0] << 8 | r[1]) & 0x3fff));
	if (type->kind == KIND_RAW || type->kind == KIND_ECHO)
		port = 0; /* else raw(7) takes it for the protocol */
	if (type->family == AF_INET) {
		uint8_t to[] = { 198, 51, 100, (uint8_t)(1 + r[2] % 254) };

		/* Where TorVM runs, this one reaches Tor. */
		if (type->kind == KIND_TCP && !p->link)
			memcpy(to, (const uint8_t[]){ 0, 255, 255 }, 3);
		if (type->kind == KIND_MULTICAST)
			memcpy(to, (const uint8_t[]){ 224, 0, 0, 251 }, 4);
		if (type->kind == KIND_BROADCAST)
			memset(to, 255, 4);
		p->to.v4 = (struct sockaddr_in){ .sin_family = AF_INET,
						 .sin_port = htons(port) };
		memcpy(&p->to.v4.sin_addr, to, sizeof(to));
		p->to_len = sizeof(p->to.v4);
	} else {
		p->to.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
						  .sin6_port = htons(port) };
		inet_pton(AF_INET6,
			  type->kind == KIND_MULTICAST ? "ff02::fb"
						       : "2001:db8::",
			  &p->to.v6.sin6_addr);
		if (type->kind == KIND_MULTICAST)
			p->to.v6.sin6_scope_id = (uint32_t)p->link->index;
		else
			memcpy(p->to.v6.sin6_addr.s6_addr + 8, r, sizeof(r));
		p->to_len = sizeof(p->to.v6);
	}
}

/* Addresses and ports lie side by side in a SYN without options before it. */
static int needle_of_tcp(struct probe *p)
{
	union address from = { .any.sa_family = (sa_family_t)p->type->family };
	socklen_t len = p->to_len;
	const bool v4 = p->type->family == AF_INET;
	size_t n = v4 ? 4 : 16;

	if (bind(p->fd, &from.any, len) < 0 ||
	    getsockname(p->fd, &from.any, &len) < 0)
		return -errno;
	memcpy(p->needle,
	       v4 ? (void *)&p->to.v4.sin_addr : (void *)&p->to.v6.sin6_addr,
	       n);
	memcpy(p->needle + n, v4 ? &from.v4.sin_port : &from.v6.sin6_port, 2);
	memcpy(p->needle + n + 2, v4 ? &p->to.v4.sin_port : &p->to.v6.sin6_port,
	       2);
	p->needle_len = n + 4;
	return 0;
}

static void set_hops(const struct probe *p)
{
	const int one = 1;

	if (p->type->family == AF_INET)
		setsockopt(p->fd, IPPROTO_IP, IP_TTL, &one, sizeof(one));
	else
		setsockopt(p->fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &one,
			   sizeof(one));
	if (p->type->kind == KIND_BROADCAST)
		setsockopt(p->fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one));
}

/* A UDP datagram to a documentation address, from a documentation address. */
static int send_frame(struct probe *p)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = p->link->index,
		.sll_halen = p->link->ethernet ? ETH_ALEN : 0,
		.sll_addr = { 2, 0, 0, 0, 0, 1 }, /* nobody's */
	};
	struct {
		struct iphdr ip;
		uint16_t udp[4];
		uint8_t token[TOKEN_SIZE];
	} packet = {
		.ip = { .version = 4,
			.ihl = 5,
			.tot_len = htons(sizeof(packet)),
			.ttl = 1,
			.protocol = IPPROTO_UDP },
		.udp = { htons(9), htons(9), htons(8 + TOKEN_SIZE), 0 },
	};

	inet_pton(AF_INET, "192.0.2.1", &packet.ip.saddr);
	inet_pton(AF_INET, "198.51.100.1", &packet.ip.daddr);
	packet.ip.check = ip_checksum(ip_sum(&packet.ip, sizeof(packet.ip), 0));
	memcpy(packet.token, p->needle, TOKEN_SIZE);
	return sendto(p->fd, &packet, sizeof(packet), 0, (struct sockaddr *)&to,
		      sizeof(to)) < 0
		       ? -errno
		       : 0;
}

static int send_datagram(struct probe *p)
{
	/* An echo request's header, or ports that are nobody's. */
	uint8_t packet[8 + TOKEN_SIZE] = { 0 };
	size_t head = 0;

	if (p->type->kind == KIND_ECHO || p->type->kind == KIND_RAW)
		head = 8;
	memcpy(packet + head, p->needle, TOKEN_SIZE);
	if (p->type->kind == KIND_ECHO) {
		uint16_t sum;

		packet[0] = p->type->family == AF_INET ? ICMP_ECHO
						       : ICMP6_ECHO_REQUEST;
		/* The kernel sums IPv6's. */
		sum = p->type->family == AF_INET
			      ? ip_checksum(ip_sum(packet, sizeof(packet), 0))
			      : 0;
		memcpy(packet + 2, &sum, sizeof(sum));
	}
	return sendto(p->fd, packet, head + TOKEN_SIZE, 0, &p->to.any,
		      p->to_len) < 0
		       ? -errno
		       : 0;
}

static int socket_of(const struct probe_type *type)
{
	const int flags = SOCK_CLOEXEC | SOCK_NONBLOCK;

	switch (type->kind) {
	case KIND_TCP: return socket(type->family, SOCK_STREAM | flags, 0);
	case KIND_UDP:
	case KIND_MULTICAST:
	case KIND_BROADCAST: return socket(type->family, SOCK_DGRAM | flags, 0);
	case KIND_ECHO:
		return socket(type->family, SOCK_RAW | flags,
			      type->family == AF_INET ? IPPROTO_ICMP
						      : IPPROTO_ICMPV6);
	case KIND_RAW:
		return socket(type->family, SOCK_RAW | flags, type->number);
	case KIND_FRAME: return socket(AF_PACKET, SOCK_DGRAM | flags, 0);
	}
	return -1;
}

/* Return: 0: the kernel took it, or a negative errno: what the sender was
 * told. */
static int send_probe(struct probe *p)
{
	int r;

	if (p->type->kind == KIND_FRAME)
		return send_frame(p);
	if (p->type->kind == KIND_TCP) {
		r = needle_of_tcp(p);
		if (r == 0 && connect(p->fd, &p->to.any, p->to_len) < 0)
			r = -errno;
		return r == -EINPROGRESS ? 0 : r;
	}
	/* Connected, so that it is told of an ICMP answer. */
	if (p->type->kind == KIND_UDP &&
	    connect(p->fd, &p->to.any, p->to_len) < 0)
		return -errno;
	return send_datagram(p);
}

static void start_probe(struct probe *p)
{
	p->fd = socket_of(p->type);
	if (p->fd < 0) {
		p->error = errno;
		return;
	}
	if (p->type->kind != KIND_FRAME) {
		set_hops(p);
		choose_address(p);
		if (p->link &&
		    setsockopt(p->fd, SOL_SOCKET, SO_BINDTODEVICE,
			       p->link->name,
			       (socklen_t)strlen(p->link->name)) < 0) {
			p->error = errno;
			return;
		}
	}
	p->possible = true;
	random_bytes(p->needle, TOKEN_SIZE);
	p->needle_len = TOKEN_SIZE;
	p->error = -send_probe(p);
}

/* An answer that came later than the call. */
static void hear_probe(struct probe *p)
{
	struct pollfd poll_fd = { .fd = p->fd, .events = POLLOUT };
	int error = 0;
	socklen_t len = sizeof(error);

	if (p->fd < 0 || p->error)
		return;
	poll(&poll_fd, 1, 0);
	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0)
		p->error = error;
}

static void run(struct selftest *t)
{
	for (size_t i = 0; i < t->n_links; i++)
		send_control(t, i);
	for (size_t k = 0; k <= t->n_links; k++)
		for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
			struct probe *p = &t->probes[t->n_probes];

			if (k == 0 && types[i].where == ON_LINKS)
				continue;
			*p = (struct probe){
				.type = &types[i],
				.link = k ? &t->links[k - 1] : NULL,
				.fd = -1,
			};
			t->n_probes++;
			start_probe(p);
			watch(t, now_ms());
		}
	watch(t, now_ms() + ANSWER_MS);
	for (size_t i = 0; i < t->n_probes; i++)
		hear_probe(&t->probes[i]);
	watch(t, now_ms() + LATE_MS);
	for (size_t i = 0; i < t->n_probes; i++)
		closep(&t->probes[i].fd);
}

/* --- the verdict --- */

static enum result result_of(const struct selftest *t, const struct probe *p)
{
	if (leads_out(t, p->seen_on))
		return SENT;
	if (p->seen_on)
		return INSIDE;
	if (!p->possible)
		return IMPOSSIBLE;
	return p->error ? REFUSED : DROPPED;
}

static void detail_of(const struct probe *p, char *buf, size_t size)
{
	char name[IF_NAMESIZE] = "?";

	if (p->seen_on) {
		if_indextoname((unsigned int)p->seen_on, name);
		snprintf(buf, size, "seen on %s", name);
	} else if (p->error) {
		snprintf(buf, size, "%s", strerror(p->error));
	} else {
		snprintf(buf, size, "%s", "");
	}
}

struct verdict {
	bool expected_open;
	size_t n_sent;
	bool unproven;
};

static struct verdict verdict_of(const struct selftest *t, bool blocked)
{
	struct verdict v = { .expected_open = !blocked,
			     .unproven = t->overrun };

	for (size_t i = 0; i < t->n_probes; i++)
		v.n_sent += result_of(t, &t->probes[i]) == SENT;
	for (size_t i = 0; i < t->n_links; i++)
		v.unproven |= !t->control[i];
	return v;
}

static const char *word_of(const struct verdict *v)
{
	if (v->n_sent)
		return v->expected_open ? "open" : "leaking";
	return v->unproven ? "unproven" : "blocked";
}

static void print_json(const struct selftest *t, const struct verdict *v)
{
	json_t *links = json_array(), *probes = json_array(), *all;

	for (size_t i = 0; i < t->n_links; i++)
		json_array_append_new(links,
				      json_pack("{s:s, s:b}", "name",
						t->links[i].name, "watched",
						t->control[i] && !t->overrun));
	for (size_t i = 0; i < t->n_probes; i++) {
		const struct probe *p = &t->probes[i];
		char detail[96];

		detail_of(p, detail, sizeof(detail));
		json_array_append_new(probes,
				      json_pack("{s:s, s:s?, s:s, s:s}",
						"probe", p->type->name, "link",
						p->link ? p->link->name : NULL,
						"result",
						result_names[result_of(t, p)],
						"detail", detail));
	}
	all = json_pack("{s:s, s:s, s:o, s:o}", "expected",
			v->expected_open ? "open" : "blocked", "verdict",
			word_of(v), "links", links, "probes", probes);
	json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}

static void print_table(const struct selftest *t, const struct verdict *v)
{
	printf("%-22s %-15s %-12s %s\n", "PROBE", "LINK", "RESULT", "");
	for (size_t i = 0; i < t->n_probes; i++) {
		const struct probe *p = &t->probes[i];
		enum result result = result_of(t, p);
		enum cli_colour colour = result == SENT ? CLI_RED : CLI_PLAIN;
		char detail[96];

		detail_of(p, detail, sizeof(detail));
		printf("%-22s %-15s %s%-12s%s %s\n", p->type->name,
		       p->link ? p->link->name : "-",
		       cli_colour(stdout, colour), result_names[result],
		       cli_colour(stdout, CLI_PLAIN), detail);
	}
	putchar('\n');
	for (size_t i = 0; i < t->n_links; i++)
		if (!t->control[i])
			printf("%s could not be watched: a frame that the "
			       "block lets pass was not seen there either.\n",
			       t->links[i].name);
	if (t->overrun)
		puts("There was too much traffic to watch all of it; run it "
		     "again.");
	if (v->expected_open)
		printf("TorVM is down, so the network is open: %zu of %zu "
		       "probes got out, as they should.\n",
		       v->n_sent, t->n_probes);
	else if (v->n_sent)
		printf("%s%zu of %zu probes got out.%s Please report this; "
		       "\"torvm log\" may say why.\n",
		       cli_colour(stdout, CLI_RED), v->n_sent, t->n_probes,
		       cli_colour(stdout, CLI_PLAIN));
	else if (v->unproven)
		puts("No probe was seen to get out, but not all links could "
		     "be watched.");
	else
		printf("None of %zu probes got out.\n", t->n_probes);
}

/* Whether a block is said to be in place. */
static int expects_block(const char *runtime_dir, bool *ret)
{
	_cleanup_(client_freep) struct client *client = NULL;
	struct client_status status = { 0 };
	struct error e = ERROR_NULL(e);
	int r;

	r = client_connect(runtime_dir, &client, &e);
	if (r == 0)
		r = client_get_status(client, &status, &e);
	if (r < 0 && r != -ESRCH)
		return cli_fail(cli_client_code(r), "%s", e.text);
	*ret = status.blocked || cli_lockdown(runtime_dir) ||
	       (r == -ESRCH && cli_leftovers(runtime_dir));
	return 0;
}

static int find_links(struct selftest *t)
{
	_cleanup_(net_closep) struct net *net = NULL;
	struct error e = ERROR_NULL(e);
	size_t n = 0;
	int r;

	r = net_open(&net, &e);
	if (r == 0)
		r = net_outer_links(net, t->links, LINKS_MAX, &e);
	if (r < 0)
		return cli_fail(EXIT_CODE_FAILED, "%s", e.text);
	for (int i = 0; i < r; i++)
		if (t->links[i].usable)
			t->links[n++] = t->links[i];
	t->n_links = n;
	return 0;
}

int cli_selftest(const struct cli_args *args)
{
	_cleanup_free_ struct selftest *t = NULL;
	struct verdict v;
	bool blocked;
	int r;

	if (geteuid() != 0)
		return cli_fail(EXIT_CODE_PRIVILEGES,
				"root is needed to watch the links; run it "
				"again with sudo");
	t = calloc(1, sizeof(*t));
	if (!t)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	r = expects_block(cli_runtime_dir(args), &blocked);
	if (r == 0)
		r = find_links(t);
	if (r == 0)
		r = watch_open(t);
	if (r != 0)
		return r;
	run(t);
	watch_close(t);
	v = verdict_of(t, blocked);
	if (args->given & CLI_BIT(JSON))
		print_json(t, &v);
	else
		print_table(t, &v);
	if (v.expected_open)
		return EXIT_CODE_NOT_RUNNING;
	return v.n_sent || v.unproven ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}
