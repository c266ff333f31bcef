#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vm/authorities.h"

#define CERTIFICATE                                    \
	"-----BEGIN CERTIFICATE-----\nMIIB\n-----END " \
	"CERTIFICATE-----\n"

static char path[] = "/tmp/torvm-authorities-XXXXXX";

static int make(void **state)
{
	int fd = mkstemp(path);

	close(fd);
	return fd < 0 ? -1 : 0;
}

static int unmake(void **state)
{
	return unlink(path);
}

static void put(const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void the_archive_holds_the_file(void **state)
{
	static const char name[] = "etc/torvm/proxy.pem";
	struct buffer out = BUFFER_NULL(out);
	struct error e = ERROR_NULL(e);
	unsigned int mode, size, name_size;
	const char *data;
	size_t len, at;

	put(CERTIFICATE, strlen(CERTIFICATE));
	if (authorities_archive(AUTHORITIES_PROXY, path, &out, &e) < 0)
		fail_msg("%s", e.text);
	data = buffer_peek(&out, &len);
	assert_int_equal(len % 4, 0);
	assert_memory_equal(data, "070701", 6);
	assert_int_equal(sscanf(data + 14, "%8x", &mode), 1);
	assert_int_equal(mode, S_IFREG | 0444);
	assert_int_equal(sscanf(data + 54, "%8x", &size), 1);
	assert_int_equal(size, strlen(CERTIFICATE));
	assert_int_equal(sscanf(data + 94, "%8x", &name_size), 1);
	assert_int_equal(name_size, sizeof(name));
	assert_string_equal(data + 110, name);
	at = (110 + sizeof(name) + 3) / 4 * 4;
	assert_memory_equal(data + at, CERTIFICATE, size);
	at += (size + 3) / 4 * 4;
	assert_memory_equal(data + at, "070701", 6);
	assert_string_equal(data + at + 110, "TRAILER!!!");
	buffer_deinit(&out);
}

static void assert_refused(const char *file, int code, const char *needle)
{
	struct buffer out = BUFFER_NULL(out);
	struct error e = ERROR_NULL(e);

	assert_int_equal(
		authorities_archive(AUTHORITIES_BRIDGE, file, &out, &e), code);
	if (!strstr(e.text, needle) || !strstr(e.text, "bridge.ca_file"))
		fail_msg("no '%s' in: %s", needle, e.text);
	buffer_deinit(&out);
}

static void other_files_are_refused(void **state)
{
	static const char key[] =
		CERTIFICATE "-----BEGIN PRIVATE KEY-----\nMIIB\n";
	static const char der[] = "0\x82\x01\0\x30\x82";
	char *large = calloc(1, 300 * 1024);

	put("# nothing\n", 10);
	assert_refused(path, -EINVAL, "no certificate");
	put(key, strlen(key));
	assert_refused(path, -EINVAL, "more than");
	put(der, sizeof(der));
	assert_refused(path, -EINVAL, "not a PEM file");
	put(large, 300 * 1024);
	assert_refused(path, -EINVAL, "at most 256 KiB");
	free(large);
	assert_refused("/tmp", -EINVAL, "not a file");
	assert_refused("/nonexistent/ca.pem", -ENOENT, "cannot be read");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_archive_holds_the_file),
		cmocka_unit_test(other_files_are_refused),
	};

	return cmocka_run_group_tests(tests, make, unmake);
}
