/*
 * Bounds how much the VM is listened to: a guest that was taken over must not
 * drown the log or keep the engine busy.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RATE_LIMIT_WINDOW_MS 60000
#define RATE_LIMIT_LINES 600 /* in one window */

struct rate_limit {
	uint64_t began_ms;
	uint32_t n;
	uint32_t dropped; /* in the window that has ended last */
};

/**
 * rate_limit_allows() - Whether one more line may be taken now
 * @now_ms:	Of a clock that does not jump
 * @ret_dropped: How many lines were dropped before this one, to be told once
 */
static inline bool rate_limit_allows(struct rate_limit *r, uint64_t now_ms,
				     uint32_t *ret_dropped)
{
	*ret_dropped = 0;
	if (r->n == 0 || now_ms - r->began_ms >= RATE_LIMIT_WINDOW_MS) {
		*ret_dropped = r->dropped;
		*r = (struct rate_limit){ .began_ms = now_ms };
	}
	if (r->n >= RATE_LIMIT_LINES) {
		r->dropped++;
		return false;
	}
	r->n++;
	return true;
}
