#include "broker/supervise.h"

#include <sys/wait.h>

#include "daemon/fds.h"

enum supervise_action supervise_engine_end(const struct broker *b,
					   int wait_status, int *ret_exit_code)
{
	bool documented = WIFEXITED(wait_status) &&
			  WEXITSTATUS(wait_status) <= EXIT_CODE_TIMEOUT;

	*ret_exit_code =
		documented ? WEXITSTATUS(wait_status) : EXIT_CODE_FAILED;
	if (b->unblocked) {
		/* The network is open, however the engine ended after that. */
		if (b->blemished)
			*ret_exit_code = EXIT_CODE_RESTORE;
		else if (!documented)
			*ret_exit_code = EXIT_CODE_OK;
		return SUPERVISE_EXIT;
	}
	/* Before BLOCK an engine ends with OK only if a client asked it to
	 * stop. */
	if ((b->stopping || (!b->blocked && *ret_exit_code == EXIT_CODE_OK)) &&
	    (b->blocked || b->adopted))
		return SUPERVISE_RESTORE;
	if (b->blocked)
		return SUPERVISE_RESTART;
	/* Nothing was changed by this controller. What an earlier one left, if
	 * anything, stays in place: only a stop opens the network. */
	if (b->stopping)
		*ret_exit_code = EXIT_CODE_OK;
	return SUPERVISE_EXIT;
}

void supervise_watch_start(struct supervise_watch *w, int64_t now_ms)
{
	*w = (struct supervise_watch){ .tick_ms = now_ms + BROKER_PING_MS };
}

bool supervise_watch_hangs(struct supervise_watch *w, int64_t now_ms)
{
	if (now_ms < w->tick_ms)
		return false;
	w->tick_ms = now_ms + BROKER_PING_MS;
	w->silent = w->heard ? 0 : w->silent + 1;
	w->heard = false;
	return w->silent >= SUPERVISE_SILENT_TICKS;
}

int64_t supervise_delay_ms(struct supervise_backoff *backoff, int64_t now_ms)
{
	int64_t *slot = &backoff->starts_ms[backoff->n % SUPERVISE_BURST];
	int64_t delay_ms = SUPERVISE_QUICK_DELAY_MS;

	if (backoff->n >= SUPERVISE_BURST &&
	    now_ms - *slot < SUPERVISE_BURST_MS)
		delay_ms = SUPERVISE_SLOW_DELAY_MS;
	*slot = now_ms + delay_ms;
	backoff->n++;
	return delay_ms;
}
