#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/golden.h"
#include "tor/torrc.h"

static int setup(void **state)
{
	return (*state = config_new_default()) ? 0 : -1;
}

static int teardown(void **state)
{
	config_free(*state);
	return 0;
}

static void set(char **field, const char *value)
{
	free(*field);
	*field = strdup(value);
	assert_non_null(*field);
}

static void set_list(char ***list, size_t *n, const char *const *values,
		     size_t n_values)
{
	*list = calloc(n_values, sizeof(char *));
	assert_non_null(*list);
	for (*n = 0; *n < n_values; (*n)++)
		(*list)[*n] = strdup(values[*n]);
}

static void check(const struct config *cfg, bool state_disk, const char *name)
{
	_cleanup_free_ char *text = NULL;
	struct error e = ERROR_NULL(e);
	char path[512];

	if (torrc_render(cfg, state_disk, &text, &e) < 0)
		fail_msg("%s", e.text);
	snprintf(path, sizeof(path), "%s/%s.torrc", GOLDEN_DIR, name);
	golden_check(path, text);
}

static void assert_refused(const struct config *cfg, int code,
			   const char *needle)
{
	struct error e = ERROR_NULL(e);
	char *text = NULL;

	assert_int_equal(torrc_render(cfg, true, &text, &e), code);
	assert_null(text);
	if (!strstr(e.text, needle))
		fail_msg("no '%s' in: %s", needle, e.text);
}

static void the_default(void **state)
{
	check(*state, true, "default");
}

static void without_state_disk(void **state)
{
	check(*state, false, "no-state-disk");
}

static void exits_and_options(void **state)
{
	static const char *const options[] = {
		"TestingTorNetwork 1",
		"DirAuthority lab0 orport=9001 "
		"v3ident=0123456789ABCDEF0123456789ABCDEF01234567 "
		"192.0.2.1:9030 0123456789ABCDEF0123456789ABCDEF01234567",
	};
	struct config *cfg = *state;

	set(&cfg->tor.exit_nodes, "192.0.2.0/24,"
				  "0123456789ABCDEF0123456789ABCDEF01234567");
	set(&cfg->tor.exclude_nodes, "192.0.2.7");
	set(&cfg->tor.exclude_exit_nodes, "192.0.2.8, 192.0.2.9");
	cfg->tor.strict_nodes = true;
	cfg->tor.connection_padding = CONFIG_PADDING_REDUCED;
	set_list(&cfg->tor.options, &cfg->tor.n_options, options, 2);
	check(cfg, true, "exits-and-options");
}

static void ipv6_beside_ipv4(void **state)
{
	struct config *cfg = *state;

	cfg->tor.client_use_ipv6 = true;
	check(cfg, true, "ipv6");
}

static void ipv6_alone(void **state)
{
	struct config *cfg = *state;

	cfg->tor.client_use_ipv6 = true;
	cfg->tor.client_use_ipv4 = false;
	cfg->proxy.type = CONFIG_PROXY_HTTP;
	set(&cfg->proxy.address, "[2001:db8::8]:3128");
	check(cfg, true, "ipv6-alone");
}

/* Its bridges' addresses may be placeholders. */
static void a_transport_needs_ipv4_lines(void **state)
{
	static const char *const bridges[] = {
		"meek_lite 192.0.2.20:80 "
		"0123456789ABCDEF0123456789ABCDEF01234567 "
		"url=https://meek.example/",
	};
	_cleanup_free_ char *text = NULL;
	struct config *cfg = *state;

	cfg->tor.client_use_ipv6 = true;
	cfg->tor.client_use_ipv4 = false;
	cfg->bridge.use_bridges = true;
	cfg->bridge.transport = CONFIG_TRANSPORT_MEEK_LITE;
	set_list(&cfg->bridge.bridges, &cfg->bridge.n_bridges, bridges, 1);
	assert_int_equal(torrc_render(cfg, true, &text, NULL), 0);
	assert_non_null(strstr(text, "\nClientUseIPv4 1\n"));
}

static void http_proxy_with_login(void **state)
{
	struct config *cfg = *state;

	cfg->proxy.type = CONFIG_PROXY_HTTP;
	set(&cfg->proxy.address, "192.0.2.8:3128");
	set(&cfg->proxy.username, "user");
	set(&cfg->proxy.password, "p#ss \"w\\\xc3\xa4rt\"");
	check(cfg, true, "http-proxy");
	/* To the guest's TLS client, which goes to the proxy. */
	cfg->proxy.type = CONFIG_PROXY_HTTPS;
	check(cfg, true, "https-proxy");
}

static void socks_proxy_and_plain_bridges(void **state)
{
	static const char *const bridges[] = {
		"192.0.2.4:443 0123456789ABCDEF0123456789ABCDEF01234567",
		"[2001:db8::4]:443",
	};
	struct config *cfg = *state;

	cfg->proxy.type = CONFIG_PROXY_SOCKS5;
	set(&cfg->proxy.address, "192.0.2.8:1080");
	set(&cfg->proxy.username, "user");
	set(&cfg->proxy.password, "secret");
	cfg->bridge.use_bridges = true;
	cfg->bridge.transport = CONFIG_TRANSPORT_NONE;
	set_list(&cfg->bridge.bridges, &cfg->bridge.n_bridges, bridges, 2);
	check(cfg, true, "socks5-proxy-bridges");
}

/* Whatever src/config lets through, no value may become a second option. */
static void no_value_becomes_another_line(void **state)
{
	static const char *const bad[] = {
		"x\nControlPort 9051",
		"x\rControlPort 9051",
		"x\x7f",
		"x\\",
	};
	struct config *cfg = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set(&cfg->tor.exit_nodes, bad[i]);
		assert_refused(cfg, -EINVAL, "tor.exit_nodes");
	}
	set(&cfg->tor.exit_nodes, "192.0.2.0/24 # 192.0.2.1");
	assert_refused(cfg, -EINVAL, "'#'");
	set(&cfg->tor.exit_nodes, "");

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set_list(&cfg->tor.options, &cfg->tor.n_options, &bad[i], 1);
		assert_refused(cfg, -EINVAL, "tor.options");
		free(cfg->tor.options[0]);
		free(cfg->tor.options);
		cfg->tor.n_options = 0;
	}
	cfg->tor.options = NULL;

	cfg->proxy.type = CONFIG_PROXY_HTTPS;
	set(&cfg->proxy.address, "192.0.2.8:3128");
	set(&cfg->proxy.username, "user");
	set(&cfg->proxy.password, "secret\nControlPort 9051");
	assert_refused(cfg, -EINVAL, "proxy.password");
}

static void options_name_an_option(void **state)
{
	static const char *const bad[] = {
		"%include /etc/passwd",
		"+SocksPort 1",
		"/SocksPort",
		" Log debug file /x",
		"",
		"# comment",
	};
	struct config *cfg = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set_list(&cfg->tor.options, &cfg->tor.n_options, &bad[i], 1);
		assert_refused(cfg, -EINVAL, "tor.options");
		free(cfg->tor.options[0]);
		free(cfg->tor.options);
		cfg->tor.n_options = 0;
	}
	cfg->tor.options = NULL;
}

static void what_the_guest_would_refuse_is_refused_here(void **state)
{
	struct config *cfg = *state;
	char line[1100], *lines[100];

	memset(line, 'a', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	set_list(&cfg->tor.options, &cfg->tor.n_options,
		 (const char *const[]){ line }, 1);
	assert_refused(cfg, -E2BIG, "line");
	free(cfg->tor.options[0]);
	free(cfg->tor.options);

	line[1000] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		lines[i] = line;
	set_list(&cfg->tor.options, &cfg->tor.n_options,
		 (const char *const *)lines, ARRAY_SIZE(lines));
	assert_refused(cfg, -E2BIG, "64 KiB");
}

/* A torrc that names a country and not the list would exclude nobody. */
static void countries_come_with_the_list_of_them(void **state)
{
	static const char *const options[] = { "MiddleNodes {DE}" };
	struct config *cfg = *state;

	set(&cfg->tor.exit_nodes, "{de},{fr}");
	check(cfg, true, "countries");
	set(&cfg->tor.exit_nodes, "");
	set_list(&cfg->tor.options, &cfg->tor.n_options, options, 1);
	check(cfg, true, "country-option");
}

/* The transport is started by the guest, and has the proxy: Tor gets neither.
 */
static void a_transport_and_its_proxy(void **state)
{
	static const char *const bridges[] = {
		"obfs4 192.0.2.4:443 0123456789ABCDEF0123456789ABCDEF01234567 "
		"cert=x iat-mode=0",
		"192.0.2.9:443",
	};
	struct config *cfg = *state;

	assert_null(torrc_transport(cfg));
	cfg->proxy.type = CONFIG_PROXY_SOCKS5;
	set(&cfg->proxy.address, "192.0.2.8:1080");
	cfg->bridge.use_bridges = true;
	cfg->bridge.transport = CONFIG_TRANSPORT_OBFS4;
	set_list(&cfg->bridge.bridges, &cfg->bridge.n_bridges, bridges, 2);
	check(cfg, true, "obfs4");
	assert_string_equal(torrc_transport(cfg), "obfs4");
	cfg->bridge.transport = CONFIG_TRANSPORT_MEEK_LITE;
	assert_string_equal(torrc_transport(cfg), "meek_lite");
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(the_default),
		with(without_state_disk),
		with(exits_and_options),
		with(ipv6_beside_ipv4),
		with(ipv6_alone),
		with(a_transport_needs_ipv4_lines),
		with(http_proxy_with_login),
		with(socks_proxy_and_plain_bridges),
		with(no_value_becomes_another_line),
		with(options_name_an_option),
		with(what_the_guest_would_refuse_is_refused_here),
		with(countries_come_with_the_list_of_them),
		with(a_transport_and_its_proxy),
	};

	return cmocka_run_group_tests_name("torrc", tests, NULL, NULL);
}
