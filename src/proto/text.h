/* Text from a peer that is not trusted, made fit for a log line or JSON. */
#pragma once

#include <stddef.h>

/* Copies into a buffer of @size bytes, cut to fit, always terminated; what is
 * not printable ASCII becomes '?'. */
void text_copy(char *dst, size_t size, const char *src);

/* The same in place, for @len bytes. */
void text_clean(char *text, size_t len);
