/*
 * Theory of operation
 * ===================
 * On each connection the host says `hello`, so that a guest that booted under
 * an earlier engine tells again how far it is; a guest that is just booting
 * says its own first. The host answers each hello with the time.
 *
 * Every third of failsafe.heartbeat_timeout_s the guest is pinged; any line of
 * it counts as a sign of life. It is silent when nothing came for that time and
 * two pings in a row were not answered: when this process or the whole machine
 * stood still, the time alone would be the guest's fault.
 */
#include "daemon/agent_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "daemon/engine.h"
#include "daemon/fds.h"
#include "daemon/scrub.h"
#include "vm/fds.h"

/* A correction of the guest's clock that is worth a line, in ms. */
#define CLOCK_JUMP_MS 2000
/* Pings in a row without a sign of life that make the guest silent. */
#define PINGS_UNANSWERED_MAX 2

void agent_link_send_time(struct agent_link *a)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);
	struct timespec now;

	/* Each hello is answered with the time. */
	if (!a->hello)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	if (agent_write_time(&out, &now) == 0)
		stream_write(&a->stream, &out);
}

static void on_heartbeat(uv_timer_t *timer)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);
	struct agent_link *a = timer->data;
	struct engine *e = a->engine;
	uint64_t silent_ms = uv_now(&e->loop) - a->heard_ms;
	char token[16];

	a->unanswered = a->heard ? 0 : a->unanswered + 1;
	a->heard = false;
	if (silent_ms >= e->cfg->failsafe.heartbeat_timeout_s * 1000ull &&
	    a->unanswered >= PINGS_UNANSWERED_MAX) {
		engine_failure(e,
			       "The VM has been silent for %" PRIu64
			       " s; it is started again. Nothing leaves this "
			       "machine.",
			       silent_ms / 1000);
		uv_timer_stop(&a->heartbeat);
		engine_feed(e, LIFECYCLE_EVENT_VM_SILENT);
		return;
	}
	clock_watch_look(&e->clock);
	snprintf(token, sizeof(token), "%" PRIu32, ++a->n_pings);
	if (agent_write_ping(&out, token) == 0)
		stream_write(&a->stream, &out);
}

static void report_up(struct agent_link *a)
{
	if (!a->network_up || !a->guest_asked)
		return;
	a->guest_asked = false;
	engine_feed(a->engine, LIFECYCLE_EVENT_GUEST_UP);
}

static void on_hello(struct agent_link *a)
{
	struct engine *e = a->engine;
	uint64_t tick_ms = e->cfg->failsafe.heartbeat_timeout_s * 1000ull / 3;

	if (!a->hello)
		uv_timer_start(&a->heartbeat, on_heartbeat, tick_ms, tick_ms);
	a->hello = true;
	clock_watch_note(&e->clock);
	agent_link_send_time(a);
	vm_supervisor_guest_hello(&e->vm);
	names_hello(&e->names);
}

static void on_stage(struct agent_link *a, enum agent_stage stage)
{
	struct engine *e = a->engine;

	if (!a->stage_ms[stage])
		a->stage_ms[stage] = engine_age_ms(e);
	log_debug("guest: stage %s", agent_stage_name(stage));
	if (stage == AGENT_STAGE_READY) {
		vm_supervisor_guest_ready(&e->vm);
		if (!moat_ready(&e->moat))
			tor_link_open(&e->tor);
	}
	/* An adopted guest repeats its last stage only. */
	if (stage >= AGENT_STAGE_STATE_DISK ||
	    (a->stage_ms[AGENT_STAGE_NETWORK] &&
	     a->stage_ms[AGENT_STAGE_FIREWALL]))
		a->network_up = true;
	engine_changed(e);
	report_up(a);
}

/* "Nov 24 14:00:00.000 [notice] text": the level decides, the stamp goes. */
static void log_tor(struct engine *e, char *text)
{
	static const struct {
		const char *mark;
		enum log_level level;
	} marks[] = {
		{ "[err] ", LOG_LEVEL_ERROR },
		{ "[warn] ", LOG_LEVEL_WARNING },
		{ "[notice] ", LOG_LEVEL_INFO },
		{ "[info] ", LOG_LEVEL_DEBUG },
		{ "[debug] ", LOG_LEVEL_DEBUG },
	};

	scrub_line(e->cfg, text);
	tor_link_hear(&e->tor, text);
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		const char *at = strstr(text, marks[i].mark);

		/* Behind the stamp, not somewhere in the text. */
		if (at && at - text <= 24) {
			engine_log_guest(e, marks[i].level, "tor",
					 at + strlen(marks[i].mark));
			return;
		}
	}
	engine_log_guest(e, LOG_LEVEL_INFO, "tor", text);
}

static void on_transport(struct agent_link *a, char *text)
{
	scrub_line(a->engine->cfg, text);
	str_copy(a->transport_said, sizeof(a->transport_said), text);
	engine_log_guest(a->engine, LOG_LEVEL_INFO, "transport", text);
	tor_link_hear(&a->engine->tor, text);
}

static void on_tls(struct agent_link *a, char *text)
{
	scrub_line(a->engine->cfg, text);
	str_copy(a->tls_said, sizeof(a->tls_said), text);
	engine_log_guest(a->engine, LOG_LEVEL_INFO, "TLS to the proxy", text);
	tor_link_hear_tls(&a->engine->tor, text);
}

/* What Tor goes through ended. @said: its last words; forgotten */
static void on_helper_exit(struct agent_link *a, const struct agent_message *m,
			   const char *what, const char *name, char *said)
{
	struct engine *e = a->engine;

	if (!vm_supervisor_alive(&e->vm))
		return;
	a->helper_ended = true;
	engine_failure(e,
		       "%s%s ended in the VM (%s %u)%s%s; traffic is blocked "
		       "until it is connected again.",
		       what, name, m->signaled ? "signal" : "status", m->number,
		       said[0] ? ": " : "", said);
	said[0] = '\0';
}

static void on_tor_exit(struct agent_link *a, const struct agent_message *m)
{
	struct engine *e = a->engine;

	/* It is meant to, when the VM powers off. */
	if (!vm_supervisor_alive(&e->vm))
		return;
	if (!a->helper_ended)
		engine_failure(
			e,
			"Tor ended in the VM (%s %u, the %u. time); traffic is "
			"blocked until it is connected again.",
			m->signaled ? "signal" : "status", m->number, m->count);
	a->helper_ended = false;
	tor_link_lost(&e->tor);
	engine_feed(e, LIFECYCLE_EVENT_TOR_LOST);
}

static void on_message(struct agent_link *a, struct agent_message *m)
{
	struct engine *e = a->engine;
	uint32_t dropped;

	/* The lines of a log have their own limit. */
	if (m->kind != AGENT_KIND_TOR && m->kind != AGENT_KIND_TRANSPORT &&
	    m->kind != AGENT_KIND_TLS && m->kind != AGENT_KIND_WARNING &&
	    !rate_limit_allows(&a->messages, uv_now(&e->loop), &dropped))
		return;

	switch (m->kind) {
	case AGENT_KIND_HELLO:
		if (m->version != AGENT_PROTOCOL_VERSION)
			log_warning("The VM speaks version %u of the agent "
				    "protocol instead of %u; rebuild the image "
				    "with `make vm`.",
				    m->version, AGENT_PROTOCOL_VERSION);
		on_hello(a);
		break;
	case AGENT_KIND_STAGE: on_stage(a, m->stage); break;
	case AGENT_KIND_STATE_DISK:
		if (!m->usable)
			vm_supervisor_disk_unusable(&e->vm, m->text);
		break;
	case AGENT_KIND_TOR: log_tor(e, m->text); break;
	case AGENT_KIND_TOR_EXIT: on_tor_exit(a, m); break;
	case AGENT_KIND_TRANSPORT: on_transport(a, m->text); break;
	case AGENT_KIND_TRANSPORT_EXIT:
		on_helper_exit(a, m, "The transport ",
			       config_transport_name(e->cfg->bridge.transport),
			       a->transport_said);
		break;
	case AGENT_KIND_TLS: on_tls(a, m->text); break;
	case AGENT_KIND_TLS_EXIT:
		on_helper_exit(a, m, "The TLS client for the proxy", "",
			       a->tls_said);
		break;
	case AGENT_KIND_RESOLVED:
	case AGENT_KIND_UNRESOLVED:
	case AGENT_KIND_LOOKED_UP: names_hear(&e->names, m); break;
	case AGENT_KIND_MEMORY:
		a->available_kib = m->available_kib;
		log_debug("guest: %" PRIu64 " of %" PRIu64 " KiB available",
			  m->available_kib, m->total_kib);
		break;
	case AGENT_KIND_CLOCK:
		if (llabs(m->offset_ms) > CLOCK_JUMP_MS)
			log_info("The VM's clock was set by %" PRId64 " ms.",
				 m->offset_ms);
		break;
	case AGENT_KIND_WARNING:
		engine_log_guest(e, LOG_LEVEL_WARNING, "The VM", m->text);
		break;
	case AGENT_KIND_ERROR:
		vm_supervisor_guest_error(&e->vm, m->text);
		break;
	case AGENT_KIND_UNKNOWN:
	case AGENT_KIND_PONG: /* like every line: a sign of life */
	case AGENT_KIND_COUNT: break;
	}
}

static void on_data(void *userdata, const char *data, size_t len)
{
	struct agent_link *a = userdata;
	struct error e = ERROR_NULL(e);
	struct agent_message m;
	int ret = agent_push(a->codec, data, len);

	a->heard_ms = uv_now(&a->engine->loop);
	a->heard = true;
	while (ret >= 0) {
		ret = agent_next(a->codec, &m, &e);
		if (ret == -EBADMSG) {
			engine_log_guest(a->engine, LOG_LEVEL_WARNING,
					 "The VM said what makes no sense",
					 e.text);
			ret = 0;
			continue;
		}
		if (ret <= 0)
			break;
		on_message(a, &m);
		/* It may have led to the VM's end. */
		if (!a->stream.open)
			return;
	}
	if (ret < 0) {
		log_warning("The VM's agent: %s; connecting anew.", e.text);
		stream_reopen(&a->stream);
	}
}

static void on_connected(void *userdata)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);
	struct agent_link *a = userdata;

	agent_reset(a->codec);
	if (agent_write_hello(&out) == 0)
		stream_write(&a->stream, &out);
}

static const struct stream_ops ops = {
	.connected = on_connected,
	.data = on_data,
};

void agent_link_open(struct agent_link *a)
{
	memset(a->stage_ms, 0, sizeof(a->stage_ms));
	a->hello = a->network_up = a->helper_ended = false;
	a->transport_said[0] = a->tls_said[0] = '\0';
	a->available_kib = 0;
	a->heard_ms = uv_now(&a->engine->loop);
	a->unanswered = 0;
	stream_open(&a->stream);
}

void agent_link_close(struct agent_link *a)
{
	uv_timer_stop(&a->heartbeat);
	a->guest_asked = a->network_up = false;
	stream_close(&a->stream);
}

void agent_link_ask(struct agent_link *a)
{
	a->guest_asked = true;
	report_up(a);
}

void agent_link_poweroff(struct agent_link *a)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);

	if (agent_write_poweroff(&out) == 0)
		stream_write(&a->stream, &out);
}

void agent_link_admitted(struct agent_link *a)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);

	if (agent_write_admitted(&out) == 0)
		stream_write(&a->stream, &out);
}

void agent_link_resolvers(struct agent_link *a,
			  const struct in6_addr *resolvers, size_t n)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);

	if (agent_write_resolvers(&out, resolvers, n) == 0)
		stream_write(&a->stream, &out);
}

int agent_link_init(struct agent_link *a, struct engine *e)
{
	char path[64];

	*a = (struct agent_link){ .engine = e };
	a->codec = agent_new();
	if (!a->codec)
		return -ENOMEM;
	uv_timer_init(&e->loop, &a->heartbeat);
	a->heartbeat.data = a;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" VM_SOCKET_AGENT,
		 ENGINE_FD_VM_DIR);
	stream_init(&a->stream, &e->loop, path, &ops, a);
	return 0;
}

void agent_link_deinit(struct agent_link *a)
{
	stream_deinit(&a->stream);
	uv_close((uv_handle_t *)&a->heartbeat, NULL);
	agent_freep(&a->codec);
}
