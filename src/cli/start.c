/*
 * What has to be true before a controller is started, and how the broker is
 * called. Used by `torvm --headless` and `torvm up`.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>

#include "config/config.h"
#include "platform/platform.h"

#define BROKER "torvm-broker"
#define IMAGE_DIR "/usr/lib/torvm/vm"

int cli_find_program(const char *name, char *ret, size_t size, struct error *e)
{
	static const char *const folders[] = { "", "../libexec/torvm/" };
	char self[1024], *slash;
	ssize_t n;

	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0)
		return error_set(e, -errno, "/proc/self/exe: %m");
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return error_set(e, -ENOENT, "cannot tell where torvm is");
	slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		int len = snprintf(ret, size, "%s%s%s", self, folders[i], name);

		if (len > 0 && (size_t)len < size && access(ret, X_OK) == 0)
			return 0;
	}
	return error_set(
		e, -ENOENT,
		"%s is neither in %.200s nor in ../libexec/torvm beside "
		"it; build it with \"make\" or install TorVM again",
		name, self);
}

/* A small file of /proc, terminated. Return: its length or -1. */
static ssize_t read_proc(pid_t pid, const char *file, char *buf, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
	return n;
}

static pid_t parent_of(pid_t pid)
{
	char stat[512], *end;

	if (read_proc(pid, "stat", stat, sizeof(stat)) <= 0)
		return 0;
	/* proc_pid_stat(5): the name in brackets may hold anything. */
	end = strrchr(stat, ')');
	if (!end || strlen(end) < 5)
		return 0;
	return (pid_t)strtol(end + 4, NULL, 10);
}

int cli_open_image_dir(const char *given, const struct config *cfg, char *path,
		       size_t size)
{
	char self[1024];
	ssize_t n;
	int fd;

	if (given || cfg->vm.image_dir[0]) {
		str_copy(path, size, given ? given : cfg->vm.image_dir);
		return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		snprintf(path, size, "%s/dist/vm", dirname(dirname(self)));
		fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	str_copy(path, size, IMAGE_DIR);
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool cli_session_is_remote(void)
{
	static const char *const variables[] = { "SSH_CONNECTION", "SSH_CLIENT",
						 "SSH_TTY" };
	static const char *const servers[] = { "sshd", "dropbear",
					       "mosh-server", "in.telnetd" };
	pid_t pid = getppid();

	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		if (getenv(variables[i]))
			return true;
	/* sudo drops the variables; the ancestors stay. */
	for (int depth = 0; pid > 1 && depth < 64; depth++) {
		char name[64];

		if (read_proc(pid, "comm", name, sizeof(name)) <= 0)
			return false;
		for (size_t i = 0; i < ARRAY_SIZE(servers); i++)
			if (!strncmp(name, servers[i], strlen(servers[i])))
				return true;
		pid = parent_of(pid);
	}
	return false;
}

bool cli_leftovers(const char *runtime_dir)
{
	struct net *net = NULL;
	bool present;

	if (client_leftovers(runtime_dir))
		return true;
	if (geteuid() != 0 || net_open(&net, NULL) < 0)
		return false;
	present = net_firewall_present(net) && !net_firewall_is_lockdown(net);
	net_close(net);
	return present;
}

int cli_check_start(const struct cli_args *args)
{
	_cleanup_(config_freep) struct config *cfg = NULL;
	struct error e = ERROR_NULL(e);

	if (args->config && config_load(args->config, &cfg, &e) < 0 &&
	    (e.code != -EACCES || geteuid() == 0))
		return cli_fail(EXIT_CODE_CONFIG, "%s\nNothing was changed.",
				e.text);
	if (geteuid() != 0)
		return cli_fail(EXIT_CODE_PRIVILEGES,
				"root is needed to protect this computer; run "
				"it again with sudo. Nothing was changed.");
	if (!(args->given & (CLI_BIT(YES) | CLI_BIT(CONFIRM))) &&
	    cli_session_is_remote())
		return cli_fail(
			EXIT_CODE_USAGE,
			"this is a remote session, and TorVM will cut it off: "
			"all traffic but Tor's is blocked. Give --confirm 120 "
			"to get the network back after 120 seconds unless "
			"\"torvm confirm\" follows, or --yes to start anyway. "
			"Nothing was changed.");
	return EXIT_CODE_OK;
}

char **cli_broker_argv(const struct cli_args *args, char *path, size_t size)
{
	static char seconds[16]; /* outlives the vector */
	struct error e = ERROR_NULL(e);
	char **argv;
	size_t n = 0;

	if (cli_find_program(BROKER, path, size, &e) < 0) {
		cli_fail(EXIT_CODE_FAILED, "%s", e.text);
		return NULL;
	}
	argv = calloc(16, sizeof(*argv));
	if (!argv) {
		cli_fail(EXIT_CODE_FAILED, "out of memory");
		return NULL;
	}
	argv[n++] = path;
	if (args->config) {
		argv[n++] = (char *)"--config";
		argv[n++] = args->config;
	}
	if (args->accel) {
		argv[n++] = (char *)"--accel";
		argv[n++] = (char *)args->accel;
	}
	if (args->given & CLI_BIT(VERBOSE))
		argv[n++] = (char *)"--verbose";
	if (args->confirm_s) {
		snprintf(seconds, sizeof(seconds), "%u", args->confirm_s);
		argv[n++] = (char *)"--confirm";
		argv[n++] = seconds;
	}
	if (args->runtime_dir) {
		argv[n++] = (char *)"--runtime-dir";
		argv[n++] = args->runtime_dir;
	}
	if (args->state_dir) {
		argv[n++] = (char *)"--state-dir";
		argv[n++] = args->state_dir;
	}
	if (args->image_dir) {
		argv[n++] = (char *)"--image-dir";
		argv[n++] = args->image_dir;
	}
	return argv;
}

int cli_headless(const struct cli_args *args)
{
	_cleanup_free_ char **argv = NULL;
	char path[1200];
	int r = cli_check_start(args);

	if (r != EXIT_CODE_OK)
		return r;
	argv = cli_broker_argv(args, path, sizeof(path));
	if (!argv)
		return EXIT_CODE_FAILED;
	execv(path, argv);
	return cli_fail(EXIT_CODE_FAILED, "%s: %m", path);
}
