/*
 * torvm-broker: the privileged process.
 *
 * Theory of operation, stage by stage; each ends in a plain message and an
 * exit code if it fails, with nothing changed:
 *
 *   options     the same as those of `torvm --headless`, which executes us
 *   lock        one controller per network namespace (lock.c)
 *   files       directories, the engine's binary, the configuration (opened,
 *               never parsed), the image folder, the control socket
 *   signals     blocked; from here on they are read from a signalfd
 *   spawner     forked, with those fds and nothing else
 *   adoption    what a dead controller left (broker.c)
 *   sandbox     capabilities and seccomp (sandbox.c); no way back
 *   loop        loop.c
 *   end         files removed if the network is open; else they stay for
 *               `torvm recover`. A start that failed leaves no trace
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/channel.h"
#include "broker/dirs.h"
#include "broker/lock.h"
#include "broker/loop.h"
#include "broker/restore.h"
#include "broker/sandbox.h"
#include "daemon/fds.h"

#define DEFAULT_RUNTIME_DIR "/run/torvm"
#define DEFAULT_STATE_DIR "/var/lib/torvm"

/* In place of users that do not exist: in the one range below 65536 that
 * neither Debian nor systemd gives out (systemd.io/UIDS-GIDS). */
#define FALLBACK_ENGINE_ID 61100
#define FALLBACK_VM_ID 61101

#define CONFIRM_MAX_S 3600

/* Beyond what the engine accepts, so that it can say so. */
#define CONFIG_SIZE_MAX (4L * 1024 * 1024) /* bytes */

struct options {
	const char *config; /* NULL: none */
	const char *accel;  /* NULL: as configured */
	const char *confirm;
	const char *runtime_dir;
	const char *state_dir;
	const char *image_dir; /* NULL: looked up */
	bool verbose;
};

/* What is open or made, and must be undone. */
struct setup {
	char *runtime_path;
	char *state_path;
	char *image_path;
	/* Made by us, by a dead controller, or by lockdown. */
	bool own_runtime_dir;
	bool made_state_dir;
	int runtime_fd;
	int vm_dir_fd;
	struct lock lock;
	struct spawner_setup spawner;
	char *engine_argv[24];
	struct spawner link;
	pid_t spawner_pid;
	int signal_fd;
};

static const char usage[] =
	"Usage: torvm-broker [--config FILE] [--accel auto|kvm|tcg] "
	"[--verbose]\n"
	"                    [--confirm SECONDS] [--runtime-dir DIR]\n"
	"                    [--state-dir DIR] [--image-dir DIR]\n"
	"\n"
	"The privileged part of TorVM. Users start it by `torvm --headless`.\n";

static int usage_error(const char *fmt, ...) _printf_(1, 2);
static int usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("torvm-broker: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\nTry 'torvm-broker --help'.\n", stderr);
	return EXIT_CODE_USAGE;
}

static bool number_ok(const char *s, long min, long max)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(s, &end, 10);
	return errno == 0 && *s && !*end && value >= min && value <= max;
}

/* Return: -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "accel", required_argument, NULL, 'a' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "confirm", required_argument, NULL, 'C' },
		{ "runtime-dir", required_argument, NULL, 'r' },
		{ "state-dir", required_argument, NULL, 's' },
		{ "image-dir", required_argument, NULL, 'i' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'c': o->config = optarg; break;
		case 'a': o->accel = optarg; break;
		case 'v': o->verbose = true; break;
		case 'C': o->confirm = optarg; break;
		case 'r': o->runtime_dir = optarg; break;
		case 's': o->state_dir = optarg; break;
		case 'i': o->image_dir = optarg; break;
		case 'h': fputs(usage, stdout); return EXIT_CODE_OK;
		case 'V':
			puts("torvm-broker " TORVM_VERSION);
			return EXIT_CODE_OK;
		default:
			fputs("Try 'torvm-broker --help'.\n", stderr);
			return EXIT_CODE_USAGE;
		}
	}
	if (optind < argc)
		return usage_error("'%s': no such argument", argv[optind]);
	if (o->accel && strcmp(o->accel, "auto") != 0 &&
	    strcmp(o->accel, "kvm") != 0 && strcmp(o->accel, "tcg") != 0)
		return usage_error("--accel %s: allowed are auto, kvm, tcg",
				   o->accel);
	if (o->confirm && !number_ok(o->confirm, 1, CONFIRM_MAX_S))
		return usage_error("--confirm %s: allowed are 1 to %d seconds",
				   o->confirm, CONFIRM_MAX_S);
	return -1;
}

static struct spawner_user find_user(const char *name, unsigned int fallback)
{
	const struct passwd *pw = getpwnam(name);
	struct spawner_user user = { .uid = fallback, .gid = fallback };

	if (pw && pw->pw_uid != 0)
		user = (struct spawner_user){ .uid = pw->pw_uid,
					      .gid = pw->pw_gid };
	return user;
}

/* Whether an id that stands in for a missing user is somebody's. */
static int check_id(uid_t uid, const char *name, struct error *e)
{
	const struct passwd *pw = getpwuid(uid);

	if (!pw || strcmp(pw->pw_name, name) == 0)
		return 0;
	return error_set(e, -EEXIST,
			 "there is no user %s, and the id %u that would stand "
			 "in for it belongs to %s; make one: adduser --system "
			 "--no-create-home --group %s",
			 name, uid, pw->pw_name, name);
}

static int find_users(struct spawner_setup *s, struct error *e)
{
	const struct group *kvm;
	int r;

	s->engine = find_user("torvm", FALLBACK_ENGINE_ID);
	s->vm = find_user("torvm-vm", FALLBACK_VM_ID);
	kvm = getgrnam("kvm");
	if (kvm)
		s->vm.group = kvm->gr_gid;
	r = check_id(s->engine.uid, "torvm", e);
	if (r == 0)
		r = check_id(s->vm.uid, "torvm-vm", e);
	/* The firewall lets the VM's user out, and must not let the engine. */
	if (r == 0 && s->engine.uid == s->vm.uid)
		r = error_set(e, -EINVAL,
			      "the users torvm and torvm-vm have the same id");
	return r;
}

static int open_dirs(struct setup *s, const struct options *o, struct error *e)
{
	const struct spawner_user *engine = &s->spawner.engine;

	s->runtime_path = dirs_absolute(o->runtime_dir);
	s->state_path = dirs_absolute(o->state_dir);
	if (!s->runtime_path || !s->state_path)
		return error_set(e, -ENOMEM,
				 "the working directory cannot be found");
	s->runtime_fd = dirs_open(AT_FDCWD, s->runtime_path, 0, 0, 0755,
				  &s->own_runtime_dir, e);
	if (s->runtime_fd < 0)
		return s->runtime_fd;
	/* Group root may write, so that the broker needs no capability to make
	 * the channels' sockets in a directory that is the engine's. */
	s->vm_dir_fd = dirs_open(s->runtime_fd, RUNTIME_VM_DIR, engine->uid, 0,
				 0770, NULL, e);
	if (s->vm_dir_fd < 0)
		return error_prefix(e, "in %s", s->runtime_path);
	s->spawner.engine_fds[ENGINE_FD_VM_DIR] = s->vm_dir_fd;
	s->spawner.engine_fds[ENGINE_FD_STATE_DIR] =
		dirs_open(AT_FDCWD, s->state_path, engine->uid, engine->gid,
			  0700, &s->made_state_dir, e);
	return s->spawner.engine_fds[ENGINE_FD_STATE_DIR] < 0 ? e->code : 0;
}

/* root and the group torvm may connect; without that group root alone. */
static int make_control_socket(struct setup *s, struct error *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct group *group = getgrnam("torvm");
	_cleanup_close_ int fd = -1;
	mode_t mask;
	int r;

	if (unlinkat(s->runtime_fd, RUNTIME_CONTROL_SOCKET, 0) < 0 &&
	    errno != ENOENT)
		return error_set(e, -errno, "%s/%s is in the way: %s",
				 s->runtime_path, RUNTIME_CONTROL_SOCKET,
				 strerror(errno));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(e, -errno, "socket: %s", strerror(errno));
	snprintf(address.sun_path, sizeof(address.sun_path),
		 "/proc/self/fd/%d/" RUNTIME_CONTROL_SOCKET, s->runtime_fd);
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (r == 0 && group)
		r = fchownat(s->runtime_fd, RUNTIME_CONTROL_SOCKET, 0,
			     group->gr_gid, AT_SYMLINK_NOFOLLOW);
	if (r == 0 && group)
		r = fchmodat(s->runtime_fd, RUNTIME_CONTROL_SOCKET, 0660, 0);
	if (r < 0 || listen(fd, 64) < 0)
		return error_set(e, -errno,
				 "the control socket cannot be made in %s: %s",
				 s->runtime_path, strerror(errno));
	s->spawner.engine_fds[ENGINE_FD_CONTROL] = steal_fd(&fd);
	return 0;
}

static int open_null(struct error *e)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	return fd < 0 ? error_set(e, -errno, "/dev/null: %s", strerror(errno))
		      : fd;
}

/* Replaces the file by a copy that nobody can change, so that an engine that
 * takes over has what the first one accepted, whatever became of the file. Its
 * owner and mode go along: the engine judges them. What is no file of a
 * sensible size stays as it is, for the engine to refuse. */
static int seal_config(int *fd, const char *name, struct error *e)
{
	const unsigned int seals =
		F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	_cleanup_close_ int copy = -1;
	struct stat st;
	off_t at = 0;
	ssize_t n = 0;

	if (fstat(*fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    st.st_size > CONFIG_SIZE_MAX)
		return 0;
	copy = memfd_create("config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (copy < 0)
		return error_set(e, -errno, "memfd_create: %s",
				 strerror(errno));
	while (at < CONFIG_SIZE_MAX &&
	       (n = sendfile(copy, *fd, &at, (size_t)CONFIG_SIZE_MAX)) > 0)
		;
	if (n < 0 || fchown(copy, st.st_uid, st.st_gid) < 0 ||
	    fchmod(copy, st.st_mode & 07777) < 0 ||
	    fcntl(copy, F_ADD_SEALS, seals) < 0)
		return error_set(e, -errno, "%s cannot be read: %s", name,
				 strerror(errno));
	close(*fd);
	*fd = steal_fd(&copy);
	return 0;
}

/* Return: 0 or the exit code. */
static int open_config(struct setup *s, const struct options *o,
		       struct error *e)
{
	int fd;

	if (o->config) {
		fd = open(o->config,
			  O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0) {
			error_set(e, -errno, "%s cannot be opened: %s",
				  o->config,
				  errno == ELOOP ? "it is a symbolic link"
						 : strerror(errno));
			return EXIT_CODE_CONFIG;
		}
		if (seal_config(&fd, o->config, e) < 0) {
			close(fd);
			return EXIT_CODE_CONFIG;
		}
	} else {
		fd = open_null(e);
	}
	s->spawner.engine_fds[ENGINE_FD_CONFIG] = fd;
	return fd < 0 ? EXIT_CODE_FAILED : 0;
}

/* Whether the images are there at all is the engine's to say: vm.image_dir of
 * the configuration may name others. Return: 0 or the exit code. */
static int open_images(struct setup *s, const struct options *o,
		       struct error *e)
{
	int fd;

	s->image_path =
		o->image_dir ? dirs_absolute(o->image_dir) : dirs_find_images();
	if (!s->image_path)
		return EXIT_CODE_FAILED;
	fd = open(s->image_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && o->image_dir) {
		error_set(e, -errno,
			  "the image folder %s cannot be opened: %s; `make vm` "
			  "builds one",
			  s->image_path, strerror(errno));
		return EXIT_CODE_PRECHECK;
	}
	if (fd < 0)
		fd = open_null(e);
	s->spawner.engine_fds[ENGINE_FD_IMAGE_DIR] = fd;
	return fd < 0 ? EXIT_CODE_FAILED : 0;
}

static int open_engine(struct setup *s, const struct options *o,
		       struct error *e)
{
	_cleanup_free_ char *path = dirs_find_program("torvmd");
	char **argv = s->engine_argv;
	size_t n = 0;

	if (!path)
		return error_set(e, -ENOENT,
				 "torvmd is neither beside this program nor in "
				 "../libexec/torvm; build or install TorVM "
				 "completely");
	s->spawner.engine_binary = open(path, O_PATH | O_CLOEXEC);
	if (s->spawner.engine_binary < 0)
		return error_set(e, -errno, "%s cannot be opened: %s", path,
				 strerror(errno));
	argv[n++] = steal_ptr(&path);
	if (o->config) {
		argv[n++] = (char *)"--config";
		argv[n++] = (char *)o->config;
	}
	if (o->accel) {
		argv[n++] = (char *)"--accel";
		argv[n++] = (char *)o->accel;
	}
	if (o->verbose)
		argv[n++] = (char *)"--verbose";
	if (o->confirm) {
		argv[n++] = (char *)"--confirm";
		argv[n++] = (char *)o->confirm;
	}
	argv[n++] = (char *)"--release";
	argv[n++] = (char *)TORVM_VERSION;
	argv[n++] = (char *)"--runtime-dir";
	argv[n++] = s->runtime_path;
	argv[n++] = (char *)"--state-dir";
	argv[n++] = s->state_path;
	argv[n++] = (char *)"--image-dir";
	argv[n++] = s->image_path;
	if (o->image_dir)
		argv[n++] = (char *)"--image-dir-fixed";
	argv[n] = NULL;
	s->spawner.engine_argv = argv;
	return 0;
}

static int open_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int fork_spawner(struct setup *s, struct error *e)
{
	pid_t parent = getpid();
	int pair[2], r;

	r = channel_pair(pair);
	if (r < 0)
		return error_set(e, r, "socketpair: %s", strerror(-r));
	s->spawner_pid = fork();
	if (s->spawner_pid < 0)
		return error_set(e, -errno, "fork: %s", strerror(errno));
	if (s->spawner_pid == 0) {
		/* Its own session: Ctrl-C is for the broker. */
		setsid();
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXIT_CODE_FAILED);
		close(pair[0]);
		lock_release(&s->lock);
		closep(&s->signal_fd);
		_exit(spawner_main(&s->spawner, pair[1]));
	}
	close(pair[1]);
	s->link.fd = pair[0];
	return 0;
}

/* Return: 0 or the exit code, with a sentence. */
static int prepare(struct setup *s, const struct options *o, struct error *e)
{
	int code, r;

	r = lock_take(&s->lock, e);
	if (r < 0)
		return r == -EBUSY ? EXIT_CODE_BUSY : EXIT_CODE_FAILED;
	r = find_users(&s->spawner, e);
	if (r == 0)
		r = open_dirs(s, o, e);
	if (r < 0)
		return EXIT_CODE_PRECHECK;
	r = lock_take_directory(&s->lock, s->runtime_fd, e);
	if (r < 0)
		return r == -EBUSY ? EXIT_CODE_BUSY : EXIT_CODE_FAILED;
	code = open_config(s, o, e);
	if (code == 0)
		code = open_images(s, o, e);
	if (code)
		return code;
	r = open_engine(s, o, e);
	if (r == 0)
		r = make_control_socket(s, e);
	if (r < 0)
		return EXIT_CODE_PRECHECK;
	s->signal_fd = open_signals();
	if (chdir("/") < 0 || s->signal_fd < 0)
		return EXIT_CODE_FAILED;
	r = fork_spawner(s, e);
	return r < 0 ? EXIT_CODE_FAILED : 0;
}

static int serve(struct setup *s, bool *ret_open, struct error *e)
{
	_cleanup_(net_closep) struct net *net = NULL;
	struct broker b = BROKER_NULL;
	int r, code;

	r = net_open(&net, e);
	if (r < 0)
		return EXIT_CODE_PRECHECK;
	b.net = net;
	b.spawner = &s->link;
	b.runtime_fd = s->runtime_fd;
	b.vm_dir_fd = s->vm_dir_fd;
	b.vm_uid = s->spawner.vm.uid;
	r = broker_adopt(&b, e);
	if (r == 0)
		r = sandbox_enter(e);
	if (r < 0) {
		*ret_open = !net_firewall_present(net);
		return EXIT_CODE_FAILED;
	}
	s->own_runtime_dir =
		s->own_runtime_dir || b.adopted || b.under_lockdown;
	code = loop_run(&b, s->signal_fd);
	*ret_open = b.unblocked || (!b.blocked && !b.adopted);
	broker_deinit(&b);
	return code;
}

int main(int argc, char **argv)
{
	struct options options = { .runtime_dir = DEFAULT_RUNTIME_DIR,
				   .state_dir = DEFAULT_STATE_DIR };
	struct setup setup = { .runtime_fd = -1,
			       .vm_dir_fd = -1,
			       .lock = LOCK_NULL,
			       .link = SPAWNER_NULL,
			       .signal_fd = -1 };
	struct error e = ERROR_NULL(e);
	bool ours, open = true;
	int code;

	code = parse_options(argc, argv, &options);
	if (code >= 0)
		return code;
	log_setup("torvm-broker",
		  options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	if (geteuid() != 0) {
		log_error("TorVM changes the network and needs root: sudo "
			  "torvm --headless");
		return EXIT_CODE_PRIVILEGES;
	}
	umask(022);
	/* Nothing that a careless caller left open goes on to our children. */
	if (close_range(3, ~0U, 0) < 0)
		log_debug("close_range: %s", strerror(errno));
	code = prepare(&setup, &options, &e);
	ours = setup.lock.file_fd >= 0 || setup.own_runtime_dir;
	if (code == 0)
		code = serve(&setup, &open, &e);
	if (e.code)
		log_error("%s", e.text);
	closep(&setup.link.fd);
	if (setup.spawner_pid > 0)
		waitpid(setup.spawner_pid, NULL, 0);
	if (open && ours) {
		restore_clean_dir(setup.runtime_fd);
		if (setup.own_runtime_dir)
			rmdir(setup.runtime_path);
	}
	/* Empty only if the engine never came to use it. */
	if (setup.made_state_dir)
		rmdir(setup.state_path);
	lock_release(&setup.lock);
	return code;
}
