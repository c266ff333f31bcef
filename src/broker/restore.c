#include "broker/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/listeners.h"
#include "broker/lock.h"
#include "broker/lockdown.h"
#include "broker/spawner.h"

#define KILL_TIMEOUT_MS 10000

struct reporter {
	restore_report_fn fn;
	void *userdata;
};

static void say(const struct reporter *r, const char *fmt, ...) _printf_(2, 3);
static void say(const struct reporter *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!r->fn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->fn(r->userdata, text);
}

static int remove_tap(struct net *net, struct journal *j,
		      const struct reporter *report, struct error *e)
{
	struct error sockets = ERROR_NULL(sockets);
	int r;

	/* While the TAP is still there: by it containers are told; and a socket
	 * that keeps its address would speak from it on the physical link
	 * later. */
	if (net_forwarded_end(net, &j->plan, &sockets) < 0)
		say(report,
		    "Connections of containers through Tor could not be closed "
		    "(%s); what they say on them now goes to their servers "
		    "directly",
		    sockets.text);
	if (net_sockets_destroy(net, j->plan.host_ip, &sockets) < 0)
		say(report,
		    "Open connections through Tor could not be closed (%s); "
		    "they fail when they are next used",
		    sockets.text);
	r = net_tap_delete(net, &j->plan, e);
	if (r < 0)
		return r;
	j->up &= ~(uint32_t)BROKER_UP_TAP;
	say(report, "Removed the network link to the VM, %s", j->plan.tap_name);
	return 0;
}

/* Last changed, first restored; those that fail stay in the journal. */
static void restore_sysctls(struct net *net, struct journal *j,
			    const struct reporter *report, struct error *e)
{
	size_t i, n_failed = 0;

	for (i = j->n_sysctls; i-- > 0;) {
		struct journal_sysctl s = j->sysctls[i];

		if (net_sysctl_restore(net, s.name, s.old_value, s.new_value,
				       e) < 0)
			j->sysctls[JOURNAL_SYSCTLS_MAX - ++n_failed] = s;
		else
			say(report, "Set %s back to %s", s.name, s.old_value);
	}
	memmove(j->sysctls, j->sysctls + JOURNAL_SYSCTLS_MAX - n_failed,
		n_failed * sizeof(j->sysctls[0]));
	j->n_sysctls = n_failed;
}

int restore_network(struct net *net, int dir_fd, struct journal *j,
		    enum restore_end end, restore_report_fn fn, void *userdata,
		    struct error *e)
{
	struct reporter report = { .fn = fn, .userdata = userdata };
	struct error blemish = ERROR_NULL(blemish);
	int r;

	if (j->up & BROKER_UP_TAP) {
		r = remove_tap(net, j, &report, e);
		if (r < 0)
			return r;
	}
	if (j->up & BROKER_UP_DNS) {
		struct error dns = ERROR_NULL(dns);

		/* The settings belong to the link and went with it: at worst
		 * an answer stays in a cache. */
		r = net_dns_restore(net, &j->plan, &dns);
		if (r == 0)
			say(&report, "Took TorVM out of the DNS settings");
		else if (r != -EOPNOTSUPP)
			say(&report, "DNS caches were not flushed: %s",
			    dns.text);
		j->up &= ~(uint32_t)BROKER_UP_DNS;
	}
	restore_sysctls(net, j, &report, &blemish);
	if (j->up & BROKER_UP_RULES) {
		r = net_rules_remove(net, e);
		if (r < 0)
			return r;
		j->up &= ~(uint32_t)BROKER_UP_RULES;
		say(&report, "Removed the routing rules");
	}
	if (end == RESTORE_TO_CONTROLLER)
		return RESTORE_DONE;
	if (end == RESTORE_TO_LOCKDOWN) {
		r = net_firewall_set(net, &j->plan, NET_FIREWALL_LOCKDOWN, e);
		if (r < 0)
			return r;
		j->up &= ~(uint32_t)BROKER_UP_FIREWALL;
		say(&report, "Lockdown is on: traffic stays blocked; \"torvm "
			     "lockdown off\" opens the network");
	} else if (j->up & BROKER_UP_FIREWALL) {
		r = net_firewall_remove(net, e);
		if (r < 0)
			return r;
		j->up &= ~(uint32_t)BROKER_UP_FIREWALL;
		say(&report,
		    "Removed the firewall's block: the network is open");
	}
	if (dir_fd < 0)
		return RESTORE_DONE; /* no directory, no journal */
	if (j->n_sysctls > 0) {
		journal_write(dir_fd, j, NULL);
		error_set(e, blemish.code,
			  "the network is %s, but %s; when that is mended: "
			  "torvm recover",
			  end == RESTORE_TO_LOCKDOWN ? "under lockdown"
						     : "open again",
			  blemish.text);
		return RESTORE_BLEMISHED;
	}
	r = journal_remove(dir_fd);
	if (r < 0)
		return error_set(e, r,
				 "everything is restored, but the journal "
				 "cannot be removed: %s",
				 strerror(-r));
	return RESTORE_DONE;
}

void restore_clean_dir(int dir_fd)
{
	int vm_dir_fd = openat(dir_fd, RUNTIME_VM_DIR,
			       O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (vm_dir_fd >= 0) {
		listeners_remove(vm_dir_fd);
		close(vm_dir_fd);
	}
	unlinkat(dir_fd, RUNTIME_VM_DIR, AT_REMOVEDIR);
	unlinkat(dir_fd, RUNTIME_CONTROL_SOCKET, 0);
	unlinkat(dir_fd, LOCK_FILE_NAME, 0);
}

void restore_assume(struct net *net, struct journal *ret)
{
	*ret = (struct journal){
		.plan = lockdown_plan(),
		.up = BROKER_UP_FIREWALL | BROKER_UP_RULES | BROKER_UP_TAP |
		      BROKER_UP_DNS,
	};
	/* A configuration may have given it another name. */
	net_tap_find(net, ret->plan.tap_name);
}

int restore_kill_vm(pid_t pid, uint64_t started, struct error *e)
{
	_cleanup_close_ int pidfd = -1;
	struct pollfd p;

	if (pid <= 1)
		return 0;
	/* First the pidfd, then the look at the start time: what the pidfd
	 * names cannot become another process in between. */
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		if (errno == ESRCH)
			return 0;
		return error_set(e, -errno, "pidfd_open: %s", strerror(errno));
	}
	if (process_start_time(pid) != started)
		return 0;
	/* Dead already, but nobody has asked for its status yet. */
	p = (struct pollfd){ .fd = pidfd, .events = POLLIN };
	if (poll(&p, 1, 0) == 1)
		return 0;
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0)
		return errno == ESRCH
			       ? 0
			       : error_set(e, -errno,
					   "QEMU (pid %d) cannot be killed: %s",
					   pid, strerror(errno));
	if (poll(&p, 1, KILL_TIMEOUT_MS) != 1)
		return error_set(e, -ETIMEDOUT,
				 "QEMU (pid %d) does not die; nothing else was "
				 "changed",
				 pid);
	return 1;
}
