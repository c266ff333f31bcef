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

static int setup(void **state)
{
	static const struct tor_control_callbacks cb = {
		on_ready,      on_version, on_bootstrap, on_circuit,
		on_clock_skew, NULL,       on_log,
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
			 "ERR\r\n");
	assert_int_equal(push(s, "250 OK\r\n"), 0);
	assert_output(s, "GETINFO version status/bootstrap-phase "
			 "status/circuit-established\r\n");
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

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(it_subscribes_before_it_asks),
		with(changes_are_reported_once),
		with(clock_skew_and_log),
		with(refusals_have_a_sentence),
		with(a_reset_forgets_what_was_reported),
	};

	return cmocka_run_group_tests_name("tor-control", tests, NULL, NULL);
}
