#include "init/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/ip.h"
#include "base/util.h"
#include "init/system.h"

void names_init(struct names *names, const struct guest_config *config)
{
	memset(names, 0, sizeof(*names));
	names->config = config;
}

void names_begin(struct names *names)
{
	names->ttl_s = UINT32_MAX;
	names->failed = false;
}

static int parse_found(char *text, struct dns_result *ret)
{
	char *rest = text, *word = strsep(&rest, " "), *end;

	*ret = (struct dns_result){ .ttl_s =
					    (uint32_t)strtoul(word, &end, 10) };
	if (end == word || *end || !rest)
		return -EINVAL;
	while ((word = strsep(&rest, " "))) {
		if (ret->n == GUEST_NAME_ADDRESSES_MAX ||
		    ip_parse(word, &ret->addresses[ret->n]) < 0 ||
		    !ip_is_unicast(&ret->addresses[ret->n]))
			return -EINVAL;
		ret->n++;
	}
	return 0;
}

int names_hear(struct names *names, char *line, const char **ret_name,
	       const char **ret_text)
{
	char copy[GUEST_LINE_MAX];
	char *rest = line, *word = strsep(&rest, " ");
	char *name = rest ? strsep(&rest, " ") : NULL;
	bool found = !strcmp(word, "ok");
	struct dns_result result;

	if (!rest || (!found && strcmp(word, "no") != 0))
		return -EINVAL;
	*ret_name = NULL;
	*ret_text = rest;
	if (found) {
		snprintf(copy, sizeof(copy), "%s", rest);
		if (parse_found(copy, &result) < 0)
			return -EINVAL;
		*ret_text = strchr(rest, ' ') + 1;
	}
	for (size_t i = 0; i < names->config->n_names; i++) {
		if (strcasecmp(names->config->names[i].host, name) != 0)
			continue;
		*ret_name = names->config->names[i].host;
		if (found)
			names->found[i] = result;
	}
	if (!*ret_name)
		return -EINVAL;
	if (!found)
		names->failed = true;
	else if (result.ttl_s < names->ttl_s)
		names->ttl_s = result.ttl_s;
	return found;
}

/* @fn for each address of a host. Return: the first that is not 0 */
static int each_address(const struct names *names, const char *host,
			int (*fn)(void *userdata,
				  const struct in6_addr *address),
			void *userdata)
{
	const struct guest_config *c = names->config;
	struct in6_addr literal;
	int r = 0;

	if (ip_parse(host, &literal) == 0)
		return fn(userdata, &literal);
	for (size_t i = 0; i < c->n_hosts && r == 0; i++)
		if (!strcasecmp(c->hosts[i].name, host))
			r = fn(userdata, &c->hosts[i].address);
	for (size_t i = 0; i < c->n_names && r == 0; i++)
		for (size_t k = 0; k < names->found[i].n && r == 0; k++)
			if (!strcasecmp(c->names[i].host, host))
				r = fn(userdata, &names->found[i].addresses[k]);
	return r;
}

static int take_first(void *userdata, const struct in6_addr *address)
{
	*(struct in6_addr *)userdata = *address;
	return 1;
}

int names_address(const struct names *names, const char *host,
		  struct in6_addr *ret)
{
	return each_address(names, host, take_first, ret) ? 0 : -ENOENT;
}

static int is_same(void *userdata, const struct in6_addr *address)
{
	return ip_equal(userdata, address);
}

bool names_has(const struct names *names, const char *host,
	       const struct in6_addr *address)
{
	struct in6_addr wanted = *address;

	return each_address(names, host, is_same, &wanted);
}

bool names_usable(const struct names *names)
{
	const struct guest_config *c = names->config;

	for (size_t i = 0; i < c->n_names; i++)
		if (names->found[i].n > 0 &&
		    c->names[i].protocol == IPPROTO_TCP)
			return true;
	return c->any_tcp || c->any_tcp6 || c->n_peers > 0;
}

struct hosts {
	char text[GUEST_FILE_MAX];
	size_t len;
};

static void put(struct hosts *hosts, const char *name,
		const struct in6_addr *address)
{
	char ip[IP_TEXT_MAX];
	size_t left = sizeof(hosts->text) - hosts->len;
	int n = snprintf(hosts->text + hosts->len, left, "%s %s\n",
			 ip_format(address, ip), name);

	if (n > 0 && (size_t)n < left)
		hosts->len += (size_t)n;
}

int names_write(const struct names *names, struct error *e)
{
	static struct hosts hosts;
	const struct guest_config *c = names->config;

	hosts.len = 0;
	for (size_t i = 0; i < c->n_hosts; i++)
		put(&hosts, c->hosts[i].name, &c->hosts[i].address);
	for (size_t i = 0; i < c->n_names; i++)
		for (size_t k = 0; k < names->found[i].n; k++)
			put(&hosts, c->names[i].host,
			    &names->found[i].addresses[k]);
	return system_write_file(GUEST_HOSTS, hosts.text, hosts.len, 0444, e);
}
