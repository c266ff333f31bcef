/*
 * Theory of operation
 * ===================
 * QEMU carries the bytes of Tor's ControlSocket. Its end of the channel stays
 * open while Tor comes and goes in the guest, so that a hang-up is not seen
 * here: the agent's `ready` and `tor-exit` tell when Tor takes connections and
 * when it has ended. A connection on which nobody answers the first commands
 * in time is made anew.
 *
 * Being stuck is no failure of the lifecycle: Tor goes on trying, and what it
 * waits for is mostly outside (no network, a login page, a wrong clock). After
 * failsafe.bootstrap_stall_s without progress the user is told where and why.
 */
#include "daemon/tor_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/tor_options.h"
#include "daemon/engine.h"
#include "daemon/fds.h"
#include "daemon/listing.h"
#include "vm/fds.h"

/* From connecting to a session that is ready, in ms. */
#define ANSWER_TIMEOUT_MS 20000
/* After an answer that ended a connection, in ms. */
#define REFUSED_PAUSE_MS 1000
/* Tor carries out SIGNAL NEWNYM once in this time (MAX_SIGNEWNYM_RATE). */
#define NEW_IDENTITY_MS 10000

static struct tor_obstacle_facts facts_of(const struct tor_link *t)
{
	const struct config *cfg = t->engine->cfg;

	return (struct tor_obstacle_facts){
		.bootstrap = &t->bootstrap,
		.tor_answers = tor_control_is_ready(t->control),
		.clock_wrong = t->clock_wrong,
		.names_fail = names_fail(&t->engine->names),
		.names_asked = t->engine->names.n > 0,
		.use_bridges = cfg->bridge.use_bridges,
		.use_proxy = cfg->proxy.type != CONFIG_PROXY_NONE,
		.chooses_relays = config_chooses_relays(cfg),
		.transport = cfg->bridge.transport,
		.heard = t->heard,
	};
}

bool tor_link_obstacle(const struct tor_link *t, enum tor_obstacle *ret,
		       char *next, size_t size)
{
	const struct tor_obstacle_facts facts = facts_of(t);

	if (!t->complained || t->bootstrap.percent >= 100)
		return false;
	*ret = tor_obstacle_judge(&facts);
	tor_obstacle_next(*ret, &facts, next, size);
	return true;
}

static void complain(struct tor_link *t)
{
	const struct tor_obstacle_facts facts = facts_of(t);
	const struct torctl_bootstrap *b = &t->bootstrap;

	/* Said once, as long as it is the same. */
	if (t->complained && t->said.percent == b->percent &&
	    !strcmp(t->said.warning, b->warning))
		return;
	t->said = *b;
	if (!tor_control_is_ready(t->control))
		engine_failure(t->engine,
			       "Tor does not answer in the VM. Nothing leaves "
			       "this machine; TorVM keeps trying.");
	else
		engine_failure(t->engine,
			       "Tor is stuck at %u %% (%s)%s%s. %s Nothing "
			       "leaves this machine; Tor keeps trying.",
			       b->percent, b->summary,
			       b->warning[0] ? ": " : "", b->warning,
			       tor_obstacle_text(tor_obstacle_judge(&facts)));
	t->complained = true;
}

static void take(struct tor_link *t, enum tor_obstacle heard)
{
	/* The first is the cause, others follow from it. */
	if (heard == TOR_OBSTACLE_UNKNOWN || t->heard != TOR_OBSTACLE_UNKNOWN ||
	    t->bootstrap.percent >= 100)
		return;
	/* It will not get better by waiting: said at once. */
	t->heard = heard;
	t->complained = false;
	if (tor_control_is_ready(t->control))
		complain(t);
}

void tor_link_hear(struct tor_link *t, const char *line)
{
	const struct tor_obstacle_facts facts = facts_of(t);

	take(t, tor_obstacle_hear(&facts, line));
}

void tor_link_hear_tls(struct tor_link *t, const char *line)
{
	take(t, tor_obstacle_hear_tls(line));
}

static void on_stall(uv_timer_t *timer)
{
	struct tor_link *t = timer->data;
	const struct tor_obstacle_facts facts = facts_of(t);

	complain(t);
	entry_failed(&t->engine->entry, tor_obstacle_judge(&facts));
}

static void watch_progress(struct tor_link *t)
{
	uint64_t ms = t->engine->cfg->failsafe.bootstrap_stall_s * 1000ull;

	if (t->bootstrap.percent >= 100)
		uv_timer_stop(&t->stall);
	else
		uv_timer_start(&t->stall, on_stall, ms, ms);
}

static void report(struct tor_link *t)
{
	if (!t->asked || t->bootstrap.percent < 100)
		return;
	t->asked = false;
	engine_feed(t->engine, LIFECYCLE_EVENT_BOOTSTRAPPED);
}

static void on_version(void *userdata, const char *version)
{
	struct tor_link *t = userdata;

	str_copy(t->version, sizeof(t->version), version);
	engine_changed(t->engine);
}

static void on_bootstrap(void *userdata, const struct torctl_bootstrap *b)
{
	struct tor_link *t = userdata;
	bool progress = b->percent > t->bootstrap.percent;

	t->bootstrap = *b;
	if (b->severity >= TORCTL_SEVERITY_WARN && b->recommend_warn)
		complain(t);
	if (progress) {
		if (t->complained)
			engine_forgive(t->engine);
		t->complained = t->clock_wrong = false;
		/* How far it is at the first look says not what came first. */
		if (tor_control_is_ready(t->control))
			t->heard = TOR_OBSTACLE_UNKNOWN;
		watch_progress(t);
	}
	engine_changed(t->engine);
}

static void on_circuit(void *userdata, bool established)
{
	struct tor_link *t = userdata;

	if (t->circuit_established && !established)
		log_warning("Tor has lost its circuits and builds new ones.");
	t->circuit_established = established;
	engine_changed(t->engine);
}

static void on_clock_skew(void *userdata, int64_t seconds, const char *source)
{
	struct tor_link *t = userdata;

	engine_failure(t->engine,
		       "This computer's clock is %" PRId64
		       " s %s, by %s; Tor cannot work so. Set it with `sudo "
		       "timedatectl set-time 'YYYY-MM-DD HH:MM'`, or run "
		       "`torvm down` and `sudo timedatectl set-ntp true`. "
		       "The VM follows by itself. Nothing leaves this machine.",
		       (int64_t)llabs(seconds), seconds > 0 ? "fast" : "slow",
		       source);
	t->clock_wrong = true;
	t->complained = true;
}

static void on_relays(void *userdata, const struct tor_relays *relays)
{
	struct tor_link *t = userdata;

	uv_timer_stop(&t->answer);
	auditor_relays(&t->engine->auditor, relays);
}

/* Tor has answered; what is asked next is watched anew. */
static void answered(struct tor_link *t, enum tor_question question,
		     json_t *parameters)
{
	uv_timer_stop(&t->answer);
	control_server_answer(&t->engine->control, question, parameters);
}

static void on_circuits(void *userdata, const struct tor_circuits *circuits)
{
	struct tor_link *t = userdata;

	answered(t, TOR_QUESTION_CIRCUITS,
		 listing_circuits(circuits, t->engine->cfg));
}

static void on_entries(void *userdata, const struct tor_entries *entries)
{
	answered(userdata, TOR_QUESTION_ENTRIES, listing_entries(entries));
}

static void on_new_identity(void *userdata)
{
	struct tor_link *t = userdata;
	uint64_t now = uv_now(&t->engine->loop);

	/* One that comes too early is kept until it is due. */
	if (now >= t->new_identity_ms + NEW_IDENTITY_MS)
		t->new_identity_ms = now;
	else if (now >= t->new_identity_ms)
		t->new_identity_ms += NEW_IDENTITY_MS;
	answered(
		t, TOR_QUESTION_NEW_IDENTITY,
		json_pack("{s:i}", "wait", (int)tor_link_new_identity_wait(t)));
}

static void on_bandwidth(void *userdata, const struct tor_bandwidth *b)
{
	struct tor_link *t = userdata;
	bool idle = b->read_rate == 0 && b->written_rate == 0 &&
		    t->bandwidth.read_rate == 0 &&
		    t->bandwidth.written_rate == 0 &&
		    b->read == t->bandwidth.read;

	t->bandwidth = *b;
	if (!idle)
		engine_changed(t->engine);
}

static void on_ready(void *userdata)
{
	struct tor_link *t = userdata;

	uv_timer_stop(&t->answer);
	/* Said while nobody was there to answer. */
	if (t->heard != TOR_OBSTACLE_UNKNOWN && t->bootstrap.percent < 100)
		complain(t);
}

static const struct tor_control_callbacks callbacks = {
	.ready = on_ready,
	.version = on_version,
	.bootstrap = on_bootstrap,
	.circuit_established = on_circuit,
	.clock_skew = on_clock_skew,
	.relays = on_relays,
	.circuits = on_circuits,
	.entries = on_entries,
	.new_identity = on_new_identity,
	.bandwidth = on_bandwidth,
	/* .log: the agent brings Tor's log, from its first line on. */
};

/* What was asked on this connection is not answered any more. */
static void reset(struct tor_link *t)
{
	tor_control_reset(t->control);
	for (int q = 0; q < TOR_QUESTION_COUNT; q++)
		control_server_answer(&t->engine->control, (enum tor_question)q,
				      NULL);
}

static void on_no_answer(uv_timer_t *timer)
{
	struct tor_link *t = timer->data;

	log_debug("tor: no answer on the control port; connecting anew");
	reset(t);
	stream_reopen(&t->stream);
}

static void on_connected(void *userdata)
{
	struct tor_link *t = userdata;

	reset(t);
	if (tor_control_connected(t->control) == 0)
		stream_write(&t->stream, tor_control_output(t->control));
	uv_timer_start(&t->answer, on_no_answer, ANSWER_TIMEOUT_MS, 0);
}

static void on_data(void *userdata, const char *data, size_t len)
{
	struct tor_link *t = userdata;
	struct error e = ERROR_NULL(e);

	if (tor_control_push(t->control, data, len, &e) < 0) {
		log_warning("%s; connecting anew.", e.text);
		reset(t);
		/* Not at once: a Tor that refuses would be asked in a loop. */
		stream_close(&t->stream);
		uv_timer_start(&t->answer, on_no_answer, REFUSED_PAUSE_MS, 0);
		return;
	}
	stream_write(&t->stream, tor_control_output(t->control));
	report(t);
}

static void on_closed(void *userdata)
{
	struct tor_link *t = userdata;

	reset(t);
	uv_timer_stop(&t->answer);
}

static const struct stream_ops ops = {
	.connected = on_connected,
	.data = on_data,
	.closed = on_closed,
};

static void forget(struct tor_link *t)
{
	t->bootstrap = (struct torctl_bootstrap){ 0 };
	t->circuit_established = t->clock_wrong = false;
	t->heard = TOR_OBSTACLE_UNKNOWN;
	t->bandwidth = (struct tor_bandwidth){ 0 };
	reset(t);
	uv_timer_stop(&t->answer);
	engine_changed(t->engine);
}

void tor_link_open(struct tor_link *t)
{
	if (t->stream.wanted)
		return;
	forget(t);
	watch_progress(t);
	stream_open(&t->stream);
}

void tor_link_close(struct tor_link *t)
{
	stream_close(&t->stream);
	uv_timer_stop(&t->stall);
	t->asked = false;
	forget(t);
}

void tor_link_lost(struct tor_link *t)
{
	forget(t);
	watch_progress(t);
	/* Until the next `ready`. */
	stream_close(&t->stream);
}

int tor_link_question(struct tor_link *t, enum tor_question question)
{
	int r = tor_control_ask(t->control, question);

	if (r < 0)
		return r;
	stream_write(&t->stream, tor_control_output(t->control));
	if (!uv_is_active((uv_handle_t *)&t->answer))
		uv_timer_start(&t->answer, on_no_answer, ANSWER_TIMEOUT_MS, 0);
	return 0;
}

unsigned int tor_link_new_identity_wait(const struct tor_link *t)
{
	uint64_t now = uv_now(&t->engine->loop);

	return t->new_identity_ms > now
		       ? (unsigned int)((t->new_identity_ms - now + 999) / 1000)
		       : 0;
}

void tor_link_ask(struct tor_link *t)
{
	t->asked = true;
	report(t);
}

int tor_link_init(struct tor_link *t, struct engine *e)
{
	char path[64];

	*t = (struct tor_link){ .engine = e, .heard = TOR_OBSTACLE_UNKNOWN };
	t->control = tor_control_new(&callbacks, t);
	if (!t->control)
		return -ENOMEM;
	uv_timer_init(&e->loop, &t->answer);
	t->answer.data = t;
	uv_timer_init(&e->loop, &t->stall);
	t->stall.data = t;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" VM_SOCKET_TORCTL,
		 ENGINE_FD_VM_DIR);
	stream_init(&t->stream, &e->loop, path, &ops, t);
	return 0;
}

void tor_link_deinit(struct tor_link *t)
{
	stream_deinit(&t->stream);
	uv_close((uv_handle_t *)&t->answer, NULL);
	uv_close((uv_handle_t *)&t->stall, NULL);
	tor_control_freep(&t->control);
}
