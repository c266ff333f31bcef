/*
 * torvmd, the engine. The broker starts it as an unprivileged user with the
 * descriptors and arguments of daemon/fds.h; it is not for starting by hand.
 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "config/config.h"
#include "daemon/engine.h"
#include "daemon/fds.h"

static int usage(const char *why, const char *what)
{
	fprintf(stderr,
		"torvmd: %s%s\n"
		"This is a part of TorVM that torvm-broker starts; see "
		"torvm(1).\n",
		why, what);
	return EXIT_CODE_USAGE;
}

static int parse_seconds(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || value < 1 ||
	    value > 86400)
		return -EINVAL;
	*ret = (uint32_t)value;
	return 0;
}

static int parse_options(int argc, char **argv, struct options *opt)
{
	static const struct option known[] = {
		{ "release", required_argument, NULL, 'V' },
		{ "config", required_argument, NULL, 'c' },
		{ "accel", required_argument, NULL, 'a' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "confirm", required_argument, NULL, 'C' },
		{ "resume", no_argument, NULL, 'r' },
		{ "runtime-dir", required_argument, NULL, 'R' },
		{ "state-dir", required_argument, NULL, 'S' },
		{ "image-dir", required_argument, NULL, 'I' },
		{ "image-dir-fixed", no_argument, NULL, 'F' },
		{ 0 },
	};
	const char *release = "";
	int c;

	*opt = (struct options){ .accel = -1 };
	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'V': release = optarg; break;
		case 'c': opt->config_name = optarg; break;
		case 'a':
			opt->accel = config_accel_from_name(optarg);
			if (opt->accel < 0)
				return usage(
					"--accel is auto, kvm or tcg, not ",
					optarg);
			break;
		case 'v': opt->verbose = true; break;
		case 'C':
			if (parse_seconds(optarg, &opt->confirm_s) < 0)
				return usage("--confirm takes 1 to 86400 "
					     "seconds, not ",
					     optarg);
			break;
		case 'r': opt->resume = true; break;
		case 'R': opt->runtime_dir = optarg; break;
		case 'S': opt->state_dir = optarg; break;
		case 'I': opt->image_dir = optarg; break;
		case 'F': opt->image_dir_fixed = true; break;
		default: return usage("unknown option", "");
		}
	}
	if (optind != argc)
		return usage("unexpected argument ", argv[optind]);
	if (strcmp(release, TORVM_VERSION) != 0) {
		fprintf(stderr,
			"torvm: error: torvmd is of version " TORVM_VERSION
			", torvm-broker of version %s: TorVM is installed in "
			"part. Nothing was changed; install it again.\n",
			*release ? release : "unknown");
		return EXIT_CODE_PRECHECK;
	}
	if (!opt->runtime_dir || !opt->state_dir || !opt->image_dir)
		return usage("--runtime-dir, --state-dir and --image-dir are "
			     "needed",
			     "");
	return EXIT_CODE_OK;
}

/* The descriptors must be what fds.h promises before anything uses them. */
static int check_fds(void)
{
	int type;
	socklen_t len = sizeof(type);
	struct stat st;

	if (getsockopt(ENGINE_FD_BROKER, SOL_SOCKET, SO_TYPE, &type, &len) <
		    0 ||
	    type != SOCK_SEQPACKET)
		return usage("no channel to the broker", "");
	for (int fd = ENGINE_FD_CONTROL; fd < ENGINE_FD_COUNT; fd++)
		if (fstat(fd, &st) < 0)
			return usage("a descriptor is missing", "");
	return EXIT_CODE_OK;
}

/* An engine that takes over gets what the first one accepted (the broker keeps
 * a copy). What changed on the disk meanwhile must not keep it from serving:
 * the VM's next start says what is missing. */
static int load_config(const struct options *opt, struct config **ret)
{
	struct error e = ERROR_NULL(e);
	int r;

	if (!opt->config_name) {
		*ret = config_new_default();
		return *ret ? EXIT_CODE_OK : EXIT_CODE_FAILED;
	}
	r = opt->resume ? config_read_fd(ENGINE_FD_CONFIG, opt->config_name,
					 ret, &e)
			: config_load_fd(ENGINE_FD_CONFIG, opt->config_name,
					 ret, &e);
	if (r == 0)
		return EXIT_CODE_OK;
	fprintf(stderr, "torvm: error: %s\n", e.text);
	return EXIT_CODE_CONFIG;
}

static void ignore_signals(void)
{
	/* The broker decides when to stop; a terminal's Ctrl-C reaches all. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	static struct engine engine;
	struct error e = ERROR_NULL(e);
	int code;

	ignore_signals();
	umask(0077);
	code = parse_options(argc, argv, &engine.opt);
	if (code == EXIT_CODE_OK)
		code = check_fds();
	if (code == EXIT_CODE_OK)
		code = load_config(&engine.opt, &engine.cfg);
	if (code != EXIT_CODE_OK) {
		config_free(engine.cfg);
		return code;
	}

	log_setup("torvm",
		  engine.opt.verbose ? LOG_LEVEL_DEBUG : engine.cfg->log.level);
	progress_init(&engine.progress);
	engine.log.progress = &engine.progress;
	if (log_buffer_open(&engine.log, engine.cfg->log.file, &e) < 0) {
		log_error("%s. %s", e.text,
			  engine.opt.resume ? "TorVM goes on without it."
					    : "Nothing was changed.");
		if (!engine.opt.resume ||
		    log_buffer_open(&engine.log, "", &e) < 0) {
			config_free(engine.cfg);
			return EXIT_CODE_PRECHECK;
		}
	}
	code = engine_run(&engine);
	log_buffer_close(&engine.log);
	config_free(engine.cfg);
	return code;
}
