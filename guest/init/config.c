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

#include "init/contract.h"

enum key {
	KEY_VERSION,
	KEY_TIME,
	KEY_STATE_DISK,
	KEY_HOST_IP,
	KEY_VM_IP,
	KEY_HOST_MAC,
	KEY_COUNT,
};

static const char *const key_names[] = {
	[KEY_VERSION] = "version",       [KEY_TIME] = "time",
	[KEY_STATE_DISK] = "state_disk", [KEY_HOST_IP] = "host_ip",
	[KEY_VM_IP] = "vm_ip",           [KEY_HOST_MAC] = "host_mac",
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

static int parse_value(enum key key, const char *value,
		       struct guest_config *config)
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
	case KEY_HOST_IP:
		return inet_pton(AF_INET, value, &config->host_ip) == 1
			       ? 0
			       : -EINVAL;
	case KEY_VM_IP:
		return inet_pton(AF_INET, value, &config->vm_ip) == 1 ? 0
								      : -EINVAL;
	case KEY_HOST_MAC: return parse_mac(value, config->host_mac);
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
	if (*seen & 1U << key)
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
	struct guest_config config = { .time_s = -1, .state_disk = true };
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
	r = check_addresses(&config, e);
	if (r < 0)
		return r;
	*ret = config;
	return 0;
}
