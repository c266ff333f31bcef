#include "config/values.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/ip.h"
#include "config/countries.h"

#define HOST_MAX 253 /* RFC 1035, 2.3.4 */
#define LABEL_MAX 63

bool config_is_hex(const char *text, size_t n)
{
	return strlen(text) == n && strspn(text, "0123456789abcdefABCDEF") == n;
}

/* Whether ".." or "." stands between two slashes. */
static bool has_dots(const char *path)
{
	for (const char *s = path; s; s = strchr(s + 1, '/')) {
		size_t n = strcspn(s + 1, "/");

		if ((n == 1 && s[1] == '.') ||
		    (n == 2 && s[1] == '.' && s[2] == '.'))
			return true;
	}
	return false;
}

int config_check_path(const char *value, struct config_problem *p)
{
	if (value[0] != '/')
		return config_problem_set(
			p, NULL, "\"%.60s\" is a relative path", value);
	/* A comma separates QEMU's properties. */
	if (strchr(value, ','))
		return config_problem_set(p, "a path without commas",
					  "\"%.60s\" has a comma", value);
	if (has_dots(value))
		return config_problem_set(p, "a path without \".\" and \"..\"",
					  "\"%.60s\" has a \".\" or \"..\"",
					  value);
	if (value[strlen(value) - 1] == '/')
		return config_problem_set(p, "a path without a '/' at its end",
					  "\"%.60s\" ends with '/'", value);
	return 0;
}

int config_check_interface(const char *value, struct config_problem *p)
{
	/* Names with a meaning of their own in /proc/sys/net and in tools. */
	static const char *const reserved[] = { "lo", "all", "default" };

	if (!isalpha((unsigned char)value[0]))
		return config_problem_set(
			p, NULL, "\"%s\" does not begin with a letter", value);
	for (const char *s = value; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("_-.", *s))
			return config_problem_set(
				p, NULL, "\"%s\" is no interface name", value);
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
		if (!strcmp(value, reserved[i]))
			return config_problem_set(p, NULL, "\"%s\" is reserved",
						  value);
	return 0;
}

static bool is_port(const char *text)
{
	size_t n = strlen(text);
	unsigned long port;

	if (n < 1 || n > 5 || strspn(text, "0123456789") != n)
		return false;
	port = strtoul(text, NULL, 10);
	return port >= 1 && port <= 65535;
}

/* Letters, digits and hyphens between dots. */
static bool is_host_name(const char *host)
{
	size_t n = strlen(host), label = 0;

	if (n < 1 || n > HOST_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (host[i] == '.') {
			if (label == 0 || host[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char)host[i]) &&
		    (host[i] != '-' || label == 0))
			return false;
		if (++label > LABEL_MAX)
			return false;
	}
	return label > 0 && host[n - 1] != '-';
}

enum host_kind { HOST_BAD, HOST_IPV4, HOST_IPV6, HOST_NAME };

struct endpoint {
	enum host_kind kind;
	struct in_addr ip4;
	struct in6_addr ip6;
};

static int split_endpoint(const char *text, struct endpoint *ret,
			  struct config_problem *p)
{
	char host[HOST_MAX + 3]; /* with brackets */
	const char *colon = strrchr(text, ':');
	size_t n;

	*ret = (struct endpoint){ 0 };
	if (!colon || (text[0] == '[' && colon[-1] != ']'))
		return config_problem_set(p, NULL, "has no :PORT at its end");
	n = (size_t)(colon - text);
	if (n >= sizeof(host))
		return config_problem_set(p, NULL, "its host is too long");
	memcpy(host, text, n);
	host[n] = '\0';
	if (!is_port(colon + 1))
		return config_problem_set(p, "a port from 1 to 65535",
					  "its port is not a number from 1 to "
					  "65535");
	if (host[0] == '[') {
		host[n - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &ret->ip6) != 1)
			return config_problem_set(p, NULL,
						  "its IPv6 address is wrong");
		ret->kind = HOST_IPV6;
	} else if (strchr(host, ':')) {
		return config_problem_set(p, "[IPv6 address]:PORT",
					  "its IPv6 address is not in "
					  "brackets");
	} else if (inet_pton(AF_INET, host, &ret->ip4) == 1) {
		ret->kind = HOST_IPV4;
	} else if (is_host_name(host) &&
		   host[strspn(host, "0123456789.")] != '\0') {
		ret->kind = HOST_NAME;
	} else {
		return config_problem_set(p, NULL, "its host is no address");
	}
	return 0;
}

int config_check_endpoint(const char *text, struct config_problem *p)
{
	struct endpoint ep;
	int r = split_endpoint(text, &ep, p);

	if (r < 0)
		return r;
	if (ep.kind == HOST_NAME)
		return config_problem_set(p, NULL,
					  "has a name instead of an address");
	return 0;
}

int config_check_host_port(const char *text, struct config_problem *p)
{
	struct endpoint ep;

	return split_endpoint(text, &ep, p);
}

bool config_is_host(const char *text)
{
	struct in6_addr ip6;
	char bare[INET6_ADDRSTRLEN];
	size_t n = strlen(text);

	if (text[0] != '[')
		return is_host_name(text);
	if (n < 3 || n - 2 >= sizeof(bare) || text[n - 1] != ']')
		return false;
	memcpy(bare, text + 1, n - 2);
	bare[n - 2] = '\0';
	return inet_pton(AF_INET6, bare, &ip6) == 1;
}

int config_check_proxy_address(const char *value, struct config_problem *p)
{
	static const char elsewhere[] = "a proxy on another machine";
	struct endpoint ep;
	const char *scheme = strstr(value, "://");
	int r;

	if (scheme)
		return config_problem_set(p, NULL,
					  "\"%.40s\" begins with a scheme; the "
					  "kind of proxy stands in proxy.type",
					  value);
	r = split_endpoint(value, &ep, p);
	if (r < 0)
		return r;
	/* A proxy on this machine would itself be sent through Tor. */
	if (ep.kind == HOST_NAME) {
		if (!strncasecmp(value, "localhost:", 10))
			return config_problem_set(p, elsewhere,
						  "is this machine itself");
	} else {
		const struct in6_addr ip =
			ep.kind == HOST_IPV4 ? ip_from_v4(ep.ip4) : ep.ip6;

		/* IPv4 is not to be written as IPv6. */
		if (!ip_is_unicast(&ip) ||
		    (ep.kind == HOST_IPV6 && ip_is_v4(&ip)))
			return config_problem_set(p, elsewhere,
						  "is no address of another "
						  "machine");
	}
	return 0;
}

int config_check_pinned_address(const char *value, struct config_problem *p)
{
	const char *equals = strchr(value, '=');
	char host[HOST_MAX + 1];
	struct in6_addr ip;

	if (!equals || (size_t)(equals - value) >= sizeof(host))
		return config_problem_set(p, NULL,
					  "\"%.60s\" has no NAME=", value);
	memcpy(host, value, (size_t)(equals - value));
	host[equals - value] = '\0';
	if (!is_host_name(host) || ip_parse(host, &ip) == 0)
		return config_problem_set(p, NULL, "\"%.60s\" is no host name",
					  host);
	if (ip_parse(equals + 1, &ip) < 0 || !ip_is_unicast(&ip))
		return config_problem_set(p, "an address of another machine",
					  "\"%.60s\" is none", equals + 1);
	return 0;
}

/* An address pattern of Tor: ADDRESS, ADDRESS/BITS, [IPv6] or [IPv6]/BITS. */
static bool is_address_range(char *item)
{
	char *slash = strchr(item, '/');
	size_t n, max = 32;
	unsigned char raw[16];

	if (slash) {
		*slash++ = '\0';
		n = strlen(slash);
		if (n < 1 || n > 3 || strspn(slash, "0123456789") != n)
			return false;
	}
	n = strlen(item);
	if (item[0] == '[') {
		if (item[n - 1] != ']')
			return false;
		item[n - 1] = '\0';
		max = 128;
		if (inet_pton(AF_INET6, item + 1, raw) != 1)
			return false;
	} else if (inet_pton(AF_INET, item, raw) != 1) {
		return false;
	}
	return !slash || strtoul(slash, NULL, 10) <= max;
}

static bool is_node(char *item)
{
	if (item[0] == '$')
		item++;
	return !strcmp(item, "*") || config_is_hex(item, 40) ||
	       config_is_country(item) || is_address_range(item);
}

static int check_nodes(char *list, struct config_problem *p)
{
	while (list) {
		char *item = strsep(&list, ",");
		char shown[32];

		item += strspn(item, " ");
		for (size_t n = strlen(item); n > 0 && item[n - 1] == ' ';)
			item[--n] = '\0';
		str_copy(shown, sizeof(shown), item);
		if (!is_node(item))
			return config_problem_set(p, NULL,
						  "\"%s\" is neither a "
						  "fingerprint nor an address "
						  "nor a country, such as {de}",
						  shown);
	}
	return 0;
}

int config_check_node_list(const char *value, struct config_problem *p)
{
	char *copy = strdup(value);
	int r;

	if (!copy)
		return config_problem_set(p, NULL, "out of memory");
	r = check_nodes(copy, p);
	free(copy);
	return r;
}
