/* A transport's SOCKS replies, the first byte of the input choosing which:
 * never more is read than was asked for, and it comes to an end. */
#include "fuzz.h"

#include <errno.h>

#include "init/socks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum socks_step step;
	size_t len = 0;

	if (size == 0)
		return 0;
	step = data[0] % SOCKS_STEP_COUNT;
	for (;;) {
		int missing = socks_reply(step, data + 1, len);

		must(missing >= 0 || missing == -EBADMSG ||
		     missing == -EACCES || missing == -ECONNREFUSED);
		if (missing <= 0)
			break;
		must(len + (size_t)missing <= SOCKS_REPLY_MAX);
		if (len + (size_t)missing > size - 1)
			break;
		len += (size_t)missing;
	}
	return 0;
}
