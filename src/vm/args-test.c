#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/golden.h"
#include "vm/args.h"

#define ARGV_MAX 16384

static const struct vm_args_input typical = {
	.qemu_path = "/usr/bin/qemu-system-x86_64",
	.arch = VM_ARCH_AMD64,
	.accel = VM_ACCEL_TCG,
	.memory_mb = 192,
	.cpus = 1,
	.state_disk = true,
};

/* One argument a line, so that a change reads well in a diff. */
static void check(const struct vm_args_input *in, const char *name)
{
	char argv[ARGV_MAX], path[512];
	struct error e = ERROR_NULL(e);
	size_t len;

	assert_int_equal(vm_args_build(in, argv, sizeof(argv), &len, &e), 0);
	assert_int_equal(argv[len - 1], '\0');
	for (size_t i = 0; i + 1 < len; i++) {
		assert_int_not_equal(argv[i], '\n');
		if (argv[i] == '\0')
			argv[i] = '\n';
	}
	argv[len - 1] = '\n';
	argv[len] = '\0';
	snprintf(path, sizeof(path), "%s/%s.args", GOLDEN_DIR, name);
	golden_check(path, argv);
}

static void amd64_tcg(void **state)
{
	check(&typical, "amd64-tcg");
}

static void amd64_kvm_without_state_disk(void **state)
{
	struct vm_args_input in = typical;

	in.accel = VM_ACCEL_KVM;
	in.state_disk = false;
	in.cpus = 2;
	in.console = true;
	check(&in, "amd64-kvm-no-disk");
}

static void amd64_with_ipv6(void **state)
{
	struct vm_args_input in = typical;

	in.ipv6 = true;
	check(&in, "amd64-tcg-ipv6");
}

static void arm64_tcg(void **state)
{
	struct vm_args_input in = typical;

	in.qemu_path = "/usr/bin/qemu-system-aarch64";
	in.arch = VM_ARCH_ARM64;
	check(&in, "arm64-tcg");
}

static void a_small_buffer_is_no_argument_vector(void **state)
{
	struct error e = ERROR_NULL(e);
	char argv[ARGV_MAX];
	size_t len;

	assert_int_equal(vm_args_build(&typical, argv, sizeof(argv), &len, &e),
			 0);
	for (size_t size = 1; size < len; size += 7)
		assert_int_equal(
			vm_args_build(&typical, argv, size, &(size_t){ 0 }, &e),
			-E2BIG);
	assert_int_equal(vm_args_build(&typical, argv, len, &len, &e), 0);
}

static void a_relative_path_is_refused(void **state)
{
	struct vm_args_input in = typical;
	struct error e = ERROR_NULL(e);
	char argv[ARGV_MAX];
	size_t len;

	in.qemu_path = "qemu-system-x86_64";
	assert_int_equal(vm_args_build(&in, argv, sizeof(argv), &len, &e),
			 -EINVAL);
	assert_non_null(strstr(e.text, "absolute"));
}

static void names_go_both_ways(void **state)
{
	for (int i = 0; i < VM_ARCH_COUNT; i++)
		assert_int_equal(vm_arch_from_name(vm_arch_name(i)), i);
	assert_int_equal(vm_arch_from_name("i386"), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(amd64_tcg),
		cmocka_unit_test(amd64_kvm_without_state_disk),
		cmocka_unit_test(amd64_with_ipv6),
		cmocka_unit_test(arm64_tcg),
		cmocka_unit_test(a_small_buffer_is_no_argument_vector),
		cmocka_unit_test(a_relative_path_is_refused),
		cmocka_unit_test(names_go_both_ways),
	};

	return cmocka_run_group_tests_name("args", tests, NULL, NULL);
}
