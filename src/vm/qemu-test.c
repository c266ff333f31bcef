#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "vm/qemu.h"

static void assert_refused(const char *configured, int code, const char *needle)
{
	struct error e = ERROR_NULL(e);
	char path[PATH_MAX];

	assert_int_equal(
		qemu_find(configured, VM_ARCH_AMD64, path, sizeof(path), &e),
		code);
	if (!strstr(e.text, needle))
		fail_msg("no '%s' in: %s", needle, e.text);
}

static void a_program_of_root_is_accepted(void **state)
{
	struct error e = ERROR_NULL(e);
	char path[PATH_MAX];

	/* Any program will do: it is not run here. */
	if (qemu_find("/usr/bin/env", VM_ARCH_AMD64, path, sizeof(path), &e) <
	    0)
		fail_msg("%s", e.text);
	assert_string_equal(path, "/usr/bin/env");
}

static void what_is_no_path_or_no_program(void **state)
{
	assert_refused("qemu-system-x86_64", -EINVAL, "absolute");
	assert_refused("/nowhere/qemu", -ENOENT, "apt-get install");
	assert_refused("/etc/passwd", -EPERM, "not a program");
	assert_refused("/usr/bin", -EPERM, "not a program");
	assert_refused("/usr/bin/../bin/env", -EINVAL, "file itself");
}

static void a_configured_symlink_is_refused(void **state)
{
	char dir[] = "/tmp/torvm-qemu-XXXXXX", link[64];

	assert_non_null(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/qemu", dir);
	assert_int_equal(symlink("/usr/bin/env", link), 0);
	assert_refused(link, -EINVAL, "/usr/bin/env");
	unlink(link);
	assert_int_equal(rmdir(dir), 0);
}

static void what_others_may_replace_is_refused(void **state)
{
	char dir[] = "/tmp/torvm-qemu-XXXXXX", path[64];
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/qemu", dir);
	f = fopen(path, "we");
	assert_non_null(f);
	fclose(f);
	assert_int_equal(chmod(path, 0757), 0);
	assert_refused(path, -EPERM, "could replace QEMU");
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_refused(path, -EPERM, "could replace QEMU");
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_of_root_is_accepted),
		cmocka_unit_test(what_is_no_path_or_no_program),
		cmocka_unit_test(a_configured_symlink_is_refused),
		cmocka_unit_test(what_others_may_replace_is_refused),
	};

	return cmocka_run_group_tests_name("qemu", tests, NULL, NULL);
}
