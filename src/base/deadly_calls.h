/*
 * System calls that none of our long-lived processes makes once it works:
 * seccomp(2) ends the one that does. Who adds calls of its own to the list
 * writes DEADLY_CALLS " more".
 */
#pragma once

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
