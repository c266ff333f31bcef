#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vm/accel.h"

static void what_is_tried_first(void **state)
{
	static const struct {
		enum config_accel wanted;
		bool kvm;
		int remembered;
		enum vm_accel first;
		bool fallback;
	} cases[] = {
		{ CONFIG_ACCEL_AUTO, true, -1, VM_ACCEL_KVM, true },
		{ CONFIG_ACCEL_AUTO, true, VM_ACCEL_KVM, VM_ACCEL_KVM, true },
		{ CONFIG_ACCEL_AUTO, true, VM_ACCEL_TCG, VM_ACCEL_TCG, false },
		{ CONFIG_ACCEL_AUTO, false, -1, VM_ACCEL_TCG, false },
		{ CONFIG_ACCEL_AUTO, false, VM_ACCEL_KVM, VM_ACCEL_TCG, false },
		{ CONFIG_ACCEL_KVM, false, VM_ACCEL_TCG, VM_ACCEL_KVM, false },
		{ CONFIG_ACCEL_KVM, true, -1, VM_ACCEL_KVM, false },
		{ CONFIG_ACCEL_TCG, true, VM_ACCEL_KVM, VM_ACCEL_TCG, false },
	};
	struct accel a;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		accel_first(cases[i].wanted, cases[i].kvm, cases[i].remembered,
			    &a);
		assert_int_equal(a.current, cases[i].first);
		assert_int_equal(a.fallback, cases[i].fallback);
		assert_false(a.proven);
		assert_int_equal(a.reason[strlen(a.reason) - 1], '.');
	}
}

static void kvm_that_does_not_work_ends_in_tcg(void **state)
{
	struct accel a;

	accel_first(CONFIG_ACCEL_AUTO, true, -1, &a);
	assert_true(accel_failed(&a, "QEMU ended by signal 6"));
	assert_int_equal(a.current, VM_ACCEL_TCG);
	assert_non_null(strstr(a.reason, "QEMU ended by signal 6"));
	/* A failure of emulation is not the accelerator's. */
	assert_false(accel_failed(&a, "QEMU ended by signal 6"));
}

static void a_proven_accelerator_stays(void **state)
{
	struct accel a;

	accel_first(CONFIG_ACCEL_AUTO, true, -1, &a);
	accel_proved(&a);
	assert_false(accel_failed(&a, "killed"));
	assert_int_equal(a.current, VM_ACCEL_KVM);
}

static void a_configured_accelerator_has_no_fallback(void **state)
{
	struct accel a;

	accel_first(CONFIG_ACCEL_KVM, true, -1, &a);
	assert_false(accel_failed(&a, "no sign of life"));
	assert_int_equal(a.current, VM_ACCEL_KVM);
}

static void write_verdict(int dirfd, const char *text)
{
	int fd = openat(dirfd, ACCEL_FILE, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void the_verdict_lasts_for_a_boot(void **state)
{
	static const char *const bad[] = {
		"",
		"tcg\n",
		"00000000-0000-0000-0000-000000000000 tcg\n",
	};
	char dir[] = "/tmp/torvm-accel-XXXXXX", text[128];
	int dirfd, fd;
	ssize_t n;

	assert_non_null(mkdtemp(dir));
	dirfd = open(dir, O_DIRECTORY | O_RDONLY);
	assert_int_equal(accel_load(dirfd), -ENOENT);
	for (int i = 0; i < VM_ACCEL_COUNT; i++) {
		assert_int_equal(accel_store(dirfd, (enum vm_accel)i), 0);
		assert_int_equal(accel_load(dirfd), i);
	}
	fd = openat(dirfd, ACCEL_FILE, O_RDONLY);
	n = read(fd, text, sizeof(text) - 2);
	assert_true(n > 0);
	close(fd);
	/* The file without its end, with more than it, or another's. */
	text[n - 1] = '\0';
	write_verdict(dirfd, text);
	assert_int_equal(accel_load(dirfd), -ENOENT);
	strcpy(text + n - 1, "\n\n");
	write_verdict(dirfd, text);
	assert_int_equal(accel_load(dirfd), -ENOENT);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		write_verdict(dirfd, bad[i]);
		assert_int_equal(accel_load(dirfd), -ENOENT);
	}
	unlinkat(dirfd, ACCEL_FILE, 0);
	close(dirfd);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_tried_first),
		cmocka_unit_test(kvm_that_does_not_work_ends_in_tcg),
		cmocka_unit_test(a_proven_accelerator_stays),
		cmocka_unit_test(a_configured_accelerator_has_no_fallback),
		cmocka_unit_test(the_verdict_lasts_for_a_boot),
	};

	return cmocka_run_group_tests_name("accel", tests, NULL, NULL);
}
