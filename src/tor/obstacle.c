/*
 * Theory of operation: Tor says how far it is (a tag) and, once a connection
 * has failed, why (a reason; control-spec, "bootstrap phases" and the reasons
 * of ORCONN events). The reason is believed; without one, the stage at which
 * nothing goes on tells what kind of thing is in the way. Facts that explain
 * all of it (the clock, names) come first.
 */
#include "tor/obstacle.h"

#include <stdio.h>
#include <string.h>

static const struct {
	const char *name, *text;
} obstacles[] = {
	[TOR_OBSTACLE_TOR] = { "tor", "Tor does not answer in the VM." },
	[TOR_OBSTACLE_NO_ROUTE] = { "no-route",
				    "This computer has no way to the Internet: check its cable or "
				    "wireless network." },
	[TOR_OBSTACLE_NAMES] = { "names",
				 "A host name that the transport or proxy needs is not "
				 "resolved by this computer's resolvers." },
	[TOR_OBSTACLE_FALSE_NAMES] = { "false-names",
				       "Where this network's resolvers say that "
				       "the transport's or the proxy's name is, "
				       "nobody answers, or somebody else: what "
				       "they say may be false, or the address "
				       "blocked." },
	[TOR_OBSTACLE_REFUSED] = { "refused",
				   "The network refuses the connection: a firewall, or a login "
				   "page that has to be answered first." },
	[TOR_OBSTACLE_TIMEOUT] = { "timeout",
				   "Nobody answers: the network may be down, wait for a login, or "
				   "block Tor." },
	[TOR_OBSTACLE_CUT] = { "cut",
			       "The network cuts the connection or meddles with it: it may "
			       "block Tor." },
	[TOR_OBSTACLE_IDENTITY] = { "identity",
				    "The answer does not come from the Tor relay or bridge that was "
				    "called." },
	[TOR_OBSTACLE_CLOCK] = { "clock",
				 "This computer's clock is wrong, and Tor "
				 "cannot work so." },
	[TOR_OBSTACLE_DIRECTORY] = { "directory",
				     "Tor is connected, but does not get the list of relays: the "
				     "connection is very slow, or throttled." },
	[TOR_OBSTACLE_TRANSPORT] = { "transport",
				     "The transport does not work in the VM." },
	[TOR_OBSTACLE_PROXY_LOGIN] = { "proxy-login",
				       "The proxy refuses the user name or the "
				       "password." },
	[TOR_OBSTACLE_PROXY_REFUSES] = { "proxy-refuses",
					 "The proxy refuses to connect to Tor." },
	[TOR_OBSTACLE_BEHIND_PROXY] = { "behind-proxy",
					"The transport does not get through "
					"the proxy: it refuses the user name, "
					"the password or the connection, or "
					"the bridge behind it does not "
					"answer." },
	[TOR_OBSTACLE_CERTIFICATE] = { "certificate",
				       "The transport is shown a certificate "
				       "that it does not trust: something in "
				       "between looks into TLS, or a name was "
				       "answered falsely." },
	[TOR_OBSTACLE_PROXY_CERTIFICATE] = { "proxy-certificate",
					     "The proxy shows a certificate "
					     "that no trusted authority vouches "
					     "for. Nothing was said to it." },
	[TOR_OBSTACLE_PROXY_NAME] = { "proxy-name",
				      "The proxy shows a certificate that is "
				      "made out to another name or address. "
				      "Nothing was said to it." },
	[TOR_OBSTACLE_PROXY_EXPIRED] = { "proxy-expired",
					 "The proxy's certificate has expired or "
					 "is not valid yet, or this computer's "
					 "clock is wrong. Nothing was said to "
					 "the proxy." },
	[TOR_OBSTACLE_PROXY_TLS] = { "proxy-tls",
				     "The proxy does not answer by TLS. Nothing "
				     "was said to it in the clear." },
	[TOR_OBSTACLE_RELAYS] = { "relays",
				  "Tor finds no relay that it may use: the "
				  "configuration says which ones are exits, or "
				  "are avoided, and leaves none." },
	[TOR_OBSTACLE_UNKNOWN] = { "unknown",
				   "Check that this computer's network works: cable, wireless, a "
				   "login page." },
};
_Static_assert(ARRAY_SIZE(obstacles) == TOR_OBSTACLE_COUNT, "obstacles");

const char *tor_obstacle_name(enum tor_obstacle obstacle)
{
	return obstacles[obstacle].name;
}

const char *tor_obstacle_text(enum tor_obstacle obstacle)
{
	return obstacles[obstacle].text;
}

static enum tor_obstacle by_reason(const char *reason)
{
	static const struct {
		const char *reason;
		enum tor_obstacle obstacle;
	} reasons[] = {
		{ "NOROUTE", TOR_OBSTACLE_NO_ROUTE },
		{ "CONNECTREFUSED", TOR_OBSTACLE_REFUSED },
		{ "TIMEOUT", TOR_OBSTACLE_TIMEOUT },
		{ "CONNECTRESET", TOR_OBSTACLE_CUT },
		{ "IOERROR", TOR_OBSTACLE_CUT },
		{ "TLS_ERROR", TOR_OBSTACLE_CUT },
		{ "DONE", TOR_OBSTACLE_CUT },
		{ "IDENTITY", TOR_OBSTACLE_IDENTITY },
		{ "PT_MISSING", TOR_OBSTACLE_TRANSPORT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (!strcmp(reasons[i].reason, reason))
			return reasons[i].obstacle;
	return TOR_OBSTACLE_UNKNOWN;
}

static enum tor_obstacle by_stage(const char *tag)
{
	static const struct {
		const char *start;
		enum tor_obstacle obstacle;
	} stages[] = {
		{ "conn_done", TOR_OBSTACLE_CUT },
		{ "conn", TOR_OBSTACLE_TIMEOUT },
		{ "ap_conn", TOR_OBSTACLE_TIMEOUT },
		{ "handshake", TOR_OBSTACLE_CUT },
		{ "ap_handshake", TOR_OBSTACLE_CUT },
		{ "onehop_create", TOR_OBSTACLE_DIRECTORY },
		{ "requesting", TOR_OBSTACLE_DIRECTORY },
		{ "loading", TOR_OBSTACLE_DIRECTORY },
		{ "enough_dirinfo", TOR_OBSTACLE_DIRECTORY },
	};

	for (size_t i = 0; i < ARRAY_SIZE(stages); i++)
		if (!strncmp(tag, stages[i].start, strlen(stages[i].start)))
			return stages[i].obstacle;
	return TOR_OBSTACLE_UNKNOWN;
}

enum tor_obstacle tor_obstacle_hear(const struct tor_obstacle_facts *facts,
				    const char *line)
{
	/* Tor's words (0.4.9: connection.c, proto_http.c, proto_socks.c) and
	 * those of Go's crypto/x509. */
	static const struct {
		const char *words;
		enum tor_obstacle obstacle;
	} heard[] = {
		{ "unexpected status code 407", TOR_OBSTACLE_PROXY_LOGIN },
		{ "unexpected status code 401", TOR_OBSTACLE_PROXY_LOGIN },
		{ "unexpected status code", TOR_OBSTACLE_PROXY_REFUSES },
		{ "(\"authentication failed\")", TOR_OBSTACLE_PROXY_LOGIN },
		{ "x509: ", TOR_OBSTACLE_CERTIFICATE },
		/* What a transport tells Tor, whatever the reason. */
		{ "(\"general SOCKS server failure\")",
		  TOR_OBSTACLE_BEHIND_PROXY },
		{ "can't choose an exit", TOR_OBSTACLE_RELAYS },
	};
	enum tor_obstacle o = TOR_OBSTACLE_UNKNOWN;

	for (size_t i = 0; i < ARRAY_SIZE(heard); i++)
		if (strstr(line, heard[i].words)) {
			o = heard[i].obstacle;
			break;
		}
	if (o == TOR_OBSTACLE_BEHIND_PROXY &&
	    (!facts->use_proxy || facts->transport == CONFIG_TRANSPORT_NONE))
		return TOR_OBSTACLE_UNKNOWN;
	return o;
}

enum tor_obstacle tor_obstacle_hear_tls(const char *line)
{
	/* stunnel's verify.c and client.c, OpenSSL's x509_txt.c. By their
	 * start, since they may go on with what the certificate says. */
	static const struct {
		const char *start, *then; /* and somewhere behind it */
		enum tor_obstacle obstacle;
	} heard[] = {
		{ "CERT: Pre-verification error: certificate has expired", "",
		  TOR_OBSTACLE_PROXY_EXPIRED },
		{ "CERT: Pre-verification error: certificate is not yet valid",
		  "", TOR_OBSTACLE_PROXY_EXPIRED },
		{ "CERT: Subject checks failed", "", TOR_OBSTACLE_PROXY_NAME },
		{ "CERT: ", "", TOR_OBSTACLE_PROXY_CERTIFICATE },
		{ "SSL_connect: ", "", TOR_OBSTACLE_PROXY_TLS },
		{ "s_connect: ", ": Connection refused", TOR_OBSTACLE_REFUSED },
		{ "s_connect: ", "TIMEOUTconnect exceeded",
		  TOR_OBSTACLE_TIMEOUT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(heard); i++)
		if (!strncmp(line, heard[i].start, strlen(heard[i].start)) &&
		    strstr(line, heard[i].then))
			return heard[i].obstacle;
	return TOR_OBSTACLE_UNKNOWN;
}

/* Tor does not say so. It has begun and calls nobody; or it has the list of
 * relays and not one path: any path would be more than 50 % (tried with 0.4.9).
 */
static bool has_no_relay(const struct tor_obstacle_facts *facts)
{
	const struct torctl_bootstrap *b = facts->bootstrap;

	return facts->chooses_relays &&
	       (!strcmp(b->tag, "starting") ||
		(!strcmp(b->tag, "loading_descriptors") && b->percent == 50));
}

/* Whether it is what connecting to a false address leads to. */
static bool may_be_elsewhere(enum tor_obstacle o)
{
	return o == TOR_OBSTACLE_REFUSED || o == TOR_OBSTACLE_TIMEOUT ||
	       o == TOR_OBSTACLE_CUT || o == TOR_OBSTACLE_IDENTITY;
}

enum tor_obstacle tor_obstacle_judge(const struct tor_obstacle_facts *facts)
{
	const struct torctl_bootstrap *b = facts->bootstrap;
	enum tor_obstacle o = facts->heard;

	if (facts->clock_wrong)
		return TOR_OBSTACLE_CLOCK;
	if (facts->names_fail)
		return TOR_OBSTACLE_NAMES;
	if (!facts->tor_answers)
		return TOR_OBSTACLE_TOR;
	if (o == TOR_OBSTACLE_UNKNOWN && b->reason[0])
		o = by_reason(b->reason);
	else if (o == TOR_OBSTACLE_UNKNOWN)
		o = has_no_relay(facts) ? TOR_OBSTACLE_RELAYS
					: by_stage(b->tag);
	return facts->names_asked && may_be_elsewhere(o)
		       ? TOR_OBSTACLE_FALSE_NAMES
		       : o;
}

int tor_next_transport(bool use_bridges, enum config_transport transport)
{
	if (!use_bridges)
		return CONFIG_TRANSPORT_OBFS4;
	switch (transport) {
	case CONFIG_TRANSPORT_NONE: return CONFIG_TRANSPORT_OBFS4;
	case CONFIG_TRANSPORT_OBFS4: return CONFIG_TRANSPORT_SNOWFLAKE;
	case CONFIG_TRANSPORT_SNOWFLAKE: return CONFIG_TRANSPORT_MEEK_LITE;
	case CONFIG_TRANSPORT_MEEK_LITE:
	case CONFIG_TRANSPORT_WEBTUNNEL:
	case CONFIG_TRANSPORT_COUNT: break;
	}
	return -1;
}

static void next_way_in(const struct tor_obstacle_facts *facts, char *buf,
			size_t size)
{
	int next = tor_next_transport(facts->use_bridges, facts->transport);

	if (facts->use_proxy)
		snprintf(
			buf, size,
			"Check proxy.address and the proxy's rules; then: sudo "
			"torvm bridges use obfs4");
	else if (next >= 0)
		snprintf(buf, size,
			 "If other pages work in this network, Tor is blocked: "
			 "sudo torvm bridges use %s, then start TorVM again.",
			 config_transport_name((enum config_transport)next));
	else
		snprintf(buf, size,
			 "Get bridges that are not public: sudo torvm bridges "
			 "request --country xx --add (xx: your country), or as "
			 "docs/CENSORSHIP.md says.");
}

void tor_obstacle_next(enum tor_obstacle obstacle,
		       const struct tor_obstacle_facts *facts, char *buf,
		       size_t size)
{
	buf[0] = '\0';
	switch (obstacle) {
	case TOR_OBSTACLE_REFUSED:
	case TOR_OBSTACLE_TIMEOUT:
	case TOR_OBSTACLE_CUT:
	case TOR_OBSTACLE_DIRECTORY:
	case TOR_OBSTACLE_TRANSPORT: next_way_in(facts, buf, size); break;
	case TOR_OBSTACLE_IDENTITY:
		if (facts->use_bridges)
			snprintf(
				buf, size,
				"Check the bridge's fingerprint: torvm bridges "
				"list");
		else
			next_way_in(facts, buf, size);
		break;
	case TOR_OBSTACLE_NAMES:
		snprintf(buf, size,
			 "Pin the name's address in bridge.addresses "
			 "(torvm.json(5)), or use a transport that needs no "
			 "name: sudo torvm bridges use obfs4");
		break;
	case TOR_OBSTACLE_FALSE_NAMES:
		snprintf(buf, size,
			 "Compare the address (torvm status) with one from "
			 "elsewhere and pin that in bridge.addresses, or: "
			 "sudo torvm bridges use obfs4, which needs no name.");
		break;
	case TOR_OBSTACLE_CLOCK:
		snprintf(buf, size,
			 "sudo timedatectl set-time 'YYYY-MM-DD HH:MM'");
		break;
	case TOR_OBSTACLE_PROXY_LOGIN:
	case TOR_OBSTACLE_BEHIND_PROXY:
		snprintf(buf, size,
			 "Check proxy.username and proxy.password in the "
			 "configuration, then start TorVM again.");
		break;
	case TOR_OBSTACLE_PROXY_REFUSES:
		snprintf(buf, size,
			 "The proxy may allow port 443 only: sudo torvm "
			 "bridges use obfs4, then start TorVM again.");
		break;
	case TOR_OBSTACLE_CERTIFICATE:
		snprintf(buf, size,
			 "If your network is meant to do that, name its "
			 "authority's file in bridge.ca_file (torvm.json(5)).");
		break;
	case TOR_OBSTACLE_PROXY_CERTIFICATE:
		snprintf(buf, size,
			 "If the proxy has an authority of its own, name that "
			 "one's file in proxy.ca_file (torvm.json(5)).");
		break;
	case TOR_OBSTACLE_PROXY_NAME:
		snprintf(buf, size,
			 "Write the name that the proxy's certificate has into "
			 "proxy.address (torvm.json(5)).");
		break;
	case TOR_OBSTACLE_PROXY_EXPIRED:
		snprintf(buf, size,
			 "Compare the clock: date. To set it: sudo timedatectl "
			 "set-time 'YYYY-MM-DD HH:MM'");
		break;
	case TOR_OBSTACLE_PROXY_TLS:
		snprintf(buf, size,
			 "Ask who runs the proxy for its port for TLS. If it "
			 "has none: proxy.type http, with which the network "
			 "sees the password.");
		break;
	case TOR_OBSTACLE_RELAYS:
		snprintf(buf, size,
			 "Allow more in tor.exit_nodes, tor.exclude_nodes, "
			 "tor.exclude_exit_nodes or tor.options, then start "
			 "TorVM again.");
		break;
	case TOR_OBSTACLE_NO_ROUTE:
		snprintf(buf, size, "torvm doctor --connection");
		break;
	case TOR_OBSTACLE_TOR:
	case TOR_OBSTACLE_UNKNOWN: snprintf(buf, size, "torvm log"); break;
	case TOR_OBSTACLE_COUNT: break;
	}
}
