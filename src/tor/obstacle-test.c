#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tor/obstacle.h"

static const char *judge(const char *tag, const char *reason,
			 struct tor_obstacle_facts facts)
{
	struct torctl_bootstrap b = { .percent = 10 };

	str_copy(b.tag, sizeof(b.tag), tag);
	str_copy(b.reason, sizeof(b.reason), reason);
	facts.bootstrap = &b;
	return tor_obstacle_name(tor_obstacle_judge(&facts));
}

static void reasons_and_stages_are_told_apart(void **state)
{
	static const struct {
		const char *tag, *reason, *name;
	} cases[] = {
		{ "conn", "NOROUTE", "no-route" },
		{ "conn", "CONNECTREFUSED", "refused" },
		{ "conn_dir", "TIMEOUT", "timeout" },
		{ "handshake", "CONNECTRESET", "cut" },
		{ "handshake", "TLS_ERROR", "cut" },
		{ "conn_done", "DONE", "cut" },
		{ "conn", "IDENTITY", "identity" },
		{ "conn_pt", "PT_MISSING", "transport" },
		{ "conn", "RESOURCELIMIT", "unknown" },
		{ "conn", "", "timeout" },
		{ "conn_pt", "", "timeout" },
		{ "conn_done_pt", "", "cut" },
		{ "handshake", "", "cut" },
		{ "onehop_create", "", "directory" },
		{ "requesting_status", "", "directory" },
		{ "loading_descriptors", "", "directory" },
		{ "", "", "unknown" },
	};
	const struct tor_obstacle_facts answers = {
		.tor_answers = true,
		.heard = TOR_OBSTACLE_UNKNOWN,
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(
			judge(cases[i].tag, cases[i].reason, answers),
			cases[i].name);
}

static void what_explains_all_comes_first(void **state)
{
	const struct tor_obstacle_facts none = { 0 };
	const struct tor_obstacle_facts clock = { .tor_answers = true,
						  .clock_wrong = true };
	const struct tor_obstacle_facts names = { .tor_answers = true,
						  .names_fail = true };

	assert_string_equal(judge("conn", "TIMEOUT", none), "tor");
	assert_string_equal(judge("conn", "TIMEOUT", clock), "clock");
	assert_string_equal(judge("conn", "TIMEOUT", names), "names");
}

static void a_choice_of_relays_may_leave_none(void **state)
{
	struct torctl_bootstrap b = { .percent = 50 };
	struct tor_obstacle_facts facts = {
		.bootstrap = &b,
		.tor_answers = true,
		.heard = TOR_OBSTACLE_UNKNOWN,
	};

	strcpy(b.tag, "loading_descriptors");
	assert_int_equal(tor_obstacle_judge(&facts), TOR_OBSTACLE_DIRECTORY);
	facts.chooses_relays = true;
	assert_int_equal(tor_obstacle_judge(&facts), TOR_OBSTACLE_RELAYS);
	/* There is a path: the others only come slowly. */
	b.percent = 55;
	assert_int_equal(tor_obstacle_judge(&facts), TOR_OBSTACLE_DIRECTORY);
	b.percent = 0;
	strcpy(b.tag, "starting");
	assert_int_equal(tor_obstacle_judge(&facts), TOR_OBSTACLE_RELAYS);
	facts.chooses_relays = false;
	assert_int_equal(tor_obstacle_judge(&facts), TOR_OBSTACLE_UNKNOWN);
}

static void a_name_may_have_been_answered_falsely(void **state)
{
	struct tor_obstacle_facts asked = { .tor_answers = true,
					    .names_asked = true,
					    .heard = TOR_OBSTACLE_UNKNOWN };

	assert_string_equal(judge("conn_done_pt", "", asked), "false-names");
	assert_string_equal(judge("conn", "CONNECTREFUSED", asked),
			    "false-names");
	/* Not what has nothing to do with where it leads to. */
	assert_string_equal(judge("conn", "NOROUTE", asked), "no-route");
	assert_string_equal(judge("requesting_status", "", asked), "directory");
	asked.heard = TOR_OBSTACLE_PROXY_LOGIN;
	assert_string_equal(judge("conn", "DONE", asked), "proxy-login");
}

static void the_log_says_more(void **state)
{
	static const struct {
		const char *line;
		enum tor_obstacle obstacle;
	} cases[] = {
		{ "The https proxy sent back an unexpected status code 407 "
		  "(\"Proxy Authentication Required\"). Closing.",
		  TOR_OBSTACLE_PROXY_LOGIN },
		{ "The https proxy sent back an unexpected status code 401 "
		  "(\"Unauthorized\"). Closing.",
		  TOR_OBSTACLE_PROXY_LOGIN },
		{ "The https proxy sent back an unexpected status code 403 "
		  "(\"Forbidden\"). Closing.",
		  TOR_OBSTACLE_PROXY_REFUSES },
		{ "Proxy Client: unable to connect OR connection (handshaking "
		  "(proxy)) with [scrubbed] (\"authentication failed\")",
		  TOR_OBSTACLE_PROXY_LOGIN },
		{ "Proxy Client: unable to connect OR connection (handshaking "
		  "(proxy)) with [scrubbed] (\"general SOCKS server "
		  "failure\")",
		  TOR_OBSTACLE_BEHIND_PROXY },
		{ "Error dialing: x509: certificate signed by unknown "
		  "authority",
		  TOR_OBSTACLE_CERTIFICATE },
		{ "No exits in ExitNodes seem to be running: can't choose an "
		  "exit.",
		  TOR_OBSTACLE_RELAYS },
		{ "Bootstrapped 5% (conn): Connecting to a relay",
		  TOR_OBSTACLE_UNKNOWN },
	};
	struct tor_obstacle_facts facts = {
		.tor_answers = true,
		.use_proxy = true,
		.use_bridges = true,
		.transport = CONFIG_TRANSPORT_OBFS4,
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(tor_obstacle_hear(&facts, cases[i].line),
				 cases[i].obstacle);
	facts.heard = TOR_OBSTACLE_PROXY_LOGIN;
	assert_string_equal(judge("conn_done_proxy", "DONE", facts),
			    "proxy-login");
	/* Without a proxy it is the bridge. */
	facts.use_proxy = false;
	assert_int_equal(tor_obstacle_hear(&facts, cases[4].line),
			 TOR_OBSTACLE_UNKNOWN);
}

static void the_proxys_certificate_is_told_apart(void **state)
{
	static const char verify[] =
		"SSL_connect: tls_post_process_server_certificate@../ssl/statem/"
		"statem_clnt.c:2124: error:0A000086:SSL routines::certificate "
		"verify failed";
	static const struct {
		const char *line;
		enum tor_obstacle obstacle;
	} cases[] = {
		{ "CERT: Pre-verification error: certificate not found in "
		  "local repository: self-signed certificate",
		  TOR_OBSTACLE_PROXY_CERTIFICATE },
		{ "CERT: Pre-verification error: unable to get local issuer "
		  "certificate",
		  TOR_OBSTACLE_PROXY_CERTIFICATE },
		{ "CERT: Pre-verification error: certificate has expired",
		  TOR_OBSTACLE_PROXY_EXPIRED },
		{ "CERT: Pre-verification error: certificate is not yet valid",
		  TOR_OBSTACLE_PROXY_EXPIRED },
		{ "CERT: Subject checks failed", TOR_OBSTACLE_PROXY_NAME },
		{ verify, TOR_OBSTACLE_PROXY_TLS },
		{ "s_connect: connect 192.0.2.1:443: Connection refused (111)",
		  TOR_OBSTACLE_REFUSED },
		{ "s_connect: s_poll_wait 192.0.2.1:443: TIMEOUTconnect "
		  "exceeded",
		  TOR_OBSTACLE_TIMEOUT },
		/* A certificate's own words. */
		{ "Rejected by CERT at depth=0: CN=CERT: Subject checks failed",
		  TOR_OBSTACLE_UNKNOWN },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(tor_obstacle_hear_tls(cases[i].line),
				 cases[i].obstacle);
}

static void transports_are_tried_in_turn(void **state)
{
	assert_int_equal(tor_next_transport(false, CONFIG_TRANSPORT_NONE),
			 CONFIG_TRANSPORT_OBFS4);
	assert_int_equal(tor_next_transport(true, CONFIG_TRANSPORT_OBFS4),
			 CONFIG_TRANSPORT_SNOWFLAKE);
	assert_int_equal(tor_next_transport(true, CONFIG_TRANSPORT_SNOWFLAKE),
			 CONFIG_TRANSPORT_MEEK_LITE);
	assert_int_equal(tor_next_transport(true, CONFIG_TRANSPORT_MEEK_LITE),
			 -1);
}

static void every_obstacle_has_words_and_a_way_on(void **state)
{
	const struct tor_obstacle_facts facts[] = {
		{ .tor_answers = true },
		{ .use_bridges = true, .transport = CONFIG_TRANSPORT_OBFS4 },
		{ .use_bridges = true,
		  .transport = CONFIG_TRANSPORT_MEEK_LITE },
		{ .use_proxy = true },
	};
	char next[200];

	for (int o = 0; o < TOR_OBSTACLE_COUNT; o++) {
		const char *text = tor_obstacle_text((enum tor_obstacle)o);

		assert_int_equal(text[strlen(text) - 1], '.');
		assert_true(tor_obstacle_name((enum tor_obstacle)o)[0]);
		for (size_t i = 0; i < ARRAY_SIZE(facts); i++) {
			tor_obstacle_next((enum tor_obstacle)o, &facts[i], next,
					  sizeof(next));
			assert_true(strlen(next) > 8);
			assert_true(strlen(next) < sizeof(next) - 1);
		}
	}
	tor_obstacle_next(TOR_OBSTACLE_TIMEOUT, &facts[1], next, sizeof(next));
	assert_non_null(strstr(next, "bridges use snowflake"));
	tor_obstacle_next(TOR_OBSTACLE_TIMEOUT, &facts[2], next, sizeof(next));
	assert_non_null(strstr(next, "bridges request"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reasons_and_stages_are_told_apart),
		cmocka_unit_test(what_explains_all_comes_first),
		cmocka_unit_test(a_choice_of_relays_may_leave_none),
		cmocka_unit_test(a_name_may_have_been_answered_falsely),
		cmocka_unit_test(the_log_says_more),
		cmocka_unit_test(the_proxys_certificate_is_told_apart),
		cmocka_unit_test(transports_are_tried_in_turn),
		cmocka_unit_test(every_obstacle_has_words_and_a_way_on),
	};

	return cmocka_run_group_tests_name("tor-obstacle", tests, NULL, NULL);
}
