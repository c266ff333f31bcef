/*
 * Theory of operation
 *
 * In rounds: each question that has no answer yet is sent to one resolver, all
 * at once, from a socket of its own (another random port each), and answers are
 * taken for a while; then the next resolver's turn comes. What was cut short
 * for UDP is asked again by TCP. A name that does not exist is believed at
 * once, a resolver that fails is not.
 */
#include "init/resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/ip.h"
#include "base/util.h"
#include "init/dns.h"
#include "init/system.h"

#define ROUNDS 3
#define ANSWER_MS 3000
#define TCP_TIMEOUT_S 4
#define PACKET_MAX 4096
#define QUERIES_MAX ((size_t)2 * GUEST_NAMES_MAX) /* A and AAAA */

struct query {
	const char *name;
	enum dns_type type;
	int fd;
	uint16_t id;
	bool done;
	int result; /* of dns_answer(), or why there is none */
	struct dns_result answer;
};

static int connect_to(const struct in6_addr *resolver, int type)
{
	const bool v4 = ip_is_v4(resolver);
	const struct sockaddr_in to4 = {
		.sin_family = AF_INET,
		.sin_port = htons(53),
		.sin_addr = ip_to_v4(resolver),
	};
	const struct sockaddr_in6 to6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(53),
		.sin6_addr = *resolver,
	};
	const struct sockaddr *to =
		v4 ? (const void *)&to4 : (const void *)&to6;
	const struct timeval timeout = { .tv_sec = TCP_TIMEOUT_S };
	_cleanup_close_ int fd =
		socket(v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout,
		       sizeof(timeout)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout,
		       sizeof(timeout)) ||
	    connect(fd, to, v4 ? sizeof(to4) : sizeof(to6)) < 0)
		return -errno;
	return steal_fd(&fd);
}

static void ask(struct query *q, const struct in6_addr *resolver)
{
	uint8_t packet[DNS_QUERY_MAX];
	int len;

	if (getrandom(&q->id, sizeof(q->id), 0) != sizeof(q->id))
		return;
	len = dns_query(q->id, q->name, q->type, packet);
	if (len < 0) {
		q->result = len;
		q->done = true;
		return;
	}
	q->fd = connect_to(resolver, SOCK_DGRAM);
	if (q->fd < 0 || send(q->fd, packet, (size_t)len, 0) != len)
		q->result = -errno;
}

static int read_all(int fd, uint8_t *to, size_t len)
{
	while (len > 0) {
		ssize_t n = recv(fd, to, len, 0);

		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		to += n;
		len -= (size_t)n;
	}
	return 0;
}

/* RFC 1035, 4.2.2: a length goes before each message. */
static int ask_by_tcp(struct query *q, const struct in6_addr *resolver)
{
	_cleanup_close_ int fd = connect_to(resolver, SOCK_STREAM);
	uint8_t packet[2 + DNS_QUERY_MAX], answer[PACKET_MAX], head[2];
	int len = dns_query(q->id, q->name, q->type, packet + 2);
	size_t n;
	int r;

	if (fd < 0 || len < 0)
		return fd < 0 ? fd : len;
	packet[0] = (uint8_t)(len >> 8);
	packet[1] = (uint8_t)len;
	if (send(fd, packet, (size_t)len + 2, MSG_NOSIGNAL) != len + 2)
		return -errno;
	r = read_all(fd, head, sizeof(head));
	n = (size_t)head[0] << 8 | head[1];
	if (r == 0 && n > sizeof(answer))
		n = sizeof(answer);
	if (r == 0)
		r = read_all(fd, answer, n);
	return r < 0 ? r
		     : dns_answer(answer, n, q->id, q->name, q->type,
				  &q->answer);
}

static void hear(struct query *q, const struct in6_addr *resolver)
{
	uint8_t packet[PACKET_MAX];
	ssize_t n = recv(q->fd, packet, sizeof(packet), MSG_DONTWAIT);
	int r;

	if (n < 0 && errno == EAGAIN)
		return;
	r = n < 0 ? -errno
		  : dns_answer(packet, (size_t)n, q->id, q->name, q->type,
			       &q->answer);
	/* Not the resolver's answer: it may still come. */
	if (r == -EBADMSG)
		return;
	if (r == -E2BIG)
		r = ask_by_tcp(q, resolver);
	q->result = r;
	q->done = r == 0 || r == -ENOENT || r == -ENODATA;
	close(q->fd);
	q->fd = -1;
}

static void hear_all(struct query *queries, size_t n,
		     const struct in6_addr *resolver)
{
	long long end = system_now_ms() + ANSWER_MS;

	for (;;) {
		struct pollfd fds[QUERIES_MAX];
		size_t open = 0;
		long long left = end - system_now_ms();

		for (size_t i = 0; i < n; i++) {
			fds[i] = (struct pollfd){ .fd = queries[i].fd,
						  .events = POLLIN };
			open += queries[i].fd >= 0;
		}
		if (open == 0 || left <= 0 || poll(fds, n, (int)left) <= 0)
			break;
		for (size_t i = 0; i < n; i++)
			if (fds[i].revents)
				hear(&queries[i], resolver);
	}
	for (size_t i = 0; i < n; i++) {
		closep(&queries[i].fd);
		queries[i].fd = -1;
	}
}

static void one_round(struct query *queries, size_t n,
		      const struct in6_addr *resolver)
{
	bool asked = false;

	for (size_t i = 0; i < n; i++)
		if (!queries[i].done) {
			queries[i].result = -ETIMEDOUT;
			ask(&queries[i], resolver);
			asked = true;
		}
	if (asked)
		hear_all(queries, n, resolver);
}

static const char *reason(int result)
{
	switch (result) {
	case -ENOENT: return "there is no such name";
	case -ENODATA: return "it has no usable address";
	case -EREMOTEIO: return "the resolver failed or refused";
	case -ETIMEDOUT:
	case -EAGAIN: return "no answer";
	default: return strerror(-result);
	}
}

static size_t found(const struct query *q)
{
	return q && q->result == 0 ? q->answer.n : 0;
}

static void tell_address(const struct query *q, size_t i, size_t *told)
{
	char ip[IP_TEXT_MAX];

	if (i < found(q) && (*told)++ < GUEST_NAME_ADDRESSES_MAX)
		printf(" %s", ip_format(&q->answer.addresses[i], ip));
}

/* In turn, IPv6 first (as RFC 8305 has it): it was asked for by the
 * configuration. @v6: NULL if it was not. */
static void tell(const struct query *v4, const struct query *v6)
{
	uint32_t ttl_s = UINT32_MAX;
	size_t told = 0;

	if (found(v4) + found(v6) == 0) {
		/* A name with AAAA records only has no A. */
		const struct query *q = v6 && v4->result == -ENODATA ? v6 : v4;

		printf("no %s %s\n", q->name, reason(q->result));
		return;
	}
	if (found(v4))
		ttl_s = v4->answer.ttl_s;
	if (found(v6) && v6->answer.ttl_s < ttl_s)
		ttl_s = v6->answer.ttl_s;
	printf("ok %s %u", v4->name, ttl_s);
	for (size_t i = 0; i < GUEST_NAME_ADDRESSES_MAX; i++) {
		tell_address(v6, i, &told);
		tell_address(v4, i, &told);
	}
	printf("\n");
}

int resolver_main(int argc, char **argv)
{
	static const enum dns_type types[] = { DNS_TYPE_A, DNS_TYPE_AAAA };
	struct in6_addr resolvers[GUEST_RESOLVERS_MAX];
	struct query queries[QUERIES_MAX];
	size_t n_resolvers = 0, n = 0, per_name = 1;
	int i;

	for (i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (!strcmp(argv[i], RESOLVER_IPV6))
			per_name = 2;
		else if (n_resolvers < ARRAY_SIZE(resolvers) &&
			 ip_parse(argv[i], &resolvers[n_resolvers]) == 0)
			n_resolvers++;
	}
	for (i++; i < argc && n + per_name <= ARRAY_SIZE(queries); i++)
		for (size_t k = 0; k < per_name; k++)
			queries[n++] = (struct query){
				.name = argv[i],
				.type = types[k],
				.fd = -1,
				.result = -ETIMEDOUT,
			};
	for (int round = 0; round < ROUNDS; round++)
		for (size_t r = 0; r < n_resolvers; r++)
			one_round(queries, n, &resolvers[r]);
	for (size_t k = 0; k < n; k += per_name)
		tell(&queries[k], per_name > 1 ? &queries[k + 1] : NULL);
	return fflush(stdout) == 0 ? 0 : 1;
}
