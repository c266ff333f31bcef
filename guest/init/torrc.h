/*
 * opt/torvm/torrc: the guest does not write Tor's configuration, it only
 * refuses one that would break what the guest promises.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "init/config.h"

/**
 * guest_torrc_check() - Look for lines the guest cannot live with
 * @text:	@len bytes, need not be terminated
 * @config:	Where the ports are bound, whether DataDirectory is on the disk
 * @ret_geoip:	Whether Tor is told of the list of countries, GUEST_TORRC_GEOIP
 *
 * Checks the lines named in init/contract.h and nothing else: Tor itself judges
 * the rest. Pure: no I/O. Return: 0, or -EINVAL with a sentence that names the
 * option, never its value (a bridge line is a secret).
 */
int guest_torrc_check(const char *text, size_t len,
		      const struct guest_config *config, bool *ret_geoip,
		      struct error *e);
