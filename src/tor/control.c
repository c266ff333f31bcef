/*
 * Theory of operation: one command at a time, each sent when the one before it
 * has been answered:
 *
 *	AUTHENTICATE		the socket is reachable by the controller only,
 *				Tor asks for no secret
 *	SETEVENTS ...		first the subscription,
 *	GETINFO ...		then the present: nothing falls in between
 *
 * Later, when asked for, GETINFO orconn-status and then, for each relay it
 * names, GETINFO ns/id/FINGERPRINT: its addresses. Tor may not know a relay
 * (any more); that is no fault.
 *
 * Events are understood in any phase. Changes are reported once: what GETINFO
 * repeats is compared with what was said last. An event that we asked for and
 * cannot parse ends the session: the two sides do not agree.
 */
#include "tor/control.h"

#include <errno.h>
#include <string.h>

#include "proto/text.h"

#define EVENTS "STATUS_CLIENT STATUS_GENERAL NOTICE WARN ERR"
#define INFO "version status/bootstrap-phase status/circuit-established"

/* Which answer is awaited. */
enum phase {
	PHASE_CLOSED,
	PHASE_AUTHENTICATE,
	PHASE_SETEVENTS,
	PHASE_INFO,
	PHASE_READY, /* none */
	/* From here on the session is ready, too. */
	PHASE_CONNECTIONS,
	PHASE_RELAY,
};

struct tor_control {
	struct tor_control_callbacks cb;
	void *userdata;
	struct torctl *torctl;
	struct buffer out;
	enum phase phase;
	/* What was reported last on this connection. */
	struct torctl_bootstrap bootstrap;
	bool bootstrap_known;
	bool circuit, circuit_known;
	char version[64];
	struct tor_relays relays; /* as far as they have been told */
	size_t next_relay;
};

struct tor_control *tor_control_new(const struct tor_control_callbacks *cb,
				    void *userdata)
{
	struct tor_control *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->cb = *cb;
	c->userdata = userdata;
	c->torctl = torctl_new();
	if (!c->torctl) {
		free(c);
		return NULL;
	}
	return c;
}

void tor_control_free(struct tor_control *c)
{
	if (!c)
		return;
	torctl_free(c->torctl);
	buffer_deinit(&c->out);
	free(c);
}

void tor_control_freep(struct tor_control **c)
{
	tor_control_free(*c);
}

void tor_control_reset(struct tor_control *c)
{
	torctl_reset(c->torctl);
	buffer_clear(&c->out);
	c->phase = PHASE_CLOSED;
	c->bootstrap_known = c->circuit_known = false;
	c->version[0] = '\0';
}

bool tor_control_is_ready(const struct tor_control *c)
{
	return c->phase >= PHASE_READY;
}

struct buffer *tor_control_output(struct tor_control *c)
{
	return &c->out;
}

static int ask(struct tor_control *c, enum phase next, const char *line)
{
	c->phase = next;
	return torctl_command(&c->out, "%s", line);
}

int tor_control_connected(struct tor_control *c)
{
	tor_control_reset(c);
	return ask(c, PHASE_AUTHENTICATE, "AUTHENTICATE");
}

static bool same_bootstrap(const struct torctl_bootstrap *a,
			   const struct torctl_bootstrap *b)
{
	return a->severity == b->severity && a->percent == b->percent &&
	       a->count == b->count && a->recommend_warn == b->recommend_warn &&
	       !strcmp(a->tag, b->tag) && !strcmp(a->summary, b->summary) &&
	       !strcmp(a->warning, b->warning) &&
	       !strcmp(a->reason, b->reason) && !strcmp(a->host, b->host) &&
	       !strcmp(a->host_address, b->host_address);
}

static void report_bootstrap(struct tor_control *c,
			     const struct torctl_bootstrap *b)
{
	if (c->bootstrap_known && same_bootstrap(&c->bootstrap, b))
		return;
	c->bootstrap = *b;
	c->bootstrap_known = true;
	if (c->cb.bootstrap)
		c->cb.bootstrap(c->userdata, b);
}

static void report_circuit(struct tor_control *c, bool established)
{
	if (c->circuit_known && c->circuit == established)
		return;
	c->circuit = established;
	c->circuit_known = true;
	if (c->cb.circuit_established)
		c->cb.circuit_established(c->userdata, established);
}

static void report_version(struct tor_control *c, const char *value)
{
	char version[sizeof(c->version)];

	text_copy(version, sizeof(version), value);
	/* "0.4.9.11 (git-...)": the number is what people know. */
	version[strcspn(version, " ")] = '\0';
	if (!strcmp(version, c->version))
		return;
	str_copy(c->version, sizeof(c->version), version);
	if (c->cb.version)
		c->cb.version(c->userdata, version);
}

/* "SEVERITY ACTION arguments" of both status events. */
static int handle_status(struct tor_control *c, const char *line)
{
	struct torctl_bootstrap b;
	char source[96];
	int64_t seconds;
	int r;

	r = torctl_parse_bootstrap(line, &b);
	if (r == 0)
		report_bootstrap(c, &b);
	if (r != -ENOENT)
		return r;
	if (torctl_status_is(line, "CIRCUIT_ESTABLISHED"))
		report_circuit(c, true);
	else if (torctl_status_is(line, "CIRCUIT_NOT_ESTABLISHED"))
		report_circuit(c, false);
	r = torctl_parse_clock_skew(line, &seconds, source, sizeof(source));
	if (r == 0 && c->cb.clock_skew)
		c->cb.clock_skew(c->userdata, seconds, source);
	return r == -ENOENT ? 0 : r;
}

static void report_log(struct tor_control *c, enum torctl_severity severity,
		       const char *text)
{
	char clean[1024];

	text_copy(clean, sizeof(clean), text);
	if (c->cb.log)
		c->cb.log(c->userdata, severity, clean);
}

/* A message of several lines comes as data; each line is reported. */
static void handle_log(struct tor_control *c, enum torctl_severity severity,
		       const struct torctl_line *line, const char *text)
{
	char *rest = line->data, *one;

	if (!rest) {
		report_log(c, severity, text);
		return;
	}
	while ((one = strsep(&rest, "\n")))
		if (*one)
			report_log(c, severity, one);
}

static int handle_event(struct tor_control *c, const struct torctl_reply *reply)
{
	const struct torctl_line *line = &reply->lines[0];
	size_t len = strcspn(line->text, " ");
	const char *rest = line->text + len;
	int severity;

	rest += *rest == ' ';
	if (!strncmp(line->text, "STATUS_CLIENT ", len + 1) ||
	    !strncmp(line->text, "STATUS_GENERAL ", len + 1))
		return handle_status(c, rest);
	severity = torctl_severity_from_name(line->text, len);
	if (severity < 0)
		return -EBADMSG;
	handle_log(c, (enum torctl_severity)severity, line, rest);
	return 0;
}

/* "key=value" lines, then "OK". */
static int handle_info(struct tor_control *c, const struct torctl_reply *reply)
{
	static const char version[] = "version=",
			  phase[] = "status/bootstrap-phase=",
			  circuit[] = "status/circuit-established=";

	for (size_t i = 0; i + 1 < reply->n_lines; i++) {
		const char *text = reply->lines[i].text;
		struct torctl_bootstrap b;

		if (!strncmp(text, version, strlen(version))) {
			report_version(c, text + strlen(version));
		} else if (!strncmp(text, phase, strlen(phase))) {
			if (torctl_parse_bootstrap(text + strlen(phase), &b) <
			    0)
				return -EBADMSG;
			report_bootstrap(c, &b);
		} else if (!strncmp(text, circuit, strlen(circuit))) {
			report_circuit(c, !strcmp(text + strlen(circuit), "1"));
		} else {
			return -EBADMSG;
		}
	}
	return 0;
}

int tor_control_ask_relays(struct tor_control *c)
{
	if (c->phase != PHASE_READY)
		return -EBUSY;
	return ask(c, PHASE_CONNECTIONS, "GETINFO orconn-status");
}

static int next_relay(struct tor_control *c)
{
	if (c->next_relay < c->relays.n_fingerprints) {
		c->phase = PHASE_RELAY;
		return torctl_command(&c->out, "GETINFO ns/id/%s",
				      c->relays.fingerprints[c->next_relay++]);
	}
	c->phase = PHASE_READY;
	if (c->cb.relays)
		c->cb.relays(c->userdata, &c->relays);
	return 0;
}

/* A value of several lines comes as data, others behind the key. */
static int handle_relays(struct tor_control *c,
			 const struct torctl_reply *reply)
{
	const struct torctl_line *line = &reply->lines[0];
	const char *value = strchr(line->text, '=');
	bool known = reply->status == 250;

	if (known && !value)
		return -EBADMSG;
	value = !known ? "" : line->data ? line->data : value + 1;
	if (c->phase == PHASE_CONNECTIONS) {
		tor_relays_from_connections(value, &c->relays);
		c->next_relay = 0;
	} else {
		tor_relays_add(&c->relays, value);
	}
	return next_relay(c);
}

static int handle_answer(struct tor_control *c,
			 const struct torctl_reply *reply, struct error *e)
{
	char text[128];
	int r;

	/* 552: no such relay; 551: no consensus. */
	if (c->phase == PHASE_RELAY &&
	    (reply->status == 552 || reply->status == 551))
		return handle_relays(c, reply);
	if (reply->status != 250) {
		text_copy(text, sizeof(text), reply->lines[0].text);
		return error_set(
			e, c->phase == PHASE_AUTHENTICATE ? -EACCES : -EPROTO,
			"Tor refused a control command: %d %s", reply->status,
			text);
	}
	switch (c->phase) {
	case PHASE_AUTHENTICATE:
		return ask(c, PHASE_SETEVENTS, "SETEVENTS " EVENTS);
	case PHASE_SETEVENTS: return ask(c, PHASE_INFO, "GETINFO " INFO);
	case PHASE_INFO:
		r = handle_info(c, reply);
		if (r < 0)
			return r;
		c->phase = PHASE_READY;
		if (c->cb.ready)
			c->cb.ready(c->userdata);
		return 0;
	case PHASE_CONNECTIONS:
	case PHASE_RELAY: return handle_relays(c, reply);
	case PHASE_CLOSED:
	case PHASE_READY: break;
	}
	return error_set(e, -EBADMSG,
			 "Tor's control port answered what was not asked");
}

int tor_control_push(struct tor_control *c, const void *data, size_t len,
		     struct error *e)
{
	const struct torctl_reply *reply;
	struct error inner = ERROR_NULL(inner);
	int r;

	r = torctl_push(c->torctl, data, len);
	while (r == 0) {
		r = torctl_next(c->torctl, &reply, &inner);
		if (r == 0)
			return 0;
		if (r > 0)
			r = reply->async ? handle_event(c, reply)
					 : handle_answer(c, reply, &inner);
	}
	if (inner.code == 0)
		error_set(&inner, r, "Tor's control port: %s", strerror(-r));
	return error_set(e, r, "%s", inner.text);
}
