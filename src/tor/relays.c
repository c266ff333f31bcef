#include "tor/relays.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

/* Words of "r nickname identity digest date time address orport dirport". */
#define R_ADDRESS 6
#define R_PORT 7

static void add_endpoint(struct tor_relays *relays, const struct endpoint *e)
{
	for (size_t i = 0; i < relays->n_endpoints; i++)
		if (endpoint_equal(&relays->endpoints[i], e))
			return;
	if (relays->n_endpoints < ARRAY_SIZE(relays->endpoints))
		relays->endpoints[relays->n_endpoints++] = *e;
	else
		relays->n_unknown++;
}

int tor_address_parse(const char *name, size_t len, struct endpoint *ret)
{
	const char *port = memrchr(name, ':', len);
	char text[ENDPOINT_TEXT_MAX];

	if (endpoint_parse(name, len, ret) == 0)
		return 0;
	if (!port || len + 3 > sizeof(text))
		return -EINVAL;
	snprintf(text, sizeof(text), "[%.*s]%.*s", (int)(port - name), name,
		 (int)(name + len - port), port);
	return endpoint_parse(text, strlen(text), ret);
}

static void add_connection(struct tor_relays *relays, const char *name,
			   size_t len)
{
	const size_t hex = TOR_FINGERPRINT_SIZE - 1;
	struct endpoint e;

	if (len > hex && name[0] == '$' &&
	    strspn(name + 1, "0123456789ABCDEFabcdef") == hex &&
	    relays->n_fingerprints < TOR_RELAYS_MAX) {
		char *to = relays->fingerprints[relays->n_fingerprints++];

		memcpy(to, name + 1, hex);
		to[hex] = '\0';
	} else if (tor_address_parse(name, len, &e) == 0) {
		add_endpoint(relays, &e);
	} else {
		relays->n_unknown++;
	}
}

void tor_relays_from_connections(const char *text, struct tor_relays *ret)
{
	*ret = (struct tor_relays){ 0 };
	while (*text) {
		size_t line = strcspn(text, "\r\n");
		size_t name = strcspn(text, " \r\n");

		if (name > 0)
			add_connection(ret, text, name);
		text += line;
		text += strspn(text, "\r\n");
	}
}

/* Word number @n (from 0) of a line of @len bytes, or NULL. */
static const char *word(const char *line, size_t len, unsigned int n,
			size_t *ret_len)
{
	const char *end = line + len;

	for (;;) {
		const char *space = memchr(line, ' ', (size_t)(end - line));
		const char *stop = space ? space : end;

		if (n-- == 0) {
			*ret_len = (size_t)(stop - line);
			return *ret_len ? line : NULL;
		}
		if (!space)
			return NULL;
		line = space + 1;
	}
}

static int parse_r(const char *line, size_t len, struct endpoint *ret)
{
	size_t address_len = 0, port_len = 0;
	const char *address = word(line, len, R_ADDRESS, &address_len);
	const char *port = word(line, len, R_PORT, &port_len);
	char text[ENDPOINT_TEXT_MAX];

	if (!address || !port || address_len + port_len + 2 > sizeof(text))
		return -EBADMSG;
	snprintf(text, sizeof(text), "%.*s:%.*s", (int)address_len, address,
		 (int)port_len, port);
	return endpoint_parse(text, strlen(text), ret);
}

void tor_relays_add(struct tor_relays *relays, const char *text)
{
	struct endpoint e;
	bool known = false;

	while (*text) {
		size_t len = strcspn(text, "\r\n"), a_len = 0;
		const char *a;

		if (!strncmp(text, "r ", 2) && parse_r(text, len, &e) == 0) {
			add_endpoint(relays, &e);
			known = true;
		}
		a = strncmp(text, "a ", 2) ? NULL : word(text, len, 1, &a_len);
		if (a && endpoint_parse(a, a_len, &e) == 0)
			add_endpoint(relays, &e);
		text += len;
		text += strspn(text, "\r\n");
	}
	if (!known)
		relays->n_unknown++;
}
