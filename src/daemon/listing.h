/* What Tor told as the control socket's JSON. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "tor/circuits.h"

/* Parameters of the reply to GetCircuits. @bridges: the first relay of each
 * circuit is a bridge, which is a secret. NULL: out of memory. */
json_t *listing_circuits(const struct tor_circuits *circuits, bool bridges);

/* Parameters of the reply to GetEntries. NULL: out of memory. */
json_t *listing_entries(const struct tor_entries *entries);
