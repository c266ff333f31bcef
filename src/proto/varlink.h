/*
 * Varlink's wire format (varlink.org/Method-Call), for a server and for a
 * client: JSON objects, each ended by a NUL byte. Bytes in, messages out; no
 * I/O, no dispatching.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/error.h"
#include "proto/buffer.h"

/* Longest message accepted or made, in bytes. */
#define VARLINK_MESSAGE_MAX (1024 * 1024UL)

/* Errors that every server may answer with; parameters in parentheses. */
#define VARLINK_ERROR_INTERFACE "org.varlink.service.InterfaceNotFound"
#define VARLINK_ERROR_METHOD "org.varlink.service.MethodNotFound"
#define VARLINK_ERROR_PARAMETER "org.varlink.service.InvalidParameter"
#define VARLINK_ERROR_EXPECTED_MORE "org.varlink.service.ExpectedMore"

enum varlink_role {
	VARLINK_ROLE_SERVER, /* receives calls */
	VARLINK_ROLE_CLIENT, /* receives replies */
};

struct varlink_message {
	json_t *parameters; /* an object, never NULL; owned */
	/* Calls. */
	char *interface; /* "org.torvm.Controller"; owned */
	char *method;    /* "GetStatus"; owned */
	bool more;       /* several replies are welcome */
	bool oneway;     /* no reply is wanted */
	bool upgrade;
	/* Replies. */
	char *error;    /* NULL on success; owned */
	bool continues; /* another reply follows */
};

#define VARLINK_MESSAGE_NULL(m) ((struct varlink_message){ 0 })
void varlink_message_deinit(struct varlink_message *m);

struct varlink;

struct varlink *varlink_new(enum varlink_role role);
void varlink_free(struct varlink *v);
void varlink_freep(struct varlink **v);

/* Takes @len received bytes. Return: 0 or -ENOMEM. */
int varlink_push(struct varlink *v, const void *data, size_t len);

/**
 * varlink_next() - The next message in what was received
 * @ret:	Overwritten; to be freed by varlink_message_deinit()
 *
 * Return: 1 with *@ret filled, 0 when more bytes are needed, or -EBADMSG,
 * -EMSGSIZE, -ENOMEM with a sentence in @e: close the connection
 */
int varlink_next(struct varlink *v, struct varlink_message *ret,
		 struct error *e);

enum {
	VARLINK_CALL_MORE = 1 << 0,
	VARLINK_CALL_ONEWAY = 1 << 1,
};

/**
 * varlink_write_call() - Append a call
 * @method:	"org.torvm.Controller.GetStatus"
 * @parameters:	An object, borrowed; NULL: none
 * @flags:	VARLINK_CALL_*
 *
 * Return: 0, -EMSGSIZE over VARLINK_MESSAGE_MAX, -ENOMEM
 */
int varlink_write_call(struct buffer *out, const char *method,
		       json_t *parameters, unsigned int flags);

/* Appends a reply; @continues: another one will follow. As above. */
int varlink_write_reply(struct buffer *out, json_t *parameters, bool continues);

/* Appends an error reply. As above. */
int varlink_write_error(struct buffer *out, const char *name,
			json_t *parameters);

/* Appends one of the standard errors with its one parameter: the interface,
 * method or parameter that it is about. */
int varlink_write_service_error(struct buffer *out, const char *name,
				const char *about);
