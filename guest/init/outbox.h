/*
 * Lines on their way to the host, bounded in number and bytes. Pure: no I/O.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "init/contract.h"

/* Lines kept while the host does not read. */
#define OUTBOX_LINES 256
#define OUTBOX_BYTES 65536U

enum outbox_class {
	OUTBOX_EVENT,   /* happens a bounded number of times: kept */
	OUTBOX_CHATTER, /* Tor's log, memory: the oldest makes room */
};

struct outbox_line;

struct outbox {
	struct outbox_line *first;
	struct outbox_line **last;
	unsigned int lines;
	size_t bytes;
	unsigned int lost; /* chatter dropped since outbox_take_lost() */
};

void outbox_init(struct outbox *box);
void outbox_clear(struct outbox *box);

/**
 * outbox_add() - Append a line
 * @text:	Without LF; cut to GUEST_LINE_MAX - 1 bytes; control characters
 *		become "?"
 *
 * When the box is full, the oldest chatter goes. If there is none, chatter is
 * not taken in, and an event only up to twice the bounds.
 */
void outbox_add(struct outbox *box, enum outbox_class class, const char *text);

/* The oldest line, LF included, valid until the next call; NULL: none. */
const char *outbox_peek(const struct outbox *box, size_t *ret_len);
void outbox_pop(struct outbox *box);

/* Return: how many lines were lost since the last call. */
unsigned int outbox_take_lost(struct outbox *box);
