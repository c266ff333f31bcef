/*
 * What one packet costs: three small programs for layers-bench.py.
 *
 *   layers-probe serve PORT                echoes bytes until killed
 *   layers-probe pingpong UID ADDR PORT N  ns per byte there and back (TCP)
 *   layers-probe send UID ADDR PORT N      ns per datagram of 64 bytes (UDP)
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int serve(const char *port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(port)),
	};
	int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
	char buf[4096];

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 16) < 0)
		return fail("listen");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int c = accept(s, NULL, NULL);
		ssize_t n;

		if (c < 0)
			return fail("accept");
		setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while ((n = read(c, buf, sizeof(buf))) > 0)
			if (write(c, buf, (size_t)n) < 0)
				break;
		close(c);
	}
}

static int measure(int type, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	char data[64] = "";
	int one = 1, n = atoi(argv[3]), s;
	int64_t begin;

	a.sin_port = htons((uint16_t)atoi(argv[2]));
	inet_pton(AF_INET, argv[1], &a.sin_addr);
	if (seteuid((uid_t)atoi(argv[0])) < 0)
		return fail("seteuid");
	s = socket(AF_INET, type, 0);
	if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof(a)) < 0)
		return fail("connect");
	if (type == SOCK_STREAM)
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	begin = now_ns();
	for (int i = 0; i < n; i++) {
		if (type == SOCK_DGRAM) {
			if (send(s, data, sizeof(data), 0) < 0)
				return fail("send");
		} else if (write(s, data, 1) != 1 || read(s, data, 1) != 1) {
			return fail("echo");
		}
	}
	printf("%lld\n", (long long)(now_ns() - begin) / n);
	return 0;
}

/* One processor for both ends, and nobody else on it for these milliseconds:
 * what is to be measured is a fraction of a microsecond. */
static void alone(void)
{
	const struct sched_param param = { .sched_priority = 10 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0 ||
	    sched_setscheduler(0, SCHED_FIFO, &param) < 0)
		perror("scheduling");
}

int main(int argc, char **argv)
{
	alone();
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2]);
	if (argc == 6 && strcmp(argv[1], "pingpong") == 0)
		return measure(SOCK_STREAM, argv + 2);
	if (argc == 6 && strcmp(argv[1], "send") == 0)
		return measure(SOCK_DGRAM, argv + 2);
	fputs("layers-probe serve|pingpong|send ...\n", stderr);
	return 2;
}
