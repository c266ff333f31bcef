/* What the filters of our processes for system calls have in common. */
#pragma once

#include <seccomp.h>
#include <stdint.h>

#include "base/error.h"

/*
 * System calls that none of our long-lived processes makes once it works:
 * seccomp(2) ends the one that does. Who adds calls of its own to the list
 * writes DEADLY_CALLS " more".
 */
#define DEADLY_CALLS                                                          \
	"execve execveat fork vfork ptrace process_vm_readv "                 \
	"process_vm_writev pidfd_getfd kcmp setuid setgid setreuid setregid " \
	"setresuid setresgid setgroups setfsuid setfsgid capset mount "       \
	"umount2 move_mount open_tree fsopen fsmount pivot_root chroot "      \
	"unshare setns init_module finit_module delete_module kexec_load "    \
	"kexec_file_load bpf perf_event_open userfaultfd add_key keyctl "     \
	"request_key reboot swapon swapoff settimeofday clock_settime "       \
	"adjtimex mknod mknodat chown fchown lchown fchownat setxattr kill "  \
	"tkill"

/**
 * syscall_filter_add() - Give calls an action, whatever their arguments
 * @names:	Separated by spaces, at most 1023 bytes; a call that this
 *		architecture does not have is passed over
 *
 * Return: 0 or a negative errno of libseccomp's
 */
int syscall_filter_add(scmp_filter_ctx filter, uint32_t action,
		       const char *names);

/**
 * syscall_filter_load() - Put the filter up, if it was made, and release it
 * @filter:	Released in any case; NULL if it could not be made
 * @r:		What making it returned; with an error nothing is put up
 *
 * For this thread and what it starts later. Return: 0 or a negative errno with
 * a sentence.
 */
int syscall_filter_load(scmp_filter_ctx filter, int r, struct error *e);
