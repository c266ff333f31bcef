#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "proto/inet_diag.h"

static struct endpoint endpoint(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(text, strlen(text), &e), 0);
	return e;
}

static void endpoints(void **state)
{
	static const char *const good[] = { "192.0.2.1:80", "0.0.0.0:65535",
					    "[2001:db8::1]:9001", "[::1]:1" };
	static const char *const bad[] = {
		"",          "192.0.2.1",      "192.0.2.1:",
		":80",       "192.0.2.1:0",    "192.0.2.1:65536",
		"example:1", "192.0.2.256:80", "2001:db8::1:80",
		"[::1]",     "[::1:80",        "::1]:80",
		"[]:80",     "192.0.2.1:+8",   "[192.0.2.1]:80",
		"1.2.3.4:8 "
	};
	struct endpoint e, other;
	char text[ENDPOINT_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		e = endpoint(good[i]);
		assert_string_equal(endpoint_format(&e, text), good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(endpoint_parse(bad[i], strlen(bad[i]), &e),
				 -EINVAL);
	/* The same address, whatever the socket's family. */
	e = endpoint("192.0.2.1:80");
	other = endpoint("[::ffff:192.0.2.1]:80");
	assert_true(endpoint_equal(&e, &other));
	other.port = 81;
	assert_false(endpoint_equal(&e, &other));
}

struct answer {
	uint8_t bytes[1024];
	size_t len;
};

static void add(struct answer *a, uint16_t type, const void *data, size_t len)
{
	struct nlmsghdr head = { .nlmsg_len = (uint32_t)(sizeof(head) + len),
				 .nlmsg_type = type,
				 .nlmsg_seq = 7 };

	memcpy(a->bytes + a->len, &head, sizeof(head));
	memcpy(a->bytes + a->len + sizeof(head), data, len);
	a->len += NLMSG_ALIGN(head.nlmsg_len);
}

static void add_socket(struct answer *a, const char *ip, uint16_t port,
		       uint32_t uid)
{
	struct inet_diag_msg msg = {
		.idiag_family = strchr(ip, ':') ? AF_INET6 : AF_INET,
		.idiag_uid = uid,
		.id.idiag_dport = htons(port),
	};

	assert_int_equal(inet_pton(msg.idiag_family, ip, msg.id.idiag_dst), 1);
	add(a, SOCK_DIAG_BY_FAMILY, &msg, sizeof(msg));
}

static void a_dump(void **state)
{
	struct inet_diag_list list = { 0 };
	struct answer a = { 0 }, done = { 0 };
	char text[ENDPOINT_TEXT_MAX];
	int zero = 0;

	add_socket(&a, "198.51.100.1", 9001, 61101);
	add_socket(&a, "203.0.113.1", 80, 1000);
	add_socket(&a, "2001:db8::5", 443, 61101);
	add_socket(&a, "198.51.100.1", 9001, 61101);
	assert_int_equal(inet_diag_parse(a.bytes, a.len, 7, 61101, &list), 0);
	add(&done, NLMSG_DONE, &zero, sizeof(zero));
	assert_int_equal(inet_diag_parse(done.bytes, done.len, 7, 61101, &list),
			 1);
	assert_int_equal(list.n, 2);
	assert_string_equal(endpoint_format(&list.v[0], text),
			    "198.51.100.1:9001");
	assert_string_equal(endpoint_format(&list.v[1], text),
			    "[2001:db8::5]:443");
	/* Every cut of it is refused or incomplete, never believed. */
	for (size_t len = 0; len < a.len; len++) {
		struct inet_diag_list cut = { 0 };

		assert_true(inet_diag_parse(a.bytes, len, 7, 61101, &cut) <= 0);
		assert_true(cut.n <= 2);
	}
	assert_int_equal(inet_diag_parse(a.bytes, a.len, 8, 61101, &list),
			 -EBADMSG);
}

static void more_than_fit_are_counted(void **state)
{
	struct inet_diag_list list = { 0 };

	for (uint16_t port = 1; port <= 70; port++) {
		struct answer a = { 0 };

		add_socket(&a, "198.51.100.1", port, 1);
		assert_int_equal(inet_diag_parse(a.bytes, a.len, 7, 1, &list),
				 0);
	}
	assert_int_equal(list.n, ARRAY_SIZE(list.v));
	assert_int_equal(list.n_more, 70 - ARRAY_SIZE(list.v));
}

static void errors(void **state)
{
	struct inet_diag_list list = { 0 };
	int codes[] = { -ENOENT, -EINTR, 5, INT32_MIN };

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		struct answer a = { 0 };

		add(&a, NLMSG_ERROR, &codes[i], sizeof(codes[i]));
		assert_int_equal(inet_diag_parse(a.bytes, a.len, 7, 1, &list),
				 i < 2 ? codes[i] : -EBADMSG);
	}
}

/* The request is one that this kernel understands, without privileges. */
static void the_kernel(void **state)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t to_len = sizeof(to);
	struct inet_diag_list list = { 0 };
	uint8_t request[INET_DIAG_REQUEST_SIZE];
	_Alignas(8) uint8_t answer[INET_DIAG_ANSWER_MAX];
	struct endpoint want;
	bool found = false;
	int server, client, fd, r = 0;

	server = socket(AF_INET, SOCK_STREAM, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(server, (struct sockaddr *)&to, to_len), 0);
	assert_int_equal(listen(server, 1), 0);
	getsockname(server, (struct sockaddr *)&to, &to_len);
	assert_int_equal(connect(client, (struct sockaddr *)&to, to_len), 0);
	fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	inet_diag_request(AF_INET, 3, request);
	assert_int_equal(send(fd, request, sizeof(request), 0),
			 sizeof(request));
	while (r == 0) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);

		assert_true(n > 0);
		r = inet_diag_parse(answer, (size_t)n, 3, getuid(), &list);
	}
	assert_int_equal(r, 1);
	want = endpoint_from_ip4(&to.sin_addr, ntohs(to.sin_port));
	for (size_t i = 0; i < list.n; i++)
		found |= endpoint_equal(&list.v[i], &want);
	assert_true(found || list.n_more > 0);
	close(fd);
	close(client);
	close(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(endpoints),
		cmocka_unit_test(a_dump),
		cmocka_unit_test(more_than_fit_are_counted),
		cmocka_unit_test(errors),
		cmocka_unit_test(the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
