/* The countries, {de}, that a configuration names. Pure. */
#pragma once

#include <stdbool.h>

#include "config/config.h"

#define CONFIG_COUNTRY_SIZE 3 /* "de" and its end */

/* What the VM gets beside vm.memory_mb, in MiB, where the list of countries
 * goes into it: the list, 10, and what Tor makes of it (decisions/0007). */
#define CONFIG_GEOIP_MEMORY_MB 32

/**
 * config_is_country() - Whether @item of a list of relays is a country
 *
 * "{de}", in any case, as Tor takes it; or "{??}": not known.
 */
bool config_is_country(const char *item);

/**
 * config_each_country() - Call @fn for each country that a configuration names
 * @fn:		Gets the key and the code, in small letters; what it returns
 *		other than 0 ends the walk
 *
 * Looks where tor.options can hold relays, too. Return: what @fn did, or 0
 */
int config_each_country(const struct config *cfg,
			int (*fn)(void *userdata, const char *key,
				  const char code[CONFIG_COUNTRY_SIZE]),
			void *userdata);

/* Whether Tor has to know which address is in which country: because one is
 * named, or tor.geoip asks for it. Without the list Tor matches a country with
 * no relay at all: ExitNodes {de} never connects, ExcludeNodes {de} excludes
 * nobody. */
bool config_needs_geoip(const struct config *cfg);
