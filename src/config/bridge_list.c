/*
 * Theory of operation
 *
 * People paste bridges from web pages, mails and chats. What they cannot see
 * (no-break spaces, zero-width characters, CR, tabs) is taken as the space or
 * nothing that it looks like; what they can see is checked, and a wrong line is
 * named by its number, never quoted: it is a secret.
 *
 * The Tor Project's QR codes hold the lines as Python prints a list of strings:
 * ['obfs4 ...', 'obfs4 ...']. JSON's "" is taken, too. A plain bridge with an
 * IPv6 address also begins with a bracket; only a quote after it makes a list.
 */
#include "config/bridge_list.h"

#include <errno.h>
#include <string.h>

#include "config/bridge_line.h"

void config_bridge_list_deinit(struct config_bridge_list *list)
{
	while (list->n_lines > 0)
		free(list->lines[--list->n_lines]);
	free(list->lines);
	*list = CONFIG_BRIDGE_LIST_NULL(*list);
}

/* Bytes of an invisible character at @s, of at most @len; 0: visible. */
static size_t invisible(const char *s, size_t len, bool *ret_space)
{
	static const struct {
		const char *bytes;
		bool space;
	} characters[] = {
		{ "\xc2\xa0", true },      /* no-break space */
		{ "\xe2\x80\xaf", true },  /* narrow no-break space */
		{ "\xe2\x80\x8b", false }, /* zero-width space */
		{ "\xe2\x81\xa0", false }, /* word joiner */
		{ "\xef\xbb\xbf", false }, /* byte order mark */
	};

	for (size_t i = 0; i < ARRAY_SIZE(characters); i++) {
		size_t n = strlen(characters[i].bytes);

		if (n <= len && !memcmp(s, characters[i].bytes, n)) {
			*ret_space = characters[i].space;
			return n;
		}
	}
	*ret_space = true;
	return *s == ' ' || *s == '\t' || *s == '\r';
}

/* A copy with single spaces between words and none at the ends. */
static char *tidy(const char *text, size_t len)
{
	char *copy = calloc(1, len + 1);
	bool pending = false;
	size_t n = 0;

	for (size_t i = 0; copy && i < len;) {
		bool space;
		size_t skip = invisible(text + i, len - i, &space);

		if (skip > 0) {
			pending = pending || space;
			i += skip;
			continue;
		}
		/* What replaces a space was at least as long. */
		if (pending && n > 0)
			copy[n++] = ' ';
		pending = false;
		copy[n++] = text[i++];
	}
	return copy;
}

static int check(const char *line, const char *what, struct error *e)
{
	struct config_problem p = { 0 };

	for (const char *s = line; *s; s++)
		if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
			return error_set(e, -EINVAL,
					 "%s: character %zu is no printable "
					 "ASCII; allowed: bridge lines as they "
					 "are handed out",
					 what, (size_t)(s - line) + 1);
	if (config_check_bridge_line(line, &p) < 0)
		return error_set(e, -EINVAL, "%s: %s%s%s", what, p.what,
				 p.allowed ? "; allowed: " : "",
				 p.allowed ? p.allowed : "");
	return 0;
}

/* @line is tidy. */
static int add_tidy(struct config_bridge_list *list, const char *line,
		    const char *what, struct error *e)
{
	char **lines, *copy;
	int r;

	if (!strncasecmp(line, "Bridge ", 7))
		line += 7;
	r = check(line, what, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < list->n_lines; i++)
		if (!strcmp(list->lines[i], line)) {
			list->n_repeated++;
			return 0;
		}
	if (list->n_lines == CONFIG_BRIDGES_MAX)
		return error_set(e, -E2BIG,
				 "%s: one bridge too many; allowed: at most %d",
				 what, CONFIG_BRIDGES_MAX);
	lines = reallocarray(list->lines, list->n_lines + 1, sizeof(*lines));
	if (!lines)
		return error_set(e, -ENOMEM, "out of memory");
	list->lines = lines;
	copy = strdup(line);
	if (!copy)
		return error_set(e, -ENOMEM, "out of memory");
	list->lines[list->n_lines++] = copy;
	return 0;
}

/* @len bytes of @text as one line. @optional: it may be empty or a comment. */
static int add(struct config_bridge_list *list, const char *text, size_t len,
	       bool optional, const char *what, struct error *e)
{
	char *line = tidy(text, len);
	int r = 0;

	if (!line)
		return error_set(e, -ENOMEM, "out of memory");
	if (!optional || (line[0] && line[0] != '#'))
		r = add_tidy(list, line, what, e);
	free(line);
	return r;
}

int config_bridge_list_add(struct config_bridge_list *list, const char *line,
			   const char *what, struct error *e)
{
	return add(list, line, strlen(line), false, what, e);
}

static size_t skip_space(const char *text, size_t len, size_t at)
{
	while (at < len && strchr(" \t\r\n", text[at]) && text[at])
		at++;
	return at;
}

static int bad_list(struct error *e, size_t item)
{
	return error_set(e, -EINVAL,
			 "item %zu: the list is not closed as it began; "
			 "allowed: ['LINE', 'LINE'], the text of a QR code",
			 item);
}

/* ['LINE', "LINE"]; @at is behind the bracket. */
static int parse_list(struct config_bridge_list *list, const char *text,
		      size_t len, size_t at, struct error *e)
{
	for (size_t item = 1;; item++) {
		char what[32], quote;
		size_t end;
		int r;

		at = skip_space(text, len, at);
		if (at < len && text[at] == ']' && item > 1)
			break;
		if (at >= len || (text[at] != '\'' && text[at] != '"'))
			return bad_list(e, item);
		quote = text[at++];
		for (end = at; end < len && text[end] != quote; end++)
			/* No good line has one. */
			if (text[end] == '\\')
				return bad_list(e, item);
		if (end == len)
			return bad_list(e, item);
		snprintf(what, sizeof(what), "item %zu", item);
		r = add(list, text + at, end - at, false, what, e);
		if (r < 0)
			return r;
		at = skip_space(text, len, end + 1);
		if (at < len && text[at] == ',')
			at++;
		else if (at >= len || text[at] != ']')
			return bad_list(e, item);
	}
	if (skip_space(text, len, at + 1) != len)
		return error_set(e, -EINVAL,
				 "something follows the list of bridges; "
				 "allowed: ['LINE', 'LINE'] alone");
	return 0;
}

int config_bridge_list_parse(struct config_bridge_list *list, const char *text,
			     size_t len, struct error *e)
{
	size_t at, number = 0;

	if (len > CONFIG_BRIDGE_TEXT_MAX)
		return error_set(e, -E2BIG,
				 "the text is over %zu bytes long: no list of "
				 "bridges is",
				 CONFIG_BRIDGE_TEXT_MAX);
	if (memchr(text, '\0', len))
		return error_set(e, -EINVAL,
				 "the text has a NUL character; allowed: "
				 "bridge lines as they are handed out");
	at = skip_space(text, len, 0);
	if (at < len && text[at] == '[') {
		size_t next = skip_space(text, len, at + 1);

		if (next < len && (text[next] == '\'' || text[next] == '"'))
			return parse_list(list, text, len, next, e);
	}
	for (at = 0; at < len;) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t n = end ? (size_t)(end - text) - at : len - at;
		char what[32];
		int r;

		number++;
		snprintf(what, sizeof(what), "line %zu", number);
		r = add(list, text + at, n, true, what, e);
		if (r < 0)
			return r;
		at += n + 1;
	}
	return 0;
}
