/* Takes a stream of bytes apart into lines of bounded length. */
#pragma once

#include <stddef.h>

#define LINES_MAX 512

struct lines {
	char text[LINES_MAX];
	size_t len;
};

/* @text: a line without its end, control characters replaced. */
typedef void (*lines_fn)(void *userdata, const char *text);

/* A line that is too long is cut into several; empty ones are left out. */
void lines_push(struct lines *l, const char *data, size_t len, lines_fn fn,
		void *userdata);
