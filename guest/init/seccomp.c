/*
 * Theory of operation
 *
 * A list of what is refused (EPERM), not of what is allowed: a transport is a
 * Go program, whose runtime takes up new calls with every release, and a list
 * of allowed ones would end it at the next. What is refused has no use in a
 * program that opens sockets and no files: it is the kernel's surface for one
 * that was taken over. Sockets are IPv4, IPv6, Unix and netlink (Go lists the
 * links by it) only.
 *
 * Another architecture's calls, x32 among them, end the program.
 */
#include "init/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define NUMBERS_END 0x40000000 /* x32 begins */
#else
/* aarch64: meson.build knows no third one. */
#define ARCH AUDIT_ARCH_AARCH64
#define NUMBERS_END 0x80000000
#endif

static const unsigned short refused[] = {
	SYS_ptrace,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_kcmp,
	SYS_pidfd_getfd,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_userfaultfd,
	SYS_io_uring_setup,
	SYS_io_uring_enter,
	SYS_io_uring_register,
	SYS_add_key,
	SYS_request_key,
	SYS_keyctl,
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_chroot,
	SYS_unshare,
	SYS_setns,
	SYS_move_mount,
	SYS_open_tree,
	SYS_fsopen,
	SYS_fsmount,
	SYS_fsconfig,
	SYS_mount_setattr,
	SYS_open_by_handle_at,
	SYS_name_to_handle_at,
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_reboot,
	SYS_swapon,
	SYS_swapoff,
	SYS_acct,
	SYS_quotactl,
	SYS_syslog,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_adjtimex,
	SYS_clock_adjtime,
	SYS_fanotify_init,
	SYS_personality,
	SYS_vmsplice,
	SYS_mq_open,
	SYS_shmget,
	SYS_msgget,
	SYS_semget,
};

static const unsigned short families[] = { AF_INET, AF_INET6, AF_UNIX,
					   AF_NETLINK };

#define N_REFUSED ARRAY_SIZE(refused)
#define N_FAMILIES ARRAY_SIZE(families)

#define AT(member) ((unsigned int)offsetof(struct seccomp_data, member))
#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, AT(member))
#define IF_EQUAL(value, yes, no) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))

int seccomp_confine(void)
{
	/* Head, the list, the socket's part, three ends. */
	struct sock_filter code[7 + N_REFUSED + 1 + N_FAMILIES + 3];
	struct sock_fprog program = { .filter = code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter)LOAD(arch);
	code[n++] = (struct sock_filter)IF_EQUAL(ARCH, 1, 0);
	code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)LOAD(nr);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K,
						 NUMBERS_END, 0, 1);
	code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
	/* Each that matches jumps over the rest to the refusal. */
	for (size_t i = 0; i < N_REFUSED; i++)
		code[n++] = (struct sock_filter)IF_EQUAL(
			refused[i],
			(unsigned char)(N_REFUSED - i + 1 + N_FAMILIES), 0);
	code[n++] = (struct sock_filter)IF_EQUAL(SYS_socket, 0, N_FAMILIES + 2);
	code[n++] = (struct sock_filter)LOAD(args[0]);
	for (size_t i = 0; i < N_FAMILIES; i++)
		code[n++] = (struct sock_filter)IF_EQUAL(
			families[i], (unsigned char)(N_FAMILIES - i), 0);
	code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ERRNO | EPERM);
	code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
	program.len = n;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno
									: 0;
}
