/*
 * Theory of operation
 *
 * One row per key. A row knows where its value lives in struct config, what is
 * allowed there, its default as text and the manual's sentences. The parser
 * (parse.c), the renderer (render.c) and the manual's key list (doc.c) walk the
 * rows and know no key by name; what spans several keys is in combine.c.
 *
 * A new key is a member in config.h and a row here; tests compare the table
 * with a rendered default configuration.
 */
#include "config/fields.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "config/bridge_line.h"
#include "config/tor_options.h"
#include "config/values.h"

/* Enums are set through an unsigned int. */
_Static_assert(sizeof(enum config_accel) == sizeof(unsigned int), "enum size");
_Static_assert(sizeof(enum config_transport) == sizeof(unsigned int),
	       "enum size");
_Static_assert(sizeof(enum config_proxy) == sizeof(unsigned int), "enum size");
_Static_assert(sizeof(enum config_padding) == sizeof(unsigned int),
	       "enum size");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned int), "enum size");

int config_problem_set(struct config_problem *p, const char *allowed,
		       const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->what, sizeof(p->what), fmt, ap);
	va_end(ap);
	p->allowed = allowed;
	return -EINVAL;
}

static const char *const accel_names[] = {
	[CONFIG_ACCEL_AUTO] = "auto",
	[CONFIG_ACCEL_KVM] = "kvm",
	[CONFIG_ACCEL_TCG] = "tcg",
};
_Static_assert(ARRAY_SIZE(accel_names) == CONFIG_ACCEL_COUNT, "names");

static const char *const transport_names[] = {
	[CONFIG_TRANSPORT_NONE] = "none",
	[CONFIG_TRANSPORT_OBFS4] = "obfs4",
	[CONFIG_TRANSPORT_MEEK_LITE] = "meek",
	[CONFIG_TRANSPORT_SNOWFLAKE] = "snowflake",
	[CONFIG_TRANSPORT_WEBTUNNEL] = "webtunnel",
};
_Static_assert(ARRAY_SIZE(transport_names) == CONFIG_TRANSPORT_COUNT, "names");

static const char *const padding_names[] = {
	[CONFIG_PADDING_AUTO] = "auto",
	[CONFIG_PADDING_ON] = "on",
	[CONFIG_PADDING_OFF] = "off",
	[CONFIG_PADDING_REDUCED] = "reduced",
};
_Static_assert(ARRAY_SIZE(padding_names) == CONFIG_PADDING_COUNT, "names");

static const char *const proxy_names[] = {
	[CONFIG_PROXY_NONE] = "none",
	[CONFIG_PROXY_HTTP] = "http",
	[CONFIG_PROXY_HTTPS] = "https",
	[CONFIG_PROXY_SOCKS5] = "socks5",
};
_Static_assert(ARRAY_SIZE(proxy_names) == CONFIG_PROXY_COUNT, "names");

static const char *name_of(const char *const names[], size_t n,
			   unsigned int value)
{
	return value < n ? names[value] : NULL;
}

static int from_name(const char *const names[], size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return (int)i;
	return -EINVAL;
}

static const char *accel_value(unsigned int value)
{
	return name_of(accel_names, ARRAY_SIZE(accel_names), value);
}

const char *config_accel_name(enum config_accel accel)
{
	return accel_value(accel);
}

int config_accel_from_name(const char *name)
{
	return from_name(accel_names, ARRAY_SIZE(accel_names), name);
}

static const char *transport_value(unsigned int value)
{
	return name_of(transport_names, ARRAY_SIZE(transport_names), value);
}

const char *config_transport_name(enum config_transport transport)
{
	return transport_value(transport);
}

const char *config_transport_method(enum config_transport transport)
{
	return transport == CONFIG_TRANSPORT_MEEK_LITE
		       ? "meek_lite"
		       : transport_value(transport);
}

static int transport_from_name(const char *name)
{
	/* What Tor Browser and the bridge lines themselves call it. */
	if (!strcmp(name, "meek-azure") || !strcmp(name, "meek_lite"))
		return CONFIG_TRANSPORT_MEEK_LITE;
	return from_name(transport_names, ARRAY_SIZE(transport_names), name);
}

static const char *proxy_value(unsigned int value)
{
	return name_of(proxy_names, ARRAY_SIZE(proxy_names), value);
}

const char *config_proxy_name(enum config_proxy proxy)
{
	return proxy_value(proxy);
}

static int proxy_from_name(const char *name)
{
	return from_name(proxy_names, ARRAY_SIZE(proxy_names), name);
}

static const char *padding_value(unsigned int value)
{
	return name_of(padding_names, ARRAY_SIZE(padding_names), value);
}

const char *config_padding_name(enum config_padding padding)
{
	return padding_value(padding);
}

static int padding_from_name(const char *name)
{
	return from_name(padding_names, ARRAY_SIZE(padding_names), name);
}

static const char *level_value(unsigned int value)
{
	return value < LOG_LEVEL_COUNT ? log_level_name(value) : NULL;
}

#define PATH_MAX_BYTES 1024
#define ALLOWED_PATH "an absolute path, or \"\""

#define ALLOWED_NODES                                                       \
	"relays' fingerprints, address ranges and countries, separated by " \
	"commas, such as 192.0.2.0/24 or {de}"

#define AT(section_, member)                   \
	.section = #section_, .name = #member, \
	.offset = offsetof(struct config, section_.member)

const struct config_field config_fields[] = {
	{
		AT(vm, memory_mb),
		.type = CONFIG_TYPE_UINT,
		.min = 128,
		.max = 4096,
		.def = "160",
		.doc = "Memory of the virtual machine, in MiB. A pluggable "
		       "transport needs 160.",
	},
	{
		AT(vm, cpus),
		.type = CONFIG_TYPE_UINT,
		.min = 1,
		.max = 16,
		.def = "1",
		.doc = "Virtual processors.",
	},
	{
		AT(vm, accel),
		.type = CONFIG_TYPE_ENUM,
		.value_name = accel_value,
		.value_from_name = config_accel_from_name,
		.def = "auto",
		.doc = "How the machine is run: kvm needs a working /dev/kvm, "
		       "tcg works everywhere and is slower, auto takes kvm if "
		       "a guest proves to boot with it, else tcg.",
	},
	{
		AT(vm, qemu_path),
		.ascii = true,
		.type = CONFIG_TYPE_STRING,
		.max = PATH_MAX_BYTES,
		.check = config_check_path,
		.def = "",
		.allowed = "an absolute path without symbolic links to QEMU's "
			   "program, or \"\"",
		.doc = "QEMU's program. Empty: the one of this machine's "
		       "architecture in /usr/bin.",
	},
	{
		AT(vm, image_dir),
		.type = CONFIG_TYPE_STRING,
		.max = PATH_MAX_BYTES,
		.check = config_check_path,
		.def = "",
		.allowed = ALLOWED_PATH,
		.doc = "Folder of the virtual machine's image. Empty: the one "
		       "that was built or installed together with TorVM.",
	},
	{
		AT(vm, state_disk),
		.type = CONFIG_TYPE_STRING,
		.max = PATH_MAX_BYTES,
		.check = config_check_path,
		.def = "",
		.allowed = ALLOWED_PATH,
		.doc = "File that keeps Tor's state (guards, consensus) between "
		       "starts. Empty: state.img in the state directory.",
	},
	{
		AT(network, tap_name),
		.type = CONFIG_TYPE_STRING,
		.max = 15,
		.check = config_check_interface,
		.def = "torvm0",
		.allowed =
			"1 to 15 letters, digits, '_', '-' or '.', beginning "
			"with a letter",
		.doc = "Name of the network interface that TorVM makes.",
	},
	{
		AT(network, host_ip),
		.type = CONFIG_TYPE_ADDR,
		.def = "10.10.10.2",
		.allowed = "the other usable address of network.vm_ip's /30, "
			   "in 10/8, 172.16/12 or 192.168/16",
		.doc = "The host's address on that interface.",
	},
	{
		AT(network, vm_ip),
		.type = CONFIG_TYPE_ADDR,
		.def = "10.10.10.1",
		.allowed = "the other usable address of network.host_ip's /30, "
			   "in 10/8, 172.16/12 or 192.168/16",
		.doc = "The virtual machine's address on that interface.",
	},
	{
		AT(network, lan_access),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether private addresses (10/8, 172.16/12, 192.168/16, "
		       "169.254/16, fc00::/7, fe80::/10) on directly connected "
		       "links stay reachable without Tor, and are answered: "
		       "printers, storage, SSH from the LAN. Name servers, "
		       "multicast and public addresses never are. Not under "
		       "lockdown.",
	},
	{
		AT(network, ipv6),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether programs may connect to IPv6 destinations "
		       "through Tor. This version cannot do it and refuses "
		       "true. How Tor reaches its relays: "
		       "tor.client_use_ipv6.",
	},
	{
		AT(bridge, use_bridges),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether Tor is entered by the bridges of "
		       "bridge.bridges only.",
	},
	{
		AT(bridge, transport),
		.type = CONFIG_TYPE_ENUM,
		.value_name = transport_value,
		.value_from_name = transport_from_name,
		.def = "none",
		.doc = "Pluggable transport that disguises the connection to the "
		       "bridges. meek may also be written meek-azure or "
		       "meek_lite.",
	},
	{
		AT(bridge, bridges),
		.type = CONFIG_TYPE_LIST,
		.count_offset = offsetof(struct config, bridge.n_bridges),
		.max = 64,
		.ascii = true,
		.secret = true,
		.check = config_check_bridge_line,
		.def = "",
		.allowed = "bridge lines as they are handed out",
		.doc = "Bridge lines: [TRANSPORT] ADDRESS:PORT [FINGERPRINT] "
		       "[NAME=VALUE ...]. Those of bridge.transport are used, "
		       "others are kept. Treated as secrets. \"torvm "
		       "bridges\" edits them.",
	},
	{
		AT(bridge, automatic),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether obfs4, snowflake and meek are tried in turn "
		       "when Tor does not connect for "
		       "failsafe.bootstrap_stall_s: by the lines of "
		       "bridge.bridges that are of that kind, or by the "
		       "built-in bridges where there are none. What is "
		       "configured is tried first; with use_bridges, Tor is "
		       "never entered directly.",
	},
	{
		AT(bridge, addresses),
		.type = CONFIG_TYPE_LIST,
		.count_offset = offsetof(struct config, bridge.n_addresses),
		.max = 64,
		.ascii = true,
		.check = config_check_pinned_address,
		.def = "",
		.allowed =
			"\"NAME=ADDRESS\" with a host name and an IPv4 or IPv6 "
			"address",
		.doc = "Addresses of host names that a transport or the proxy "
		       "connects to, \"NAME=ADDRESS\". Such a name is not "
		       "looked up; the others are, by this computer's own "
		       "resolvers.",
	},
	{
		AT(bridge, moat),
		.type = CONFIG_TYPE_STRING,
		.max = CONFIG_BRIDGE_LINE_MAX,
		.ascii = true,
		.check = config_check_moat,
		.def = "",
		.allowed = "the arguments of a meek bridge line, such as "
			   "\"url=https://HOST/ front=HOST\"",
		.doc = "How \"torvm bridges request\" reaches the bridge service "
		       "while Tor is not connected: by meek, with these "
		       "arguments. Empty: with those of Tor Browser.",
	},
	{
		AT(bridge, ca_file),
		.type = CONFIG_TYPE_STRING,
		.max = PATH_MAX_BYTES,
		.check = config_check_path,
		.def = "",
		.allowed = ALLOWED_PATH,
		.doc = "PEM file of certificate authorities that meek, "
		       "snowflake and webtunnel trust besides the public ones: "
		       "for networks whose proxy looks into TLS. Everybody "
		       "must be able to read it.",
	},
	{
		AT(proxy, type),
		.type = CONFIG_TYPE_ENUM,
		.value_name = proxy_value,
		.value_from_name = proxy_from_name,
		.def = "none",
		.doc = "Proxy through which Tor and the transports reach the "
		       "Internet: an HTTP proxy with CONNECT or a SOCKS5 one. "
		       "https is an HTTP proxy that is itself spoken to by "
		       "TLS, so that the network sees neither the password "
		       "nor whom is asked for. With http and socks5 it does.",
	},
	{
		AT(proxy, address),
		.type = CONFIG_TYPE_STRING,
		.max = 280,
		.ascii = true,
		.check = config_check_proxy_address,
		.def = "",
		.allowed = "HOST:PORT, with HOST a name, an IPv4 address or an "
			   "[IPv6 address] of another machine",
		.doc = "Where the proxy is, HOST:PORT.",
	},
	{
		AT(proxy, username),
		.type = CONFIG_TYPE_STRING,
		.max = 510,
		.ascii = true,
		.def = "",
		.allowed = "printable ASCII, at most 255 bytes for socks5",
		.doc = "User name for the proxy.",
	},
	{
		AT(proxy, password),
		.type = CONFIG_TYPE_STRING,
		.max = 510,
		.ascii = true,
		.secret = true,
		.def = "",
		.allowed = "printable ASCII, at most 255 bytes for socks5",
		.doc = "Password for the proxy. A secret.",
	},
	{
		AT(proxy, ca_file),
		.type = CONFIG_TYPE_STRING,
		.max = PATH_MAX_BYTES,
		.check = config_check_path,
		.def = "",
		.allowed = ALLOWED_PATH,
		.doc = "For an https proxy: PEM file of the certificate "
		       "authorities that may vouch for it, instead of the "
		       "public ones. The certificate must be made out to the "
		       "name, or else the address, in proxy.address. Everybody "
		       "must be able to read the file.",
	},
	{
		AT(tor, exit_nodes),
		.type = CONFIG_TYPE_STRING,
		.max = 900,
		.ascii = true,
		.check = config_check_node_list,
		.def = "",
		.allowed = ALLOWED_NODES,
		.doc = "Relays that may be exits, as Tor's ExitNodes; {de}: "
		       "those in Germany. Fewer exits make a user easier to "
		       "tell apart.",
	},
	{
		AT(tor, exclude_nodes),
		.type = CONFIG_TYPE_STRING,
		.max = 900,
		.ascii = true,
		.check = config_check_node_list,
		.def = "",
		.allowed = ALLOWED_NODES,
		.doc = "Relays that are avoided, as Tor's ExcludeNodes. Where "
		       "a country is named, so are relays whose country is "
		       "not known, {??}.",
	},
	{
		AT(tor, exclude_exit_nodes),
		.type = CONFIG_TYPE_STRING,
		.max = 900,
		.ascii = true,
		.check = config_check_node_list,
		.def = "",
		.allowed = ALLOWED_NODES,
		.doc = "Relays that are not taken as exits, as Tor's "
		       "ExcludeExitNodes.",
	},
	{
		AT(tor, strict_nodes),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether tor.exclude_nodes holds even where Tor then "
		       "cannot do what is asked for, as Tor's StrictNodes. "
		       "Otherwise an excluded relay is used where nothing else "
		       "works, for onion services for instance.",
	},
	{
		AT(tor, geoip),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether \"torvm circuits\" shows the country of each "
		       "relay. On by itself where a country is named. The "
		       "machine then gets 32 MiB more than vm.memory_mb.",
	},
	{
		AT(tor, connection_padding),
		.type = CONFIG_TYPE_ENUM,
		.value_name = padding_value,
		.value_from_name = padding_from_name,
		.def = "auto",
		.doc = "Padding on the connection to the guard, against those "
		       "who watch it: on sends it always, auto as the relay "
		       "asks for it, reduced less of it, off none. It costs "
		       "little; off and reduced are for links that are paid "
		       "for by the byte.",
	},
	{
		AT(tor, client_use_ipv4),
		.type = CONFIG_TYPE_BOOL,
		.def = "true",
		.doc = "Whether Tor reaches its relays by IPv4, as Tor's "
		       "ClientUseIPv4. false is for networks with IPv6 only, "
		       "together with tor.client_use_ipv6: Tor would go on "
		       "trying IPv4 there. A pluggable transport does not look "
		       "at it.",
	},
	{
		AT(tor, client_use_ipv6),
		.type = CONFIG_TYPE_BOOL,
		.def = "false",
		.doc = "Whether Tor may reach its relays by IPv6, too, as "
		       "Tor's ClientUseIPv6, and names of bridges and proxies "
		       "are looked up for IPv6 addresses. Beside IPv4 Tor "
		       "prefers IPv4; ClientPreferIPv6ORPort 1 in "
		       "tor.options turns that round. A bridge or proxy that "
		       "is given by an IPv6 address is reached in any case. "
		       "IPv6 of programs is refused either way.",
	},
	{
		AT(tor, options),
		.type = CONFIG_TYPE_LIST,
		.count_offset = offsetof(struct config, tor.n_options),
		.max = 128,
		.ascii = true,
		.check = config_check_tor_option,
		.def = "",
		.allowed = "\"NAME VALUE\" with a NAME listed in "
			   "torvm.json(5)",
		.doc = "Further lines for Tor's own configuration, \"NAME "
		       "VALUE\". Only options that open no port, run no "
		       "program and name no file are accepted; see below.",
	},
	{
		AT(failsafe, restart_min_delay_s),
		.type = CONFIG_TYPE_UINT,
		.min = 1,
		.max = 60,
		.def = "1",
		.doc = "Seconds before the machine is started again after a "
		       "failure. Traffic stays blocked meanwhile.",
	},
	{
		AT(failsafe, restart_max_delay_s),
		.type = CONFIG_TYPE_UINT,
		.min = 1,
		.max = 3600,
		.def = "60",
		.doc = "The pause doubles with every further failure, up to "
		       "this many seconds.",
	},
	{
		AT(failsafe, boot_timeout_s),
		.type = CONFIG_TYPE_UINT,
		.min = 5,
		.max = 600,
		.def = "60",
		.doc = "Seconds the machine may take to boot; each machine "
		       "given up gives the next one twice as long, up to 8 "
		       "times.",
	},
	{
		AT(failsafe, bootstrap_stall_s),
		.type = CONFIG_TYPE_UINT,
		.min = 10,
		.max = 3600,
		.def = "60",
		.doc = "Seconds without progress after which the status says "
		       "where Tor is stuck and why. Tor keeps trying.",
	},
	{
		AT(failsafe, shutdown_timeout_s),
		.type = CONFIG_TYPE_UINT,
		.min = 1,
		.max = 120,
		.def = "10",
		.doc = "Seconds the machine may take to power off before it is "
		       "ended.",
	},
	{
		AT(failsafe, heartbeat_timeout_s),
		.type = CONFIG_TYPE_UINT,
		.min = 5,
		.max = 600,
		.def = "60",
		.doc = "Seconds without a sign of life after which the machine "
		       "is started again.",
	},
	{
		AT(log, level),
		.type = CONFIG_TYPE_ENUM,
		.value_name = level_value,
		.value_from_name = log_level_from_name,
		.def = "info",
		.doc = "How much is logged.",
	},
	{
		AT(log, file),
		.type = CONFIG_TYPE_STRING,
		.max = PATH_MAX_BYTES,
		.check = config_check_path,
		.def = "",
		.allowed = ALLOWED_PATH,
		.doc = "File that gets the log besides standard error. Empty: "
		       "none.",
	},
};
const size_t config_n_fields = ARRAY_SIZE(config_fields);

static int default_enum(const struct config_field *field)
{
	int value = field->value_from_name(field->def);

	return value < 0 ? 0 : value; /* a test checks each default */
}

int config_field_set_default(struct config *cfg,
			     const struct config_field *field)
{
	void *at = config_field_at(cfg, field);
	struct in_addr addr = { 0 };
	char *text;

	switch (field->type) {
	case CONFIG_TYPE_BOOL: *(bool *)at = !strcmp(field->def, "true"); break;
	case CONFIG_TYPE_UINT:
		*(uint32_t *)at = (uint32_t)strtoul(field->def, NULL, 10);
		break;
	case CONFIG_TYPE_ENUM:
		*(unsigned int *)at = (unsigned int)default_enum(field);
		break;
	case CONFIG_TYPE_ADDR:
		inet_pton(AF_INET, field->def, &addr);
		*(struct in_addr *)at = addr;
		break;
	case CONFIG_TYPE_STRING:
		text = strdup(field->def);
		if (!text)
			return -ENOMEM;
		config_field_clear(cfg, field);
		*(char **)at = text;
		break;
	case CONFIG_TYPE_LIST:
	case CONFIG_TYPE_COUNT: break;
	}
	return 0;
}

void config_field_clear(struct config *cfg, const struct config_field *field)
{
	void *at = config_field_at(cfg, field);

	if (field->type == CONFIG_TYPE_STRING) {
		free(*(char **)at);
		*(char **)at = NULL;
	} else if (field->type == CONFIG_TYPE_LIST) {
		size_t *n = (void *)((char *)cfg + field->count_offset);
		char **list = *(char ***)at;

		while (*n > 0)
			free(list[--*n]);
		free(list);
		*(char ***)at = NULL;
	}
}

static void allowed_names(const struct config_field *field, char *buf,
			  size_t size)
{
	size_t used = 0;

	buf[0] = '\0';
	for (unsigned int i = 0; field->value_name(i) && used < size; i++) {
		int n = snprintf(buf + used, size - used, "%s\"%s\"",
				 i ? ", " : "", field->value_name(i));

		used += n > 0 ? (size_t)n : 0;
	}
}

void config_field_allowed(const struct config_field *field, char *buf,
			  size_t size)
{
	switch (field->type) {
	case CONFIG_TYPE_BOOL: snprintf(buf, size, "true or false"); break;
	case CONFIG_TYPE_UINT:
		snprintf(buf, size, "a whole number from %u to %u", field->min,
			 field->max);
		break;
	case CONFIG_TYPE_ENUM: allowed_names(field, buf, size); break;
	case CONFIG_TYPE_ADDR:
	case CONFIG_TYPE_STRING:
		snprintf(buf, size, "%s", field->allowed);
		break;
	case CONFIG_TYPE_LIST:
		snprintf(buf, size, "up to %u strings: %s", field->max,
			 field->allowed);
		break;
	case CONFIG_TYPE_COUNT: break;
	}
}
