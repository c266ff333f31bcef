#include "init/ring.h"

#include <errno.h>
#include <unistd.h>

int ring_fill(struct ring *ring, int fd)
{
	size_t room;
	char *space = ring_space(ring, &room);
	ssize_t n;

	if (room == 0)
		return 0;
	n = read(fd, space, room);
	if (n > 0) {
		ring_put(ring, (size_t)n);
		return 1;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

int ring_drain(struct ring *ring, int fd)
{
	size_t used;
	const char *content = ring_content(ring, &used);
	ssize_t n;

	if (used == 0)
		return 0;
	n = write(fd, content, used);
	if (n > 0) {
		ring_take(ring, (size_t)n);
		return 1;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}
