/* Tor's lists of connections and relays. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "tor/relays.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct tor_relays relays;

	must(text != NULL);
	tor_relays_from_connections(text, &relays);
	tor_relays_add(&relays, text);
	must(relays.n_endpoints <= TOR_ENDPOINTS_MAX);
	must(relays.n_fingerprints <= TOR_RELAYS_MAX);
	for (size_t i = 0; i < relays.n_fingerprints; i++)
		must(strlen(relays.fingerprints[i]) ==
		     TOR_FINGERPRINT_SIZE - 1);
	for (size_t i = 0; i < relays.n_endpoints; i++) {
		char buf[ENDPOINT_TEXT_MAX];
		struct endpoint again;

		/* What is written is read again as the same. */
		endpoint_format(&relays.endpoints[i], buf);
		must(endpoint_parse(buf, strlen(buf), &again) == 0);
		must(endpoint_equal(&again, &relays.endpoints[i]));
	}
	free(text);
	return 0;
}
