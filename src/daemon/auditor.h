/*
 * The auditor: whether everything that the uplink's user is connected with is
 * something that Tor says it is connected with.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "proto/inet_diag.h"
#include "tor/relays.h"

struct engine;

#define AUDITOR_ALARMS_MAX 8

struct auditor {
	struct engine *engine;
	uv_timer_t timer;
	struct inet_diag_list now;      /* connections of this round */
	struct inet_diag_list suspects; /* of the last round */
	bool asked;                     /* Tor's answer is owed */
	bool mute;                      /* cannot audit; that was said */
	/* Raised since the controller started, in plain words. */
	char alarms[AUDITOR_ALARMS_MAX][192];
	size_t n_alarms;
};

void auditor_init(struct auditor *a, struct engine *e);
void auditor_deinit(struct auditor *a);

/* The state has changed: audits go on while it is Running. */
void auditor_update(struct auditor *a);

/* Tor's answer. */
void auditor_relays(struct auditor *a, const struct tor_relays *relays);
