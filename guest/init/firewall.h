/* The guest's packet filter. */
#pragma once

#include "init/config.h"

/**
 * firewall_load() - Load the table in one transaction and list it back
 *
 * Return: 0, or a negative errno with a sentence in @e: then nothing may be
 * brought up.
 */
int firewall_load(const struct guest_config *config, struct error *e);
