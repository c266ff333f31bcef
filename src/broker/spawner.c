/*
 * The spawner.
 *
 * Theory of operation: a loop around poll() on two things, the channel to the
 * broker and a signalfd for SIGCHLD. It keeps root's right to change users and
 * to signal, nothing else, and understands two requests: "start the engine",
 * whose binary, arguments and fds were fixed before the fork, and "start
 * QEMU", whose argument vector it checks itself although the broker has done
 * so: the broker may be the one that was taken over.
 *
 * Ends: the broker's death kills the spawner (PDEATHSIG), the spawner's death
 * kills its children (theirs). So however the broker ends, engine and QEMU
 * end, and only what is in the kernel stays: the block.
 *
 * A child, between fork and exec: new session, fds moved to their numbers and
 * all others closed, groups, uid, no_new_privs, PDEATHSIG (after the change of
 * uid, which clears it), empty environment. Whether exec succeeded is told by
 * a close-on-exec pipe.
 */
#include "broker/spawner.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/channel.h"

/* The uplink has one socket per connection to a guard, QEMU's user-mode
 * network one per flow: the usual 1024 is not enough for a busy relay list. */
#define VM_FILES_MAX 16384

struct children {
	pid_t pid[2]; /* by enum spawner_child; 0: none */
};

/* What a child becomes. */
struct program {
	enum spawner_child child;
	const struct spawner_user *user;
	int binary; /* executed by fd; -1: by argv[0] */
	char *const *argv;
	const int *fds; /* by the number they get; -1: closed */
	int n_fds;
};

static void fail(int report_fd, const char *step)
{
	struct {
		int code;
		char step[32];
	} report = { .code = -errno };

	str_copy(report.step, sizeof(report.step), step);
	if (write(report_fd, &report, sizeof(report)) < 0)
		_exit(126);
	_exit(127);
}

/* Moves each fd to its number. All are lifted out of the way first, because
 * a target may be another one's source. */
static void place_fds(const struct program *p, int *report_fd, int *binary)
{
	int lifted[32], i;

	*report_fd = fcntl(*report_fd, F_DUPFD_CLOEXEC, 64);
	if (*report_fd < 0)
		_exit(126);
	if (*binary >= 0) {
		*binary = fcntl(*binary, F_DUPFD_CLOEXEC, 64);
		if (*binary < 0)
			fail(*report_fd, "keeping the binary");
	}
	for (i = 0; i < p->n_fds; i++) {
		lifted[i] = -1;
		if (p->fds[i] >= 0) {
			lifted[i] = fcntl(p->fds[i], F_DUPFD_CLOEXEC, 64);
			if (lifted[i] < 0)
				fail(*report_fd, "duplicating a descriptor");
		}
	}
	for (i = 0; i < p->n_fds; i++) {
		if (lifted[i] >= 0 && dup2(lifted[i], i) < 0)
			fail(*report_fd, "placing a descriptor");
		if (lifted[i] < 0)
			close(i);
	}
}

static void become(const struct program *p, pid_t parent, int report_fd)
{
	char *const envp[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
			       (char *)"LC_ALL=C.UTF-8", NULL };
	struct rlimit none = { 0 }, files;
	int binary = p->binary;
	sigset_t none_blocked;

	if (setsid() < 0)
		fail(report_fd, "setsid");
	place_fds(p, &report_fd, &binary);
	/* All others go when exec succeeds; until then none is used. */
	if (close_range((unsigned int)p->n_fds, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		fail(report_fd, "close_range");

	/* No core dumps: they would hold circuits' keys. */
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		fail(report_fd, "setrlimit");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max < VM_FILES_MAX ? files.rlim_max
							       : VM_FILES_MAX;
		if (setrlimit(RLIMIT_NOFILE, &files) < 0)
			fail(report_fd, "setrlimit");
	}
	umask(077);
	if (chdir("/") < 0)
		fail(report_fd, "chdir");

	if (setgroups(p->user->group ? 1 : 0, &p->user->group) < 0)
		fail(report_fd, "setgroups");
	if (setresgid(p->user->gid, p->user->gid, p->user->gid) < 0)
		fail(report_fd, "setresgid");
	/* From uid 0 to another: the kernel empties the capabilities. */
	if (setresuid(p->user->uid, p->user->uid, p->user->uid) < 0)
		fail(report_fd, "setresuid");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail(report_fd, "no_new_privs");
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		fail(report_fd, "PDEATHSIG");
	if (getppid() != parent)
		_exit(126); /* died before PDEATHSIG was set */

	sigemptyset(&none_blocked);
	sigprocmask(SIG_SETMASK, &none_blocked, NULL);
	if (binary >= 0)
		syscall(SYS_execveat, binary, "", p->argv, envp, AT_EMPTY_PATH);
	else
		execve(p->argv[0], p->argv, envp);
	fail(report_fd, "exec");
}

/* Forks and waits until the program runs or has failed to. */
static int launch(const struct program *p, struct children *children,
		  struct error *e)
{
	struct {
		int code;
		char step[32];
	} report;
	pid_t parent = getpid(), pid;
	_cleanup_close_ int in = -1, out = -1;
	int pipe_fds[2];
	ssize_t n;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_set(e, -errno, "pipe: %s", strerror(errno));
	in = pipe_fds[0];
	out = pipe_fds[1];
	pid = fork();
	if (pid < 0)
		return error_set(e, -errno, "fork: %s", strerror(errno));
	if (pid == 0)
		become(p, parent, out);
	close(steal_fd(&out));
	do
		n = read(in, &report, sizeof(report));
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(report)) {
		waitpid(pid, NULL, 0);
		report.step[sizeof(report.step) - 1] = '\0';
		return error_set(e, report.code, "%s cannot be started: %s: %s",
				 p->argv[0], report.step,
				 strerror(-report.code));
	}
	children->pid[p->child] = pid;
	return 0;
}

/* Whether only root can have put this program here: a regular file, no
 * symbolic link on the way, nothing that others may write to. */
static int check_binary(const char *path, struct error *e)
{
	char part[PATH_MAX];
	const char *p = path;
	struct stat st;

	do {
		p = strchr(p + 1, '/');
		if (str_copy(part, sizeof(part), path) < 0)
			return error_set(e, -ENAMETOOLONG, "%s: too long",
					 path);
		if (p)
			part[p - path] = '\0';
		if (lstat(part, &st) < 0)
			return error_set(e, -errno, "%s: %s", part,
					 strerror(errno));
		if (st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) ||
		    (p ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)))
			return error_set(e, -EPERM,
					 "%s: QEMU is only started from a real "
					 "path that belongs to root and that "
					 "nobody else may write to; set "
					 "vm.qemu_path to such a one",
					 part);
	} while (p);
	return 0;
}

static int start_engine(const struct spawner_setup *setup,
			const struct spawner_message *m, const int *fds,
			size_t n_fds, struct children *children,
			struct error *e)
{
	char *argv[32];
	int placed[ENGINE_FD_COUNT], i, n = 0;
	struct program p = {
		.child = SPAWNER_CHILD_ENGINE,
		.user = &setup->engine,
		.binary = setup->engine_binary,
		.argv = argv,
		.fds = placed,
		.n_fds = ENGINE_FD_COUNT,
	};

	if (n_fds != 1)
		return error_set(e, -EBADMSG, "no socket for the engine");
	if (children->pid[SPAWNER_CHILD_ENGINE])
		return error_set(e, -EBUSY, "an engine runs");
	for (i = 0; setup->engine_argv[i] && n < 30; i++)
		argv[n++] = setup->engine_argv[i];
	if (m->resume)
		argv[n++] = (char *)"--resume";
	argv[n] = NULL;
	for (i = 0; i < ENGINE_FD_COUNT; i++)
		placed[i] = i < ENGINE_FD_BROKER ? i : setup->engine_fds[i];
	placed[ENGINE_FD_BROKER] = fds[0];
	return launch(&p, children, e);
}

static int start_vm(const struct spawner_setup *setup,
		    const struct spawner_message *m, const int *fds,
		    size_t n_fds, struct children *children, struct error *e)
{
	const size_t n_made = VM_FD_FROM_ENGINE - VM_FD_QMP;
	char text[BROKER_ARGV_MAX], *argv[BROKER_ARGV_COUNT_MAX];
	int placed[VM_FD_COUNT], fd, r;
	struct program p = {
		.child = SPAWNER_CHILD_VM,
		.user = &setup->vm,
		.binary = -1,
		.argv = argv,
		.fds = placed,
		.n_fds = VM_FD_COUNT,
	};
	size_t next = 1 + n_made;
	ssize_t len;

	if (!(m->present & 1u << (VM_FD_OUTPUT - VM_FD_FROM_ENGINE)) ||
	    m->present >> (VM_FD_COUNT - VM_FD_FROM_ENGINE) ||
	    n_fds != next + (size_t)__builtin_popcount(m->present))
		return error_set(e, -EBADMSG, "QEMU's descriptors do not fit");
	if (children->pid[SPAWNER_CHILD_VM])
		return error_set(e, -EBUSY, "a virtual machine runs");
	len = pread(fds[0], text, BROKER_ARGV_MAX, 0);
	if (len < 0 || broker_argv_split(text, (size_t)len, argv,
					 BROKER_ARGV_COUNT_MAX) < 0)
		return error_set(e, -EBADMSG,
				 "QEMU's argument vector is not one");
	r = broker_argv_check(argv, e);
	if (r == 0)
		r = check_binary(argv[0], e);
	if (r < 0)
		return r;

	placed[VM_FD_STDIN] = 0;
	for (fd = VM_FD_QMP; fd < VM_FD_FROM_ENGINE; fd++)
		placed[fd] = fds[1 + fd - VM_FD_QMP];
	for (fd = VM_FD_FROM_ENGINE; fd < VM_FD_COUNT; fd++) {
		bool there = m->present & 1u << (fd - VM_FD_FROM_ENGINE);

		placed[fd] = there ? fds[next++] : -1;
	}
	placed[VM_FD_STDOUT] = placed[VM_FD_STDERR] = placed[VM_FD_OUTPUT];
	return launch(&p, children, e);
}

static void handle_request(const struct spawner_setup *setup, int fd,
			   const struct spawner_message *m, int *fds,
			   size_t n_fds, struct children *children)
{
	struct spawner_message reply = { .type = SPAWNER_STARTED };
	_cleanup_close_ int pidfd = -1;
	struct error e = ERROR_NULL(e);

	if (m->type == SPAWNER_REQUEST_ENGINE) {
		reply.child = SPAWNER_CHILD_ENGINE;
		reply.status = start_engine(setup, m, fds, n_fds, children, &e);
	} else if (m->type == SPAWNER_REQUEST_VM) {
		reply.child = SPAWNER_CHILD_VM;
		reply.status = start_vm(setup, m, fds, n_fds, children, &e);
	} else {
		reply.status = error_set(&e, -EBADMSG, "request %u", m->type);
	}
	channel_close_fds(fds, n_fds);
	str_copy(reply.text, sizeof(reply.text), e.text);
	if (reply.status == 0) {
		reply.pid = children->pid[reply.child];
		reply.started = process_start_time(reply.pid);
		pidfd = (int)syscall(SYS_pidfd_open, reply.pid, 0);
	}
	if (reply.status == 0 && pidfd < 0) {
		reply.status = -errno;
		str_copy(reply.text, sizeof(reply.text), "pidfd_open failed");
		kill(reply.pid, SIGKILL);
	}
	channel_send(fd, &reply, sizeof(reply), &pidfd, pidfd >= 0);
}

static void reap(int fd, struct children *children)
{
	int wait_status, i;
	pid_t pid;

	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		for (i = 0; i < 2; i++) {
			struct spawner_message m = {
				.type = SPAWNER_EXITED,
				.child = (uint32_t)i,
				.pid = pid,
				.wait_status = wait_status,
			};

			if (children->pid[i] != pid)
				continue;
			children->pid[i] = 0;
			channel_send(fd, &m, sizeof(m), NULL, 0);
		}
	}
}

static void kill_all(const struct children *children)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (children->pid[i]) {
			kill(children->pid[i], SIGKILL);
			waitpid(children->pid[i], NULL, 0);
		}
	}
}

static int open_signalfd(void)
{
	sigset_t set;

	/* Everything is blocked, so that a signal to the process group of the
	 * terminal or of a service stops the broker only, which then stops us
	 * in order. */
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void drop_capabilities(void)
{
	static const capng_type_t sets[] = { CAPNG_EFFECTIVE, CAPNG_PERMITTED };
	size_t i;

	/* The bounding set becomes empty: no program that a child executes can
	 * gain any of these back. */
	capng_clear(CAPNG_SELECT_BOTH);
	for (i = 0; i < ARRAY_SIZE(sets); i++)
		capng_updatev(CAPNG_ADD, sets[i], CAP_SETUID, CAP_SETGID,
			      CAP_KILL, -1);
	if (capng_apply(CAPNG_SELECT_BOTH) < 0)
		log_warning("the spawner keeps more capabilities than it "
			    "needs: %s",
			    strerror(errno));
}

int spawner_main(const struct spawner_setup *setup, int fd)
{
	struct children children = { 0 };
	struct pollfd p[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = open_signalfd(), .events = POLLIN },
	};

	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_NAME, "torvm-spawner");
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || p[1].fd < 0)
		return EXIT_CODE_FAILED;
	closep(&null_fd);
	drop_capabilities();
	for (;;) {
		int fds[BROKER_MESSAGE_FDS_MAX], r;
		struct signalfd_siginfo info;
		struct spawner_message m;
		size_t n_fds;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		while (read(p[1].fd, &info, sizeof(info)) > 0)
			;
		reap(fd, &children);
		r = channel_recv(fd, &m, sizeof(m), fds, &n_fds);
		if (r == 1)
			handle_request(setup, fd, &m, fds, n_fds, &children);
		else if (r != -EAGAIN && r != -EBADMSG)
			break;
	}
	kill_all(&children);
	close(p[1].fd);
	return 0;
}
