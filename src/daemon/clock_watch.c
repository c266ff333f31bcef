/*
 * Theory of operation
 * ===================
 * CLOCK_REALTIME is set by people and by NTP; CLOCK_BOOTTIME goes on while the
 * machine sleeps, CLOCK_MONOTONIC does not. So a changed difference of the
 * first two is a clock that was set, one of the last two is a sleep.
 *
 * A timer that the kernel cancels when CLOCK_REALTIME is set, which it also
 * does at resume (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET), wakes us at
 * once; it costs nothing meanwhile. The agent's heartbeat looks too, since the
 * differences are what counts.
 *
 * Either way the guest gets the time, without which Tor can build no circuits:
 * its clock stood still with the machine. A Tor whose clock jumps by more than
 * 100 s drops its circuits by itself. After a long sleep its connections are
 * ended, too: whoever is at the other end has forgotten them, and Tor would
 * wait for answers for minutes. Nothing is restarted; a VM that did not survive
 * the sleep is the heartbeat's affair.
 */
#include "daemon/clock_watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/engine.h"

/* Less is drift, which NTP corrects without a jump. */
#define CLOCK_JUMP_MS 2000
/* NATs forget a silent TCP connection after some minutes, relays close one. */
#define SLEEP_LONG_MS 60000
/* Until when the timer is set, in s since 1970: for ever. */
#define FAR_AWAY_S (1LL << 32)

static int64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void clock_watch_note(struct clock_watch *w)
{
	int64_t boot = clock_ms(CLOCK_BOOTTIME);

	w->realtime_offset_ms = clock_ms(CLOCK_REALTIME) - boot;
	w->monotonic_offset_ms = clock_ms(CLOCK_MONOTONIC) - boot;
}

static void on_renewed(struct engine *e, const struct broker_message *reply,
		       int *fds, size_t n_fds, void *userdata)
{
	if (reply->status < 0)
		log_warning("%s; Tor notices by itself, later.", reply->text);
}

void clock_watch_look(struct clock_watch *w)
{
	const struct broker_message m = {
		.type = BROKER_REQUEST_RENEW_UPLINK,
	};
	int64_t boot = clock_ms(CLOCK_BOOTTIME);
	int64_t set = clock_ms(CLOCK_REALTIME) - boot - w->realtime_offset_ms;
	int64_t slept =
		w->monotonic_offset_ms - (clock_ms(CLOCK_MONOTONIC) - boot);

	if (llabs(set) <= CLOCK_JUMP_MS && slept <= CLOCK_JUMP_MS)
		return;
	clock_watch_note(w);
	if (llabs(set) > CLOCK_JUMP_MS)
		log_notice("This computer's clock was set %s by %" PRId64
			   " s; the VM is told.",
			   set > 0 ? "forward" : "back",
			   ((int64_t)llabs(set) + 500) / 1000);
	if (slept > CLOCK_JUMP_MS)
		log_notice("This computer slept for %" PRId64
			   " s; the VM gets the time%s.",
			   (slept + 500) / 1000,
			   slept > SLEEP_LONG_MS ? " and connects anew" : "");
	agent_link_send_time(&w->engine->agent);
	if (slept > SLEEP_LONG_MS)
		broker_link_request(&w->engine->broker, &m, NULL, 0, on_renewed,
				    NULL);
}

static int arm(struct clock_watch *w)
{
	const struct itimerspec never = { .it_value.tv_sec = FAR_AWAY_S };

	return timerfd_settime(w->timer_fd,
			       TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
			       &never, NULL);
}

static void on_timer(uv_poll_t *poll, int status, int events)
{
	struct clock_watch *w = poll->data;
	uint64_t expired;

	/* -ECANCELED is what we wait for; it also disarms. */
	if (read(w->timer_fd, &expired, sizeof(expired)) < 0 && errno == EAGAIN)
		return;
	if (arm(w) < 0)
		uv_poll_stop(poll);
	clock_watch_look(w);
}

int clock_watch_init(struct clock_watch *w, struct engine *e)
{
	int r;

	*w = (struct clock_watch){ .engine = e };
	clock_watch_note(w);
	w->timer_fd =
		timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w->timer_fd < 0 || arm(w) < 0) {
		closep(&w->timer_fd);
		w->timer_fd = -1;
		return 0;
	}
	r = uv_poll_init(&e->loop, &w->poll, w->timer_fd);
	if (r < 0) {
		closep(&w->timer_fd);
		w->timer_fd = -1;
		return r;
	}
	w->poll.data = w;
	return uv_poll_start(&w->poll, UV_READABLE, on_timer);
}

/* After uv_close() the fd may go at once: libuv has forgotten it by then. */
void clock_watch_deinit(struct clock_watch *w)
{
	if (w->timer_fd < 0)
		return;
	uv_close((uv_handle_t *)&w->poll, NULL);
	closep(&w->timer_fd);
	w->timer_fd = -1;
}
