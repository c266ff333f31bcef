/*
 * Theory of operation
 *
 * The port is a character device. While no host has it open, it reports a
 * hang-up all the time, so it is watched edge-triggered, and every wake-up
 * tries to read and to write until neither goes on. A write takes a line whole
 * or not at all, so a host that comes late starts at a line's beginning.
 */
#include "init/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "init/system.h"

#define PORT_DIR "/sys/class/virtio-ports"
#define PORT_WAIT_MS 2000
#define PORT_POLL_MS 5

static int find_port(const char *wanted, char *ret, size_t size)
{
	DIR *dir = opendir(PORT_DIR);
	struct dirent *entry;
	int r = -ENOENT;

	if (!dir)
		return -errno;
	while (r < 0 && (entry = readdir(dir))) {
		char path[320], name[64];
		_cleanup_close_ int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), PORT_DIR "/%s/name",
			 entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, name, sizeof(name) - 1);
		if (n <= 0)
			continue;
		name[n] = '\0';
		name[strcspn(name, "\n")] = '\0';
		if (!strcmp(name, wanted)) {
			snprintf(ret, size, "/dev/%s", entry->d_name);
			r = 0;
		}
	}
	closedir(dir);
	return r;
}

int port_open(const char *name)
{
	const struct timespec pause = { .tv_nsec = PORT_POLL_MS * 1000000L };
	char path[300];

	/* A port's name arrives some time after its driver was loaded. */
	for (int ms = 0;; ms += PORT_POLL_MS) {
		int r = find_port(name, path, sizeof(path));

		if (r == 0) {
			int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

			if (fd >= 0)
				return fd;
			r = -errno;
		}
		if (ms >= PORT_WAIT_MS)
			return r;
		nanosleep(&pause, NULL);
	}
}

static void say_hello(struct agent *agent)
{
	char line[64];

	snprintf(line, sizeof(line), "hello %d %lld", GUEST_PROTOCOL_VERSION,
		 system_now_ms());
	outbox_add(&agent->out, OUTBOX_EVENT, line);
}

void agent_init(struct agent *agent, agent_message_fn fn, void *userdata)
{
	memset(agent, 0, sizeof(*agent));
	agent->fd = -1;
	agent->fn = fn;
	agent->userdata = userdata;
	outbox_init(&agent->out);
	say_hello(agent);
}

static void hear(void *userdata, char *line, bool cut)
{
	struct agent *agent = userdata;
	struct host_message message;
	int r = cut ? -EINVAL : host_message_parse(line, &message);

	if (r == -EINVAL)
		agent_event(agent, "warning",
			    "a line of the host cannot be understood");
	if (r < 0)
		return;
	if (message.type == HOST_MESSAGE_HELLO) {
		say_hello(agent);
		if (agent->stage[0])
			outbox_add(&agent->out, OUTBOX_EVENT, agent->stage);
		if (agent->state_disk[0])
			outbox_add(&agent->out, OUTBOX_EVENT,
				   agent->state_disk);
	}
	agent->fn(agent->userdata, &message);
}

static void write_out(struct agent *agent)
{
	const char *line;
	size_t len;

	while ((line = outbox_peek(&agent->out, &len))) {
		if (write(agent->fd, line, len) < 0)
			return;
		outbox_pop(&agent->out);
		if (!agent->out.first && agent->out.lost)
			agent_event(agent, "warning",
				    "%u lines were lost: the host did not read",
				    outbox_take_lost(&agent->out));
	}
}

void agent_pump(struct agent *agent)
{
	char buf[4096];
	ssize_t n;

	if (agent->fd < 0)
		return;
	while ((n = read(agent->fd, buf, sizeof(buf))) > 0)
		line_reader_push(&agent->in, buf, (size_t)n, hear, agent);
	/* The host closed it: the rest of its line will not come. */
	if (n == 0)
		agent->in = (struct line_reader){ 0 };
	write_out(agent);
}

int agent_open(struct agent *agent)
{
	int fd = port_open(GUEST_PORT_AGENT);

	if (fd < 0)
		return fd;
	agent->fd = fd;
	agent_pump(agent);
	return 0;
}

void agent_flush(struct agent *agent, int timeout_ms)
{
	long long end = system_now_ms() + timeout_ms;

	while (agent->fd >= 0 && agent->out.first) {
		struct pollfd p = { .fd = agent->fd, .events = POLLOUT };
		long long left = end - system_now_ms();

		if (left <= 0 || poll(&p, 1, (int)left) <= 0 ||
		    p.revents & POLLHUP)
			return;
		write_out(agent);
	}
}

void agent_stage(struct agent *agent, const char *name)
{
	snprintf(agent->stage, sizeof(agent->stage), "stage %lld %s",
		 system_now_ms(), name);
	outbox_add(&agent->out, OUTBOX_EVENT, agent->stage);
}

void agent_state_disk(struct agent *agent, const char *reason)
{
	snprintf(agent->state_disk, sizeof(agent->state_disk),
		 reason ? "state-disk %lld unusable %s" : "state-disk %lld ok",
		 system_now_ms(), reason);
	outbox_add(&agent->out, OUTBOX_EVENT, agent->state_disk);
}

void agent_event(struct agent *agent, const char *word, const char *fmt, ...)
{
	char text[GUEST_LINE_MAX];
	va_list args;
	int n = snprintf(text, sizeof(text), "%s %lld ", word, system_now_ms());

	va_start(args, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, args);
	va_end(args);
	outbox_add(&agent->out, OUTBOX_EVENT, text);
}

void agent_chatter(struct agent *agent, const char *word, const char *text)
{
	char line[GUEST_LINE_MAX];

	snprintf(line, sizeof(line), "%s %lld %.990s", word, system_now_ms(),
		 text);
	outbox_add(&agent->out, OUTBOX_CHATTER, line);
}

void agent_pong(struct agent *agent, const char *token)
{
	char line[HOST_TOKEN_MAX + 8];

	snprintf(line, sizeof(line), "pong %s", token);
	outbox_add(&agent->out, OUTBOX_CHATTER, line);
}
