/*
 * Configuration: one table of fields, from which the parser, the defaults, the
 * checker and the manual page's key list are made.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

/* Largest configuration file read, in bytes. */
#define CONFIG_FILE_MAX ((size_t)256 * 1024)

/* Least vm.memory_mb with a pluggable transport: the kernel unpacks Tor's and
 * the transports' archives (38 MB) into half of it; with 128 it ran out of
 * space, with 160 a third was left. */
#define CONFIG_TRANSPORT_MEMORY_MB 160

enum config_accel {
	CONFIG_ACCEL_AUTO,
	CONFIG_ACCEL_KVM,
	CONFIG_ACCEL_TCG,
	CONFIG_ACCEL_COUNT,
};

enum config_transport {
	CONFIG_TRANSPORT_NONE, /* plain bridges ("none") */
	CONFIG_TRANSPORT_OBFS4,
	CONFIG_TRANSPORT_MEEK_LITE,
	CONFIG_TRANSPORT_SNOWFLAKE,
	CONFIG_TRANSPORT_WEBTUNNEL,
	CONFIG_TRANSPORT_COUNT,
};

enum config_padding {
	CONFIG_PADDING_AUTO, /* as the relay asks for it */
	CONFIG_PADDING_ON,
	CONFIG_PADDING_OFF,
	CONFIG_PADDING_REDUCED,
	CONFIG_PADDING_COUNT,
};

enum config_proxy {
	CONFIG_PROXY_NONE,
	CONFIG_PROXY_HTTP,
	CONFIG_PROXY_HTTPS,
	CONFIG_PROXY_SOCKS5,
	CONFIG_PROXY_COUNT,
};

/* Every string is owned by the struct and never NULL; "" means not set. */
struct config {
	struct {
		uint32_t memory_mb; /* MiB */
		uint32_t cpus;
		enum config_accel accel;
		char *qemu_path;  /* absolute; "": looked up in /usr/bin */
		char *image_dir;  /* absolute; "": the installed or built one */
		char *state_disk; /* absolute; "": STATE_DIR/state.img */
	} vm;
	struct {
		char *tap_name; /* valid interface name, at most 15 bytes */
		struct in_addr host_ip;
		struct in_addr vm_ip; /* same /30 as host_ip */
		bool lan_access;
		bool ipv6;
	} network;
	struct {
		bool use_bridges;
		bool automatic;
		enum config_transport transport;
		char **bridges; /* secrets: never logged */
		size_t n_bridges;
		char **addresses; /* "NAME=ADDRESS": not looked up */
		size_t n_addresses;
		char *moat;    /* arguments of a meek bridge line, or "" */
		char *ca_file; /* or "" */
	} bridge;
	struct {
		enum config_proxy type;
		char *address; /* HOST:PORT */
		char *username;
		char *password; /* secret */
		char *ca_file;  /* or "" */
	} proxy;
	struct {
		char *exit_nodes;
		char *exclude_nodes;
		char *exclude_exit_nodes;
		bool strict_nodes;
		bool geoip; /* also where no country is named */
		enum config_padding connection_padding;
		bool client_use_ipv4; /* to relays; one of both is set */
		bool client_use_ipv6;
		char **options; /* torrc lines, names from the allow-list */
		size_t n_options;
	} tor;
	struct {
		uint32_t restart_min_delay_s; /* first pause after a failure */
		uint32_t restart_max_delay_s; /* pauses double up to this */
		uint32_t boot_timeout_s;      /* QEMU start -> guest ready */
		uint32_t bootstrap_stall_s;   /* no progress: say where, why */
		uint32_t shutdown_timeout_s;  /* system_powerdown -> quit */
		uint32_t heartbeat_timeout_s; /* silent guest -> restarted */
	} failsafe;
	struct {
		enum log_level level;
		char *file; /* absolute; "": none */
	} log;
};

const char *config_accel_name(enum config_accel accel);
int config_accel_from_name(const char *name); /* or -EINVAL */
/* As the configuration writes it: "none", "obfs4", "meek", ... */
const char *config_transport_name(enum config_transport transport);
/* As a bridge line and ClientTransportPlugin write it: "meek_lite" for meek. */
const char *config_transport_method(enum config_transport transport);
const char *config_proxy_name(enum config_proxy proxy);
const char *config_padding_name(enum config_padding padding);

/**
 * config_new_default() - Allocate a configuration with every default
 *
 * Return: owned by the caller (config_free()); NULL when out of memory
 */
struct config *config_new_default(void);
void config_free(struct config *cfg);
void config_freep(struct config **cfg);

/**
 * config_parse() - Parse JSON text over the defaults and validate all of it
 * @name:	File's name for messages
 * @text:	JSON text of @len bytes, need not be terminated
 * @ret:	On success the configuration, owned by the caller
 *
 * Unknown and duplicate keys, wrong types, values out of range and impossible
 * combinations are refused: -EINVAL, with a sentence of the form
 * "FILE: key network.tap_name: what is wrong; allowed: ...". Pure: no I/O.
 */
int config_parse(const char *name, const char *text, size_t len,
		 struct config **ret, struct error *e);

/**
 * config_read_fd() - Check an open file's owner, mode and size, then parse it
 * @fd:		Open for reading; stays the caller's, its offset is not used
 *
 * Refused: not a regular file, over CONFIG_FILE_MAX bytes, writable by group
 * or others, owner neither root nor the caller (-EPERM); as config_parse().
 */
int config_read_fd(int fd, const char *name, struct config **ret,
		   struct error *e);

/* config_load_fd() - The same, then config_check_files(). */
int config_load_fd(int fd, const char *name, struct config **ret,
		   struct error *e);

/* config_load() - As config_load_fd(), for a path (symlinks refused). */
int config_load(const char *path, struct config **ret, struct error *e);

/**
 * config_check_files() - Check on the disk what config_parse() cannot see
 *
 * vm.qemu_path, if set: exists, leads over no symbolic link, is a program that
 * everybody may run and only its owner may write. config_load() and
 * config_load_fd() do this too. Return: 0 or -EINVAL.
 */
int config_check_files(const struct config *cfg, const char *name,
		       struct error *e);

/**
 * config_render() - Write a configuration as JSON with every key
 * @secrets:	false: secrets are written as "***"
 *
 * Return: text owned by the caller (free()), or NULL when out of memory
 */
char *config_render(const struct config *cfg, bool secrets);

/**
 * config_schema() - The JSON Schema (draft 2020-12) of a configuration
 *
 * What it refuses is refused; it cannot say all that config_parse() checks.
 * Return: text owned by the caller (free()), or NULL when out of memory
 */
char *config_schema(void);

/* Key list with type, range, default and doc, as mdoc(7) or as Markdown. */
enum config_doc_format { CONFIG_DOC_MAN, CONFIG_DOC_MARKDOWN };
void config_print_doc(FILE *out, enum config_doc_format format);
