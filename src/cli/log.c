#include "cli/cli.h"

#include <errno.h>
#include <string.h>

static int on_line(void *userdata, const struct client_log_line *line)
{
	enum cli_colour colour = CLI_PLAIN;

	if (!strcmp(line->level, "error"))
		colour = CLI_RED;
	else if (!strcmp(line->level, "warning"))
		colour = CLI_YELLOW;
	printf("%s %s%-7s%s ", line->time,
	       colour == CLI_PLAIN ? "" : cli_colour(stdout, colour),
	       line->level,
	       colour == CLI_PLAIN ? "" : cli_colour(stdout, CLI_PLAIN));
	/* Tor's lines come from the network's side: no control characters. */
	for (const char *s = line->text; *s; s++)
		putchar((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
	putchar('\n');
	fflush(stdout);
	return ferror(stdout) ? -EPIPE : 0;
}

int cli_log(const struct cli_args *args)
{
	const char *dir = cli_runtime_dir(args);
	_cleanup_(client_freep) struct client *client = NULL;
	bool follow = args->given & CLI_BIT(FOLLOW);
	struct error e = ERROR_NULL(e);
	char path[1100];
	int r;

	r = client_connect(dir, &client, &e);
	if (r == 0)
		r = client_get_log(client, follow, on_line, NULL, &e);
	if (r == -EPIPE)
		return EXIT_CODE_FAILED;
	if (r == 0)
		return EXIT_CODE_OK;
	snprintf(path, sizeof(path), "%s/controller.log", dir);
	if (r == -ESRCH && access(path, R_OK) == 0)
		return cli_fail(EXIT_CODE_NOT_RUNNING,
				"no controller runs; the last one's messages "
				"are in %s",
				path);
	return cli_fail(cli_client_code(r), "%s", e.text);
}
