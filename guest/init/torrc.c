/*
 * Theory of operation
 *
 * The host writes the whole torrc. The guest's firewall admits three ports, its
 * relay connects to one socket, its log relay reads stdout, its state disk is
 * one folder: a torrc that says otherwise would leave a Tor that runs and
 * serves nobody, or one with a door that nobody watches. Better no Tor at all
 * and a sentence.
 *
 * Tor's file syntax has ways to say the same thing differently: abbreviations,
 * "+Option", "/Option", %include, continued and quoted lines. Instead of
 * following it, the check refuses the forms that it does not need to know.
 */
#include "init/torrc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "init/contract.h"

struct fixed {
	const char *option;
	const char *value; /* NULL: depends on state_disk */
	bool port;         /* vm_ip goes before, flags may follow */
	bool optional;
};

static const struct fixed fixed[] = {
	{ "TransPort", GUEST_TORRC_TRANS_PORT, .port = true },
	{ "DNSPort", GUEST_TORRC_DNS_PORT, .port = true },
	{ "SocksPort", GUEST_TORRC_SOCKS_PORT, .port = true },
	{ "ControlSocket", GUEST_TORRC_CONTROL_SOCKET, .port = false },
	{ "DataDirectory", NULL, .port = false },
	{ "Log", GUEST_TORRC_LOG, .port = false },
	{ "GeoIPFile", GUEST_TORRC_GEOIP, .optional = true },
};

static const char *const refused[] = { GUEST_TORRC_REFUSED };

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || c == '_';
}

/* Either is what Tor makes of the other: a prefix of an option's name. */
static bool abbreviates(const char *name, const char *option)
{
	return !strncasecmp(name, option, strlen(name));
}

static bool value_matches(const char *value, const char *wanted, bool flags)
{
	size_t n = strlen(wanted);

	if (strncmp(value, wanted, n) != 0)
		return false;
	if (!value[n])
		return true;
	/* Flags are plain words; Tor has not seen a "#" or a quote yet. */
	if (!flags || !is_space(value[n]))
		return false;
	for (const char *c = value + n; *c; c++)
		if (!is_name(*c) && !is_space(*c) && *c != '=')
			return false;
	return true;
}

static void wanted_value(const struct fixed *line,
			 const struct guest_config *config, char *ret,
			 size_t size)
{
	char ip[INET_ADDRSTRLEN] = "";

	if (line->port)
		inet_ntop(AF_INET, &config->vm_ip, ip, sizeof(ip));
	snprintf(ret, size, "%s%s", ip,
		 line->value          ? line->value
		 : config->state_disk ? GUEST_TORRC_DATA_DISK
				      : GUEST_TORRC_DATA_RAM);
}

/* @line: terminated, changed. @seen: a bit per entry of fixed[]. */
static int check_line(char *line, size_t number,
		      const struct guest_config *config, unsigned int *seen,
		      struct error *e)
{
	char *name, *value, *end;

	for (name = line; is_space(*name); name++)
		;
	if (!*name || *name == '#')
		return 0;
	for (end = name; is_name(*end); end++)
		;
	if (end == name || (*end && !is_space(*end)))
		return error_set(e, -EINVAL,
				 "torrc line %zu does not start with an "
				 "option's name",
				 number);
	value = end;
	while (is_space(*value))
		value++;
	*end = '\0';
	for (end = value + strlen(value); end > value && is_space(end[-1]);)
		*--end = '\0';

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		char wanted[64];

		if (strcasecmp(name, fixed[i].option) != 0)
			continue;
		if (*seen & 1U << i)
			return error_set(e, -EINVAL,
					 "torrc line %zu: %s is given twice",
					 number, fixed[i].option);
		*seen |= 1U << i;
		wanted_value(&fixed[i], config, wanted, sizeof(wanted));
		if (!value_matches(value, wanted, fixed[i].port))
			return error_set(e, -EINVAL,
					 "torrc line %zu: %s has to be %s",
					 number, fixed[i].option, wanted);
		return 0;
	}

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (abbreviates(name, fixed[i].option))
			return error_set(e, -EINVAL,
					 "torrc line %zu: %s has to be written "
					 "in full",
					 number, fixed[i].option);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (abbreviates(name, refused[i]))
			return error_set(e, -EINVAL,
					 "torrc line %zu: the option %s is not "
					 "allowed in the VM",
					 number, refused[i]);
	return 0;
}

int guest_torrc_check(const char *text, size_t len,
		      const struct guest_config *config, bool *ret_geoip,
		      struct error *e)
{
	unsigned int seen = 0;
	size_t number = 0;
	int r;

	if (len > GUEST_FILE_MAX)
		return error_set(e, -EINVAL, "the torrc is too large");

	while (len > 0) {
		char line[GUEST_LINE_MAX];
		const char *end = memchr(text, '\n', len);
		size_t n = end ? (size_t)(end - text) : len;

		number++;
		if (!end || n >= sizeof(line))
			return error_set(e, -EINVAL,
					 "torrc line %zu is too long or not "
					 "terminated",
					 number);
		for (size_t i = 0; i < n; i++)
			if (((uint8_t)text[i] < ' ' && text[i] != '\t') ||
			    (uint8_t)text[i] > '~')
				return error_set(e, -EINVAL,
						 "torrc line %zu is not ASCII "
						 "text",
						 number);
		if (n > 0 && text[n - 1] == '\\')
			return error_set(e, -EINVAL,
					 "torrc line %zu ends in a backslash",
					 number);
		memcpy(line, text, n);
		line[n] = '\0';
		r = check_line(line, number, config, &seen, e);
		if (r < 0)
			return r;
		text += n + 1;
		len -= n + 1;
	}

	*ret_geoip = false;
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (fixed[i].optional)
			*ret_geoip = seen & 1U << i;
		else if (!(seen & 1U << i))
			return error_set(e, -EINVAL, "the torrc has no line %s",
					 fixed[i].option);
	return 0;
}
