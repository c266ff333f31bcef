/*
 * Theory of operation
 *
 * The child becomes another program in steps that only take away: own session,
 * own output, no other descriptor, limits, no groups, no capability in any set
 * and none to be gained, no-new-privs, a system call filter. Whatever fails
 * there ends the child; PID 1 reports it as the program's exit.
 */
#include "init/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "init/seccomp.h"

#define EXIT_SETUP 126
#define EXIT_EXEC 127

#define LOCKED_SECUREBITS                                          \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |                    \
	 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | \
	 SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

static void limit(int resource, rlim_t value)
{
	struct rlimit l = { .rlim_cur = value, .rlim_max = value };

	if (setrlimit(resource, &l) < 0)
		_exit(EXIT_SETUP);
}

static void set_limits(void)
{
	limit(RLIMIT_CORE, 0);
	/* A connection of the host is one descriptor, a thousand are usual. */
	limit(RLIMIT_NOFILE, 16384);
	/* Threads of Tor, of a pluggable transport. */
	limit(RLIMIT_NPROC, 256);
}

static void drop_privileges(uid_t uid)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct none[2] = { 0 };

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			_exit(EXIT_SETUP);
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECUREBITS, LOCKED_SECUREBITS, 0, 0, 0) < 0 ||
	    setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
	    setresuid(uid, uid, uid) < 0 ||
	    syscall(SYS_capset, &header, none) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(EXIT_SETUP);
}

static _Noreturn void become(const struct child *child, int output)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t none;

	/* PID 1 has handlers for nothing; only its mask is inherited. */
	sigemptyset(&none);
	if (null < 0 || setsid() < 0 || dup2(null, 0) < 0 ||
	    dup2(output, 1) < 0 || dup2(output, 2) < 0 ||
	    syscall(SYS_close_range, 3, ~0U, 0) < 0 ||
	    sigprocmask(SIG_SETMASK, &none, NULL) < 0 || chdir("/") < 0)
		_exit(EXIT_SETUP);
	umask(077);
	set_limits();
	drop_privileges(child->uid);
	if (child->filtered && seccomp_confine() < 0)
		_exit(EXIT_SETUP);
	if (child->run)
		_exit(child->run(child->userdata, 1));
	execve(child->argv[0], (char *const *)child->argv,
	       (char *const *)child->environment);
	dprintf(2, "init: cannot execute %s: %s\n", child->argv[0],
		strerror(errno));
	_exit(EXIT_EXEC);
}

pid_t child_start(const struct child *child, int *ret_output, struct error *e)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(e, -errno, "cannot make a pipe for %s: %s",
				 child->what, strerror(errno));
	pid = fork();
	if (pid == 0)
		become(child, ends[1]);
	close(ends[1]);
	if (pid < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		error_set(e, -errno, "cannot start %s: %s", child->what,
			  strerror(errno));
		close(ends[0]);
		return e ? e->code : -EAGAIN;
	}
	*ret_output = ends[0];
	return pid;
}
