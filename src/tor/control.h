/*
 * A session on Tor's control port: authenticates, subscribes, asks for what it
 * has missed and reports what changed. No I/O: the engine moves the bytes.
 *
 *	tor_control_connected(c)
 *	write what tor_control_output(c) holds
 *	tor_control_push(c, bytes)	calls back
 *	tor_control_reset(c)		the connection is gone
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/buffer.h"
#include "proto/torctl.h"
#include "tor/relays.h"

struct tor_control;

/* Called from tor_control_push() only. A callback must not free or reset the
 * session. All may be NULL. Texts are valid during the
 * call. */
struct tor_control_callbacks {
	/* Subscribed; everything asked has been answered. */
	void (*ready)(void *userdata);
	void (*version)(void *userdata, const char *version);
	/* Only when it differs from the last one reported. */
	void (*bootstrap)(void *userdata, const struct torctl_bootstrap *b);
	void (*circuit_established)(void *userdata, bool established);
	/* @seconds: positive, the guest's clock is ahead. */
	void (*clock_skew)(void *userdata, int64_t seconds, const char *source);
	/* The answer to tor_control_ask_relays(). */
	void (*relays)(void *userdata, const struct tor_relays *relays);
	/* Tor's own log: NOTICE, WARN, ERR. */
	void (*log)(void *userdata, enum torctl_severity severity,
		    const char *text);
};

/* Return: a session, freed by tor_control_free(); NULL when out of memory. */
struct tor_control *tor_control_new(const struct tor_control_callbacks *cb,
				    void *userdata);
void tor_control_free(struct tor_control *c);
void tor_control_freep(struct tor_control **c);

/* Forgets the connection and what was reported on it. */
void tor_control_reset(struct tor_control *c);

/* The stream is open: queues the first command. Return: 0 or -ENOMEM. */
int tor_control_connected(struct tor_control *c);

/**
 * tor_control_push() - Work on received bytes
 *
 * Return: 0, or -EBADMSG, -EMSGSIZE, -EACCES (authentication refused),
 * -EPROTO (Tor refused a command that it must know), -ENOMEM with a sentence in
 * @e: close the connection
 */
int tor_control_push(struct tor_control *c, const void *data, size_t len,
		     struct error *e);

bool tor_control_is_ready(const struct tor_control *c);

/**
 * tor_control_ask_relays() - Ask Tor whom it is connected with
 *
 * Return: 0: `relays` will be called; -EBUSY: not ready, or asked already;
 * -ENOMEM
 */
int tor_control_ask_relays(struct tor_control *c);

/* Bytes to be written to Tor. */
struct buffer *tor_control_output(struct tor_control *c);
