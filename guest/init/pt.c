#include "init/pt.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static const char *after(const char *line, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(line, word, n) != 0 || (line[n] && line[n] != ' '))
		return NULL;
	return line[n] ? line + n + 1 : line + n;
}

/* "obfs4 socks5 127.0.0.1:1234" */
static uint16_t method_port(const char *rest, const char *transport)
{
	static const char where[] = "socks5 127.0.0.1:";
	const char *at = after(rest, transport);
	unsigned long port;
	size_t n;

	if (!at || strncmp(at, where, sizeof(where) - 1) != 0)
		return 0;
	at += sizeof(where) - 1;
	n = strspn(at, "0123456789");
	if (n < 1 || n > 5 || (at[n] && at[n] != ' '))
		return 0;
	port = strtoul(at, NULL, 10);
	return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* Takes the quotes and backslashes of `MESSAGE="..."` away, in place. */
static const char *unquote(char *text)
{
	char *to = text;

	if (*text != '"')
		return text;
	for (char *from = text + 1; *from && *from != '"'; from++) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*to = '\0';
	return text;
}

/* "SEVERITY=error MESSAGE=..."; pt-spec has five severities. */
static struct pt_line log_line(const char *rest)
{
	static const char *const shown[] = { "SEVERITY=error",
					     "SEVERITY=warning",
					     "SEVERITY=notice" };
	char *message = strstr(rest, "MESSAGE=");

	for (size_t i = 0; message && i < ARRAY_SIZE(shown); i++)
		if (after(rest, shown[i]))
			return (struct pt_line){
				.kind = PT_KIND_LOG,
				.text = unquote(message + strlen("MESSAGE=")),
			};
	return (struct pt_line){ PT_KIND_NONE };
}

struct pt_line pt_parse(char *line, const char *transport)
{
	static const char *const errors[] = { "CMETHOD-ERROR", "ENV-ERROR",
					      "VERSION-ERROR" };
	struct pt_line ret = { PT_KIND_NONE };
	const char *rest;

	if ((rest = after(line, "CMETHOD"))) {
		ret.port = method_port(rest, transport);
		if (ret.port)
			ret.kind = PT_KIND_METHOD;
	} else if (after(line, "CMETHODS")) {
		ret.kind = PT_KIND_DONE;
	} else if (after(line, "PROXY-ERROR")) {
		ret.kind = PT_KIND_ERROR;
		ret.text = "it cannot use the configured proxy";
	} else if ((rest = after(line, "LOG"))) {
		ret = log_line(rest);
	}
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if ((rest = after(line, errors[i])))
			ret = (struct pt_line){
				.kind = PT_KIND_ERROR,
				.text = rest,
			};
	return ret;
}
