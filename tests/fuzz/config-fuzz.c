/* Configuration text: parsed, and what is accepted renders and reads back; what
 * is a country in it is one. */
#include <stdint.h>
#include <string.h>

#include "config/config.h"
#include "config/countries.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int look_at_country(void *userdata, const char *key, const char *code)
{
	if (strncmp(key, "tor.", 4) != 0 || strlen(code) != 2 ||
	    (strcmp(code, "??") != 0 &&
	     strspn(code, "abcdefghijklmnopqrstuvwxyz") != 2))
		abort();
	++*(int *)userdata;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error e = ERROR_NULL(e);
	int n_countries = 0;
	struct config *cfg = NULL, *again = NULL;
	char *text, *second;

	if (config_parse("fuzz", (const char *)data, size, &cfg, &e) < 0) {
		if (e.code >= 0 || e.text[0] == '\0')
			abort();
		for (const char *s = e.text; *s; s++)
			if (*s > 0 && *s < 0x20)
				abort();
		return 0;
	}
	text = config_render(cfg, true);
	if (!text || config_parse("again", text, strlen(text), &again, &e) < 0)
		abort();
	second = config_render(again, true);
	if (!second || strcmp(text, second) != 0)
		abort();
	if (config_each_country(cfg, look_at_country, &n_countries) != 0 ||
	    (n_countries > 0 && !config_needs_geoip(cfg)))
		abort();
	free(second);
	free(text);
	config_free(again);
	config_free(cfg);
	return 0;
}
