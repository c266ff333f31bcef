/*
 * The field table, private to src/config. Everything that has to know the keys
 * walks it: defaults, parser, renderer, the manual's key list.
 */
#pragma once

#include "config/config.h"

enum config_type {
	CONFIG_TYPE_BOOL,
	CONFIG_TYPE_UINT,   /* uint32_t between min and max */
	CONFIG_TYPE_ENUM,   /* an unsigned int, by name */
	CONFIG_TYPE_ADDR,   /* struct in_addr */
	CONFIG_TYPE_STRING, /* char *, at most max bytes */
	CONFIG_TYPE_LIST,   /* char ** and size_t, at most max entries */
	CONFIG_TYPE_COUNT,
};

/* Why a value was refused. */
struct config_problem {
	char what[240];
	const char *allowed; /* instead of the field's own, if not NULL */
};

/* Fills @p. Return: -EINVAL. @allowed must be a constant. */
int config_problem_set(struct config_problem *p, const char *allowed,
		       const char *fmt, ...) _printf_(3, 4);

struct config_field {
	const char *section;
	const char *name; /* within the section */
	enum config_type type;
	size_t offset;       /* in struct config */
	size_t count_offset; /* of the number of entries (LIST) */
	uint32_t min, max;
	bool ascii;  /* goes into the torrc or a log: printable ASCII only */
	bool secret; /* rendered as "***" */
	const char *(*value_name)(unsigned int value); /* ENUM; NULL ends */
	int (*value_from_name)(const char *name);      /* ENUM; or -EINVAL */
	/* STRING, and each entry of a LIST; never called with "" */
	int (*check)(const char *value, struct config_problem *p);
	const char *def;     /* default, as text; lists are empty */
	const char *allowed; /* for messages and the manual */
	const char *doc;     /* sentences for the manual */
};

extern const struct config_field config_fields[];
extern const size_t config_n_fields;

/* Longest "section.name" with its terminator. */
#define CONFIG_KEY_MAX 48

/* Where @field lives in @cfg. */
static inline void *config_field_at(struct config *cfg,
				    const struct config_field *field)
{
	return (char *)cfg + field->offset;
}

static inline const void *config_field_in(const struct config *cfg,
					  const struct config_field *field)
{
	return (const char *)cfg + field->offset;
}

/* Sets a field from its default. Return: 0 or -ENOMEM. */
int config_field_set_default(struct config *cfg,
			     const struct config_field *field);

/* "a whole number from 96 to 4096": what the field accepts, for people. */
void config_field_allowed(const struct config_field *field, char *buf,
			  size_t size);

/* Frees what a field owns and leaves NULL or 0. */
void config_field_clear(struct config *cfg, const struct config_field *field);
