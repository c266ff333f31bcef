/*
 * The broker's state machine.
 *
 * Theory of operation: `up` says what is in the kernel, `journal.up` what is
 * or is about to be; the journal is on disk before a bit of it is acted upon.
 * Each request has a handler that first says whether it is allowed now, then
 * does its work through platform.h, and leaves `up` true even if it fails half
 * way. Nothing is ever rolled back towards an open network: once the firewall
 * is up, the one way to take it down is restore_network(), which does it last.
 *
 * The firewall has three modes (platform.h). The broker alone decides:
 *
 *   no VM                     BLOCKED
 *   VM, TAP not (re)allowed   UPLINK
 *   VM, after CONFIGURE_TAP   OPEN
 *
 * and goes back to BLOCKED by itself the moment the VM's pidfd says so.
 */
#include "broker/broker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/channel.h"
#include "broker/listeners.h"
#include "broker/lockdown.h"
#include "broker/restore.h"

#define KILL_TIMEOUT_MS 10000
#define REPAIR_ROUNDS 4

static bool is_up(const struct broker *b, uint32_t bits)
{
	return (b->up & bits) == bits;
}

static void send_event(struct broker *b, enum broker_type type,
		       const char *text, int wait_status)
{
	if (b->send_event)
		b->send_event(b->userdata, type, text, wait_status);
}

/* Notes an intention durably. On failure nothing may be changed. */
static int intend(struct broker *b, uint32_t bit, struct error *e)
{
	uint32_t before = b->journal.up;
	int r;

	if (before & bit)
		return 0;
	b->journal.up |= bit;
	r = journal_write(b->runtime_fd, &b->journal, e);
	if (r < 0)
		b->journal.up = before;
	return r;
}

/* Something was taken back. A journal that says more than is there does no
 * harm: restoring is idempotent, and a full disk must not keep us from it. */
static void taken_back(struct broker *b, uint32_t bit)
{
	struct error e = ERROR_NULL(e);

	b->journal.up &= ~bit;
	if (journal_write(b->runtime_fd, &b->journal, &e) < 0)
		log_warning("%s", e.text);
}

static int set_mode(struct broker *b, enum net_firewall mode, struct error *e)
{
	int r = net_firewall_set(b->net, &b->journal.plan, mode, e);

	if (r < 0)
		return r;
	b->mode = mode;
	b->up |= BROKER_UP_FIREWALL;
	return 0;
}

/* For a tightening that nobody waits for: tried again until it works. */
static void tighten(struct broker *b, enum net_firewall mode)
{
	struct error e = ERROR_NULL(e);

	b->mode = mode;
	if (is_up(b, BROKER_UP_FIREWALL) && set_mode(b, mode, &e) < 0) {
		log_error("The firewall could not be tightened: %s; trying "
			  "again",
			  e.text);
		b->to_repair |= NET_CHANGED_FIREWALL;
	}
}

static int save_sysctl(void *userdata, const char *name, const char *old_value,
		       const char *new_value)
{
	struct broker *b = userdata;
	int r;

	r = journal_add_sysctl(&b->journal, name, old_value, new_value);
	if (r < 0)
		return r;
	return journal_write(b->runtime_fd, &b->journal, NULL);
}

static uint32_t random_mark(void)
{
	uint32_t mark = 0;

	while (mark == 0) {
		if (getrandom(&mark, sizeof(mark), 0) != sizeof(mark))
			mark = 0;
	}
	return mark;
}

static struct net_plan plan_from(const struct broker *b,
				 const struct broker_net *net)
{
	struct net_plan plan = {
		.host_ip = net->host_ip,
		.vm_ip = net->vm_ip,
		.lan_access = net->lan_access,
		.vm_uid = b->vm_uid,
		.mark = random_mark(),
	};

	memcpy(plan.tap_name, net->tap_name, sizeof(plan.tap_name));
	return plan;
}

static bool same_net(const struct net_plan *plan, const struct broker_net *net)
{
	return strcmp(plan->tap_name, net->tap_name) == 0 &&
	       plan->host_ip.s_addr == net->host_ip.s_addr &&
	       plan->vm_ip.s_addr == net->vm_ip.s_addr &&
	       plan->lan_access == net->lan_access;
}

/* --- the VM's end --- */

void broker_vm_died(struct broker *b)
{
	if (!is_up(b, BROKER_UP_VM))
		return;
	b->up &= ~(uint32_t)BROKER_UP_VM;
	closep(&b->vm_pidfd);
	b->vm_pidfd = -1;
	tighten(b, NET_FIREWALL_BLOCKED);
}

void broker_vm_reaped(struct broker *b, int wait_status)
{
	if (!b->vm_pid)
		return;
	broker_vm_died(b);
	b->vm_pid = 0;
	b->journal.vm_pid = 0;
	send_event(b, BROKER_EVENT_VM_EXITED, "", wait_status);
}

static int kill_vm(struct broker *b, struct error *e)
{
	struct spawner_message m;
	int r;

	if (!b->vm_pid)
		return 0;
	if (b->vm_pidfd >= 0 &&
	    syscall(SYS_pidfd_send_signal, b->vm_pidfd, SIGKILL, NULL, 0) < 0 &&
	    errno != ESRCH)
		return error_set(e, -errno, "QEMU cannot be killed: %s",
				 strerror(errno));
	r = spawner_next_exit(b->spawner, SPAWNER_CHILD_VM, KILL_TIMEOUT_MS,
			      &m);
	if (r == 0)
		return error_set(e, -ETIMEDOUT,
				 "QEMU does not die (is its disk gone?)");
	/* Without a spawner there is no VM either. */
	broker_vm_reaped(b, r == 1 ? m.wait_status : SIGKILL);
	return 0;
}

/* --- requests --- */

struct request {
	const struct broker_message *m;
	const int *fds;
	size_t n_fds;
	struct broker_message *reply;
	int *ret_fd;
};

static int do_precheck(struct broker *b, const struct request *q,
		       struct error *e)
{
	struct net_plan plan = plan_from(b, &q->m->u.net);

	if (b->blocked)
		return error_set(e, -EPROTO, "PRECHECK comes before BLOCK");
	return net_precheck(b->net, &plan, e);
}

static int do_block(struct broker *b, const struct request *q, struct error *e)
{
	bool had = b->up || b->under_lockdown;
	int r;

	if (b->blocked && is_up(b, BROKER_UP_FIREWALL) &&
	    !same_net(&b->journal.plan, &q->m->u.net))
		return error_set(e, -EEXIST,
				 "the network settings changed while TorVM "
				 "runs; they take effect at the next start");
	if (!b->blocked || !is_up(b, BROKER_UP_FIREWALL)) {
		struct net_plan plan = plan_from(b, &q->m->u.net);
		struct journal fresh;

		r = journal_init(&fresh, &plan, e);
		if (r < 0)
			return r;
		/* What an adopted controller left unrestored stays noted. */
		fresh.up = b->journal.up;
		fresh.n_sysctls = b->journal.n_sysctls;
		memcpy(fresh.sysctls, b->journal.sysctls,
		       sizeof(fresh.sysctls));
		fresh.up |= BROKER_UP_FIREWALL;
		r = journal_write(b->runtime_fd, &fresh, e);
		if (r < 0)
			return r;
		b->journal = fresh;
		b->mode = NET_FIREWALL_BLOCKED;
	}
	r = set_mode(b, b->mode, e);
	if (r < 0) {
		/* Nothing of ours was there, so nothing is to be kept; a
		 * failed transaction leaves nothing, but who knows why it
		 * failed. */
		if (!had && net_firewall_remove(b->net, NULL) == 0) {
			b->journal.up = 0;
			journal_remove(b->runtime_fd);
		}
		return r;
	}
	b->blocked = true;
	r = intend(b, BROKER_UP_RULES, e);
	if (r == 0)
		r = net_rules_add(b->net, &b->journal.plan, e);
	if (r < 0)
		return r;
	b->up |= BROKER_UP_RULES;
	return net_sysctls_apply(b->net, &b->journal.plan, save_sysctl, b, e);
}

static int do_create_tap(struct broker *b, const struct request *q,
			 struct error *e)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (!is_up(b, BROKER_UP_FIREWALL | BROKER_UP_RULES))
		return error_set(e, -EPROTO, "CREATE_TAP comes after BLOCK");
	if (is_up(b, BROKER_UP_TAP))
		return 0;
	r = intend(b, BROKER_UP_TAP, e);
	if (r == 0)
		r = net_tap_create(b->net, &b->journal.plan, &fd, e);
	if (r < 0)
		return r;
	b->up |= BROKER_UP_TAP;
	return 0;
}

static struct net_uplink uplink_from(const struct broker_uplink *uplink)
{
	struct net_uplink ret = {
		.any_tcp = uplink->any & BROKER_UPLINK_ANY_TCP,
		.any_udp = uplink->any & BROKER_UPLINK_ANY_UDP,
		.any_tcp6 = uplink->any & BROKER_UPLINK_ANY_TCP6,
		.any_udp6 = uplink->any & BROKER_UPLINK_ANY_UDP6,
		.n_peers = uplink->n_peers,
	};

	for (size_t i = 0; i < uplink->n_peers; i++)
		ret.peers[i] = (struct net_peer){
			.protocol = uplink->peers[i].protocol,
			.port = uplink->peers[i].port,
			.address = uplink->peers[i].address,
		};
	return ret;
}

static int do_set_uplink(struct broker *b, const struct request *q,
			 struct error *e)
{
	if (!is_up(b, BROKER_UP_FIREWALL | BROKER_UP_VM))
		return error_set(e, -EPROTO, "SET_UPLINK needs a running VM");
	b->journal.plan.uplink = uplink_from(&q->m->u.uplink);
	return set_mode(b, b->mode, e);
}

/* The argument vector is judged here and, on its own copy, by the spawner. */
static int check_argv_fd(int fd, struct error *e)
{
	char text[BROKER_ARGV_MAX], *argv[BROKER_ARGV_COUNT_MAX];
	struct stat st;
	ssize_t len;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 1 ||
	    st.st_size > BROKER_ARGV_MAX)
		return error_set(e, -EBADMSG,
				 "QEMU's argument vector is not a file of at "
				 "most %d bytes",
				 BROKER_ARGV_MAX);
	len = pread(fd, text, BROKER_ARGV_MAX, 0);
	if (len < 0 || broker_argv_split(text, (size_t)len, argv,
					 BROKER_ARGV_COUNT_MAX) < 0)
		return error_set(e, -EBADMSG,
				 "QEMU's argument vector is not one");
	return broker_argv_check(argv, e);
}

static int spawn_vm(struct broker *b, const struct request *q, struct error *e)
{
	struct spawner_vm_fds fds = {
		.argv = q->fds[0],
		.from_engine = q->fds + 1,
		.present = q->m->u.start_vm.present,
	};
	uint64_t started;
	pid_t pid;
	int r;

	r = net_tap_open(b->net, &b->journal.plan, &fds.made[VM_FD_TAP], e);
	if (r < 0)
		return r;
	r = listeners_make(b->vm_dir_fd, fds.made + VM_FD_QMP, e);
	if (r < 0) {
		close(fds.made[VM_FD_TAP]);
		return r;
	}
	r = set_mode(b, NET_FIREWALL_UPLINK, e);
	if (r == 0)
		r = spawner_start_vm(b->spawner, &fds, &pid, &b->vm_pidfd,
				     &started, e);
	channel_close_fds(fds.made + VM_FD_QMP, VM_FD_FROM_ENGINE - VM_FD_QMP);
	if (r < 0)
		return r;
	b->vm_pid = pid;
	b->up |= BROKER_UP_VM;
	b->journal.vm_pid = pid;
	b->journal.vm_started = started;
	return 0;
}

static int do_start_vm(struct broker *b, const struct request *q,
		       struct error *e)
{
	int r;

	if (!is_up(b, BROKER_UP_FIREWALL | BROKER_UP_TAP))
		return error_set(e, -EPROTO, "START_VM comes after CREATE_TAP");
	if (b->vm_pid)
		return error_set(e, -EBUSY, "a virtual machine runs already");
	b->journal.plan.uplink = uplink_from(&q->m->u.start_vm.uplink);
	r = check_argv_fd(q->fds[0], e);
	if (r == 0)
		r = spawn_vm(b, q, e);
	/* Only now is the pid known. Until it is noted, PDEATHSIG alone keeps
	 * the VM from outliving us. */
	if (r == 0)
		r = journal_write(b->runtime_fd, &b->journal, e);
	if (r == 0) {
		*q->ret_fd = dup(b->vm_pidfd);
		if (*q->ret_fd < 0)
			r = error_set(e, -errno, "dup: %s", strerror(errno));
	}
	if (r < 0) {
		kill_vm(b, NULL);
		if (!b->vm_pid)
			tighten(b, NET_FIREWALL_BLOCKED);
		return r;
	}
	q->reply->u.vm.pid = b->vm_pid;
	q->reply->u.vm.start_time = b->journal.vm_started;
	return 0;
}

static int do_configure_tap(struct broker *b, const struct request *q,
			    struct error *e)
{
	int r;

	if (!is_up(b, BROKER_UP_TAP | BROKER_UP_VM))
		return error_set(e, -EPROTO,
				 "CONFIGURE_TAP needs a TAP and a running VM");
	r = net_tap_configure(b->net, &b->journal.plan, e);
	if (r < 0)
		return r;
	b->up |= BROKER_UP_TAP_CONFIGURED;
	return set_mode(b, NET_FIREWALL_OPEN, e);
}

static int do_refuse_tap(struct broker *b, const struct request *q,
			 struct error *e)
{
	if (!is_up(b, BROKER_UP_FIREWALL))
		return error_set(e, -EPROTO, "REFUSE_TAP comes after BLOCK");
	return set_mode(b,
			is_up(b, BROKER_UP_VM) ? NET_FIREWALL_UPLINK
					       : NET_FIREWALL_BLOCKED,
			e);
}

static void names_fail(struct broker *b, const char *why)
{
	char text[BROKER_TEXT_MAX];

	snprintf(text, sizeof(text),
		 "Names may not resolve, but are asked nowhere else: %.200s. "
		 "Trying again; `torvm doctor` may know more",
		 why);
	log_warning("%s", text);
	send_event(b, BROKER_EVENT_REPAIRED, text, 0);
}

static int do_set_dns(struct broker *b, const struct request *q,
		      struct error *e)
{
	int r;

	if (!is_up(b, BROKER_UP_TAP_CONFIGURED))
		return error_set(e, -EPROTO,
				 "SET_DNS comes after CONFIGURE_TAP");
	r = intend(b, BROKER_UP_DNS, e);
	if (r < 0)
		return r;
	r = net_dns_set(b->net, &b->journal.plan, e);
	if (r == 0)
		b->up |= BROKER_UP_DNS;
	/* Not a reason to take the VM down: no name is asked anywhere else,
	 * and a resolver that hangs may be there again in a moment. */
	b->dns_pending = r < 0 && r != -EOPNOTSUPP;
	if (b->dns_pending)
		names_fail(b, e->text);
	return 0; /* the sentence goes into the reply all the same */
}

static int do_restore_dns(struct broker *b, const struct request *q,
			  struct error *e)
{
	int r;

	if (!(b->journal.up & BROKER_UP_DNS))
		return 0;
	r = net_dns_restore(b->net, &b->journal.plan, e);
	if (r < 0 && r != -EOPNOTSUPP)
		return r;
	b->up &= ~(uint32_t)BROKER_UP_DNS;
	taken_back(b, BROKER_UP_DNS);
	return 0;
}

static int do_kill_vm(struct broker *b, const struct request *q,
		      struct error *e)
{
	return kill_vm(b, e);
}

static int do_delete_tap(struct broker *b, const struct request *q,
			 struct error *e)
{
	int r;

	if (!(b->journal.up & BROKER_UP_TAP))
		return 0;
	r = kill_vm(b, e);
	if (r < 0)
		return r;
	/* A failure here only means that a connection ends later. */
	if (net_forwarded_end(b->net, &b->journal.plan, e) < 0)
		log_warning("Connections of containers through Tor were not "
			    "closed: %s",
			    e ? e->text : "");
	if (net_sockets_destroy(b->net, b->journal.plan.host_ip, e) < 0)
		log_warning("Connections through Tor were not closed: %s",
			    e ? e->text : "");
	b->up &= ~(uint32_t)(BROKER_UP_TAP | BROKER_UP_TAP_CONFIGURED);
	r = net_tap_delete(b->net, &b->journal.plan, e);
	if (r < 0) {
		b->up |= BROKER_UP_TAP;
		return r;
	}
	taken_back(b, BROKER_UP_TAP);
	return 0;
}

static void log_step(void *userdata, const char *text)
{
	log_info("%s", text);
}

int broker_restore(struct broker *b, struct error *e)
{
	int r;

	if (!b->blocked && !b->adopted)
		return RESTORE_DONE;
	if (b->unblocked && !b->blemished)
		return RESTORE_DONE;
	if (b->unblocked) {
		error_set(e, -EREMOTEIO,
			  "the network was restored but for a setting that "
			  "could not be put back; when that is mended: torvm "
			  "recover");
		return RESTORE_BLEMISHED;
	}
	r = kill_vm(b, e);
	if (r < 0)
		return r;
	r = restore_network(b->net, b->runtime_fd, &b->journal,
			    lockdown_flag_present(b->runtime_fd)
				    ? RESTORE_TO_LOCKDOWN
				    : RESTORE_TO_OPEN,
			    log_step, NULL, e);
	b->up &= b->journal.up;
	if (!(b->journal.up & BROKER_UP_TAP))
		b->up &= ~(uint32_t)BROKER_UP_TAP_CONFIGURED;
	if (r < 0)
		return r;
	b->up = 0;
	b->unblocked = true;
	b->blemished = r == RESTORE_BLEMISHED;
	listeners_remove(b->vm_dir_fd);
	return r;
}

static int do_unblock(struct broker *b, const struct request *q,
		      struct error *e)
{
	int r;

	/* Only a stop asks for this; should the engine die now, the broker
	 * goes on with it. */
	b->stopping = true;
	r = broker_restore(b, e);
	return r == RESTORE_BLEMISHED ? -EREMOTEIO : r;
}

static void tell_refused(struct broker *b, struct broker_message *reply)
{
	struct net_refused by[BROKER_REFUSED_MAX];
	size_t i, n = net_firewall_refused_by(b->net, by, ARRAY_SIZE(by));

	reply->u.status.refused_packets = net_firewall_refused(b->net);
	reply->u.status.n_refused_by = (uint32_t)n;
	for (i = 0; i < n; i++) {
		reply->u.status.refused_by[i].uid = by[i].uid;
		reply->u.status.refused_by[i].packets = by[i].packets;
	}
}

static int do_status(struct broker *b, const struct request *q, struct error *e)
{
	q->reply->u.status.up = b->up;
	if (lockdown_flag_present(b->runtime_fd))
		q->reply->u.status.up |= BROKER_UP_LOCKDOWN;
	q->reply->u.status.vm_uid = b->vm_uid;
	q->reply->u.status.vm_pid = is_up(b, BROKER_UP_VM) ? b->vm_pid : 0;
	if (is_up(b, BROKER_UP_FIREWALL))
		tell_refused(b, q->reply);
	return 0;
}

static int do_notify(struct broker *b, const struct request *q, struct error *e)
{
	if (b->notify)
		b->notify(b->userdata, q->m->text);
	return 0;
}

static int renew_uplink(struct broker *b, bool all, struct error *e)
{
	unsigned int closed;
	int r;

	if (!is_up(b, BROKER_UP_VM | BROKER_UP_RULES))
		return 0;
	r = net_uplink_renew(b->net, &b->journal.plan, all, &closed, e);
	if (closed && !all)
		log_notice("The way to the Internet has changed: %u "
			   "connections of the VM were ended; Tor makes new "
			   "ones",
			   closed);
	return r;
}

static int do_renew_uplink(struct broker *b, const struct request *q,
			   struct error *e)
{
	return renew_uplink(b, true, e);
}

static int do_none(struct broker *b, const struct request *q, struct error *e)
{
	return error_set(e, -EBADMSG, "no request");
}

static int (*const handlers[])(struct broker *b, const struct request *q,
			       struct error *e) = {
	[BROKER_REQUEST_NONE] = do_none,
	[BROKER_REQUEST_PRECHECK] = do_precheck,
	[BROKER_REQUEST_BLOCK] = do_block,
	[BROKER_REQUEST_CREATE_TAP] = do_create_tap,
	[BROKER_REQUEST_START_VM] = do_start_vm,
	[BROKER_REQUEST_CONFIGURE_TAP] = do_configure_tap,
	[BROKER_REQUEST_REFUSE_TAP] = do_refuse_tap,
	[BROKER_REQUEST_SET_DNS] = do_set_dns,
	[BROKER_REQUEST_RESTORE_DNS] = do_restore_dns,
	[BROKER_REQUEST_KILL_VM] = do_kill_vm,
	[BROKER_REQUEST_DELETE_TAP] = do_delete_tap,
	[BROKER_REQUEST_UNBLOCK] = do_unblock,
	[BROKER_REQUEST_STATUS] = do_status,
	[BROKER_REQUEST_NOTIFY] = do_notify,
	[BROKER_REQUEST_RENEW_UPLINK] = do_renew_uplink,
	[BROKER_REQUEST_SET_UPLINK] = do_set_uplink,
};
_Static_assert(ARRAY_SIZE(handlers) == BROKER_REQUEST_COUNT,
	       "a request has no handler");

/* After UNBLOCK nothing can be put up again: a new start is a new broker. */
static bool allowed_after_unblock(uint32_t type)
{
	return type == BROKER_REQUEST_UNBLOCK ||
	       type == BROKER_REQUEST_STATUS || type == BROKER_REQUEST_NOTIFY ||
	       type == BROKER_REQUEST_KILL_VM ||
	       type == BROKER_REQUEST_DELETE_TAP ||
	       type == BROKER_REQUEST_RESTORE_DNS;
}

void broker_handle(struct broker *b, const struct broker_message *m,
		   const int *fds, size_t n_fds, struct broker_message *reply,
		   int *ret_fd)
{
	struct request q = { .m = m,
			     .fds = fds,
			     .n_fds = n_fds,
			     .reply = reply,
			     .ret_fd = ret_fd };
	struct error e = ERROR_NULL(e);

	*ret_fd = -1;
	*reply = (struct broker_message){
		.magic = BROKER_MESSAGE_MAGIC,
		.type = BROKER_REPLY,
		.serial = m->serial,
	};
	reply->status = broker_message_check(m, n_fds, &e);
	if (reply->status == 0 && b->unblocked &&
	    !allowed_after_unblock(m->type))
		reply->status = error_set(&e, -EPROTO,
					  "%s: the network is open again; a "
					  "new start is a new broker",
					  broker_type_name(m->type));
	if (reply->status == 0)
		reply->status = handlers[m->type](b, &q, &e);
	str_copy(reply->text, sizeof(reply->text), e.text);
	if (reply->status < 0)
		log_warning("%s: %s", broker_type_name(m->type), e.text);
	else
		log_debug("%s done", broker_type_name(m->type));
}

/* --- what happens by itself --- */

void broker_stop(struct broker *b)
{
	b->stopping = true;
	send_event(b, BROKER_EVENT_STOP, "", 0);
}

static void tap_lost(struct broker *b)
{
	b->up &= ~(uint32_t)(BROKER_UP_TAP | BROKER_UP_TAP_CONFIGURED |
			     BROKER_UP_DNS);
	tighten(b, is_up(b, BROKER_UP_VM) ? NET_FIREWALL_UPLINK
					  : NET_FIREWALL_BLOCKED);
	/* Gone or only taken down: the next one is made from scratch. */
	net_tap_delete(b->net, &b->journal.plan, NULL);
	log_warning("Another program deleted the network link %s; traffic "
		    "stays blocked until TorVM has made a new one",
		    b->journal.plan.tap_name);
	send_event(b, BROKER_EVENT_TAP_LOST, b->journal.plan.tap_name, 0);
}

static void repaired(struct broker *b, const char *text)
{
	log_warning("%s", text);
	send_event(b, BROKER_EVENT_REPAIRED, text, 0);
}

/* Return: the bits that could not be repaired. */
static unsigned int repair(struct broker *b, unsigned int bits)
{
	const struct net_plan *plan = &b->journal.plan;
	struct error e = ERROR_NULL(e);
	unsigned int left = 0;

	if (bits & (NET_CHANGED_FIREWALL | NET_CHANGED_LINKS) &&
	    is_up(b, BROKER_UP_FIREWALL)) {
		if (set_mode(b, b->mode, &e) < 0)
			left |= bits &
				(NET_CHANGED_FIREWALL | NET_CHANGED_LINKS);
		else if (bits & NET_CHANGED_FIREWALL)
			repaired(b, "Another program touched TorVM's firewall "
				    "tables; they are back");
	}
	if (bits & NET_CHANGED_RULES && is_up(b, BROKER_UP_RULES)) {
		int r = 0;

		/* First: while its address is gone, no route leads into it. */
		if (is_up(b, BROKER_UP_TAP_CONFIGURED))
			r = net_tap_configure(b->net, plan, &e);
		if (net_rules_add(b->net, plan, &e) < 0 || r < 0)
			left |= NET_CHANGED_RULES;
		else
			repaired(b, "Another program changed the routing "
				    "rules or TorVM's link; both are complete "
				    "and come first again");
	}
	if (bits & NET_CHANGED_LINKS && is_up(b, BROKER_UP_RULES) &&
	    net_sysctls_apply(b->net, plan, save_sysctl, b, &e) < 0)
		left |= NET_CHANGED_LINKS;
	/* Said once, not every second; to the user, too. */
	if (left & ~b->failed_repairs) {
		log_error("A repair of the block failed: %s; trying again",
			  e.text);
		send_event(b, BROKER_EVENT_REPAIRED, e.text, 0);
	}
	b->failed_repairs = left;
	return left;
}

/* Not a matter of the block: at worst Tor finds out by itself, later. */
static void uplink_changed(struct broker *b)
{
	struct error e = ERROR_NULL(e);

	if (renew_uplink(b, false, &e) < 0)
		log_warning("%s", e.text);
}

void broker_network_changed(struct broker *b)
{
	unsigned int bits = b->to_repair, round;

	b->to_repair = 0;
	/* A repair makes the platform look at its watch, too; what it sees
	 * meanwhile is only told when it is asked again. */
	for (round = 0; round < REPAIR_ROUNDS; round++) {
		unsigned int seen = net_watch_read(b->net, &b->journal.plan);

		if (seen & NET_CHANGED_TAP && is_up(b, BROKER_UP_TAP))
			tap_lost(b);
		if (seen & NET_CHANGED_UPLINK)
			uplink_changed(b);
		bits |= seen & ~(unsigned int)NET_CHANGED_UPLINK;
		if (!bits)
			return;
		b->to_repair |= repair(b, bits);
		bits = 0;
	}
	/* Somebody is at it without a pause: again in a moment. */
	b->to_repair |= NET_CHANGED_LINKS;
}

void broker_dns_changed(struct broker *b)
{
	struct error e = ERROR_NULL(e);
	int r;

	if (!is_up(b, BROKER_UP_TAP_CONFIGURED) || b->stopping)
		return;
	r = net_dns_check(b->net, &b->journal.plan, &e);
	if (r == 0) {
		r = intend(b, BROKER_UP_DNS, &e);
		if (r == 0)
			r = net_dns_set(b->net, &b->journal.plan, &e);
		if (r == 0)
			repaired(b, "systemd-resolved started, or another "
				    "program changed its settings; names go "
				    "to Tor again");
	}
	if (r == -EOPNOTSUPP)
		b->up &= ~(uint32_t)BROKER_UP_DNS;
	else if (r >= 0)
		b->up |= BROKER_UP_DNS;
	else if (!b->dns_pending)
		names_fail(b, e.text);
	b->dns_pending = r < 0 && r != -EOPNOTSUPP;
}

static int adopt(struct broker *b, struct journal *old, struct error *e)
{
	int r;

	old->plan.vm_uid = b->vm_uid;
	old->plan.mark = random_mark();
	r = journal_init(&b->journal, &old->plan, e);
	if (r == 0)
		r = set_mode(b, NET_FIREWALL_BLOCKED, e);
	if (r == 0)
		r = restore_kill_vm(old->vm_pid, old->vm_started, e);
	if (r > 0)
		log_info("Killed the VM of the earlier controller (pid %d)",
			 old->vm_pid);
	if (r >= 0)
		r = restore_network(b->net, b->runtime_fd, old,
				    RESTORE_TO_CONTROLLER, log_step, NULL, e);
	if (r < 0)
		return r;
	b->journal.up = BROKER_UP_FIREWALL;
	b->journal.n_sysctls = old->n_sysctls;
	memcpy(b->journal.sysctls, old->sysctls, sizeof(old->sysctls));
	b->adopted = true;
	return journal_write(b->runtime_fd, &b->journal, e);
}

/* The block of lockdown is what we start from and what we end with: BLOCK puts
 * ours in its place, in one step, as for any change of mode. */
static int start_under_lockdown(struct broker *b, struct error *e)
{
	/* The one it was turned on with may have been another directory. */
	int r = lockdown_flag_set(b->runtime_fd);

	if (r < 0)
		return error_set(e, r,
				 "lockdown is on, and that cannot be noted in "
				 "the runtime directory: %s",
				 strerror(-r));
	b->under_lockdown = true;
	log_notice("Starting under lockdown: nothing leaves meanwhile");
	return 0;
}

int broker_adopt(struct broker *b, struct error *e)
{
	struct error read_error = ERROR_NULL(read_error);
	struct journal old;
	int r;

	r = journal_read(b->runtime_fd, &old, &read_error);
	if (r == 0 && !journal_is_current(&old)) {
		log_info("Removed a journal of another boot or network "
			 "namespace: what it tells of is not here");
		journal_remove(b->runtime_fd);
		r = -ENOENT;
	}
	if (r == -ENOENT && !net_firewall_present(b->net))
		return 0;
	if (r == -ENOENT && net_firewall_is_lockdown(b->net))
		return start_under_lockdown(b, e);
	if (r < 0) {
		if (r != -ENOENT)
			log_warning("%s; going by TorVM's own names",
				    read_error.text);
		restore_assume(b->net, &old);
	}
	log_notice("An earlier controller ended without cleaning up. Its block "
		   "is replaced by ours, so nothing leaves meanwhile");
	return adopt(b, &old, e);
}

void broker_deinit(struct broker *b)
{
	closep(&b->vm_pidfd);
	b->vm_pidfd = -1;
}
