/* Files: reading a configuration, and what can only be told on the disk. */
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "config/fields.h"
#include "config/parse.h"

struct config *config_new_default(void)
{
	struct config *cfg = calloc(1, sizeof(*cfg));

	if (!cfg)
		return NULL;
	for (size_t i = 0; i < config_n_fields; i++)
		if (config_field_set_default(cfg, &config_fields[i]) < 0) {
			config_free(cfg);
			return NULL;
		}
	return cfg;
}

void config_free(struct config *cfg)
{
	if (!cfg)
		return;
	for (size_t i = 0; i < config_n_fields; i++)
		config_field_clear(cfg, &config_fields[i]);
	free(cfg);
}

void config_freep(struct config **cfg)
{
	config_free(*cfg);
}

static int check_file(const struct stat *st, const char *name, struct error *e)
{
	if (!S_ISREG(st->st_mode))
		return error_set(e, -EINVAL, "%.200s: is not a regular file",
				 name);
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return error_set(e, -EPERM,
				 "%.200s: belongs to user %u, who could change "
				 "it at any time; allowed: root's files. Run: "
				 "chown root %.100s",
				 name, (unsigned int)st->st_uid, name);
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return error_set(e, -EPERM,
				 "%.200s: others than its owner may write it "
				 "(mode %04o). Run: chmod go-w %.100s",
				 name, (unsigned int)st->st_mode & 07777, name);
	if (st->st_size > (off_t)CONFIG_FILE_MAX)
		return error_set(
			e, -EINVAL,
			"%.200s: %lld bytes long; allowed: at most %zu", name,
			(long long)st->st_size, CONFIG_FILE_MAX);
	return 0;
}

int config_read_fd(int fd, const char *name, struct config **ret,
		   struct error *e)
{
	_cleanup_free_ char *text = NULL;
	struct stat st;
	size_t len = 0;
	int r;

	if (fstat(fd, &st) < 0)
		return error_set(e, -errno, "%.200s: %m", name);
	r = check_file(&st, name, e);
	if (r < 0)
		return r;
	/* One byte more than allowed shows a file that grew meanwhile. */
	text = malloc(CONFIG_FILE_MAX + 1);
	if (!text)
		return error_set(e, -ENOMEM, "%.200s: out of memory", name);
	while (len < CONFIG_FILE_MAX + 1) {
		ssize_t n = pread(fd, text + len, CONFIG_FILE_MAX + 1 - len,
				  (off_t)len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(e, -errno, "%.200s: %m", name);
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return config_parse(name, text, len, ret, e);
}

int config_load_fd(int fd, const char *name, struct config **ret,
		   struct error *e)
{
	_cleanup_(config_freep) struct config *cfg = NULL;
	int r = config_read_fd(fd, name, &cfg, e);

	if (r == 0)
		r = config_check_files(cfg, name, e);
	if (r < 0)
		return r;
	*ret = steal_ptr(&cfg);
	return 0;
}

int config_load(const char *path, struct config **ret, struct error *e)
{
	/* O_NONBLOCK: a FIFO must not hold us up before it is refused. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY |
						    O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 && errno == ELOOP)
		return error_set(e, -ELOOP,
				 "%.200s: is a symbolic link; name the file "
				 "itself",
				 path);
	if (fd < 0)
		return error_set(e, -errno, "%.200s: %m", path);
	return config_load_fd(fd, path, ret, e);
}

int config_check_files(const struct config *cfg, const char *name,
		       struct error *e)
{
	static const char key[] = "vm.qemu_path";
	const struct config_context ctx = { .file = name, .e = e };
	const char *path = cfg->vm.qemu_path;
	_cleanup_free_ char *real = NULL;
	struct stat st;

	if (!path[0])
		return 0;
	real = realpath(path, NULL);
	if (!real || stat(real, &st) < 0)
		return config_refuse(&ctx, key, "QEMU's program, or \"\"",
				     "\"%.80s\": %s", path, strerror(errno));
	if (strcmp(real, path) != 0)
		return config_refuse(&ctx, key, "a path without symbolic links",
				     "\"%.80s\" leads over a symbolic link to "
				     "\"%.80s\"",
				     path, real);
	if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IXOTH))
		return config_refuse(&ctx, key,
				     "a program that every user may run",
				     "\"%.80s\" is none", path);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return config_refuse(
			&ctx, key, "a program that only its owner may write",
			"\"%.80s\" may be written by others", path);
	return 0;
}
