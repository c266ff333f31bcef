/*
 * Theory of operation
 * ===================
 * The executor of the lifecycle. engine_feed() asks the pure table what an
 * event means, enters the next state and performs the effects in order; what
 * comes of them is fed back later, from the loop.
 *
 * Effects on the host are requests to the broker. Each carries the number of
 * the state visit (epoch) that asked for it: an answer that comes after the
 * state was left is noted (is the block up, is there a TAP) but feeds nothing,
 * because what it would have led to is no longer wanted.
 *
 * The end: EXIT lets the last replies reach the clients, for half a second at
 * most, then stops the loop. A broker that vanishes stops it at once; what the
 * broker put into the kernel stays, so nothing leaves the machine.
 */
#include "daemon/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "daemon/confine.h"
#include "daemon/fds.h"
#include "daemon/status.h"

/* In VM_DIR: the start was confirmed; an engine that takes over must not ask
 * again and open the network. */
#define CONFIRMED_FILE "confirmed"
/* Running for so long, a failure is the first of its kind again, in ms. */
#define CALM_MS 60000
/* How the last writes are waited for. */
#define EXIT_TICK_MS 10
#define EXIT_TICKS_MAX 50

uint32_t engine_age_ms(const struct engine *e)
{
	uint64_t age = uv_now((uv_loop_t *)&e->loop) - e->started_ms;

	/* 0 means "not reached" in the status. */
	return age ? (uint32_t)age : 1;
}

static void on_change(uv_timer_t *timer)
{
	struct engine *e = timer->data;
	char line[160];

	status_line(e, line, sizeof(line));
	progress_show(&e->progress, line);
	control_server_status_changed(&e->control);
}

void engine_changed(struct engine *e)
{
	uv_timer_start(&e->change_timer, on_change, 0, 0);
}

void engine_failure(struct engine *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->last_error, sizeof(e->last_error), fmt, ap);
	va_end(ap);
	log_error("%s", e->last_error);
	engine_changed(e);
}

void engine_failed(struct engine *e, const char *what, const char *why,
		   const char *still)
{
	size_t len = strlen(why);

	/* Some sentences come with their full stop, some without. */
	while (len && (why[len - 1] == '.' || why[len - 1] == ' '))
		len--;
	engine_failure(e, "%s: %.*s. %s", what, (int)len, why, still);
}

void engine_log_guest(struct engine *e, enum log_level level, const char *who,
		      const char *text)
{
	uint32_t dropped;

	if (!rate_limit_allows(&e->guest_lines, uv_now(&e->loop), &dropped))
		return;
	if (dropped)
		log_warning("The VM said too much: %" PRIu32
			    " of its lines were left out.",
			    dropped);
	log_line(level, "%s: %s", who, text);
}

void engine_forgive(struct engine *e)
{
	e->last_error[0] = '\0';
	engine_changed(e);
}

/* ------------------------------------------------- requests to the broker */

static void take_refused(struct engine *e, const struct broker_message *reply)
{
	uint32_t n = reply->u.status.n_refused_by;

	e->refused_packets = reply->u.status.refused_packets;
	e->n_refused_by = n < BROKER_REFUSED_MAX ? n : BROKER_REFUSED_MAX;
	memcpy(e->refused_by, reply->u.status.refused_by,
	       sizeof(e->refused_by));
}

static void on_status(struct engine *e, const struct broker_message *reply,
		      int *fds, size_t n_fds, void *userdata)
{
	bool lockdown = reply->u.status.up & BROKER_UP_LOCKDOWN;

	e->refreshing = false;
	if (reply->status < 0 ||
	    (e->refused_packets == reply->u.status.refused_packets &&
	     e->lockdown == lockdown))
		return;
	take_refused(e, reply);
	e->lockdown = lockdown;
	engine_changed(e);
}

void engine_refresh(struct engine *e)
{
	const struct broker_message m = { .type = BROKER_REQUEST_STATUS };

	if (e->refreshing)
		return;
	e->refreshing = true;
	broker_link_request(&e->broker, &m, NULL, 0, on_status, NULL);
}

/* The broker replaces an engine that it does not hear of. */
static void on_ping(uv_timer_t *timer)
{
	engine_refresh(timer->data);
}

/* What a failed effect means to a person. */
static void explain(struct engine *e, enum lifecycle_effect effect,
		    const char *why)
{
	static const char again[] = "Nothing leaves this machine; TorVM tries "
				    "again.";

	switch (effect) {
	case LIFECYCLE_EFFECT_CHECK:
		engine_failed(e, "TorVM cannot start", why,
			      "Nothing was changed.");
		break;
	case LIFECYCLE_EFFECT_BLOCK:
		engine_failed(e, "The kill switch could not be put up", why,
			      "The network is left as it was.");
		break;
	case LIFECYCLE_EFFECT_CREATE_TAP:
		engine_failed(e, "The TAP could not be made", why, again);
		break;
	case LIFECYCLE_EFFECT_CONFIGURE_TAP:
		engine_failed(e, "The TAP could not be configured", why, again);
		break;
	case LIFECYCLE_EFFECT_SET_DNS:
		engine_failed(e, "The resolver could not be pointed at Tor",
			      why, again);
		break;
	case LIFECYCLE_EFFECT_REFUSE_TAP:
		log_warning("Traffic into the TAP could not be refused, but "
			    "goes nowhere: %s",
			    why);
		break;
	case LIFECYCLE_EFFECT_DELETE_TAP:
	case LIFECYCLE_EFFECT_RESTORE_DNS:
	case LIFECYCLE_EFFECT_UNBLOCK:
		engine_failed(e, "The network could not be restored completely",
			      why, "Run `sudo torvm recover`.");
		break;
	case LIFECYCLE_EFFECT_NONE:
	case LIFECYCLE_EFFECT_LAUNCH_VM:
	case LIFECYCLE_EFFECT_ADOPT_VM:
	case LIFECYCLE_EFFECT_KILL_VM:
	case LIFECYCLE_EFFECT_STOP_VM:
	case LIFECYCLE_EFFECT_ASK_GUEST:
	case LIFECYCLE_EFFECT_ASK_TOR:
	case LIFECYCLE_EFFECT_ANNOUNCE:
	case LIFECYCLE_EFFECT_SCHEDULE_RETRY:
	case LIFECYCLE_EFFECT_EXIT:
	case LIFECYCLE_EFFECT_COUNT:
		log_error("%s: %s", lifecycle_effect_name(effect), why);
		break;
	}
}

/* What the host is like now, whoever still wants to know. */
static void note(struct engine *e, enum lifecycle_effect effect, bool ok)
{
	if (effect == LIFECYCLE_EFFECT_BLOCK)
		e->block_up = ok;
	if (effect == LIFECYCLE_EFFECT_CREATE_TAP)
		e->tap_present = ok;
	if (effect == LIFECYCLE_EFFECT_DELETE_TAP && ok)
		e->tap_present = false;
	if (effect == LIFECYCLE_EFFECT_UNBLOCK && ok)
		e->block_up = false;
	if ((effect == LIFECYCLE_EFFECT_DELETE_TAP ||
	     effect == LIFECYCLE_EFFECT_RESTORE_DNS) &&
	    !ok)
		e->restore_failed = true;
}

static void on_effect_done(struct engine *e, const struct broker_message *reply,
			   int *fds, size_t n_fds, void *userdata)
{
	uintptr_t tag = (uintptr_t)userdata;
	enum lifecycle_effect effect = tag & 0xff;
	bool late = (unsigned int)(tag >> 8) != (e->epoch & 0xffffff);
	bool ok = reply->status >= 0;
	enum lifecycle_event event;

	note(e, effect, ok);
	if (!ok && !late)
		explain(e, effect, reply->text);
	if (effect == LIFECYCLE_EFFECT_CHECK && reply->status == -EPERM)
		e->exit_code = EXIT_CODE_PRIVILEGES;
	if (effect == LIFECYCLE_EFFECT_UNBLOCK && e->restore_failed)
		ok = false;
	event = lifecycle_outcome(effect, ok);
	if (!late && event != LIFECYCLE_EVENT_COUNT)
		engine_feed(e, event);
	engine_changed(e);
}

static void request(struct engine *e, enum lifecycle_effect effect,
		    enum broker_type type)
{
	struct broker_message m = { .type = type };
	uintptr_t tag = (uintptr_t)(e->epoch & 0xffffff) << 8 | effect;

	if (type == BROKER_REQUEST_PRECHECK || type == BROKER_REQUEST_BLOCK) {
		str_copy(m.u.net.tap_name, sizeof(m.u.net.tap_name),
			 e->cfg->network.tap_name);
		m.u.net.host_ip = e->cfg->network.host_ip;
		m.u.net.vm_ip = e->cfg->network.vm_ip;
		m.u.net.lan_access = e->cfg->network.lan_access;
	}
	broker_link_request(&e->broker, &m, NULL, 0, on_effect_done,
			    (void *)tag);
}

/* --------------------------------------------------------------- effects */

static void check(struct engine *e)
{
	struct error why = ERROR_NULL(why);

	if (vm_supervisor_prepare(&e->vm, &why) < 0) {
		explain(e, LIFECYCLE_EFFECT_CHECK, why.text);
		engine_feed(e, LIFECYCLE_EVENT_CHECKS_FAILED);
		return;
	}
	request(e, LIFECYCLE_EFFECT_CHECK, BROKER_REQUEST_PRECHECK);
}

static void on_announced(struct engine *e, const struct broker_message *reply,
			 int *fds, size_t n_fds, void *userdata)
{
	if (reply->status < 0)
		log_warning("The service manager could not be told: %s",
			    reply->text);
}

static void notify(struct engine *e, const char *text)
{
	struct broker_message m = { .type = BROKER_REQUEST_NOTIFY };

	str_copy(m.text, sizeof(m.text), text);
	for (char *c = m.text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	broker_link_request(&e->broker, &m, NULL, 0, on_announced, NULL);
}

static void announce(struct engine *e)
{
	if (e->was_ready || e->opt.resume)
		log_notice("Running again: this computer's traffic goes "
			   "through Tor.");
	else
		log_notice("Running: this computer's traffic goes through Tor "
			   "(after %" PRIu32 ".%" PRIu32 " s).",
			   engine_age_ms(e) / 1000,
			   engine_age_ms(e) / 100 % 10);
	if (e->confirm_pending)
		log_notice("Run `torvm confirm` within %d s, or the network "
			   "comes back.",
			   engine_confirm_left(e));
	notify(e, "Running: traffic goes through Tor, everything else is "
		  "blocked");
	entry_worked(&e->entry);
	e->was_ready = true;
	e->running_ms = uv_now(&e->loop);
}

static void on_retry(uv_timer_t *timer)
{
	engine_feed(timer->data, LIFECYCLE_EVENT_RETRY);
}

static void schedule_retry(struct engine *e)
{
	const struct config *cfg = e->cfg;

	if (uv_is_active((uv_handle_t *)&e->retry_timer))
		return;
	if (e->running_ms && uv_now(&e->loop) - e->running_ms >= CALM_MS)
		e->retry_delay_s = 0;
	e->running_ms = 0;
	if (e->retry_delay_s == 0)
		e->retry_delay_s = cfg->failsafe.restart_min_delay_s;
	log_info("Next attempt in %" PRIu32 " s; traffic stays blocked.",
		 e->retry_delay_s);
	uv_timer_start(&e->retry_timer, on_retry, e->retry_delay_s * 1000ull,
		       0);
	e->retry_delay_s *= 2;
	if (e->retry_delay_s > cfg->failsafe.restart_max_delay_s)
		e->retry_delay_s = cfg->failsafe.restart_max_delay_s;
}

static void on_exit_tick(uv_timer_t *timer)
{
	struct engine *e = timer->data;

	if (control_server_idle(&e->control) ||
	    ++e->exit_ticks > EXIT_TICKS_MAX)
		uv_stop(&e->loop);
}

static void begin_exit(struct engine *e)
{
	progress_show(&e->progress, "");
	if (e->exit_code == EXIT_CODE_OK)
		log_notice("Stopped: the network is as it was found.");
	control_server_finish(&e->control);
	uv_timer_start(&e->exit_timer, on_exit_tick, 0, EXIT_TICK_MS);
}

static void perform(struct engine *e, enum lifecycle_effect effect)
{
	switch (effect) {
	case LIFECYCLE_EFFECT_NONE:
	case LIFECYCLE_EFFECT_COUNT: break;
	case LIFECYCLE_EFFECT_CHECK: check(e); break;
	case LIFECYCLE_EFFECT_BLOCK:
		request(e, effect, BROKER_REQUEST_BLOCK);
		break;
	case LIFECYCLE_EFFECT_CREATE_TAP:
		request(e, effect, BROKER_REQUEST_CREATE_TAP);
		break;
	case LIFECYCLE_EFFECT_LAUNCH_VM: vm_supervisor_launch(&e->vm); break;
	case LIFECYCLE_EFFECT_ADOPT_VM: vm_supervisor_adopt(&e->vm); break;
	case LIFECYCLE_EFFECT_KILL_VM: vm_supervisor_kill(&e->vm); break;
	case LIFECYCLE_EFFECT_STOP_VM: vm_supervisor_stop(&e->vm); break;
	case LIFECYCLE_EFFECT_CONFIGURE_TAP:
		request(e, effect, BROKER_REQUEST_CONFIGURE_TAP);
		break;
	case LIFECYCLE_EFFECT_REFUSE_TAP:
		request(e, effect, BROKER_REQUEST_REFUSE_TAP);
		break;
	case LIFECYCLE_EFFECT_SET_DNS:
		request(e, effect, BROKER_REQUEST_SET_DNS);
		break;
	case LIFECYCLE_EFFECT_ASK_GUEST: agent_link_ask(&e->agent); break;
	case LIFECYCLE_EFFECT_ASK_TOR: tor_link_ask(&e->tor); break;
	case LIFECYCLE_EFFECT_ANNOUNCE: announce(e); break;
	case LIFECYCLE_EFFECT_SCHEDULE_RETRY: schedule_retry(e); break;
	case LIFECYCLE_EFFECT_DELETE_TAP:
		request(e, effect, BROKER_REQUEST_DELETE_TAP);
		break;
	case LIFECYCLE_EFFECT_RESTORE_DNS:
		request(e, effect, BROKER_REQUEST_RESTORE_DNS);
		break;
	case LIFECYCLE_EFFECT_UNBLOCK:
		request(e, effect, BROKER_REQUEST_UNBLOCK);
		break;
	case LIFECYCLE_EFFECT_EXIT: begin_exit(e); break;
	}
}

/* ----------------------------------------------------------------- steps */

static void enter(struct engine *e, enum lifecycle_state next,
		  enum lifecycle_event event)
{
	if (next == e->state)
		return;
	log_info("%s (%s)", lifecycle_state_name(next),
		 lifecycle_event_name(event));
	e->state = next;
	e->epoch++;
	clock_gettime(CLOCK_REALTIME, &e->since);
	auditor_update(&e->auditor);
	moat_entered(&e->moat);
	e->stage_ms[next] = engine_age_ms(e);
	if (next != LIFECYCLE_STATE_BLOCKED)
		uv_timer_stop(&e->retry_timer);
}

/* The exit code follows from what ended the run. */
static void note_exit(struct engine *e, enum lifecycle_event event)
{
	if (event == LIFECYCLE_EVENT_CHECKS_FAILED &&
	    e->exit_code == EXIT_CODE_OK)
		e->exit_code = EXIT_CODE_PRECHECK;
	if (event == LIFECYCLE_EVENT_BLOCK_FAILED)
		e->exit_code = EXIT_CODE_FAILED;
	if (event == LIFECYCLE_EVENT_RESTORE_FAILED)
		e->exit_code = EXIT_CODE_RESTORE;
}

static void step(struct engine *e, enum lifecycle_event event)
{
	const struct lifecycle_guards guards = {
		.relaunch = e->vm.relaunch,
		.vm_alive = vm_supervisor_alive(&e->vm),
		.tap_present = e->tap_present,
	};
	struct lifecycle_step s = lifecycle_step(e->state, event, &guards);
	bool changed = s.next != e->state;

	switch (s.kind) {
	case LIFECYCLE_KIND_GO:
		note_exit(e, event);
		enter(e, s.next, event);
		for (int i = 0; s.effects[i]; i++)
			perform(e, s.effects[i]);
		/* The service manager's line must not go on saying Running. */
		if (changed && s.next == LIFECYCLE_STATE_BLOCKED &&
		    e->was_ready)
			notify(e, "Blocked: nothing leaves this machine until "
				  "Tor works again");
		break;
	case LIFECYCLE_KIND_IGNORE:
		log_debug("%s: %s means nothing now",
			  lifecycle_state_name(e->state),
			  lifecycle_event_name(event));
		break;
	case LIFECYCLE_KIND_IMPOSSIBLE:
	case LIFECYCLE_KIND_UNSET:
		log_error("A fault in TorVM: %s cannot happen in %s. It is "
			  "ignored; the kill switch is not touched.",
			  lifecycle_event_name(event),
			  lifecycle_state_name(e->state));
		break;
	}
	engine_changed(e);
}

void engine_feed(struct engine *e, enum lifecycle_event event)
{
	if (e->n_queue == ENGINE_QUEUE_MAX) {
		log_error("too many events at once; %s is lost",
			  lifecycle_event_name(event));
		return;
	}
	e->queue[e->n_queue++] = event;
	if (e->draining)
		return;
	e->draining = true;
	while (e->n_queue) {
		event = e->queue[0];
		memmove(e->queue, e->queue + 1,
			--e->n_queue * sizeof(e->queue[0]));
		step(e, event);
	}
	e->draining = false;
}

void engine_restart_vm(struct engine *e)
{
	if (e->vm.phase != VM_PHASE_NONE)
		engine_feed(e, LIFECYCLE_EVENT_VM_FAILED);
	e->retry_delay_s = 0;
	engine_feed(e, LIFECYCLE_EVENT_RETRY);
}

void engine_stop(struct engine *e)
{
	if (e->state == LIFECYCLE_STATE_INIT)
		e->stop_waits = true;
	else
		engine_feed(e, LIFECYCLE_EVENT_STOP);
}

void engine_abandon(struct engine *e)
{
	if (e->state != LIFECYCLE_STATE_CLEANUP) {
		log_error("The broker is gone. The kill switch stays in place: "
			  "nothing leaves this machine. Start TorVM again, or "
			  "run `sudo torvm recover` to get the network back.");
		e->exit_code = EXIT_CODE_FAILED;
	}
	uv_stop(&e->loop);
}

/* --------------------------------------------------------------- confirm */

static void on_confirm_timeout(uv_timer_t *timer)
{
	struct engine *e = timer->data;

	log_warning("Nobody ran `torvm confirm` in time: the network comes "
		    "back.");
	e->confirm_pending = false;
	e->exit_code = EXIT_CODE_TIMEOUT;
	engine_stop(e);
}

static void start_confirm(struct engine *e)
{
	if (e->opt.resume) {
		if (faccessat(ENGINE_FD_VM_DIR, CONFIRMED_FILE, F_OK, 0) == 0)
			return;
	} else {
		unlinkat(ENGINE_FD_VM_DIR, CONFIRMED_FILE, 0);
	}
	if (e->opt.confirm_s == 0)
		return;
	e->confirm_pending = true;
	uv_timer_start(&e->confirm_timer, on_confirm_timeout,
		       e->opt.confirm_s * 1000ull, 0);
}

int engine_confirm(struct engine *e)
{
	int fd;

	if (!e->confirm_pending)
		return -ENOENT;
	fd = openat(ENGINE_FD_VM_DIR, CONFIRMED_FILE,
		    O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	closep(&fd);
	uv_timer_stop(&e->confirm_timer);
	e->confirm_pending = false;
	log_notice("Confirmed: the protection stays.");
	engine_changed(e);
	return 0;
}

int engine_confirm_left(const struct engine *e)
{
	if (!e->confirm_pending)
		return -1;
	return (int)(uv_timer_get_due_in(&e->confirm_timer) / 1000);
}

/* ------------------------------------------------------------------- run */

static void on_first_status(struct engine *e,
			    const struct broker_message *reply, int *fds,
			    size_t n_fds, void *userdata)
{
	uint32_t up = reply->u.status.up;

	if (reply->status < 0) {
		explain(e, LIFECYCLE_EFFECT_CHECK, reply->text);
		engine_feed(e, LIFECYCLE_EVENT_CHECKS_FAILED);
		return;
	}
	e->lockdown = up & BROKER_UP_LOCKDOWN;
	e->vm_uid = reply->u.status.vm_uid;
	e->block_up = up & BROKER_UP_FIREWALL;
	if (!e->opt.resume || !e->block_up) {
		/* A block may be up already, taken over by the broker from a
		 * controller that died: BLOCK completes it. */
		engine_feed(e, LIFECYCLE_EVENT_START);
	} else {
		log_notice("An earlier engine ended; the kill switch stayed "
			   "up.");
		e->tap_present = up & BROKER_UP_TAP;
		take_refused(e, reply);
		if (e->entry.moat_left) {
			/* Nobody waits for it any more. */
			vm_supervisor_kill(&e->vm);
			entry_leave_moat(&e->entry);
		} else if (up & BROKER_UP_VM) {
			vm_supervisor_found(&e->vm, reply->u.status.vm_pid);
		}
		engine_feed(e, LIFECYCLE_EVENT_ADOPT);
		/* The engine that was told of it has not got to make it anew.
		 */
		if ((up & BROKER_UP_VM) && !e->tap_present)
			engine_feed(e, LIFECYCLE_EVENT_TAP_LOST);
	}
	if (e->stop_waits)
		engine_feed(e, LIFECYCLE_EVENT_STOP);
}

static void init_timer(struct engine *e, uv_timer_t *timer)
{
	uv_timer_init(&e->loop, timer);
	timer->data = e;
}

static int init(struct engine *e)
{
	int ret = uv_loop_init(&e->loop);

	if (ret < 0)
		return ret;
	e->started_ms = uv_now(&e->loop);
	clock_gettime(CLOCK_REALTIME, &e->since);
	init_timer(e, &e->retry_timer);
	init_timer(e, &e->exit_timer);
	init_timer(e, &e->confirm_timer);
	init_timer(e, &e->change_timer);
	init_timer(e, &e->ping_timer);
	uv_timer_start(&e->ping_timer, on_ping, BROKER_PING_MS, BROKER_PING_MS);
	auditor_init(&e->auditor, e);
	entry_init(&e->entry, e);
	moat_init(&e->moat, e);
	names_init(&e->names, e);
	ret = vm_supervisor_init(&e->vm, e);
	if (ret == 0)
		ret = agent_link_init(&e->agent, e);
	if (ret == 0)
		ret = tor_link_init(&e->tor, e);
	if (ret == 0)
		ret = clock_watch_init(&e->clock, e);
	if (ret == 0)
		ret = control_server_open(&e->control, e, ENGINE_FD_CONTROL);
	if (ret == 0)
		ret = broker_link_open(&e->broker, e, ENGINE_FD_BROKER);
	return ret;
}

static void deinit(struct engine *e)
{
	uv_close((uv_handle_t *)&e->retry_timer, NULL);
	uv_close((uv_handle_t *)&e->exit_timer, NULL);
	uv_close((uv_handle_t *)&e->confirm_timer, NULL);
	uv_close((uv_handle_t *)&e->change_timer, NULL);
	uv_close((uv_handle_t *)&e->ping_timer, NULL);
	clock_watch_deinit(&e->clock);
	auditor_deinit(&e->auditor);
	moat_deinit(&e->moat);
	entry_deinit(&e->entry);
	e->log.control = NULL;
	broker_link_close(&e->broker);
	control_server_close(&e->control);
	vm_supervisor_deinit(&e->vm);
	agent_link_deinit(&e->agent);
	tor_link_deinit(&e->tor);
	/* Close callbacks free what they hold. */
	uv_run(&e->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&e->loop) < 0)
		log_debug("a handle of the loop was left open");
}

/* From here on files are reached in these places only. */
static int confine(struct engine *e, struct error *why)
{
	const struct config *cfg = e->cfg;
	const struct confine_dir dirs[] = {
		{ .fd = ENGINE_FD_IMAGE_DIR },
		{ .fd = -1, .path = cfg->vm.image_dir },
		{ .fd = ENGINE_FD_STATE_DIR, .writable = true },
		{ .fd = ENGINE_FD_VM_DIR, .writable = true },
		{ .fd = -1, .path = cfg->bridge.ca_file, .file = true },
		{ .fd = -1, .path = cfg->proxy.ca_file, .file = true },
		{ .fd = -1,
		  .path = cfg->vm.state_disk,
		  .file = true,
		  .writable = true },
		{ .fd = -1,
		  .path = cfg->log.file,
		  .file = true,
		  .writable = true },
	};

	return confine_enter(dirs, ARRAY_SIZE(dirs), why);
}

int engine_run(struct engine *e)
{
	const struct broker_message m = { .type = BROKER_REQUEST_STATUS };
	struct error why = ERROR_NULL(why);
	int ret = init(e);

	if (ret < 0) {
		log_error("The engine cannot start: %s. Nothing was changed.",
			  strerror(-ret));
		return EXIT_CODE_FAILED;
	}
	if (confine(e, &why) < 0) {
		log_error("The engine does not start unconfined: %s. Nothing "
			  "was changed.",
			  why.text);
		return EXIT_CODE_FAILED;
	}
	e->log.control = &e->control;
	start_confirm(e);
	broker_link_request(&e->broker, &m, NULL, 0, on_first_status, NULL);
	uv_run(&e->loop, UV_RUN_DEFAULT);
	deinit(e);
	return e->exit_code;
}
