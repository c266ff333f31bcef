/* What the broker does when its engine ends. Pure. */
#pragma once

#include <stdint.h>

#include "broker/broker.h"

enum supervise_action {
	SUPERVISE_EXIT,    /* with the exit code; nothing is to be undone */
	SUPERVISE_RESTART, /* the block stays, a new engine resumes */
	SUPERVISE_RESTORE, /* the user asked to stop: do what is left of it */
};

/**
 * supervise_engine_end() - Decide
 * @wait_status:	As of waitpid(2)
 * @ret_exit_code:	For SUPERVISE_EXIT: enum exit_code
 */
enum supervise_action supervise_engine_end(const struct broker *b,
					   int wait_status, int *ret_exit_code);

#define SUPERVISE_BURST 5            /* quick restarts ... */
#define SUPERVISE_BURST_MS 60000     /* ... within this */
#define SUPERVISE_QUICK_DELAY_MS 300 /* before each of them */
#define SUPERVISE_SLOW_DELAY_MS 30000

struct supervise_backoff {
	int64_t starts_ms[SUPERVISE_BURST]; /* the last ones, a ring */
	unsigned int n;
};

/* An engine that says nothing during so many ticks of BROKER_PING_MS hangs. */
#define SUPERVISE_SILENT_TICKS 3

struct supervise_watch {
	int64_t tick_ms; /* the next one */
	bool heard;      /* since the last one */
	unsigned int silent;
};

/* An engine has just been started. */
void supervise_watch_start(struct supervise_watch *w, int64_t now_ms);

/**
 * supervise_watch_hangs() - Whether the engine hangs, as of now
 *
 * Ticks are counted, not time: after a pause of the whole machine (a stopped
 * container or VM) the engine gets its time to speak before it is judged.
 */
bool supervise_watch_hangs(struct supervise_watch *w, int64_t now_ms);

/* How long to wait before the next start, which is counted. */
int64_t supervise_delay_ms(struct supervise_backoff *backoff, int64_t now_ms);
