#include "base/nearest.h"

#include <ctype.h>
#include <string.h>

#include "base/util.h"

static size_t min2(size_t a, size_t b)
{
	return a < b ? a : b;
}

static int same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

size_t nearest_distance(const char *a, const char *b)
{
	/* Three rows of the table: a swap looks back two. */
	size_t row[3][NEAREST_WORD_MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > NEAREST_WORD_MAX || m > NEAREST_WORD_MAX)
		return NEAREST_WORD_MAX + 1;
	for (size_t j = 0; j <= m; j++)
		row[0][j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *cur = row[i % 3], *up = row[(i - 1) % 3];
		const size_t *up2 = row[(i + 1) % 3];

		cur[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t d = up[j - 1] + !same(a[i - 1], b[j - 1]);

			d = min2(d, min2(up[j], cur[j - 1]) + 1);
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) &&
			    same(a[i - 2], b[j - 1]))
				d = min2(d, up2[j - 2] + 1);
			cur[j] = d;
		}
	}
	return row[n % 3][m];
}

int nearest_is_close(const char *word, size_t distance)
{
	return distance <= 1 + strlen(word) / 4;
}
