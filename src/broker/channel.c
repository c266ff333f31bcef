#include "broker/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

int channel_pair(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, ret) < 0)
		return -errno;
	return 0;
}

int channel_send(int fd, const void *buf, size_t len, const int *fds,
		 size_t n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * BROKER_MESSAGE_FDS_MAX)];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (n_fds > BROKER_MESSAGE_FDS_MAX)
		return -E2BIG;
	if (n_fds > 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

/* Copies the descriptors out; returns -EBADMSG if there are more than fit. */
static int take_fds(struct msghdr *msg, int *ret_fds, size_t *ret_n)
{
	struct cmsghdr *cmsg;
	int r = 0;

	*ret_n = 0;
	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t i, n;

		if (cmsg->cmsg_level != SOL_SOCKET ||
		    cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int),
			       sizeof(int));
			if (*ret_n < BROKER_MESSAGE_FDS_MAX) {
				ret_fds[(*ret_n)++] = fd;
			} else {
				close(fd);
				r = -EBADMSG;
			}
		}
	}
	return r;
}

int channel_recv(int fd, void *buf, size_t len, int *ret_fds, size_t *ret_n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * BROKER_MESSAGE_FDS_MAX)];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	ssize_t n;
	int r;

	*ret_n_fds = 0;
	do
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		/* A reset is an end too: the peer died with data unread. */
		return errno == ECONNRESET ? 0 : -errno;

	r = take_fds(&msg, ret_fds, ret_n_fds);
	if (n == 0) {
		channel_close_fds(ret_fds, *ret_n_fds);
		*ret_n_fds = 0;
		return 0;
	}
	if (r < 0 || (size_t)n != len ||
	    msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		channel_close_fds(ret_fds, *ret_n_fds);
		*ret_n_fds = 0;
		return -EBADMSG;
	}
	return 1;
}

void channel_close_fds(int *fds, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}
