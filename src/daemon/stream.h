/*
 * A connection to one of QEMU's channel sockets that is made again whenever
 * it ends, until it is closed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "proto/buffer.h"

struct stream_connection;

/* Any may be NULL. `closed` is not called for stream_close(). */
struct stream_ops {
	void (*connected)(void *userdata);
	void (*data)(void *userdata, const char *data, size_t len);
	void (*closed)(void *userdata);
};

struct stream {
	uv_loop_t *loop;
	const struct stream_ops *ops;
	void *userdata;
	char path[64];
	uv_timer_t retry;
	struct stream_connection *connection; /* NULL: none */
	bool wanted;
	bool open;
};

/* @path: of the socket, at most 63 bytes. */
void stream_init(struct stream *s, uv_loop_t *loop, const char *path,
		 const struct stream_ops *ops, void *userdata);
/* Before the loop runs for the last time. */
void stream_deinit(struct stream *s);

/* Begins to connect; again and again until it works. Idempotent. */
void stream_open(struct stream *s);
void stream_close(struct stream *s);
/* Closes and opens: a fresh connection. */
void stream_reopen(struct stream *s);

/* Hands everything in @out to the kernel or keeps it until it can be; a peer
 * that does not read is disconnected. Nothing when not open. */
void stream_write(struct stream *s, struct buffer *out);
