/*
 * Runs a fuzz target over its corpus without libFuzzer, so that every finding
 * once mended stays mended under gcc and the sanitizers. Of a short input each
 * prefix is tried too: a message that ends early is the commonest surprise.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "fuzz.h"

#define INPUT_MAX (4 * 1024 * 1024) /* bytes */
#define PREFIXES_MAX 2048           /* bytes of input */

/* An exact copy, so that ASan sees a read past the end. */
static void run(const uint8_t *data, size_t len)
{
	_cleanup_free_ uint8_t *copy = malloc(len ? len : 1);

	must(copy);
	memcpy(copy, data, len);
	LLVMFuzzerTestOneInput(copy, len);
}

static void replay(const char *path)
{
	_cleanup_free_ uint8_t *data = malloc(INPUT_MAX);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	size_t len;

	must(data && f);
	fprintf(stderr, "%s\n", path);
	len = fread(data, 1, INPUT_MAX, f);
	run(data, len);
	if (len <= PREFIXES_MAX)
		for (size_t i = 0; i < len; i++)
			run(data, i);
}

int main(int argc, char **argv)
{
	struct dirent *entry;
	char path[4096];
	int n = 0;
	DIR *dir;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
		return 2;
	}
	dir = opendir(argv[1]);
	if (!dir) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
		replay(path);
		n++;
	}
	closedir(dir);
	if (n == 0) {
		fprintf(stderr, "%s: no inputs\n", argv[1]);
		return 1;
	}
	return 0;
}
