#include "broker/spawner.h"

#include <fcntl.h>
#include <string.h>

uint64_t process_start_time(pid_t pid)
{
	_cleanup_close_ int fd = -1;
	char path[32], buf[1024], *p, *save = NULL;
	ssize_t n;
	int i;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return 0;
	buf[n] = '\0';
	/* Field 2, the name, may hold anything, but ends with the last ')';
	 * the start time is field 22. */
	p = strrchr(buf, ')');
	if (!p)
		return 0;
	p = strtok_r(p + 1, " ", &save);
	for (i = 3; p && i < 22; i++)
		p = strtok_r(NULL, " ", &save);
	return p ? strtoull(p, NULL, 10) : 0;
}
