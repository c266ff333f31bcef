#include "daemon/scrub.h"

#include <string.h>

#include "base/util.h"
#include "config/bridge_line.h"

/* Shorter ones would cover what they do not mean. */
#define SECRET_MIN 4

/* Case is Tor's own choice in fingerprints. */
static void cover(char *line, const char *secret, size_t len)
{
	if (len < SECRET_MIN)
		return;
	for (char *at = line; strlen(at) >= len; at++)
		if (!strncasecmp(at, secret, len))
			memset(at, '*', len);
}

static void cover_bridge(char *line, const char *text)
{
	struct config_bridge b = CONFIG_BRIDGE_NULL(b);
	struct config_problem p;

	if (config_bridge_parse(text, &b, &p) == 0) {
		const char *port = strrchr(b.address, ':');
		bool v6 = b.address[0] == '[';

		if (port)
			cover(line, b.address + v6,
			      (size_t)(port - b.address) - (v6 ? 2 : 0));
		if (b.fingerprint)
			cover(line, b.fingerprint, strlen(b.fingerprint));
		for (size_t i = 0; i < b.n_args; i++)
			cover(line, b.args[i].value, strlen(b.args[i].value));
	}
	config_bridge_deinit(&b);
}

void scrub_line(const struct config *cfg, char *line)
{
	for (size_t i = 0; i < cfg->bridge.n_bridges; i++)
		cover_bridge(line, cfg->bridge.bridges[i]);
	cover(line, cfg->proxy.password, strlen(cfg->proxy.password));
}
