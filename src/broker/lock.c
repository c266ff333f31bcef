/*
 * The lock.
 *
 * Theory of operation: an abstract Unix socket belongs to the network
 * namespace, as everything that the broker changes does, and goes with its
 * process, however that ends. Two controllers in two namespaces could still be
 * given one runtime directory: a file lock there keeps their journals apart.
 *
 * Any user may take an abstract name. Who holds it is asked of the kernel
 * (SO_PEERCRED), so that the message can tell a controller from a nuisance.
 */
#include "broker/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static socklen_t lock_address(struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path + 1, LOCK_SOCKET_NAME, strlen(LOCK_SOCKET_NAME));
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			   strlen(LOCK_SOCKET_NAME));
}

static int busy(struct error *e)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	struct sockaddr_un address;
	socklen_t address_len = lock_address(&address);
	_cleanup_close_ int fd = -1;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 ||
	    connect(fd, (struct sockaddr *)&address, address_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return error_set(e, -EBUSY,
				 "another TorVM controller runs in this "
				 "network namespace; `torvm status` shows it, "
				 "`torvm down` stops it");
	if (peer.uid != 0)
		return error_set(e, -EBUSY,
				 "process %d of user %u holds the name "
				 "@" LOCK_SOCKET_NAME
				 " and is not TorVM; end it (kill %d) and "
				 "start again",
				 peer.pid, peer.uid, peer.pid);
	return error_set(e, -EBUSY,
			 "another TorVM controller (pid %d) runs in this "
			 "network namespace; `torvm status` shows it, `torvm "
			 "down` stops it, with the --runtime-dir that it was "
			 "started with. If neither finds it, `kill %d` stops "
			 "it and restores the network",
			 peer.pid, peer.pid);
}

int lock_take(struct lock *lock, struct error *e)
{
	struct sockaddr_un address;
	socklen_t len = lock_address(&address);
	_cleanup_close_ int fd = -1;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(e, -errno, "socket: %s", strerror(errno));
	if (bind(fd, (struct sockaddr *)&address, len) < 0)
		return errno == EADDRINUSE ? busy(e)
					   : error_set(e, -errno, "bind: %s",
						       strerror(errno));
	/* Nobody is accepted; it is for SO_PEERCRED alone. */
	if (listen(fd, 8) < 0)
		return error_set(e, -errno, "listen: %s", strerror(errno));
	lock->socket_fd = steal_fd(&fd);
	return 0;
}

int lock_take_directory(struct lock *lock, int runtime_fd, struct error *e)
{
	_cleanup_close_ int fd = -1;

	fd = openat(runtime_fd, LOCK_FILE_NAME,
		    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set(e, -errno,
				 "the lock file in the runtime directory "
				 "cannot be opened: %s",
				 strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(e, -EBUSY,
				 "another TorVM controller, in another network "
				 "namespace, uses this runtime directory; give "
				 "this one its own (--runtime-dir)");
	lock->file_fd = steal_fd(&fd);
	return 0;
}

void lock_release(struct lock *lock)
{
	closep(&lock->file_fd);
	closep(&lock->socket_fd);
	*lock = LOCK_NULL;
}
