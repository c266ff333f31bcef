#include "config/countries.h"

#include <ctype.h>
#include <string.h>

#include "base/util.h"

#define ITEM_LEN 4 /* "{de}" */

static bool is_country(const char *item, size_t len)
{
	if (len != ITEM_LEN || item[0] != '{' || item[3] != '}')
		return false;
	return (isalpha((unsigned char)item[1]) &&
		isalpha((unsigned char)item[2])) ||
	       (item[1] == '?' && item[2] == '?');
}

bool config_is_country(const char *item)
{
	return is_country(item, strlen(item));
}

/* @list: items between commas and spaces. */
static int walk(const char *list, const char *key,
		int (*fn)(void *, const char *, const char *), void *userdata)
{
	for (size_t len; *list; list += len) {
		int r;

		list += strspn(list, ", ");
		len = strcspn(list, ", ");
		if (!is_country(list, len))
			continue;
		r = fn(userdata, key,
		       (const char[CONFIG_COUNTRY_SIZE]){
			       (char)tolower((unsigned char)list[1]),
			       (char)tolower((unsigned char)list[2]),
		       });
		if (r != 0)
			return r;
	}
	return 0;
}

int config_each_country(const struct config *cfg,
			int (*fn)(void *userdata, const char *key,
				  const char code[CONFIG_COUNTRY_SIZE]),
			void *userdata)
{
	const struct {
		const char *key, *list;
	} lists[] = {
		{ "tor.exit_nodes", cfg->tor.exit_nodes },
		{ "tor.exclude_nodes", cfg->tor.exclude_nodes },
		{ "tor.exclude_exit_nodes", cfg->tor.exclude_exit_nodes },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(lists) && r == 0; i++)
		r = walk(lists[i].list, lists[i].key, fn, userdata);
	/* No option's name looks like a country. */
	for (size_t i = 0; i < cfg->tor.n_options && r == 0; i++)
		r = walk(cfg->tor.options[i], "tor.options", fn, userdata);
	return r;
}

static int found(void *userdata, const char *key, const char *code)
{
	return 1;
}

bool config_needs_geoip(const struct config *cfg)
{
	/* Means {??}. */
	static const char unknown[] = "GeoIPExcludeUnknown ";

	for (size_t i = 0; i < cfg->tor.n_options; i++)
		if (!strncasecmp(cfg->tor.options[i], unknown, strlen(unknown)))
			return true;
	return cfg->tor.geoip || config_each_country(cfg, found, NULL) != 0;
}
