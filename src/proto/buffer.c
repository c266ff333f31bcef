#include "proto/buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

/* Memory kept by an emptied buffer; a rare large message gives its own back. */
#define KEEP_MAX (64 * 1024UL)

void buffer_deinit(struct buffer *b)
{
	free(b->data);
	*b = BUFFER_NULL(*b);
}

void buffer_clear(struct buffer *b)
{
	if (b->size > KEEP_MAX) {
		buffer_deinit(b);
		return;
	}
	b->start = b->end = b->scanned = 0;
}

/* Room for @len more bytes and a NUL behind them. */
static int reserve(struct buffer *b, size_t len)
{
	size_t used = b->end - b->start, size;
	char *data;

	if (len >= SIZE_MAX / 4 - used)
		return -ENOMEM;
	if (b->end + len < b->size)
		return 0;
	if (b->start > 0) {
		memmove(b->data, b->data + b->start, used);
		b->start = 0;
		b->end = used;
		if (used + len < b->size)
			return 0;
	}
	for (size = b->size ? b->size : 1024; size <= used + len;)
		size *= 2;
	data = realloc(b->data, size);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->size = size;
	return 0;
}

int buffer_append(struct buffer *b, const void *data, size_t len)
{
	int r;

	r = reserve(b, len);
	if (r < 0)
		return r;
	if (len > 0)
		memcpy(b->data + b->end, data, len);
	b->end += len;
	return 0;
}

int buffer_append_string(struct buffer *b, const char *text)
{
	return buffer_append(b, text, strlen(text));
}

int buffer_printf(struct buffer *b, const char *fmt, ...)
{
	va_list ap, again;
	int len, r;

	va_start(ap, fmt);
	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	r = len < 0 ? -ENOMEM : reserve(b, (size_t)len);
	if (r == 0) {
		vsnprintf(b->data + b->end, (size_t)len + 1, fmt, again);
		b->end += (size_t)len;
	}
	va_end(again);
	va_end(ap);
	return r;
}

const char *buffer_peek(const struct buffer *b, size_t *ret_len)
{
	*ret_len = b->end - b->start;
	return *ret_len > 0 ? b->data + b->start : NULL;
}

void buffer_consume(struct buffer *b, size_t len)
{
	b->start += len;
	b->scanned = b->scanned > len ? b->scanned - len : 0;
	if (b->start == b->end)
		buffer_clear(b);
}

int buffer_take(struct buffer *b, char delimiter, size_t max, char **ret,
		size_t *ret_len)
{
	size_t len = b->end - b->start;
	char *from, *found;

	if (len == 0)
		return 0;
	from = b->data + b->start;
	found = memchr(from + b->scanned, delimiter, len - b->scanned);
	if (!found) {
		b->scanned = len;
		return len > max ? -EMSGSIZE : 0;
	}
	*ret_len = (size_t)(found - from);
	if (*ret_len > max)
		return -EMSGSIZE;
	*found = '\0';
	*ret = from;
	b->start += *ret_len + 1;
	b->scanned = 0;
	return 1;
}
