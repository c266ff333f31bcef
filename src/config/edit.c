/*
 * Theory of operation
 *
 * jansson keeps the order of an object's members, so what is read, changed and
 * written again differs by the change and by white space only. Numbers are
 * whole and strings stay UTF-8 in this format; nothing is lost on the way.
 *
 * The lock is on the folder, since the file itself is replaced. It is waited
 * for, but not for ever: everybody who can open a folder can lock it.
 */
#include "config/edit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#define LOCK_TRIES 50
#define LOCK_PAUSE_NS 100000000L

struct file {
	const char *path;
	const char *name; /* within dir */
	int dir;
	bool exists;
	struct stat st;
};

static void file_deinit(struct file *f)
{
	closep(&f->dir);
}

static int failed(const struct file *f, const char *what, struct error *e)
{
	int code = errno;

	return error_set(e, -code, "%.200s: cannot %s: %s%s", f->path, what,
			 strerror(code),
			 code == EACCES || code == EPERM ? "; run this as root"
							 : "");
}

static int open_folder(struct file *f, struct error *e)
{
	const char *slash = strrchr(f->path, '/');
	char folder[PATH_MAX];
	size_t len = slash ? (size_t)(slash - f->path) : 0;

	f->name = slash ? slash + 1 : f->path;
	if (len >= sizeof(folder) || strlen(f->name) > NAME_MAX) {
		errno = ENAMETOOLONG;
		return failed(f, "open its folder", e);
	}
	snprintf(folder, sizeof(folder), "%.*s", (int)len, f->path);
	if (len == 0)
		str_copy(folder, sizeof(folder), slash ? "/" : ".");
	f->dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dir < 0)
		return failed(f, "open its folder", e);
	for (int i = 0; flock(f->dir, LOCK_EX | LOCK_NB) < 0; i++) {
		const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };

		if (errno != EWOULDBLOCK && errno != EINTR)
			return failed(f, "lock its folder", e);
		if (i == LOCK_TRIES)
			return error_set(e, -EBUSY,
					 "%.200s: another program holds its "
					 "folder locked; nothing was changed, "
					 "try again",
					 f->path);
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The text as config_load_fd() found it good, once more. */
static int read_json(int fd, const struct file *f, json_t **ret,
		     struct error *e)
{
	json_error_t je;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return failed(f, "read it", e);
	*ret = json_loadfd(fd, JSON_REJECT_DUPLICATES, &je);
	if (!*ret)
		return error_set(e, -EAGAIN,
				 "%.200s: changed while it was read; nothing "
				 "was changed, try again",
				 f->path);
	return 0;
}

static int load(struct file *f, struct config **ret_cfg, json_t **ret_root,
		struct error *e)
{
	_cleanup_close_ int fd = openat(f->dir, f->name,
					O_RDONLY | O_CLOEXEC | O_NOCTTY |
						O_NOFOLLOW | O_NONBLOCK);
	int r;

	if (fd < 0 && errno == ENOENT) {
		*ret_cfg = config_new_default();
		*ret_root = json_object();
		return *ret_cfg && *ret_root
			       ? 0
			       : error_set(e, -ENOMEM, "out of memory");
	}
	if (fd < 0 && errno == ELOOP)
		return error_set(e, -ELOOP,
				 "%.200s: is a symbolic link; name the file "
				 "itself",
				 f->path);
	if (fd < 0 || fstat(fd, &f->st) < 0)
		return failed(f, "read it", e);
	f->exists = true;
	r = config_load_fd(fd, f->path, ret_cfg, e);
	return r < 0 ? r : read_json(fd, f, ret_root, e);
}

static bool has_secrets(const struct config *cfg)
{
	return cfg->bridge.n_bridges > 0 || cfg->proxy.password[0];
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int fill(int fd, const struct file *f, const char *text, size_t len,
		bool secrets)
{
	mode_t mode = f->exists ? f->st.st_mode & 07777 : 0600;
	int r;

	if (secrets)
		mode &= ~(mode_t)S_IRWXO;
	if (f->exists && fchown(fd, f->st.st_uid, f->st.st_gid) < 0)
		return -errno;
	if (fchmod(fd, mode) < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static int replace(const struct file *f, const char *text, size_t len,
		   bool secrets, struct error *e)
{
	char name[NAME_MAX + 1];
	_cleanup_close_ int fd = -1;
	unsigned int number;
	int r;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return failed(f, "name a new file", e);
	snprintf(name, sizeof(name), ".%.200s.%08x", f->name, number);
	fd = openat(f->dir, name,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return failed(f, "write beside it", e);
	r = fill(fd, f, text, len, secrets);
	if (r == 0 && renameat(f->dir, name, f->dir, f->name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(f->dir, name, 0);
		errno = -r;
		return failed(f, "write it", e);
	}
	/* The file is there; only a power cut could still lose it. */
	fsync(f->dir);
	return 0;
}

int config_edit(const char *path, config_edit_fn fn, void *userdata,
		struct error *e)
{
	_cleanup_(config_freep) struct config *cfg = NULL, *again = NULL;
	_cleanup_(json_decrefp) json_t *root = NULL;
	_cleanup_(file_deinit) struct file f = { .path = path, .dir = -1 };
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r;

	r = open_folder(&f, e);
	if (f.dir < 0)
		return r;
	if (r == 0)
		r = load(&f, &cfg, &root, e);
	if (r == 0)
		r = fn(root, cfg, userdata, e);
	if (r <= 0)
		return r;
	text = json_dumps(root, JSON_INDENT(2));
	if (!text)
		return error_set(e, -ENOMEM, "out of memory");
	len = strlen(text);
	r = config_parse(path, text, len, &again, e);
	if (r == 0)
		r = config_check_files(again, path, e);
	if (r < 0)
		return r;
	text[len++] = '\n'; /* in place of the terminator */
	r = replace(&f, text, len, has_secrets(again), e);
	return r < 0 ? r : 1;
}

json_t *config_edit_section(json_t *root, const char *section)
{
	json_t *object = json_object_get(root, section);

	if (object)
		return object;
	object = json_object();
	if (json_object_set_new(root, section, object) < 0)
		return NULL;
	return object;
}
