/*
 * The last log lines, for GetLog; the log file and standard error.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "base/error.h"
#include "base/log.h"

#define LOG_BUFFER_LINES 2000
/* A log file that reaches this size becomes FILE.1, in bytes. */
#define LOG_FILE_MAX (16L * 1024 * 1024)

struct log_entry {
	int64_t time_ms; /* since 1970, UTC */
	enum log_level level;
	char *text; /* NULL: never written */
};

struct progress;
struct control_server;

struct log_buffer {
	struct log_entry ring[LOG_BUFFER_LINES];
	uint64_t next; /* sequence number of the next line, from 0 */
	FILE *file;    /* NULL: none */
	char *path;
	long file_size; /* bytes */
	struct progress *progress;
	struct control_server *control; /* NULL: nobody follows */
};

/* Becomes the log's sink. @path: of the log file, "": none. */
int log_buffer_open(struct log_buffer *l, const char *path, struct error *e);
void log_buffer_close(struct log_buffer *l);

/**
 * log_buffer_lines() - Lines as LogLine objects
 * @from:	Sequence number of the first wanted one; older ones that are
 *		gone are left out with a line that says so
 * @max_bytes:	Of text; the newest lines win
 * @ret_next:	Where to go on
 *
 * Return: a new array, or NULL when out of memory
 */
json_t *log_buffer_lines(const struct log_buffer *l, uint64_t from,
			 size_t max_bytes, uint64_t *ret_next);

/* "2026-11-24T14:00:00.123Z"; @size at least 32. */
void log_format_time(int64_t time_ms, char *ret, size_t size);
