/* The system call filter of what speaks with the network for Tor. */
#pragma once

/**
 * seccomp_confine() - Refuse system calls that a transport never needs
 *
 * For this process and all it becomes. no-new-privs has to be set. Return: 0 or
 * a negative errno.
 */
int seccomp_confine(void);
