#include "config/config.h"

#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "config/countries.h"
#include "vm/image.h"

/* Which countries there are, the VM's image knows. Return: 0, or -EINVAL; what
 * cannot be checked is said. */
static int check_countries(const struct config *cfg, struct error *e)
{
	char dir[CLI_IMAGE_DIR_SIZE];
	_cleanup_close_ int fd =
		cli_open_image_dir(NULL, cfg, dir, sizeof(dir));
	int r;

	if (fd < 0)
		r = error_set(e, -ENOENT, "there is no image in %s", dir);
	else
		r = image_check_countries(fd, dir, cfg, e);
	if (r == 0 || r == -EINVAL)
		return r;
	fprintf(stderr,
		"torvm: whether the countries exist is not checked: %s\n",
		e->text);
	return 0;
}

static int check(const char *path)
{
	_cleanup_(config_freep) struct config *cfg = NULL;
	struct error e = ERROR_NULL(e);

	if (config_load(path, &cfg, &e) < 0)
		return cli_fail(EXIT_CODE_CONFIG, "%s", e.text);
	if (config_needs_geoip(cfg) && check_countries(cfg, &e) < 0)
		return cli_fail(EXIT_CODE_CONFIG, "%s: %s", path, e.text);
	printf("%s is good.\n", path);
	return EXIT_CODE_OK;
}

static int print_default(void)
{
	_cleanup_(config_freep) struct config *cfg = config_new_default();
	_cleanup_free_ char *text = cfg ? config_render(cfg, true) : NULL;

	if (!text)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	puts(text);
	return EXIT_CODE_OK;
}

static int print_schema(void)
{
	_cleanup_free_ char *text = config_schema();

	if (!text)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	puts(text);
	return EXIT_CODE_OK;
}

int cli_config(const struct cli_args *args)
{
	if (!strcmp(args->words[0], "check") && args->n_words == 2)
		return check(args->words[1]);
	if (!strcmp(args->words[0], "default") && args->n_words == 1)
		return print_default();
	if (!strcmp(args->words[0], "schema") && args->n_words == 1)
		return print_schema();
	return cli_fail(EXIT_CODE_USAGE,
			"torvm config: allowed are \"check FILE\", \"default\" "
			"and \"schema\"");
}
