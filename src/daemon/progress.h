/* Standard error of the foreground controller: log lines and, on a terminal,
 * one line below them that shows how far the start is. */
#pragma once

#include <stdbool.h>

#include "base/log.h"

struct progress {
	bool terminal;
	bool shown;
	char text[160]; /* "": nothing to show */
};

void progress_init(struct progress *p);
/* Shows @text until the next call; "": nothing. Only on a terminal. */
void progress_show(struct progress *p, const char *text);
/* Writes a log line, above the progress line. */
void progress_log(struct progress *p, enum log_level level, const char *text);
