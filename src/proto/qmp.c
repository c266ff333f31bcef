/*
 * Theory of operation: QEMU sends one JSON object a line. A session goes
 * through three phases: it waits for the greeting, then for the answer to
 * qmp_capabilities, then it is ready. Commands queued early are held back,
 * because QEMU answers anything else before the negotiation with an error.
 *
 * Replies are matched to commands by a numeric id. At most PENDING_MAX commands
 * may be unanswered: a hung QEMU cannot make our memory grow.
 *
 * QEMU runs the guest and may have been taken over by it, so its messages are
 * checked like any stranger's: type of every field used, one object a line, no
 * duplicate keys, bounded size.
 */
#include "proto/qmp.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include "proto/text.h"

#define PENDING_MAX 16

enum phase {
	PHASE_GREETING,
	PHASE_NEGOTIATING,
	PHASE_READY,
};

struct pending {
	uint32_t id; /* 0: free */
	enum qmp_command command;
};

struct qmp {
	struct buffer in;
	struct buffer out;
	struct buffer held; /* commands queued before PHASE_READY */
	enum phase phase;
	char version[32];
	uint32_t last_id;
	struct pending pending[PENDING_MAX];
};

static const char *const command_names[] = {
	[QMP_COMMAND_QUERY_STATUS] = "query-status",
	[QMP_COMMAND_SYSTEM_POWERDOWN] = "system_powerdown",
	[QMP_COMMAND_QUIT] = "quit",
};
static_assert(ARRAY_SIZE(command_names) == QMP_COMMAND_COUNT, "command names");

static const char *const event_names[] = {
	[QMP_EVENT_OTHER] = "",
	[QMP_EVENT_SHUTDOWN] = "SHUTDOWN",
	[QMP_EVENT_POWERDOWN] = "POWERDOWN",
	[QMP_EVENT_RESET] = "RESET",
	[QMP_EVENT_STOP] = "STOP",
	[QMP_EVENT_RESUME] = "RESUME",
	[QMP_EVENT_GUEST_PANICKED] = "GUEST_PANICKED",
};
static_assert(ARRAY_SIZE(event_names) == QMP_EVENT_COUNT, "event names");

const char *qmp_command_name(enum qmp_command command)
{
	return command_names[command];
}

struct qmp *qmp_new(void)
{
	return calloc(1, sizeof(struct qmp));
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	buffer_deinit(&q->in);
	buffer_deinit(&q->out);
	buffer_deinit(&q->held);
	free(q);
}

void qmp_freep(struct qmp **q)
{
	qmp_free(*q);
}

void qmp_reset(struct qmp *q)
{
	buffer_clear(&q->in);
	buffer_clear(&q->out);
	buffer_clear(&q->held);
	q->phase = PHASE_GREETING;
	q->version[0] = '\0';
	memset(q->pending, 0, sizeof(q->pending));
}

int qmp_push(struct qmp *q, const void *data, size_t len)
{
	return buffer_append(&q->in, data, len);
}

struct buffer *qmp_output(struct qmp *q)
{
	return &q->out;
}

int qmp_send(struct qmp *q, enum qmp_command command, uint32_t *ret_id)
{
	struct pending *slot = NULL;
	int r;

	for (size_t i = 0; i < PENDING_MAX && !slot; i++)
		if (q->pending[i].id == 0)
			slot = &q->pending[i];
	if (!slot)
		return -EAGAIN;

	if (++q->last_id == 0)
		q->last_id = 1;
	r = buffer_printf(q->phase == PHASE_READY ? &q->out : &q->held,
			  "{\"execute\":\"%s\",\"id\":%" PRIu32 "}\r\n",
			  command_names[command], q->last_id);
	if (r < 0)
		return r;
	*slot = (struct pending){ .id = q->last_id, .command = command };
	if (ret_id)
		*ret_id = q->last_id;
	return 0;
}

static int malformed(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG,
			 "QEMU's monitor sent something that is not QMP (%s)",
			 what);
}

/* "major.minor.micro" of a VersionInfo object. */
static int version_of(const json_t *info, char *ret, size_t size)
{
	static const char *const keys[] = { "major", "minor", "micro" };
	const json_t *qemu = json_object_get(info, "qemu");
	unsigned int part[3];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const json_t *n = json_object_get(qemu, keys[i]);
		json_int_t value = json_integer_value(n);

		if (!json_is_integer(n) || value < 0 || value > 9999)
			return -EBADMSG;
		part[i] = (unsigned int)value;
	}
	snprintf(ret, size, "%u.%u.%u", part[0], part[1], part[2]);
	return 0;
}

static int handle_greeting(struct qmp *q, const json_t *root, struct error *e)
{
	const json_t *version =
		json_object_get(json_object_get(root, "QMP"), "version");

	if (version_of(version, q->version, sizeof(q->version)) < 0)
		return malformed(e, "no greeting");
	q->phase = PHASE_NEGOTIATING;
	/* Id 0 is never a command's. */
	return buffer_append_string(
		&q->out, "{\"execute\":\"qmp_capabilities\",\"id\":0}\r\n");
}

/* The answer to qmp_capabilities: what was held back may go. */
static int become_ready(struct qmp *q, struct qmp_message *ret)
{
	size_t len;
	const char *held = buffer_peek(&q->held, &len);
	int r;

	r = buffer_append(&q->out, held, len);
	if (r < 0)
		return r;
	buffer_clear(&q->held);
	q->phase = PHASE_READY;
	ret->kind = QMP_KIND_READY;
	str_copy(ret->version, sizeof(ret->version), q->version);
	return 1;
}

/* Finds and frees the command with the reply's id. */
static int match(struct qmp *q, const json_t *id, struct qmp_message *ret)
{
	json_int_t n = json_integer_value(id);

	if (!json_is_integer(id) || n < 1 || n > UINT32_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < PENDING_MAX; i++) {
		if (q->pending[i].id != (uint32_t)n)
			continue;
		ret->id = q->pending[i].id;
		ret->command = q->pending[i].command;
		q->pending[i].id = 0;
		return 0;
	}
	return -EBADMSG;
}

static int handle_return(struct qmp *q, const json_t *root, const json_t *value,
			 struct qmp_message *ret, struct error *e)
{
	const json_t *id = json_object_get(root, "id"), *running, *status;

	if (q->phase == PHASE_NEGOTIATING) {
		if (!json_is_integer(id) || json_integer_value(id) != 0)
			return malformed(e, "reply before the negotiation");
		return become_ready(q, ret);
	}
	if (match(q, id, ret) < 0)
		return malformed(e, "reply without its command");
	ret->kind = QMP_KIND_RETURN;

	switch (ret->command) {
	case QMP_COMMAND_QUERY_STATUS:
		running = json_object_get(value, "running");
		status = json_object_get(value, "status");
		if (!json_is_boolean(running) || !json_is_string(status))
			return malformed(e, "query-status");
		ret->running = json_is_true(running);
		text_copy(ret->status, sizeof(ret->status),
			  json_string_value(status));
		break;
	case QMP_COMMAND_SYSTEM_POWERDOWN:
	case QMP_COMMAND_QUIT:
	case QMP_COMMAND_COUNT: break;
	}
	return 1;
}

static int handle_error(struct qmp *q, const json_t *root, const json_t *value,
			struct qmp_message *ret, struct error *e)
{
	const json_t *id = json_object_get(root, "id"),
		     *class = json_object_get(value, "class"),
		     *desc = json_object_get(value, "desc");

	if (!json_is_string(class) || !json_is_string(desc))
		return malformed(e, "error");
	text_copy(ret->error_class, sizeof(ret->error_class),
		  json_string_value(class));
	text_copy(ret->error_text, sizeof(ret->error_text),
		  json_string_value(desc));
	if (q->phase == PHASE_NEGOTIATING)
		return error_set(e, -EBADMSG,
				 "QEMU's monitor refused its negotiation: %s",
				 ret->error_text);
	ret->kind = QMP_KIND_ERROR;
	/* Without an id QEMU could not even parse the line. */
	if (id && match(q, id, ret) < 0)
		return malformed(e, "error without its command");
	return 1;
}

static int handle_event(const json_t *root, const json_t *name,
			struct qmp_message *ret, struct error *e)
{
	const json_t *data = json_object_get(root, "data"), *guest, *reason;

	if (!json_is_string(name) || (data && !json_is_object(data)))
		return malformed(e, "event");
	ret->kind = QMP_KIND_EVENT;
	ret->event = QMP_EVENT_OTHER;
	text_copy(ret->event_name, sizeof(ret->event_name),
		  json_string_value(name));
	for (size_t i = 1; i < ARRAY_SIZE(event_names); i++)
		if (!strcmp(json_string_value(name), event_names[i]))
			ret->event = (enum qmp_event)i;

	switch (ret->event) {
	case QMP_EVENT_SHUTDOWN:
	case QMP_EVENT_RESET:
		guest = json_object_get(data, "guest");
		reason = json_object_get(data, "reason");
		if (!json_is_boolean(guest) || !json_is_string(reason))
			return malformed(e, ret->event_name);
		ret->guest = json_is_true(guest);
		text_copy(ret->reason, sizeof(ret->reason),
			  json_string_value(reason));
		break;
	case QMP_EVENT_OTHER:
	case QMP_EVENT_POWERDOWN:
	case QMP_EVENT_STOP:
	case QMP_EVENT_RESUME:
	case QMP_EVENT_GUEST_PANICKED:
	case QMP_EVENT_COUNT: break;
	}
	return 1;
}

/* Return: 1 with a message for the caller, 0 when it was the greeting. */
static int handle(struct qmp *q, const json_t *root, struct qmp_message *ret,
		  struct error *e)
{
	const json_t *event = json_object_get(root, "event"),
		     *value = json_object_get(root, "return"),
		     *error = json_object_get(root, "error");

	if (!json_is_object(root) || !!event + !!value + !!error > 1)
		return malformed(e, "not one object");
	if (q->phase == PHASE_GREETING)
		return handle_greeting(q, root, e);
	if (event)
		return handle_event(root, event, ret, e);
	if (value)
		return handle_return(q, root, value, ret, e);
	if (error)
		return handle_error(q, root, error, ret, e);
	return malformed(e, "no event, no reply");
}

int qmp_next(struct qmp *q, struct qmp_message *ret, struct error *e)
{
	char *line;
	size_t len;
	int r;

	do {
		json_auto_t *root = NULL;

		r = buffer_take(&q->in, '\n', QMP_MESSAGE_MAX, &line, &len);
		if (r < 0)
			return error_set(e, r,
					 "QEMU's monitor sent a message of "
					 "more than %lu bytes",
					 QMP_MESSAGE_MAX);
		if (r == 0)
			return 0;
		root = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
		if (!root)
			return malformed(e, "not JSON");
		*ret = (struct qmp_message){ 0 };
		r = handle(q, root, ret, e);
		if (r == -ENOMEM)
			return error_set(e, r, "out of memory");
	} while (r == 0);
	return r;
}
