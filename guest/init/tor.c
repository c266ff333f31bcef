/*
 * Theory of operation
 *
 * The child becomes Tor in steps that only take away: own session, own output,
 * no other descriptor, limits, no groups, no capability in any set and none to
 * be gained, no-new-privs. Whatever fails there ends the child; PID 1 reports
 * it as Tor's exit.
 *
 * The torrc is root's: Tor can read it again, not rewrite it.
 */
#include "init/tor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "init/contract.h"
#include "init/system.h"

#define TOR_PROGRAM "/usr/bin/tor"

#define EXIT_SETUP 126
#define EXIT_EXEC 127

#define LOCKED_SECUREBITS                                          \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |                    \
	 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | \
	 SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

static int make_folder(const char *path, uid_t owner, mode_t mode)
{
	if (mkdir(path, mode) < 0 || chown(path, owner, owner) < 0 ||
	    chmod(path, mode) < 0)
		return -errno;
	return 0;
}

int tor_prepare(const char *torrc, size_t len, bool ram_data, struct error *e)
{
	int r = make_folder("/run/torvm", 0, 0755);

	if (r == 0)
		r = make_folder("/run/tor", GUEST_TOR_UID, 0700);
	if (r == 0 && ram_data)
		r = make_folder(GUEST_TORRC_DATA_RAM, GUEST_TOR_UID, 0700);
	if (r < 0)
		return error_set(e, r, "cannot make Tor's folders: %s",
				 strerror(-r));
	return system_write_file(TOR_TORRC, torrc, len, e);
}

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
	/* Tor's threads, and those of a pluggable transport. */
	limit(RLIMIT_NPROC, 256);
}

static void drop_privileges(void)
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
	    setgroups(0, NULL) < 0 ||
	    setresgid(GUEST_TOR_UID, GUEST_TOR_UID, GUEST_TOR_UID) < 0 ||
	    setresuid(GUEST_TOR_UID, GUEST_TOR_UID, GUEST_TOR_UID) < 0 ||
	    syscall(SYS_capset, &header, none) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(EXIT_SETUP);
}

static _Noreturn void become_tor(int output)
{
	static const char *const argv[] = { "tor", "-f", TOR_TORRC, NULL };
	static char *const environment[] = { NULL };
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
	drop_privileges();
	execve(TOR_PROGRAM, (char *const *)argv, environment);
	dprintf(2, "init: cannot execute %s: %s\n", TOR_PROGRAM,
		strerror(errno));
	_exit(EXIT_EXEC);
}

pid_t tor_start(int *ret_output, struct error *e)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(e, -errno, "cannot make a pipe for Tor: %s",
				 strerror(errno));
	pid = fork();
	if (pid == 0)
		become_tor(ends[1]);
	close(ends[1]);
	if (pid < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		error_set(e, -errno, "cannot start Tor: %s", strerror(errno));
		close(ends[0]);
		return e ? e->code : -EAGAIN;
	}
	*ret_output = ends[0];
	return pid;
}

int tor_connect(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX,
				       .sun_path = GUEST_TORRC_CONTROL_SOCKET };
	_cleanup_close_ int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return steal_fd(&fd);
}

int tor_ask_to_stop(int control)
{
	static const char request[] = "AUTHENTICATE\r\nSIGNAL SHUTDOWN\r\n";
	const ssize_t len = sizeof(request) - 1;

	if (control < 0)
		return -ENOTCONN;
	return send(control, request, (size_t)len, MSG_NOSIGNAL) == len
		       ? 0
		       : -EPIPE;
}
