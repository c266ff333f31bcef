/*
 * Theory of operation: one command at a time, each sent when the one before it
 * has been answered:
 *
 *	AUTHENTICATE		the socket is reachable by the controller only,
 *				Tor asks for no secret
 *	SETEVENTS ...		first the subscription,
 *	GETINFO ...		then the present: nothing falls in between
 *
 * Later, questions, in turn:
 *
 *	relays		GETINFO orconn-status, then, for each relay it names,
 *			GETINFO ns/id/FINGERPRINT: its addresses. Tor may not
 *			know a relay (any more); that is no fault.
 *	circuits	GETINFO circuit-status stream-status, then, if Tor has
 *			GeoIP data, GETINFO ns/id/FINGERPRINT and
 *			ip-to-country/ADDRESS for each relay
 *	entries		GETINFO entry-guards orconn-status, and what ORCONN
 *			events have told
 *	new identity	SIGNAL NEWNYM
 *
 * Events are understood in any phase. Changes are reported once: what GETINFO
 * repeats is compared with what was said last. An event that we asked for and
 * cannot parse ends the session: the two sides do not agree.
 */
#include "tor/control.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "proto/text.h"

#define EVENTS "STATUS_CLIENT STATUS_GENERAL NOTICE WARN ERR BW ORCONN"
#define INFO                                                                 \
	"version status/bootstrap-phase status/circuit-established traffic/" \
	"read traffic/written"

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
	PHASE_CIRCUITS,
	PHASE_GEOIP,
	PHASE_HOP,
	PHASE_COUNTRY,
	PHASE_ENTRIES,
	PHASE_NEW_IDENTITY,
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
	struct tor_bandwidth bandwidth;
	unsigned int asked; /* a bit for each question that waits */
	/* Answers, as far as they have been told. */
	struct tor_relays relays;
	struct tor_circuits circuits;
	size_t next_relay;         /* of either */
	struct tor_entries failed; /* since the connection */
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
	c->bandwidth = (struct tor_bandwidth){ 0 };
	c->failed.n_entries = 0;
	c->asked = 0;
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

/* A number of bytes, far below what 64 bits hold. */
static int parse_bytes(const char *text, const char **ret_end, uint64_t *ret)
{
	size_t n = strspn(text, "0123456789");

	if (n < 1 || n > 18)
		return -EBADMSG;
	*ret = strtoull(text, NULL, 10);
	*ret_end = text + n;
	return 0;
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

/* "READ WRITTEN" and, from later versions maybe, more. */
static int handle_bandwidth(struct tor_control *c, const char *text)
{
	struct tor_bandwidth *b = &c->bandwidth;
	uint64_t read, written;

	if (parse_bytes(text, &text, &read) < 0 || *text != ' ' ||
	    parse_bytes(text + 1, &text, &written) < 0 ||
	    (*text != ' ' && *text != '\0'))
		return -EBADMSG;
	b->read_rate = read;
	b->written_rate = written;
	b->read += read;
	b->written += written;
	if (c->cb.bandwidth)
		c->cb.bandwidth(c->userdata, b);
	return 0;
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
	if (!strncmp(line->text, "BW ", len + 1))
		return handle_bandwidth(c, rest);
	if (!strncmp(line->text, "ORCONN ", len + 1)) {
		tor_entries_note(&c->failed, rest);
		return 0;
	}
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
			  circuit[] = "status/circuit-established=",
			  read[] = "traffic/read=",
			  written[] = "traffic/written=";

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
		} else if (!strncmp(text, read, strlen(read))) {
			if (parse_bytes(text + strlen(read), &text,
					&c->bandwidth.read) < 0)
				return -EBADMSG;
		} else if (!strncmp(text, written, strlen(written))) {
			if (parse_bytes(text + strlen(written), &text,
					&c->bandwidth.written) < 0)
				return -EBADMSG;
		} else {
			return -EBADMSG;
		}
	}
	return 0;
}

/* Sends the next question, if none is being answered. */
static int ask_next(struct tor_control *c)
{
	static const struct {
		enum phase phase;
		const char *command;
	} questions[] = {
		[TOR_QUESTION_RELAYS] = { PHASE_CONNECTIONS,
					  "GETINFO orconn-status" },
		[TOR_QUESTION_CIRCUITS] = { PHASE_CIRCUITS,
					    "GETINFO circuit-status "
					    "stream-status" },
		[TOR_QUESTION_ENTRIES] = { PHASE_ENTRIES,
					   "GETINFO entry-guards "
					   "orconn-status" },
		[TOR_QUESTION_NEW_IDENTITY] = { PHASE_NEW_IDENTITY,
						"SIGNAL NEWNYM" },
	};
	_Static_assert(ARRAY_SIZE(questions) == TOR_QUESTION_COUNT,
		       "questions");

	for (int q = 0; q < TOR_QUESTION_COUNT; q++) {
		if (c->phase != PHASE_READY || !(c->asked & (1u << q)))
			continue;
		c->asked &= ~(1u << q);
		return ask(c, questions[q].phase, questions[q].command);
	}
	return 0;
}

int tor_control_ask(struct tor_control *c, enum tor_question question)
{
	if (!tor_control_is_ready(c))
		return -EAGAIN;
	c->asked |= 1u << question;
	return ask_next(c);
}

/* The question at hand is answered. */
static int done(struct tor_control *c)
{
	c->phase = PHASE_READY;
	return ask_next(c);
}

/* The value of line @i; one of several lines comes as data, others behind the
 * key. NULL: there is none. */
static const char *value_of(const struct torctl_reply *reply, size_t i)
{
	const char *equals;

	if (reply->status != 250)
		return "";
	if (i >= reply->n_lines)
		return NULL;
	equals = strchr(reply->lines[i].text, '=');
	if (!equals)
		return NULL;
	return reply->lines[i].data ? reply->lines[i].data : equals + 1;
}

static int next_relay(struct tor_control *c)
{
	if (c->next_relay < c->relays.n_fingerprints) {
		c->phase = PHASE_RELAY;
		return torctl_command(&c->out, "GETINFO ns/id/%s",
				      c->relays.fingerprints[c->next_relay++]);
	}
	if (c->cb.relays)
		c->cb.relays(c->userdata, &c->relays);
	return done(c);
}

static int handle_relays(struct tor_control *c,
			 const struct torctl_reply *reply)
{
	const char *value = value_of(reply, 0);

	if (!value)
		return -EBADMSG;
	if (c->phase == PHASE_CONNECTIONS) {
		tor_relays_from_connections(value, &c->relays);
		c->next_relay = 0;
	} else {
		tor_relays_add(&c->relays, value);
	}
	return next_relay(c);
}

static int report_circuits(struct tor_control *c)
{
	if (c->cb.circuits)
		c->cb.circuits(c->userdata, &c->circuits);
	return done(c);
}

static int next_hop(struct tor_control *c)
{
	if (c->next_relay == c->circuits.n_relays)
		return report_circuits(c);
	c->phase = PHASE_HOP;
	return torctl_command(&c->out, "GETINFO ns/id/%s",
			      c->circuits.relays[c->next_relay].fingerprint);
}

static int handle_circuits(struct tor_control *c,
			   const struct torctl_reply *reply)
{
	const char *circuits = value_of(reply, 0);
	const char *streams = value_of(reply, 1);

	if (!circuits || !streams)
		return -EBADMSG;
	tor_circuits_parse(circuits, &c->circuits);
	tor_streams_parse(streams, &c->circuits);
	c->next_relay = 0;
	return ask(c, PHASE_GEOIP, "GETINFO ip-to-country/ipv4-available");
}

static int handle_geoip(struct tor_control *c, const struct torctl_reply *reply)
{
	const char *value = value_of(reply, 0);

	if (!value)
		return -EBADMSG;
	return !strcmp(value, "1") ? next_hop(c) : report_circuits(c);
}

/* The address of a relay; what comes next is its country. */
static int handle_hop(struct tor_control *c, const struct torctl_reply *reply)
{
	const char *value = value_of(reply, 0);
	struct tor_relays one = { 0 };
	char text[ENDPOINT_TEXT_MAX], *colon;

	if (!value)
		return -EBADMSG;
	tor_relays_add(&one, value);
	if (one.n_endpoints == 0) {
		c->next_relay++;
		return next_hop(c);
	}
	endpoint_format(&one.endpoints[0], text);
	colon = strrchr(text, ':');
	if (colon)
		*colon = '\0';
	c->phase = PHASE_COUNTRY;
	return torctl_command(&c->out, "GETINFO ip-to-country/%s", text);
}

static int handle_country(struct tor_control *c,
			  const struct torctl_reply *reply)
{
	struct tor_hop_relay *relay = &c->circuits.relays[c->next_relay++];
	const char *value = value_of(reply, 0);

	if (!value)
		return -EBADMSG;
	/* "??" is what Tor calls a country it does not know. */
	if (strlen(value) == 2 && islower((unsigned char)value[0]) &&
	    islower((unsigned char)value[1]))
		str_copy(relay->country, sizeof(relay->country), value);
	return next_hop(c);
}

static int handle_entries(struct tor_control *c,
			  const struct torctl_reply *reply)
{
	const char *guards = value_of(reply, 0);
	const char *connections = value_of(reply, 1);
	struct tor_entries entries;

	if (!guards || !connections)
		return -EBADMSG;
	tor_entries_parse(guards, &c->failed, connections, &entries);
	if (c->cb.entries)
		c->cb.entries(c->userdata, &entries);
	return done(c);
}

/* Whether Tor may answer the question at hand with "I do not know". */
static bool may_be_unknown(enum phase phase)
{
	return phase == PHASE_RELAY || phase == PHASE_HOP ||
	       phase == PHASE_GEOIP || phase == PHASE_COUNTRY;
}

static int handle_answer(struct tor_control *c,
			 const struct torctl_reply *reply, struct error *e)
{
	char text[128];
	int r;

	/* 552: no such relay; 551: no consensus, no GeoIP data. */
	if (reply->status != 250 &&
	    !(may_be_unknown(c->phase) &&
	      (reply->status == 552 || reply->status == 551))) {
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
		if (c->cb.bandwidth)
			c->cb.bandwidth(c->userdata, &c->bandwidth);
		c->phase = PHASE_READY;
		if (c->cb.ready)
			c->cb.ready(c->userdata);
		return 0;
	case PHASE_CONNECTIONS:
	case PHASE_RELAY: return handle_relays(c, reply);
	case PHASE_CIRCUITS: return handle_circuits(c, reply);
	case PHASE_GEOIP: return handle_geoip(c, reply);
	case PHASE_HOP: return handle_hop(c, reply);
	case PHASE_COUNTRY: return handle_country(c, reply);
	case PHASE_ENTRIES: return handle_entries(c, reply);
	case PHASE_NEW_IDENTITY:
		if (c->cb.new_identity)
			c->cb.new_identity(c->userdata);
		return done(c);
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
