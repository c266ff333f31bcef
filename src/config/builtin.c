#include "config/builtin.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static json_t *load(void)
{
	return json_loadb(config_builtin_json, config_builtin_json_len, 0,
			  NULL);
}

int config_builtin_bridges(enum config_transport transport,
			   struct config_bridge_list *list, struct error *e)
{
	_cleanup_(json_decrefp) json_t *root = load();
	const char *name = config_transport_name(transport);
	json_t *lines = json_object_get(json_object_get(root, "bridges"), name);
	size_t i;
	json_t *line;

	if (!root)
		return error_set(e, -ENOMEM, "out of memory");
	if (json_array_size(lines) == 0)
		return error_set(e, -ENOENT,
				 "there are no built-in bridges for \"%s\": "
				 "they are handed out one by one; \"torvm "
				 "bridges request\" asks for some, \"torvm "
				 "bridges add\" takes yours",
				 name);
	json_array_foreach (lines, i, line) {
		int r = config_bridge_list_add(list, json_string_value(line),
					       "built-in bridge", e);

		if (r < 0)
			return r;
	}
	return 0;
}

const char *config_builtin_date(void)
{
	static char date[16];
	_cleanup_(json_decrefp) json_t *root = load();
	const char *text = json_string_value(json_object_get(root, "date"));

	str_copy(date, sizeof(date), text ? text : "unknown");
	return date;
}
