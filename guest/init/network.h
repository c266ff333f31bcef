/* The guest's links, addresses, route, neighbour and network sysctls. */
#pragma once

#include "init/config.h"

/**
 * network_name_links() - Call the two links eth0 and eth1, by their addresses
 *
 * Waits up to 3 s for the devices. The links stay down. Return: 0 or a negative
 * errno with a sentence in @e.
 */
int network_name_links(struct error *e);

/**
 * network_up() - Addresses, permanent neighbour, links up, default route
 *
 * The firewall has to be in place. Return: as above.
 */
int network_up(const struct guest_config *config, struct error *e);
