/* The journal: what is accepted is exactly what would be written. */
#include "fuzz.h"

#include <string.h>

#include "broker/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct journal j;
	static char text[JOURNAL_SIZE_MAX];
	struct error e = ERROR_NULL(e);
	int len;

	if (journal_parse((const char *)data, size, &j, &e) < 0) {
		must(e.code < 0 && is_printable(e.text));
		return 0;
	}
	must(j.n_sysctls <= JOURNAL_SYSCTLS_MAX);
	for (size_t i = 0; i < j.n_sysctls; i++) {
		must(strncmp(j.sysctls[i].name, "net/", 4) == 0);
		must(!strstr(j.sysctls[i].name, "/../"));
	}
	/* Numbers may be written in other ways (0x, zeros); after one round
	 * the text is the canonical one. */
	len = journal_format(&j, text, sizeof(text));
	must(len > 0);
	must(journal_parse(text, (size_t)len, &j, NULL) == 0);
	return 0;
}
