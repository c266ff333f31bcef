/*
 * QMP, the QEMU Machine Protocol, from the client's side (QEMU's
 * docs/interop/qmp-spec.rst). Bytes in, messages out; no I/O.
 *
 *	qmp_push(q, bytes from the socket)
 *	while (qmp_next(q, &m) > 0) { ... }
 *	write what buffer_peek(qmp_output(q)) shows, then buffer_consume() it
 *
 * The capabilities negotiation is done inside: commands queued before it is
 * over go out after it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/buffer.h"

/* Longest message accepted, in bytes. */
#define QMP_MESSAGE_MAX (256 * 1024UL)

enum qmp_command {
	QMP_COMMAND_QUERY_STATUS,
	QMP_COMMAND_SYSTEM_POWERDOWN,
	QMP_COMMAND_QUIT,
	QMP_COMMAND_COUNT,
};

enum qmp_event {
	QMP_EVENT_OTHER, /* one that nobody of ours asks about */
	QMP_EVENT_SHUTDOWN,
	QMP_EVENT_POWERDOWN,
	QMP_EVENT_RESET,
	QMP_EVENT_STOP,
	QMP_EVENT_RESUME,
	QMP_EVENT_GUEST_PANICKED,
	QMP_EVENT_COUNT,
};

enum qmp_kind {
	QMP_KIND_READY,  /* negotiation is over: version is set */
	QMP_KIND_RETURN, /* of command `id` */
	QMP_KIND_ERROR,  /* of command `id`; 0: of none of ours */
	QMP_KIND_EVENT,
};

/* Texts are cut to fit and hold no control characters. */
struct qmp_message {
	enum qmp_kind kind;
	uint32_t id;              /* as qmp_send() gave it */
	enum qmp_command command; /* RETURN, ERROR with an id */
	enum qmp_event event;
	char version[32]; /* READY: "10.0.2" */
	bool running;     /* QUERY_STATUS: the vCPUs run */
	char status[32];  /* QUERY_STATUS: "running", "paused", ... */
	char event_name[48];
	bool guest;      /* SHUTDOWN, RESET: the guest did it */
	char reason[48]; /* SHUTDOWN, RESET: "guest-shutdown", ... */
	char error_class[48];
	char error_text[240];
};

struct qmp;

const char *qmp_command_name(enum qmp_command command);

/* Return: a new session, freed by qmp_free(); NULL when out of memory. */
struct qmp *qmp_new(void);
void qmp_free(struct qmp *q);
void qmp_freep(struct qmp **q);

/* Back to a fresh connection: both buffers and all commands are forgotten. */
void qmp_reset(struct qmp *q);

/* Takes @len received bytes. Return: 0 or -ENOMEM. */
int qmp_push(struct qmp *q, const void *data, size_t len);

/**
 * qmp_next() - The next message in what was received
 *
 * Return: 1 with *@ret filled, 0 when more bytes are needed, or -EBADMSG,
 * -EMSGSIZE, -ENOMEM with a sentence in @e: the peer is no QMP server or
 * broken, and the connection must be closed
 */
int qmp_next(struct qmp *q, struct qmp_message *ret, struct error *e);

/**
 * qmp_send() - Queue a command
 * @ret_id:	What its reply will carry; NULL allowed
 *
 * Return: 0, -EAGAIN when too many commands wait for their reply, -ENOMEM
 */
int qmp_send(struct qmp *q, enum qmp_command command, uint32_t *ret_id);

/* Bytes to be written to QEMU. */
struct buffer *qmp_output(struct qmp *q);
