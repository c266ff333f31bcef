/* QEMU's monitor: a session with commands on their way, whole and in pieces. */
#include "fuzz.h"

#include "proto/qmp.h"

static uint64_t run(const uint8_t *data, size_t size, size_t piece)
{
	struct qmp *q = qmp_new();
	struct qmp_message m;
	uint64_t hash = 0;
	size_t len;
	int r = 0;

	must(q);
	for (int i = 0; i < QMP_COMMAND_COUNT; i++)
		must(qmp_send(q, (enum qmp_command)i, NULL) == 0);
	for (size_t at = 0; at < size && r >= 0; at += piece) {
		len = size - at < piece ? size - at : piece;
		must(qmp_push(q, data + at, len) == 0);
		while ((r = qmp_next(q, &m, NULL)) == 1) {
			must(m.event < QMP_EVENT_COUNT);
			must(m.command < QMP_COMMAND_COUNT);
			must(is_printable(m.status) && is_printable(m.reason));
			must(is_printable(m.event_name));
			must(is_printable(m.error_text));
			mix(&hash, &m, sizeof(m));
		}
	}
	mix(&hash, &r, sizeof(r));
	/* Six commands and the negotiation: output never grows with input. */
	buffer_peek(qmp_output(q), &len);
	must(len < 1024);
	qmp_free(q);
	return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	must(run(data, size, size + 1) == run(data, size, 7));
	return 0;
}
