#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",   [LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice", [LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};
static_assert(ARRAY_SIZE(level_names) == LOG_LEVEL_COUNT, "a name per level");

/* Logging is the one piece of process-wide state: it has to work before any
 * context exists and while one is being torn down. */
static struct {
	const char *program;
	enum log_level level;
	int no_stderr;
	log_sink_fn sink;
	void *userdata;
} logger = { .program = "torvm", .level = LOG_LEVEL_INFO };

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

int log_level_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
		if (!strcmp(level_names[i], name))
			return (int)i;
	return -EINVAL;
}

void log_setup(const char *program, enum log_level level)
{
	logger.program = program;
	logger.level = level;
}

void log_set_sink(log_sink_fn fn, void *userdata)
{
	logger.sink = fn;
	logger.userdata = userdata;
}

void log_set_stderr(int on)
{
	logger.no_stderr = !on;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (level > logger.level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);

	/* Text from the guest or from a file must not forge lines or drive
	 * the terminal. */
	for (unsigned char *c = (unsigned char *)text; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';

	if (!logger.no_stderr)
		fprintf(stderr, "%s: %s%s%s\n", logger.program,
			level <= LOG_LEVEL_WARNING ? level_names[level] : "",
			level <= LOG_LEVEL_WARNING ? ": " : "", text);
	if (logger.sink)
		logger.sink(logger.userdata, level, text);
}
