#include "cli/moat_call.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "cli/cli.h"

#define HELPER "torvm-moat"
#define OUTPUT_MAX ((size_t)256 * 1024)
/* The helper has a shorter one of its own. */
#define TIMEOUT_MS 150000
#define NOBODY 65534

void moat_call_deinit(struct moat_call *call)
{
	config_bridge_list_deinit(&call->bridges);
	while (call->n_texts > 0)
		free(call->texts[--call->n_texts]);
}

/* ------------------------------------------------------------------------- */
/* The child */

static unsigned int id_from(const char *variable)
{
	const char *text = getenv(variable);
	unsigned long id = text ? strtoul(text, NULL, 10) : 0;

	return id > 0 && id < NOBODY ? (unsigned int)id : NOBODY;
}

static bool drop_privileges(void)
{
	const struct rlimit small = { 64, 64 }, none = { 0, 0 };
	const struct rlimit cpu = { 30, 30 };
	uid_t uid = getuid();
	gid_t gid = getgid();

	if (geteuid() == 0) {
		uid = id_from("SUDO_UID");
		gid = id_from("SUDO_GID");
		if (setgroups(0, NULL) < 0)
			return false;
	}
	return setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0 &&
	       prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       setrlimit(RLIMIT_NOFILE, &small) == 0 &&
	       setrlimit(RLIMIT_CPU, &cpu) == 0 &&
	       setrlimit(RLIMIT_CORE, &none) == 0 &&
	       setrlimit(RLIMIT_FSIZE, &none) == 0;
}

static void be_helper(int program, int in, int out)
{
	static char name[] = HELPER;
	char *const argv[] = { name, NULL };
	char *const envp[] = { NULL };
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	/* By its descriptor: who it will be may not be able to reach it. */
	if (null >= 0 && dup2(in, STDIN_FILENO) >= 0 &&
	    dup2(out, STDOUT_FILENO) >= 0 && dup2(null, STDERR_FILENO) >= 0 &&
	    chdir("/") == 0 && drop_privileges())
		fexecve(program, argv, envp);
	_exit(127);
}

/* ------------------------------------------------------------------------- */
/* What comes back */

static int take(struct moat_call *call, const char *word, char *rest,
		struct error *e)
{
	if (!strcmp(word, "error")) {
		for (char *s = rest; *s; s++)
			if (*s < 0x20 || *s >= 0x7f)
				*s = '?';
		return error_set(e, -EHOSTUNREACH, "%s", rest);
	}
	if (!strcmp(word, "bridge"))
		return config_bridge_list_add(&call->bridges, rest,
					      "a bridge of the answer", e);
	if (!strcmp(word, "country") && strlen(rest) == 2) {
		str_copy(call->told_country, sizeof(call->told_country), rest);
	} else if (!strcmp(word, "none")) {
		call->none_needed = true;
	} else if (!strcmp(word, "left-out")) {
		call->n_left_out = strtoul(rest, NULL, 10);
	} else if (!strcmp(word, "text") &&
		   call->n_texts < MOAT_CALL_TEXTS_MAX) {
		call->texts[call->n_texts] = strdup(rest);
		if (call->texts[call->n_texts])
			call->n_texts++;
	}
	return 0;
}

static int parse_output(struct moat_call *call, char *text, struct error *e)
{
	char *line;

	while ((line = strsep(&text, "\n")) && text) {
		char *rest = line;
		const char *word = strsep(&rest, " ");
		int r;

		if (!strcmp(word, "end"))
			return 0;
		r = take(call, word, rest ? rest : line + strlen(line), e);
		if (r < 0)
			return r;
	}
	return error_set(e, -EPROTO,
			 HELPER " ended before it had answered; nothing was "
				"changed");
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Reads until the end into @buf, terminated. */
static int read_output(int fd, char *buf, struct error *e)
{
	int64_t deadline = now_ms() + TIMEOUT_MS;
	size_t len = 0;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = deadline - now_ms();
		ssize_t n;

		if (left <= 0)
			return error_set(e, -ETIMEDOUT,
					 "the bridge service did not answer in "
					 "time");
		if (poll(&p, 1, (int)left) <= 0)
			continue;
		n = read(fd, buf + len, OUTPUT_MAX - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(e, -errno, "read: %m");
		if (n == 0)
			break;
		len += (size_t)n;
		if (len == OUTPUT_MAX)
			return error_set(e, -E2BIG,
					 HELPER " said more than an answer can "
						"be");
	}
	buf[len] = '\0';
	return 0;
}

static void send_request(int fd, const struct moat_call *call)
{
	FILE *out = fdopen(fd, "w");

	if (!out) {
		close(fd);
		return;
	}
	fprintf(out, "question %s\nurl %s\n", call->question, call->url);
	if (call->proxy)
		fprintf(out, "proxy %s\n", call->proxy);
	if (call->through)
		fprintf(out, "through %s\n", call->through);
	if (call->country)
		fprintf(out, "country %s\n", call->country);
	if (call->transport)
		fprintf(out, "transport %s\n", call->transport);
	fclose(out);
}

/* Starts the helper and hands it the request. Return: where its answer comes
 * from, or a negative errno. */
static int start(const struct moat_call *call, pid_t *ret_pid, struct error *e)
{
	_cleanup_close_ int program = -1;
	int in[2], out[2], r;
	char path[1200];

	r = cli_find_program(HELPER, path, sizeof(path), e);
	if (r < 0)
		return r;
	program = open(path, O_PATH | O_CLOEXEC);
	if (program < 0 || pipe2(in, O_CLOEXEC) < 0)
		return error_set(e, -errno, "%s: %m", path);
	if (pipe2(out, O_CLOEXEC) < 0) {
		close(in[0]);
		close(in[1]);
		return error_set(e, -EMFILE, "pipe: %m");
	}
	*ret_pid = fork();
	if (*ret_pid == 0)
		be_helper(program, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	if (*ret_pid < 0) {
		close(in[1]);
		close(out[0]);
		return error_set(e, -EAGAIN, "fork: %m");
	}
	send_request(in[1], call);
	return out[0];
}

int moat_call(struct moat_call *call, struct error *e)
{
	char *output = malloc(OUTPUT_MAX + 1);
	pid_t pid = -1;
	int r, from;

	if (!output)
		return error_set(e, -ENOMEM, "out of memory");
	/* A helper that ends early is noticed by what it did not say. */
	signal(SIGPIPE, SIG_IGN);
	from = start(call, &pid, e);
	r = from;
	if (from >= 0) {
		r = read_output(from, output, e);
		if (r < 0)
			kill(pid, SIGKILL);
		close(from);
		waitpid(pid, NULL, 0);
	}
	if (r == 0)
		r = parse_output(call, output, e);
	free(output);
	return r;
}
