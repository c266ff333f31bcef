/* The configuration's JSON Schema, made from the field table. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "config/fields.h"

#define DIALECT "https://json-schema.org/draft/2020-12/schema"
#define PRINTABLE_ASCII "^[ -~]*$"

static json_t *names(const struct config_field *field)
{
	json_t *array = json_array();
	const char *name;

	for (unsigned int i = 0; (name = field->value_name(i)); i++)
		json_array_append_new(array, json_string(name));
	return array;
}

/* The schema counts characters where we count bytes: what it refuses is
 * refused, and `torvm config check` is stricter. */
static json_t *text(const struct config_field *field)
{
	json_t *schema = json_pack("{s:s}", "type", "string");

	if (field->ascii)
		json_object_set_new(schema, "pattern",
				    json_string(PRINTABLE_ASCII));
	return schema;
}

static json_t *values(const struct config_field *field)
{
	json_t *schema;

	switch (field->type) {
	case CONFIG_TYPE_BOOL:
		return json_pack("{s:s, s:b}", "type", "boolean", "default",
				 strcmp(field->def, "true") == 0);
	case CONFIG_TYPE_UINT:
		return json_pack("{s:s, s:I, s:I, s:I}", "type", "integer",
				 "minimum", (json_int_t)field->min, "maximum",
				 (json_int_t)field->max, "default",
				 (json_int_t)strtoul(field->def, NULL, 10));
	case CONFIG_TYPE_ENUM:
		return json_pack("{s:o, s:s}", "enum", names(field), "default",
				 field->def);
	case CONFIG_TYPE_ADDR:
		return json_pack("{s:s, s:s, s:s}", "type", "string", "format",
				 "ipv4", "default", field->def);
	case CONFIG_TYPE_STRING:
		schema = text(field);
		json_object_set_new(schema, "maxLength",
				    json_integer(field->max));
		json_object_set_new(schema, "default", json_string(field->def));
		return schema;
	case CONFIG_TYPE_LIST:
		return json_pack("{s:s, s:o, s:I, s:[]}", "type", "array",
				 "items", text(field), "maxItems",
				 (json_int_t)field->max, "default");
	case CONFIG_TYPE_COUNT: break;
	}
	return NULL;
}

static json_t *key(const struct config_field *field)
{
	json_t *schema = values(field);
	char allowed[200], description[800];

	config_field_allowed(field, allowed, sizeof(allowed));
	snprintf(description, sizeof(description), "%s Allowed: %s.",
		 field->doc, allowed);
	json_object_set_new(schema, "description", json_string(description));
	if (field->secret)
		json_object_set_new(schema, "writeOnly", json_true());
	return schema;
}

static json_t *object(void)
{
	return json_pack("{s:s, s:b, s:{}}", "type", "object",
			 "additionalProperties", 0, "properties");
}

char *config_schema(void)
{
	json_t *root = object();
	json_t *sections = json_object_get(root, "properties");
	char *schema;

	json_object_set_new(root, "$schema", json_string(DIALECT));
	json_object_set_new(root, "title",
			    json_string("Configuration of TorVM"));
	for (size_t i = 0; i < config_n_fields; i++) {
		const struct config_field *field = &config_fields[i];
		json_t *section = json_object_get(sections, field->section);

		if (!section) {
			section = object();
			json_object_set_new(sections, field->section, section);
		}
		json_object_set_new(json_object_get(section, "properties"),
				    field->name, key(field));
	}
	schema = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	return schema;
}
