/*
 * The one setting of the host that has to change: strict reverse-path filtering
 * on links that lead out. An answer to the uplink arrives there, while the
 * route back to its sender, looked up without a user, goes into the TAP: strict
 * filtering drops it. Loose filtering (2) accepts it. The value in force is the
 * larger of a link's own and `all`, so the link's own is enough.
 *
 * What else leak-model asks for needs no sysctl: redirects are dropped by the
 * prerouting chain, and ARP for the TAP's address by the egress chain.
 */
#include "platform/linux/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define VALUE_MAX 64

static int open_sysctl(const char *name, int flags)
{
	char path[160];

	/* The name comes from a journal: it stays below net/. */
	if (strncmp(name, "net/", 4) != 0 || strstr(name, "..") ||
	    snprintf(path, sizeof(path), "/proc/sys/%s", name) >=
		    (int)sizeof(path)) {
		errno = EINVAL;
		return -1;
	}
	return open(path, flags | O_CLOEXEC | O_NOFOLLOW);
}

static int read_sysctl(const char *name, char ret[VALUE_MAX])
{
	_cleanup_close_ int fd = open_sysctl(name, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, ret, VALUE_MAX - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return 0;
}

static int write_sysctl(const char *name, const char *value)
{
	_cleanup_close_ int fd = open_sysctl(name, O_WRONLY);

	if (fd < 0)
		return -errno;
	return write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

int net_sysctls_apply(struct net *net, const struct net_plan *plan,
		      net_sysctl_save_fn save, void *userdata, struct error *e)
{
	char all[VALUE_MAX], value[VALUE_MAX], name[64];
	struct net_links links;
	int r;

	r = read_sysctl("net/ipv4/conf/all/rp_filter", all);
	if (r < 0)
		return error_set(e, r, "cannot read rp_filter: %s",
				 strerror(-r));
	if (strcmp(all, "2") == 0)
		return 0;
	r = links_read(net, &links, e);
	for (size_t i = 0; r == 0 && i < links.n; i++) {
		const struct net_link *link = &links.v[i];

		if (link_reach(&links, link, plan->tap_name) !=
		    LINK_REACH_OUTER)
			continue;
		snprintf(name, sizeof(name), "net/ipv4/conf/%s/rp_filter",
			 link->name);
		/* A link that has just gone needs nothing. */
		if (read_sysctl(name, value) < 0 || strcmp(value, "2") == 0 ||
		    (strcmp(all, "0") == 0 && strcmp(value, "0") == 0))
			continue;
		r = save(userdata, name, value, "2");
		if (r)
			break;
		r = write_sysctl(name, "2");
		if (r == -ENOENT)
			r = 0;
		if (r < 0)
			error_set(e, r, "cannot set %s to 2: %s", name,
				  strerror(-r));
	}
	links_free(&links);
	return r;
}

int net_sysctl_restore(struct net *net, const char *name, const char *old_value,
		       const char *new_value, struct error *e)
{
	char value[VALUE_MAX];
	int r;

	r = read_sysctl(name, value);
	/* The link is gone, and its settings with it; or somebody else set the
	 * value meanwhile, and it is theirs. */
	if (r == -ENOENT || (r == 0 && strcmp(value, new_value) != 0))
		return 0;
	if (r == 0)
		r = write_sysctl(name, old_value);
	if (r < 0)
		return error_set(e, r, "cannot set %s back to %s: %s", name,
				 old_value, strerror(-r));
	return 0;
}
