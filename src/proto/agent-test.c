#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/ip.h"
#include "proto/agent.h"

static int setup(void **state)
{
	return (*state = agent_new()) ? 0 : -1;
}

static int teardown(void **state)
{
	agent_free(*state);
	return 0;
}

static int decode(struct agent *a, const char *line, struct agent_message *m)
{
	assert_int_equal(agent_push(a, line, strlen(line)), 0);
	assert_int_equal(agent_push(a, "\n", 1), 0);
	return agent_next(a, m, NULL);
}

static void every_line_of_the_protocol(void **state)
{
	struct agent *a = *state;
	char ip[IP_TEXT_MAX];
	struct agent_message m;

	assert_int_equal(decode(a, "hello 1 512", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_HELLO);
	assert_int_equal(m.version, 1);
	assert_int_equal(m.ms, 512);
	for (int i = 0; i < AGENT_STAGE_COUNT; i++) {
		char line[64];

		snprintf(line, sizeof(line), "stage %d %s", i,
			 agent_stage_name((enum agent_stage)i));
		assert_int_equal(decode(a, line, &m), 1);
		assert_int_equal(m.kind, AGENT_KIND_STAGE);
		assert_int_equal(m.stage, i);
	}
	assert_int_equal(decode(a, "state-disk 9 ok", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_STATE_DISK);
	assert_true(m.usable);
	assert_int_equal(
		decode(a, "state-disk 9 unusable mount: bad superblock", &m),
		1);
	assert_false(m.usable);
	assert_string_equal(m.text, "mount: bad superblock");
	assert_int_equal(decode(a, "tor 9 [notice]  two  spaces", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_TOR);
	assert_string_equal(m.text, "[notice]  two  spaces");
	assert_int_equal(decode(a, "tor-exit 9 signal 11 3", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_TOR_EXIT);
	assert_true(m.signaled);
	assert_int_equal(m.number, 11);
	assert_int_equal(m.count, 3);
	assert_int_equal(decode(a, "transport 9 it cannot use it", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_TRANSPORT);
	assert_string_equal(m.text, "it cannot use it");
	assert_int_equal(decode(a, "transport-exit 9 exit 2 1", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_TRANSPORT_EXIT);
	assert_int_equal(m.number, 2);
	assert_int_equal(decode(a, "tls 9 CERT: Subject checks failed", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_TLS);
	assert_string_equal(m.text, "CERT: Subject checks failed");
	assert_int_equal(decode(a, "tls-exit 9 signal 9 1", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_TLS_EXIT);
	assert_true(m.signaled);
	assert_int_equal(
		decode(a, "resolved 9 front.example 2001:db8::1 192.0.2.2", &m),
		1);
	assert_int_equal(m.kind, AGENT_KIND_RESOLVED);
	assert_string_equal(m.name, "front.example");
	assert_int_equal(m.n_addresses, 2);
	assert_string_equal(ip_format(&m.addresses[0], ip), "2001:db8::1");
	assert_string_equal(ip_format(&m.addresses[1], ip), "192.0.2.2");
	assert_int_equal(decode(a, "looked-up 9 ok", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_LOOKED_UP);
	assert_true(m.ok);
	assert_int_equal(decode(a, "looked-up 9 failed", &m), 1);
	assert_false(m.ok);
	assert_int_equal(decode(a, "unresolved 9 front.example no answer", &m),
			 1);
	assert_int_equal(m.kind, AGENT_KIND_UNRESOLVED);
	assert_string_equal(m.text, "no answer");
	assert_int_equal(decode(a, "tor-exit 9 exit 1 1", &m), 1);
	assert_false(m.signaled);
	assert_int_equal(decode(a, "memory 9 151632 107244", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_MEMORY);
	assert_int_equal(m.total_kib, 151632);
	assert_int_equal(m.available_kib, 107244);
	assert_int_equal(decode(a, "pong Token7", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_PONG);
	assert_string_equal(m.text, "Token7");
	assert_int_equal(decode(a, "clock 9 -86400000", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_CLOCK);
	assert_int_equal(m.offset_ms, -86400000);
	assert_int_equal(decode(a, "warning 9 one odd thing", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_WARNING);
	assert_string_equal(m.text, "one odd thing");
	assert_int_equal(decode(a, "error 9 no state disk", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_ERROR);
	assert_string_equal(m.text, "no state disk");
}

static void a_malformed_line_is_skipped(void **state)
{
	static const char *const bad[] = {
		"hello",
		"hello 1",
		"hello 1 2 3",
		"hello 4294967296 1",
		"hello -1 1",
		"stage 1",
		"stage 1 nowhere",
		"stage  1 ready",
		"stage 1 ready ",
		"state-disk 1",
		"state-disk 1 unusable",
		"state-disk 1 ok very",
		"tor 1",
		"tor x text",
		"tor-exit 1 exit 1",
		"transport-exit 1 exit 1",
		"tls 1",
		"tls-exit 1 signal x 1",
		"resolved 1 front.example",
		"resolved 1 front.example ::ffff:192.0.2.1",
		"resolved 1 front/example 192.0.2.1",
		"resolved 1 front.example 192.0.2.1 x",
		"unresolved 1",
		"looked-up 1",
		"looked-up 1 perhaps",
		"tor-exit 1 killed 1 1",
		"memory 1 2",
		"memory 1 0x2 3",
		"memory 1 2 18446744073709551616",
		"pong",
		"pong ",
		"pong a b",
		"pong 012345678901234567890123456789012",
		"clock 1 --1",
		"clock 1 -",
		"clock 1 9223372036854775808",
		"error 1",
	};
	struct agent *a = *state;
	struct agent_message m;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(decode(a, bad[i], &m), -EBADMSG);
		assert_int_equal(decode(a, "hello 1 1", &m), 1);
	}
}

static void an_unknown_word_is_not_an_error(void **state)
{
	struct agent *a = *state;
	struct agent_message m;

	assert_int_equal(decode(a, "weather 12 fine, thank you", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_UNKNOWN);
	assert_int_equal(decode(a, "", &m), 1);
	assert_int_equal(m.kind, AGENT_KIND_UNKNOWN);
}

static void text_is_printable(void **state)
{
	struct agent *a = *state;
	struct agent_message m;

	assert_int_equal(decode(a, "tor 1 a\x1b[2J\xc3\xa4\r", &m), 1);
	assert_string_equal(m.text, "a?[2J???");
}

static void a_line_has_a_bound(void **state)
{
	struct agent *a = *state;
	struct agent_message m;
	char line[AGENT_LINE_MAX + 1] = "tor 1 ";

	memset(line + 6, 'x', AGENT_LINE_MAX - 7);
	assert_int_equal(decode(a, line, &m), 1);
	assert_int_equal(strlen(m.text), AGENT_LINE_MAX - 7);
	line[AGENT_LINE_MAX - 1] = 'x';
	assert_int_equal(decode(a, line, &m), -EMSGSIZE);
}

static void what_we_say(void **state)
{
	const struct timespec now = { .tv_sec = 1795531036, .tv_nsec = 5 };
	struct buffer out = BUFFER_NULL(out);
	size_t len;

	assert_int_equal(agent_write_hello(&out), 0);
	assert_int_equal(agent_write_time(&out, &now), 0);
	assert_int_equal(agent_write_ping(&out, "a1"), 0);
	assert_int_equal(agent_write_ping(&out, ""), -EINVAL);
	assert_int_equal(agent_write_ping(&out, "a\npoweroff"), -EINVAL);
	assert_int_equal(agent_write_poweroff(&out), 0);
	assert_int_equal(buffer_append(&out, "", 1), 0);
	assert_string_equal(buffer_peek(&out, &len),
			    "hello\ntime 1795531036 5\nping a1\npoweroff\n");
	buffer_deinit(&out);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(every_line_of_the_protocol),
		with(a_malformed_line_is_skipped),
		with(an_unknown_word_is_not_an_error),
		with(text_is_printable),
		with(a_line_has_a_bound),
		with(what_we_say),
	};

	return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
