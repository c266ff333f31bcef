/*
 * Theory of operation: a new disk is written under another name, synced, then
 * renamed into place, so a crash never leaves half a disk. Holes of the
 * pristine one are not read, but their space is taken at once, also that of a
 * disk which an earlier version left with holes: a host whose disk is full is
 * then told at a start, instead of QEMU pausing the VM at some later write.
 *
 * The lock is an open-file-description lock on the first byte. It goes to QEMU
 * with the fd and lasts until the last holder closes it; QEMU's own locks use
 * bytes 100 and up of the same description.
 */
#include "vm/state_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK 16384 /* bytes copied at once */

struct disk {
	int dirfd;
	const char *dir;
	const char *name;
	int pristine;
	off_t size; /* of the pristine one, in bytes */
};

static int fail(const struct disk *d, const char *name, struct error *e)
{
	int code = -errno;

	if (code == -ENOSPC)
		return error_set(e, code,
				 "the VM's state disk cannot be used: %s/%s: "
				 "%s; it needs %lld MiB there",
				 d->dir, name, strerror(-code),
				 (long long)(d->size >> 20));
	return error_set(e, code,
			 "the VM's state disk cannot be used: %s/%s: %s",
			 d->dir, name, strerror(-code));
}

static int derived_name(const struct disk *d, const char *suffix, char *ret,
			size_t size, struct error *e)
{
	if (snprintf(ret, size, "%s%s", d->name, suffix) >= (int)size)
		return error_set(e, -ENAMETOOLONG,
				 "the state disk's name is too long");
	return 0;
}

static bool is_zero(const char *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static int copy_range(int from, int to, off_t at, off_t end)
{
	char chunk[CHUNK];
	ssize_t n, done;

	for (; at < end; at += n) {
		n = pread(from, chunk,
			  end - at < CHUNK ? (size_t)(end - at) : CHUNK, at);
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		/* It reads as zeros already. */
		if (is_zero(chunk, (size_t)n))
			continue;
		for (ssize_t i = 0; i < n; i += done) {
			done = pwrite(to, chunk + i, (size_t)(n - i), at + i);
			if (done < 0)
				return -1;
		}
	}
	return 0;
}

/* Takes the space of the whole disk; what is in it stays. Not every file system
 * can. */
static int reserve(int fd, off_t size)
{
	return fallocate(fd, 0, 0, size) < 0 && errno != EOPNOTSUPP ? -1 : 0;
}

static int copy_data(int from, int to, off_t size)
{
	off_t data = 0, hole;

	if (ftruncate(to, size) < 0 || reserve(to, size) < 0)
		return -1;
	for (; data < size; data = hole) {
		data = lseek(from, data, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -1;
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0 || copy_range(from, to, data, hole) < 0)
			return -1;
	}
	return 0;
}

/* Puts a fresh copy in d->name's place. */
static int make(const struct disk *d, struct error *e)
{
	_cleanup_close_ int fd = -1;
	char name[NAME_MAX + 1];
	int r;

	r = derived_name(d, ".new", name, sizeof(name), e);
	if (r < 0)
		return r;
	if (unlinkat(d->dirfd, name, 0) < 0 && errno != ENOENT)
		return fail(d, name, e);
	fd = openat(d->dirfd, name,
		    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(d, name, e);
	if (copy_data(d->pristine, fd, d->size) < 0 || fsync(fd) < 0 ||
	    renameat(d->dirfd, name, d->dirfd, d->name) < 0) {
		r = fail(d, name, e);
		unlinkat(d->dirfd, name, 0);
		return r;
	}
	return 0;
}

static int put_aside(const struct disk *d, struct error *e)
{
	char name[NAME_MAX + 1];
	int r;

	r = derived_name(d, STATE_DISK_BAD_SUFFIX, name, sizeof(name), e);
	if (r < 0)
		return r;
	if (renameat(d->dirfd, d->name, d->dirfd, name) < 0 && errno != ENOENT)
		return fail(d, d->name, e);
	return 0;
}

static int lock(const struct disk *d, int fd, struct error *e)
{
	struct flock l = { .l_type = F_WRLCK,
			   .l_whence = SEEK_SET,
			   .l_len = 1 };

	if (fcntl(fd, F_OFD_SETLK, &l) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return fail(d, d->name, e);
	return error_set(e, -EBUSY,
			 "the state disk %s/%s is in use by another VM", d->dir,
			 d->name);
}

/* Return: the locked fd, -ENOENT, or -EUCLEAN for a disk of a wrong size. */
static int open_and_lock(const struct disk *d, struct error *e)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	fd = openat(d->dirfd, d->name,
		    O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return fail(d, d->name, e);
	if (fstat(fd, &st) < 0)
		return fail(d, d->name, e);
	if (!S_ISREG(st.st_mode))
		return error_set(e, -EINVAL,
				 "the VM's state disk %s/%s is not a file",
				 d->dir, d->name);
	r = lock(d, fd, e);
	if (r < 0)
		return r;
	if (st.st_size != d->size)
		return error_set(e, -EUCLEAN, "%s/%s: size", d->dir, d->name);
	if (reserve(fd, st.st_size) < 0)
		return fail(d, d->name, e);
	return steal_fd(&fd);
}

static int describe(struct disk *d, struct error *e)
{
	struct stat st;

	if (fstat(d->pristine, &st) < 0)
		return error_set(e, -errno, "the image's state.img: %s",
				 strerror(errno));
	d->size = st.st_size;
	return 0;
}

int state_disk_open(int dirfd, const char *dir, const char *name, int pristine,
		    int *ret_fd, bool *ret_made, struct error *e)
{
	struct disk d = { dirfd, dir, name, pristine, 0 };
	bool made = false;
	int r;

	r = describe(&d, e);
	if (r < 0)
		return r;
	r = open_and_lock(&d, e);
	if (r == -EUCLEAN)
		made = (r = put_aside(&d, e)) == 0;
	else if (r == -ENOENT)
		made = true;
	if (made) {
		r = make(&d, e);
		if (r == 0)
			r = open_and_lock(&d, e);
	}
	if (r < 0)
		return r;
	*ret_fd = r;
	if (ret_made)
		*ret_made = made;
	return 0;
}

int state_disk_replace(int dirfd, const char *dir, const char *name,
		       int pristine, struct error *e)
{
	struct disk d = { dirfd, dir, name, pristine, 0 };
	int r;

	r = describe(&d, e);
	if (r == 0)
		r = put_aside(&d, e);
	return r < 0 ? r : make(&d, e);
}

bool state_disk_is_current(int dirfd, const char *name, int fd)
{
	struct stat open, named;

	return fstat(fd, &open) == 0 &&
	       fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}
