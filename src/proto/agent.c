/*
 * Theory of operation: one line, one message. A word that we do not know is
 * reported as such, so that a newer guest can say more; a known word with
 * arguments that do not fit is -EBADMSG. Numbers are plain decimal digits
 * within their range: no sign where none belongs, no blanks, no hex.
 *
 * The guest is not trusted: Tor's log in it carries what the network sent.
 * What is not printable ASCII becomes '?' here, once, for every consumer.
 */
#include "proto/agent.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/ip.h"
#include "proto/text.h"

struct agent {
	struct buffer in;
};

static const char *const stage_names[] = {
	[AGENT_STAGE_MOUNTS] = "mounts",
	[AGENT_STAGE_MODULES] = "modules",
	[AGENT_STAGE_CONFIG] = "config",
	[AGENT_STAGE_NETWORK] = "network",
	[AGENT_STAGE_FIREWALL] = "firewall",
	[AGENT_STAGE_STATE_DISK] = "state-disk",
	[AGENT_STAGE_CLOCK] = "clock",
	[AGENT_STAGE_LOCKDOWN] = "lockdown",
	[AGENT_STAGE_TOR_START] = "tor-start",
	[AGENT_STAGE_READY] = "ready",
};
static_assert(ARRAY_SIZE(stage_names) == AGENT_STAGE_COUNT, "stage names");

static const char *const words[] = {
	[AGENT_KIND_UNKNOWN] = "",
	[AGENT_KIND_HELLO] = "hello",
	[AGENT_KIND_STAGE] = "stage",
	[AGENT_KIND_STATE_DISK] = "state-disk",
	[AGENT_KIND_TOR] = "tor",
	[AGENT_KIND_TOR_EXIT] = "tor-exit",
	[AGENT_KIND_MEMORY] = "memory",
	[AGENT_KIND_PONG] = "pong",
	[AGENT_KIND_CLOCK] = "clock",
	[AGENT_KIND_WARNING] = "warning",
	[AGENT_KIND_ERROR] = "error",
	[AGENT_KIND_TRANSPORT] = "transport",
	[AGENT_KIND_TRANSPORT_EXIT] = "transport-exit",
	[AGENT_KIND_TLS] = "tls",
	[AGENT_KIND_TLS_EXIT] = "tls-exit",
	[AGENT_KIND_RESOLVED] = "resolved",
	[AGENT_KIND_UNRESOLVED] = "unresolved",
	[AGENT_KIND_LOOKED_UP] = "looked-up",
};
static_assert(ARRAY_SIZE(words) == AGENT_KIND_COUNT, "words");

const char *agent_stage_name(enum agent_stage stage)
{
	return stage_names[stage];
}

int agent_stage_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(stage_names); i++)
		if (!strcmp(name, stage_names[i]))
			return (int)i;
	return -EINVAL;
}

struct agent *agent_new(void)
{
	return calloc(1, sizeof(struct agent));
}

void agent_free(struct agent *a)
{
	if (a)
		buffer_deinit(&a->in);
	free(a);
}

void agent_freep(struct agent **a)
{
	agent_free(*a);
}

void agent_reset(struct agent *a)
{
	buffer_clear(&a->in);
}

int agent_push(struct agent *a, const void *data, size_t len)
{
	return buffer_append(&a->in, data, len);
}

static enum agent_kind kind_of(const char *word)
{
	for (size_t i = 1; i < ARRAY_SIZE(words); i++)
		if (!strcmp(word, words[i]))
			return (enum agent_kind)i;
	return AGENT_KIND_UNKNOWN;
}

/* The next argument, cut off at its space; NULL when there is none. */
static char *argument(char **rest)
{
	char *arg = *rest, *space;

	if (!arg)
		return NULL;
	space = strchr(arg, ' ');
	if (space)
		*space++ = '\0';
	*rest = space;
	return arg;
}

static int number(char **rest, uint64_t max, uint64_t *ret)
{
	const char *arg = argument(rest);
	uint64_t n = 0;

	if (!arg || !*arg)
		return -EBADMSG;
	for (; *arg; arg++) {
		uint64_t digit = (uint64_t)(*arg - '0');

		if (*arg < '0' || *arg > '9' || n > (max - digit) / 10)
			return -EBADMSG;
		n = n * 10 + digit;
	}
	*ret = n;
	return 0;
}

static int number32(char **rest, uint32_t *ret)
{
	uint64_t n;

	if (number(rest, UINT32_MAX, &n) < 0)
		return -EBADMSG;
	*ret = (uint32_t)n;
	return 0;
}

static int signed_number(char **rest, int64_t *ret)
{
	bool negative = *rest && **rest == '-';
	uint64_t n;

	if (negative)
		(*rest)++;
	if (number(rest, INT64_MAX, &n) < 0)
		return -EBADMSG;
	*ret = negative ? -(int64_t)n : (int64_t)n;
	return 0;
}

/* The last argument: whatever is left, spaces and all. */
static int text(char **rest, struct agent_message *ret)
{
	if (!*rest)
		return -EBADMSG;
	str_copy(ret->text, sizeof(ret->text), *rest);
	*rest = NULL;
	return 0;
}

static bool is_token(const char *s)
{
	size_t len = strspn(s, "0123456789abcdefghijklmnopqrstuvwxyz"
			       "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	return len > 0 && len <= AGENT_TOKEN_MAX && s[len] == '\0';
}

static int parse_state_disk(char **rest, struct agent_message *ret)
{
	const char *arg = argument(rest);

	if (!arg)
		return -EBADMSG;
	ret->usable = !strcmp(arg, "ok");
	if (ret->usable)
		return 0;
	if (strcmp(arg, "unusable") != 0)
		return -EBADMSG;
	return text(rest, ret);
}

/* Only what a host name is made of: it is shown to people. */
static int host_name(char **rest, struct agent_message *ret)
{
	static const char known[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	const char *arg = argument(rest);

	if (!arg || !*arg || strlen(arg) >= sizeof(ret->name) ||
	    strspn(arg, known) != strlen(arg))
		return -EBADMSG;
	str_copy(ret->name, sizeof(ret->name), arg);
	return 0;
}

static int parse_addresses(char **rest, struct agent_message *ret)
{
	const char *arg;

	while ((arg = argument(rest))) {
		if (ret->n_addresses == AGENT_ADDRESSES_MAX ||
		    ip_parse(arg, &ret->addresses[ret->n_addresses]) < 0)
			return -EBADMSG;
		ret->n_addresses++;
	}
	return ret->n_addresses > 0 ? 0 : -EBADMSG;
}

static int parse_exit(char **rest, struct agent_message *ret)
{
	const char *arg = argument(rest);

	if (!arg)
		return -EBADMSG;
	ret->signaled = !strcmp(arg, "signal");
	if (!ret->signaled && strcmp(arg, "exit") != 0)
		return -EBADMSG;
	if (number32(rest, &ret->number) < 0)
		return -EBADMSG;
	return number32(rest, &ret->count);
}

static int parse_arguments(char **rest, struct agent_message *ret)
{
	const char *arg;
	int r;

	switch (ret->kind) {
	case AGENT_KIND_HELLO:
		/* The version first: another one may mean other arguments. */
		if (number32(rest, &ret->version) < 0)
			return -EBADMSG;
		return number(rest, UINT64_MAX, &ret->ms);
	case AGENT_KIND_PONG:
		if (text(rest, ret) < 0 || !is_token(ret->text))
			return -EBADMSG;
		return 0;
	case AGENT_KIND_STAGE:
	case AGENT_KIND_STATE_DISK:
	case AGENT_KIND_TOR:
	case AGENT_KIND_TOR_EXIT:
	case AGENT_KIND_TRANSPORT:
	case AGENT_KIND_TRANSPORT_EXIT:
	case AGENT_KIND_TLS:
	case AGENT_KIND_TLS_EXIT:
	case AGENT_KIND_RESOLVED:
	case AGENT_KIND_UNRESOLVED:
	case AGENT_KIND_LOOKED_UP:
	case AGENT_KIND_MEMORY:
	case AGENT_KIND_CLOCK:
	case AGENT_KIND_WARNING:
	case AGENT_KIND_ERROR:
		if (number(rest, UINT64_MAX, &ret->ms) < 0)
			return -EBADMSG;
		break;
	case AGENT_KIND_UNKNOWN:
	case AGENT_KIND_COUNT: *rest = NULL; return 0;
	}

	switch (ret->kind) {
	case AGENT_KIND_STAGE:
		arg = argument(rest);
		r = arg ? agent_stage_from_name(arg) : -EBADMSG;
		if (r < 0)
			return -EBADMSG;
		ret->stage = (enum agent_stage)r;
		return 0;
	case AGENT_KIND_STATE_DISK: return parse_state_disk(rest, ret);
	case AGENT_KIND_TOR:
	case AGENT_KIND_TRANSPORT:
	case AGENT_KIND_TLS:
	case AGENT_KIND_WARNING:
	case AGENT_KIND_ERROR: return text(rest, ret);
	case AGENT_KIND_TOR_EXIT:
	case AGENT_KIND_TRANSPORT_EXIT:
	case AGENT_KIND_TLS_EXIT: return parse_exit(rest, ret);
	case AGENT_KIND_RESOLVED:
		return host_name(rest, ret) < 0 ? -EBADMSG
						: parse_addresses(rest, ret);
	case AGENT_KIND_LOOKED_UP:
		arg = argument(rest);
		ret->ok = arg && !strcmp(arg, "ok");
		return ret->ok || (arg && !strcmp(arg, "failed")) ? 0
								  : -EBADMSG;
	case AGENT_KIND_UNRESOLVED:
		return host_name(rest, ret) < 0 ? -EBADMSG : text(rest, ret);
	case AGENT_KIND_MEMORY:
		if (number(rest, UINT64_MAX, &ret->total_kib) < 0)
			return -EBADMSG;
		return number(rest, UINT64_MAX, &ret->available_kib);
	case AGENT_KIND_CLOCK: return signed_number(rest, &ret->offset_ms);
	case AGENT_KIND_UNKNOWN:
	case AGENT_KIND_HELLO:
	case AGENT_KIND_PONG:
	case AGENT_KIND_COUNT: break;
	}
	return 0;
}

int agent_next(struct agent *a, struct agent_message *ret, struct error *e)
{
	char *line, *word, *rest;
	size_t len;
	int r;

	r = buffer_take(&a->in, '\n', AGENT_LINE_MAX - 1, &line, &len);
	if (r < 0)
		return error_set(e, r,
				 "the VM's agent sent a line of more than %d "
				 "bytes",
				 AGENT_LINE_MAX);
	if (r == 0)
		return 0;

	text_clean(line, len);
	*ret = (struct agent_message){ 0 };
	rest = line;
	word = argument(&rest);
	ret->kind = kind_of(word);
	if (parse_arguments(&rest, ret) < 0 || rest)
		return error_set(e, -EBADMSG,
				 "the VM's agent sent a malformed '%.16s' line",
				 word);
	return 1;
}

int agent_write_hello(struct buffer *out)
{
	return buffer_append_string(out, "hello\n");
}

int agent_write_time(struct buffer *out, const struct timespec *now)
{
	return buffer_printf(out, "time %" PRId64 " %ld\n",
			     (int64_t)now->tv_sec, now->tv_nsec);
}

int agent_write_ping(struct buffer *out, const char *token)
{
	if (!is_token(token))
		return -EINVAL;
	return buffer_printf(out, "ping %s\n", token);
}

int agent_write_poweroff(struct buffer *out)
{
	return buffer_append_string(out, "poweroff\n");
}

int agent_write_admitted(struct buffer *out)
{
	return buffer_append_string(out, "admitted\n");
}

int agent_write_resolvers(struct buffer *out, const struct in6_addr *resolvers,
			  size_t n)
{
	char ip[IP_TEXT_MAX];
	int r = buffer_append_string(out, "resolvers");

	for (size_t i = 0; i < n && r == 0; i++)
		r = buffer_printf(out, " %s", ip_format(&resolvers[i], ip));
	return r < 0 ? r : buffer_append_string(out, "\n");
}
