/*
 * Theory of operation
 *
 * Whoever asks the bridge service in the clear tells those who watch the
 * network that this computer is about to use bridges. So the question goes
 * through Tor when it is connected (by its SOCKS port: should the protection
 * end meanwhile, there is nobody at that address). When TorVM is up and Tor is
 * not connected, it goes through meek: the engine starts the VM anew with a way
 * to the service in the place of Tor, for as long as our call of OpenMoat
 * stands. When TorVM is down nobody is asked, unless the user says --direct.
 * What is always there are the built-in bridges.
 *
 * Through Tor the service sees an exit's address, not the user's country: that
 * has to be named, or the defaults are asked for. A front tells it the address
 * it was asked from.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "cli/bridges.h"
#include "cli/moat_call.h"
#include "config/bridge_line.h"
#include "config/builtin.h"

#define SERVICE "https://bridges.torproject.org/moat/circumvention"
#define SOCKS_PORT 9050

enum way { WAY_TOR, WAY_MEEK, WAY_DIRECT, WAY_NONE, WAY_BLOCKED };

/* How the question can go; @ret_proxy is for WAY_TOR, *@ret_client for
 * WAY_MEEK. */
static enum way find_way(const struct cli_args *args, const char *path,
			 char *ret_proxy, size_t size,
			 struct client **ret_client)
{
	const char *dir = cli_runtime_dir(args);
	_cleanup_(client_freep) struct client *client = NULL;
	_cleanup_(config_freep) struct config *cfg = NULL;
	struct client_status status = { 0 };
	char ip[INET_ADDRSTRLEN];

	if (client_connect(dir, &client, NULL) == 0 &&
	    client_get_status(client, &status, NULL) == 0) {
		if (cli_is_stopping(&status))
			return WAY_BLOCKED;
		if (strcmp(status.state, "Running") != 0) {
			*ret_client = steal_ptr(&client);
			return WAY_MEEK;
		}
		/* Without a readable file the default address. */
		if (config_load(path, &cfg, NULL) < 0)
			cfg = config_new_default();
		if (!cfg)
			return WAY_NONE;
		inet_ntop(AF_INET, &cfg->network.vm_ip, ip, sizeof(ip));
		snprintf(ret_proxy, size, "%s:%d", ip, SOCKS_PORT);
		return WAY_TOR;
	}
	if (!(args->given & CLI_BIT(DIRECT)))
		return WAY_NONE;
	return cli_lockdown(dir) || cli_leftovers(dir) ? WAY_BLOCKED
						       : WAY_DIRECT;
}

/* https, or a server on this computer. */
static bool is_good_url(const char *url)
{
	static const char *const local[] = {
		"http://127.0.0.1:", "http://[::1]:", "http://localhost:"
	};

	if (strlen(url) > 500 || strpbrk(url, " \t\r\n"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(local); i++)
		if (!strncmp(url, local[i], strlen(local[i])))
			return true;
	return !strncmp(url, "https://", 8) && url[8];
}

static bool is_country(const char *text)
{
	return strlen(text) == 2 && text[0] >= 'a' && text[0] <= 'z' &&
	       text[1] >= 'a' && text[1] <= 'z';
}

/* Lines on standard output, so that they can be piped into "bridges add". */
static int deliver(const struct cli_args *args, const char *path,
		   const struct config_bridge_list *bridges)
{
	if (args->given & CLI_BIT(ADD))
		return cli_bridges_add_list(path, bridges);
	for (size_t i = 0; i < bridges->n_lines; i++)
		puts(bridges->lines[i]);
	if (isatty(STDOUT_FILENO))
		fputs("torvm: to put them into the configuration: the same "
		      "with --add\n",
		      stderr);
	return EXIT_CODE_OK;
}

/* What there is when nobody can be asked. */
static int fall_back(const struct cli_args *args, const char *path,
		     const char *why)
{
	_cleanup_(config_bridge_list_deinit) struct config_bridge_list list =
		CONFIG_BRIDGE_LIST_NULL(list);
	struct error e = ERROR_NULL(e);

	fprintf(stderr, "torvm: %s\n", why);
	for (int t = 0; t < CONFIG_TRANSPORT_COUNT; t++) {
		if (args->transport &&
		    strcmp(cli_bridges_transport_name(t), args->transport) != 0)
			continue;
		if (config_builtin_bridges(t, &list, &e) < 0 && args->transport)
			return cli_fail(EXIT_CODE_FAILED, "%s", e.text);
	}
	fprintf(stderr,
		"torvm: these are the built-in bridges of %s instead: public, "
		"so a censor may know them, and some may be gone\n",
		config_builtin_date());
	return deliver(args, path, &list);
}

static int print_answer(const struct cli_args *args, const char *path,
			const struct moat_call *call)
{
	for (size_t i = 0; i < call->n_texts; i++)
		puts(call->texts[i]);
	if (call->n_left_out > 0)
		fprintf(stderr,
			"torvm: %lu further bridges are of kinds that TorVM "
			"cannot use\n",
			call->n_left_out);
	if (call->none_needed) {
		fprintf(stderr,
			"torvm: the service says that Tor works without "
			"bridges%s%s; \"torvm bridges request defaults\" asks "
			"for some all the same\n",
			call->told_country[0] ? " in " : " there",
			call->told_country);
		return EXIT_CODE_OK;
	}
	if (call->bridges.n_lines == 0 && call->n_texts == 0)
		return cli_fail(EXIT_CODE_FAILED,
				"the service has no such bridges; without "
				"--transport it may have others");
	if (call->bridges.n_lines == 0)
		return EXIT_CODE_OK;
	return deliver(args, path, &call->bridges);
}

static const char *choose_question(const struct cli_args *args, enum way way,
				   char *const *words, int n)
{
	if (n > 0)
		return words[0];
	if (way != WAY_TOR || args->country)
		return "settings";
	fputs("torvm: asking for what works in most countries; --country names "
	      "yours\n",
	      stderr);
	return "defaults";
}

/* The configuration's name of a transport, NULL: every one; or "" if @name is
 * none. */
static const char *transport_from_name(const char *name)
{
	if (!name)
		return NULL;
	for (int t = 0; t < CONFIG_TRANSPORT_COUNT; t++)
		if (!strcmp(cli_bridges_transport_name(t), name))
			return config_transport_name(t);
	return "";
}

static int check_usage(const struct cli_args *args, char *const *words, int n)
{
	static const char *const questions[] = { "settings", "defaults",
						 "builtin", "map",
						 "countries" };
	const char *transport = transport_from_name(args->transport);
	bool known = n == 0;

	for (size_t i = 0; n == 1 && i < ARRAY_SIZE(questions); i++)
		known = known || !strcmp(words[0], questions[i]);
	if (!known)
		return cli_fail(
			EXIT_CODE_USAGE,
			"torvm bridges request: allowed are settings, "
			"defaults, builtin, map, countries, or nothing");
	if (transport && !transport[0])
		return cli_fail(EXIT_CODE_USAGE,
				"--transport: \"%.40s\"; allowed: obfs4, meek, "
				"snowflake, webtunnel, plain",
				args->transport);
	if (args->country && !is_country(args->country))
		return cli_fail(EXIT_CODE_USAGE,
				"--country: \"%.40s\"; allowed: two small "
				"letters, such as cn",
				args->country);
	if (args->url && !is_good_url(args->url))
		return cli_fail(EXIT_CODE_USAGE,
				"--url: allowed: https://HOST/PATH, or "
				"http://127.0.0.1:PORT/PATH for a test");
	return 0;
}

int cli_bridges_request(const struct cli_args *args, const char *path,
			char *const *words, int n)
{
	_cleanup_(moat_call_deinit) struct moat_call call = { 0 };
	struct error e = ERROR_NULL(e);
	_cleanup_(client_freep) struct client *client = NULL;
	char proxy[64], through[CLIENT_MOAT_ADDRESS_SIZE], why[700];
	enum way way;
	int r = check_usage(args, words, n);

	if (r != 0)
		return r;
	way = find_way(args, path, proxy, sizeof(proxy), &client);
	if (way == WAY_NONE)
		return fall_back(args, path,
				 "TorVM is not up, and a question in the clear "
				 "would show that this computer looks for "
				 "bridges; nothing was asked. After \"torvm "
				 "up\" it goes through Tor, or through meek if "
				 "Tor does not connect; --direct asks in the "
				 "clear");
	if (way == WAY_BLOCKED)
		return fall_back(args, path,
				 "all traffic is blocked and TorVM is not up, "
				 "so nobody can be asked; start it with "
				 "\"torvm up\"");
	call.question = choose_question(args, way, words, n);
	call.url = args->url ? args->url : SERVICE;
	call.proxy = way == WAY_TOR ? proxy : NULL;
	call.country = args->country;
	call.transport = transport_from_name(args->transport);
	fprintf(stderr, "torvm: asking the bridge service %s\n",
		way == WAY_TOR    ? "through Tor"
		: way == WAY_MEEK ? "through meek, as Tor is not connected. "
				    "The VM is started anew for it, twice: "
				    "this takes a minute or two"
				  : "directly, as you said");
	if (way == WAY_MEEK) {
		r = client_open_moat(client, through, &e);
		if (r < 0) {
			snprintf(why, sizeof(why),
				 "the bridge service cannot be asked: %s",
				 e.text);
			return fall_back(args, path, why);
		}
		call.through = through;
	}
	r = moat_call(&call, &e);
	/* The VM need not wait for what is left to be done here. */
	client_freep(&client);
	client = NULL;
	if (r == -EHOSTUNREACH || r == -ETIMEDOUT) {
		snprintf(why, sizeof(why), "%s", e.text);
		return fall_back(args, path, why);
	}
	if (r < 0)
		return cli_fail(EXIT_CODE_FAILED, "%s", e.text);
	return print_answer(args, path, &call);
}
