#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tor/control.h"

#define FP_A "0123456789ABCDEF0123456789ABCDEF01234567"
#define FP_B "89ABCDEF0123456789ABCDEF0123456789ABCDEF"
#define R_LINE                                                        \
	"r guard ASNFZ4mrze8BI0VniavN7wEjRWc qz 2026-01-02 03:04:05 " \
	"198.51.100.7 9001 0"

static void assert_endpoint(const struct tor_relays *relays, size_t i,
			    const char *text)
{
	char buf[ENDPOINT_TEXT_MAX];

	assert_true(i < relays->n_endpoints);
	assert_string_equal(endpoint_format(&relays->endpoints[i], buf), text);
}

static void connections(void **state)
{
	struct tor_relays r;

	tor_relays_from_connections("$" FP_A "~guard CONNECTED\n"
				    "$" FP_B " LAUNCHED\r\n"
				    "192.0.2.5:443 NEW\n"
				    "[2001:db8::1]:443 NEW\n"
				    "2001:db8::2:443 NEW\n"
				    "what CONNECTED\n",
				    &r);
	assert_int_equal(r.n_fingerprints, 2);
	assert_string_equal(r.fingerprints[0], FP_A);
	assert_string_equal(r.fingerprints[1], FP_B);
	assert_int_equal(r.n_endpoints, 3);
	assert_endpoint(&r, 0, "192.0.2.5:443");
	assert_endpoint(&r, 1, "[2001:db8::1]:443");
	assert_endpoint(&r, 2, "[2001:db8::2]:443");
	assert_int_equal(r.n_unknown, 1);
	tor_relays_from_connections("", &r);
	assert_int_equal(r.n_fingerprints + r.n_endpoints + r.n_unknown, 0);
}

static void more_connections_than_fit(void **state)
{
	char text[100 * 64] = "";
	struct tor_relays r;

	for (int i = 0; i < 100; i++)
		strcat(text, "$" FP_A "~x CONNECTED\n");
	tor_relays_from_connections(text, &r);
	assert_int_equal(r.n_fingerprints, TOR_RELAYS_MAX);
	assert_int_equal(r.n_unknown, 100 - TOR_RELAYS_MAX);
}

static void a_relay(void **state)
{
	struct tor_relays r = { 0 };

	tor_relays_add(&r, R_LINE "\na [2001:db8::7]:9001\ns Fast Guard\n");
	assert_int_equal(r.n_endpoints, 2);
	assert_endpoint(&r, 0, "198.51.100.7:9001");
	assert_endpoint(&r, 1, "[2001:db8::7]:9001");
	assert_int_equal(r.n_unknown, 0);
	/* No entry, half an entry, rubbish. */
	tor_relays_add(&r, "");
	tor_relays_add(&r, "r guard a b c d 198.51.100.8\n");
	tor_relays_add(&r, "r guard a b c d 198.51.100.8 99999 0\n");
	tor_relays_add(&r, "s Fast\n");
	assert_int_equal(r.n_endpoints, 2);
	assert_int_equal(r.n_unknown, 4);
}

/* --- the session --- */

static struct tor_relays told;
static int n_told;

static void on_relays(void *userdata, const struct tor_relays *relays)
{
	told = *relays;
	n_told++;
}

static void push(struct tor_control *c, const char *text)
{
	struct error e = ERROR_NULL(e);

	if (tor_control_push(c, text, strlen(text), &e) < 0)
		fail_msg("%s", e.text);
}

static void assert_asked(struct tor_control *c, const char *line)
{
	size_t len;
	const char *out = buffer_peek(tor_control_output(c), &len);

	assert_int_equal(len, strlen(line));
	assert_memory_equal(out, line, len);
	buffer_consume(tor_control_output(c), len);
}

static void session(void **state)
{
	const struct tor_control_callbacks cb = { .relays = on_relays };
	struct tor_control *c = tor_control_new(&cb, NULL);
	size_t len;

	assert_int_equal(tor_control_ask(c, TOR_QUESTION_RELAYS), -EAGAIN);
	tor_control_connected(c);
	push(c, "250 OK\r\n250 OK\r\n250-version=0.4.9.1\r\n250 OK\r\n");
	buffer_peek(tor_control_output(c), &len);
	buffer_consume(tor_control_output(c), len);

	assert_int_equal(tor_control_ask(c, TOR_QUESTION_RELAYS), 0);
	assert_asked(c, "GETINFO orconn-status\r\n");
	assert_true(tor_control_is_ready(c));
	push(c, "250+orconn-status=\r\n$" FP_A "~guard CONNECTED\r\n"
		"$" FP_B "~gone CONNECTED\r\n.\r\n250 OK\r\n");
	assert_asked(c, "GETINFO ns/id/" FP_A "\r\n");
	push(c, "250+ns/id/" FP_A "=\r\n" R_LINE "\r\n.\r\n250 OK\r\n");
	assert_asked(c, "GETINFO ns/id/" FP_B "\r\n");
	assert_int_equal(n_told, 0);
	push(c, "552 Unrecognized key \"ns/id/" FP_B "\"\r\n");
	assert_int_equal(n_told, 1);
	assert_int_equal(told.n_endpoints, 1);
	assert_endpoint(&told, 0, "198.51.100.7:9001");
	assert_int_equal(told.n_unknown, 1);

	/* One connection comes on one line; none as nothing. */
	assert_int_equal(tor_control_ask(c, TOR_QUESTION_RELAYS), 0);
	assert_asked(c, "GETINFO orconn-status\r\n");
	push(c, "250-orconn-status=192.0.2.9:443 LAUNCHED\r\n250 OK\r\n");
	assert_int_equal(n_told, 2);
	assert_endpoint(&told, 0, "192.0.2.9:443");
	assert_int_equal(tor_control_ask(c, TOR_QUESTION_RELAYS), 0);
	push(c, "250-orconn-status=\r\n250 OK\r\n");
	assert_int_equal(n_told, 3);
	assert_int_equal(told.n_endpoints + told.n_unknown, 0);
	tor_control_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connections),
		cmocka_unit_test(more_connections_than_fit),
		cmocka_unit_test(a_relay),
		cmocka_unit_test(session),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
