/* The guest's lines: however they arrive in pieces, they say the same. */
#include "fuzz.h"

#include <errno.h>

#include "proto/agent.h"

static uint64_t run(const uint8_t *data, size_t size, size_t piece)
{
	struct agent *a = agent_new();
	struct agent_message m;
	uint64_t hash = 0;
	int r = 0;

	must(a);
	for (size_t at = 0; at < size && r != -EMSGSIZE; at += piece) {
		size_t len = size - at < piece ? size - at : piece;

		must(agent_push(a, data + at, len) == 0);
		while ((r = agent_next(a, &m, NULL)) == 1 || r == -EBADMSG) {
			if (r == 1) {
				must(m.kind < AGENT_KIND_COUNT);
				must(m.stage < AGENT_STAGE_COUNT);
				must(is_printable(m.text));
				mix(&hash, &m, sizeof(m));
			} else {
				mix(&hash, &r, sizeof(r));
			}
		}
	}
	agent_free(a);
	return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	must(run(data, size, size + 1) == run(data, size, 1));
	return 0;
}
