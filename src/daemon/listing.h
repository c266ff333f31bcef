/* What Tor told as the control socket's JSON. */
#pragma once

#include <jansson.h>

#include "config/config.h"
#include "tor/circuits.h"

/* Parameters of the reply to GetCircuits, without @cfg's secrets: with bridges
 * the first relay of each circuit, and whom Tor's own streams to it name. NULL:
 * out of memory. */
json_t *listing_circuits(const struct tor_circuits *circuits,
			 const struct config *cfg);

/* Parameters of the reply to GetEntries. NULL: out of memory. */
json_t *listing_entries(const struct tor_entries *entries);
