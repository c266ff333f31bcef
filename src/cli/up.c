/*
 * Theory of operation: torvm up, down, confirm
 *
 * `up` is a client first: if a controller answers, there is nothing to start.
 * Otherwise it starts one, as the service torvm.service where that is installed
 * and no option asks for something else, or as a process of its own session,
 * and then follows it by the control socket like any other client. Two things
 * can end the waiting: the status reaches the goal (the block is up; with
 * --wait, Running), or the starter's pidfd says that the controller is dead,
 * and then its last words and its exit code become ours.
 *
 * `down` returns when the controller is gone as a process, not when it says
 * that it is about to go: an `up` right after it must not find it still there.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define SERVICE "torvm.service"
#define LOG_NAME "controller.log"

/* The block goes up within a second or two; this is for a busy machine. */
#define BLOCK_TIMEOUT_S 120
#define POLL_MS 50

/* After its last word a controller has only to exit. */
#define GONE_TIMEOUT_MS 30000

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------------- */
/* The starter: what was forked to start the controller. */

struct starter {
	pid_t pid; /* 0: none; the controller was there before us */
	int pidfd;
	int log_fd;   /* -1: none */
	bool service; /* pid is systemctl, not the controller */
};

static void starter_deinit(struct starter *s)
{
	closep(&s->pidfd);
	closep(&s->log_fd);
}

/* Forks and runs @argv in a session of its own, with @log_fd (-1: /dev/null)
 * as its output. */
static int spawn(struct starter *s, char *const argv[])
{
	s->pid = fork();
	if (s->pid < 0)
		return cli_fail(EXIT_CODE_FAILED, "fork: %m");
	if (s->pid == 0) {
		int null = open("/dev/null", O_RDWR);
		int out = s->log_fd >= 0 ? s->log_fd : null;

		setsid();
		if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 ||
		    dup2(out, 2) < 0)
			_exit(EXIT_CODE_FAILED);
		execv(argv[0], argv);
		fprintf(stderr, "%s: %m\n", argv[0]);
		_exit(EXIT_CODE_FAILED);
	}
	s->pidfd = pidfd_open(s->pid, 0);
	if (s->pidfd < 0)
		return cli_fail(EXIT_CODE_FAILED, "pidfd_open: %m");
	return 0;
}

static int start_process(const struct cli_args *args, struct starter *s)
{
	const char *dir = cli_runtime_dir(args);
	_cleanup_free_ char **argv = NULL;
	_cleanup_close_ int dir_fd = -1;
	char path[1200];

	argv = cli_broker_argv(args, path, sizeof(path));
	if (!argv)
		return EXIT_CODE_FAILED;
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return cli_fail(EXIT_CODE_FAILED, "%s: %m", dir);
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return cli_fail(EXIT_CODE_FAILED, "%s: %m", dir);
	/* Read back after a failure, even if the folder is gone by then. */
	s->log_fd = openat(dir_fd, LOG_NAME,
			   O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW |
				   O_CLOEXEC,
			   0600);
	if (s->log_fd < 0)
		return cli_fail(EXIT_CODE_FAILED, "%s/" LOG_NAME ": %m", dir);
	return spawn(s, argv);
}

static int start_service(struct starter *s)
{
	static char *const argv[] = { (char *)"/usr/bin/systemctl",
				      (char *)"start", (char *)SERVICE, NULL };

	s->service = true;
	return spawn(s, argv);
}

static bool service_installed(void)
{
	static const char *const units[] = {
		"/etc/systemd/system/" SERVICE,
		"/usr/lib/systemd/system/" SERVICE,
		"/lib/systemd/system/" SERVICE,
	};

	if (access("/run/systemd/system", F_OK) < 0 ||
	    access("/usr/bin/systemctl", X_OK) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (access(units[i], F_OK) == 0)
			return true;
	return false;
}

/* What the service's main process exited with. */
static int service_exit_code(void)
{
	FILE *in = popen("/usr/bin/systemctl show --value "
			 "--property=ExecMainStatus " SERVICE,
			 "re");
	char line[32] = "";
	long code = 0;

	if (in && fgets(line, sizeof(line), in))
		code = strtol(line, NULL, 10);
	if (in)
		pclose(in);
	return code > 0 && code <= EXIT_CODE_TIMEOUT ? (int)code
						     : EXIT_CODE_FAILED;
}

/* The last lines of the log, as they are. */
static void print_log_tail(int fd)
{
	char buf[4096], *from = buf;
	struct stat st;
	off_t at = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	if (st.st_size > (off_t)sizeof(buf) - 1)
		at = st.st_size - ((off_t)sizeof(buf) - 1);
	n = pread(fd, buf, sizeof(buf) - 1, at);
	if (n <= 0)
		return;
	buf[n] = '\0';
	if (at > 0 && strchr(buf, '\n'))
		from = strchr(buf, '\n') + 1;
	fputs(from, stderr);
	if (buf[n - 1] != '\n')
		fputc('\n', stderr);
}

/* The starter has ended before the goal. */
static int starter_failed(struct starter *s, const struct cli_args *args)
{
	int status = 0, code = EXIT_CODE_FAILED;

	waitpid(s->pid, &status, 0);
	s->pid = 0;
	if (s->service) {
		code = service_exit_code();
		return cli_fail((enum exit_code)code,
				"the service did not start; its messages: "
				"journalctl -u " SERVICE " -n 20");
	}
	print_log_tail(s->log_fd);
	if (WIFSIGNALED(status))
		return cli_fail(EXIT_CODE_FAILED,
				"the controller was killed by signal %d; "
				"what it had blocked stays blocked; run "
				"\"torvm up\" again or \"torvm recover\"",
				WTERMSIG(status));
	/* 0: somebody stopped it while we were waiting. */
	code = WEXITSTATUS(status);
	if (code == EXIT_CODE_OK)
		return cli_fail(EXIT_CODE_FAILED,
				"it was stopped before it was up");
	return cli_fail(
		(enum exit_code)code,
		"the controller ended with exit code %d%s", code,
		cli_leftovers(cli_runtime_dir(args))
			? "; traffic may still be blocked: \"torvm up\" "
			  "or \"torvm recover\""
			: "");
}

/* Reaps a starter that exited with 0. */
static bool ended_well(struct starter *s)
{
	siginfo_t info = { 0 };

	if (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOWAIT) < 0 ||
	    info.si_code != CLD_EXITED || info.si_status != 0)
		return false;
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
	return true;
}

/* ------------------------------------------------------------------------- */
/* Following it */

struct follow {
	struct cli_progress progress;
	bool until_running;
	struct client_status last;
};

static int on_status(void *userdata, const struct client_status *status)
{
	struct follow *f = userdata;

	f->last = *status;
	cli_progress_show(&f->progress, status);
	return f->until_running ? !strcmp(status->state, "Running")
				: status->blocked;
}

static int timed_out(const struct follow *f, uint32_t seconds)
{
	char words[600];

	if (!f->last.state[0])
		return cli_fail(EXIT_CODE_TIMEOUT,
				"the controller did not answer within %u s; "
				"see \"torvm doctor\"",
				seconds);
	cli_describe(&f->last, words, sizeof(words));
	return cli_fail(EXIT_CODE_TIMEOUT,
			"not connected after %u s (%s). Traffic stays blocked "
			"and TorVM keeps trying; watch it with \"torvm status "
			"--watch\", give up with \"torvm down\"",
			seconds, words);
}

/* Waits until the goal. Return: an exit code, all said. */
static int follow(const struct cli_args *args, struct starter *s,
		  struct follow *f)
{
	uint32_t seconds = args->timeout_s    ? args->timeout_s
			   : f->until_running ? CLI_WAIT_S
					      : BLOCK_TIMEOUT_S;
	int64_t deadline_ms = now_ms() + (int64_t)seconds * 1000;

	for (;;) {
		_cleanup_(client_freep) struct client *client = NULL;
		struct error e = ERROR_NULL(e);
		int64_t left = deadline_ms - now_ms();
		int r;

		r = client_connect(cli_runtime_dir(args), &client, &e);
		if (r == 0) {
			client_set_deadline(client, left > 0 ? left : 0);
			r = client_watch_status(client, on_status, f, &e);
		}
		if (r > 0)
			return EXIT_CODE_OK;
		if (r == -ETIMEDOUT || left <= 0)
			return timed_out(f, seconds);
		if (r < 0 && r != -ESRCH)
			return cli_fail(cli_client_code(r), "%s", e.text);
		/* Not there yet, or no more. */
		if (s->pid > 0) {
			struct pollfd p = { .fd = s->pidfd, .events = POLLIN };

			if (poll(&p, 1, POLL_MS) <= 0)
				continue;
			/* systemctl has nothing more to say once it is up. */
			if (s->service && ended_well(s))
				continue;
			return starter_failed(s, args);
		}
		if (!s->service)
			return cli_fail(EXIT_CODE_FAILED,
					"the controller has ended%s",
					cli_leftovers(cli_runtime_dir(args))
						? "; traffic may still be "
						  "blocked: \"torvm up\" or "
						  "\"torvm recover\""
						: "");
		poll(NULL, 0, POLL_MS);
	}
}

bool cli_is_stopping(const struct client_status *status)
{
	return !strcmp(status->state, "Shutdown") ||
	       !strcmp(status->state, "RestoreNetwork") ||
	       !strcmp(status->state, "Cleanup");
}

/* ------------------------------------------------------------------------- */
/* Its end */

/* Whether a broker holds the lock of this network namespace: an abstract
 * socket, listed in /proc/net/unix (proc_net(5)). */
static bool broker_present(void)
{
	FILE *in = fopen("/proc/net/unix", "re");
	bool present = false;
	char line[512];

	if (!in)
		return false;
	while (!present && fgets(line, sizeof(line), in)) {
		const char *name = strrchr(line, ' ');

		present = name && !strcmp(name, " @torvm-broker\n");
	}
	fclose(in);
	return present;
}

/* Return: whether it went in time. */
static bool wait_until_gone(const char *runtime_dir)
{
	int64_t deadline_ms = now_ms() + GONE_TIMEOUT_MS;

	for (;;) {
		_cleanup_(client_freep) struct client *client = NULL;

		if (client_connect(runtime_dir, &client, NULL) == -ESRCH &&
		    !broker_present())
			return true;
		if (now_ms() >= deadline_ms)
			return false;
		poll(NULL, 0, POLL_MS);
	}
}

static int left_behind(const char *what)
{
	return cli_fail(EXIT_CODE_RESTORE,
			"%s, and traffic may still be blocked. Open the "
			"network with \"torvm recover\", or protect it again "
			"with \"torvm up\"",
			what);
}

static int on_stop(void *userdata, const struct client_status *status)
{
	struct follow *f = userdata;

	f->last = *status;
	cli_progress_show(&f->progress, status);
	return 0;
}

/* An engine that crashes while it is asked is followed by another one that
 * knows nothing of it, and is asked as well. @client: may be another one
 * afterwards. Return: as client_stop(); -ESRCH: no controller is left. */
static int stop_controller(const char *dir, struct client **client,
			   struct follow *f, struct error *e)
{
	int64_t deadline_ms = now_ms() + CLI_STOP_TIMEOUT_S * INT64_C(1000);
	int64_t left_ms;
	int r = 0;

	while (r == 0 && (left_ms = deadline_ms - now_ms()) > 0) {
		client_set_deadline(*client, left_ms);
		r = client_stop(*client, on_stop, f, e);
		if (r != -ESRCH)
			return r;
		poll(NULL, 0, POLL_MS);
		client_free(*client);
		*client = NULL;
		r = client_connect(dir, client, e);
	}
	return r < 0 ? r : -ETIMEDOUT;
}

int cli_down(const struct cli_args *args)
{
	const char *dir = cli_runtime_dir(args);
	_cleanup_(client_freep) struct client *client = NULL;
	struct error e = ERROR_NULL(e);
	struct follow f = { 0 };
	int r;

	r = client_connect(dir, &client, &e);
	if (r == -ESRCH) {
		if (cli_leftovers(dir))
			return left_behind("no controller runs, but one ended "
					   "without restoring the network");
		puts(cli_lockdown(dir) ? "TorVM does not run. Lockdown is on: "
					 "all traffic is blocked. \"torvm "
					 "lockdown off\" opens the network."
				       : "TorVM does not run; the network is "
					 "as it is without it.");
		return EXIT_CODE_OK;
	}
	if (r == 0) {
		cli_progress_init(&f.progress);
		r = stop_controller(dir, &client, &f, &e);
		cli_progress_end(&f.progress);
	}
	if (r == -ETIMEDOUT)
		return cli_fail(EXIT_CODE_TIMEOUT,
				"the controller did not finish within %d s; "
				"traffic stays blocked. See \"torvm log\"",
				CLI_STOP_TIMEOUT_S);
	/* -ESRCH: it ended without a last word; the journal tells. */
	if (r < 0 && r != -ESRCH)
		return cli_fail(cli_client_code(r), "%s", e.text);
	if (!wait_until_gone(dir))
		return cli_fail(EXIT_CODE_TIMEOUT,
				"the controller has stopped but does not go; "
				"see \"torvm log\"");
	if (cli_leftovers(dir))
		return left_behind("not everything could be restored");
	puts(cli_lockdown(dir) ? "TorVM has stopped. Lockdown is on: all "
				 "traffic stays blocked. \"torvm lockdown "
				 "off\" opens the network."
			       : "The network is as it was before TorVM "
				 "started.");
	return EXIT_CODE_OK;
}

int cli_confirm(const struct cli_args *args)
{
	_cleanup_(client_freep) struct client *client = NULL;
	struct error e = ERROR_NULL(e);
	int r;

	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r == 0)
		r = client_confirm(client, &e);
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	puts("Confirmed: the protection stays.");
	return EXIT_CODE_OK;
}

/* A controller answers. Return: an exit code; -1: it is gone, start one. */
static int already_there(const struct cli_args *args, struct client *client,
			 struct follow *f)
{
	struct starter none = { .pidfd = -1, .log_fd = -1 };
	struct error e = ERROR_NULL(e);
	int r;

	r = client_get_status(client, &f->last, &e);
	if (r == -ESRCH)
		return -1;
	if (r < 0)
		return cli_fail(cli_client_code(r), "%s", e.text);
	if (cli_is_stopping(&f->last)) {
		cli_progress_show(&f->progress, &f->last);
		if (wait_until_gone(cli_runtime_dir(args)))
			return -1;
		return cli_fail(EXIT_CODE_BUSY,
				"another instance is stopping; try again");
	}
	return follow(args, &none, f);
}

int cli_up(const struct cli_args *args)
{
	/* --yes alone asks for nothing that the service does not do. */
	const unsigned int special = CLI_START_OPTIONS & ~CLI_BIT(YES);
	_cleanup_(starter_deinit) struct starter s = { .pidfd = -1,
						       .log_fd = -1 };
	_cleanup_(client_freep) struct client *client = NULL;
	struct follow f = { .until_running = args->given & CLI_BIT(WAIT) };
	struct error e = ERROR_NULL(e);
	int r;

	cli_progress_init(&f.progress);
	r = client_connect(cli_runtime_dir(args), &client, &e);
	if (r < 0 && r != -ESRCH)
		return cli_fail(cli_client_code(r), "%s", e.text);
	if (r == 0) {
		r = already_there(args, client, &f);
		cli_progress_end(&f.progress);
		if (r > 0)
			return r;
		if (r == 0) {
			puts("TorVM was already up.");
			return EXIT_CODE_OK;
		}
	}
	r = cli_check_start(args);
	if (r != EXIT_CODE_OK)
		return r;
	if (!(args->given & special) && service_installed())
		r = start_service(&s);
	else
		r = start_process(args, &s);
	if (r != 0)
		return r;
	r = follow(args, &s, &f);
	cli_progress_end(&f.progress);
	if (r != EXIT_CODE_OK)
		return r;
	puts(f.until_running
		     ? "Connected: all traffic goes through Tor."
		     : "Protected: nothing leaves but through Tor. See \"torvm "
		       "status\".");
	if (f.last.confirm_left >= 0)
		printf("Run \"torvm confirm\" within %lld s, or the network "
		       "opens again.\n",
		       (long long)f.last.confirm_left);
	return EXIT_CODE_OK;
}
