/*
 * Theory of operation
 *
 * The configuration comes from our own controller, but through a channel whose
 * other end may be of another version, or broken: so the parser accepts exactly
 * what the protocol page says and refuses the rest. A guest that guesses could
 * come up with an address or a firewall nobody asked for.
 *
 * One pass over the lines, each looked up in a table of keys; a bit per key
 * finds duplicates and missing ones. Then the values are checked together.
 */
#include "init/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/ip.h"
#include "init/contract.h"

enum key {
	KEY_VERSION,
	KEY_TIME,
	KEY_STATE_DISK,
	KEY_HOST_IP,
	KEY_VM_IP,
	KEY_HOST_MAC,
	KEY_UPLINK,
	KEY_IPV6,
	KEY_TRANSPORT,
	KEY_PROXY,
	KEY_TLS_PROXY,
	KEY_MOAT,
	/* From here on: may be given more than once. */
	KEY_PEER,
	KEY_NAME,
	KEY_RESOLVER,
	KEY_HOST,
	KEY_COUNT,
};
#define KEY_FIRST_REPEATED KEY_PEER

static const char *const key_names[] = {
	[KEY_VERSION] = "version",
	[KEY_TIME] = "time",
	[KEY_STATE_DISK] = "state_disk",
	[KEY_HOST_IP] = "host_ip",
	[KEY_VM_IP] = "vm_ip",
	[KEY_HOST_MAC] = "host_mac",
	[KEY_UPLINK] = "uplink",
	[KEY_IPV6] = "ipv6",
	[KEY_TRANSPORT] = "transport",
	[KEY_PROXY] = "proxy",
	[KEY_TLS_PROXY] = "tls_proxy",
	[KEY_MOAT] = "moat",
	[KEY_PEER] = "peer",
	[KEY_NAME] = "name",
	[KEY_RESOLVER] = "resolver",
	[KEY_HOST] = "host",
};
_Static_assert(ARRAY_SIZE(key_names) == KEY_COUNT, "a key lacks its name");

static const enum key required[] = {
	KEY_VERSION,
	KEY_HOST_IP,
	KEY_VM_IP,
	KEY_HOST_MAC,
};

/* Digits only: strtoll() would also take spaces, signs and other bases. */
static int parse_number(const char *s, int64_t max, int64_t *ret)
{
	int64_t n = 0;

	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || n > max / 10)
			return -EINVAL;
		n = n * 10 + (*s - '0');
	}
	if (n > max)
		return -EINVAL;
	*ret = n;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int parse_mac(const char *s, uint8_t ret[6])
{
	if (strlen(s) != 17)
		return -EINVAL;
	for (int i = 0; i < 6; i++, s += 3) {
		int high = hex_digit(s[0]), low = hex_digit(s[1]);

		if (high < 0 || low < 0 || (i < 5 && s[2] != ':'))
			return -EINVAL;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	/* A group address is nobody's, and zero is no address. */
	if (ret[0] & 1 || !memcmp(ret, "\0\0\0\0\0", 6))
		return -EINVAL;
	return 0;
}

/* Words that are separated by exactly one space. Return: how many, or -EINVAL
 * when there are none or more than @max. @text is taken apart. */
static int split(char *text, char **words, int max)
{
	int n = 0;
	char *word;

	while ((word = strsep(&text, " "))) {
		if (!*word || n == max)
			return -EINVAL;
		words[n++] = word;
	}
	return n > 0 ? n : -EINVAL;
}

static int parse_protocol(const char *s, uint8_t *ret)
{
	*ret = !strcmp(s, "udp") ? IPPROTO_UDP : IPPROTO_TCP;
	return strcmp(s, "udp") != 0 && strcmp(s, "tcp") != 0 ? -EINVAL : 0;
}

static int parse_port(const char *s, uint16_t *ret)
{
	int64_t n;

	if (parse_number(s, 65535, &n) || n == 0)
		return -EINVAL;
	*ret = (uint16_t)n;
	return 0;
}

/* Letters, digits, hyphens and dots: it goes into a hosts file and a query. */
static int parse_host(const char *s, char ret[GUEST_HOST_NAME_MAX + 1])
{
	static const char known[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	size_t n = strlen(s);

	if (n == 0 || n > GUEST_HOST_NAME_MAX || strspn(s, known) != n ||
	    s[0] == '.' || s[n - 1] == '.' || strstr(s, ".."))
		return -EINVAL;
	memcpy(ret, s, n + 1);
	return 0;
}

/* Where a first packet can be sent to. */
static int parse_unicast(const char *s, struct in6_addr *ret)
{
	return ip_parse(s, ret) == 0 && ip_is_unicast(ret) ? 0 : -EINVAL;
}

static int parse_uplink(char *value, struct guest_config *config)
{
	char *words[4];
	int n = split(value, words, 4);

	config->any_tcp = false;
	if (n == 1 && !strcmp(words[0], "none"))
		return 0;
	for (int i = 0; i < n; i++) {
		bool *any = !strcmp(words[i], "tcp")    ? &config->any_tcp
			    : !strcmp(words[i], "udp")  ? &config->any_udp
			    : !strcmp(words[i], "tcp6") ? &config->any_tcp6
			    : !strcmp(words[i], "udp6") ? &config->any_udp6
							: NULL;

		if (!any || *any)
			return -EINVAL;
		*any = true;
	}
	return n < 0 ? n : 0;
}

static int parse_transport(const char *value, struct guest_config *config)
{
	size_t n = strlen(value);

	if (n == 0 || n >= sizeof(config->transport) ||
	    strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_") != n)
		return -EINVAL;
	memcpy(config->transport, value, n + 1);
	return 0;
}

/* Printable ASCII; what it means is the transport's business. */
static int parse_moat(const char *value, struct guest_config *config)
{
	size_t n = strlen(value);

	if (n == 0 || n > GUEST_MOAT_ARGS_MAX)
		return -EINVAL;
	for (const char *s = value; *s; s++)
		if (*s <= ' ' || *s > '~')
			return -EINVAL;
	memcpy(config->moat, value, n + 1);
	return 0;
}

/* A name or an address. */
static int parse_proxy_host(const char *s, char ret[GUEST_HOST_NAME_MAX + 1])
{
	struct in6_addr literal;

	if (parse_unicast(s, &literal) < 0)
		return parse_host(s, ret);
	snprintf(ret, GUEST_HOST_NAME_MAX + 1, "%s", s);
	return 0;
}

static int parse_proxy(char *value, struct guest_proxy *proxy)
{
	char *words[4];
	int n = split(value, words, 4);

	if (n < 3 ||
	    (strcmp(words[0], "http") != 0 && strcmp(words[0], "socks5") != 0))
		return -EINVAL;
	if (parse_proxy_host(words[1], proxy->host) ||
	    parse_port(words[2], &proxy->port))
		return -EINVAL;
	snprintf(proxy->scheme, sizeof(proxy->scheme), "%s", words[0]);
	if (n == 4) {
		size_t len = strlen(words[3]);

		/* What ends the login in a URI is percent-encoded in it. */
		if (len >= sizeof(proxy->login) ||
		    strcspn(words[3], "@/?#") != len)
			return -EINVAL;
		memcpy(proxy->login, words[3], len + 1);
	}
	return 0;
}

static int parse_tls_proxy(char *value, struct guest_tls_proxy *proxy)
{
	char *words[3];

	if (split(value, words, 3) != 3 ||
	    parse_proxy_host(words[0], proxy->host) ||
	    parse_port(words[1], &proxy->port))
		return -EINVAL;
	proxy->own_authorities = !strcmp(words[2], "own");
	return proxy->own_authorities || !strcmp(words[2], "public") ? 0
								     : -EINVAL;
}

static int parse_peer(char *value, struct guest_config *config)
{
	struct guest_peer *peer = &config->peers[config->n_peers];
	char *words[3];

	if (config->n_peers == GUEST_PEERS_MAX || split(value, words, 3) != 3 ||
	    parse_protocol(words[0], &peer->protocol) ||
	    parse_unicast(words[1], &peer->address) ||
	    parse_port(words[2], &peer->port))
		return -EINVAL;
	config->n_peers++;
	return 0;
}

static int parse_name(char *value, struct guest_config *config)
{
	struct guest_name *name = &config->names[config->n_names];
	char *words[3];

	if (config->n_names == GUEST_NAMES_MAX || split(value, words, 3) != 3 ||
	    parse_protocol(words[0], &name->protocol) ||
	    parse_host(words[1], name->host) ||
	    parse_port(words[2], &name->port))
		return -EINVAL;
	config->n_names++;
	return 0;
}

static int parse_pinned(char *value, struct guest_config *config)
{
	struct guest_host *host = &config->hosts[config->n_hosts];
	char *words[2];

	if (config->n_hosts == GUEST_PEERS_MAX || split(value, words, 2) != 2 ||
	    parse_host(words[0], host->name) ||
	    parse_unicast(words[1], &host->address))
		return -EINVAL;
	config->n_hosts++;
	return 0;
}

static int parse_resolver(const char *value, struct guest_config *config)
{
	if (config->n_resolvers == GUEST_RESOLVERS_MAX ||
	    parse_unicast(value, &config->resolvers[config->n_resolvers]))
		return -EINVAL;
	config->n_resolvers++;
	return 0;
}

static int parse_value(enum key key, char *value, struct guest_config *config)
{
	int64_t n;

	switch (key) {
	case KEY_VERSION:
		return parse_number(value, GUEST_CONFIG_VERSION, &n) ||
				       n != GUEST_CONFIG_VERSION
			       ? -EINVAL
			       : 0;
	case KEY_TIME:
		return parse_number(value, GUEST_TIME_MAX, &config->time_s);
	case KEY_STATE_DISK:
		if (parse_number(value, 1, &n))
			return -EINVAL;
		config->state_disk = n;
		return 0;
	case KEY_IPV6:
		if (parse_number(value, 1, &n))
			return -EINVAL;
		config->ipv6 = n;
		return 0;
	case KEY_HOST_IP:
		return inet_pton(AF_INET, value, &config->host_ip) == 1
			       ? 0
			       : -EINVAL;
	case KEY_VM_IP:
		return inet_pton(AF_INET, value, &config->vm_ip) == 1 ? 0
								      : -EINVAL;
	case KEY_HOST_MAC: return parse_mac(value, config->host_mac);
	case KEY_UPLINK: return parse_uplink(value, config);
	case KEY_TRANSPORT: return parse_transport(value, config);
	case KEY_PROXY: return parse_proxy(value, &config->proxy);
	case KEY_TLS_PROXY: return parse_tls_proxy(value, &config->tls_proxy);
	case KEY_MOAT: return parse_moat(value, config);
	case KEY_PEER: return parse_peer(value, config);
	case KEY_NAME: return parse_name(value, config);
	case KEY_HOST: return parse_pinned(value, config);
	case KEY_RESOLVER: return parse_resolver(value, config);
	case KEY_COUNT: break;
	}
	return -EINVAL;
}

/* The two ends of a /30 that is a private one and not the uplink's own. */
static int check_addresses(const struct guest_config *config, struct error *e)
{
	uint32_t host = ntohl(config->host_ip.s_addr);
	uint32_t vm = ntohl(config->vm_ip.s_addr);
	uint32_t uplink = ntohl(inet_addr(GUEST_ETH0_ADDRESS));
	uint32_t uplink_mask = ~0U << (32 - GUEST_ETH0_PREFIX);
	unsigned int top = vm >> 24;

	if ((host & ~3U) != (vm & ~3U) || (host & 3) + (vm & 3) != 3 ||
	    (host & 3) == 0 || (vm & 3) == 0)
		return error_set(e, -EINVAL,
				 "opt/torvm/config: host_ip and vm_ip are not "
				 "the two ends of one /30");
	if (top == 0 || top == 127 || top >= 224 ||
	    (vm & uplink_mask) == (uplink & uplink_mask))
		return error_set(
			e, -EINVAL,
			"opt/torvm/config: vm_ip cannot be used: it is "
			"in a reserved network");
	return 0;
}

static int parse_line(char *line, size_t number, unsigned int *seen,
		      struct guest_config *config, struct error *e)
{
	char *value = strchr(line, '=');
	unsigned int key;

	if (!value)
		return error_set(e, -EINVAL,
				 "opt/torvm/config: line %zu is not key=value",
				 number);
	*value++ = '\0';

	for (key = 0; key < KEY_COUNT; key++)
		if (!strcmp(line, key_names[key]))
			break;
	if (key == KEY_COUNT)
		return error_set(e, -EINVAL,
				 "opt/torvm/config: line %zu: unknown key; the "
				 "image and the controller are of different "
				 "versions",
				 number);
	if (key < KEY_FIRST_REPEATED && *seen & 1U << key)
		return error_set(e, -EINVAL,
				 "opt/torvm/config: %s is given twice",
				 key_names[key]);
	*seen |= 1U << key;

	if (parse_value((enum key)key, value, config))
		return error_set(e, -EINVAL,
				 "opt/torvm/config: %s has a value that is not "
				 "allowed",
				 key_names[key]);
	return 0;
}

int guest_config_parse(const char *text, size_t len, struct guest_config *ret,
		       struct error *e)
{
	/* Some 20 KB. */
	struct guest_config config = {
		.time_s = -1,
		.state_disk = true,
		.any_tcp = true,
	};
	unsigned int seen = 0;
	size_t number = 0;
	int r;

	if (len > GUEST_FILE_MAX)
		return error_set(e, -EINVAL, "opt/torvm/config is too large");

	while (len > 0) {
		char line[GUEST_LINE_MAX];
		const char *end = memchr(text, '\n', len);
		size_t n = end ? (size_t)(end - text) : len;

		number++;
		if (!end || n >= sizeof(line) || memchr(text, '\0', n))
			return error_set(e, -EINVAL,
					 "opt/torvm/config: line %zu is too "
					 "long, not terminated or not text",
					 number);
		memcpy(line, text, n);
		line[n] = '\0';
		r = parse_line(line, number, &seen, &config, e);
		if (r < 0)
			return r;
		text += n + 1;
		len -= n + 1;
	}

	for (size_t i = 0; i < ARRAY_SIZE(required); i++)
		if (!(seen & 1U << required[i]))
			return error_set(e, -EINVAL,
					 "opt/torvm/config: %s is missing",
					 key_names[required[i]]);
	if (config.moat[0] && !config.transport[0])
		return error_set(e, -EINVAL,
				 "opt/torvm/config: moat needs a transport");
	r = check_addresses(&config, e);
	if (r < 0)
		return r;
	*ret = config;
	return 0;
}
