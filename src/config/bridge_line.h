/* Bridge lines: [TRANSPORT] ADDRESS:PORT [FINGERPRINT] [NAME=VALUE ...] */
#pragma once

#include "config/fields.h"

/* The guest's torrc has lines of at most 1024 bytes. */
#define CONFIG_BRIDGE_LINE_MAX 1000
#define CONFIG_BRIDGE_ARGS_MAX 32

/* A line taken apart. The texts point into @copy. */
struct config_bridge {
	char *copy;
	enum config_transport transport;
	const char *address;     /* ADDRESS:PORT */
	const char *fingerprint; /* 40 hexadecimal digits, or NULL */
	struct {
		const char *name, *value;
	} args[CONFIG_BRIDGE_ARGS_MAX];
	size_t n_args;
};
#define CONFIG_BRIDGE_NULL(b) ((struct config_bridge){ 0 })

/**
 * config_bridge_parse() - Take a bridge line apart and check all of it
 * @line:	Without the word "Bridge"
 * @ret:	Freed by config_bridge_deinit(), on failure too
 *
 * Lines are secrets: the problem names the argument, never its value.
 * Return: 0 or -EINVAL with @p filled.
 */
int config_bridge_parse(const char *line, struct config_bridge *ret,
			struct config_problem *p);
void config_bridge_deinit(struct config_bridge *bridge);

/* Whether @line is a bridge line of a transport that TorVM carries. */
int config_check_bridge_line(const char *line, struct config_problem *p);

/* Whether @args are what a line of meek has behind its address. */
int config_check_moat(const char *args, struct config_problem *p);

/* What goes before them to make a line of it; the address is a place-holder. */
#define CONFIG_MOAT_LINE "meek_lite 192.0.2.20:80 "

/* The transport of a line that was found good. */
enum config_transport config_bridge_line_transport(const char *line);

/* The value of the argument @name, or NULL. */
const char *config_bridge_arg(const struct config_bridge *bridge,
			      const char *name);

/**
 * config_bridge_mask() - Write a good line with "***" for what is secret in it
 *
 * Secret is what lets others use, find or block the bridge besides its address:
 * obfs4's cert, webtunnel's url, what belongs to a queue of Amazon's.
 * Return: owned by the caller (free()), or NULL when out of memory
 */
char *config_bridge_mask(const char *line);
