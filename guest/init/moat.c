/*
 * Theory of operation
 *
 * Whoever on the host connects to GUEST_MOAT_PORT talks to the other end of the
 * transport, and to nobody else: what the transport is asked for are the
 * configuration's arguments and never a word of the client's, whose bytes are
 * carried as they are. Where the transport's other end leads is fixed there, to
 * the bridge service, which is spoken to in TLS from the host on. So this is no
 * proxy, whatever its clients say.
 *
 * A few links at a time, two rings each. A side is not read while its ring is
 * full. The end of one side is the end of the other once what it said has been
 * passed on; so is a minute of silence.
 */
#include "init/moat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "init/child.h"
#include "init/ring.h"
#include "init/socks.h"
#include "init/system.h"

#define LINKS_MAX 4
#define SILENCE_MS 60000

struct link {
	int client; /* -1: not in use */
	int transport;
	enum socks_step step; /* SOCKS_STEP_COUNT: connected */
	uint8_t reply[SOCKS_REPLY_MAX];
	size_t n_reply;
	bool client_ended, transport_ended;
	struct ring up, down;
	long long heard_ms;
};

struct moat {
	int listener;
	uint16_t transport_port;
	const char *args;
	struct link links[LINKS_MAX];
};

static void end_link(struct link *l)
{
	close(l->client);
	closep(&l->transport);
	l->client = l->transport = -1;
}

static bool ask(const struct moat *moat, struct link *l)
{
	uint8_t request[SOCKS_REQUEST_MAX];
	size_t len = socks_request(l->step, moat->args, request);

	/* There is always room for it: the last one was answered. */
	return send(l->transport, request, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* Return: a connection to the transport, which is on this machine and so
 * there at once, or -1 */
static int connect_to_transport(uint16_t port)
{
	const struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    connect(fd, (const struct sockaddr *)&address, sizeof(address)) <
		    0 ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -1;
	return steal_fd(&fd);
}

static void begin_link(struct moat *moat, struct link *l)
{
	int client = accept4(moat->listener, NULL, NULL,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (client < 0)
		return;
	memset(l, 0, sizeof(*l));
	l->client = client;
	l->heard_ms = system_now_ms();
	l->transport = connect_to_transport(moat->transport_port);
	if (l->transport < 0 || !ask(moat, l))
		end_link(l);
}

/* Return: whether the link goes on */
static bool hear_reply(const struct moat *moat, struct link *l)
{
	int missing = socks_reply(l->step, l->reply, l->n_reply);
	ssize_t n =
		recv(l->transport, l->reply + l->n_reply, (size_t)missing, 0);

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	l->n_reply += (size_t)n;
	missing = socks_reply(l->step, l->reply, l->n_reply);
	if (missing != 0)
		return missing > 0;
	l->n_reply = 0;
	l->step++;
	return l->step == SOCKS_STEP_COUNT || ask(moat, l);
}

/* Return: whether the link goes on */
static bool carry(struct link *l)
{
	bool moved;

	do {
		int in = l->client_ended ? 0 : ring_fill(&l->up, l->client);
		int out = ring_drain(&l->up, l->transport);
		int back = l->transport_ended
				   ? 0
				   : ring_fill(&l->down, l->transport);
		int on = ring_drain(&l->down, l->client);

		if (out < 0 || on < 0)
			return false;
		l->client_ended |= in < 0;
		l->transport_ended |= back < 0;
		moved = in > 0 || out > 0 || back > 0 || on > 0;
		if (moved)
			l->heard_ms = system_now_ms();
	} while (moved);
	/* Nobody waits for an answer that has hung up. */
	return !(l->client_ended && ring_used(&l->up) == 0) &&
	       !(l->transport_ended && ring_used(&l->down) == 0);
}

static struct pollfd client_events(const struct link *l)
{
	struct pollfd p = { .fd = l->client };

	if (l->step != SOCKS_STEP_COUNT)
		return p;
	if (!l->client_ended && ring_room(&l->up) > 0)
		p.events |= POLLIN;
	if (ring_used(&l->down) > 0)
		p.events |= POLLOUT;
	/* A hang-up that is known would be reported all the time. */
	if (!p.events)
		p.fd = -1;
	return p;
}

static struct pollfd transport_events(const struct link *l)
{
	struct pollfd p = { .fd = l->transport };

	if (l->client < 0)
		return p;
	if (l->step != SOCKS_STEP_COUNT ||
	    (!l->transport_ended && ring_room(&l->down) > 0))
		p.events |= POLLIN;
	if (l->step == SOCKS_STEP_COUNT && ring_used(&l->up) > 0)
		p.events |= POLLOUT;
	if (!p.events)
		p.fd = -1;
	return p;
}

static void look_after(struct moat *moat, struct link *l, bool client,
		       bool transport)
{
	bool good = true;

	if (l->client < 0)
		return;
	if (l->step == SOCKS_STEP_COUNT && (client || transport))
		good = carry(l);
	else if (l->step != SOCKS_STEP_COUNT && transport)
		good = hear_reply(moat, l);
	/* Before it is connected a client can only hang up. */
	if (l->step != SOCKS_STEP_COUNT && client)
		good = false;
	if (!good || system_now_ms() - l->heard_ms > SILENCE_MS)
		end_link(l);
}

static int serve(struct moat *moat)
{
	for (;;) {
		struct pollfd fds[1 + 2 * LINKS_MAX] = { { .fd = -1 } };
		struct link *unused = NULL;

		for (size_t i = 0; i < LINKS_MAX; i++) {
			struct link *l = &moat->links[i];

			fds[1 + 2 * i] = client_events(l);
			fds[2 + 2 * i] = transport_events(l);
			if (l->client < 0)
				unused = l;
		}
		if (unused)
			fds[0] = (struct pollfd){ .fd = moat->listener,
						  .events = POLLIN };
		/* Often enough to see silence. */
		if (poll(fds, ARRAY_SIZE(fds), SILENCE_MS / 4) < 0)
			return 1;
		for (size_t i = 0; i < LINKS_MAX; i++)
			look_after(moat, &moat->links[i],
				   fds[1 + 2 * i].revents,
				   fds[2 + 2 * i].revents);
		if (unused && fds[0].revents)
			begin_link(moat, unused);
	}
}

static int listen_on(const char *ip)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(GUEST_MOAT_PORT) };
	const int on = 1;
	_cleanup_close_ int fd =
		socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, ip, &address.sin_addr) != 1 || fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, LINKS_MAX) < 0)
		return -1;
	return steal_fd(&fd);
}

int moat_main(int argc, char **argv)
{
	/* The rings are too much for a stack. */
	static struct moat moat;

	if (argc != 3)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < LINKS_MAX; i++)
		moat.links[i].client = moat.links[i].transport = -1;
	moat.transport_port = (uint16_t)strtoul(argv[1], NULL, 10);
	moat.args = argv[2];
	moat.listener = listen_on(argv[0]);
	if (moat.listener < 0)
		return 1;
	if (puts(MOAT_LISTENS) < 0 || fflush(stdout) != 0)
		return 1;
	return serve(&moat);
}

pid_t moat_start(const struct guest_config *config, uint16_t transport_port,
		 int *ret_output, struct error *e)
{
	char ip[INET_ADDRSTRLEN], port[8];
	const char *const argv[] = { "/init", MOAT_WORD,    ip,
				     port,    config->moat, NULL };
	static const char *const environment[] = { NULL };
	const struct child child = {
		.what = "the way to the bridge service",
		.argv = argv,
		.environment = environment,
		.uid = GUEST_MOAT_UID,
		.filtered = true,
	};

	inet_ntop(AF_INET, &config->vm_ip, ip, sizeof(ip));
	snprintf(port, sizeof(port), "%u", transport_port);
	return child_start(&child, ret_output, e);
}
