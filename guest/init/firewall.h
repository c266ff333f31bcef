/* The guest's packet filter. */
#pragma once

#include "init/names.h"

/**
 * firewall_load() - Load the table in one transaction and list it back
 *
 * Return: 0, or a negative errno with a sentence in @e: then nothing may be
 * brought up.
 */
int firewall_load(const struct names *names, struct error *e);

/* Replaces what the uplink and the resolver may reach, in one transaction. */
int firewall_update(const struct names *names, struct error *e);
