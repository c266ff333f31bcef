#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vm/guestconfig.h"

static void every_key(void **state)
{
	struct guestconfig g = {
		.time = 1795531036,
		.state_disk = true,
		.host_mac = { 2, 0, 0xab, 0, 0, 0xff },
	};
	_cleanup_free_ char *text = NULL;

	inet_aton("10.10.10.2", &g.host_ip);
	inet_aton("10.10.10.1", &g.vm_ip);
	assert_int_equal(guestconfig_render(&g, &text, NULL), 0);
	assert_string_equal(text, "version=1\n"
				  "time=1795531036\n"
				  "state_disk=1\n"
				  "host_ip=10.10.10.2\n"
				  "vm_ip=10.10.10.1\n"
				  "host_mac=02:00:ab:00:00:ff\n");
}

static void a_memfd_holds_the_text_and_is_sealed(void **state)
{
	char text[16] = "";
	int fd = guestconfig_memfd("torrc", "Sandbox 1\n", NULL);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, text, sizeof(text), 0), 10);
	assert_string_equal(text, "Sandbox 1\n");
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_key),
		cmocka_unit_test(a_memfd_holds_the_text_and_is_sealed),
	};

	return cmocka_run_group_tests_name("guestconfig", tests, NULL, NULL);
}
