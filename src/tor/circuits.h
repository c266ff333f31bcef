/*
 * What Tor is used for at the moment, and by whom it is entered: the values of
 * GETINFO circuit-status, stream-status, entry-guards and orconn-status
 * (control-spec). Pure. All texts are clean: printable ASCII.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tor/relays.h"

#define TOR_HOPS_MAX 8
#define TOR_CIRCUITS_MAX 128
#define TOR_STREAMS_MAX 256
#define TOR_HOP_RELAYS_MAX 192
#define TOR_ENTRIES_MAX 96

struct tor_hop_relay {
	char fingerprint[TOR_FINGERPRINT_SIZE];
	char nickname[20]; /* "": not known */
	char country[3];   /* "de"; "": not known */
};

struct tor_circuit {
	char id[20];
	char status[16];  /* "BUILT", ... */
	char purpose[32]; /* "GENERAL", ...; "": not told */
	char created[32]; /* UTC, "2026-11-24T17:00:00.123456"; "": not told */
	uint16_t hops[TOR_HOPS_MAX]; /* of relays */
	size_t n_hops;
};

struct tor_stream {
	char id[20];
	char status[16];
	char circuit[20]; /* "0": none */
	char target[272]; /* HOST:PORT: what the user asks for */
};

struct tor_circuits {
	struct tor_hop_relay relays[TOR_HOP_RELAYS_MAX];
	size_t n_relays;
	struct tor_circuit circuits[TOR_CIRCUITS_MAX];
	size_t n_circuits;
	struct tor_stream streams[TOR_STREAMS_MAX];
	size_t n_streams;
};

/* The value of circuit-status; replaces circuits and relays. Lines that are not
 * understood, and more than there is room for, are left out. */
void tor_circuits_parse(const char *text, struct tor_circuits *ret);
/* The value of stream-status; replaces streams. */
void tor_streams_parse(const char *text, struct tor_circuits *ret);

struct tor_entry {
	char fingerprint[TOR_FINGERPRINT_SIZE]; /* "": not known */
	char address[ENDPOINT_TEXT_MAX];        /* "": not known */
	/* Of a guard: "up", "down", "never-connected", "unusable"; of a
	 * connection: "connected", "connecting", "failed". */
	char state[20];
};

struct tor_entries {
	struct tor_entry entries[TOR_ENTRIES_MAX];
	size_t n_entries;
};

/* Takes an ORCONN event, from its target on: @failed has whom Tor called in
 * vain since it was last connected with them, the latest ones. A bridge that it
 * never reached is in nothing that Tor can be asked for. */
void tor_entries_note(struct tor_entries *failed, const char *event);

/* The values of entry-guards and of orconn-status; fills @ret anew. What Tor is
 * connected with right now is told instead of what has @failed, and that
 * instead of what Tor remembers. */
void tor_entries_parse(const char *guards, const struct tor_entries *failed,
		       const char *connections, struct tor_entries *ret);
