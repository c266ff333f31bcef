/*
 * Theory of operation: fixed lines first, then what the configuration adds. Of
 * two equal options Tor takes the last, so tor.options may change a preference
 * such as AvoidDiskWrites; the lines that the guest relies on (init/contract.h)
 * are neither in its allow-list nor accepted twice by the guest.
 *
 * A torrc is a line format with three traps, closed here for every value
 * whatever the configuration's own checks did: a line break starts a new
 * option, a trailing backslash swallows the next line, and '#' starts a
 * comment. Values that people type go in as quoted strings where Tor takes
 * them, else such values are refused.
 */
#include "tor/torrc.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "config/bridge_line.h"
#include "config/countries.h"
#include "init/contract.h"
#include "proto/buffer.h"

/* TransPort has no IsolateDestAddr: a circuit per destination would load the
 * network and slow every page down; who wants it uses SOCKS with credentials
 * (IsolateSOCKSAuth is Tor's default). */
static const char fixed[] =
	"ClientOnly 1\n"
	"ControlSocket " GUEST_TORRC_CONTROL_SOCKET "\n"
	"Log " GUEST_TORRC_LOG "\n"
	"SafeLogging 1\n"
	"AvoidDiskWrites 1\n"
	"AutomapHostsOnResolve 1\n"
	"VirtualAddrNetworkIPv4 10.192.0.0/10\n"
	/* A host that was idle for a day must not wait for a wake-up. */
	"DormantTimeoutEnabled 0\n";

static int bad_value(struct error *e, const char *what)
{
	return error_set(e, -EINVAL,
			 "%s holds a character other than printable ASCII, "
			 "or ends in a backslash: a torrc cannot carry it",
			 what);
}

static bool is_clean(const char *value)
{
	for (const char *p = value; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return false;
	return true;
}

/* @value is never shown in messages: it may be a secret. */
static int add_raw(struct buffer *out, const char *name, const char *value,
		   const char *what, struct error *e)
{
	size_t len = strlen(value);

	if (!is_clean(value) || (len > 0 && value[len - 1] == '\\'))
		return bad_value(e, what);
	return buffer_printf(out, "%s%s%s\n", name, *name ? " " : "", value);
}

static int add_plain(struct buffer *out, const char *name, const char *value,
		     const char *what, struct error *e)
{
	if (strchr(value, '#'))
		return error_set(e, -EINVAL, "%s must not hold '#'", what);
	return add_raw(out, name, value, what, e);
}

static int add_quoted(struct buffer *out, const char *name, const char *value,
		      const char *what, struct error *e)
{
	int r;

	r = buffer_printf(out, "%s \"", name);
	for (const char *p = value; *p && r == 0; p++) {
		unsigned char c = (unsigned char)*p;

		if (c < 0x20 || c == 0x7f)
			return bad_value(e, what);
		/* The guest takes ASCII only; Tor reads C's escapes. */
		r = buffer_printf(out,
				  c > 0x7f                ? "\\x%02x"
				  : c == '"' || c == '\\' ? "\\%c"
							  : "%c",
				  c);
	}
	return r < 0 ? r : buffer_append_string(out, "\"\n");
}

const char *torrc_transport(const struct config *cfg)
{
	return cfg->bridge.use_bridges &&
			       cfg->bridge.transport != CONFIG_TRANSPORT_NONE
		       ? config_transport_method(cfg->bridge.transport)
		       : NULL;
}

static int add_proxy(struct buffer *out, const struct config *cfg,
		     struct error *e)
{
	_cleanup_free_ char *login = NULL;
	int r;

	/* The transport goes through it, and Tor goes nowhere. */
	if (torrc_transport(cfg))
		return 0;
	switch (cfg->proxy.type) {
	case CONFIG_PROXY_NONE: return 0;
	case CONFIG_PROXY_HTTP:
	case CONFIG_PROXY_HTTPS:
		/* CONNECT carries circuits; Tor's HTTPProxy does not. It has
		 * no TLS: the guest's client has. */
		r = add_plain(out, "HTTPSProxy",
			      cfg->proxy.type == CONFIG_PROXY_HTTPS
				      ? GUEST_TLS_ADDRESS
				      : cfg->proxy.address,
			      "proxy.address", e);
		if (r < 0 || !*cfg->proxy.username)
			return r;
		if (asprintf(&login, "%s:%s", cfg->proxy.username,
			     cfg->proxy.password) < 0)
			return -ENOMEM;
		return add_quoted(out, "HTTPSProxyAuthenticator", login,
				  "proxy.username or proxy.password", e);
	case CONFIG_PROXY_SOCKS5:
		r = add_plain(out, "Socks5Proxy", cfg->proxy.address,
			      "proxy.address", e);
		if (r < 0 || !*cfg->proxy.username)
			return r;
		r = add_quoted(out, "Socks5ProxyUsername", cfg->proxy.username,
			       "proxy.username", e);
		return r < 0 ? r
			     : add_quoted(out, "Socks5ProxyPassword",
					  cfg->proxy.password, "proxy.password",
					  e);
	case CONFIG_PROXY_COUNT: break;
	}
	return -EINVAL;
}

static int add_bridges(struct buffer *out, const struct config *cfg,
		       struct error *e)
{
	int r;

	if (!cfg->bridge.use_bridges)
		return 0;
	/* The guest adds ClientTransportPlugin once the transport listens. */
	r = buffer_append_string(out, "UseBridges 1\n");
	for (size_t i = 0; i < cfg->bridge.n_bridges && r == 0; i++)
		if (config_bridge_line_transport(cfg->bridge.bridges[i]) ==
		    cfg->bridge.transport)
			r = add_plain(out, "Bridge", cfg->bridge.bridges[i],
				      "a line of bridge.bridges", e);
	return r;
}

static int add_nodes(struct buffer *out, const struct config *cfg,
		     struct error *e)
{
	const struct {
		const char *option, *value, *what;
	} lists[] = {
		{ "ExitNodes", cfg->tor.exit_nodes, "tor.exit_nodes" },
		{ "ExcludeNodes", cfg->tor.exclude_nodes, "tor.exclude_nodes" },
		{ "ExcludeExitNodes", cfg->tor.exclude_exit_nodes,
		  "tor.exclude_exit_nodes" },
	};
	int r = 0;

	if (config_needs_geoip(cfg))
		r = buffer_append_string(out,
					 "GeoIPFile " GUEST_TORRC_GEOIP "\n");
	for (size_t i = 0; i < ARRAY_SIZE(lists) && r == 0; i++)
		if (lists[i].value[0])
			r = add_plain(out, lists[i].option, lists[i].value,
				      lists[i].what, e);
	if (r == 0 && cfg->tor.strict_nodes)
		r = buffer_append_string(out, "StrictNodes 1\n");
	return r;
}

static int add_padding(struct buffer *out, const struct config *cfg)
{
	switch (cfg->tor.connection_padding) {
	case CONFIG_PADDING_ON:
		return buffer_append_string(out, "ConnectionPadding 1\n");
	case CONFIG_PADDING_OFF:
		return buffer_append_string(out, "ConnectionPadding 0\n");
	case CONFIG_PADDING_REDUCED:
		return buffer_append_string(out,
					    "ReducedConnectionPadding 1\n");
	case CONFIG_PADDING_AUTO:
	case CONFIG_PADDING_COUNT: break;
	}
	return 0;
}

/* Both said: Tor's own default is to use IPv6. A transport's bridges have
 * addresses that stand for nothing, of either family. */
static int add_families(struct buffer *out, const struct config *cfg)
{
	return buffer_printf(out,
			     "ClientUseIPv4 %d\n"
			     "ClientUseIPv6 %d\n",
			     cfg->tor.client_use_ipv4 ||
				     torrc_transport(cfg) != NULL,
			     cfg->tor.client_use_ipv6);
}

static int add_options(struct buffer *out, const struct config *cfg,
		       struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < cfg->tor.n_options && r == 0; i++) {
		const char *line = cfg->tor.options[i];

		/* Neither "%include" nor "+Option" nor "/Option". */
		if (!isalpha((unsigned char)*line))
			return error_set(e, -EINVAL,
					 "tor.options: a line must begin with "
					 "an option's name");
		r = add_raw(out, "", line, "a line of tor.options", e);
	}
	return r;
}

/* The guest refuses what is longer; say it before a VM is started. */
static int check_size(const char *text, struct error *e)
{
	if (strlen(text) > GUEST_FILE_MAX)
		return error_set(e, -E2BIG,
				 "the torrc would be over %d KiB: fewer lines "
				 "in tor.options or bridge.bridges",
				 GUEST_FILE_MAX / 1024);
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
		if (strcspn(p, "\n") + 1 > GUEST_LINE_MAX)
			return error_set(e, -E2BIG,
					 "a line of the torrc would be over %d "
					 "bytes",
					 GUEST_LINE_MAX);
	return 0;
}

static int add_ports(struct buffer *out, const struct config *cfg)
{
	char ip[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &cfg->network.vm_ip, ip, sizeof(ip));
	return buffer_printf(out,
			     "TransPort %s" GUEST_TORRC_TRANS_PORT "\n"
			     "DNSPort %s" GUEST_TORRC_DNS_PORT "\n"
			     "SocksPort %s" GUEST_TORRC_SOCKS_PORT "\n",
			     ip, ip, ip);
}

static int render(struct buffer *out, const struct config *cfg, bool state_disk,
		  struct error *e)
{
	int r;

	r = buffer_printf(out, "%sDataDirectory %s\n", fixed,
			  state_disk ? GUEST_TORRC_DATA_DISK
				     : GUEST_TORRC_DATA_RAM);
	if (r == 0)
		r = add_ports(out, cfg);
	if (r == 0)
		/* Tor rejects it beside a managed pluggable transport. */
		r = buffer_append_string(out, "Sandbox 1\n");
	if (r == 0)
		r = add_nodes(out, cfg, e);
	if (r == 0)
		r = add_padding(out, cfg);
	if (r == 0)
		r = add_families(out, cfg);
	if (r == 0)
		r = add_proxy(out, cfg, e);
	if (r == 0)
		r = add_bridges(out, cfg, e);
	if (r == 0)
		r = add_options(out, cfg, e);
	return r < 0 ? r : buffer_append(out, "", 1);
}

int torrc_render(const struct config *cfg, bool state_disk, char **ret,
		 struct error *e)
{
	struct buffer out = BUFFER_NULL(out);
	const char *text;
	size_t len;
	int r;

	r = render(&out, cfg, state_disk, e);
	if (r == 0) {
		text = buffer_peek(&out, &len);
		r = check_size(text, e);
	}
	if (r == 0) {
		*ret = strdup(text);
		r = *ret ? 0 : -ENOMEM;
	}
	if (r == -ENOMEM)
		error_set(e, r, "out of memory");
	buffer_deinit(&out);
	return r;
}
