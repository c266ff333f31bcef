/*
 * Logging. One line per call, written to stderr and to an optional sink (the
 * engine's ring buffer behind `torvm log`, its log file). A line at INFO or
 * above is understood by a user; secrets are never passed in.
 */
#pragma once

#include "base/util.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_COUNT,
};

/* @text: without newline, valid during the call only. */
typedef void (*log_sink_fn)(void *userdata, enum log_level level,
			    const char *text);

/* "error", "warning", "notice", "info", "debug" */
const char *log_level_name(enum log_level level);

/* Return: the level, or -EINVAL for an unknown name. */
int log_level_from_name(const char *name);

/**
 * log_setup() - Name the program and choose what is written to stderr
 * @program:	Prefix of each line; must outlive the logging
 * @level:	Lines above this level are dropped everywhere
 */
void log_setup(const char *program, enum log_level level);

/* One more destination; NULL removes it. The sink must not log. */
void log_set_sink(log_sink_fn fn, void *userdata);

/* Whether lines also go to stderr (default: yes). */
void log_set_stderr(int on);

void log_line(enum log_level level, const char *fmt, ...) _printf_(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
