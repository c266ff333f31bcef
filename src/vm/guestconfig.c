#include "vm/guestconfig.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ip.h"
#include "config/bridge_line.h"
#include "init/contract.h"
#include "proto/buffer.h"

_Static_assert(GUESTCONFIG_MOAT_PORT == GUEST_MOAT_PORT, "moat's port");

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_UDP ? "udp" : "tcp";
}

static int add_any(struct buffer *out, const struct uplink *u)
{
	const struct {
		const char *word;
		bool is;
	} any[] = {
		{ "tcp", u->any_tcp },
		{ "udp", u->any_udp },
		{ "tcp6", u->any_tcp6 },
		{ "udp6", u->any_udp6 },
	};
	bool some = false;
	int r = buffer_append_string(out, "uplink=");

	for (size_t i = 0; i < ARRAY_SIZE(any) && r == 0; i++)
		if (any[i].is) {
			r = buffer_printf(out, "%s%s", some ? " " : "",
					  any[i].word);
			some = true;
		}
	return r < 0 ? r : buffer_append_string(out, some ? "\n" : "none\n");
}

static int add_uplink(struct buffer *out, const struct uplink *u)
{
	char ip[IP_TEXT_MAX];
	int r = add_any(out, u);

	/* Without the key there is none: nothing changes for most. */
	if (r == 0 && u->ipv6)
		r = buffer_append_string(out, "ipv6=1\n");
	for (size_t i = 0; i < u->n && r == 0; i++) {
		const struct uplink_target *t = &u->targets[i];
		const char *protocol = protocol_name(t->protocol);

		ip_format(&t->address, ip);
		if (!t->known)
			r = buffer_printf(out, "name=%s %s %u\n", protocol,
					  t->host, t->port);
		else
			r = buffer_printf(out, "peer=%s %s %u\n", protocol, ip,
					  t->port);
		if (r == 0 && t->known && t->host[0])
			r = buffer_printf(out, "host=%s %s\n", t->host, ip);
	}
	return r;
}

/* As in a URI (RFC 3986): everything but unreserved characters is encoded. */
static int add_encoded(struct buffer *out, const char *text)
{
	int r = 0;

	for (const char *c = text; *c && r == 0; c++)
		r = buffer_printf(out,
				  isalnum((unsigned char)*c) ||
						  strchr("-._~", *c)
					  ? "%c"
					  : "%%%02X",
				  (unsigned char)*c);
	return r;
}

/* HOST and PORT of "HOST:PORT", an IPv6 address without its brackets. Return:
 * the port */
static const char *split(const char *address, const char **ret_host,
			 size_t *ret_len)
{
	const char *colon = strrchr(address, ':');
	size_t len = (size_t)(colon - address);
	bool brackets = address[0] == '[';

	*ret_host = address + brackets;
	*ret_len = len - (brackets ? 2 : 0);
	return colon + 1;
}

static int add_tls_proxy(struct buffer *out, const struct config *cfg)
{
	size_t len;
	const char *host, *port = split(cfg->proxy.address, &host, &len);

	return buffer_printf(out, "tls_proxy=%.*s %s %s\n", (int)len, host,
			     port, cfg->proxy.ca_file[0] ? "own" : "public");
}

/* Of the transport; Tor's stands in the torrc. */
static int add_proxy(struct buffer *out, const struct config *cfg)
{
	const char *host, *port;
	size_t len;
	int r;

	if (cfg->proxy.type == CONFIG_PROXY_NONE)
		return 0;
	port = split(cfg->proxy.type == CONFIG_PROXY_HTTPS ? GUEST_TLS_ADDRESS
							   : cfg->proxy.address,
		     &host, &len);
	r = buffer_printf(out, "proxy=%s %.*s %s",
			  cfg->proxy.type == CONFIG_PROXY_SOCKS5 ? "socks5"
								 : "http",
			  (int)len, host, port);
	if (r == 0 && cfg->proxy.username[0]) {
		r = buffer_append_string(out, " ");
		if (r == 0)
			r = add_encoded(out, cfg->proxy.username);
		if (r == 0)
			r = buffer_append_string(out, ":");
		if (r == 0)
			r = add_encoded(out, cfg->proxy.password);
	}
	return r < 0 ? r : buffer_append_string(out, "\n");
}

/* A bridge line's arguments as Tor hands them to a transport. */
static int add_moat(struct buffer *out, const char *line)
{
	struct config_bridge b = CONFIG_BRIDGE_NULL(b);
	struct config_problem p;
	int r = config_bridge_parse(line, &b, &p);

	if (r == 0)
		r = buffer_append_string(out, "moat=");
	for (size_t i = 0; i < b.n_args && r == 0; i++) {
		r = buffer_printf(out, "%s%s=", i > 0 ? ";" : "",
				  b.args[i].name);
		for (const char *c = b.args[i].value; *c && r == 0; c++)
			r = buffer_printf(out, "%s%c",
					  *c == ';' || *c == '\\' ? "\\" : "",
					  *c);
	}
	config_bridge_deinit(&b);
	return r < 0 ? r : buffer_append_string(out, "\n");
}

static int render(struct buffer *out, const struct guestconfig *g)
{
	char host_ip[INET_ADDRSTRLEN], vm_ip[INET_ADDRSTRLEN];
	const uint8_t *mac = g->host_mac;
	int r;

	inet_ntop(AF_INET, &g->host_ip, host_ip, sizeof(host_ip));
	inet_ntop(AF_INET, &g->vm_ip, vm_ip, sizeof(vm_ip));
	r = buffer_printf(out,
			  "version=%d\n"
			  "time=%" PRId64 "\n"
			  "state_disk=%d\n"
			  "host_ip=%s\n"
			  "vm_ip=%s\n"
			  "host_mac=%02x:%02x:%02x:%02x:%02x:%02x\n",
			  GUEST_CONFIG_VERSION, (int64_t)g->time, g->state_disk,
			  host_ip, vm_ip, mac[0], mac[1], mac[2], mac[3],
			  mac[4], mac[5]);
	if (r == 0)
		r = add_uplink(out, g->uplink);
	for (size_t i = 0; i < g->n_resolvers && r == 0; i++) {
		char ip[IP_TEXT_MAX];

		r = buffer_printf(out, "resolver=%s\n",
				  ip_format(&g->resolvers[i], ip));
	}
	if (r == 0 && g->config->proxy.type == CONFIG_PROXY_HTTPS)
		r = add_tls_proxy(out, g->config);
	if (r == 0 && g->transport) {
		r = buffer_printf(out, "transport=%s\n", g->transport);
		if (r == 0)
			r = add_proxy(out, g->config);
	}
	if (r == 0 && g->moat)
		r = add_moat(out, g->config->bridge.bridges[0]);
	return r < 0 ? r : buffer_append(out, "", 1);
}

int guestconfig_render(const struct guestconfig *g, char **ret, struct error *e)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);
	size_t len;
	int r = render(&out, g);

	if (r == 0) {
		*ret = strdup(buffer_peek(&out, &len));
		r = *ret ? 0 : -ENOMEM;
	}
	return r < 0 ? error_set(e, r, "out of memory") : 0;
}

int guestconfig_memfd(const char *name, const char *text, struct error *e)
{
	_cleanup_close_ int fd = -1;
	size_t len = strlen(text);
	ssize_t n;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_set(e, -errno, "memfd_create: %s",
				 strerror(errno));
	n = write(fd, text, len);
	if (n < 0)
		return error_set(e, -errno, "%s: %s", name, strerror(errno));
	if ((size_t)n != len)
		return error_set(e, -EIO, "%s: short write", name);
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return error_set(e, -errno, "%s: cannot be sealed: %s", name,
				 strerror(errno));
	return steal_fd(&fd);
}
