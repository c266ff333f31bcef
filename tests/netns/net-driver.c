/*
 * Drives platform/platform.h from a test: reads one command a line from stdin,
 * answers each with one line: "ok [value]" or "error ERRNO-NAME sentence". It
 * holds its `struct net` all along, as the broker does, so that killing it
 * orphans the tables as killing the broker does.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ip.h"
#include "platform/platform.h"

static struct net_plan plan = {
	.tap_name = "torvm0",
	.uplink = { .any_tcp = true },
};
static int tap_fd = -1;

static int save(void *userdata, const char *name, const char *old_value,
		const char *new_value)
{
	char *text = userdata;
	size_t len = strlen(text);

	snprintf(text + len, 4096 - len, "%s%s=%s>%s", len ? "," : "", name,
		 old_value, new_value);
	return 0;
}

static int set_mode(struct net *net, const char *mode, struct error *e)
{
	static const char *const names[] = {
		[NET_FIREWALL_BLOCKED] = "blocked",
		[NET_FIREWALL_UPLINK] = "uplink",
		[NET_FIREWALL_OPEN] = "open",
		[NET_FIREWALL_LOCKDOWN] = "lockdown",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i], mode) == 0)
			return net_firewall_set(net, &plan,
						(enum net_firewall)i, e);
	return error_set(e, -EINVAL, "mode '%s'", mode);
}

/* "any-tcp any-udp6 tcp:192.0.2.1:443 tcp:[2001:db8::1]:443": from the next
 * `firewall` on. */
static int set_uplink(char *words, struct error *e)
{
	struct net_uplink *u = &plan.uplink;

	*u = (struct net_uplink){ 0 };
	for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
		struct net_peer *peer = &u->peers[u->n_peers];
		char ip[IP_TEXT_MAX];

		if (!strcmp(word, "any-tcp")) {
			u->any_tcp = true;
		} else if (!strcmp(word, "any-udp")) {
			u->any_udp = true;
		} else if (!strcmp(word, "any-tcp6")) {
			u->any_tcp6 = true;
		} else if (!strcmp(word, "any-udp6")) {
			u->any_udp6 = true;
		} else {
			if (u->n_peers == NET_PEERS_MAX ||
			    (sscanf(word + 4, "%15[0-9.]:%hu", ip,
				    &peer->port) != 2 &&
			     sscanf(word + 4, "[%45[0-9a-f:]]:%hu", ip,
				    &peer->port) != 2) ||
			    ip_parse(ip, &peer->address) < 0)
				return error_set(e, -EINVAL, "peer '%s'", word);
			peer->protocol =
				word[0] == 'u' ? IPPROTO_UDP : IPPROTO_TCP;
			u->n_peers++;
		}
	}
	return 0;
}

static int watch(struct net *net, int timeout_ms, char *value)
{
	struct pollfd pfd = { .fd = net_watch_fd(net), .events = POLLIN };
	unsigned int changed = 0;

	while (!changed && poll(&pfd, 1, timeout_ms) > 0)
		changed = net_watch_read(net, &plan);
	snprintf(value, 4096, "%u", changed);
	return 0;
}

/* "UID:PACKETS UID:PACKETS ..." */
static int refused_by(struct net *net, char *value)
{
	struct net_refused by[16];
	size_t n = net_firewall_refused_by(net, by, ARRAY_SIZE(by)), len = 0;

	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(value + len, 64, "%s%u:%llu",
					i ? " " : "", by[i].uid,
					(unsigned long long)by[i].packets);
	return 0;
}

static int handle(struct net *net, char *line, char *value, struct error *e)
{
	char *word, *arg, *arg2, *arg3;
	int r;

	if (strncmp(line, "uplink ", 7) == 0)
		return set_uplink(line + 7, e);
	word = strtok(line, " ");
	arg = strtok(NULL, " ");
	arg2 = strtok(NULL, " ");
	arg3 = strtok(NULL, " ");
	if (!word)
		return -EINVAL;
	if (strcmp(word, "lan-access") == 0) {
		plan.lan_access = arg && strcmp(arg, "on") == 0;
		return 0;
	}
	if (strcmp(word, "precheck") == 0)
		return net_precheck(net, &plan, e);
	if (strcmp(word, "firewall") == 0)
		return set_mode(net, arg, e);
	if (strcmp(word, "firewall-remove") == 0)
		return net_firewall_remove(net, e);
	if (strcmp(word, "present") == 0)
		return snprintf(value, 4096, "%d", net_firewall_present(net)),
		       0;
	if (strcmp(word, "refused") == 0)
		return snprintf(value, 4096, "%llu",
				(unsigned long long)net_firewall_refused(net)),
		       0;
	if (strcmp(word, "refused-by") == 0)
		return refused_by(net, value);
	if (strcmp(word, "rules-add") == 0)
		return net_rules_add(net, &plan, e);
	if (strcmp(word, "rules-remove") == 0)
		return net_rules_remove(net, e);
	if (strcmp(word, "tap-create") == 0 || strcmp(word, "tap-open") == 0) {
		if (tap_fd >= 0)
			close(tap_fd);
		tap_fd = -1;
		r = word[4] == 'c' ? net_tap_create(net, &plan, &tap_fd, e)
				   : net_tap_open(net, &plan, &tap_fd, e);
		snprintf(value, 4096, "%d", tap_fd);
		return r;
	}
	if (strcmp(word, "tap-close") == 0) {
		close(tap_fd);
		tap_fd = -1;
		return 0;
	}
	/* Packets that wait in the TAP's queue, taken out and counted; with an
	 * argument only those that hold it. */
	if (strcmp(word, "tap-read") == 0) {
		char buf[65536];
		ssize_t len;
		int n = 0;

		while ((len = read(tap_fd, buf, sizeof(buf))) > 0)
			n += !arg ||
			     memmem(buf, (size_t)len, arg, strlen(arg)) != NULL;
		snprintf(value, 4096, "%d", n);
		return 0;
	}
	if (strcmp(word, "tap-configure") == 0)
		return net_tap_configure(net, &plan, e);
	if (strcmp(word, "tap-delete") == 0)
		return net_tap_delete(net, &plan, e);
	if (strcmp(word, "forwarded-end") == 0)
		return net_forwarded_end(net, &plan, e);
	if (strcmp(word, "sockets-destroy") == 0)
		return net_sockets_destroy(net, plan.host_ip, e);
	if (strcmp(word, "uplink-renew") == 0 && arg) {
		unsigned int closed;

		r = net_uplink_renew(net, &plan, strcmp(arg, "all") == 0,
				     &closed, e);
		snprintf(value, 4096, "%u", closed);
		return r;
	}
	if (strcmp(word, "dns-set") == 0)
		return net_dns_set(net, &plan, e);
	if (strcmp(word, "dns-check") == 0) {
		r = net_dns_check(net, &plan, e);
		snprintf(value, 4096, "%d", r);
		return r < 0 ? r : 0;
	}
	if (strcmp(word, "dns-restore") == 0)
		return net_dns_restore(net, &plan, e);
	if (strcmp(word, "sysctls") == 0)
		return net_sysctls_apply(net, &plan, save, value, e);
	if (strcmp(word, "sysctl-restore") == 0 && arg3)
		return net_sysctl_restore(net, arg, arg2, arg3, e);
	if (strcmp(word, "watch") == 0)
		return watch(net, arg ? atoi(arg) : 0, value);
	return error_set(e, -EINVAL, "command '%s'", word);
}

int main(int argc, char **argv)
{
	_cleanup_(net_closep) struct net *net = NULL;
	struct error e = { 0 };
	char line[512], value[4096];
	int r;

	if (argc != 3)
		return 2;
	inet_pton(AF_INET, "10.10.10.2", &plan.host_ip);
	inet_pton(AF_INET, "10.10.10.1", &plan.vm_ip);
	plan.vm_uid = (uid_t)strtoul(argv[1], NULL, 10);
	plan.mark = (uint32_t)strtoul(argv[2], NULL, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	r = net_open(&net, &e);
	if (r < 0) {
		printf("error %s %s\n", strerrorname_np(-r), e.text);
		return 1;
	}
	puts("ok");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		value[0] = '\0';
		e = (struct error){ 0 };
		r = handle(net, line, value, &e);
		if (r < 0)
			printf("error %s %s\n", strerrorname_np(-r), e.text);
		else
			printf("ok %s\n", value);
	}
	return 0;
}
