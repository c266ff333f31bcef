#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/interface.h"
#include "proto/varlink.h"

/* Feeds one message with its NUL. */
static int decode(enum varlink_role role, const char *text,
		  struct varlink_message *m)
{
	struct varlink *v = varlink_new(role);
	int r;

	assert_non_null(v);
	assert_int_equal(varlink_push(v, text, strlen(text) + 1), 0);
	r = varlink_next(v, m, NULL);
	varlink_free(v);
	return r;
}

static void a_call(void **state)
{
	struct varlink_message m;

	assert_int_equal(decode(VARLINK_ROLE_SERVER,
				"{\"method\":\"org.torvm.Controller.GetLog\","
				"\"parameters\":{\"follow\":true},"
				"\"more\":true}",
				&m),
			 1);
	assert_string_equal(m.interface, "org.torvm.Controller");
	assert_string_equal(m.method, "GetLog");
	assert_true(m.more);
	assert_false(m.oneway);
	assert_true(json_is_true(json_object_get(m.parameters, "follow")));
	varlink_message_deinit(&m);
}

static void absent_and_null_are_the_same(void **state)
{
	struct varlink_message m;

	assert_int_equal(decode(VARLINK_ROLE_SERVER,
				"{\"method\":\"a.b.C\",\"parameters\":null,"
				"\"more\":null}",
				&m),
			 1);
	assert_true(json_is_object(m.parameters));
	assert_false(m.more);
	varlink_message_deinit(&m);
	assert_int_equal(decode(VARLINK_ROLE_CLIENT, "{}", &m), 1);
	assert_null(m.error);
	varlink_message_deinit(&m);
}

static void replies_and_errors(void **state)
{
	struct varlink_message m;

	assert_int_equal(decode(VARLINK_ROLE_CLIENT,
				"{\"parameters\":{\"n\":1},\"continues\":true}",
				&m),
			 1);
	assert_true(m.continues);
	varlink_message_deinit(&m);
	assert_int_equal(
		decode(VARLINK_ROLE_CLIENT,
		       "{\"error\":\"org.torvm.Controller.PermissionDenied\"}",
		       &m),
		1);
	assert_string_equal(m.error, "org.torvm.Controller.PermissionDenied");
	varlink_message_deinit(&m);
}

static void malformed_messages_are_refused(void **state)
{
	static const char *const calls[] = {
		"",
		"[]",
		"{}",
		"{\"method\":null}",
		"{\"method\":1}",
		"{\"method\":\"GetStatus\"}",
		"{\"method\":\".GetStatus\"}",
		"{\"method\":\"a..C\"}",
		"{\"method\":\"a.b.c\"}",
		"{\"method\":\"a.b.C-\"}",
		"{\"method\":\"a/b.C\"}",
		"{\"method\":\"a.b.C\",\"parameters\":[]}",
		"{\"method\":\"a.b.C\",\"more\":1}",
		"{\"method\":\"a.b.C\",\"more\":true,\"oneway\":true}",
		"{\"method\":\"a.b.C\",\"method\":\"a.b.C\"}",
		"{\"method\":\"a.b.C\",\"error\":\"a.b.C\"}",
		"{\"method\":\"a.b.C\"} trailing",
	};
	static const char *const replies[] = {
		"{\"method\":\"a.b.C\"}",
		"{\"error\":\"Bare\"}",
		"{\"error\":\"a.b.C\",\"continues\":true}",
		"{\"continues\":\"yes\"}",
	};
	struct varlink_message m;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		assert_int_equal(decode(VARLINK_ROLE_SERVER, calls[i], &m),
				 -EBADMSG);
	for (size_t i = 0; i < ARRAY_SIZE(replies); i++)
		assert_int_equal(decode(VARLINK_ROLE_CLIENT, replies[i], &m),
				 -EBADMSG);
}

static void assert_written(struct buffer *out, const char *expected)
{
	size_t len;
	const char *text = buffer_peek(out, &len);

	assert_int_equal(len, strlen(expected) + 1);
	assert_string_equal(text, expected);
	buffer_consume(out, len);
}

static void what_we_write(void **state)
{
	struct buffer out = BUFFER_NULL(out);
	json_t *p = json_pack("{s:b}", "follow", 1);

	assert_int_equal(varlink_write_call(&out, "a.b.C", NULL, 0), 0);
	assert_written(&out, "{\"method\":\"a.b.C\"}");
	assert_int_equal(
		varlink_write_call(&out, "a.b.C", p, VARLINK_CALL_MORE), 0);
	assert_written(&out, "{\"method\":\"a.b.C\",\"parameters\":{"
			     "\"follow\":true},\"more\":true}");
	assert_int_equal(varlink_write_reply(&out, p, true), 0);
	assert_written(&out, "{\"parameters\":{\"follow\":true},"
			     "\"continues\":true}");
	assert_int_equal(varlink_write_reply(&out, NULL, false), 0);
	assert_written(&out, "{\"parameters\":{}}");
	assert_int_equal(varlink_write_service_error(&out, VARLINK_ERROR_METHOD,
						     "Reboot"),
			 0);
	assert_written(&out, "{\"error\":\"org.varlink.service."
			     "MethodNotFound\",\"parameters\":{\"method\":"
			     "\"Reboot\"}}");
	assert_int_equal(varlink_write_error(&out, "a.b.Denied", NULL), 0);
	assert_written(&out, "{\"error\":\"a.b.Denied\",\"parameters\":{}}");
	json_decref(p);
	buffer_deinit(&out);
}

static void a_message_has_a_bound(void **state)
{
	struct buffer out = BUFFER_NULL(out);
	struct varlink *v = varlink_new(VARLINK_ROLE_SERVER);
	char *big = malloc(VARLINK_MESSAGE_MAX + 1);
	struct varlink_message m;
	json_t *p;

	memset(big, 'x', VARLINK_MESSAGE_MAX);
	big[VARLINK_MESSAGE_MAX] = '\0';
	p = json_pack("{s:s}", "x", big);
	assert_int_equal(varlink_write_reply(&out, p, false), -EMSGSIZE);
	assert_int_equal(varlink_push(v, big, VARLINK_MESSAGE_MAX), 0);
	assert_int_equal(varlink_next(v, &m, NULL), 0);
	assert_int_equal(varlink_push(v, "x", 1), 0);
	assert_int_equal(varlink_next(v, &m, NULL), -EMSGSIZE);
	json_decref(p);
	free(big);
	varlink_free(v);
	buffer_deinit(&out);
}

static void interfaces_describe_themselves(void **state)
{
	const char *text = interface_description("org.torvm.Controller");

	assert_non_null(text);
	assert_non_null(strstr(text, "\ninterface org.torvm.Controller\n"));
	assert_non_null(strstr(text, "\nmethod GetStatus() -> "));
	assert_int_equal(text[strlen(text) - 1], '\n');
	assert_non_null(interface_description("org.varlink.service"));
	assert_null(interface_description("org.example"));
	assert_int_equal(n_interfaces, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call),
		cmocka_unit_test(absent_and_null_are_the_same),
		cmocka_unit_test(replies_and_errors),
		cmocka_unit_test(malformed_messages_are_refused),
		cmocka_unit_test(what_we_write),
		cmocka_unit_test(a_message_has_a_bound),
		cmocka_unit_test(interfaces_describe_themselves),
	};

	return cmocka_run_group_tests_name("varlink", tests, NULL, NULL);
}
