/*
 * Theory of operation
 * ===================
 * One client has at most one reply on its way: its next call is looked at once
 * that reply has left. A call with "more" makes its connection a stream (of
 * status or log) until the end; a slow reader of a stream gets the newest
 * status, or the log lines that are still there, when it reads again. So what
 * a client can make us hold is bounded, whatever it sends or does not read:
 *
 *	CLIENTS_MAX connections, of those CLIENTS_PER_UID_MAX of a user other
 *	than root and STRANGERS_MAX of users without permission. When all are
 *	taken, the one that was idle for the longest makes room, or else the one
 *	that has not read for the longest what it was sent;
 *	CALL_MAX bytes of one call, BACKLOG_MAX bytes of calls that wait;
 *	one reply of at most REPLY_MAX bytes.
 *
 * OpenMoat makes its connection a stream, too, and what it opened ends with it.
 *
 * What has to be asked of Tor is answered when Tor has; the client's next call
 * waits until then. All who wait for the same get the same answer.
 *
 * Who the peer is comes from the kernel (SO_PEERCRED, SO_PEERGROUPS) as of its
 * connect(2).
 */
#include "daemon/control_server.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "daemon/engine.h"
#include "daemon/status.h"
#include "proto/interface.h"
#include "proto/varlink.h"

#define CLIENTS_MAX 64
#define CLIENTS_PER_UID_MAX 16
#define STRANGERS_MAX 8
#define CALL_MAX ((size_t)16 * 1024)
#define BACKLOG_MAX ((size_t)32 * 1024)
#define REPLY_MAX ((size_t)512 * 1024)
/* Lines that come together go to followers together, in ms. */
#define LOG_MERGE_MS 20

#define CONTROLLER "org.torvm.Controller"
#define SERVICE "org.varlink.service"

enum stream_kind {
	STREAM_KIND_NONE,
	STREAM_KIND_STATUS,
	STREAM_KIND_STOP,
	STREAM_KIND_LOG,
	STREAM_KIND_MOAT,
};

#define NO_QUESTION (-1)

struct client {
	uv_pipe_t pipe;
	uv_write_t write;
	struct control_server *server; /* NULL: being closed */
	struct client *next;
	struct varlink *codec;
	struct buffer out; /* the reply on its way */
	uid_t uid;
	bool permitted;
	bool writing;
	bool reading;
	bool last;    /* to be closed when the reply has left */
	bool oneway;  /* the call at hand wants no reply */
	size_t open;  /* bytes of the call that has not ended */
	size_t ahead; /* bytes read since all was handled */
	uint64_t active_ms;
	enum stream_kind stream;
	int question; /* an answer of Tor is awaited; or NO_QUESTION */
	bool status_due;
	uint64_t log_next;
	char moat[32];      /* an address to be told */
	char moat_why[400]; /* ... or why there is none any more */
	char in[4096];
};

static void on_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;

	varlink_freep(&c->codec);
	buffer_deinit(&c->out);
	free(c);
}

static void client_close(struct client *c)
{
	struct control_server *s = c->server;
	struct client **at;

	if (!s)
		return;
	for (at = &s->first; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	s->n_clients--;
	c->server = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_closed);
	if (c->stream == STREAM_KIND_MOAT && !c->moat_why[0] && !s->finishing)
		moat_end(&s->engine->moat);
}

/* -------------------------------------------------------------- replies */

static void on_written(uv_write_t *req, int status);

static void client_flush(struct client *c)
{
	size_t len;
	const char *data = buffer_peek(&c->out, &len);
	uv_buf_t buf;

	if (!data || c->writing)
		return;
	buf = uv_buf_init((char *)data, (unsigned int)len);
	c->write.data = c;
	if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written) <
	    0)
		client_close(c);
	else
		c->writing = true;
}

/* Takes @parameters over. */
static void reply(struct client *c, json_t *parameters, bool continues)
{
	if (!c->oneway && varlink_write_reply(&c->out, parameters, continues))
		c->last = true; /* out of memory: the client sees an end */
	json_decref(parameters);
}

static void reply_error(struct client *c, const char *name)
{
	if (!c->oneway)
		varlink_write_error(&c->out, name, NULL);
}

static void reply_service_error(struct client *c, const char *name,
				const char *about)
{
	if (!c->oneway)
		varlink_write_service_error(&c->out, name, about);
}

static void reply_status(struct client *c, bool continues)
{
	c->status_due = false;
	reply(c, json_pack("{s:o}", "status", status_object(c->server->engine)),
	      continues);
}

static void reply_log(struct client *c, bool continues)
{
	uint64_t from = c->log_next;
	json_t *lines = log_buffer_lines(&c->server->engine->log, from,
					 REPLY_MAX, &c->log_next);

	reply(c, json_pack("{s:o}", "lines", lines), continues);
}

static void reply_no_moat(struct client *c, const char *why)
{
	json_t *parameters = json_pack("{s:s}", "reason", why);

	if (!c->oneway)
		varlink_write_error(&c->out, CONTROLLER ".MoatNotPossible",
				    parameters);
	json_decref(parameters);
}

/* Sends what a stream owes, if the previous part has left. */
static void stream_flush(struct client *c)
{
	if (c->writing || c->last)
		return;
	switch (c->stream) {
	case STREAM_KIND_NONE: return;
	case STREAM_KIND_STATUS:
	case STREAM_KIND_STOP:
		if (!c->status_due)
			return;
		c->last = c->server->finishing;
		reply_status(c, !c->last);
		break;
	case STREAM_KIND_LOG:
		c->last = c->server->finishing;
		if (c->log_next == c->server->engine->log.next && !c->last)
			return;
		reply_log(c, !c->last);
		break;
	case STREAM_KIND_MOAT:
		if (c->moat_why[0] || c->server->finishing) {
			c->last = true;
			reply_no_moat(c, c->moat_why);
		} else if (c->moat[0]) {
			reply(c, json_pack("{s:s}", "address", c->moat), true);
			c->moat[0] = '\0';
		} else {
			return;
		}
		break;
	}
	client_flush(c);
}

/* ---------------------------------------------------------------- calls */

static void call_get_log(struct client *c, const struct varlink_message *m)
{
	json_t *follow = json_object_get(m->parameters, "follow");
	bool more = m->more && json_is_true(follow);

	if (follow && !json_is_boolean(follow) && !json_is_null(follow)) {
		reply_service_error(c, VARLINK_ERROR_PARAMETER, "follow");
		return;
	}
	if (json_is_true(follow) && !m->more) {
		reply_error(c, VARLINK_ERROR_EXPECTED_MORE);
		return;
	}
	reply_log(c, more);
	if (more)
		c->stream = STREAM_KIND_LOG;
}

/* The reply follows when Tor has answered. */
static void call_tor(struct client *c, enum tor_question question)
{
	if (tor_link_question(&c->server->engine->tor, question) < 0)
		reply_error(c, CONTROLLER ".TorNotReady");
	else if (!c->oneway)
		c->question = (int)question;
}

static void call_open_moat(struct client *c, const struct varlink_message *m)
{
	struct error e = ERROR_NULL(e);

	if (!m->more) {
		reply_error(c, VARLINK_ERROR_EXPECTED_MORE);
	} else if (moat_begin(&c->server->engine->moat, &e) < 0) {
		reply_no_moat(c, e.text);
	} else {
		reply(c, NULL, true);
		c->stream = STREAM_KIND_MOAT;
	}
}

static void call_controller(struct client *c, const struct varlink_message *m)
{
	struct engine *e = c->server->engine;

	if (!c->permitted) {
		reply_error(c, CONTROLLER ".PermissionDenied");
	} else if (!strcmp(m->method, "GetStatus")) {
		reply_status(c, false);
		engine_refresh(e);
	} else if (!strcmp(m->method, "WatchStatus")) {
		reply_status(c, m->more);
		if (m->more)
			c->stream = STREAM_KIND_STATUS;
	} else if (!strcmp(m->method, "GetLog")) {
		call_get_log(c, m);
	} else if (!strcmp(m->method, "GetCircuits")) {
		call_tor(c, TOR_QUESTION_CIRCUITS);
	} else if (!strcmp(m->method, "GetEntries")) {
		call_tor(c, TOR_QUESTION_ENTRIES);
	} else if (!strcmp(m->method, "NewIdentity")) {
		call_tor(c, TOR_QUESTION_NEW_IDENTITY);
	} else if (!strcmp(m->method, "Stop")) {
		log_notice("Stopping on request of uid %u.",
			   (unsigned int)c->uid);
		/* Before anything else happens, since the stop may end us. */
		if (m->more)
			c->stream = STREAM_KIND_STOP;
		reply_status(c, m->more);
		client_flush(c);
		engine_stop(e);
	} else if (!strcmp(m->method, "OpenMoat")) {
		call_open_moat(c, m);
	} else if (!strcmp(m->method, "Confirm")) {
		if (engine_confirm(e) < 0)
			reply_error(c, CONTROLLER ".NothingToConfirm");
		else
			reply(c, NULL, false);
	} else {
		reply_service_error(c, VARLINK_ERROR_METHOD, m->method);
	}
}

static void call_service(struct client *c, const struct varlink_message *m)
{
	const char *name, *text;
	json_t *names;

	if (!strcmp(m->method, "GetInfo")) {
		names = json_array();
		for (size_t i = 0; i < n_interfaces; i++)
			json_array_append_new(names,
					      json_string(interfaces[i].name));
		reply(c,
		      json_pack("{s:s, s:s, s:s, s:s, s:o}", "vendor", "TorVM",
				"product", "TorVM controller", "version",
				TORVM_VERSION, "url", "https://torvm.invalid/",
				"interfaces", names),
		      false);
		return;
	}
	if (strcmp(m->method, "GetInterfaceDescription") != 0) {
		reply_service_error(c, VARLINK_ERROR_METHOD, m->method);
		return;
	}
	name = json_string_value(json_object_get(m->parameters, "interface"));
	if (!name) {
		reply_service_error(c, VARLINK_ERROR_PARAMETER, "interface");
		return;
	}
	text = interface_description(name);
	if (!text)
		reply_service_error(c, VARLINK_ERROR_INTERFACE, name);
	else
		reply(c, json_pack("{s:s}", "description", text), false);
}

static void handle(struct client *c, const struct varlink_message *m)
{
	c->oneway = m->oneway;
	if (!strcmp(m->interface, CONTROLLER))
		call_controller(c, m);
	else if (!strcmp(m->interface, SERVICE))
		call_service(c, m);
	else
		reply_service_error(c, VARLINK_ERROR_INTERFACE, m->interface);
	c->oneway = false;
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf);
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void client_read(struct client *c, bool on)
{
	if (c->reading == on)
		return;
	c->reading = on;
	if (on)
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
	else
		uv_read_stop((uv_stream_t *)&c->pipe);
}

/* Handles calls until one has a reply on its way or is a stream. */
static void client_work(struct client *c)
{
	struct error e = ERROR_NULL(e);
	int ret = 1;

	while (c->server && !c->server->finishing && !c->writing && !c->last &&
	       c->stream == STREAM_KIND_NONE && c->question == NO_QUESTION &&
	       ret > 0) {
		struct varlink_message m = VARLINK_MESSAGE_NULL(m);

		ret = varlink_next(c->codec, &m, &e);
		if (ret > 0) {
			handle(c, &m);
			if (c->server)
				client_flush(c);
		}
		varlink_message_deinit(&m);
	}
	if (!c->server)
		return;
	if (ret < 0) {
		log_debug("a client of uid %u makes no sense: %s",
			  (unsigned int)c->uid, e.text);
		client_close(c);
		return;
	}
	if (ret == 0) {
		c->ahead = 0;
		client_read(c, true);
	}
}

static void on_written(uv_write_t *req, int status)
{
	struct client *c = req->data;

	c->writing = false;
	buffer_clear(&c->out);
	if (!c->server)
		return;
	c->active_ms = uv_now(&c->server->engine->loop);
	if (status < 0 || c->last) {
		client_close(c);
		return;
	}
	stream_flush(c);
	if (c->server)
		client_work(c);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	struct client *c = handle->data;

	*buf = uv_buf_init(c->in, sizeof(c->in));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *c = stream->data;
	const char *end;

	if (!c->server || n == 0)
		return;
	if (n < 0) {
		/* A client that has hung up reads no more replies either. */
		client_close(c);
		return;
	}
	c->active_ms = uv_now(&c->server->engine->loop);
	end = memrchr(buf->base, '\0', (size_t)n);
	c->open = end ? (size_t)(buf->base + n - end - 1) : c->open + (size_t)n;
	c->ahead += (size_t)n;
	if (c->open > CALL_MAX ||
	    (c->stream != STREAM_KIND_NONE && c->ahead > BACKLOG_MAX) ||
	    varlink_push(c->codec, buf->base, (size_t)n) < 0) {
		client_close(c);
		return;
	}
	if (c->ahead > BACKLOG_MAX)
		client_read(c, false);
	client_work(c);
}

/* -------------------------------------------------------------- clients */

static bool in_group(int fd, gid_t group)
{
	gid_t groups[256];
	socklen_t len = sizeof(groups);

	if (group == (gid_t)-1 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof(groups[0]); i++)
		if (groups[i] == group)
			return true;
	return false;
}

static int identify(struct client *c, gid_t group)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&c->pipe, &fd) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -EACCES;
	c->uid = peer.uid;
	c->permitted = peer.uid == 0 || peer.uid == geteuid() ||
		       (group != (gid_t)-1 && peer.gid == group) ||
		       in_group(fd, group);
	return 0;
}

/* Whether there is room for a client that has just been counted in. */
static bool make_room(struct control_server *s, struct client *newcomer)
{
	struct client *idle = NULL, *slow = NULL;
	size_t same_uid = 0, strangers = 0;

	for (struct client *c = s->first; c; c = c->next) {
		same_uid += c->uid == newcomer->uid;
		strangers += !c->permitted;
		if (c->writing && (!slow || c->active_ms < slow->active_ms))
			slow = c;
		if (c != newcomer && !c->writing &&
		    c->question == NO_QUESTION &&
		    c->stream == STREAM_KIND_NONE &&
		    (!idle || c->active_ms < idle->active_ms))
			idle = c;
	}
	if ((newcomer->uid != 0 && same_uid > CLIENTS_PER_UID_MAX) ||
	    (!newcomer->permitted && strangers > STRANGERS_MAX))
		return false;
	if (s->n_clients <= CLIENTS_MAX)
		return true;
	if (!idle)
		idle = slow;
	if (!idle)
		return false;
	client_close(idle);
	return true;
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct control_server *s = listener->data;
	struct client *c = calloc(1, sizeof(*c));

	if (status < 0 || !c || uv_pipe_init(listener->loop, &c->pipe, 0) < 0) {
		free(c);
		return;
	}
	c->pipe.data = c;
	c->server = s;
	c->question = NO_QUESTION;
	c->next = s->first;
	s->first = c;
	s->n_clients++;
	c->active_ms = uv_now(listener->loop);
	c->codec = varlink_new(VARLINK_ROLE_SERVER);
	if (uv_accept(listener, (uv_stream_t *)&c->pipe) < 0 || !c->codec ||
	    s->finishing || identify(c, s->group) < 0 || !make_room(s, c)) {
		client_close(c);
		return;
	}
	client_read(c, true);
}

static void on_log_timer(uv_timer_t *timer)
{
	struct control_server *s = timer->data;
	struct client *next;

	for (struct client *c = s->first; c; c = next) {
		next = c->next;
		if (c->stream == STREAM_KIND_LOG)
			stream_flush(c);
	}
}

void control_server_log_grew(struct control_server *s)
{
	/* Not at once: a line may be logged anywhere, even in here. */
	if (s->first && s->listening &&
	    !uv_is_active((uv_handle_t *)&s->log_timer))
		uv_timer_start(&s->log_timer, on_log_timer, LOG_MERGE_MS, 0);
}

void control_server_status_changed(struct control_server *s)
{
	struct client *next;

	for (struct client *c = s->first; c; c = next) {
		next = c->next;
		c->status_due = true;
		stream_flush(c);
	}
}

void control_server_moat(struct control_server *s, const char *address,
			 const char *why)
{
	for (struct client *c = s->first; c; c = c->next) {
		/* One that was told why is about to go. */
		if (c->stream != STREAM_KIND_MOAT || c->moat_why[0])
			continue;
		if (address)
			str_copy(c->moat, sizeof(c->moat), address);
		else
			str_copy(c->moat_why, sizeof(c->moat_why), why);
		stream_flush(c);
		return;
	}
}

void control_server_answer(struct control_server *s, enum tor_question question,
			   json_t *parameters)
{
	struct client *next;

	for (struct client *c = s->first; c; c = next) {
		next = c->next;
		if (c->question != (int)question)
			continue;
		c->question = NO_QUESTION;
		if (parameters)
			reply(c, json_incref(parameters), false);
		else
			reply_error(c, CONTROLLER ".TorNotReady");
		client_flush(c);
	}
	json_decref(parameters);
}

void control_server_finish(struct control_server *s)
{
	struct client *next;

	s->finishing = true;
	for (int q = 0; q < TOR_QUESTION_COUNT; q++)
		control_server_answer(s, (enum tor_question)q, NULL);
	for (struct client *c = s->first; c; c = next) {
		next = c->next;
		c->status_due = true;
		if (c->stream != STREAM_KIND_NONE)
			stream_flush(c);
		else if (c->writing)
			c->last = true;
		else
			client_close(c);
	}
}

bool control_server_idle(const struct control_server *s)
{
	return s->first == NULL;
}

int control_server_open(struct control_server *s, struct engine *e, int fd)
{
	struct group *group = getgrnam("torvm");
	int ret;

	*s = (struct control_server){
		.engine = e,
		.group = group ? group->gr_gid : (gid_t)-1,
	};
	uv_timer_init(&e->loop, &s->log_timer);
	s->log_timer.data = s;
	ret = uv_pipe_init(&e->loop, &s->listener, 0);
	if (ret < 0)
		return ret;
	s->listener.data = s;
	s->listening = true;
	ret = uv_pipe_open(&s->listener, fd);
	if (ret < 0)
		return ret;
	return uv_listen((uv_stream_t *)&s->listener, 64, on_connection);
}

void control_server_close(struct control_server *s)
{
	while (s->first)
		client_close(s->first);
	if (!s->listening)
		return;
	s->listening = false;
	uv_close((uv_handle_t *)&s->log_timer, NULL);
	uv_close((uv_handle_t *)&s->listener, NULL);
}
