/*
 * The state machine against the fake network and a fake spawner, whose VMs are
 * real processes that only wait to be killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/lockdown.h"
#include "broker/restore.h"
#include "broker/supervise.h"
#include "platform/fake/fake.h"

/* --- the fake spawner --- */

static struct {
	pid_t vm;
	int fail; /* what starting a VM returns */
} fake_spawner;

int spawner_start_vm(struct spawner *s, const struct spawner_vm_fds *fds,
		     pid_t *ret_pid, int *ret_pidfd, uint64_t *ret_started,
		     struct error *e)
{
	int fd;

	for (fd = VM_FD_QMP; fd < VM_FD_FROM_ENGINE; fd++)
		assert_true(fcntl(fds->made[fd], F_GETFD) >= 0);
	if (fake_spawner.fail)
		return error_set(e, fake_spawner.fail, "no VM today");
	assert_int_equal(fake_spawner.vm, 0);
	fake_spawner.vm = fork();
	if (fake_spawner.vm == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	*ret_pid = fake_spawner.vm;
	*ret_pidfd = (int)syscall(SYS_pidfd_open, fake_spawner.vm, 0);
	*ret_started = process_start_time(fake_spawner.vm);
	return 0;
}

int spawner_next_exit(struct spawner *s, int child, int timeout_ms,
		      struct spawner_message *ret)
{
	assert_int_equal(child, SPAWNER_CHILD_VM);
	if (waitpid(fake_spawner.vm, &ret->wait_status, 0) < 0)
		return 0;
	fake_spawner.vm = 0;
	return 1;
}

/* --- set-up --- */

static struct {
	struct broker b;
	char dir[64];
	char events[512];
	char notified[128];
} t;

static void on_event(void *userdata, enum broker_type type, const char *text,
		     int wait_status)
{
	static const char *const names[] = { "vm_exited", "stop", "tap_lost",
					     "repaired" };

	strcat(t.events, names[type - BROKER_EVENT_FIRST]);
	strcat(t.events, " ");
}

static void on_notify(void *userdata, const char *text)
{
	str_copy(t.notified, sizeof(t.notified), text);
}

static int setup(void **state)
{
	memset(&t, 0, sizeof(t));
	memset(&fake_spawner, 0, sizeof(fake_spawner));
	fake_net_reset();
	strcpy(t.dir, "/tmp/torvm-broker-XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	t.b = BROKER_NULL;
	t.b.runtime_fd = open(t.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(t.b.runtime_fd, "vm", 0700), 0);
	t.b.vm_dir_fd = openat(t.b.runtime_fd, "vm",
			       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	t.b.vm_uid = 61101;
	t.b.send_event = on_event;
	t.b.notify = on_notify;
	return net_open(&t.b.net, NULL);
}

static int teardown(void **state)
{
	static const char *const names[] = { "qmp.sock", "torctl.sock",
					     "agent.sock", "console.sock" };
	size_t i;

	if (fake_spawner.vm) {
		kill(fake_spawner.vm, SIGKILL);
		waitpid(fake_spawner.vm, NULL, 0);
	}
	broker_deinit(&t.b);
	net_close(t.b.net);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(t.b.vm_dir_fd, names[i], 0);
	journal_remove(t.b.runtime_fd);
	close(t.b.vm_dir_fd);
	unlinkat(t.b.runtime_fd, "vm", AT_REMOVEDIR);
	close(t.b.runtime_fd);
	assert_int_equal(rmdir(t.dir), 0);
	return 0;
}

static int argv_memfd(void)
{
	static const char argv[] =
		"/usr/bin/qemu-system-x86_64\0-nodefaults\0-no-user-config\0"
		"-sandbox\0on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
		"resourcecontrol=deny";
	int fd = memfd_create("argv", MFD_CLOEXEC);

	assert_int_equal(write(fd, argv, sizeof(argv)), sizeof(argv));
	return fd;
}

static struct broker_message last_reply;

/* Return: the reply's status. */
static int ask(enum broker_type type)
{
	struct broker_message m = { .magic = BROKER_MESSAGE_MAGIC,
				    .type = type,
				    .serial = 7 };
	int fds[2] = { -1, -1 }, ret_fd;
	size_t n_fds = 0;

	if (type == BROKER_REQUEST_PRECHECK || type == BROKER_REQUEST_BLOCK) {
		strcpy(m.u.net.tap_name, "torvm0");
		inet_pton(AF_INET, "10.10.10.2", &m.u.net.host_ip);
		inet_pton(AF_INET, "10.10.10.1", &m.u.net.vm_ip);
	}
	if (type == BROKER_REQUEST_START_VM) {
		m.u.start_vm.present = 1;
		fds[n_fds++] = argv_memfd();
		fds[n_fds++] = open("/dev/null", O_WRONLY | O_CLOEXEC);
	}
	if (type == BROKER_REQUEST_NOTIFY)
		strcpy(m.text, "Running");
	broker_handle(&t.b, &m, fds, n_fds, &last_reply, &ret_fd);
	assert_int_equal(last_reply.serial, 7);
	assert_int_equal(last_reply.type, BROKER_REPLY);
	if (last_reply.status < 0)
		assert_string_not_equal(last_reply.text, "");
	if (type == BROKER_REQUEST_START_VM && last_reply.status == 0) {
		assert_int_equal(last_reply.u.vm.pid, fake_spawner.vm);
		assert_true(ret_fd >= 0);
	}
	closep(&ret_fd);
	while (n_fds > 0)
		close(fds[--n_fds]);
	return last_reply.status;
}

static const enum broker_type start_steps[] = {
	BROKER_REQUEST_PRECHECK,      BROKER_REQUEST_BLOCK,
	BROKER_REQUEST_CREATE_TAP,    BROKER_REQUEST_START_VM,
	BROKER_REQUEST_CONFIGURE_TAP, BROKER_REQUEST_SET_DNS,
};

static const enum broker_type stop_steps[] = {
	BROKER_REQUEST_REFUSE_TAP, BROKER_REQUEST_KILL_VM,
	BROKER_REQUEST_DELETE_TAP, BROKER_REQUEST_RESTORE_DNS,
	BROKER_REQUEST_UNBLOCK,
};

static void start_all(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(start_steps); i++)
		assert_int_equal(ask(start_steps[i]), 0);
}

static void assert_clean(void)
{
	struct stat st;

	assert_false(fake_net.firewall);
	assert_false(fake_net.rules);
	assert_false(fake_net.tap);
	assert_int_equal(fake_net.rp_filter, FAKE_SYSCTL_STRICT);
	assert_int_equal(fake_spawner.vm, 0);
	assert_int_equal(fstatat(t.b.runtime_fd, JOURNAL_NAME, &st, 0), -1);
}

/* --- tests --- */

static void start_and_stop_in_order(void **state)
{
	size_t i;

	start_all();
	assert_string_equal(fake_net.log,
			    "precheck firewall_set(blocked) rules_add "
			    "sysctls_apply tap_create tap_open "
			    "firewall_set(uplink) tap_configure "
			    "firewall_set(open) dns_set");
	assert_int_equal(ask(BROKER_REQUEST_STATUS), 0);
	assert_int_equal(last_reply.u.status.up, 0x3f);
	assert_int_equal(last_reply.u.status.vm_pid, fake_spawner.vm);
	assert_int_equal(last_reply.u.status.refused_packets, 42);
	assert_int_equal(last_reply.u.status.n_refused_by, 1);
	assert_int_equal(last_reply.u.status.refused_by[0].uid, 1000);
	assert_int_equal(last_reply.u.status.refused_by[0].packets, 40);
	assert_int_equal(ask(BROKER_REQUEST_NOTIFY), 0);
	assert_string_equal(t.notified, "Running");

	fake_net.log[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(stop_steps); i++)
		assert_int_equal(ask(stop_steps[i]), 0);
	assert_string_equal(
		fake_net.log,
		"firewall_set(uplink) firewall_set(blocked) "
		"forwarded_end sockets_destroy tap_delete dns_restore "
		"sysctl_restore rules_remove firewall_remove");
	assert_int_equal(fake_net.violations, 0);
	assert_true(t.b.unblocked);
	assert_clean();
}

static void unblock_alone_restores_in_the_same_order(void **state)
{
	start_all();
	fake_net.log[0] = '\0';
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_string_equal(
		fake_net.log,
		"firewall_set(blocked) forwarded_end sockets_destroy tap_delete "
		"dns_restore sysctl_restore rules_remove "
		"firewall_remove");
	assert_clean();
	/* And that was that. */
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_int_equal(ask(BROKER_REQUEST_BLOCK), -EPROTO);
	assert_int_equal(ask(BROKER_REQUEST_STATUS), 0);
	assert_int_equal(last_reply.u.status.up, 0);
}

static void requests_out_of_order_change_nothing(void **state)
{
	static const enum broker_type early[] = {
		BROKER_REQUEST_CREATE_TAP,    BROKER_REQUEST_START_VM,
		BROKER_REQUEST_CONFIGURE_TAP, BROKER_REQUEST_REFUSE_TAP,
		BROKER_REQUEST_SET_DNS,
	};
	static const enum broker_type harmless[] = {
		BROKER_REQUEST_RESTORE_DNS, BROKER_REQUEST_KILL_VM,
		BROKER_REQUEST_DELETE_TAP,  BROKER_REQUEST_UNBLOCK,
		BROKER_REQUEST_STATUS,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(early); i++)
		assert_int_equal(ask(early[i]), -EPROTO);
	for (i = 0; i < ARRAY_SIZE(harmless); i++)
		assert_int_equal(ask(harmless[i]), 0);
	assert_string_equal(fake_net.log, "");
	t.b.stopping = false;

	assert_int_equal(ask(BROKER_REQUEST_BLOCK), 0);
	assert_int_equal(ask(BROKER_REQUEST_PRECHECK), -EPROTO);
	assert_int_equal(ask(BROKER_REQUEST_START_VM), -EPROTO);
	assert_int_equal(ask(BROKER_REQUEST_CREATE_TAP), 0);
	assert_int_equal(ask(BROKER_REQUEST_CONFIGURE_TAP), -EPROTO);
	assert_int_equal(ask(BROKER_REQUEST_SET_DNS), -EPROTO);
	assert_int_equal(ask(BROKER_REQUEST_START_VM), 0);
	assert_int_equal(ask(BROKER_REQUEST_START_VM), -EBUSY);
}

static void another_plan_is_refused_while_blocked(void **state)
{
	struct broker_message m = { .magic = BROKER_MESSAGE_MAGIC,
				    .type = BROKER_REQUEST_BLOCK },
			      reply;
	uint32_t mark;
	int fd;

	assert_int_equal(ask(BROKER_REQUEST_BLOCK), 0);
	mark = t.b.journal.plan.mark;
	assert_int_not_equal(mark, 0);
	strcpy(m.u.net.tap_name, "torvm1");
	inet_pton(AF_INET, "10.10.10.2", &m.u.net.host_ip);
	inet_pton(AF_INET, "10.10.10.1", &m.u.net.vm_ip);
	broker_handle(&t.b, &m, NULL, 0, &reply, &fd);
	assert_int_equal(reply.status, -EEXIST);
	/* The same one again, as a resumed engine asks it, keeps the mark: the
	 * VM's connections go on. */
	assert_int_equal(ask(BROKER_REQUEST_BLOCK), 0);
	assert_int_equal(t.b.journal.plan.mark, mark);
}

static void malformed_packets_are_answered(void **state)
{
	struct broker_message m = { 0 }, reply;
	int fd;

	broker_handle(&t.b, &m, NULL, 0, &reply, &fd);
	assert_int_equal(reply.status, -EBADMSG);
	m.magic = BROKER_MESSAGE_MAGIC;
	m.type = 0xffffffff;
	broker_handle(&t.b, &m, NULL, 0, &reply, &fd);
	assert_int_equal(reply.status, -EBADMSG);
	assert_string_equal(fake_net.log, "");
}

static void the_vm_dies_and_the_block_closes_at_once(void **state)
{
	start_all();
	fake_net.log[0] = '\0';
	kill(fake_spawner.vm, SIGKILL);
	broker_vm_died(&t.b);
	assert_string_equal(fake_net.log, "firewall_set(blocked)");
	assert_string_equal(t.events, "");
	waitpid(fake_spawner.vm, NULL, 0);
	fake_spawner.vm = 0;
	broker_vm_reaped(&t.b, SIGKILL);
	assert_string_equal(t.events, "vm_exited ");
	broker_vm_reaped(&t.b, SIGKILL);
	assert_string_equal(t.events, "vm_exited ");
	assert_int_equal(ask(BROKER_REQUEST_START_VM), 0);
	assert_int_equal(fake_net.mode, NET_FIREWALL_UPLINK);
	assert_int_equal(ask(BROKER_REQUEST_CONFIGURE_TAP), 0);
	assert_int_equal(fake_net.mode, NET_FIREWALL_OPEN);
	assert_int_equal(ask(BROKER_REQUEST_REFUSE_TAP), 0);
	assert_int_equal(fake_net.mode, NET_FIREWALL_UPLINK);
}

static void a_failed_tightening_is_tried_again(void **state)
{
	start_all();
	kill(fake_spawner.vm, SIGKILL);
	fake_net.fail_at = fake_net.n_calls + 1;
	broker_vm_died(&t.b);
	assert_int_equal(fake_net.mode, NET_FIREWALL_OPEN);
	assert_int_not_equal(t.b.to_repair, 0);
	broker_network_changed(&t.b);
	assert_int_equal(fake_net.mode, NET_FIREWALL_BLOCKED);
	assert_int_equal(t.b.to_repair, 0);
}

static void a_vm_that_does_not_start_leaves_the_uplink_closed(void **state)
{
	assert_int_equal(ask(BROKER_REQUEST_BLOCK), 0);
	assert_int_equal(ask(BROKER_REQUEST_CREATE_TAP), 0);
	fake_spawner.fail = -ENOEXEC;
	assert_int_equal(ask(BROKER_REQUEST_START_VM), -ENOEXEC);
	assert_string_equal(last_reply.text, "no VM today");
	assert_int_equal(fake_net.mode, NET_FIREWALL_BLOCKED);
}

static void damage_is_repaired_and_told(void **state)
{
	start_all();
	fake_net_disturb(NET_CHANGED_FIREWALL);
	broker_network_changed(&t.b);
	assert_true(fake_net.firewall);
	assert_int_equal(fake_net.mode, NET_FIREWALL_OPEN);
	fake_net_disturb(NET_CHANGED_RULES);
	broker_network_changed(&t.b);
	assert_true(fake_net.rules);
	assert_string_equal(t.events, "repaired repaired ");

	t.events[0] = '\0';
	fake_net.log[0] = '\0';
	fake_net_disturb(NET_CHANGED_TAP);
	broker_network_changed(&t.b);
	assert_string_equal(fake_net.log, "firewall_set(uplink) tap_delete");
	assert_string_equal(t.events, "tap_lost ");
	assert_int_equal(fake_net.mode, NET_FIREWALL_UPLINK);
	assert_int_equal(ask(BROKER_REQUEST_STATUS), 0);
	assert_int_equal(last_reply.u.status.up & BROKER_UP_TAP, 0);
	assert_int_equal(ask(BROKER_REQUEST_KILL_VM), 0);
	assert_int_equal(ask(BROKER_REQUEST_CREATE_TAP), 0);
	assert_true(fake_net.tap);
}

static void a_new_link_gets_its_chain_and_its_sysctl(void **state)
{
	start_all();
	fake_net.rp_filter = FAKE_SYSCTL_STRICT;
	fake_net.log[0] = '\0';
	fake_net_disturb(NET_CHANGED_LINKS);
	broker_network_changed(&t.b);
	assert_string_equal(fake_net.log, "firewall_set(open) sysctls_apply");
	assert_int_equal(fake_net.rp_filter, FAKE_SYSCTL_LOOSE);
	assert_string_equal(t.events, "");
}

static void without_a_block_the_watch_is_nobodys_business(void **state)
{
	fake_net_disturb(NET_CHANGED_FIREWALL | NET_CHANGED_RULES |
			 NET_CHANGED_TAP | NET_CHANGED_LINKS);
	broker_network_changed(&t.b);
	assert_string_equal(fake_net.log, "");
}

static void no_resolved_is_no_failure(void **state)
{
	fake_net.dns_unsupported = true;
	start_all();
	assert_string_equal(last_reply.text, "no systemd-resolved here");
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_clean();
}

static void a_resolver_that_fails_is_asked_again(void **state)
{
	start_all();
	assert_false(t.b.dns_pending);
	fake_net.dns = false;
	fake_net.log[0] = '\0';
	fake_net.fail_at = fake_net.n_calls + 1;
	assert_int_equal(ask(BROKER_REQUEST_SET_DNS), 0);
	assert_true(t.b.dns_pending && !fake_net.dns);
	broker_dns_changed(&t.b);
	assert_string_equal(fake_net.log, "dns_set dns_set");
	assert_true(!t.b.dns_pending && fake_net.dns);
	assert_string_equal(t.events, "repaired repaired ");
}

static void a_resolver_that_forgot_is_told_again(void **state)
{
	/* It came later than we. */
	fake_net.dns_unsupported = true;
	start_all();
	fake_net.dns_unsupported = false;
	broker_dns_changed(&t.b);
	assert_true(fake_net.dns && t.b.up & BROKER_UP_DNS);
	assert_string_equal(t.events, "repaired ");
	fake_net.log[0] = '\0';
	broker_dns_changed(&t.b);
	assert_string_equal(fake_net.log, "");
	fake_net.dns = false; /* somebody reverted it */
	broker_dns_changed(&t.b);
	assert_true(fake_net.dns);
	/* Not during a stop, and not without a TAP. */
	assert_int_equal(ask(BROKER_REQUEST_DELETE_TAP), 0);
	fake_net.dns = false;
	broker_dns_changed(&t.b);
	assert_false(fake_net.dns);
}

/* Each mutation finds its intention on disk. */
static void before_change(const char *call)
{
	static const struct {
		const char *call;
		uint32_t bit;
	} needed[] = {
		{ "firewall_set(blocked)", BROKER_UP_FIREWALL },
		{ "rules_add", BROKER_UP_RULES },
		{ "tap_create", BROKER_UP_TAP },
		{ "dns_set", BROKER_UP_DNS },
	};
	struct journal j;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(needed); i++) {
		if (strcmp(call, needed[i].call))
			continue;
		assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), 0);
		assert_int_equal(j.up & needed[i].bit, needed[i].bit);
		assert_int_equal(j.plan.mark, t.b.journal.plan.mark);
	}
	/* Until the very end there is a journal. */
	if (strcmp(call, "firewall_remove") == 0)
		assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), 0);
}

static void each_change_is_on_disk_before_it_is_made(void **state)
{
	struct journal j;

	fake_net.before = before_change;
	start_all();
	assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), 0);
	assert_int_equal(j.n_sysctls, 1);
	assert_string_equal(j.sysctls[0].old_value, "1");
	assert_int_equal(j.vm_pid, fake_spawner.vm);
	assert_true(j.vm_started == process_start_time(fake_spawner.vm));
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_clean();
}

static void without_a_journal_nothing_is_changed(void **state)
{
	/* A directory in the new file's place: it cannot be written. */
	assert_int_equal(mkdirat(t.b.runtime_fd, "journal.new", 0700), 0);
	assert_true(ask(BROKER_REQUEST_BLOCK) < 0);
	assert_string_equal(fake_net.log, "");
	assert_int_equal(unlinkat(t.b.runtime_fd, "journal.new", AT_REMOVEDIR),
			 0);
}

/* Runs a whole life with the nth call failing; true if it was reached. */
static bool life_with_failure(unsigned int n, bool late)
{
	struct error e = ERROR_NULL(e);
	bool reached;
	size_t i;
	int r;

	fake_net.fail_at = n;
	fake_net.fail_late = late;
	for (i = 0; i < ARRAY_SIZE(start_steps); i++) {
		ask(start_steps[i]);
		if (fake_net.rules || fake_net.tap)
			assert_true(fake_net.firewall);
	}
	for (i = 0; i < ARRAY_SIZE(stop_steps); i++) {
		ask(stop_steps[i]);
		if (fake_net.rules || fake_net.tap)
			assert_true(fake_net.firewall);
	}
	reached = fake_net.n_calls >= n;
	/* What the broker does when the engine gave up. */
	r = broker_restore(&t.b, &e);
	assert_true(r >= 0);
	assert_int_equal(fake_net.violations, 0);
	assert_false(fake_net.firewall);
	assert_false(fake_net.rules);
	assert_false(fake_net.tap);
	if (r == RESTORE_BLEMISHED) {
		/* The journal kept it for `torvm recover`. */
		struct journal j;

		assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), 0);
		assert_int_equal(j.up, 0);
		assert_int_equal(j.n_sysctls, 1);
	} else {
		assert_clean();
	}
	return reached;
}

static void any_call_may_fail_and_the_block_goes_last(void **state)
{
	unsigned int n;
	int late;

	for (late = 0; late < 2; late++) {
		for (n = 1; life_with_failure(n, late); n++) {
			teardown(NULL);
			setup(NULL);
		}
		assert_true(n > 15);
		teardown(NULL);
		setup(NULL);
	}
}

static void a_failed_first_block_changes_nothing(void **state)
{
	struct stat st;

	fake_net.fail_at = 1;
	fake_net.fail_late = true;
	assert_int_equal(ask(BROKER_REQUEST_BLOCK), -EIO);
	assert_false(fake_net.firewall);
	assert_false(t.b.blocked);
	assert_int_equal(fstatat(t.b.runtime_fd, JOURNAL_NAME, &st, 0), -1);
}

static void leave_behind(void)
{
	fake_net.firewall = fake_net.rules = fake_net.tap = true;
	fake_net.mode = NET_FIREWALL_OPEN;
	fake_net.rp_filter = FAKE_SYSCTL_LOOSE;
}

static void leftovers_are_adopted_without_an_open_moment(void **state)
{
	struct error e = ERROR_NULL(e);
	struct journal j;
	uint32_t old_mark;
	pid_t vm;

	start_all();
	old_mark = t.b.journal.plan.mark;
	vm = fake_spawner.vm;
	/* The broker dies; a new one starts in the same directory. */
	close(t.b.vm_pidfd);
	t.b.vm_pidfd = -1;
	t.b.up = 0;
	t.b.vm_pid = 0;
	t.b.blocked = false;
	t.b.journal = (struct journal){ 0 };
	fake_net.log[0] = '\0';
	assert_int_equal(broker_adopt(&t.b, &e), 0);
	assert_string_equal(
		fake_net.log,
		"firewall_set(blocked) forwarded_end sockets_destroy tap_delete "
		"dns_restore sysctl_restore rules_remove");
	assert_int_equal(fake_net.violations, 0);
	assert_true(fake_net.firewall);
	assert_true(t.b.adopted);
	assert_int_equal(waitpid(vm, NULL, 0), vm);
	fake_spawner.vm = 0;
	assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), 0);
	assert_int_equal(j.up, BROKER_UP_FIREWALL);
	assert_int_not_equal(j.plan.mark, old_mark);

	start_all();
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_clean();
}

static void leftovers_without_a_journal_are_adopted_too(void **state)
{
	leave_behind();
	assert_int_equal(broker_adopt(&t.b, NULL), 0);
	assert_true(t.b.adopted);
	assert_true(fake_net.firewall);
	assert_false(fake_net.tap);
	assert_false(fake_net.rules);
	/* A stop before the engine has asked for anything opens it. */
	assert_int_equal(broker_restore(&t.b, NULL), RESTORE_DONE);
	assert_false(fake_net.firewall);
}

static void lockdown_is_where_a_start_begins_and_ends(void **state)
{
	struct journal j;

	fake_net.firewall = true;
	fake_net.mode = NET_FIREWALL_LOCKDOWN;
	assert_int_equal(broker_adopt(&t.b, NULL), 0);
	assert_false(t.b.adopted);
	assert_string_equal(fake_net.log, "");
	/* To the engine it is a start like any other. */
	assert_int_equal(ask(BROKER_REQUEST_STATUS), 0);
	assert_int_equal(last_reply.u.status.up, BROKER_UP_LOCKDOWN);
	start_all();
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_int_equal(fake_net.violations, 0);
	assert_null(strstr(fake_net.log, "firewall_remove"));
	assert_true(fake_net.firewall);
	assert_int_equal(fake_net.mode, NET_FIREWALL_LOCKDOWN);
	assert_false(fake_net.rules || fake_net.tap || fake_net.dns);
	assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), -ENOENT);
	assert_int_equal(lockdown_flag_remove(t.b.runtime_fd), 0);
	assert_int_equal(fake_spawner.vm, 0);
}

static void a_start_that_fails_leaves_lockdown(void **state)
{
	fake_net.firewall = true;
	fake_net.mode = NET_FIREWALL_LOCKDOWN;
	assert_int_equal(broker_adopt(&t.b, NULL), 0);
	fake_net.fail_at = 1;
	assert_int_equal(ask(BROKER_REQUEST_BLOCK), -EIO);
	assert_true(fake_net.firewall);
	assert_null(strstr(fake_net.log, "firewall_remove"));
	assert_int_equal(lockdown_flag_remove(t.b.runtime_fd), 0);
}

static void lockdown_turned_off_meanwhile_opens(void **state)
{
	fake_net.firewall = true;
	fake_net.mode = NET_FIREWALL_LOCKDOWN;
	assert_int_equal(broker_adopt(&t.b, NULL), 0);
	start_all();
	assert_int_equal(lockdown_flag_remove(t.b.runtime_fd), 0);
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), 0);
	assert_clean();
}

static void a_clean_host_is_not_adopted(void **state)
{
	assert_int_equal(broker_adopt(&t.b, NULL), 0);
	assert_false(t.b.adopted);
	assert_string_equal(fake_net.log, "");
}

static void a_journal_of_another_boot_is_void(void **state)
{
	struct journal j;

	assert_int_equal(ask(BROKER_REQUEST_BLOCK), 0);
	j = t.b.journal;
	j.boot_id[0] = j.boot_id[0] == 'a' ? 'b' : 'a';
	assert_int_equal(journal_write(t.b.runtime_fd, &j, NULL), 0);
	teardown(NULL);
	setup(NULL);
	assert_int_equal(journal_write(t.b.runtime_fd, &j, NULL), 0);
	assert_int_equal(broker_adopt(&t.b, NULL), 0);
	assert_false(t.b.adopted);
	assert_string_equal(fake_net.log, "");
	assert_int_equal(journal_read(t.b.runtime_fd, &j, NULL), -ENOENT);
	assert_int_equal(ask(BROKER_REQUEST_BLOCK), 0);
	assert_true(journal_is_current(&t.b.journal));
}

static void another_process_with_the_old_pid_lives(void **state)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	assert_int_equal(
		restore_kill_vm(pid, process_start_time(pid) + 1, NULL), 0);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	assert_int_equal(restore_kill_vm(pid, process_start_time(pid), NULL),
			 1);
	/* Killed, not reaped: nothing is left to kill. */
	assert_int_equal(restore_kill_vm(pid, process_start_time(pid), NULL),
			 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(restore_kill_vm(0, 0, NULL), 0);
}

static void the_uplink_is_renewed(void **state)
{
	fake_net.changed = NET_CHANGED_UPLINK;
	broker_network_changed(&t.b);
	assert_null(strstr(fake_net.log, "uplink_renew"));
	assert_int_equal(ask(BROKER_REQUEST_RENEW_UPLINK), 0);
	assert_null(strstr(fake_net.log, "uplink_renew"));

	start_all();
	fake_net.changed = NET_CHANGED_UPLINK;
	broker_network_changed(&t.b);
	assert_non_null(strstr(fake_net.log, "uplink_renew(changed)"));
	assert_int_equal(t.b.to_repair, 0);
	assert_int_equal(ask(BROKER_REQUEST_RENEW_UPLINK), 0);
	assert_non_null(strstr(fake_net.log, "uplink_renew(all)"));
}

static void a_hanging_engine_is_noticed(void **state)
{
	struct supervise_watch w;
	int64_t now = 5000;

	supervise_watch_start(&w, now);
	for (int i = 0; i < 10; i++) {
		w.heard = true;
		assert_false(supervise_watch_hangs(&w, now));
		now += BROKER_PING_MS;
		assert_false(supervise_watch_hangs(&w, now));
	}
	/* The machine stood still for a day: one tick. */
	now += 86400000;
	assert_false(supervise_watch_hangs(&w, now));
	for (int i = 2; i < SUPERVISE_SILENT_TICKS; i++) {
		now += BROKER_PING_MS;
		assert_false(supervise_watch_hangs(&w, now));
	}
	now += BROKER_PING_MS - 1;
	assert_false(supervise_watch_hangs(&w, now));
	assert_true(supervise_watch_hangs(&w, now + 1));
}

#define EXITED(code) ((code) << 8)

static void an_engines_end_is_judged(void **state)
{
	struct broker b = BROKER_NULL;
	int code;

	/* Nothing changed yet: its code is ours. */
	assert_int_equal(supervise_engine_end(&b, EXITED(5), &code),
			 SUPERVISE_EXIT);
	assert_int_equal(code, EXIT_CODE_PRECHECK);
	assert_int_equal(supervise_engine_end(&b, SIGSEGV, &code),
			 SUPERVISE_EXIT);
	assert_int_equal(code, EXIT_CODE_FAILED);
	b.adopted = true;
	assert_int_equal(supervise_engine_end(&b, EXITED(4), &code),
			 SUPERVISE_EXIT);
	/* A client's stop, which the broker hears of by the code alone. */
	assert_int_equal(supervise_engine_end(&b, EXITED(0), &code),
			 SUPERVISE_RESTORE);
	b.stopping = true;
	assert_int_equal(supervise_engine_end(&b, EXITED(0), &code),
			 SUPERVISE_RESTORE);

	/* Blocked: no end but a stop opens the network. */
	b = BROKER_NULL;
	b.blocked = true;
	assert_int_equal(supervise_engine_end(&b, EXITED(0), &code),
			 SUPERVISE_RESTART);
	assert_int_equal(supervise_engine_end(&b, EXITED(4), &code),
			 SUPERVISE_RESTART);
	assert_int_equal(supervise_engine_end(&b, SIGKILL, &code),
			 SUPERVISE_RESTART);
	b.stopping = true;
	assert_int_equal(supervise_engine_end(&b, SIGKILL, &code),
			 SUPERVISE_RESTORE);

	b.unblocked = true;
	assert_int_equal(supervise_engine_end(&b, EXITED(0), &code),
			 SUPERVISE_EXIT);
	assert_int_equal(code, EXIT_CODE_OK);
	assert_int_equal(supervise_engine_end(&b, SIGSEGV, &code),
			 SUPERVISE_EXIT);
	assert_int_equal(code, EXIT_CODE_OK);
	assert_int_equal(supervise_engine_end(&b, EXITED(9), &code),
			 SUPERVISE_EXIT);
	assert_int_equal(code, EXIT_CODE_TIMEOUT);
	b.blemished = true;
	supervise_engine_end(&b, EXITED(0), &code);
	assert_int_equal(code, EXIT_CODE_RESTORE);
}

/* Found by tests/fuzz/broker-fuzz.c: the second answer had no sentence. */
static void a_blemish_is_explained_each_time(void **state)
{
	start_all();
	/* block; containers, sockets, TAP, DNS; then the sysctl */
	fake_net.fail_at = fake_net.n_calls + 6;
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), -EREMOTEIO);
	assert_true(t.b.unblocked && t.b.blemished);
	assert_non_null(strstr(last_reply.text, "torvm recover"));
	assert_int_equal(ask(BROKER_REQUEST_UNBLOCK), -EREMOTEIO);
	assert_non_null(strstr(last_reply.text, "torvm recover"));
}

static void restarts_slow_down_and_recover(void **state)
{
	struct supervise_backoff backoff = { 0 };
	int64_t now_ms = 1000000;
	int i;

	for (i = 0; i < SUPERVISE_BURST; i++)
		assert_int_equal(supervise_delay_ms(&backoff, now_ms + i),
				 SUPERVISE_QUICK_DELAY_MS);
	assert_int_equal(supervise_delay_ms(&backoff, now_ms + 1000),
			 SUPERVISE_SLOW_DELAY_MS);
	assert_int_equal(
		supervise_delay_ms(&backoff, now_ms + 3 * SUPERVISE_BURST_MS),
		SUPERVISE_QUICK_DELAY_MS);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(start_and_stop_in_order),
		T(unblock_alone_restores_in_the_same_order),
		T(a_blemish_is_explained_each_time),
		T(requests_out_of_order_change_nothing),
		T(another_plan_is_refused_while_blocked),
		T(malformed_packets_are_answered),
		T(the_vm_dies_and_the_block_closes_at_once),
		T(a_failed_tightening_is_tried_again),
		T(a_vm_that_does_not_start_leaves_the_uplink_closed),
		T(damage_is_repaired_and_told),
		T(a_new_link_gets_its_chain_and_its_sysctl),
		T(without_a_block_the_watch_is_nobodys_business),
		T(no_resolved_is_no_failure),
		T(a_resolver_that_fails_is_asked_again),
		T(a_resolver_that_forgot_is_told_again),
		T(each_change_is_on_disk_before_it_is_made),
		T(without_a_journal_nothing_is_changed),
		T(any_call_may_fail_and_the_block_goes_last),
		T(a_failed_first_block_changes_nothing),
		T(leftovers_are_adopted_without_an_open_moment),
		T(leftovers_without_a_journal_are_adopted_too),
		T(lockdown_is_where_a_start_begins_and_ends),
		T(a_start_that_fails_leaves_lockdown),
		T(lockdown_turned_off_meanwhile_opens),
		T(a_clean_host_is_not_adopted),
		T(a_journal_of_another_boot_is_void),
		cmocka_unit_test(another_process_with_the_old_pid_lives),
		T(the_uplink_is_renewed),
		cmocka_unit_test(a_hanging_engine_is_noticed),
		cmocka_unit_test(an_engines_end_is_judged),
		cmocka_unit_test(restarts_slow_down_and_recover),
	};

	log_setup("broker-test", LOG_LEVEL_ERROR);
	log_set_stderr(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
