/*
 * Theory of operation
 *
 * The guest has no fsck and no mkfs: either the disk is good or the host is
 * told why not and replaces it. "Good" is decided before Tor touches it: no
 * error flag in the superblock, it mounts, it takes and returns data, it has
 * room, and Tor's folder is Tor's. A journal that has to be replayed after a
 * crash is normal, the kernel does that.
 */
#include "init/state-disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "init/contract.h"

#define DEVICE_WAIT_MS 2000
#define DEVICE_POLL_MS 10

/* Tor's caches need a few MiB to be rewritten in. */
#define ROOM_MIN_BYTES (4 << 20)

/* ext4's superblock: kernel, Documentation/filesystems/ext4/super.rst */
#define SUPER_OFFSET 1024
#define SUPER_MAGIC 0x38
#define SUPER_STATE 0x3a
#define MAGIC 0xef53
#define STATE_ERRORS 0x2

#define PROBE_FILE ".probe"

static int open_device(void)
{
	const struct timespec pause = { .tv_nsec = DEVICE_POLL_MS * 1000000L };

	for (int ms = 0;; ms += DEVICE_POLL_MS) {
		int fd = open(STATE_DISK_DEVICE, O_RDONLY | O_CLOEXEC);

		if (fd >= 0)
			return fd;
		if (errno != ENOENT || ms >= DEVICE_WAIT_MS)
			return -errno;
		nanosleep(&pause, NULL);
	}
}

static int check_superblock(struct error *e)
{
	_cleanup_close_ int fd = open_device();
	uint8_t super[64];

	if (fd < 0)
		return error_set(e, fd, "there is no disk");
	if (pread(fd, super, sizeof(super), SUPER_OFFSET) !=
	    (ssize_t)sizeof(super))
		return error_set(e, -EIO, "it cannot be read");
	if ((super[SUPER_MAGIC] | super[SUPER_MAGIC + 1] << 8) != MAGIC)
		return error_set(e, -EINVAL, "it holds no ext4 file system");
	if (super[SUPER_STATE] & STATE_ERRORS)
		return error_set(e, -EUCLEAN,
				 "its file system is marked as damaged");
	return 0;
}

/* Tor's folder: made if missing, taken over if somebody else's. */
static int prepare_folder(int root, struct error *e)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (mkdirat(root, "tor", 0700) < 0 && errno != EEXIST)
		return error_set(e, -errno, "folder /tor: %s", strerror(errno));
	fd = openat(root, "tor",
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(e, -errno, "folder /tor: %s", strerror(errno));
	if ((st.st_uid != GUEST_TOR_UID || st.st_gid != GUEST_TOR_UID) &&
	    fchown(fd, GUEST_TOR_UID, GUEST_TOR_UID) < 0)
		return error_set(e, -errno, "folder /tor: %s", strerror(errno));
	if ((st.st_mode & 07777) != 0700 && fchmod(fd, 0700) < 0)
		return error_set(e, -errno, "folder /tor: %s", strerror(errno));
	return 0;
}

static int open_root(void)
{
	int fd = open(STATE_DISK_MOUNT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int state_disk_probe(struct error *e)
{
	_cleanup_close_ int root = open_root(), fd = -1;
	struct statvfs vfs;
	char data[4096];

	if (root < 0)
		return error_set(e, root, "its root: %s", strerror(-root));
	if (fstatvfs(root, &vfs) < 0)
		return error_set(e, -errno, "its size: %s", strerror(errno));
	if (vfs.f_flag & ST_RDONLY)
		return error_set(e, -EROFS,
				 "the kernel found damage and made it "
				 "read-only");
	if ((uint64_t)vfs.f_bavail * vfs.f_frsize < ROOM_MIN_BYTES ||
	    (vfs.f_files && vfs.f_favail < 16))
		return error_set(e, -ENOSPC, "it is full");

	memset(data, 0x5a, sizeof(data));
	fd = openat(root, PROBE_FILE,
		    O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	if (fd < 0 || write(fd, data, sizeof(data)) != (ssize_t)sizeof(data) ||
	    fsync(fd) < 0 || unlinkat(root, PROBE_FILE, 0) < 0)
		return error_set(e, -EIO, "it cannot be written to: %s",
				 strerror(errno));
	return 0;
}

int state_disk_mount(struct error *e)
{
	_cleanup_close_ int root = -1;
	int r = check_superblock(e);

	if (r < 0)
		return r;
	if (mount(STATE_DISK_DEVICE, STATE_DISK_MOUNT, "ext4",
		  MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME,
		  "errors=remount-ro") < 0)
		return error_set(e, -errno, "it cannot be mounted: %s",
				 strerror(errno));
	root = open_root();
	if (root < 0)
		return error_set(e, root, "its root: %s", strerror(-root));
	/* Tor may walk through, not add to it. */
	if (fchown(root, 0, 0) < 0 || fchmod(root, 0755) < 0)
		return error_set(e, -errno, "its root: %s", strerror(errno));
	r = prepare_folder(root, e);
	return r < 0 ? r : state_disk_probe(e);
}
