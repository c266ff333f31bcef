/*
 * Theory of operation
 *
 * systemd-resolved is told over D-Bus, for the TAP's link only: the VM answers
 * every name (`~.`), and nothing is asked by other protocols. When the link
 * goes so do its settings; RevertLink undoes them before that. Nobody else's
 * link is touched and no file is written.
 *
 * The system bus may reach a resolver of another network namespace (`ip netns
 * exec` shares /run). Its links are not ours, and telling it would change a
 * network that TorVM does not protect; so the owner of the bus name must live
 * in our namespace. Where it cannot be read whose namespace it is, it is not
 * asked.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <systemd/sd-bus.h>

#define SERVICE "org.freedesktop.resolve1"
#define OBJECT "/org/freedesktop/resolve1"
#define INTERFACE "org.freedesktop.resolve1.Manager"

static bool same_file(const char *a, const char *b, int *ret_errno)
{
	struct stat sa, sb;

	if (stat(a, &sa) < 0 || stat(b, &sb) < 0) {
		*ret_errno = errno;
		return false;
	}
	*ret_errno = 0;
	return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static bool in_our_network(pid_t pid)
{
	char path[64];
	bool same;
	int err;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	same = same_file(path, "/proc/self/ns/net", &err);
	if (err != EACCES && err != EPERM)
		return same;
	/* Following that link takes CAP_SYS_PTRACE, which the broker has not.
	 * The files of a namespace below net/ are its own, and so are their
	 * inode numbers. */
	snprintf(path, sizeof(path), "/proc/%d/net/dev", (int)pid);
	return same_file(path, "/proc/self/net/dev", &err);
}

static int connect_resolved(sd_bus **ret, struct error *e)
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	_cleanup_(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;
	pid_t pid;
	int r;

	r = sd_bus_open_system(&bus);
	if (r < 0)
		return error_set(e, -EOPNOTSUPP, "there is no system bus");
	sd_bus_set_method_call_timeout(bus, NET_DNS_TIMEOUT_MS * 1000ULL);
	/* Does not start a service that is not running. */
	r = sd_bus_get_name_creds(bus, SERVICE, SD_BUS_CREDS_PID, &creds);
	if (r < 0)
		return error_set(e, -EOPNOTSUPP,
				 "systemd-resolved is not running");
	r = sd_bus_creds_get_pid(creds, &pid);
	if (r < 0 || !in_our_network(pid))
		return error_set(e, -EOPNOTSUPP,
				 "systemd-resolved belongs to another network");
	*ret = bus;
	bus = NULL;
	return 0;
}

static int failed(struct error *e, int r, const char *method,
		  const sd_bus_error *error)
{
	return error_set(e, r, "systemd-resolved refused %s: %s", method,
			 error->message ? error->message : strerror(-r));
}

/* A method of (link, string). */
static int set_string(sd_bus *bus, const char *method, int ifindex,
		      const char *value, struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	r = sd_bus_call_method(bus, SERVICE, OBJECT, INTERFACE, method, &error,
			       NULL, "is", ifindex, value);
	return r < 0 ? failed(e, r, method, &error) : 0;
}

static int set_dns(sd_bus *bus, int ifindex, struct in_addr server,
		   struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	int r;

	r = sd_bus_message_new_method_call(bus, &m, SERVICE, OBJECT, INTERFACE,
					   "SetLinkDNS");
	if (r >= 0)
		r = sd_bus_message_append(m, "i", ifindex);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(iay)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'r', "iay");
	if (r >= 0)
		r = sd_bus_message_append(m, "i", AF_INET);
	if (r >= 0)
		r = sd_bus_message_append_array(m, 'y', &server,
						sizeof(server));
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_call(bus, m, 0, &error, NULL);
	return r < 0 ? failed(e, r, "SetLinkDNS", &error) : 0;
}

static int set_domains(sd_bus *bus, int ifindex, struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	/* Routing only: no search suffix. */
	r = sd_bus_call_method(bus, SERVICE, OBJECT, INTERFACE,
			       "SetLinkDomains", &error, NULL, "ia(sb)",
			       ifindex, 1, ".", 1);
	if (r < 0)
		return failed(e, r, "SetLinkDomains", &error);
	r = sd_bus_call_method(bus, SERVICE, OBJECT, INTERFACE,
			       "SetLinkDefaultRoute", &error, NULL, "ib",
			       ifindex, 1);
	/* Since systemd 240; `~.` says it too. */
	if (r < 0 &&
	    !sd_bus_error_has_name(&error, SD_BUS_ERROR_UNKNOWN_METHOD))
		return failed(e, r, "SetLinkDefaultRoute", &error);
	return 0;
}

static int flush_caches(sd_bus *bus, struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	r = sd_bus_call_method(bus, SERVICE, OBJECT, INTERFACE, "FlushCaches",
			       &error, NULL, NULL);
	return r < 0 ? failed(e, r, "FlushCaches", &error) : 0;
}

int net_dns_set(struct net *net, const struct net_plan *plan, struct error *e)
{
	/* DoT off: Tor's DNSPort speaks plain DNS; DNSSEC off: it has no
	 * records but A, AAAA and PTR. The others would ask the link. */
	static const struct {
		const char *method, *value;
	} settings[] = {
		{ "SetLinkLLMNR", "no" },
		{ "SetLinkMulticastDNS", "no" },
		{ "SetLinkDNSOverTLS", "no" },
		{ "SetLinkDNSSEC", "no" },
	};
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	struct net_link link;
	int r;

	r = connect_resolved(&bus, e);
	if (r < 0)
		return r;
	r = link_read(net, plan->tap_name, &link);
	if (r < 0)
		return error_set(e, r, "the TAP %s is not there",
				 plan->tap_name);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(settings); i++)
		r = set_string(bus, settings[i].method, link.index,
			       settings[i].value, e);
	if (r >= 0)
		r = set_dns(bus, link.index, plan->vm_ip, e);
	if (r >= 0)
		r = set_domains(bus, link.index, e);
	/* Addresses learned in clear must not outlive the change. */
	if (r >= 0)
		r = flush_caches(bus, e);
	return r;
}

int net_dns_restore(struct net *net, const struct net_plan *plan,
		    struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	struct net_link link;
	int r;

	r = connect_resolved(&bus, e);
	if (r < 0)
		return r;
	/* With the link its settings have gone. */
	if (link_read(net, plan->tap_name, &link) == 0) {
		r = sd_bus_call_method(bus, SERVICE, OBJECT, INTERFACE,
				       "RevertLink", &error, NULL, "i",
				       link.index);
		if (r < 0 &&
		    !sd_bus_error_has_name(
			    &error, "org.freedesktop.resolve1.NoSuchLink"))
			return failed(e, r, "RevertLink", &error);
	}
	return flush_caches(bus, e);
}
