#include "config/builtin.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "config/bridge_line.h"

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

int config_moat_bridge(const char *args, struct config_bridge_list *list,
		       struct error *e)
{
	_cleanup_(json_decrefp) json_t *root = load();
	char line[sizeof(CONFIG_MOAT_LINE) + CONFIG_BRIDGE_LINE_MAX];

	if (!args[0])
		args = json_string_value(json_object_get(
			json_object_get(root, "moat"), "arguments"));
	if (!args)
		return error_set(e, -ENOMEM, "out of memory");
	snprintf(line, sizeof(line), CONFIG_MOAT_LINE "%s", args);
	return config_bridge_list_add(list, line, "bridge.moat", e);
}

const char *config_builtin_date(void)
{
	static char date[16];
	_cleanup_(json_decrefp) json_t *root = load();
	const char *text = json_string_value(json_object_get(root, "date"));

	str_copy(date, sizeof(date), text ? text : "unknown");
	return date;
}
