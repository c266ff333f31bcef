/*
 * Tor's control protocol from the controller's side: replies and asynchronous
 * events out of bytes, commands into bytes, and the status arguments that we
 * read (control-spec). No I/O, no session: see tor/control.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/buffer.h"

/* Bounds of what a Tor may send, in bytes and lines. */
#define TORCTL_LINE_MAX (16 * 1024UL)
#define TORCTL_REPLY_MAX (256 * 1024UL)
#define TORCTL_REPLY_LINES_MAX 256

struct torctl_line {
	char *text; /* what follows the status code and separator */
	char *data; /* of a "+" line: the data, dots removed, LF; else NULL */
};

struct torctl_reply {
	int status;     /* 100..699 */
	bool async;     /* 6xx: an event, not an answer */
	size_t n_lines; /* at least 1 */
	struct torctl_line *lines;
};

struct torctl;

struct torctl *torctl_new(void);
void torctl_free(struct torctl *t);
void torctl_freep(struct torctl **t);
void torctl_reset(struct torctl *t);

/* Takes @len received bytes. Return: 0 or -ENOMEM. */
int torctl_push(struct torctl *t, const void *data, size_t len);

/**
 * torctl_next() - The next complete reply or event
 * @ret:	Valid until the next call on @t
 *
 * Return: 1 with *@ret set, 0 when more bytes are needed, or -EBADMSG,
 * -EMSGSIZE, -ENOMEM with a sentence in @e: close the connection
 */
int torctl_next(struct torctl *t, const struct torctl_reply **ret,
		struct error *e);

/**
 * torctl_command() - Append one command line
 * @fmt:	printf format of the line without its end
 *
 * Return: 0, -ENOMEM, or -EINVAL when the result holds CR, LF or NUL (nothing
 * is appended: a command cannot be smuggled in through an argument)
 */
int torctl_command(struct buffer *out, const char *fmt, ...) _printf_(2, 3);

/**
 * torctl_argument() - Find KEY=value or KEY="quoted value" in a line
 * @line:	Arguments separated by single spaces
 * @key:	Which one
 * @ret:	Unquoted value, cut to @size, always terminated
 *
 * Return: 0, -ENOENT when there is none, -EBADMSG when the line is malformed
 */
int torctl_argument(const char *line, const char *key, char *ret, size_t size);

enum torctl_severity {
	TORCTL_SEVERITY_DEBUG,
	TORCTL_SEVERITY_INFO,
	TORCTL_SEVERITY_NOTICE,
	TORCTL_SEVERITY_WARN,
	TORCTL_SEVERITY_ERR,
	TORCTL_SEVERITY_COUNT,
};

/* "DEBUG" ... "ERR", or -EINVAL. */
int torctl_severity_from_name(const char *name, size_t len);

/* Why a bootstrap is where it is; texts are cut to fit. */
struct torctl_bootstrap {
	enum torctl_severity severity; /* WARN: stuck, see warning */
	uint32_t percent;              /* 0..100 */
	char tag[32];                  /* "conn_done", "done" */
	char summary[128];             /* "Connected to a relay" */
	char warning[128];             /* "Connection refused"; "" */
	char reason[32];               /* "CONNECTREFUSED"; "" */
	char host[64];                 /* fingerprint of the relay; "" */
	char host_address[64];         /* its address:port; "" */
	uint32_t count;                /* how many problems so far */
	bool recommend_warn;           /* RECOMMENDATION=warn: tell the user */
};

/**
 * torctl_parse_bootstrap() - Parse a bootstrap phase
 * @line:	"NOTICE BOOTSTRAP PROGRESS=...", the value of
 *		GETINFO status/bootstrap-phase and the STATUS_CLIENT event
 *
 * Return: 0, -ENOENT when the line is another status, -EBADMSG
 */
int torctl_parse_bootstrap(const char *line, struct torctl_bootstrap *ret);

/**
 * torctl_parse_clock_skew() - Parse STATUS_GENERAL CLOCK_SKEW
 * @ret_seconds:	As Tor says it: positive, our clock is ahead
 * @source:	"DIRSERV:1.2.3.4:80", "CONSENSUS", ...
 *
 * Return: 0, -ENOENT when the line is another status, -EBADMSG
 */
int torctl_parse_clock_skew(const char *line, int64_t *ret_seconds,
			    char *source, size_t source_size);

/* Whether the status line (after the severity) is @action. */
bool torctl_status_is(const char *line, const char *action);
