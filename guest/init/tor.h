/* Starting and ending Tor. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "init/names.h"

#define TOR_TORRC "/run/torvm/torrc"

/* Makes Tor's folders; its DataDirectory too, on the RAM disk, if @ram_data.
 * @geoip: the list of countries has to be there. Called once. */
int tor_prepare(bool ram_data, bool geoip, struct error *e);

/**
 * tor_write_torrc() - Write what Tor reads when it starts
 * @torrc:	Of the host, @len bytes, at most GUEST_FILE_MAX
 * @names:	Where the proxy is, if it is given by name
 * @transport_port: Where the transport listens on 127.0.0.1; 0: none
 */
int tor_write_torrc(const char *torrc, size_t len, const struct names *names,
		    uint16_t transport_port, struct error *e);

/**
 * tor_start() - Start Tor without privileges
 * @ret_output:	The read end of its output, non-blocking, the caller's
 *
 * Return: its process id, or a negative errno. That it cannot be executed is
 * seen as exit code 127.
 */
pid_t tor_start(int *ret_output, struct error *e);

/* Return: a non-blocking connection to Tor's ControlSocket, or a negative
 * errno. Never blocks. */
int tor_connect(void);

/**
 * tor_ask_to_stop() - SIGNAL SHUTDOWN on a control connection
 * @control:	From tor_connect(), or -1; to be kept open until Tor is gone
 *
 * Not a signal of the kernel: Tor's sandbox was seen to leave a random set of
 * them blocked. Return: 0, or a negative errno: then only SIGKILL is left.
 */
int tor_ask_to_stop(int control);
