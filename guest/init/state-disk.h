/* The disk with Tor's DataDirectory. */
#pragma once

#include "base/error.h"

#define STATE_DISK_DEVICE "/dev/vda"
#define STATE_DISK_MOUNT "/var/lib/tor-state"

/**
 * state_disk_mount() - Check, mount and prepare the disk
 *
 * Waits up to 2 s for the device. Return: 0, or a negative errno with the
 * reason, a few words without the device's name, why it is unusable.
 */
int state_disk_mount(struct error *e);

/* Whether the mounted disk still takes data. Return: as above. */
int state_disk_probe(struct error *e);
