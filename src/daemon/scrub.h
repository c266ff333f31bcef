/* Keeps what the guest says free of what the log must not hold. */
#pragma once

#include "config/config.h"

/**
 * scrub_line() - Cover the secrets of a configuration in a line, with asterisks
 * @line:	Changed in place
 *
 * Secret are the bridges' addresses and fingerprints, whatever follows the
 * address in their lines, and the proxy's password. Tor and the transports
 * scrub addresses themselves, but not in every message.
 */
void scrub_line(const struct config *cfg, char *line);
