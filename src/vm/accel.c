/*
 * Theory of operation: see accel.h. The decision is pure; the file holds two
 * words, "BOOT_ID ACCEL", because a verdict depends on the running kernel,
 * firmware and hypervisor, none of which changes without a boot. It is a hint
 * for speed: anything odd about it means "not known".
 */
#include "vm/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define BOOT_ID_LEN 36

void accel_first(enum config_accel wanted, bool kvm_usable, int remembered,
		 struct accel *ret)
{
	*ret = (struct accel){ 0 };
	switch (wanted) {
	case CONFIG_ACCEL_KVM:
		ret->current = VM_ACCEL_KVM;
		str_copy(ret->reason, sizeof(ret->reason),
			 "KVM, as configured.");
		return;
	case CONFIG_ACCEL_TCG:
		ret->current = VM_ACCEL_TCG;
		str_copy(ret->reason, sizeof(ret->reason),
			 "TCG (emulation), as configured.");
		return;
	case CONFIG_ACCEL_AUTO:
	case CONFIG_ACCEL_COUNT: break;
	}

	if (!kvm_usable) {
		ret->current = VM_ACCEL_TCG;
		str_copy(ret->reason, sizeof(ret->reason),
			 "TCG (emulation, slower): this machine offers no "
			 "/dev/kvm.");
	} else if (remembered == VM_ACCEL_TCG) {
		ret->current = VM_ACCEL_TCG;
		str_copy(ret->reason, sizeof(ret->reason),
			 "TCG (emulation, slower): KVM did not work earlier "
			 "in this boot of the machine.");
	} else {
		ret->current = VM_ACCEL_KVM;
		ret->fallback = true;
		str_copy(ret->reason, sizeof(ret->reason),
			 remembered == VM_ACCEL_KVM
				 ? "KVM: it worked earlier in this boot of the "
				   "machine."
				 : "KVM: /dev/kvm is there; a booting guest "
				   "will prove it.");
	}
}

bool accel_failed(struct accel *a, const char *why)
{
	if (a->current != VM_ACCEL_KVM || !a->fallback || a->proven)
		return false;
	a->current = VM_ACCEL_TCG;
	a->fallback = false;
	snprintf(a->reason, sizeof(a->reason),
		 "TCG (emulation, slower): no guest starts with KVM on this "
		 "machine (%.60s).",
		 why);
	return true;
}

void accel_proved(struct accel *a)
{
	a->proven = true;
}

int accel_kvm_probe(struct error *e)
{
	struct stat st;

	if (stat("/dev/kvm", &st) < 0 || !S_ISCHR(st.st_mode))
		return error_set(e, -ENOENT,
				 "there is no /dev/kvm: the processor's "
				 "virtualisation is off in its firmware, or "
				 "this machine is itself a VM without it");
	return 0;
}

static int read_text(int dirfd, const char *name, char *buf, size_t size)
{
	_cleanup_close_ int fd = -1;
	ssize_t n;

	fd = openat(dirfd, name,
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

static int boot_id(char buf[BOOT_ID_LEN + 1])
{
	int r;

	r = read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", buf,
		      BOOT_ID_LEN + 1);
	return r == 0 && strlen(buf) != BOOT_ID_LEN ? -EIO : r;
}

int accel_load(int state_dirfd)
{
	char id[BOOT_ID_LEN + 1], expected[64], text[64];

	if (boot_id(id) < 0 ||
	    read_text(state_dirfd, ACCEL_FILE, text, sizeof(text)) < 0)
		return -ENOENT;
	for (int i = 0; i < VM_ACCEL_COUNT; i++) {
		snprintf(expected, sizeof(expected), "%s %s\n", id,
			 vm_accel_name((enum vm_accel)i));
		if (!strcmp(text, expected))
			return i;
	}
	return -ENOENT;
}

int accel_store(int state_dirfd, enum vm_accel accel)
{
	_cleanup_close_ int fd = -1;
	char id[BOOT_ID_LEN + 1];
	int r;

	r = boot_id(id);
	if (r < 0)
		return r;
	/* Half a line after a crash reads as "not known": no rename needed. */
	fd = openat(state_dirfd, ACCEL_FILE,
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		    0600);
	if (fd < 0)
		return -errno;
	if (dprintf(fd, "%s %s\n", id, vm_accel_name(accel)) < 0)
		return -EIO;
	return 0;
}
