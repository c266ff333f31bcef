/*
 * The engine's own confinement.
 *
 * Theory of operation: the engine has a user of its own and no capabilities,
 * yet it reads what the guest and local clients send. Two more fences, put up
 * by itself once everything with a fixed name is open:
 *
 * 1. Landlock: files can be read below the system's own folders and the
 *    image's, written below the state's, the runtime's and the log file's, and
 *    nowhere be executed; no TCP; no signals and no abstract sockets to others.
 *    Each kernel gets the rights it knows (landlock(7)); one without Landlock
 *    gets a line in the log, for the user and seccomp are still there.
 * 2. seccomp: what an engine never does ends it, and the broker replaces it.
 *    libuv and jansson use a great deal of the kernel and other calls in each
 *    version, so this is a list of what is forbidden (the broker's is one of
 *    what is allowed): other programs and processes, other sockets than Unix
 *    and sock_diag, new code, and the kernel's large and dangerous parts.
 *    Without it the engine does not run.
 */
#include "daemon/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscall_filter.h"

/* Headers may be older than the kernel. */
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ull << 13) /* ABI 2 */
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ull << 14) /* ABI 3 */
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ull << 15) /* ABI 5 */
#endif
#define NET_TCP 3ull                   /* bind and connect, ABI 4 */
#define SCOPE_ABSTRACT_AND_SIGNAL 3ull /* ABI 6 */

/* struct landlock_ruleset_attr of ABI 6; earlier ones are its beginning. */
struct ruleset {
	uint64_t fs, net, scoped;
};

static const size_t ruleset_sizes[] = { 0, 8, 8, 8, 16, 16, 24 };

static const uint64_t reading =
	LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
static const uint64_t writing =
	LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
	LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE;

/* Where the C library, libuv and we read: locale, time zone, users, /proc, the
 * resolvers (/etc/resolv.conf often leads below /run). */
static const struct confine_dir system_dirs[] = {
	{ .fd = -1, .path = "/etc" }, { .fd = -1, .path = "/usr" },
	{ .fd = -1, .path = "/lib" }, { .fd = -1, .path = "/lib64" },
	{ .fd = -1, .path = "/run" }, { .fd = -1, .path = "/proc" },
	{ .fd = -1, .path = "/sys" }, { .fd = -1, .path = "/dev" },
};

static uint64_t known_rights(long abi)
{
	uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

	if (abi >= 2)
		rights |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (abi >= 5)
		rights |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	return rights;
}

static int open_dir(const struct confine_dir *dir)
{
	char path[4096];
	char *slash;

	if (dir->fd >= 0)
		return fcntl(dir->fd, F_DUPFD_CLOEXEC, 10);
	if (!*dir->path || str_copy(path, sizeof(path), dir->path) < 0)
		return -1;
	slash = strrchr(path, '/');
	if (dir->file && slash)
		slash[slash == path] = '\0';
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int allow(int ruleset, const struct confine_dir *dirs, size_t n,
		 uint64_t known)
{
	size_t i;

	for (i = 0; i < n; i++) {
		_cleanup_close_ int fd = open_dir(dirs + i);
		struct landlock_path_beneath_attr rule = {
			.allowed_access = (dirs[i].writable ? reading | writing
							    : reading) &
					  known,
			.parent_fd = fd,
		};
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		if (syscall(SYS_landlock_add_rule, ruleset,
			    LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
			return -errno;
	}
	return 0;
}

static int bound_files(const struct confine_dir *dirs, size_t n,
		       struct error *e)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0,
			   LANDLOCK_CREATE_RULESET_VERSION);
	_cleanup_close_ int fd = -1;
	struct ruleset all;
	int r = 0;

	if (abi < 1) {
		log_info("This kernel has no Landlock: the engine is kept from "
			 "other files by its user alone.");
		return 0;
	}
	if (abi >= (long)ARRAY_SIZE(ruleset_sizes))
		abi = ARRAY_SIZE(ruleset_sizes) - 1;
	all = (struct ruleset){
		.fs = known_rights(abi),
		.net = NET_TCP,
		.scoped = SCOPE_ABSTRACT_AND_SIGNAL,
	};
	fd = (int)syscall(SYS_landlock_create_ruleset, &all, ruleset_sizes[abi],
			  0);
	if (fd < 0)
		r = -errno;
	if (r == 0)
		r = allow(fd, system_dirs, ARRAY_SIZE(system_dirs), all.fs);
	if (r == 0)
		r = allow(fd, dirs, n, all.fs);
	if (r == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		r = -errno;
	if (r < 0)
		return error_set(e, r, "Landlock cannot be set up: %s",
				 strerror(-r));
	return 0;
}

static int forbid_sockets(scmp_filter_ctx filter)
{
	const uint32_t refused = SCMP_ACT_ERRNO(EAFNOSUPPORT);
	int family, r = 0;

	/* A rule compares an argument once, hence one by one. */
	for (family = 0; r == 0 && family < AF_NETLINK; family++)
		if (family != AF_UNIX)
			r = seccomp_rule_add(
				filter, refused, SCMP_SYS(socket), 1,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family));
	if (r == 0)
		r = seccomp_rule_add(filter, refused, SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_GT, AF_NETLINK));
	if (r == 0)
		r = seccomp_rule_add(filter, refused, SCMP_SYS(socket), 2,
				     SCMP_A0(SCMP_CMP_EQ, AF_NETLINK),
				     SCMP_A2(SCMP_CMP_NE, NETLINK_SOCK_DIAG));
	return r;
}

static int forbid_code(scmp_filter_ctx filter)
{
	static const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mmap2),
				     SCMP_SYS(mprotect),
				     SCMP_SYS(pkey_mprotect) };
	int r = 0;
	size_t i;

	for (i = 0; r == 0 && i < ARRAY_SIZE(calls); i++)
		if (calls[i] >= 0)
			r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES),
					     calls[i], 1,
					     SCMP_A2(SCMP_CMP_MASKED_EQ,
						     PROT_EXEC, PROT_EXEC));
	/* Threads, no processes. The flags of clone3() are out of sight: the C
	 * library falls back to clone(). */
	if (r == 0)
		r = seccomp_rule_add(
			filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(clone), 1,
			SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS),
				     SCMP_SYS(clone3), 0);
	/* libuv tries it and does without. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS),
				     SCMP_SYS(io_uring_setup), 0);
	return r;
}

static int bound_calls(struct error *e)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = filter ? 0 : -ENOMEM;

	if (r == 0)
		r = syscall_filter_add(filter, SCMP_ACT_KILL_PROCESS,
				       DEADLY_CALLS);
	if (r == 0)
		r = forbid_sockets(filter);
	if (r == 0)
		r = forbid_code(filter);
	return syscall_filter_load(filter, r, e);
}

int confine_enter(const struct confine_dir *dirs, size_t n, struct error *e)
{
	int r;

	/* The spawner has done so already. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_set(e, -errno, "no_new_privs: %s",
				 strerror(errno));
	r = bound_files(dirs, n, e);
#ifdef __SANITIZE_ADDRESS__
	/* The leak check at the end is a process of its own. */
	return r;
#endif
	return r < 0 ? r : bound_calls(e);
}
