/*
 * Theory of operation
 *
 * PID 1 must never wait for the host: a controller that is stopped in a
 * debugger must not stop Tor's log pipe, and with it Tor. So what is said waits
 * here, in a list of lines with an upper bound. What Tor says again and again
 * gives way first; boot stages, exits and answers stay.
 */
#include "init/outbox.h"

#include <stdlib.h>
#include <string.h>

struct outbox_line {
	struct outbox_line *next;
	enum outbox_class class;
	size_t len;
	char text[];
};

void outbox_init(struct outbox *box)
{
	*box = (struct outbox){ .last = &box->first };
}

void outbox_clear(struct outbox *box)
{
	while (box->first)
		outbox_pop(box);
}

static void unlink_line(struct outbox *box, struct outbox_line **at)
{
	struct outbox_line *line = *at;

	*at = line->next;
	if (box->last == &line->next)
		box->last = at;
	box->lines--;
	box->bytes -= line->len;
	free(line);
}

/* Return: 0 if one line of chatter went, -1 if there was none */
static int drop_chatter(struct outbox *box)
{
	for (struct outbox_line **at = &box->first; *at; at = &(*at)->next) {
		if ((*at)->class == OUTBOX_CHATTER) {
			unlink_line(box, at);
			box->lost++;
			return 0;
		}
	}
	return -1;
}

void outbox_add(struct outbox *box, enum outbox_class class, const char *text)
{
	size_t len = strnlen(text, GUEST_LINE_MAX - 1);
	size_t factor = class == OUTBOX_EVENT ? 2 : 1;
	struct outbox_line *line;

	while (box->lines >= OUTBOX_LINES || box->bytes + len > OUTBOX_BYTES)
		if (drop_chatter(box) < 0)
			break;
	if (box->lines >= OUTBOX_LINES * factor ||
	    box->bytes + len > OUTBOX_BYTES * factor) {
		box->lost++;
		return;
	}

	line = malloc(sizeof(*line) + len + 1);
	if (!line) {
		box->lost++;
		return;
	}
	line->next = NULL;
	line->class = class;
	line->len = len + 1;
	for (size_t i = 0; i < len; i++)
		line->text[i] = (unsigned char)text[i] < ' ' || text[i] == 127
					? '?'
					: text[i];
	line->text[len] = '\n';
	*box->last = line;
	box->last = &line->next;
	box->lines++;
	box->bytes += line->len;
}

const char *outbox_peek(const struct outbox *box, size_t *ret_len)
{
	if (!box->first)
		return NULL;
	*ret_len = box->first->len;
	return box->first->text;
}

void outbox_pop(struct outbox *box)
{
	if (box->first)
		unlink_line(box, &box->first);
}

unsigned int outbox_take_lost(struct outbox *box)
{
	unsigned int lost = box->lost;

	box->lost = 0;
	return lost;
}
