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
#include "tor/circuits.h"
#include "tor/relays.h"

struct tor_control;

/* Bytes. */
struct tor_bandwidth {
	uint64_t read_rate, written_rate; /* of the last second */
	uint64_t read, written;           /* since Tor was started */
};

/* What Tor can be asked while the session is ready. */
enum tor_question {
	TOR_QUESTION_RELAYS,       /* whom it is connected with, by address */
	TOR_QUESTION_CIRCUITS,     /* circuits and streams */
	TOR_QUESTION_ENTRIES,      /* guards or bridges */
	TOR_QUESTION_NEW_IDENTITY, /* a demand: SIGNAL NEWNYM */
	TOR_QUESTION_COUNT,
};

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
	/* The answers to tor_control_ask(). */
	void (*relays)(void *userdata, const struct tor_relays *relays);
	void (*circuits)(void *userdata, const struct tor_circuits *circuits);
	void (*entries)(void *userdata, const struct tor_entries *entries);
	void (*new_identity)(void *userdata);
	/* At first, then each second: bytes in the last one, and since Tor was
	 * started. */
	void (*bandwidth)(void *userdata, const struct tor_bandwidth *b);
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
 * tor_control_ask() - Ask Tor something, after what it was asked before
 *
 * Asked again while it waits for its turn, it is asked once. A session that is
 * reset forgets all questions. Return: 0: the callback will be called; -EAGAIN:
 * the session is not ready; -ENOMEM
 */
int tor_control_ask(struct tor_control *c, enum tor_question question);

/* Bytes to be written to Tor. */
struct buffer *tor_control_output(struct tor_control *c);
