/*
 * Theory of operation: the broker runs this file as another user, so it must be
 * one that only root can replace. Each folder on its way is checked, from the
 * root down: whoever may write one of them chooses the program.
 */
#include "vm/qemu.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* A folder or file that only root can replace. */
static int check_owner(const char *path, const struct stat *st, struct error *e)
{
	if (st->st_uid != 0)
		return error_set(e, -EPERM,
				 "%s belongs to another user than root, who "
				 "could replace QEMU",
				 path);
	/* Others may add to a sticky folder but not rename what is there. */
	if ((st->st_mode & (S_IWGRP | S_IWOTH)) &&
	    !(S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX)))
		return error_set(e, -EPERM,
				 "%s can be written by others than root, who "
				 "could replace QEMU: chmod go-w %s",
				 path, path);
	return 0;
}

static int check_path(const char *path, struct error *e)
{
	char prefix[PATH_MAX];
	struct stat st;
	int r;

	for (const char *p = path;; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		snprintf(prefix, sizeof(prefix), "%.*s",
			 p == path ? 1 : (int)(p - path), path);
		if (lstat(prefix, &st) < 0)
			return error_set(e, -errno, "%s: %s", prefix,
					 strerror(errno));
		r = check_owner(prefix, &st, e);
		if (r < 0)
			return r;
		if (*p == '\0')
			break;
	}
	if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IXOTH))
		return error_set(e, -EPERM, "%s is not a program", path);
	return 0;
}

static int missing(const char *path, enum vm_arch arch, struct error *e)
{
	static const char *const packages[] = {
		[VM_ARCH_AMD64] = "qemu-system-x86",
		[VM_ARCH_ARM64] = "qemu-system-arm",
	};

	return error_set(e, -ENOENT,
			 "QEMU is missing: there is no %s. Install it: apt-get "
			 "install %s",
			 path, packages[arch]);
}

int qemu_find(const char *configured, enum vm_arch arch, char *ret, size_t size,
	      struct error *e)
{
	char path[PATH_MAX], real[PATH_MAX];
	bool own = *configured != '\0';

	if (own && *configured != '/')
		return error_set(e, -EINVAL,
				 "vm.qemu_path must be an absolute path, not "
				 "'%s'",
				 configured);
	if (snprintf(path, sizeof(path), "%s%s", own ? "" : "/usr/bin/",
		     own ? configured : vm_arch_qemu(arch)) >=
	    (int)sizeof(path))
		return error_set(e, -ENAMETOOLONG, "vm.qemu_path is too long");
	if (!realpath(path, real)) {
		if (errno == ENOENT)
			return missing(path, arch, e);
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	}
	if (own && strcmp(path, real) != 0)
		return error_set(e, -EINVAL,
				 "vm.qemu_path must name the file itself: %s "
				 "leads to %s",
				 path, real);
	if (str_copy(ret, size, real) < 0)
		return error_set(e, -ENAMETOOLONG,
				 "the path of QEMU is too "
				 "long");
	return check_path(real, e);
}
