/*
 * Theory of operation: one list, top to bottom, for every machine; what differs
 * between architectures stands in one table. The result goes to the broker,
 * whose spawner executes it as the VM's user with exactly the fds of vm/fds.h.
 *
 * QEMU gets no file name but /proc/self/fd/N and /dev/fdset/N, so that it needs
 * no right in the host's file system (its firmware in /usr/share apart), and no
 * secret stands where every process can read it.
 */
#include "vm/args.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "init/contract.h"
#include "vm/fds.h"

/* TCG's cache of translated code, MiB, all of which gets resident in time. QEMU
 * would take up to 1 GiB. A boot fills 86, so a small cache is thrown away and
 * filled again; 48 is what the aim of 200 MiB leaves (docs/decisions/0002). */
#define TCG_CACHE_MIB 48

/* oops, panic: the VM ends (-no-reboot) and is started again, rather than stay
 * up half dead. loglevel 5: warnings and worse. The self-tests left out are of
 * algorithms that nothing in the guest uses (docs/decisions/0001),
 * trace_eval_init serves a tracer that nobody can ask (0003).
 * page_reporting_order 4: free pieces of 64 KiB go back to the host (0002). */
#define CMDLINE                                              \
	"panic=-1 oops=panic loglevel=%d cryptomgr.notests " \
	"page_reporting.page_reporting_order=4 "             \
	"initcall_blacklist=jent_mod_init,crypto_kdf108_init,trace_eval_init %s"

struct arch {
	const char *name;
	const char *qemu;
	const char *machine;
	const char *cmdline;
	const char *cpu_tcg;
};

static const struct arch archs[] = {
	[VM_ARCH_AMD64] = {
		.name = "amd64",
		.qemu = "qemu-system-x86_64",
		.machine = "q35,vmport=off,smbus=off,sata=off,usb=off,"
			   "hpet=off",
		/* no_timer_check: on a busy host an emulated timer may be
		 * late; without it the kernel takes that for a broken board
		 * and panics. edd: no BIOS disks to ask for. */
		.cmdline = "console=ttyS0 no_timer_check edd=off vsyscall=none",
		/* TCG runs "rep movsb" and "rep stosb" a byte at a time; a
		 * guest that is not told they are fast moves words (0004). */
		.cpu_tcg = "max,-erms,-fsrm",
	},
	[VM_ARCH_ARM64] = {
		.name = "arm64",
		.qemu = "qemu-system-aarch64",
		.machine = "virt,gic-version=max",
		.cmdline = "console=ttyAMA0",
		.cpu_tcg = "max",
	},
};
static_assert(ARRAY_SIZE(archs) == VM_ARCH_COUNT, "archs");

static const char *const accel_names[] = {
	[VM_ACCEL_KVM] = "kvm",
	[VM_ACCEL_TCG] = "tcg",
};
static_assert(ARRAY_SIZE(accel_names) == VM_ACCEL_COUNT, "accel names");

const char *vm_arch_name(enum vm_arch arch)
{
	return archs[arch].name;
}

const char *vm_arch_qemu(enum vm_arch arch)
{
	return archs[arch].qemu;
}

int vm_arch_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(archs); i++)
		if (!strcmp(name, archs[i].name))
			return (int)i;
	return -EINVAL;
}

enum vm_arch vm_arch_host(void)
{
#if defined(__aarch64__)
	return VM_ARCH_ARM64;
#else
	return VM_ARCH_AMD64; /* meson.build knows no third one */
#endif
}

const char *vm_accel_name(enum vm_accel accel)
{
	return accel_names[accel];
}

struct list {
	char *buf;
	size_t size;
	size_t len;
	bool full;
};

/* Appends one argument. */
static void _printf_(2, 3) add(struct list *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->buf + l->len, l->size - l->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= l->size - l->len)
		l->full = true;
	else
		l->len += (size_t)n + 1;
}

/* Appends an option and its value. */
#define option(l, name, ...)         \
	do {                         \
		add(l, "-" name);    \
		add(l, __VA_ARGS__); \
	} while (0)

static void add_machine(struct list *l, const struct vm_args_input *in)
{
	const struct arch *arch = &archs[in->arch];

	option(l, "name", "torvm");
	add(l, "-nodefaults");
	add(l, "-no-user-config");
	add(l, "-no-reboot");
	option(l, "display", "none");
	option(l, "msg", "timestamp=off");
	option(l, "sandbox",
	       "on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
	       "resourcecontrol=deny");
	/* What the guest holds is in no core dump, and not compared with the
	 * pages of others (KSM), which would show them what it holds. */
	option(l, "machine", "%s,dump-guest-core=off,mem-merge=off",
	       arch->machine);
	switch (in->accel) {
	case VM_ACCEL_KVM:
		option(l, "accel", "kvm");
		option(l, "cpu", "host");
		break;
	case VM_ACCEL_TCG:
		option(l, "accel", "tcg,tb-size=%d", TCG_CACHE_MIB);
		option(l, "cpu", "%s", arch->cpu_tcg);
		break;
	case VM_ACCEL_COUNT: break;
	}
	option(l, "m", "%u", in->memory_mb);
	option(l, "smp", "%u", in->cpus);
	option(l, "rtc", "base=utc");
}

static void add_boot(struct list *l, const struct vm_args_input *in)
{
	option(l, "kernel", "/proc/self/fd/%d", VM_FD_KERNEL);
	option(l, "initrd", "/proc/self/fd/%d", VM_FD_INITRD);
	option(l, "append", CMDLINE, in->console ? 7 : 5,
	       archs[in->arch].cmdline);
	option(l, "fw_cfg",
	       "name=" GUEST_FW_CFG_CONFIG ",file=/proc/self/fd/%d",
	       VM_FD_CONFIG);
	option(l, "fw_cfg", "name=" GUEST_FW_CFG_TORRC ",file=/proc/self/fd/%d",
	       VM_FD_TORRC);
}

/* A listening socket made by the broker: whoever connects next is served. */
static void add_channel(struct list *l, const char *id, enum vm_fd fd)
{
	option(l, "chardev", "socket,id=%s,fd=%d,server=on,wait=off", id, fd);
}

static void add_channels(struct list *l)
{
	add_channel(l, "qmp", VM_FD_QMP);
	option(l, "mon", "chardev=qmp,mode=control");
	add_channel(l, "console", VM_FD_CONSOLE);
	option(l, "serial", "chardev:console");
	option(l, "device", "virtio-serial-pci,max_ports=3");
	add_channel(l, "agent", VM_FD_AGENT);
	option(l, "device",
	       "virtserialport,nr=1,chardev=agent,name=" GUEST_PORT_AGENT);
	add_channel(l, "torctl", VM_FD_TORCTL);
	option(l, "device",
	       "virtserialport,nr=2,chardev=torctl,name=" GUEST_PORT_TORCTL);
}

static void add_devices(struct list *l, const struct vm_args_input *in)
{
	option(l, "object", "rng-builtin,id=rng");
	option(l, "device", "virtio-rng-pci,rng=rng");
	/* Never inflated: only the guest gives back, and what it frees. */
	option(l, "device", "virtio-balloon-pci,free-page-reporting=on");
	if (in->state_disk) {
		/* An fd set keeps the descriptor, and with it our lock. */
		option(l, "add-fd", "fd=%d,set=1", VM_FD_STATE_DISK);
		option(l, "blockdev",
		       "driver=file,node-name=state,filename=/dev/fdset/1,"
		       "discard=unmap");
		option(l, "device", "virtio-blk-pci,drive=state");
	}
	/* The guest knows its links by these addresses
	 * (docs/guest-protocol.md). romfile=: nothing boots from a network. */
	option(l, "netdev",
	       "user,id=uplink,net=10.0.2.0/24,host=" GUEST_ETH0_GATEWAY ","
	       "dhcpstart=" GUEST_ETH0_ADDRESS ",%s",
	       in->ipv6 ? "ipv4=on,ipv6=on,ipv6-prefix=" GUEST_ETH0_PREFIX6
			  ",ipv6-prefixlen=64,ipv6-host=" GUEST_ETH0_GATEWAY6
			: "ipv6=off");
	option(l, "device",
	       "virtio-net-pci,netdev=uplink,mac=" GUEST_MAC_ETH0 ",romfile=");
	option(l, "netdev", "tap,id=tap,fd=%d", VM_FD_TAP);
	option(l, "device",
	       "virtio-net-pci,netdev=tap,mac=" GUEST_MAC_ETH1 ",romfile=");
}

int vm_args_build(const struct vm_args_input *in, char *buf, size_t size,
		  size_t *ret_len, struct error *e)
{
	struct list l = { .buf = buf, .size = size };

	if (in->qemu_path[0] != '/')
		return error_set(e, -EINVAL,
				 "the path of QEMU must be absolute, not '%s'",
				 in->qemu_path);
	add(&l, "%s", in->qemu_path);
	add_machine(&l, in);
	add_boot(&l, in);
	add_channels(&l);
	add_devices(&l, in);
	if (l.full)
		return error_set(e, -E2BIG,
				 "QEMU's arguments are over %zu bytes", size);
	*ret_len = l.len;
	return 0;
}
