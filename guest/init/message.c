/*
 * Theory of operation
 *
 * Two streams reach PID 1 as text: the host's lines on the agent port and Tor's
 * log. Neither may make it grow or stop, so a reader holds one line of fixed
 * size and throws the rest of a longer one away.
 */
#include "init/message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/ip.h"

static void hand_out(struct line_reader *reader, line_fn fn, void *userdata)
{
	bool cut = reader->overlong;

	reader->buf[reader->len] = '\0';
	reader->len = 0;
	reader->overlong = false;
	fn(userdata, reader->buf, cut);
}

void line_reader_push(struct line_reader *reader, const char *data, size_t len,
		      line_fn fn, void *userdata)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n')
			hand_out(reader, fn, userdata);
		else if (reader->len + 1 == sizeof(reader->buf))
			reader->overlong = true;
		else
			reader->buf[reader->len++] = data[i] ? data[i] : '?';
	}
}

void line_reader_end(struct line_reader *reader, line_fn fn, void *userdata)
{
	if (reader->len > 0)
		hand_out(reader, fn, userdata);
}

/* @s up to a space or the end; digits only. Return: where it stopped or NULL */
static const char *scan_number(const char *s, int64_t max, int64_t *ret)
{
	int64_t n = 0;
	const char *start = s;

	for (; *s >= '0' && *s <= '9'; s++) {
		if (n > max / 10)
			return NULL;
		n = n * 10 + (*s - '0');
	}
	if (s == start || n > max)
		return NULL;
	*ret = n;
	return s;
}

static int parse_time(const char *args, struct host_message *message)
{
	int64_t nanoseconds;

	args = scan_number(args, GUEST_TIME_MAX, &message->seconds);
	if (!args || *args != ' ')
		return -EINVAL;
	args = scan_number(args + 1, 999999999, &nanoseconds);
	if (!args || *args)
		return -EINVAL;
	message->nanoseconds = (long)nanoseconds;
	return 0;
}

static int parse_token(const char *args, struct host_message *message)
{
	size_t n = strlen(args);

	if (n == 0 || n > HOST_TOKEN_MAX ||
	    strspn(args, "abcdefghijklmnopqrstuvwxyz"
			 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != n)
		return -EINVAL;
	memcpy(message->token, args, n + 1);
	return 0;
}

static int parse_resolvers(const char *args, struct host_message *message)
{
	char copy[GUEST_RESOLVERS_MAX * IP_TEXT_MAX], *rest = copy, *word;

	if (snprintf(copy, sizeof(copy), "%s", args) >= (int)sizeof(copy))
		return -EINVAL;
	while ((word = strsep(&rest, " "))) {
		if (message->n_resolvers == GUEST_RESOLVERS_MAX ||
		    ip_parse(word, &message->resolvers[message->n_resolvers]) ||
		    !ip_is_unicast(&message->resolvers[message->n_resolvers]))
			return -EINVAL;
		message->n_resolvers++;
	}
	return 0;
}

static const struct {
	const char *word;
	enum host_message_type type;
	int (*parse)(const char *args, struct host_message *message);
} words[] = {
	{ "hello", HOST_MESSAGE_HELLO, NULL },
	{ "time", HOST_MESSAGE_TIME, parse_time },
	{ "ping", HOST_MESSAGE_PING, parse_token },
	{ "poweroff", HOST_MESSAGE_POWEROFF, NULL },
	{ "admitted", HOST_MESSAGE_ADMITTED, NULL },
	{ "resolvers", HOST_MESSAGE_RESOLVERS, parse_resolvers },
};

int host_message_parse(const char *line, struct host_message *ret)
{
	struct host_message message = { 0 };
	size_t n = strcspn(line, " ");

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strlen(words[i].word) != n ||
		    strncmp(line, words[i].word, n) != 0)
			continue;
		message.type = words[i].type;
		if (words[i].parse) {
			if (line[n] != ' ' ||
			    words[i].parse(line + n + 1, &message) < 0)
				return -EINVAL;
		} else if (line[n]) {
			return -EINVAL;
		}
		*ret = message;
		return 0;
	}
	return -ENOMSG;
}
