/* The session with the guest's Tor: how far it is and why it is stuck. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "daemon/stream.h"
#include "tor/control.h"
#include "tor/obstacle.h"

struct engine;

struct tor_link {
	struct engine *engine;
	struct stream stream;
	struct tor_control *control;
	uv_timer_t answer; /* an unanswered connection is made anew */
	uv_timer_t stall;  /* no progress */
	bool asked;        /* BOOTSTRAPPED is owed */
	bool complained;   /* last_error is about being stuck */
	struct torctl_bootstrap bootstrap;
	bool clock_wrong; /* so Tor has said, and nothing went on since */
	enum tor_obstacle heard;      /* in the log, likewise */
	struct torctl_bootstrap said; /* what the last complaint was about */
	bool circuit_established;
	char version[64]; /* "": not told yet */
	struct tor_bandwidth bandwidth;
	uint64_t new_identity_ms; /* when Tor carries out the last; 0: none */
};

int tor_link_init(struct tor_link *t, struct engine *e);
void tor_link_deinit(struct tor_link *t);

/* The guest's Tor takes control connections. Idempotent. */
void tor_link_open(struct tor_link *t);
/* The VM has ended. */
void tor_link_close(struct tor_link *t);
/* Tor has ended in the guest, which starts it again. */
void tor_link_lost(struct tor_link *t);

/* Asks Tor; its answer goes to the auditor (relays) or to the clients that wait
 * for it. Return: 0, or a negative errno: it cannot be asked now. */
int tor_link_question(struct tor_link *t, enum tor_question question);

/* Whole seconds until Tor builds new circuits for a new identity. */
unsigned int tor_link_new_identity_wait(const struct tor_link *t);

/* Whether Tor is stuck; if so, on what and what to do (@next). */
bool tor_link_obstacle(const struct tor_link *t, enum tor_obstacle *ret,
		       char *next, size_t size);

/* A line of the log of the guest's Tor or transport. */
void tor_link_hear(struct tor_link *t, const char *line);
/* The same of the TLS client for the proxy. */
void tor_link_hear_tls(struct tor_link *t, const char *line);

/* BOOTSTRAPPED once it is, or already is. */
void tor_link_ask(struct tor_link *t);
