/* The control socket: org.torvm.Controller over Varlink. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <jansson.h>
#include <uv.h>

#include "tor/control.h"

struct engine;
struct client;

struct control_server {
	struct engine *engine;
	uv_pipe_t listener;
	bool listening;
	gid_t group; /* of those who may control; (gid_t)-1: none */
	struct client *first;
	size_t n_clients;
	uv_timer_t log_timer; /* merges lines for followers */
	bool finishing;
};

/* @fd: the listening socket; taken over. Return: 0 or negative errno. */
int control_server_open(struct control_server *s, struct engine *e, int fd);

/* Sends the last replies of a stop and takes no more calls. */
void control_server_finish(struct control_server *s);
/* Whether every reply has left. */
bool control_server_idle(const struct control_server *s);
void control_server_close(struct control_server *s);

void control_server_status_changed(struct control_server *s);
void control_server_log_grew(struct control_server *s);

/* The way to the bridge service, to the client that waits for it: open at
 * @address, or (@address NULL) closed or not to be had, and why. */
void control_server_moat(struct control_server *s, const char *address,
			 const char *why);

/* Tor's answer to those who wait for it; @parameters, taken over, is NULL when
 * there will be none. */
void control_server_answer(struct control_server *s, enum tor_question question,
			   json_t *parameters);
