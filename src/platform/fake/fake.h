/*
 * The fake network: a recording twin of platform.h for unit tests.
 */
#pragma once

#include <stdbool.h>

#include "platform/platform.h"

enum fake_sysctl { FAKE_SYSCTL_STRICT = 1, FAKE_SYSCTL_LOOSE = 2 };

struct fake_net {
	/* What is "in the kernel". */
	bool firewall;
	enum net_firewall mode;
	bool rules;
	bool tap;
	bool tap_configured;
	bool dns;
	int rp_filter; /* of the one link, as in the kernel: 0 to 2 */

	/* Every call so far, "firewall_set(blocked) rules_add ...". */
	char log[8192];
	unsigned int n_calls; /* that can fail */

	/* Call number fail_at (from 1; 0: none) fails with -EIO; with
	 * fail_late the change is made all the same. */
	unsigned int fail_at;
	bool fail_late;
	bool dns_unsupported;

	/* Run before each change, with its name. */
	void (*before)(const char *call);

	/* Moments at which traffic could have left: the firewall was taken
	 * away while rules or TAP were up, or rules or a TAP were made without
	 * a firewall. */
	unsigned int violations;

	/* The next net_watch_read()'s answer. */
	unsigned int changed;
	int watch_fd;
};

extern struct fake_net fake_net;

/* Back to a host without TorVM (rp_filter strict), nothing recorded. */
void fake_net_reset(void);
/* Lets the watch report @changed, and makes it so in the fake kernel. */
void fake_net_disturb(unsigned int changed);
