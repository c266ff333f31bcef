/*
 * Whom Tor is connected with: what GETINFO orconn-status and ns/id/... say
 * (control-spec, section 3.9). Pure.
 */
#pragma once

#include <stddef.h>

#include "proto/endpoint.h"

#define TOR_RELAYS_MAX 32     /* connections that are asked about */
#define TOR_ENDPOINTS_MAX 128 /* addresses that are remembered */
#define TOR_FINGERPRINT_SIZE 41

struct tor_relays {
	/* Of connections whose address is to be asked for. */
	char fingerprints[TOR_RELAYS_MAX][TOR_FINGERPRINT_SIZE];
	size_t n_fingerprints;
	struct endpoint endpoints[TOR_ENDPOINTS_MAX];
	size_t n_endpoints;
	/* Connections whose address Tor does not tell. */
	size_t n_unknown;
};

/**
 * tor_address_parse() - Parse an address as Tor names a connection by it
 *
 * As endpoint_parse(), and "2001:db8::1:443": Tor leaves the brackets out.
 */
int tor_address_parse(const char *name, size_t len, struct endpoint *ret);

/**
 * tor_relays_from_connections() - Read the value of orconn-status
 * @text:	Lines "$FINGERPRINT~NAME STATE" or "ADDRESS:PORT STATE"
 *
 * Fills @ret anew. What does not fit or is not understood counts as unknown.
 */
void tor_relays_from_connections(const char *text, struct tor_relays *ret);

/**
 * tor_relays_add() - Add the addresses of one relay
 * @text:	The value of ns/id/FINGERPRINT: a router status entry with its
 *		"r" and "a" lines (dir-spec). Without a good "r" line the relay
 *		counts as unknown
 */
void tor_relays_add(struct tor_relays *relays, const char *text);
