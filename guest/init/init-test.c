/* Unit tests of PID 1's pure parts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/ip.h"
#include "init/config.h"
#include "init/exits.h"
#include "init/message.h"
#include "init/outbox.h"
#include "init/ring.h"
#include "init/socks.h"
#include "init/dns.h"
#include "init/pt.h"
#include "init/tls_log.h"
#include "init/torrc.h"

#define GOOD_CONFIG                                                      \
	"version=1\ntime=1790000000\nstate_disk=0\nhost_ip=10.10.10.2\n" \
	"vm_ip=10.10.10.1\nhost_mac=02:00:0a:0A:0a:02\n"

static int parse(const char *text, struct guest_config *ret)
{
	struct error e = ERROR_NULL(e);
	int r = guest_config_parse(text, strlen(text), ret, &e);

	/* Each refusal has its sentence, each success none. */
	assert_int_equal(r, e.code);
	assert_true(r == 0 || e.text[0]);
	return r;
}

static void test_config_good(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 10, 10, 10, 2 };
	struct guest_config c;

	assert_int_equal(parse(GOOD_CONFIG, &c), 0);
	assert_int_equal(c.time_s, 1790000000);
	assert_false(c.state_disk);
	assert_int_equal(ntohl(c.host_ip.s_addr), 0x0a0a0a02);
	assert_int_equal(ntohl(c.vm_ip.s_addr), 0x0a0a0a01);
	assert_memory_equal(c.host_mac, mac, 6);

	/* What is not said: no time, and a disk is expected. */
	assert_int_equal(parse("host_mac=02:00:00:00:00:02\nversion=1\n"
			       "vm_ip=10.1.1.6\nhost_ip=10.1.1.5\n",
			       &c),
			 0);
	assert_int_equal(c.time_s, -1);
	assert_true(c.state_disk);
}

static void test_config_bad(void **state)
{
	static const char *const bad[] = {
		"",
		"\n",
		"version=1\n",
		"# comment\n" GOOD_CONFIG,
		GOOD_CONFIG "\n",
		GOOD_CONFIG "colour=red\n",
		GOOD_CONFIG "time=1\n",
		GOOD_CONFIG "version=1",
		" " GOOD_CONFIG,
	};
	static const char *const lines[][2] = {
		{ "version=1", "version=2" },
		{ "version=1", "version=01x" },
		{ "version=1", "version" },
		{ "version=1", "Version=1" },
		{ "time=1790000000", "time=-1" },
		{ "time=1790000000", "time=" },
		{ "time=1790000000", "time=0x10" },
		{ "time=1790000000", "time=7258118400" },
		{ "time=1790000000", "time=99999999999999999999999999" },
		{ "state_disk=0", "state_disk=2" },
		{ "state_disk=0", "state_disk=yes" },
		{ "host_ip=10.10.10.2", "host_ip=10.10.10.1" },
		{ "host_ip=10.10.10.2", "host_ip=10.10.10.3" },
		{ "host_ip=10.10.10.2", "host_ip=10.10.10.6" },
		{ "host_ip=10.10.10.2", "host_ip=10.10.10" },
		{ "host_ip=10.10.10.2", "host_ip=010.10.10.2" },
		{ "vm_ip=10.10.10.1", "vm_ip=10.10.10.1 " },
		{ "host_mac=02:00:0a:0A:0a:02", "host_mac=03:00:00:00:00:02" },
		{ "host_mac=02:00:0a:0A:0a:02", "host_mac=00:00:00:00:00:00" },
		{ "host_mac=02:00:0a:0A:0a:02", "host_mac=02:00:0a:0A:0a" },
		{ "host_mac=02:00:0a:0A:0a:02", "host_mac=02:00:0a:0A:0a:0g" },
		{ "host_mac=02:00:0a:0A:0a:02", "host_mac=02-00-0a-0A-0a-02" },
	};
	struct guest_config c;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(bad[i], &c), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		char text[512];
		const char *at = strstr(GOOD_CONFIG, lines[i][0]);

		assert_non_null(at);
		snprintf(text, sizeof(text), "%.*s%s%s",
			 (int)(at - GOOD_CONFIG), GOOD_CONFIG, lines[i][1],
			 at + strlen(lines[i][0]));
		assert_int_equal(parse(text, &c), -EINVAL);
	}
}

static void test_config_addresses(void **state)
{
	static const char *const pairs[][2] = {
		{ "10.0.2.5", "10.0.2.6" },     /* the uplink's own */
		{ "127.0.0.1", "127.0.0.2" },   /* loopback */
		{ "224.0.0.1", "224.0.0.2" },   /* multicast */
		{ "0.0.0.1", "0.0.0.2" },       /* this network */
		{ "10.10.10.0", "10.10.10.3" }, /* network and broadcast */
	};
	struct guest_config c;
	char text[256];

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		snprintf(text, sizeof(text),
			 "version=1\nhost_ip=%s\nvm_ip=%s\n"
			 "host_mac=02:00:00:00:00:02\n",
			 pairs[i][0], pairs[i][1]);
		assert_int_equal(parse(text, &c), -EINVAL);
	}
}

static void test_config_moat(void **state)
{
	char text[1200], args[GUEST_MOAT_ARGS_MAX + 2];
	struct guest_config c;

	memset(args, 'a', sizeof(args));
	args[GUEST_MOAT_ARGS_MAX] = '\0';
	snprintf(text, sizeof(text),
		 GOOD_CONFIG "transport=meek_lite\nmoat=%s\n", args);
	assert_int_equal(parse(text, &c), 0);
	assert_string_equal(c.moat, args);
	args[GUEST_MOAT_ARGS_MAX] = 'a';
	args[GUEST_MOAT_ARGS_MAX + 1] = '\0';
	snprintf(text, sizeof(text),
		 GOOD_CONFIG "transport=meek_lite\nmoat=%s\n", args);
	assert_int_equal(parse(text, &c), -EINVAL);
	assert_int_equal(parse(GOOD_CONFIG "moat=url=https://a/\n", &c),
			 -EINVAL);
	assert_int_equal(parse(GOOD_CONFIG "transport=meek_lite\nmoat=\n", &c),
			 -EINVAL);
	assert_int_equal(
		parse(GOOD_CONFIG "transport=meek_lite\nmoat=a b\n", &c),
		-EINVAL);
}

static void test_socks_requests(void **state)
{
	uint8_t r[SOCKS_REQUEST_MAX];
	char args[SOCKS_ARGS_MAX + 1];

	assert_int_equal(socks_request(SOCKS_STEP_METHOD, "a=b", r), 3);
	assert_memory_equal(r, "\5\1\2", 3);
	assert_int_equal(socks_request(SOCKS_STEP_LOGIN, "a=b", r), 7);
	assert_memory_equal(r, "\1\3a=b\1\0", 7);
	assert_int_equal(socks_request(SOCKS_STEP_CONNECT, "a=b", r), 10);
	assert_memory_equal(r, "\5\1\0\1\300\0\2\24\0\120", 10);

	/* The password begins where the user name is full. */
	memset(args, 'x', sizeof(args));
	args[255] = '\0';
	assert_int_equal(socks_request(SOCKS_STEP_LOGIN, args, r), 259);
	assert_memory_equal(r + 257, "\1\0", 2);
	args[255] = 'y';
	args[256] = '\0';
	assert_int_equal(socks_request(SOCKS_STEP_LOGIN, args, r), 259);
	assert_memory_equal(r + 256, "x\1y", 3);
	memset(args, 'x', sizeof(args));
	args[SOCKS_ARGS_MAX] = '\0';
	assert_int_equal(socks_request(SOCKS_STEP_LOGIN, args, r),
			 SOCKS_REQUEST_MAX);
}

static void test_socks_replies(void **state)
{
	static const struct {
		enum socks_step step;
		const char *data;
		size_t len;
		int wanted;
	} replies[] = {
		{ SOCKS_STEP_METHOD, "", 0, 2 },
		{ SOCKS_STEP_METHOD, "\5", 1, 1 },
		{ SOCKS_STEP_METHOD, "\5\2", 2, 0 },
		{ SOCKS_STEP_METHOD, "\5\0", 2, -EBADMSG },
		{ SOCKS_STEP_METHOD, "\4\2", 2, -EBADMSG },
		{ SOCKS_STEP_LOGIN, "\1\0", 2, 0 },
		{ SOCKS_STEP_LOGIN, "\1\1", 2, -EACCES },
		{ SOCKS_STEP_LOGIN, "\5\0", 2, -EBADMSG },
		{ SOCKS_STEP_CONNECT, "\5\0", 2, 3 },
		{ SOCKS_STEP_CONNECT, "\5\1", 2, -ECONNREFUSED },
		{ SOCKS_STEP_CONNECT, "\4\0", 2, -EBADMSG },
		{ SOCKS_STEP_CONNECT, "\5\0\0\1\0", 5, 5 },
		{ SOCKS_STEP_CONNECT, "\5\0\0\1\0\0\0\0\0\0", 10, 0 },
		{ SOCKS_STEP_CONNECT, "\5\0\0\3\377", 5, 257 },
		{ SOCKS_STEP_CONNECT, "\5\0\0\3\0\0\0", 7, 0 },
		{ SOCKS_STEP_CONNECT, "\5\0\0\4\0", 5, 17 },
		{ SOCKS_STEP_CONNECT, "\5\0\0\2\0", 5, -EBADMSG },
	};

	for (size_t i = 0; i < ARRAY_SIZE(replies); i++)
		assert_int_equal(socks_reply(replies[i].step,
					     (const uint8_t *)replies[i].data,
					     replies[i].len),
				 replies[i].wanted);
}

static void test_config_limits(void **state)
{
	static char text[GUEST_FILE_MAX + 2];
	struct guest_config c;

	memset(text, 'a', sizeof(text));
	assert_int_equal(guest_config_parse(text, sizeof(text), &c, NULL),
			 -EINVAL);
	assert_int_equal(guest_config_parse(text, GUEST_FILE_MAX, &c, NULL),
			 -EINVAL);
	assert_int_equal(guest_config_parse("version=1\0\n", 11, &c, NULL),
			 -EINVAL);
}

static int check_geoip(const char *text, bool state_disk, bool *ret_geoip)
{
	struct error e = ERROR_NULL(e);
	const struct guest_config config = {
		.state_disk = state_disk,
		.vm_ip.s_addr = htonl(0x0a0a0a01),
	};
	int r = guest_torrc_check(text, strlen(text), &config, ret_geoip, &e);

	assert_int_equal(r, e.code);
	assert_true(r == 0 || e.text[0]);
	return r;
}

static int check(const char *text, bool state_disk)
{
	bool geoip;

	return check_geoip(text, state_disk, &geoip);
}

static void test_torrc(void **state)
{
	static const char head[] = "TransPort 10.10.10.1:9095\n"
				   "DNSPort 10.10.10.1:9093\n"
				   "SocksPort 10.10.10.1:9050\n"
				   "ControlSocket /run/tor/control\n"
				   "Log notice stdout\n";
	static const char *const good[] = {
		"",
		"Sandbox 1\n",
		"  # a comment\n",
		"Bridge obfs4 192.0.2.1:1 cert=a/b+c iat-mode=0\n",
		"HTTPSProxy 192.0.2.1:8080\nSocks5Proxy 192.0.2.1:8080\n",
		"DirAuthority x orport=1 v3ident=00 192.0.2.1:1 00\n",
		"LogTimeGranularity 1\n",
	};
	static const char *const bad[] = {
		"SocksPort 9051\n",
		"SocksPort 0.0.0.0:9050\n",
		"+SocksPort 9051\n",
		"/SocksPort\n",
		"SocksPor 9051\n",
		"TRANSPORT 10.10.10.1:9095\n",
		"ControlPort 9051\n",
		"ControlPor 9051\n",
		"User root\n",
		"user root\n",
		"ClientTransportPlugin x exec /x\n",
		"%include /etc\n",
		"ORPort 9001\n",
		"Log debug file /x\n",
		"Nickname a\\\n",
		"Nickname a\r\n",
		"Nickname \xc3\xa4\n",
		"Nickname a", /* not terminated */
		"\"User\" root\n",
		"GeoIPFile /run/tor/geoip\n",
		"GeoIPFile /usr/share/tor/geoip\nGeoIPFile "
		"/usr/share/tor/geoip\n",
		"GeoIPFil /usr/share/tor/geoip\n",
	};
	char text[1024];
	bool geoip;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text), "%sDataDirectory %s\n%s", head,
			 GUEST_TORRC_DATA_DISK, good[i]);
		assert_int_equal(check(text, true), 0);
		/* Without a disk Tor must not write below its mount point. */
		assert_int_equal(check(text, false), -EINVAL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof(text), "%sDataDirectory %s\n%s", head,
			 GUEST_TORRC_DATA_RAM, bad[i]);
		assert_int_equal(check(text, false), -EINVAL);
	}
	snprintf(text, sizeof(text), "%sDataDirectory %s\n", head,
		 GUEST_TORRC_DATA_RAM);
	assert_int_equal(check_geoip(text, false, &geoip), 0);
	assert_false(geoip);
	strcat(text, "geoipfile /usr/share/tor/geoip\n");
	assert_int_equal(check_geoip(text, false, &geoip), 0);
	assert_true(geoip);
}

static void test_torrc_fixed(void **state)
{
	static const char *const lines[] = {
		"TransPort 10.10.10.1:9095",
		"DNSPort 10.10.10.1:9093",
		"SocksPort 10.10.10.1:9050 IsolateDestAddr SessionGroup=5",
		"ControlSocket /run/tor/control",
		"DataDirectory /run/tor/data",
		"Log notice stdout",
	};
	/* Put after the value: no longer the value. */
	static const char *const tails[] = { "0", " # x", " \"\"" };
	char text[1024];

	for (size_t skip = 0; skip <= ARRAY_SIZE(lines); skip++) {
		text[0] = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
			if (i != skip) {
				strcat(text, lines[i]);
				strcat(text, "\n");
			}
		assert_int_equal(check(text, false),
				 skip == ARRAY_SIZE(lines) ? 0 : -EINVAL);
	}
	for (size_t t = 0; t < ARRAY_SIZE(tails); t++) {
		for (size_t at = 0; at < ARRAY_SIZE(lines); at++) {
			text[0] = '\0';
			for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
				if (i == 2 && i == at && t == 0)
					strcat(text,
					       "SocksPort 10.10.10.1:9050");
				else
					strcat(text, lines[i]);
				strcat(text, i == at ? tails[t] : "");
				strcat(text, "\n");
			}
			assert_int_equal(check(text, false), -EINVAL);
		}
	}
}

struct lines {
	char text[4][GUEST_LINE_MAX];
	bool cut[4];
	size_t n;
};

static void keep_line(void *userdata, char *line, bool cut)
{
	struct lines *lines = userdata;

	assert_true(lines->n < 4);
	lines->cut[lines->n] = cut;
	strcpy(lines->text[lines->n++], line);
}

static void test_line_reader(void **state)
{
	struct line_reader reader = { 0 };
	struct lines lines = { 0 };

	line_reader_push(&reader, "one\ntw", 6, keep_line, &lines);
	assert_int_equal(lines.n, 1);
	line_reader_push(&reader, "o\0\n\nrest", 8, keep_line, &lines);
	line_reader_end(&reader, keep_line, &lines);
	line_reader_end(&reader, keep_line, &lines);
	assert_int_equal(lines.n, 4);
	assert_string_equal(lines.text[0], "one");
	assert_string_equal(lines.text[1], "two?");
	assert_string_equal(lines.text[2], "");
	assert_string_equal(lines.text[3], "rest");

	lines.n = 0;
	for (int i = 0; i < 3 * GUEST_LINE_MAX; i++)
		line_reader_push(&reader, "x", 1, keep_line, &lines);
	line_reader_push(&reader, "\nshort\n", 7, keep_line, &lines);
	assert_int_equal(lines.n, 2);
	assert_true(lines.cut[0]);
	assert_int_equal(strlen(lines.text[0]), GUEST_LINE_MAX - 1);
	assert_false(lines.cut[1]);
	assert_string_equal(lines.text[1], "short");
}

static void test_host_message(void **state)
{
	static const char *const bad[] = {
		"hello ",
		"hello 1",
		"time",
		"time 1",
		"time 1 ",
		"time  1",
		"time 1 -1",
		"time 1 1000000000",
		"time 1 2 3",
		"time a 1",
		"time 1 1 ",
		"ping",
		"ping ",
		"ping a b",
		"ping a\"",
		"poweroff now",
		"time 7258118400 0",
		"ping 0123456789abcdef0123456789abcdef0",
	};
	static const char *const unknown[] = { "",      " ",
					       "hell",  "helloo",
					       "HELLO", "tor-signal HUP" };
	struct host_message m;

	assert_int_equal(host_message_parse("hello", &m), 0);
	assert_int_equal(m.type, HOST_MESSAGE_HELLO);
	assert_int_equal(host_message_parse("poweroff", &m), 0);
	assert_int_equal(m.type, HOST_MESSAGE_POWEROFF);
	assert_int_equal(host_message_parse("time 7258118399 999999999", &m),
			 0);
	assert_int_equal(m.type, HOST_MESSAGE_TIME);
	assert_int_equal(m.seconds, GUEST_TIME_MAX);
	assert_int_equal(m.nanoseconds, 999999999);
	assert_int_equal(host_message_parse("ping a1Z", &m), 0);
	assert_int_equal(m.type, HOST_MESSAGE_PING);
	assert_string_equal(m.token, "a1Z");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(host_message_parse(bad[i], &m), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		assert_int_equal(host_message_parse(unknown[i], &m), -ENOMSG);
}

static void take(struct outbox *box, const char *expected)
{
	size_t len;
	const char *line = outbox_peek(box, &len);

	if (!expected) {
		assert_null(line);
		return;
	}
	assert_non_null(line);
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(line, expected, len);
	outbox_pop(box);
}

static void test_outbox(void **state)
{
	struct outbox box;
	char text[32];

	outbox_init(&box);
	take(&box, NULL);
	outbox_pop(&box);
	outbox_add(&box, OUTBOX_EVENT, "first");
	outbox_add(&box, OUTBOX_CHATTER, "tab\tand\x7f");
	take(&box, "first\n");
	take(&box, "tab?and?\n");
	take(&box, NULL);

	/* The oldest chatter makes room, the event before it stays. */
	outbox_add(&box, OUTBOX_EVENT, "event");
	for (int i = 0; i < OUTBOX_LINES + 9; i++) {
		snprintf(text, sizeof(text), "log %d", i);
		outbox_add(&box, OUTBOX_CHATTER, text);
	}
	assert_int_equal(box.lines, OUTBOX_LINES);
	assert_int_equal(outbox_take_lost(&box), 10);
	assert_int_equal(outbox_take_lost(&box), 0);
	take(&box, "event\n");
	take(&box, "log 10\n");

	/* Events displace chatter, then are bounded too. */
	for (int i = 0; i < 3 * OUTBOX_LINES; i++)
		outbox_add(&box, OUTBOX_EVENT, "e");
	assert_int_equal(box.lines, 2 * OUTBOX_LINES);
	take(&box, "e\n");
	outbox_clear(&box);
	take(&box, NULL);
	assert_int_equal(box.bytes, 0);
	outbox_add(&box, OUTBOX_EVENT, "after");
	take(&box, "after\n");
}

static void test_outbox_bytes(void **state)
{
	static char text[2 * GUEST_LINE_MAX];
	struct outbox box;
	size_t len;

	memset(text, 'x', sizeof(text) - 1);
	outbox_init(&box);
	for (int i = 0; i < 200; i++)
		outbox_add(&box, OUTBOX_CHATTER, text);
	assert_true(box.bytes <= OUTBOX_BYTES);
	assert_non_null(outbox_peek(&box, &len));
	assert_int_equal(len, GUEST_LINE_MAX);
	outbox_clear(&box);
}

static void test_ring(void **state)
{
	static struct ring ring;
	size_t n;
	unsigned int in = 0, out = 0;

	assert_int_equal(ring_room(&ring), RING_SIZE);
	for (int round = 0; round < 100; round++) {
		/* Uneven pieces, so that every place wraps some time. */
		char *space = ring_space(&ring, &n);

		if (n > 5003)
			n = 5003;
		for (size_t i = 0; i < n; i++)
			space[i] = (char)in++;
		ring_put(&ring, n);

		const char *content = ring_content(&ring, &n);

		if (n > 3001 && round < 90)
			n = 3001;
		for (size_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)content[i],
					 out++ & 0xff);
		ring_take(&ring, n);
		assert_true(ring_used(&ring) <= RING_SIZE);
		assert_int_equal(ring_used(&ring), in - out);
	}
	ring_clear(&ring);
	assert_int_equal(ring_used(&ring), 0);
}

static void test_exits(void **state)
{
	struct exits exits = { 0 };

	/* Three within the window, however early in the boot. */
	assert_int_equal(exits_add(&exits, 10), EXITS_FIRST_PAUSE_MS);
	assert_int_equal(exits_add(&exits, 20), 2 * EXITS_FIRST_PAUSE_MS);
	assert_int_equal(exits_add(&exits, 60009), -1);

	/* A fourth that leaves the first two behind goes on. */
	exits = (struct exits){ 0 };
	assert_true(exits_add(&exits, 0) > 0);
	assert_true(exits_add(&exits, 1000) > 0);
	assert_int_equal(exits_add(&exits, 60000), 2 * EXITS_FIRST_PAUSE_MS);
	assert_int_equal(exits_add(&exits, 61000), 2 * EXITS_FIRST_PAUSE_MS);
	assert_int_equal(exits_add(&exits, 61001), -1);
	assert_int_equal(exits.count, 5);
}

static void test_config_uplink(void **state)
{
	static const char *const bad[] = {
		"uplink=\n",
		"uplink=tcp tcp\n",
		"uplink=none tcp\n",
		"uplink=all\n",
		"uplink=tcp\nuplink=tcp\n",
		"peer=tcp 192.0.2.1\n",
		"peer=tcp 192.0.2.1 0\n",
		"peer=udp 192.0.2.1 0\n",
		"peer=tcp 192.0.2.1 65536\n",
		"peer=icmp 192.0.2.1 1\n",
		"peer=tcp 127.0.0.1 1\n",
		"peer=tcp 224.0.0.1 1\n",
		"peer=tcp  192.0.2.1 1\n",
		"peer=tcp a.example 1\n",
		"resolver=127.0.0.53\n",
		"resolver=192.0.2.1\nname=tcp a..example 1\n",
		"resolver=192.0.2.1\nname=tcp a/b 1\n",
		"host=a.example\n",
		"transport=../x\n",
		"transport=\n",
		"proxy=https proxy.example 1\n",
		"proxy=http proxy.example\n",
		"proxy=http proxy.example 1 a@b\n",
		"proxy=http proxy.example 1 a b\n",
		"tls_proxy=proxy.example 1\n",
		"tls_proxy=proxy.example 0 own\n",
		"tls_proxy=proxy.example 1 any\n",
		"tls_proxy=a/b 1 own\n",
		"tls_proxy=a.example 1 own\ntls_proxy=a.example 1 own\n",
		"proxy=http [2001:db8::1] 1\n",
		"proxy=http fe80::1 1\n",
		"uplink=tcp6 tcp6\n",
		"ipv6=2\n",
		"ipv6=1\nipv6=1\n",
		"peer=tcp fe80::1 1\n",
		"peer=tcp fec0::2 1\n",
		"peer=tcp ::1 1\n",
		"peer=tcp ::ffff:192.0.2.1 1\n",
		"resolver=ff02::1\n",
	};
	struct guest_config c;
	char text[512];

	assert_int_equal(parse(GOOD_CONFIG, &c), 0);
	assert_true(c.any_tcp && !c.any_udp && c.n_peers == 0);
	assert_false(c.any_tcp6 || c.any_udp6 || c.ipv6);
	assert_int_equal(parse(GOOD_CONFIG "uplink=tcp6 udp6\nipv6=1\n"
					   "peer=tcp 2001:db8::1 443\n"
					   "resolver=fd00::53\n"
					   "proxy=http 2001:db8::2 80\n",
			       &c),
			 0);
	assert_true(!c.any_tcp && !c.any_udp && c.any_tcp6 && c.any_udp6);
	assert_true(c.ipv6 && c.n_peers == 1 && c.n_resolvers == 1);
	assert_string_equal(c.proxy.host, "2001:db8::2");
	assert_int_equal(parse(GOOD_CONFIG
			       "uplink=udp\npeer=tcp 192.0.2.1 443\n"
			       "peer=udp 192.0.2.1 3478\nresolver=10.0.0.1\n"
			       "name=tcp a.example 80\n"
			       "host=b.example 192.0.2.2\n"
			       "transport=meek_lite\n"
			       "proxy=socks5 p.example 1080 u:%40\n"
			       "tls_proxy=p.example 443 own\n",
			       &c),
			 0);
	assert_true(!c.any_tcp && c.any_udp);
	assert_int_equal(c.n_peers, 2);
	assert_int_equal(c.peers[0].port, 443);
	assert_int_equal(c.peers[1].protocol, IPPROTO_UDP);
	assert_string_equal(c.names[0].host, "a.example");
	assert_string_equal(c.hosts[0].name, "b.example");
	assert_string_equal(c.transport, "meek_lite");
	assert_string_equal(c.proxy.login, "u:%40");
	assert_string_equal(c.tls_proxy.host, "p.example");
	assert_int_equal(c.tls_proxy.port, 443);
	assert_true(c.tls_proxy.own_authorities);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof(text), "%s%s", GOOD_CONFIG, bad[i]);
		assert_int_equal(parse(text, &c), -EINVAL);
	}
}

static struct pt_line pt(const char *line)
{
	static char copy[256];

	snprintf(copy, sizeof(copy), "%s", line);
	return pt_parse(copy, "obfs4");
}

static void test_pt(void **state)
{
	static const char *const nothing[] = {
		"",
		"VERSION 1",
		"PROXY DONE",
		"CMETHOD meek_lite socks5 127.0.0.1:1",
		"CMETHOD obfs4 socks4 127.0.0.1:1",
		"CMETHOD obfs4 socks5 192.0.2.1:1",
		"CMETHOD obfs4 socks5 127.0.0.1:65536",
		"CMETHOD obfs4 socks5 127.0.0.1:x",
		"CMETHOD obfs4",
		"CMETHODX",
		"LOG SEVERITY=debug MESSAGE=x",
		"LOG SEVERITY=error",
		"STATUS TRANSPORT=obfs4",
	};

	for (size_t i = 0; i < ARRAY_SIZE(nothing); i++)
		assert_int_equal(pt(nothing[i]).kind, PT_KIND_NONE);
	assert_int_equal(pt("CMETHOD obfs4 socks5 127.0.0.1:4321").kind,
			 PT_KIND_METHOD);
	assert_int_equal(pt("CMETHOD obfs4 socks5 127.0.0.1:4321").port, 4321);
	assert_int_equal(pt("CMETHODS DONE").kind, PT_KIND_DONE);
	assert_string_equal(pt("CMETHOD-ERROR obfs4 no way").text,
			    "obfs4 no way");
	assert_string_equal(pt("ENV-ERROR x").text, "x");
	/* What it says of the proxy may hold the password. */
	assert_null(
		strstr(pt("PROXY-ERROR socks5://u:hunter2@x").text, "hunter2"));
	assert_int_equal(pt("PROXY-ERROR x").kind, PT_KIND_ERROR);
	assert_string_equal(
		pt("LOG SEVERITY=error MESSAGE=\"a \\\"b\\\" c\"").text,
		"a \"b\" c");
	assert_string_equal(pt("LOG SEVERITY=notice MESSAGE=plain").text,
			    "plain");
}

/* As stunnel 5.74 says it. */
#define TLS_STAMP "2026.11.29 11:21:51 "

static void test_tls_log(void **state)
{
	static const char *const nothing[] = {
		"",
		"LOG3",
		" LOG3[0]: x",
		TLS_STAMP "LOG5[ui]: Threading:PTHREAD Sockets:POLL,IPv6",
		TLS_STAMP "LOG5[0]: Certificate accepted at depth=0: CN=x]: y",
		TLS_STAMP "LOG3[0]: OCSP: No OCSP stapling response received",
		"[ ] Compression disabled",
		"[!] Configuration failed",
		TLS_STAMP "LOG9[0]: x",
		TLS_STAMP "LOG3(0]: x",
	};

	for (size_t i = 0; i < ARRAY_SIZE(nothing); i++)
		assert_int_equal(tls_parse(nothing[i]).kind, TLS_KIND_NONE);
	assert_int_equal(
		tls_parse(TLS_STAMP "LOG5[ui]: Configuration successful").kind,
		TLS_KIND_READY);
	assert_int_equal(
		tls_parse(TLS_STAMP "LOG4[0]: CERT: Subject checks failed")
			.kind,
		TLS_KIND_LOG);
	assert_string_equal(tls_parse("[!] No trusted certificates found").text,
			    "No trusted certificates found");
	assert_string_equal(
		tls_parse(TLS_STAMP "LOG4[0]: CERT: Subject checks failed")
			.text,
		"CERT: Subject checks failed");
}

/* A header, the question a.example, then @answers. */
static size_t dns_packet(uint8_t *p, uint8_t flags2, uint8_t n,
			 const void *answers, size_t len)
{
	const uint8_t head[] = { 0x12, 0x34, 0x81, flags2, 0,   1,   0,
				 n,    0,    0,    0,      0,   1,   'a',
				 7,    'e',  'x',  'a',    'm', 'p', 'l',
				 'e',  0,    0,    1,      0,   1 };

	memcpy(p, head, sizeof(head));
	memcpy(p + sizeof(head), answers, len);
	return sizeof(head) + len;
}

static void test_dns(void **state)
{
	/* b.example by CNAME, its address; one of another name. */
	static const uint8_t answers[] = {
		0xc0, 12,   0,  5, 0, 1, 0, 0, 0, 60, 0, 4, 1, 'b', 0xc0, 14, 1,
		'b',  0xc0, 14, 0, 1, 0, 1, 0, 0, 0,  9, 0, 4, 192, 0,    2,  1,
		1,    'x',  0,  0, 1, 0, 1, 0, 0, 0,  1, 0, 4, 192, 0,    2,  2,
	};
	static const uint8_t loop[] = { 0xc0, 27, 0, 1, 0, 1, 0, 0,
					0,    1,  0, 4, 1, 2, 3, 4 };
	static const uint8_t local[] = { 0xc0, 12, 0, 1, 0,   1, 0, 0,
					 0,    1,  0, 4, 127, 0, 0, 1 };
	uint8_t p[512], query[DNS_QUERY_MAX];
	char ip[IP_TEXT_MAX];
	struct dns_result r;
	size_t n;

	n = (size_t)dns_query(0x1234, "a.example", DNS_TYPE_A, query);
	assert_int_equal(n, 27);
	assert_memory_equal(query + 12, "\1a\7example\0\0\1\0\1", 15);
	assert_int_equal(dns_query(1, "a..b", DNS_TYPE_A, query), -EINVAL);

	n = dns_packet(p, 0x80, 3, answers, sizeof(answers));
	assert_int_equal(dns_answer(p, n, 0x1234, "A.EXAMPLE", DNS_TYPE_A, &r),
			 0);
	assert_int_equal(r.n, 1);
	assert_string_equal(ip_format(&r.addresses[0], ip), "192.0.2.1");
	assert_int_equal(r.ttl_s, 9);
	/* Cut anywhere, it is refused and not read beyond. */
	for (size_t i = 0; i < n; i++) {
		uint8_t *cut = malloc(i ? i : 1);

		memcpy(cut, p, i);
		assert_int_equal(
			dns_answer(cut, i, 0x1234, "a.example", DNS_TYPE_A, &r),
			-EBADMSG);
		free(cut);
	}
	assert_int_equal(dns_answer(p, n, 0x1235, "a.example", DNS_TYPE_A, &r),
			 -EBADMSG);
	assert_int_equal(dns_answer(p, n, 0x1234, "c.example", DNS_TYPE_A, &r),
			 -EBADMSG);
	n = dns_packet(p, 0x83, 0, "", 0);
	assert_int_equal(dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_A, &r),
			 -ENOENT);
	n = dns_packet(p, 0x82, 0, "", 0);
	assert_int_equal(dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_A, &r),
			 -EREMOTEIO);
	n = dns_packet(p, 0x80, 0, "", 0);
	assert_int_equal(dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_A, &r),
			 -ENODATA);
	p[2] = 0x83;
	assert_int_equal(dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_A, &r),
			 -E2BIG);
	n = dns_packet(p, 0x80, 1, loop, sizeof(loop));
	assert_int_equal(dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_A, &r),
			 -EBADMSG);
	n = dns_packet(p, 0x80, 1, local, sizeof(local));
	assert_int_equal(dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_A, &r),
			 -ENODATA);
}

static void test_dns_ipv6(void **state)
{
	/* An A record, a mapped, a link-local and a good address. */
	static const uint8_t answers[] = {
		0xc0, 12,   0,    1,    0, 1,  0, 0, 0, 9, 0,    4,    192, 0,
		2,    1,    0xc0, 12,   0, 28, 0, 1, 0, 0, 0,    9,    0,   16,
		0,    0,    0,    0,    0, 0,  0, 0, 0, 0, 0xff, 0xff, 192, 0,
		2,    1,    0xc0, 12,   0, 28, 0, 1, 0, 0, 0,    9,    0,   16,
		0xfe, 0x80, 0,    0,    0, 0,  0, 0, 0, 0, 0,    0,    0,   0,
		0,    1,    0xc0, 12,   0, 28, 0, 1, 0, 0, 0,    9,    0,   16,
		0x20, 0x01, 0x0d, 0xb8, 0, 0,  0, 0, 0, 0, 0,    0,    0,   0,
		0,    7,
	};
	uint8_t p[512], query[DNS_QUERY_MAX];
	char ip[IP_TEXT_MAX];
	struct dns_result r;
	size_t n;

	n = (size_t)dns_query(0x1234, "a.example", DNS_TYPE_AAAA, query);
	assert_memory_equal(query + 12, "\1a\7example\0\0\34\0\1", 15);
	n = dns_packet(p, 0x80, 4, answers, sizeof(answers));
	/* The answer to another question. */
	assert_int_equal(
		dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_AAAA, &r),
		-EBADMSG);
	p[24] = DNS_TYPE_AAAA;
	assert_int_equal(
		dns_answer(p, n, 0x1234, "a.example", DNS_TYPE_AAAA, &r), 0);
	assert_int_equal(r.n, 1);
	assert_string_equal(ip_format(&r.addresses[0], ip), "2001:db8::7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config_good),
		cmocka_unit_test(test_config_bad),
		cmocka_unit_test(test_config_addresses),
		cmocka_unit_test(test_config_limits),
		cmocka_unit_test(test_config_moat),
		cmocka_unit_test(test_socks_requests),
		cmocka_unit_test(test_socks_replies),
		cmocka_unit_test(test_config_uplink),
		cmocka_unit_test(test_pt),
		cmocka_unit_test(test_tls_log),
		cmocka_unit_test(test_dns),
		cmocka_unit_test(test_dns_ipv6),
		cmocka_unit_test(test_torrc),
		cmocka_unit_test(test_torrc_fixed),
		cmocka_unit_test(test_line_reader),
		cmocka_unit_test(test_host_message),
		cmocka_unit_test(test_outbox),
		cmocka_unit_test(test_outbox_bytes),
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_exits),
	};

	return cmocka_run_group_tests_name("init", tests, NULL, NULL);
}
