#include "daemon/lines.h"

static void emit(struct lines *l, lines_fn fn, void *userdata)
{
	if (l->len == 0)
		return;
	l->text[l->len] = '\0';
	l->len = 0;
	fn(userdata, l->text);
}

void lines_push(struct lines *l, const char *data, size_t len, lines_fn fn,
		void *userdata)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];

		if (c == '\n') {
			emit(l, fn, userdata);
			continue;
		}
		if (c == '\r')
			continue;
		if (l->len == sizeof(l->text) - 1)
			emit(l, fn, userdata);
		l->text[l->len++] = c < 0x20 || c >= 0x7f ? '?' : (char)c;
	}
}
