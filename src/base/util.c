#include "base/util.h"

#include <errno.h>
#include <string.h>

int str_copy(char *dst, size_t size, const char *src)
{
	size_t len = strlen(src);
	int ret = 0;

	if (len >= size) {
		len = size - 1;
		ret = -ENAMETOOLONG;
	}
	memcpy(dst, src, len);
	dst[len] = '\0';
	return ret;
}
