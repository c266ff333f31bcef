#include "broker/dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *entry;
	bool empty = true;

	if (!d) {
		closep(&copy);
		return false;
	}
	while ((entry = readdir(d))) {
		if (strcmp(entry->d_name, ".") != 0 &&
		    strcmp(entry->d_name, "..") != 0)
			empty = false;
	}
	closedir(d);
	return empty;
}

static int check(int fd, const char *path, uid_t uid, mode_t mode,
		 struct error *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	if (st.st_uid != uid)
		return error_set(e, -EPERM,
				 "%s belongs to user %u instead of %u; give "
				 "TorVM a directory of its own, or correct it: "
				 "chown -R %u %s",
				 path, st.st_uid, uid, uid, path);
	if (st.st_mode & (S_IWGRP | S_IWOTH) & ~mode)
		return error_set(e, -EPERM,
				 "%s can be written to by others; give TorVM a "
				 "directory of its own, or correct it: chmod "
				 "go-w %s",
				 path, path);
	if (faccessat(fd, ".", W_OK, AT_EACCESS) < 0)
		return error_set(e, -errno, "%s cannot be written to: %s", path,
				 strerror(errno));
	return 0;
}

int dirs_open(int at_fd, const char *path, uid_t uid, gid_t gid, mode_t mode,
	      bool *ret_created, struct error *e)
{
	_cleanup_close_ int fd = -1;
	bool created = false;
	struct stat st;
	int r;

	if (mkdirat(at_fd, path, 0700) == 0)
		created = true;
	else if (errno != EEXIST)
		return error_set(e, -errno, "%s cannot be made: %s%s", path,
				 strerror(errno),
				 errno == ENOENT ? " (its parent directory)"
						 : "");
	fd = openat(at_fd, path,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return error_set(e, -ENOTDIR,
				 "%s is not a directory (symbolic links are "
				 "not followed)",
				 path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(e, -errno, "%s cannot be opened: %s", path,
				 strerror(errno));
	if (created || (st.st_uid == 0 && uid != 0 && is_empty(fd))) {
		if (fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0)
			return error_set(e, -errno,
					 "%s cannot be handed to user %u: %s",
					 path, uid, strerror(errno));
	}
	r = check(fd, path, uid, mode, e);
	if (r < 0)
		return r;
	if (ret_created)
		*ret_created = created;
	return steal_fd(&fd);
}

char *dirs_absolute(const char *path)
{
	char cwd[PATH_MAX], *ret;

	if (path[0] == '/')
		return strdup(path);
	if (!getcwd(cwd, sizeof(cwd)) || asprintf(&ret, "%s/%s", cwd, path) < 0)
		return NULL;
	return ret;
}

/* Return: PREFIX/@relative as seen from this program's folder, or NULL if
 * there is no such thing. Owned by the caller. */
static char *beside_us(const char *relative)
{
	_cleanup_free_ char *path = NULL;
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return NULL;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	if (asprintf(&path, "%s/%s", self, relative) < 0)
		return NULL;
	return realpath(path, NULL);
}

char *dirs_find_program(const char *name)
{
	static const char *const folders[] = { "", "../libexec/torvm/" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(folders); i++) {
		char relative[64], *path;

		snprintf(relative, sizeof(relative), "%s%s", folders[i], name);
		path = beside_us(relative);
		if (path)
			return path;
	}
	return NULL;
}

char *dirs_find_images(void)
{
	char *path = beside_us("../dist/vm");

	return path ? path : strdup("/usr/lib/torvm/vm");
}
