/*
 * A hostile broker against the real spawner.
 *
 * Theory of operation: the input is a list of requests, which go with real
 * descriptors through the real socketpair to the spawner's handler. Not real
 * are the processes: fork() succeeds without one, so that what a child would
 * do with its rights is judged by what was asked for up to there.
 */
#include "fuzz.h"

#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/util.h"

#define FAKE_PID 0x7ffffff0 /* above every kernel's limit */

static unsigned int n_forked;
static pid_t ended; /* what waitpid() tells next; 0: nothing */

static pid_t fake_fork(void)
{
	return FAKE_PID + (pid_t)(n_forked++ % 2);
}

static int fake_kill(pid_t pid, int signum)
{
	must(pid >= FAKE_PID && signum == SIGKILL);
	return 0;
}

static pid_t fake_waitpid(pid_t pid, int *wait_status, int flags)
{
	pid_t r = ended;

	if (wait_status)
		*wait_status = 0;
	ended = 0;
	return r;
}

#define fork fake_fork
#define kill fake_kill
#define waitpid fake_waitpid
#define syscall(...) eventfd(0, EFD_CLOEXEC)
#include "broker/spawner.c"
#undef syscall
#undef fork
#undef kill
#undef waitpid

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t next(struct input *in)
{
	if (in->size == 0)
		return 0;
	in->size--;
	return *in->data++;
}

static int make_fd(struct input *in)
{
	static const char good[] =
		"/bin/qemu-system-x86_64\0-nodefaults\0-no-user-config\0"
		"-sandbox\0on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
		"resourcecontrol=deny";
	uint8_t kind = next(in);
	size_t len = next(in);
	int fd;

	if (kind % 4 == 0)
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	if (kind % 4 == 1)
		return open("/proc/self/exe", O_PATH | O_CLOEXEC);
	fd = memfd_create("argv", MFD_CLOEXEC);
	must(fd >= 0);
	if (kind % 4 == 2)
		must(write(fd, good, sizeof(good)) == sizeof(good));
	if (len > in->size)
		len = in->size;
	must(write(fd, in->data, len) == (ssize_t)len);
	in->data += len;
	in->size -= len;
	return fd;
}

static void request(const struct spawner_setup *setup, const int pair[2],
		    struct children *children, struct input *in)
{
	int fds[BROKER_MESSAGE_FDS_MAX];
	size_t n_fds, i;
	struct spawner_message m = {
		.type = next(in) % 4,
		.child = next(in),
		.resume = next(in),
		.present = next(in),
	};
	unsigned int forked = n_forked;

	n_fds = next(in) % (ARRAY_SIZE(fds) + 1);
	for (i = 0; i < n_fds; i++)
		fds[i] = make_fd(in);
	must(channel_send(pair[0], &m, sizeof(m), fds, n_fds) == 0);
	channel_close_fds(fds, n_fds);

	must(channel_recv(pair[1], &m, sizeof(m), fds, &n_fds) == 1);
	handle_request(setup, pair[1], &m, fds, n_fds, children);

	must(channel_recv(pair[0], &m, sizeof(m), fds, &n_fds) == 1);
	must(m.type == SPAWNER_STARTED);
	must(memchr(m.text, '\0', sizeof(m.text)) && is_printable(m.text));
	must(m.status <= 0 && (m.status == 0 || m.text[0]));
	must(n_fds == (m.status == 0));
	must((m.status == 0) == (n_forked == forked + 1));
	channel_close_fds(fds, n_fds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char name[] = "torvmd";
	char *engine_argv[] = { name, NULL };
	struct spawner_setup setup = {
		.engine = { .uid = 61100 },
		.vm = { .uid = 61101 },
		.engine_binary = -1,
		.engine_argv = engine_argv,
	};
	struct input in = { .data = data, .size = size };
	struct children children = { 0 };
	struct spawner_message m;
	int pair[2], fds[BROKER_MESSAGE_FDS_MAX], first_fd = dup(0);
	size_t n_fds;

	close(first_fd);
	must(channel_pair(pair) == 0);
	n_forked = 0;
	ended = 0;
	while (in.size > 0) {
		request(&setup, pair, &children, &in);
		if (next(&in) % 4 != 0)
			continue;
		ended = children.pid[next(&in) % 2];
		reap(pair[1], &children);
		while (channel_recv(pair[0], &m, sizeof(m), fds, &n_fds) == 1)
			must(m.type == SPAWNER_EXITED && n_fds == 0);
	}
	close(pair[0]);
	close(pair[1]);
	n_fds = (size_t)dup(0);
	close((int)n_fds);
	must((int)n_fds == first_fd);
	return 0;
}
