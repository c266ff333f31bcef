/*
 * Theory of operation
 * ===================
 * The block lets the uplink's user out to any public address: it cannot know
 * Tor's relays. So a QEMU that was taken over, or another program that runs as
 * that user, could talk to anybody. The auditor looks from outside: each
 * AUDIT_MS it asks the kernel (sock_diag) where that user's connections go, and
 * Tor which relays it is connected with and under which addresses. What only
 * the kernel knows of is a suspect; after SUSPECT_MS both are asked again, for
 * a connection may begin or end between the two questions, and who is still
 * there raises an alarm: an error in the log, last_error and `alarms` of the
 * status. The alarm stays until the controller ends. Nothing is cut off: the
 * auditor reports.
 *
 * Relays whose address Tor does not know (a fallback directory that has left
 * the consensus) excuse as many suspects. With bridges or a proxy, Tor's relays
 * are not who is contacted: then it is the addresses that the block was opened
 * for (names.c).
 *
 * Limits: a connection shorter than a round can go unseen, and Tor in the VM is
 * believed. It is an alarm bell, not a wall.
 */
#include "daemon/auditor.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "daemon/engine.h"

#define AUDIT_MS 10000
#define SUSPECT_MS 2000
#define DUMP_ATTEMPTS 4

/* --- the kernel --- */

static int dump(int fd, int family, uint32_t seq, uint32_t uid,
		struct inet_diag_list *list)
{
	uint8_t request[INET_DIAG_REQUEST_SIZE];
	_Alignas(8) uint8_t answer[INET_DIAG_ANSWER_MAX];
	int r = 0;

	inet_diag_request(family, seq, request);
	if (send(fd, request, sizeof(request), 0) < 0)
		return -errno;
	while (r == 0) {
		/* The kernel answers within send() and this call. */
		ssize_t n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);

		if (n < 0)
			return -errno;
		r = inet_diag_parse(answer, (size_t)n, seq, uid, list);
	}
	/* A kernel without IPv6. */
	return r == 1 || r == -ENOENT ? 0 : r;
}

static int read_once(uint32_t uid, struct inet_diag_list *ret)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	_cleanup_close_ int fd = -1;
	int r;

	*ret = (struct inet_diag_list){ 0 };
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0 ||
	    connect(fd, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	r = dump(fd, AF_INET, 1, uid, ret);
	return r < 0 ? r : dump(fd, AF_INET6, 2, uid, ret);
}

static int read_connections(uint32_t uid, struct inet_diag_list *ret)
{
	int r = -EINTR;

	for (int i = 0; i < DUMP_ATTEMPTS && r == -EINTR; i++)
		r = read_once(uid, ret);
	return r;
}

/* --- rounds --- */

static void raise_alarm(struct auditor *a, const struct endpoint *e)
{
	char where[ENDPOINT_TEXT_MAX], text[sizeof(a->alarms[0])];

	snprintf(text, sizeof(text),
		 "The VM's user on this computer is connected with %s, which "
		 "is no relay that Tor is connected with",
		 endpoint_format(e, where));
	for (size_t i = 0; i < a->n_alarms; i++)
		if (!strcmp(a->alarms[i], text))
			return;
	if (a->n_alarms == AUDITOR_ALARMS_MAX)
		return;
	str_copy(a->alarms[a->n_alarms++], sizeof(a->alarms[0]), text);
	engine_failure(a->engine,
		       "ALARM: %s. It was not stopped: see which program it "
		       "is (sudo ss -tpn dst %s), and run `torvm down` if in "
		       "doubt.",
		       text, where);
	engine_changed(a->engine);
}

static bool contains(const struct endpoint *v, size_t n,
		     const struct endpoint *e)
{
	for (size_t i = 0; i < n; i++)
		if (endpoint_equal(&v[i], e))
			return true;
	return false;
}

static void on_timer(uv_timer_t *timer);

static void next_round(struct auditor *a, uint64_t ms)
{
	uv_timer_start(&a->timer, on_timer, ms, 0);
}

void auditor_relays(struct auditor *a, const struct tor_relays *relays)
{
	const struct names *names = &a->engine->names;
	const bool direct = names->plan.any_tcp || names->plan.any_tcp6;
	struct inet_diag_list left = { 0 };

	if (!a->asked)
		return;
	a->asked = false;
	for (size_t i = 0; i < a->now.n; i++) {
		const struct endpoint *e = &a->now.v[i];

		if (!names_admit(names, e) &&
		    !(direct &&
		      contains(relays->endpoints, relays->n_endpoints, e)))
			left.v[left.n++] = *e;
	}
	if (direct && left.n <= relays->n_unknown)
		left.n = 0;
	for (size_t i = 0; i < left.n; i++)
		if (contains(a->suspects.v, a->suspects.n, &left.v[i]))
			raise_alarm(a, &left.v[i]);
	a->suspects = left;
	if (left.n > 0)
		next_round(a, SUSPECT_MS);
}

static void mute(struct auditor *a, const char *why)
{
	if (!a->mute)
		log_notice("The VM's connections are not compared with Tor's: "
			   "%s.",
			   why);
	a->mute = true;
}

static void on_timer(uv_timer_t *timer)
{
	struct auditor *a = timer->data;
	struct engine *e = a->engine;
	int r;

	next_round(a, AUDIT_MS);
	r = read_connections(e->vm_uid, &a->now);
	if (r < 0) {
		mute(a, strerror(-r));
		return;
	}
	a->asked = tor_link_question(&e->tor, TOR_QUESTION_RELAYS) == 0;
}

void auditor_update(struct auditor *a)
{
	bool active = uv_is_active((uv_handle_t *)&a->timer);

	if (a->engine->state == LIFECYCLE_STATE_RUNNING &&
	    a->engine->vm_uid != 0) {
		if (!active)
			next_round(a, SUSPECT_MS);
		return;
	}
	uv_timer_stop(&a->timer);
	a->asked = false;
	a->suspects.n = 0;
}

void auditor_init(struct auditor *a, struct engine *e)
{
	*a = (struct auditor){ .engine = e };
	uv_timer_init(&e->loop, &a->timer);
	a->timer.data = a;
}

void auditor_deinit(struct auditor *a)
{
	uv_close((uv_handle_t *)&a->timer, NULL);
}
