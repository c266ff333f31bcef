/*
 * Theory of operation
 *
 * An allow-list: what is not named here is refused, whatever a later Tor makes
 * of it. For names that people are likely to try, `refusals` says why and what
 * to use instead. Names are compared without case, as Tor does (tor(1)).
 *
 * The value's form is checked as far as a wrong one would keep Tor from
 * starting: Tor refuses its whole torrc for one bad line, and the user would
 * see a machine that restarts without end. Names and forms were tried with Tor
 * 0.4.9 (--list-torrc-options, --verify-config).
 */
#include "config/tor_options.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/nearest.h"
#include "config/values.h"

enum value_kind {
	VALUE_BOOL,     /* 0 or 1 */
	VALUE_AUTOBOOL, /* 0, 1 or auto */
	VALUE_UINT,     /* decimal digits */
	VALUE_INTERVAL, /* digits and an optional unit */
	VALUE_NODES,    /* fingerprints, addresses, countries */
	VALUE_TEXT,     /* left to Tor */
	VALUE_COUNT,
};

/* In alphabetical order; a test checks it. */
static const struct {
	const char *name;
	enum value_kind kind;
} options[] = {
	{ "AlternateBridgeAuthority", VALUE_TEXT },
	{ "AlternateDirAuthority", VALUE_TEXT },
	{ "AssumeReachable", VALUE_BOOL },
	{ "AvoidDiskWrites", VALUE_BOOL },
	{ "CircuitBuildTimeout", VALUE_INTERVAL },
	{ "CircuitPadding", VALUE_BOOL },
	{ "CircuitsAvailableTimeout", VALUE_INTERVAL },
	{ "CircuitStreamTimeout", VALUE_INTERVAL },
	{ "ClientBootstrapConsensusAuthorityDownloadInitialDelay",
	  VALUE_INTERVAL },
	{ "ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay",
	  VALUE_INTERVAL },
	{ "ClientBootstrapConsensusFallbackDownloadInitialDelay",
	  VALUE_INTERVAL },
	{ "ClientBootstrapConsensusMaxInProgressTries", VALUE_UINT },
	{ "ClientPreferIPv6ORPort", VALUE_AUTOBOOL },
	{ "ClientUseIPv4", VALUE_BOOL },
	{ "ClientUseIPv6", VALUE_BOOL },
	{ "ConnectionPadding", VALUE_AUTOBOOL },
	{ "DirAuthority", VALUE_TEXT },
	{ "DownloadExtraInfo", VALUE_BOOL },
	{ "EnforceDistinctSubnets", VALUE_BOOL },
	{ "EntryNodes", VALUE_NODES },
	{ "ExcludeExitNodes", VALUE_NODES },
	{ "ExcludeNodes", VALUE_NODES },
	{ "ExitNodes", VALUE_NODES },
	{ "FallbackDir", VALUE_TEXT },
	{ "FascistFirewall", VALUE_BOOL },
	{ "FetchDirInfoEarly", VALUE_BOOL },
	{ "FetchUselessDescriptors", VALUE_BOOL },
	{ "FirewallPorts", VALUE_TEXT },
	{ "GeoIPExcludeUnknown", VALUE_AUTOBOOL },
	{ "GuardLifetime", VALUE_INTERVAL },
	{ "KeepalivePeriod", VALUE_INTERVAL },
	{ "LearnCircuitBuildTimeout", VALUE_BOOL },
	{ "LongLivedPorts", VALUE_TEXT },
	{ "MaxCircuitDirtiness", VALUE_INTERVAL },
	{ "MaxClientCircuitsPending", VALUE_UINT },
	{ "MiddleNodes", VALUE_NODES },
	{ "NewCircuitPeriod", VALUE_INTERVAL },
	{ "NodeFamily", VALUE_NODES },
	{ "NumDirectoryGuards", VALUE_UINT },
	{ "NumEntryGuards", VALUE_UINT },
	{ "NumPrimaryGuards", VALUE_UINT },
	{ "PathBiasCircThreshold", VALUE_UINT },
	{ "PathsNeededToBuildCircuits", VALUE_TEXT },
	{ "ReachableAddresses", VALUE_TEXT },
	{ "ReachableORAddresses", VALUE_TEXT },
	{ "ReducedCircuitPadding", VALUE_BOOL },
	{ "ReducedConnectionPadding", VALUE_BOOL },
	{ "SocksTimeout", VALUE_INTERVAL },
	{ "StrictNodes", VALUE_BOOL },
	{ "TestingAuthDirTimeToLearnReachability", VALUE_INTERVAL },
	{ "TestingAuthKeyLifetime", VALUE_INTERVAL },
	{ "TestingAuthKeySlop", VALUE_INTERVAL },
	{ "TestingBridgeBootstrapDownloadInitialDelay", VALUE_INTERVAL },
	{ "TestingBridgeDownloadInitialDelay", VALUE_INTERVAL },
	{ "TestingClientConsensusDownloadInitialDelay", VALUE_INTERVAL },
	{ "TestingClientDownloadInitialDelay", VALUE_INTERVAL },
	{ "TestingClientMaxIntervalWithoutRequest", VALUE_INTERVAL },
	{ "TestingDirAuthVoteExit", VALUE_NODES },
	{ "TestingDirAuthVoteExitIsStrict", VALUE_BOOL },
	{ "TestingDirAuthVoteGuard", VALUE_NODES },
	{ "TestingDirAuthVoteGuardIsStrict", VALUE_BOOL },
	{ "TestingDirAuthVoteHSDir", VALUE_NODES },
	{ "TestingDirAuthVoteHSDirIsStrict", VALUE_BOOL },
	{ "TestingDirConnectionMaxStall", VALUE_INTERVAL },
	{ "TestingEnableCellStatsEvent", VALUE_BOOL },
	{ "TestingEnableConnBwEvent", VALUE_BOOL },
	{ "TestingLinkCertLifetime", VALUE_INTERVAL },
	{ "TestingLinkKeySlop", VALUE_INTERVAL },
	{ "TestingMinExitFlagThreshold", VALUE_TEXT },
	{ "TestingMinFastFlagThreshold", VALUE_TEXT },
	{ "TestingMinTimeToReportBandwidth", VALUE_INTERVAL },
	{ "TestingServerConsensusDownloadInitialDelay", VALUE_INTERVAL },
	{ "TestingServerDownloadInitialDelay", VALUE_INTERVAL },
	{ "TestingSigningKeySlop", VALUE_INTERVAL },
	{ "TestingTorNetwork", VALUE_BOOL },
	{ "TestingV3AuthInitialDistDelay", VALUE_INTERVAL },
	{ "TestingV3AuthInitialVoteDelay", VALUE_INTERVAL },
	{ "TestingV3AuthInitialVotingInterval", VALUE_INTERVAL },
	{ "TestingV3AuthVotingStartOffset", VALUE_INTERVAL },
	{ "UseEntryGuards", VALUE_BOOL },
	{ "UseGuardFraction", VALUE_AUTOBOOL },
	{ "UseMicrodescriptors", VALUE_AUTOBOOL },
	{ "VanguardsLiteEnabled", VALUE_AUTOBOOL },
};

/* Why, by exact name or by a word at the name's end or beginning. */
static const struct {
	const char *pattern; /* '*' at the end or beginning: anything */
	const char *why;
} refusals[] = {
	{ "Bridge", "bridges are set by bridge.bridges" },
	{ "UseBridges", "bridges are switched by bridge.use_bridges" },
	{ "ClientTransportPlugin", "it runs a program; transports are set by "
				   "bridge.transport" },
	{ "Socks4Proxy", "the proxy is set by proxy.type and proxy.address" },
	{ "Socks5Proxy*", "the proxy is set by the keys of proxy" },
	{ "HTTPProxy*", "the proxy is set by the keys of proxy" },
	{ "HTTPSProxy*", "the proxy is set by the keys of proxy" },
	{ "TCPProxy", "the proxy is set by the keys of proxy" },
	{ "*Port", "it opens or moves a port, and those are fixed" },
	{ "*PortWriteToFile", "it writes a file" },
	{ "*ListenAddress", "it opens a port, and those are fixed" },
	{ "ControlSocket*", "the controller alone speaks to Tor" },
	{ "*Authentication", "the controller alone speaks to Tor" },
	{ "HashedControlPassword", "the controller alone speaks to Tor" },
	{ "HiddenService*", "onion services would open ports to the outside" },
	{ "ORPort*", "TorVM is a client, never a relay" },
	{ "*Relay", "TorVM is a client, never a relay" },
	{ "ExitPolicy*", "TorVM is a client, never a relay" },
	{ "ServerTransport*", "it runs a program" },
	{ "*Exec*", "it runs a program" },
	{ "*Directory", "it names a folder; the machine's are fixed" },
	{ "*File", "it names a file" },
	{ "Log", "the log is set by log.level and log.file" },
	{ "SafeLogging", "addresses stay out of the log" },
	{ "Sandbox", "Tor's sandbox is set by TorVM" },
	{ "User", "Tor's user is set by TorVM" },
	{ "RunAsDaemon", "Tor is watched by the machine's init" },
	{ "DisableNetwork", "the lifecycle switches the network" },
	{ "VirtualAddrNetwork*", "name mapping is set by TorVM" },
	{ "AutomapHosts*", "name mapping is set by TorVM" },
	{ "MapAddress", "name mapping is set by TorVM" },
	{ "OutboundBindAddress*", "the machine has one way out" },
	{ "V3Auth*", "TorVM is a client, never an authority" },
	{ "AuthDir*", "TorVM is a client, never an authority" },
};

static const char allowed_names[] = "the options that torvm.json(5) lists";

const char *config_tor_option_name(size_t i)
{
	return i < ARRAY_SIZE(options) ? options[i].name : NULL;
}

static bool pattern_matches(const char *pattern, const char *name)
{
	size_t n = strlen(pattern), len = strlen(name);
	bool head = pattern[0] == '*', tail = pattern[n - 1] == '*';

	if (head && tail) {
		char word[32];

		snprintf(word, sizeof(word), "%.*s", (int)(n - 2), pattern + 1);
		return strcasestr(name, word) != NULL;
	}
	if (head)
		return len >= n - 1 &&
		       !strcasecmp(name + len - (n - 1), pattern + 1);
	if (tail)
		return !strncasecmp(name, pattern, n - 1);
	return !strcasecmp(name, pattern);
}

static int refuse_name(const char *name, struct config_problem *p)
{
	size_t best = NEAREST_WORD_MAX + 1;
	const char *near = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if (pattern_matches(refusals[i].pattern, name))
			return config_problem_set(p, allowed_names,
						  "option %.60s: %s", name,
						  refusals[i].why);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		size_t d = nearest_distance(name, options[i].name);

		if (d < best) {
			best = d;
			near = options[i].name;
		}
	}
	if (near && nearest_is_close(name, best))
		return config_problem_set(p, allowed_names,
					  "unknown option %.60s; did you mean "
					  "%s?",
					  name, near);
	return config_problem_set(p, allowed_names,
				  "option %.60s is not accepted", name);
}

static bool is_interval(const char *value)
{
	static const char *const units[] = { "",       "msec",    "second",
					     "minute", "hour",    "day",
					     "week",   "seconds", "minutes",
					     "hours",  "days",    "weeks" };
	size_t n = strspn(value, "0123456789");

	if (n < 1 || n > 9)
		return false;
	value += n;
	value += strspn(value, " ");
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (!strcasecmp(value, units[i]))
			return true;
	return false;
}

static int check_value(enum value_kind kind, const char *name,
		       const char *value, struct config_problem *p)
{
	struct config_problem nodes = { 0 };
	const char *allowed = NULL;
	size_t n = strlen(value);

	switch (kind) {
	case VALUE_BOOL:
		if (n != 1 || (*value != '0' && *value != '1'))
			allowed = "0 or 1";
		break;
	case VALUE_AUTOBOOL:
		if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0 &&
		    strcmp(value, "auto") != 0)
			allowed = "0, 1 or auto";
		break;
	case VALUE_UINT:
		if (n > 9 || strspn(value, "0123456789") != n)
			allowed = "a whole number";
		break;
	case VALUE_INTERVAL:
		if (!is_interval(value))
			allowed = "a whole number and a unit such as seconds, "
				  "minutes or hours";
		break;
	case VALUE_NODES:
		if (config_check_node_list(value, &nodes) < 0)
			return config_problem_set(
				p,
				"fingerprints, address ranges and countries, "
				"separated by commas",
				"option %s: %.150s", name, nodes.what);
		break;
	case VALUE_TEXT:
	case VALUE_COUNT: break;
	}
	if (allowed)
		return config_problem_set(p, allowed, "option %s: wrong value",
					  name);
	return 0;
}

int config_check_tor_option(const char *line, struct config_problem *p)
{
	static const char form[] = "\"NAME VALUE\", at most 1000 bytes";
	char name[64];
	const char *value;
	size_t n = 0;

	while (isalnum((unsigned char)line[n]))
		n++;
	if (line[0] == '%')
		return config_problem_set(p, form, "it includes a file");
	if (n == 0 || n >= sizeof(name) || (line[n] != ' ' && line[n] != '\0'))
		return config_problem_set(p, form,
					  "does not begin with an option's "
					  "name");
	memcpy(name, line, n);
	name[n] = '\0';
	value = line + n + strspn(line + n, " ");
	if (strlen(line) > 1000)
		return config_problem_set(p, form, "option %s: too long", name);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (strcasecmp(options[i].name, name) != 0)
			continue;
		if (*value == '\0')
			return config_problem_set(
				p, form, "option %s has no value", name);
		/* A backslash would join the next line of the torrc to this
		 * one, a quote or '#' would hide the rest. */
		if (strpbrk(value, "\\\"#"))
			return config_problem_set(
				p, "values without \\, \" and #",
				"option %s: wrong value", name);
		return check_value(options[i].kind, name, value, p);
	}
	return refuse_name(name, p);
}

bool config_chooses_relays(const struct config *cfg)
{
	if (cfg->tor.exit_nodes[0] || cfg->tor.exclude_nodes[0] ||
	    cfg->tor.exclude_exit_nodes[0])
		return true;
	for (size_t i = 0; i < cfg->tor.n_options; i++)
		for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
			const char *line = cfg->tor.options[i];
			size_t n = strlen(options[k].name);

			if (options[k].kind == VALUE_NODES &&
			    !strncasecmp(line, options[k].name, n) &&
			    line[n] == ' ')
				return true;
		}
	return false;
}
