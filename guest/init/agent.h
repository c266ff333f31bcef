/* The agent port: what the guest says to the controller, and hears from it. */
#pragma once

#include <stdbool.h>

#include "base/util.h"
#include "init/message.h"
#include "init/outbox.h"

/* Called for each valid message of the host. */
typedef void (*agent_message_fn)(void *userdata,
				 const struct host_message *message);

struct agent {
	int fd; /* -1: not open yet; lines wait */
	struct outbox out;
	struct line_reader in;
	agent_message_fn fn;
	void *userdata;
	char stage[64];       /* the last `stage` line */
	char state_disk[256]; /* the last `state-disk` line */
};

/* Queues the first hello. @fn may queue lines, but must not pump. */
void agent_init(struct agent *agent, agent_message_fn fn, void *userdata);

/**
 * agent_open() - Open the port and begin to speak
 *
 * Return: 0 or a negative errno. Waits up to 2 s for the device to appear.
 */
int agent_open(struct agent *agent);

/**
 * agent_pump() - Read and write whatever is possible now
 *
 * To be called when the fd is ready (it is edge-triggered) and after lines were
 * queued. Never blocks.
 */
void agent_pump(struct agent *agent);

/* Gives the host up to @timeout_ms to take what is queued, if it is there. */
void agent_flush(struct agent *agent, int timeout_ms);

/* Lines of docs/guest-protocol.md, queued for agent_pump(). */
void agent_stage(struct agent *agent, const char *name);
/* @reason: why it is unusable; NULL: it is fine */
void agent_state_disk(struct agent *agent, const char *reason);
void agent_event(struct agent *agent, const char *word, const char *fmt, ...)
	_printf_(3, 4);
void agent_chatter(struct agent *agent, const char *word, const char *text);
void agent_pong(struct agent *agent, const char *token);

/**
 * port_open() - Open a virtio-serial port by its name
 *
 * Return: a non-blocking fd, or a negative errno. Waits as agent_open().
 */
int port_open(const char *name);
