#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "config/bridge_line.h"
#include "config/builtin.h"
#include "config/config.h"
#include "config/countries.h"
#include "config/fields.h"
#include "config/tor_options.h"

#define FP "0123456789ABCDEF0123456789ABCDEF01234567"

/* ' stands for " so that the texts stay readable. */
static char *quoted(const char *text)
{
	char *copy = strdup(text);

	for (char *s = copy; *s; s++)
		if (*s == '\'')
			*s = '"';
	return copy;
}

static struct config *parsed(const char *text)
{
	_cleanup_free_ char *json = quoted(text);
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;

	if (config_parse("t.json", json, strlen(json), &cfg, &e) < 0)
		fail_msg("%s refused: %s", json, e.text);
	return cfg;
}

static void accepts(const char *text)
{
	config_free(parsed(text));
}

/* @parts: pieces of the message, separated by '|', in order. */
static void refuses_bytes(const char *json, size_t len, const char *parts)
{
	_cleanup_free_ char *copy = strdup(parts);
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;
	char *rest = copy, *part, *at;

	if (config_parse("t.json", json, len, &cfg, &e) == 0)
		fail_msg("accepted: %s", json);
	assert_null(cfg);
	assert_int_equal(e.code, -EINVAL);
	at = e.text;
	assert_memory_equal(at, "t.json: ", 8);
	while ((part = strsep(&rest, "|"))) {
		at = strstr(at, part);
		if (!at)
			fail_msg("no \"%s\" in: %s", part, e.text);
	}
	/* One line, whole, without what could steer a terminal. */
	assert_true(strlen(e.text) < sizeof(e.text) - 1);
	for (const char *s = e.text; *s; s++)
		assert_true((unsigned char)*s >= 0x20 && *s != 0x7f);
}

static void refuses(const char *text, const char *parts)
{
	_cleanup_free_ char *json = quoted(text);

	refuses_bytes(json, strlen(json), parts);
}

static void defaults_are_the_documented_ones(void **state)
{
	_cleanup_(config_freep) struct config *cfg = parsed("{}");
	struct in_addr host = { .s_addr = htonl(0x0a0a0a02) };

	assert_int_equal(cfg->vm.memory_mb, 160);
	assert_int_equal(cfg->vm.cpus, 1);
	assert_int_equal(cfg->vm.accel, CONFIG_ACCEL_AUTO);
	assert_string_equal(cfg->vm.qemu_path, "");
	assert_string_equal(cfg->network.tap_name, "torvm0");
	assert_int_equal(cfg->network.host_ip.s_addr, host.s_addr);
	assert_false(cfg->network.lan_access);
	assert_false(cfg->bridge.use_bridges);
	assert_int_equal(cfg->bridge.n_bridges, 0);
	assert_int_equal(cfg->proxy.type, CONFIG_PROXY_NONE);
	assert_int_equal(cfg->log.level, LOG_LEVEL_INFO);
	assert_true(cfg->failsafe.restart_min_delay_s <=
		    cfg->failsafe.restart_max_delay_s);
}

static void each_default_fits_its_own_row(void **state)
{
	for (size_t i = 0; i < config_n_fields; i++) {
		const struct config_field *f = &config_fields[i];
		struct config_problem p = { 0 };
		unsigned long n;

		assert_true(strlen(f->section) + strlen(f->name) + 2 <=
			    CONFIG_KEY_MAX);
		assert_non_null(f->doc);
		if (f->type == CONFIG_TYPE_UINT) {
			n = strtoul(f->def, NULL, 10);
			assert_in_range(n, f->min, f->max);
		} else if (f->type == CONFIG_TYPE_ENUM) {
			assert_true(f->value_from_name(f->def) >= 0);
		} else if (f->type == CONFIG_TYPE_STRING && f->def[0] &&
			   f->check) {
			assert_int_equal(f->check(f->def, &p), 0);
		}
	}
}

static void every_key_can_be_set(void **state)
{
	_cleanup_(config_freep) struct config *cfg = parsed(
		"{'vm': {'memory_mb': 128, 'cpus': 16, 'accel': 'tcg',"
		" 'qemu_path': '/usr/bin/q', 'image_dir': '/i',"
		" 'state_disk': '/s/d.img'},"
		"'network': {'tap_name': 'tun.a-b_1', 'host_ip': '192.168.7.5',"
		" 'vm_ip': '192.168.7.6', 'lan_access': true, 'ipv6': false},"
		"'bridge': {'use_bridges': true, 'transport': 'none',"
		" 'bridges': ['192.0.2.7:443 "
		"0123456789abcdef0123456789ABCDEF01234567',"
		" '[2001:db8::1]:9001']},"
		"'proxy': {'type': 'socks5', 'address': 'proxy.lan:1080',"
		" 'username': 'u', 'password': 'p\\\\w'},"
		"'tor': {'exit_nodes': '192.0.2.1, $" FP "',"
		" 'options': ['DirAuthority a orport=1 192.0.2.1:9 " FP "',"
		" 'strictnodes 0']},"
		"'failsafe': {'restart_min_delay_s': 2,"
		" 'restart_max_delay_s': 2, 'boot_timeout_s': 600,"
		" 'bootstrap_stall_s': 10, 'shutdown_timeout_s': 1,"
		" 'heartbeat_timeout_s': 5},"
		"'log': {'level': 'debug', 'file': '/var/log/t.log'}}");

	assert_int_equal(cfg->vm.memory_mb, 128);
	assert_int_equal(cfg->vm.accel, CONFIG_ACCEL_TCG);
	assert_string_equal(cfg->vm.state_disk, "/s/d.img");
	assert_string_equal(cfg->network.tap_name, "tun.a-b_1");
	assert_true(cfg->network.lan_access);
	assert_int_equal(cfg->bridge.n_bridges, 2);
	assert_string_equal(cfg->bridge.bridges[1], "[2001:db8::1]:9001");
	assert_int_equal(cfg->proxy.type, CONFIG_PROXY_SOCKS5);
	assert_string_equal(cfg->proxy.password, "p\\w");
	assert_int_equal(cfg->tor.n_options, 2);
	assert_int_equal(cfg->failsafe.boot_timeout_s, 600);
	assert_int_equal(cfg->log.level, LOG_LEVEL_DEBUG);
}

static void numbers_out_of_range_are_refused(void **state)
{
	static const char *const bad[] = {
		"95",    "4097",  "-160",  "0",    "4294967456", "1e3",
		"160.0", "160.5", "'160'", "true", "null",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[80];

		snprintf(text, sizeof(text), "{'vm': {'memory_mb': %s}}",
			 bad[i]);
		refuses(text, "key vm.memory_mb: |; allowed: |a whole number "
			      "from 128 to 4096");
	}
	refuses("{'vm': {'memory_mb': 99999999999999999999}}",
		"key vm.memory_mb: |too large");
	accepts("{'vm': {'memory_mb': 128}}");
	refuses("{'vm': {'memory_mb': 159}, 'proxy': {'type': 'https',"
		"'address': 'p:1'}}",
		"key vm.memory_mb: |an https proxy|allowed: |160");
	accepts("{'vm': {'memory_mb': 4096}}");
	refuses("{'vm': {'memory_mb': 159}, 'bridge': {'use_bridges': true,"
		" 'transport': 'meek', 'bridges': ['meek_lite 192.0.2.1:80 " FP
		" url=https://meek.example/']}}",
		"key vm.memory_mb: |159|allowed: |160");
}

static void types_are_strict(void **state)
{
	refuses("{'network': {'ipv6': 1}}",
		"key network.ipv6: |a whole number|true or false");
	refuses("{'tor': {'client_use_ipv4': false}}",
		"key tor.client_use_ipv4: |tor.client_use_ipv6 true");
	refuses("{'tor': {'options': ['ClientUseIPv6 1']}}",
		"key tor.options: |ClientUseIPv6|tor.client_use_ipv6");
	refuses("{'tor': {'client_use_ipv6': true,"
		" 'options': ['ClientUseIPv4 0']}}",
		"key tor.options: |ClientUseIPv4|tor.client_use_ipv4");
	refuses("{'network': {'ipv6': 'true'}}", "key network.ipv6: |a string");
	refuses("{'network': {'ipv6': true}}",
		"key network.ipv6: |this version|allowed: false");
	refuses("{'vm': {'accel': 1}}",
		"key vm.accel: |\"auto\", \"kvm\", \"tcg\"");
}

static void unknown_keys_name_the_nearest(void **state)
{
	refuses("{'vm': {'memory': 1}}",
		"key vm.memory: |no such key|allowed: |memory_mb");
	refuses("{'vm': {'memroy_mb': 1}}", "did you mean vm.memory_mb?");
	refuses("{'vn': {}}", "key vn: |did you mean vm?|allowed: |network");
	refuses("{'vm': {'tap_name': 'x'}}", "did you mean network.tap_name?");
	refuses("{'tap_name': 'x'}", "did you mean network.tap_name?");
	refuses("{'network.tap_name': 'x'}", "did you mean network.tap_name?");
	refuses("{'zzzzzzzzzzzz': 1}",
		"key zzzzzzzzzzzz: there is no such key;");
	refuses("{'vm': []}", "key vm: |a list instead of an object");
	refuses("{'\\u001b[2J': 1}", "key ?[2J: there is no such key");
}

static void duplicate_keys_are_named(void **state)
{
	refuses("{'vm': {'cpus': 1,\n 'cpus': 1}}",
		"key vm.cpus: given twice (line 2); allowed: each key once");
	refuses("{'vm': {}, 'log': {'level': 'info'}, 'vm': {}}",
		"key vm: given twice");
	refuses("{'vm': {'cpus': 1}, 'network': {'tap_name': 'a{b}',"
		"'ipv6': true, 'tap_name': 'b'}}",
		"key network.tap_name: given twice");
}

static void texts_that_are_no_object_are_refused(void **state)
{
	char deep[6001];

	refuses_bytes("", 0, "is empty");
	refuses("   ", "no valid JSON");
	refuses("[]", "a list instead of an object");
	refuses("1", "no valid JSON");
	refuses("{} x", "follows the object's end");
	refuses("{}{}", "follows the object's end");
	refuses("{'vm': {'cpus': 1,}}", "no valid JSON at line 1");
	refuses("{'vm': {'cpus': 01}}", "no valid JSON");
	refuses("{'vm': {'cpus': 1}", "no valid JSON");
	refuses("// hello\n{}", "no valid JSON");
	refuses_bytes("\xef\xbb\xbf{}", 5, "byte order mark");
	refuses_bytes("{\"\xff\": 1}", 8, "not UTF-8");
	refuses_bytes("{}\0", 3, "allowed: ");
	memset(deep, '[', 3000);
	memset(deep + 3000, ']', 3000);
	deep[6000] = '\0';
	refuses(deep, "nested too deeply");
	deep[40] = '\0';
	memcpy(deep, "{\"a\":", 5);
	refuses(deep, "no valid JSON");
}

static void a_syntax_error_never_quotes_the_text(void **state)
{
	static const char json[] = "{\"proxy\": {\"password\": \"s3cret\" x}}";
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;

	assert_int_equal(config_parse("t.json", json, strlen(json), &cfg, &e),
			 -EINVAL);
	assert_null(strstr(e.text, "s3cret"));
	assert_non_null(strstr(e.text, "near key proxy.password"));
}

static void oversize_text_is_refused(void **state)
{
	size_t len = CONFIG_FILE_MAX + 1;
	_cleanup_free_ char *big = malloc(len + 1);

	memset(big, ' ', len);
	big[0] = '{';
	big[len - 2] = '}';
	big[len] = '\0';
	refuses_bytes(big, len, "over 262144 bytes");
	config_free(parsed("{}"));
	big[len - 1] = '\0';
	accepts(big);
}

static void control_characters_are_refused(void **state)
{
	refuses("{'log': {'file': '/a\\nb'}}",
		"key log.file: |control character at byte 3");
	refuses("{'proxy': {'username': 'a\\u007fb'}}",
		"key proxy.username: |control");
	refuses("{'log': {'file': '/\\u009b'}}", "key log.file: |control");
	refuses("{'log': {'file': 'a\\u0000b'}}", "key log.file: |NUL");
	refuses("{'tor': {'options': ['StrictNodes 1\\nSocksPort 1']}}",
		"key tor.options: entry 1: |control character");
	refuses("{'proxy': {'password': 'p\u00e4ss'}}",
		"key proxy.password: |not ASCII");
	refuses("{'network': {'host_ip': '10.10.10.2\\n'}}", "control");
}

static void interface_names_are_checked(void **state)
{
	static const char *const bad[] = {
		"",   "lo", "all", "default", "a b", "a/b",
		"0a", ".",  "a%d", "-a",      "a:1", "abcdefghijklmnop"
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[80];

		snprintf(text, sizeof(text), "{'network': {'tap_name': '%s'}}",
			 bad[i]);
		refuses(text,
			"key network.tap_name: |allowed: 1 to 15 letters");
	}
	accepts("{'network': {'tap_name': 'abcdefghijklmno'}}");
}

static void addresses_are_a_private_pair(void **state)
{
	static const struct {
		const char *host, *vm, *parts;
	} bad[] = {
		{ "10.10.10.2", "10.10.10.6", "host_ip: |not the partner" },
		{ "10.10.10.2", "10.10.10.2", "host_ip: |not the partner" },
		{ "10.10.10.0", "10.10.10.1",
		  "host_ip: |network or broadcast" },
		{ "10.10.10.2", "10.10.10.3", "vm_ip: |network or broadcast" },
		{ "8.8.8.9", "8.8.8.10", "host_ip: |no private address" },
		{ "172.32.0.1", "172.32.0.2", "host_ip: |no private" },
		{ "127.0.0.1", "127.0.0.2", "host_ip: |no private" },
		{ "10.0.2.1", "10.0.2.2", "host_ip: |uplink network" },
		{ "10.10.10", "10.10.10.1", "host_ip: |no IPv4 address" },
		{ "fe80::1", "10.10.10.1", "host_ip: |no IPv4 address" },
		{ "010.10.10.2", "10.10.10.1", "host_ip: |no IPv4 address" },
		{ "10.10.10.2", "", "vm_ip: |no IPv4 address" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[160], parts[100];

		snprintf(text, sizeof(text),
			 "{'network': {'host_ip': '%s', 'vm_ip': '%s'}}",
			 bad[i].host, bad[i].vm);
		snprintf(parts, sizeof(parts),
			 "key network.%s|allowed: ", bad[i].parts);
		refuses(text, parts);
	}
	accepts("{'network': {'host_ip': '172.31.255.253',"
		"'vm_ip': '172.31.255.254'}}");
}

static void paths_are_absolute(void **state)
{
	refuses("{'vm': {'qemu_path': 'qemu'}}",
		"key vm.qemu_path: |relative|allowed: an absolute path without "
		"symbolic links");
	refuses("{'vm': {'image_dir': './x'}}", "key vm.image_dir: |relative");
	refuses("{'bridge': {'ca_file': 'x.pem'}}",
		"key bridge.ca_file: |relative");
	refuses("{'vm': {'image_dir': '/a/../b'}}", "\"..\"");
	refuses("{'vm': {'image_dir': '/a/./b'}}", "\"..\"");
	refuses("{'vm': {'state_disk': '/a,readonly=on'}}", "comma");
	refuses("{'vm': {'state_disk': '/a/'}}", "'/'");
	accepts("{'vm': {'state_disk': '/a/..b/c..'}}");
}

static void bridge_lines_are_checked(void **state)
{
#define CERT                                                           \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567" \
	"89+/abcdef"
	static const struct {
		const char *transport, *line, *parts;
	} cases[] = {
		{ "none", "192.0.2.1:443", NULL },
		{ "none", "192.0.2.1:443 " FP, NULL },
		{ "none", "192.0.2.1:0", "its port" },
		{ "none", "192.0.2.1:65536", "its port" },
		{ "none", "192.0.2.1:", "its port" },
		{ "none", "192.0.2.1", "neither an address" },
		{ "none", "192.0.2.256:1", "no address" },
		{ "none", "bridge.example:1", "a name instead" },
		{ "none", "2001:db8::1:443", "not in brackets" },
		{ "none", "[2001:db8::g]:443", "IPv6 address is wrong" },
		{ "none", "[fe80::1]:443", "that no router leads to" },
		{ "none", "127.0.0.1:443", "that no router leads to" },
		{ "none", "192.0.2.1:443 0123", "fingerprint is wrong" },
		{ "none", "192.0.2.1:443 " FP " a=b", "no transport" },
		{ "none", "Bridge 192.0.2.1:443", "leave it out" },
		{ "none", "obfs3 192.0.2.1:443", "neither" },
		{ "obfs4",
		  "obfs4 192.0.2.1:443 " FP " cert=" CERT " iat-mode=0", NULL },
		{ "obfs4", "obfs4 192.0.2.1:443 cert=" CERT " iat-mode=2",
		  NULL },
		{ "obfs4", "obfs4 192.0.2.1:443 " FP " iat-mode=0",
		  "obfs4 needs the argument cert=" },
		{ "obfs4", "obfs4 192.0.2.1:443 " FP " cert=" CERT,
		  "obfs4 needs the argument iat-mode=" },
		{ "obfs4",
		  "obfs4 192.0.2.1:443 " FP " cert=x" CERT " iat-mode=0",
		  "value of cert= is wrong" },
		{ "obfs4",
		  "obfs4 192.0.2.1:443 " FP " cert=" CERT " iat-mode=3",
		  "value of iat-mode= is wrong" },
		{ "obfs4",
		  "obfs4 192.0.2.1:443 cert=" CERT " cert=" CERT " iat-mode=0",
		  "cert= is given twice" },
		{ "obfs4",
		  "obfs4 192.0.2.1:443 " FP " cert=" CERT " iat-mode=0 odd",
		  "argument 3 has no NAME=" },
		{ "obfs4", "obfs4", "no address" },
		{ "obfs4", "192.0.2.1:443",
		  "lines for \"none\", but none for" },
		{ "meek", "meek_lite 192.0.2.20:80 url=https://a.example/",
		  NULL },
		{ "meek_lite", "meek_lite 192.0.2.20:80 url=https://a/ front=b",
		  NULL },
		{ "meek-azure", "meek_lite 192.0.2.20:80 " FP,
		  "argument url=" },
		{ "meek", "meek_lite 192.0.2.20:80 url=ftp://a",
		  "url= is wrong" },
		{ "webtunnel",
		  "webtunnel [2001:db8::1]:443 " FP " url=https://a.example/p",
		  NULL },
		{ "webtunnel", "webtunnel [2001:db8::1]:443 " FP,
		  "webtunnel needs the argument url=" },
		{ "webtunnel", "webtunnel [2001:db8::1]:443 url=https://a/",
		  "no fingerprint" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " fingerprint=" FP
		  " url=https://a/ ice=stun:s.example:3478",
		  NULL },
		{ "snowflake", "snowflake 192.0.2.3:80 " FP " url=https://a/",
		  NULL },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP
		  " sqsqueue=https://q/ sqscreds=x",
		  NULL },
		{ "snowflake", "snowflake 192.0.2.3:80 " FP,
		  "snowflake needs the argument url=" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " sqsqueue=https://q/",
		  "argument sqscreds=" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " url=https://a/ ice=turn:a:1",
		  "value of ice= is wrong" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP
		  " url=https://a/ ice=stun:a:1,stun:[2001:db8::1]:2"
		  " fronts=a.example,b.example ampcache=https://c/ max=3"
		  " utls-imitate=hellorandomizedalpn utls-nosni=true",
		  NULL },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " url=https://a/ max=9",
		  "value of max= is wrong" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " url=https://a/ fronts=a,,b",
		  "value of fronts= is wrong" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " url=https://a/ frontz=a",
		  "no argument frontz=; did you mean front" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP " url=https://a/ fronts=-a",
		  "value of fronts= is wrong" },
		{ "meek", "meek_lite 192.0.2.20:80 url=https://a/ utls=Hello=",
		  "value of utls= is wrong" },
		{ "meek",
		  "meek_lite 192.0.2.20:80 "
		  "targets=https://a/|b.example+c.example,https://d/",
		  NULL },
		{ "meek", "meek_lite 192.0.2.20:80 targets=https://a/|",
		  "value of targets= is wrong" },
		{ "webtunnel",
		  "webtunnel [2001:db8::1]:443 " FP
		  " url=https://a.example/p ver=0.0.3 servername=b.example"
		  " addr=192.0.2.1:443 utls=HelloFirefox_Auto quite-new=1",
		  NULL },
		{ "webtunnel",
		  "webtunnel [2001:db8::1]:443 " FP
		  " url=https://a.example/p addr=b",
		  "value of addr= is wrong" },
		{ "snowflake",
		  "snowflake 192.0.2.3:80 " FP
		  " fingerprint=1123456789ABCDEF0123456789ABCDEF01234567"
		  " url=https://a/",
		  "differs" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[700], parts[200];

		snprintf(text, sizeof(text),
			 "{'bridge': {'use_bridges': true, 'transport': '%s',"
			 "'bridges': ['%s']}}",
			 cases[i].transport, cases[i].line);
		if (!cases[i].parts) {
			accepts(text);
			continue;
		}
		snprintf(parts, sizeof(parts),
			 "key bridge.bridges: |%s|; allowed: ", cases[i].parts);
		refuses(text, parts);
	}
	refuses("{'bridge': {'bridges': ['192.0.2.1:1', '192.0.2.1:x']}}",
		"key bridge.bridges: entry 2: ");
	refuses("{'bridge': {'bridges': ['']}}", "entry 1 is empty");
	refuses("{'bridge': {'bridges': [1]}}", "entry 1 is a whole number");
	refuses("{'bridge': {'use_bridges': true}}",
		"key bridge.bridges: |empty");
	refuses("{'bridge': {'transport': 'obsf4'}}",
		"did you mean \"obfs4\"?");
	assert_string_equal(config_transport_method(CONFIG_TRANSPORT_MEEK_LITE),
			    "meek_lite");
}

static void the_way_to_the_bridge_service_is_meeks(void **state)
{
	struct config_bridge_list list = CONFIG_BRIDGE_LIST_NULL(list);
	struct error e = ERROR_NULL(e);

	refuses("{'bridge': {'moat': 'front=a.example'}}",
		"key bridge.moat: |url=");
	refuses("{'bridge': {'moat': 'url=https://a/ front='}}",
		"key bridge.moat: |front=");
	refuses("{'bridge': {'moat': "
		"'0123456789ABCDEF0123456789ABCDEF01234567 url=https://a/'}}",
		"key bridge.moat: |fingerprint");
	accepts("{'bridge': {'moat': 'url=https://a/ front=b.example'}}");
	/* The built-in one, and another. */
	assert_int_equal(config_moat_bridge("", &list, &e), 0);
	assert_int_equal(config_moat_bridge("url=https://a/", &list, &e), 0);
	assert_int_equal(list.n_lines, 2);
	assert_non_null(strstr(list.lines[0], " targets=https://"));
	assert_string_equal(list.lines[1],
			    "meek_lite 192.0.2.20:80 url=https://a/");
	config_bridge_list_deinit(&list);
}

/* Tor 0.4.9: 510 bytes, with a backslash before each ; and \\. */
static void arguments_may_be_as_long_as_tor_takes_them(void **state)
{
	struct config_problem p = { 0 };
	char line[700], value[520];

	memset(value, 'a', sizeof(value));
	value[510 - strlen("url=https://a/;x=")] = '\0';
	snprintf(line, sizeof(line),
		 "meek_lite 192.0.2.1:1 url=https://a/ x=%s", value);
	assert_int_equal(config_check_bridge_line(line, &p), 0);
	strcat(line, "a");
	assert_int_equal(config_check_bridge_line(line, &p), -EINVAL);
	assert_non_null(strstr(p.what, "511 bytes"));
	line[strlen(line) - 2] = ';';
	line[strlen(line) - 1] = '\0';
	assert_int_equal(config_check_bridge_line(line, &p), -EINVAL);
}

static void secrets_of_bridge_lines_are_masked(void **state)
{
	static const struct {
		const char *line, *masked;
	} cases[] = {
		{ "192.0.2.1:443 " FP, "192.0.2.1:443 " FP },
		{ "obfs4 192.0.2.1:1 " FP " cert=" CERT " iat-mode=0",
		  "obfs4 192.0.2.1:1 " FP " cert=*** iat-mode=0" },
		{ "webtunnel [2001:db8::1]:443 " FP
		  " url=https://a/secret ver=0.0.3 new=b",
		  "webtunnel [2001:db8::1]:443 " FP
		  " url=*** ver=0.0.3 new=***" },
		{ "meek_lite 192.0.2.1:1 url=https://a/ front=b",
		  "meek_lite 192.0.2.1:1 url=https://a/ front=b" },
		{ "nonsense", "***" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *masked = config_bridge_mask(cases[i].line);

		assert_string_equal(masked, cases[i].masked);
	}
}

static void lines_of_other_transports_are_kept(void **state)
{
	accepts("{'bridge': {'use_bridges': true, 'transport': 'meek',"
		"'bridges': ['192.0.2.1:443', "
		"'meek_lite 192.0.2.20:80 url=https://a/']}}");
	refuses("{'bridge': {'use_bridges': true, 'transport': 'meek',"
		"'bridges': ['192.0.2.1:443']}}",
		"key bridge.bridges: |none for bridge.transport \"meek\"");
}

static void a_refused_bridge_line_stays_secret(void **state)
{
	_cleanup_free_ char *json =
		quoted("{'bridge': {'bridges': ['obfs4 192.0.2.77:443 " FP
		       " cert=sEcReT iat-mode=0']}}");
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;

	assert_int_equal(config_parse("t", json, strlen(json), &cfg, &e),
			 -EINVAL);
	assert_null(strstr(e.text, "sEcReT"));
	assert_null(strstr(e.text, "192.0.2.77"));
	assert_null(strstr(e.text, FP));
}

static void proxies_are_checked(void **state)
{
	static const struct {
		const char *body, *parts;
	} cases[] = {
		{ "'type': 'http', 'address': 'p.example:8080'", NULL },
		{ "'type': 'socks5', 'address': '192.168.1.9:1080'", NULL },
		{ "'type': 'https', 'address': '10.1.2.3:3128',"
		  "'username': 'u', 'password': ''",
		  NULL },
		{ "'type': 'https', 'address': '[fd00::1]:3128'", NULL },
		{ "'type': 'https', 'address': '[fe80::1]:3128'",
		  "proxy.address: |no address of another machine" },
		{ "'type': 'https', 'address': '[fec0::2]:3128'",
		  "proxy.address: |no address of another machine" },
		{ "'type': 'http'", "proxy.address: |empty" },
		{ "'address': 'p.example:8080'", "proxy.type: |none" },
		{ "'type': 'socks4', 'address': 'p:1'", "proxy.type: |socks5" },
		{ "'type': 'http', 'address': 'http://p:1'",
		  "proxy.address: |scheme" },
		{ "'type': 'http', 'address': 'p'", "proxy.address: |PORT" },
		{ "'type': 'http', 'address': ':80'", "proxy.address: " },
		{ "'type': 'http', 'address': 'a_b:80'", "proxy.address: " },
		{ "'type': 'http', 'address': '-a:80'", "proxy.address: " },
		{ "'type': 'http', 'address': 'a..b:80'", "proxy.address: " },
		{ "'type': 'http', 'address': '1.2.3:80'", "proxy.address: " },
		{ "'type': 'http', 'address': '127.0.0.1:80'",
		  "proxy.address: |another machine" },
		{ "'type': 'http', 'address': 'LocalHost:80'",
		  "proxy.address: |this machine" },
		{ "'type': 'http', 'address': '[::1]:80'",
		  "proxy.address: |another machine" },
		{ "'type': 'socks5', 'address': 'p:1', 'username': 'u'",
		  "proxy.password: |socks5 needs" },
		{ "'type': 'socks5', 'address': 'p:1', 'password': 'x'",
		  "proxy.username: |empty" },
		{ "'type': 'http', 'address': 'p:1', 'username': 'a:b'",
		  "proxy.username: |':'" },
		{ "'type': 'https', 'address': 'p:1', 'ca_file': '/ca.pem'",
		  NULL },
		{ "'type': 'http', 'address': 'p:1', 'ca_file': '/ca.pem'",
		  "proxy.ca_file: |\"http\"" },
		{ "'type': 'https', 'address': 'p:1', 'ca_file': 'ca.pem'",
		  "proxy.ca_file: |relative" },
	};
	char text[1200], name[257];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char parts[120];

		snprintf(text, sizeof(text), "{'proxy': {%s}}", cases[i].body);
		if (!cases[i].parts) {
			accepts(text);
			continue;
		}
		snprintf(parts, sizeof(parts),
			 "key %s|allowed: ", cases[i].parts);
		refuses(text, parts);
	}
	memset(name, 'x', 256);
	name[256] = '\0';
	snprintf(text, sizeof(text),
		 "{'proxy': {'type': 'socks5', 'address': 'p:1',"
		 "'username': '%s', 'password': 'p'}}",
		 name);
	refuses(text, "key proxy.username: |256 bytes|at most 255 bytes");
	snprintf(text, sizeof(text),
		 "{'proxy': {'type': 'socks5', 'address': 'p:1',"
		 "'username': '%s', 'password': '%s'}}",
		 name + 1, name + 1);
	accepts(text);
	snprintf(text, sizeof(text),
		 "{'proxy': {'type': 'http', 'address': 'p:1',"
		 "'username': '%s', 'password': '%s'}}",
		 name, name + 1);
	refuses(text, "key proxy.password: |too long");
	snprintf(text, sizeof(text),
		 "{'proxy': {'type': '%%s', 'address': 'p:1'},"
		 "'bridge': {'use_bridges': true, 'transport': 'snowflake',"
		 "'bridges': ['snowflake 192.0.2.3:80 " FP " fingerprint=" FP
		 " url=https://a/']}}");
	for (int i = 0; i < 3; i++) {
		static const char *const types[] = { "http", "https",
						     "socks5" };
		char one[1200], *at = strstr(text, "%s");

		snprintf(one, sizeof(one), "%.*s%s%s", (int)(at - text), text,
			 types[i], at + 2);
		refuses(one, "key proxy.type: |allowed: none|obfs4");
	}
}

static void tor_options_are_an_allow_list(void **state)
{
	static const struct {
		const char *line, *parts;
	} cases[] = {
		{ "DirAuthority auth1 orport=9001 no-v2 v3ident=" FP
		  " 203.0.113.5:9030 " FP,
		  NULL },
		{ "testingtornetwork 0", NULL },
		{ "TestingTorNetwork 2", "wrong value|0 or 1" },
		{ "NumEntryGuards 2", NULL },
		{ "ConnectionPadding auto", NULL },
		{ "ExcludeNodes $" FP ",192.0.2.0/24,[2001:db8::]/32,*", NULL },
		{ "MaxCircuitDirtiness 10 minutes", NULL },
		{ "MaxCircuitDirtiness 10 parsecs",
		  "wrong value|whole number" },
		{ "NumEntryGuards -1", "wrong value" },
		{ "StrictNodes yes", "wrong value|0 or 1" },
		{ "StrictNodes", "no value" },
		{ "StrictNodes 1 \\\\", "wrong value" },
		{ "ReachableAddresses *:80 #x", "without" },
		{ "ExcludeNodes nl", "neither a fingerprint" },
		{ "ExcludeNodes 192.0.2.1, {nl},{??}", NULL },
		{ "ExcludeNodes {n1}", "nor a country|and countries" },
		{ "GeoIPExcludeUnknown 1", NULL },
		{ "GeoIPv6File /etc/shadow", "names a file" },
		{ "StrictNode 1", "did you mean StrictNodes?" },
		{ "SocksPort 9999", "opens or moves a port" },
		{ "CONTROLPORT 9051", "opens or moves a port" },
		{ "TransPort 1", "opens or moves a port" },
		{ "ClientTransportPlugin x exec /bin/sh", "runs a program" },
		{ "Log debug file /etc/passwd", "log.level" },
		{ "DataDirectory /", "names a folder" },
		{ "GeoIPFile /etc/shadow", "names a file" },
		{ "ControlPortWriteToFile /x", "a file" },
		{ "PortForwardingHelper /bin/sh", "not accepted" },
		{ "Bridge 192.0.2.1:1", "bridge.bridges" },
		{ "Socks5ProxyPassword x", "keys of proxy" },
		{ "HiddenServiceDir /x", "onion services" },
		{ "%include /etc/passwd", "includes a file" },
		{ "+DirAuthority x", "option's name" },
		{ "/StrictNodes 1", "option's name" },
		{ "Strict-Nodes 1", "option's name" },
		{ " StrictNodes 1", "option's name" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[400], parts[160];

		snprintf(text, sizeof(text), "{'tor': {'options': ['%s']}}",
			 cases[i].line);
		if (!cases[i].parts) {
			accepts(text);
			continue;
		}
		snprintf(parts, sizeof(parts), "key tor.options: entry 1: |%s",
			 cases[i].parts);
		refuses(text, parts);
	}
	accepts("{'tor': {'options': ['TestingTorNetwork 1',"
		"'TestingV3AuthInitialVotingInterval 20 seconds',"
		"'TestingDirAuthVoteHSDir *',"
		"'DirAuthority a orport=1 192.0.2.1:9 " FP "']}}");
	refuses("{'tor': {'options': ['TestingTorNetwork 1']}}",
		"key tor.options: |authorities; allowed: |DirAuthority");
	refuses("{'tor': {'options': ['StrictNodes 1',"
		"'TestingAuthKeySlop 20 seconds']}}",
		"key tor.options: entry 2 is for testing|TestingTorNetwork 1");
	refuses("{'tor': {'exit_nodes': '192.0.2.1',"
		"'options': ['exitnodes 192.0.2.2']}}",
		"key tor.options: |twice");
	refuses("{'tor': {'exclude_nodes': '192.0.2.1',"
		"'options': ['excludenodes 192.0.2.2']}}",
		"key tor.options: |entry 1: ExcludeNodes is given twice|"
		"allowed: ExcludeNodes here or in tor.exclude_nodes");
	refuses("{'tor': {'strict_nodes': true, 'options': ['StrictNodes 0']}}",
		"key tor.options: |StrictNodes is given twice");
	refuses("{'tor': {'connection_padding': 'off',"
		"'options': ['ReducedConnectionPadding 1']}}",
		"key tor.options: |ReducedConnectionPadding is given twice");
	refuses("{'tor': {'connection_padding': 'offf'}}",
		"key tor.connection_padding: |did you mean \"off\"?");
	refuses("{'tor': {'exclude_exit_nodes': 'x'}}",
		"key tor.exclude_exit_nodes: |neither");
	accepts("{'tor': {'strict_nodes': false, 'connection_padding': 'on',"
		"'exclude_nodes': '192.0.2.0/24', "
		"'options': ['StrictNodes 1']}}");
	refuses("{'tor': {'exit_nodes': 'de'}}",
		"key tor.exit_nodes: |\"de\" is neither|allowed: relays'");
	refuses("{'tor': {'exit_nodes': '{de'}}",
		"key tor.exit_nodes: |\"{de\" is neither|allowed: |{de}");
	refuses("{'tor': {'exit_nodes': '{germany}'}}", "key tor.exit_nodes: ");
	refuses("{'tor': {'exit_nodes': '{?x}'}}", "key tor.exit_nodes: ");
	refuses("{'tor': {'exit_nodes': '192.0.2.1,'}}",
		"key tor.exit_nodes: ");
}

static int note_country(void *userdata, const char *key, const char *code)
{
	char *text = userdata;

	sprintf(text + strlen(text), "%s %s;", key + 4, code);
	return strcmp(code, "zz") ? 0 : 7;
}

static void countries_are_found_wherever_they_stand(void **state)
{
	_cleanup_(config_freep) struct config *cfg =
		parsed("{'tor': {'exit_nodes': '{de}, {FR},192.0.2.1',"
		       "'exclude_nodes': '{??}', 'exclude_exit_nodes': '{se}',"
		       "'options': ['StrictNodes 1', 'EntryNodes * , {at}',"
		       "'MiddleNodes {zz},{ch}']}}");
	_cleanup_(config_freep) struct config *none =
		parsed("{'tor': {'exit_nodes': '192.0.2.1'}}");
	_cleanup_(config_freep) struct config *asked =
		parsed("{'tor': {'geoip': true}}");
	_cleanup_(config_freep) struct config *unknown =
		parsed("{'tor': {'options': ['geoipexcludeunknown 1']}}");
	char text[200] = "";

	assert_int_equal(config_each_country(cfg, note_country, text), 7);
	assert_string_equal(text,
			    "exit_nodes de;exit_nodes fr;exclude_nodes ??;"
			    "exclude_exit_nodes se;options at;options zz;");
	assert_true(config_needs_geoip(cfg));
	assert_true(config_chooses_relays(cfg));
	assert_true(config_chooses_relays(none));
	assert_false(config_chooses_relays(asked));
	assert_false(config_needs_geoip(none));
	assert_true(config_needs_geoip(asked));
	assert_true(config_needs_geoip(unknown));
}

static void tor_options_are_sorted(void **state)
{
	const char *a, *b;

	for (size_t i = 0; (a = config_tor_option_name(i)) &&
			   (b = config_tor_option_name(i + 1));
	     i++)
		assert_true(strcasecmp(a, b) < 0);
}

static void rendering_reads_back_and_hides_secrets(void **state)
{
	_cleanup_(config_freep) struct config *cfg = parsed(
		"{'proxy': {'type': 'http', 'address': 'p:1',"
		"'username': 'u', 'password': 'hunter2'},"
		"'bridge': {'bridges': ['192.0.2.1:443', '192.0.2.2:1']},"
		"'tor': {'options': ['StrictNodes 1']}}");
	_cleanup_free_ char *shown = config_render(cfg, false);
	_cleanup_free_ char *whole = config_render(cfg, true);
	_cleanup_(config_freep) struct config *again = NULL;
	_cleanup_free_ char *second = NULL;
	struct error e = ERROR_NULL(e);

	assert_null(strstr(shown, "hunter2"));
	assert_null(strstr(shown, "192.0.2"));
	assert_non_null(strstr(shown, "\"***\""));
	assert_non_null(strstr(whole, "hunter2"));
	assert_int_equal(
		config_parse("again", whole, strlen(whole), &again, &e), 0);
	second = config_render(again, true);
	assert_string_equal(whole, second);
	for (size_t i = 0; i < config_n_fields; i++)
		assert_non_null(strstr(whole, config_fields[i].name));
}

static void the_manual_names_every_key_and_option(void **state)
{
	for (int format = CONFIG_DOC_MAN; format <= CONFIG_DOC_MARKDOWN;
	     format++) {
		_cleanup_free_ char *text = NULL;
		size_t size = 0;
		FILE *out = open_memstream(&text, &size);
		const char *name;

		config_print_doc(out, (enum config_doc_format)format);
		fclose(out);
		for (size_t i = 0; i < config_n_fields; i++) {
			char key[CONFIG_KEY_MAX];

			snprintf(key, sizeof(key), "%s.%s",
				 config_fields[i].section,
				 config_fields[i].name);
			assert_non_null(strstr(text, key));
		}
		for (size_t i = 0; (name = config_tor_option_name(i)); i++)
			assert_non_null(strstr(text, name));
	}
}

/* ------------------------------------------------------------------------- */
/* Files */

struct folder {
	char path[64];
	char file[96];
};

static int folder_setup(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->path, "/tmp/torvm-config-XXXXXX");
	if (!mkdtemp(f->path))
		return -1;
	snprintf(f->file, sizeof(f->file), "%s/t.json", f->path);
	return 0;
}

static int folder_teardown(void **state)
{
	struct folder *f = *state;
	char name[128];

	unlink(f->file);
	snprintf(name, sizeof(name), "%s/link", f->path);
	unlink(name);
	snprintf(name, sizeof(name), "%s/qemu", f->path);
	unlink(name);
	rmdir(f->path);
	free(f);
	return 0;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *out;

	unlink(path);
	out = fopen(path, "w");
	assert_non_null(out);
	fputs(text, out);
	fclose(out);
	assert_int_equal(chmod(path, mode), 0);
}

static void file_refused(const char *path, int code, const char *part)
{
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;

	assert_int_equal(config_load(path, &cfg, &e), code);
	assert_null(cfg);
	assert_non_null(strstr(e.text, path));
	if (!strstr(e.text, part))
		fail_msg("no \"%s\" in: %s", part, e.text);
}

static void files_that_others_may_write_are_refused(void **state)
{
	struct folder *f = *state;
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;
	char link[128];

	write_file(f->file, "{}", 0644);
	assert_int_equal(config_load(f->file, &cfg, &e), 0);
	config_free(steal_ptr(&cfg));
	chmod(f->file, 0664);
	file_refused(f->file, -EPERM, "chmod go-w");
	chmod(f->file, 0602);
	file_refused(f->file, -EPERM, "chmod go-w");
	chmod(f->file, 0600);
	if (geteuid() == 0) {
		assert_int_equal(chown(f->file, 12345, 0), 0);
		file_refused(f->file, -EPERM, "chown root");
		assert_int_equal(chown(f->file, 0, 0), 0);
	}
	snprintf(link, sizeof(link), "%s/link", f->path);
	assert_int_equal(symlink(f->file, link), 0);
	file_refused(link, -ELOOP, "symbolic link");
	file_refused(f->path, -EINVAL, "not a regular file");
	unlink(link);
	assert_int_equal(mkfifo(link, 0600), 0);
	file_refused(link, -EINVAL, "not a regular file");
	unlink(f->file);
	file_refused(f->file, -ENOENT, "No such file");
	write_file(f->file, "", 0600);
	file_refused(f->file, -EINVAL, "is empty");
	assert_int_equal(truncate(f->file, CONFIG_FILE_MAX + 1), 0);
	file_refused(f->file, -EINVAL, "allowed: at most 262144");
}

static void the_offset_of_an_fd_does_not_matter(void **state)
{
	struct folder *f = *state;
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;
	_cleanup_close_ int fd = -1;

	write_file(f->file, "{\"vm\": {\"cpus\": 3}}", 0600);
	fd = open(f->file, O_RDONLY);
	lseek(fd, 5, SEEK_SET);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(config_load_fd(fd, "x", &cfg, &e), 0);
		assert_int_equal(cfg->vm.cpus, 3);
		config_free(steal_ptr(&cfg));
	}
}

static void qemu_is_a_program_without_links(void **state)
{
	struct folder *f = *state;
	struct error e = ERROR_NULL(e);
	struct config *cfg = NULL;
	char qemu[128], link[128], text[200];

	snprintf(qemu, sizeof(qemu), "%s/qemu", f->path);
	snprintf(link, sizeof(link), "%s/link", f->path);
	snprintf(text, sizeof(text), "{\"vm\": {\"qemu_path\": \"%s\"}}", qemu);
	write_file(f->file, text, 0600);
	file_refused(f->file, -EINVAL, "vm.qemu_path");
	write_file(qemu, "#!/bin/true\n", 0644);
	file_refused(f->file, -EINVAL, "every user may run");
	chmod(qemu, 0777);
	file_refused(f->file, -EINVAL, "only its owner may write");
	chmod(qemu, 0755);
	assert_int_equal(config_load(f->file, &cfg, &e), 0);
	config_free(steal_ptr(&cfg));
	assert_int_equal(symlink(qemu, link), 0);
	snprintf(text, sizeof(text), "{\"vm\": {\"qemu_path\": \"%s\"}}", link);
	write_file(f->file, text, 0600);
	file_refused(f->file, -EINVAL, "symbolic link");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_documented_ones),
		cmocka_unit_test(each_default_fits_its_own_row),
		cmocka_unit_test(every_key_can_be_set),
		cmocka_unit_test(numbers_out_of_range_are_refused),
		cmocka_unit_test(types_are_strict),
		cmocka_unit_test(unknown_keys_name_the_nearest),
		cmocka_unit_test(duplicate_keys_are_named),
		cmocka_unit_test(texts_that_are_no_object_are_refused),
		cmocka_unit_test(a_syntax_error_never_quotes_the_text),
		cmocka_unit_test(oversize_text_is_refused),
		cmocka_unit_test(control_characters_are_refused),
		cmocka_unit_test(interface_names_are_checked),
		cmocka_unit_test(addresses_are_a_private_pair),
		cmocka_unit_test(paths_are_absolute),
		cmocka_unit_test(bridge_lines_are_checked),
		cmocka_unit_test(the_way_to_the_bridge_service_is_meeks),
		cmocka_unit_test(arguments_may_be_as_long_as_tor_takes_them),
		cmocka_unit_test(secrets_of_bridge_lines_are_masked),
		cmocka_unit_test(lines_of_other_transports_are_kept),
		cmocka_unit_test(a_refused_bridge_line_stays_secret),
		cmocka_unit_test(proxies_are_checked),
		cmocka_unit_test(tor_options_are_an_allow_list),
		cmocka_unit_test(countries_are_found_wherever_they_stand),
		cmocka_unit_test(tor_options_are_sorted),
		cmocka_unit_test(rendering_reads_back_and_hides_secrets),
		cmocka_unit_test(the_manual_names_every_key_and_option),
		cmocka_unit_test_setup_teardown(
			files_that_others_may_write_are_refused, folder_setup,
			folder_teardown),
		cmocka_unit_test_setup_teardown(
			the_offset_of_an_fd_does_not_matter, folder_setup,
			folder_teardown),
		cmocka_unit_test_setup_teardown(qemu_is_a_program_without_links,
						folder_setup, folder_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
