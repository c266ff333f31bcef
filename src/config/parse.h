/* Steps of config_parse() that have a file of their own. */
#pragma once

#include "config/fields.h"

/* Where messages go: "FILE: key KEY: WHAT; allowed: ALLOWED". */
struct config_context {
	const char *file;
	struct error *e;
};

/* Return: -EINVAL. @allowed NULL: left out. */
int config_refuse(const struct config_context *ctx, const char *key,
		  const char *allowed, const char *fmt, ...) _printf_(4, 5);

/* What no single key can tell: combinations (combine.c). */
int config_check_combinations(const struct config *cfg,
			      const struct config_context *ctx);
