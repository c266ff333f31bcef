/*
 * The broker's sandbox.
 *
 * Theory of operation: two named stages, in this order because the second one
 * forbids the first one's calls.
 *
 * 1. Capabilities. CAP_NET_ADMIN for netlink, TAP and sysctls, CAP_KILL for
 *    QEMU, which has another uid. No CAP_DAC_OVERRIDE and no CAP_CHOWN: the
 *    files that are touched from here on lie in directories of root. No
 *    CAP_SYS_PTRACE: what needs a look at another user's process is looked at
 *    before. The bounding set and no_new_privs make it final.
 * 2. seccomp, an allow-list. No exec, no fork, no ptrace, no mount, no change
 *    of users, no kernel modules, no bpf, no io_uring, no socket but Unix and
 *    netlink, no new executable memory. What no library of ours has a reason
 *    to try kills the process (`deadly`): the kernel keeps the block, the
 *    spawner's children die, and the service manager or `torvm recover` takes
 *    it from there; the audit log names the call. Any other call outside the
 *    list does not exist (ENOSYS): a newer C library or libsystemd that asks
 *    for one falls back, as on an older kernel, instead of ending the
 *    protection in the middle of its work.
 */
#include "broker/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/syscall_filter.h"

/* Allowed whatever their arguments. A name that this architecture does not
 * have is passed over. */
static const char *const allowed[] = {
	/* memory, time, the C library */
	"brk munmap mremap madvise futex rseq set_robust_list getrandom "
	"clock_gettime clock_gettime64 clock_nanosleep nanosleep gettimeofday "
	"time uname sysinfo restart_syscall exit exit_group",
	/* who we are */
	"getpid gettid getuid geteuid getgid getegid",
	/* files: journal, sysctls, the TAP's device node */
	"openat read pread64 write writev close lseek _llseek fstat fstat64 "
	"stat stat64 lstat lstat64 newfstatat fstatat64 statx faccessat "
	"faccessat2 fsync renameat unlinkat rmdir umask fcntl fcntl64 dup "
	"ioctl",
	/* sockets: netlink, D-Bus, the channels (socket() is below) */
	"socketpair bind listen connect getsockname getpeername getsockopt "
	"setsockopt sendto sendmsg recvfrom recvmsg",
	/* waiting */
	"poll ppoll ppoll_time64",
	/* processes: QEMU by the pidfd that the spawner sent, the spawner's
	 * end, our own signals */
	"pidfd_send_signal wait4 rt_sigaction rt_sigprocmask rt_sigreturn "
	"sigreturn sigaltstack",
};

/* The marks of somebody else's code. */
static const char deadly[] =
	DEADLY_CALLS " clone clone3 io_uring_setup chmod fchmod fchmodat";

static int drop_capabilities(struct error *e)
{
	static const capng_type_t sets[] = { CAPNG_EFFECTIVE, CAPNG_PERMITTED };
	size_t i;

	capng_clear(CAPNG_SELECT_BOTH);
	for (i = 0; i < ARRAY_SIZE(sets); i++)
		capng_updatev(CAPNG_ADD, sets[i], CAP_NET_ADMIN, CAP_KILL, -1);
	if (capng_apply(CAPNG_SELECT_BOTH) < 0)
		return error_set(e, -EPERM,
				 "the broker's capabilities cannot be bounded; "
				 "nothing was changed");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_set(e, -errno, "no_new_privs: %s",
				 strerror(errno));
	return 0;
}

/* Calls that are allowed with some arguments only. */
static int allow_some(scmp_filter_ctx filter)
{
	static const int families[] = { AF_UNIX, AF_NETLINK };
	/* Code is loaded before, not after. An error instead of an end, for
	 * the sake of a library's optional dlopen(). */
	static const int mapping[] = { SCMP_SYS(mmap), SCMP_SYS(mmap2),
				       SCMP_SYS(mprotect) };
	int r = 0;
	size_t i;

	/* No packet leaves from here but through the kernel's own parts. */
	for (i = 0; r == 0 && i < ARRAY_SIZE(families); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket),
				     1, SCMP_A0(SCMP_CMP_EQ, families[i]));
	for (i = 0; r == 0 && i < ARRAY_SIZE(mapping); i++) {
		if (mapping[i] < 0)
			continue;
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, mapping[i], 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
		if (r == 0)
			r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES),
					     mapping[i], 1,
					     SCMP_A2(SCMP_CMP_MASKED_EQ,
						     PROT_EXEC, PROT_EXEC));
	}
	/* abort() */
	if (r == 0)
		r = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
			SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	/* sd-bus puts the program's name into its address. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				     SCMP_A0(SCMP_CMP_EQ, PR_GET_NAME));
	return r;
}

static int filter_calls(struct error *e)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	int r = filter ? 0 : -ENOMEM;
	size_t i;

	for (i = 0; r == 0 && i < ARRAY_SIZE(allowed); i++)
		r = syscall_filter_add(filter, SCMP_ACT_ALLOW, allowed[i]);
	if (r == 0)
		r = syscall_filter_add(filter, SCMP_ACT_KILL_PROCESS, deadly);
	if (r == 0)
		r = allow_some(filter);
	return syscall_filter_load(filter, r, e);
}

int sandbox_enter(struct error *e)
{
	int r = drop_capabilities(e);

	return r < 0 ? r : filter_calls(e);
}
