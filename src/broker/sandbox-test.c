/* What the sandbox lets through, tried in children. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/sandbox.h"

/* Return: the wait status of a sandboxed child that runs @fn. */
static int run(int (*fn)(void))
{
	struct rlimit none = { 0 };
	int wait_status;
	pid_t pid = fork();

	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &none);
		if (sandbox_enter(NULL) < 0)
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

static int try_kill(void)
{
	return kill(getppid(), 0);
}

static int try_inet(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0) == -1 && errno == ENOSYS;
}

static int try_unix(void)
{
	return socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 &&
	       socket(AF_NETLINK, SOCK_RAW, 0) >= 0;
}

static int try_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p != MAP_FAILED &&
	       mprotect(p, 4096, PROT_READ | PROT_EXEC) == -1 &&
	       errno == EACCES &&
	       mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static int try_unknown(void)
{
	return syscall(SYS_getcpu, NULL, NULL, NULL) == -1 && errno == ENOSYS;
}

static int try_abort(void)
{
	abort();
}

static int nothing(void)
{
	return 7;
}

static void the_filter_kills_refuses_and_allows(void **state)
{
	static int (*const deadly[])(void) = { try_exec, try_fork, try_kill };
	static int (*const fine[])(void) = { try_inet, try_unix, try_code,
					     try_unknown };
	size_t i;

	if (geteuid() != 0)
		skip(); /* capabilities can only be given up by who has them */
	assert_int_equal(run(nothing), 7 << 8);
	for (i = 0; i < ARRAY_SIZE(deadly); i++)
		assert_int_equal(run(deadly[i]) & 0x7f, SIGSYS);
	for (i = 0; i < ARRAY_SIZE(fine); i++)
		assert_int_equal(run(fine[i]), 1 << 8);
	assert_int_equal(run(try_abort) & 0x7f, SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_filter_kills_refuses_and_allows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
