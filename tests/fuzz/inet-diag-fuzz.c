/* The kernel's answer to a dump of sockets. The first byte is the sequence. */
#include "fuzz.h"

#include "proto/inet_diag.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct inet_diag_list list = { 0 };
	int r;

	if (size == 0)
		return 0;
	r = inet_diag_parse(data + 1, size - 1, data[0], 61101, &list);
	must(r <= 1);
	must(list.n <= sizeof(list.v) / sizeof(list.v[0]));
	return 0;
}
