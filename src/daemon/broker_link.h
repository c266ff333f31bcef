/*
 * Requests to the broker and its events. One request is under way at a time;
 * the others wait in order, as the broker would make them wait anyway.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "broker/message.h"

struct engine;

/* @reply: NULL when the broker is gone. @fds are the callee's to close. */
typedef void (*broker_reply_fn)(struct engine *e,
				const struct broker_message *reply, int *fds,
				size_t n_fds, void *userdata);

struct broker_request {
	struct broker_message m;
	int fds[BROKER_MESSAGE_FDS_MAX]; /* owned */
	size_t n_fds;
	broker_reply_fn fn;
	void *userdata;
	struct broker_request *next;
};

struct broker_link {
	struct engine *engine;
	int fd;
	uv_poll_t poll;
	bool polling;
	bool sent; /* the first of the queue is under way */
	uint32_t serial;
	struct broker_request *first, **last;
};

/* @fd: the engine's end of the channel; taken over. */
int broker_link_open(struct broker_link *b, struct engine *e, int fd);
void broker_link_close(struct broker_link *b);

/**
 * broker_link_request() - Queue a request
 * @m:		type and payload; the rest is filled in
 * @fds:	@n_fds descriptors, taken over whatever happens
 *
 * Never blocks. A failure to send is a failure of the broker: engine_abandon().
 */
void broker_link_request(struct broker_link *b, const struct broker_message *m,
			 const int *fds, size_t n_fds, broker_reply_fn fn,
			 void *userdata);
