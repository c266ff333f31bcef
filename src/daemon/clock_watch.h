/* Notices that the host's clock was set, or that the host slept. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct engine;

struct clock_watch {
	struct engine *engine;
	/* CLOCK_REALTIME and CLOCK_MONOTONIC behind CLOCK_BOOTTIME, in ms, when
	 * last looked at. */
	int64_t realtime_offset_ms, monotonic_offset_ms;
	int timer_fd; /* -1: none; the heartbeat's look is all there is */
	uv_poll_t poll;
};

int clock_watch_init(struct clock_watch *w, struct engine *e);
void clock_watch_deinit(struct clock_watch *w);

/* The VM gets the time now: what was before is no news to it. */
void clock_watch_note(struct clock_watch *w);

/* Looks; tells the VM, and ends its connections, if there is reason to. */
void clock_watch_look(struct clock_watch *w);
