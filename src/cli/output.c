/* What people see: errors, colours, durations, the progress line. */
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int cli_fail(enum exit_code code, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%storvm:%s ", cli_colour(stderr, CLI_RED),
		cli_colour(stderr, CLI_PLAIN));
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return (int)code;
}

enum exit_code cli_client_code(int error)
{
	if (error == -ESRCH)
		return EXIT_CODE_NOT_RUNNING;
	if (error == -EACCES || error == -EPERM)
		return EXIT_CODE_PRIVILEGES;
	if (error == -ETIMEDOUT)
		return EXIT_CODE_TIMEOUT;
	return EXIT_CODE_FAILED;
}

const char *cli_colour(FILE *out, enum cli_colour colour)
{
	const char *no_color = getenv("NO_COLOR"); /* no-color.org */
	const char *term = getenv("TERM");

	if ((no_color && no_color[0]) || !term || !strcmp(term, "dumb") ||
	    !isatty(fileno(out)))
		return "";
	switch (colour) {
	case CLI_PLAIN: return "\033[0m";
	case CLI_BOLD: return "\033[1m";
	case CLI_RED: return "\033[1;31m";
	case CLI_GREEN: return "\033[1;32m";
	case CLI_YELLOW: return "\033[1;33m";
	}
	return "";
}

const char *cli_bytes(int64_t bytes, char *buf, size_t size)
{
	static const char *const units[] = { "kB", "MB", "GB", "TB" };
	double value = (double)bytes / 1000;
	size_t unit = 0;

	if (bytes < 1000) {
		snprintf(buf, size, "%lld B", (long long)bytes);
		return buf;
	}
	while (value >= 999.95 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1000;
		unit++;
	}
	snprintf(buf, size, "%.1f %s", value, units[unit]);
	return buf;
}

const char *cli_duration(int64_t seconds, char *buf, size_t size)
{
	long long s = seconds < 0 ? 0 : seconds;

	if (s >= 86400)
		snprintf(buf, size, "%lld d %lld h", s / 86400,
			 s % 86400 / 3600);
	else if (s >= 3600)
		snprintf(buf, size, "%lld h %lld min", s / 3600, s % 3600 / 60);
	else if (s >= 60)
		snprintf(buf, size, "%lld min %lld s", s / 60, s % 60);
	else
		snprintf(buf, size, "%lld s", s);
	return buf;
}

static const struct {
	const char *state;
	const char *words;
} states[] = {
	{ "Init", "starting" },
	{ "CheckPrivileges", "checking this machine" },
	{ "SaveNetwork", "blocking all traffic" },
	{ "CreateTAP", "making the network interface" },
	{ "LaunchVM", "starting the virtual machine" },
	{ "WaitTAP", "the virtual machine boots" },
	{ "ConfigureTAP", "routing traffic into the virtual machine" },
	{ "FlushDNS", "pointing name resolution at Tor" },
	{ "WaitBootstrap", "Tor connects" },
	{ "Running", "all traffic goes through Tor" },
	{ "Blocked", "all traffic is blocked, trying again" },
	{ "Shutdown", "stopping the virtual machine" },
	{ "RestoreNetwork", "restoring the network" },
	{ "Cleanup", "cleaning up" },
	{ CLIENT_STATE_STOPPED, "stopped" },
};

/* What came over a socket does not get to steer the terminal. */
static void make_printable(char *text)
{
	for (unsigned char *s = (unsigned char *)text; *s; s++)
		if (*s < 0x20 || *s == 0x7f)
			*s = ' ';
}

void cli_describe(const struct client_status *status, char *buf, size_t size)
{
	const char *words = status->state;

	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (!strcmp(states[i].state, status->state))
			words = states[i].words;
	if (!strcmp(status->state, "WaitBootstrap"))
		snprintf(buf, size, "%s: %d %%%s%s", words,
			 status->bootstrap_percent,
			 status->bootstrap_summary[0] ? ", " : "",
			 status->bootstrap_summary);
	else if (!strcmp(status->state, "Blocked") && status->last_error[0])
		snprintf(buf, size, "%s: %s", words, status->last_error);
	else
		snprintf(buf, size, "%s", words);
	make_printable(buf);
}

void cli_progress_init(struct cli_progress *p)
{
	const char *term = getenv("TERM");

	*p = (struct cli_progress){
		.tty = isatty(STDERR_FILENO) && term &&
		       strcmp(term, "dumb") != 0,
	};
}

void cli_progress_show(struct cli_progress *p,
		       const struct client_status *status)
{
	char line[sizeof(p->last)];

	cli_describe(status, line, sizeof(line));
	if (p->quiet || !strcmp(line, p->last))
		return;
	str_copy(p->last, sizeof(p->last), line);
	/* One row: a line that wraps could not be rewritten. */
	if (p->tty)
		fprintf(stderr, "\r\033[K\033[?7l%s\033[?7h", line);
	else
		fprintf(stderr, "%s\n", line);
	fflush(stderr);
}

void cli_progress_end(struct cli_progress *p)
{
	if (p->tty && p->last[0])
		fputs("\r\033[K", stderr);
	p->last[0] = '\0';
}
