/* The broker gives up what it will not need. */
#pragma once

#include "base/error.h"

/**
 * sandbox_enter() - Bound the capabilities, then filter the system calls
 *
 * After the spawner was forked and everything with a path was opened; there is
 * no way back. Return: 0 or a negative errno with a sentence.
 */
int sandbox_enter(struct error *e);
