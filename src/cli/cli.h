/* What the files of the command line share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/exit_code.h"
#include "client/client.h"
#include "config/config.h"

/* The configuration without --config, if it exists. */
#define CLI_CONFIG_DIR "/etc/torvm"
#define CLI_CONFIG_FILE CLI_CONFIG_DIR "/torvm.json"

#define CLI_LOCKDOWN_UNIT "torvm-lockdown.service"

/* Seconds `torvm up --wait` waits unless told otherwise. */
#define CLI_WAIT_S 300
/* The longest --confirm and --timeout. */
#define CLI_SECONDS_MAX 3600
/* A stop takes the machine's power-off and some restoring; beyond this
 * something is stuck. */
#define CLI_STOP_TIMEOUT_S 180

/* One bit per option; options.c has their names. */
enum cli_option {
	CLI_OPTION_HEADLESS,
	CLI_OPTION_CONFIG,
	CLI_OPTION_ACCEL,
	CLI_OPTION_VERBOSE,
	CLI_OPTION_RUNTIME_DIR,
	CLI_OPTION_STATE_DIR,
	CLI_OPTION_IMAGE_DIR,
	CLI_OPTION_YES,
	CLI_OPTION_CONFIRM,
	CLI_OPTION_WAIT,
	CLI_OPTION_TIMEOUT,
	CLI_OPTION_JSON,
	CLI_OPTION_WATCH,
	CLI_OPTION_FOLLOW,
	CLI_OPTION_SHOW_SECRETS,
	CLI_OPTION_QR,
	CLI_OPTION_TRANSPORT,
	CLI_OPTION_COUNTRY,
	CLI_OPTION_DIRECT,
	CLI_OPTION_URL,
	CLI_OPTION_ADD,
	CLI_OPTION_CONNECTION,
	CLI_OPTION_HELP,
	CLI_OPTION_VERSION,
	CLI_OPTION_COUNT,
};
#define CLI_BIT(option) (1u << CLI_OPTION_##option)

/* What a controller is started with. */
#define CLI_START_OPTIONS                                                 \
	(CLI_BIT(CONFIG) | CLI_BIT(ACCEL) | CLI_BIT(VERBOSE) |            \
	 CLI_BIT(RUNTIME_DIR) | CLI_BIT(STATE_DIR) | CLI_BIT(IMAGE_DIR) | \
	 CLI_BIT(YES) | CLI_BIT(CONFIRM))

struct cli_args {
	unsigned int given; /* CLI_BIT() of every option that was given */
	/* Paths are absolute; NULL: not given. Owned. */
	char *config; /* or CLI_CONFIG_FILE, if that exists */
	char *runtime_dir;
	char *state_dir;
	char *image_dir;
	const char *accel;     /* "auto", "kvm", "tcg"; NULL: not given */
	uint32_t confirm_s;    /* 0: not given */
	uint32_t timeout_s;    /* 0: not given */
	const char *transport; /* NULL: not given, as are these */
	const char *country;
	const char *url;
	uint32_t qr;        /* number of a bridge; 0: not given */
	char *const *words; /* arguments that are no options */
	int n_words;
};

struct cli_command {
	const char *name;      /* "" for torvm itself */
	const char *arguments; /* "FILE"; "" if there are none */
	const char *summary;   /* half a line */
	unsigned int options;  /* CLI_BIT() of what it takes, besides HELP */
	int min_words, max_words;
	int (*run)(const struct cli_args *args); /* enum exit_code */
	const char *description;
	const char *exit_codes; /* lines "  0  meaning\n" */
	const char *examples;   /* lines "  torvm ...\n" */
};

/* The table (main.c); ends with a row without name. */
extern const struct cli_command cli_commands[];

/**
 * cli_parse() - Parse a command's options and arguments
 * @argv:	From the command's name on; permuted by getopt_long(3)
 *
 * Prints what is wrong. Return: 0, EXIT_CODE_USAGE, or EXIT_CODE_FAILED.
 */
int cli_parse(const struct cli_command *command, int argc, char **argv,
	      struct cli_args *ret);
void cli_args_deinit(struct cli_args *args);

/* A whole number from 1 to 999999, or 0: it is none. */
unsigned long cli_parse_number(const char *text);

/* The options of @mask as lines of --help. */
void cli_print_options(FILE *out, unsigned int mask);

/* --runtime-dir or its default. */
const char *cli_runtime_dir(const struct cli_args *args);

/* "torvm: sentence" on standard error. Return: @code. */
int cli_fail(enum exit_code code, const char *fmt, ...) _printf_(2, 3);

/* The exit code for an error of the client library. */
enum exit_code cli_client_code(int error);

/* Colours, if @out is a terminal that has them: "" otherwise. */
enum cli_colour { CLI_PLAIN, CLI_BOLD, CLI_RED, CLI_GREEN, CLI_YELLOW };
const char *cli_colour(FILE *out, enum cli_colour colour);

/* "512 B", "12.3 kB", "4.5 MB", ... */
const char *cli_bytes(int64_t bytes, char *buf, size_t size);

/* "1 h 12 min", "3 min 4 s", "12 s" */
const char *cli_duration(int64_t seconds, char *buf, size_t size);

/* A line on standard error that shows how a start or stop is going: on a
 * terminal one that is rewritten, elsewhere one for each new stage. */
struct cli_progress {
	bool quiet; /* nothing is shown */
	bool tty;
	char last[256];
};
void cli_progress_init(struct cli_progress *p);
void cli_progress_show(struct cli_progress *p,
		       const struct client_status *status);
/* Leaves the terminal at the beginning of an empty line. */
void cli_progress_end(struct cli_progress *p);

/* The stage in plain words, one line. */
void cli_describe(const struct client_status *status, char *buf, size_t size);

/* Whether a controller with @status is about to end. */
bool cli_is_stopping(const struct client_status *status);

/* start.c: what has to be true before a controller is started. */

/* Root, a good configuration, and no remote session that would cut itself
 * off. Return: EXIT_CODE_OK or the exit code after a printed sentence. */
int cli_check_start(const struct cli_args *args);

/* The argument vector for torvm-broker; NULL-terminated, owned by the caller
 * (free() the vector alone). Return: NULL after a printed sentence. */
char **cli_broker_argv(const struct cli_args *args, char *path, size_t size);

/**
 * cli_find_program() - Find one of TorVM's programs
 *
 * Beside the running program, then in ../libexec/torvm.
 * Return: 0, or a negative errno with a sentence.
 */
int cli_find_program(const char *name, char *ret, size_t size, struct error *e);

/**
 * cli_open_image_dir() - Open the folder of the VM's image
 * @given:	--image-dir, or NULL: the configuration's, the checkout's, the
 *		system's
 * @path:	Which it is, also on failure; CLI_IMAGE_DIR_SIZE bytes do
 *
 * Return: a descriptor (O_PATH) that the caller closes, or -1
 */
int cli_open_image_dir(const char *given, const struct config *cfg, char *path,
		       size_t size);
#define CLI_IMAGE_DIR_SIZE 1100

/* Whether one of the caller's ancestors serves a remote login. */
bool cli_session_is_remote(void);

/* Whether a dead controller left its block: by its journal, or, for root, by
 * its firewall tables in this network namespace. */
bool cli_leftovers(const char *runtime_dir);

/* Whether lockdown is on: by its file, or, for root, by the block in this
 * network namespace. */
bool cli_lockdown(const char *runtime_dir);

/**
 * cli_lockdown_at_boot() - Whether the block is put up at each boot
 *
 * Return: 1, 0, or -1: the unit is not installed, or there is no systemd.
 */
int cli_lockdown_at_boot(void);

/* Enables or disables that. Return: whether systemctl(1) succeeded. */
bool cli_lockdown_set_boot(bool on);

/* Commands. */
int cli_headless(const struct cli_args *args);
int cli_up(const struct cli_args *args);
int cli_down(const struct cli_args *args);
int cli_confirm(const struct cli_args *args);
int cli_status(const struct cli_args *args);
int cli_log(const struct cli_args *args);
int cli_connection(const struct cli_args *args);
int cli_circuits(const struct cli_args *args);
int cli_newnym(const struct cli_args *args);
int cli_bridges(const struct cli_args *args);
int cli_lockdown_command(const struct cli_args *args);
int cli_selftest(const struct cli_args *args);
int cli_recover(const struct cli_args *args);
int cli_doctor(const struct cli_args *args);
int cli_config(const struct cli_args *args);
int cli_version(const struct cli_args *args);
