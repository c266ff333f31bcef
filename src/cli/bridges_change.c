/* torvm bridges add, remove, use: changes of the configuration file. */
#include "cli/bridges.h"

#include <errno.h>
#include <string.h>

#include "config/bridge_line.h"
#include "config/builtin.h"
#include "config/edit.h"

/* Printed after a change that the controller has to be started for. */
static void print_next(const char *path)
{
	printf("%s is changed. A controller that runs now goes on as it is; the "
	       "next start uses it.\n",
	       path);
}

static int set_lines(json_t *bridge, char **lines, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(list, json_string(lines[i])) < 0) {
			json_decref(list);
			return -ENOMEM;
		}
	return json_object_set_new(bridge, "bridges", list) < 0 ? -ENOMEM : 0;
}

/* The configuration's own lines, so that new ones are compared with them. */
static int own_lines(const struct config *cfg, struct config_bridge_list *list,
		     struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < cfg->bridge.n_bridges && r == 0; i++)
		r = config_bridge_list_add(list, cfg->bridge.bridges[i],
					   "a line of the configuration", e);
	return r;
}

/* ------------------------------------------------------------------------- */
/* add */

/* Whether @word begins a bridge line. */
static bool begins_line(const char *word, bool after_transport)
{
	const char *colon = strchr(word, ':'), *equals = strchr(word, '=');

	if (!strcasecmp(word, "Bridge"))
		return true;
	for (int t = CONFIG_TRANSPORT_OBFS4; t < CONFIG_TRANSPORT_COUNT; t++)
		if (!strcmp(word, config_transport_method(t)))
			return !after_transport;
	/* An address, not an argument with an URL. */
	return !after_transport && colon && (!equals || equals > colon);
}

/* Lines that a shell has split into words, as one text. */
static char *join(char *const *words, int n)
{
	_cleanup_free_ char *text = NULL;
	bool after_transport = false, whole = true;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (int i = 0; i < n; i++) {
		bool line = strchr(words[i], ' ') != NULL;
		bool begins =
			line || whole || begins_line(words[i], after_transport);

		fprintf(out, "%s%s",
			i == 0   ? ""
			: begins ? "\n"
				 : " ",
			words[i]);
		after_transport = !line && !strchr(words[i], ':') &&
				  begins_line(words[i], false);
		whole = line;
	}
	if (fclose(out) != 0)
		return NULL;
	return steal_ptr(&text);
}

/* @ret is the caller's, also on failure. */
static int read_input(char **ret, size_t *ret_len)
{
	*ret = malloc(CONFIG_BRIDGE_TEXT_MAX + 1);
	if (!*ret)
		return cli_fail(EXIT_CODE_FAILED, "out of memory");
	if (isatty(STDIN_FILENO))
		fputs("Paste bridge lines, one on each line, then press "
		      "Ctrl-D:\n",
		      stderr);
	*ret_len = fread(*ret, 1, CONFIG_BRIDGE_TEXT_MAX + 1, stdin);
	if (ferror(stdin))
		return cli_fail(EXIT_CODE_FAILED,
				"cannot read standard input: %m");
	return 0;
}

struct addition {
	const struct config_bridge_list *lines;
	size_t n_added;
	size_t of[CONFIG_TRANSPORT_COUNT];
	bool used; /* one of them will be */
	bool use_bridges;
};

static int add_lines(json_t *root, const struct config *cfg, void *userdata,
		     struct error *e)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list all =
		CONFIG_BRIDGE_LIST_NULL(all);
	struct addition *a = userdata;
	json_t *bridge = config_edit_section(root, "bridge");
	size_t own;
	int r;

	a->use_bridges = cfg->bridge.use_bridges;
	r = own_lines(cfg, &all, e);
	own = all.n_lines;
	for (size_t i = 0; i < a->lines->n_lines && r == 0; i++)
		r = config_bridge_list_add(&all, a->lines->lines[i],
					   "the configuration's bridges with "
					   "the new ones",
					   e);
	if (r < 0)
		return r;
	for (size_t i = own; i < all.n_lines; i++) {
		enum config_transport t =
			config_bridge_line_transport(all.lines[i]);

		a->n_added++;
		a->of[t]++;
		a->used = a->used || t == cfg->bridge.transport;
	}
	if (a->n_added == 0)
		return 0;
	if (!bridge || set_lines(bridge, all.lines, all.n_lines) < 0)
		return error_set(e, -ENOMEM, "out of memory");
	return 1;
}

static void print_added(const struct addition *a, const char *path)
{
	enum config_transport last = CONFIG_TRANSPORT_NONE;
	char count[64];

	if (a->n_added == 0) {
		printf("Nothing to add: the configuration has these bridges "
		       "already.\n");
		return;
	}
	for (int t = 0; t < CONFIG_TRANSPORT_COUNT; t++) {
		if (a->of[t] == 0)
			continue;
		last = (enum config_transport)t;
		printf("Added %s.\n",
		       cli_bridges_count(a->of[t], last, count, sizeof(count)));
	}
	print_next(path);
	if (!a->use_bridges || !a->used)
		printf("To use them: torvm bridges use %s\n",
		       cli_bridges_transport_name(last));
}

int cli_bridges_add_list(const char *path,
			 const struct config_bridge_list *lines)
{
	struct addition addition = { .lines = lines };
	struct error e = ERROR_NULL(e);
	int r = config_edit(path, add_lines, &addition, &e);

	if (r < 0)
		return cli_fail(cli_bridges_code(r), "%s", e.text);
	print_added(&addition, path);
	return EXIT_CODE_OK;
}

int cli_bridges_add(const struct cli_args *args, const char *path,
		    char *const *words, int n)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list lines =
		CONFIG_BRIDGE_LIST_NULL(lines);
	_cleanup_free_ char *text = NULL;
	struct error e = ERROR_NULL(e);
	size_t len = 0;
	int r;

	if (n == 0 || (n == 1 && !strcmp(words[0], "-"))) {
		r = read_input(&text, &len);
		if (r != 0)
			return r;
	} else {
		text = join(words, n);
		if (!text)
			return cli_fail(EXIT_CODE_FAILED, "out of memory");
		len = strlen(text);
		fputs("torvm: lines given as arguments can be seen by other "
		      "users of this computer while the command runs; "
		      "\"torvm bridges add\" alone reads standard input\n",
		      stderr);
	}
	r = config_bridge_list_parse(&lines, text, len, &e);
	if (r == 0 && lines.n_lines == 0)
		r = error_set(&e, -EINVAL,
			      "there is no bridge line in it; nothing was "
			      "changed");
	if (r < 0)
		return cli_fail(cli_bridges_code(r), "%s", e.text);
	return cli_bridges_add_list(path, &lines);
}

/* ------------------------------------------------------------------------- */
/* remove */

struct removal {
	size_t number; /* from 1; 0: @line */
	const char *line;
};

static int find_line(const struct config *cfg, const struct removal *rm,
		     struct error *e)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list one =
		CONFIG_BRIDGE_LIST_NULL(one);
	int r;

	if (rm->number > cfg->bridge.n_bridges)
		return error_set(e, -ENOENT,
				 "there is no bridge %zu; \"torvm bridges "
				 "list\" numbers them",
				 rm->number);
	if (rm->number > 0)
		return (int)rm->number - 1;
	r = config_bridge_list_add(&one, rm->line, "the line", e);
	for (size_t i = 0; r == 0 && i < cfg->bridge.n_bridges; i++) {
		_cleanup_(config_bridge_list_deinit) struct config_bridge_list
			other = CONFIG_BRIDGE_LIST_NULL(other);

		r = config_bridge_list_add(&other, cfg->bridge.bridges[i],
					   "a line of the configuration", e);
		if (r == 0 && !strcmp(one.lines[0], other.lines[0]))
			return (int)i;
	}
	return r < 0 ? r
		     : error_set(
			       e, -ENOENT,
			       "the configuration has no such bridge; \"torvm "
			       "bridges list\" shows them");
}

static int remove_line(json_t *root, const struct config *cfg, void *userdata,
		       struct error *e)
{
	enum config_transport transport = cfg->bridge.transport;
	size_t left = 0;
	int i = find_line(cfg, userdata, e);

	if (i < 0)
		return i;
	for (size_t k = 0; k < cfg->bridge.n_bridges; k++)
		left += k != (size_t)i &&
			config_bridge_line_transport(cfg->bridge.bridges[k]) ==
				transport;
	/* Never out into the open for want of a bridge. */
	if (cfg->bridge.use_bridges && left == 0)
		return error_set(e, -EINVAL,
				 "this is the last %s bridge, and Tor is "
				 "entered by them; add another, or run \"torvm "
				 "bridges use\" with another transport or with "
				 "none first",
				 cli_bridges_transport_name(transport));
	json_array_remove(
		json_object_get(json_object_get(root, "bridge"), "bridges"),
		(size_t)i);
	return 1;
}

int cli_bridges_remove(const struct cli_args *args, const char *path,
		       char *const *words, int n)
{
	_cleanup_free_ char *line = NULL;
	struct removal rm = { 0 };
	struct error e = ERROR_NULL(e);
	int r;

	if (n == 0)
		return cli_fail(EXIT_CODE_USAGE,
				"torvm bridges remove: which? Allowed: a "
				"number that \"torvm bridges list\" prints, or "
				"a line");
	if (n == 1)
		rm.number = cli_parse_number(words[0]);
	if (rm.number == 0) {
		line = join(words, n);
		if (!line)
			return cli_fail(EXIT_CODE_FAILED, "out of memory");
		rm.line = line;
	}
	r = config_edit(path, remove_line, &rm, &e);
	if (r < 0)
		return cli_fail(cli_bridges_code(r), "%s", e.text);
	puts("Removed.");
	print_next(path);
	return EXIT_CODE_OK;
}

/* ------------------------------------------------------------------------- */
/* use */

struct choice {
	bool use_bridges;
	enum config_transport transport;
	size_t n_lines;
	bool builtin; /* the lines were not the user's */
};

static int choose(json_t *root, const struct config *cfg, void *userdata,
		  struct error *e)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list all =
		CONFIG_BRIDGE_LIST_NULL(all);
	struct choice *c = userdata;
	json_t *bridge = config_edit_section(root, "bridge");
	size_t own;
	int r;

	if (!bridge)
		return error_set(e, -ENOMEM, "out of memory");
	if (!c->use_bridges)
		return json_object_set_new(bridge, "use_bridges",
					   json_false()) < 0
			       ? error_set(e, -ENOMEM, "out of memory")
			       : 1;
	r = own_lines(cfg, &all, e);
	if (r < 0)
		return r;
	own = all.n_lines;
	for (size_t i = 0; i < own; i++)
		c->n_lines += config_bridge_line_transport(all.lines[i]) ==
			      c->transport;
	if (c->n_lines == 0) {
		r = config_builtin_bridges(c->transport, &all, e);
		if (r < 0)
			return r;
		c->n_lines = all.n_lines - own;
		c->builtin = true;
	}
	if (json_object_set_new(bridge, "use_bridges", json_true()) < 0 ||
	    json_object_set_new(
		    bridge, "transport",
		    json_string(config_transport_name(c->transport))) < 0 ||
	    set_lines(bridge, all.lines, all.n_lines) < 0)
		return error_set(e, -ENOMEM, "out of memory");
	return 1;
}

/* Return: 0, or -EINVAL. */
static int choice_from_name(const char *name, struct choice *ret)
{
	*ret = (struct choice){ .use_bridges = true };
	if (!strcmp(name, "none")) {
		ret->use_bridges = false;
		return 0;
	}
	for (int t = 0; t < CONFIG_TRANSPORT_COUNT; t++)
		if (!strcmp(name, cli_bridges_transport_name(t)) ||
		    (t > 0 && !strcmp(name, config_transport_method(t)))) {
			ret->transport = (enum config_transport)t;
			return 0;
		}
	return -EINVAL;
}

int cli_bridges_use(const struct cli_args *args, const char *path,
		    char *const *words, int n)
{
	struct error e = ERROR_NULL(e);
	struct choice choice;
	char count[64];
	int r;

	if (n != 1 || choice_from_name(words[0], &choice) < 0)
		return cli_fail(EXIT_CODE_USAGE,
				"torvm bridges use: allowed are obfs4, meek, "
				"snowflake, webtunnel, plain (bridges without "
				"a transport) and none (no bridges)");
	r = config_edit(path, choose, &choice, &e);
	if (r < 0)
		return cli_fail(cli_bridges_code(r), "%s", e.text);
	if (!choice.use_bridges) {
		printf("Tor will be entered without bridges.\n");
	} else {
		cli_bridges_count(choice.n_lines, choice.transport, count,
				  sizeof(count));
		printf("Tor will be entered by %s%s.\n",
		       choice.builtin ? "the built-in " : "", count);
	}
	if (choice.builtin)
		printf("These are public, and of %s: a censor may know them, "
		       "and some may be gone.\n",
		       config_builtin_date());
	print_next(path);
	return EXIT_CODE_OK;
}
