/*
 * Theory of operation
 *
 * A blocking client: a call is written, then replies are read until the one
 * without "continues". All waiting is poll(2) against one deadline, so that a
 * stuck controller cannot hang a caller that set one. Varlink's wire format is
 * proto/varlink.h's; this file adds the socket, the errors in plain words and
 * the types of org.torvm.Controller.
 *
 * The socket is reached through a descriptor of its folder, because a sun_path
 * holds only 107 bytes and runtime directories of tests are longer.
 */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/varlink.h"

#define INTERFACE "org.torvm.Controller."

struct client {
	int fd;
	int64_t deadline_ms; /* CLOCK_MONOTONIC; negative: none */
	struct varlink *codec;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int connect_error(int code, const char *runtime_dir, struct error *e)
{
	if (code == ENOENT || code == ECONNREFUSED || code == ENOTDIR)
		return error_set(e, -ESRCH,
				 "no controller runs (nothing answers at "
				 "%.200s/control.sock); start it with \"torvm "
				 "up\"",
				 runtime_dir);
	if (code == EACCES || code == EPERM)
		return error_set(
			e, -EACCES,
			"no permission to use %.200s/control.sock; run "
			"this as root, or add yourself to group torvm "
			"and log in again",
			runtime_dir);
	return error_set(e, -code, "%.200s/control.sock: %s", runtime_dir,
			 strerror(code));
}

int client_connect(const char *runtime_dir, struct client **ret,
		   struct error *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_(varlink_freep) struct varlink *codec = NULL;
	_cleanup_close_ int dir = -1, fd = -1;
	struct client *c;

	dir = open(runtime_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return connect_error(errno, runtime_dir, e);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(e, -errno, "socket: %m");
	snprintf(addr.sun_path, sizeof(addr.sun_path),
		 "/proc/self/fd/%d/control.sock", dir);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return connect_error(errno, runtime_dir, e);
	codec = varlink_new(VARLINK_ROLE_CLIENT);
	c = codec ? calloc(1, sizeof(*c)) : NULL;
	if (!c)
		return error_set(e, -ENOMEM, "out of memory");
	c->deadline_ms = -1;
	c->codec = steal_ptr(&codec);
	c->fd = steal_fd(&fd);
	*ret = c;
	return 0;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	closep(&c->fd);
	varlink_free(c->codec);
	free(c);
}

void client_freep(struct client **c)
{
	client_free(*c);
}

void client_set_deadline(struct client *c, int64_t timeout_ms)
{
	c->deadline_ms = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
}

static int gone(struct error *e)
{
	return error_set(e, -ESRCH, "the controller has ended");
}

/* Waits for @events. Return: 0 or -ETIMEDOUT or another negative errno. */
static int wait_for(struct client *c, short events, int64_t deadline_ms,
		    struct error *e)
{
	for (;;) {
		struct pollfd p = { .fd = c->fd, .events = events };
		int64_t left = deadline_ms < 0 ? -1 : deadline_ms - now_ms();
		int r;

		if (deadline_ms >= 0 && left < 0)
			left = 0;
		r = poll(&p, 1, left > 3600000 ? 3600000 : (int)left);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return error_set(e, -errno, "poll: %m");
		if (r == 0 && deadline_ms >= 0 && now_ms() >= deadline_ms)
			return error_set(e, -ETIMEDOUT,
					 "the controller did not answer in "
					 "time");
	}
}

static int send_all(struct client *c, struct buffer *out, int64_t deadline_ms,
		    struct error *e)
{
	const char *data;
	size_t len;

	while ((data = buffer_peek(out, &len)) && len > 0) {
		ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n >= 0) {
			buffer_consume(out, (size_t)n);
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return gone(e);
		if (errno != EAGAIN && errno != EINTR)
			return error_set(e, -errno, "send: %m");
		r = wait_for(c, POLLOUT, deadline_ms, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int receive(struct client *c, struct varlink_message *ret,
		   int64_t deadline_ms, struct error *e)
{
	char buf[4096];
	ssize_t n;
	int r;

	for (;;) {
		r = varlink_next(c->codec, ret, e);
		if (r != 0)
			return r < 0 ? r : 0;
		r = wait_for(c, POLLIN, deadline_ms, e);
		if (r < 0)
			return r;
		n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return gone(e);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return error_set(e, -errno, "recv: %m");
		if (n > 0 && varlink_push(c->codec, buf, (size_t)n) < 0)
			return error_set(e, -ENOMEM, "out of memory");
	}
}

static int reply_error(const struct varlink_message *m, struct error *e)
{
	if (!strcmp(m->error, INTERFACE "PermissionDenied"))
		return error_set(
			e, -EACCES,
			"the controller refuses: only root and members "
			"of group torvm may do this");
	if (!strcmp(m->error, INTERFACE "NothingToConfirm"))
		return error_set(e, -ENOENT,
				 "there is nothing to confirm: the controller "
				 "was not started with --confirm, or it is "
				 "already confirmed");
	if (!strcmp(m->error, INTERFACE "TorNotReady"))
		return error_set(e, -EAGAIN,
				 "Tor does not answer in the virtual machine "
				 "yet; \"torvm status\" shows how far it is");
	if (!strcmp(m->error, INTERFACE "MoatNotPossible")) {
		const char *why = json_string_value(
			json_object_get(m->parameters, "reason"));

		return error_set(e, -EHOSTUNREACH, "%s", why ? why : "");
	}
	return error_set(e, -EBADMSG,
			 "the controller answered with the error %.120s; is it "
			 "of the same version as this program (" TORVM_VERSION
			 ")?",
			 m->error);
}

typedef int (*reply_fn)(void *userdata, const json_t *parameters,
			struct error *e);

/* Calls @method; each reply goes to @fn. Return: what @fn returned if it was
 * not 0, or 0 after the last reply, or a negative errno. */
static int call(struct client *c, const char *method, json_t *parameters,
		bool more, reply_fn fn, void *userdata, struct error *e)
{
	_cleanup_(buffer_deinit) struct buffer out = BUFFER_NULL(out);
	int64_t deadline_ms = c->deadline_ms;
	bool last = false;
	int r;

	/* Even of a stream the first reply comes at once. */
	if (deadline_ms < 0)
		deadline_ms = now_ms() + CLIENT_TIMEOUT_MS;
	if (varlink_write_call(&out, method, parameters,
			       more ? VARLINK_CALL_MORE : 0) < 0)
		return error_set(e, -ENOMEM, "out of memory");
	r = send_all(c, &out, deadline_ms, e);
	while (r == 0 && !last) {
		struct varlink_message m = VARLINK_MESSAGE_NULL(m);

		r = receive(c, &m, deadline_ms, e);
		if (r < 0)
			return r;
		last = !m.continues;
		if (m.error)
			r = reply_error(&m, e);
		else if (fn)
			r = fn(userdata, m.parameters, e);
		varlink_message_deinit(&m);
		deadline_ms = c->deadline_ms;
	}
	return r;
}

struct status_call {
	client_status_fn fn;
	void *userdata;
	struct client_status *ret;
};

static int on_status(void *userdata, const json_t *parameters, struct error *e)
{
	struct status_call *sc = userdata;
	struct client_status status;
	int r;

	r = client_status_from_json(json_object_get(parameters, "status"),
				    &status, e);
	if (r < 0)
		return r;
	if (sc->ret)
		*sc->ret = status;
	return sc->fn ? sc->fn(sc->userdata, &status) : 0;
}

int client_get_status(struct client *c, struct client_status *ret,
		      struct error *e)
{
	struct status_call sc = { .ret = ret };

	return call(c, INTERFACE "GetStatus", NULL, false, on_status, &sc, e);
}

int client_watch_status(struct client *c, client_status_fn fn, void *userdata,
			struct error *e)
{
	struct status_call sc = { .fn = fn, .userdata = userdata };
	int r;

	r = call(c, INTERFACE "WatchStatus", NULL, true, on_status, &sc, e);
	return r == -ESRCH ? 0 : r;
}

int client_stop(struct client *c, client_status_fn fn, void *userdata,
		struct error *e)
{
	struct status_call sc = { .fn = fn, .userdata = userdata };

	return call(c, INTERFACE "Stop", NULL, true, on_status, &sc, e);
}

int client_confirm(struct client *c, struct error *e)
{
	return call(c, INTERFACE "Confirm", NULL, false, NULL, NULL, e);
}

static int on_parameters(void *userdata, const json_t *parameters,
			 struct error *e)
{
	json_t **ret = userdata;

	json_decref(*ret);
	*ret = json_incref((json_t *)parameters);
	return 0;
}

static int bad_reply(struct error *e)
{
	return error_set(e, -EBADMSG,
			 "the controller's reply is not what this version of "
			 "torvm (" TORVM_VERSION ") understands; stop it and "
			 "start it again with the same version");
}

/* Whether @list is an array of objects that have the @n texts of @required. */
static bool is_list_of(const json_t *list, const char *const *required,
		       size_t n)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(list))
		return false;
	json_array_foreach (list, i, item)
		for (size_t k = 0; k < n; k++)
			if (!json_is_string(json_object_get(item, required[k])))
				return false;
	return true;
}

static bool is_circuits(const json_t *parameters)
{
	static const char *const circuit[] = { "id", "status" };
	static const char *const stream[] = { "id", "status", "target" };
	const json_t *circuits = json_object_get(parameters, "circuits"), *c;
	size_t i;

	if (!is_list_of(circuits, circuit, ARRAY_SIZE(circuit)) ||
	    !is_list_of(json_object_get(parameters, "streams"), stream,
			ARRAY_SIZE(stream)))
		return false;
	json_array_foreach (circuits, i, c)
		if (!is_list_of(json_object_get(c, "relays"), NULL, 0))
			return false;
	return true;
}

int client_get_circuits(struct client *c, json_t **ret, struct error *e)
{
	_cleanup_(json_decrefp) json_t *parameters = NULL;
	int r;

	r = call(c, INTERFACE "GetCircuits", NULL, false, on_parameters,
		 &parameters, e);
	if (r < 0)
		return r;
	if (!is_circuits(parameters))
		return bad_reply(e);
	*ret = steal_ptr(&parameters);
	return 0;
}

int client_get_entries(struct client *c, json_t **ret, struct error *e)
{
	static const char *const entry[] = { "state" };
	_cleanup_(json_decrefp) json_t *parameters = NULL;
	int r;

	r = call(c, INTERFACE "GetEntries", NULL, false, on_parameters,
		 &parameters, e);
	if (r < 0)
		return r;
	if (!is_list_of(json_object_get(parameters, "entries"), entry,
			ARRAY_SIZE(entry)))
		return bad_reply(e);
	*ret = steal_ptr(&parameters);
	return 0;
}

int client_new_identity(struct client *c, int64_t *ret_wait, struct error *e)
{
	_cleanup_(json_decrefp) json_t *parameters = NULL;
	const json_t *wait;
	int r;

	r = call(c, INTERFACE "NewIdentity", NULL, false, on_parameters,
		 &parameters, e);
	if (r < 0)
		return r;
	wait = json_object_get(parameters, "wait");
	if (!json_is_integer(wait))
		return bad_reply(e);
	*ret_wait = json_integer_value(wait);
	return 0;
}

/* Return: 1 once there is an address. */
static int on_moat(void *userdata, const json_t *parameters, struct error *e)
{
	const char *address =
		json_string_value(json_object_get(parameters, "address"));

	if (!address)
		return 0;
	/* It is handed on in a line. */
	if (strspn(address, "0123456789.:") != strlen(address))
		return bad_reply(e);
	return str_copy(userdata, CLIENT_MOAT_ADDRESS_SIZE, address) < 0
		       ? bad_reply(e)
		       : 1;
}

int client_open_moat(struct client *c, char *ret_address, struct error *e)
{
	int r;

	client_set_deadline(c, CLIENT_MOAT_TIMEOUT_MS);
	r = call(c, INTERFACE "OpenMoat", NULL, true, on_moat, ret_address, e);
	if (r == 0)
		return bad_reply(e);
	return r < 0 ? r : 0;
}

struct log_call {
	client_log_fn fn;
	void *userdata;
};

static int on_log(void *userdata, const json_t *parameters, struct error *e)
{
	const struct log_call *lc = userdata;
	const json_t *lines = json_object_get(parameters, "lines");
	size_t n = json_array_size(lines);

	if (!json_is_array(lines))
		return error_set(e, -EBADMSG, "the controller sent no lines");
	for (size_t i = 0; i < n; i++) {
		const json_t *line = json_array_get(lines, i);
		struct client_log_line l = {
			.time = json_string_value(
				json_object_get(line, "time")),
			.level = json_string_value(
				json_object_get(line, "level")),
			.text = json_string_value(
				json_object_get(line, "text")),
		};
		int r;

		if (!l.time || !l.level || !l.text)
			return error_set(e, -EBADMSG,
					 "the controller sent half a line");
		r = lc->fn(lc->userdata, &l);
		if (r != 0)
			return r;
	}
	return 0;
}

int client_get_log(struct client *c, bool follow, client_log_fn fn,
		   void *userdata, struct error *e)
{
	struct log_call lc = { .fn = fn, .userdata = userdata };
	json_t *parameters = json_pack("{s:b}", "follow", (int)follow);
	int r;

	if (!parameters)
		return error_set(e, -ENOMEM, "out of memory");
	r = call(c, INTERFACE "GetLog", parameters, follow, on_log, &lc, e);
	json_decref(parameters);
	return follow && r == -ESRCH ? 0 : r;
}
