/* The host's end of the guest agent: stages, the clock, heartbeats. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "daemon/rate_limit.h"
#include "daemon/stream.h"
#include "proto/agent.h"

struct engine;

struct agent_link {
	struct engine *engine;
	struct stream stream;
	struct agent *codec;
	bool hello;      /* on this connection */
	bool network_up; /* its links and its firewall are */
	bool guest_asked;
	bool helper_ended; /* Tor's end is its consequence */
	/* Last: */
	char transport_said[200];
	char tls_said[200];
	struct rate_limit messages;
	uint64_t heard_ms;       /* uv_now() of the last line */
	bool heard;              /* since the last ping */
	unsigned int unanswered; /* pings in a row */
	uint32_t n_pings;
	uv_timer_t heartbeat;
	/* Since the engine's start; 0: not reached. Of the latest VM. */
	uint32_t stage_ms[AGENT_STAGE_COUNT];
	uint64_t available_kib; /* the guest's memory; 0: not told */
};

int agent_link_init(struct agent_link *a, struct engine *e);
void agent_link_deinit(struct agent_link *a);

/* For a VM that was just started or adopted; closed when it has ended. */
void agent_link_open(struct agent_link *a);
void agent_link_close(struct agent_link *a);

/* GUEST_UP once the guest's network and firewall are, or already are. */
void agent_link_ask(struct agent_link *a);

/* The guest's clock is set to ours. */
void agent_link_send_time(struct agent_link *a);

void agent_link_poweroff(struct agent_link *a);

/* What the guest looked up may be reached now. */
void agent_link_admitted(struct agent_link *a);
/* Whom it has to ask from now on; it does so at once. */
void agent_link_resolvers(struct agent_link *a,
			  const struct in6_addr *resolvers, size_t n);
