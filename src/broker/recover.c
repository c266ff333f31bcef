/*
 * Recovery.
 *
 * Theory of operation: the locks say that no controller lives. A journal of
 * this boot and this network namespace says what to undo. Without one the
 * names and numbers of platform.h do: every function there removes only what
 * is TorVM's own and is content if there is nothing, so all of them are called
 * and only what was seen before is reported.
 */
#include "broker/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

#include "broker/lock.h"
#include "broker/lockdown.h"

struct recovery {
	restore_report_fn report;
	void *userdata;
	unsigned int n_reports;
};

static void count_report(void *userdata, const char *text)
{
	struct recovery *r = userdata;

	r->n_reports++;
	if (r->report)
		r->report(r->userdata, text);
}

/* *ret_fd: -1 if there is no such directory, which is no failure. */
static int open_runtime_dir(const char *path, int *ret_fd, struct error *e)
{
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret_fd < 0 && errno != ENOENT)
		return error_set(e, -errno, "%s cannot be opened: %s", path,
				 strerror(errno));
	return 0;
}

/* Return: 1: there is a journal to go by; 0: there is none. */
static int read_journal(int dir_fd, struct journal *j, struct recovery *r)
{
	struct error e = ERROR_NULL(e);
	int ret;

	if (dir_fd < 0)
		return 0;
	ret = journal_read(dir_fd, j, &e);
	if (ret == -ENOENT)
		return 0;
	if (ret < 0) {
		count_report(r, e.text);
		count_report(r, "Going by TorVM's own names instead");
		return 0;
	}
	if (!journal_is_current(j)) {
		count_report(r, "The journal is of another boot or network "
				"namespace, whose changes are not here");
		return 0;
	}
	return 1;
}

static void say_nothing(void *userdata, const char *text)
{
}

int recover_run(const char *runtime_dir, restore_report_fn report,
		void *userdata, struct error *e)
{
	struct recovery recovery = { .report = report, .userdata = userdata };
	_cleanup_(lock_release) struct lock lock = LOCK_NULL;
	_cleanup_(net_closep) struct net *net = NULL;
	_cleanup_close_ int dir_fd = -1;
	bool by_journal, there, lockdown;
	struct journal j;
	int r;

	if (geteuid() != 0)
		return error_set(e, -EPERM,
				 "recovery changes the network and needs root: "
				 "sudo torvm recover");
	r = open_runtime_dir(runtime_dir, &dir_fd, e);
	if (r == 0)
		r = lock_take(&lock, e);
	if (r == 0 && dir_fd >= 0)
		r = lock_take_directory(&lock, dir_fd, e);
	if (r == 0)
		r = net_open(&net, e);
	if (r < 0)
		return r;

	lockdown = net_firewall_is_lockdown(net) ||
		   (dir_fd >= 0 && lockdown_flag_present(dir_fd));
	if (dir_fd >= 0)
		r = lockdown_flag_remove(dir_fd);
	if (r < 0)
		return error_set(e, r,
				 "lockdown cannot be turned off in %s (%s); "
				 "nothing was changed",
				 runtime_dir, strerror(-r));
	if (lockdown)
		count_report(&recovery, "Turned lockdown off");
	by_journal = read_journal(dir_fd, &j, &recovery) == 1;
	if (!by_journal)
		restore_assume(net, &j);
	there = by_journal || net_firewall_present(net) ||
		if_nametoindex(j.plan.tap_name) != 0;
	r = restore_kill_vm(j.vm_pid, j.vm_started, e);
	if (r < 0)
		return r;
	if (r > 0)
		count_report(&recovery, "Killed the VM that was left");
	/* What a dead controller left may still take the connections of
	 * containers into the TAP, where nobody ends them. */
	if (j.up & BROKER_UP_FIREWALL && net_firewall_present(net))
		net_firewall_set(net, &j.plan, NET_FIREWALL_BLOCKED, NULL);
	r = restore_network(net, dir_fd, &j, RESTORE_TO_OPEN,
			    there ? count_report : say_nothing, &recovery, e);
	if (r >= 0 && dir_fd >= 0)
		restore_clean_dir(dir_fd);
	if (r >= 0 && recovery.n_reports == 0)
		count_report(&recovery, "Nothing to recover: TorVM has left "
					"nothing in this network namespace");
	return r;
}
