#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tor/circuits.h"

#define A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define B "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
#define C "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"

static struct tor_circuits got;
static struct tor_entries entries;

static void circuits_are_read(void **state)
{
	tor_circuits_parse(
		"7 BUILT $" A "~one,$" B "~two,$" C "~three "
		"BUILD_FLAGS=NEED_CAPACITY PURPOSE=GENERAL "
		"TIME_CREATED=2026-11-24T17:00:00.123456\n"
		"8 LAUNCHED BUILD_FLAGS=IS_INTERNAL PURPOSE=HS_CLIENT_INTRO "
		"TIME_CREATED=2026-11-24T17:00:01.000000\n"
		"9 EXTENDED $" A "~one PURPOSE=TESTING\n",
		&got);
	assert_int_equal(got.n_circuits, 3);
	assert_int_equal(got.n_relays, 3);
	assert_string_equal(got.circuits[0].id, "7");
	assert_string_equal(got.circuits[0].status, "BUILT");
	assert_string_equal(got.circuits[0].purpose, "GENERAL");
	assert_string_equal(got.circuits[0].created,
			    "2026-11-24T17:00:00.123456");
	assert_int_equal(got.circuits[0].n_hops, 3);
	assert_string_equal(got.relays[got.circuits[0].hops[2]].nickname,
			    "three");
	assert_string_equal(got.relays[got.circuits[0].hops[2]].fingerprint, C);
	assert_int_equal(got.circuits[1].n_hops, 0);
	assert_string_equal(got.circuits[1].purpose, "HS_CLIENT_INTRO");
	assert_int_equal(got.circuits[2].n_hops, 1);
	assert_int_equal(got.circuits[2].hops[0], 0);
	tor_circuits_parse("", &got);
	assert_int_equal(got.n_circuits, 0);
}

static void odd_circuits_do_no_harm(void **state)
{
	char many[TOR_CIRCUITS_MAX * 16 + 200];
	size_t n = 0;

	tor_circuits_parse("\n \n5\n6 BUILT\n7 BUILT $AAAA~x,$" A "\n"
			   "8 BUILT $" A "!x PURPOSE=\"open\n"
			   "9 " A " BUILT\n",
			   &got);
	assert_int_equal(got.n_circuits, 3);
	assert_int_equal(got.circuits[1].n_hops, 0);
	for (int i = 0; i < TOR_CIRCUITS_MAX + 10; i++)
		n += (size_t)snprintf(many + n, sizeof(many) - n, "%d BUILT\n",
				      i);
	tor_circuits_parse(many, &got);
	assert_int_equal(got.n_circuits, TOR_CIRCUITS_MAX);
	tor_circuits_parse("1 BUILT $" A "~a\x1b[2Jb\n", &got);
	assert_string_equal(got.relays[0].nickname, "a?[2Jb");
}

static void streams_are_read(void **state)
{
	tor_streams_parse("12 SUCCEEDED 7 www.example:443\n"
			  "13 NEW 0 [2001:db8::1]:80 PURPOSE=USER\n"
			  "14 SUCCEEDED 7\n",
			  &got);
	assert_int_equal(got.n_streams, 2);
	assert_string_equal(got.streams[0].circuit, "7");
	assert_string_equal(got.streams[0].target, "www.example:443");
	assert_string_equal(got.streams[1].status, "NEW");
	assert_string_equal(got.streams[1].target, "[2001:db8::1]:80");
}

static struct tor_entries failed;

static void entries_are_read(void **state)
{
	tor_entries_parse("$" A "~one up\n"
			  "$" B "~two never-connected\n"
			  "$" C "~three down 2026-11-24 17:00:00\n",
			  &failed,
			  "$" B "~two LAUNCHED\n$" B "~two CONNECTED\n"
			  "$" B "~two LAUNCHED\n192.0.2.1:443 FAILED\n"
			  "2001:db8::1:443 NEW\n"
			  "nonsense CONNECTED\n",
			  &entries);
	assert_int_equal(entries.n_entries, 5);
	assert_string_equal(entries.entries[0].state, "up");
	assert_string_equal(entries.entries[1].fingerprint, B);
	assert_string_equal(entries.entries[1].state, "connected");
	assert_string_equal(entries.entries[2].state, "down");
	assert_string_equal(entries.entries[3].address, "192.0.2.1:443");
	assert_string_equal(entries.entries[3].state, "failed");
	assert_string_equal(entries.entries[4].address, "[2001:db8::1]:443");
}

/* Who was called in vain, until Tor gets through. */
static void failures_are_kept(void **state)
{
	char event[80];

	tor_entries_note(&failed, "$" A " LAUNCHED ID=1");
	tor_entries_note(&failed, "$" A " FAILED REASON=TIMEOUT ID=1");
	tor_entries_note(&failed, "$" A " CLOSED REASON=TIMEOUT ID=2");
	tor_entries_note(&failed, "$" B "~two LAUNCHED ID=3");
	tor_entries_note(&failed, "192.0.2.1:443 FAILED REASON=DONE");
	tor_entries_note(&failed, "nonsense FAILED");
	tor_entries_note(&failed, "$" C);
	assert_int_equal(failed.n_entries, 3);
	tor_entries_note(&failed, "$" B "~two CONNECTED ID=3");
	assert_int_equal(failed.n_entries, 2);
	tor_entries_parse("$" A "~one up\n", &failed, "192.0.2.1:443 NEW\n",
			  &entries);
	assert_int_equal(entries.n_entries, 2);
	assert_string_equal(entries.entries[0].state, "failed");
	assert_string_equal(entries.entries[1].state, "connecting");
	for (int i = 0; i < 2 * TOR_ENTRIES_MAX; i++) {
		snprintf(event, sizeof(event), "192.0.2.2:%d FAILED", i + 1);
		tor_entries_note(&failed, event);
	}
	assert_int_equal(failed.n_entries, TOR_ENTRIES_MAX);
	snprintf(event, sizeof(event), "192.0.2.2:%d", 2 * TOR_ENTRIES_MAX);
	assert_string_equal(failed.entries[TOR_ENTRIES_MAX - 1].address, event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(circuits_are_read),
		cmocka_unit_test(odd_circuits_do_no_harm),
		cmocka_unit_test(streams_are_read),
		cmocka_unit_test(entries_are_read),
		cmocka_unit_test(failures_are_kept),
	};

	return cmocka_run_group_tests_name("tor-circuits", tests, NULL, NULL);
}
