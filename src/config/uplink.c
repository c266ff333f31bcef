/*
 * Theory of operation
 *
 * Where a transport connects to is in its bridge lines' arguments, each
 * transport's in its own way; the rules below are those of lyrebird 0.8.1
 * (transports/meeklite, snowflake, webtunnel) and snowflake 2.x. The line's
 * own address counts for obfs4 and plain bridges only; elsewhere it is a
 * placeholder.
 *
 * A proxy hides the rest: Tor and lyrebird hand it names as they are, and only
 * the proxy is contacted. Snowflake is not combined with one (combine.c).
 */
#include "config/uplink.h"

#include <errno.h>
#include <string.h>

#include "base/ip.h"
#include "config/bridge_line.h"

#define PORT_HTTP 80
#define PORT_HTTPS 443
#define PORT_STUN 3478

struct plan {
	const struct config *cfg;
	struct uplink *uplink;
	bool full, unreachable;
};

static void put(struct plan *plan, const struct uplink_target *target)
{
	struct uplink *u = plan->uplink;

	for (size_t i = 0; i < u->n; i++)
		if (u->targets[i].protocol == target->protocol &&
		    u->targets[i].port == target->port &&
		    u->targets[i].known == target->known &&
		    ip_equal(&u->targets[i].address, &target->address) &&
		    !strcasecmp(u->targets[i].host, target->host))
			return;
	if (u->n == UPLINK_TARGETS_MAX) {
		plan->full = true;
		return;
	}
	u->targets[u->n++] = *target;
}

/* Puts @target with each address that bridge.addresses has for its host.
 * Return: whether there is one. */
static bool put_pinned(struct plan *plan, struct uplink_target *target)
{
	size_t n = strlen(target->host);
	bool any = false;

	for (size_t i = 0; i < plan->cfg->bridge.n_addresses; i++) {
		const char *pin = plan->cfg->bridge.addresses[i];

		if (strncasecmp(pin, target->host, n) != 0 || pin[n] != '=' ||
		    ip_parse(pin + n + 1, &target->address) < 0)
			continue;
		target->known = true;
		put(plan, target);
		any = true;
	}
	return any;
}

static void add_host(struct plan *plan, uint8_t protocol, const char *host,
		     size_t len, uint16_t port, bool proxy)
{
	struct uplink_target target = {
		.protocol = protocol,
		.port = port,
		.proxy = proxy,
	};

	if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (len > UPLINK_HOST_MAX)
		len = UPLINK_HOST_MAX;
	memcpy(target.host, host, len);
	if (ip_parse(target.host, &target.address) == 0) {
		target.known = true;
		target.host[0] = '\0';
		plan->unreachable |= !ip_is_unicast(&target.address);
		put(plan, &target);
	} else if (!put_pinned(plan, &target)) {
		put(plan, &target);
	}
}

/* HOST or HOST:PORT, @len bytes. */
static void add_host_port(struct plan *plan, uint8_t protocol, const char *text,
			  size_t len, uint16_t port, bool proxy)
{
	size_t host = len;

	while (host > 0 && text[host - 1] >= '0' && text[host - 1] <= '9')
		host--;
	if (host > 1 && host < len && text[host - 1] == ':') {
		port = (uint16_t)strtoul(text + host, NULL, 10);
		len = host - 1;
	}
	add_host(plan, protocol, text, len, port, proxy);
}

/* The host of URL, at most @len bytes of it. */
static void add_url(struct plan *plan, const char *url, size_t len)
{
	uint16_t port = strncmp(url, "http:", 5) ? PORT_HTTPS : PORT_HTTP;
	const char *end = url + len, *host = strstr(url, "://");

	if (!host || host + 3 >= end)
		return;
	host += 3;
	len = strcspn(host, "/?#,|");
	if (host + len > end)
		len = (size_t)(end - host);
	add_host_port(plan, IPPROTO_TCP, host, len, port, false);
}

/* Hosts that are contacted in the place of @url's. Return: whether there are.
 */
static bool add_fronts(struct plan *plan, const char *url, const char *fronts,
		       size_t len, const char *separators)
{
	uint16_t port = strncmp(url, "http:", 5) ? PORT_HTTPS : PORT_HTTP;
	const char *end = fronts + len;

	while (fronts < end) {
		size_t n = strcspn(fronts, separators);

		if (fronts + n > end)
			n = (size_t)(end - fronts);
		if (n > 0)
			add_host_port(plan, IPPROTO_TCP, fronts, n, port,
				      false);
		fronts += n + 1;
	}
	return len > 0;
}

static void add_fronted(struct plan *plan, const struct config_bridge *b,
			const char *url)
{
	const char *fronts = config_bridge_arg(b, "fronts");

	if (!fronts)
		fronts = config_bridge_arg(b, "front");
	if (!fronts || !add_fronts(plan, url, fronts, strlen(fronts), ","))
		add_url(plan, url, strlen(url));
}

/* "URL|FRONT+FRONT,URL|FRONT" */
static void add_targets(struct plan *plan, const char *targets)
{
	while (*targets) {
		size_t len = strcspn(targets, ",");
		const char *bar = memchr(targets, '|', len);

		if (!bar)
			add_url(plan, targets, len);
		else
			add_fronts(plan, targets, bar + 1,
				   len - (size_t)(bar + 1 - targets), "+,");
		targets += len + (targets[len] == ',');
	}
}

static void add_meek(struct plan *plan, const struct config_bridge *b)
{
	const char *targets = config_bridge_arg(b, "targets");
	const char *url = config_bridge_arg(b, "url");

	if (targets)
		add_targets(plan, targets);
	else if (url)
		add_fronted(plan, b, url);
}

/* "stun:HOST:PORT,stun:HOST:PORT" */
static void add_ice(struct plan *plan, const char *ice)
{
	while (*ice) {
		size_t len = strcspn(ice, ",");
		const char *host = memchr(ice, ':', len);

		if (host) {
			host++;
			add_host_port(plan, IPPROTO_UDP, host,
				      (size_t)(ice + len - host), PORT_STUN,
				      false);
		}
		ice += len + (ice[len] == ',');
	}
}

static void add_snowflake(struct plan *plan, const struct config_bridge *b)
{
	const char *queue = config_bridge_arg(b, "sqsqueue");
	const char *cache = config_bridge_arg(b, "ampcache");
	const char *url = config_bridge_arg(b, "url");
	const char *ice = config_bridge_arg(b, "ice");

	if (queue)
		add_url(plan, queue, strlen(queue));
	else if (cache || url)
		add_fronted(plan, b, cache ? cache : url);
	if (ice)
		add_ice(plan, ice);
	plan->uplink->any_udp = true;
	plan->uplink->any_udp6 = plan->cfg->tor.client_use_ipv6;
}

static void add_webtunnel(struct plan *plan, const struct config_bridge *b)
{
	const char *address = config_bridge_arg(b, "addr");
	const char *url = config_bridge_arg(b, "url");

	if (address)
		add_host_port(plan, IPPROTO_TCP, address, strlen(address),
			      PORT_HTTPS, false);
	else if (url)
		add_url(plan, url, strlen(url));
}

static void add_bridge(struct plan *plan, const char *line)
{
	struct config_bridge b = CONFIG_BRIDGE_NULL(b);
	struct config_problem p;

	if (config_bridge_parse(line, &b, &p) == 0 &&
	    b.transport == plan->cfg->bridge.transport) {
		switch (b.transport) {
		case CONFIG_TRANSPORT_NONE:
		case CONFIG_TRANSPORT_OBFS4:
			add_host_port(plan, IPPROTO_TCP, b.address,
				      strlen(b.address), 0, false);
			break;
		case CONFIG_TRANSPORT_MEEK_LITE: add_meek(plan, &b); break;
		case CONFIG_TRANSPORT_SNOWFLAKE: add_snowflake(plan, &b); break;
		case CONFIG_TRANSPORT_WEBTUNNEL: add_webtunnel(plan, &b); break;
		case CONFIG_TRANSPORT_COUNT: break;
		}
	}
	config_bridge_deinit(&b);
}

int uplink_plan(const struct config *cfg, struct uplink *ret, struct error *e)
{
	struct plan plan = { .cfg = cfg, .uplink = ret };
	const bool bridges = cfg->bridge.use_bridges;
	const bool proxy = cfg->proxy.type != CONFIG_PROXY_NONE;

	*ret = (struct uplink){
		.any_tcp = !bridges && !proxy && cfg->tor.client_use_ipv4,
		.any_tcp6 = !bridges && !proxy && cfg->tor.client_use_ipv6,
		.ipv6 = cfg->tor.client_use_ipv6,
	};
	if (proxy)
		add_host_port(&plan, IPPROTO_TCP, cfg->proxy.address,
			      strlen(cfg->proxy.address), 0, true);
	for (size_t i = 0; bridges && !proxy && i < cfg->bridge.n_bridges; i++)
		add_bridge(&plan, cfg->bridge.bridges[i]);
	if (plan.full)
		return error_set(e, -E2BIG, "names over %d addresses",
				 UPLINK_TARGETS_MAX);
	if (plan.unreachable)
		return error_set(e, -EADDRNOTAVAIL,
				 "has an address that no router leads to "
				 "(loopback, link-local, multicast)");
	for (size_t i = 0; i < ret->n; i++)
		if (ret->targets[i].known &&
		    !ip_is_v4(&ret->targets[i].address))
			ret->ipv6 = true;
	return 0;
}

bool uplink_needs_names(const struct uplink *uplink)
{
	for (size_t i = 0; i < uplink->n; i++)
		if (!uplink->targets[i].known)
			return true;
	return false;
}
