/*
 * What the tests' build of the engine (torvmd-test) has besides: linked with
 * --wrap, so that torvmd itself has no hook of any kind. Two files of the state
 * directory steer it:
 *
 *   test-clock   "REALTIME BOOTTIME", seconds by which these clocks are ahead
 * of the machine's, which no test sets. A clock that was set is the first one
 * changed, a sleep is both test-hold    the name of a state. When the lifecycle
 * is about to enter it, the file is removed and the engine stops (SIGSTOP),
 * before any effect of the transition; SIGCONT lets it go on
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "daemon/fds.h"
#include "lifecycle/lifecycle.h"

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
time_t __wrap_time(time_t *ret);
struct lifecycle_step __real_lifecycle_step(
	enum lifecycle_state state, enum lifecycle_event event,
	const struct lifecycle_guards *guards);
struct lifecycle_step __wrap_lifecycle_step(
	enum lifecycle_state state, enum lifecycle_event event,
	const struct lifecycle_guards *guards);

/* What the file says; "" if there is none. */
static void read_order(const char *name, char *ret, size_t size)
{
	_cleanup_close_ int fd =
		openat(ENGINE_FD_STATE_DIR, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret, size - 1);

	ret[n < 0 ? 0 : n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	char order[64], *boottime;
	long long realtime;
	int r = __real_clock_gettime(id, ts);

	if (id != CLOCK_REALTIME && id != CLOCK_BOOTTIME)
		return r;
	read_order("test-clock", order, sizeof(order));
	realtime = strtoll(order, &boottime, 10);
	ts->tv_sec +=
		id == CLOCK_REALTIME ? realtime : strtoll(boottime, NULL, 10);
	return r;
}

time_t __wrap_time(time_t *ret)
{
	struct timespec ts;

	__wrap_clock_gettime(CLOCK_REALTIME, &ts);
	if (ret)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}

struct lifecycle_step __wrap_lifecycle_step(
	enum lifecycle_state state, enum lifecycle_event event,
	const struct lifecycle_guards *guards)
{
	struct lifecycle_step step =
		__real_lifecycle_step(state, event, guards);
	char order[64];

	if (step.kind != LIFECYCLE_KIND_GO || step.next == state)
		return step;
	read_order("test-hold", order, sizeof(order));
	if (strcmp(order, lifecycle_state_name(step.next)) == 0) {
		unlinkat(ENGINE_FD_STATE_DIR, "test-hold", 0);
		raise(SIGSTOP);
	}
	return step;
}
/* NOLINTEND(bugprone-reserved-identifier) */
