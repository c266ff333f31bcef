/*
 * For tests: compares a text with a file kept in the source tree. With
 * TORVM_REGENERATE_GOLDEN=1 in the environment the file is written instead, and
 * the change is for `git diff` and its reader to judge. Include cmocka.h first.
 */
#pragma once

#include <string.h>

#include "base/util.h"

static inline void golden_check(const char *path, const char *text)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *expected = NULL;
	const char *regenerate = getenv("TORVM_REGENERATE_GOLDEN");
	size_t size = strlen(text) + 4096, len;

	if (regenerate && !strcmp(regenerate, "1")) {
		f = fopen(path, "we");
		assert_non_null(f);
		assert_int_equal(fputs(text, f) < 0, 0);
		return;
	}
	f = fopen(path, "re");
	if (!f)
		fail_msg("no %s: run with TORVM_REGENERATE_GOLDEN=1", path);
	expected = calloc(1, size);
	assert_non_null(expected);
	len = fread(expected, 1, size - 1, f);
	expected[len] = '\0';
	if (strcmp(text, expected))
		fail_msg("%s differs; expected:\n%s\nfound:\n%s", path,
			 expected, text);
}
