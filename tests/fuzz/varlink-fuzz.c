/* Varlink: both roles over the input, whole and in pieces; what was accepted as
 * a call survives being written and read again. */
#include "fuzz.h"

#include <string.h>

#include "proto/varlink.h"

static void check_again(const struct varlink_message *m)
{
	struct varlink *v = varlink_new(VARLINK_ROLE_SERVER);
	struct varlink_message again;
	struct buffer out = BUFFER_NULL(out);
	unsigned int flags = (m->more ? VARLINK_CALL_MORE : 0) |
			     (m->oneway ? VARLINK_CALL_ONEWAY : 0);
	char name[4096];
	const char *bytes;
	size_t len;

	snprintf(name, sizeof(name), "%s.%s", m->interface, m->method);
	if (strlen(m->interface) + strlen(m->method) + 2 <= sizeof(name) &&
	    varlink_write_call(&out, name, m->parameters, flags) == 0) {
		bytes = buffer_peek(&out, &len);
		must(v && varlink_push(v, bytes, len) == 0);
		must(varlink_next(v, &again, NULL) == 1);
		must(!strcmp(again.interface, m->interface));
		must(!strcmp(again.method, m->method));
		must(again.more == m->more && again.oneway == m->oneway);
		must(json_equal(again.parameters, m->parameters));
		varlink_message_deinit(&again);
	}
	buffer_deinit(&out);
	varlink_free(v);
}

static uint64_t run(enum varlink_role role, const uint8_t *data, size_t size,
		    size_t piece)
{
	struct varlink *v = varlink_new(role);
	struct varlink_message m;
	uint64_t hash = 0;
	int r = 0;

	must(v);
	for (size_t at = 0; at < size && r >= 0; at += piece) {
		size_t len = size - at < piece ? size - at : piece;

		must(varlink_push(v, data + at, len) == 0);
		while ((r = varlink_next(v, &m, NULL)) == 1) {
			must(json_is_object(m.parameters));
			must((role == VARLINK_ROLE_SERVER) == !!m.method);
			if (m.method)
				check_again(&m);
			mix(&hash, &m.continues, sizeof(m.continues));
			varlink_message_deinit(&m);
		}
	}
	mix(&hash, &r, sizeof(r));
	varlink_free(v);
	return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int role = 0; role < 2; role++)
		must(run((enum varlink_role)role, data, size, size + 1) ==
		     run((enum varlink_role)role, data, size, 5));
	return 0;
}
