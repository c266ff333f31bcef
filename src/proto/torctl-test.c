#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/torctl.h"

static int setup(void **state)
{
	return (*state = torctl_new()) ? 0 : -1;
}

static int teardown(void **state)
{
	torctl_free(*state);
	return 0;
}

static int feed(struct torctl *t, const char *text,
		const struct torctl_reply **ret)
{
	assert_int_equal(torctl_push(t, text, strlen(text)), 0);
	return torctl_next(t, ret, NULL);
}

static void replies_of_one_and_of_more_lines(void **state)
{
	struct torctl *t = *state;
	const struct torctl_reply *r;

	assert_int_equal(feed(t, "250-version=0.4.9.11\r\n25", &r), 0);
	assert_int_equal(feed(t, "0 OK\r\n552 Unrecognized key\r\n", &r), 1);
	assert_int_equal(r->status, 250);
	assert_false(r->async);
	assert_int_equal(r->n_lines, 2);
	assert_string_equal(r->lines[0].text, "version=0.4.9.11");
	assert_string_equal(r->lines[1].text, "OK");
	assert_int_equal(torctl_next(t, &r, NULL), 1);
	assert_int_equal(r->status, 552);
	assert_int_equal(torctl_next(t, &r, NULL), 0);
}

static void data_is_unstuffed(void **state)
{
	struct torctl *t = *state;
	const struct torctl_reply *r;

	assert_int_equal(feed(t,
			      "650+WARN\r\nfirst\r\n..dot\r\n\r\n.\r\n"
			      "650 OK\r\n",
			      &r),
			 1);
	assert_true(r->async);
	assert_string_equal(r->lines[0].data, "first\n.dot\n\n");
	assert_null(r->lines[1].data);
	assert_int_equal(feed(t, "250+x=\r\n.\r\n250 OK\r\n", &r), 1);
	assert_string_equal(r->lines[0].data, "");
}

static void what_is_not_the_protocol_is_refused(void **state)
{
	static const char *const bad[] = {
		"\r\n",
		"250 OK\n",
		"250\r\n",
		"25x OK\r\n",
		"099 OK\r\n",
		"700 OK\r\n",
		"250_OK\r\n",
		"2500 OK\r\n",
		"250-a\r\n251 b\r\n",
		"HTTP/1.1 200\r\n",
	};
	struct torctl *t = *state;
	const struct torctl_reply *r;
	struct error e = ERROR_NULL(e);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		torctl_reset(t);
		assert_int_equal(feed(t, bad[i], &r), -EBADMSG);
	}
	torctl_reset(t);
	assert_int_equal(torctl_push(t, "250 O\0K\r\n", 9), 0);
	assert_int_equal(torctl_next(t, &r, &e), -EBADMSG);
	assert_int_equal(e.code, -EBADMSG);
}

static void a_reply_has_bounds(void **state)
{
	static char line[TORCTL_LINE_MAX + 8];
	struct torctl *t = *state;
	const struct torctl_reply *r = NULL;
	int result = 0;

	for (int i = 0; i < TORCTL_REPLY_LINES_MAX; i++)
		assert_int_equal(feed(t, "250-x\r\n", &r), 0);
	assert_int_equal(feed(t, "250 x\r\n", &r), -EMSGSIZE);

	torctl_reset(t);
	memset(line, 'x', sizeof(line) - 1);
	assert_int_equal(feed(t, line, &r), -EMSGSIZE);

	torctl_reset(t);
	strcpy(line + 1000, "\r\n");
	assert_int_equal(feed(t, "250+x=\r\n", &r), 0);
	for (int i = 0; i < 1000 && result == 0; i++)
		result = feed(t, line, &r);
	assert_int_equal(result, -EMSGSIZE);
}

static void a_command_is_one_line(void **state)
{
	struct buffer out = BUFFER_NULL(out);
	size_t len;

	assert_int_equal(torctl_command(&out, "SIGNAL %s", "RELOAD"), 0);
	assert_int_equal(torctl_command(&out, "GETINFO %s", "a\r\nQUIT"),
			 -EINVAL);
	assert_int_equal(torctl_command(&out, "GETINFO %s%c", "a", '\0'),
			 -EINVAL);
	assert_int_equal(buffer_append(&out, "", 1), 0);
	assert_string_equal(buffer_peek(&out, &len), "SIGNAL RELOAD\r\n");
	buffer_deinit(&out);
}

static void arguments_are_found_and_unquoted(void **state)
{
	const char *line = "WARN X A=1 SUMMARY=\"a \\\"b\\\" \\\\ B=9\" B=2";
	char v[32];

	assert_int_equal(torctl_argument(line, "A", v, sizeof(v)), 0);
	assert_string_equal(v, "1");
	assert_int_equal(torctl_argument(line, "B", v, sizeof(v)), 0);
	assert_string_equal(v, "2");
	assert_int_equal(torctl_argument(line, "SUMMARY", v, sizeof(v)), 0);
	assert_string_equal(v, "a \"b\" \\ B=9");
	assert_int_equal(torctl_argument(line, "SUMMARY", v, 4), 0);
	assert_string_equal(v, "a \"");
	assert_int_equal(torctl_argument(line, "X", v, sizeof(v)), -ENOENT);
	assert_int_equal(torctl_argument("A=\"\\101\\n\"", "A", v, sizeof(v)),
			 0);
	assert_string_equal(v, "A\n");
	assert_int_equal(torctl_argument("A=\"open", "A", v, sizeof(v)),
			 -EBADMSG);
	assert_int_equal(torctl_argument("A=\"open\\", "A", v, sizeof(v)),
			 -EBADMSG);
	assert_int_equal(torctl_argument("A=\"a\"b B=1", "B", v, sizeof(v)),
			 -EBADMSG);
	assert_int_equal(torctl_argument("A=\"\\000\"", "A", v, sizeof(v)),
			 -EBADMSG);
}

static void a_bootstrap_that_goes_well(void **state)
{
	struct torctl_bootstrap b;

	assert_int_equal(torctl_parse_bootstrap(
				 "NOTICE BOOTSTRAP PROGRESS=45 "
				 "TAG=requesting_descriptors SUMMARY=\"Asking "
				 "for relay descriptors\"",
				 &b),
			 0);
	assert_int_equal(b.severity, TORCTL_SEVERITY_NOTICE);
	assert_int_equal(b.percent, 45);
	assert_string_equal(b.tag, "requesting_descriptors");
	assert_string_equal(b.summary, "Asking for relay descriptors");
	assert_string_equal(b.warning, "");
}

static void a_bootstrap_that_is_stuck(void **state)
{
	struct torctl_bootstrap b;

	assert_int_equal(
		torctl_parse_bootstrap(
			"WARN BOOTSTRAP PROGRESS=5 TAG=conn "
			"SUMMARY=\"Connecting to a relay\" "
			"WARNING=\"Connection refused\" REASON=CONNECTREFUSED "
			"COUNT=10 RECOMMENDATION=warn HOSTID=\"0123\" "
			"HOSTADDR=\"192.0.2.1:9001\"",
			&b),
		0);
	assert_int_equal(b.severity, TORCTL_SEVERITY_WARN);
	assert_string_equal(b.warning, "Connection refused");
	assert_string_equal(b.reason, "CONNECTREFUSED");
	assert_string_equal(b.host, "0123");
	assert_string_equal(b.host_address, "192.0.2.1:9001");
	assert_int_equal(b.count, 10);
	assert_true(b.recommend_warn);
}

static void other_statuses_are_no_bootstrap(void **state)
{
	struct torctl_bootstrap b;

	assert_int_equal(
		torctl_parse_bootstrap("NOTICE CIRCUIT_ESTABLISHED", &b),
		-ENOENT);
	assert_int_equal(torctl_parse_bootstrap("NOTICE BOOTSTRAPPED", &b),
			 -ENOENT);
	assert_int_equal(torctl_parse_bootstrap("LOUD BOOTSTRAP", &b),
			 -EBADMSG);
	assert_int_equal(torctl_parse_bootstrap("NOTICE BOOTSTRAP", &b),
			 -EBADMSG);
	assert_int_equal(
		torctl_parse_bootstrap("NOTICE BOOTSTRAP PROGRESS=101", &b),
		-EBADMSG);
	assert_int_equal(
		torctl_parse_bootstrap("NOTICE BOOTSTRAP PROGRESS=+1", &b),
		-EBADMSG);
	assert_int_equal(
		torctl_parse_bootstrap("NOTICE BOOTSTRAP PROGRESS=", &b),
		-EBADMSG);
}

static void clock_skew_has_a_sign_and_a_source(void **state)
{
	char source[32];
	int64_t s;

	assert_int_equal(torctl_parse_clock_skew("WARN CLOCK_SKEW SKEW=-86400 "
						 "SOURCE=DIRSERV:192.0.2.1:80",
						 &s, source, sizeof(source)),
			 0);
	assert_int_equal(s, -86400);
	assert_string_equal(source, "DIRSERV:192.0.2.1:80");
	assert_int_equal(torctl_parse_clock_skew("WARN CLOCK_SKEW MIN_SKEW=60 "
						 "SOURCE=CONSENSUS",
						 &s, source, sizeof(source)),
			 0);
	assert_int_equal(s, 60);
	assert_int_equal(torctl_parse_clock_skew("WARN CLOCK_SKEW SOURCE=X", &s,
						 source, sizeof(source)),
			 -EBADMSG);
	assert_int_equal(torctl_parse_clock_skew("NOTICE DIR_ALL_UNREACHABLE",
						 &s, source, sizeof(source)),
			 -ENOENT);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(replies_of_one_and_of_more_lines),
		with(data_is_unstuffed),
		with(what_is_not_the_protocol_is_refused),
		with(a_reply_has_bounds),
		cmocka_unit_test(a_command_is_one_line),
		cmocka_unit_test(arguments_are_found_and_unquoted),
		cmocka_unit_test(a_bootstrap_that_goes_well),
		cmocka_unit_test(a_bootstrap_that_is_stuck),
		cmocka_unit_test(other_statuses_are_no_bootstrap),
		cmocka_unit_test(clock_skew_has_a_sign_and_a_source),
	};

	return cmocka_run_group_tests_name("torctl", tests, NULL, NULL);
}
