/*
 * Lines: cutting a stream of bytes into them, and reading those that the host
 * sends on the agent port. Pure: no I/O.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "init/contract.h"

struct line_reader {
	char buf[GUEST_LINE_MAX];
	size_t len;
	bool overlong; /* the rest of this line is thrown away */
};

/* @line: terminated, without LF. @cut: it was longer than the buffer. */
typedef void (*line_fn)(void *userdata, char *line, bool cut);

/**
 * line_reader_push() - Take bytes in, hand out the lines they complete
 *
 * A line over GUEST_LINE_MAX bytes is handed out once, cut, when its LF comes.
 * NULs become "?". @fn may not push into the same reader.
 */
void line_reader_push(struct line_reader *reader, const char *data, size_t len,
		      line_fn fn, void *userdata);

/* Hands out an unfinished last line, if any: the stream has ended. */
void line_reader_end(struct line_reader *reader, line_fn fn, void *userdata);

enum host_message_type {
	HOST_MESSAGE_HELLO,
	HOST_MESSAGE_TIME,
	HOST_MESSAGE_PING,
	HOST_MESSAGE_POWEROFF,
	HOST_MESSAGE_ADMITTED,
	HOST_MESSAGE_RESOLVERS,
};

#define HOST_TOKEN_MAX 32

struct host_message {
	enum host_message_type type;
	int64_t seconds;  /* TIME: UTC since 1970, 0 to GUEST_TIME_MAX */
	long nanoseconds; /* TIME: 0 to 999999999 */
	char token[HOST_TOKEN_MAX + 1];                 /* PING */
	struct in6_addr resolvers[GUEST_RESOLVERS_MAX]; /* RESOLVERS */
	size_t n_resolvers;
};

/**
 * host_message_parse() - Read one line of the host
 *
 * Return: 0; -EINVAL if a known word has wrong arguments; -ENOMSG if the word
 * is not known. @ret is untouched unless 0.
 */
int host_message_parse(const char *line, struct host_message *ret);
