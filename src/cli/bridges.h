/* What the files of "torvm bridges" share. */
#pragma once

#include "cli/cli.h"
#include "config/bridge_list.h"

/* Each: the words after its own name. Return: enum exit_code. */
int cli_bridges_add(const struct cli_args *args, const char *path,
		    char *const *words, int n);
int cli_bridges_remove(const struct cli_args *args, const char *path,
		       char *const *words, int n);
int cli_bridges_use(const struct cli_args *args, const char *path,
		    char *const *words, int n);

int cli_bridges_request(const struct cli_args *args, const char *path,
			char *const *words, int n);
int cli_bridges_test(const struct cli_args *args, const char *path,
		     char *const *words, int n);

/* Adds @lines to the configuration and says so. */
int cli_bridges_add_list(const char *path,
			 const struct config_bridge_list *lines);

/* Whether Tor is entered by bridge @i. */
bool cli_bridges_is_used(const struct config *cfg, size_t i);

/* Draws @text as a QR code for terminals with UTF-8. */
int cli_bridges_print_qr(const char *text);

/* What users call a transport: "plain" for bridges without one. */
const char *cli_bridges_transport_name(enum config_transport transport);

/* The exit code for an error of config_edit() or of a list of bridges. */
enum exit_code cli_bridges_code(int error);

/* "2 obfs4 bridges" */
const char *cli_bridges_count(size_t n, enum config_transport transport,
			      char *buf, size_t size);
