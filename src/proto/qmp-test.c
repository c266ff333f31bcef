#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/qmp.h"

#define GREETING                                                           \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, " \
	"\"major\": 10}, \"package\": \"Debian\"}, \"capabilities\": "     \
	"[\"oob\"]}}\r\n"
#define NEGOTIATED "{\"return\": {}, \"id\": 0}\r\n"

static void push(struct qmp *q, const char *text)
{
	assert_int_equal(qmp_push(q, text, strlen(text)), 0);
}

/* What would have been written to QEMU by now. */
static void assert_output(struct qmp *q, const char *expected)
{
	size_t len;
	const char *out = buffer_peek(qmp_output(q), &len);

	assert_int_equal(len, strlen(expected));
	if (len > 0)
		assert_memory_equal(out, expected, len);
	buffer_consume(qmp_output(q), len);
}

static int setup(void **state)
{
	return (*state = qmp_new()) ? 0 : -1;
}

static int setup_ready(void **state)
{
	struct qmp_message m;
	struct qmp *q = qmp_new();
	size_t len;

	*state = q;
	push(q, GREETING NEGOTIATED);
	if (qmp_next(q, &m, NULL) != 1 || m.kind != QMP_KIND_READY)
		return -1;
	buffer_peek(qmp_output(q), &len);
	buffer_consume(qmp_output(q), len);
	return 0;
}

static int teardown(void **state)
{
	qmp_free(*state);
	return 0;
}

static void early_commands_wait_for_the_negotiation(void **state)
{
	struct qmp *q = *state;
	struct qmp_message m;
	uint32_t id;

	assert_int_equal(qmp_send(q, QMP_COMMAND_QUERY_STATUS, &id), 0);
	assert_output(q, "");
	push(q, GREETING);
	assert_int_equal(qmp_next(q, &m, NULL), 0);
	assert_output(q, "{\"execute\":\"qmp_capabilities\",\"id\":0}\r\n");
	push(q, NEGOTIATED);
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.kind, QMP_KIND_READY);
	assert_string_equal(m.version, "10.0.2");
	assert_output(q, "{\"execute\":\"query-status\",\"id\":1}\r\n");
	assert_int_equal(id, 1);
}

static void replies_find_their_commands(void **state)
{
	struct qmp *q = *state;
	struct qmp_message m;
	uint32_t status, quit;

	assert_int_equal(qmp_send(q, QMP_COMMAND_QUERY_STATUS, &status), 0);
	assert_int_equal(qmp_send(q, QMP_COMMAND_QUIT, &quit), 0);
	push(q, "{\"return\": {}, \"id\": 2}\r\n"
		"{\"return\": {\"status\": \"paused\", \"running\": false}, "
		"\"id\": 1}\r\n");
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.kind, QMP_KIND_RETURN);
	assert_int_equal(m.id, quit);
	assert_int_equal(m.command, QMP_COMMAND_QUIT);
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.id, status);
	assert_false(m.running);
	assert_string_equal(m.status, "paused");
	assert_int_equal(qmp_next(q, &m, NULL), 0);
}

static void errors_are_of_a_command_or_of_none(void **state)
{
	struct qmp *q = *state;
	struct qmp_message m;

	assert_int_equal(qmp_send(q, QMP_COMMAND_SYSTEM_POWERDOWN, NULL), 0);
	push(q, "{\"id\": 1, \"error\": {\"class\": \"GenericError\", "
		"\"desc\": \"Resetting\\nthe VM is required\"}}\r\n"
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON "
		"parse error\"}}\r\n");
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.kind, QMP_KIND_ERROR);
	assert_int_equal(m.command, QMP_COMMAND_SYSTEM_POWERDOWN);
	assert_string_equal(m.error_text, "Resetting?the VM is required");
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.id, 0);
}

static void shutdown_event_says_who_did_it(void **state)
{
	struct qmp *q = *state;
	struct qmp_message m;

	push(q, "{\"timestamp\": {\"seconds\": 1795531036, \"microseconds\": "
		"261671}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, "
		"\"reason\": \"guest-shutdown\"}}\r\n"
		"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, "
		"\"event\": \"NIC_RX_FILTER_CHANGED\", \"data\": {}}\r\n");
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.kind, QMP_KIND_EVENT);
	assert_int_equal(m.event, QMP_EVENT_SHUTDOWN);
	assert_true(m.guest);
	assert_string_equal(m.reason, "guest-shutdown");
	assert_int_equal(qmp_next(q, &m, NULL), 1);
	assert_int_equal(m.event, QMP_EVENT_OTHER);
	assert_string_equal(m.event_name, "NIC_RX_FILTER_CHANGED");
}

static void what_is_not_qmp_ends_the_session(void **state)
{
	static const char *const bad[] = {
		"\r\n",
		"hello\r\n",
		"[]\r\n",
		"{}\r\n",
		"{\"return\": {}}\r\n",                /* no id */
		"{\"return\": {}, \"id\": 7}\r\n",     /* of no command */
		"{\"return\": {}, \"id\": \"1\"}\r\n", /* of wrong type */
		"{\"return\": {}, \"event\": \"STOP\"}\r\n",
		"{\"return\": {\"status\": 1}, \"id\": 1}\r\n",
		"{\"event\": \"SHUTDOWN\", \"data\": {}}\r\n",
		"{\"event\": 5}\r\n",
		"{\"error\": {}, \"id\": 1}\r\n",
		"{\"id\": 1, \"id\": 1, \"return\": {}}\r\n",
		GREETING,
	};
	struct qmp *q = *state;
	struct qmp_message m;
	struct error e;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		qmp_reset(q);
		push(q, GREETING NEGOTIATED);
		assert_int_equal(qmp_next(q, &m, NULL), 1);
		assert_int_equal(qmp_send(q, QMP_COMMAND_QUERY_STATUS, NULL),
				 0);
		push(q, bad[i]);
		e = ERROR_NULL(e);
		assert_int_equal(qmp_next(q, &m, &e), -EBADMSG);
		assert_non_null(strstr(e.text, "QMP"));
	}
}

static void a_refused_negotiation_is_an_error(void **state)
{
	struct qmp *q = *state;
	struct qmp_message m;
	struct error e = ERROR_NULL(e);

	push(q, GREETING "{\"id\": 0, \"error\": {\"class\": "
			 "\"CommandNotFound\", \"desc\": \"no\"}}\r\n");
	assert_int_equal(qmp_next(q, &m, &e), -EBADMSG);
}

static void a_silent_qemu_does_not_make_us_grow(void **state)
{
	struct qmp *q = *state;
	int n = 0;

	while (qmp_send(q, QMP_COMMAND_QUERY_STATUS, NULL) == 0)
		assert_true(++n < 100);
	assert_int_equal(qmp_send(q, QMP_COMMAND_QUIT, NULL), -EAGAIN);
}

static void an_endless_line_is_refused(void **state)
{
	static char big[QMP_MESSAGE_MAX];
	struct qmp *q = *state;
	struct qmp_message m;

	memset(big, ' ', sizeof(big));
	assert_int_equal(qmp_push(q, big, sizeof(big)), 0);
	assert_int_equal(qmp_next(q, &m, NULL), 0);
	push(q, " ");
	assert_int_equal(qmp_next(q, &m, NULL), -EMSGSIZE);
}

int main(void)
{
#define with(setup_fn, test) \
	cmocka_unit_test_setup_teardown(test, setup_fn, teardown)
	const struct CMUnitTest tests[] = {
		with(setup, early_commands_wait_for_the_negotiation),
		with(setup_ready, replies_find_their_commands),
		with(setup_ready, errors_are_of_a_command_or_of_none),
		with(setup_ready, shutdown_event_says_who_did_it),
		with(setup, what_is_not_qmp_ends_the_session),
		with(setup, a_refused_negotiation_is_an_error),
		with(setup, a_silent_qemu_does_not_make_us_grow),
		with(setup, an_endless_line_is_refused),
	};

	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
