/*
 * Plays the engine's role for tests/netns/broker-test.py, which starts the
 * real broker with this program as its torvmd.
 *
 * It serves the control socket with one line a command: the name of a request
 * is sent to the broker and answered with "ok STATUS-FIELDS" or "error CODE
 * sentence"; "exit N" ends it; "pid" and "resumed" tell about itself, "config"
 * about the configuration. Events come as "event NAME text" in between.
 * START_VM takes the argument vector from the file `argv` of the state
 * directory. A file `lan_access` there asks for that.
 *
 * As `torvmd recover DIR` it does what `torvm recover` does; as `torvmd
 * resolved` it stands in for systemd-resolved on the bus and prints the calls.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "broker/channel.h"
#include "broker/recover.h"
#include "daemon/fds.h"
#include "vm/fds.h"

static FILE *client;

static void print_event(const struct broker_message *m)
{
	if (!client)
		return;
	fprintf(client, "event %s %s\n", broker_type_name(m->type), m->text);
	fflush(client);
}

/* The next packet of the broker; ends the program with it. */
static void receive(struct broker_message *m)
{
	struct pollfd p = { .fd = ENGINE_FD_BROKER, .events = POLLIN };
	int fds[BROKER_MESSAGE_FDS_MAX], r;
	size_t n_fds;

	do {
		poll(&p, 1, -1);
		r = channel_recv(ENGINE_FD_BROKER, m, sizeof(*m), fds, &n_fds);
	} while (r == -EAGAIN);
	if (r != 1)
		exit(EXIT_CODE_FAILED);
	channel_close_fds(fds, n_fds);
}

static int copy_to_memfd(const char *name)
{
	int in = openat(ENGINE_FD_STATE_DIR, name, O_RDONLY | O_CLOEXEC);
	int out = memfd_create(name, MFD_CLOEXEC);
	char buf[BROKER_ARGV_MAX];
	ssize_t n = in < 0 ? 0 : read(in, buf, sizeof(buf));

	if (n > 0 && write(out, buf, (size_t)n) != n)
		exit(EXIT_CODE_FAILED);
	closep(&in);
	return out;
}

static void request(unsigned int type)
{
	static uint32_t serial;
	struct broker_message m = { .magic = BROKER_MESSAGE_MAGIC,
				    .type = type,
				    .serial = ++serial };
	int fds[2];
	size_t n_fds = 0;

	if (type == BROKER_REQUEST_PRECHECK || type == BROKER_REQUEST_BLOCK) {
		strcpy(m.u.net.tap_name, "torvm0");
		inet_pton(AF_INET, "10.10.10.2", &m.u.net.host_ip);
		inet_pton(AF_INET, "10.10.10.1", &m.u.net.vm_ip);
		m.u.net.lan_access = faccessat(ENGINE_FD_STATE_DIR,
					       "lan_access", F_OK, 0) == 0;
	}
	if (type == BROKER_REQUEST_START_VM) {
		m.u.start_vm.present = 1; /* VM_FD_OUTPUT */
		m.u.start_vm.uplink.any = BROKER_UPLINK_ANY_TCP;
		fds[n_fds++] = copy_to_memfd("argv");
		fds[n_fds++] = STDERR_FILENO;
	}
	if (channel_send(ENGINE_FD_BROKER, &m, sizeof(m), fds, n_fds) < 0)
		exit(EXIT_CODE_FAILED);
	if (n_fds > 0)
		close(fds[0]);
	for (;;) {
		receive(&m);
		if (m.type == BROKER_REPLY && m.serial == serial)
			break;
		print_event(&m);
	}
	if (m.status < 0)
		fprintf(client, "error %d %s\n", m.status, m.text);
	else if (type == BROKER_REQUEST_START_VM)
		fprintf(client, "ok %d\n", m.u.vm.pid);
	else if (type == BROKER_REQUEST_STATUS)
		fprintf(client, "ok %u %d\n", m.u.status.up, m.u.status.vm_pid);
	else
		fprintf(client, "ok\n");
	fflush(client);
}

static bool show_config(void)
{
	struct stat st;
	char text[64];
	ssize_t n = pread(ENGINE_FD_CONFIG, text, sizeof(text) - 1, 0);

	if (n < 0 || fstat(ENGINE_FD_CONFIG, &st) < 0)
		return fprintf(client, "error %d unreadable\n", -errno) > 0;
	text[n] = '\0';
	return fprintf(client, "ok %u/%o %s\n", st.st_uid, st.st_mode, text) >
	       0;
}

static bool command(char *line, bool resumed)
{
	unsigned int type;

	line[strcspn(line, "\n")] = '\0';
	if (strncmp(line, "exit ", 5) == 0)
		exit((int)strtol(line + 5, NULL, 10));
	if (strcmp(line, "pid") == 0)
		return fprintf(client, "ok %d\n", getpid()) > 0;
	if (strcmp(line, "resumed") == 0)
		return fprintf(client, "ok %d\n", resumed) > 0;
	if (strcmp(line, "config") == 0)
		return show_config();
	for (type = 1; type < BROKER_REQUEST_COUNT; type++) {
		if (strcmp(line, broker_type_name(type)) == 0) {
			request(type);
			return true;
		}
	}
	return fprintf(client, "error 0 what is '%s'?\n", line) > 0;
}

static void say(void *userdata, const char *text)
{
	puts(text);
}

static int recover(const char *dir)
{
	struct error e = ERROR_NULL(e);
	int r = recover_run(dir, say, NULL, &e);

	if (e.code)
		puts(e.text);
	return r == -EBUSY ? EXIT_CODE_BUSY
	       : r < 0     ? EXIT_CODE_FAILED
	       : r         ? EXIT_CODE_RESTORE
			   : EXIT_CODE_OK;
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	int32_t ifindex = 0;

	if (!sd_bus_message_is_method_call(
		    m, "org.freedesktop.resolve1.Manager", NULL))
		return 0;
	if (strcmp(sd_bus_message_get_member(m), "FlushCaches") != 0)
		sd_bus_message_read(m, "i", &ifindex);
	printf("%s %d\n", sd_bus_message_get_member(m), ifindex);
	fflush(stdout);
	return sd_bus_reply_method_return(m, NULL);
}

static int resolved(void)
{
	sd_bus *bus = NULL;
	int opened = sd_bus_open_system(&bus);

	if (opened >= 0)
		opened = sd_bus_add_object(
			bus, NULL, "/org/freedesktop/resolve1", on_call, NULL);
	if (opened >= 0)
		opened =
			sd_bus_request_name(bus, "org.freedesktop.resolve1", 0);
	if (opened < 0) {
		printf("no bus: %s\n", strerror(-opened));
		return EXIT_CODE_FAILED;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int r = sd_bus_process(bus, NULL);

		if (r < 0 || (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0))
			return EXIT_CODE_FAILED;
	}
}

int main(int argc, char **argv)
{
	bool resumed = false;
	int i;

	if (argc == 3 && strcmp(argv[1], "recover") == 0)
		return recover(argv[2]);
	if (argc == 2 && strcmp(argv[1], "resolved") == 0)
		return resolved();
	for (i = 1; i < argc; i++)
		resumed = resumed || strcmp(argv[i], "--resume") == 0;
	for (;;) {
		struct pollfd p[] = {
			{ .fd = ENGINE_FD_BROKER, .events = POLLIN },
			{ .fd = client ? fileno(client) : ENGINE_FD_CONTROL,
			  .events = POLLIN },
		};
		struct broker_message m;
		char line[256];
		int fd;

		poll(p, 2, -1);
		if (p[0].revents) {
			receive(&m);
			print_event(&m);
		}
		if (!p[1].revents)
			continue;
		if (!client) {
			fd = accept4(ENGINE_FD_CONTROL, NULL, NULL,
				     SOCK_CLOEXEC);
			client = fd < 0 ? NULL : fdopen(fd, "r+");
			if (client)
				setvbuf(client, NULL, _IONBF, 0);
			continue;
		}
		if (!fgets(line, sizeof(line), client)) {
			fclose(client);
			client = NULL;
			continue;
		}
		command(line, resumed);
		fflush(client);
	}
}
