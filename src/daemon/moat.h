/* The way to the bridge service while Tor is not connected. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "base/error.h"

struct engine;

struct moat {
	struct engine *engine;
	bool wanted; /* a client waits for it, or uses it */
	bool ready;  /* the guest leads there */
	uv_timer_t limit;
};

void moat_init(struct moat *moat, struct engine *e);
void moat_deinit(struct moat *moat);

/**
 * moat_begin() - A client wants to ask the bridge service
 *
 * The VM is started anew. control_server_moat() says where the service answers,
 * or why it does not. Return: 0; -EBUSY: another client is at it; -EAGAIN: not
 * now; or another negative errno. With a sentence; nothing has changed then.
 */
int moat_begin(struct moat *moat, struct error *e);

/* The client has hung up: the VM is started anew, with Tor. */
void moat_end(struct moat *moat);

/* The guest is ready. Return: whether for this, and without Tor. */
bool moat_ready(struct moat *moat);

/* Names were not found. Return: whether that is the end of it. */
bool moat_names_failed(struct moat *moat);

/* The engine's state is another. */
void moat_entered(struct moat *moat);
