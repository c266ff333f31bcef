/*
 * Theory of operation
 * ===================
 * The pipe handle of libuv lives until its close callback; a `struct stream`
 * may want a new connection before that. So each connection is an object of
 * its own that outlives its stream's interest: detached (stream == NULL), then
 * freed by the callback.
 *
 * The broker made the sockets listening before QEMU runs, so a connect may
 * succeed before QEMU exists; when QEMU ends without having accepted, nobody
 * hangs up. The owner closes its streams when the VM has ended.
 */
#include "daemon/stream.h"

#include <string.h>

#include "base/log.h"

/* Between two attempts to connect, in ms. */
#define RETRY_MS 100
/* A peer that has not read so many bytes does not read at all. */
#define BACKLOG_MAX ((size_t)256 * 1024)

struct stream_connection {
	uv_pipe_t pipe;
	uv_connect_t connect;
	struct stream *stream;
	char buf[4096];
};

struct write {
	uv_write_t req;
	char data[];
};

static void on_freed(uv_handle_t *handle)
{
	free(handle->data);
}

static void drop(struct stream *s)
{
	struct stream_connection *c = s->connection;

	if (!c)
		return;
	s->connection = NULL;
	s->open = false;
	c->stream = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_freed);
}

static void begin(struct stream *s);

static void on_retry(uv_timer_t *timer)
{
	begin(timer->data);
}

static void lost(struct stream *s)
{
	bool was_open = s->open;

	drop(s);
	if (was_open && s->ops->closed)
		s->ops->closed(s->userdata);
	/* The callback may have closed or reopened it. */
	if (s->wanted && !s->connection)
		uv_timer_start(&s->retry, on_retry, RETRY_MS, 0);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct stream_connection *c = handle->data;

	*buf = uv_buf_init(c->buf, sizeof(c->buf));
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
	struct stream_connection *c = handle->data;
	struct stream *s = c->stream;

	if (!s || n == 0)
		return;
	if (n < 0)
		lost(s);
	else if (s->ops->data)
		s->ops->data(s->userdata, buf->base, (size_t)n);
}

static void on_connect(uv_connect_t *req, int status)
{
	struct stream_connection *c = req->handle->data;
	struct stream *s = c->stream;

	if (!s)
		return;
	if (status < 0 ||
	    uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read) < 0) {
		lost(s);
		return;
	}
	s->open = true;
	if (s->ops->connected)
		s->ops->connected(s->userdata);
}

static void begin(struct stream *s)
{
	struct stream_connection *c = calloc(1, sizeof(*c));

	if (!c || uv_pipe_init(s->loop, &c->pipe, 0) < 0) {
		free(c);
		uv_timer_start(&s->retry, on_retry, RETRY_MS, 0);
		return;
	}
	c->pipe.data = c;
	c->stream = s;
	s->connection = c;
	uv_pipe_connect(&c->connect, &c->pipe, s->path, on_connect);
}

void stream_init(struct stream *s, uv_loop_t *loop, const char *path,
		 const struct stream_ops *ops, void *userdata)
{
	*s = (struct stream){ .loop = loop, .ops = ops, .userdata = userdata };
	str_copy(s->path, sizeof(s->path), path);
	uv_timer_init(loop, &s->retry);
	s->retry.data = s;
}

void stream_deinit(struct stream *s)
{
	stream_close(s);
	uv_close((uv_handle_t *)&s->retry, NULL);
}

void stream_open(struct stream *s)
{
	if (s->wanted)
		return;
	s->wanted = true;
	begin(s);
}

void stream_close(struct stream *s)
{
	s->wanted = false;
	uv_timer_stop(&s->retry);
	drop(s);
}

void stream_reopen(struct stream *s)
{
	stream_close(s);
	stream_open(s);
}

static void on_written(uv_write_t *req, int status)
{
	struct write *w = req->data;
	struct stream_connection *c = req->handle->data;

	free(w);
	if (status < 0 && c->stream)
		lost(c->stream);
}

void stream_write(struct stream *s, struct buffer *out)
{
	size_t len;
	const char *data = buffer_peek(out, &len);
	struct write *w;
	uv_buf_t buf;

	if (!data || !s->open)
		return;
	if (s->connection->pipe.write_queue_size + len > BACKLOG_MAX) {
		log_warning("The VM does not read its channel %s; connecting "
			    "anew.",
			    strrchr(s->path, '/') ? strrchr(s->path, '/') + 1
						  : s->path);
		buffer_clear(out);
		lost(s);
		return;
	}
	w = malloc(sizeof(*w) + len);
	if (!w)
		return;
	memcpy(w->data, data, len);
	buffer_consume(out, len);
	w->req.data = w;
	buf = uv_buf_init(w->data, (unsigned int)len);
	if (uv_write(&w->req, (uv_stream_t *)&s->connection->pipe, &buf, 1,
		     on_written) < 0)
		free(w);
}
