/* What the keys must be to each other. */
#include "config/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "config/bridge_line.h"
#include "config/uplink.h"

/* The guest takes a torrc of 64 KiB; this leaves room for our own lines. */
#define TORRC_BUDGET ((size_t)48 * 1024)

/* 10.0.2.0/24: the guest's own uplink (QEMU's user-mode network). */
#define UPLINK_NET 0x0a000200u

static bool is_private(uint32_t ip)
{
	return ip >> 24 == 10 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8;
}

static int check_address(const struct config_context *ctx, const char *key,
			 struct in_addr addr)
{
	static const char allowed[] = "an address in 10.0.0.0/8, 172.16.0.0/12 "
				      "or 192.168.0.0/16, outside 10.0.2.0/24";
	uint32_t ip = ntohl(addr.s_addr);

	if (!is_private(ip))
		return config_refuse(ctx, key, allowed,
				     "is no private address");
	if ((ip & ~0xffu) == UPLINK_NET)
		return config_refuse(ctx, key, allowed,
				     "lies in the machine's own uplink "
				     "network, 10.0.2.0/24");
	if ((ip & 3) == 0 || (ip & 3) == 3)
		return config_refuse(ctx, key,
				     "the two middle addresses of a /30, such "
				     "as 10.10.10.1 and 10.10.10.2",
				     "is the network or broadcast address of "
				     "its /30");
	return 0;
}

static int check_network(const struct config *cfg,
			 const struct config_context *ctx)
{
	uint32_t host = ntohl(cfg->network.host_ip.s_addr);
	uint32_t vm = ntohl(cfg->network.vm_ip.s_addr);
	int r;

	r = check_address(ctx, "network.host_ip", cfg->network.host_ip);
	if (r == 0)
		r = check_address(ctx, "network.vm_ip", cfg->network.vm_ip);
	if (r < 0)
		return r;
	if (host == vm || (host & ~3u) != (vm & ~3u))
		return config_refuse(ctx, "network.host_ip",
				     "the two middle addresses of one /30, "
				     "such as 10.10.10.2 with 10.10.10.1",
				     "is not the partner of network.vm_ip");
	/* Not done silently: a user who asked for it would rely on it. */
	if (cfg->network.ipv6)
		return config_refuse(ctx, "network.ipv6", "false",
				     "asks for what this version cannot do");
	return 0;
}

static int check_bridge(const struct config *cfg,
			const struct config_context *ctx)
{
	enum config_transport transport = cfg->bridge.transport;

	if (!cfg->bridge.use_bridges)
		return 0;
	if (cfg->bridge.n_bridges == 0)
		return config_refuse(ctx, "bridge.bridges",
				     "at least one bridge line, or "
				     "bridge.use_bridges false",
				     "is empty although bridge.use_bridges is "
				     "true");
	/* Lines of other transports are kept for the day they are wanted. */
	for (size_t i = 0; i < cfg->bridge.n_bridges; i++)
		if (config_bridge_line_transport(cfg->bridge.bridges[i]) ==
		    transport)
			return 0;
	return config_refuse(
		ctx, "bridge.bridges",
		"at least one line of the transport that bridge.transport "
		"names",
		"has lines for \"%s\", but none for bridge.transport \"%s\"",
		config_transport_name(
			config_bridge_line_transport(cfg->bridge.bridges[0])),
		config_transport_name(transport));
}

static int check_socks5(const struct config *cfg,
			const struct config_context *ctx)
{
	size_t user = strlen(cfg->proxy.username);
	size_t password = strlen(cfg->proxy.password);

	/* RFC 1929: one byte for each length, and neither may be empty. */
	if (user > 255)
		return config_refuse(ctx, "proxy.username",
				     "at most 255 bytes for socks5",
				     "is %zu bytes long", user);
	if (password > 255)
		return config_refuse(ctx, "proxy.password",
				     "at most 255 bytes for socks5",
				     "is %zu bytes long", password);
	if (user > 0 && password == 0)
		return config_refuse(ctx, "proxy.password",
				     "both proxy.username and proxy.password, "
				     "or neither",
				     "is empty, but socks5 needs one with a "
				     "user name");
	return 0;
}

static int check_http(const struct config *cfg,
		      const struct config_context *ctx)
{
	/* RFC 7617: the first colon ends the user name. */
	if (strchr(cfg->proxy.username, ':'))
		return config_refuse(ctx, "proxy.username",
				     "a name without ':'",
				     "has a ':', which HTTP proxies take for "
				     "its end");
	/* Tor: "HTTPSProxyAuthenticator is too long (>= 512 chars)" */
	if (strlen(cfg->proxy.username) + 1 + strlen(cfg->proxy.password) > 511)
		return config_refuse(ctx, "proxy.password",
				     "at most 510 bytes together with "
				     "proxy.username",
				     "is too long for an HTTP proxy");
	return 0;
}

static int check_proxy(const struct config *cfg,
		       const struct config_context *ctx)
{
	if (cfg->proxy.type == CONFIG_PROXY_NONE) {
		/* A proxy that is filled in but not used would be bypassed
		 * without a word. */
		if (cfg->proxy.address[0])
			return config_refuse(ctx, "proxy.type",
					     "http, https or socks5; or no "
					     "proxy.address",
					     "is \"none\" although "
					     "proxy.address is set");
	} else if (!cfg->proxy.address[0]) {
		return config_refuse(ctx, "proxy.address",
				     "HOST:PORT; or proxy.type none",
				     "is empty although proxy.type is \"%s\"",
				     config_proxy_name(cfg->proxy.type));
	}
	if (cfg->proxy.password[0] && !cfg->proxy.username[0])
		return config_refuse(ctx, "proxy.username",
				     "a user name, or no proxy.password",
				     "is empty although proxy.password is set");
	if (cfg->proxy.ca_file[0] && cfg->proxy.type != CONFIG_PROXY_HTTPS)
		return config_refuse(ctx, "proxy.ca_file",
				     "proxy.type https, or no proxy.ca_file",
				     "is set although proxy.type is \"%s\", "
				     "which knows no certificates",
				     config_proxy_name(cfg->proxy.type));
	/* lyrebird 0.8.1 asks a SOCKS5 proxy for its UDP relay and goes past it
	 * nevertheless, which the guest's firewall does not let it. */
	if (cfg->proxy.type != CONFIG_PROXY_NONE && cfg->bridge.use_bridges &&
	    cfg->bridge.transport == CONFIG_TRANSPORT_SNOWFLAKE)
		return config_refuse(ctx, "proxy.type",
				     "none with snowflake; or bridge.transport "
				     "obfs4, meek or webtunnel",
				     "snowflake cannot work through a proxy");
	switch (cfg->proxy.type) {
	case CONFIG_PROXY_HTTP:
	case CONFIG_PROXY_HTTPS: return check_http(cfg, ctx);
	case CONFIG_PROXY_SOCKS5: return check_socks5(cfg, ctx);
	case CONFIG_PROXY_NONE:
	case CONFIG_PROXY_COUNT: break;
	}
	return 0;
}

/* Whether @line, "NAME VALUE", sets @name; case as in Tor, any. */
static bool sets_option(const char *line, const char *name)
{
	size_t n = strlen(name);

	return !strncasecmp(line, name, n) && line[n] == ' ';
}

static bool has_option(const struct config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->tor.n_options; i++)
		if (sets_option(cfg->tor.options[i], name))
			return true;
	return false;
}

/* Conditions without which Tor 0.4.9 refuses its whole configuration. */
static int check_testing(const struct config *cfg,
			 const struct config_context *ctx)
{
	bool testing = false;

	for (size_t i = 0; i < cfg->tor.n_options; i++) {
		const char *line = cfg->tor.options[i];

		if (sets_option(line, "TestingTorNetwork"))
			testing = line[strlen(line) - 1] == '1';
	}
	for (size_t i = 0; !testing && i < cfg->tor.n_options; i++) {
		const char *line = cfg->tor.options[i];

		if (!strncasecmp(line, "Testing", 7) &&
		    !sets_option(line, "TestingTorNetwork"))
			return config_refuse(ctx, "tor.options",
					     "Testing options together with "
					     "TestingTorNetwork 1",
					     "entry %zu is for testing "
					     "networks only",
					     i + 1);
	}
	if (testing && !has_option(cfg, "DirAuthority") &&
	    !(has_option(cfg, "AlternateDirAuthority") &&
	      has_option(cfg, "AlternateBridgeAuthority")))
		return config_refuse(ctx, "tor.options",
				     "TestingTorNetwork 1 together with "
				     "DirAuthority lines",
				     "TestingTorNetwork is set without the "
				     "testing network's directory "
				     "authorities");
	return 0;
}

/* What has a key of its own is not said a second time. */
static int check_twice(const struct config *cfg,
		       const struct config_context *ctx)
{
	const struct {
		const char *option, *key;
		bool set;
	} own[] = {
		{ "ExitNodes", "tor.exit_nodes", cfg->tor.exit_nodes[0] },
		{ "ExcludeNodes", "tor.exclude_nodes",
		  cfg->tor.exclude_nodes[0] },
		{ "ExcludeExitNodes", "tor.exclude_exit_nodes",
		  cfg->tor.exclude_exit_nodes[0] },
		{ "StrictNodes", "tor.strict_nodes", cfg->tor.strict_nodes },
		{ "ConnectionPadding", "tor.connection_padding",
		  cfg->tor.connection_padding != CONFIG_PADDING_AUTO },
		{ "ReducedConnectionPadding", "tor.connection_padding",
		  cfg->tor.connection_padding != CONFIG_PADDING_AUTO },
	};

	for (size_t i = 0; i < cfg->tor.n_options; i++)
		for (size_t k = 0; k < ARRAY_SIZE(own); k++) {
			char allowed[80];

			if (!own[k].set ||
			    !sets_option(cfg->tor.options[i], own[k].option))
				continue;
			snprintf(allowed, sizeof(allowed), "%s here or in %s",
				 own[k].option, own[k].key);
			return config_refuse(ctx, "tor.options", allowed,
					     "entry %zu: %s is given twice",
					     i + 1, own[k].option);
		}
	return 0;
}

/* The firewalls go by the keys, whatever a line for Tor says. */
static int check_families(const struct config *cfg,
			  const struct config_context *ctx)
{
	const struct {
		const char *option, *key;
		bool value;
	} own[] = {
		{ "ClientUseIPv4", "tor.client_use_ipv4",
		  cfg->tor.client_use_ipv4 },
		{ "ClientUseIPv6", "tor.client_use_ipv6",
		  cfg->tor.client_use_ipv6 },
	};

	if (!cfg->tor.client_use_ipv4 && !cfg->tor.client_use_ipv6)
		return config_refuse(ctx, "tor.client_use_ipv4",
				     "true, or tor.client_use_ipv6 true",
				     "leaves Tor no address of a relay");
	for (size_t i = 0; i < cfg->tor.n_options; i++)
		for (size_t k = 0; k < ARRAY_SIZE(own); k++) {
			const char *line = cfg->tor.options[i];

			if (sets_option(line, own[k].option) &&
			    (line[strlen(line) - 1] == '1') != own[k].value)
				return config_refuse(
					ctx, "tor.options", own[k].key,
					"entry %zu: %s has a key of its own",
					i + 1, own[k].option);
		}
	return 0;
}

static int check_tor(const struct config *cfg, const struct config_context *ctx)
{
	size_t total = strlen(cfg->tor.exit_nodes) +
		       strlen(cfg->tor.exclude_nodes) +
		       strlen(cfg->tor.exclude_exit_nodes);
	int r = check_twice(cfg, ctx);

	if (r == 0)
		r = check_families(cfg, ctx);
	if (r < 0)
		return r;
	for (size_t i = 0; i < cfg->tor.n_options; i++)
		total += strlen(cfg->tor.options[i]) + 1;
	for (size_t i = 0; i < cfg->bridge.n_bridges; i++)
		total += strlen(cfg->bridge.bridges[i]) + 1;
	if (total > TORRC_BUDGET)
		return config_refuse(ctx, "tor.options",
				     "48 KiB together with bridge.bridges",
				     "%zu bytes are too long for the machine",
				     total);
	return check_testing(cfg, ctx);
}

static int check_memory(const struct config *cfg,
			const struct config_context *ctx)
{
	bool transport = (cfg->bridge.use_bridges &&
			  cfg->bridge.transport != CONFIG_TRANSPORT_NONE) ||
			 cfg->bridge.automatic;

	if (cfg->vm.memory_mb >= CONFIG_TRANSPORT_MEMORY_MB ||
	    (!transport && cfg->proxy.type != CONFIG_PROXY_HTTPS))
		return 0;
	return config_refuse(
		ctx, "vm.memory_mb",
		"160 or more with a pluggable transport or an https proxy",
		"is %u, too little for %s", cfg->vm.memory_mb,
		transport ? "a pluggable transport" : "an https proxy");
}

/* Whom it all comes down to: too many, or who cannot be reached. */
static int check_uplink(const struct config *cfg,
			const struct config_context *ctx)
{
	struct error e = ERROR_NULL(e);
	struct uplink uplink;

	if (uplink_plan(cfg, &uplink, &e) < 0)
		return config_refuse(
			ctx,
			cfg->proxy.type != CONFIG_PROXY_NONE ? "proxy.address"
							     : "bridge.bridges",
			"up to 96 addresses of other machines, or host names",
			"%s", e.text);
	return 0;
}

int config_check_combinations(const struct config *cfg,
			      const struct config_context *ctx)
{
	int r = check_network(cfg, ctx);

	if (r == 0)
		r = check_bridge(cfg, ctx);
	if (r == 0)
		r = check_proxy(cfg, ctx);
	if (r == 0)
		r = check_tor(cfg, ctx);
	if (r == 0)
		r = check_uplink(cfg, ctx);
	if (r == 0)
		r = check_memory(cfg, ctx);
	if (r < 0)
		return r;
	if (cfg->failsafe.restart_min_delay_s >
	    cfg->failsafe.restart_max_delay_s)
		return config_refuse(ctx, "failsafe.restart_min_delay_s",
				     "at most failsafe.restart_max_delay_s",
				     "is %u, above failsafe."
				     "restart_max_delay_s, which is %u",
				     cfg->failsafe.restart_min_delay_s,
				     cfg->failsafe.restart_max_delay_s);
	return 0;
}
