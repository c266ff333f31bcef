/* Runs torvm-moat without this program's privileges. */
#pragma once

#include "config/bridge_list.h"

#define MOAT_CALL_TEXTS_MAX 300

struct moat_call {
	/* What is asked; see torvm-moat. NULL: left out. */
	const char *question;
	const char *url;
	const char *proxy;
	const char *through;
	const char *country;
	const char *transport;

	/* The answer. */
	struct config_bridge_list bridges;
	char told_country[3];
	bool none_needed;
	unsigned long n_left_out;
	char *texts[MOAT_CALL_TEXTS_MAX];
	size_t n_texts;
};

/**
 * moat_call() - Ask the bridge service
 *
 * If this is root, the helper runs as the user who called sudo(8), else as
 * nobody. Blocks for up to a few minutes.
 * Return: 0; -EHOSTUNREACH: the service did not answer as asked, or a negative
 * errno, with a sentence
 */
int moat_call(struct moat_call *call, struct error *e);
void moat_call_deinit(struct moat_call *call);
