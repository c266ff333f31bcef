#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/ip.h"
#include "base/log.h"
#include "base/util.h"

static void str_copy_cuts_and_terminates(void **state)
{
	char buf[4];

	assert_int_equal(str_copy(buf, sizeof(buf), "abc"), 0);
	assert_string_equal(buf, "abc");
	assert_int_equal(str_copy(buf, sizeof(buf), "abcd"), -ENAMETOOLONG);
	assert_string_equal(buf, "abc");
}

static void error_keeps_code_through_prefix(void **state)
{
	struct error e = ERROR_NULL(e);

	assert_int_equal(error_set(&e, -ENOENT, "no %s", "image"), -ENOENT);
	assert_int_equal(error_prefix(&e, "vm"), -ENOENT);
	assert_string_equal(e.text, "vm: no image");
	assert_int_equal(error_set(NULL, -EIO, "nobody reads this"), -EIO);
}

static void error_survives_a_full_buffer(void **state)
{
	struct error e = ERROR_NULL(e);
	char big[1000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	error_set(&e, -EIO, "%s", big);
	error_prefix(&e, "%s", big);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

static void keep_line(void *userdata, enum log_level level, const char *text)
{
	str_copy(userdata, 64, text);
}

static void log_neutralises_control_characters(void **state)
{
	char line[64] = "";

	log_set_stderr(0);
	log_set_sink(keep_line, line);
	log_info("a\nforged: line\x1b[2J");
	assert_string_equal(line, "a?forged: line?[2J");
	line[0] = '\0';
	log_debug("below the level");
	assert_string_equal(line, "");
	log_set_sink(NULL, NULL);
	log_set_stderr(1);
}

static void log_levels_have_names(void **state)
{
	for (int i = 0; i < LOG_LEVEL_COUNT; i++)
		assert_int_equal(log_level_from_name(log_level_name(i)), i);
	assert_int_equal(log_level_from_name("loud"), -EINVAL);
}

static void addresses_of_both_families_fit_one_type(void **state)
{
	static const struct {
		const char *text;
		bool v4, unicast, private;
	} good[] = {
		{ "198.51.100.7", true, true, false },
		{ "192.168.1.1", true, true, true },
		{ "100.64.0.1", true, true, true },
		{ "127.0.0.1", true, false, false },
		{ "0.0.0.0", true, false, false },
		{ "224.0.0.251", true, false, false },
		{ "2001:db8::1", false, true, false },
		{ "fd12::3", false, true, true },
		{ "2002:c0a8:101::1", false, true, true },
		{ "64:ff9b::c633:6407", false, true, false },
		{ "64:ff9b::c0a8:101", false, true, true },
		{ "64:ff9b::7f00:1", false, false, false },
		{ "fe80::1", false, false, true },
		{ "fec0::2", false, false, true },
		{ "ff02::1", false, false, true },
		{ "::1", false, false, true },
		{ "::", false, false, true },
	};
	static const char *const bad[] = {
		"", "host", "1.2.3", "[::1]", "::ffff:1.2.3.4", "fe80::1%1",
	};
	char text[IP_TEXT_MAX];
	struct in6_addr ip, again;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(ip_parse(good[i].text, &ip), 0);
		assert_string_equal(ip_format(&ip, text), good[i].text);
		assert_int_equal(ip_is_v4(&ip), good[i].v4);
		assert_int_equal(ip_is_unicast(&ip), good[i].unicast);
		if (good[i].unicast)
			assert_int_equal(ip_is_private(&ip), good[i].private);
		if (good[i].v4) {
			again = ip_from_v4(ip_to_v4(&ip));
			assert_true(ip_equal(&ip, &again));
		}
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(ip_parse(bad[i], &ip), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(str_copy_cuts_and_terminates),
		cmocka_unit_test(error_keeps_code_through_prefix),
		cmocka_unit_test(error_survives_a_full_buffer),
		cmocka_unit_test(log_neutralises_control_characters),
		cmocka_unit_test(log_levels_have_names),
		cmocka_unit_test(addresses_of_both_families_fit_one_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
