/*
 * The guest's torrc, from a validated configuration. Everything an option
 * means is decided here; which option names a user may write is decided by
 * src/config.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "config/config.h"

/* The pluggable transport that the VM has to start, as a bridge line calls it;
 * NULL: none. */
const char *torrc_transport(const struct config *cfg);

/**
 * torrc_render() - Write the torrc that goes to the guest by fw_cfg
 * @state_disk:	Whether the VM has one: where Tor keeps its guards
 * @ret:	Text owned by the caller (free())
 *
 * Return: 0; -EINVAL when a value of @cfg holds a line break or another control
 * character, -E2BIG when the text or a line is too long for the guest, -ENOMEM
 */
int torrc_render(const struct config *cfg, bool state_disk, char **ret,
		 struct error *e);
