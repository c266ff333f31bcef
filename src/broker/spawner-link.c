#include "broker/spawner.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "broker/channel.h"

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Return: 1: a message and at most one fd (else -1); 0: time is over. */
static int receive(struct spawner *s, int64_t deadline_ms,
		   struct spawner_message *ret, int *ret_fd)
{
	int fds[BROKER_MESSAGE_FDS_MAX], r;
	size_t n_fds;

	for (;;) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };
		int64_t left = deadline_ms - now_ms();

		r = channel_recv(s->fd, ret, sizeof(*ret), fds, &n_fds);
		if (r == 1)
			break;
		if (r != -EAGAIN)
			return -EPIPE;
		if (left <= 0)
			return 0;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return -errno;
	}
	*ret_fd = n_fds > 0 ? fds[0] : -1;
	if (n_fds > 1)
		channel_close_fds(fds + 1, n_fds - 1);
	ret->text[sizeof(ret->text) - 1] = '\0';
	return 1;
}

/* There are two children, and a child is not started again before its end was
 * taken: the room suffices. */
static void keep(struct spawner *s, const struct spawner_message *m)
{
	if (m->type == SPAWNER_EXITED && s->n_pending < SPAWNER_PENDING_MAX)
		s->pending[s->n_pending++] = *m;
}

/* Sends a request and waits for its answer; ends that come between are kept
 * for spawner_next_exit(). */
static int ask(struct spawner *s, const struct spawner_message *request,
	       const int *fds, size_t n_fds, struct spawner_message *ret,
	       int *ret_fd, struct error *e)
{
	int64_t deadline_ms = now_ms() + SPAWNER_TIMEOUT_MS;
	int r;

	r = channel_send(s->fd, request, sizeof(*request), fds, n_fds);
	if (r < 0)
		return error_set(e, r, "the spawner cannot be asked: %s",
				 strerror(-r));
	while ((r = receive(s, deadline_ms, ret, ret_fd)) == 1) {
		if (ret->type == SPAWNER_STARTED)
			break;
		closep(ret_fd);
		keep(s, ret);
	}
	if (r == 0)
		return error_set(e, -ETIMEDOUT, "the spawner does not answer");
	if (r < 0)
		return error_set(e, -EPIPE, "the spawner is gone");
	if (ret->status < 0) {
		closep(ret_fd);
		return error_set(e, ret->status, "%s", ret->text);
	}
	return 0;
}

int spawner_start_engine(struct spawner *s, bool resume, int engine_socket,
			 int *ret_pidfd, struct error *e)
{
	struct spawner_message m = { .type = SPAWNER_REQUEST_ENGINE,
				     .resume = resume };

	return ask(s, &m, &engine_socket, 1, &m, ret_pidfd, e);
}

int spawner_start_vm(struct spawner *s, const struct spawner_vm_fds *fds,
		     pid_t *ret_pid, int *ret_pidfd, uint64_t *ret_started,
		     struct error *e)
{
	struct spawner_message m = { .type = SPAWNER_REQUEST_VM,
				     .present = fds->present };
	size_t n = 0, n_engine = (size_t)__builtin_popcount(fds->present);
	int all[1 + VM_FD_COUNT], fd, r;

	all[n++] = fds->argv;
	for (fd = VM_FD_QMP; fd < VM_FD_FROM_ENGINE; fd++)
		all[n++] = fds->made[fd];
	memcpy(all + n, fds->from_engine, n_engine * sizeof(int));
	r = ask(s, &m, all, n + n_engine, &m, &fd, e);
	if (r < 0)
		return r;
	*ret_pid = m.pid;
	*ret_pidfd = fd;
	*ret_started = m.started;
	return 0;
}

int spawner_next_exit(struct spawner *s, int child, int timeout_ms,
		      struct spawner_message *ret)
{
	int64_t deadline_ms = now_ms() + timeout_ms;
	unsigned int i;
	int fd = -1, r;

	for (i = 0; i < s->n_pending; i++) {
		if (child >= 0 && s->pending[i].child != (uint32_t)child)
			continue;
		*ret = s->pending[i];
		s->n_pending--;
		memmove(s->pending + i, s->pending + i + 1,
			(s->n_pending - i) * sizeof(s->pending[0]));
		return 1;
	}
	while ((r = receive(s, deadline_ms, ret, &fd)) == 1) {
		closep(&fd);
		if (ret->type != SPAWNER_EXITED)
			continue;
		if (child < 0 || ret->child == (uint32_t)child)
			return 1;
		keep(s, ret);
	}
	return r;
}
