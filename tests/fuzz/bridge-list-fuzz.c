/* Pasted bridges: parsed, and what is accepted parses to itself again. */
#include <stdint.h>
#include <string.h>

#include "config/bridge_line.h"
#include "config/bridge_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_bridge_list list = CONFIG_BRIDGE_LIST_NULL(list),
				  again = CONFIG_BRIDGE_LIST_NULL(again);
	struct error e = ERROR_NULL(e);
	int r = config_bridge_list_parse(&list, (const char *)data, size, &e);

	if (r < 0 && (e.code != r || e.text[0] == '\0'))
		abort();
	for (const char *s = e.text; *s; s++)
		if (*s > 0 && *s < 0x20)
			abort();
	for (size_t i = 0; i < list.n_lines; i++) {
		char *masked = config_bridge_mask(list.lines[i]);

		if (!masked || !strcmp(masked, "***") ||
		    config_bridge_list_parse(&again, list.lines[i],
					     strlen(list.lines[i]), &e) < 0 ||
		    strcmp(again.lines[i], list.lines[i]) != 0)
			abort();
		free(masked);
	}
	if (again.n_lines != list.n_lines || again.n_repeated != 0)
		abort();
	config_bridge_list_deinit(&again);
	config_bridge_list_deinit(&list);
	return 0;
}
