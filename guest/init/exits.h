/*
 * How often Tor may end before the guest gives up. Pure: the caller has the
 * clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define EXITS_LIMIT 3
#define EXITS_WINDOW_MS 60000
#define EXITS_FIRST_PAUSE_MS 250 /* doubles with each exit in the window */

struct exits {
	unsigned int count; /* in this boot */
	int64_t at_ms[EXITS_LIMIT - 1];
};

/**
 * exits_add() - Note that Tor ended
 * @now_ms:	Monotonic
 *
 * Return: milliseconds to wait before the next start, or -1 if this was the
 * EXITS_LIMIT-th exit within EXITS_WINDOW_MS
 */
static inline int exits_add(struct exits *exits, int64_t now_ms)
{
	unsigned int earlier = 0;

	for (unsigned int i = 0; i < EXITS_LIMIT - 1 && i < exits->count; i++)
		if (now_ms - exits->at_ms[i] < EXITS_WINDOW_MS)
			earlier++;
	exits->at_ms[exits->count++ % (EXITS_LIMIT - 1)] = now_ms;
	if (earlier == EXITS_LIMIT - 1)
		return -1;
	return EXITS_FIRST_PAUSE_MS << earlier;
}
