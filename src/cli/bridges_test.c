/*
 * Theory of operation
 *
 * Only Tor can tell whether a bridge works, and only Tor may try: a connection
 * of our own would be seen on the wire as what it is. So the running Tor is
 * asked what it is connected with and what it remembers of its guards, which
 * with bridges are the bridges; the engine adds whom it called in vain.
 */
#include <errno.h>
#include <string.h>

#include "cli/bridges.h"
#include "config/bridge_line.h"

enum verdict {
	VERDICT_REACHED,
	VERDICT_EARLIER,
	VERDICT_TRYING,
	VERDICT_FAILED,
	VERDICT_UNTRIED,
	VERDICT_UNUSED,
	VERDICT_COUNT,
};

static const struct {
	const char *name, *words;
} verdicts[] = {
	[VERDICT_REACHED] = { "connected",
			      "reached: Tor is connected with it" },
	[VERDICT_EARLIER] = { "up", "reached before, not connected right now" },
	[VERDICT_TRYING] = { "connecting", "Tor is trying" },
	[VERDICT_FAILED] = { "down", "not reached" },
	[VERDICT_UNTRIED] = { "unknown",
			      "Tor has not tried it yet: it tries a few at a "
			      "time" },
	[VERDICT_UNUSED] = { "unused", "not in use: see torvm bridges use" },
};
_Static_assert(ARRAY_SIZE(verdicts) == VERDICT_COUNT, "verdicts");

static enum verdict verdict_of(const char *state)
{
	static const struct {
		const char *state;
		enum verdict verdict;
	} states[] = {
		{ "connected", VERDICT_REACHED },
		{ "connecting", VERDICT_TRYING },
		{ "failed", VERDICT_FAILED },
		{ "up", VERDICT_EARLIER },
		{ "down", VERDICT_FAILED },
		{ "unusable", VERDICT_FAILED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (!strcmp(states[i].state, state))
			return states[i].verdict;
	return VERDICT_UNTRIED;
}

static bool is_about(const json_t *entry, const struct config_bridge *b)
{
	const char *fingerprint =
		json_string_value(json_object_get(entry, "fingerprint"));
	const char *address =
		json_string_value(json_object_get(entry, "address"));

	return (fingerprint && b->fingerprint &&
		!strcasecmp(fingerprint, b->fingerprint)) ||
	       (address && !strcmp(address, b->address));
}

static enum verdict judge(const char *line, const json_t *entries)
{
	struct config_problem p = { 0 };
	enum verdict verdict = VERDICT_UNTRIED;
	struct config_bridge b;
	const json_t *entry;
	size_t i;

	if (config_bridge_parse(line, &b, &p) == 0) {
		json_array_foreach (entries, i, entry) {
			if (is_about(entry, &b)) {
				verdict = verdict_of(json_string_value(
					json_object_get(entry, "state")));
				break;
			}
		}
	}
	config_bridge_deinit(&b);
	return verdict;
}

/* Return: how many were reached, now or before. */
static size_t report(const struct cli_args *args, const struct config *cfg,
		     size_t only, const json_t *entries)
{
	json_t *list = json_array();
	size_t reached = 0;

	for (size_t i = 0; i < cfg->bridge.n_bridges; i++) {
		const char *line = cfg->bridge.bridges[i];
		enum verdict v = cli_bridges_is_used(cfg, i)
					 ? judge(line, entries)
					 : VERDICT_UNUSED;
		const char *transport = cli_bridges_transport_name(
			config_bridge_line_transport(line));

		if (only > 0 && only != i + 1)
			continue;
		reached += v == VERDICT_REACHED || v == VERDICT_EARLIER;
		if (args->given & CLI_BIT(JSON))
			json_array_append_new(
				list,
				json_pack("{s:i, s:s, s:s}", "number",
					  (int)(i + 1), "transport", transport,
					  "state", verdicts[v].name));
		else
			printf("%3zu  %-9s  %s\n", i + 1, transport,
			       verdicts[v].words);
	}
	if (args->given & CLI_BIT(JSON)) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(list);
	return reached;
}

int cli_bridges_test(const struct cli_args *args, const char *path,
		     char *const *words, int n)
{
	_cleanup_(client_freep) struct client *client = NULL;
	_cleanup_(json_decrefp) json_t *parameters = NULL;
	_cleanup_(config_freep) struct config *cfg = NULL;
	struct error e = ERROR_NULL(e);
	size_t only = n > 0 ? cli_parse_number(words[0]) : 0;
	int r;

	r = config_load(path, &cfg, &e);
	if (r < 0)
		return cli_fail(cli_bridges_code(r), "%s", e.text);
	if (n > 1 || (n == 1 && only == 0) || only > cfg->bridge.n_bridges)
		return cli_fail(EXIT_CODE_USAGE,
				"torvm bridges test: which? Allowed: nothing "
				"(all of them), or a number that \"torvm "
				"bridges list\" prints");
	if (!cfg->bridge.use_bridges)
		return cli_fail(EXIT_CODE_NOT_RUNNING,
				"bridges are not used, so Tor tries none; "
				"\"torvm bridges use TRANSPORT\", then start "
				"TorVM");
	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r == -ESRCH)
		return cli_fail(EXIT_CODE_NOT_RUNNING,
				"no controller runs, and only Tor may try a "
				"bridge: anything else would show on the wire "
				"whom this computer calls; \"torvm up\", then "
				"this again");
	if (r == 0)
		r = client_get_entries(client, &parameters, &e);
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	return report(args, cfg, only, json_object_get(parameters, "entries"))
		       ? EXIT_CODE_OK
		       : EXIT_CODE_FAILED;
}
