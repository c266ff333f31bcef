#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/scrub.h"

static void bridges_and_passwords_are_covered(void **state)
{
	static const char line[] = "webtunnel [2001:db8::7]:443 "
				   "0123456789ABCDEF0123456789ABCDEF01234567 "
				   "url=https://front.example/path";
	char *lines[] = { (char *)line, (char *)"192.0.2.4:443" };
	struct config cfg = {
		.bridge = { .bridges = lines, .n_bridges = 2 },
		.proxy = { .password = (char *)"hunter2" },
	};
	char text[] = "bridge $0123456789abcdef0123456789abcdef01234567 at "
		      "2001:db8::7 or 192.0.2.4: hunter2 "
		      "https://front.example/path";

	scrub_line(&cfg, text);
	assert_string_equal(
		text, "bridge $**************************************** at "
		      "*********** or *********: ******* "
		      "**************************");
	strcpy(text, "Bootstrapped 100% (done): Done");
	scrub_line(&cfg, text);
	assert_string_equal(text, "Bootstrapped 100% (done): Done");
}

/* Tor and the transports write the short form, whatever the line has. */
static void another_form_of_an_address_is_covered(void **state)
{
	char *lines[] = { (char *)"[2001:0DB8:0:0::0007]:443" };
	struct config cfg = {
		.bridge = { .bridges = lines, .n_bridges = 1 },
		.proxy = { .password = (char *)"" },
	};
	char text[] = "at [2001:db8::7]:443 or 2001:0db8:0:0::0007";

	scrub_line(&cfg, text);
	assert_string_equal(text,
			    "at [***********]:443 or *******************");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bridges_and_passwords_are_covered),
		cmocka_unit_test(another_form_of_an_address_is_covered),
	};

	return cmocka_run_group_tests_name("scrub", tests, NULL, NULL);
}
