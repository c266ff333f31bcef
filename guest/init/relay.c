/*
 * Theory of operation
 *
 * Bytes only: nothing here knows the control protocol. Two rings of fixed size;
 * a side is not read while its ring is full, so a slow host slows Tor's events
 * down and nothing grows.
 *
 * The host's closing of the port is seen as a hang-up of the device. The other
 * way round there is no sign: a guest cannot close the host's end of the port.
 * So when Tor goes, what the host had sent to it is thrown away, the agent port
 * tells the host, and the connection is made again as soon as Tor is back. What
 * the host sends from then on waits in the port for the new Tor.
 *
 * The port is edge-triggered (its hang-up would be reported all the time), so
 * one pump goes on until nothing moves any more.
 */
#include "init/relay.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "init/agent.h"
#include "init/contract.h"
#include "init/tor.h"

int relay_init(struct relay *relay, int epoll, unsigned int tag,
	       void (*fn)(void *userdata, bool connected), void *userdata)
{
	memset(relay, 0, sizeof(*relay));
	relay->tor = -1;
	relay->epoll = epoll;
	relay->tag = tag;
	relay->fn = fn;
	relay->userdata = userdata;
	relay->port = port_open(GUEST_PORT_TORCTL);
	return relay->port < 0 ? relay->port : 0;
}

static bool host_has_it_open(const struct relay *relay)
{
	struct pollfd p = { .fd = relay->port, .events = POLLOUT };

	return poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}

static void throw_away_input(struct relay *relay)
{
	char buf[4096];

	while (read(relay->port, buf, sizeof(buf)) > 0)
		;
}

static void hang_up(struct relay *relay)
{
	if (relay->tor < 0)
		return;
	close(relay->tor); /* leaves the epoll set by itself */
	relay->tor = -1;
	relay->tor_ended = false;
	ring_clear(&relay->to_tor);
	ring_clear(&relay->to_host);
	throw_away_input(relay);
	relay->fn(relay->userdata, false);
}

/* Whether the last words were given to the host, or there is nobody there. */
static bool ended(const struct relay *relay)
{
	return relay->tor >= 0 && relay->tor_ended &&
	       ring_used(&relay->to_host) == 0;
}

static void connect_to_tor(struct relay *relay)
{
	struct epoll_event event = { .data.u32 = relay->tag };
	int fd = tor_connect();

	relay->retry = true;
	if (fd < 0)
		return;
	if (epoll_ctl(relay->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
		close(fd);
		return;
	}
	relay->retry = false;
	relay->tor = fd;
	relay->fn(relay->userdata, true);
}

static bool move(struct relay *relay)
{
	bool moved = false;

	/* A read of 0 from the port is the host's hang-up: seen by poll(). */
	moved |= ring_fill(&relay->to_tor, relay->port) > 0;
	moved |= ring_drain(&relay->to_host, relay->port) > 0;
	if (!relay->tor_ended) {
		int in = ring_fill(&relay->to_host, relay->tor);
		int out = ring_drain(&relay->to_tor, relay->tor);

		moved |= in > 0 || out > 0;
		relay->tor_ended = in < 0;
	}
	return moved;
}

static void watch_tor(struct relay *relay)
{
	struct epoll_event event = { .data.u32 = relay->tag };

	if (relay->tor < 0)
		return;
	if (relay->tor_ended) {
		/* Its hang-up would be reported again and again. */
		epoll_ctl(relay->epoll, EPOLL_CTL_DEL, relay->tor, NULL);
		return;
	}
	if (ring_room(&relay->to_host) > 0)
		event.events |= EPOLLIN;
	if (ring_used(&relay->to_tor) > 0)
		event.events |= EPOLLOUT;
	epoll_ctl(relay->epoll, EPOLL_CTL_MOD, relay->tor, &event);
}

void relay_pump(struct relay *relay, bool tor_runs)
{
	bool open = host_has_it_open(relay);

	relay->retry = false;
	if (!open) {
		hang_up(relay);
		/* Only what the host sent before it closed. The first bytes of
		 * its next session may be here before the news that it has
		 * opened the port: they come by another queue. */
		if (relay->open)
			throw_away_input(relay);
		relay->open = false;
		return;
	}
	relay->open = true;
	if (relay->tor < 0 && tor_runs)
		connect_to_tor(relay);
	while (relay->tor >= 0 && move(relay))
		;
	if (ended(relay)) {
		hang_up(relay);
		relay->retry = tor_runs;
	}
	watch_tor(relay);
}
