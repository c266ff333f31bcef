/* The relay between the torctl port and Tor's ControlSocket. */
#pragma once

#include <stdbool.h>

#include "init/ring.h"

struct relay {
	int port;  /* -1: not open */
	int tor;   /* -1: not connected */
	int epoll; /* where `tor` is watched, as user data `tag` */
	unsigned int tag;
	bool open;      /* the host has the port open, as last seen */
	bool tor_ended; /* it hung up; its last words are on their way */
	bool retry;     /* the host waits for Tor: call again in a while */
	struct ring to_tor;
	struct ring to_host;
	/* Called when the connection to Tor is made and when it is gone. */
	void (*fn)(void *userdata, bool connected);
	void *userdata;
};

#define RELAY_RETRY_MS 50

/**
 * relay_init() - Open the port
 * @epoll, @tag:	Where to watch the connection to Tor, and as what
 *
 * Return: 0 or a negative errno. Waits up to 2 s for the device.
 */
int relay_init(struct relay *relay, int epoll, unsigned int tag,
	       void (*fn)(void *userdata, bool connected), void *userdata);

/**
 * relay_pump() - Move whatever can be moved now, connect or hang up
 * @tor_runs:	Whether there is a Tor to connect to
 *
 * To be called when either fd is ready, Tor was started, and every
 * RELAY_RETRY_MS while `retry` is set. Never blocks.
 */
void relay_pump(struct relay *relay, bool tor_runs);
