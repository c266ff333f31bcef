/*
 * Lockdown: the block without a controller behind it, asked for by the user
 * (`torvm lockdown on`) and put up at boot by torvm-block.
 *
 * It is on as long as RUNTIME_DIR/lockdown exists. The block in the kernel is
 * marked too (NET_FIREWALL_LOCKDOWN), so that a controller with another
 * runtime directory, and `torvm recover`, can tell it from what a dead
 * controller left.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "platform/platform.h"

#define LOCKDOWN_FLAG "lockdown" /* in RUNTIME_DIR */

/* Whether lockdown is on. What cannot be found out counts as on. */
bool lockdown_flag_present(int runtime_fd);
/* Turns it on or off, without touching the block. 0 or a negative errno. */
int lockdown_flag_set(int runtime_fd);
int lockdown_flag_remove(int runtime_fd);

/* The names the block is made with when nothing was configured. */
struct net_plan lockdown_plan(void);

/**
 * lockdown_enter() - Put the block up and turn lockdown on
 * @runtime_dir:	Made if it is not there; its parent must be
 *
 * Needs CAP_NET_ADMIN. Where a controller runs, its own block is in place;
 * lockdown then takes effect when it ends.
 * Return: 0: the block is up; 1: it is the running controller's; a negative
 * errno with a sentence.
 */
int lockdown_enter(const char *runtime_dir, struct error *e);

/**
 * lockdown_leave() - Turn lockdown off and take its block down
 *
 * What a running or a dead controller has put up stays.
 * Return: 0: the network is open; 1: a controller runs; 2: what a dead
 * controller left is still there; a negative errno with a sentence.
 */
int lockdown_leave(const char *runtime_dir, struct error *e);
