/* What `torvm recover` does. */
#pragma once

#include "broker/restore.h"

/**
 * recover_run() - Undo what a controller left, and lockdown
 * @runtime_dir:	Where its journal is; need not exist
 * @report:		Hears each thing that is done, or that nothing is left
 *
 * Needs root and no controller. Kills the old VM, then restore_network(): by
 * the journal, or, without one that is valid, by TorVM's own names. Lockdown is
 * turned off for this boot, and reported: recovery always ends in an open
 * network.
 *
 * Return: RESTORE_DONE; RESTORE_BLEMISHED with a sentence; -EBUSY: a
 * controller runs; -EPERM: not root; another negative errno: the block is
 * still up. With a sentence.
 */
int recover_run(const char *runtime_dir, restore_report_fn report,
		void *userdata, struct error *e);
