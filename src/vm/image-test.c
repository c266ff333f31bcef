#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "vm/image.h"

/* SHA-256 of "kernel", "initramfs", "state", "transports", "geoip". */
#define HASH_KERNEL \
	"6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c"
#define HASH_INITRD \
	"9752c38a9065f7646ffaac3621d1fa2f7dbe726c7e12e511eac7fdb14d4e2a24"
#define HASH_STATE \
	"4ba69735ca53765ed6a709edb56c6ea236b7193a3b29a6b390c346f0f4340e4e"

#define HASH_TRANSPORTS \
	"028f5b67a865261f55c74c6abb4a05fabd00e474d3550163d414f2f1be6d58b0"
#define HASH_GEOIP \
	"33200a5250446e195e99a78f30191b09f16c2a84159df5178a38a3807d473db7"

#define TRANSPORTS IMAGE_WITH(IMAGE_FILE_TRANSPORTS)
#define GEOIP IMAGE_WITH(IMAGE_FILE_GEOIP)

struct dir {
	char path[64];
	int fd;
};

static const char manifest[] =
	"{\"schema\": 1, \"arch\": \"%s\", \"packages\": [], \"outputs\": {"
	"\"kernel\": {\"file\": \"vmlinuz\", \"size\": 6, \"sha256\": \"%s\"},"
	"\"initramfs\": {\"file\": \"initramfs.zst\", \"size\": 9, "
	"\"sha256\": \"" HASH_INITRD "\"},"
	"\"state\": {\"file\": \"state.img\", \"size\": 5, \"sha256\": "
	"\"" HASH_STATE "\"}%s}}\n";

static const char transports[] =
	",\"transports\": {\"file\": \"transports.zst\", \"size\": 10, "
	"\"sha256\": \"" HASH_TRANSPORTS "\"}";

static const char geoip[] =
	",\"geoip\": {\"file\": \"geoip.zst\", \"size\": 5, "
	"\"sha256\": \"" HASH_GEOIP "\"}";

static void put(struct dir *d, const char *name, const char *text)
{
	int fd = openat(d->fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void put_manifest_with(struct dir *d, const char *arch, const char *hash,
			      const char *more)
{
	_cleanup_free_ char *text = NULL;

	assert_true(asprintf(&text, manifest, arch, hash, more) > 0);
	put(d, "manifest.json", text);
}

static void put_manifest(struct dir *d, const char *arch, const char *hash)
{
	put_manifest_with(d, arch, hash, "");
}

static int setup(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	*state = d;
	strcpy(d->path, "/tmp/torvm-image-XXXXXX");
	if (!mkdtemp(d->path))
		return -1;
	d->fd = open(d->path, O_PATH | O_DIRECTORY);
	put(d, "vmlinuz", "kernel");
	put(d, "initramfs.zst", "initramfs");
	put(d, "state.img", "state");
	put_manifest(d, vm_arch_name(vm_arch_host()), HASH_KERNEL);
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = { "vmlinuz",        "initramfs.zst",
					     "state.img",      "manifest.json",
					     "transports.zst", "geoip.zst" };
	struct dir *d = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(d->fd, names[i], 0);
	unlinkat(d->fd, "state.img", AT_REMOVEDIR);
	close(d->fd);
	rmdir(d->path);
	free(d);
	return 0;
}

static void assert_refused(struct dir *d, int code, const char *needle)
{
	struct image image = IMAGE_NULL(image);
	struct error e = ERROR_NULL(e);

	assert_int_equal(image_open(d->fd, d->path, 0, &image, &e), code);
	if (!strstr(e.text, needle))
		fail_msg("no '%s' in: %s", needle, e.text);
	for (size_t i = 0; i < IMAGE_FILE_COUNT; i++)
		assert_int_equal(image.fd[i], -1);
}

static void a_good_image(void **state)
{
	struct dir *d = *state;
	struct image image = IMAGE_NULL(image);
	struct error e = ERROR_NULL(e);
	char text[16] = "";

	if (image_open(d->fd, d->path, 0, &image, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(image.arch, vm_arch_host());
	assert_int_equal(image.size[IMAGE_FILE_INITRD], 9);
	/* The offset was not moved: QEMU reads from the start. */
	assert_int_equal(read(image.fd[IMAGE_FILE_INITRD], text, sizeof(text)),
			 9);
	assert_string_equal(text, "initramfs");
	image_deinit(&image);
	assert_int_equal(image.fd[IMAGE_FILE_KERNEL], -1);
}

static void read_initrd(const struct image *image, unsigned int with, char *ret,
			size_t size)
{
	struct error e = ERROR_NULL(e);
	int fd = image_initrd(image, with, &e);
	ssize_t n;

	if (fd < 0)
		fail_msg("%s", e.text);
	n = read(fd, ret, size - 1);
	assert_true(n >= 0);
	ret[n] = '\0';
	close(fd);
}

/* Looked at only where they are wanted, and then behind the first archive. */
static void transports_where_they_are_wanted(void **state)
{
	struct dir *d = *state;
	struct image image = IMAGE_NULL(image);
	struct error e = ERROR_NULL(e);
	char text[64];

	assert_int_equal(image_open(d->fd, d->path, TRANSPORTS, &image, &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "make vm"));

	put_manifest_with(d, vm_arch_name(vm_arch_host()), HASH_KERNEL,
			  transports);
	assert_int_equal(image_open(d->fd, d->path, 0, &image, &e), 0);
	read_initrd(&image, 0, text, sizeof(text));
	assert_string_equal(text, "initramfs");
	image_deinit(&image);

	assert_int_equal(image_open(d->fd, d->path, TRANSPORTS, &image, &e),
			 -ENOENT);
	put(d, "transports.zst", "transports");
	assert_int_equal(image_open(d->fd, d->path, TRANSPORTS, &image, &e), 0);
	/* Twice: each VM reads from the start. */
	for (int i = 0; i < 2; i++) {
		read_initrd(&image, TRANSPORTS, text, sizeof(text));
		assert_string_equal(text, "initramfstransports");
	}
	read_initrd(&image, 0, text, sizeof(text));
	assert_string_equal(text, "initramfs");
	image_deinit(&image);

	put(d, "transports.zst", "transportS");
	assert_int_equal(image_open(d->fd, d->path, TRANSPORTS, &image, &e),
			 -EBADMSG);
}

static void both_archives_one_after_the_other(void **state)
{
	struct dir *d = *state;
	struct image image = IMAGE_NULL(image);
	struct error e = ERROR_NULL(e);
	char more[512], text[64];

	assert_int_equal(image_open(d->fd, d->path, GEOIP, &image, &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "no list of countries"));
	snprintf(more, sizeof(more), "%s%s", transports, geoip);
	put_manifest_with(d, vm_arch_name(vm_arch_host()), HASH_KERNEL, more);
	put(d, "transports.zst", "transports");
	put(d, "geoip.zst", "geoip");
	assert_int_equal(
		image_open(d->fd, d->path, TRANSPORTS | GEOIP, &image, &e), 0);
	read_initrd(&image, GEOIP, text, sizeof(text));
	assert_string_equal(text, "initramfsgeoip");
	/* 24 bytes: no padding before the archive that is not compressed. */
	assert_int_equal(buffer_append(&image.authorities, "more", 4), 0);
	read_initrd(&image, TRANSPORTS | GEOIP, text, sizeof(text));
	assert_string_equal(text, "initramfstransportsgeoipmore");
	read_initrd(&image, GEOIP, text, sizeof(text));
	assert_string_equal(text, "initramfsgeoip");
	image_deinit(&image);
}

static int check_countries(struct dir *d, const char *tor, struct error *e)
{
	_cleanup_(config_freep) struct config *cfg = NULL;
	_cleanup_free_ char *text = NULL;

	*e = ERROR_NULL(*e);
	assert_true(asprintf(&text, "{\"tor\": {%s}}", tor) > 0);
	if (config_parse("test", text, strlen(text), &cfg, e) < 0)
		fail_msg("%s", e->text);
	return image_check_countries(d->fd, d->path, cfg, e);
}

static void countries_that_the_list_does_not_have_are_named(void **state)
{
	struct dir *d = *state;
	struct error e;

	assert_int_equal(check_countries(d, "\"exit_nodes\": \"{de}\"", &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "make vm"));
	put(d, "manifest.json",
	    "{\"geoip\": {\"countries\": [\"de\", \"gb\"]}}");
	assert_int_equal(
		check_countries(d, "\"exit_nodes\": \"{GB},{??},{de}\"", &e),
		0);
	assert_int_equal(
		check_countries(d, "\"exclude_nodes\": \"{de}, {uk}\"", &e),
		-EINVAL);
	assert_non_null(strstr(e.text, "key tor.exclude_nodes: "));
	assert_non_null(strstr(e.text, "{uk}"));
	assert_int_equal(
		check_countries(d, "\"options\": [\"EntryNodes {xx}\"]", &e),
		-EINVAL);
	assert_non_null(strstr(e.text, "key tor.options: "));
}

static void what_is_missing_is_named(void **state)
{
	struct dir *d = *state;

	unlinkat(d->fd, "initramfs.zst", 0);
	assert_refused(d, -ENOENT, "no initramfs.zst in");
	unlinkat(d->fd, "manifest.json", 0);
	assert_refused(d, -ENOENT, "make vm");
}

static void no_folder_at_all(void **state)
{
	struct image image = IMAGE_NULL(image);
	struct error e = ERROR_NULL(e);
	int null = open("/dev/null", O_RDONLY);

	assert_int_equal(image_open(null, "/nowhere", 0, &image, &e), -ENOENT);
	assert_non_null(strstr(e.text, "make vm"));
	close(null);
}

static void a_wrong_hash_is_named_with_both(void **state)
{
	struct dir *d = *state;

	put(d, "vmlinuz", "kernEl");
	assert_refused(d, -EBADMSG, "/vmlinuz is damaged");
	assert_refused(d, -EBADMSG, "expected " HASH_KERNEL);
	assert_refused(d, -EBADMSG, "found ");
	put(d, "vmlinuz", "kernel, longer");
	assert_refused(d, -EBADMSG, "6 bytes expected, 14 found");
}

static void another_architecture(void **state)
{
	struct dir *d = *state;
	enum vm_arch other =
		vm_arch_host() == VM_ARCH_AMD64 ? VM_ARCH_ARM64 : VM_ARCH_AMD64;

	put_manifest(d, vm_arch_name(other), HASH_KERNEL);
	assert_refused(d, -ENOEXEC, "make vm ARCH=");
	put_manifest(d, "m68k", HASH_KERNEL);
	assert_refused(d, -EBADMSG, "arch");
}

static void a_malformed_manifest(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{\"schema\": 2}",
		"{\"schema\": 1, \"schema\": 1}",
		"{\"schema\": 1, \"arch\": \"amd64\"}",
		"{\"schema\": 1, \"arch\": \"amd64\", \"outputs\": {\"kernel\":"
		" {\"file\": \"../../etc/shadow\", \"size\": 6, \"sha256\": "
		"\"" HASH_KERNEL "\"}}}",
	};
	struct dir *d = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put(d, "manifest.json", bad[i]);
		assert_refused(d, -EBADMSG, "make vm");
	}
}

static void only_regular_files(void **state)
{
	struct dir *d = *state;

	unlinkat(d->fd, "state.img", 0);
	assert_int_equal(mkdirat(d->fd, "state.img", 0755), 0);
	assert_refused(d, -EBADMSG, "is not a file");
	unlinkat(d->fd, "state.img", AT_REMOVEDIR);
	assert_int_equal(symlinkat("vmlinuz", d->fd, "state.img"), 0);
	assert_refused(d, -ELOOP, "state.img");
	unlinkat(d->fd, "state.img", 0);
	assert_int_equal(mkfifoat(d->fd, "state.img", 0644), 0);
	assert_refused(d, -EBADMSG, "is not a file");
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		with(a_good_image),
		with(transports_where_they_are_wanted),
		with(both_archives_one_after_the_other),
		with(countries_that_the_list_does_not_have_are_named),
		with(what_is_missing_is_named),
		with(no_folder_at_all),
		with(a_wrong_hash_is_named_with_both),
		with(another_architecture),
		with(a_malformed_manifest),
		with(only_regular_files),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
