/*
 * Starts the real QEMU with the real argument vector and the fds of vm/fds.h,
 * as an unprivileged user in a network namespace of its own. The "kernel" is a
 * few bytes that write a word to the serial port and halt: enough to know that
 * the machine was built, took kernel, initrd and fw_cfg from their fds, and
 * runs.
 *
 * Skipped (77) without root, QEMU or /dev/net/tun.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "proto/qmp.h"
#include "vm/args.h"
#include "vm/fds.h"
#include "vm/guestconfig.h"
#include "vm/qemu.h"

#define UID 61101          /* the VM's, where no user torvm-vm exists */
#define DEADLINE_MS 30000  /* of each step */
#define WORD "torvm-lives" /* what the kernel says */

struct vm {
	pid_t pid;
	int fd[VM_FD_COUNT];   /* QEMU's, by their number there */
	int peer[VM_FD_COUNT]; /* connections to its channels */
	int output;            /* what it writes to stderr */
	char qemu[PATH_MAX];
	struct qmp *qmp;
};

/* A bzImage that the firmware's Linux loader takes (Linux's boot.rst): the
 * setup code runs in real mode from offset 0x200. */
static int make_kernel(void)
{
	/* next: lodsb; test al,al; jz halt; out dx,al; jmp next
	 * halt: cli; hlt; jmp halt */
	static const uint8_t code[] = {
		0x0e, 0x1f,       /* push cs; pop ds */
		0xbe, 0x90, 0x00, /* mov si, 0x90: the word */
		0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
		0xac, 0x84, 0xc0, 0x74, 0x03, 0xee,
		0xeb, 0xf8, 0xfa, 0xf4, 0xeb, 0xfc,
	};
	uint8_t image[2048] = { 0 };
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	image[0x1f1] = 1; /* setup_sects */
	image[0x1fe] = 0x55;
	image[0x1ff] = 0xaa;
	image[0x200] = 0xeb; /* jmp to 0x268 */
	image[0x201] = 0x66;
	memcpy(image + 0x202, "HdrS", 4);
	image[0x206] = 0x02; /* boot protocol 2.02 */
	image[0x207] = 0x02;
	image[0x211] = 0x01; /* loaded high */
	memcpy(image + 0x268, code, sizeof(code));
	memcpy(image + 0x290, WORD, sizeof(WORD));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
	return fd;
}

/* A listening socket, and a connection to it that waits to be accepted. */
static void make_channel(struct vm *vm, enum vm_fd which)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(a);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Autobind: an abstract name of the namespace's own. */
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)),
			 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	vm->fd[which] = fd;
	vm->peer[which] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(vm->peer[which], (struct sockaddr *)&a, len),
			 0);
}

static int make_tap(void)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	strcpy(r.ifr_name, "torvm0");
	assert_int_equal(ioctl(fd, TUNSETIFF, &r), 0);
	return fd;
}

static int make_disk(void)
{
	int fd = memfd_create("state", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 1024 * 1024), 0);
	return fd;
}

static void exec_qemu(const struct vm *vm, char *argv_text, size_t len)
{
	char *argv[128];
	size_t n = 0;
	int high[VM_FD_COUNT];

	for (size_t at = 0; at < len && n < 127;
	     at += strlen(argv_text + at) + 1)
		argv[n++] = argv_text + at;
	argv[n] = NULL;
	for (int i = 0; i < VM_FD_COUNT; i++)
		high[i] = vm->fd[i] >= 0 ? fcntl(vm->fd[i], F_DUPFD, 100) : -1;
	for (int i = 0; i < VM_FD_COUNT; i++)
		if (high[i] >= 0)
			dup2(high[i], i);
	close_range(VM_FD_COUNT, UINT_MAX, 0);
	if (setgroups(0, NULL) < 0 || setresgid(UID, UID, UID) < 0 ||
	    setresuid(UID, UID, UID) < 0)
		_exit(126);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execve(argv[0], argv, (char *[]){ NULL });
	_exit(127);
}

static void start(struct vm *vm, bool state_disk, bool ipv6)
{
	struct vm_args_input in = {
		.qemu_path = vm->qemu,
		.arch = vm_arch_host(),
		.accel = VM_ACCEL_TCG,
		.memory_mb = 64,
		.cpus = 1,
		.state_disk = state_disk,
		.ipv6 = ipv6,
	};
	char argv[16384];
	int pipe_fd[2];
	size_t len;

	assert_int_equal(vm_args_build(&in, argv, sizeof(argv), &len, NULL), 0);
	for (int i = VM_FD_QMP; i <= VM_FD_CONSOLE; i++)
		make_channel(vm, (enum vm_fd)i);
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
	vm->output = pipe_fd[0];
	vm->fd[VM_FD_STDIN] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	vm->fd[VM_FD_STDOUT] = dup(pipe_fd[1]);
	vm->fd[VM_FD_STDERR] = pipe_fd[1];
	vm->fd[VM_FD_TAP] = make_tap();
	vm->fd[VM_FD_KERNEL] = make_kernel();
	vm->fd[VM_FD_INITRD] = guestconfig_memfd("initrd", "initrd", NULL);
	vm->fd[VM_FD_CONFIG] = guestconfig_memfd("config", "version=1\n", NULL);
	vm->fd[VM_FD_TORRC] = guestconfig_memfd("torrc", "Sandbox 1\n", NULL);
	if (state_disk)
		vm->fd[VM_FD_STATE_DISK] = make_disk();
	vm->pid = fork();
	if (vm->pid == 0)
		exec_qemu(vm, argv, len);
	assert_true(vm->pid > 0);
	for (int i = 0; i < VM_FD_COUNT; i++) {
		closep(&vm->fd[i]);
		vm->fd[i] = -1;
	}
}

/* More bytes from @fd, or a failure with what QEMU wrote to stderr. */
static size_t receive(struct vm *vm, int fd, char *buf, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[1024] = "";
	ssize_t n = 0;

	if (poll(&p, 1, DEADLINE_MS) > 0)
		n = read(fd, buf, size);
	if (n > 0)
		return (size_t)n;
	kill(vm->pid, SIGKILL);
	n = read(vm->output, text, sizeof(text) - 1);
	fail_msg("QEMU went silent: %s", n > 0 ? text : "no message");
	return 0;
}

static void flush_qmp(struct vm *vm)
{
	size_t len;
	const char *out = buffer_peek(qmp_output(vm->qmp), &len);

	if (len == 0)
		return;
	assert_int_equal(write(vm->peer[VM_FD_QMP], out, len), len);
	buffer_consume(qmp_output(vm->qmp), len);
}

static void next_message(struct vm *vm, struct qmp_message *m)
{
	struct error e = ERROR_NULL(e);
	char buf[4096];
	size_t len;
	int r;

	for (;;) {
		r = qmp_next(vm->qmp, m, &e);
		flush_qmp(vm);
		if (r < 0)
			fail_msg("%s", e.text);
		if (r > 0)
			return;
		len = receive(vm, vm->peer[VM_FD_QMP], buf, sizeof(buf));
		assert_int_equal(qmp_push(vm->qmp, buf, len), 0);
	}
}

static void await_word(struct vm *vm)
{
	char text[4096] = "";
	size_t len = 0;

	while (!strstr(text, WORD)) {
		assert_true(len + 1 < sizeof(text));
		len += receive(vm, vm->peer[VM_FD_CONSOLE], text + len,
			       sizeof(text) - 1 - len);
		text[len] = '\0';
	}
}

/* The sandbox is on and the user is the unprivileged one. */
static void assert_confined(struct vm *vm)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], line[256];
	int seen = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", vm->pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (!strcmp(line, "Seccomp:\t2\n") ||
		    !strcmp(line, "NoNewPrivs:\t1\n") ||
		    !strcmp(line, "CapEff:\t0000000000000000\n") ||
		    !strncmp(line, "Uid:\t61101\t61101\t61101\t61101", 28))
			seen++;
	assert_int_equal(seen, 4);
}

static void run(struct vm *vm, bool state_disk, bool ipv6)
{
	struct qmp_message m;
	int status;

	start(vm, state_disk, ipv6);
	/* Goes out after the negotiation. */
	assert_int_equal(qmp_send(vm->qmp, QMP_COMMAND_QUERY_STATUS, NULL), 0);
	next_message(vm, &m);
	assert_int_equal(m.kind, QMP_KIND_READY);
	next_message(vm, &m);
	assert_int_equal(m.kind, QMP_KIND_RETURN);
	assert_true(m.running);
	await_word(vm);
	assert_confined(vm);

	assert_int_equal(qmp_send(vm->qmp, QMP_COMMAND_QUIT, NULL), 0);
	do {
		next_message(vm, &m);
	} while (m.kind != QMP_KIND_EVENT || m.event != QMP_EVENT_SHUTDOWN);
	assert_false(m.guest);
	assert_string_equal(m.reason, "host-qmp-quit");
	assert_int_equal(waitpid(vm->pid, &status, 0), vm->pid);
	vm->pid = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void it_starts_with_a_state_disk(void **state)
{
	run(*state, true, false);
}

static void it_starts_without_a_state_disk(void **state)
{
	run(*state, false, false);
}

static void it_starts_with_ipv6(void **state)
{
	run(*state, true, true);
}

static int setup(void **state)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	*state = vm;
	for (int i = 0; i < VM_FD_COUNT; i++)
		vm->fd[i] = vm->peer[i] = -1;
	vm->qmp = qmp_new();
	return qemu_find("", vm_arch_host(), vm->qemu, sizeof(vm->qemu), NULL);
}

static int teardown(void **state)
{
	struct vm *vm = *state;

	if (vm->pid > 0) {
		kill(vm->pid, SIGKILL);
		waitpid(vm->pid, NULL, 0);
	}
	for (int i = 0; i < VM_FD_COUNT; i++)
		closep(&vm->peer[i]);
	closep(&vm->output);
	qmp_free(vm->qmp);
	free(vm);
	return 0;
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(it_starts_with_a_state_disk),
		with(it_starts_without_a_state_disk),
		with(it_starts_with_ipv6),
	};
	struct error e = ERROR_NULL(e);
	char qemu[PATH_MAX];

	if (geteuid() != 0 || access("/dev/net/tun", R_OK | W_OK) < 0 ||
	    unshare(CLONE_NEWNET) < 0) {
		fprintf(stderr, "skipped: needs root and /dev/net/tun\n");
		return 77;
	}
	if (qemu_find("", vm_arch_host(), qemu, sizeof(qemu), &e) < 0) {
		fprintf(stderr, "skipped: %s\n", e.text);
		return 77;
	}
	return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
