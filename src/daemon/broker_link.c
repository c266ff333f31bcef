/*
 * Theory of operation
 * ===================
 * A queue of requests over the SOCK_SEQPACKET channel. A reply belongs to the
 * request under way; one with another serial is a fault of the broker and
 * ends the engine, as an end of the channel does: without its broker the
 * engine can do nothing, and what the broker put into the kernel stays there.
 */
#include "daemon/broker_link.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "broker/channel.h"
#include "daemon/engine.h"

static void request_free(struct broker_request *r)
{
	channel_close_fds(r->fds, r->n_fds);
	free(r);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct broker_link *b, bool writable)
{
	uv_poll_start(&b->poll, UV_READABLE | (writable ? UV_WRITABLE : 0),
		      on_poll);
}

static void send_next(struct broker_link *b)
{
	struct broker_request *r = b->first;
	int ret;

	if (b->sent || !r || b->fd < 0)
		return;
	ret = channel_send(b->fd, &r->m, sizeof(r->m), r->fds, r->n_fds);
	if (ret == -EAGAIN) {
		watch(b, true);
		return;
	}
	if (ret < 0) {
		engine_abandon(b->engine);
		return;
	}
	log_debug("broker: %s", broker_type_name(r->m.type));
	channel_close_fds(r->fds, r->n_fds);
	r->n_fds = 0;
	b->sent = true;
	watch(b, false);
}

static void take_reply(struct broker_link *b, const struct broker_message *m,
		       int *fds, size_t n_fds)
{
	struct broker_request *r = b->first;

	if (!r || !b->sent || r->m.serial != m->serial) {
		log_error("the broker answered what was not asked (serial %u)",
			  m->serial);
		channel_close_fds(fds, n_fds);
		return;
	}
	if (m->status < 0)
		log_debug("broker: %s failed: %s", broker_type_name(r->m.type),
			  m->text);
	b->first = r->next;
	if (!b->first)
		b->last = &b->first;
	b->sent = false;
	r->fn(b->engine, m, fds, n_fds, r->userdata);
	request_free(r);
	send_next(b);
}

static void take_event(struct broker_link *b, const struct broker_message *m)
{
	struct engine *e = b->engine;

	switch ((enum broker_type)m->type) {
	case BROKER_EVENT_VM_EXITED:
		vm_supervisor_exited(&e->vm, m->u.exit.wait_status);
		break;
	case BROKER_EVENT_STOP:
		log_notice("Stopping: the network will be restored.");
		engine_stop(e);
		break;
	case BROKER_EVENT_TAP_LOST:
		e->tap_present = false;
		engine_failure(
			e, "The TAP was deleted or set down by another "
			   "program; nothing leaves this machine. TorVM makes "
			   "it anew.");
		engine_feed(e, LIFECYCLE_EVENT_TAP_LOST);
		break;
	case BROKER_EVENT_REPAIRED: log_warning("%s", m->text); break;
	case BROKER_REQUEST_NONE:
	case BROKER_REQUEST_PRECHECK:
	case BROKER_REQUEST_BLOCK:
	case BROKER_REQUEST_CREATE_TAP:
	case BROKER_REQUEST_START_VM:
	case BROKER_REQUEST_CONFIGURE_TAP:
	case BROKER_REQUEST_REFUSE_TAP:
	case BROKER_REQUEST_SET_DNS:
	case BROKER_REQUEST_RESTORE_DNS:
	case BROKER_REQUEST_KILL_VM:
	case BROKER_REQUEST_DELETE_TAP:
	case BROKER_REQUEST_UNBLOCK:
	case BROKER_REQUEST_STATUS:
	case BROKER_REQUEST_NOTIFY:
	case BROKER_REQUEST_RENEW_UPLINK:
	case BROKER_REQUEST_SET_UPLINK:
	case BROKER_REQUEST_COUNT:
	case BROKER_REPLY:
	case BROKER_EVENT_LAST:
		log_error("the broker sent a message of unknown type %u",
			  m->type);
		break;
	}
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct broker_link *b = poll->data;

	if (status == 0 && (events & UV_WRITABLE))
		send_next(b);

	while (b->fd >= 0) {
		struct broker_message m;
		int fds[BROKER_MESSAGE_FDS_MAX];
		size_t n_fds = 0;
		int ret = channel_recv(b->fd, &m, sizeof(m), fds, &n_fds);

		if (ret == -EAGAIN)
			return;
		if (ret <= 0) {
			engine_abandon(b->engine);
			return;
		}
		m.text[sizeof(m.text) - 1] = '\0';
		if (m.type == BROKER_REPLY) {
			take_reply(b, &m, fds, n_fds);
		} else {
			channel_close_fds(fds, n_fds);
			take_event(b, &m);
		}
	}
}

int broker_link_open(struct broker_link *b, struct engine *e, int fd)
{
	int ret;

	*b = (struct broker_link){ .engine = e, .fd = fd };
	b->last = &b->first;
	b->poll.data = b;
	ret = uv_poll_init(&e->loop, &b->poll, fd);
	if (ret < 0)
		return ret;
	b->polling = true;
	watch(b, false);
	return 0;
}

void broker_link_close(struct broker_link *b)
{
	struct broker_request *r;

	if (b->polling) {
		uv_close((uv_handle_t *)&b->poll, NULL);
		b->polling = false;
	}
	while ((r = b->first)) {
		b->first = r->next;
		request_free(r);
	}
	b->last = &b->first;
	if (b->fd >= 0)
		close(steal_fd(&b->fd));
}

void broker_link_request(struct broker_link *b, const struct broker_message *m,
			 const int *fds, size_t n_fds, broker_reply_fn fn,
			 void *userdata)
{
	struct broker_request *r = calloc(1, sizeof(*r));

	assert(n_fds <= BROKER_MESSAGE_FDS_MAX);
	if (!r || b->fd < 0) {
		int copy[BROKER_MESSAGE_FDS_MAX];

		if (n_fds)
			memcpy(copy, fds, n_fds * sizeof(*fds));
		channel_close_fds(copy, n_fds);
		free(r);
		engine_abandon(b->engine);
		return;
	}
	r->m = *m;
	r->m.magic = BROKER_MESSAGE_MAGIC;
	r->m.serial = ++b->serial;
	r->m.status = 0;
	if (n_fds)
		memcpy(r->fds, fds, n_fds * sizeof(*fds));
	r->n_fds = n_fds;
	r->fn = fn;
	r->userdata = userdata;
	*b->last = r;
	b->last = &r->next;
	send_next(b);
}
