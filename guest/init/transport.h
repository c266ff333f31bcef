/* The pluggable transport: a client that Tor reaches its bridges through. */
#pragma once

#include "init/config.h"

/* Makes its folder. Called once. */
int transport_prepare(struct error *e);

/**
 * transport_start() - Start the configured transport without privileges
 * @proxy:	Where its proxy is, if it has one
 * @ret_output:	What it says (pt.h), non-blocking, the caller's
 *
 * Return: its process id or a negative errno, as child_start().
 */
pid_t transport_start(const struct guest_config *config,
		      const struct in6_addr *proxy, int *ret_output,
		      struct error *e);
