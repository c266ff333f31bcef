#include "daemon/progress.h"

#include <string.h>

#include "base/util.h"

static void hide(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}

static void draw(struct progress *p)
{
	if (!p->terminal || !p->text[0])
		return;
	/* No line end: the next one overwrites it. */
	fprintf(stderr, "\r\033[K%s", p->text);
	fflush(stderr);
	p->shown = true;
}

void progress_init(struct progress *p)
{
	*p = (struct progress){ .terminal = isatty(STDERR_FILENO) };
}

void progress_show(struct progress *p, const char *text)
{
	if (!p->terminal || !strcmp(p->text, text))
		return;
	str_copy(p->text, sizeof(p->text), text);
	if (*text)
		draw(p);
	else
		hide(p);
}

void progress_log(struct progress *p, enum log_level level, const char *text)
{
	hide(p);
	fprintf(stderr, "torvm: %s%s%s\n",
		level <= LOG_LEVEL_WARNING ? log_level_name(level) : "",
		level <= LOG_LEVEL_WARNING ? ": " : "", text);
	draw(p);
}
