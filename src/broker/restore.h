/*
 * Taking down what the broker has put up, in the one safe order.
 */
#pragma once

#include "broker/journal.h"

/* @text: one sentence per thing done or not done, valid during the call. */
typedef void (*restore_report_fn)(void *userdata, const char *text);

enum {
	RESTORE_DONE = 0,
	/* The network is open again, but a kernel setting could not be put
	 * back; the journal still holds it. */
	RESTORE_BLEMISHED = 1,
};

enum restore_end {
	RESTORE_TO_OPEN,
	RESTORE_TO_LOCKDOWN,   /* the block stays, marked as lockdown's */
	RESTORE_TO_CONTROLLER, /* firewall and journal stay for the next one */
};

/**
 * restore_network() - Bring the network back to how it was found
 * @dir_fd:	The runtime directory, whose journal is removed at the end
 * @j:		What is up; bits are taken away as it goes down
 * @end:		What becomes of the firewall
 *
 * No VM runs any more. Order: sockets bound to the TAP's address, TAP, DNS,
 * sysctls, policy rules, firewall. If TAP or rules cannot be removed, it ends
 * there: the firewall never goes while either is up.
 *
 * Return: RESTORE_DONE; RESTORE_BLEMISHED, with a sentence in @e; or a
 * negative errno with a sentence: the block is still up.
 */
int restore_network(struct net *net, int dir_fd, struct journal *j,
		    enum restore_end end, restore_report_fn report,
		    void *userdata, struct error *e);

/* What the runtime directory holds besides journal and lock. */
#define RUNTIME_CONTROL_SOCKET "control.sock"
#define RUNTIME_VM_DIR "vm"

/* Removes whatever a controller keeps in its runtime directory: sockets, lock;
 * the journal only goes with what it is about. */
void restore_clean_dir(int dir_fd);

/* What to take down when there is no journal to go by: all of it, under the
 * default names, but for the TAP, which is found. */
void restore_assume(struct net *net, struct journal *ret);

/**
 * restore_kill_vm() - Kill the QEMU of a controller that is gone
 * @pid:	As journalled; 0: none
 * @started:	Its start time: another process with that pid is left alone
 *
 * Blocks until it is dead, at most 10 s. Return: 1: killed; 0: there was
 * none; a negative errno with a sentence.
 */
int restore_kill_vm(pid_t pid, uint64_t started, struct error *e);
