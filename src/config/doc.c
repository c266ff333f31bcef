/* The key list of torvm.json(5), made from the field table. */
#include <string.h>

#include "config/fields.h"
#include "config/tor_options.h"

/* mdoc(7): a backslash and, at a line's start, '.' and '\'' are special. */
static void print_text(FILE *out, enum config_doc_format format,
		       const char *text)
{
	if (format == CONFIG_DOC_MARKDOWN) {
		fprintf(out, "%s", text);
		return;
	}
	if (text[0] == '.' || text[0] == '\'')
		fputs("\\&", out);
	for (const char *s = text; *s; s++) {
		if (*s == '\\')
			fputs("\\e", out);
		else if (*s == '-')
			fputs("\\-", out);
		else
			fputc(*s, out);
	}
}

/* Manual sources begin each sentence on a line of its own. */
static void print_sentences(FILE *out, enum config_doc_format format,
			    const char *text)
{
	if (format == CONFIG_DOC_MARKDOWN) {
		fprintf(out, "%s", text);
		return;
	}
	while (*text) {
		const char *end = strstr(text, ". ");
		size_t n = end ? (size_t)(end - text) + 1 : strlen(text);
		char line[400];

		snprintf(line, sizeof(line), "%.*s", (int)n, text);
		print_text(out, format, line);
		fputc('\n', out);
		text += n;
		text += strspn(text, " ");
	}
}

static const char *default_text(const struct config_field *field, char *buf,
				size_t size)
{
	bool quoted = field->type == CONFIG_TYPE_ENUM ||
		      field->type == CONFIG_TYPE_ADDR ||
		      field->type == CONFIG_TYPE_STRING;

	if (field->type == CONFIG_TYPE_LIST)
		return "[]";
	snprintf(buf, size, quoted ? "\"%s\"" : "%s", field->def);
	return buf;
}

static void print_field(FILE *out, enum config_doc_format format,
			const struct config_field *field)
{
	char allowed[200], def[64];

	config_field_allowed(field, allowed, sizeof(allowed));
	if (format == CONFIG_DOC_MAN) {
		fprintf(out, ".It Cm %s.%s\n", field->section, field->name);
		print_sentences(out, format, field->doc);
		fputs(".br\nAllowed: ", out);
		print_text(out, format, allowed);
		fputs(".\n.br\nDefault: ", out);
		print_text(out, format, default_text(field, def, sizeof(def)));
		fputs("\n", out);
	} else {
		fprintf(out, "| `%s.%s` | %s | `%s` | ", field->section,
			field->name, allowed,
			default_text(field, def, sizeof(def)));
		print_sentences(out, format, field->doc);
		fputs(" |\n", out);
	}
}

void config_print_doc(FILE *out, enum config_doc_format format)
{
	bool man = format == CONFIG_DOC_MAN;
	const char *name;

	fputs(man ? ".Bl -tag -width indent\n"
		  : "| key | allowed | default | meaning |\n|---|---|---|---|\n",
	      out);
	for (size_t i = 0; i < config_n_fields; i++)
		print_field(out, format, &config_fields[i]);
	fputs(man ? ".El\n.Pp\nOptions that\n.Cm tor.options\naccepts:\n"
		  : "\nOptions that `tor.options` accepts: ",
	      out);
	for (size_t i = 0; (name = config_tor_option_name(i)); i++) {
		bool last = !config_tor_option_name(i + 1);

		if (man)
			fprintf(out, "%s%s\n", name, last ? "." : ",");
		else
			fprintf(out, "`%s`%s", name, last ? ".\n" : ", ");
	}
}
