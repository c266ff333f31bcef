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
 *
 * The watch is a connection of its own that only listens: to the bus, for a
 * resolved that starts, and to resolved's own signal that settings of some link
 * have changed. Either says no more than that it is time to look.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <systemd/sd-bus.h>

#define SERVICE "org.freedesktop.resolve1"
#define OBJECT "/org/freedesktop/resolve1"
#define INTERFACE "org.freedesktop.resolve1.Manager"

#define OWNER_MATCH                                                   \
	"type='signal',sender='org.freedesktop.DBus',"                \
	"interface='org.freedesktop.DBus',member='NameOwnerChanged'," \
	"arg0='" SERVICE "'"
/* Messages that one look at the watch takes, however many there are. */
#define WATCH_MESSAGES_MAX 256

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

/* Entries of Manager's lists DNS, a(iiay), and Domains, a(isb), after the
 * link's index. Return: whether it is what net_dns_set() sets. */
static int read_server(sd_bus_message *m, const struct net_plan *plan)
{
	const void *address;
	int32_t family;
	size_t len;
	int r;

	r = sd_bus_message_read(m, "i", &family);
	if (r >= 0)
		r = sd_bus_message_read_array(m, 'y', &address, &len);
	if (r < 0)
		return r;
	return family == AF_INET && len == sizeof(plan->vm_ip) &&
	       memcmp(address, &plan->vm_ip, len) == 0;
}

static int read_domain(sd_bus_message *m, const struct net_plan *plan)
{
	const char *domain;
	int routing_only, r;

	r = sd_bus_message_read(m, "sb", &domain, &routing_only);
	return r < 0 ? r : routing_only && strcmp(domain, ".") == 0;
}

/* Whether one of Manager's lists has our entry for the link, and it alone. */
static int check_list(sd_bus *bus, const char *property, const char *entry,
		      int (*read)(sd_bus_message *m,
				  const struct net_plan *plan),
		      const struct net_plan *plan, int ifindex, struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	int r, n_ours = 0, n_others = 0;
	char list[16], array[20];

	snprintf(list, sizeof(list), "(%s)", entry);
	snprintf(array, sizeof(array), "a%s", list);
	r = sd_bus_get_property(bus, SERVICE, OBJECT, INTERFACE, property,
				&error, &m, array);
	if (r < 0)
		return failed(e, r, property, &error);
	r = sd_bus_message_enter_container(m, 'a', list);
	while (r >= 0 &&
	       (r = sd_bus_message_enter_container(m, 'r', entry)) > 0) {
		int32_t index;

		r = sd_bus_message_read(m, "i", &index);
		if (r >= 0)
			r = read(m, plan);
		if (r >= 0 && index == ifindex)
			*(r ? &n_ours : &n_others) += 1;
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r < 0)
		return error_set(e, r, "systemd-resolved's list of %s: %s",
				 property, strerror(-r));
	return n_ours == 1 && n_others == 0;
}

int net_dns_check(struct net *net, const struct net_plan *plan, struct error *e)
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	struct net_link link;
	int r;

	r = connect_resolved(&bus, e);
	if (r < 0)
		return r;
	if (link_read(net, plan->tap_name, &link) < 0)
		return error_set(e, -ENODEV, "the TAP %s is not there",
				 plan->tap_name);
	r = check_list(bus, "DNS", "iiay", read_server, plan, link.index, e);
	if (r > 0)
		r = check_list(bus, "Domains", "isb", read_domain, plan,
			       link.index, e);
	return r;
}

/* A string property of Manager's; "" if this version has none. */
static void read_string(sd_bus *bus, const char *property, char *ret,
			size_t size)
{
	char *value = NULL;

	ret[0] = '\0';
	if (sd_bus_get_property_string(bus, SERVICE, OBJECT, INTERFACE,
				       property, NULL, &value) >= 0)
		str_copy(ret, size, value);
	free(value);
}

int net_dns_survey(const char *tap_name, struct net_dns_survey *ret,
		   struct error *e)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	int r;

	*ret = (struct net_dns_survey){ 0 };
	r = connect_resolved(&bus, e);
	if (r < 0)
		return r;
	read_string(bus, "DNSSEC", ret->dnssec, sizeof(ret->dnssec));
	read_string(bus, "DNSOverTLS", ret->over_tls, sizeof(ret->over_tls));
	r = sd_bus_get_property(bus, SERVICE, OBJECT, INTERFACE, "Domains",
				&error, &m, "a(isb)");
	if (r < 0)
		return failed(e, r, "Domains", &error);
	r = sd_bus_message_enter_container(m, 'a', "(isb)");
	while (r >= 0) {
		char link[IF_NAMESIZE];
		const char *domain;
		int routing_only;
		int32_t index;
		bool all;

		r = sd_bus_message_read(m, "(isb)", &index, &domain,
					&routing_only);
		if (r <= 0)
			break;
		all = routing_only && strcmp(domain, ".") == 0;
		if (index == 0)
			ret->global_all = ret->global_all || all;
		else if (!if_indextoname((unsigned int)index, link))
			continue;
		else if (strcmp(link, tap_name) == 0)
			ret->tap_all = ret->tap_all || all;
		else if (!ret->link[0]) {
			str_copy(ret->link, sizeof(ret->link), link);
			str_copy(ret->domain, sizeof(ret->domain), domain);
		}
	}
	return r < 0 ? error_set(e, r, "systemd-resolved's answer: %s",
				 strerror(-r))
		     : 0;
}

bool net_firewalld_panics(void)
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	int panics = 0;

	if (sd_bus_open_system(&bus) < 0)
		return false;
	sd_bus_set_method_call_timeout(bus, NET_DNS_TIMEOUT_MS * 1000ULL);
	/* Does not start it: its name is taken only while it runs. */
	if (sd_bus_get_name_creds(bus, "org.fedoraproject.FirewallD1", 0,
				  NULL) < 0)
		return false;
	if (sd_bus_call_method(bus, "org.fedoraproject.FirewallD1",
			       "/org/fedoraproject/FirewallD1",
			       "org.fedoraproject.FirewallD1", "queryPanicMode",
			       NULL, &reply, NULL) < 0)
		return false;
	return sd_bus_message_read(reply, "b", &panics) >= 0 && panics;
}

/* --- the watch --- */

struct net_dns_watch {
	sd_bus *bus;
	bool changed;
};

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct net_dns_watch *watch = userdata;

	watch->changed = true;
	return 0;
}

int net_dns_watch_open(struct net_dns_watch **ret, struct error *e)
{
	_cleanup_(net_dns_watch_closep) struct net_dns_watch *watch =
		calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return error_set(e, -ENOMEM, "out of memory");
	r = sd_bus_open_system(&watch->bus);
	/* That the bus has heard of it counts as a change, too: what happened
	 * before was not seen. */
	if (r >= 0)
		r = sd_bus_add_match_async(watch->bus, NULL, OWNER_MATCH,
					   on_signal, on_signal, watch);
	if (r >= 0)
		r = sd_bus_match_signal_async(watch->bus, NULL, SERVICE, OBJECT,
					      "org.freedesktop.DBus.Properties",
					      "PropertiesChanged", on_signal,
					      on_signal, watch);
	if (r < 0)
		return error_set(e, r, "cannot listen to the system bus: %s",
				 strerror(-r));
	*ret = watch;
	watch = NULL;
	return 0;
}

void net_dns_watch_close(struct net_dns_watch *watch)
{
	if (!watch)
		return;
	sd_bus_close_unref(watch->bus);
	free(watch);
}

void net_dns_watch_closep(struct net_dns_watch **watch)
{
	net_dns_watch_close(*watch);
}

int net_dns_watch_fd(struct net_dns_watch *watch, short *ret_events)
{
	int events = sd_bus_get_events(watch->bus);

	*ret_events = (short)(events < 0 ? POLLIN : events);
	return sd_bus_get_fd(watch->bus);
}

int net_dns_watch_read(struct net_dns_watch *watch)
{
	int r = 1;

	for (int i = 0; r > 0 && i < WATCH_MESSAGES_MAX; i++)
		r = sd_bus_process(watch->bus, NULL);
	if (r < 0)
		return r;
	r = watch->changed;
	watch->changed = false;
	return r;
}
