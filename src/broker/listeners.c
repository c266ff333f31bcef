#include "broker/listeners.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/channel.h"

static const char *const names[LISTENERS_COUNT] = {
	[0] = VM_SOCKET_QMP,
	[VM_FD_TORCTL - VM_FD_QMP] = VM_SOCKET_TORCTL,
	[VM_FD_AGENT - VM_FD_QMP] = VM_SOCKET_AGENT,
	[VM_FD_CONSOLE - VM_FD_QMP] = VM_SOCKET_CONSOLE,
};

static int listen_at(int dir_fd, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	mode_t mask;
	int r;

	if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* By way of the directory's fd: there is no bindat(2), and the path
	 * may be longer than an address. */
	snprintf(address.sun_path, sizeof(address.sun_path),
		 "/proc/self/fd/%d/%s", dir_fd, name);
	/* The directory decides who may connect. */
	mask = umask(0111);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (r < 0 || listen(fd, 1) < 0)
		return -errno;
	return steal_fd(&fd);
}

int listeners_make(int dir_fd, int ret[LISTENERS_COUNT], struct error *e)
{
	int i;

	for (i = 0; i < LISTENERS_COUNT; i++) {
		ret[i] = listen_at(dir_fd, names[i]);
		if (ret[i] < 0) {
			int r = ret[i];

			channel_close_fds(ret, (size_t)i);
			return error_set(e, r,
					 "the socket %s for the VM cannot be "
					 "made in the runtime directory: %s",
					 names[i], strerror(-r));
		}
	}
	return 0;
}

void listeners_remove(int dir_fd)
{
	int i;

	for (i = 0; i < LISTENERS_COUNT; i++)
		unlinkat(dir_fd, names[i], 0);
}
