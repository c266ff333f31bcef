/*
 * Writes docs/lifecycle.md from the table, or with --check FILE compares.
 *
 * The diagram leaves out the stop edges of every state: they are the same and
 * would hide the rest; the table below it has all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lifecycle/lifecycle.h"

static const char intro[] =
	"# The lifecycle\n"
	"\n"
	"Generated from `src/lifecycle/lifecycle.c` by `build/src/lifecycle/lifecycle-doc`; a "
	"test\ncompares. Do not edit.\n"
	"\n"
	"The block goes up before anything else is changed and comes down "
	"last, by an\nexplicit stop only. Whatever fails in between leads to "
	"Blocked, from where the VM\nis started again after a pause that "
	"doubles up to `failsafe.restart_max_delay_s`.\nA start that fails "
	"before the block has changed nothing and says why.\n"
	"\n"
	"`stop` leads from every state to Shutdown (from CheckPrivileges, "
	"where nothing\nhas been changed, to Cleanup); the diagram leaves it "
	"out.\n"
	"\n";

static void print_effects(FILE *out, const struct lifecycle_way *way,
			  const char *separator)
{
	for (int i = 0; i < LIFECYCLE_EFFECTS_MAX && way->effects[i]; i++)
		fprintf(out, "%s%s", i ? separator : "",
			lifecycle_effect_name(way->effects[i]));
}

/* Events that lead the same way share one arrow. */
static void print_edges(FILE *out, enum lifecycle_state from,
			enum lifecycle_state to)
{
	int n = 0;

	for (int e = 0; e < LIFECYCLE_EVENT_COUNT; e++) {
		const struct lifecycle_cell *cell = lifecycle_cell(from, e);

		if (cell->kind != LIFECYCLE_KIND_GO ||
		    e == LIFECYCLE_EVENT_STOP)
			continue;
		for (int w = 0; w < LIFECYCLE_WAYS_MAX; w++) {
			const struct lifecycle_way *way = &cell->ways[w];

			if (way->next == to && from != to) {
				if (n++ == 0)
					fprintf(out, "    %s --> %s: ",
						lifecycle_state_name(from),
						lifecycle_state_name(to));
				else
					fputs("<br>", out);
				fputs(lifecycle_event_name(e), out);
				if (way->guard)
					fprintf(out, " [%s]",
						lifecycle_guard_name(
							way->guard));
			}
			if (!way->guard)
				break;
		}
	}
	if (n)
		fputc('\n', out);
}

static void print_diagram(FILE *out)
{
	fputs("```mermaid\nstateDiagram-v2\n    [*] --> Init\n", out);
	for (int from = 0; from < LIFECYCLE_STATE_COUNT; from++)
		for (int to = 0; to < LIFECYCLE_STATE_COUNT; to++)
			print_edges(out, from, to);
	fputs("    Cleanup --> [*]\n```\n\n", out);
}

static void print_state(FILE *out, enum lifecycle_state state)
{
	int ignored = 0;

	for (int e = 0; e < LIFECYCLE_EVENT_COUNT; e++) {
		const struct lifecycle_cell *cell = lifecycle_cell(state, e);

		if (cell->kind == LIFECYCLE_KIND_IGNORE)
			ignored++;
		if (cell->kind != LIFECYCLE_KIND_GO)
			continue;
		for (int w = 0; w < LIFECYCLE_WAYS_MAX; w++) {
			const struct lifecycle_way *way = &cell->ways[w];

			fprintf(out, "| %s | %s | %s | %s | ",
				lifecycle_state_name(state),
				lifecycle_event_name(e),
				lifecycle_guard_name(way->guard),
				lifecycle_state_name(way->next));
			print_effects(out, way, ", ");
			fputs(" |\n", out);
			if (!way->guard)
				break;
		}
	}
	if (ignored == 0)
		return;
	fprintf(out, "| %s | ", lifecycle_state_name(state));
	for (int e = 0, n = 0; e < LIFECYCLE_EVENT_COUNT; e++)
		if (lifecycle_cell(state, e)->kind == LIFECYCLE_KIND_IGNORE)
			fprintf(out, "%s%s", n++ ? ", " : "",
				lifecycle_event_name(e));
	fputs(" | | (ignored) | |\n", out);
}

static void print_document(FILE *out)
{
	fputs(intro, out);
	print_diagram(out);
	fputs("Guards: `relaunch`: the cause is known and mended at once "
	      "(another accelerator is\nleft to try, or an unusable state disk "
	      "will be replaced); `vm-alive`: QEMU runs;\n`tap-present`: the "
	      "TAP exists. Of several rows with the same state and event the\n"
	      "first whose guard holds is taken. An event that has no row in "
	      "a state cannot\nhappen there; if it did, it would be logged and "
	      "change nothing.\n\n"
	      "| state | event | guard | next | effects, in order |\n"
	      "|---|---|---|---|---|\n",
	      out);
	for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++)
		print_state(out, s);
}

/* Return: whether @file holds exactly @text of @len bytes. */
static bool holds(FILE *file, const char *text, size_t len)
{
	char chunk[4096];
	size_t n;

	while ((n = fread(chunk, 1, sizeof(chunk), file)) > 0) {
		if (n > len || memcmp(chunk, text, n) != 0)
			return false;
		text += n;
		len -= n;
		if (feof(file) || ferror(file))
			break;
	}
	return len == 0 && !ferror(file);
}

static int check(const char *path)
{
	char *text = NULL;
	size_t len = 0;
	FILE *file = fopen(path, "re");
	FILE *memory = open_memstream(&text, &len);
	bool current = false;

	if (memory) {
		print_document(memory);
		fclose(memory);
	}
	if (file) {
		current = text && holds(file, text, len);
		fclose(file);
	}
	free(text);
	if (current)
		return 0;
	fprintf(stderr,
		"%s is not what the table says; mend it with "
		"`build/src/lifecycle/lifecycle-doc > %s`\n",
		path, path);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--check"))
		return check(argv[2]);
	if (argc != 1) {
		fputs("usage: lifecycle-doc [--check FILE]\n", stderr);
		return 2;
	}
	print_document(stdout);
	return fflush(stdout) ? 1 : 0;
}
