/*
 * Lockdown.
 *
 * Theory of operation: the broker's lock decides who may touch the tables. If
 * it is free, there is no controller, and we hold it while we work, so that
 * none begins meanwhile. If it is taken, the tables are the controller's, and
 * only the flag changes, which the broker reads when it is asked to open the
 * network.
 *
 * On: first the block, then the flag. Off: first the flag. Killed in between,
 * the network is closed and the next `torvm lockdown off` opens it.
 *
 * This file is also part of torvm-block, which is linked statically and runs
 * before any file system but the root one is mounted: it reads no file.
 */
#include "broker/lockdown.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "broker/journal.h"
#include "broker/lock.h"

bool lockdown_flag_present(int runtime_fd)
{
	return faccessat(runtime_fd, LOCKDOWN_FLAG, F_OK,
			 AT_SYMLINK_NOFOLLOW) == 0 ||
	       errno != ENOENT;
}

int lockdown_flag_set(int runtime_fd)
{
	int fd = openat(runtime_fd, LOCKDOWN_FLAG,
			O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int lockdown_flag_remove(int runtime_fd)
{
	return unlinkat(runtime_fd, LOCKDOWN_FLAG, 0) < 0 && errno != ENOENT
		       ? -errno
		       : 0;
}

struct net_plan lockdown_plan(void)
{
	struct net_plan plan = { .tap_name = "torvm0" };

	inet_pton(AF_INET, "10.10.10.2", &plan.host_ip);
	inet_pton(AF_INET, "10.10.10.1", &plan.vm_ip);
	return plan;
}

static int open_dir(const char *path, bool make, struct error *e)
{
	int fd;

	if (make && mkdir(path, 0755) < 0 && errno != EEXIST)
		return error_set(e, -errno, "%s cannot be made: %s", path,
				 strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? error_set(e, -errno, "%s cannot be opened: %s", path,
				  strerror(errno))
		      : fd;
}

int lockdown_enter(const char *runtime_dir, struct error *e)
{
	_cleanup_(lock_release) struct lock lock = LOCK_NULL;
	_cleanup_(net_closep) struct net *net = NULL;
	const struct net_plan plan = lockdown_plan();
	_cleanup_close_ int dir_fd = -1;
	bool controller;
	int r;

	r = lock_take(&lock, e);
	controller = r == -EBUSY;
	if (r == 0)
		r = net_open(&net, e);
	if (r == 0)
		r = net_firewall_set(net, &plan, NET_FIREWALL_LOCKDOWN, e);
	if (r < 0 && !controller)
		return r;
	dir_fd = open_dir(runtime_dir, true, e);
	r = dir_fd < 0 ? dir_fd : lockdown_flag_set(dir_fd);
	if (r < 0)
		return error_set(
			e, r,
			"%s, but %s/" LOCKDOWN_FLAG
			" cannot be written (%s), so that it ends with "
			"the next \"torvm down\"",
			controller ? "TorVM's block is up" : "the block is up",
			runtime_dir, strerror(-r));
	return controller;
}

int lockdown_leave(const char *runtime_dir, struct error *e)
{
	_cleanup_(lock_release) struct lock lock = LOCK_NULL;
	_cleanup_(net_closep) struct net *net = NULL;
	_cleanup_close_ int dir_fd = -1;
	int r;

	dir_fd = open_dir(runtime_dir, false, e);
	if (dir_fd < 0 && dir_fd != -ENOENT)
		return dir_fd;
	r = dir_fd < 0 ? 0 : lockdown_flag_remove(dir_fd);
	if (r < 0)
		return error_set(e, r,
				 "%s/" LOCKDOWN_FLAG
				 " cannot be removed: %s; lockdown stays on",
				 runtime_dir, strerror(-r));
	r = lock_take(&lock, e);
	if (r < 0)
		return r == -EBUSY ? 1 : r;
	r = net_open(&net, e);
	if (r < 0)
		return r;
	if (dir_fd >= 0 && faccessat(dir_fd, JOURNAL_NAME, F_OK, 0) == 0)
		return 2;
	if (!net_firewall_is_lockdown(net))
		return net_firewall_present(net) ? 2 : 0;
	r = net_firewall_remove(net, e);
	/* Ours alone, if it is empty. */
	if (r == 0)
		rmdir(runtime_dir);
	return r;
}
