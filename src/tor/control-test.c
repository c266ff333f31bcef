#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tor/control.h"

#define INFO_REPLY                                                         \
	"250-version=0.4.9.11\r\n"                                         \
	"250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=5 TAG=conn " \
	"SUMMARY=\"Connecting to a relay\"\r\n"                            \
	"250-status/circuit-established=0\r\n"                             \
	"250-traffic/read=1000\r\n"                                        \
	"250-traffic/written=500\r\n"                                      \
	"250 OK\r\n"

struct seen {
	struct tor_control *c;
	int n_ready, n_bootstrap, n_circuit, n_version, n_skew, n_log;
	struct torctl_bootstrap bootstrap;
	bool circuit;
	char version[32];
	int64_t skew;
	char source[64];
	char log[256];
	enum torctl_severity severity;
	int n_relays, n_circuits, n_entries, n_new_identity;
	struct tor_circuits circuits;
	struct tor_entries entries;
	struct tor_bandwidth bandwidth;
};

static void on_ready(void *userdata)
{
	((struct seen *)userdata)->n_ready++;
}

static void on_version(void *userdata, const char *version)
{
	struct seen *s = userdata;

	s->n_version++;
	str_copy(s->version, sizeof(s->version), version);
}

static void on_bootstrap(void *userdata, const struct torctl_bootstrap *b)
{
	struct seen *s = userdata;

	s->n_bootstrap++;
	s->bootstrap = *b;
}

static void on_circuit(void *userdata, bool established)
{
	struct seen *s = userdata;

	s->n_circuit++;
	s->circuit = established;
}

static void on_clock_skew(void *userdata, int64_t seconds, const char *source)
{
	struct seen *s = userdata;

	s->n_skew++;
	s->skew = seconds;
	str_copy(s->source, sizeof(s->source), source);
}

static void on_log(void *userdata, enum torctl_severity severity,
		   const char *text)
{
	struct seen *s = userdata;

	s->n_log++;
	s->severity = severity;
	strncat(s->log, text, sizeof(s->log) - strlen(s->log) - 1);
	strncat(s->log, "|", sizeof(s->log) - strlen(s->log) - 1);
}

static void on_relays(void *userdata, const struct tor_relays *relays)
{
	((struct seen *)userdata)->n_relays++;
}

static void on_circuits(void *userdata, const struct tor_circuits *circuits)
{
	struct seen *s = userdata;

	s->n_circuits++;
	s->circuits = *circuits;
}

static void on_entries(void *userdata, const struct tor_entries *entries)
{
	struct seen *s = userdata;

	s->n_entries++;
	s->entries = *entries;
}

static void on_new_identity(void *userdata)
{
	((struct seen *)userdata)->n_new_identity++;
}

static void on_bandwidth(void *userdata, const struct tor_bandwidth *b)
{
	((struct seen *)userdata)->bandwidth = *b;
}

static int setup(void **state)
{
	static const struct tor_control_callbacks cb = {
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
		.log = on_log,
	};
	struct seen *s = calloc(1, sizeof(*s));

	*state = s;
	s->c = tor_control_new(&cb, s);
	return s->c ? tor_control_connected(s->c) : -1;
}

static int teardown(void **state)
{
	struct seen *s = *state;

	tor_control_free(s->c);
	free(s);
	return 0;
}

static void assert_output(struct seen *s, const char *expected)
{
	size_t len;
	const char *out = buffer_peek(tor_control_output(s->c), &len);

	assert_int_equal(len, strlen(expected));
	if (len > 0)
		assert_memory_equal(out, expected, len);
	buffer_consume(tor_control_output(s->c), len);
}

static int push(struct seen *s, const char *text)
{
	return tor_control_push(s->c, text, strlen(text), NULL);
}

static void make_ready(struct seen *s)
{
	size_t len;

	assert_int_equal(push(s, "250 OK\r\n250 OK\r\n" INFO_REPLY), 0);
	assert_true(tor_control_is_ready(s->c));
	buffer_peek(tor_control_output(s->c), &len);
	buffer_consume(tor_control_output(s->c), len);
}

static void it_subscribes_before_it_asks(void **state)
{
	struct seen *s = *state;

	assert_output(s, "AUTHENTICATE\r\n");
	assert_int_equal(push(s, "250 OK\r\n"), 0);
	assert_output(s, "SETEVENTS STATUS_CLIENT STATUS_GENERAL NOTICE WARN "
			 "ERR BW ORCONN\r\n");
	assert_int_equal(push(s, "250 OK\r\n"), 0);
	assert_output(s, "GETINFO version status/bootstrap-phase "
			 "status/circuit-established traffic/read "
			 "traffic/written\r\n");
	assert_int_equal(s->n_ready, 0);
	assert_int_equal(push(s, INFO_REPLY), 0);
	assert_int_equal(s->n_ready, 1);
	assert_string_equal(s->version, "0.4.9.11");
	assert_int_equal(s->bootstrap.percent, 5);
	assert_int_equal(s->n_circuit, 1);
	assert_false(s->circuit);
	assert_output(s, "");
}

static void changes_are_reported_once(void **state)
{
	struct seen *s = *state;

	make_ready(s);
	assert_int_equal(
		push(s, "650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=100 "
			"TAG=done SUMMARY=\"Done\"\r\n"
			"650 STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED\r\n"
			"650 STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED\r\n"),
		0);
	assert_int_equal(s->n_bootstrap, 2);
	assert_string_equal(s->bootstrap.tag, "done");
	assert_int_equal(s->n_circuit, 2);
	assert_true(s->circuit);

	assert_int_equal(push(s, "650 STATUS_CLIENT NOTICE "
				 "CIRCUIT_NOT_ESTABLISHED "
				 "REASON=CLOCK_JUMPED TIME=3600\r\n"),
			 0);
	assert_false(s->circuit);
}

static void clock_skew_and_log(void **state)
{
	struct seen *s = *state;

	make_ready(s);
	assert_int_equal(push(s, "650 STATUS_GENERAL WARN CLOCK_SKEW "
				 "SKEW=3600 SOURCE=OR:192.0.2.1:9001\r\n"
				 "650 WARN Our clock is wrong\x07\r\n"
				 "650+ERR\r\none\r\ntwo\r\n.\r\n650 OK\r\n"
				 "650 STATUS_GENERAL NOTICE SOMETHING_NEW "
				 "A=1\r\n"),
			 0);
	assert_int_equal(s->skew, 3600);
	assert_string_equal(s->source, "OR:192.0.2.1:9001");
	assert_string_equal(s->log, "Our clock is wrong?|one|two|");
	assert_int_equal(s->severity, TORCTL_SEVERITY_ERR);
}

static void refusals_have_a_sentence(void **state)
{
	struct seen *s = *state;
	struct error e = ERROR_NULL(e);
	static const char refused[] = "515 Authentication failed\r\n",
			  unknown[] = "552 Unrecognized key\r\n",
			  unasked[] = "250 OK\r\n";

	assert_int_equal(tor_control_push(s->c, refused, strlen(refused), &e),
			 -EACCES);
	assert_non_null(strstr(e.text, "515 Authentication failed"));

	assert_int_equal(tor_control_connected(s->c), 0);
	assert_int_equal(push(s, "250 OK\r\n250 OK\r\n"), 0);
	assert_int_equal(tor_control_push(s->c, unknown, strlen(unknown), &e),
			 -EPROTO);

	assert_int_equal(tor_control_connected(s->c), 0);
	make_ready(s);
	assert_int_equal(tor_control_push(s->c, unasked, strlen(unasked), &e),
			 -EBADMSG);
	assert_int_equal(tor_control_connected(s->c), 0);
	assert_int_equal(push(s, "650 CIRC 1 BUILT\r\n"), -EBADMSG);
}

static void a_reset_forgets_what_was_reported(void **state)
{
	struct seen *s = *state;

	make_ready(s);
	assert_int_equal(push(s, "650 STATUS_CLIENT NOT"), 0);
	tor_control_reset(s->c);
	assert_false(tor_control_is_ready(s->c));
	assert_int_equal(tor_control_connected(s->c), 0);
	make_ready(s);
	assert_int_equal(s->n_ready, 2);
	assert_int_equal(s->n_bootstrap, 2);
	assert_int_equal(s->n_version, 2);
}

#define FP "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static void questions_are_asked_in_turn(void **state)
{
	struct seen *s = *state;

	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_RELAYS), -EAGAIN);
	make_ready(s);
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_CIRCUITS), 0);
	assert_output(s, "GETINFO circuit-status stream-status\r\n");
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_NEW_IDENTITY), 0);
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_ENTRIES), 0);
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_ENTRIES), 0);
	assert_output(s, "");
	assert_int_equal(push(s, "250+circuit-status=\r\n"
				 "7 BUILT $" FP "~one PURPOSE=GENERAL\r\n"
				 "8 LAUNCHED PURPOSE=GENERAL\r\n.\r\n"
				 "250-stream-status=3 NEW 0 a:1\r\n"
				 "250 OK\r\n"),
			 0);
	assert_output(s, "GETINFO ip-to-country/ipv4-available\r\n");
	assert_int_equal(
		push(s, "250-ip-to-country/ipv4-available=0\r\n250 OK\r\n"), 0);
	assert_int_equal(s->n_circuits, 1);
	assert_int_equal(s->circuits.n_circuits, 2);
	assert_int_equal(s->circuits.n_streams, 1);
	assert_output(s, "GETINFO entry-guards orconn-status\r\n");
	assert_int_equal(push(s, "650 ORCONN 192.0.2.1:443 FAILED ID=1\r\n"
				 "250-entry-guards=$" FP "~one up\r\n"
				 "250-orconn-status=\r\n250 OK\r\n"),
			 0);
	assert_int_equal(s->n_entries, 1);
	assert_int_equal(s->entries.n_entries, 2);
	assert_string_equal(s->entries.entries[1].state, "failed");
	assert_output(s, "SIGNAL NEWNYM\r\n");
	assert_int_equal(push(s, "250 OK\r\n"), 0);
	assert_int_equal(s->n_new_identity, 1);
	assert_output(s, "");
	assert_int_equal(push(s, "250 OK\r\n"), -EBADMSG);
}

static void countries_are_asked_for_where_they_are_known(void **state)
{
	struct seen *s = *state;

	make_ready(s);
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_CIRCUITS), 0);
	assert_int_equal(
		push(s, "250-circuit-status=7 BUILT $" FP "~one,"
			"$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB~two,"
			"$CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC~three\r\n"
			"250-stream-status=\r\n250 OK\r\n"
			"250-ip-to-country/ipv4-available=1\r\n250 OK\r\n"),
		0);
	buffer_clear(tor_control_output(s->c));
	/* The first is not known, the second has no country. */
	assert_int_equal(
		push(s, "552 Unrecognized key\r\n"
			"250+ns/id/B=\r\nr two xxx yyy 2026-11-24 17:00:00 "
			"192.0.2.7 9001 0\r\ns Fast\r\n.\r\n250 OK\r\n"
			"250-ip-to-country/192.0.2.7=??\r\n250 OK\r\n"),
		0);
	assert_int_equal(
		push(s, "250+ns/id/C=\r\nr three xxx yyy 2026-11-24 17:00:00 "
			"192.0.2.8 9001 0\r\n.\r\n250 OK\r\n"
			"250-ip-to-country/192.0.2.8=de\r\n250 OK\r\n"),
		0);
	assert_output(s,
		      "GETINFO ns/id/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
		      "\r\nGETINFO ip-to-country/192.0.2.7\r\n"
		      "GETINFO ns/id/CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"
		      "\r\nGETINFO ip-to-country/192.0.2.8\r\n");
	assert_int_equal(s->n_circuits, 1);
	assert_string_equal(s->circuits.relays[0].country, "");
	assert_string_equal(s->circuits.relays[1].country, "");
	assert_string_equal(s->circuits.relays[2].country, "de");
}

static void bandwidth_is_added_up(void **state)
{
	struct seen *s = *state;

	make_ready(s);
	assert_int_equal(push(s, "650 BW 10 5\r\n650 BW 7 0 1 2\r\n"), 0);
	assert_int_equal(s->bandwidth.read, 1017);
	assert_int_equal(s->bandwidth.written, 505);
	assert_int_equal(s->bandwidth.read_rate, 7);
	assert_int_equal(s->bandwidth.written_rate, 0);
	assert_int_equal(push(s, "650 BW 1\r\n"), -EBADMSG);
	assert_int_equal(push(s, "650 BW x 1\r\n"), -EBADMSG);
}

static void a_reset_forgets_questions(void **state)
{
	struct seen *s = *state;

	make_ready(s);
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_RELAYS), 0);
	assert_int_equal(tor_control_ask(s->c, TOR_QUESTION_ENTRIES), 0);
	tor_control_reset(s->c);
	assert_int_equal(tor_control_connected(s->c), 0);
	make_ready(s);
	assert_output(s, "");
	assert_int_equal(s->n_relays + s->n_entries, 0);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(it_subscribes_before_it_asks),
		with(changes_are_reported_once),
		with(clock_skew_and_log),
		with(refusals_have_a_sentence),
		with(a_reset_forgets_what_was_reported),
		with(questions_are_asked_in_turn),
		with(countries_are_asked_for_where_they_are_known),
		with(bandwidth_is_added_up),
		with(a_reset_forgets_questions),
	};

	return cmocka_run_group_tests_name("tor-control", tests, NULL, NULL);
}
