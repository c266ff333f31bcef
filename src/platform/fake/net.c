/*
 * The fake network.
 *
 * Theory of operation: one global "kernel" of a few booleans, a log of every
 * call, and a counter by which a test makes the nth call fail, either before
 * or after its change was made (a netlink error can come at both moments).
 * Calls that would open the network in the wrong order are counted.
 */
#include "platform/fake/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct fake_net fake_net = { .watch_fd = -1 };

struct net {
	int unused;
};

static const char *const mode_names[] = {
	[NET_FIREWALL_BLOCKED] = "blocked",
	[NET_FIREWALL_UPLINK] = "uplink",
	[NET_FIREWALL_OPEN] = "open",
	[NET_FIREWALL_LOCKDOWN] = "lockdown",
};

void fake_net_reset(void)
{
	if (fake_net.watch_fd >= 0)
		close(fake_net.watch_fd);
	fake_net = (struct fake_net){
		.rp_filter = FAKE_SYSCTL_STRICT,
		.watch_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
}

void fake_net_disturb(unsigned int changed)
{
	fake_net.changed |= changed;
	if (changed & NET_CHANGED_TAP)
		fake_net.tap = fake_net.tap_configured = false;
	if (changed & NET_CHANGED_FIREWALL)
		fake_net.firewall = false;
	if (changed & NET_CHANGED_RULES)
		fake_net.rules = false;
	eventfd_write(fake_net.watch_fd, 1);
}

/* Return: 0: go on; 1: make the change, then fail; -EIO: fail. */
static int call(struct error *e, const char *fmt, ...) _printf_(2, 3);
static int call(struct error *e, const char *fmt, ...)
{
	size_t len = strlen(fake_net.log);
	char name[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	snprintf(fake_net.log + len, sizeof(fake_net.log) - len, "%s%s",
		 len ? " " : "", name);
	if (fake_net.before)
		fake_net.before(name);
	if (++fake_net.n_calls != fake_net.fail_at)
		return 0;
	error_set(e, -EIO, "%s: failure injected", name);
	return fake_net.fail_late ? 1 : -EIO;
}

static int done(int r)
{
	return r == 1 ? -EIO : 0;
}

int net_open(struct net **ret, struct error *e)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void net_close(struct net *net)
{
	free(net);
}

void net_closep(struct net **net)
{
	net_close(*net);
}

int net_precheck(struct net *net, const struct net_plan *plan, struct error *e)
{
	return done(call(e, "precheck"));
}

int net_firewall_set(struct net *net, const struct net_plan *plan,
		     enum net_firewall mode, struct error *e)
{
	int r = call(e, "firewall_set(%s)", mode_names[mode]);

	if (r < 0)
		return r;
	fake_net.firewall = true;
	fake_net.mode = mode;
	return done(r);
}

int net_firewall_remove(struct net *net, struct error *e)
{
	int r = call(e, "firewall_remove");

	if (r < 0)
		return r;
	if (fake_net.rules || fake_net.tap)
		fake_net.violations++;
	fake_net.firewall = false;
	return done(r);
}

bool net_firewall_present(struct net *net)
{
	return fake_net.firewall;
}

bool net_firewall_is_lockdown(struct net *net)
{
	return fake_net.firewall && fake_net.mode == NET_FIREWALL_LOCKDOWN;
}

uint64_t net_firewall_refused(struct net *net)
{
	return fake_net.firewall ? 42 : 0;
}

size_t net_firewall_refused_by(struct net *net, struct net_refused *ret,
			       size_t max)
{
	if (!fake_net.firewall || max == 0)
		return 0;
	ret[0] = (struct net_refused){ .uid = 1000, .packets = 40 };
	return 1;
}

int net_rules_add(struct net *net, const struct net_plan *plan, struct error *e)
{
	int r = call(e, "rules_add");

	if (r < 0)
		return r;
	if (!fake_net.firewall)
		fake_net.violations++;
	fake_net.rules = true;
	return done(r);
}

int net_rules_remove(struct net *net, struct error *e)
{
	int r = call(e, "rules_remove");

	if (r < 0)
		return r;
	if (!fake_net.firewall && fake_net.tap)
		fake_net.violations++;
	fake_net.rules = false;
	return done(r);
}

static int null_fd(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

int net_tap_create(struct net *net, const struct net_plan *plan, int *ret_fd,
		   struct error *e)
{
	int r = call(e, "tap_create");

	if (r < 0)
		return r;
	if (!fake_net.firewall)
		fake_net.violations++;
	fake_net.tap = true;
	if (r == 0)
		*ret_fd = null_fd();
	return done(r);
}

int net_tap_open(struct net *net, const struct net_plan *plan, int *ret_fd,
		 struct error *e)
{
	int r = call(e, "tap_open");

	if (r == 0)
		*ret_fd = null_fd();
	return r ? -EIO : 0;
}

int net_tap_configure(struct net *net, const struct net_plan *plan,
		      struct error *e)
{
	int r = call(e, "tap_configure");

	if (r < 0)
		return r;
	fake_net.tap_configured = fake_net.tap;
	return done(r);
}

int net_tap_delete(struct net *net, const struct net_plan *plan,
		   struct error *e)
{
	int r = call(e, "tap_delete");

	if (r < 0)
		return r;
	fake_net.tap = fake_net.tap_configured = false;
	return done(r);
}

bool net_tap_find(struct net *net, char ret[IFNAMSIZ])
{
	if (fake_net.tap)
		str_copy(ret, IFNAMSIZ, "torvm0");
	return fake_net.tap;
}

int net_forwarded_end(struct net *net, const struct net_plan *plan,
		      struct error *e)
{
	return done(call(e, "forwarded_end"));
}

int net_sockets_destroy(struct net *net, struct in_addr addr, struct error *e)
{
	return done(call(e, "sockets_destroy"));
}

int net_uplink_renew(struct net *net, const struct net_plan *plan, bool all,
		     unsigned int *ret_closed, struct error *e)
{
	*ret_closed = 1;
	return done(call(e, "uplink_renew(%s)", all ? "all" : "changed"));
}

int net_dns_set(struct net *net, const struct net_plan *plan, struct error *e)
{
	int r = call(e, "dns_set");

	if (fake_net.dns_unsupported)
		return error_set(e, -EOPNOTSUPP, "no systemd-resolved here");
	if (r < 0)
		return r;
	fake_net.dns = true;
	return done(r);
}

int net_dns_check(struct net *net, const struct net_plan *plan, struct error *e)
{
	if (fake_net.dns_unsupported)
		return error_set(e, -EOPNOTSUPP, "no systemd-resolved here");
	return fake_net.dns;
}

int net_dns_restore(struct net *net, const struct net_plan *plan,
		    struct error *e)
{
	int r = call(e, "dns_restore");

	if (r < 0)
		return r;
	fake_net.dns = false;
	return done(r);
}

int net_sysctls_apply(struct net *net, const struct net_plan *plan,
		      net_sysctl_save_fn save, void *userdata, struct error *e)
{
	int r = call(e, "sysctls_apply");

	if (r < 0)
		return r;
	if (fake_net.rp_filter == FAKE_SYSCTL_STRICT) {
		int s = save(userdata, "net/ipv4/conf/eth0/rp_filter", "1",
			     "2");

		if (s < 0)
			return error_set(e, s, "not saved");
		fake_net.rp_filter = FAKE_SYSCTL_LOOSE;
	}
	return done(r);
}

int net_sysctl_restore(struct net *net, const char *name, const char *old_value,
		       const char *new_value, struct error *e)
{
	int r = call(e, "sysctl_restore");

	if (r < 0)
		return r;
	if (fake_net.rp_filter == new_value[0] - '0')
		fake_net.rp_filter = old_value[0] - '0';
	return done(r);
}

int net_watch_fd(struct net *net)
{
	return fake_net.watch_fd;
}

unsigned int net_watch_read(struct net *net, const struct net_plan *plan)
{
	unsigned int changed = fake_net.changed;
	eventfd_t value;

	fake_net.changed = 0;
	eventfd_read(fake_net.watch_fd, &value);
	return changed;
}
