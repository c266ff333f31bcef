/* "Did you mean": the known word nearest to a mistyped one. */
#pragma once

#include <stddef.h>

/* Longer words are not compared: nobody mistypes those by a letter. */
#define NEAREST_WORD_MAX 63

/**
 * nearest_distance() - How many keystrokes turn one word into another
 *
 * Insertions, deletions, replacements and swaps of neighbours count one each
 * (Damerau-Levenshtein, restricted); case does not count. Words longer than
 * NEAREST_WORD_MAX are infinitely far.
 *
 * Return: the distance, or NEAREST_WORD_MAX + 1 if a word is too long
 */
size_t nearest_distance(const char *a, const char *b);

/* Whether a distance is near enough to be worth a suggestion for @word. */
int nearest_is_close(const char *word, size_t distance);
