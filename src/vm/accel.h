/*
 * Which accelerator to try. /dev/kvm may open and still not work, so an
 * accelerator counts only once a guest has booted with it; the verdict is
 * remembered until the host is booted again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "config/config.h"
#include "vm/args.h"

/* Name of the verdict's file in STATE_DIR. */
#define ACCEL_FILE "accel"
/* kvm with no sign of life from the guest for so long does not work, ms. */
#define ACCEL_PROOF_TIMEOUT_MS 8000

struct accel {
	enum vm_accel current;
	bool proven;      /* by a guest in this boot of the host */
	bool fallback;    /* a failure of current leads to tcg */
	char reason[160]; /* why this one, for the log; a sentence */
};

/**
 * accel_first() - What to try first
 * @wanted:	The configuration's or --accel's
 * @kvm_usable:	accel_kvm_probe() said 0
 * @remembered:	accel_load()'s verdict, or -1
 *
 * Pure.
 */
void accel_first(enum config_accel wanted, bool kvm_usable, int remembered,
		 struct accel *ret);

/**
 * accel_failed() - The guest showed no life with a->current
 * @why:	What was seen, for the sentence ("QEMU ended with status 1")
 *
 * Pure. Return: true when *@a now names another one to try at once (its reason
 * says why); false when there is none: an ordinary failed start
 */
bool accel_failed(struct accel *a, const char *why);

/* The guest has said hello with a->current. Pure. */
void accel_proved(struct accel *a);

/* Return: 0 when there is a /dev/kvm; -ENOENT with why otherwise. It is not
 * opened: QEMU's user may where the engine's may not. */
int accel_kvm_probe(struct error *e);

/* The verdict for this boot: enum vm_accel, or -ENOENT (none, another boot's,
 * malformed). */
int accel_load(int state_dirfd);
/* Return: 0 or negative errno. */
int accel_store(int state_dirfd, enum vm_accel accel);
