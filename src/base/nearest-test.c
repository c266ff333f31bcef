#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/nearest.h"

static void distance_counts_keystrokes(void **state)
{
	assert_int_equal(nearest_distance("", ""), 0);
	assert_int_equal(nearest_distance("", "abc"), 3);
	assert_int_equal(nearest_distance("status", "status"), 0);
	assert_int_equal(nearest_distance("STATUS", "status"), 0);
	assert_int_equal(nearest_distance("statsu", "status"), 1);
	assert_int_equal(nearest_distance("stats", "status"), 1);
	assert_int_equal(nearest_distance("sttus", "status"), 1);
	assert_int_equal(nearest_distance("kitten", "sitting"), 3);
	assert_int_equal(nearest_distance("ab", "ba"), 1);
}

static void long_words_are_far(void **state)
{
	char word[NEAREST_WORD_MAX + 2];

	memset(word, 'a', sizeof(word));
	word[NEAREST_WORD_MAX] = '\0';
	assert_int_equal(nearest_distance(word, word), 0);
	word[NEAREST_WORD_MAX] = 'a';
	word[NEAREST_WORD_MAX + 1] = '\0';
	assert_int_equal(nearest_distance(word, "a"), NEAREST_WORD_MAX + 1);
	assert_false(nearest_is_close(word, NEAREST_WORD_MAX + 1));
}

static void only_near_words_are_suggested(void **state)
{
	assert_true(nearest_is_close("up", 1));
	assert_false(nearest_is_close("up", 2));
	assert_true(nearest_is_close("statuses", 3));
	assert_false(nearest_is_close("statuses", 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distance_counts_keystrokes),
		cmocka_unit_test(long_words_are_far),
		cmocka_unit_test(only_near_words_are_suggested),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
