/*
 * The event loop.
 *
 * Theory of operation: one poll() over six fds and six deadlines. Everything
 * it hears leads to one call of broker.h or supervise.h, where the decisions
 * are. A packet of the engine is answered before the next one is read.
 *
 * Deadlines: the next start of an engine; the end of a stop (the broker then
 * finishes it itself); the end of an engine that closed its channel; the next
 * sign of life of the engine; the next attempt at a repair; the next attempt to
 * reach the resolver or its bus.
 *
 * Watch storms: while another program fights over the tables, each repair
 * takes a breath after the tenth within a second, so that the fight does not
 * keep the engine from being served.
 */
#include "broker/loop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/channel.h"
#include "broker/restore.h"
#include "broker/supervise.h"

#define STOP_TIMEOUT_MS 60000
#define ENGINE_END_TIMEOUT_MS 5000 /* channel closed -> reaped */
#define REPAIR_RETRY_MS 1000
#define DNS_SETTLE_MS 2000
#define DNS_RETRY_MS 10000 /* a resolver that hangs blocks us for seconds */
#define WATCH_BURST 10     /* repairs per second without a breath */
#define WATCH_BREATH_MS 200

#define NEVER INT64_MAX

struct loop {
	struct broker *b;
	int signal_fd;
	int engine_fd;    /* our end of the channel; -1: no engine */
	int engine_pidfd; /* -1: no engine */
	bool resume;      /* the next engine replaces one that died */
	bool ready_sent;

	struct supervise_backoff backoff;
	struct supervise_watch watch; /* of the engine, while there is one */
	int64_t engine_start_ms;      /* deadlines, CLOCK_MONOTONIC; NEVER */
	int64_t engine_end_ms;
	int64_t stop_ms;
	int64_t repair_ms;
	int64_t dns_ms;

	struct net_dns_watch *dns; /* NULL: no bus, or nothing to watch */

	int64_t watch_second_ms;
	unsigned int watch_count;
	int64_t watch_mute_ms; /* the watch is not polled before this */

	bool ended;
	int exit_code;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void end(struct loop *l, int exit_code)
{
	l->ended = true;
	l->exit_code = exit_code;
}

static void kill_engine(struct loop *l)
{
	if (l->engine_pidfd >= 0)
		syscall(SYS_pidfd_send_signal, l->engine_pidfd, SIGKILL, NULL,
			0);
}

/* An engine that does not read what it asked for is broken. */
static void send_engine(struct loop *l, const struct broker_message *m, int fd)
{
	int r;

	if (l->engine_fd < 0)
		return;
	r = channel_send(l->engine_fd, m, sizeof(*m), &fd, fd >= 0);
	if (r == -EAGAIN) {
		log_error("The engine does not read its messages; replacing "
			  "it");
		kill_engine(l);
	}
}

static void send_event(void *userdata, enum broker_type type, const char *text,
		       int wait_status)
{
	struct broker_message m = {
		.magic = BROKER_MESSAGE_MAGIC,
		.type = type,
	};

	if (type == BROKER_EVENT_VM_EXITED)
		m.u.exit.wait_status = wait_status;
	str_copy(m.text, sizeof(m.text), text);
	send_engine(userdata, &m, -1);
}

static void notify(void *userdata, const char *text)
{
	struct loop *l = userdata;

	sd_notifyf(0, "%sSTATUS=%s", l->ready_sent ? "" : "READY=1\n", text);
	l->ready_sent = true;
}

static void start_engine(struct loop *l)
{
	_cleanup_close_ int theirs = -1;
	struct error e = ERROR_NULL(e);
	int pair[2], r;

	l->engine_start_ms = NEVER;
	r = channel_pair(pair);
	if (r < 0) {
		error_set(&e, r, "socketpair: %s", strerror(-r));
	} else {
		theirs = pair[1];
		r = spawner_start_engine(l->b->spawner, l->resume, theirs,
					 &l->engine_pidfd, &e);
		if (r < 0)
			close(pair[0]);
		else
			l->engine_fd = pair[0];
	}
	if (r == 0) {
		log_debug("The engine runs");
		supervise_watch_start(&l->watch, now_ms());
		return;
	}
	log_error("The engine was not started: %s", e.text);
	if (!l->b->blocked)
		end(l, EXIT_CODE_FAILED);
	else
		l->engine_start_ms =
			now_ms() + supervise_delay_ms(&l->backoff, now_ms());
}

/* What the engine should have done. */
static void restore(struct loop *l)
{
	struct error e = ERROR_NULL(e);
	int r = broker_restore(l->b, &e);

	if (r == RESTORE_DONE) {
		end(l, EXIT_CODE_OK);
		return;
	}
	if (r < 0)
		log_error("The network could not be restored: %s. It stays "
			  "blocked; `torvm recover` tries again",
			  e.text);
	else
		log_error("%s", e.text);
	end(l, EXIT_CODE_RESTORE);
}

static void log_engine_end(int wait_status)
{
	if (WIFSIGNALED(wait_status))
		log_error("The engine was killed by signal %d (%s); the block "
			  "stays in place",
			  WTERMSIG(wait_status),
			  strsignal(WTERMSIG(wait_status)));
	else
		log_error("The engine ended with code %d; the block stays in "
			  "place",
			  WEXITSTATUS(wait_status));
}

static void engine_ended(struct loop *l, int wait_status)
{
	int exit_code;
	int64_t delay_ms;

	channel_close_fds(&l->engine_fd, 1);
	channel_close_fds(&l->engine_pidfd, 1);
	l->engine_end_ms = NEVER;
	switch (supervise_engine_end(l->b, wait_status, &exit_code)) {
	case SUPERVISE_EXIT:
		if (WIFSIGNALED(wait_status) && !l->b->unblocked)
			log_error("The engine was killed by signal %d (%s) "
				  "before it changed anything",
				  WTERMSIG(wait_status),
				  strsignal(WTERMSIG(wait_status)));
		if (l->b->adopted && !l->b->blocked && !l->b->unblocked)
			log_notice("The block of the earlier controller is "
				   "still up; `torvm recover` opens the "
				   "network");
		end(l, exit_code);
		break;
	case SUPERVISE_RESTART:
		log_engine_end(wait_status);
		l->resume = true;
		delay_ms = supervise_delay_ms(&l->backoff, now_ms());
		l->engine_start_ms = now_ms() + delay_ms;
		if (delay_ms >= SUPERVISE_SLOW_DELAY_MS)
			log_error("It keeps ending; the next attempt is in "
				  "%d s. `torvm log` or the lines above say "
				  "why",
				  (int)(delay_ms / 1000));
		break;
	case SUPERVISE_RESTORE:
		log_notice("The engine is gone; the broker restores the "
			   "network");
		restore(l);
		break;
	}
}

static void read_engine(struct loop *l)
{
	int fds[BROKER_MESSAGE_FDS_MAX], fd, r;
	struct broker_message m, reply;
	size_t n_fds;

	r = channel_recv(l->engine_fd, &m, sizeof(m), fds, &n_fds);
	if (r == -EAGAIN)
		return;
	if (r == 0 || (r < 0 && r != -EBADMSG)) {
		channel_close_fds(&l->engine_fd, 1);
		l->engine_end_ms = now_ms() + ENGINE_END_TIMEOUT_MS;
		return;
	}
	l->watch.heard = true;
	if (r < 0)
		m = (struct broker_message){ 0 }; /* answered with -EBADMSG */
	broker_handle(l->b, &m, fds, n_fds, &reply, &fd);
	channel_close_fds(fds, n_fds);
	send_engine(l, &reply, fd);
	closep(&fd);
	if (l->b->unblocked && l->stop_ms == NEVER)
		l->stop_ms = now_ms() + STOP_TIMEOUT_MS;
}

static void read_spawner(struct loop *l)
{
	struct spawner_message m;
	int r;

	while (!l->ended &&
	       (r = spawner_next_exit(l->b->spawner, -1, 0, &m)) != 0) {
		if (r < 0) {
			log_error("The spawner was killed, and engine and VM "
				  "with it. %s",
				  l->b->up || l->b->under_lockdown
					  ? "The network stays blocked; start "
					    "TorVM again, or `torvm recover` "
					    "opens the network"
					  : "The network is open");
			end(l, EXIT_CODE_FAILED);
		} else if (m.child == SPAWNER_CHILD_VM) {
			broker_vm_reaped(l->b, m.wait_status);
		} else {
			engine_ended(l, m.wait_status);
		}
	}
}

static void stop(struct loop *l)
{
	if (l->stop_ms != NEVER) {
		log_notice("Already stopping; the network is restored in order "
			   "within %d s",
			   STOP_TIMEOUT_MS / 1000);
		return;
	}
	sd_notify(0, "STOPPING=1");
	l->stop_ms = now_ms() + STOP_TIMEOUT_MS;
	broker_stop(l->b);
	if (l->engine_pidfd < 0)
		restore(l); /* between two engines */
}

static void read_signal(struct loop *l)
{
	struct signalfd_siginfo info;

	while (!l->ended && read(l->signal_fd, &info, sizeof(info)) ==
				    (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			stop(l);
		else
			/* A closed terminal is no wish to be unprotected. */
			log_notice("%s does not stop TorVM; `torvm down` does",
				   strsignal((int)info.ssi_signo));
	}
}

static void count_watch(struct loop *l)
{
	int64_t now = now_ms();

	if (now - l->watch_second_ms >= 1000) {
		l->watch_second_ms = now;
		l->watch_count = 0;
	}
	if (++l->watch_count > WATCH_BURST)
		l->watch_mute_ms = now + WATCH_BREATH_MS;
}

/* While names go to the VM: listens to the resolver, and looks after it.
 * @moved: links, routes or rules have changed. A network manager at work tells
 * the resolver what it wants for a link, of which no signal comes. */
static void watch_dns(struct loop *l, bool moved)
{
	bool due = l->dns_ms != NEVER && now_ms() >= l->dns_ms;
	int r = 0;

	if (!(l->b->up & BROKER_UP_TAP_CONFIGURED) || l->b->stopping) {
		net_dns_watch_close(l->dns);
		l->dns = NULL;
		l->dns_ms = NEVER;
		return;
	}
	if (!l->dns && (due || l->dns_ms == NEVER))
		net_dns_watch_open(&l->dns, NULL);
	if (l->dns)
		r = net_dns_watch_read(l->dns);
	if (r < 0) {
		net_dns_watch_close(l->dns);
		l->dns = NULL;
	}
	if (l->dns && (r > 0 || due))
		broker_dns_changed(l->b);
	if (due)
		l->dns_ms = NEVER;
	if (l->dns_ms == NEVER && (!l->dns || l->b->dns_pending))
		l->dns_ms = now_ms() + DNS_RETRY_MS;
	else if (l->dns_ms == NEVER && moved)
		l->dns_ms = now_ms() + DNS_SETTLE_MS;
}

static void check_deadlines(struct loop *l)
{
	int64_t now = now_ms();

	if (now >= l->engine_start_ms && !l->b->stopping)
		start_engine(l);
	if (now >= l->engine_end_ms) {
		l->engine_end_ms = NEVER;
		kill_engine(l);
	}
	if (l->engine_pidfd >= 0 && supervise_watch_hangs(&l->watch, now)) {
		log_error("The engine has said nothing for %d s; it is "
			  "replaced",
			  SUPERVISE_SILENT_TICKS * BROKER_PING_MS / 1000);
		kill_engine(l);
	}
	/* Waking up is enough: the loop looks after the network each time. */
	if (!l->b->to_repair)
		l->repair_ms = NEVER;
	else if (l->repair_ms == NEVER || now >= l->repair_ms)
		l->repair_ms = now + REPAIR_RETRY_MS;
	if (now >= l->stop_ms && !l->ended) {
		log_warning("The engine did not finish stopping within %d s",
			    STOP_TIMEOUT_MS / 1000);
		kill_engine(l);
		restore(l);
	}
}

static int poll_timeout(const struct loop *l)
{
	int64_t at = l->engine_start_ms, left;

	if (l->engine_end_ms < at)
		at = l->engine_end_ms;
	if (l->stop_ms < at)
		at = l->stop_ms;
	if (l->repair_ms < at)
		at = l->repair_ms;
	if (l->dns_ms < at)
		at = l->dns_ms;
	if (l->engine_pidfd >= 0 && l->watch.tick_ms < at)
		at = l->watch.tick_ms;
	if (l->watch_mute_ms && l->watch_mute_ms < at)
		at = l->watch_mute_ms;
	if (at == NEVER)
		return -1;
	left = at - now_ms();
	return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

/* One round: waits for something to happen and deals with all that has. */
static void turn(struct loop *l)
{
	enum { SIGNAL, SPAWNER, ENGINE, VM, WATCH, DNS, N };
	struct broker *b = l->b;
	bool muted = l->watch_mute_ms > now_ms();
	struct pollfd p[N] = {
		[SIGNAL] = { .fd = l->signal_fd, .events = POLLIN },
		[SPAWNER] = { .fd = b->spawner->fd, .events = POLLIN },
		[ENGINE] = { .fd = l->engine_fd, .events = POLLIN },
		[VM] = { .fd = b->vm_pidfd, .events = POLLIN },
		[WATCH] = { .fd = muted ? -1 : net_watch_fd(b->net),
			    .events = POLLIN },
		[DNS] = { .fd = -1 },
	};

	if (l->dns)
		p[DNS].fd = net_dns_watch_fd(l->dns, &p[DNS].events);
	if (!muted)
		l->watch_mute_ms = 0;
	if (poll(p, N, poll_timeout(l)) < 0 && errno != EINTR) {
		log_error("poll: %s", strerror(errno));
		end(l, EXIT_CODE_FAILED);
		return;
	}
	/* First what closes, then what asks. */
	if (p[VM].revents)
		broker_vm_died(b);
	if (p[WATCH].revents)
		count_watch(l);
	if (p[SIGNAL].revents)
		read_signal(l);
	if (p[ENGINE].revents && l->engine_fd >= 0)
		read_engine(l);
	/* An engine's last requests come before its end. */
	if (!l->ended && (l->engine_fd < 0 || !(p[ENGINE].revents & POLLIN)))
		read_spawner(l);
	/* After anything: changing the firewall empties the watch's fd
	 * into the platform, which would otherwise stay silent. */
	if (!l->ended && !muted)
		broker_network_changed(b);
	/* After the network: it may block. */
	if (!l->ended)
		watch_dns(l, p[WATCH].revents != 0);
	if (!l->ended)
		check_deadlines(l);
}

static void begin(struct loop *l, struct broker *b, int signal_fd)
{
	*l = (struct loop){
		.b = b,
		.signal_fd = signal_fd,
		.engine_fd = -1,
		.engine_pidfd = -1,
		.engine_end_ms = NEVER,
		.stop_ms = NEVER,
		.repair_ms = NEVER,
		.dns_ms = NEVER,
	};
	b->send_event = send_event;
	b->notify = notify;
	b->userdata = l;
	start_engine(l);
}

static int finish(struct loop *l)
{
	net_dns_watch_close(l->dns);
	kill_engine(l);
	channel_close_fds(&l->engine_fd, 1);
	channel_close_fds(&l->engine_pidfd, 1);
	l->b->send_event = NULL;
	l->b->notify = NULL;
	return l->exit_code;
}

int loop_run(struct broker *b, int signal_fd)
{
	struct loop l;

	begin(&l, b, signal_fd);
	while (!l.ended)
		turn(&l);
	return finish(&l);
}
