#include "daemon/scrub.h"

#include <string.h>

#include "base/ip.h"
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

/* As the line has it, and as Tor and the transports write it. */
static void cover_ipv6(char *line, const char *bracket, size_t len)
{
	char text[IP_TEXT_MAX];
	struct in6_addr ip;

	cover(line, bracket + 1, len);
	if (len >= sizeof(text))
		return;
	memcpy(text, bracket + 1, len);
	text[len] = '\0';
	if (ip_parse(text, &ip) == 0) {
		ip_format(&ip, text);
		cover(line, text, strlen(text));
	}
}

static void cover_bridge(char *line, const char *text)
{
	struct config_bridge b = CONFIG_BRIDGE_NULL(b);
	struct config_problem p;

	if (config_bridge_parse(text, &b, &p) == 0) {
		const char *port = strrchr(b.address, ':');

		if (port && b.address[0] == '[')
			cover_ipv6(line, b.address,
				   (size_t)(port - b.address) - 2);
		else if (port)
			cover(line, b.address, (size_t)(port - b.address));
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
