/* The status as clients see it: type Status of org.torvm.Controller. */
#pragma once

#include <jansson.h>

struct engine;

/* Return: a new object, or NULL when out of memory. */
json_t *status_object(const struct engine *e);

/* One line for a terminal: "WaitBootstrap: 45 % (Loading relays)". */
void status_line(const struct engine *e, char *ret, size_t size);
