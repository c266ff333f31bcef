/* The way to the bridge service, while Tor is not connected: a program of its
 * own, which PID 1 starts without privileges. */
#pragma once

#include "init/config.h"

#define MOAT_WORD "moat"       /* argv[1] */
#define MOAT_LISTENS "listens" /* the line it says once it does */

/**
 * moat_start() - Start it
 * @transport_port:	Where the transport listens
 * @ret_output:		What it says, non-blocking, the caller's
 *
 * Return: its process id or a negative errno, as child_start().
 */
pid_t moat_start(const struct guest_config *config, uint16_t transport_port,
		 int *ret_output, struct error *e);

/**
 * moat_main() - Lead connections into the transport
 * @argv:	The address to listen on, the transport's port, its arguments
 *
 * Return: exit status; does not return while all is well
 */
int moat_main(int argc, char **argv);
