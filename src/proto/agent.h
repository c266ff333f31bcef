/*
 * The host's end of the agent protocol of docs/guest-protocol.md: a strict
 * decoder of the guest's lines, an encoder of ours. No I/O.
 */
#pragma once

#include <stdbool.h>
#include <netinet/in.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "proto/buffer.h"

/* Longest line with its LF, in bytes. */
#define AGENT_LINE_MAX 1024
#define AGENT_PROTOCOL_VERSION 1
#define AGENT_TOKEN_MAX 32

/* Longest host name with its terminator (RFC 1035, 2.3.4). */
#define AGENT_NAME_MAX 254
#define AGENT_ADDRESSES_MAX 8 /* of one name */

enum agent_kind {
	AGENT_KIND_UNKNOWN, /* a word we do not know: to be ignored */
	AGENT_KIND_HELLO,
	AGENT_KIND_STAGE,
	AGENT_KIND_STATE_DISK,
	AGENT_KIND_TOR,
	AGENT_KIND_TOR_EXIT,
	AGENT_KIND_TRANSPORT,
	AGENT_KIND_TRANSPORT_EXIT,
	AGENT_KIND_TLS, /* the TLS client for the proxy */
	AGENT_KIND_TLS_EXIT,
	AGENT_KIND_RESOLVED,
	AGENT_KIND_UNRESOLVED,
	AGENT_KIND_LOOKED_UP,
	AGENT_KIND_MEMORY,
	AGENT_KIND_PONG,
	AGENT_KIND_CLOCK,
	AGENT_KIND_WARNING,
	AGENT_KIND_ERROR,
	AGENT_KIND_COUNT,
};

enum agent_stage {
	AGENT_STAGE_MOUNTS,
	AGENT_STAGE_MODULES,
	AGENT_STAGE_CONFIG,
	AGENT_STAGE_NETWORK,
	AGENT_STAGE_FIREWALL,
	AGENT_STAGE_STATE_DISK,
	AGENT_STAGE_CLOCK,
	AGENT_STAGE_LOCKDOWN,
	AGENT_STAGE_TOR_START,
	AGENT_STAGE_READY,
	AGENT_STAGE_COUNT,
};

/* "mounts", ...; the name is also the protocol's word. */
const char *agent_stage_name(enum agent_stage stage);
int agent_stage_from_name(const char *name); /* or -EINVAL */

struct agent_message {
	enum agent_kind kind;
	uint64_t ms;            /* guest's CLOCK_BOOTTIME; all but PONG */
	uint32_t version;       /* HELLO */
	enum agent_stage stage; /* STAGE */
	bool usable;            /* STATE_DISK */
	/* TOR_EXIT, TRANSPORT_EXIT, TLS_EXIT: */
	bool signaled;   /* number is a signal */
	uint32_t number; /* exit code or signal */
	uint32_t count;  /* how many in this boot */

	char name[AGENT_NAME_MAX]; /* RESOLVED, UNRESOLVED */
	struct in6_addr addresses[AGENT_ADDRESSES_MAX]; /* RESOLVED */
	size_t n_addresses;
	bool ok;                /* LOOKED_UP: all names were found */
	uint64_t total_kib;     /* MEMORY */
	uint64_t available_kib; /* MEMORY */
	int64_t offset_ms;      /* CLOCK */
	/* STATE_DISK, UNRESOLVED: reason; TOR, TRANSPORT, TLS, WARNING, ERROR:
	 * text; PONG: token. Printable or '?'. */
	char text[AGENT_LINE_MAX];
};

struct agent;

struct agent *agent_new(void);
void agent_free(struct agent *a);
void agent_freep(struct agent **a);
void agent_reset(struct agent *a);

/* Takes @len received bytes. Return: 0 or -ENOMEM. */
int agent_push(struct agent *a, const void *data, size_t len);

/**
 * agent_next() - The next line of the guest
 *
 * Return: 1 with *@ret filled, 0 when more bytes are needed, -EBADMSG for a
 * malformed line (it is skipped; the caller may go on), -EMSGSIZE for one that
 * is too long (give the connection up)
 */
int agent_next(struct agent *a, struct agent_message *ret, struct error *e);

/* Append a line to @out. Return: 0, -ENOMEM; -EINVAL for a bad token. */
int agent_write_hello(struct buffer *out);
int agent_write_time(struct buffer *out, const struct timespec *now);
int agent_write_ping(struct buffer *out, const char *token);
int agent_write_poweroff(struct buffer *out);
int agent_write_admitted(struct buffer *out);
int agent_write_resolvers(struct buffer *out, const struct in6_addr *resolvers,
			  size_t n);
