/*
 * A hostile engine against the real broker.
 *
 * Theory of operation: the input is a list of steps. Most are packets, which
 * go through the real socketpair, with real descriptors, to the real loop
 * (loop.c, whose rounds are run one by one) and from there to the real state
 * machine, journal and restoration. Others are what happens around it: the
 * engine dies, floods or does not read; the VM dies; a kernel call fails
 * before or after its work; another program touches the network; the runtime
 * directory vanishes; the user asks to stop; lockdown is switched. Not real
 * are the kernel's network (platform/fake), the clock, and the spawner, which
 * has a target of its own.
 *
 * After every round the promises are looked at (check_promises()), and every
 * input ends with a stop, after which the network must be as it was found,
 * whatever the engine did before.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/ip.h"
#include "broker/listeners.h"
#include "broker/lockdown.h"
#include "platform/fake/fake.h"

/* The loop's own clock, and no waiting. */
static int64_t clock_ms;
static int fake_clock(clockid_t id, struct timespec *ret)
{
	ret->tv_sec = clock_ms / 1000;
	ret->tv_nsec = clock_ms % 1000 * 1000000;
	return 0;
}
#define clock_gettime fake_clock
#define poll(fds, n, timeout_ms) poll(fds, n, (timeout_ms) * 0)
#include "broker/loop.c"
#undef poll
#undef clock_gettime

#define STEPS_MAX 64
#define FLOOD_MAX 600 /* packets; more than a socket takes */
#define EXPECTED_MAX 1024

static struct {
	/* The spawner's. */
	int engine_fd; /* the engine's end of the channel; -1: none */
	bool engine;   /* there is one, or its end was not yet told */
	bool engine_killed;
	bool vm;
	bool vm_killed;
	int vm_event; /* stands in for its pidfd */
	bool fail_start, vm_sticks, gone;
	struct spawner_message exits[4];
	unsigned int n_exits;

	/* Serials that must be answered, in this order. */
	uint32_t expected[EXPECTED_MAX];
	size_t n_expected;
	bool deaf; /* the engine does not read */

	int runtime_fd, gone_fd;
	char dir[32];
	bool dir_was_gone, disturbed, removing;
	struct broker b;
	struct spawner link;
	struct loop l;
} h = { .runtime_fd = -1 };

/* --- the spawner's stand-in --- */

static void queue_exit(enum spawner_child child, int wait_status)
{
	if (h.n_exits < ARRAY_SIZE(h.exits))
		h.exits[h.n_exits++] = (struct spawner_message){
			.type = SPAWNER_EXITED,
			.child = child,
			.wait_status = wait_status,
		};
}

static void engine_dies(int wait_status)
{
	channel_close_fds(&h.engine_fd, 1);
	h.n_expected = 0;
	h.deaf = false;
	if (h.engine)
		queue_exit(SPAWNER_CHILD_ENGINE, wait_status);
	h.engine = h.engine_killed = false;
}

static void vm_dies(int wait_status)
{
	if (!h.vm)
		return;
	h.vm = h.vm_killed = false;
	eventfd_write(h.vm_event, 1);
	queue_exit(SPAWNER_CHILD_VM, wait_status);
}

/* And its children with it, unreported. */
static void spawner_dies(void)
{
	vm_dies(SIGKILL);
	engine_dies(SIGKILL);
	h.n_exits = 0;
	h.gone = true;
}

int spawner_start_engine(struct spawner *s, bool resume, int engine_socket,
			 int *ret_pidfd, struct error *e)
{
	must(!h.engine);
	if (h.gone || h.fail_start)
		return error_set(e, -EPIPE, "no engine today");
	h.engine = true;
	h.engine_fd = dup(engine_socket);
	*ret_pidfd = eventfd(0, EFD_CLOEXEC);
	must(h.engine_fd >= 0 && *ret_pidfd >= 0);
	return 0;
}

int spawner_start_vm(struct spawner *s, const struct spawner_vm_fds *fds,
		     pid_t *ret_pid, int *ret_pidfd, uint64_t *ret_started,
		     struct error *e)
{
	char text[BROKER_ARGV_MAX], *argv[BROKER_ARGV_COUNT_MAX];
	ssize_t len = pread(fds->argv, text, sizeof(text), 0);
	eventfd_t value;
	int i;

	must(!h.vm);
	must(fake_net.firewall && fake_net.mode == NET_FIREWALL_UPLINK);
	for (i = VM_FD_QMP; i < VM_FD_FROM_ENGINE; i++)
		must(fcntl(fds->made[i], F_GETFD) >= 0);
	for (i = 0; i < __builtin_popcount(fds->present); i++)
		must(fcntl(fds->from_engine[i], F_GETFD) >= 0);
	must(len > 0 && broker_argv_split(text, (size_t)len, argv,
					  BROKER_ARGV_COUNT_MAX) > 0);
	must(broker_argv_check(argv, NULL) == 0);
	if (h.gone || h.fail_start)
		return error_set(e, -EPIPE, "no VM today");
	h.vm = true;
	eventfd_read(h.vm_event, &value);
	*ret_pid = 4242;
	*ret_pidfd = dup(h.vm_event);
	*ret_started = 1;
	return 0;
}

int spawner_next_exit(struct spawner *s, int child, int timeout_ms,
		      struct spawner_message *ret)
{
	unsigned int i;

	/* Whoever is waited for dies now, if ever. */
	if (timeout_ms && h.vm_killed && !h.vm_sticks)
		vm_dies(SIGKILL);
	for (i = 0; i < h.n_exits; i++) {
		if (child >= 0 && h.exits[i].child != (uint32_t)child)
			continue;
		*ret = h.exits[i];
		memmove(h.exits + i, h.exits + i + 1,
			(--h.n_exits - i) * sizeof(h.exits[0]));
		return 1;
	}
	return h.gone ? -EPIPE : 0;
}

/* --- the resolver's watch --- */

struct net_dns_watch {
	int unused;
};
static struct net_dns_watch dns_watch;
static int dns_heard; /* net_dns_watch_read()'s next answer */

int net_dns_watch_open(struct net_dns_watch **ret, struct error *e)
{
	if (dns_heard < 0)
		return dns_heard;
	*ret = &dns_watch;
	return 0;
}

void net_dns_watch_close(struct net_dns_watch *watch)
{
}

int net_dns_watch_fd(struct net_dns_watch *watch, short *ret_events)
{
	*ret_events = 0;
	return -1;
}

int net_dns_watch_read(struct net_dns_watch *watch)
{
	int r = dns_heard;

	dns_heard = 0;
	return r;
}

/* --- the processes' signals --- */

/* By the linker (--wrap): a signal to a "pidfd" of ours. */
long __real_syscall(long nr, ...);
long __wrap_syscall(long nr, ...);
long __wrap_syscall(long nr, ...)
{
	long a[6];
	va_list ap;
	int i;

	va_start(ap, nr);
	for (i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (nr != SYS_pidfd_send_signal)
		return __real_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (h.b.vm_pidfd >= 0 && (int)a[0] == h.b.vm_pidfd) {
		h.vm_killed = h.vm;
	} else {
		must((int)a[0] == h.l.engine_pidfd);
		h.engine_killed = h.engine;
	}
	return 0;
}

/* --- the input --- */

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t next(struct input *in)
{
	if (in->size == 0)
		return 0;
	in->size--;
	return *in->data++;
}

static size_t take(struct input *in, void *buf, size_t len)
{
	if (len > in->size)
		len = in->size;
	memcpy(buf, in->data, len);
	in->data += len;
	in->size -= len;
	return len;
}

static int memfd_with(const void *data, size_t len)
{
	int fd = memfd_create("argv", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	must(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	return fd;
}

/* A descriptor of every sort that an engine may have. */
static int make_fd(struct input *in)
{
	static const char good[] =
		"/usr/bin/qemu-system-x86_64\0-nodefaults\0-no-user-config\0"
		"-sandbox\0on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
		"resourcecontrol=deny";
	char buf[256];
	int fd = -1, pair[2];
	size_t len;

	switch (next(in) % 9) {
	case 0: return memfd_with(good, sizeof(good));
	case 1: return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 2: len = take(in, buf, next(in)); return memfd_with(buf, len);
	case 3: return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	case 4: return open("/proc/self/exe", O_PATH | O_CLOEXEC);
	case 5: return dup(h.engine_fd);
	case 6:
		fd = memfd_with("", 0);
		must(ftruncate(fd, 1ll << 40) == 0);
		return fd;
	case 7:
		must(pipe2(pair, O_CLOEXEC) == 0);
		close(pair[0]);
		return pair[1];
	default:
		/* A valid beginning and the input's end. */
		fd = memfd_with(good, sizeof(good));
		len = take(in, buf, next(in));
		must(write(fd, buf, len) == (ssize_t)len);
		return fd;
	}
}

/* --- packets --- */

static void expect(uint32_t serial)
{
	if (h.n_expected < EXPECTED_MAX)
		h.expected[h.n_expected++] = serial;
}

/* Return: whether the socket took it. */
static bool send_raw(const void *data, size_t len, int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * 32)];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = -1;

	if (n_fds > 0) {
		struct cmsghdr *cmsg = &control.align;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
	}
	if (h.engine_fd >= 0)
		n = sendmsg(h.engine_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n >= 0;
}

/* As the engine would ask, if it were honest. */
static struct broker_message honest(uint32_t type)
{
	struct broker_message m = { .magic = BROKER_MESSAGE_MAGIC,
				    .type = type };

	if (type == BROKER_REQUEST_PRECHECK || type == BROKER_REQUEST_BLOCK) {
		strcpy(m.u.net.tap_name, "torvm0");
		inet_pton(AF_INET, "10.10.10.2", &m.u.net.host_ip);
		inet_pton(AF_INET, "10.10.10.1", &m.u.net.vm_ip);
	}
	if (type == BROKER_REQUEST_START_VM) {
		m.u.start_vm.present = 1;
		m.u.start_vm.uplink.any = BROKER_UPLINK_ANY_TCP;
	}
	if (type == BROKER_REQUEST_SET_UPLINK) {
		m.u.uplink.n_peers = 1;
		m.u.uplink.peers[0].protocol = IPPROTO_TCP;
		m.u.uplink.peers[0].port = 443;
		ip_parse("2001:db8::7", &m.u.uplink.peers[0].address);
	}
	return m;
}

static void send_honest(uint32_t type, uint32_t serial)
{
	struct input nothing = { 0 };
	struct broker_message m = honest(type);
	int fds[2];
	size_t n = 0;

	m.serial = serial;
	if (type == BROKER_REQUEST_START_VM) {
		fds[n++] = make_fd(&nothing);
		fds[n++] = open("/dev/null", O_RDWR | O_CLOEXEC);
	}
	if (send_raw(&m, sizeof(m), fds, n))
		expect(serial);
	channel_close_fds(fds, n);
}

/* A packet that starts honest and is then written over by the input: any
 * length, any descriptors. */
static void send_hostile(struct input *in)
{
	struct broker_message m = honest(next(in));
	uint8_t packet[2 * sizeof(m)] = { 0 };
	size_t len = sizeof(m), n_fds = next(in) % 20, i, n_writes;
	uint8_t flags = next(in);
	int fds[20];

	m.serial = next(in);
	memcpy(packet, &m, sizeof(m));
	n_writes = flags % 8;
	for (i = 0; i < n_writes; i++) {
		size_t at = next(in) * 8u % sizeof(m);

		take(in, packet + at, 1 + next(in) % 24);
	}
	if (flags & 0x80)
		len = (size_t)next(in) << (flags >> 4 & 3);
	if (len > sizeof(packet))
		len = sizeof(packet);
	for (i = 0; i < n_fds; i++)
		fds[i] = make_fd(in);
	memcpy(&m, packet, sizeof(m));
	/* An empty packet looks like the channel's end. */
	if (len == 0) {
		send_raw(packet, 0, fds, n_fds);
		h.n_expected = 0;
		h.deaf = true;
	} else if (send_raw(packet, len, fds, n_fds)) {
		expect(len == sizeof(m) && n_fds <= BROKER_MESSAGE_FDS_MAX
			       ? m.serial
			       : 0);
	}
	channel_close_fds(fds, n_fds);
}

static void check_reply(const struct broker_message *m, size_t n_fds)
{
	must(m->magic == BROKER_MESSAGE_MAGIC);
	must(memchr(m->text, '\0', sizeof(m->text)) && is_printable(m->text));
	if (m->type != BROKER_REPLY) {
		must(m->type >= BROKER_EVENT_FIRST &&
		     m->type < BROKER_EVENT_LAST);
		must(m->serial == 0 && n_fds == 0);
		return;
	}
	must(h.n_expected > 0 && h.expected[0] == m->serial);
	memmove(h.expected, h.expected + 1,
		--h.n_expected * sizeof(h.expected[0]));
	must(m->status <= 0 && (m->status == 0 || m->text[0]));
	must(n_fds == 0 || (n_fds == 1 && m->status == 0 && m->u.vm.pid));
}

static void read_replies(void)
{
	int fds[BROKER_MESSAGE_FDS_MAX];
	struct broker_message m;
	size_t n_fds;
	int r;

	while (h.engine_fd >= 0 && !h.deaf && !h.engine_killed) {
		r = channel_recv(h.engine_fd, &m, sizeof(m), fds, &n_fds);
		if (r == -EAGAIN)
			return;
		/* The broker ends the channel only when it ends itself. */
		must(r == 1);
		check_reply(&m, n_fds);
		channel_close_fds(fds, n_fds);
	}
}

/* --- the promises --- */

static void check_journal(void)
{
	struct journal j;

	if (h.dir_was_gone || h.b.runtime_fd != h.runtime_fd)
		return;
	if (!fake_net.rules && !fake_net.tap && !fake_net.dns && !h.b.blocked)
		return;
	if (h.b.unblocked)
		return;
	must(journal_read(h.runtime_fd, &j, NULL) == 0);
	must(strcmp(j.boot_id, h.b.journal.boot_id) == 0 &&
	     j.netns == h.b.journal.netns);
	must(!fake_net.rules || j.up & BROKER_UP_RULES);
	must(!fake_net.tap || j.up & BROKER_UP_TAP);
	must(!fake_net.dns || j.up & BROKER_UP_DNS);
	must(fake_net.rp_filter == FAKE_SYSCTL_STRICT || j.n_sysctls > 0);
}

/* The block is removed because the user wants it, or because the engine never
 * got to ask for one. */
static void before_call(const char *call)
{
	if (strcmp(call, "firewall_remove") != 0)
		return;
	must(h.b.stopping || !h.b.blocked);
	h.removing = true;
}

static void check_promises(void)
{
	const struct broker *b = &h.b;

	must(fake_net.violations == 0 || h.disturbed);
	/* Once up, the block stays. That of lockdown is nobody's to repair
	 * until BLOCK has replaced it (docs/SECURITY.md). */
	if (!b->unblocked &&
	    (b->blocked || b->adopted || (b->under_lockdown && !h.disturbed)))
		must(fake_net.firewall || b->to_repair || fake_net.changed ||
		     h.removing);
	/* Nothing is let out for a VM that is not there. */
	if (fake_net.firewall && !(b->up & BROKER_UP_VM))
		must(fake_net.mode == NET_FIREWALL_BLOCKED ||
		     fake_net.mode == NET_FIREWALL_LOCKDOWN || b->to_repair);
	if (fake_net.mode == NET_FIREWALL_OPEN && fake_net.firewall)
		must(h.vm || h.n_exits > 0 || b->to_repair);
	must(b->vm_pidfd < 0 || b->vm_pid);
	must(b->journal.plan.uplink.n_peers <= BROKER_PEERS_MAX);
	check_journal();
}

static void rounds(unsigned int n)
{
	while (n-- > 0 && !h.l.ended) {
		turn(&h.l);
		if (h.vm_killed && !h.vm_sticks)
			vm_dies(SIGKILL);
		check_promises();
		read_replies();
	}
	if (h.engine_killed)
		engine_dies(SIGKILL);
}

/* --- a run --- */

static void clean_up(void)
{
	char path[64];

	lockdown_flag_remove(h.runtime_fd);
	journal_remove(h.runtime_fd);
	snprintf(path, sizeof(path), "%s/vm", h.dir);
	rmdir(path);
	rmdir(h.dir);
}

static void prepare(void)
{
	snprintf(h.dir, sizeof(h.dir), "/dev/shm/torvm-fuzz-XXXXXX");
	must(mkdtemp(h.dir));
	h.runtime_fd = open(h.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(mkdirat(h.runtime_fd, "gone", 0700) == 0);
	h.gone_fd = openat(h.runtime_fd, "gone",
			   O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(unlinkat(h.runtime_fd, "gone", AT_REMOVEDIR) == 0);
	must(mkdirat(h.runtime_fd, "vm", 0700) == 0);
	h.vm_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(h.vm_event >= 0 && h.gone_fd >= 0);
	log_setup("fuzz", LOG_LEVEL_ERROR);
	log_set_stderr(0);
	unsetenv("NOTIFY_SOCKET");
	atexit(clean_up);
}

/* What an earlier controller may have left. */
static void leave(uint8_t what)
{
	struct net_plan plan = lockdown_plan();
	struct journal j;

	plan.vm_uid = 61101;
	plan.mark = 1;
	if (what & 1) {
		fake_net.firewall = true;
		fake_net.mode =
			what & 2 ? NET_FIREWALL_LOCKDOWN : NET_FIREWALL_OPEN;
	}
	if (what & 4) {
		must(journal_init(&j, &plan, NULL) == 0);
		j.up = what >> 3 & 15;
		fake_net.firewall = fake_net.firewall || (what & 128);
		fake_net.rules = fake_net.firewall && j.up & BROKER_UP_RULES;
		fake_net.tap = fake_net.firewall && j.up & BROKER_UP_TAP;
		if (what & 16) {
			must(journal_add_sysctl(&j,
						"net/ipv4/conf/eth0/rp_filter",
						"1", "2") == 0);
			fake_net.rp_filter = FAKE_SYSCTL_LOOSE;
		}
		must(journal_write(h.runtime_fd, &j, NULL) == 0);
	}
}

static void reset(void)
{
	int dir_fd = h.runtime_fd, gone_fd = h.gone_fd, event = h.vm_event;
	eventfd_t value;
	char dir[sizeof(h.dir)];

	memcpy(dir, h.dir, sizeof(dir));
	memset(&h, 0, sizeof(h));
	h.runtime_fd = dir_fd;
	h.gone_fd = gone_fd;
	h.vm_event = event;
	memcpy(h.dir, dir, sizeof(dir));
	h.engine_fd = -1;
	eventfd_read(h.vm_event, &value);
	journal_remove(dir_fd);
	lockdown_flag_remove(dir_fd);
	fake_net_reset();
	fake_net.before = before_call;
	clock_ms = 1000000;
	dns_heard = 0;
	h.link.fd = -1;
	h.b = BROKER_NULL;
	h.b.spawner = &h.link;
	h.b.runtime_fd = dir_fd;
	h.b.vm_dir_fd =
		openat(dir_fd, "vm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	h.b.vm_uid = 61101;
	h.l.engine_pidfd = -1;
	must(net_open(&h.b.net, NULL) == 0);
}

static void fail_call(unsigned int in_calls, bool late)
{
	fake_net.fail_at = fake_net.n_calls + 1 + in_calls;
	fake_net.fail_late = late;
}

static void step(struct input *in)
{
	uint8_t op = next(in), arg;
	unsigned int i;

	switch (op % 18) {
	case 0: /* a good start */
		for (i = BROKER_REQUEST_PRECHECK; i <= BROKER_REQUEST_SET_DNS;
		     i++)
			if (i != BROKER_REQUEST_REFUSE_TAP)
				send_honest(i, i);
		rounds(8);
		break;
	case 1:
	case 2:
		send_honest(next(in) % (BROKER_REQUEST_COUNT + 1), next(in));
		break;
	case 3:
	case 4:
	case 5: send_hostile(in); break;
	case 6: rounds(1 + next(in) % 4); break;
	case 7: fail_call(next(in) % 8, false); break;
	case 8: fail_call(next(in) % 8, true); break;
	case 9:
		h.disturbed = true;
		fake_net_disturb(next(in) & 31);
		break;
	case 10: vm_dies(next(in) << 8); break;
	case 11: engine_dies(next(in) << (op >= 128 ? 0 : 8)); break;
	case 12: clock_ms += 1ll << next(in) % 18; break;
	case 13: stop(&h.l); break;
	case 14:
		if (op >= 128)
			lockdown_flag_remove(h.runtime_fd);
		else
			lockdown_flag_set(h.runtime_fd);
		break;
	case 15:
		arg = next(in);
		if (arg & 64)
			fake_net.dns = false; /* the resolver forgot */
		dns_heard = arg & 64 ? 1 : arg & 32 ? -EPIPE : 0;
		h.fail_start = arg & 1;
		h.vm_sticks = arg & 2;
		h.deaf = h.deaf || arg & 4;
		fake_net.dns_unsupported = arg & 8;
		if (arg & 128)
			spawner_dies();
		break;
	case 16: /* a flood; slow, so not often */
		if (op < 200)
			break;
		arg = next(in) % (BROKER_REQUEST_COUNT + 1);
		h.deaf = true;
		for (i = 0; i < FLOOD_MAX; i++) {
			struct broker_message m = honest(arg);

			if (!send_raw(&m, sizeof(m), NULL, 0))
				break;
		}
		rounds(i);
		break;
	default: /* no place to write to, and back */
		h.dir_was_gone = true;
		h.b.runtime_fd = op >= 128 ? h.runtime_fd : h.gone_fd;
		break;
	}
	if (op & 64)
		rounds(2);
}

/* The user stops; nothing is in the way any more. The lockdown flag may stay:
 * then so does its block, and nothing else. */
static void stop_at_last(void)
{
	int i;

	fake_net.fail_at = 0;
	fake_net.dns_unsupported = false;
	dns_heard = 0;
	h.vm_sticks = h.fail_start = false;
	h.b.runtime_fd = h.runtime_fd;
	if (h.l.stop_ms == NEVER && !h.l.ended)
		stop(&h.l);
	for (i = 0; i < 8 && !h.l.ended; i++) {
		clock_ms += STOP_TIMEOUT_MS;
		engine_dies(1 << 8);
		rounds(2);
	}
	must(h.l.ended);
	/* An end that came before does not open the network. */
	if (!h.b.unblocked && !h.b.blocked && !h.b.adopted)
		return;
	h.b.stopping = true;
	must(broker_restore(&h.b, NULL) >= 0);
	must(!fake_net.firewall || fake_net.mode == NET_FIREWALL_LOCKDOWN);
	must(!fake_net.rules && !fake_net.tap && !h.vm);
	must(h.b.blemished || fake_net.rp_filter == FAKE_SYSCTL_STRICT);
	must(fake_net.violations == 0 || h.disturbed);
}

static int lowest_free_fd(void)
{
	int fd = dup(h.runtime_fd);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .data = data, .size = size };
	int first_fd, i;

	if (h.runtime_fd < 0)
		prepare();
	if (fake_net.watch_fd >= 0)
		close(fake_net.watch_fd);
	fake_net.watch_fd = -1;
	first_fd = lowest_free_fd();
	reset();
	leave(next(&in));
	i = next(&in);
	if (i)
		fail_call((unsigned int)i % 8, i >= 128);
	if (broker_adopt(&h.b, NULL) == 0) {
		begin(&h.l, &h.b, -1);
		for (i = 0; i < STEPS_MAX && in.size > 0 && !h.l.ended; i++)
			step(&in);
		rounds(2);
		stop_at_last();
		finish(&h.l);
	}
	channel_close_fds(&h.engine_fd, 1);
	broker_deinit(&h.b);
	net_close(h.b.net);
	listeners_remove(h.b.vm_dir_fd);
	close(h.b.vm_dir_fd);
	close(fake_net.watch_fd);
	fake_net.watch_fd = -1;
	must(lowest_free_fd() == first_fd);
	return 0;
}
