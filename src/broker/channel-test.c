#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "broker/channel.h"
#include "vm/fds.h"

static struct broker_message request(unsigned int type)
{
	struct broker_message m = { .magic = BROKER_MESSAGE_MAGIC,
				    .type = type };

	if (type == BROKER_REQUEST_BLOCK || type == BROKER_REQUEST_PRECHECK) {
		strcpy(m.u.net.tap_name, "torvm0");
		m.u.net.host_ip.s_addr = inet_addr("10.10.10.2");
		m.u.net.vm_ip.s_addr = inet_addr("10.10.10.1");
	}
	if (type == BROKER_REQUEST_START_VM)
		m.u.start_vm.present = 1;
	return m;
}

static void a_packet_carries_fds(void **state)
{
	int pair[2], fds[BROKER_MESSAGE_FDS_MAX], sent[2];
	struct broker_message m = request(BROKER_REQUEST_STATUS), got;
	size_t n;

	assert_int_equal(channel_pair(pair), 0);
	sent[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sent[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
	m.serial = 77;
	assert_int_equal(channel_send(pair[0], &m, sizeof(m), sent, 2), 0);
	assert_int_equal(channel_recv(pair[1], &got, sizeof(got), fds, &n), 1);
	assert_int_equal(n, 2);
	assert_int_equal(got.serial, 77);
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(fds[1], F_GETFL) & O_ACCMODE, O_WRONLY);
	assert_int_equal(channel_recv(pair[1], &got, sizeof(got), fds + 2, &n),
			 -EAGAIN);
	channel_close_fds(fds, 2);
	channel_close_fds(sent, 2);
	close(pair[0]);
	assert_int_equal(channel_recv(pair[1], &got, sizeof(got), fds, &n), 0);
	close(pair[1]);
}

static void a_packet_of_another_size_is_dropped_with_its_fds(void **state)
{
	int pair[2], fds[BROKER_MESSAGE_FDS_MAX], pipe_fds[2];
	struct broker_message m = request(BROKER_REQUEST_STATUS), got;
	char big[sizeof(m) + 1] = { 0 }, c;
	size_t n;

	assert_int_equal(channel_pair(pair), 0);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(
		channel_send(pair[0], &m, sizeof(m) - 1, &pipe_fds[1], 1), 0);
	assert_int_equal(channel_send(pair[0], big, sizeof(big), NULL, 0), 0);
	close(pipe_fds[1]);
	assert_int_equal(channel_recv(pair[1], &got, sizeof(got), fds, &n),
			 -EBADMSG);
	assert_int_equal(n, 0);
	/* The only write end is gone: end of file, not EAGAIN. */
	assert_int_equal(read(pipe_fds[0], &c, 1), 0);
	assert_int_equal(channel_recv(pair[1], &got, sizeof(got), fds, &n),
			 -EBADMSG);
	close(pipe_fds[0]);
	channel_close_fds(pair, 2);
}

static void a_silent_peer_does_not_block_the_sender(void **state)
{
	struct broker_message m = request(BROKER_REQUEST_STATUS);
	int pair[2], r, i;

	assert_int_equal(channel_pair(pair), 0);
	for (i = 0; i < 100000; i++) {
		r = channel_send(pair[0], &m, sizeof(m), NULL, 0);
		if (r < 0)
			break;
	}
	assert_int_equal(r, -EAGAIN);
	channel_close_fds(pair, 2);
}

static void every_request_is_checked(void **state)
{
	unsigned int type;

	for (type = 1; type < BROKER_REQUEST_COUNT; type++) {
		size_t n = type == BROKER_REQUEST_START_VM ? 2 : 0;
		struct broker_message m = request(type);
		struct error e = ERROR_NULL(e);

		assert_int_equal(broker_message_check(&m, n, &e), 0);
		assert_string_not_equal(broker_type_name(type), "?");
		assert_int_equal(broker_message_check(&m, n + 1, &e), -EBADMSG);

		m.magic++;
		assert_int_equal(broker_message_check(&m, n, &e), -EBADMSG);

		m = request(type);
		memset(m.text, 'x', sizeof(m.text));
		assert_int_equal(broker_message_check(&m, n, &e), -EBADMSG);

		m = request(type);
		strcpy(m.text, "Running\nMAINPID=1");
		assert_int_equal(broker_message_check(&m, n, &e), -EBADMSG);
	}
}

static void numbers_that_are_no_request_are_refused(void **state)
{
	static const unsigned int types[] = { 0, BROKER_REQUEST_COUNT,
					      BROKER_REPLY, BROKER_EVENT_STOP,
					      0xffffffff };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		struct broker_message m = request(types[i]);

		assert_int_equal(broker_message_check(&m, 0, NULL), -EBADMSG);
	}
}

static void start_vm_counts_its_fds(void **state)
{
	struct broker_message m = request(BROKER_REQUEST_START_VM);

	m.u.start_vm.present = 0x3f; /* OUTPUT to TORRC */
	assert_int_equal(broker_message_check(&m, 7, NULL), 0);
	assert_int_equal(broker_message_check(&m, 6, NULL), -EBADMSG);
	m.u.start_vm.present = 0x7f;
	assert_int_equal(broker_message_check(&m, 8, NULL), -EBADMSG);
	m.u.start_vm.present = 0x3e; /* no output */
	assert_int_equal(broker_message_check(&m, 6, NULL), -EBADMSG);
}

static void the_plan_is_checked(void **state)
{
	static const char *const names[] = { "",     ".",   "..",  "lo",
					     "a/b",  "a b", "a:1", "tap%d",
					     "\xff", "\n" };
	static const char *const pairs[][2] = {
		{ "10.10.10.2", "10.10.10.2" }, { "10.10.10.2", "10.10.10.5" },
		{ "10.10.10.2", "10.10.10.0" }, { "10.10.10.3", "10.10.10.1" },
		{ "127.0.0.2", "127.0.0.1" },   { "224.0.0.2", "224.0.0.1" },
		{ "0.0.0.2", "0.0.0.1" },
	};
	struct broker_message m = request(BROKER_REQUEST_BLOCK);
	struct error e = ERROR_NULL(e);
	size_t i;

	assert_int_equal(broker_net_check(&m.u.net, &e), 0);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		m = request(BROKER_REQUEST_BLOCK);
		strcpy(m.u.net.tap_name, names[i]);
		assert_int_equal(broker_net_check(&m.u.net, &e), -EINVAL);
	}
	m = request(BROKER_REQUEST_BLOCK);
	memset(m.u.net.tap_name, 'a', sizeof(m.u.net.tap_name));
	assert_int_equal(broker_net_check(&m.u.net, &e), -EINVAL);
	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		m = request(BROKER_REQUEST_BLOCK);
		m.u.net.host_ip.s_addr = inet_addr(pairs[i][0]);
		m.u.net.vm_ip.s_addr = inet_addr(pairs[i][1]);
		assert_int_equal(broker_net_check(&m.u.net, &e), -EINVAL);
		assert_int_equal(broker_message_check(&m, 0, &e), -EBADMSG);
	}
}

#define SANDBOX                                               \
	"on,obsolete=deny,elevateprivileges=deny,spawn=deny," \
	"resourcecontrol=deny"

static void qemu_must_be_confined(void **state)
{
	static const char *const good[] = { "/usr/bin/qemu-system-x86_64",
					    "-nodefaults",
					    "-no-user-config",
					    "-sandbox",
					    SANDBOX,
					    NULL };
	static const char *const sandboxes[] = {
		"off",
		"on",
		"on,elevateprivileges=allow,spawn=deny,resourcecontrol=deny",
		SANDBOX ",spawn=allow",
		"on,elevateprivileges=children,spawn=deny,resourcecontrol=deny",
	};
	const char *bad[ARRAY_SIZE(good) + 2];
	struct error e = ERROR_NULL(e);
	size_t i;

	assert_int_equal(broker_argv_check((char *const *)good, &e), 0);
	for (i = 0; i < 5; i++) {
		memcpy(bad, good, sizeof(good));
		bad[i] = "-S";
		assert_int_equal(broker_argv_check((char *const *)bad, &e),
				 -EINVAL);
	}
	for (i = 0; i < ARRAY_SIZE(sandboxes); i++) {
		memcpy(bad, good, sizeof(good));
		bad[4] = sandboxes[i];
		assert_int_equal(broker_argv_check((char *const *)bad, &e),
				 -EINVAL);
	}
	/* A second -sandbox would win. */
	memcpy(bad, good, sizeof(good));
	bad[5] = "-sandbox";
	bad[6] = "off";
	bad[7] = NULL;
	assert_int_equal(broker_argv_check((char *const *)bad, &e), -EINVAL);
	memcpy(bad, good, sizeof(good));
	bad[0] = "/bin/sh";
	assert_int_equal(broker_argv_check((char *const *)bad, &e), -EINVAL);

	/* Found by tests/fuzz/spawner-fuzz.c: it went into the log as it was.
	 */
	memcpy(bad, good, sizeof(good));
	bad[0] = "/usr/bin/x\n\33[2Jtorvm: all is well";
	assert_int_equal(broker_argv_check((char *const *)bad, &e), -EINVAL);
	assert_null(strpbrk(e.text, "\n\33"));
}

static void arguments_are_split(void **state)
{
	char text[] = "/a\0-b\0\0c", *argv[8];

	assert_int_equal(broker_argv_split(text, sizeof(text), argv, 8), 4);
	assert_string_equal(argv[1], "-b");
	assert_string_equal(argv[2], "");
	assert_null(argv[4]);
	assert_int_equal(broker_argv_split(text, sizeof(text), argv, 4),
			 -EBADMSG);
	assert_int_equal(broker_argv_split(text, sizeof(text) - 1, argv, 8),
			 -EBADMSG);
	assert_int_equal(broker_argv_split(text, 0, argv, 8), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_packet_carries_fds),
		cmocka_unit_test(
			a_packet_of_another_size_is_dropped_with_its_fds),
		cmocka_unit_test(a_silent_peer_does_not_block_the_sender),
		cmocka_unit_test(every_request_is_checked),
		cmocka_unit_test(numbers_that_are_no_request_are_refused),
		cmocka_unit_test(start_vm_counts_its_fds),
		cmocka_unit_test(the_plan_is_checked),
		cmocka_unit_test(qemu_must_be_confined),
		cmocka_unit_test(arguments_are_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
