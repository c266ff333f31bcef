/*
 * QEMU's argument vector. Every host resource in it is an fd of vm/fds.h: by
 * itself QEMU opens its own files in /usr and, for KVM, /dev/kvm.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum vm_arch {
	VM_ARCH_AMD64,
	VM_ARCH_ARM64,
	VM_ARCH_COUNT,
};

/* Debian's name: "amd64", "arm64"; and QEMU's program of it. */
const char *vm_arch_name(enum vm_arch arch);
int vm_arch_from_name(const char *name); /* or -EINVAL */
const char *vm_arch_qemu(enum vm_arch arch);
/* The architecture this program was built for. */
enum vm_arch vm_arch_host(void);

enum vm_accel {
	VM_ACCEL_KVM,
	VM_ACCEL_TCG,
	VM_ACCEL_COUNT,
};

const char *vm_accel_name(enum vm_accel accel); /* "kvm", "tcg" */

struct vm_args_input {
	const char *qemu_path; /* absolute: argv[0] */
	enum vm_arch arch;
	enum vm_accel accel;
	uint32_t memory_mb; /* MiB */
	uint32_t cpus;
	bool state_disk; /* VM_FD_STATE_DISK is there */
	bool ipv6;       /* the uplink has it */
	bool console;    /* more of the kernel's messages (--verbose) */
};

/**
 * vm_args_build() - Write the argument vector for BROKER_REQUEST_START_VM
 * @buf:	Receives NUL-separated strings, argv[0] first
 * @size:	Of @buf, in bytes (BROKER_ARGV_MAX)
 * @ret_len:	Bytes used, the last string's NUL included
 *
 * Pure. Return: 0, -E2BIG when @buf is too small, -EINVAL for an impossible
 * input (relative path)
 */
int vm_args_build(const struct vm_args_input *in, char *buf, size_t size,
		  size_t *ret_len, struct error *e);
