/*
 * Theory of operation: lines end in CRLF. A reply is any number of mid lines
 * ("250-text") and data lines ("250+text", data, "."), then an end line
 * ("250 text"). Lines are collected until the end line; then the whole reply is
 * handed out and stays valid until the next call. Every line of a reply has the
 * same status code: a stream that mixes them is out of step.
 *
 * What Tor says may quote what the network said, so lines, data and replies are
 * bounded, NULs are refused, and text meant for people is cleaned.
 */
#include "proto/torctl.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "proto/text.h"

struct torctl {
	struct buffer in;
	struct torctl_line lines[TORCTL_REPLY_LINES_MAX];
	struct torctl_reply reply;
	size_t reply_len;   /* bytes of text and data so far */
	struct buffer data; /* of the data line being read */
	bool in_data;
	bool complete; /* reply was handed out: free it on the next call */
};

static const char *const severity_names[] = {
	[TORCTL_SEVERITY_DEBUG] = "DEBUG",   [TORCTL_SEVERITY_INFO] = "INFO",
	[TORCTL_SEVERITY_NOTICE] = "NOTICE", [TORCTL_SEVERITY_WARN] = "WARN",
	[TORCTL_SEVERITY_ERR] = "ERR",
};
static_assert(ARRAY_SIZE(severity_names) == TORCTL_SEVERITY_COUNT, "names");

struct torctl *torctl_new(void)
{
	return calloc(1, sizeof(struct torctl));
}

static void drop_reply(struct torctl *t)
{
	for (size_t i = 0; i < t->reply.n_lines; i++) {
		free(t->lines[i].text);
		free(t->lines[i].data);
	}
	t->reply = (struct torctl_reply){ .lines = t->lines };
	t->reply_len = 0;
	t->complete = false;
}

void torctl_reset(struct torctl *t)
{
	drop_reply(t);
	buffer_clear(&t->in);
	buffer_clear(&t->data);
	t->in_data = false;
}

void torctl_free(struct torctl *t)
{
	if (!t)
		return;
	torctl_reset(t);
	buffer_deinit(&t->in);
	buffer_deinit(&t->data);
	free(t);
}

void torctl_freep(struct torctl **t)
{
	torctl_free(*t);
}

int torctl_push(struct torctl *t, const void *data, size_t len)
{
	return buffer_append(&t->in, data, len);
}

/* A line of a data block; the one with a single dot ends it. */
static int take_data(struct torctl *t, const char *line, size_t len)
{
	struct torctl_line *last = &t->lines[t->reply.n_lines - 1];
	const char *data;
	size_t data_len;
	int r;

	if (len != 1 || line[0] != '.') {
		if (len > 0 && line[0] == '.') {
			line++;
			len--;
		}
		r = buffer_append(&t->data, line, len);
		return r < 0 ? r : buffer_append(&t->data, "\n", 1);
	}
	data = buffer_peek(&t->data, &data_len);
	last->data = data ? strndup(data, data_len) : strdup("");
	buffer_clear(&t->data);
	t->in_data = false;
	return last->data ? 0 : -ENOMEM;
}

/* "250-text", "250+text" or "250 text". Return: 1 when the reply is whole. */
static int take_line(struct torctl *t, const char *line, size_t len)
{
	int status = 0;
	char *text;

	if (len < 4)
		return -EBADMSG;
	for (size_t i = 0; i < 3; i++) {
		if (!isdigit((unsigned char)line[i]))
			return -EBADMSG;
		status = status * 10 + (line[i] - '0');
	}
	if (status < 100 || status > 699 || !strchr("-+ ", line[3]))
		return -EBADMSG;
	if (t->reply.n_lines > 0 && t->reply.status != status)
		return -EBADMSG;
	if (t->reply.n_lines == TORCTL_REPLY_LINES_MAX)
		return -EMSGSIZE;
	text = strndup(line + 4, len - 4);
	if (!text)
		return -ENOMEM;
	t->lines[t->reply.n_lines++] = (struct torctl_line){ .text = text };
	t->reply.status = status;
	t->reply.async = status >= 600;
	t->in_data = line[3] == '+';
	return line[3] == ' ';
}

static int take(struct torctl *t, char *line, size_t len)
{
	/* The LF is gone; its CR must be there, and no NUL inside. */
	if (len == 0 || line[len - 1] != '\r' || memchr(line, '\0', len))
		return -EBADMSG;
	line[--len] = '\0';
	t->reply_len += len + 1;
	if (t->reply_len > TORCTL_REPLY_MAX)
		return -EMSGSIZE;
	return t->in_data ? take_data(t, line, len) : take_line(t, line, len);
}

int torctl_next(struct torctl *t, const struct torctl_reply **ret,
		struct error *e)
{
	char *line;
	size_t len;
	int r;

	if (t->complete || t->reply.n_lines == 0)
		drop_reply(t);
	do {
		r = buffer_take(&t->in, '\n', TORCTL_LINE_MAX, &line, &len);
		if (r == 0)
			return 0;
		if (r > 0)
			r = take(t, line, len);
	} while (r == 0);

	if (r == -EMSGSIZE)
		return error_set(e, r, "Tor's control port sent too much");
	if (r == -ENOMEM)
		return error_set(e, r, "out of memory");
	if (r < 0)
		return error_set(e, r,
				 "Tor's control port sent something that is "
				 "not the control protocol");
	t->complete = true;
	*ret = &t->reply;
	return 1;
}

int torctl_command(struct buffer *out, const char *fmt, ...)
{
	_cleanup_free_ char *line = NULL;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (len < 0) {
		line = NULL;
		return -ENOMEM;
	}
	if (line[strcspn(line, "\r\n")] || strlen(line) != (size_t)len)
		return -EINVAL;
	return buffer_printf(out, "%s\r\n", line);
}

/* A backslash escape of a QuotedString, as C has them (control-spec 2.1.1).
 * @s is at what follows the backslash. Return: the character, or -EBADMSG. */
static int unescape(const char **s)
{
	int c = (unsigned char)*(*s)++, n = 0;

	switch (c) {
	case '\0': (*s)--; return -EBADMSG;
	case 'n': return '\n';
	case 'r': return '\r';
	case 't': return '\t';
	}
	if (c < '0' || c > '7')
		return c;
	n = c - '0';
	for (int i = 0; i < 2 && **s >= '0' && **s <= '7'; i++)
		n = n * 8 + (*(*s)++ - '0');
	return n > 0 && n <= 0xff ? n : -EBADMSG;
}

/* Reads a value, quoted or up to a space, into @ret (NULL: skips it). */
static int take_value(const char **s, char *ret, size_t size)
{
	bool quoted = **s == '"';
	size_t len = 0;

	if (quoted)
		(*s)++;
	for (;;) {
		int c = (unsigned char)**s;

		if (quoted ? c == '"' : c == ' ' || c == '\0')
			break;
		if (c == '\0')
			return -EBADMSG;
		(*s)++;
		if (quoted && c == '\\')
			c = unescape(s);
		if (c < 0)
			return -EBADMSG;
		if (ret && len + 1 < size)
			ret[len++] = (char)c;
	}
	if (ret)
		ret[len] = '\0';
	if (!quoted)
		return 0;
	(*s)++;
	return **s == ' ' || **s == '\0' ? 0 : -EBADMSG;
}

int torctl_argument(const char *line, const char *key, char *ret, size_t size)
{
	const char *s = line;
	size_t key_len = strlen(key), len;
	int r;

	ret[0] = '\0';
	for (;;) {
		s += strspn(s, " ");
		if (!*s)
			return -ENOENT;
		len = strcspn(s, "= ");
		if (s[len] != '=') {
			s += len;
			continue;
		}
		if (len == key_len && !strncmp(s, key, len)) {
			s += len + 1;
			return take_value(&s, ret, size);
		}
		s += len + 1;
		r = take_value(&s, NULL, 0);
		if (r < 0)
			return r;
	}
}

/* As torctl_argument(), for text that people will read. */
static int text_argument(const char *line, const char *key, char *ret,
			 size_t size)
{
	int r = torctl_argument(line, key, ret, size);

	text_clean(ret, strlen(ret));
	return r == -ENOENT ? 0 : r;
}

static int number_argument(const char *line, const char *key, int64_t min,
			   int64_t max, int64_t *ret)
{
	char text[24], *end;
	long long n;
	int r;

	r = torctl_argument(line, key, text, sizeof(text));
	if (r < 0)
		return r;
	if (!isdigit((unsigned char)text[text[0] == '-']))
		return -EBADMSG;
	errno = 0;
	n = strtoll(text, &end, 10);
	if (errno || *end || n < min || n > max)
		return -EBADMSG;
	*ret = n;
	return 0;
}

int torctl_severity_from_name(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(severity_names); i++)
		if (strlen(severity_names[i]) == len &&
		    !strncmp(name, severity_names[i], len))
			return (int)i;
	return -EINVAL;
}

bool torctl_status_is(const char *line, const char *action)
{
	size_t len = strlen(action);
	const char *s = strchr(line, ' ');

	return s && !strncmp(s + 1, action, len) &&
	       (s[1 + len] == ' ' || s[1 + len] == '\0');
}

int torctl_parse_bootstrap(const char *line, struct torctl_bootstrap *ret)
{
	char recommendation[16];
	int64_t percent, count = 0;
	int severity, r;

	*ret = (struct torctl_bootstrap){ 0 };
	severity = torctl_severity_from_name(line, strcspn(line, " "));
	if (severity < 0)
		return -EBADMSG;
	if (!torctl_status_is(line, "BOOTSTRAP"))
		return -ENOENT;
	if (number_argument(line, "PROGRESS", 0, 100, &percent) < 0)
		return -EBADMSG;
	r = number_argument(line, "COUNT", 0, UINT32_MAX, &count);
	if (r < 0 && r != -ENOENT)
		return -EBADMSG;
	if (text_argument(line, "TAG", ret->tag, sizeof(ret->tag)) < 0 ||
	    text_argument(line, "SUMMARY", ret->summary, sizeof(ret->summary)) <
		    0 ||
	    text_argument(line, "WARNING", ret->warning, sizeof(ret->warning)) <
		    0 ||
	    text_argument(line, "REASON", ret->reason, sizeof(ret->reason)) <
		    0 ||
	    text_argument(line, "HOSTID", ret->host, sizeof(ret->host)) < 0 ||
	    text_argument(line, "HOSTADDR", ret->host_address,
			  sizeof(ret->host_address)) < 0 ||
	    text_argument(line, "RECOMMENDATION", recommendation,
			  sizeof(recommendation)) < 0)
		return -EBADMSG;
	ret->severity = (enum torctl_severity)severity;
	ret->percent = (uint32_t)percent;
	ret->count = (uint32_t)count;
	ret->recommend_warn = !strcmp(recommendation, "warn");
	return 0;
}

int torctl_parse_clock_skew(const char *line, int64_t *ret_seconds,
			    char *source, size_t source_size)
{
	int r;

	if (torctl_severity_from_name(line, strcspn(line, " ")) < 0)
		return -EBADMSG;
	if (!torctl_status_is(line, "CLOCK_SKEW"))
		return -ENOENT;
	/* MIN_SKEW: "at least so much", all that an expired consensus tells. */
	r = number_argument(line, "SKEW", INT64_MIN, INT64_MAX, ret_seconds);
	if (r == -ENOENT)
		r = number_argument(line, "MIN_SKEW", INT64_MIN, INT64_MAX,
				    ret_seconds);
	if (r < 0)
		return -EBADMSG;
	return text_argument(line, "SOURCE", source, source_size);
}
