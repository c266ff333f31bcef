/*
 * Theory of operation
 * ===================
 * A ring of the last lines with a running number each, so that a follower who
 * is slow knows what was missed. Being the log's sink, nothing here may log.
 */
#include "daemon/log_buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "daemon/control_server.h"
#include "daemon/progress.h"

void log_format_time(int64_t time_ms, char *ret, size_t size)
{
	time_t s = (time_t)(time_ms / 1000);
	struct tm tm;
	char day[24];

	gmtime_r(&s, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret, size, "%s.%03dZ", day, (int)(time_ms % 1000));
}

/* JSON is UTF-8; a file name or another program's text need not be. */
static char *copy_utf8(const char *text)
{
	json_t *valid = json_string(text);
	char *copy = strdup(text);

	for (char *c = copy; c && !valid && *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	json_decref(valid);
	return copy;
}

/* Return: 0, or -1 with errno set. */
static int open_file(struct log_buffer *l)
{
	int fd = open(l->path,
		      O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		      0600);

	l->file = fd < 0 ? NULL : fdopen(fd, "a");
	if (!l->file) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	fseek(l->file, 0, SEEK_END);
	l->file_size = ftell(l->file);
	return 0;
}

static void rotate_file(struct log_buffer *l)
{
	char old[PATH_MAX];

	snprintf(old, sizeof(old), "%s.1", l->path);
	/* In a folder that is not ours to rename in, start over. */
	if (rename(l->path, old) < 0 && ftruncate(fileno(l->file), 0) < 0)
		return;
	fclose(l->file);
	open_file(l);
}

static void write_file(struct log_buffer *l, const struct log_entry *entry)
{
	char stamp[40];
	int n;

	if (!l->file || !entry->text)
		return;
	log_format_time(entry->time_ms, stamp, sizeof(stamp));
	n = fprintf(l->file, "%s %s %s\n", stamp, log_level_name(entry->level),
		    entry->text);
	fflush(l->file);
	l->file_size += n > 0 ? n : 0;
	if (l->file_size >= LOG_FILE_MAX)
		rotate_file(l);
}

static void on_line(void *userdata, enum log_level level, const char *text)
{
	struct log_buffer *l = userdata;
	struct log_entry *entry = &l->ring[l->next % LOG_BUFFER_LINES];
	struct timespec now;

	progress_log(l->progress, level, text);

	clock_gettime(CLOCK_REALTIME, &now);
	free(entry->text);
	entry->text = copy_utf8(text);
	entry->level = level;
	entry->time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	l->next++;

	write_file(l, entry);
	if (l->control)
		control_server_log_grew(l->control);
}

int log_buffer_open(struct log_buffer *l, const char *path, struct error *e)
{
	if (*path) {
		l->path = strdup(path);
		if (!l->path)
			return error_set(e, -ENOMEM, "out of memory");
		if (open_file(l) < 0) {
			error_set(e, -errno,
				  "the log file %s cannot be opened: %s; "
				  "choose another log.file",
				  path, strerror(errno));
			free(l->path);
			l->path = NULL;
			return e->code;
		}
	}
	log_set_stderr(0);
	log_set_sink(on_line, l);
	return 0;
}

void log_buffer_close(struct log_buffer *l)
{
	log_set_sink(NULL, NULL);
	log_set_stderr(1);
	if (l->file)
		fclose(l->file);
	l->file = NULL;
	free(l->path);
	l->path = NULL;
	for (size_t i = 0; i < LOG_BUFFER_LINES; i++) {
		free(l->ring[i].text);
		l->ring[i].text = NULL;
	}
}

static int append(json_t *lines, int64_t time_ms, enum log_level level,
		  const char *text)
{
	char stamp[40];

	log_format_time(time_ms, stamp, sizeof(stamp));
	return json_array_append_new(
		lines, json_pack("{s:s, s:s, s:s+}", "time", stamp, "level",
				 log_level_name(level), "text", text, ""));
}

json_t *log_buffer_lines(const struct log_buffer *l, uint64_t from,
			 size_t max_bytes, uint64_t *ret_next)
{
	uint64_t oldest =
		l->next > LOG_BUFFER_LINES ? l->next - LOG_BUFFER_LINES : 0;
	uint64_t first = l->next;
	json_t *lines = json_array();
	size_t bytes = 0;

	*ret_next = l->next;
	while (lines && first > oldest && first > from) {
		const struct log_entry *entry =
			&l->ring[(first - 1) % LOG_BUFFER_LINES];

		/* Worst case of JSON's escapes, and the frame of a line. */
		bytes += 80 + (entry->text ? 2 * strlen(entry->text) : 0);
		if (bytes > max_bytes)
			break;
		first--;
	}
	if (from > 0 && first > from && lines) {
		char text[64];

		snprintf(text, sizeof(text), "(%" PRIu64 " lines left out)",
			 first - from);
		append(lines, l->ring[first % LOG_BUFFER_LINES].time_ms,
		       LOG_LEVEL_WARNING, text);
	}
	for (; lines && first < l->next; first++) {
		const struct log_entry *entry =
			&l->ring[first % LOG_BUFFER_LINES];

		if (entry->text)
			append(lines, entry->time_ms, entry->level,
			       entry->text);
	}
	return lines;
}
