/* The host's lines on the agent port: in pieces they say the same; what comes
 * out of the outbox is lines, within its bounds. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "init/message.h"
#include "init/outbox.h"

struct heard {
	uint64_t hash;
	struct outbox box;
};

static void hear(void *userdata, char *line, bool cut)
{
	struct heard *heard = userdata;
	struct host_message message;
	int r = host_message_parse(line, &message);

	must(strlen(line) < GUEST_LINE_MAX);
	must(r == 0 || r == -EINVAL || r == -ENOMSG);
	if (r == 0) {
		must(message.seconds >= 0 && message.seconds <= GUEST_TIME_MAX);
		must(message.nanoseconds >= 0 &&
		     message.nanoseconds < 1000000000);
		must(strlen(message.token) <= HOST_TOKEN_MAX);
		mix(&heard->hash, &message, sizeof(message));
	}
	mix(&heard->hash, line, strlen(line));
	mix(&heard->hash, &cut, sizeof(cut));
	outbox_add(&heard->box, cut ? OUTBOX_EVENT : OUTBOX_CHATTER, line);
}

static uint64_t run(const uint8_t *data, size_t size, size_t piece)
{
	struct line_reader reader = { 0 };
	struct heard heard = { 0 };
	const char *line;
	size_t len;

	outbox_init(&heard.box);
	for (size_t at = 0; at < size; at += piece) {
		size_t n = size - at < piece ? size - at : piece;

		line_reader_push(&reader, (const char *)data + at, n, hear,
				 &heard);
	}
	line_reader_end(&reader, hear, &heard);

	must(heard.box.lines <= 2 * OUTBOX_LINES);
	must(heard.box.bytes <= 2 * OUTBOX_BYTES);
	while ((line = outbox_peek(&heard.box, &len))) {
		must(len > 0 && len <= GUEST_LINE_MAX);
		must(memchr(line, '\n', len) == line + len - 1);
		outbox_pop(&heard.box);
	}
	must(heard.box.lines == 0 && heard.box.bytes == 0);
	return heard.hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	must(run(data, size, size + 1) == run(data, size, 1));
	return 0;
}
