/*
 * Theory of operation
 *
 * PID 1 stands where Tor would stand for a managed transport, for three
 * reasons: the transport gets a user of its own, so that the firewall can let
 * it out and keep Tor in (a Tor that cannot reach its bridges has no other way
 * at all); Tor keeps its sandbox, which it refuses to combine with a transport
 * that it starts itself; and the transport's end can be told from Tor's.
 *
 * The login of a proxy goes in by the environment, as pt-spec.txt has it: no
 * other user reads that.
 */
#include "init/transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ip.h"
#include "base/util.h"
#include "init/child.h"
#include "init/contract.h"

#define TRANSPORT_PROGRAM "/usr/bin/lyrebird"
#define TRANSPORT_STATE "/run/transport"

int transport_prepare(struct error *e)
{
	if (access(TRANSPORT_PROGRAM, X_OK) < 0)
		return error_set(e, -errno,
				 "the image of the pluggable transports was "
				 "not handed in");
	if (mkdir(TRANSPORT_STATE, 0700) < 0 ||
	    chown(TRANSPORT_STATE, GUEST_TRANSPORT_UID, GUEST_TRANSPORT_UID) <
		    0)
		return error_set(e, -errno,
				 "cannot make the transport's folder: %s",
				 strerror(errno));
	return 0;
}

static void proxy_variable(const struct guest_proxy *proxy,
			   const struct in6_addr *address, char *ret,
			   size_t size)
{
	const bool v4 = ip_is_v4(address);
	char ip[IP_TEXT_MAX];

	ip_format(address, ip);
	snprintf(ret, size, "TOR_PT_PROXY=%s://%s%s%s%s%s:%u", proxy->scheme,
		 proxy->login, proxy->login[0] ? "@" : "", v4 ? "" : "[", ip,
		 v4 ? "" : "]", proxy->port);
}

static const char state_location[] = "TOR_PT_STATE_LOCATION=" TRANSPORT_STATE;

pid_t transport_start(const struct guest_config *config,
		      const struct in6_addr *proxy, int *ret_output,
		      struct error *e)
{
	static const char *const argv[] = { TRANSPORT_PROGRAM, NULL };
	char method[64], proxy_line[1024];
	const char *environment[] = {
		"TOR_PT_MANAGED_TRANSPORT_VER=1",
		state_location,
		"TOR_PT_EXIT_ON_STDIN_CLOSE=0",
		/* Names are looked up in the hosts file; there is no
		 * resolver that it could ask. */
		"GODEBUG=netdns=go",
		method,
		NULL,
		NULL,
	};
	const struct child child = {
		.what = "the pluggable transport",
		.argv = argv,
		.environment = environment,
		.uid = GUEST_TRANSPORT_UID,
		.filtered = true,
	};
	pid_t pid;

	snprintf(method, sizeof(method), "TOR_PT_CLIENT_TRANSPORTS=%s",
		 config->transport);
	if (config->proxy.scheme[0]) {
		proxy_variable(&config->proxy, proxy, proxy_line,
			       sizeof(proxy_line));
		environment[ARRAY_SIZE(environment) - 2] = proxy_line;
	}
	pid = child_start(&child, ret_output, e);
	explicit_bzero(proxy_line, sizeof(proxy_line));
	return pid;
}
