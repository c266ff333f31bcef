/*
 * Preloaded in a test's VM (/etc/ld.so.preload): the first transport is killed
 * some seconds after its start, as by the kernel when memory runs out.
 */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "init/contract.h"

#define DEATH_S 12

static void __attribute__((constructor)) die_later(void)
{
	/* Its own folder; what is there once is the second one's pardon. */
	if (getuid() != GUEST_TRANSPORT_UID ||
	    open("/run/transport/died", O_CREAT | O_EXCL | O_CLOEXEC, 0600) < 0)
		return;
	if (fork() == 0) {
		sleep(DEATH_S);
		kill(getppid(), SIGKILL);
		_exit(0);
	}
}
