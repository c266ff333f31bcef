#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "config/bridge_line.h"
#include "config/builtin.h"

#define FP "0123456789ABCDEF0123456789ABCDEF01234567"
#define CERT                                                           \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567" \
	"89+/abcdef"
#define OBFS4 "obfs4 192.0.2.1:443 " FP " cert=" CERT " iat-mode=0"
#define PLAIN "192.0.2.2:9001 " FP

static int parse(const char *text, struct config_bridge_list *list,
		 struct error *e)
{
	*list = CONFIG_BRIDGE_LIST_NULL(*list);
	*e = ERROR_NULL(*e);
	return config_bridge_list_parse(list, text, strlen(text), e);
}

/* @lines: separated by '|'. */
static void reads(const char *text, const char *lines)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list list;
	_cleanup_free_ char *copy = strdup(lines);
	char *rest = copy, *line;
	struct error e;
	size_t n = 0;

	if (parse(text, &list, &e) < 0)
		fail_msg("%s: %s", text, e.text);
	while ((line = strsep(&rest, "|")) && *line) {
		assert_true(n < list.n_lines);
		assert_string_equal(list.lines[n++], line);
	}
	assert_int_equal(list.n_lines, n);
}

static void refuses(const char *text, int code, const char *part)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list list;
	struct error e;

	assert_int_equal(parse(text, &list, &e), code);
	if (!strstr(e.text, part))
		fail_msg("no \"%s\" in: %s", part, e.text);
	assert_null(strstr(e.text, "sEcReT"));
}

static void pasted_lines_are_read(void **state)
{
	reads("", "");
	reads("\n# mine\n\n  # more\n", "");
	reads(OBFS4, OBFS4);
	reads(OBFS4 "\n" PLAIN "\n", OBFS4 "|" PLAIN);
	reads("Bridge " OBFS4 "\r\nbridge   " PLAIN "\r\n", OBFS4 "|" PLAIN);
	reads("\tobfs4\t192.0.2.1:443  " FP "\xc2\xa0"
	      "cert=" CERT "\xe2\x80\x8b iat-mode=0  ",
	      OBFS4);
	reads("\xef\xbb\xbf" PLAIN, PLAIN);
	reads("[2001:db8::1]:443", "[2001:db8::1]:443");
}

static void text_of_qr_codes_is_read(void **state)
{
	reads("['" OBFS4 "']", OBFS4);
	reads("['" OBFS4 "', '" PLAIN "']\n", OBFS4 "|" PLAIN);
	reads("[\"" OBFS4 "\",\n \"Bridge " PLAIN "\",]", OBFS4 "|" PLAIN);
	refuses("['" PLAIN "'", -EINVAL, "item 1: the list is not closed");
	refuses("['" PLAIN "', x]", -EINVAL, "item 2: the list is not closed");
	refuses("['" PLAIN "\"]", -EINVAL, "item 1");
	refuses("['" PLAIN "'] x", -EINVAL, "something follows");
	refuses("['" PLAIN "', 'sEcReT']", -EINVAL, "item 2: begins with");
	refuses("['a\\'b']", -EINVAL, "item 1");
}

static void a_bad_line_is_named(void **state)
{
	refuses(PLAIN "\n\nobfs4 192.0.2.1:443 cert=sEcReT iat-mode=0\n",
		-EINVAL,
		"line 3: the value of cert= is wrong; allowed: cert= with 70");
	refuses("obfs4 192.0.2.1:443 cert=s\xc3\xa9"
		"cReT",
		-EINVAL, "line 1: character 27 is no printable ASCII");
	refuses("Bridge", -EINVAL, "line 1: begins with");
}

static void a_line_is_taken_once(void **state)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list list;
	struct error e;

	assert_int_equal(parse(PLAIN "\nBridge  " PLAIN "\n" OBFS4, &list, &e),
			 0);
	assert_int_equal(list.n_lines, 2);
	assert_int_equal(list.n_repeated, 1);
}

static void too_much_is_refused(void **state)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list list =
		CONFIG_BRIDGE_LIST_NULL(list);
	_cleanup_free_ char *big = calloc(1, CONFIG_BRIDGE_TEXT_MAX + 2);
	struct error e = ERROR_NULL(e);
	size_t n = 0;

	for (int i = 1; i <= CONFIG_BRIDGES_MAX + 1; i++)
		n += (size_t)sprintf(big + n, "192.0.2.1:%d\n", i);
	refuses(big, -E2BIG, "line 65: one bridge too many");
	memset(big, ' ', CONFIG_BRIDGE_TEXT_MAX + 1);
	refuses(big, -E2BIG, "over 131072 bytes");
	assert_int_equal(config_bridge_list_parse(&list, "a\0b", 3, &e),
			 -EINVAL);
}

static void built_in_bridges_are_good(void **state)
{
	static const struct {
		enum config_transport transport;
		size_t at_least;
	} kinds[] = {
		{ CONFIG_TRANSPORT_OBFS4, 3 },
		{ CONFIG_TRANSPORT_SNOWFLAKE, 2 },
		{ CONFIG_TRANSPORT_MEEK_LITE, 1 },
		{ CONFIG_TRANSPORT_WEBTUNNEL, 0 },
		{ CONFIG_TRANSPORT_NONE, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		_cleanup_(config_bridge_list_deinit) struct config_bridge_list
			list = CONFIG_BRIDGE_LIST_NULL(list);
		struct error e = ERROR_NULL(e);
		int r = config_builtin_bridges(kinds[i].transport, &list, &e);

		if (r < 0 && kinds[i].at_least > 0)
			fail_msg("%s", e.text);
		assert_true(kinds[i].at_least > 0 || r == -ENOENT);
		assert_true(list.n_lines >= kinds[i].at_least);
		for (size_t k = 0; k < list.n_lines; k++)
			assert_int_equal(
				config_bridge_line_transport(list.lines[k]),
				kinds[i].transport);
	}
	assert_int_equal(strlen(config_builtin_date()), strlen("2026-10"));
	assert_memory_equal(config_builtin_date(), "20", 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pasted_lines_are_read),
		cmocka_unit_test(text_of_qr_codes_is_read),
		cmocka_unit_test(a_bad_line_is_named),
		cmocka_unit_test(a_line_is_taken_once),
		cmocka_unit_test(too_much_is_refused),
		cmocka_unit_test(built_in_bridges_are_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
