/* What the engine's confinement lets through, tried in children. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/confine.h"

static char dir[] = "/tmp/torvm-confine-XXXXXX";
static int inside_fd, outside_fd; /* two folders in it */

/* Return: the wait status of a confined child that runs @fn. */
static int run(int (*fn)(void))
{
	const struct confine_dir dirs[] = {
		{ .fd = inside_fd, .writable = true },
		{ .fd = -1, .path = "" },
		{ .fd = -1, .path = "/nowhere/at/all", .file = true },
	};
	struct rlimit none = { 0 };
	int wait_status;
	pid_t pid = fork();

	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &none);
		if (confine_enter(dirs, ARRAY_SIZE(dirs), NULL) < 0)
			_exit(99);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &wait_status, 0), pid);
	return wait_status;
}

static int try_exec(void)
{
	char *const argv[] = { (char *)"/bin/true", NULL };

	return execv(argv[0], argv);
}

static int try_fork(void)
{
	return fork() == 0;
}

static int try_ptrace(void)
{
	return (int)syscall(SYS_ptrace, 16, getppid(), 0, 0);
}

static int try_sockets(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0) == -1 && errno == EAFNOSUPPORT &&
	       socket(AF_INET6, SOCK_STREAM, 0) == -1 &&
	       socket(AF_PACKET, SOCK_RAW, 0) == -1 &&
	       socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) == -1 &&
	       socket(AF_UNIX, SOCK_STREAM, 0) >= 0 &&
	       socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) >= 0;
}

static int try_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
	       errno == EACCES;
}

static void *thread(void *arg)
{
	*(int *)arg = 1;
	return NULL;
}

static int try_thread(void)
{
	pthread_t id;
	int ran = 0;

	return pthread_create(&id, NULL, thread, &ran) == 0 &&
	       pthread_join(id, NULL) == 0 && ran;
}

static int try_files(void)
{
	int fd = openat(inside_fd, "a", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	return fd >= 0 && write(fd, "x", 1) == 1 && ftruncate(fd, 0) == 0 &&
	       renameat(inside_fd, "a", inside_fd, "b") == 0 &&
	       openat(inside_fd, "b", O_RDONLY | O_CLOEXEC) >= 0 &&
	       unlinkat(inside_fd, "b", 0) == 0 &&
	       open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0;
}

static int try_other_files(void)
{
	return openat(outside_fd, "secret", O_RDONLY | O_CLOEXEC) == -1 &&
	       errno == EACCES &&
	       openat(outside_fd, "new", O_RDWR | O_CREAT | O_CLOEXEC, 0600) ==
		       -1 &&
	       unlinkat(outside_fd, "secret", 0) == -1 &&
	       open("/etc/passwd", O_WRONLY | O_CLOEXEC) == -1;
}

static int setup(void **state)
{
	assert_non_null(mkdtemp(dir));
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(mkdirat(fd, "inside", 0700), 0);
	assert_int_equal(mkdirat(fd, "outside", 0700), 0);
	inside_fd = openat(fd, "inside", O_PATH | O_DIRECTORY | O_CLOEXEC);
	outside_fd = openat(fd, "outside", O_PATH | O_DIRECTORY | O_CLOEXEC);
	close(fd);
	fd = openat(outside_fd, "secret", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return close(fd);
}

static int teardown(void **state)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	unlinkat(outside_fd, "secret", 0);
	unlinkat(fd, "inside", AT_REMOVEDIR);
	unlinkat(fd, "outside", AT_REMOVEDIR);
	close(fd);
	return rmdir(dir);
}

static void other_programs_end_it(void **state)
{
	static int (*const deadly[])(void) = { try_exec, try_fork, try_ptrace };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(deadly); i++)
		assert_int_equal(run(deadly[i]) & 0x7f, SIGSYS);
}

static void its_work_goes_on(void **state)
{
	static int (*const fine[])(void) = { try_sockets, try_code, try_thread,
					     try_files };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fine); i++)
		assert_int_equal(run(fine[i]), 1 << 8);
}

static void other_files_are_out_of_reach(void **state)
{
	if (syscall(SYS_landlock_create_ruleset, NULL, 0,
		    LANDLOCK_CREATE_RULESET_VERSION) < 1)
		skip(); /* this kernel has no Landlock */
	assert_int_equal(run(try_other_files), 1 << 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_programs_end_it),
		cmocka_unit_test(its_work_goes_on),
		cmocka_unit_test(other_files_are_out_of_reach),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
