/*
 * The engine's context and what its files tell each other. One process, one
 * loop, one `struct engine`: no locks, no globals but the log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "broker/message.h"
#include "config/config.h"
#include "daemon/agent_link.h"
#include "daemon/auditor.h"
#include "daemon/broker_link.h"
#include "daemon/clock_watch.h"
#include "daemon/control_server.h"
#include "daemon/entry.h"
#include "daemon/log_buffer.h"
#include "daemon/moat.h"
#include "daemon/names.h"
#include "daemon/progress.h"
#include "daemon/rate_limit.h"
#include "daemon/tor_link.h"
#include "daemon/vm_supervisor.h"
#include "lifecycle/lifecycle.h"

struct options {
	const char *config_name; /* NULL: no configuration file */
	int accel;               /* enum config_accel; -1: the file's */
	bool verbose;
	bool resume;
	bool image_dir_fixed;
	uint32_t confirm_s; /* 0: nothing to confirm */
	const char *runtime_dir;
	const char *state_dir;
	const char *image_dir;
};

/* Most events that can wait while one is handled. */
#define ENGINE_QUEUE_MAX 32

struct engine {
	uv_loop_t loop;
	struct options opt;
	struct config *cfg;

	/* The lifecycle. */
	enum lifecycle_state state;
	struct timespec since; /* CLOCK_REALTIME when it was entered */
	uint64_t started_ms;   /* uv_now() when the engine started */
	uint64_t running_ms;   /* uv_now() when it was last Running; or 0 */
	unsigned int epoch;    /* counts states entered */
	enum lifecycle_event queue[ENGINE_QUEUE_MAX];
	size_t n_queue;
	bool draining;
	bool stop_waits; /* for the broker to say what is up */
	uint32_t stage_ms[LIFECYCLE_STATE_COUNT]; /* since start; 0: never */

	/* What the broker has done. */
	bool block_up;
	bool tap_present;
	bool restore_failed;
	bool was_ready; /* READY=1 has been sent */
	uint64_t refused_packets;
	struct broker_refused refused_by[BROKER_REFUSED_MAX];
	uint32_t n_refused_by;
	bool refreshing;
	bool lockdown;   /* the block stays when the controller ends */
	uint32_t vm_uid; /* the uplink's user; 0: not known */

	/* Failures. */
	char last_error[BROKER_TEXT_MAX]; /* "": none */
	uint32_t retry_delay_s;           /* the next pause */
	uv_timer_t retry_timer;
	int exit_code;         /* enum exit_code */
	uv_timer_t exit_timer; /* bounds the last writes to clients */
	unsigned int exit_ticks;

	/* torvm --confirm */
	uv_timer_t confirm_timer;
	bool confirm_pending;

	uv_timer_t change_timer; /* merges changes of the status */
	uv_timer_t ping_timer;   /* tells the broker that we live */

	struct broker_link broker;
	struct vm_supervisor vm;
	struct agent_link agent;
	struct names names;
	struct clock_watch clock;
	struct tor_link tor;
	struct control_server control;
	struct auditor auditor;
	struct entry entry;
	struct moat moat;
	struct log_buffer log;
	struct rate_limit guest_lines;
	struct progress progress;
};

/**
 * engine_run() - Do everything, from the first question to the broker to the
 * end of the controller
 * @e:		opt and cfg are set, log and progress work
 *
 * Return: enum exit_code
 */
int engine_run(struct engine *e);

/* Feeds an event; handled before this returns unless one is being handled. */
void engine_feed(struct engine *e, enum lifecycle_event event);

/* Remembers and logs a failure in plain words (status: last_error). */
void engine_failure(struct engine *e, const char *fmt, ...) _printf_(2, 3);

/* As above, from a callee's sentence: "WHAT: WHY. STILL". */
void engine_failed(struct engine *e, const char *what, const char *why,
		   const char *still);

/* Logs "WHO: TEXT", a line that the VM had a hand in, unless there are too
 * many of them. */
void engine_log_guest(struct engine *e, enum log_level level, const char *who,
		      const char *text);

/* What was remembered has ended by itself. */
void engine_forgive(struct engine *e);

/* Asks the broker for what only it knows (refused packets). */
void engine_refresh(struct engine *e);

/* Something that the status shows has changed. */
void engine_changed(struct engine *e);

/* The user wants the network back; idempotent. */
void engine_stop(struct engine *e);

/* Ends the VM and starts another at once, which is no failure; not before the
 * first one was started. */
void engine_restart_vm(struct engine *e);

/* Return: 0, or -ENOENT when there is nothing to confirm. */
int engine_confirm(struct engine *e);

/* Seconds left to confirm in, or -1. */
int engine_confirm_left(const struct engine *e);

/* Leaves at once: the broker is gone. */
void engine_abandon(struct engine *e);

/* Milliseconds since the engine was started. */
uint32_t engine_age_ms(const struct engine *e);
