/*
 * Theory of operation
 *
 * The root file system is the initramfs: it holds init, Tor and its libraries,
 * the modules, and is written to only until system_lock_down(). Tor runs as an
 * unprivileged user in the same mount namespace; instead of building it another
 * one, PID 1 removes what neither of them needs once everything is open: /sys
 * is unmounted and /dev covered. /proc stays, since Tor and PID 1 read
 * /proc/meminfo, with other users' processes hidden.
 */
#include "init/system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "init/contract.h"
#include "init/state-disk.h"

#define MODULE_LIST "/etc/torvm/modules"
#define MODULE_LIST_MAX 16384 /* bytes */
#define FW_CFG_DIR "/sys/firmware/qemu_fw_cfg/by_name/"

#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static const struct {
	const char *type;
	const char *target;
	unsigned long flags;
	const char *options;
} mounts[] = {
	/* hidepid=2: Tor sees no process but its own. */
	{ "proc", "/proc", SAFE, "hidepid=2" },
	{ "sysfs", "/sys", SAFE, NULL },
	{ "devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755" },
	/* /run also holds Tor's data when there is no state disk. */
	{ "tmpfs", "/run", SAFE, "mode=0755,size=64m" },
	{ "tmpfs", "/tmp", SAFE, "mode=1777,size=4m" },
};

int system_mount(struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].target, 0755);
		if (mount(mounts[i].type, mounts[i].target, mounts[i].type,
			  mounts[i].flags, mounts[i].options) < 0)
			return error_set(e, -errno, "cannot mount %s: %s",
					 mounts[i].target, strerror(errno));
	}
	return 0;
}

/* Return: the length of what is now in @buf, terminated, or negative errno */
static int read_small_file(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return -errno;
	while (len < size) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0)
			return -errno;
		if (n == 0) {
			buf[len] = '\0';
			return (int)len;
		}
		len += (size_t)n;
	}
	return -EFBIG;
}

static int load_module(const char *path, struct error *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, -errno, "cannot open the module %s: %s",
				 path, strerror(errno));
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		return error_set(e, -errno, "cannot load the module %s: %s",
				 path, strerror(errno));
	return 0;
}

int system_load_modules(void (*optional_failed)(void *userdata,
						const char *text),
			void *userdata, struct error *e)
{
	static char list[MODULE_LIST_MAX];
	char *rest = list, *line;
	int r = read_small_file(MODULE_LIST, list, sizeof(list));

	if (r < 0)
		return error_set(e, r, "cannot read %s: %s", MODULE_LIST,
				 strerror(-r));
	while ((line = strsep(&rest, "\n"))) {
		bool optional = line[0] == '?';
		const char *path = line + optional;

		if (!*path || *path == '#')
			continue;
		r = load_module(path, e);
		if (r < 0 && !optional)
			return r;
		if (r < 0)
			optional_failed(userdata, e ? e->text : path);
	}
	return 0;
}

/* @optional: the kernel may have been built without it. */
static const struct {
	const char *path; /* below /proc/sys */
	const char *value;
	bool optional;
} settings[] = {
	/* Nothing passes through this machine. */
	{ "net/ipv4/ip_forward", "0", false },
	{ "net/ipv6/conf/all/disable_ipv6", "1", true },
	{ "net/ipv6/conf/default/disable_ipv6", "1", true },
	{ "net/ipv4/conf/all/rp_filter", "1", false },
	{ "net/ipv4/conf/default/rp_filter", "1", false },
	{ "net/ipv4/conf/all/accept_redirects", "0", false },
	{ "net/ipv4/conf/default/accept_redirects", "0", false },
	{ "net/ipv4/conf/all/send_redirects", "0", false },
	{ "net/ipv4/conf/default/send_redirects", "0", false },
	{ "net/ipv4/conf/all/accept_source_route", "0", false },
	{ "net/ipv4/conf/default/accept_source_route", "0", false },
	/* Either link answers for its own address only. */
	{ "net/ipv4/conf/all/arp_ignore", "1", false },
	{ "net/ipv4/conf/all/arp_announce", "2", false },
	/* The firewall has its own limit; this one refuses too slowly. */
	{ "net/ipv4/icmp_ratelimit", "0", false },
	{ "net/ipv4/icmp_msgs_per_sec", "1000", true },
	/* An ACK of nobody's connection is refused, not adopted. */
	{ "net/netfilter/nf_conntrack_tcp_loose", "0", false },
	{ "net/netfilter/nf_conntrack_max", "16384", false },

	{ "kernel/kptr_restrict", "2", false },
	{ "kernel/dmesg_restrict", "1", false },
	{ "kernel/sysrq", "0", true },
	{ "kernel/kexec_load_disabled", "1", true },
	{ "kernel/unprivileged_bpf_disabled", "1", true },
	{ "kernel/perf_event_paranoid", "3", true },
	{ "kernel/yama/ptrace_scope", "3", true },
	{ "kernel/io_uring_disabled", "2", true },
	{ "user/max_user_namespaces", "0", true },
	{ "fs/suid_dumpable", "0", true },
	{ "fs/protected_symlinks", "1", true },
	{ "fs/protected_hardlinks", "1", true },
	/* A broken kernel must not sit there with the network up. */
	{ "kernel/panic_on_oops", "1", true },
	{ "kernel/panic", "1", false },
};

/* eth0's IPv6, where it is asked for: one address and one route, both fixed.
 * Nothing is learnt, nothing is said unasked. The last line lets it begin. */
static const struct {
	const char *path;
	const char *value;
} ipv6_settings[] = {
	{ "net/ipv6/conf/all/forwarding", "0" },
	{ "net/ipv6/conf/eth0/accept_ra", "0" },
	{ "net/ipv6/conf/eth0/autoconf", "0" },
	{ "net/ipv6/conf/eth0/accept_redirects", "0" },
	{ "net/ipv6/conf/eth0/accept_source_route", "-1" },
	{ "net/ipv6/conf/eth0/accept_dad", "0" },
	{ "net/ipv6/conf/eth0/router_solicitations", "0" },
	{ "net/ipv6/conf/eth0/addr_gen_mode", "1" }, /* none: no fe80:: */
	{ "net/ipv6/conf/eth0/disable_ipv6", "0" },
};

static int write_setting(const char *path, const char *value)
{
	char full[128];
	_cleanup_close_ int fd = -1;
	size_t n = strlen(value);

	snprintf(full, sizeof(full), "/proc/sys/%s", path);
	fd = open(full, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, value, n) == (ssize_t)n ? 0 : -errno;
}

static int not_set(const char *path, const char *value, int r, struct error *e)
{
	return error_set(e, r, "cannot set %s to %s: %s", path, value,
			 strerror(-r));
}

int system_tune(bool ipv6, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		int r = write_setting(settings[i].path, settings[i].value);

		/* An optional one that exists is not optional. */
		if (r < 0 && !(settings[i].optional && r == -ENOENT))
			return not_set(settings[i].path, settings[i].value, r,
				       e);
	}
	for (size_t i = 0; ipv6 && i < ARRAY_SIZE(ipv6_settings); i++) {
		int r = write_setting(ipv6_settings[i].path,
				      ipv6_settings[i].value);

		if (r < 0)
			return not_set(ipv6_settings[i].path,
				       ipv6_settings[i].value, r, e);
	}
	return 0;
}

static int cover_dev(void)
{
	static const struct {
		const char *path;
		unsigned int minor;
	} nodes[] = {
		{ "/dev/null", 3 },
		{ "/dev/random", 8 },
		{ "/dev/urandom", 9 },
	};

	if (mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC,
		  "mode=0755,size=16k") < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		if (mknod(nodes[i].path, S_IFCHR | 0666,
			  makedev(1, nodes[i].minor)) < 0 ||
		    chmod(nodes[i].path, 0666) < 0)
			return -errno;
	return mount(NULL, "/dev", NULL,
		     MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0
		       ? -errno
		       : 0;
}

/* Believes what the kernel shows, not what it answered. */
static int check_lock(struct error *e)
{
	_cleanup_close_ int fd =
		open("/proc/sys/kernel/modules_disabled", O_RDONLY | O_CLOEXEC);
	struct statvfs root;
	char value = '?';

	if (fd < 0 || read(fd, &value, 1) != 1 || value != '1' ||
	    statvfs("/", &root) < 0 || !(root.f_flag & ST_RDONLY) ||
	    access("/sys/kernel", F_OK) == 0 || access("/dev/kmsg", F_OK) == 0)
		return error_set(e, -EBADE, "the lockdown did not take hold");
	return 0;
}

int system_lock_down(struct error *e)
{
	int r = write_setting("kernel/modules_disabled", "1");

	if (r < 0)
		return error_set(e, r, "cannot close the kernel to modules: %s",
				 strerror(-r));
	r = cover_dev();
	if (r < 0)
		return error_set(e, r, "cannot cover /dev: %s", strerror(-r));
	if (umount2("/sys", MNT_DETACH) < 0)
		return error_set(e, -errno, "cannot unmount /sys: %s",
				 strerror(errno));
	/* The file system, then this mount of it. */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 ||
	    mount(NULL, "/", NULL,
		  MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV,
		  NULL) < 0)
		return error_set(e, -errno,
				 "cannot make the root file system read-only: "
				 "%s",
				 strerror(errno));
	return check_lock(e);
}

int system_write_file(const char *path, const char *data, size_t len,
		      mode_t mode, struct error *e)
{
	_cleanup_close_ int fd = -1;
	char aside[128];

	snprintf(aside, sizeof(aside), "%s.new", path);
	if (unlink(aside) < 0 && errno != ENOENT)
		return error_set(e, -errno, "cannot write %s: %s", path,
				 strerror(errno));
	fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		  0);
	if (fd < 0 || write(fd, data, len) != (ssize_t)len ||
	    fchown(fd, 0, GUEST_TOR_UID) < 0 || fchmod(fd, mode) < 0 ||
	    rename(aside, path) < 0)
		return error_set(e, -errno, "cannot write %s: %s", path,
				 strerror(errno));
	return 0;
}

int system_read_fw_cfg(const char *name, char *buf, struct error *e)
{
	char path[128];
	int r;

	snprintf(path, sizeof(path), FW_CFG_DIR "%s/raw", name);
	r = read_small_file(path, buf, GUEST_FILE_MAX + 1);
	if (r == -ENOENT)
		return error_set(e, r, "QEMU handed in no fw_cfg file %s",
				 name);
	if (r < 0)
		return error_set(e, r, "cannot read the fw_cfg file %s: %s",
				 name, strerror(-r));
	return r;
}

/* The number in a line "KEY:   123 kB" of /proc/meminfo; -1: no such line */
static long meminfo_value(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtol(at + strlen(key), NULL, 10) : -1;
}

int system_memory(long *ret_total_kib, long *ret_available_kib)
{
	char text[4096];
	int r = read_small_file("/proc/meminfo", text, sizeof(text));

	if (r < 0)
		return r;
	*ret_total_kib = meminfo_value(text, "MemTotal:");
	*ret_available_kib = meminfo_value(text, "MemAvailable:");
	return *ret_total_kib < 0 || *ret_available_kib < 0 ? -EBADMSG : 0;
}

long long system_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

void system_power_off(void)
{
	sync();
	if (umount(STATE_DISK_MOUNT) < 0)
		mount(NULL, STATE_DISK_MOUNT, NULL, MS_REMOUNT | MS_RDONLY,
		      NULL);
	sync();
	reboot(RB_POWER_OFF);
	/* Only a machine without any means to power off comes here; the
	 * kernel's panic tells the console and ends QEMU (-no-reboot). */
	_exit(1);
}
