/*
 * PID 1 of the VM.
 *
 * Theory of operation
 *
 * boot() goes through the stages of docs/guest-protocol.md in order; each
 * either succeeds or ends the VM with a sentence, because a guest that carries
 * on without its firewall or its disk is worse than none. Then one epoll loop,
 * in one thread, with nothing that blocks:
 *
 *	signalfd	children to reap
 *	agent port	lines of the host; ours, when it did not read before
 *	torctl port	and the connection to Tor's ControlSocket: relay.c
 *	Tor's output	lines for the host
 *	transport's	where it listens; lines for the host
 *	the TLS client's	that it listens; lines for the host
 *	the resolver's	what a name means
 *	the moat's	whether it listens
 *	power button
 *
 * Time-outs are computed from absolute times in struct init; a zero is "none".
 *
 * Tor's life: started -> its ControlSocket answers (`ready`) -> ended, which is
 * reported and followed by a new start after a pause, or by the VM's end when
 * it happens too often. Where a pluggable transport is configured, it is
 * started first, Tor once it has said where it listens, and the end of either
 * is the end of both. A TLS client for the proxy comes before either, in the
 * same way. The connection that showed Tor to be ready is kept: it is how Tor
 * is asked to stop. With `moat` Tor does not run: in its place stands what
 * leads from eth1 through the transport to the bridge service (moat.c).
 *
 * Names are looked up before all that, and again when they age: by this program
 * again, in a process of its own (resolver.c). What was found goes to the hosts
 * file and the firewall, and to the host, which has to let it out, too, and
 * says when it does.
 *
 * All signals are blocked before anything else and stay so: the kernel delivers
 * to PID 1 only what it has a handler for, and it has none.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ip.h"
#include "init/agent.h"
#include "init/button.h"
#include "init/child.h"
#include "init/config.h"
#include "init/exits.h"
#include "init/firewall.h"
#include "init/moat.h"
#include "init/names.h"
#include "init/network.h"
#include "init/pt.h"
#include "init/relay.h"
#include "init/resolver.h"
#include "init/state-disk.h"
#include "init/system.h"
#include "init/tls.h"
#include "init/tls_log.h"
#include "init/tor.h"
#include "init/torrc.h"
#include "init/transport.h"

#define CLOCK_WAIT_MS 1000 /* for the host's `time` */
#define READY_POLL_MS 20   /* between looks at Tor's ControlSocket */
#define MEMORY_PERIOD_MS 30000
#define STOP_TOR_MS 6000     /* from SIGNAL SHUTDOWN to SIGKILL */
#define LAST_WORDS_MS 1000   /* for the host to read why we power off */
#define HELPER_WAIT_MS 60000 /* until it has to say that it listens */

#define ADMIT_WAIT_MS 10000 /* for the host to let out what was found */
/* Between look-ups: where all went well, and where it did not. */
#define NAMES_KEEP_MIN_MS 300000
#define NAMES_KEEP_MAX_MS 3600000
#define NAMES_RETRY_MIN_MS 2000
#define NAMES_RETRY_MAX_MS 60000

enum tag {
	TAG_SIGNAL,
	TAG_AGENT,
	TAG_RELAY_PORT,
	TAG_RELAY_TOR,
	TAG_TOR_OUTPUT,
	TAG_TRANSPORT_OUTPUT,
	TAG_TLS_OUTPUT,
	TAG_RESOLVER_OUTPUT,
	TAG_MOAT_OUTPUT,
	TAG_BUTTON,
};

/* A child whose output is read line by line. */
struct program {
	pid_t pid;  /* 0: does not run */
	int output; /* -1: none */
	struct line_reader lines;
	char said[160]; /* its last complaint */
};

struct init {
	int epoll;
	int signals;
	int kmsg;
	struct agent agent;
	struct relay relay;
	struct buttons buttons;
	struct guest_config config;
	bool clock_set;

	struct program tor;
	int tor_control; /* -1: not ready */
	struct exits exits;
	char torrc[GUEST_FILE_MAX + 1];
	size_t torrc_len;

	struct program transport;
	uint16_t transport_port; /* 0: has not said */
	struct program tls;
	struct program moat;

	struct names names;
	struct program resolver;
	int names_retry_ms;           /* the next pause after a failure */
	struct in6_addr proxy_in_use; /* ::, none that was looked up */

	bool stopping;
	/* Absolute times, system_now_ms(); 0: none. */
	long long tor_start_ms;
	long long tor_ready_poll_ms;
	long long tor_kill_ms;
	long long helper_late_ms; /* the TLS client, then the transport */
	long long lookup_ms;
	long long admit_ms; /* the session waits for the host until then */
	long long relay_retry_ms;
	long long memory_ms;
};

static struct init init = {
	.epoll = -1,
	.signals = -1,
	.kmsg = -1,
	.relay.port = -1,
	.relay.tor = -1,
	.tor.output = -1,
	.transport.output = -1,
	.tls.output = -1,
	.moat.output = -1,
	.resolver.output = -1,
	.tor_control = -1,
};

/* --- the end --- */

/* Nothing runs any more but PID 1. */
static void kill_all(void)
{
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

static _Noreturn void finish(struct init *in)
{
	kill_all();
	agent_flush(&in->agent, LAST_WORDS_MS);
	system_power_off();
}

static void say_on_console(struct init *in, const char *text)
{
	char line[640];
	int n = snprintf(line, sizeof(line), "<2>init: %s\n", text);

	/* One write is one record; dprintf() would want to seek. */
	if (in->kmsg >= 0 && write(in->kmsg, line, (size_t)n) != n)
		agent_event(&in->agent, "warning", "no console: %s",
			    strerror(errno));
}

/* What happened, to the host and to the console; then the machine is off. */
static _Noreturn _printf_(2, 3) void fail(struct init *in, const char *fmt, ...)
{
	char text[600];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	agent_event(&in->agent, "error", "%s", text);
	say_on_console(in, text);
	finish(in);
}

static void stop(struct init *in)
{
	if (in->stopping)
		return;
	in->stopping = true;
	if (in->tor.pid <= 0)
		finish(in); /* also ends a transport that still starts */
	if (tor_ask_to_stop(in->tor_control) < 0)
		kill(in->tor.pid, SIGKILL);
	in->tor_kill_ms = system_now_ms() + STOP_TOR_MS;
}

/* --- the loop's helpers --- */

static void watch(struct init *in, int fd, uint32_t events, enum tag tag)
{
	struct epoll_event event = { .events = events, .data.u32 = tag };

	if (epoll_ctl(in->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		fail(in, "cannot watch descriptor %d: %s", fd, strerror(errno));
}

/* @program was started. */
static void begin(struct init *in, struct program *program, enum tag tag)
{
	program->lines = (struct line_reader){ 0 };
	watch(in, program->output, EPOLLIN, tag);
}

/* Return: whether there may be more */
static bool read_output(struct init *in, struct program *program,
			void (*hear)(void *userdata, char *line, bool cut))
{
	char buf[4096];
	ssize_t n;

	/* It may have been closed earlier in this round. */
	if (program->output < 0)
		return false;
	n = read(program->output, buf, sizeof(buf));
	if (n > 0) {
		line_reader_push(&program->lines, buf, (size_t)n, hear, in);
		return true;
	}
	if (n < 0 && errno == EAGAIN)
		return false;
	/* It closed its output; its exit follows. */
	close(program->output);
	program->output = -1;
	return false;
}

/* It ended: its last words. */
static void end(struct init *in, struct program *program,
		void (*hear)(void *userdata, char *line, bool cut))
{
	program->pid = 0;
	while (read_output(in, program, hear))
		;
	line_reader_end(&program->lines, hear, in);
	closep(&program->output);
	program->output = -1;
}

/* @event: "tor-exit", or the like */
static void report_exit(struct init *in, const char *event, int status)
{
	agent_event(&in->agent, event, "%s %d %u",
		    WIFEXITED(status) ? "exit" : "signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
		    in->exits.count + 1);
}

static void stage(struct init *in, const char *name)
{
	agent_stage(&in->agent, name);
	agent_pump(&in->agent);
}

static void pump_relay(struct init *in)
{
	if (in->relay.port < 0)
		return;
	relay_pump(&in->relay, in->tor.pid > 0);
	in->relay_retry_ms =
		in->relay.retry ? system_now_ms() + RELAY_RETRY_MS : 0;
}

static void relay_changed(void *userdata, bool connected)
{
	struct init *in = userdata;

	agent_event(&in->agent, "torctl", connected ? "connected" : "closed");
}

static void send_memory(struct init *in)
{
	char text[64];
	long total, available;

	if (system_memory(&total, &available) < 0)
		return;
	snprintf(text, sizeof(text), "%ld %ld", total, available);
	agent_chatter(&in->agent, "memory", text);
}

static void set_clock(struct init *in, int64_t seconds, long nanoseconds)
{
	struct timespec old,
		new = { .tv_sec = seconds, .tv_nsec = nanoseconds };

	clock_gettime(CLOCK_REALTIME, &old);
	if (clock_settime(CLOCK_REALTIME, &new) < 0) {
		agent_event(&in->agent, "warning", "cannot set the clock: %s",
			    strerror(errno));
		return;
	}
	in->clock_set = true;
	agent_event(&in->agent, "clock", "%lld",
		    (long long)(new.tv_sec - old.tv_sec) * 1000 +
			    (new.tv_nsec - old.tv_nsec) / 1000000);
}

static void use_resolvers(struct init *in, const struct host_message *message)
{
	if (in->config.n_names == 0)
		return;
	memcpy(in->config.resolvers, message->resolvers,
	       sizeof(in->config.resolvers));
	in->config.n_resolvers = message->n_resolvers;
	in->lookup_ms = system_now_ms();
}

static void hear(void *userdata, const struct host_message *message)
{
	struct init *in = userdata;

	switch (message->type) {
	case HOST_MESSAGE_HELLO: break;
	case HOST_MESSAGE_TIME:
		set_clock(in, message->seconds, message->nanoseconds);
		break;
	case HOST_MESSAGE_PING: agent_pong(&in->agent, message->token); break;
	case HOST_MESSAGE_POWEROFF: stop(in); break;
	case HOST_MESSAGE_ADMITTED:
		if (in->admit_ms)
			in->admit_ms = system_now_ms();
		break;
	case HOST_MESSAGE_RESOLVERS: use_resolvers(in, message); break;
	}
}

/* --- Tor --- */

static void start_tor(struct init *in)
{
	struct error e = ERROR_NULL(e);

	if (tor_write_torrc(in->torrc, in->torrc_len, &in->names,
			    in->transport_port, &e) < 0)
		fail(in, "%s", e.text);
	in->tor.pid = tor_start(&in->tor.output, &e);
	if (in->tor.pid < 0)
		fail(in, "%s", e.text);
	begin(in, &in->tor, TAG_TOR_OUTPUT);
	stage(in, "tor-start");
	in->tor_ready_poll_ms = system_now_ms() + READY_POLL_MS;
}

static void look_whether_ready(struct init *in)
{
	in->tor_control = tor_connect();
	if (in->tor_control < 0) {
		in->tor_ready_poll_ms = system_now_ms() + READY_POLL_MS;
		return;
	}
	in->tor_ready_poll_ms = 0;
	stage(in, "ready");
	send_memory(in);
	if (!in->memory_ms)
		in->memory_ms = system_now_ms() + MEMORY_PERIOD_MS;
	pump_relay(in);
}

static void relay_tor_line(void *userdata, char *line, bool cut)
{
	struct init *in = userdata;

	agent_chatter(&in->agent, "tor", line);
}

/* --- the way to the bridge service --- */

static void start_moat(struct init *in)
{
	struct error e = ERROR_NULL(e);

	in->moat.pid = moat_start(&in->config, in->transport_port,
				  &in->moat.output, &e);
	if (in->moat.pid < 0)
		fail(in, "%s", e.text);
	begin(in, &in->moat, TAG_MOAT_OUTPUT);
}

static void hear_moat(void *userdata, char *line, bool cut)
{
	if (!strcmp(line, MOAT_LISTENS))
		stage(userdata, "ready");
}

/* --- the transport --- */

static void say_transport(struct init *in, const char *text)
{
	agent_event(&in->agent, "transport", "%s", text);
}

static void hear_transport(void *userdata, char *line, bool cut)
{
	struct init *in = userdata;
	struct pt_line said = pt_parse(line, in->config.transport);

	switch (said.kind) {
	case PT_KIND_NONE: break;
	case PT_KIND_METHOD: in->transport_port = said.port; break;
	case PT_KIND_DONE:
		in->helper_late_ms = 0;
		if (!in->transport_port)
			kill(in->transport.pid, SIGKILL);
		else if (in->tor.pid <= 0 && in->moat.pid <= 0 && !in->stopping)
			(in->config.moat[0] ? start_moat : start_tor)(in);
		break;
	case PT_KIND_ERROR:
		snprintf(in->transport.said, sizeof(in->transport.said), ": %s",
			 said.text);
		say_transport(in, said.text);
		break;
	case PT_KIND_LOG:
		agent_chatter(&in->agent, "transport", said.text);
		break;
	}
}

static void start_transport(struct init *in)
{
	struct error e = ERROR_NULL(e);
	struct in6_addr proxy = { 0 };

	names_address(&in->names, in->config.proxy.host, &proxy);
	in->transport_port = 0;
	in->transport.pid =
		transport_start(&in->config, &proxy, &in->transport.output, &e);
	if (in->transport.pid < 0)
		fail(in, "%s", e.text);
	begin(in, &in->transport, TAG_TRANSPORT_OUTPUT);
	in->helper_late_ms = system_now_ms() + HELPER_WAIT_MS;
}

static void start_tor_or_transport(struct init *in)
{
	if (in->config.transport[0])
		start_transport(in);
	else
		start_tor(in);
}

/* --- the TLS client for the proxy --- */

static void hear_tls(void *userdata, char *line, bool cut)
{
	struct init *in = userdata;
	struct tls_line said = tls_parse(line);

	switch (said.kind) {
	case TLS_KIND_NONE: break;
	case TLS_KIND_READY:
		in->helper_late_ms = 0;
		if (in->tor.pid <= 0 && in->transport.pid <= 0 && !in->stopping)
			start_tor_or_transport(in);
		break;
	case TLS_KIND_LOG:
		snprintf(in->tls.said, sizeof(in->tls.said), ": %s", said.text);
		agent_chatter(&in->agent, "tls", said.text);
		break;
	}
}

static void start_tls(struct init *in)
{
	struct error e = ERROR_NULL(e);
	struct in6_addr address = { 0 };

	names_address(&in->names, in->config.tls_proxy.host, &address);
	in->tls.pid =
		tls_start(&in->config.tls_proxy, &address, &in->tls.output, &e);
	if (in->tls.pid < 0)
		fail(in, "%s", e.text);
	begin(in, &in->tls, TAG_TLS_OUTPUT);
	in->helper_late_ms = system_now_ms() + HELPER_WAIT_MS;
}

/* --- all of them --- */

static void start_session(struct init *in)
{
	in->tor_start_ms = in->admit_ms = 0;
	/* An earlier one may still be on its way out. */
	if (in->transport.pid > 0 || in->tls.pid > 0 || in->moat.pid > 0)
		in->tor_start_ms = system_now_ms() + READY_POLL_MS;
	else if (in->config.tls_proxy.port)
		start_tls(in);
	else
		start_tor_or_transport(in);
}

/* Neither Tor nor what it goes through may be left. */
static void session_over(struct init *in, const char *what, const char *why)
{
	int pause;

	kill(-1, SIGKILL);
	in->helper_late_ms = 0;
	if (in->stopping)
		finish(in);
	pause = exits_add(&in->exits, system_now_ms());
	if (pause < 0)
		fail(in, "%s ended %d times within %d s%s. The VM powers off",
		     what, EXITS_LIMIT, EXITS_WINDOW_MS / 1000,
		     why[0] ? why : "; its log says why");
	in->tor_start_ms = system_now_ms() + pause;
}

/* What Tor goes through ended. @event: for the host; @what: for a person */
static void helper_ended(struct init *in, struct program *helper, int status,
			 const char *event, const char *what)
{
	/* It went because another one did. */
	if (in->tor_start_ms)
		return;
	if (!in->stopping)
		report_exit(in, event, status);
	if (in->tor.pid > 0)
		kill(in->tor.pid, SIGKILL);
	else
		session_over(in, what, helper->said);
}

static void moat_ended(struct init *in)
{
	end(in, &in->moat, hear_moat);
	/* It went because another one did. */
	if (!in->tor_start_ms)
		session_over(in, "The way to the bridge service", "");
}

static void tor_ended(struct init *in, int status)
{
	struct error e = ERROR_NULL(e);

	end(in, &in->tor, relay_tor_line);
	in->tor_ready_poll_ms = 0;
	closep(&in->tor_control);
	in->tor_control = -1;
	report_exit(in, "tor-exit", status);
	pump_relay(in);

	if (!in->stopping && in->config.state_disk &&
	    state_disk_probe(&e) < 0) {
		agent_state_disk(&in->agent, e.text);
		finish(in);
	}
	session_over(in, "Tor", in->transport.said);
}

/* --- names --- */

static void hear_resolver(void *userdata, char *line, bool cut)
{
	struct init *in = userdata;
	const char *name, *text;
	int r = names_hear(&in->names, line, &name, &text);

	if (r >= 0)
		agent_event(&in->agent, r ? "resolved" : "unresolved", "%s %s",
			    name, text);
}

static void start_lookup(struct init *in)
{
	const char *argv[4 + GUEST_RESOLVERS_MAX + GUEST_NAMES_MAX + 1];
	char resolvers[GUEST_RESOLVERS_MAX][IP_TEXT_MAX];
	const char *const environment[] = { NULL };
	const struct child child = {
		.what = "the resolver",
		.argv = argv,
		.environment = environment,
		.uid = GUEST_RESOLVER_UID,
		.filtered = true,
	};
	struct error e = ERROR_NULL(e);
	size_t n = 0;

	in->lookup_ms = 0;
	if (in->resolver.pid > 0)
		return;
	/* The resolvers may be other ones now. */
	if (firewall_update(&in->names, &e) < 0)
		fail(in, "%s", e.text);
	argv[n++] = "/init";
	argv[n++] = RESOLVER_WORD;
	if (in->config.ipv6)
		argv[n++] = RESOLVER_IPV6;
	for (size_t i = 0; i < in->config.n_resolvers; i++)
		argv[n++] = ip_format(&in->config.resolvers[i], resolvers[i]);
	argv[n++] = "--";
	for (size_t i = 0; i < in->config.n_names; i++)
		argv[n++] = in->config.names[i].host;
	argv[n] = NULL;
	names_begin(&in->names);
	in->resolver.pid = child_start(&child, &in->resolver.output, &e);
	if (in->resolver.pid < 0)
		fail(in, "%s", e.text);
	begin(in, &in->resolver, TAG_RESOLVER_OUTPUT);
}

static void schedule_lookup(struct init *in)
{
	long long pause = in->names.ttl_s * 1000LL;

	if (in->names.failed) {
		pause = in->names_retry_ms ? in->names_retry_ms
					   : NAMES_RETRY_MIN_MS;
		in->names_retry_ms = (int)pause * 2 < NAMES_RETRY_MAX_MS
					     ? (int)pause * 2
					     : NAMES_RETRY_MAX_MS;
	} else {
		in->names_retry_ms = 0;
		if (pause < NAMES_KEEP_MIN_MS)
			pause = NAMES_KEEP_MIN_MS;
		if (pause > NAMES_KEEP_MAX_MS)
			pause = NAMES_KEEP_MAX_MS;
	}
	in->lookup_ms = system_now_ms() + pause;
}

/* A proxy that has moved: who goes through it has to be told. */
static void check_proxy(struct init *in)
{
	const struct guest_config *c = &in->config;
	struct in6_addr now;

	/* Tor's or the transport's, and then the only one to talk to. */
	if (c->n_names != 1 || c->n_peers > 0 ||
	    (c->transport[0] && !c->proxy.scheme[0]) ||
	    names_address(&in->names, c->names[0].host, &now) < 0)
		return;
	if (!IN6_IS_ADDR_UNSPECIFIED(&in->proxy_in_use) && in->tor.pid > 0 &&
	    !names_has(&in->names, c->names[0].host, &in->proxy_in_use))
		kill(in->tor.pid, SIGKILL);
	in->proxy_in_use = now;
}

static void lookup_over(struct init *in)
{
	struct error e = ERROR_NULL(e);

	end(in, &in->resolver, hear_resolver);
	if (in->stopping)
		return;
	/* It was ended together with Tor, or could not be started. */
	if (in->names.ttl_s == UINT32_MAX)
		in->names.failed = true;
	if (firewall_update(&in->names, &e) < 0 ||
	    names_write(&in->names, &e) < 0)
		fail(in, "%s", e.text);
	agent_event(&in->agent, "looked-up", "%s",
		    in->names.failed ? "failed" : "ok");
	schedule_lookup(in);
	check_proxy(in);
	if (in->tor.pid <= 0 && in->transport.pid <= 0 && in->tls.pid <= 0 &&
	    !in->tor_start_ms && names_usable(&in->names))
		in->admit_ms = system_now_ms() + ADMIT_WAIT_MS;
}

static void handle_signals(struct init *in)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(in->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			stop(in);
	/* One SIGCHLD may stand for many. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == in->tor.pid) {
			tor_ended(in, status);
		} else if (pid == in->transport.pid) {
			end(in, &in->transport, hear_transport);
			helper_ended(in, &in->transport, status,
				     "transport-exit",
				     "The pluggable transport");
		} else if (pid == in->tls.pid) {
			end(in, &in->tls, hear_tls);
			helper_ended(in, &in->tls, status, "tls-exit",
				     "The TLS client for the proxy");
		} else if (pid == in->moat.pid) {
			moat_ended(in);
		} else if (pid == in->resolver.pid) {
			lookup_over(in);
		}
}

/* --- the loop --- */

static void run_timers(struct init *in)
{
	long long now = system_now_ms();

	if (in->tor_kill_ms && now >= in->tor_kill_ms) {
		in->tor_kill_ms = 0;
		kill(in->tor.pid, SIGKILL);
	}
	if (in->tor_start_ms && now >= in->tor_start_ms)
		start_session(in);
	if (in->admit_ms && now >= in->admit_ms)
		start_session(in);
	if (in->lookup_ms && now >= in->lookup_ms)
		start_lookup(in);
	if (in->helper_late_ms && now >= in->helper_late_ms) {
		in->helper_late_ms = 0;
		if (in->transport.pid > 0)
			say_transport(in, "it does not say where it listens");
		kill(in->transport.pid > 0 ? in->transport.pid : in->tls.pid,
		     SIGKILL);
	}
	if (in->tor_ready_poll_ms && now >= in->tor_ready_poll_ms)
		look_whether_ready(in);
	if (in->relay_retry_ms && now >= in->relay_retry_ms)
		pump_relay(in);
	if (in->memory_ms && now >= in->memory_ms) {
		in->memory_ms = now + MEMORY_PERIOD_MS;
		send_memory(in);
	}
}

/* Milliseconds until the first timer, at most until @until_ms; -1: none */
static int next_timeout(const struct init *in, long long until_ms)
{
	const long long times[] = {
		in->tor_kill_ms,    in->tor_start_ms, in->tor_ready_poll_ms,
		in->relay_retry_ms, in->memory_ms,    in->helper_late_ms,
		in->lookup_ms,      in->admit_ms,     until_ms,
	};
	long long first = 0, left;

	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		if (times[i] && (!first || times[i] < first))
			first = times[i];
	if (!first)
		return -1;
	left = first - system_now_ms();
	return left > 0 ? (int)left : 0;
}

/* One round: waits for an event or a timer, at most until @until_ms (0: no
 * limit). */
static void run_once(struct init *in, long long until_ms)
{
	struct epoll_event events[8];
	int n;

	agent_pump(&in->agent);
	n = epoll_wait(in->epoll, events, ARRAY_SIZE(events),
		       next_timeout(in, until_ms));
	if (n < 0 && errno != EINTR)
		fail(in, "cannot wait for events: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		switch ((enum tag)events[i].data.u32) {
		case TAG_SIGNAL: handle_signals(in); break;
		case TAG_AGENT: agent_pump(&in->agent); break;
		case TAG_RELAY_PORT:
		case TAG_RELAY_TOR: pump_relay(in); break;
		case TAG_TOR_OUTPUT:
			read_output(in, &in->tor, relay_tor_line);
			break;
		case TAG_TRANSPORT_OUTPUT:
			read_output(in, &in->transport, hear_transport);
			break;
		case TAG_TLS_OUTPUT: read_output(in, &in->tls, hear_tls); break;
		case TAG_RESOLVER_OUTPUT:
			read_output(in, &in->resolver, hear_resolver);
			break;
		case TAG_MOAT_OUTPUT:
			read_output(in, &in->moat, hear_moat);
			break;
		case TAG_BUTTON:
			if (buttons_pressed(&in->buttons))
				stop(in);
			break;
		}
	}
	run_timers(in);
}

/* --- the boot --- */

/* Descriptors 0 to 2 are taken, whatever the kernel found as a console. */
static void take_standard_fds(struct init *in)
{
	int fd = open("/dev/null", O_RDWR);

	if (fd >= 0) {
		for (int i = 0; i < 3; i++)
			dup2(fd, i);
		if (fd > 2)
			close(fd);
	}
	in->kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
}

static void set_up_loop(struct init *in, const sigset_t *signals)
{
	in->epoll = epoll_create1(EPOLL_CLOEXEC);
	in->signals = signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (in->epoll < 0 || in->signals < 0)
		fail(in, "cannot set up the event loop: %s", strerror(errno));
	watch(in, in->signals, EPOLLIN, TAG_SIGNAL);
}

static void optional_module_failed(void *userdata, const char *text)
{
	struct init *in = userdata;

	agent_event(&in->agent, "warning", "%s", text);
}

static void open_ports(struct init *in)
{
	int r = agent_open(&in->agent);

	if (r < 0)
		fail(in, "there is no port %s: %s", GUEST_PORT_AGENT,
		     strerror(-r));
	watch(in, in->agent.fd, EPOLLIN | EPOLLOUT | EPOLLET, TAG_AGENT);
	r = relay_init(&in->relay, in->epoll, TAG_RELAY_TOR, relay_changed, in);
	if (r < 0)
		fail(in, "there is no port %s: %s", GUEST_PORT_TORCTL,
		     strerror(-r));
	watch(in, in->relay.port, EPOLLIN | EPOLLOUT | EPOLLET, TAG_RELAY_PORT);
}

static void configure(struct init *in)
{
	static char text[GUEST_FILE_MAX + 1];
	struct error e = ERROR_NULL(e);
	int len = system_read_fw_cfg(GUEST_FW_CFG_CONFIG, text, &e);
	bool geoip;

	if (len < 0 ||
	    guest_config_parse(text, (size_t)len, &in->config, &e) < 0)
		fail(in, "%s", e.text);
	explicit_bzero(text, sizeof(text));
	len = system_read_fw_cfg(GUEST_FW_CFG_TORRC, in->torrc, &e);
	if (len < 0 || guest_torrc_check(in->torrc, (size_t)len, &in->config,
					 &geoip, &e) < 0)
		fail(in, "%s", e.text);
	in->torrc_len = (size_t)len;
	names_init(&in->names, &in->config);
	if (tor_prepare(!in->config.state_disk, geoip, &e) < 0 ||
	    names_write(&in->names, &e) < 0 ||
	    (in->config.transport[0] && transport_prepare(&e) < 0) ||
	    (in->config.tls_proxy.port && tls_prepare(&e) < 0))
		fail(in, "%s", e.text);
}

static void mount_state_disk(struct init *in)
{
	struct error e = ERROR_NULL(e);

	if (in->config.state_disk) {
		if (state_disk_mount(&e) < 0) {
			agent_state_disk(&in->agent, e.text);
			finish(in);
		}
		agent_state_disk(&in->agent, NULL);
	}
	stage(in, "state-disk");
}

static void wait_for_clock(struct init *in)
{
	long long until = system_now_ms() + CLOCK_WAIT_MS;

	while (!in->clock_set && system_now_ms() < until)
		run_once(in, until);
	if (!in->clock_set && in->config.time_s >= 0)
		set_clock(in, in->config.time_s + system_now_ms() / 1000, 0);
	stage(in, "clock");
}

static void boot(struct init *in, const sigset_t *signals)
{
	struct error e = ERROR_NULL(e);

	agent_init(&in->agent, hear, in);
	if (system_mount(&e) < 0)
		fail(in, "%s", e.text);
	take_standard_fds(in);
	set_up_loop(in, signals);
	stage(in, "mounts");

	if (system_load_modules(optional_module_failed, in, &e) < 0) {
		/* The console's and the ports' drivers may be there already. */
		agent_open(&in->agent);
		fail(in, "%s", e.text);
	}
	open_ports(in);
	stage(in, "modules");

	configure(in);
	stage(in, "config");

	/* The firewall is there before any link is up. */
	if (network_name_links(&e) < 0 ||
	    system_tune(in->config.ipv6, &e) < 0 ||
	    firewall_load(&in->names, &e) < 0)
		fail(in, "%s", e.text);
	stage(in, "firewall");
	if (network_up(&in->config, &e) < 0)
		fail(in, "%s", e.text);
	stage(in, "network");

	mount_state_disk(in);
	if (buttons_open(&in->buttons, in->epoll, TAG_BUTTON) == 0)
		agent_event(&in->agent, "warning",
			    "there is no power button: system_powerdown will "
			    "not be seen");
	wait_for_clock(in);

	if (system_lock_down(&e) < 0)
		fail(in, "%s", e.text);
	stage(in, "lockdown");
	if (in->config.n_names > 0)
		start_lookup(in);
	else
		start_session(in);
}

int main(int argc, char **argv)
{
	sigset_t all, ours;

	if (argc >= 2 && !strcmp(argv[1], RESOLVER_WORD))
		return resolver_main(argc - 2, argv + 2);
	if (argc >= 2 && !strcmp(argv[1], MOAT_WORD))
		return moat_main(argc - 2, argv + 2);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&ours);
	sigaddset(&ours, SIGCHLD);
	sigaddset(&ours, SIGINT); /* what Ctrl-Alt-Del is after the next call */
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGPWR);

	if (getpid() != 1) {
		fputs("init: this is PID 1 of TorVM's guest; it does nothing "
		      "on a host\n",
		      stderr);
		return 2;
	}
	reboot(RB_DISABLE_CAD);
	umask(022);

	boot(&init, &ours);
	for (;;)
		run_once(&init, 0);
}
