/*
 * A growing byte buffer: what a codec has received and not yet taken apart, or
 * made and not yet seen written. The codecs do no I/O themselves.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/util.h"

struct buffer {
	char *data;
	size_t start;   /* first byte not yet consumed */
	size_t end;     /* one past the last byte */
	size_t size;    /* allocated */
	size_t scanned; /* bytes from start known to hold no delimiter */
};

#define BUFFER_NULL(b) ((struct buffer){ 0 })

void buffer_deinit(struct buffer *b);

/* Forgets the content, keeps the memory. */
void buffer_clear(struct buffer *b);

/* Return: 0, or -ENOMEM (nothing was appended). */
int buffer_append(struct buffer *b, const void *data, size_t len);
int buffer_append_string(struct buffer *b, const char *text);
int buffer_printf(struct buffer *b, const char *fmt, ...) _printf_(2, 3);

/**
 * buffer_peek() - Look at what is there
 * @ret_len:	How many bytes
 *
 * Return: the bytes, valid until the next change of @b; NULL when empty
 */
const char *buffer_peek(const struct buffer *b, size_t *ret_len);

/* Drops @len bytes from the front; @len is at most what buffer_peek() said. */
void buffer_consume(struct buffer *b, size_t len);

/**
 * buffer_take() - Take everything up to a delimiter
 * @delimiter:	Ends a message; not part of it
 * @max:	Longest message, in bytes
 * @ret:	The message, terminated by a NUL in the delimiter's place; valid
 *		until the next append
 *
 * Return: 1 when there is a message, 0 when more bytes are needed, -EMSGSIZE
 * when it is longer than @max (whether or not its end has arrived)
 */
int buffer_take(struct buffer *b, char delimiter, size_t max, char **ret,
		size_t *ret_len);
