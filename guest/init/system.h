/* File systems, kernel modules and kernel settings, in the order of a boot. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/* /proc, /sys, /dev, /run and /tmp. Called once. */
int system_mount(struct error *e);

/**
 * system_load_modules() - Load what /etc/torvm/modules lists, in its order
 * @optional_failed:	Called with a sentence for a "?" line that failed
 */
int system_load_modules(void (*optional_failed)(void *userdata,
						const char *text),
			void *userdata, struct error *e);

/* Kernel settings (sysctl). After the modules, before links are up. */
int system_tune(bool ipv6, struct error *e);

/**
 * system_lock_down() - Take away what is not needed after the boot
 *
 * No module can be loaded any more; the root file system is read-only; /sys is
 * gone and /dev holds three harmless devices. Irreversible.
 */
int system_lock_down(struct error *e);

/* Writes a file of @len bytes, owner root, group Tor, in the place of what is
 * there. */
int system_write_file(const char *path, const char *data, size_t len,
		      mode_t mode, struct error *e);

/**
 * system_read_fw_cfg() - Read one of QEMU's fw_cfg files
 * @name:	GUEST_FW_CFG_*
 * @buf:	GUEST_FILE_MAX + 1 bytes
 *
 * Return: its length, or a negative errno with a sentence.
 */
int system_read_fw_cfg(const char *name, char *buf, struct error *e);

/* Total and available memory in KiB. Return: 0 or a negative errno. */
int system_memory(long *ret_total_kib, long *ret_available_kib);

/* Milliseconds since boot, suspend included. */
long long system_now_ms(void);

/* Unmounts the state disk, syncs, powers off. Does not return. */
_Noreturn void system_power_off(void);
