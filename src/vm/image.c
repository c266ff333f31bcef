/*
 * Theory of operation: the manifest names the outputs with size and SHA-256. It
 * is not signed: the check finds a damaged, half-copied or mixed image before
 * it is booted, not an attacker who can write the folder. That folder belongs
 * to root, or to whoever built the checkout.
 *
 * Each file is opened once; hash and boot use the same fd. Everything in the
 * manifest that is not an output (packages, sources) is not our business here.
 */
#include "vm/image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include <jansson.h>
#include <nettle/sha2.h>

#include "config/countries.h"

#define MANIFEST "manifest.json"
#define MANIFEST_SCHEMA 1
#define MANIFEST_MAX (8UL * 1024 * 1024) /* bytes */
#define CHUNK (256UL * 1024)             /* bytes hashed at once */
#define HEX_LEN (2UL * SHA256_DIGEST_SIZE)

#define REBUILD "build the image again: make vm"

static const char *const keys[] = {
	[IMAGE_FILE_KERNEL] = "kernel", [IMAGE_FILE_INITRD] = "initramfs",
	[IMAGE_FILE_STATE] = "state",   [IMAGE_FILE_TRANSPORTS] = "transports",
	[IMAGE_FILE_GEOIP] = "geoip",
};
static_assert(ARRAY_SIZE(keys) == IMAGE_FILE_COUNT, "keys");

/* What images of before, or built without, do not have; NULL: all have it. */
static const char *const optional[IMAGE_FILE_COUNT] = {
	[IMAGE_FILE_TRANSPORTS] = "pluggable transports",
	[IMAGE_FILE_GEOIP] = "list of countries",
};

void image_deinit(struct image *image)
{
	for (size_t i = 0; i < IMAGE_FILE_COUNT; i++)
		closep(&image->fd[i]);
	buffer_deinit(&image->authorities);
	*image = IMAGE_NULL(image);
}

/* @name in the image folder, which must be a regular file. */
static int open_file(int dirfd, const char *dir, const char *name,
		     uint64_t *ret_size, struct error *e)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	fd = openat(dirfd, name,
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		/* ENOTDIR: no folder at all, /dev/null in its place. */
		if (errno == ENOENT || errno == ENOTDIR)
			return error_set(e, -ENOENT,
					 "the VM's image is incomplete: no %s "
					 "in %s; build it: make vm",
					 name, dir);
		return error_set(e, -errno, "%s/%s: %s", dir, name,
				 strerror(errno));
	}
	if (fstat(fd, &st) < 0)
		return error_set(e, -errno, "%s/%s: %s", dir, name,
				 strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(e, -EBADMSG, "%s/%s is not a file; " REBUILD,
				 dir, name);
	*ret_size = (uint64_t)st.st_size;
	return steal_fd(&fd);
}

static int read_manifest(int dirfd, const char *dir, json_t **ret,
			 struct error *e)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *text = NULL;
	json_error_t je;
	uint64_t size;
	size_t len = 0;
	ssize_t n;

	fd = open_file(dirfd, dir, MANIFEST, &size, e);
	if (fd < 0)
		return fd;
	if (size > MANIFEST_MAX)
		return error_set(e, -EBADMSG, "%s/%s is too large; " REBUILD,
				 dir, MANIFEST);
	text = malloc(size + 1);
	if (!text)
		return error_set(e, -ENOMEM, "out of memory");
	while (len < size) {
		n = pread(fd, text + len, size - len, (off_t)len);
		if (n < 0)
			return error_set(e, -errno, "%s/%s: %s", dir, MANIFEST,
					 strerror(errno));
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	if (!*ret)
		return error_set(e, -EBADMSG, "%s/%s, line %d: %s; " REBUILD,
				 dir, MANIFEST, je.line, je.text);
	return 0;
}

static bool is_file_name(const char *s)
{
	return s && *s && *s != '.' && !strchr(s, '/') && strlen(s) < 64;
}

static int hash_file(int fd, uint64_t size, char hex[HEX_LEN + 1])
{
	static const char digits[] = "0123456789abcdef";
	_cleanup_free_ uint8_t *chunk = malloc(CHUNK);
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx ctx;
	uint64_t at = 0;
	ssize_t n;

	if (!chunk)
		return -ENOMEM;
	sha256_init(&ctx);
	while (at < size) {
		n = pread(fd, chunk, CHUNK, (off_t)at);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		sha256_update(&ctx, (size_t)n, chunk);
		at += (uint64_t)n;
	}
	sha256_digest(&ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++) {
		hex[2 * i] = digits[digest[i] >> 4];
		hex[2 * i + 1] = digits[digest[i] & 15];
	}
	hex[HEX_LEN] = '\0';
	return 0;
}

static int open_output(int dirfd, const char *dir, const json_t *outputs,
		       enum image_file which, struct image *image,
		       struct error *e)
{
	const json_t *output = json_object_get(outputs, keys[which]);
	const char *name = json_string_value(json_object_get(output, "file")),
		   *hash = json_string_value(json_object_get(output, "sha256"));
	json_int_t size = json_integer_value(json_object_get(output, "size"));
	char found[HEX_LEN + 1];
	int r;

	if (!output && optional[which])
		return error_set(e, -ENOENT,
				 "the VM's image in %s has no %s; " REBUILD,
				 dir, optional[which]);
	if (!is_file_name(name) || !hash || strlen(hash) != HEX_LEN || size < 1)
		return error_set(
			e, -EBADMSG,
			"%s/%s: outputs.%s is not as it should be; " REBUILD,
			dir, MANIFEST, keys[which]);
	r = open_file(dirfd, dir, name, &image->size[which], e);
	if (r < 0)
		return r;
	image->fd[which] = r;
	if (image->size[which] != (uint64_t)size)
		return error_set(e, -EBADMSG,
				 "%s/%s is damaged: %llu bytes expected, %llu "
				 "found; " REBUILD,
				 dir, name, (unsigned long long)size,
				 (unsigned long long)image->size[which]);
	r = hash_file(image->fd[which], image->size[which], found);
	if (r < 0)
		return error_set(e, r, "%s/%s: %s", dir, name, strerror(-r));
	if (strcmp(found, hash) != 0)
		return error_set(e, -EBADMSG,
				 "%s/%s is damaged: SHA-256 expected %s, found "
				 "%s; " REBUILD,
				 dir, name, hash, found);
	return 0;
}

static int check_head(const json_t *root, const char *dir, struct image *image,
		      struct error *e)
{
	const json_t *schema = json_object_get(root, "schema");
	const char *arch = json_string_value(json_object_get(root, "arch"));
	int r;

	if (!json_is_integer(schema) ||
	    json_integer_value(schema) != MANIFEST_SCHEMA)
		return error_set(
			e, -EBADMSG,
			"%s/%s is of another version of TorVM; " REBUILD, dir,
			MANIFEST);
	r = arch ? vm_arch_from_name(arch) : -EINVAL;
	if (r < 0)
		return error_set(e, -EBADMSG,
				 "%s/%s: arch must be amd64 or arm64; " REBUILD,
				 dir, MANIFEST);
	image->arch = (enum vm_arch)r;
	if (image->arch != vm_arch_host())
		return error_set(e, -ENOEXEC,
				 "the image in %s is for %s, this machine is "
				 "%s: make vm ARCH=%s",
				 dir, arch, vm_arch_name(vm_arch_host()),
				 vm_arch_name(vm_arch_host()));
	return 0;
}

int image_open(int dirfd, const char *dir, unsigned int with, struct image *ret,
	       struct error *e)
{
	json_auto_t *root = NULL;
	_cleanup_(image_deinit) struct image image = IMAGE_NULL(image);
	int r;

	r = read_manifest(dirfd, dir, &root, e);
	if (r < 0)
		return r;
	r = check_head(root, dir, &image, e);
	for (int i = 0; i < IMAGE_FILE_COUNT && r == 0; i++)
		if (!optional[i] || (with & IMAGE_WITH(i)))
			r = open_output(dirfd, dir,
					json_object_get(root, "outputs"),
					(enum image_file)i, &image, e);
	if (r < 0)
		return r;
	*ret = image;
	image = IMAGE_NULL(image);
	return 0;
}

static int append(int to, const struct image *image, enum image_file which)
{
	off_t at = 0;

	while ((uint64_t)at < image->size[which]) {
		ssize_t n = sendfile(to, image->fd[which], &at,
				     image->size[which] - (uint64_t)at);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
	}
	return 0;
}

/* An archive that is not compressed begins at a multiple of 4 bytes. */
static int append_authorities(int to, const struct image *image)
{
	static const char zeros[4] = { 0 };
	size_t len = 0;
	const char *data = buffer_peek(&image->authorities, &len);
	off_t at = lseek(to, 0, SEEK_CUR);

	/* In memory: it is written as a whole or not at all. */
	if (data && (write(to, zeros, (size_t)(4 - at % 4) % 4) < 0 ||
		     write(to, data, len) < 0))
		return -errno;
	return 0;
}

int image_initrd(const struct image *image, unsigned int with, struct error *e)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (!with) {
		/* A dup shares its offset with the VM that was. */
		if (lseek(image->fd[IMAGE_FILE_INITRD], 0, SEEK_SET) == 0)
			fd = fcntl(image->fd[IMAGE_FILE_INITRD],
				   F_DUPFD_CLOEXEC, 10);
		return fd < 0 ? error_set(e, -errno, "the VM's image: %s",
					  strerror(errno))
			      : steal_fd(&fd);
	}
	fd = memfd_create("torvm-initrd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_set(e, -errno, "no memory for the VM's image: %s",
				 strerror(errno));
	r = append(fd, image, IMAGE_FILE_INITRD);
	for (int i = 0; i < IMAGE_FILE_COUNT && r == 0; i++)
		if (with & IMAGE_WITH(i))
			r = append(fd, image, (enum image_file)i);
	if (r == 0 && (with & IMAGE_WITH(IMAGE_FILE_TRANSPORTS)))
		r = append_authorities(fd, image);
	if (r == 0 && (lseek(fd, 0, SEEK_SET) < 0 ||
		       fcntl(fd, F_ADD_SEALS,
			     F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW |
				     F_SEAL_WRITE) < 0))
		r = -errno;
	return r < 0 ? error_set(e, r,
				 "the parts of the VM's image cannot be put "
				 "together: %s",
				 strerror(-r))
		     : steal_fd(&fd);
}

struct country_check {
	const json_t *known; /* array of codes */
	struct error *e;
};

static int check_country(void *userdata, const char *key, const char *code)
{
	const struct country_check *check = userdata;
	const json_t *item;
	size_t i;

	if (!strcmp(code, "??"))
		return 0;
	json_array_foreach (check->known, i, item) {
		const char *known = json_string_value(item);

		if (known && !strcmp(known, code))
			return 0;
	}
	return error_set(check->e, -EINVAL,
			 "key %s: no country is called {%s}; allowed: the two "
			 "letters of ISO 3166, such as {de}; the United "
			 "Kingdom is {gb}",
			 key, code);
}

int image_check_countries(int dirfd, const char *dir, const struct config *cfg,
			  struct error *e)
{
	json_auto_t *root = NULL;
	struct country_check check = { .e = e };
	int r = read_manifest(dirfd, dir, &root, e);

	if (r < 0)
		return r;
	check.known = json_object_get(
		json_object_get(root, keys[IMAGE_FILE_GEOIP]), "countries");
	if (!check.known)
		return error_set(e, -ENOENT,
				 "the VM's image in %s has no %s; " REBUILD,
				 dir, optional[IMAGE_FILE_GEOIP]);
	return config_each_country(cfg, check_country, &check);
}
