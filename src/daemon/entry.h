/* By what Tor is entered, and what is tried next if that does not work
 * (bridge.automatic). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "tor/obstacle.h"

struct engine;

#define ENTRY_TRIED_MAX 8

struct entry {
	struct engine *engine;
	/* What the configuration says, while something else is tried. */
	bool replaced;
	bool use_bridges;
	enum config_transport transport;
	char **bridges;
	size_t n_bridges;
	/* Tor is not entered at all: the bridge service is asked (moat.h). */
	bool moat;
	int before_moat; /* the transport of automatic mode, or -1 */
	bool moat_left;  /* a VM of an earlier engine is like that */
	/* What was tried and at what it failed, "direct: timeout"; the latest
	 * ones. */
	char tried[ENTRY_TRIED_MAX][48];
	size_t n_tried;
};

/* The engine's configuration is read. An engine that takes over a VM goes on
 * with what the last one had chosen. */
void entry_init(struct entry *entry, struct engine *e);
/* The configuration is as it was read. */
void entry_deinit(struct entry *entry);

/**
 * entry_enter_moat() - The VM's next start leads to the bridge service, not
 *			into Tor
 *
 * Return: 0, or a negative errno with a sentence: it cannot, and nothing has
 * changed.
 */
int entry_enter_moat(struct entry *entry, struct error *e);
/* Back to what was before, or the VM that was left so is no more. */
void entry_leave_moat(struct entry *entry);

/* Tor is connected. */
void entry_worked(struct entry *entry);

/**
 * entry_change() - The way in that is in use does not work
 *
 * If bridge.automatic says so, and another way in may help, the configuration
 * in use is changed; the caller sees to it that the VM is started anew. Return:
 * whether.
 */
bool entry_change(struct entry *entry, enum tor_obstacle obstacle);
/* Tor does not get on: entry_change(), and the VM is started anew (VM_FAILED).
 */
void entry_failed(struct entry *entry, enum tor_obstacle obstacle);

/* "direct", "plain", "obfs4", "meek", "snowflake", "webtunnel"; "moat" */
const char *entry_name(const struct entry *entry);
