#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "moat/answer.h"

#define FP "0123456789ABCDEF0123456789ABCDEF01234567"
#define CERT                                                           \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567" \
	"89+/abcdef"
#define OBFS4 "obfs4 192.0.2.1:443 " FP " cert=" CERT " iat-mode=0"
#define MEEK "meek_lite 192.0.2.20:80 url=https://a/ front=b"

static struct moat_answer answer;
static struct error error;

static int parse(enum moat_question question, int transport, const char *text)
{
	char json[2000];

	moat_answer_deinit(&answer);
	error = ERROR_NULL(error);
	snprintf(json, sizeof(json), "%s", text);
	for (char *s = json; *s; s++)
		if (*s == '\'')
			*s = '"';
	return moat_answer_parse(question, transport, json, strlen(json),
				 &answer, &error);
}

#define SETTINGS                                                     \
	"{'settings': ["                                             \
	"{'bridges': {'type': 'obfs4', 'source': 'bridgedb',"        \
	" 'bridge_strings': ['" OBFS4 "', 'conjure 192.0.2.1:1']}}," \
	"{'bridges': {'type': 'meek-azure', 'source': 'builtin',"    \
	" 'bridge_strings': ['" MEEK "']}},"                         \
	"{'bridges': {'type': 'snowflake', 'source': 'builtin'}}"    \
	"], 'country': 'de'}"

static void settings_are_read(void **state)
{
	assert_int_equal(parse(MOAT_QUESTION_SETTINGS, -1, SETTINGS), 0);
	assert_int_equal(answer.bridges.n_lines, 2);
	assert_string_equal(answer.bridges.lines[0], OBFS4);
	assert_string_equal(answer.bridges.lines[1], MEEK);
	assert_int_equal(answer.n_left_out, 1);
	assert_string_equal(answer.country, "de");
	assert_false(answer.none_needed);
	assert_int_equal(parse(MOAT_QUESTION_DEFAULTS,
			       CONFIG_TRANSPORT_MEEK_LITE, SETTINGS),
			 0);
	assert_int_equal(answer.bridges.n_lines, 1);
	assert_string_equal(answer.bridges.lines[0], MEEK);
}

static void no_bridges_may_be_needed(void **state)
{
	assert_int_equal(parse(MOAT_QUESTION_SETTINGS, -1,
			       "{'settings': [], 'country': 'se'}"),
			 0);
	assert_true(answer.none_needed);
	assert_string_equal(answer.country, "se");
	assert_int_equal(parse(MOAT_QUESTION_SETTINGS, -1, "{}"), 0);
	assert_true(answer.none_needed);
}

static void refusals_are_told(void **state)
{
	assert_int_equal(parse(MOAT_QUESTION_SETTINGS, -1,
			       "{'errors': [{'code': 404, 'detail': "
			       "'No provided \\u001b[2J transport'}]}"),
			 -EREMOTEIO);
	assert_non_null(strstr(error.text, "(404): No provided ?[2J"));
	assert_int_equal(parse(MOAT_QUESTION_SETTINGS, -1, "{'errors': 1}"),
			 -EREMOTEIO);
}

static void public_bridges_map_and_countries_are_read(void **state)
{
	assert_int_equal(parse(MOAT_QUESTION_BUILTIN, -1,
			       "{'meek': ['" MEEK "'], 'meek-azure': ['" MEEK
			       "'], 'obfs4': ['" OBFS4 "']}"),
			 0);
	assert_int_equal(answer.bridges.n_lines, 2);
	assert_int_equal(
		parse(MOAT_QUESTION_MAP, -1,
		      "{'cn': {'settings': [{'bridges': {'type': 'snowflake',"
		      "'source': 'builtin'}}, {'bridges': {'type': 'obfs4'}}]},"
		      "'by': {'settings': []}}"),
		0);
	assert_int_equal(answer.n_texts, 2);
	assert_string_equal(answer.texts[0], "cn: snowflake builtin, obfs4");
	assert_string_equal(answer.texts[1], "by:");
	assert_int_equal(parse(MOAT_QUESTION_COUNTRIES, -1, "['by', 'cn']"), 0);
	assert_string_equal(answer.texts[1], "cn");
}

static void other_texts_are_refused(void **state)
{
	static const struct {
		enum moat_question question;
		const char *text;
	} bad[] = {
		{ MOAT_QUESTION_SETTINGS, "" },
		{ MOAT_QUESTION_SETTINGS, "<html>login</html>" },
		{ MOAT_QUESTION_SETTINGS, "[]" },
		{ MOAT_QUESTION_SETTINGS, "{'status': 'ok'}" },
		{ MOAT_QUESTION_SETTINGS, "{'settings': 1}" },
		{ MOAT_QUESTION_SETTINGS, "{'settings': [1]}" },
		{ MOAT_QUESTION_SETTINGS,
		  "{'settings': [{'bridges': {'bridge_strings': [1]}}]}" },
		{ MOAT_QUESTION_BUILTIN, "{'obfs4': 'x'}" },
		{ MOAT_QUESTION_MAP, "{'china': {}}" },
		{ MOAT_QUESTION_COUNTRIES, "{}" },
		{ MOAT_QUESTION_COUNTRIES, "['xyz']" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse(bad[i].question, -1, bad[i].text),
				 -EBADMSG);
		assert_non_null(strstr(error.text, "login page"));
	}
}

static void requests_say_what_torvm_can(void **state)
{
	bool failed;
	char *body =
		moat_request_body(MOAT_QUESTION_SETTINGS, "cn", -1, &failed);

	assert_string_equal(body,
			    "{\"country\":\"cn\",\"transports\":[\"vanilla\","
			    "\"obfs4\",\"meek-azure\",\"meek\",\"snowflake\","
			    "\"webtunnel\"]}");
	free(body);
	body = moat_request_body(MOAT_QUESTION_DEFAULTS, "cn",
				 CONFIG_TRANSPORT_OBFS4, &failed);
	assert_string_equal(body, "{\"transports\":[\"obfs4\"]}");
	free(body);
	assert_null(moat_request_body(MOAT_QUESTION_MAP, "", -1, &failed));
	assert_false(failed);
	for (int i = 0; i < MOAT_QUESTION_COUNT; i++)
		assert_int_equal(moat_question_from_name(moat_question_name(i)),
				 i);
}

static int teardown(void **state)
{
	moat_answer_deinit(&answer);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settings_are_read),
		cmocka_unit_test(no_bridges_may_be_needed),
		cmocka_unit_test(refusals_are_told),
		cmocka_unit_test(public_bridges_map_and_countries_are_read),
		cmocka_unit_test(other_texts_are_refused),
		cmocka_unit_test(requests_say_what_torvm_can),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
