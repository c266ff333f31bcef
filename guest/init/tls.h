/* The TLS client in front of a proxy that is spoken to by TLS: what Tor or the
 * transport says to GUEST_TLS_PORT on the loopback, it says to the proxy. */
#pragma once

#include "init/config.h"

/* Makes its folder. Called once. */
int tls_prepare(struct error *e);

/**
 * tls_start() - Start it without privileges
 * @address:	Where the proxy is
 * @ret_output:	What it says (tls_log.h), non-blocking, the caller's
 *
 * Return: its process id or a negative errno, as child_start().
 */
pid_t tls_start(const struct guest_tls_proxy *proxy,
		const struct in6_addr *address, int *ret_output,
		struct error *e);
