#include <arpa/inet.h>
#include <jansson.h>
#include <string.h>

#include "config/fields.h"

#define HIDDEN "***"

static json_t *render_list(const struct config *cfg,
			   const struct config_field *field, bool hide)
{
	char **list = *(char **const *)config_field_in(cfg, field);
	size_t n = *(const size_t *)((const char *)cfg + field->count_offset);
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(
			    array, json_string(hide ? HIDDEN : list[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *render_field(const struct config *cfg,
			    const struct config_field *field, bool secrets)
{
	const void *at = config_field_in(cfg, field);
	bool hide = field->secret && !secrets;
	char addr[INET_ADDRSTRLEN];
	const char *text;

	switch (field->type) {
	case CONFIG_TYPE_BOOL: return json_boolean(*(const bool *)at);
	case CONFIG_TYPE_UINT: return json_integer(*(const uint32_t *)at);
	case CONFIG_TYPE_ENUM:
		return json_string(
			field->value_name(*(const unsigned int *)at));
	case CONFIG_TYPE_ADDR:
		return json_string(inet_ntop(AF_INET, at, addr, sizeof(addr)));
	case CONFIG_TYPE_STRING:
		text = *(char *const *)at;
		return json_string(hide && text[0] ? HIDDEN : text);
	case CONFIG_TYPE_LIST: return render_list(cfg, field, hide);
	case CONFIG_TYPE_COUNT: break;
	}
	return NULL;
}

char *config_render(const struct config *cfg, bool secrets)
{
	json_t *root = json_object(), *section = NULL;
	char *text = NULL;

	for (size_t i = 0; root && i < config_n_fields; i++) {
		const struct config_field *field = &config_fields[i];
		int r = 0;

		section = json_object_get(root, field->section);
		if (!section) {
			section = json_object();
			r = json_object_set_new(root, field->section, section);
		}
		if (r < 0 || json_object_set_new(
				     section, field->name,
				     render_field(cfg, field, secrets)) < 0) {
			json_decref(root);
			root = NULL;
		}
	}
	if (root)
		text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	return text;
}
