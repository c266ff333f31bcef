/* torvm circuits, torvm newnym: what Tor is used for at the moment. */
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* What came over a socket does not get to steer the terminal. */
static void print(const char *text)
{
	for (const char *s = text; *s; s++)
		putchar((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
}

static void print_relay(const json_t *relay)
{
	const char *name = text_of(relay, "nickname");
	const char *country = text_of(relay, "country");

	if (json_is_true(json_object_get(relay, "bridge"))) {
		fputs("(bridge)", stdout);
		return;
	}
	if (name[0])
		print(name);
	else
		printf("$%.8s", text_of(relay, "fingerprint"));
	if (country[0]) {
		fputs(" {", stdout);
		print(country);
		putchar('}');
	}
}

static void print_stream(const json_t *stream)
{
	fputs("           ", stdout);
	print(text_of(stream, "target"));
	fputs("  ", stdout);
	print(text_of(stream, "status"));
	putchar('\n');
}

static void print_circuit(const json_t *circuit, const json_t *streams)
{
	const char *id = text_of(circuit, "id");
	const json_t *relays = json_object_get(circuit, "relays"), *item;
	size_t i;

	printf("%-5.19s %s%-9.15s%s ", id,
	       !strcmp(text_of(circuit, "status"), "BUILT")
		       ? cli_colour(stdout, CLI_GREEN)
		       : cli_colour(stdout, CLI_YELLOW),
	       text_of(circuit, "status"), cli_colour(stdout, CLI_PLAIN));
	print(text_of(circuit, "purpose"));
	fputs("  ", stdout);
	json_array_foreach (relays, i, item) {
		if (i > 0)
			fputs(" > ", stdout);
		print_relay(item);
	}
	putchar('\n');
	json_array_foreach (streams, i, item) {
		if (!strcmp(text_of(item, "circuit"), id))
			print_stream(item);
	}
}

static void print_text(const json_t *parameters)
{
	const json_t *circuits = json_object_get(parameters, "circuits");
	const json_t *streams = json_object_get(parameters, "streams"), *item;
	bool waiting = false;
	size_t i;

	if (json_array_size(circuits) == 0)
		puts("There are no circuits.");
	json_array_foreach (circuits, i, item) {
		print_circuit(item, streams);
	}
	json_array_foreach (streams, i, item) {
		if (text_of(item, "circuit")[0])
			continue;
		if (!waiting)
			puts("Waiting for a circuit:");
		waiting = true;
		print_stream(item);
	}
}

int cli_circuits(const struct cli_args *args)
{
	_cleanup_(client_freep) struct client *client = NULL;
	_cleanup_(json_decrefp) json_t *parameters = NULL;
	struct error e = ERROR_NULL(e);
	int r;

	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r == 0)
		r = client_get_circuits(client, &parameters, &e);
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	if (args->given & CLI_BIT(JSON)) {
		json_dumpf(parameters, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_text(parameters);
	}
	return EXIT_CODE_OK;
}

int cli_newnym(const struct cli_args *args)
{
	_cleanup_(client_freep) struct client *client = NULL;
	struct error e = ERROR_NULL(e);
	int64_t wait = 0;
	int r;

	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r == 0)
		r = client_new_identity(client, &wait, &e);
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	if (wait > 0)
		printf("In %lld s: Tor does this at most every 10 seconds. ",
		       (long long)wait);
	puts("What begins from then on uses new circuits; what is connected "
	     "stays as it is.");
	return EXIT_CODE_OK;
}
