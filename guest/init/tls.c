/*
 * Theory of operation
 *
 * Neither Tor nor a transport can speak TLS to a proxy. Debian's stunnel does
 * it for them, under a user of its own, which is then the only one that the
 * firewall lets out: if it does not run, or does not believe the proxy, nothing
 * gets there, in the clear or otherwise.
 *
 * The certificate has to be made out to the name, or else the address, of
 * proxy.address, by an authority of the host's proxy.ca_file, which comes with
 * the initramfs, or by a public one where there is no such file.
 *
 * Nothing in its configuration is secret: the login is in what Tor says.
 */
#include "init/tls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ip.h"
#include "init/child.h"
#include "init/contract.h"
#include "init/system.h"

#define TLS_PROGRAM "/usr/bin/stunnel4"
#define TLS_FOLDER "/run/tls"
#define TLS_CONF TLS_FOLDER "/conf"
#define TLS_PUBLIC_AUTHORITIES "/etc/ssl/certs/ca-certificates.crt"

int tls_prepare(struct error *e)
{
	if (access(TLS_PROGRAM, X_OK) < 0)
		return error_set(e, -errno,
				 "the image with the TLS client for the proxy "
				 "was not handed in, or is an older one");
	if (mkdir(TLS_FOLDER, 0755) < 0)
		return error_set(e, -errno,
				 "cannot make the TLS client's folder: %s",
				 strerror(errno));
	return 0;
}

static int write_conf(const struct guest_tls_proxy *proxy,
		      const struct in6_addr *address, struct error *e)
{
	char text[1024], ip[IP_TEXT_MAX];
	struct in6_addr literal;
	bool named = ip_parse(proxy->host, &literal) < 0;
	int n;

	/* The port is what follows the last colon: no brackets. */
	n = snprintf(text, sizeof(text),
		     "foreground = yes\n"
		     "syslog = no\n"
		     "debug = notice\n"
		     "pid =\n"
		     "[proxy]\n"
		     "client = yes\n"
		     "accept = 127.0.0.1:%d\n"
		     "connect = %s:%u\n"
		     "verifyChain = yes\n"
		     "%s = %s\n"
		     "sni = %s\n"
		     "CAfile = %s\n"
		     "sslVersionMin = TLSv1.2\n"
		     "TIMEOUTconnect = 30\n"
		     "TIMEOUTbusy = 60\n",
		     GUEST_TLS_PORT, ip_format(address, ip), proxy->port,
		     named ? "checkHost" : "checkIP", proxy->host,
		     named ? proxy->host : "",
		     proxy->own_authorities ? GUEST_TLS_AUTHORITIES
					    : TLS_PUBLIC_AUTHORITIES);
	if (n < 0 || (size_t)n >= sizeof(text))
		return error_set(e, -E2BIG, "the proxy's name is too long");
	return system_write_file(TLS_CONF, text, (size_t)n, 0444, e);
}

pid_t tls_start(const struct guest_tls_proxy *proxy,
		const struct in6_addr *address, int *ret_output,
		struct error *e)
{
	static const char *const argv[] = { TLS_PROGRAM, TLS_CONF, NULL };
	static const char *const environment[] = { NULL };
	const struct child child = {
		.what = "the TLS client for the proxy",
		.argv = argv,
		.environment = environment,
		.uid = GUEST_TLS_UID,
		.filtered = true,
	};
	int r = write_conf(proxy, address, e);

	return r < 0 ? r : child_start(&child, ret_output, e);
}
