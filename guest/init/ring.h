/* A bounded queue of bytes between two file descriptors. */
#pragma once

#include <stddef.h>

#define RING_SIZE 16384 /* bytes; a power of two */

struct ring {
	char data[RING_SIZE];
	size_t head; /* bytes ever put in */
	size_t tail; /* bytes ever taken out */
};

static inline size_t ring_used(const struct ring *ring)
{
	return ring->head - ring->tail;
}

static inline size_t ring_room(const struct ring *ring)
{
	return RING_SIZE - ring_used(ring);
}

static inline void ring_clear(struct ring *ring)
{
	ring->head = ring->tail = 0;
}

/* Where to put up to *ret_len bytes in one piece, then ring_put() says how
 * many came. */
static inline char *ring_space(struct ring *ring, size_t *ret_len)
{
	size_t at = ring->head % RING_SIZE;
	size_t to_end = RING_SIZE - at, room = ring_room(ring);

	*ret_len = room < to_end ? room : to_end;
	return ring->data + at;
}

static inline void ring_put(struct ring *ring, size_t len)
{
	ring->head += len;
}

/* The oldest *ret_len bytes that lie in one piece, then ring_take(). */
static inline const char *ring_content(const struct ring *ring, size_t *ret_len)
{
	size_t at = ring->tail % RING_SIZE;
	size_t to_end = RING_SIZE - at, used = ring_used(ring);

	*ret_len = used < to_end ? used : to_end;
	return ring->data + at;
}

static inline void ring_take(struct ring *ring, size_t len)
{
	ring->tail += len;
}

/* From a descriptor, to a descriptor, both non-blocking. Return: 1 if bytes
 * moved, 0 if none could, -1 at the stream's end */
int ring_fill(struct ring *ring, int fd);
int ring_drain(struct ring *ring, int fd);
